"""The one place where a name becomes an object, and a config file a checked config.

A name in a config is short for a public name in the place of its kind, or a user's own,
"my_package.my_file:thing". A public name is one in `__all__` of that module (of a package: one of
its public files). What is found is called with the fields of the config; those that the program
knows, such as num_classes, are passed if they are asked for.
"""

from __future__ import annotations

import inspect
import typing
from functools import partial

from asjax import config
from asjax.config import AsjaxError, split_spec
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
}

REQUIRED = inspect.Parameter.empty
# Every field of a config that is not a keyword of what it builds, with its default.
FIELDS = {
    "seed": 0,
    "total_steps": REQUIRED,
    "batch_size": REQUIRED,  # rows of the global batch, over all processes
    "accumulate": 1,  # parts of a batch that are computed one after the other, to save memory
    "labels": {
        "name": "audioset527",  # a label set, or "own": the labels of the training data
        "hlp": False,  # labels propagated up the ontology
        "strict": False,  # False contracts abstract classes, True goes by direct links only
        "parents": "",  # a CSV child,parent: an ontology of your own for these classes
    },
    "data": {
        "train": REQUIRED,  # a source
        "eval": REQUIRED,  # a source
        "sample_rate": REQUIRED,  # Hz
        "clip_s": REQUIRED,  # seconds that the model hears
        "draw": "shuffle",  # which clip comes next
        "ops": "decode | crop | multihot",  # what makes an example of a clip
        "workers": 0,  # processes that decode beside this one
        "threads": 2,  # that decode, in each of them
        "cache": True,  # decoded clips in memory: 1 GiB for a program with all its workers
        "max_bad": 0.05,  # share of clips that may be undecodable
        "decode_timeout_s": 60.0,  # a clip that takes longer to read counts as undecodable
    },
    "frontend": REQUIRED,
    "augment": {"wave": "", "feats": "", "normed": ""},
    "model": REQUIRED,
    "objective": {"name": "tagging"},
    "optim": REQUIRED,
    "average": None,  # of the weights
    "eval": {
        "every_steps": 500,
        "batch_size": 16,
        "bootstrap": 1000,  # resamples for the intervals
        "mappings": [],  # label sets whose classes are reported as well
    },
    "log": {"every_steps": 10, "save_steps": 1000},
    "mesh": "",  # e.g. "data=2,fsdp=4"; empty: all devices on "data"
    "init_from": "",  # weights to start from
}
AT_LEAST = {  # whole numbers, and the smallest that makes sense
    "total_steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "eval.every_steps": 1,
    "eval.batch_size": 1,
    "eval.bootstrap": 0,
    "log.every_steps": 1,
    "log.save_steps": 1,
}
SPECS = {  # field -> kind of the thing it describes
    "data.train": "source",
    "data.eval": "source",
    "data.draw": "draw",
    "data.ops": "op",
    "frontend": "frontend",
    "augment.wave": "augment",
    "augment.feats": "augment",
    "augment.normed": "augment",
    "model": "model",
    "objective": "objective",
    "optim": "optim",
    "average": "average",
}
OFFERED = {  # kind -> keywords that come from the program, never from a config
    "model": ("num_classes",),
    "objective": ("model", "frontend", "augment", "closure"),
    "optim": ("total_steps", "steps_per_epoch"),
    "source": ("label_set",),
    "draw": ("labels", "seed"),
    "op": (
        "example",
        "rng",
        "sample_rate",
        "clip_s",
        "num_classes",
        "train",
        "pcm16",
        "decode_timeout_s",
    ),
    "augment": ("rng", "batch"),
}

_CALLED = {  # in messages
    "augment": "augmentation",
    "model": "model family",
    "op": "host op",
    "optim": "optimiser",
    "source": "data source",
}

# --------------------------------------------------------------------------------- names to objects


def find(kind: str, name: str):
    """The function of that name; AsjaxError lists those that exist, and the nearest."""
    if kind not in PLACES:
        raise config.unknown("kind", kind, PLACES)
    return config.find(_CALLED.get(kind, kind), PLACES[kind], name)


