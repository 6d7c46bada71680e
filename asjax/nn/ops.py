"""Five operations that have one form for accelerators (plain.py) and one for CPUs (nn/cpu).

They are `product`, `conv`, `depthwise`, `max_pool` and `fork`. Both forms have the same value and
the same gradient. placement.py chooses the form; cpu/README.md explains why there are two.
"""

from __future__ import annotations

import jax

from asjax.nn import graph, placement, plain
from asjax.nn.cpu import convolution, norms, pools, products, shifts

Array = jax.Array
Pair = tuple[int, int]


def product(x: Array, kernel: Array, *, gelu: bool = False) -> Array:
    """x [..., I] @ kernel [I, O] -> [..., O]; with `gelu`, GELU(x) (by erf) @ kernel."""
    if placement.on_cpu(x):
        return (products.gelu_product if gelu else products.product)(x, kernel)
    if gelu:
        x = graph.graph_gelu(x) if placement.in_graph() else plain.gelu(x)
    return plain.product(x, kernel)


def conv(x: Array, kernel: Array) -> Array:
    """[B, T, F, C] * [k, k, C, O] -> [B, T, F, O]: odd k, stride 1, zero padding."""
    return (convolution.conv if placement.on_cpu(x) else plain.conv)(x, kernel)


def depthwise(x: Array, kernel: Array, strides: Pair, pads: tuple[Pair, Pair]) -> Array:
    """[B, H, W, C] * [kh, kw, 1, C] -> [B, H', W', C]; pads: zeros on each side."""
    form = shifts.depthwise if placement.on_cpu(x) else plain.depthwise
    return form(x, kernel, strides, pads)


def max_pool(x: Array, window: Pair, strides: Pair, pads: tuple[Pair, Pair]) -> Array:
    """Maximum over windows of [B, T, F, C] -> [B, T', F', C]; padding is never the maximum.

    Incomplete windows are dropped. The first of equal maxima takes the gradient.
    """
    form = pools.max_pool if placement.on_cpu(x) else plain.max_pool
    return form(x, window, strides, pads)


def fork(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array]:
    """(x, LayerNorm of x over the last axis in float32): a residual stream and its branch's input.

    `scale` and `bias` are float32 and have the rank of x, [1, ..., 1, D].
    """
    if placement.in_graph():
        return x, graph.graph_layer_norm(x, scale, bias, epsilon)
    form = norms.fork if placement.on_cpu(x) and x.ndim > 2 else plain.fork
    return form(x, scale, bias, epsilon)
