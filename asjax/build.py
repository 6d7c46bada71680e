"""The one place that turns names into objects and config files into checked configs.

A short name in a config means a public name in the place of its kind (PLACES): in `__all__` of a
module, or a public file of a package. A user's code has a long name, "my_package.my_file:thing".
The function is called with the fields of the config. The program adds values that only it knows,
such as num_classes, if the function takes them.
"""

from __future__ import annotations

import inspect
import typing
from functools import partial

from asjax import checks, config, recipes
from asjax.config import AsjaxError, split_spec
from asjax.fields import AT_LEAST, FIELDS, METRICS, OFFERED, READ, REQUIRED, SPECS
from asjax.store import formats, schema

PLACES = {
    "model": "asjax.models.{name}:model",
    "frontend": "asjax.frontends:{name}",
    "augment": "asjax.augment:{name}",
    "objective": "asjax.objectives:{name}",
    "optim": "asjax.optim:{name}",
    "schedule": "asjax.optim.schedules:{name}",
    "average": "asjax.optim.averages:{name}",
    "source": "asjax.data.sources:{name}",
    "draw": "asjax.data.draw:{name}",
    "op": "asjax.data.ops:{name}",
    "choice": "asjax.store.choice:{name}",
}
_CALLED = {  # how messages call a kind
    "augment": "augmentation",
    "model": "model family",
    "choice": "rule of eval.select",
    "op": "host op",
    "optim": "optimiser",
    "source": "data source",
}
# --------------------------------------------------------------------------------- names to objects


def find(kind: str, name: str):
    """The function of that name. AsjaxError lists the names that exist and the nearest one."""
    if kind not in PLACES:
        raise config.unknown("kind", kind, PLACES)
    return config.find(_CALLED.get(kind, kind), PLACES[kind], name)


def make(kind: str, spec, **offered):
    """The object that a spec describes: `make("frontend", dict(name="panns_logmel"))`.

    Args:
      kind: a key of PLACES. spec: a dict with a name, or a call as text.
      offered: values that only the program knows; passed if the function takes them.

    Raises:
      AsjaxError: unknown name or field, a missing field, a value out of range.
    """
    name, fields = split_spec(spec)
    label = f"{_CALLED.get(kind, kind)} {name}"
    fields = {k: v for k, v in fields.items() if k not in READ.get(kind, ())}
    made = config.call(find(kind, name), label, offered=offered, **fields)
    return checks.made(kind, label, made)


def chain(kind: str, text: str | None, **offered) -> list:
    """`"a(x=1) | b"` -> [(name, function), ...], each function with its keywords filled in.

    Raises:
      AsjaxError: as `make`.
    """
    links = []
    for name, fields in config.chain(text):
        function, label = find(kind, name), f"{_CALLED.get(kind, kind)} {name}"
        known = inspect.signature(function).parameters
        from_program = {k: v for k, v in offered.items() if k in known}
        from_config = [k for k in known if k not in OFFERED[kind]]
        for key in fields:
            if key not in from_config:
                raise config.unknown(f"{label}: field", key, from_config)
        links.append((name, partial(function, **from_program, **fields)))
    return links


def augment(text: str | None):
    """A chain of augmentations: `fn(rng, batch) -> batch`. Empty or None does not change batches.

    Op number i gets `fold_in(rng, i)`. `fn.names` are the ops' names, `fn.spec` is the text.

    Raises:
      AsjaxError: as `make`. Values out of range are found here, not at the first batch.
    """
    import jax

    ops = chain("augment", text)
    for name, op in ops:
        if ":" not in name:  # a user's op may need its entries
            op(None, {})

    def run(rng, batch):
        for i, (name, op) in enumerate(ops):
            with config.blaming(f"augmentation {name}"):
                new = op(jax.random.fold_in(rng, i), batch)
            checks.augmented(name, batch, new)
            batch = new
        return batch

    run.names, run.spec = tuple(name for name, _ in ops), text or ""
    return run


def label_set(cfg):
    """The label set of a config, with the taxonomy in `labels.parents` if that is set."""
    labels = _label_set(cfg)
    parents = cfg["labels"].get("parents")
    return labels.with_taxonomy(parents) if parents else labels


