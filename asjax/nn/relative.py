"""Attention with a gated bias for relative positions (Chi et al. 2022), as WavLM and BEATs have it.

    scores[q, k] = <q, k> / sqrt(d) + gate[q] * position[bucket(k - q)]

The position term is one table for all layers; the gate, one number for each query and head, is
computed from the query. For all heads at once the bias takes as much memory as the scores, and its
gradient again: `attend` therefore makes it for one head after the other where it would be large.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from asjax.nn import vit

Array = jax.Array

# Bytes of a bias for all heads up to which it is made at once.
AT_ONCE = 2**25


def buckets(count: int, number: int, farthest: int) -> np.ndarray:
    """The bucket of every distance key - query from -(count - 1) to count - 1: int32 [2 count - 1].

    Half of the `number` buckets are for positive distances. In each half, half are for one distance
    each, the others grow logarithmically up to `farthest`; what lies beyond shares the last one.
    float32 logarithms, as torch takes them (Raffel et al. 2020).
    """
    f32, half = np.float32, number // 2
    exact = half // 2
    distance = np.arange(1 - count, count)
    size = np.abs(distance)
    with np.errstate(divide="ignore"):
        log = np.log((size.astype(f32) / f32(exact)).astype(np.float64)).astype(f32)
    wide = log / f32(math.log(farthest / exact)) * f32(half - exact)
    wide = np.minimum(exact + np.where(size > 0, wide, 0).astype(np.int64), half - 1)
    return (np.where(size < exact, size, wide) + half * (distance > 0)).astype(np.int32)


def position_bias(table: Array, count: int, farthest: int) -> Array:
    """table [buckets, N] -> [N, S, S], the entry of every query and key of S = `count` tokens."""
    by_distance = table[buckets(count, table.shape[0], farthest)].T  # [N, 2 S - 1]
    heads, width = by_distance.shape[0], 2 * count
    # Row q holds the distances from -q on. Rows of 2 S - 1 that are cut from a repetition of
    # 2 S numbers shift by one from row to row, so no gather (whose gradient is slow) is needed.
    row = jnp.pad(by_distance, ((0, 0), (0, 1)))
    rows = jnp.broadcast_to(row[:, None], (heads, count, width)).reshape(heads, count * width)
    rows = rows[:, : count * (width - 1)].reshape(heads, count, width - 1)
    return rows[:, :, count - 1 :]


def attend(
    q: Array,
    k: Array,
    v: Array,
    gate: Array,
    position: Array,
    *,
    dropout: float = 0.0,
    rng: Array | None = None,
    backend: str = "auto",
) -> Array:
    """softmax(q k^T / sqrt(d) + gate * position) v over [B, S, N, d].

    Args:
      gate: float32 [B, S, N], one number for a query and head; position: float32 [N, S, S].
      dropout: of attention weights, with the key `rng`; 0 is none.
      backend: as `vit.attend` takes it.
    """

    def heads(q, k, v, gate, position, rng):
        bias = gate.transpose(0, 2, 1)[..., None] * position[None]  # [B, n, S, S]
        if not dropout:
            return vit.attend(q, k, v, bias=bias, backend=backend)
        scores = jnp.einsum("bqnd,bknd->bnqk", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5 + bias)
        keep = jax.random.bernoulli(rng, 1 - dropout, weights.shape)
        weights = jnp.where(keep, weights / (1 - dropout), 0).astype(v.dtype)
        return jnp.einsum("bnqk,bknd->bqnd", weights, v)

    number = position.shape[0]
    rngs = jax.random.split(jax.random.key(0) if rng is None else rng, number)
    if q.shape[0] * position.size * 4 <= AT_ONCE:
        return heads(q, k, v, gate, position, rngs[0])
    # One head is checkpointed: its bias is made again for the gradient.
    one = jax.checkpoint(
        lambda q, k, v, g, p, r: heads(
            q[:, :, None], k[:, :, None], v[:, :, None], g[:, :, None], p[None], r
        )[:, :, 0]
    )
    split = (jnp.moveaxis(x, 2, 0) for x in (q, k, v, gate))
    _, out = jax.lax.scan(lambda _, now: (None, one(*now)), None, (*split, position, rngs))
    return jnp.moveaxis(out, 0, 2)