def make(kind: str, spec, **offered):
    """The object that a spec describes: `make("frontend", dict(name="panns_logmel"))`.

    Args:
      kind: a key of PLACES. spec: a dict with a name, or a call as text.
      offered: what the program knows and the config does not; passed if it is asked for.

    Raises:
      AsjaxError: unknown name or field, a missing field, a value out of range.
    """
    name, fields = split_spec(spec)
    label = f"{_CALLED.get(kind, kind)} {name}"
    return config.call(find(kind, name), label, offered=offered, **fields)


def chain(kind: str, text: str | None, **offered) -> list:
    """`"a(x=1) | b"` -> [(name, function), ...], each function with its keywords filled in.

    Raises:
      AsjaxError: as `make`.
    """
    made = []
    for name, fields in config.chain(text):
        function, label = find(kind, name), f"{_CALLED.get(kind, kind)} {name}"
        known = inspect.signature(function).parameters
        kept = {k: v for k, v in offered.items() if k in known}
        own = [k for k in known if k not in OFFERED[kind]]
        for key in fields:
            if key not in own:
                raise config.unknown(f"{label}: field", key, own)
        made.append((name, partial(function, **kept, **fields)))
    return made


def augment(text: str | None):
    """A chain of augmentations: `fn(rng, batch) -> batch`; empty or None leaves batches alone.

    Op number i gets `fold_in(rng, i)`. `fn.names` are the ops' names, `fn.spec` the text.

    Raises:
      AsjaxError: as `make`; values out of range are found now, not at the first batch.
    """
    import jax

    ops = chain("augment", text)
    for _, op in ops:
        op(None, {})

    def run(rng, batch):
        for i, (_, op) in enumerate(ops):
            batch = op(jax.random.fold_in(rng, i), batch)
        return batch

    run.names, run.spec = tuple(name for name, _ in ops), text or ""
    return run


def label_set(cfg):
    """The classes that a config names, with the taxonomy of its `labels.parents` where it has one.

    The name "own" means the classes of the training data.
    """
    found = _label_set(cfg)
    parents = cfg["labels"].get("parents")
    return found.with_taxonomy(parents) if parents else found


def _label_set(cfg):
    from asjax import labels
    from asjax.data import sources, tfds

    if cfg["labels"]["name"] != "own":
        return labels.get(cfg["labels"]["name"])
    name, values = split_spec(cfg["data"]["train"])
    if name == "tfds":
        return tfds.own_labels(**values)
    place = values.get("csv") or values.get("path") or values.get("root")
    if not place:
        raise AsjaxError(f"labels.name='own' needs data.train with a csv or a path, not {name!r}")
    return sources.own_labels(place, values.get("label_separator"), values.get("columns"))


def source(spec, label_set):
    """The clips that a spec describes, with labels as columns of `label_set`."""
    return make("source", spec, label_set=label_set)


def pipeline(
    source,
    *,
    num_classes: int,
    batch_size: int,
    sample_rate: int,
    clip_s: float,
    train: bool = True,
    seed: int = 0,
    rows=None,
    process_index: int = 0,
    process_count: int = 1,
    **data,
):
    """The batches of a source: endless in the order of `draw`, or one pass in the source's order.

    Waves are int16 where the source says that this loses nothing, and float32 elsewhere.

    Args:
      rows, process_index, process_count: which rows of every batch are made here, as in
        asjax.data.pipeline.build.
      data: other fields of a config's `data`; those left out have the defaults of FIELDS. Its
        `train` and `eval` have no meaning here.

    Raises:
      AsjaxError: unknown draw or op, a value out of its range, an empty source.
    """
    from asjax.data import pipeline as batches

    for key in data:
        if key not in FIELDS["data"]:
            raise config.unknown("pipeline field", key, FIELDS["data"])
    data = {**FIELDS["data"], **data}
    size = round(clip_s * sample_rate)
    if size < 1:
        raise AsjaxError(f"clip_s * sample_rate (samples) must be at least 1, got {size}")
    known = dict(sample_rate=sample_rate, clip_s=clip_s, num_classes=num_classes, train=train)
    limit = config.typed("data.decode_timeout_s", data["decode_timeout_s"], 60.0)
    spec = data["draw"] if train else "sequential"
    ops = chain("op", data["ops"], **known, decode_timeout_s=limit, pcm16=False)
    # An own op that does not ask for pcm16 may not know that a wave can be int16.
    aware = all(":" not in name or "pcm16" in op.keywords for name, op in ops)
    if aware and hasattr(source, "pcm16") and source.pcm16(sample_rate):
        ops = chain("op", data["ops"], **known, decode_timeout_s=limit, pcm16=True)
    return batches.build(
        source,
        draw=make("draw", spec, labels=source.labels, seed=seed if train else 0),
        ops=ops,
        batch_size=batch_size,
        described=repr([spec, data["ops"], *known.values()]),
        train=train,
        rows=rows,
        process_index=process_index,
        process_count=process_count,
        **{k: data[k] for k in ("workers", "threads", "cache", "max_bad")},
    )