def _label_set(cfg):
    from asjax import labels
    from asjax.data import hear, sources, strong, tfds

    if cfg["labels"]["name"] != "own":
        return labels.get(cfg["labels"]["name"])
    name, values = split_spec(cfg["data"]["train"])
    if name == "tfds":
        return tfds.own_labels(**values)
    if name == "annotated":
        events = values.get("events") or []
        events = [events] if isinstance(events, str) else events
        return strong.own_labels(events, label_column=values.get("label_column", ""))
    if name == "hear":
        return hear.own_labels(values.get("path", ""))
    place = values.get("csv") or values.get("path") or values.get("root")
    if not place:
        raise AsjaxError(f"labels.name='own' needs data.train with a csv or a path, not {name!r}")
    return sources.own_labels(place, values.get("label_separator"), values.get("columns"))


def source(spec, label_set):
    """The clips that a spec describes, with labels as columns of `label_set`."""
    load = partial(source, label_set=label_set)  # of the sources inside another one
    return make("source", spec, label_set=label_set, load=load)


def pipeline(
    source,
    *,
    num_classes: int,
    batch_size: int,
    sample_rate: int,
    clip_s: float,
    train: bool = True,
    random: bool = False,
    label_set=None,
    seed: int = 0,
    rows=None,
    process_index: int = 0,
    process_count: int = 1,
    **data,
):
    """The batches of a source: endless in the order of `draw`, or one pass in the source's order.

    Waves are int16 if the source says that int16 loses nothing, else float32.

    Args:
      random: in one pass, the host ops act as in training, with the random numbers of
        `data.draw.generator(seed, number of the clip)`.
      label_set: if given, the classes that stored logits of a teacher must have.
      rows, process_index, process_count: which rows of every batch this process makes, as in
        asjax.data.pipeline.build.
      data: other fields of a config's `data`, with the defaults of FIELDS; not `train` and `eval`.

    Raises:
      AsjaxError: unknown draw or op, a value out of its range, an empty source.
    """
    from asjax.data import pipeline as batches
    from asjax.data import resident, teacher, unlabelled

    if odd := sorted(data.keys() - FIELDS["data"].keys()):
        raise config.unknown("pipeline field", odd[0], FIELDS["data"])
    data = {**FIELDS["data"], **data}
    size = round(clip_s * sample_rate)
    if size < 1:
        raise AsjaxError(f"clip_s * sample_rate (samples) must be at least 1, got {size}")
    random = train or random
    known = dict(sample_rate=sample_rate, clip_s=clip_s, num_classes=num_classes, train=random)
    limit = config.typed("data.decode_timeout_s", data["decode_timeout_s"], 60.0)
    spec = data["draw"] if train else "sequential"
    ops = chain("op", data["ops"], **known, decode_timeout_s=limit, pcm16=False)
    # A user's op without the keyword pcm16 may not expect an int16 wave.
    aware = all(":" not in name or "pcm16" in op.keywords for name, op in ops)
    if aware and hasattr(source, "pcm16") and source.pcm16(sample_rate):
        ops = chain("op", data["ops"], **known, decode_timeout_s=limit, pcm16=True)
    unlabelled.check(source, train=train, draw=split_spec(spec)[0], ops=[name for name, _ in ops])
    form = {**known, "train": train, "label_set": label_set}
    begun = teacher.begin(ops, source, data["ops"], **form)
    described = [spec, data["ops"], *known.values()] + [begun.identity] * bool(begun.identity)
    ops, table, notes = begun.ops, None, [*begun.notes]
    if train and data["resident"]:
        ops = resident.ops_of(begun.ops)
        wave = dict(sample_rate=sample_rate, clip_s=clip_s)
        table = resident.load(source, begun.ops, **wave, threads=max(1, data["threads"]))
        source, notes = table.source, [table.note, *notes]
        described += [] if table.exact else ["int16"]
    return batches.build(
        source,
        draw=make("draw", spec, labels=source.labels, seed=seed if random else 0, source=source),
        ops=ops,
        table=table,
        teacher=begun.stored,
        notes=(*(unlabelled.notes(source) if train else ()), *notes),
        batch_size=batch_size,
        described=repr(described),
        train=train,
        rows=rows,
        process_index=process_index,
        process_count=process_count,
        decode_timeout_s=limit,
        **{k: data[k] for k in ("workers", "threads", "cache", "max_bad")},
    )


