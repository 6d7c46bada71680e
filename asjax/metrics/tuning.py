"""Settings tuned per class: median windows, thresholds and box settings.

A metric is too good if the settings were tuned on the same clips. So `tuned_halves` tunes on each
half of a set and applies the result to the other half.
"""

from __future__ import annotations

import numpy as np

from asjax import change_points
from asjax.config import AsjaxError
from asjax.metrics.best import best_f1
from asjax.metrics.detection import psds

_BY_CLIP = ("scores", "boxes", "events", "durations_s", "lengths")


def first_best(values) -> np.ndarray:
    """Index of the best of K candidates for each class; the first one if several are equal.

    Args: values: [K, C]; NaN is worse than any number.
    """
    values = np.asarray(values, np.float64)
    return np.argmax(np.where(np.isnan(values), -np.inf, values), axis=0)


def tune_windows(*, windows, by: str = "psds", rules=None, **given) -> dict:
    """Median window per class in frames; if `by` is an F1, also its threshold.

    Args:
      windows: candidates; the first one wins if several are equally good.
      by: "psds" (the area of the class), or a criterion of `best_f1`: "event", "intersection",
        "segment". rules: its settings, such as dict(dtc=0.7) or a collar.
      given: scores, events, durations_s, ... as `psds` takes them.

    Returns: dict with window: int64 [C], value: float64 [C] (NaN without events), and threshold:
      float64 [C] unless by="psds".
    """
    windows = list(windows)
    tried = [_measured(by, rules, **given, median=int(w)) for w in windows]
    chosen, picked = _picked(tried)
    return {"window": np.array(windows, np.int64)[chosen], **picked}


def tune_boxes(
    *,
    scores,
    steps_s=(0.32, 0.48, 0.64),
    merges_abs=(0.15, 0.2, 0.3),
    merges_rel=(1.5, 2.0, 3.0),
    by: str = "psds",
    rules=None,
    frame_rate: float = 25.0,
    **given,
) -> dict:
    """Settings of `asjax.change_points.boxes` per class: a step and one of two ways to merge.

    Args:
      scores: per clip probabilities [T, C]. Others: as `tune_windows`.

    Returns: dict with step_s, merge_abs, merge_rel (one of the two is inf), value: float64 [C]; and
      threshold unless by="psds".
    """
    inf = float("inf")
    settings = [
        dict(step_s=step, merge_abs=a, merge_rel=r)
        for step in steps_s
        for a, r in [*((a, inf) for a in merges_abs), *((inf, r) for r in merges_rel)]
    ]
    given.setdefault("num_classes", np.shape(scores[0])[1])
    tried = []
    for setting in settings:
        boxes = [change_points.boxes(s, frame_rate=frame_rate, **setting) for s in scores]
        tried.append(_measured(by, rules, **given, boxes=boxes))
    chosen, picked = _picked(tried)
    table = {key: np.array([s[key] for s in settings])[chosen] for key in settings[0]}
    return {**table, **picked}


def halves(clips: int, seed: int = 0) -> np.ndarray:
    """The half of each clip, bool [N]: drawn at random; the sizes differ by at most one clip."""
    second = np.zeros(clips, bool)
    second[np.random.default_rng(seed).permutation(clips)[: clips // 2]] = True
    return second


def tuned_halves(*, windows, by: str = "event", seed: int = 0, rules=None, **given) -> dict:
    """For every clip the settings that were tuned on the other half of the clips.

    Args: as `tune_windows`. A class without an event in the tuning half gets the first window and
      an infinite threshold.

    Returns: dict with second: bool [N], the half; median: int64 [N, C], for `psds(median=...)` and
      `asjax.decoding.decode`; threshold: float64 [N, C] unless by="psds".
    """
    count = len(given["events"])
    if count < 2:
        raise AsjaxError(f"two halves need two clips, got {count}")
    second = halves(count, seed)
    out: dict = {"second": second}
    for half in (second, ~second):
        part = dict(given)
        for key in _BY_CLIP:
            if part.get(key) is not None:
                part[key] = _chosen(part[key], np.flatnonzero(half))
        tuned = tune_windows(windows=windows, by=by, rules=rules, **part)
        values = {"median": tuned["window"]}
        if "threshold" in tuned:
            limit = tuned["threshold"]
            values["threshold"] = np.where(np.isnan(limit), np.inf, limit)
        for key, value in values.items():
            table = out.setdefault(key, np.zeros((count, len(value)), value.dtype))
            table[~half] = value
    return out


def _chosen(values, which):
    return values[which] if isinstance(values, np.ndarray) else [values[i] for i in which]


def _measured(by, rules, **given) -> dict:
    if by == "psds":
        return {"value": psds(**{**given, **(rules or {})})["per_class"]}
    best = best_f1(by=by, **given, **(rules or {}))
    return {"value": best["f1"], "threshold": best["threshold"]}


def _picked(tried):
    """The best candidate of each class [C], and its values."""
    chosen = first_best([f["value"] for f in tried])
    each = np.arange(len(chosen))
    return chosen, {key: np.array([f[key] for f in tried])[chosen, each] for key in tried[0]}
