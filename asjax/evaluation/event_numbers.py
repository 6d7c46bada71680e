"""The numbers of an evaluation of events in time: PSDS, event F1 and segment F1, with intervals.

PSDS needs no threshold. The F1 are those of lists of events, made in these ways:

    half    probability 0.5 and the usual median window for every class
    tuned   thresholds and windows per class, tuned on other clips: on the data that chose the step
            if the run has a test set, else on the other half of the same clips
    model   thresholds and windows of the model folder
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from asjax import metrics
from asjax.evaluation import event_tuning

LEVEL = 0.95
KINDS = ("event", "segment")
SETS = {"psds1": metrics.PSDS1, "psds2": metrics.PSDS2}
_FEWEST = 100
_MOST_PSDS2 = 2_000_000  # pairs of clip and class
_CELLS = {"psds1": 200_000_000, "psds2": 400_000}  # pairs of clip and class, times resamples


@dataclass(eq=False)
class Numbers:
    """All numbers of a set of annotated clips.

    Attributes:
      given: the clips, as `Detections.annotated` gives them. ids: their names.
      n_events: int64 [C]. seconds: float64 [C], length of all events of a class.
      psds: "psds1", "psds2" -> result of `metrics.psds` with curves and `ci`; empty if the clips
        have no event.
      ways: name of a way -> {"event": ..., "segment": ...}, each a dict of `_of_lists`.
      decoding: tuned on all clips, or on `tuning` clips; None if there is no event.
      psds1_windows: PSDS1 (macro) with the median windows per class of the other half, or NaN.
      resamples: name of a metric -> number of resamples.
    """

    given: dict
    ids: list[str]
    n_events: np.ndarray
    seconds: np.ndarray
    psds: dict = field(default_factory=dict)
    ways: dict = field(default_factory=dict)
    decoding: event_tuning.Decoding | None = None
    psds1_windows: float = math.nan
    resamples: dict = field(default_factory=dict)


def numbers(found, *, n_bootstrap: int = 1000, seed: int = 0, tuning=None, stored=None) -> Numbers:
    """All numbers of `found`, a `Detections`.

    Args:
      n_bootstrap: resamples of the clips; large sets get fewer for PSDS (see `resamples`); below 2:
        no intervals.
      tuning: `Detections` of other clips, for thresholds and windows. Default: halves of `found`.
      stored: an `event_tuning.Decoding` [C] of the model folder, or None.

    Raises:
      AsjaxError: no clip is annotated, or true events of one class overlap.
    """
    given = found.annotated()
    classes = found.frames.shape[2]
    rows = found.rows()
    count, seconds = np.zeros(classes, np.int64), np.zeros(classes)
    for marks in given["events"]:
        np.add.at(count, marks["class"], 1)
        np.add.at(seconds, marks["class"], marks["offset_s"] - marks["onset_s"])
    out = Numbers(given, [found.ids[i] for i in rows], count, seconds)
    if not count.any():
        return out
    n = {key: resamples(key, n_bootstrap, len(rows), classes) for key in SETS}
    out.resamples = {**n, "f1": n_bootstrap if n_bootstrap > 1 else 0}
    usual = found.median
    for key, rules in SETS.items():
        out.psds[key] = metrics.psds(**given, median=usual, curves=True, **rules)
        if n[key]:
            ci = metrics.psds_bootstrap(**given, median=usual, n=n[key], seed=seed, **rules)
            out.psds[key]["ci"] = ci
    _lists(out, found, tuning, stored, n_bootstrap, seed)
    return out


def resamples(key: str, wanted: int, clips: int, classes: int) -> int:
    """Resamples for a PSDS: `wanted`, but fewer for large sets, so that they take minutes at most.

    1000 resamples of PSDS1 are computed up to 200,000 pairs of clip and class, then fewer. PSDS2
    gets 200 for 200 clips of 10 classes. The fewest are 100 (or `wanted`), as for PSDS1 on AudioSet
    Strong (16,935 clips, 407 classes). PSDS2 gets none beyond `_MOST_PSDS2` pairs, because the
    cross triggers of every clip would need 10 GB at that size. 0 means no intervals.
    """
    cells = max(1, clips * classes)
    if wanted < 2 or (key == "psds2" and cells > _MOST_PSDS2):
        return 0
    return min(wanted, max(_FEWEST, _CELLS[key] // cells))


def _lists(out: Numbers, found, tuning, stored, n_bootstrap: int, seed: int) -> None:
    """F1 of lists of events made in each of the ways; the decoding for new files."""
    given, classes = out.given, found.frames.shape[2]
    plain = event_tuning.plain(classes, found.median)
    chosen = {"half": dict.fromkeys(KINDS, plain)}
    others = None if tuning is None else tuning.annotated()
    if others is not None and any(len(marks) for marks in others["events"]):
        chosen["tuned"] = {by: event_tuning.tuned(others, by, tuning.median_s) for by in KINDS}
        out.decoding = chosen["tuned"]["event"]
    else:
        halves = {by: event_tuning.halves(given, by, found.median_s, seed) for by in KINDS}
        chosen |= {} if None in halves.values() else {"tuned": halves}
        out.decoding = event_tuning.tuned(given, "event", found.median_s)
        out.psds1_windows = _with_windows(given, seed, found.median_s)
    if stored is not None:
        chosen["model"] = dict.fromkeys(KINDS, stored)
    for name, by_kind in chosen.items():
        made: dict = {}
        out.ways[name] = {}
        for by, decoding in by_kind.items():
            if id(decoding) not in made:
                made[id(decoding)] = decoding.events(given)
            lists = made[id(decoding)]
            out.ways[name][by] = _of_lists(by, given, lists, classes, n_bootstrap, seed)
            out.ways[name][by]["decoding"] = decoding


def _of_lists(by, given, lists, classes, n_bootstrap, seed) -> dict:
    """F1 of lists of events: lists, counts [3, N, C], f1 (per_class, macro, micro), precision and
    recall [C], ci (or None)."""
    more = {"durations_s": given["durations_s"]} if by == "segment" else {}
    pair = {"reference": given["events"], "estimated": lists}
    counts = metrics.clip_counts(by=by, **pair, num_classes=classes, **more)
    n_ref, n_sys, n_true = counts.sum(axis=1, dtype=np.float64)
    f1 = metrics.f1_of_counts(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(n_ref > 0, n_true / n_ref, np.nan)
        precision = np.where(n_sys > 0, n_true / n_sys, np.where(n_ref > 0, 0.0, np.nan))
    ci = metrics.f1_bootstrap(counts, n=n_bootstrap, seed=seed) if n_bootstrap > 1 else None
    return {
        "lists": lists,
        "counts": counts,
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "ci": ci,
    }


def _with_windows(given, seed, usual_s) -> float:
    """PSDS1 (macro) if each clip has the windows per class that suit the other half best."""
    tried = event_tuning.windows(given, usual_s)
    second = metrics.halves(len(given["events"]), seed)
    marked = np.array([len(marks) > 0 for marks in given["events"]])
    if len(tried) < 2 or not (marked[second].any() and marked[~second].any()):
        return math.nan
    chosen = metrics.tuned_halves(windows=tried, by="psds", rules=metrics.PSDS1, seed=seed, **given)
    return metrics.psds(**given, median=chosen["median"], **metrics.PSDS1)["macro"]


# ------------------------------------------------------------------------------------- headline


def headline(out: Numbers, names) -> dict:
    """The main numbers as plain values, for a card; `ci` has the intervals. NaN: undefined."""
    counted = out.n_events > 0
    values = {
        "n_clips": len(out.ids),
        "n_events": int(out.n_events.sum()),
        "hours": float(np.sum(out.given["durations_s"])) / 3600,
        "n_classes": int(counted.sum()),
        "left_out": [names[c] for c in np.flatnonzero(~counted)],
    }
    ci = {}
    for key in SETS:
        result = out.psds.get(key, {})
        for ours, theirs in ((key, "macro"), (f"{key}_penalised", "psds")):
            values[ours] = result.get(theirs, math.nan)
            if "ci" in result:
                ci[ours] = list(result["ci"][theirs])
    values["psds1_tuned_windows"] = out.psds1_windows
    ending = {"tuned": "", "half": "_at_half", "model": "_of_model"}
    for way in [way for way in ending if way in out.ways or way != "model"]:
        for by in KINDS:
            result = out.ways.get(way, {}).get(by)
            for mean in ("macro", "micro"):
                key = f"{by}_f1_{mean}{ending[way]}"
                values[key] = float(result["f1"][mean]) if result else math.nan
                if result and result["ci"]:
                    ci[key] = list(result["ci"][mean])
    return {**values, "ci": ci}
