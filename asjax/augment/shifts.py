"""Circular shifts in time. Labels of frames move along, by the nearest whole frame."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from asjax.augment.checks import number, per_label, timed, together


def roll(rng, batch, *, fraction=1.0, samples=None, half_open=False, per_batch=False):
    """Circular shift of each wave by U{-m..m} samples, m = `samples` or `fraction` of the clip.

    PaSST: `roll(samples=50)`. The audio ConvNeXt never shifts by +m and shifts all clips of a
    batch by the same amount: `roll(samples=50, half_open=True, per_batch=True)`.
    """
    number("roll fraction", fraction, 0, 1)
    if samples is not None:
        number("roll samples", samples, 0, 2**30, whole=True)
    if not together("roll", "wave", batch):
        return batch
    most = round(fraction * batch["wave"].shape[1]) if samples is None else samples
    return shifted(batch, "wave", _uniform(rng, batch["wave"], most, half_open, per_batch))


def roll_frames(rng, batch, *, frames=10, half_open=False, per_batch=False):
    """Circular shift of the features in time by U{-frames..frames}, +frames left out: half_open."""
    number("roll_frames frames", frames, 0, 2**30, whole=True)
    if not together("roll_frames", "feats", batch):
        return batch
    return shifted(batch, "feats", _uniform(rng, batch["feats"], frames, half_open, per_batch))


def frame_shift(rng, batch, *, range=0.125):
    """Circular shift of the features in time by a normal number of frames (PretrainedSED).

    Each clip moves by N(0, s^2) frames, cut to a whole number towards 0, where s is the whole part
    of `range` times the number of frames.
    """
    number("frame_shift range", range, 0, 1)
    if not together("frame_shift", "feats", batch):
        return batch
    clips, frames = batch["feats"].shape[:2]
    shift = jnp.trunc(jax.random.normal(rng, (clips, 1)) * int(frames * range))
    return shifted(batch, "feats", shift.astype(jnp.int32))


def _uniform(rng, array, most: int, half_open: bool, per_batch: bool):
    """Shifts U{-most..most}, without +most if `half_open`: int [B, 1], or [1, 1] for all clips."""
    end = max(most, 1 - most) if half_open else most + 1  # most = 0: the only shift is 0
    return jax.random.randint(rng, (1 if per_batch else array.shape[0], 1), -most, end)


def shifted(batch, key: str, shift):
    """`batch` with the array `key` later by `shift` [B, 1] of its steps, and labels of frames too.

    Labels move by round(shift * T' / T) frames, halves to even. T / T' is rounded to a whole number
    where that makes a difference of less than one frame in the clip (checks.per_label).
    """
    out = {**batch, key: rolled(batch[key], shift)}
    for name, labels in timed(batch).items():
        step = per_label(batch[key].shape[1], labels.shape[1])
        out[name] = rolled(labels, jnp.round(shift / step).astype(jnp.int32))
    return out


def rolled(array, shift):
    """Circular shift of each row along axis 1 by `shift`, int [B, 1] or [1, 1]."""
    clips, length = array.shape[:2]
    # One remainder per clip: a remainder per sample would take half of the time.
    source = jnp.arange(length)[None] + -shift % max(1, length)
    source = jnp.where(source < length, source, source - length)
    source = jnp.broadcast_to(source, (clips, length))
    source = source.reshape(source.shape + (1,) * (array.ndim - 2))
    return jnp.take_along_axis(array, source, 1, mode="promise_in_bounds")
