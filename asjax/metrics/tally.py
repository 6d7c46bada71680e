"""One pass over the scores: changes of counts with the threshold, batch by batch, in threads."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from asjax.config import AsjaxError
from asjax.metrics.piecewise import box_batch, frame_batch, frame_tasks, keys_of, none_of
from asjax.metrics.thresholds import Kept, Table
from asjax.metrics.truths import Truth, truth_of

_THREADS = 8
_BOXES = 256  # clips in a batch of boxes


@dataclass(frozen=True)
class Input:
    """Checked scores of a set of clips: frames or boxes.

    Attributes:
      scores: [N, T, C], a list of [T_i, C], or None. boxes: per clip an array of boxes, or None.
      frame_rate, lengths, classes, median: as in `piecewise.frame_batch`.
      durations_s: float64 [N]. counted: bool [N], the evaluated clips.
    """

    scores: object
    boxes: object
    frame_rate: float
    lengths: np.ndarray | None
    classes: np.ndarray | None
    num_classes: int
    median: object
    durations_s: np.ndarray
    counted: np.ndarray

    @property
    def column(self) -> np.ndarray:
        """Index among all classes of each evaluated class."""
        return np.arange(self.num_classes) if self.classes is None else self.classes

    @property
    def kind(self) -> np.dtype:
        """Dtype of the keys."""
        if self.boxes is not None:
            return np.dtype(np.int64)
        first = self.scores[0] if isinstance(self.scores, (list, tuple)) else self.scores[:0]
        return keys_of(np.asarray(first)[:0]).dtype

    def tasks(self) -> list:
        if self.boxes is not None:
            clips = np.flatnonzero(self.counted)
            return np.array_split(clips, -(-len(clips) // _BOXES)) if len(clips) else []
        tasks = frame_tasks(self.scores, self.lengths)
        chosen = ((clips[self.counted[clips]], frames) for clips, frames in tasks)
        return [(clips, frames) for clips, frames in chosen if len(clips)]

    def batch(self, task, cut):
        if self.boxes is not None:
            return box_batch(
                self.boxes,
                task,
                num_classes=self.num_classes,
                durations_s=self.durations_s,
                classes=self.classes,
            )
        return frame_batch(
            self.scores,
            task,
            frame_rate=self.frame_rate,
            classes=self.classes,
            median=self.median,
            cut=cut,
        )


def tally(data: Input, truth: Truth, criterion, *, allowed=None, keep=False, threads=None):
    """Count over all clips.

    Args:
      criterion: has `changes(batch, truth, above)`.
      allowed: thresholds with more false positives need no counts; None: all thresholds do.
      keep: return the changes with their clips instead of their sums.

    Returns: `(Table or Kept, cut)`: the counts are valid above the keys cut [C]; None: everywhere.
    """
    tasks = data.tasks()
    threads = threads or min(_THREADS, os.cpu_count() or 1)
    cut = None
    if allowed is not None and data.counted.sum() > allowed + 2 and data.boxes is None:
        cut = _cut(data, truth, tasks, allowed + 2, threads)
    weighted = getattr(criterion, "cttc", None) is not None
    table = Kept(weighted) if keep else Table(truth.classes, data.kind, weighted)

    def work(task):
        batch = data.batch(task, cut)
        if batch is None:
            return []
        return criterion.changes(batch, truth, None if cut is None else cut[batch.label], keep)

    for result in _threaded(work, tasks, threads):
        for change in result:
            table.add(change)
    return table, cut


def _threaded(work, tasks, threads):
    """Results in the order of the tasks; at most `threads` + 1 tasks are queued at a time."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _cut(data: Input, truth: Truth, tasks, count: int, threads) -> np.ndarray:
    """Keys [C] below which counts are not needed, because there are `count` false positives.

    A clip without the class has a false positive at every threshold that it reaches. So there are
    at least `count` false positives at the `count`-th largest maximum of these clips. Rows that do
    not reach the current cut need no median filter.
    """
    none = none_of(data.kind)
    best = np.full((truth.classes, count), none, data.kind)
    cut, waiting, size = best.min(axis=1), [], 0

    def work(task):
        batch = data.batch(task, cut)
        if batch is None:
            return np.zeros(0, int), np.zeros(0, data.kind)
        first, end = truth.of_rows(batch.clip, batch.label)
        empty = first == end
        return batch.label[empty], batch.rows.max(axis=0)[empty]

    def merged():
        label, maxima = (np.concatenate(part) for part in zip(*waiting, strict=True))
        order = np.argsort(label, kind="stable")
        label, maxima = label[order], maxima[order]
        place = np.arange(len(label)) - np.searchsorted(label, label)
        more = np.full((truth.classes, int(place.max(initial=-1)) + 1), none, data.kind)
        more[label, place] = maxima
        return np.partition(np.concatenate([best, more], axis=1), -count, axis=1)[:, -count:]

    for result in _threaded(work, tasks, threads):
        waiting.append(result)
        size += len(result[0])
        if size > best.size // 4:
            best, waiting, size = merged(), [], 0
            cut = best.min(axis=1)
    return merged().min(axis=1) if waiting else cut


