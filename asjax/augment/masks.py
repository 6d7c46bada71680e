"""Stripes and noise on features."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from asjax import config
from asjax.augment.checks import floating, number, per_label, timed, together
from asjax.config import AsjaxError


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
        number(f"specaug {name}", value, 0, whole=True)
    number("specaug fill", fill)
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
    number("noise amount", amount, 0)
    if "feats" not in batch:
        return batch
    feats = floating(batch, "feats")
    clips, frames, bins = feats.shape
    draws = jax.random.uniform(rng, (clips, frames * bins + 1, 1))
    level, grain = amount * draws[:, :1], draws[:, 1:].reshape(feats.shape)
    noisy = feats.astype(jnp.float32) + level * grain
    return {**batch, "feats": noisy.astype(feats.dtype)}


def time_mask(rng, batch, *, shortest=0.05, longest=0.2, step=4):
    """Silence one stretch of time in all clips of the batch, with its labels (PretrainedSED).

    The stretch begins and ends at multiples of `step` frames of the features. Of L such units, it
    takes U{shortest L .. longest L - 1}, and begins at U{0 .. L - width - 1}; products are cut to
    whole numbers. In it, features, `frame_target` and `teacher` are 0. A class that has no other
    frame also leaves the clip's `target`. `clip_teacher` falls in the ratio of the teacher's
    highest frame after and before; without frames of the teacher it falls as `target`.

    The authors' code does not mask the teacher, so a student learns events it cannot hear.

    Args:
      longest: 0 masks nothing. step: frames of the features per frame of the labels.

    Raises:
      AsjaxError: a field out of range; labels with another number of frames than `step` says.
    """
    number("time_mask shortest", shortest, 0, 1)
    number("time_mask longest", longest, 0, 1)
    number("time_mask step", step, 1, 2**20, whole=True)
    if longest and longest < shortest:
        raise AsjaxError(f"time_mask longest must be 0 or at least shortest={shortest:g}")
    if not together("time_mask", "feats", batch) or not longest:
        return batch
    units = round(batch["feats"].shape[1] / step)
    least, end = int(units * shortest), int(units * longest)
    draws = jax.random.uniform(rng, (2,))
    width = least + jnp.floor(draws[0] * max(1, end - least))
    return silenced(batch, jnp.floor(draws[1] * (units - width)), width, step)


def silenced(batch, first, width, step: int):
    """`batch` without the units [first, first + width) of `step` frames; see `time_mask`."""

    def hidden(frames, size):
        at = jnp.arange(frames)
        return ((at >= first * size) & (at < (first + width) * size))[None, :, None]

    feats = batch["feats"]
    out = {**batch, "feats": jnp.where(hidden(feats.shape[1], step), 0, feats)}
    for key, labels in timed(batch).items():
        if per_label(feats.shape[1], labels.shape[1]) != step:
            raise AsjaxError(
                f"time_mask step must be the frames of the features per frame of {key}, "
                f"{feats.shape[1]} / {labels.shape[1]}, got {step}"
            )
        out[key] = jnp.where(hidden(labels.shape[1], 1), 0, labels)
    if {"target", "frame_target"} <= out.keys():
        gone = batch["frame_target"].any(axis=1) & ~out["frame_target"].any(axis=1)
        out["target"] = jnp.where(gone, 0, batch["target"])
        if "clip_teacher" in out:
            out["clip_teacher"] = jnp.where(gone, 0, batch["clip_teacher"])
    if {"teacher", "clip_teacher"} <= out.keys() and batch["teacher"].ndim == 3:
        before, after = batch["teacher"].max(axis=1), out["teacher"].max(axis=1)
        left = jnp.where(before > 0, after / jnp.where(before > 0, before, 1), 1)
        out["clip_teacher"] = batch["clip_teacher"] * left
    return out
