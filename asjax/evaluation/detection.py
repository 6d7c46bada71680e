"""From frame scores to metrics and a report of events in time."""

from __future__ import annotations

import json
from pathlib import Path

from asjax import metrics
from asjax.evaluation import detections
from asjax.store.files import finite, write_atomic


def evaluate(found, out, *, label_set, n_bootstrap=1000, seed=0) -> dict:
    """Frame scores -> events.json in `out`; returns its content."""
    given = found.annotated()
    window = detections.median(found.frame_rate)
    result = metrics.psds(**given, median=window, **metrics.PSDS1)
    best = metrics.best_f1(by="event", **given, median=window)
    threshold = [None if t != t or abs(t) == float("inf") else float(t) for t in best["threshold"]]
    summary = {
        "events": {"psds1": result["macro"], "n_clips": result["n_clips"]},
        "decoding": {"median": [window] * len(label_set), "threshold": threshold},
    }
    text = json.dumps(finite(summary), indent=2, allow_nan=False)
    write_atomic(Path(out) / "events.json", text + "\n")
    return summary


def table(summary: dict) -> str:
    """The main numbers as text."""
    return f"PSDS1 {summary['events']['psds1']:.3f} on {summary['events']['n_clips']} clips"
