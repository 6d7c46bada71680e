"""F1 at the best threshold of each class, among all thresholds."""

from __future__ import annotations

import numpy as np

from asjax.config import unknown
from asjax.metrics.criteria import Collar, Intersection
from asjax.metrics.piecewise import scores_of
from asjax.metrics.segments import segment_table
from asjax.metrics.tally import inputs, tally


def best_f1(
    *,
    by: str,
    dtc: float = 0.5,
    gtc: float = 0.5,
    onset_collar: float | None = 0.2,
    offset_collar: float | None = 0.2,
    offset_rate: float = 0.2,
    segment_s: float = 1.0,
    min_precision: float = 0.0,
    min_recall: float = 0.0,
    threads: int | None = None,
    **given,
) -> dict:
    """The threshold per class with the largest F1; the highest one if several are equal.

    A threshold is the midpoint between the lowest score above it and the next lower score at which
    a count changes.

    Args:
      by: "intersection" (dtc, gtc), "event" (collars as in `event_f1`, times compared after
        rounding to 6 decimals) or "segment" (segment_s).
      min_precision, min_recall: thresholds that do not reach them count as F1 of 0.
      given: scores or boxes, events, durations_s, frame_rate, lengths, median, class_mask, ... as
        `psds` takes them.

    Returns: dict with
      threshold: float64 [C], inf if nothing should be detected, -inf if everything should;
      f1, precision, recall: float64 [C], NaN where a class has no event or is masked;
      n_true, n_false, n_ref: int64 [C];
      macro: {"f1", "precision", "recall"}, means over classes with events; micro: from the sums.
    """
    data, truth = inputs(**given)
    out = {
        "threshold": np.full(data.num_classes, np.nan),
        **{key: np.full(data.num_classes, np.nan) for key in ("f1", "precision", "recall")},
        **{key: np.zeros(data.num_classes, np.int64) for key in ("n_true", "n_false", "n_ref")},
    }
    criteria = {
        "intersection": Intersection(dtc, gtc),
        "event": Collar(onset_collar, offset_collar, offset_rate),
        "segment": None,
    }
    if by not in criteria:
        raise unknown("by", by, criteria)
    if by == "segment":
        curves = _segment_curves(data, truth, segment_s)
    else:
        curves = _curves(tally(data, truth, criteria[by], threads=threads)[0], truth)
    for c, (score, true, false, n_ref) in enumerate(curves):
        if n_ref:
            point = _best(score, true, false, n_ref, min_precision, min_recall)
            for key, value in point.items():
                out[key][data.column[c]] = value
    chosen = out["n_ref"] > 0
    names = ("f1", "precision", "recall")
    out["macro"] = {key: float(out[key][chosen].mean()) for key in names}
    sums = (out[key].sum() for key in ("n_true", "n_false", "n_ref"))
    out["micro"] = {k: float(v) for k, v in zip(names, f1_of(*sums), strict=True)}
    return out


def f1_of(true, false, n_ref):
    """F1, precision and recall; 0 where nothing is detected."""
    precision = true / np.maximum(true + false, 1)
    recall = true / np.maximum(n_ref, 1)
    return 2.0 * true / np.maximum(n_ref + true + false, 1), precision, recall


def _curves(table, truth):
    """Per class: scores in descending order, true and false positives at each, events."""
    for c in range(truth.classes):
        key, false, true, _ = table.of_class(c)
        yield scores_of(key), true, false, int(truth.count[c])


def _segment_curves(data, truth, segment_s):
    for score, target in segment_table(data, truth, segment_s):
        order = np.argsort(-score, kind="stable")
        last = np.append(np.diff(score[order]) != 0, True)
        true = np.cumsum(target[order])[last]
        yield score[order][last], true, np.flatnonzero(last) + 1 - true, int(target.sum())


def _best(score, true, false, n_ref, min_precision, min_recall) -> dict:
    score = np.append(np.inf, score)  # above every score nothing is detected
    true, false = np.append(0, true), np.append(0, false)
    f1, precision, recall = f1_of(true, false, n_ref)
    f1 = np.where((precision < min_precision) | (recall < min_recall), 0.0, f1)
    i = int(np.argmax(f1))
    below = score[i + 1] if i + 1 < len(score) else -np.inf
    return {
        "threshold": (score[i] + below) / 2 if np.isfinite([score[i], below]).any() else np.inf,
        "f1": f1[i],
        "precision": precision[i],
        "recall": recall[i],
        "n_true": true[i],
        "n_false": false[i],
        "n_ref": n_ref,
    }
