"""Ranking of segments: average precision and areas under the ROC of frame scores."""

from __future__ import annotations

import numpy as np

from asjax.metrics.piecewise import scores_of
from asjax.metrics.ranking import tagging
from asjax.metrics.roc import area, envelope
from asjax.metrics.tally import inputs
from asjax.metrics.truths import DECIMALS, snapped


def segment_ranking(*, segment_s: float = 1.0, max_fpr: float = 0.1, **given) -> dict:
    """Ranking metrics of segments; a segment's score is its highest frame score.

    A segment has a class if an event touches it. The curves are staircases as in sed_scores_eval,
    so ties are not interpolated.

    Args:
      max_fpr: limit of the false positive rate for the partial area, which is divided by it.
      given: scores or boxes, events, durations_s, frame_rate, lengths, median, class_mask, ... as
        `psds` takes them.

    Returns: dict with mean_ap, mean_auroc, mean_pauroc (over classes with and without a segment),
      and per_class_ap, per_class_auroc, per_class_pauroc: float64 [C], NaN where undefined.
    """
    data, truth = inputs(**given)
    out = {
        f"per_class_{key}": np.full(data.num_classes, np.nan) for key in ("ap", "auroc", "pauroc")
    }
    for c, (score, target) in enumerate(segment_table(data, truth, segment_s)):
        column, positives = data.column[c], int(target.sum())
        if not positives:
            continue
        ranked = tagging(scores=score[:, None], targets=target[:, None])
        out["per_class_ap"][column] = ranked["mean_ap"]
        if positives == len(target):
            continue
        order = np.argsort(-score, kind="stable")
        last = np.append(np.diff(score[order]) != 0, True)
        tpr = np.append(0.0, np.cumsum(target[order])[last] / positives)
        fpr = np.append(0.0, np.cumsum(~target[order])[last] / (len(target) - positives))
        for key, limit in (("auroc", 1.0), ("pauroc", max_fpr)):
            which = envelope(fpr, tpr, limit)
            out[f"per_class_{key}"][column] = area(fpr[which], tpr[which], limit)
    for key in ("ap", "auroc", "pauroc"):
        values = out[f"per_class_{key}"]
        known = values[~np.isnan(values)]
        out[f"mean_{key}"] = float(known.mean()) if len(known) else float("nan")
    return out


def segment_table(data, truth, segment_s: float):
    """Yields per class the highest score of every segment of all clips, and whether it is active.

    A segment without a frame has the score -inf.
    """
    counts = np.ceil(snapped(data.durations_s / segment_s, segment_s)).astype(np.int64)
    counts[~data.counted] = 0
    first = np.cumsum(counts) - counts
    score = np.full((truth.classes, int(counts.sum())), -np.inf)
    target = np.zeros(score.shape, bool)
    for task in data.tasks():
        batch = data.batch(task, None)
        if batch is None:
            continue
        rows, edges = scores_of(batch.rows), np.round(batch.edges, DECIMALS)
        for number in range(int(counts[batch.clip].max())):
            start, stop = np.round([number * segment_s, (number + 1) * segment_s], DECIMALS)
            inside = (edges[:-1] < stop) & (edges[1:] > start)
            part = np.where(inside if edges.ndim == 2 else inside[:, None], rows, -np.inf)
            inside_clip = number < counts[batch.clip]
            place = first[batch.clip[inside_clip]] + number
            score[batch.label[inside_clip], place] = part.max(axis=0, initial=-np.inf)[inside_clip]
    start = np.floor(snapped(truth.onset / segment_s, segment_s)).astype(np.int64)
    stop = np.ceil(snapped(truth.offset / segment_s, segment_s)).astype(np.int64)
    for clip, label, a, b in zip(truth.clip, truth.label, start, stop, strict=True):
        target[label, first[clip] + max(0, a) : first[clip] + min(b, counts[clip])] = True
    yield from zip(score, target, strict=True)
