"""FLOPs counted from shapes, because XLA's count ignores custom kernels and loop lengths.

A multiplication and an addition are two FLOPs, and one MAC.
"""

from __future__ import annotations

from math import prod

import jax

from asjax import nn


def count(function, *args) -> int:
    """FLOPs of the matrix products and convolutions in function(*args), including loops.

    The function is traced in its forms for accelerators. The forms for CPUs write convolutions as
    other products.
    """
    with nn.forms("accelerator"):
        return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        out = eqn.outvars[0].aval.shape if eqn.outvars else ()
        if eqn.primitive.name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            total += 2 * prod(out) * prod(eqn.invars[0].aval.shape[i] for i in contract)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            features = eqn.params["dimension_numbers"].rhs_spec[0]
            total += 2 * prod(out) * prod(kernel) // kernel[features]
        inner = [
            getattr(v, "jaxpr", v) for v in jax.tree.leaves(list(eqn.params.values()), is_leaf=_sub)
        ]
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        total += times * sum(_count(j) for j in inner if hasattr(j, "eqns"))
    return total


def _sub(value) -> bool:
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")
