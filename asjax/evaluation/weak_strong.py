"""The validation metric of DESED (DCASE task 4): F1 of weak labels and of events together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from asjax import decoding, metrics
from asjax.config import AsjaxError


@dataclass(frozen=True)
class WeakStrong:
    """See `weak_strong_f1`."""

    dtc: float
    gtc: float
    names = ("weak_strong_f1", "weak_f1", "intersection_f1")
    step_metric = "weak_strong_f1"

    def check(self, source) -> None:
        """AsjaxError unless some clips have events, and others only labels."""
        known = {marks is not None for marks in source.events}
        if known != {True, False}:
            raise AsjaxError(
                f"eval.metric='weak_strong_f1' needs clips with events and clips with labels only, "
                f"and all clips of {source.name} {'have' if True in known else 'lack'} events; "
                "take psds1, or other evaluation data"
            )

    def trace(self, found) -> dict:
        known = np.array([marks is not None for marks in found.events], bool)
        weak = self._weak(found.logits[~known], found.targets[~known])
        events = self._events(found) if known.any() else math.nan
        return dict(zip(self.names, ((weak + events) / 2, weak, events), strict=True))

    def numbers(self, found, tuning=None, *, n_bootstrap: int = 0, seed: int = 0) -> dict:
        """`trace` without what is undefined for these clips."""
        return {key: value for key, value in self.trace(found).items() if not math.isnan(value)}

    def _weak(self, logits, targets) -> float:
        """Macro F1 of clips at probability 0.5, over classes with a clip."""
        counts = np.stack([targets > 0, logits > 0, (targets > 0) & (logits > 0)])
        return float(metrics.f1_of_counts(counts)["macro"])

    def _events(self, found) -> float:
        given = found.annotated()
        lists = [
            decoding.decode(
                np.asarray(scores, np.float32)[:length],
                threshold=0.0,
                median=found.median,
                frame_rate=found.frame_rate,
                duration_s=seconds,
            )
            for scores, length, seconds in zip(
                given["scores"], given["lengths"], given["durations_s"], strict=True
            )
        ]
        return metrics.intersection_f1(
            reference=given["events"],
            estimated=lists,
            num_classes=found.frames.shape[2],
            dtc=self.dtc,
            gtc=self.gtc,
        )["macro"]["f1"]


def weak_strong_f1(*, dtc: float = 0.5, gtc: float = 0.5) -> WeakStrong:
    """The mean of two macro F1 at probability 0.5, for `eval.metric`; DESED's baseline has the sum.

    One is that of the clips with labels only. The other is that of the events by intersection
    (`metrics.intersection_f1`), after the usual median filter.
    """
    for name, value in (("dtc", dtc), ("gtc", gtc)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value <= 1:
            raise AsjaxError(f"metric weak_strong_f1: {name} must be 0 to 1, got {value!r}")
    return WeakStrong(float(dtc), float(gtc))
