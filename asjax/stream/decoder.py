"""From frame scores as they come to onsets and events: `Tags.events` without a last frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asjax import decoding
from asjax.predict import Event


class Onset(NamedTuple):
    """An event has begun. `probability` is the filtered score of its first frame."""

    onset_s: float
    label: str
    id: str
    probability: float


class _Group:
    """Classes with one length of the median filter."""

    def __init__(self, window: int, columns: np.ndarray):
        self.window, self.columns = window, columns
        self.back, self.ahead = window // 2, window - 1 - window // 2
        self.done = 0  # frames that are filtered


class Decoder:
    """Frame probabilities [n, C], pushed in order -> `Onset`s and `Event`s.

    The events are those of `decoding.decode` on all frames. A frame is decided when half a window
    of the median filter has come after it.

    Args:
      threshold: [C]. median: windows in frames, [C]. wanted: indices of the classes.
    """

    def __init__(self, label_set, frame_rate: float, threshold, median, wanted):
        count = len(label_set)
        self._labels, self.frame_rate = label_set, frame_rate
        self._threshold = np.asarray(threshold, np.float64)
        median = np.asarray(median)
        self._groups = [
            _Group(int(k), wanted[median[wanted] == k]) for k in np.unique(median[wanted])
        ]
        self.ahead = max((group.ahead for group in self._groups), default=0)  # frames
        self._held, self._base = np.zeros((0, count), np.float32), 0
        self._on = np.zeros(count, bool)
        self._onset = np.zeros(count, np.int64)
        self._sum, self._before = np.zeros(count), np.zeros(count)  # of all frames, at the onset

    @property
    def frames(self) -> int:
        """Frames so far."""
        return self._base + len(self._held)

    def push(self, scores: np.ndarray) -> list:
        """What the frames [n, C] decide, in the order of time."""
        self._held = np.concatenate([self._held, scores])
        return self._decide(last=False)

    def close(self, duration_s: float) -> list:
        """The end: the last frames are decided, and events that go on end at `duration_s`."""
        marks = self._decide(last=True)
        for label in np.flatnonzero(self._on):
            total = self._sum[label] - self._before[label]
            marks.append(self._event(label, self.frames, total, duration_s))
        self._on[:] = False
        return marks

    def _decide(self, last: bool) -> list:
        found, end = [], self.frames
        for group in self._groups:
            ready = end if last else end - group.ahead
            if ready <= group.done:
                continue
            low = max(self._base, group.done - group.back)
            block = np.ascontiguousarray(self._held[low - self._base :, group.columns])
            smooth = decoding.median_filter(block, group.window)[group.done - low : ready - low]
            found += self._changes(group, smooth, block[group.done - low : ready - low])
            group.done = ready
        keep = min((max(0, g.done - g.back) for g in self._groups), default=end)
        if keep > self._base:
            self._held, self._base = self._held[keep - self._base :].copy(), keep
        return [mark for _, mark in sorted(found, key=lambda item: item[0])]

    def _changes(self, group, smooth, raw) -> list:
        """((frame, class), mark) of the begins and ends of events in a block [n, columns]."""
        columns, marks = group.columns, []
        active = decoding.active(smooth, self._threshold[columns])
        steps = np.diff(active, axis=0, prepend=self._on[None, columns])  # bool: True is a change
        first = self._sum[columns]
        sums = np.concatenate([first[None], first + np.cumsum(raw, axis=0, dtype=np.float64)])
        for row, column in zip(*np.nonzero(steps), strict=True):
            label, frame = columns[column], group.done + int(row)
            if active[row, column]:
                self._onset[label], self._before[label] = frame, sums[row, column]
                onset_s, score = frame / self.frame_rate, float(smooth[row, column])
                mark = Onset(onset_s, *self._name(label), score)
            else:
                mark = self._event(label, frame, sums[row, column] - self._before[label], np.inf)
            marks.append(((frame, int(label)), mark))
        self._on[columns], self._sum[columns] = active[-1], sums[-1]
        return marks

    def _event(self, label: int, end: int, total: float, duration_s: float) -> Event:
        first = int(self._onset[label])
        offset_s = min(end / self.frame_rate, duration_s)
        probability = float(total / (end - first))
        return Event(first / self.frame_rate, offset_s, *self._name(label), probability)

    def _name(self, label: int) -> tuple[str, str]:
        return self._labels.names[label], self._labels.ids[label]
