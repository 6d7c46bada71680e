"""Metrics of decisions: one class per clip, thresholds, calibration; numpy in, dict out.

The values equal scikit-learn's (tests). Macro F1 leaves out a class that has neither a clip nor a
decision, as scikit-learn does with `labels=None`.
"""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError
from asjax.metrics.ranking import interval, resample_counts


def is_single_label(targets) -> bool:
    """Whether targets [N, C] have clips, two or more classes, and exactly one class per clip."""
    targets = np.asarray(targets)
    several = len(targets) > 0 and targets.shape[1] > 1
    return bool(several and ((targets > 0.5).sum(axis=1) == 1).all())


def single_label(*, scores, targets, top=(1, 3, 5)) -> dict:
    """Accuracy and F1 of single-label classification by the highest score of each clip.

    Args:
      scores: [N, C], higher = more confident. If scores are equal, the first class wins.
      targets: int [N], the class of each clip, or [N, C] with exactly one 1 per row.
      top: values of k for top-k accuracy; those above C are left out.

    Returns: dict with
      accuracy; top: {k: share of clips whose class is among the k highest scores};
      macro_f1: mean of F1 over the classes that occur, in targets or decisions;
      weighted_f1: mean of F1 weighted by the number of clips of the class;
      mean_recall: mean of recall over the classes that have clips (balanced accuracy);
      precision, recall, f1: float64 [C], NaN where undefined; f1 is 0 where only precision or only
        recall is undefined;
      confusion: int64 [C, C], row = class, column = decision; n_clips; n_positive int64 [C].

    Raises:
      AsjaxError: different shapes, NaN scores, a clip without exactly one class.
    """
    scores, true = _checked(scores, targets)
    n, c = scores.shape
    confusion = _confusion(true, scores.argmax(axis=1), c)
    precision, recall, f1 = _rates(confusion)
    n_positive = confusion.sum(axis=1)
    return {
        "accuracy": _share(np.trace(confusion), n),
        "top": {k: _share(np.sum(_rank(scores, true) < k), n) for k in top if k <= c},
        "macro_f1": _mean(f1),
        "weighted_f1": _share(np.nansum(f1 * n_positive), n),
        "mean_recall": _mean(recall),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "confusion": confusion,
        "n_clips": n,
        "n_positive": n_positive,
    }


def bootstrap_single_label(
    *, scores, targets, n=1000, level=0.95, seed=0, groups=None, top=None
) -> dict[str, tuple[float, float]]:
    """Intervals `{"accuracy": (low, high), "macro_f1": ...}`, also of weighted_f1 and mean_recall.

    Clips are drawn with replacement. `groups` has one label per clip, such as its recording. With
    it whole groups are drawn, because clips of one recording are not independent. `top` is the k of
    an additional "top_k".
    """
    scores, true = _checked(scores, targets)
    estimate = _Decided(scores, true, top).summary()
    values = resampled_single_label(
        scores=scores, targets=true, n=n, seed=seed, groups=groups, top=top
    )
    out = {}
    for key, drawn in values.items():
        low, high = np.clip(interval(drawn, estimate[key], level), 0.0, 1.0)
        out[key] = (float(low), float(high))
    return out


def resampled_single_label(*, scores, targets, n=1000, seed=0, groups=None, top=None) -> dict:
    """The numbers of `bootstrap_single_label` in each of `n` resamples: float64 [n] each."""
    scores, true = _checked(scores, targets)
    decided = _Decided(scores, true, top)
    drawn = [decided.summary(counts) for counts in resample_counts(len(true), n, seed, groups)]
    return {key: np.array([one[key] for one in drawn]) for key in decided.summary()}


def best_thresholds(*, scores, targets) -> dict[str, np.ndarray]:
    """The threshold of each class with the best F1 on these clips.

    A clip has the class if its score is at or above the threshold. Each threshold is the midpoint
    between the lowest score above it and the highest score below it. If several thresholds have the
    same F1, the highest is taken.

    Args:
      scores: [N, C] in any unit; the thresholds have the same unit.
      targets: [N, C], 0 or 1.

    Returns: dict of float64 [C]: threshold, precision, recall, f1; NaN without a positive clip.
    """
    scores, targets = np.asarray(scores), np.asarray(targets) > 0.5
    if scores.shape != targets.shape or scores.ndim != 2:
        raise AsjaxError(f"scores and targets must have one shape [N, C], got {scores.shape}")
    if np.isnan(scores).any():
        raise AsjaxError("scores must be numbers, got NaN")
    out = {k: np.full(scores.shape[1], np.nan) for k in ("threshold", "precision", "recall", "f1")}
    for j in np.flatnonzero(targets.any(axis=0)):
        # The best threshold is at the score of a positive: a further negative only lowers F1.
        # Sorting the two kinds of scores is much faster than sorting indices.
        column, positive = np.ascontiguousarray(scores[:, j]), np.ascontiguousarray(targets[:, j])
        true, false = np.sort(column[positive]), np.sort(column[~positive])
        hit = len(true) - np.searchsorted(true, true)  # positives at or above each of them
        other = np.searchsorted(false, true)  # negatives below it
        decided = hit + len(false) - other
        f1 = 2 * hit / (decided + len(true))
        k = len(true) - 1 - int(np.argmax(f1[::-1]))  # the highest of several
        score, first = float(true[k]), len(true) - hit[k]
        lower = [float(v) for v in (*true[first - 1 : first], *false[other[k] - 1 : other[k]])]
        below = max(lower, default=score)
        middle = score - (score - below) / 2 if np.isfinite(below) else score
        out["threshold"][j] = middle if middle > below else score
        out["precision"][j], out["recall"][j] = hit[k] / decided[k], hit[k] / len(true)
        out["f1"][j] = f1[k]
    return out


