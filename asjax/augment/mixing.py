"""Mixtures of two clips of a batch."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from asjax import config
from asjax.augment.checks import floating, number
from asjax.config import AsjaxError
from asjax.nn import placement

WAVES = ("wave", "feats")
TARGETS = ("target", "frame_target", "teacher", "clip_teacher")
FLAGS = ("mask", "has_strong", "has_weak", "has_teacher")
_SCALE = {"db_energy": 10 / math.log(10), "ln_energy": 1.0}  # units of the feature per neper


def mixup(
    rng,
    batch,
    *,
    alpha=1.0,
    rate=1.0,
    style="panns",
    domain="linear",
    scale=1.0,
    remove_mean=False,
    per_batch=False,
    block=0,
):
    """Convex mixtures of two clips of the batch: `x = lam a + (1 - lam) b`, targets likewise.

    Args:
      alpha: lam ~ Beta(alpha, alpha), one per mixture.
      rate: probability that a pair is mixed. Other pairs have lam = 1.
      style: "panns": a, b are rows (0, 1), (2, 3), ..., so the batch size halves.
        "passt": b is a permutation of the batch, lam = max(lam, 1 - lam).
        "plain": b is a permutation, lam as drawn (AST, balancing paper).
        A row that is its own partner does not change.
      domain: how feats are mixed. "linear": as they are. "db_energy": feats are decibels and their
        energies are mixed, `10 log10(lam 10^(a/10) + (1 - lam) 10^(b/10))`. "ln_energy": the same
        for natural logarithms.
      scale: for these two domains, the factor that the frontend multiplied the logarithms by. For
        features (x - mean) / (2 std) it is `1 / (2 std)`. The subtracted mean does not matter,
        because a shift of both parts shifts the mixture equally. Balancing paper on AST's
        features, std 4.569: `mixup(alpha=10, style='plain', domain='ln_energy', scale=0.10943)`.
      remove_mean: subtract the mean of both parts and of the mixed wave (AST, PaSST).
      per_batch: draw with probability `rate` once for all pairs, not for each. PretrainedSED:
        `mixup(alpha=0.2, rate=0.3, style='passt', per_batch=True)` on features.
      block: 0: the permutation is one of the whole batch, as the authors have it. 8: the partner of
        a row is in its block of gcd(8, B) consecutive rows, which is turned by a random number of
        places. So no row is its own partner, and rows stay on their device; a permutation of the
        batch sends every row to every device. Rows of a shuffled or weighted draw are exchangeable,
        so a pair has the same law.

    `target`, `frame_target`, `teacher` and `clip_teacher` are mixed as the waves. `mask` and all
    `has_...` of a mixture are products: a mixture has labels of a kind only if both clips have
    them. So a mixture with a padding row is padding too, and a padding row never reaches a loss.
    Training batches have no padding rows. Arrays under other keys have the rows of a.

    Raises:
      AsjaxError: a field out of range, keys of unequal batch size, an integer array, an odd batch
        in style "panns", or a batch that shares no divisor with `block`.
    """
    number("mixup alpha", alpha, 1e-3)
    number("mixup rate", rate, 0, 1)
    number("mixup scale", scale, 1e-6)
    if not isinstance(per_batch, bool):
        raise AsjaxError(f"mixup per_batch must be True or False, got {per_batch!r}")
    for name, value, known in (
        ("style", style, ("panns", "passt", "plain")),
        ("domain", domain, ("linear", *_SCALE)),
    ):
        if value not in known:
            raise config.unknown(f"mixup {name}", value, known)
    check_block(block, "mixup")
    if style == "panns" and block:
        raise AsjaxError("mixup style 'panns' mixes neighbours and has no block; leave block out")
    clips = _batch_size(batch)
    if clips is None:
        return batch
    if style == "panns" and clips % 2:
        raise AsjaxError(
            f"mixup style 'panns' pairs rows, so the batch must be even, got {clips}; "
            "draw an even batch or take style='plain'"
        )
    block = block_rows(block, "mixup", batch, clips)
    partner, lam = pairs(rng, clips, alpha, rate, style, per_batch, block)
    return mixed(batch, partner, lam, domain, scale, remove_mean)


def wavmix(rng, batch, *, alpha=2.0, rate=0.8, block=0):
    """Mix each wave with another one of the batch, with probability `rate` (PretrainedSED).

    It is `mixup(alpha=2, style='passt', remove_mean=True)`: the louder part has lam >= 1/2, and
    means are removed before and after. The authors take the partner from the whole data set.
    `block` is that of mixup.

    Raises:
      AsjaxError: a field out of range, or a batch with features in place of waves.
    """
    number("wavmix alpha", alpha, 1e-3)
    number("wavmix rate", rate, 0, 1)
    check_block(block, "wavmix")
    if "feats" in batch:
        raise AsjaxError("wavmix mixes waves, and the batch has features; take it to augment.wave")
    how = {"style": "passt", "remove_mean": True, "block": block}
    return mixup(rng, batch, alpha=alpha, rate=rate, **how)


def mixed(batch, partner, lam, domain="linear", scale=1.0, remove_mean=False):
    """The mixtures of `mixup` for given partners and lam [N]; lam = 1 means not mixed."""
    out = {key: _sides(value, partner)[0] for key, value in batch.items()}
    if "wave" in batch:
        out["wave"] = _mix_wave(floating(batch, "wave"), partner, lam, remove_mean)
    if "feats" in batch:
        out["feats"] = _mix_feats(floating(batch, "feats"), partner, lam, domain, scale)
    for key in TARGETS:
        if key in batch:
            out[key] = _mix(floating(batch, key), partner, lam)
    for key in FLAGS:
        if key in batch:
            first, second = _sides(floating(batch, key), partner)
            out[key] = jnp.where(lam < 1, first * second, first)
    return out


def pairs(rng, clips: int, alpha, rate, style: str, per_batch: bool = False, block: int = 0):
    """Partner rows and lam (float32; exactly 1 means not mixed).

    Partners are int [B], with `block` int [B / block, block] inside each block, and None for
    neighbours.
    """
    count = clips // 2 if style == "panns" else clips
    # One call draws everything, because the generator takes most of the compile time.
    radius, angle, chance, order = jax.random.uniform(rng, (4, count))
    chance = chance[:1] if per_batch else chance
    lam = jnp.where(chance < rate, symmetric_beta(radius, angle, alpha), 1.0)
    if style == "panns":
        return None, lam
    if style == "passt":
        lam = jnp.maximum(lam, 1 - lam)
    partner = partners(order, block)
    return partner, lam if block else jnp.where(partner == jnp.arange(clips), 1.0, lam)


def partners(order, block: int = 0):
    """Uniforms [B] -> a permutation int [B], or with `block` int [B / block, block] of each block.

    A block is turned by 1 to block - 1 places, each with the same probability.
    """
    if not block:
        return jnp.argsort(order)
    turn = 1 + jnp.floor(order[::block] * (block - 1)).astype(jnp.int32)
    return (jnp.arange(block)[None] + turn[:, None]) % block


def of_partners(array, partner):
    """The rows of the partners: array [B, ...], partner as from `partners`."""
    if partner.ndim == 1:
        return array[partner]
    blocks = array.reshape(*partner.shape, *array.shape[1:])
    rows = partner.reshape(partner.shape + (1,) * (array.ndim - 1))
    return jnp.take_along_axis(blocks, rows, axis=1).reshape(array.shape)


def symmetric_beta(radius, angle, alpha: float):
    """Two independent uniforms in [0, 1) -> Beta(alpha, alpha), elementwise.

    If t follows Student's law with 2 alpha degrees of freedom, (1 + t / sqrt(2 alpha + t^2)) / 2
    follows Beta(alpha, alpha). t is drawn by the polar method of Bailey, Mathematics of Computation
    62 (1994). `jax.random.beta` is not used: it samples by rejection and compiles for two seconds.
    """
    square = jnp.expm1(-jnp.log1p(-radius) / alpha)  # t^2 / (2 alpha cos^2)
    cosine = jnp.cos(2 * jnp.pi * angle)
    square = jnp.minimum(square, 1e30) * jnp.square(cosine)
    return (1 + jnp.sign(cosine) * jnp.sqrt(square / (1 + square))) / 2


def _sides(array, partner):
    """The clips a and b of every mixture. A reshape pairs neighbours without moving devices."""
    if partner is not None:
        return array, of_partners(array, partner)
    pairs = array.reshape(array.shape[0] // 2, 2, *array.shape[1:])
    return pairs[:, 0], pairs[:, 1]


def _column(lam, array):
    """lam [N] -> [N, 1, ...] with as many axes as `array`."""
    return lam.reshape(lam.shape + (1,) * (array.ndim - 1))


def _mix(array, partner, lam):
    a, b = _sides(array.astype(jnp.float32), partner)
    lam = _column(lam, array)
    return jnp.where(lam < 1, lam * a + (1 - lam) * b, a).astype(array.dtype)


def _mix_wave(wave, partner, lam, remove_mean: bool):
    if not remove_mean:
        return _mix(wave, partner, lam)
    full = wave.astype(jnp.float32)
    mixed = _mix(full - full.mean(1, keepdims=True), partner, lam)
    mixed = mixed - mixed.mean(1, keepdims=True)
    unmixed = _sides(full, partner)[0]
    return jnp.where(_column(lam, wave) < 1, mixed, unmixed).astype(wave.dtype)


def _mix_feats(feats, partner, lam, domain: str, scale: float):
    if domain == "linear":
        return _mix(feats, partner, lam)
    a, b = _sides(feats.astype(jnp.float32), partner)
    lam, scale = _column(lam, feats), scale * _SCALE[domain]  # features per neper
    # Only differences of logarithms are exponentiated, so nothing over- or underflows.
    both = scale * jnp.logaddexp(jnp.log(lam) + a / scale, jnp.log1p(-lam) + b / scale)
    return jnp.where(lam < 1, both, a).astype(feats.dtype)


def check_block(block, op: str) -> None:
    if isinstance(block, bool) or not isinstance(block, int) or block < 0 or block == 1:
        raise AsjaxError(f"{op} block must be 0, or 2 or more rows, got {block!r}")


def block_rows(block: int, op: str, batch, clips: int) -> int:
    """Rows of a block for the keyword `block`; 0: none. AsjaxError: it does not fit the batch."""
    if clips < 2 or not block:
        return 0
    rows = math.gcd(block, clips)
    if rows == 1:
        raise AsjaxError(
            f"{op} block={block} needs a batch that shares a divisor with it, got {clips} clips; "
            f"change batch_size, or give {op} block=0 (partners from the whole batch)"
        )
    array = next(batch[key] for key in (*WAVES, *TARGETS, *FLAGS) if key in batch)
    devices = placement.mesh(array).size or 1
    if clips > rows and clips // devices % rows:
        config.warn(
            f"{op}: blocks of {rows} clips cross devices, which have {clips // devices} clips, "
            "so every step moves the batch between devices; a batch_size that is a multiple of "
            f"{devices * block} avoids it"
        )
    return rows


def _batch_size(batch) -> int | None:
    sizes = {key: batch[key].shape[0] for key in (*WAVES, *TARGETS, *FLAGS) if key in batch}
    if len(set(sizes.values())) > 1:
        raise AsjaxError(f"batch keys must agree in their first axis, got {sizes}")
    return next(iter(sizes.values()), None)
