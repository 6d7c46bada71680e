"""Batch norm with its gradient written out, and LayerNorm that also hands on its input, plainly and
in a form that XLA runs well on CPUs.

A residual stream forks at a norm: `x, y = fork(x, ...)`, y goes through a branch, and x + branch
goes on. On CPUs XLA computes what flows along the stream again for every product, norm and bias
gradient that reads it, the longer the deeper the model. It fuses across everything but a loop: so
the norm runs in a loop of two halves that also copies the stream, and backward adds the gradient of
the stream to its own.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(x: Array, scale: Array, bias: Array, epsilon: float):
    """(y, mean [C], biased variance [C]) of [..., C] over all but the last axis, in float32.

    Gradients go through y alone. Written out, they take two sums over the batch; jax's own takes a
    third, over what the other two give, for the mean inside the variance, which is zero.
    """
    return _batch_forward(x, scale, bias, epsilon)[0]


def _batch_forward(x, scale, bias, epsilon):
    axes, flat = tuple(range(x.ndim - 1)), (1,) * (x.ndim - 1) + (-1,)
    mean = x.astype(jnp.float32).mean(axes)
    centred = x.astype(jnp.float32) - mean.reshape(flat)
    var = jnp.square(centred).mean(axes)
    factor = (scale * jax.lax.rsqrt(var + epsilon)).reshape(flat)
    y = centred * factor + bias.reshape(flat)
    return (y, mean, var), (x, mean, var, scale)


def _batch_backward(epsilon, kept, grads):
    x, mean, var, scale = kept
    g, _, _ = grads
    axes, flat = tuple(range(x.ndim - 1)), (1,) * (x.ndim - 1) + (-1,)
    rstd = jax.lax.rsqrt(var + epsilon)
    centred = x.astype(jnp.float32) - mean.reshape(flat)
    dbias, along = g.sum(axes), (g * centred).sum(axes)
    count = x.size // x.shape[-1]
    back = (jnp.square(rstd) * along / count).reshape(flat)
    dx = (scale * rstd).reshape(flat) * (g - (dbias / count).reshape(flat) - centred * back)
    return dx.astype(x.dtype), along * rstd, dbias


batch_norm.defvjp(_batch_forward, _batch_backward)


def fork(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array]:
    """(x, LayerNorm of x over the last axis in float32), the variance by two passes.

    `scale` and `bias` are float32 and of the rank of x, [1, ..., 1, D].
    """
    normed, _, _ = _norm(x, epsilon)
    return x, normed * scale + bias


def _norm(x, epsilon):
    x = x.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    rstd = jax.lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + epsilon)
    return (x - mean) * rstd, mean, rstd


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def fork_apart(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array]:
    """`fork`, fused with nothing around it; x is at least [B, S, D]."""
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    rows, starts, _ = _halves(x)

    def half(done, start):
        part = _cut(x, start, rows)
        normed, mean, rstd = _norm(part, epsilon)
        parts = part, normed * scale + bias, mean, rstd
        return tuple(_put(a, b, start) for a, b in zip(done, parts, strict=True)), None

    column = jnp.zeros((*x.shape[:-1], 1), jnp.float32)
    start = x, jnp.zeros(x.shape, jnp.float32), column, column
    (x, y, mean, rstd), _ = jax.lax.scan(half, start, starts)
    return (x, y), (x, mean, rstd, scale)


def _backward(epsilon, kept, grads):
    x, mean, rstd, scale = kept
    stream, grad = grads
    rows, starts, fresh = _halves(x)

    def half(carried, now):
        start, fresh = now
        dx, dscale, dbias = carried
        slope = _cut(rstd, start, rows)
        normed = (_cut(x, start, rows).astype(jnp.float32) - _cut(mean, start, rows)) * slope
        g = _cut(grad, start, rows)
        counted = jnp.where(fresh.reshape(*(1,) * (x.ndim - 2), rows, 1), g, 0)
        # Summed over all but clips and channels: clips may live on different devices.
        axes = tuple(range(1, x.ndim - 1))
        dscale, dbias = dscale + (counted * normed).sum(axes), dbias + counted.sum(axes)
        g = g * scale
        own = g - g.mean(-1, keepdims=True) - normed * (g * normed).mean(-1, keepdims=True)
        dx = _put(dx, _cut(stream, start, rows).astype(jnp.float32) + slope * own, start)
        return (dx, dscale, dbias), None

    zero = jnp.zeros((x.shape[0], x.shape[-1]), jnp.float32)
    (dx, dscale, dbias), _ = jax.lax.scan(half, (stream, zero, zero), (starts, fresh))
    return dx, dscale.sum(0).reshape(scale.shape), dbias.sum(0).reshape(scale.shape)


fork_apart.defvjp(_forward, _backward)


def _halves(x):
    """(rows of a half of the axis before the last, where both start, which rows are not in the
    half before): the halves share a row where their number is odd."""
    size = x.shape[-2]
    rows = -(-size // 2)
    starts = jnp.array([0, size - rows])
    fresh = jnp.arange(rows)[None] + starts[:, None] >= jnp.array([[0], [rows]])
    return rows, starts, fresh


def _cut(x, start, rows):
    return jax.lax.dynamic_slice_in_dim(x, start, rows, x.ndim - 2)


def _put(x, part, start):
    return jax.lax.dynamic_update_slice_in_dim(x, part.astype(x.dtype), start, x.ndim - 2)
