"""Attention with a gated bias for relative positions (Chi et al. 2022), for WavLM and BEATs.

    scores[q, k] = <q, k> / sqrt(d) + gate[q] * position[bucket(k - q)]

All layers share one table of positions. The gate is one number per query and head, computed from
the query. The bias of all heads takes as much memory as the scores, and its gradient takes as much
again. So `attend` computes a large bias one head at a time.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from asjax.nn import placement, vit

Array = jax.Array

# The largest bias, in bytes, that is computed for all heads at once.
AT_ONCE = 2**25


def buckets(count: int, number: int, farthest: int) -> np.ndarray:
    """The bucket of every distance key - query from -(count - 1) to count - 1: int32 [2 count - 1].

    Half of the `number` buckets are for positive distances. Within each half, the first half of the
    buckets has one distance each. The others grow logarithmically up to `farthest`; larger
    distances share the last one (Raffel et al. 2020). Logarithms are in float32, as in torch.
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
    """table [buckets, N] -> [N, S, S]: the entry of every query and key, for S = `count` tokens."""
    by_distance = table[buckets(count, table.shape[0], farthest)].T  # [N, 2 S - 1]
    heads, width = by_distance.shape[0], 2 * count
    # Row q has the distances from -q on. We repeat a row of 2 S numbers and cut the result into
    # rows of 2 S - 1, so each row is shifted by one. A gather would have a slow gradient.
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
      gate: float32 [B, S, N], one number per query and head.
      position: float32 [N, S, S].
      dropout: rate for the attention weights, with the key `rng`.
      backend: as for `vit.attend`.
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
    if placement.in_graph() or q.shape[0] * position.size * 4 <= AT_ONCE:
        return heads(q, k, v, gate, position, rngs[0])
    # Checkpoint each head, so that the backward pass recomputes its bias.
    one = jax.checkpoint(
        lambda q, k, v, g, p, r: heads(
            q[:, :, None], k[:, :, None], v[:, :, None], g[:, :, None], p[None], r
        )[:, :, 0]
    )
    split = (jnp.moveaxis(x, 2, 0) for x in (q, k, v, gate))
    _, out = jax.lax.scan(lambda _, now: (None, one(*now)), None, (*split, position, rngs))
    return jnp.moveaxis(out, 0, 2)
