"""Operations on constants, computed while a model is exported."""

from __future__ import annotations

import numpy as np

# These take arrays of different shapes that broadcast, as stored by `graph.Value`.
_PLAIN = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum,
    "min": np.minimum, "neg": np.negative, "exp": np.exp, "log": np.log, "sqrt": np.sqrt,
    "square": np.square, "sign": np.sign, "abs": np.abs, "tanh": np.tanh, "floor": np.floor,
    "rsqrt": lambda x: (1 / np.sqrt(x)).astype(x.dtype), "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "stop_gradient": lambda x: x, "copy": lambda x: x, "copy_p": lambda x: x,
}  # fmt: skip


def folded(eqn, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The results of an equation for constants."""
    name, params = eqn.primitive.name, eqn.params
    aval = eqn.outvars[0].aval
    if name in _PLAIN:
        with np.errstate(all="ignore"):
            return [np.asarray(_PLAIN[name](*arrays), aval.dtype)]
    if name == "div" and np.issubdtype(aval.dtype, np.floating):
        with np.errstate(all="ignore"):
            return [np.asarray(np.divide(*arrays), aval.dtype)]
    if name == "convert_element_type":
        return [arrays[0].astype(aval.dtype)]
    if name == "broadcast_in_dim":
        return [spread(arrays[0], params["broadcast_dimensions"], len(aval.shape))]
    wide = [np.broadcast_to(a, v.aval.shape) for a, v in zip(arrays, eqn.invars, strict=True)]
    if name == "reshape":
        return [wide[0].reshape(aval.shape)]
    if name == "transpose":
        return [wide[0].transpose(params["permutation"])]
    if name == "squeeze":
        return [wide[0].squeeze(tuple(params["dimensions"]))]
    found = eqn.primitive.bind(*wide, **params)
    return [np.asarray(x) for x in (found if eqn.primitive.multiple_results else [found])]


def spread(array: np.ndarray, dimensions, rank: int) -> np.ndarray:
    """An array with its axes at `dimensions` of a new rank, and size 1 elsewhere."""
    shape = [1] * rank
    for axis, size in zip(dimensions, array.shape, strict=True):
        shape[axis] = size
    return array.reshape(shape)
