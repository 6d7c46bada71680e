"""`init_from` of a config: the weights from which a new run starts.

    runs/other                      an asjax run or model directory: take every array that fits
    org/name, cnn14                 a repository of the Hub, a published checkpoint (hub.resolve)
    imagenet:deit.pth               an image model's file, by the family's start from ImageNet
    backbone:BEATs_weak.pt          a detector's or backbone's file, with its head if that fits
    audioset:audioset_10_10.pth     a published tagger's file, by the family's start from AudioSet

FILE is anything that `weights.locate.read_weights` reads. Arrays that the source does not have keep
their random values. A head has one row per class. Each class takes the row of the class with the
same id in the other model; if there is none, its row keeps its random values.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module

import numpy as np

from asjax import build, config, labels, models
from asjax.config import AsjaxError, split_spec
from asjax.store import model_dir
from asjax.weights import hub

SOURCES = ("imagenet", "audioset", "backbone")


def start(state, init_from: str, *, model, spec, label_set=None, cfg=None):
    """Replace weights in `state` (step.State, on its devices) by those of `init_from`; "": none.

    Args:
      model: the linen module.
      spec: the config's `model`, with its number of classes.
      label_set: the classes of the model; None takes a head without matching classes if its shape
        fits.
      cfg: the config; its features are compared with those of a model directory.

    Raises:
      AsjaxError: the source does not exist, the family has no such start, or no weight fits.
    """
    if not init_from:
        return state
    import jax
    import jax.numpy as jnp
    from flax.traverse_util import flatten_dict, unflatten_dict

    from asjax import sharding

    variables = {"params": state.params, **state.stats}
    wanted = flatten_dict(variables)
    say = _say if jax.process_index() == 0 else (lambda text: None)
    source, _, file = init_from.partition(":")
    if source in SOURCES:
        own = sharding.gather(variables)
        given, theirs = _from_file(source, file, model, spec, own, label_set)
    else:
        tree, theirs, their_cfg = _model_dir(init_from)
        given = flatten_dict(tree)
        for line in _other_features(their_cfg, cfg):
            say(f"init_from {init_from}: WARNING: it was trained on other features: {line}")
    if label_set is not None and theirs is not None and label_set.hash != theirs.hash:
        given = _matched_head(
            given, model, label_set, theirs, lambda k: sharding.gather({"": wanted[k]})[""],
            lambda text: say(f"init_from {init_from}: {text}"),
        )  # fmt: skip
    fits = {k: v for k, v in given.items() if k in wanted and v.shape == wanted[k].shape}
    if not fits:
        raise AsjaxError(f"init_from {init_from}: no array has the name and shape of this model's")
    missing = sorted("/".join(k[1:]) for k in wanted if k not in fits)
    say(f"init_from {init_from}: {len(fits)} arrays taken, new: {', '.join(missing) or 'none'}")
    placed = {k: jax.device_put(jnp.asarray(v), wanted[k].sharding) for k, v in fits.items()}
    stats = unflatten_dict({**wanted, **placed})
    params = stats.pop("params")
    average = state.average
    if average:
        average = {**average, **jax.tree.map(jnp.copy, {"params": params, "stats": stats})}
    return state.replace(params=params, stats=stats, average=average)


def _say(text: str) -> None:
    print(text, flush=True)


def _model_dir(init_from: str):
    """(variables, label set, config) of a run or model directory."""
    try:
        cfg, label_set, variables, _ = model_dir.load_model(hub.resolve(init_from))
    except AsjaxError as error:
        forms = ", ".join(f"{source}:FILE" for source in SOURCES)
        raise AsjaxError(f"init_from {init_from}: {error} (or give a file as {forms})") from None
    return variables, label_set, cfg


# ------------------------------------------------------------------------------------ the head


def _matched_head(given: dict, model, ours, theirs, fresh, say) -> dict:
    """`given` with the rows of its head reordered to our classes.

    Args:
      given: path -> array of the other model.
      fresh: function from a path to our array with its random values.
    """
    pairs = shared(ours, theirs)
    axes = models.class_axes(model, given, len(theirs))
    matched = dict(given)
    for path, axis in axes.items():
        other = matched.pop(path, None)
        if other is None or not pairs or np.shape(other)[axis] != len(theirs):
            continue
        array = np.array(fresh(path))
        rows, columns = np.transpose(pairs)
        source = np.moveaxis(np.asarray(other), axis, 0)
        target = np.moveaxis(array, axis, 0)
        if source.shape[1:] == target.shape[1:]:
            target[rows] = source[columns]
            matched[path] = array
    new = sorted(set(range(len(ours))) - {i for i, _ in pairs})
    names = ", ".join(ours.names[i] for i in new[:5]) + (", ..." if len(new) > 5 else "")
    say(
        f"head: {len(pairs)} of {len(ours)} classes take their rows from its {len(theirs)} "
        f"classes, {len(new)} start at random" + (f": {names}" if new else "")
    )
    return matched


def shared(ours, theirs) -> list[tuple[int, int]]:
    """(our index, their index) of every class with the same id or with the same single mid."""
    place = {label: j for j, label in enumerate(theirs.ids)}
    table = labels.mapping(ours, theirs)
    pairs = []
    for i, label in enumerate(ours.ids):
        columns = [place[label]] if label in place else np.flatnonzero(table[i])
        if len(columns) == 1:
            pairs.append((i, int(columns[0])))
    return pairs


def _other_features(theirs, ours) -> list[str]:
    """One line for each difference between the input features of two configs."""
    if ours is None:
        return []
    inputs = []
    for cfg in (config.to_plain(theirs), config.to_plain(ours)):
        data = {key: cfg["data"][key] for key in ("sample_rate", "clip_s")}
        name, fields = split_spec(cfg["frontend"])
        try:
            frontend = build.make("frontend", cfg["frontend"])
            fields = {"kind": type(frontend).__name__, **dataclasses.asdict(frontend)}
        except (AsjaxError, TypeError):  # a user's frontend: compare the spec only
            fields = dict(fields, name=name)
        inputs.append({**data, "frontend": fields})
    return [line.replace(" -> ", " there, ") + " here" for line in config.differences(*inputs)]


# ------------------------------------------------------------------------------------- files


def _from_file(source: str, file: str, model, spec, own: dict, label_set):
    """(path -> array, label set) that a family's start takes from a file.

    Published taggers have AudioSet's 527 classes. If ours are others, we start a model with 527
    classes, and `_matched_head` then picks the rows.
    """
    from flax.traverse_util import flatten_dict, unflatten_dict

    audioset = labels.get("audioset527")
    flat = flatten_dict(own)
    theirs = audioset if source == "audioset" and label_set is not None else None
    if theirs is not None and label_set.hash != theirs.hash and len(theirs) != len(label_set):
        wide = dataclasses.replace(model, num_classes=len(theirs))
        for path, axis in models.class_axes(model, flat, len(label_set)).items():
            shape = list(flat[path].shape)
            shape[axis] = len(theirs)
            flat[path] = np.full(shape, np.nan, np.float32)
        model, spec = wide, {**spec, "num_classes": len(theirs)}
    given = flatten_dict(_converted(source, file, model, spec, unflatten_dict(flat)))
    return {k: v for k, v in given.items() if not _equal(v, flat[k])}, theirs


def _equal(a, b) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


def _converted(source: str, file: str, model, spec, variables: dict) -> dict:
    """The variables after the family's start; `variables` are the random ones (host arrays)."""
    family, fields = split_spec(spec)
    starts = _starts(family, source)
    if not any(starts):
        able = [f for f in models.families() if any(_starts(f, source))]
        raise AsjaxError(
            f"init_from {source}:{file}: {family} cannot start from {source}; these families can: "
            f"{', '.join(able) or 'none'}. Set --config.init_from= (empty) to start from scratch"
        )
    if not file:
        raise AsjaxError(f"init_from {source}: needs a file, as {source}:FILE")
    from asjax.weights.locate import read_weights

    try:
        weights = read_weights(file, None if source == "imagenet" else family)
    except AsjaxError as error:
        scratch = "--config.init_from= (empty) starts from scratch"
        raise AsjaxError(f"init_from {source}:{file}: {error}; {scratch}") from None
    init, rename = starts
    if init:
        return init(model, variables, weights)
    from asjax.weights import port

    weights = rename(port.to_torch(family, variables), weights)
    return port.from_torch(family, fields.pop("variant"), weights, **fields)[1]


def _starts(family: str, source: str) -> tuple:
    """(init, rename) of a family's file, None for each that it does not have.

    `init_from_*(module, variables, weights) -> variables`. `rename_from_*(own, weights)` returns
    weights under the torch names of a new model.
    """
    file = import_module(f"asjax.models.{family}")
    return tuple(getattr(file, f"{word}_from_{source}", None) for word in ("init", "rename"))
