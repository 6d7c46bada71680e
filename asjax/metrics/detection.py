"""Polyphonic sound detection score (PSDS), exact and independent of thresholds.

Bilen et al. (ICASSP 2020) define PSDS. Ebbers et al. (ICASSP 2022) evaluate it at every threshold.
The published AudioSet Strong numbers are `macro` of PSDS1: the mean over classes of the area under
each class's curve.
"""

from __future__ import annotations

from math import floor

import numpy as np

from asjax.config import AsjaxError
from asjax.metrics.criteria import Intersection
from asjax.metrics.event_lists import columns, intersection_counts
from asjax.metrics.piecewise import scores_of
from asjax.metrics.roc import area, envelope, mean_curve
from asjax.metrics.tally import inputs, tally

PSDS1 = {"dtc": 0.7, "gtc": 0.7, "cttc": None, "alpha_ct": 0.0, "alpha_st": 1.0}
PSDS2 = {"dtc": 0.1, "gtc": 0.1, "cttc": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0}
_HOUR = 3600.0


def psds(
    *,
    scores=None,
    events,
    durations_s,
    boxes=None,
    frame_rate: float = 25.0,
    lengths=None,
    label_set=None,
    num_classes: int | None = None,
    class_mask=None,
    only_with_events: bool = False,
    median=1,
    dtc: float = 0.7,
    gtc: float = 0.7,
    cttc: float | None = None,
    alpha_ct: float = 0.0,
    alpha_st: float = 1.0,
    max_efpr: float = 100.0,
    curves: bool = False,
    threads: int | None = None,
) -> dict:
    """PSDS over all thresholds; `**PSDS1` and `**PSDS2` are the two usual settings.

    Args:
      scores: [N, T, C] (a memory map is read batch by batch) or a list of [T_i, C]; logits or
        probabilities. Frame i covers [i, i + 1) / frame_rate, also the last one. float16 is the
        fastest and needs the least memory.
      events: per clip a list of (onset_s, offset_s, class). Events of one class may not overlap
        (see asjax.events.merge). Classes are indices, or names with `label_set`.
      durations_s: float [N]; false positives are counted per hour of these durations.
      boxes: instead of scores, per clip an array of scored boxes (see asjax.change_points).
      lengths: int [N], valid frames; the others are cut off before the median filter.
      class_mask: bool [C], classes to evaluate (AudioSet Strong: 407 of 447). Events of other
        classes are ignored.
      only_with_events: leave out clips without any event of these classes, as PretrainedSED does.
      median: window of a median filter in frames: one number, one per class [C], or one per clip
        and
        class [N, C].
      dtc: share of a detection that events must cover. gtc: share of an event that correct
        detections must cover. cttc, alpha_ct: share that makes a cross trigger, and its weight.
      alpha_st: weight of the standard deviation over classes. max_efpr: false positives per hour.
      curves: return the curves as well.

    Returns: dict with
      macro: mean over classes, without the variance penalty; psds: with this penalty;
      per_class: float64 [C], NaN where a class has no event or is masked;
      n_clips, n_events [C], hours, n_classes (evaluated), left_out (classes without events);
      with `curves`, curve: (eFPR, eTPR with penalty, mean TPR), and class_curves: per evaluated
      class (eFPR, TPR, threshold).

    Raises:
      AsjaxError: shapes that do not match, NaN scores, faulty events, no event at all.
    """
    data, truth = inputs(
        scores=scores,
        events=events,
        durations_s=durations_s,
        boxes=boxes,
        frame_rate=frame_rate,
        lengths=lengths,
        label_set=label_set,
        num_classes=num_classes,
        class_mask=class_mask,
        only_with_events=only_with_events,
        median=median,
    )
    check_cross_triggers(cttc, alpha_ct)
    duration = _seconds(data)
    allowed = floor(max_efpr * duration / _HOUR)
    criterion = Intersection(dtc, gtc, cttc)
    table, cut = tally(data, truth, criterion, allowed=allowed, threads=threads)
    counted = np.flatnonzero(truth.count)
    points = []
    for c in counted:
        key, false, true, weight = table.of_class(c, None if cut is None else cut[c])
        efpr = effective_rate(false, weight, duration, alpha_ct, max(1, len(counted) - 1))
        which = envelope(np.append(0.0, efpr), np.append(0, true), max_efpr)
        thresholds = np.append(np.inf, scores_of(key))[which]
        points.append((*class_curve(efpr, true / truth.count[c], max_efpr), thresholds))
    result = _summary(points, alpha_st, max_efpr)
    per_class = np.full(data.num_classes, np.nan)
    per_class[data.column[counted]] = result.pop("areas")
    n_events = np.zeros(data.num_classes, np.int64)
    n_events[data.column] = truth.count
    missing = data.column[truth.count == 0]
    result |= {
        "per_class": per_class,
        "n_clips": int(data.counted.sum()),
        "n_events": n_events,
        "n_classes": len(counted),
        "hours": duration / _HOUR,
        "left_out": [label_set.names[c] if label_set else int(c) for c in missing],
        "class_curves": dict(zip(data.column[counted].tolist(), points, strict=True)),
    }
    if not curves:
        del result["curve"], result["class_curves"]
    return result


