"""`init_from` of a config: which weights a fresh run starts from.

    runs/other                      a run or model directory of ours: every array that fits is taken
    imagenet:deit.pth               an image model's file, through the family's start from ImageNet
    backbone:BEATs_weak.pt          a detector's or backbone's file, with its head where that fits
    audioset:audioset_10_10.pth     a published tagger's file, through its start from AudioSet

A file is whatever `weights.convert.read_weights` reads. What a start does not give stays as drawn.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np

from asjax.config import AsjaxError, split_spec
from asjax.store import model_dir

SOURCES = ("imagenet", "audioset", "backbone")


def start(state, init_from: str, *, model, spec):
    """`state` (step.State, placed) with the weights that `init_from` names; "" leaves it as it is.

    Args:
      model: the linen module; spec: the config's `model`, with its number of classes.

    Raises:
      AsjaxError: nothing there, a family without such a start, or weights of another model.
    """
    if not init_from:
        return state
    import jax
    import jax.numpy as jnp
    from flax.traverse_util import flatten_dict, unflatten_dict

    from asjax import sharding

    variables = {"params": state.params, **state.stats}
    wanted = flatten_dict(variables)
    source, _, file = init_from.partition(":")
    if source in SOURCES:
        own = sharding.gather(variables)
        given = flatten_dict(_converted(source, file, model, spec, own))
        same = flatten_dict(own)
        given = {k: v for k, v in given.items() if not np.array_equal(v, same[k])}
    else:
        given = flatten_dict(_model_dir(init_from))
    fits = {k: v for k, v in given.items() if k in wanted and v.shape == wanted[k].shape}
    if not fits:
        raise AsjaxError(f"init_from {init_from}: no array has the name and shape of this model's")
    missing = sorted("/".join(k[1:]) for k in wanted if k not in fits)
    if jax.process_index() == 0:
        new = ", ".join(missing) or "none"
        print(f"init_from {init_from}: {len(fits)} arrays taken, new: {new}", flush=True)
    placed = {k: jax.device_put(jnp.asarray(v), wanted[k].sharding) for k, v in fits.items()}
    stats = unflatten_dict({**wanted, **placed})
    params = stats.pop("params")
    average = state.average
    if average:
        average = {**average, **jax.tree.map(jnp.copy, {"params": params, "stats": stats})}
    return state.replace(params=params, stats=stats, average=average)


def _model_dir(init_from: str) -> dict:

    try:
        return model_dir.load_model(init_from)[2]
    except AsjaxError as error:
        forms = ", ".join(f"{source}:FILE" for source in SOURCES)
        raise AsjaxError(f"init_from {init_from}: {error} (or give a file as {forms})") from None


def _converted(source: str, file: str, model, spec, variables: dict) -> dict:
    """The variables after the family's own start; `variables` (host arrays) is what was drawn."""
    from asjax import models

    family, fields = split_spec(spec)
    starts = _starts(family, source)
    if not any(starts):
        able = [f for f in models.families() if any(_starts(f, source))]
        raise AsjaxError(
            f"init_from {source}:{file}: {family} has no start from {source}; these have one: "
            f"{', '.join(able) or 'none'}. Set --config.init_from= (empty) to start from scratch"
        )
    if not file:
        raise AsjaxError(f"init_from {source}: needs a file, as {source}:FILE")
    from asjax.weights.convert import read_weights

    try:
        weights = read_weights(file)
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
    """What a family's file offers, else None: `init_from_*(module, variables, weights) ->
    variables`, or `rename_from_*(own, weights)` from torch names to those of a fresh model."""
    file = import_module(f"asjax.models.{family}")
    return tuple(getattr(file, f"{word}_from_{source}", None) for word in ("init", "rename"))
