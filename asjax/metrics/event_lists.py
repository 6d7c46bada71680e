"""Metrics of lists of events: by events with collars, by segments, by intersections.

All functions take `reference` and `estimated`, per clip a list of (onset_s, offset_s, class). They
return {"micro": ..., "macro": ..., "per_class": ...}. Micro sums the counts of the classes first.
Macro is the mean over the classes where a number is defined. A class without a reference event has
no recall and no F1.

`sed_eval=True` does the arithmetic of sed_eval 0.2.1, which made the published numbers of DCASE and
HEAR. Times are compared without rounding, so a deviation of exactly one collar may pass or fail. A
class without detections has no precision and no F1 (by default both are 0). Rates are divided by
n + 2.2e-16, so they are huge instead of undefined if n is 0.
"""

from __future__ import annotations

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError
from asjax.metrics.criteria import Collar
from asjax.metrics.matching import largest_matching
from asjax.metrics.truths import DECIMALS, snapped, spread

_EPS = np.spacing(1)


def event_f1(
    *,
    reference,
    estimated,
    num_classes: int | None = None,
    label_set=None,
    onset_collar: float | None = 0.2,
    offset_collar: float | None = 0.2,
    offset_rate: float = 0.2,
    matching: str = "optimal",
    sed_eval: bool = False,
) -> dict:
    """Event-based F1 and error rate (Mesaros et al., Applied Sciences 2016).

    Args:
      onset_collar: seconds that an onset may deviate; None ignores onsets.
      offset_collar, offset_rate: an offset may deviate by the larger of these seconds and this
        share of the reference event's length; offset_collar=None ignores offsets.
      matching: "optimal" pairs as many events as possible; "greedy" pairs each reference event, in
        the order of the lists, with the first free estimated event that matches.

    Returns: dict with
      micro: f1, precision, recall, error_rate, substitution_rate, deletion_rate, insertion_rate;
      macro: f1, precision, recall, error_rate, deletion_rate, insertion_rate;
      per_class: the same as float64 [C], and n_ref, n_sys, n_true, int64 [C].
    """
    if onset_collar is None and offset_collar is None:
        raise AsjaxError("onset_collar and offset_collar must not both be None")
    if matching not in ("optimal", "greedy"):
        raise AsjaxError(f"matching must be optimal or greedy, got {matching!r}")
    ref, est, classes = columns(reference, estimated, num_classes, label_set)
    collar = Collar(onset_collar, offset_collar, offset_rate)
    decimals = None if sed_eval else DECIMALS

    # Pairs of events of one clip with matching times, of any class, in the order of the lists.
    if onset_collar is None:
        i, j = _pairs(ref["clip"], est["clip"])
    else:
        i, j = _near(ref, est, onset_collar)
    good = collar.hits(
        est["onset"][j], est["offset"][j], ref["onset"][i], ref["offset"][i], decimals
    )
    i, j = i[good], j[good]
    same = ref["label"][i] == est["label"][j]
    match = _matched if matching == "optimal" else _taken
    true_i, true_j = match(i[same], j[same])
    free_i, free_j = np.ones(len(ref["clip"]), bool), np.ones(len(est["clip"]), bool)
    free_i[true_i] = free_j[true_j] = False
    left = free_i[i] & free_j[j]
    substituted = len(_taken(i[left], j[left])[0])
    n_ref, n_sys, n_true = (
        np.bincount(x, minlength=classes)
        for x in (ref["label"], est["label"], ref["label"][true_i])
    )
    total = len(true_i) + substituted
    errors = (substituted, n_ref.sum() - total, n_sys.sum() - total)
    return _summary(n_ref, n_sys, n_true, errors, sed_eval)


