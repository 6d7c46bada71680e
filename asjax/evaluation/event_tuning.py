"""Thresholds and median windows per class: how frame scores become a list of events.

Tuned values fit the clips they were tuned on, so their metrics on these clips are too good.
`halves` gives every clip the values that were tuned on the other half of the clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax import decoding, metrics

TRIED_S = (0.04, 0.2, 0.36, 0.6, 1.0, 1.96)  # windows to try, after the usual one
TRIED_CELLS = 1_000_000  # pairs of clip and class; larger sets keep the usual one, to save minutes
MANY_BYTES = 1 << 30  # larger scores are not copied


@dataclass(frozen=True, eq=False)
class Decoding:
    """How events are made from logits.

    Attributes:
      threshold: logits, float64 [C], or [N, C] with one row per clip.
      median: windows in frames, int64 of the same shape.
      tuned: bool of the same shape; False where nothing was found and the default is used.
    """

    threshold: np.ndarray
    median: np.ndarray
    tuned: np.ndarray

    def events(self, given) -> list[np.ndarray]:
        """The events of every clip of `given` (see `Detections.annotated`), as `EVENT` arrays."""
        scores, rate = given["scores"], given["frame_rate"]
        out = []
        for i, seconds in enumerate(given["durations_s"]):
            row = i if self.threshold.ndim == 2 else ...
            clip = np.asarray(scores[i], np.float32)[: given["lengths"][i]]
            settings = {"threshold": self.threshold[row], "median": self.median[row]}
            out.append(decoding.decode(clip, **settings, frame_rate=rate, duration_s=seconds))
        return out


def plain(classes: int, window: int) -> Decoding:
    """Probability 0.5 and one median window in frames for every class."""
    median = np.full(classes, window)
    return Decoding(np.zeros(classes), median, np.zeros(classes, bool))


def windows(given, usual_s: float) -> list[int]:
    """The windows in frames that are tried for these scores; the first wins if some are equal."""
    clips, _, classes = _shape(given["scores"])
    tried = (usual_s, *(TRIED_S if clips * classes <= TRIED_CELLS else ()))
    return list(dict.fromkeys(decoding.window_frames(tried, given["frame_rate"]).tolist()))


def tuned(given, by: str, usual_s: float) -> Decoding:
    """Thresholds and windows with the best F1 by events or by segments, tuned on all clips.

    A class without an event, or without any correct detection, keeps the defaults.
    """
    found = metrics.tune_windows(windows=windows(given, usual_s), by=by, **given)
    return _settled(found["threshold"], found["window"], found["value"] > 0)


def halves(given, by: str, usual_s: float, seed: int = 0) -> Decoding | None:
    """For each clip the values tuned on the other half of the clips.

    None if a half would have no event.
    """
    count = len(given["events"])
    second = metrics.halves(count, seed)
    marked = np.array([len(marks) > 0 for marks in given["events"]], bool)
    if not (marked[second].any() and marked[~second].any()):
        return None
    given = {**given, "scores": _views(given["scores"])}
    found = metrics.tuned_halves(windows=windows(given, usual_s), by=by, seed=seed, **given)
    return _settled(found["threshold"], found["median"], np.isfinite(found["threshold"]))


def _settled(threshold, median, good) -> Decoding:
    """The defaults (logit 0) where nothing was tuned: an infinite threshold detects nothing."""
    good = good & ~np.isnan(threshold) & (threshold < np.inf)
    return Decoding(np.where(good, threshold, 0.0), median, good)


def as_json(chosen: Decoding, frame_rate: float, about: dict) -> dict:
    """A decoding [C] for the card of a model: probabilities, or null for 0.5; windows in frames."""
    with np.errstate(over="ignore"):
        probability = 1 / (1 + np.exp(-chosen.threshold))
    pairs = zip(probability.tolist(), chosen.tuned.tolist(), strict=True)
    return {
        "threshold": [p if known else None for p, known in pairs],
        "median": chosen.median.tolist(),
        "frame_rate": float(frame_rate),
        "tuned_on": about,
    }


def from_json(stored, classes: int, frame_rate: float) -> Decoding | None:
    """The decoding of a card, or None if it has none, or not for these classes and frames.

    A card from elsewhere may hold anything.
    """
    try:
        limits, median = stored["threshold"], np.asarray(stored["median"], np.int64)
        known = np.array([limit is not None for limit in limits], bool)
        p = np.array([0.5 if limit is None else limit for limit in limits], np.float64)
        rate = float(stored["frame_rate"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    right = p.shape == median.shape == (classes,) and abs(rate - frame_rate) < 1e-6 * frame_rate
    if not right or not ((p >= 0) & (p <= 1)).all() or not (median >= 1).all():
        return None
    with np.errstate(divide="ignore"):
        return Decoding(np.log(p) - np.log1p(-p), median, known)


def _shape(scores) -> tuple[int, int, int]:
    if isinstance(scores, list):
        return (len(scores), *np.shape(scores[0]))
    return tuple(scores.shape)


def _views(scores):
    """Large scores as a list of views, because rows of an array would be copied."""
    large = isinstance(scores, np.ndarray) and scores.nbytes > MANY_BYTES
    return list(scores) if large else scores
