"""What changes the colour of the sound: statistics, gain and place of the bins (PretrainedSED).

These ops act on features [B, T, F] that are log-mel after normalisation, as PretrainedSED's do.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from asjax.augment.checks import floating, number
from asjax.augment.mixing import block_rows, check_block, of_partners, partners, symmetric_beta
from asjax.config import AsjaxError


def freq_mixstyle(rng, batch, *, alpha=0.4, rate=0.3, block=0):
    """Give each clip statistics between its own and those of another clip (Freq-MixStyle).

    Mean and standard deviation of each bin over time become lam own + (1 - lam) other, with lam =
    max(b, 1 - b), b ~ Beta(alpha, alpha) for each clip. Labels do not change.

    Args:
      rate: probability that a batch is changed, drawn once per batch.
      block: as in mixup: 8 takes the other clip from a block of 8 rows, 0 from the whole batch.
    """
    number("freq_mixstyle alpha", alpha, 1e-3)
    number("freq_mixstyle rate", rate, 0, 1)
    check_block(block, "freq_mixstyle")
    if "feats" not in batch:
        return batch
    feats = floating(batch, "feats")
    radius, angle, order, chance = jax.random.uniform(rng, (4, feats.shape[0]))
    lam = symmetric_beta(radius, angle, alpha)
    partner = partners(order, block_rows(block, "freq_mixstyle", batch, feats.shape[0]))
    new = restyled(feats, partner, jnp.maximum(lam, 1 - lam))
    return {**batch, "feats": jnp.where(chance[0] < rate, new, feats)}


def restyled(feats, partner, lam):
    """`freq_mixstyle` for given partners and lam [B]. The variance is unbiased, plus 1e-6."""
    own_share = lam[:, None, None]
    x = feats.astype(jnp.float32)
    mean = x.mean(axis=1, keepdims=True)
    square = jnp.square(x - mean).sum(axis=1, keepdims=True)
    std = jnp.sqrt(square / max(1, x.shape[1] - 1) + 1e-6)

    def between(own):
        return own_share * own + (1 - own_share) * of_partners(own, partner)

    return ((x - mean) / std * between(std) + between(mean)).astype(feats.dtype)


def filter_augment(rng, batch, *, max_db=6.0, bands=(3, 5), min_width=6, rate=0.8):
    """Multiply the features by a random piecewise linear curve over frequency (FilterAugment).

    The number of bands and their edges are drawn once per batch, the gain at each edge for each
    clip: U(-max_db, max_db) dB, linear in dB between the edges. As in PretrainedSED the gain
    multiplies the normalised log-mel by 10^(dB / 20). It is no gain of the sound, which would be
    added to a log-mel.

    Args:
      bands: fewest and most bands. min_width: least width of a band in bins.
      rate: probability that a batch is changed, drawn once per batch.

    Raises:
      AsjaxError: a field out of range, or features with too few bins for these bands.
    """
    number("filter_augment max_db", max_db, 0, 100)
    number("filter_augment min_width", min_width, 2, 2**20, whole=True)
    number("filter_augment rate", rate, 0, 1)
    if not isinstance(bands, (tuple, list)) or len(bands) != 2:
        raise AsjaxError(f"filter_augment bands must be (fewest, most), got {bands!r}")
    number("filter_augment bands", bands[0], 1, 64, whole=True)
    number("filter_augment bands", bands[1], bands[0], 64, whole=True)
    if "feats" not in batch:
        return batch
    feats = floating(batch, "feats")
    (clips, _, bins), most = feats.shape, bands[1]
    if bins < most * min_width:
        raise AsjaxError(
            f"filter_augment needs {most} bands x {min_width} bins = {most * min_width} bins, and "
            f"the features have {bins}; lower bands or min_width"
        )
    one, each = jax.random.split(rng)
    # Not rows of one array: clips + 1 rows do not divide over devices, which would exchange some.
    draws, gains = jax.random.uniform(one, (most + 1,)), jax.random.uniform(each, (clips, most + 1))
    count = bands[0] + jnp.floor(draws[0] * (most - bands[0] + 1)).astype(jnp.int32)
    # An edge is U{0..F - count * min_width} plus min_width for each band below it.
    places = jnp.floor(draws[2:] * (bins - count * min_width + 1)).astype(jnp.int32)
    number_of = jnp.arange(1, most)
    places = jnp.sort(jnp.where(number_of < count, places, bins))
    edges = jnp.where(number_of < count, places + number_of * min_width, bins)
    gain = curve(edges, (2 * gains - 1) * max_db, bins)
    gain = jnp.where(draws[1] < rate, gain, 1.0)
    return {**batch, "feats": (feats * gain[:, None, :]).astype(feats.dtype)}


def curve(edges, db, bins: int):
    """Gain of each bin, [B, F].

    Args:
      edges: int [K], the inner edges in ascending order; an edge at F or above does not exist.
      db: [B, K + 2], the gain at each edge, from the first bin's to the last bin's. The last bin
        of a band has the gain of the band's upper edge.
    """
    at = jnp.arange(bins)
    ends = jnp.concatenate([jnp.zeros(1, edges.dtype), jnp.minimum(edges, bins), bins + at[:1]])
    band = (at[:, None] >= ends[None, 1:-1]).sum(axis=1)
    share = (at - ends[band]) / jnp.maximum(ends[band + 1] - ends[band] - 1, 1)
    low, high = db[:, band], db[:, band + 1]
    return 10 ** ((low + (high - low) * share[None]) / 20)


def freq_warp(rng, batch, *, low=0.6, rate=0.8):
    """Stretch a random part of the bins over all bins, once for all clips of the batch.

    Of F bins, a run of int(F U(low, 1)) at a random place is resized to F by cubic convolution with
    a = -0.75, first bin to first and last to last. Time does not change.

    Args:
      rate: probability that a batch is changed, drawn once per batch.
    """
    number("freq_warp low", low, 0.01, 1)
    number("freq_warp rate", rate, 0, 1)
    if "feats" not in batch:
        return batch
    feats = floating(batch, "feats")
    bins = feats.shape[2]
    share, place, chance = jax.random.uniform(rng, (3,))
    rows = jnp.maximum(1, jnp.floor((low + share * (1 - low)) * bins))
    first = jnp.floor(place * (bins - rows + 1))
    return {**batch, "feats": jnp.where(chance < rate, stretched(feats, first, rows), feats)}


def stretched(feats, first, rows):
    """The bins [first, first + rows) of `feats`, resized to all bins."""
    bins = feats.shape[2]
    at = jnp.arange(bins) * ((rows - 1) / max(1, bins - 1))
    whole = jnp.floor(at)
    matrix = jnp.zeros((bins, bins), jnp.float32)  # [from, to]
    for tap in (-1, 0, 1, 2):
        source = first + jnp.clip(whole + tap, 0, rows - 1)
        weight = _cubic(jnp.abs(at - whole - tap))
        matrix += jnp.where(jnp.arange(bins)[:, None] == source[None], weight[None], 0.0)
    x = jnp.einsum("btf,fg->btg", feats.astype(jnp.float32), matrix, precision="highest")
    return x.astype(feats.dtype)


def _cubic(distance, a=-0.75):
    """Keys' kernel of cubic convolution (1981) for distances from 0 to 2."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return jnp.where(distance <= 1, near, far)
