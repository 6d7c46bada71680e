"""Averages of the weights during training.

An average is a function `(average, new, step) -> average`. `new` holds "params" and "stats" after
the step. `average` holds the same and "count", the number of averaged steps. The statistics of
batch norms are averaged too, so that they match the averaged weights.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from asjax.config import AsjaxError
from asjax.optim.guard import floating, select

__all__ = ["ema", "swa"]


def ema(*, decay: float = 0.999):
    """Exponential moving average: `old + (1 - d) (new - old)`.

    d = min(decay, (1 + step) / (10 + step)), so that the average soon forgets the initial weights.

    Raises:
      AsjaxError: `decay` is not a number >= 0 and < 1.
    """
    number = isinstance(decay, (int, float)) and not isinstance(decay, bool)
    if not number or not 0 <= decay < 1:
        raise AsjaxError(f"average.decay must be a number >= 0 and < 1, got {decay!r}")

    def run(average, new, step):
        keep = jnp.maximum(1 - decay, 9 / (10 + jnp.asarray(step, jnp.float32)))
        return {**_towards(average, new, keep), "count": average["count"] + 1}

    return run


def swa(*, start_step: int = 0, every_steps: int = 1):
    """Mean of the weights, sampled every `every_steps` steps from `start_step` on.

    Before `start_step` the average is the current weights, so that evaluation can use it.

    Raises:
      AsjaxError: `start_step` is no whole number >= 0, or `every_steps` none >= 1.
    """
    for name, value, least in (("start_step", start_step, 0), ("every_steps", every_steps, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise AsjaxError(f"average.{name} must be a whole number >= {least}, got {value!r}")

    def run(average, new, step):
        mean = _towards(average, new, 1 / (jnp.asarray(average["count"], jnp.float32) + 1))
        due = (step >= start_step) & ((step - start_step) % every_steps == 0)
        early = select(step < start_step, new, {key: average[key] for key in new})
        return {**select(due, mean, early), "count": average["count"] + due.astype(jnp.int32)}

    return run


def _towards(average, new, share):
    """Move `average` by the fraction `share` towards `new`; copy integer leaves from `new`."""

    def move(old, new):
        return old + share.astype(old.dtype) * (new - old) if floating(old) else new

    return jax.tree.map(move, {key: average[key] for key in new}, new)
