"""Level and speed of waves."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from asjax.augment.checks import floating, number, timed
from asjax.config import AsjaxError


def speed(rng, batch, *, low=0.5, high=1.5, rate=0.5, per_batch=False):
    """Stretch a share `rate` of the waves to U[low, high) times their length; the pitch changes.

    Sample i of the result is sample round(i / factor), without a filter, as in the audio ConvNeXt's
    code. A longer wave is cut at a random place. A shorter wave is padded with zeros on both sides,
    at a random place. The audio ConvNeXt with this option on: `speed(per_batch=True)`.

    Raises:
      AsjaxError: a field out of range, or a batch with labels of frames, which would not fit.
    """
    number("speed low", low, 0.01, 100)
    number("speed high", high, low, 100)
    number("speed rate", rate, 0, 1)
    if rate and (labels := timed(batch)):
        raise AsjaxError(
            f"speed changes when events occur, and cannot move {' and '.join(labels)}; leave it out"
        )
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
    number("gain low_db", low_db, -200, whole=integer)
    number("gain high_db", high_db, low_db, 200, whole=integer)
    if "wave" not in batch:
        return batch
    wave = floating(batch, "wave")
    shape = (1 if per_batch else wave.shape[0], 1)
    span = high_db - low_db + (1 if integer else 0)
    db = low_db + jax.random.uniform(rng, shape) * span
    if integer:
        db = jnp.floor(db)
    louder = wave.astype(jnp.float32) * 10 ** (db / 20)
    return {**batch, "wave": louder.astype(wave.dtype)}
