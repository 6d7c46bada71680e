"""Fine-tuning: arrays that stay as they are, and smaller steps for blocks far from the head.

The *head* is every array with one entry per class. The *blocks* are found by name (`block3`,
`layer2_0`, stacked `blocks`), in the order in which the model calls them.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from asjax import models
from asjax.config import AsjaxError, unknown

FREEZE = ("none", "all", "head")


def check(freeze: str, layer_decay: float) -> None:
    """AsjaxError unless `freeze` is one of FREEZE and `layer_decay` is above 0 and at most 1."""
    if freeze not in FREEZE:
        raise unknown("optim.freeze", freeze, FREEZE)
    number = isinstance(layer_decay, (int, float)) and not isinstance(layer_decay, bool)
    if not number or not 0 < layer_decay <= 1:
        raise AsjaxError(f"optim.layer_decay must be above 0 and at most 1, got {layer_decay!r}")


def grouped(tx, model, *, freeze: str = "none", layer_decay: float = 1.0):
    """`tx` with its updates multiplied by a factor for each array.

    Args:
      freeze: "none" trains all arrays. "all" trains only the head. "head" trains all but the head.
      layer_decay: factor per block from the head downwards: 1 for all after the last block, X for
        the last block, X^2 for the one before, as in BEiT (Bao et al. 2022). Arrays before the
        first block have one more factor X than the first block.

    Raises:
      AsjaxError: a value out of range, or a model in which no blocks or no head can be found.
    """
    check(freeze, layer_decay)
    if freeze == "none" and layer_decay == 1:
        return tx
    factors = block_factors(model, layer_decay) if layer_decay != 1 else {}

    def scaled(updates, params=None):
        flat = flatten_dict(updates)
        head = _head(model, flat) if freeze != "none" else ()
        for path, update in flat.items():
            if freeze != "none" and (path in head) == (freeze == "head"):
                flat[path] = jnp.zeros_like(update)
            elif path in factors:
                factor = jnp.asarray(factors[path], update.dtype)
                flat[path] = update * jnp.expand_dims(factor, range(factor.ndim, update.ndim))
        return unflatten_dict(flat)

    return optax.chain(tx, optax.stateless(scaled))


def still(model, freeze: str):
    """The model for the objective: if all but the head is frozen, it runs as in evaluation.

    Batch norms then use their stored statistics and keep them, and there is no dropout. No gradient
    is computed below the head, so a step is about three times as fast.
    """
    if freeze != "all":
        return model

    def apply(self, variables, *args, train=False, mutable=False, **keywords):
        flat = flatten_dict(variables["params"])
        head = _head(model, flat)
        for path in flat.keys() - head:
            flat[path] = jax.lax.stop_gradient(flat[path])
        variables = {**variables, "params": unflatten_dict(flat)}
        out = model.apply(variables, *args, train=False, **keywords)
        return out if mutable is False else (out, {})

    fields = {
        "apply": apply,
        "__call__": type(model).__call__,  # objectives look at its arguments
        "__getattr__": lambda self, name: getattr(model, name),
    }
    return type(f"Still{type(model).__name__}", (), fields)()


def _head(model, flat: dict) -> set:
    """Paths of the head's arrays among the parameters."""
    classes = getattr(model, "num_classes", None)
    axes = models.class_axes(model, {("params", *path): x for path, x in flat.items()}, classes)
    head = {path[1:] for path in axes if path[0] == "params"}
    if not head:
        raise AsjaxError(f"optim.freeze: no array of {type(model).__name__} has a row per class")
    return head


def block_factors(model, layer_decay: float) -> dict[tuple, list[float] | float]:
    """Path of a parameter -> its factor; a list with one factor per block for stacked blocks."""
    units = _units(model)
    blocks = [number for number, (name, *_) in enumerate(units) if _is_block(name)]
    if not blocks:
        names = ", ".join(name for name, *_ in units[:5])
        raise AsjaxError(
            f"optim.layer_decay: {type(model).__name__} has no blocks in a known order (its parts "
            f"are {names}, ...); leave layer_decay at 1"
        )
    count = sum(depth for name, depth, _ in units if _is_block(name))
    factors, below = {}, 0  # `below`: blocks that are complete
    for number, (name, depth, paths) in enumerate(units):
        if not _is_block(name):  # with the next block; before the first one: one step lower
            place = 0 if number < blocks[0] else below + 1
            factor = layer_decay ** (count + 1 - place)
        else:
            powers = [layer_decay ** (count - below - i) for i in range(depth)]
            below += depth
            factor = powers if _is_stack(name) else powers[0]
        factors |= dict.fromkeys(paths, factor)
    return factors


def _is_block(name: str) -> bool:
    return re.search(r"block|layer", name.rpartition("/")[2]) is not None


def _is_stack(name: str) -> bool:
    return name.rpartition("/")[2] in ("blocks", "layers")


def _units(model) -> list[tuple[str, int, list[tuple]]]:
    """(name, number of blocks in it, paths) of the parts of a model, in the order of their calls.

    flax makes the parameters of a module when the module is first called.
    """
    order: dict[tuple, tuple] = {}
    if not hasattr(model, "example_shape"):
        raise AsjaxError(
            f"optim.layer_decay needs a model with example_shape, and {type(model).__name__} has "
            "none; leave layer_decay at 1"
        )

    def trace(feats):
        params = dict(model.init(jax.random.key(0), feats))["params"]
        order.update({path: leaf.shape for path, leaf in flatten_dict(params).items()})
        return 0

    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *model.example_shape), jnp.float32))
    paths: dict[str, list[tuple]] = {}
    for path in order:
        inside = len(path) > 2 and not _is_block(path[0])
        name = "/".join(path[:2]) if inside and _is_block(path[1]) else path[0]
        paths.setdefault(name, []).append(path)
    depth = {name: order[where[0]][0] if _is_stack(name) else 1 for name, where in paths.items()}
    return [(name, depth[name], where) for name, where in paths.items()]
