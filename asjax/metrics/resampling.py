"""Confidence intervals of PSDS: resamples of clips reuse the counts of each clip."""

from __future__ import annotations

from math import ceil, floor, sqrt

import numpy as np

from asjax.config import AsjaxError
from asjax.metrics.criteria import Intersection
from asjax.metrics.detection import check_cross_triggers, class_curve, effective_rate, psds
from asjax.metrics.ranking import interval, resample_counts
from asjax.metrics.roc import area, mean_curve
from asjax.metrics.tally import inputs, tally

_HOUR = 3600.0
_TOGETHER = 25  # resamples that are processed at once
_SIGMAS = 8  # standard deviations by which a resample may have fewer false positives than the set


def psds_bootstrap(
    *,
    n: int = 100,
    level: float = 0.95,
    seed: int = 0,
    dtc: float = 0.7,
    gtc: float = 0.7,
    cttc: float | None = None,
    alpha_ct: float = 0.0,
    alpha_st: float = 1.0,
    max_efpr: float = 100.0,
    threads: int | None = None,
    **given,
) -> dict:
    """Intervals of PSDS. N of N clips are drawn with replacement, `n` times.

    The same seed and N draw the same clips as in `bootstrap`, so resamples of two systems are
    paired. If a class has no event in a resample, it is left out of that resample's mean.

    Args: as `psds`.

    Returns: dict with `psds`, `macro`: (low, high); `per_class`: float64 [C, 2], NaN where
    undefined; `values`: {"psds": [n], "macro": [n]} of the single resamples.
    """
    if not 0 < level < 1 or n < 2:
        raise AsjaxError(f"bootstrap needs 0 < level < 1 and n >= 2, got level={level}, n={n}")
    check_cross_triggers(cttc, alpha_ct)
    data, truth = inputs(**given)
    clips = np.flatnonzero(data.counted)
    drawn = np.zeros((len(data.counted), n), np.int32)
    drawn[clips] = np.stack(list(resample_counts(len(clips), n, seed)), axis=1)
    seconds = data.durations_s @ drawn
    allowed = floor(max_efpr * seconds.max() / _HOUR)
    allowed += ceil(_SIGMAS * sqrt(allowed + 1)) + 2 * _SIGMAS
    criterion = Intersection(dtc, gtc, cttc)
    changes, _ = tally(data, truth, criterion, allowed=allowed, keep=True, threads=threads)
    rules = {"alpha_ct": alpha_ct, "alpha_st": alpha_st, "max_efpr": max_efpr}
    values = _resampled(changes, truth, drawn, seconds, **rules)
    options = {**given, **rules, "dtc": dtc, "gtc": gtc, "cttc": cttc, "threads": threads}
    exact = psds(**options)
    out = {
        key: tuple(np.clip(interval(values[key], exact[key], level), 0, 1).tolist())
        for key in ("psds", "macro")
    }
    out["per_class"] = np.full((data.num_classes, 2), np.nan)
    for c, column in enumerate(data.column):
        if truth.count[c]:
            ends = interval(values["per_class"][:, c], exact["per_class"][column], level)
            out["per_class"][column] = np.clip(ends, 0, 1)
    out["values"] = {key: values[key] for key in ("psds", "macro")}
    return out


def _resampled(changes, truth, drawn, seconds, *, alpha_ct, alpha_st, max_efpr) -> dict:
    """PSDS with and without penalty of each resample [n], and per class [n, C]."""
    n = drawn.shape[1]
    events = np.zeros((truth.classes, n), np.int64)
    np.add.at(events, truth.label, drawn[truth.clip])
    truth_s = np.zeros((truth.classes, n))
    length = (truth.offset - truth.onset)[:, None]
    np.add.at(truth_s, truth.label, length * drawn[truth.clip])
    others = np.maximum(1, (events > 0).sum(axis=0) - 1)
    curves = [[] for _ in range(n)]
    values = {"psds": np.empty(n), "macro": np.empty(n)}
    values["per_class"] = np.full((n, truth.classes), np.nan)
    for c, part in enumerate(changes.by_class(truth.classes)):
        for start in range(0, n, _TOGETHER):
            these = slice(start, min(n, start + _TOGETHER))
            false, true, weight = _sums(part, drawn[:, these], truth_s[:, these])
            efpr = effective_rate(false, weight, seconds[these], alpha_ct, others[these])
            for r, x, y in zip(range(n)[these], efpr.T, true.T, strict=True):
                if events[c, r]:
                    curve = class_curve(x, y / events[c, r], max_efpr)
                    curves[r].append(curve)
                    values["per_class"][r, c] = area(*curve, max_efpr)
    for r in range(n):
        if not curves[r]:  # no event was drawn
            values["psds"][r] = values["macro"][r] = np.nan
            continue
        x, _, low = mean_curve(curves[r], alpha_st=alpha_st, max_x=max_efpr)
        values["psds"][r] = area(x, low, max_efpr)
        values["macro"][r] = np.nanmean(values["per_class"][r])
    return values


def _sums(part: dict, drawn, truth_s):
    """False and true positives [S, R] and cross-trigger weight of one class, highest key first.

    Between two changes of the true positives, only the key with the fewest false positives can lie
    on a curve, so only this key is returned. With cross triggers all keys are returned.
    """
    from scipy.sparse import csr_array

    key = part["key"]
    first = np.append(True, key[1:] != key[:-1])[: len(key)]
    starts = np.flatnonzero(first)
    bounds = np.append(starts, len(key))
    shape = (len(starts), len(drawn))

    def summed(value):
        table = csr_array((value.astype(np.int32), part["clip"], bounds), shape=shape)
        return np.cumsum(table @ drawn, axis=0)

    false, true = summed(part["false"]), summed(part["true"])
    if not len(starts):
        return false, true, 0.0
    if "weight" in part:
        each = np.sign(part["weight"])[:, None] * drawn[part["clip"]]
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(each != 0, each / truth_s[part["other"]], 0.0)
        return false, true, np.cumsum(np.add.reduceat(each, starts, axis=0), axis=0)
    changed = np.add.reduceat(part["true"] != 0, starts) > 0
    changed[0] = True
    segments = np.flatnonzero(changed)
    return np.minimum.reduceat(false, segments, axis=0), true[segments], 0.0
