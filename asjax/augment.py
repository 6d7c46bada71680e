"""Augmentations on device, per batch: `op(rng, batch, *, ...) -> batch`, pure and jit-able.

An op changes some of these keys and returns all others as they are:

    wave [B, S] float   feats [B, T, F] float   target [B, ...] float   mask [B] float (0 = padding)

The random draws do not depend on which keys the batch has. So two calls with the same `rng`, one
with the targets and one with the features, make the same choices. Arithmetic is float32 and each
array keeps its dtype. `roll` also takes an integer wave.

    augment = asjax.build.augment("specaug(time_width=64) | mixup(alpha=1.0)")
    batch = augment(rng, {"feats": feats, "target": target})

An op checks its keywords first, so a call with an empty batch only checks them.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from asjax import config
from asjax.config import AsjaxError

__all__ = ["gain", "mixup", "noise", "roll", "roll_frames", "specaug", "speed"]

_KEYS = ("wave", "feats", "target", "mask")
_SCALE = {"db_energy": 10 / math.log(10), "ln_energy": 1.0}  # units of the feature per neper


# ------------------------------------------------------------------------------- waveform


def roll(rng, batch, *, fraction=1.0, samples=None, half_open=False, per_batch=False):
    """Circular shift of each wave by U{-m..m} samples, m = `samples` or `fraction` of the clip.

    PaSST: `roll(samples=50)`. The audio ConvNeXt never shifts by +m and shifts all clips of a
    batch by the same amount: `roll(samples=50, half_open=True, per_batch=True)`.
    """
    _number("roll fraction", fraction, 0, 1)
    if samples is not None:
        _number("roll samples", samples, 0, 2**30, whole=True)
    if "wave" not in batch:
        return batch
    most = round(fraction * batch["wave"].shape[1]) if samples is None else samples
    return {**batch, "wave": _rolled(rng, batch["wave"], most, half_open, per_batch)}


def _rolled(rng, array, most: int, half_open: bool, per_batch: bool):
    """Circular shift along axis 1 by U{-most..most}, without +most if `half_open`."""
    clips, length = array.shape[:2]
    end = max(most, 1 - most) if half_open else most + 1  # most = 0: the only shift is 0
    shift = jax.random.randint(rng, (1 if per_batch else clips, 1), -most, end)
    # One remainder per clip: a remainder per sample would take half of the time.
    source = jnp.arange(length)[None] + -shift % max(1, length)
    source = jnp.where(source < length, source, source - length)
    source = jnp.broadcast_to(source, (clips, length))
    source = source.reshape(source.shape + (1,) * (array.ndim - 2))
    return jnp.take_along_axis(array, source, 1, mode="promise_in_bounds")


def speed(rng, batch, *, low=0.5, high=1.5, rate=0.5, per_batch=False):
    """Stretch a share `rate` of the waves to U[low, high) times their length; the pitch changes.

    Sample i of the result is sample round(i / factor), without a filter, as in the audio ConvNeXt's
    code. A longer wave is cut at a random place. A shorter wave is padded with zeros on both sides,
    at a random place. The audio ConvNeXt with this option on: `speed(per_batch=True)`.
    """
    _number("speed low", low, 0.01, 100)
    _number("speed high", high, low, 100)
    _number("speed rate", rate, 0, 1)
    if "wave" not in batch:
        return batch
    wave = batch["wave"]
    clips, length = wave.shape
    factor, place, chance = jax.random.uniform(rng, (3, 1 if per_batch else clips, 1))
    factor = low + factor * (high - low)
    drawn = jnp.ceil(length * factor)
    # A longer wave is cut at U{0..extra-1}. A shorter wave gets U{0..missing} zeros before it.
    longer = drawn > length
    start = jnp.floor(place * jnp.where(longer, drawn - length, length - drawn + 1))
    at = jnp.arange(length)[None] + jnp.where(longer, start, -start)
    source = jnp.clip(jnp.round(at / factor), 0, length - 1).astype(jnp.int32)
    source = jnp.broadcast_to(source, wave.shape)
    inside = (at >= 0) & (at < drawn)
    other = jnp.where(inside, jnp.take_along_axis(wave, source, axis=1), jnp.zeros_like(wave))
    return {**batch, "wave": jnp.where(chance < rate, other, wave)}


def gain(rng, batch, *, low_db=-7, high_db=6, integer=True, per_batch=False):
    """Change the level of each wave by U{low_db..high_db} dB (PaSST: -7..6), without clipping.

    The gain is a whole number of dB. With `integer=False` it is any real value in that range.
    """
    _number("gain low_db", low_db, -200, whole=integer)
    _number("gain high_db", high_db, low_db, 200, whole=integer)
    if "wave" not in batch:
        return batch
    wave = _floating(batch, "wave")
    shape = (1 if per_batch else wave.shape[0], 1)
    span = high_db - low_db + (1 if integer else 0)
    db = low_db + jax.random.uniform(rng, shape) * span
    if integer:
        db = jnp.floor(db)
    louder = wave.astype(jnp.float32) * 10 ** (db / 20)
    return {**batch, "wave": louder.astype(wave.dtype)}


# ------------------------------------------------------------------------------- features


def specaug(
    rng,
    batch,
    *,
    time_width=64,
    time_stripes=2,
    freq_width=8,
    freq_stripes=2,
    fill=0.0,
    law="panns",
    per_batch=False,
):
    """Replace random stripes of frames and of bins by `fill` (SpecAugment).

    Law "panns": each stripe of each clip has width U{0..W-1} and start U{0..total-width-1}. Law
    "torchaudio" (AST, PaSST): v = W U[0, 1), the width is floor(v) and the start is
    floor(U[0, 1) (total - v)), so the last start is rarer. If the features are shorter than W, W
    is their length. So a single stripe always leaves one frame or one bin.

    PANNs fill with 0 after the input normalisation: this is the mean, not the floor in dB.
    ConvNeXt: `freq_width=28`. AST: `time_width=192, time_stripes=1, freq_width=48, freq_stripes=1,
    law='torchaudio'`, with fill = (0 - mean) / (2 std) = 0.467, which is 0 after the frontend's
    normalisation. PaSST: as AST, with fill 0.9 and one draw for the batch, `per_batch=True`.
    """
    for name, value in dict(
        time_width=time_width,
        time_stripes=time_stripes,
        freq_width=freq_width,
        freq_stripes=freq_stripes,
    ).items():
        _number(f"specaug {name}", value, 0, whole=True)
    _number("specaug fill", fill)
    if law not in ("panns", "torchaudio"):
        raise config.unknown("specaug law", law, ("panns", "torchaudio"))
    if "feats" not in batch:
        return batch
    feats = batch["feats"]
    rows = 1 if per_batch else feats.shape[0]
    time_rng, freq_rng = jax.random.split(rng)
    hidden = (
        _stripes(time_rng, rows, feats.shape[1], time_width, time_stripes, law)[:, :, None]
        | _stripes(freq_rng, rows, feats.shape[2], freq_width, freq_stripes, law)[:, None, :]
    )
    return {**batch, "feats": jnp.where(hidden, jnp.asarray(fill, feats.dtype), feats)}


def _stripes(rng, rows: int, total: int, width: int, count: int, law: str):
    """Boolean [rows, total]: True inside `count` random stripes, each narrower than `width`."""
    width = min(width, total)
    if not width or not count:
        return jnp.zeros((rows, total), bool)
    draws = jax.random.uniform(rng, (2, rows, count, 1))
    real = draws[0] * width
    widths = jnp.floor(real)
    starts = jnp.floor(draws[1] * (total - (widths if law == "panns" else real)))
    at = jnp.arange(total)[None, None]
    return ((at >= starts) & (at < starts + widths)).any(axis=1)


def noise(rng, batch, *, amount=0.1):
    """Features plus U[0, 1) for each frame and bin, times `amount` U[0, 1) for each clip.

    AST's option for normalised features, followed by `roll_frames(frames=10, half_open=True)`.
    """
    _number("noise amount", amount, 0)
    if "feats" not in batch:
        return batch
    feats = _floating(batch, "feats")
    clips, frames, bins = feats.shape
    draws = jax.random.uniform(rng, (clips, frames * bins + 1, 1))
    level, grain = amount * draws[:, :1], draws[:, 1:].reshape(feats.shape)
    noisy = feats.astype(jnp.float32) + level * grain
    return {**batch, "feats": noisy.astype(feats.dtype)}


def roll_frames(rng, batch, *, frames=10, half_open=False, per_batch=False):
    """Circular shift of the features in time by U{-frames..frames}, +frames left out: half_open."""
    _number("roll_frames frames", frames, 0, 2**30, whole=True)
    if "feats" not in batch:
        return batch
    return {**batch, "feats": _rolled(rng, batch["feats"], frames, half_open, per_batch)}


# ---------------------------------------------------------------------------------- mixup


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
):
    """Convex mixtures of two clips of the batch: `x = lam a + (1 - lam) b`, targets likewise.

    Args:
      alpha: lam ~ Beta(alpha, alpha), one per mixture.
      rate: probability that a pair is mixed, drawn per pair. Other pairs have lam = 1.
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

    The mask of a mixture is the product of both masks. So a mixture with a padding row is padding
    too, and a padding row never reaches a loss. Training batches have no padding rows. Arrays
    under other keys have the rows of a.

    Raises:
      AsjaxError: a field out of range, keys of unequal batch size, an integer array, or an odd
        batch in style "panns".
    """
    _number("mixup alpha", alpha, 1e-3)
    _number("mixup rate", rate, 0, 1)
    _number("mixup scale", scale, 1e-6)
    for name, value, known in (
        ("style", style, ("panns", "passt", "plain")),
        ("domain", domain, ("linear", *_SCALE)),
    ):
        if value not in known:
            raise config.unknown(f"mixup {name}", value, known)
    clips = _batch_size(batch)
    if clips is None:
        return batch
    if style == "panns" and clips % 2:
        raise AsjaxError(
            f"mixup style 'panns' pairs rows, so the batch must be even, got {clips}; "
            "draw an even batch or take style='plain'"
        )
    partner, lam = _pairs(rng, clips, alpha, rate, style)
    out = {key: _sides(value, partner)[0] for key, value in batch.items()}
    if "wave" in batch:
        out["wave"] = _mix_wave(_floating(batch, "wave"), partner, lam, remove_mean)
    if "feats" in batch:
        out["feats"] = _mix_feats(_floating(batch, "feats"), partner, lam, domain, scale)
    if "target" in batch:
        out["target"] = _mix(_floating(batch, "target"), partner, lam)
    if "mask" in batch:
        first, second = _sides(_floating(batch, "mask"), partner)
        out["mask"] = jnp.where(lam < 1, first * second, first)
    return out


def _pairs(rng, clips: int, alpha: float, rate: float, style: str):
    """Partner rows (int [B]; None: neighbours) and lam (float32; exactly 1 means not mixed)."""
    count = clips // 2 if style == "panns" else clips
    # One call draws everything, because the generator takes most of the compile time.
    radius, angle, chance, order = jax.random.uniform(rng, (4, count))
    lam = jnp.where(chance < rate, _symmetric_beta(radius, angle, alpha), 1.0)
    if style == "panns":
        return None, lam
    if style == "passt":
        lam = jnp.maximum(lam, 1 - lam)
    partner = jnp.argsort(order)
    return partner, jnp.where(partner == jnp.arange(clips), 1.0, lam)


def _symmetric_beta(radius, angle, alpha: float):
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
        return array, array[partner]
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


# --------------------------------------------------------------------------------- checks


def _batch_size(batch) -> int | None:
    sizes = {key: batch[key].shape[0] for key in _KEYS if key in batch}
    if len(set(sizes.values())) > 1:
        raise AsjaxError(f"batch keys must agree in their first axis, got {sizes}")
    return next(iter(sizes.values()), None)


def _floating(batch, key: str):
    array = batch[key]
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise AsjaxError(
            f"{key} must be float here, got {array.dtype}; convert it before the augmentation"
        )
    return array


def _number(name: str, value, low=-math.inf, high=math.inf, *, whole: bool = False) -> None:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or value != value:
        raise AsjaxError(f"{name} must be {'an integer' if whole else 'a number'}, got {value!r}")
    if not low <= value <= high:
        raise AsjaxError(f"{name} must be in {low:g}..{high:g}, got {value:g}")
