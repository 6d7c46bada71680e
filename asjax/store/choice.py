"""The choice of the best evaluated step of a run."""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError


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