def segment_f1(
    *,
    reference,
    estimated,
    durations_s,
    segment_s: float = 1.0,
    num_classes: int | None = None,
    label_set=None,
    sed_eval: bool = False,
) -> dict:
    """Segment-based F1, error rate and accuracies. A segment is active if an event touches it.

    Args:
      durations_s: float [N], evaluated length of each clip. A partial segment at the end counts.

    Returns: as `event_f1`, with sensitivity, specificity, balanced_accuracy and accuracy.
    """
    ref, est, classes = columns(reference, estimated, num_classes, label_set)
    durations_s = np.asarray(durations_s, np.float64)
    if durations_s.shape != (len(reference),):
        raise AsjaxError(f"durations_s must be {len(reference)} seconds, one per clip")
    counts = _up(durations_s / segment_s, sed_eval, segment_s)
    first = np.cumsum(counts) - counts
    total = int(counts.sum())
    a = _cells(ref, counts, first, classes, segment_s, sed_eval)
    b = _cells(est, counts, first, classes, segment_s, sed_eval)
    both = np.intersect1d(a, b, assume_unique=True)
    n_ref, n_sys, n_true = (np.bincount(x % classes, minlength=classes) for x in (a, b, both))
    in_ref, in_sys, in_both = (np.bincount(x // classes, minlength=total) for x in (a, b, both))
    errors = (
        (np.minimum(in_ref, in_sys) - in_both).sum(),
        np.maximum(0, in_ref - in_sys).sum(),
        np.maximum(0, in_sys - in_ref).sum(),
    )
    result = _summary(n_ref, n_sys, n_true, errors, sed_eval)
    negative = total - n_ref - n_sys + n_true
    result["per_class"] |= _accuracies(n_ref, n_sys, n_true, negative, sed_eval)
    whole = _accuracies(n_ref.sum(), n_sys.sum(), n_true.sum(), negative.sum(), sed_eval)
    result["micro"] |= {key: float(value) for key, value in whole.items()}
    result["macro"] |= {key: _mean(result["per_class"][key]) for key in whole}
    return result


def intersection_f1(
    *,
    reference,
    estimated,
    dtc: float = 0.5,
    gtc: float = 0.5,
    num_classes: int | None = None,
    label_set=None,
) -> dict:
    """F1 by the intersection criteria of Bilen et al. (ICASSP 2020), without cross triggers.

    A detection is correct if reference events of its class cover `dtc` of it. A reference event is
    detected if correct detections cover `gtc` of it.

    Returns: as `event_f1`, without substitutions. `n_true` counts detected reference events and
      `n_false` false detections, so precision is n_true / (n_true + n_false).
    """
    ref, est, classes = columns(reference, estimated, num_classes, label_set)
    n_ref = np.bincount(ref["label"], minlength=classes)
    n_true, n_false, _ = intersection_counts(ref, est, classes, dtc, gtc)
    result = _summary(n_ref, n_true + n_false, n_true, None, False)
    del result["per_class"]["n_sys"]
    result["per_class"]["n_false"] = n_false
    return result


def intersection_counts(ref, est, classes, dtc, gtc, cttc=None):
    """Detected reference events and false detections, int64 [C] each, and cross triggers.

    Cross triggers are float64 [C]: every false detection counts 1 / (seconds of the other class)
    for each other class whose events cover `cttc` of it. Without `cttc` they are 0.
    """
    i, j = _pairs(ref["clip"] * classes + ref["label"], est["clip"] * classes + est["label"])
    length = est["offset"] - est["onset"]
    common = _common(ref, est, i, j)
    right = _at_least(np.bincount(j, common, minlength=len(length)), dtc * length)
    common = np.where(right[j], common, 0)
    covered = np.bincount(i, common, minlength=len(ref["clip"]))
    hit = _at_least(covered, gtc * (ref["offset"] - ref["onset"]))
    n_true = np.bincount(ref["label"][hit], minlength=classes)
    n_false = np.bincount(est["label"][~right], minlength=classes)
    if cttc is None:
        return n_true, n_false, np.zeros(classes)
    wrong = np.flatnonzero(~right)
    i, j = _pairs(ref["clip"], est["clip"][wrong])
    other = ref["label"][i] != est["label"][wrong[j]]
    i, j = i[other], j[other]
    code, place = np.unique(wrong[j] * classes + ref["label"][i], return_inverse=True)
    covered = np.bincount(place, _common(ref, est, i, wrong[j]), minlength=len(code))
    code = code[_at_least(covered, cttc * length[code // classes])]
    seconds = np.bincount(ref["label"], ref["offset"] - ref["onset"], minlength=classes)
    weight = 1.0 / seconds[code % classes]
    return n_true, n_false, np.bincount(est["label"][code // classes], weight, minlength=classes)


def _common(ref, est, i, j):
    """Overlap of events i and detections j in seconds."""
    end = np.minimum(ref["offset"][i], est["offset"][j])
    return np.maximum(0.0, end - np.maximum(ref["onset"][i], est["onset"][j]))


def _at_least(value, needed):
    return np.round(value, DECIMALS) >= np.round(needed, DECIMALS)


# --------------------------------------------------------------------------------- inner parts


def columns(reference, estimated, num_classes, label_set):
    """The columns of both sets of lists, in the order of the lists, and the number of classes."""
    if len(reference) != len(estimated):
        raise AsjaxError(
            f"reference and estimated must have the same clips, got {len(reference)} and "
            f"{len(estimated)} lists"
        )
    classes = len(label_set) if label_set is not None else num_classes
    if classes is None:
        raise AsjaxError("lists of events need num_classes or label_set")
    out = []
    for group in (reference, estimated):
        arrays = [lists.as_events(e, label_set, sort=False) for e in group]
        flat = np.concatenate([np.zeros(0, lists.EVENT), *arrays])
        if len(flat) and flat["class"].max() >= classes:
            raise AsjaxError(
                f"classes of events must be below {classes}, got {flat['class'].max()}"
            )
        out.append(
            {
                "clip": np.repeat(np.arange(len(arrays)), [len(a) for a in arrays]),
                "label": flat["class"].astype(np.int64),
                "onset": flat["onset_s"],
                "offset": flat["offset_s"],
            }
        )
    return *out, classes


def _pairs(a, b):
    """Indices (i, j) of all pairs with a[i] == b[j], sorted by i and then by j."""
    order = np.argsort(b, kind="stable")
    start = np.searchsorted(b[order], a)
    count = np.searchsorted(b[order], a, side="right") - start
    i, number = spread(count)
    return i, order[start[i] + number]


def _near(ref, est, collar: float):
    """Indices (i, j), as of `_pairs`, of events of one clip with onsets about `collar` s apart.

    All pairs up to `collar` are there, and a few more. Long recordings have too many other pairs.
    """
    width = collar + 1e-3
    latest = max((float(x["onset"].max()) for x in (ref, est) if len(x["onset"])), default=0.0)
    place = lambda x: x["clip"] * (latest + 2 * width + 1) + x["onset"]  # noqa: E731
    order = np.argsort(place(est), kind="stable")
    sorted_places = place(est)[order]
    start = np.searchsorted(sorted_places, place(ref) - width)
    count = np.searchsorted(sorted_places, place(ref) + width, side="right") - start
    i, number = spread(count)
    j = order[start[i] + number]
    in_order = np.lexsort((j, i))
    return i[in_order], j[in_order]


def _matched(i, j):
    """A largest set of pairs that uses every i and every j at most once."""
    alone = (np.bincount(i)[i] == 1) & (np.bincount(j)[j] == 1) if len(i) else np.ones(0, bool)
    partners: dict = {}
    for a, b in zip(i[~alone].tolist(), j[~alone].tolist(), strict=True):
        partners.setdefault(b, []).append(a)
    pairs = largest_matching(partners)
    left = np.array(list(pairs.values()), np.int64), np.array(list(pairs), np.int64)
    return np.concatenate([i[alone], left[0]]), np.concatenate([j[alone], left[1]])


def _taken(i, j):
    """The pairs in order, if both parts are still free."""
    used_i, used_j, chosen = set(), set(), []
    for n, (a, b) in enumerate(zip(i.tolist(), j.tolist(), strict=True)):
        if a not in used_i and b not in used_j:
            used_i.add(a)
            used_j.add(b)
            chosen.append(n)
    return i[chosen], j[chosen]


def _up(x, sed_eval, segment_s):
    return np.ceil(x if sed_eval else snapped(x, segment_s)).astype(np.int64)


def _cells(events, counts, first, classes, segment_s, sed_eval):
    """Sorted codes segment * classes + class of all active segments of all clips."""
    start = events["onset"] / segment_s
    start = np.floor(start if sed_eval else snapped(start, segment_s)).astype(np.int64)
    stop = np.minimum(
        _up(events["offset"] / segment_s, sed_eval, segment_s), counts[events["clip"]]
    )
    start = np.maximum(start, 0)
    which, number = spread(np.maximum(0, stop - start))
    segment = first[events["clip"]][which] + start[which] + number
    return np.unique(segment * classes + events["label"][which])


def _summary(n_ref, n_sys, n_true, errors, sed_eval) -> dict:
    per_class = _scores(n_ref, n_sys, n_true, sed_eval)
    per_class |= _error_rates(n_ref, (n_ref - n_true, n_sys - n_true), sed_eval)
    micro = _scores(n_ref.sum(), n_sys.sum(), n_true.sum(), sed_eval)
    if errors is not None:
        micro |= _error_rates(n_ref.sum(), errors, sed_eval)
    return {
        "micro": {key: float(value) for key, value in micro.items()},
        "macro": {key: _mean(value) for key, value in per_class.items()},
        "per_class": per_class | {"n_ref": n_ref, "n_sys": n_sys, "n_true": n_true},
    }


def _scores(n_ref, n_sys, n_true, sed_eval) -> dict:
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.divide(n_true, n_sys), np.divide(n_true, n_ref)
        f1 = np.divide(2.0 * n_true, n_ref + n_sys)
    none, missing = np.equal(n_ref, 0), np.equal(n_sys, 0)
    if not sed_eval:
        precision = np.where(missing & ~none, 0.0, precision)
    f1 = np.where(none | (missing if sed_eval else False), np.nan, f1)
    return {"f1": f1, "precision": precision, "recall": recall}


def _error_rates(n_ref, errors, sed_eval) -> dict:
    """Rates of the errors: [substitutions,] deletions, insertions. Their sum is the error rate."""
    names = ("substitution_rate", "deletion_rate", "insertion_rate")[-len(errors) :]
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = [np.divide(e, n_ref + _EPS if sed_eval else n_ref) for e in errors]
    rates = [np.where(np.isfinite(r), r, np.nan) for r in rates]
    return {"error_rate": sum(rates), **dict(zip(names, rates, strict=True))}


def _accuracies(n_ref, n_sys, n_true, negative, sed_eval) -> dict:
    eps = _EPS if sed_eval else 0.0
    false = n_sys - n_true
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity = np.divide(n_true, n_ref + eps)
        specificity = np.divide(negative, negative + false + eps)
        accuracy = np.divide(n_true + negative, n_ref + false + negative + eps)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "accuracy": accuracy,
    }


def _mean(values) -> float:
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
