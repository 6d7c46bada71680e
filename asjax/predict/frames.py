"""From windows of frame scores to the events of a whole recording."""

from __future__ import annotations

from numbers import Integral, Real
from typing import NamedTuple

import numpy as np

from asjax import change_points, decoding
from asjax import events as lists
from asjax.config import AsjaxError, quoted

THRESHOLD, MEDIAN_S = 0.5, 0.36  # of a model that has no tuned decoding
LONGEST_S = 60.0  # of a median window
_BLOCK = 32  # classes that are decoded at a time, so that a long recording needs little memory

NO_FRAMES = (
    "it has no events in time; take a model with frames, such as a run of objective detection or a "
    "checkpoint of PretrainedSED (asjax models --published)"
)


class Event(NamedTuple):
    """A sound from onset to offset.

    `probability` is the mean of the class's frame probabilities in the event, before the filter.
    """

    onset_s: float
    offset_s: float
    label: str
    id: str
    probability: float


# ------------------------------------------------------------------------------- tuned decoding


def thresholds(stored: dict | None, classes: int) -> np.ndarray:
    """Thresholds [C] from the `decoding` in the record of a model; 0.5 where it has none.

    AsjaxError: they have another form, or are of another number of classes.
    """
    values = (stored or {}).get("threshold")
    values = [None] * classes if values is None else values
    limits = _listed(values, classes, "threshold", 0, 1)
    return np.array([THRESHOLD if v is None else v for v in limits], np.float64)


def medians_s(stored: dict | None, classes: int) -> np.ndarray:
    """Windows [C] of the median filter in seconds, likewise; 0.36 s where there are none."""
    values = (stored or {}).get("median")
    if values is None:
        return np.full(classes, MEDIAN_S)
    (rate,) = _listed([stored.get("frame_rate") or 25.0], 1, "frame_rate", 1e-3, 1e5)
    frames = _listed(values, classes, "median", 1, 10_000)
    return np.array([MEDIAN_S if v is None else v / rate for v in frames])


def _listed(values, classes: int, what: str, low: float, high: float) -> list:
    good = isinstance(values, list) and len(values) == classes
    good = good and all(v is None or _is_number(v) and low <= v <= high for v in values)
    if not good:
        raise AsjaxError(
            f"the model's card: decoding.{what} must have a number from {low:g} to {high:g} for "
            f"each of {classes} classes, got {quoted(values)}; evaluate the model again, or give "
            "threshold and median"
        )
    return values


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def limits(stored: dict | None, classes: int, threshold=None, median=None) -> tuple:
    """Thresholds [C] and windows [C] of the median filter in seconds: the given ones (one number,
    or one per class), else the tuned ones. AsjaxError: out of range."""
    if threshold is None:
        threshold = thresholds(stored, classes)
    else:
        wanted = "a probability from 0 to 1"
        threshold = _per_class(threshold, classes, "threshold", 1.0, wanted)
    if median is None:
        return threshold, medians_s(stored, classes)
    wanted = f"seconds from 0 to {LONGEST_S:g}"
    return threshold, _per_class(median, classes, "median", LONGEST_S, wanted)


# ----------------------------------------------------------------------------------- stitching


