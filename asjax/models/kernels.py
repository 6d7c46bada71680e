"""Forms of two operations that XLA runs well on the CPU, with their gradients.

XLA's own depthwise convolution is slow there (jax 0.10.2, one core, 4 x 252 x 56 x 48: 191 ms
forward, 620 ms backward; as below 16 and 80). And XLA fuses a cheap-looking producer into every
consumer, computing it again in each pass of a norm, each matrix product and each bias gradient:
GELU's erf and the shifted sums are not cheap. It fuses across everything but a loop, so both run
in a loop of two halves of the frames: exact, and a batch sharded over devices stays where it is.
A ConvNeXt block of that size takes half the time, forward and backward.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array

# ------------------------------------------------------------------------ depthwise convolution


def depthwise_conv(x: Array, kernel: Array) -> Array:
    """[B, T, F, C] * [k, k, 1, C] by the library, same size out."""
    dims, pad, width = ("NHWC", "HWIO", "NHWC"), kernel.shape[0] // 2, x.shape[-1]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((pad, pad), (pad, pad)),
        dimension_numbers=dims,
        feature_group_count=width,
    )


@jax.custom_vjp
def depthwise_shifts(x: Array, kernel: Array) -> Array:
    """`depthwise_conv` as k * k shifted multiply-adds in float32, by halves of the frames."""
    size = kernel.shape[0]
    b, t, f, c = x.shape
    half = -(-t // 2)
    padded = _pad_grid(x, size // 2, 2 * half - t)

    def add_half(out, part):
        window = jax.lax.dynamic_slice_in_dim(padded, part * half, half + size - 1, 1)
        y = 0.0
        for i in range(size):
            for j in range(size):
                tap = kernel[i, j].astype(jnp.float32).reshape(1, 1, 1, c)
                y = y + window[:, i : i + half, j : j + f].astype(jnp.float32) * tap
        y = y.astype(x.dtype)
        return jax.lax.dynamic_update_slice_in_dim(out, y, part * half, 1), None

    out, _ = jax.lax.scan(add_half, jnp.zeros((b, 2 * half, f, c), x.dtype), jnp.arange(2))
    return out[:, :t]


def _depthwise_forward(x, kernel):
    return depthwise_shifts(x, kernel), (x, kernel)


def _depthwise_backward(saved, g):
    """dx is the convolution with the turned kernel; dk adds up one row of frames at a time.

    Row by row because XLA reduces a shifted product one number after the other; the sum over the
    batch comes last, so that a batch sharded over devices stays where it is.
    """
    x, kernel = saved
    size = kernel.shape[0]
    b, t, f, c = x.shape
    padded = _pad_grid(x, size // 2)

    def add_row(sums, row):
        window = jax.lax.dynamic_slice_in_dim(padded, row, size, 1).astype(jnp.float32)
        g_row = jax.lax.dynamic_slice_in_dim(g, row, 1, 1).astype(jnp.float32)
        return tuple(s + window[:, :, j : j + f] * g_row for j, s in enumerate(sums)), None

    zeros = tuple(jnp.zeros((b, size, f, c), jnp.float32) for _ in range(size))
    sums, _ = jax.lax.scan(add_row, zeros, jnp.arange(t))
    dk = jnp.stack([s.sum((0, 2)) for s in sums], 1)[:, :, None]
    return depthwise_shifts(g, kernel[::-1, ::-1]), dk.astype(kernel.dtype)


depthwise_shifts.defvjp(_depthwise_forward, _depthwise_backward)


def _pad_grid(x, pad, more_frames=0):
    return jnp.pad(x, ((0, 0), (pad, pad + more_frames), (pad, pad), (0, 0)))


# ---------------------------------------------------------------------------------------- gelu


def gelu(x: Array) -> Array:
    """x * Phi(x), by erfc: exact in the negative tail too. Computed in float32."""
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * jax.lax.erfc(-x32 * _SQRT_HALF)).astype(x.dtype)


_SQRT_HALF = 0.5**0.5
_NORMAL = 0.3989422804014327  # 1 / sqrt(2 pi)


@jax.custom_vjp
def gelu_apart(x: Array) -> Array:
    """`gelu` of [B, T, ...], fused with nothing around it."""
    return _by_halves(gelu, x)


def _gelu_forward(x):
    return gelu_apart(x), x


def _gelu_backward(x, g):
    def pull(x, g):
        x = x.astype(jnp.float32)
        slope = 0.5 * jax.lax.erfc(-x * _SQRT_HALF) + x * jnp.exp(-0.5 * x * x) * _NORMAL
        return (g.astype(jnp.float32) * slope).astype(g.dtype)

    return (_by_halves(pull, x, g),)


gelu_apart.defvjp(_gelu_forward, _gelu_backward)


def _by_halves(function, *arrays):
    """An elementwise function of [B, T, ...] arrays in a loop over two halves of T."""
    first = arrays[0]
    half = -(-first.shape[1] // 2)

    def step(out, part):
        # an odd T: the second half starts one frame early, and that frame is computed twice
        start = jnp.minimum(part * half, first.shape[1] - half)
        pieces = [jax.lax.dynamic_slice_in_dim(x, start, half, 1) for x in arrays]
        return jax.lax.dynamic_update_slice_in_dim(out, function(*pieces), start, 1), None

    return jax.lax.scan(step, jnp.zeros_like(first), jnp.arange(2))[0]