def data_fields(cfg) -> dict:
    """The fields of a config's `data` that `pipeline` takes."""
    return {k: v for k, v in cfg["data"].items() if k not in ("train", "eval")}


def fields(kind: str, name: str) -> dict:
    """Field -> default (REQUIRED if there is none) of the function that a config's name means."""
    function = find(kind, name)
    known = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):  # a model family: its module's fields
        module = typing.get_type_hints(function).get("return", object)
        known = {**known, **inspect.signature(module).parameters}
        for key in ("parent", "name"):  # fields of every linen module
            known.pop(key, None)
    keep = {k: p for k, p in known.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return {k: p.default for k, p in keep.items() if k not in OFFERED.get(kind, ())}


# -------------------------------------------------------------------------------------- configs


def load(path_and_arg: str, overrides: dict[str, str] | None = None):
    """`"configs/x.py:arg"` plus `{"optim.lr": "3e-4"}` -> complete, locked ConfigDict.

    The file is a recipe, the name of a recipe that comes with asjax, or a config.json of a workdir.
    A config.json is no code, so it cannot name the user's own code (`config.trust`).

    Raises:
      AsjaxError: no such file, or as `finished`.
    """
    path_and_arg, _ = recipes.resolve(path_and_arg)
    where = f"config {path_and_arg.partition(':')[0]}"
    if path_and_arg.endswith(".json"):
        cfg = schema.read_json(path_and_arg)
        schema.require(cfg, formats.CONFIG, where)
        cfg = {key: value for key, value in cfg.items() if key not in formats.HUB_FIELDS}
        return finished(config.new(cfg), overrides, where)
    cfg = config.read(path_and_arg)
    config.trust(cfg)
    return finished(cfg, overrides, where)


def finished(cfg, overrides: dict[str, str] | None = None, where: str = "the config"):
    """A config with overrides and defaults, checked and locked.

    FIELDS has the defaults. An override may set any field of FIELDS and any keyword of a spec.

    Raises:
      AsjaxError: an unknown field (with the nearest known one), a missing field without a default,
        or a value of another type than the field has.
    """
    changed = {key: config.parse_value(text) for key, text in (overrides or {}).items()}
    # Whole parts come first, then names, then the fields of what has the name.
    for key in sorted(changed, key=lambda key: (key not in SPECS, not key.endswith(".name"))):
        config.trust(changed[key]) if isinstance(changed[key], str) else None
        _override(cfg, key, changed[key])
    for chosen, other, zero in (
        ("total_epochs", "total_steps", 0),
        ("total_steps", "total_epochs", 0.0),
        ("eval.every_steps", "eval.every_epochs", 0.0),
    ):  # the command line's length replaces the file's, whatever its unit
        if chosen in changed and other not in changed:
            _override(cfg, other, zero)
    complete(cfg, where=where)
    schema.require(config.to_plain(cfg), formats.CONFIG, where)  # so that it can be saved later
    for key, value in config.flatten(cfg).items():
        schema.require(value, schema.plain, f"{where}: {key}")
    return cfg.lock() if hasattr(cfg, "lock") else cfg


def complete(cfg, where: str = "the config") -> None:
    """Fill in the defaults of FIELDS. AsjaxError: a field is missing, unknown or out of range."""

    def fill(at, known, prefix):
        for key in at:
            if key not in known:
                raise config.unknown(f"{where}: field", f"{prefix}{key}", _flat(known, prefix))
        for key, default in known.items():
            nested = isinstance(default, dict) and f"{prefix}{key}" not in SPECS
            if key not in at:
                if default is REQUIRED:
                    raise AsjaxError(f"{where} must set {prefix}{key}; it has no default")
                at[key] = {} if nested else default
            if nested:
                if not hasattr(at[key], "keys"):
                    raise AsjaxError(f"{where}: {prefix}{key} must be a dict, got {at[key]!r}")
                fill(at[key], default, f"{prefix}{key}.")

    fill(cfg, FIELDS, "")
    for path, kind in SPECS.items():
        checks.spec(cfg, path, kind, where)
    for key, least in AT_LEAST.items():
        value = read(cfg, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise AsjaxError(f"{where}: {key} must be a whole number >= {least}, got {value!r}")
    checks.lengths(cfg, where)
    metric = cfg["eval"]["metric"]
    if metric and (name := split_spec(metric)[0]) not in METRICS:
        raise config.unknown(f"{where}: eval.metric", name, METRICS)
    make("choice", cfg["eval"]["select"])


def read(cfg, dotted: str):
    """The value of a field such as "optim.accumulate_steps", or its default."""
    *parents, leaf = dotted.split(".")
    for part in parents:
        cfg = cfg[part]
    if ".".join(parents) not in SPECS:
        return cfg[leaf]
    _, fields = split_spec(cfg)
    return fields.get(leaf, READ[SPECS[".".join(parents)]].get(leaf))


def _override(cfg, dotted: str, value) -> None:
    """Set one field, checked against FIELDS or against the function that it configures."""
    *parents, leaf = dotted.split(".")
    at, known, path = cfg, FIELDS, ""
    for part in parents:
        path = f"{path}.{part}" if path else part
        known = known.get(part) if isinstance(known, dict) else None
        if not (isinstance(known, dict) or path in SPECS):
            raise config.unknown("config field", dotted, _flat(FIELDS))
        if at.get(part) is None or (isinstance(at.get(part), str) and path in SPECS):
            # a spec given as text or not at all becomes a dict
            name, values = split_spec(at[part]) if at.get(part) else ("", {})
            at[part] = {**({"name": name} if name else {}), **values}
        at = at[part]
        if not hasattr(at, "keys"):
            raise AsjaxError(f"config field {path} must be a dict, got {config.quoted(at)}")
        if path in SPECS:
            return _override_spec(at, SPECS[path], path, dotted.removeprefix(f"{path}."), value)
    if not isinstance(known, dict) or leaf not in known:
        raise config.unknown("config field", dotted, _flat(FIELDS))
    if isinstance(known[leaf], str) and dotted in SPECS:  # a chain, or a draw
        at[leaf] = config.typed(f"config field {dotted}", value, "")
    elif dotted in SPECS:
        if value is not None and not isinstance(value, str):
            raise AsjaxError(
                f"config field {dotted} must be a call, name(key=value), got {value!r}"
            )
        name, values = split_spec(value) if value else ("", {})
        if "name" in values:  # a dict, as in a config file
            right = f"{values.pop('name')}({', '.join(f'{k}={v!r}' for k, v in values.items())})"
            raise AsjaxError(f"config field {dotted} must be a call; write it as {right}")
        at[leaf] = dict(name=name, **values) if name else None
    else:
        default = at[leaf] if leaf in at else known[leaf]
        default = None if default is REQUIRED else default
        at[leaf] = config.typed(f"config field {dotted}", value, default)


def _override_spec(spec, kind: str, path: str, key: str, value) -> None:
    if key == "name":
        _rename(spec, kind, path, value)
        return
    if not spec.get("name"):
        raise AsjaxError(f"config field {path}.{key}: the config names no {kind}; set {path}.name")
    known = {**fields(kind, spec["name"]), **READ.get(kind, {})}
    if key not in known:
        raise config.unknown("config field", f"{path}.{key}", {f"{path}.{k}" for k in known})
    default = spec[key] if key in spec else known[key]
    default = None if default is REQUIRED else default
    spec[key] = config.typed(f"config field {path}.{key}", value, default)


def _rename(spec, kind: str, path: str, name) -> None:
    """Change the name of a spec. Fields that only the old thing takes go, with a warning."""
    if not isinstance(name, str):
        raise AsjaxError(f"config field {path}.name must be a name, got {config.quoted(name)}")
    find(kind, name)
    old = spec.get("name")
    if kind == "average" and old and old != name:
        takes = fields(kind, name)
        gone = [k for k in fields(kind, old) if k in spec and k not in takes]
        for key in gone:
            del spec[key]
        if gone:
            config.warn(f"{path}.name={name}: {', '.join(gone)} of {old} is left out")
    spec["name"] = name


def _flat(known, prefix: str = "") -> list[str]:
    names = []
    for key, default in known.items():
        nested = isinstance(default, dict) and f"{prefix}{key}" not in SPECS
        names += _flat(default, f"{prefix}{key}.") if nested else [f"{prefix}{key}"]
    return names
