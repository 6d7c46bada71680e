"""The choice of one evaluated step of a run, by `eval.select`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from asjax.config import AsjaxError

__all__ = ["best", "last", "smooth"]


class Rule(NamedTuple):
    """A rule that chooses one evaluated step by the values of a metric.

    Attributes:
      text: the call that makes this rule.
      about: the rule in words, for people; `{metric}` stands for the name of the metric.
      window: evaluations in an average; 0: the values have no effect.
    """

    text: str
    about: str
    window: int

    @property
    def pending(self) -> int:
        """How many of the last evaluations may still be chosen only because of later ones."""
        return self.window // 2

    def choose(self, values) -> int | None:
        """Index of the chosen value. None if there is none. Infinity is the highest value."""
        values = np.asarray(values, np.float64)
        if not self.window:
            return len(values) - 1 if len(values) else None
        if np.isnan(values).all():  # also without any value
            return None
        return smoothed_best(values, self.window)[0]


def best() -> Rule:
    """The evaluation with the highest value, the earliest of equal ones. NaN is never chosen."""
    return Rule("best", "highest {metric}", 1)


def last() -> Rule:
    """The last evaluation, whatever its value."""
    return Rule("last", "the last one, as eval.select='last' says", 0)


def smooth(*, window: int = 7) -> Rule:
    """The rule of the balancing paper: the centre of the best moving average of `window` values.

    If a run has fewer evaluations, the window shrinks to the next smaller odd number. A metric that
    still rises at the end makes this rule choose a step `window // 2` evaluations before the end.

    Raises:
      AsjaxError: `window` is not an odd whole number from 1.
    """
    if not isinstance(window, int) or isinstance(window, bool) or window < 1 or window % 2 == 0:
        raise AsjaxError(f"smooth: window must be an odd whole number >= 1, got {window!r}")
    about = f"centre of the highest average of {{metric}} over {window} evaluations"
    return Rule(f"smooth(window={window})", about, window)


def stale(values, patience: int) -> bool:
    """Whether the last `patience` values are all no better than the best one before them.

    Args:
      values: a metric by evaluation, oldest first. A NaN value is never better.
      patience: number of evaluations; 0 means never.
    """
    if not patience or len(values) <= patience:
        return False
    known = [-math.inf if math.isnan(v) else v for v in values]
    return max(known[-patience:]) <= max(known[:-patience])


def moving_average(values, window: int = 7) -> np.ndarray:
    """Centred moving average over full windows only: entry i is the mean of values[i : i + window].

    Returns: float64 [N - window + 1]. A window's mean leaves NaN values out. If the centre is NaN,
    the average is NaN, because that step cannot be chosen.

    Raises:
      AsjaxError: an even window, or one longer than the values.
    """
    values = np.asarray(values, np.float64)
    if window < 1 or window % 2 == 0:
        raise AsjaxError(f"window must be odd and positive, got {window!r}")
    if values.ndim != 1 or len(values) < window:
        raise AsjaxError(f"a window of {window} needs as many values, got shape {values.shape}")
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    known = ~np.isnan(windows)
    mean = np.where(known, windows, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(known[:, window // 2], mean, np.nan)


def moving_average_best(values, window: int = 7) -> int:
    """Index of the highest centred moving average: the checkpoint rule of the balancing paper.

    The paper uses 7 points. If there are fewer points than `window`, or every window has NaN at its
    centre, the window shrinks to the next smaller odd size. NaN values are left out of the averages
    and are never chosen. Among equal averages the earliest is chosen.

    Raises:
      AsjaxError: all values are NaN, or an even window.
    """
    return smoothed_best(values, window)[0]


def smoothed_best(values, window: int = 7) -> tuple[int, float]:
    """`moving_average_best` and its average, which the balancing paper uses to compare rates."""
    values = np.asarray(values, np.float64)
    if window < 1 or window % 2 == 0:
        raise AsjaxError(f"window must be odd and positive, got {window!r}")
    if np.isnan(values).all():
        raise AsjaxError("values must have at least one number to choose a checkpoint")
    for width in range(min(window, len(values) - 1 + len(values) % 2), 0, -2):
        mean = moving_average(values, width)
        if not np.isnan(mean).all():
            best = int(np.nanargmax(mean))
            return best + width // 2, float(mean[best])
    raise AssertionError("unreachable: a window of one has every number as its centre")
