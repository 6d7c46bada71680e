"""Operations in the form for accelerators, with jax's own gradients."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Pair = tuple[int, int]


def product(x: Array, kernel: Array) -> Array:
    """[..., I] @ [I, O] -> [..., O]."""
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def gelu(x: Array) -> Array:
    """x * Phi(x) by erf, as in torch; computed in float32."""
    x32 = x.astype(jnp.float32)
    return (x32 * normal_cdf(x32)).astype(x.dtype)


def normal_cdf(x: Array) -> Array:
    """Phi(x), the distribution function of the standard normal."""
    return 0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5)


def conv(x: Array, kernel: Array, strides: Pair = (1, 1), pads=None) -> Array:
    """[B, T, F, C] * [k, k, C, O] -> [B, T, F, O]: by default odd k, stride 1, zero padding."""
    pad = kernel.shape[0] // 2
    pads = ((pad, pad), (pad, pad)) if pads is None else pads
    return jax.lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def depthwise(x: Array, kernel: Array, strides: Pair, pads: tuple[Pair, Pair]) -> Array:
    """[B, H, W, C] * [kh, kw, 1, C] -> [B, H', W', C]; pads: zeros on each side."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def max_pool(x: Array, window: Pair, strides: Pair, pads: tuple[Pair, Pair]) -> Array:
    """Maximum over windows of [B, T, F, C]."""
    return nn.max_pool(x, window, strides, pads)


def fork(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array]:
    """(x, LayerNorm of x over the last axis in float32), with the two-pass variance.

    `scale` and `bias` are float32 and have the rank of x, [1, ..., 1, D].
    """
    normed, _, _ = standardised(x, epsilon)
    return x, normed * scale + bias


def standardised(x: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """((x - mean) / deviation, mean, 1 / deviation) over the last axis, in float32."""
    x = x.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    rstd = jax.lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + epsilon)
    return (x - mean) * rstd, mean, rstd
