"""Tagging metrics: keyword-only pure functions of scores and targets; numpy in, dict out.

Tied scores are one threshold. A class without positives has no AP, is left out of every mean and is
listed in `left_out`. d' is computed from a mean AUC. Average precision and AUC share one routine
with a weight per clip. A bootstrap resample is then the same arithmetic, with the number of times
that a clip was drawn as its weight.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from math import sqrt

import numpy as np

from asjax.config import AsjaxError, unknown

_BY_CLASS = {  # metrics that need the AP and AUC of every class
    "mean_ap", "mean_auc", "d_prime", "mean_of_d_prime", "per_class_ap", "per_class_auc"
}  # fmt: skip
_KEYS = (
    "mean_ap", "mean_auc", "d_prime", "mean_of_d_prime", "micro_ap", "lrap", "per_class_ap",
    "per_class_auc", "n_positive", "prior", "n_clips", "n_classes", "left_out",
)  # fmt: skip
FEW = 5  # positive clips of a class below which its AP gets no interval
_COLUMNS = 250  # resamples per pass, so that their weights nearly fit the CPU cache
_BLOCK_BYTES = 2**28  # clip weights in memory at once


# ------------------------------------------------------------------------------- public metrics


def tagging(*, scores, targets, names=None, class_mask=None, only=None) -> dict:
    """Mean AP, mean AUC and d' of clip scores, with the values per class.

    Args:
      scores: [N, C], higher = more confident; logits or probabilities (only the order matters).
      targets: [N, C], 0 or 1.
      names: C class names for `left_out` and errors; indices otherwise.
      class_mask: bool [C], the classes to evaluate; the others are NaN and not counted.
      only: the keys to return, such as ("mean_ap", "d_prime"); default: all. Other metrics are not
        computed; micro_ap and lrap take most of the time.

    Returns: dict with
      mean_ap: mean over classes with a positive (scikit-learn's AP: not interpolated);
      mean_auc: mean over classes with a positive and a negative;
      d_prime: sqrt(2) Phi^-1(mean_auc), as in PANNs, Hershey 2017 and the balancing paper;
      mean_of_d_prime: mean of the finite per-class d', as in the ConvNeXt AudioSet code. It is
        larger than d_prime for the same scores, so the two cannot be compared;
      micro_ap: AP over all (clip, class) pairs of the counted classes;
      lrap: label-ranking average precision over clips with a positive;
      per_class_ap, per_class_auc: float64 [C], NaN where undefined;
      n_positive [C], prior [C], n_clips, n_classes (counted in mean_ap),
      left_out: names or indices of the evaluated classes that have no positive.
    A mean over no class is NaN.

    Raises:
      AsjaxError: different shapes, NaN scores, targets that are not 0 or 1.
    """
    for key in only or ():
        if key not in _KEYS:
            raise unknown("metric", key, _KEYS)
    wanted = set(_KEYS if only is None else only)
    scores, positive, keep = _checked(scores, targets, names, class_mask)
    n, n_positive = len(scores), positive.sum(axis=0)
    counted = keep & (n_positive > 0)
    values = {
        "n_positive": n_positive,
        "prior": n_positive / max(n, 1),
        "n_clips": n,
        "n_classes": int(counted.sum()),
        "left_out": [names[j] if names else int(j) for j in np.flatnonzero(keep & ~counted)],
    }
    if wanted & _BY_CLASS:
        ap, auc = _per_class(scores, positive, keep)
        mean_auc, each = _mean(auc), d_prime(auc)
        values |= {"mean_ap": _mean(ap), "mean_auc": mean_auc, "d_prime": float(d_prime(mean_auc))}
        values["mean_of_d_prime"] = _mean(np.where(np.isfinite(each), each, np.nan))
        values |= {"per_class_ap": ap, "per_class_auc": auc}
    if "micro_ap" in wanted:
        values["micro_ap"] = _micro_ap(scores[:, counted], positive[:, counted])
    if "lrap" in wanted:
        values["lrap"] = _lrap(scores[:, keep], positive[:, keep])
    return {key: values[key] for key in _KEYS if key in wanted}


def d_prime(auc):
    """d' = sqrt(2) Phi^-1(AUC), a distance in standard deviations; 1 -> inf, 0.5 -> 0."""
    from scipy.special import ndtri

    return sqrt(2.0) * ndtri(np.asarray(auc, np.float64))


def bootstrap(
    *,
    scores,
    targets,
    n=1000,
    level=0.95,
    seed=0,
    class_mask=None,
    groups=None,
    per_class=False,
) -> dict:
    """Confidence intervals `{"mean_ap": (low, high), "mean_auc": ..., "d_prime": ...}`.

    N of N clips are drawn with replacement, `n` times. The same seed and N draw the same clips, so
    the resamples of two systems on one set are paired. If a class has no positive in a resample, it
    is left out of that resample's mean, as in `tagging`.

    Resampled AP is biased upwards, most for rare classes, because copies of a positive rank
    together. So the percentiles are shifted by (estimate - mean of resamples) and clipped to
    [0, 1]. With 5 to 100 positives per class, these intervals covered the mean over new test sets
    in 95 % of the cases, and plain percentiles in 85 %. The interval of d' is computed from the
    interval of mean AUC, because this is also defined at perfect separation.

    Args:
      groups: one label per clip, such as its recording or site. With it whole groups are drawn,
        because clips of one group are not independent.
      per_class: also return `per_class_ap` float64 [C, 2], from the same resamples. NaN for a class
        with fewer than FEW positive clips, because resamples of so few clips say too little.
    """
    if not 0 < level < 1 or n < 1:
        raise AsjaxError(f"bootstrap needs 0 < level < 1 and n >= 1, got level={level}, n={n}")
    scores, positive, keep = _checked(scores, targets, None, class_mask)
    drawn = resampled_per_class(
        scores=scores, targets=positive, n=n, seed=seed, class_mask=keep, groups=groups
    )
    out, estimates = {}, _per_class(scores, positive, keep)
    for (key, values), estimate in zip(drawn.items(), estimates, strict=True):
        means = _mean_rows(values.T, n)
        ends = np.clip(interval(means, _mean(estimate), level), 0.0, 1.0)
        out[f"mean_{key}"] = (float(ends[0]), float(ends[1]))
    out["d_prime"] = tuple(float(d_prime(v)) for v in out["mean_auc"])
    if per_class:
        ends = np.full((scores.shape[1], 2), np.nan)
        for j in np.flatnonzero(keep & (positive.sum(axis=0) >= FEW)):
            ends[j] = interval(drawn["ap"][:, j], estimates[0][j], level)
        out["per_class_ap"] = np.clip(ends, 0.0, 1.0)
    return out


def interval(values, estimate, level=0.95) -> tuple[float, float]:
    """Percentile interval of resampled `values`, shifted so that their mean is the estimate.

    If the values are so skewed that the shifted interval leaves out the estimate, it is widened up
    to the estimate. For the difference of two systems, pass the differences of paired resamples.
    Non-finite resamples are left out; the interval is NaN if none is finite.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    shift = estimate - values.mean()
    return float(min(low + shift, estimate)), float(max(high + shift, estimate))


def resampled(*, scores, targets, n=1000, seed=0, class_mask=None, groups=None) -> dict:
    """Mean AP and mean AUC of each of `n` bootstrap resamples: two float64 arrays [n]."""
    each = resampled_per_class(
        scores=scores, targets=targets, n=n, seed=seed, class_mask=class_mask, groups=groups
    )
    return {f"mean_{key}": _mean_rows(values.T, n) for key, values in each.items()}


def resampled_per_class(
    *, scores, targets, n=1000, seed=0, class_mask=None, groups=None
) -> dict[str, np.ndarray]:
    """AP and AUC of each class in each of `n` bootstrap resamples: `{"ap", "auc"}`, [n, C] each.

    NaN if a class or its resample has no positive clip; AUC is also NaN without a negative clip.
    """
    scores, positive, keep = _checked(scores, targets, None, class_mask)
    classes = np.flatnonzero(keep & positive.any(axis=0))
    clips = len(scores)
    draws = resample_counts(clips, n, seed, groups)
    # Resamples of groups of uneven size may hold more clips than there are.
    kind = np.int16 if clips < 2**15 and groups is None else np.int32
    block = max(1, _BLOCK_BYTES // (4 * max(clips, 1)))
    out = {key: np.full((n, scores.shape[1]), np.nan) for key in ("ap", "auc")}
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # scipy releases the GIL
        for start in range(0, n, block):
            weights = _columns(draws, min(block, n - start), kind)
            values = pool.map(
                lambda j, w=weights: _ap_auc(scores[:, j], positive[:, j], w), classes
            )
            for j, (ap, auc) in zip(classes, values, strict=True):
                out["ap"][start : start + len(ap), j] = ap
                out["auc"][start : start + len(auc), j] = auc
    return out


def resample_counts(clips: int, n: int, seed: int = 0, groups=None):
    """Yields `n` resamples: how often each clip was drawn with replacement, int [clips].

    `groups` has one label per clip. With G groups, G groups are drawn, each with all of its clips.
    Without `groups` the counts sum to `clips`.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        for _ in range(n):
            yield np.bincount(rng.integers(0, clips, clips), minlength=clips) if clips else []
        return
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if member.shape != (clips,):
        raise AsjaxError(
            f"groups must name one group for each of {clips} clips, got {member.shape}"
        )
    for _ in range(n):
        yield np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[member]


def regress(*, x, y) -> dict:
    """Least squares line of y [n] on x [n]: slope, intercept, r, p, stderr (of the slope), n.

    p is two-sided, for a slope of zero (Student's t, n - 2 degrees of freedom). A pair with a
    non-finite value is left out, such as a class without a positive.

    Raises:
      AsjaxError: fewer than three pairs, or all x equal.
    """
    from scipy.stats import linregress

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 3 or x.min() == x.max():
        raise AsjaxError(f"a regression needs three points that differ in x, got {len(x)} points")
    line = linregress(x, y)
    return {
        "slope": float(line.slope),
        "intercept": float(line.intercept),
        "r": float(line.rvalue),
        "p": float(line.pvalue),
        "stderr": float(line.stderr),
        "n": len(x),
    }


# --------------------------------------------------------------------------------- inner parts


def _checked(scores, targets, names, class_mask):
    """The checked inputs: scores float [N, C], positive bool [N, C], keep bool [C]."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise AsjaxError(
            f"scores and targets must have one shape [clips, classes], got {scores.shape} and "
            f"{targets.shape}"
        )
    c = scores.shape[1]
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    keep = np.ones(c, bool) if class_mask is None else np.asarray(class_mask, bool)
    if keep.shape != (c,) or (names is not None and len(names) != c):
        raise AsjaxError(
            f"names and class_mask must have one entry for each of the {c} classes, got "
            f"{c if names is None else len(names)} and shape {keep.shape}"
        )
    bad = np.isnan(scores)
    if bad.any():
        first = int(np.flatnonzero(bad.any(axis=0))[0])
        label = f"{first} ({names[first]})" if names is not None else str(first)
        raise AsjaxError(
            f"scores must be numbers, got NaN in {int(bad.sum())} places, first in class {label}; "
            "the model diverged or its checkpoint is damaged"
        )
    positive = targets.astype(bool)
    if not np.array_equal(positive, targets):
        raise AsjaxError("targets must be 0 or 1; evaluate hard labels, before mixup or smoothing")
    return scores, positive, keep


def _per_class(scores, positive, keep):
    """AP and AUC per class, float64 [C] each, NaN where undefined."""
    out = np.full((2, scores.shape[1]), np.nan)
    once = [np.ones((len(scores), 1), np.int32)]
    for j in np.flatnonzero(keep & positive.any(axis=0)):
        out[:, j] = np.ravel(_ap_auc(scores[:, j], positive[:, j], once))
    return out


def _ap_auc(score, positive, weights):
    """AP and AUC of one class for every column of clip weights.

    Args: score [N]; positive bool [N] with at least one True; weights: list of int arrays [N, R_i].
    Returns: two float64 [sum R_i], NaN where no positive has a weight (AUC: or no negative).

    Both sums only need the thresholds at which a positive occurs. The ranking is split there into
    pieces: gap, tie group, gap, tie group, ..., tail. A sparse 0/1 matrix [pieces, N] sums the
    weights of every piece for all columns in one pass over the clips.
    """
    from scipy.sparse import csr_array

    order = np.argsort(-score).astype(np.int32)  # the order of equal scores does not matter
    ranked, hit = score[order], np.flatnonzero(positive[order])
    n = len(score)
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # of groups of equal scores
    group_of_hit = np.searchsorted(starts, hit, side="right") - 1
    groups, first_hit = np.unique(group_of_hit, return_index=True)
    cuts = np.stack([starts[groups], np.r_[starts[1:], n][groups]], axis=1).ravel()
    pieces = _sum_matrix(csr_array, order, np.r_[0, cuts, n], n)
    hits = _sum_matrix(csr_array, order[hit], np.r_[first_hit, len(hit)], n)
    parts = [_weighted(pieces @ w, hits @ w) for w in weights]
    return tuple(np.concatenate(p) for p in zip(*parts, strict=True))


def _sum_matrix(csr_array, columns, bounds, n):
    """0/1 matrix whose row i sums the clips columns[bounds[i]:bounds[i+1]]."""
    data = np.ones(len(columns), np.int16 if n < 2**15 else np.int32)
    return csr_array((data, columns, bounds.astype(np.int32)), shape=(len(bounds) - 1, n))


def _weighted(pieces, true):
    """AP and AUC of R columns, from weights of the pieces [2G+1, R] and true positives [G, R]."""
    through = np.cumsum(pieces, axis=0, dtype=np.int32)[1::2]  # [G, R] ranked at or above group g
    total = (through[-1] + pieces[-1]).astype(np.float64)
    true_through = np.cumsum(true, axis=0, dtype=np.int32)
    positives = true_through[-1].astype(np.float64)
    negatives = total - positives
    precision = true_through / np.maximum(through, 1)
    ap = np.einsum("gr,gr->r", true, precision)
    # A positive beats the negatives below its tie group and half of the negatives inside it.
    ties = pieces[1::2] - true  # negatives inside each group
    above = (through - true_through) - 0.5 * ties
    beaten = positives * negatives - np.einsum("gr,gr->r", true, above)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ap / positives, beaten / (positives * negatives)


def _columns(draws, n, kind):
    """The next `n` draws as a list of weight arrays [clips, up to _COLUMNS] of dtype `kind`."""
    out = []
    for start in range(0, n, _COLUMNS):
        part = [next(draws) for _ in range(min(_COLUMNS, n - start))]
        out.append(np.ascontiguousarray(np.array(part, kind).T))
    return out


def _mean_rows(rows, n):
    """Mean over classes [n] of per-class rows without NaN; NaN if all values are NaN."""
    if not len(rows):
        return np.full(n, np.nan)
    known = ~np.isnan(rows)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, rows, 0.0).sum(axis=0), np.nan) / np.maximum(
        count, 1
    )


def _mean(values) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _micro_ap(scores, positive) -> float:
    if not positive.any():
        return float("nan")
    score, hit = scores.ravel(), positive.ravel()
    order = np.argsort(-score)
    ranked = score[order]
    ends = np.r_[np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1]
    true = np.cumsum(hit[order])[ends]
    return float(np.sum(np.diff(true, prepend=0) * (true / (ends + 1.0))) / true[-1])


def _lrap(scores, positive) -> float:
    """LRAP: for each true label, the share of true labels among all with at least its score.

    The mean is over the labels of a clip, then over clips.
    """
    clip, label = np.nonzero(positive)  # sorted by clip
    if not len(clip):
        return float("nan")
    share = np.empty(len(clip))
    for start in range(0, len(clip), 4096):
        part = slice(start, start + 4096)
        rows = clip[part]
        higher = scores[rows] >= scores[rows, label[part]][:, None]
        share[part] = (higher & positive[rows]).sum(axis=1) / higher.sum(axis=1)
    per_clip = np.bincount(clip, share) / np.maximum(np.bincount(clip), 1)
    return float(per_clip[np.unique(clip)].mean())