def data_fields(cfg) -> dict:
    """The fields of a config's `data` that `pipeline` takes."""
    return {k: v for k, v in cfg["data"].items() if k not in ("train", "eval")}


def fields(kind: str, name: str) -> dict:
    """Field -> default (REQUIRED without one) of what a name of a config stands for."""
    function = find(kind, name)
    known = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):  # a model family: those of its module
        module = typing.get_type_hints(function).get("return", object)
        known = {**known, **inspect.signature(module).parameters}
        for key in ("parent", "name"):  # linen's own
            known.pop(key, None)
    keep = {k: p for k, p in known.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return {k: p.default for k, p in keep.items() if k not in OFFERED.get(kind, ())}


# -------------------------------------------------------------------------------------- configs


def load(path_and_arg: str, overrides: dict[str, str] | None = None):
    """`"configs/x.py:arg"` plus `{"optim.lr": "3e-4"}` -> complete, locked ConfigDict.

    A field that the config leaves out takes its default from FIELDS. An override may set any field
    of FIELDS and any keyword of what a spec names, whether or not the config has it.

    Raises:
      AsjaxError: no such file, an unknown field (with the nearest known one), a missing field
        without a default, or a value of another type than the field has.
    """
    cfg = config.read(path_and_arg)
    config.trust(cfg)
    changed = {key: config.parse_value(text) for key, text in (overrides or {}).items()}
    for key in sorted(changed, key=lambda key: not key.endswith(".name")):  # names decide the rest
        config.trust(changed[key]) if isinstance(changed[key], str) else None
        _override(cfg, key, changed[key])
    where = f"config {path_and_arg.partition(':')[0]}"
    complete(cfg, where=where)
    schema.require(config.to_plain(cfg), formats.CONFIG, where)  # what a model folder may hold
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
    for key, least in AT_LEAST.items():
        value = cfg
        for part in key.split("."):
            value = value[part]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise AsjaxError(f"{where}: {key} must be a whole number >= {least}, got {value!r}")


def _override(cfg, dotted: str, value) -> None:
    """Set one field, made if need be, checked against what it configures."""
    *parents, leaf = dotted.split(".")
    at, known, path = cfg, FIELDS, ""
    for part in parents:
        path = f"{path}.{part}" if path else part
        known = known.get(part) if isinstance(known, dict) else None
        if known is None or not (isinstance(known, dict) or path in SPECS):
            raise config.unknown("config field", dotted, _flat(FIELDS))
        if at.get(part) is None or (isinstance(at.get(part), str) and path in SPECS):
            # a spec as text, or left out: from here on a dict
            name, values = split_spec(at[part]) if at.get(part) else ("", {})
            at[part] = {**({"name": name} if name else {}), **values}
        at = at[part]
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
        at[leaf] = dict(name=name, **values) if name else None
    else:
        default = at[leaf] if leaf in at else known[leaf]
        default = None if default is REQUIRED else default
        at[leaf] = config.typed(f"config field {dotted}", value, default)


def _override_spec(spec, kind: str, path: str, key: str, value) -> None:
    if key == "name":
        find(kind, value)
        spec["name"] = value
        return
    if not spec.get("name"):
        raise AsjaxError(f"config field {path}.{key}: the config names no {kind}; set {path}.name")
    known = fields(kind, spec["name"])
    if key not in known:
        raise config.unknown("config field", f"{path}.{key}", {f"{path}.{k}" for k in known})
    default = spec[key] if key in spec else known[key]
    default = None if default is REQUIRED else default
    spec[key] = config.typed(f"config field {path}.{key}", value, default)


def _flat(known, prefix: str = "") -> list[str]:
    names = []
    for key, default in known.items():
        nested = isinstance(default, dict) and f"{prefix}{key}" not in SPECS
        names += _flat(default, f"{prefix}{key}.") if nested else [f"{prefix}{key}"]
    return names
