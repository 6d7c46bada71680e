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
RULES = ("beit", "pretrained_sed")


def check(freeze: str, layer_decay: float, layer_rule: str = "beit") -> None:
    """AsjaxError unless the values are as in `grouped`."""
    for key, value, known in (("freeze", freeze, FREEZE), ("layer_rule", layer_rule, RULES)):
        if value not in known:
            raise unknown(f"optim.{key}", value, known)
    number = isinstance(layer_decay, (int, float)) and not isinstance(layer_decay, bool)
    if not number or not 0 < layer_decay <= 1:
        raise AsjaxError(f"optim.layer_decay must be above 0 and at most 1, got {layer_decay!r}")


def grouped(tx, model, *, freeze: str = "none", layer_decay: float = 1.0, layer_rule: str = "beit"):
    """`tx` with its updates multiplied by a factor for each array.

    Args:
      freeze: "none" trains all arrays. "all" trains only the head. "head" trains all but the head.
      layer_decay: factor X per block from the head downwards: X for the last block, X^2 for the
        one before.
      layer_rule: the factor of other arrays. "beit" (Bao et al. 2022): 1 for all after the last
        block; arrays before the first block have one more factor X than the first block.
        "pretrained_sed": they belong to the last and to the first block; head and sequence model
        have 1.

    Raises:
      AsjaxError: a value out of range, or a model in which no blocks or no head can be found.
    """
    check(freeze, layer_decay, layer_rule)
    if freeze == "none" and layer_decay == 1:
        return tx
    factors = block_factors(model, layer_decay, layer_rule) if layer_decay != 1 else {}

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


def block_factors(model, layer_decay: float, layer_rule: str = "beit") -> dict[tuple, list | float]:
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
    with_blocks = layer_rule == "pretrained_sed"
    head = _head_units(model, units) if with_blocks else ()
    for number, (name, depth, paths) in enumerate(units):
        if not _is_block(name):  # with the next block; before the first one: one step lower
            place = 0 if number < blocks[0] else below + 1
            if with_blocks and name not in head:
                place = min(max(place, 1), count)
            factor = layer_decay ** (count + 1 - place)
        else:
            powers = [layer_decay ** (count - below - i) for i in range(depth)]
            below += depth
            factor = powers if _is_stack(name) else powers[0]
        factors |= dict.fromkeys(paths, factor)
    return factors


def _head_units(model, units) -> set[str]:
    """Names of the parts with the classes' arrays. A detector has its sequence model inside."""
    head = _head(model, flatten_dict(models.abstract(model)["params"]))
    return {name for name, _, paths in units if not head.isdisjoint(paths)}


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
