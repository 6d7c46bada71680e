"""Which evaluated step of a run is the best one."""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError


def moving_average(values, window: int = 7) -> np.ndarray:
    """Centred moving average over full windows only: entry i is the mean of values[i : i + window].

    Returns: float64 [N - window + 1]. NaN values are left out of a window's mean; where the centre
    is NaN the average is NaN, since there is no checkpoint to choose.

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
    """Index of the centre of the best window of a centred moving average (higher is better).

    The checkpoint rule of the balancing paper (7 points). With fewer points than `window`, or none
    whose centre is a number, the window shrinks to the next odd size that fits. NaN values are left
    out of the averages and never chosen; the earliest of equals wins.

    Raises:
      AsjaxError: no number among the values, or an even window.
    """
    return smoothed_best(values, window)[0]


def smoothed_best(values, window: int = 7) -> tuple[int, float]:
    """`moving_average_best` and the average there, by which the balancing paper compares rates."""
    values = np.asarray(values, np.float64)
    if window < 1 or window % 2 == 0:
        raise AsjaxError(f"window must be odd and positive, got {window!r}")
    if np.isnan(values).all():
        raise AsjaxError("values must hold at least one number to choose a checkpoint by")
    for width in range(min(window, len(values) - 1 + len(values) % 2), 0, -2):
        mean = moving_average(values, width)
        if not np.isnan(mean).all():
            best = int(np.nanargmax(mean))
            return best + width // 2, float(mean[best])
    raise AssertionError("a window of one finds every number")
