"""Staircase curves of true positive rate over false positive rate: area and mean."""

from __future__ import annotations

import numpy as np

_GRID = 1 << 22  # values of the interpolated curves in memory at once


def envelope(x, y, max_x=np.inf) -> np.ndarray:
    """Indices of the points with a higher y than all points with smaller or equal x, sorted by x.

    x and y both rise along these points. Points beyond max_x are left out.
    """
    order = np.lexsort((y, x))
    best = np.maximum.accumulate(y[order])
    order = order[np.append(True, best[1:] > best[:-1])[: len(y)]]
    last = np.append(x[order][1:] > x[order][:-1], True)[: len(order)]  # highest y of equal x
    return order[last & (x[order] <= max_x)]


def area(x, y, max_x) -> float:
    """Area under the staircase up to max_x, divided by max_x; y holds from its x to the next x."""
    inside = x <= max_x
    x, y = x[inside], y[inside]
    return float(np.sum(y * np.diff(np.append(x, max_x))) / max_x)


def mean_curve(curves, *, alpha_st=0.0, max_x) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of staircases, and mean - alpha_st * standard deviation, at every x where one rises.

    Args:
      curves: list of (x, y) as `envelope` selects them; a curve is 0 before its first x.

    Returns: x [G], mean [G], penalised mean (at least 0) [G].
    """
    xs = np.concatenate([x for x, _ in curves])
    grid, place = np.unique(xs, return_inverse=True)
    grid = grid[grid <= max_x]
    label = np.repeat(np.arange(len(curves)), [len(x) for x, _ in curves])
    values = np.concatenate([y for _, y in curves])
    mean, low = np.empty(len(grid)), np.empty(len(grid))
    order = np.argsort(place, kind="stable")
    place, label, values = place[order], label[order], values[order]
    height, width = np.zeros(len(curves)), max(1, _GRID // max(1, len(curves)))
    for start in range(0, len(grid), width):
        stop = min(len(grid), start + width)
        a, b = np.searchsorted(place, [start, stop])
        # index of the newest step of each curve at each x; -1: the curve did not rise here yet
        table = np.full((stop - start, len(curves)), -1)
        table[place[a:b] - start, label[a:b]] = np.arange(a, b)
        table = np.maximum.accumulate(table, axis=0)
        part = np.where(table >= 0, values[table], height)
        mean[start:stop] = part.mean(axis=1)
        low[start:stop] = np.maximum(mean[start:stop] - alpha_st * part.std(axis=1), 0.0)
        height = part[-1]
    return grid, mean, low
