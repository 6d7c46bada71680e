"""Errors of found events: deviations of matched events, and the clips with most errors."""

from __future__ import annotations

import numpy as np

WORST = 6  # clips


def matched(reference, estimated, share: float = 0.5) -> np.ndarray:
    """Onset and offset errors, found minus true in seconds, of matched events: float64 [n, 2].

    A true event is matched to the found event of its class in the same clip with the largest common
    share: overlap divided by the extent of both. Pairs below `share` are left out. With events of a
    class that do not overlap and a share above 0.5, no event has two partners; at exactly 0.5 the
    first one is taken.

    Args: reference, estimated: per clip an `EVENT` array.
    """
    out = []
    for truth, found in zip(reference, estimated, strict=True):
        used: set[int] = set()
        for event in truth:
            same = np.flatnonzero(found["class"] == event["class"])
            low, high = found["onset_s"][same], found["offset_s"][same]
            common = np.minimum(high, event["offset_s"]) - np.maximum(low, event["onset_s"])
            extent = np.maximum(high, event["offset_s"]) - np.minimum(low, event["onset_s"])
            ratio = np.where(common > 0, common / np.maximum(extent, 1e-12), 0.0)
            for k in np.argsort(-ratio, kind="stable"):
                if ratio[k] < share or ratio[k] <= 0:
                    break
                if same[k] not in used:
                    used.add(same[k])
                    out.append((low[k] - event["onset_s"], high[k] - event["offset_s"]))
                    break
    return np.array(out, np.float64).reshape(-1, 2)


def worst(counts, durations_s, most: int = WORST) -> list[tuple[int, int, int]]:
    """Clips with the most wrong segments a second: [(clip, wrong, true or found), ...].

    Args: counts: int [3, N, C] of segments, as from `metrics.clip_counts`.
    """
    n_ref, n_sys, n_true = counts.sum(axis=2, dtype=np.int64)
    wrong, total = n_ref + n_sys - 2 * n_true, n_ref + n_sys - n_true
    order = np.argsort(-wrong / np.asarray(durations_s), kind="stable")[:most]
    return [(int(i), int(wrong[i]), int(total[i])) for i in order if wrong[i]]


def rows(truth, found, probability, most: int) -> list[int]:
    """Classes for the timeline of a clip: those with true events, then with found ones, the most
    probable first."""
    top = probability.max(axis=0, initial=0.0)
    first = sorted(set(truth["class"].tolist()), key=lambda c: (-top[c], c))
    then = set(found["class"].tolist()) - set(first)
    return (first + sorted(then, key=lambda c: (-top[c], c)))[:most]
