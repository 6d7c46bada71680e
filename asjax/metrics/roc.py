"""Staircase curves of true positive rate over false positive rate, their areas, their mean."""

from __future__ import annotations

import numpy as np

_GRID = 1 << 22  # numbers of the interpolated curves that are held at once


def envelope(x, y, max_x=np.inf) -> np.ndarray:
    """Indices of the points that no other point beats with less or equal x, in order of x.

    x and y rise along them; points beyond max_x are left out.
    """
    order = np.lexsort((y, x))
    best = np.maximum.accumulate(y[order])
    order = order[np.append(True, best[1:] > best[:-1])[: len(y)]]
    last = np.append(x[order][1:] > x[order][:-1], True)[: len(order)]  # the highest of equal x
    return order[last & (x[order] <= max_x)]


def area(x, y, max_x) -> float:
    """Area under the staircase that keeps y from its x to the next one, up to max_x, over max_x."""
    inside = x <= max_x
    x, y = x[inside], y[inside]
    return float(np.sum(y * np.diff(np.append(x, max_x))) / max_x)


def mean_curve(curves, *, alpha_st=0.0, max_x) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of staircases and mean - alpha_st * standard deviation, at least 0, where any one steps.

    Args:
      curves: list of (x, y) as `envelope` gives them; before its first x a curve is 0.

    Returns: x [G], mean [G], penalised mean [G].
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
        # where a curve steps in this stretch, its number of the step; else the step before
        table = np.full((stop - start, len(curves)), -1)
        table[place[a:b] - start, label[a:b]] = np.arange(a, b)
        table = np.maximum.accumulate(table, axis=0)
        part = np.where(table >= 0, values[table], height)
        mean[start:stop] = part.mean(axis=1)
        low[start:stop] = np.maximum(mean[start:stop] - alpha_st * part.std(axis=1), 0.0)
        height = part[-1]
    return grid, mean, low