def inputs(
    *,
    events,
    durations_s,
    scores=None,
    boxes=None,
    frame_rate=25.0,
    lengths=None,
    label_set=None,
    num_classes=None,
    class_mask=None,
    only_with_events=False,
    median=1,
    strict=True,
) -> tuple[Input, Truth]:
    """Checked input of the metrics of frame scores, and the true events; see `detection.psds`.

    Raises:
      AsjaxError: arguments that do not match, or faulty events.
    """
    if (scores is None) == (boxes is None):
        raise AsjaxError("give either frame scores or boxes")
    num_classes = len(label_set) if label_set is not None else num_classes
    count = len(scores if boxes is None else boxes)
    durations_s = np.asarray(durations_s, np.float64)
    if not count or durations_s.shape != (count,) or not (durations_s > 0).all():
        raise AsjaxError(
            f"durations_s must be {count} (at least 1) positive numbers of seconds, one per clip, "
            f"got shape {durations_s.shape}"
        )
    if len(events) != count:
        raise AsjaxError(f"events must be {count} lists, one per clip, got {len(events)}")
    if boxes is None:
        num_classes = _classes_of(scores, num_classes)
    elif num_classes is None:
        raise AsjaxError("boxes need num_classes or label_set")
    classes = None
    if class_mask is not None:
        class_mask = np.asarray(class_mask, bool)
        if class_mask.shape != (num_classes,) or not class_mask.any():
            raise AsjaxError(f"class_mask must be {num_classes} bools with at least one True")
        classes = None if class_mask.all() else np.flatnonzero(class_mask)
    if np.shape(median) not in ((), (shape := (num_classes,)), (count, *shape)):
        raise AsjaxError(
            f"median must be one window, {num_classes}, or [{count}, {num_classes}], got shape "
            f"{np.shape(median)}"
        )
    if classes is not None and np.ndim(median):
        median = np.asarray(median)[..., classes]
    options = {"num_classes": num_classes, "label_set": label_set, "classes": classes}
    truth = truth_of(events, **options, strict=strict)
    if not len(truth.code):
        raise AsjaxError("there is no event of the evaluated classes, so nothing can be measured")
    counted = np.ones(count, bool)
    if only_with_events:
        counted = np.bincount(truth.clip, minlength=count) > 0
    data = Input(
        scores, boxes, frame_rate, lengths, classes, num_classes, median, durations_s, counted
    )
    return data, truth


def _classes_of(scores, expected) -> int:
    listed = isinstance(scores, (list, tuple))
    shapes = {np.shape(s)[1:] for s in scores} if listed else {tuple(scores.shape[2:])}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 1:
        raise AsjaxError("frame scores must be [clips, frames, classes], or a list of [T, classes]")
    if expected not in (None, shape[0]):
        raise AsjaxError(f"frame scores must have {expected} classes, got {shape[0]}")
    return shape[0]