class Track:
    """The frame scores of a recording, from windows that come one after the other.

    The result is that of `decoding.stitch`: an overlap is divided in its middle. Only the frames
    that count are stored.
    """

    def __init__(self):
        self._parts, self._last, self._at = [], None, 0  # `_at`: frames in the parts

    def add(self, first: int, scores: np.ndarray) -> None:
        """A window [size, C] that begins with frame `first`."""
        if self._last is not None:
            self._take((self._last[0] + first + len(scores)) // 2)
        self._last = first, scores

    def _take(self, end: int) -> None:
        first, scores = self._last
        self._parts.append(scores[self._at - first : end - first].copy())
        self._at = end

    def joined(self, frames: int) -> np.ndarray:
        """Scores [frames, C] of the whole recording, a new array; the last call of a track."""
        self._take(frames)
        parts, self._parts, self._last = self._parts, [], None
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


# -------------------------------------------------------------------------------------- decoding


def events(
    scores: np.ndarray,
    *,
    frame_rate: float,
    duration_s: float,
    label_set,
    stored: dict | None,
    threshold=None,
    median=None,
    min_duration=None,
    gap=None,
    classes=None,
    boxes: bool = False,
) -> list[Event]:
    """Events of frame probabilities [T, C]; see `Tags.events`. `stored`: the model's decoding."""
    count = scores.shape[1]
    if boxes and median is not None:
        raise AsjaxError("boxes need no median filter; leave out median")
    found, wanted = [], indices(classes, label_set)
    threshold, window_s = limits(stored, count, threshold, 0 if boxes else median)
    min_s = _seconds(min_duration, "min_duration")
    gap_s = _seconds(gap, "gap")
    times = dict(min_s=min_s, gap_s=gap_s, frame_rate=frame_rate, duration_s=duration_s)
    for start in range(0, len(wanted), _BLOCK):
        block = wanted[start : start + _BLOCK]
        part = np.ascontiguousarray(scores[:, block])
        if boxes:
            marks = _boxed(part, threshold[block], **times)
        else:
            window = decoding.window_frames(window_s[block], frame_rate)
            marks = decoding.decode(part, threshold=threshold[block], median=window, **times)
        marks["class"] = block[marks["class"]]
        found.append(marks)
    marks = lists.in_order(np.concatenate([np.zeros(0, lists.EVENT), *found]))
    return [_event(scores, mark, frame_rate, label_set) for mark in marks.tolist()]


def _boxed(scores, threshold, *, min_s, gap_s, frame_rate, duration_s) -> np.ndarray:
    """Events between change points. A box that has no length within the recording is left out."""
    scored = change_points.boxes(scores, frame_rate=frame_rate)
    marks = lists.cut(change_points.above(scored, threshold), 0.0, duration_s)
    marks = lists.merge(marks, gap_s) if gap_s > 0 else lists.in_order(marks)
    return lists.longer_than(marks, min_s)


def _event(scores, mark, frame_rate: float, label_set) -> Event:
    onset, offset, index = mark
    first = min(int(onset * frame_rate + 1e-6), len(scores) - 1)
    end = max(first + 1, int(decoding.frames_of(offset, frame_rate)))
    probability = float(scores[first:end, index].mean(dtype=np.float64))
    return Event(onset, offset, label_set.names[index], label_set.ids[index], probability)


def _seconds(value, what: str) -> float:
    most = np.finfo(float).max
    value = 0.0 if value is None else value
    return float(_per_class(value, 1, what, most, "a number of seconds, 0 or more").reshape(-1)[0])


def _per_class(value, count: int, what: str, most: float, wanted: str) -> np.ndarray:
    """float64 [count] of a number, or of one number per class. AsjaxError: out of range."""
    try:
        if isinstance(value, (str, bytes, bool)):
            raise TypeError
        values = np.asarray(value, np.float64)
        good = values.shape in ((), (count,)) and bool(((values >= 0) & (values <= most)).all())
    except (TypeError, ValueError):
        good = False
    if not good:
        several = f", or {count} of them, one per class" if count > 1 else ""
        raise AsjaxError(f"{what} must be {wanted}{several}, got {quoted(value)}")
    return np.broadcast_to(values, (count,))


def indices(classes, label_set) -> np.ndarray:
    """Sorted indices of the classes given by name, id or index; None: all."""
    if classes is None:
        return np.arange(len(label_set))
    if isinstance(classes, (str, Integral)):
        classes = [classes]
    try:
        return np.array(sorted({label_set.index(label) for label in classes}), np.int64)
    except TypeError:
        raise AsjaxError(
            f"classes must be a list of names, ids or indices, got {quoted(classes)}"
        ) from None
