"""Grouped convolution with long kernels by short Fourier transforms (overlap-save).

The transforms are matrix products. XLA's grouped convolution on CPU is slow, and its gradient is
unusable: BEATs' positional convolution (128 taps, 16 groups of 48 channels, 496 tokens) takes 19 s
per clip on two cores, and 0.3 s here. Direct matrix products would need 10 times the operations.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from asjax.nn import placement

Array = jax.Array


def correlate(x: Array, kernel: Array, groups: int) -> Array:
    """y[s] = sum over k of x[s + k - K // 2] kernel[k] in each group, with zero padding.

    Args:
      x: [B, S, I].
      kernel: [K, I // groups, O]; K should be even and much smaller than S.

    Returns:
      float32 [B, S, O]. torch's output with padding K // 2 has one more row.
    """
    taps, inner, width = kernel.shape
    clips, rows = x.shape[:2]
    if placement.in_graph():
        y = jax.lax.conv_general_dilated(
            x, kernel, (1,), ((taps // 2, taps // 2),), feature_group_count=groups,
            dimension_numbers=("NHC", "HIO", "NHC"), precision="highest",
        )  # fmt: skip
        return y[:, :rows]
    size = 2 * taps
    hop = size - taps + 1  # rows of a block without wrap-around
    blocks = -(-rows // hop)
    after = (blocks - 1) * hop + size - taps // 2 - rows
    x = jnp.pad(x.astype(jnp.float32), ((0, 0), (taps // 2, after), (0, 0)))
    x = jnp.stack([x[:, j * hop : j * hop + size] for j in range(blocks)], 1)
    x = x.reshape(clips * blocks, size, -1)

    frequency = np.arange(size // 2 + 1)
    # Reduce the product of the indices modulo `size` first: a large angle would lose digits.
    angle = 2 * np.pi / size * (np.outer(frequency, np.arange(size)) % size)
    cos, sin = (jnp.asarray(f(angle), jnp.float32) for f in (np.cos, np.sin))
    forth = lambda table, x: _dot("fn,mnd->fmd", table, x).reshape(  # noqa: E731
        len(frequency), -1, groups, inner
    )
    x_re, x_im = forth(cos, x), -forth(sin, x)
    kernel = kernel.astype(jnp.float32).reshape(taps, inner * width)
    shape = (len(frequency), inner, groups, width // groups)
    k_re, k_im = (_dot("fk,kw->fw", t[:, :taps], kernel).reshape(shape) for t in (cos, -sin))
    # x times the conjugate of the kernel gives a correlation
    join = lambda a, b: _dot("fmgi,figo->fmgo", a, b).reshape(len(frequency), -1, width)  # noqa: E731
    y_re, y_im = join(x_re, k_re) + join(x_im, k_im), join(x_im, k_re) - join(x_re, k_im)
    weight = np.where((frequency == 0) | (frequency == size // 2), 1, 2)[:, None] / size
    back = (jnp.asarray((f(angle) * weight)[:, :hop], jnp.float32) for f in (np.cos, np.sin))
    cos, sin = back
    y = _dot("fs,fmd->msd", cos, y_re) - _dot("fs,fmd->msd", sin, y_im)
    return y.reshape(clips, blocks * hop, width)[:, :rows]


def _dot(text: str, a, b):
    """einsum in full float32, because an error in a transform spreads to all outputs."""
    return jnp.einsum(text, a, b, precision="highest")
