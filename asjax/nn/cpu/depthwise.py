"""Depthwise convolution with strides, in the library's form and in one that XLA runs well on CPUs.

XLA's own is slow there, above all its gradients. Batch 4, two cores, gradients in ms,
XLA's against `shifts`: 64 x 500 x 64, 3x3, stride 2: 450, 54; 16 x 125 x 120, 5x5: 75, 10;
4 x 32 x 960, 5x5: 372, 9; 252 x 56 x 48, 7x7, one core: 811, 96 (jax 0.10.2).

XLA fuses a cheap-looking producer into every consumer and computes it again in each pass of a norm,
each matrix product, each bias gradient. A sum of shifted slices is not cheap. XLA fuses across
everything but a loop, so it runs in a loop of two halves. A batch sharded over devices stays where
it is.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from asjax.nn.cpu import kernels

Array = jax.Array
Pair = tuple[int, int]


def correlate(x: Array, kernel: Array, strides: Pair, pads: tuple[Pair, Pair]) -> Array:
    """[B, H, W, C] * [kh, kw, 1, C] -> [B, H', W', C]; pads: zeros on each side."""
    return (shifts if kernels.on_cpu() else library)(x, kernel, strides, pads)


def library(x: Array, kernel: Array, strides: Pair, pads: tuple[Pair, Pair]) -> Array:
    """`correlate` by the library."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shifts(x: Array, kernel: Array, strides: Pair, pads: tuple[Pair, Pair]) -> Array:
    """The same as kh * kw shifted multiply-adds in float32, by halves of the rows."""
    sizes = zip(x.shape[1:3], kernel.shape[:2], strides, pads, strict=True)
    rows, columns = ((n + sum(pad) - k) // s + 1 for n, k, s, pad in sizes)
    return _correlate(_pad(x, *pads), kernel, strides, rows, columns)


def _correlate(x, kernel, strides, rows, columns):
    """Unpadded strided correlation, `rows` x `columns` out; where x ends too soon, zeros follow."""
    (kh, kw), (sh, sw) = kernel.shape[:2], strides
    b, h, w, c = x.shape
    half = -(-rows // 2)
    missing = (2 * half - 1) * sh + kh - h, (columns - 1) * sw + kw - w
    x = _pad(x, *((0, max(0, m)) for m in missing))

    def add_half(out, part):
        window = jax.lax.dynamic_slice_in_dim(x, part * half * sh, (half - 1) * sh + kh, 1)
        y = 0.0
        for i in range(kh):
            for j in range(kw):
                tap = kernel[i, j].astype(jnp.float32).reshape(1, 1, 1, c)
                cut = window[
                    :, i : i + (half - 1) * sh + 1 : sh, j : j + (columns - 1) * sw + 1 : sw
                ]
                y = y + cut.astype(jnp.float32) * tap
        y = y.astype(x.dtype)
        return jax.lax.dynamic_update_slice_in_dim(out, y, part * half, 1), None

    out, _ = jax.lax.scan(add_half, jnp.zeros((b, 2 * half, columns, c), x.dtype), jnp.arange(2))
    return out[:, :rows]


def _pad(x, rows, columns):
    return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def _forward(x, kernel, strides, pads):
    return shifts(x, kernel, strides, pads), (x, kernel)


def _backward(strides, pads, saved, g):
    x, kernel = saved
    padded = _pad(x, *pads)
    dx = _input_gradient(padded, kernel, g, strides)
    dx = dx[:, pads[0][0] :, pads[1][0] :][:, : x.shape[1], : x.shape[2]]
    return dx, _kernel_gradient(padded, kernel, g, strides).astype(kernel.dtype)


shifts.defvjp(_forward, _backward)


def _input_gradient(padded, kernel, g, strides):
    """The gradient at padded rows a, a + sh, a + 2 sh ... takes taps a, a + sh ...: one small
    correlation of g with the turned taps for every a and, of the columns, every e."""
    sh, sw = strides
    rows, columns = -(-padded.shape[1] // sh), -(-padded.shape[2] // sw)
    parts = []
    for a in range(sh):
        for e in range(sw):
            taps = kernel[a::sh, e::sw][::-1, ::-1]
            before = _pad(g, (taps.shape[0] - 1, 0), (taps.shape[1] - 1, 0))
            parts.append(_correlate(before, taps, (1, 1), rows, columns))
    if len(parts) == 1:
        return parts[0]
    b, c = g.shape[0], g.shape[-1]
    dx = jnp.stack(parts, 3).reshape(b, rows, columns, sh, sw, c).swapaxes(2, 3)
    return dx.reshape(b, rows * sh, columns * sw, c)


def _kernel_gradient(padded, kernel, g, strides):
    """Adds up one row of g at a time, because XLA reduces a shifted product one number after the
    other; the sum over the batch comes last, so that a sharded batch stays where it is."""
    (kh, kw), (sh, sw) = kernel.shape[:2], strides
    span = (g.shape[2] - 1) * sw + 1

    def products(row):
        window = jax.lax.dynamic_slice_in_dim(padded, row * sh, kh, 1).astype(jnp.float32)
        g_row = jax.lax.dynamic_slice_in_dim(g, row, 1, 1).astype(jnp.float32)
        return tuple(window[:, :, j : j + span : sw] * g_row for j in range(kw))  # [B, kh, W', C]

    def add_row(sums, row):
        return tuple(s + p for s, p in zip(sums, products(row), strict=True)), None

    sums, _ = jax.lax.scan(add_row, products(0), jnp.arange(1, g.shape[1]))
    return jnp.stack([s.sum((0, 2)) for s in sums], 1)[:, :, None]
