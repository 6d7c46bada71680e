"""Counts of events or segments per clip and class, and the intervals of F1 from them."""

from __future__ import annotations

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError, unknown
from asjax.metrics.event_lists import event_f1, segment_f1
from asjax.metrics.ranking import interval, resample_counts

_CELLS = 1 << 18  # pairs of clip and class that are counted at once
_KINDS = {"event": event_f1, "segment": segment_f1}


def clip_counts(
    *, by: str, reference, estimated, num_classes: int, durations_s=None, **rules
) -> np.ndarray:
    """int32 [3, N, C]: per clip and class the true, the found and the correctly found ones.

    Their sums over clips are n_ref, n_sys and n_true of `event_f1` (by="event") or `segment_f1`
    (by="segment", needs durations_s).

    Args:
      reference, estimated: per clip a list of (onset_s, offset_s, class). rules: other settings of
        the metric, such as onset_collar or segment_s.
    """
    if by not in _KINDS:
        raise unknown("by", by, _KINDS)
    count = len(reference)
    if len(estimated) != count:
        raise AsjaxError(f"estimated must have {count} lists, one per clip, got {len(estimated)}")
    out = np.zeros((3, count, num_classes), np.int32)
    step = max(1, _CELLS // max(1, num_classes))
    for start in range(0, count, step):
        stop = min(count, start + step)
        part = {
            "reference": _apart(reference[start:stop], num_classes),
            "estimated": _apart(estimated[start:stop], num_classes),
            "num_classes": num_classes * (stop - start),
        }
        if by == "segment":
            part["durations_s"] = np.asarray(durations_s, np.float64)[start:stop]
        found = _KINDS[by](**part, **rules)["per_class"]
        for k, key in enumerate(("n_ref", "n_sys", "n_true")):
            out[k, start:stop] = found[key].reshape(stop - start, num_classes)
    return out


def _apart(clips, num_classes: int) -> list[np.ndarray]:
    """The lists with other classes in every clip: class c of clip i becomes i * num_classes + c."""
    out = []
    for i, marks in enumerate(clips):
        marks = lists.as_events(marks).copy()
        if len(marks) and marks["class"].max() >= num_classes:
            raise AsjaxError(
                f"classes of events must be below {num_classes}, got {marks['class'].max()}"
            )
        marks["class"] += i * num_classes
        out.append(marks)
    return out


def f1_of_counts(counts) -> dict:
    """F1 of counts [3, ..., N, C] summed over clips: per_class [..., C], macro, micro [...].

    A class without a reference has no F1; macro is the mean over the others.
    """
    n_ref, n_sys, n_true = (np.asarray(c, np.float64).sum(axis=-2) for c in counts)
    return _f1(n_ref, n_sys, n_true)


def f1_bootstrap(counts, *, n: int = 1000, level: float = 0.95, seed: int = 0) -> dict:
    """Intervals of F1 over clips: macro and micro (low, high), per_class float64 [C, 2].

    N of N clips are drawn with replacement, `n` times; the same seed and N draw the same clips as
    in `bootstrap` and `psds_bootstrap`. The thresholds that gave the counts stay as they are.

    Args: counts: [3, N, C] of `clip_counts`.
    """
    if not 0 < level < 1 or n < 2:
        raise AsjaxError(f"bootstrap needs 0 < level < 1 and n >= 2, got level={level}, n={n}")
    clips = counts[0].shape[0]
    drawn = np.stack(list(resample_counts(clips, n, seed))).astype(np.float64)
    values = _f1(*(drawn @ np.asarray(c, np.float64) for c in counts))
    exact = f1_of_counts(counts)
    ends = lambda drawn, value: np.clip(interval(drawn, value, level), 0, 1)  # noqa: E731
    out = {key: tuple(ends(values[key], float(exact[key])).tolist()) for key in ("macro", "micro")}
    out["per_class"] = np.array(
        [ends(values["per_class"][:, c], exact["per_class"][c]) for c in range(counts[0].shape[1])]
    ).reshape(-1, 2)
    return out


def _f1(n_ref, n_sys, n_true) -> dict:
    with np.errstate(divide="ignore", invalid="ignore"):
        per_class = np.where(n_ref > 0, 2 * n_true / (n_ref + n_sys), np.nan)
        known = (n_ref > 0).sum(axis=-1)
        macro = np.where(known > 0, np.nansum(per_class, axis=-1) / known, np.nan)
        total = (n_ref + n_sys).sum(axis=-1)
        micro = np.where(n_ref.sum(axis=-1) > 0, 2 * n_true.sum(axis=-1) / total, np.nan)
    return {"per_class": per_class, "macro": macro, "micro": micro}
