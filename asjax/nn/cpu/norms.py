"""LayerNorm that also returns its input, with a hand-written gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from asjax.nn import plain

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def fork(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array]:
    """(x, LayerNorm of x over the last axis in float32); x is at least [B, S, D].

    XLA on CPU recomputes a residual stream for every product, norm and bias gradient that reads it,
    so the cost grows with the depth. Here the norm runs in a loop with two halves, which also
    copies the stream. The backward pass adds the stream's gradient to the norm's.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    rows, starts, _ = _halves(x)

    def half(done, start):
        part = _cut(x, start, rows)
        normed, mean, rstd = plain.standardised(part, epsilon)
        parts = part, normed * scale + bias, mean, rstd
        return tuple(_put(a, b, start) for a, b in zip(done, parts, strict=True)), None

    column = jnp.zeros((*x.shape[:-1], 1), jnp.float32)
    start = x, jnp.zeros(x.shape, jnp.float32), column, column
    (x, y, mean, rstd), _ = jax.lax.scan(half, start, starts)
    return (x, y), (x, mean, rstd, scale)


def _backward(epsilon, saved, grads):
    x, mean, rstd, scale = saved
    stream, grad = grads
    rows, starts, fresh = _halves(x)

    def half(carried, now):
        start, fresh = now
        dx, dscale, dbias = carried
        slope = _cut(rstd, start, rows)
        normed = (_cut(x, start, rows).astype(jnp.float32) - _cut(mean, start, rows)) * slope
        g = _cut(grad, start, rows)
        counted = jnp.where(fresh.reshape(*(1,) * (x.ndim - 2), rows, 1), g, 0)
        # Clips may lie on different devices, so the sum over them comes after the loop.
        axes = tuple(range(1, x.ndim - 1))
        dscale, dbias = dscale + (counted * normed).sum(axes), dbias + counted.sum(axes)
        g = g * scale
        own = g - g.mean(-1, keepdims=True) - normed * (g * normed).mean(-1, keepdims=True)
        dx = _put(dx, _cut(stream, start, rows).astype(jnp.float32) + slope * own, start)
        return (dx, dscale, dbias), None

    zero = jnp.zeros((x.shape[0], x.shape[-1]), jnp.float32)
    (dx, dscale, dbias), _ = jax.lax.scan(half, (stream, zero, zero), (starts, fresh))
    return dx, dscale.sum(0).reshape(scale.shape), dbias.sum(0).reshape(scale.shape)


fork.defvjp(_forward, _backward)


def _halves(x):
    """The two halves of the second-to-last axis: (rows per half, their starts, which rows are new).

    If the number of rows is odd, the halves share one row; it is new only in the first half.
    """
    size = x.shape[-2]
    rows = -(-size // 2)
    starts = jnp.array([0, size - rows])
    fresh = jnp.arange(rows)[None] + starts[:, None] >= jnp.array([[0], [rows]])
    return rows, starts, fresh


def _cut(x, start, rows):
    return jax.lax.dynamic_slice_in_dim(x, start, rows, x.ndim - 2)


def _put(x, part, start):
    return jax.lax.dynamic_update_slice_in_dim(x, part.astype(x.dtype), start, x.ndim - 2)
