"""What batches and keywords of augmentations must be, and which arrays have a time axis."""

from __future__ import annotations

import math

import jax.numpy as jnp

from asjax.config import AsjaxError


def timed(batch) -> dict:
    """The labels of frames in a batch: arrays [B, T', C]."""
    return {k: batch[k] for k in ("frame_target", "teacher") if k in batch and batch[k].ndim == 3}


def together(op: str, key: str, batch) -> bool:
    """Whether the batch has the array that an op changes in time.

    Raises:
      AsjaxError: it has not, but it has labels of frames, which must move with it.
    """
    if key not in batch and (labels := timed(batch)):
        raise AsjaxError(
            f"{op} must move {' and '.join(labels)} together with {key}, which this place of the "
            f"config does not have; take it to augment.{key}"
        )
    return key in batch


def per_label(length: int, frames: int) -> float:
    """Samples or frames of features per frame of labels, `length / frames`.

    Frontends give a few frames more or less than the labels cover: 1001 or 998 for 250. A quotient
    that is whole but for less than one frame of labels counts as whole.
    """
    whole = round(length / frames)
    return whole if abs(length - whole * frames) <= whole else length / frames


def floating(batch, key: str):
    array = batch[key]
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise AsjaxError(
            f"{key} must be float here, got {array.dtype}; convert it before the augmentation"
        )
    return array


def number(name: str, value, low=-math.inf, high=math.inf, *, whole: bool = False) -> None:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or value != value:
        raise AsjaxError(f"{name} must be {'an integer' if whole else 'a number'}, got {value!r}")
    if not low <= value <= high:
        raise AsjaxError(f"{name} must be in {low:g}..{high:g}, got {value:g}")
