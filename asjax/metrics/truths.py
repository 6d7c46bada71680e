"""The true events of a set of clips, sorted so that the events of a row are found quickly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError

DECIMALS = 6  # seconds are rounded to this before a comparison, as in sed_scores_eval


@dataclass(frozen=True)
class Truth:
    """Events sorted by (clip, class, onset).

    Attributes:
      clips, classes: number of clips and of classes.
      code: int64 [E], clip * classes + class, ascending. onset, offset: float64 [E], seconds.
      count: int64 [C], events. seconds: float64 [C], total length, summed in the order of the
        clips.
    """

    clips: int
    classes: int
    code: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    count: np.ndarray
    seconds: np.ndarray

    @cached_property
    def label(self) -> np.ndarray:
        return self.code % self.classes

    @cached_property
    def clip(self) -> np.ndarray:
        return self.code // self.classes

    @cached_property
    def groups(self) -> tuple[np.ndarray, ...]:
        """Clip, class, first event and end of every pair of clip and class with events."""
        code, first = np.unique(self.code, return_index=True)
        end = np.append(first[1:], len(self.code))
        return code // self.classes, code % self.classes, first, end[: len(first)]

    def of_rows(self, clip, label) -> tuple[np.ndarray, np.ndarray]:
        """First event and end of the events of each row, int64 [R] each."""
        code = clip * self.classes + label
        return np.searchsorted(self.code, code), np.searchsorted(self.code, code, side="right")


def truth_of(events, *, num_classes: int, label_set=None, classes=None, strict=True) -> Truth:
    """The events of all clips.

    Args:
      events: per clip a list of (onset_s, offset_s, class).
      classes: indices of the evaluated classes, default: all. They get new indices 0, 1, ..., and
        events of other classes are left out.
      strict: refuse events without length, and events that overlap another one of their class.
    """
    column = np.arange(num_classes)
    if classes is not None:
        column = np.full(num_classes, -1)
        column[classes] = np.arange(len(classes))
        num_classes = len(classes)
    for i, marks in enumerate(events):
        if marks is None:
            raise AsjaxError(f"clip {i} has no marked events; leave it out")
    arrays = [lists.as_events(e, label_set) for e in events]
    clip = np.repeat(np.arange(len(arrays)), [len(a) for a in arrays])
    flat = np.concatenate([np.zeros(0, lists.EVENT), *arrays])
    if len(flat) and flat["class"].max() >= len(column):
        raise AsjaxError(
            f"classes of events must be 0 to {len(column) - 1}, got {flat['class'].max()}"
        )
    label = column[flat["class"]]
    clip, label, flat = clip[label >= 0], label[label >= 0], flat[label >= 0]
    code = clip * num_classes + label
    order = np.lexsort((flat["onset_s"], code))
    code, onset, offset = code[order], flat["onset_s"][order], flat["offset_s"][order]
    if strict:
        _refuse_faults(code, onset, offset, num_classes)
    seconds = np.zeros(num_classes)
    np.add.at(seconds, label, flat["offset_s"] - flat["onset_s"])
    count = np.bincount(label, minlength=num_classes)
    return Truth(len(arrays), num_classes, code, onset, offset, count, seconds)


def _refuse_faults(code, onset, offset, num_classes):
    bad = np.flatnonzero(offset <= onset)
    what = "an event without length"
    if not len(bad):
        again = (code[1:] == code[:-1]) & (onset[1:] < offset[:-1])
        bad, what = 1 + np.flatnonzero(again), "events of one class that overlap"
    if len(bad):
        i = bad[0]
        raise AsjaxError(
            f"true events of clip {code[i] // num_classes}, class {code[i] % num_classes}: {what} "
            f"at {onset[i]:g} s; apply asjax.events.merge or repair to the lists first"
        )


def spread(counts) -> tuple[np.ndarray, np.ndarray]:
    """For groups of `counts` members: the group of each member, and its position in the group."""
    counts = np.asarray(counts)
    group = np.repeat(np.arange(len(counts)), counts)
    return group, np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)


def snapped(x, segment_s):
    """Times in units of segments; a time within half a microsecond of a boundary moves onto it."""
    whole = np.rint(x)
    return np.where(np.abs(x - whole) * segment_s < 0.5 * 10.0**-DECIMALS, whole, x)