def _seconds(data) -> float:
    """Seconds of all clips, summed in sequence as sed_scores_eval does."""
    return float(np.cumsum(data.durations_s[data.counted])[-1])


def psds_best_of(results, *, alpha_st: float = 1.0, max_efpr: float = 100.0) -> dict:
    """PSDS if every class uses the best of several results at each false positive rate.

    This is the "post-processing independent" PSDS (Ebbers et al., DCASE 2023) if the results are of
    one system with several median windows. No system reaches it without knowing the test set.

    Args:
      results: results of `psds` with `curves=True` on the same clips and classes.

    Returns: dict with psds, macro, per_class.
    """
    names = list(results[0]["class_curves"])
    if any(list(r["class_curves"]) != names for r in results):
        raise AsjaxError("the results must be of the same classes")
    points = []
    for c in names:
        x, y = (np.concatenate([r["class_curves"][c][k] for r in results]) for k in (0, 1))
        which = envelope(x, y, max_efpr)
        points.append((x[which], y[which]))
    result = _summary(points, alpha_st, max_efpr)
    per_class = np.full(len(results[0]["per_class"]), np.nan)
    per_class[names] = result["areas"]
    return {"psds": result["psds"], "macro": result["macro"], "per_class": per_class}


def psds_of_points(
    *,
    points,
    reference,
    durations_s,
    num_classes: int | None = None,
    label_set=None,
    dtc: float = 0.7,
    gtc: float = 0.7,
    cttc: float | None = None,
    alpha_ct: float = 0.0,
    alpha_st: float = 0.0,
    max_efpr: float = 100.0,
) -> dict:
    """PSDS of a few operating points, as psds_eval computes it; lower than `psds` of the scores.

    Args:
      points: per operating point the lists of detected events of all clips.
      reference: the lists of true events. Events of one class should not overlap.
      Others: as `psds`.

    Returns: dict with psds, macro, per_class and left_out, as in `psds`.
    """
    check_cross_triggers(cttc, alpha_ct)
    seconds = float(np.cumsum(durations_s)[-1])
    counts = []
    for estimated in points:
        ref, est, classes = columns(reference, estimated, num_classes, label_set)
        counts.append(intersection_counts(ref, est, classes, dtc, gtc, cttc))
    true, false, weight = (np.stack(c) for c in zip(*counts, strict=True))
    events = np.bincount(ref["label"], minlength=classes)
    counted = np.flatnonzero(events)
    efpr = effective_rate(false, weight, seconds, alpha_ct, max(1, len(counted) - 1))
    curves = [class_curve(efpr[:, c], true[:, c] / events[c], max_efpr) for c in counted]
    result = _summary(curves, alpha_st, max_efpr)
    per_class = np.full(classes, np.nan)
    per_class[counted] = result.pop("areas")
    names = label_set.names if label_set is not None else range(classes)
    left_out = [names[c] for c in np.flatnonzero(events == 0)]
    del result["curve"]
    return {**result, "per_class": per_class, "left_out": left_out}


def check_cross_triggers(cttc, alpha_ct) -> None:
    if (cttc is None) != (alpha_ct == 0):
        raise AsjaxError(f"give both cttc and alpha_ct or none, got {cttc=}, {alpha_ct=}")


def effective_rate(false, weight, seconds, alpha_ct, others):
    """Effective false positives per hour; `weight` is cross triggers per second of true events."""
    rate = false / seconds
    if alpha_ct:
        rate = rate + alpha_ct * (weight / others)
    return rate * _HOUR


def class_curve(efpr, tpr, max_efpr):
    """(eFPR, TPR) of the envelope; above the highest score nothing is detected."""
    x, y = np.append(0.0, efpr), np.append(0.0, tpr)
    which = envelope(x, y, max_efpr)
    return x[which], y[which]


def _summary(curves, alpha_st, max_efpr) -> dict:
    areas = [area(x, y, max_efpr) for x, y, *_ in curves]
    x, mean, low = mean_curve([c[:2] for c in curves], alpha_st=alpha_st, max_x=max_efpr)
    return {
        "psds": area(x, low, max_efpr),
        "macro": float(np.mean(areas)),
        "areas": areas,
        "curve": (x, low, mean),
    }