def at_thresholds(*, scores, targets, thresholds) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class at given thresholds: float64 [C] each.

    Precision is NaN without a decision, recall is NaN without a positive. F1 is 0 where only one of
    the two is undefined.
    """
    decided = np.asarray(scores) >= np.asarray(thresholds)
    targets = np.asarray(targets) > 0.5
    hit = (decided & targets).sum(axis=0)
    return dict(
        zip(("precision", "recall", "f1"), _prf(hit, decided.sum(0), targets.sum(0)), strict=True)
    )


def calibration(*, probabilities, targets, bins=15) -> dict:
    """Reliability of probabilities: mean probability against share of positives, per bin.

    Args:
      probabilities: in [0, 1], any shape. targets: 0 or 1, the same shape.
      bins: number of bins of equal width; the upper edge belongs to a bin.

    Returns: dict with edges [bins + 1], mean_probability, share (of positives), count [bins], and
      ece: mean over all values of |share - mean probability| of their bin (Guo et al. 2017).
    """
    p = np.asarray(probabilities, np.float64).ravel()
    y = np.asarray(targets, np.float64).ravel()
    if p.shape != y.shape or (len(p) and not (p.min() >= 0 and p.max() <= 1)):
        raise AsjaxError("probabilities must be in [0, 1] and have the shape of the targets")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, p, bins) / count
        share = np.bincount(place, y, bins) / count
    gap = np.abs(np.nan_to_num(share - mean))
    return {
        "edges": edges,
        "mean_probability": mean,
        "share": share,
        "count": count,
        "ece": _share((gap * count).sum(), len(p)),
    }


# ------------------------------------------------------------------------------------ inner parts


def _checked(scores, targets):
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or len(scores) != len(targets):
        raise AsjaxError(f"scores must be [N, C] for N targets, got {scores.shape}")
    if np.isnan(scores).any():
        raise AsjaxError("scores must be numbers, got NaN")
    if targets.ndim == 2:
        if targets.shape != scores.shape or not ((targets > 0.5).sum(axis=1) == 1).all():
            raise AsjaxError("targets must have exactly one class for each clip")
        targets = targets.argmax(axis=1)
    if len(targets) and not 0 <= targets.min() <= targets.max() < scores.shape[1]:
        raise AsjaxError(f"targets must be 0 to {scores.shape[1] - 1}")
    return scores, targets.astype(np.int64)


def _confusion(true, decided, c: int) -> np.ndarray:
    return np.bincount(true * c + decided, minlength=c * c).astype(np.int64).reshape(c, c)


def _rank(scores, true) -> np.ndarray:
    """Number of classes ranked before the true one; equal scores are ranked by class index."""
    true_score = np.take_along_axis(scores, true[:, None], axis=1)
    before = np.arange(scores.shape[1])[None] < true[:, None]
    return ((scores > true_score) | ((scores == true_score) & before)).sum(axis=1)


def _rates(confusion):
    return _prf(np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))


def _prf(hit, decided, positive):
    """Precision, recall, F1 from counts; F1 is undefined only without positives and decisions."""
    with np.errstate(invalid="ignore"):
        return hit / decided, hit / positive, 2 * hit / (decided + positive)


class _Decided:
    """The decisions on N clips, for sums over resamples without a table of C x C."""

    def __init__(self, scores, true, top=None):
        self.c, self.true, self.decided = scores.shape[1], true, scores.argmax(axis=1)
        self.right = self.true == self.decided
        self.within = None if top is None else _rank(scores, true) < top

    def summary(self, counts=None) -> dict[str, float]:
        """The means, where clip i counts `counts[i]` times."""
        counts = np.ones(len(self.true)) if counts is None else np.asarray(counts, np.float64)
        positive = np.bincount(self.true, counts, self.c)
        decided = np.bincount(self.decided, counts, self.c)
        hit = np.bincount(self.true[self.right], counts[self.right], self.c)
        _, recall, f1 = _prf(hit, decided, positive)
        n = counts.sum()
        out = {
            "accuracy": _share(hit.sum(), n),
            "macro_f1": _mean(f1),
            "weighted_f1": _share(np.nansum(f1 * positive), n),
            "mean_recall": _mean(recall),
        }
        return out if self.within is None else {**out, "top_k": _share(counts @ self.within, n)}


def _share(part, whole) -> float:
    return float(part / whole) if whole else float("nan")


def _mean(values) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
