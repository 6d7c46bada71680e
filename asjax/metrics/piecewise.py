"""Scores as rows of steps in time, and the detections at all thresholds.

A row is the score of one class in one clip. It is constant between edges. For a threshold t, the
detections are the maximal stretches of the row with scores >= t. A detection [l, r) is one *node*.
It exists for lo < t <= hi, where hi is the smallest score inside and lo is the larger one of its
two neighbours. Ebbers, Serizel and Haeb-Umbach (ICASSP 2022) count per threshold; here each node is
counted once.

Scores are converted to integers of the same width and order ("keys"). Keys compare several times
faster than half floats, and the smallest integer is free for "no score".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax.config import AsjaxError
from asjax.decoding import median_filter

_BATCH_BYTES = 1 << 25  # bytes of keys in one batch
_NODE_BLOCK = 1 << 17  # steps that are searched for nodes at once, so that tables fit the CPU cache
_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(frozen=True)
class Batch:
    """Rows of steps.

    Attributes:
      rows: keys [T, R], time first; `none_of(rows.dtype)` means no score.
      clip, label: int64 [R].
      edges: float64 [T + 1], or [T + 1, R]: step i of a row lies between edges i and i + 1.
    """

    rows: np.ndarray
    clip: np.ndarray
    label: np.ndarray
    edges: np.ndarray

    def edge(self, step, row) -> np.ndarray:
        """Time in seconds of edge `step` of each row."""
        return self.edges[step] if self.edges.ndim == 1 else self.edges[step, row]

    def select(self, rows) -> Batch:
        edges = self.edges if self.edges.ndim == 1 else self.edges[:, rows]
        return Batch(self.rows[:, rows], self.clip[rows], self.label[rows], edges)


# ---------------------------------------------------------------------------------------- keys


def keys_of(scores: np.ndarray) -> np.ndarray:
    """Integers in the order of the scores: float16 -> int16, float32 -> int32, others -> int64.

    Raises:
      AsjaxError: a score is NaN.
    """
    scores = np.asarray(scores)
    if scores.dtype.kind != "f" or scores.dtype.itemsize not in _INTEGERS:
        scores = scores.astype(np.float64)
    kind = _INTEGERS[scores.dtype.itemsize]
    bits = np.ascontiguousarray(scores).view(kind)
    # A negative float is sign and magnitude. Flip the magnitude: -0.0 -> key -1, -1.0 is lower.
    keys = (bits >> (8 * kind().itemsize - 1)) & kind(np.iinfo(kind).max)
    np.bitwise_xor(keys, bits, out=keys)
    keys += keys == -1  # -0 equals 0
    if keys.size:
        highest = np.array(np.inf, scores.dtype).view(kind)
        if keys.max() > highest or keys.min() < -highest - 1:
            raise AsjaxError("frame scores must be numbers, got NaN; the model has diverged")
    return keys


def scores_of(keys: np.ndarray) -> np.ndarray:
    """The inverse of `keys_of`: scores as float64."""
    kind = keys.dtype.type
    flip = (keys >> (8 * kind().itemsize - 1)) & kind(np.iinfo(kind).max)
    return (keys ^ flip).view(f"f{kind().itemsize}").astype(np.float64)


def none_of(kind) -> int:
    """The key of "no score"; it is below the key of -inf."""
    return np.iinfo(kind).min


# ------------------------------------------------------------------------------------- batches


def frame_tasks(scores, lengths=None) -> list[tuple[np.ndarray, int]]:
    """Groups of clips with the same number of frames that fit in a batch: [(clips, frames), ...].

    Args:
      scores: [N, T, C], or a list of [T_i, C]. lengths: int [N], valid frames (default: all).
    """
    listed = isinstance(scores, (list, tuple))
    counts = np.array([len(s) for s in scores] if listed else [scores.shape[1]] * len(scores), int)
    if lengths is not None:
        lengths = np.asarray(lengths)
        if lengths.shape != counts.shape or (lengths > counts).any() or (lengths < 0).any():
            raise AsjaxError(
                f"lengths must be {len(counts)} numbers from 0 to the number of frames of the clip"
            )
        counts = lengths
    size = _BATCH_BYTES // max([1, *(np.asarray(s).nbytes for s in scores[:1])])
    # An array may be a memory map, so it is read from front to back. A list is grouped as a whole.
    span = len(counts) if listed else max(1, int(size))
    tasks = []
    for start in range(0, len(counts), max(1, span)):
        part = counts[start : start + span]
        for frames in np.unique(part[part > 0]):
            clips = start + np.flatnonzero(part == frames)
            tasks += [
                (c, int(frames)) for c in np.array_split(clips, -(-len(clips) // max(1, size)))
            ]
    return tasks


def frame_batch(scores, task, *, frame_rate, classes=None, median=1, cut=None) -> Batch | None:
    """The rows of a task of `frame_tasks`; None if no row is left.

    Args:
      classes: indices of the columns to use (default: all); `label` is an index into these.
      median: window in frames: one number, one per class [C], or one per clip and class [N, C].
      cut: keys [C]; rows that never exceed it are left out. A median filter never raises a maximum.
    """
    clips, frames = task
    if isinstance(scores, (list, tuple)):
        part = np.stack([scores[i][:frames] for i in clips])
    elif len(clips) == clips[-1] - clips[0] + 1:
        part = np.asarray(scores[clips[0] : clips[-1] + 1])[:, :frames]
    else:
        part = np.asarray(scores[clips[0] : clips[-1] + 1])[clips - clips[0], :frames]
    keys = keys_of(part if classes is None else part[:, :, classes])
    keep = np.ones(keys.shape[::2], bool) if cut is None else keys.max(axis=1) > cut
    if not keep.any():
        return None
    at, label = _places(keep)
    rows = keys.transpose(1, 0, 2)[:, keep]
    windows = np.asarray(median)
    if windows.ndim == 2:
        windows = windows[clips[at], label]
    else:
        windows = np.broadcast_to(windows, keep.shape[1:])[label]
    rows = median_filter(rows, windows if np.ptp(windows) else int(windows[0]))
    return Batch(rows, clips[at], label, np.arange(frames + 1) / frame_rate)


def box_batch(boxes, clips, *, num_classes: int, durations_s, classes=None) -> Batch:
    """The rows of scored boxes: the score inside a box, 0 elsewhere in the clip.

    Args:
      boxes: per clip an array with the fields onset_s, offset_s, class, score (a probability). The
        boxes of a class do not overlap. clips: indices of the clips to use.
    """
    part = [boxes[i] for i in clips]
    at = np.repeat(np.arange(len(part)), [len(b) for b in part])
    flat = np.concatenate(part)
    label = flat["class"]
    if classes is not None:
        column = np.full(num_classes, -1)
        column[classes], num_classes = np.arange(len(classes)), len(classes)
        known = column[label] >= 0
        at, flat, label = at[known], flat[known], column[label[known]]
    if len(flat) and not flat["score"].min() >= 0:
        raise AsjaxError(
            f"scores of boxes must be probabilities, got {flat['score'].min()}; make boxes from "
            "probabilities, not from logits"
        )
    total = len(part) * num_classes
    row = at * num_classes + label
    order = np.lexsort((flat["onset_s"], row))
    flat, row = flat[order], row[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)  # position of a box in its row
    steps = 2 * int(place.max(initial=-1) + 1) + 1  # gap, box, gap, box, ..., gap
    rows, edges = np.zeros((steps, total)), np.zeros((steps + 1, total))
    edges[1:] = np.repeat(np.asarray(durations_s, float)[clips], num_classes)
    edges[2 * place + 1, row], edges[2 * place + 2, row] = flat["onset_s"], flat["offset_s"]
    rows[2 * place + 1, row] = flat["score"]
    keys, empty = keys_of(rows), np.diff(edges, axis=0) <= 0
    # The gap between boxes that touch is empty, so no threshold may detect it.
    inner = np.minimum(keys[:-2], keys[2:])
    keys[1:-1] = np.where(empty[1:-1], inner, keys[1:-1])
    each = np.arange(total)
    return Batch(keys, np.asarray(clips)[each // num_classes], each % num_classes, edges)


# ---------------------------------------------------------------------- what thresholds make


def onsets(rows: np.ndarray, above=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Changes of the number of detections: (row int64, key, change of +1 or -1 int8).

    When the threshold falls to the key, the number of detections of the row changes. It grows by
    one at every local maximum and falls by one where two detections join. `above` [R]: only keys
    above it.
    """
    up = np.ones((len(rows) + 1, rows.shape[1]), bool)  # up[i]: the row rises into step i
    up[-1] = False
    np.greater(rows[1:], rows[:-1], out=up[1:-1])
    change = up[:-1] != up[1:]
    change &= rows > (none_of(rows.dtype) if above is None else above)
    flat = np.flatnonzero(change)
    sign = up[:-1].reshape(-1)[flat].view(np.int8)
    return flat % rows.shape[1], rows.reshape(-1)[flat], 2 * sign - 1


def _places(mask) -> tuple[np.ndarray, np.ndarray]:
    """np.nonzero of a table [A, B], in a third of its time."""
    flat = np.flatnonzero(mask)
    first = flat // mask.shape[1]
    return first, flat - first * mask.shape[1]


@dataclass(frozen=True)
class Nodes:
    """Detections of a batch: row, first and end step, and the thresholds at which each exists.

    A node exists for thresholds t with low < t <= high. low and high are keys, the others int64.
    """

    row: np.ndarray
    first: np.ndarray
    end: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def select(self, chosen) -> Nodes:
        return Nodes(*(getattr(self, key)[chosen] for key in self.__dataclass_fields__))


def nodes(rows: np.ndarray, above=None) -> Nodes:
    """All nodes of rows [T, R]; with `above` [R] only nodes with `high` above it."""
    size = max(1, _NODE_BLOCK // max(1, len(rows)))
    parts = []
    for at in range(0, max(1, rows.shape[1]), size):
        part = _nodes(rows[:, at : at + size], None if above is None else above[at : at + size])
        parts.append((part[0] + at, *part[1:]))
    return Nodes(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _nodes(rows, above):
    """The fields of `Nodes` for one block of rows.

    Each node is identified by the first step that has its smallest score. From there, the node ends
    before the nearest smaller step on each side. An equal step on the left means that this is not
    the first one. Both sides are searched by bisection over the minima of blocks of 2^j steps.
    """
    none, (steps, count) = none_of(rows.dtype), rows.shape
    chosen = rows > (none if above is None else above)
    chosen[1:] &= rows[1:] != rows[:-1]  # the same node as the step before
    row, step = _places(np.ascontiguousarray(chosen.T))
    wide = np.full((count, steps + 2), none, rows.dtype)  # the lowest key at both ends
    wide[:, 1:-1] = rows.T
    flat = wide.reshape(-1)
    levels = [flat]  # levels[j][i] is the minimum of flat[i : i + 2^j]
    while (1 << len(levels)) <= steps + 1:
        last = levels[-1]
        levels.append(last.copy())
        half = 1 << (len(levels) - 2)
        np.minimum(last[:-half], last[half:], out=levels[-1][:-half])
    here = row * (steps + 2) + step + 1
    value, left, right = flat[here], here - 1, here + 1
    for j in range(len(levels) - 1, -1, -1):
        size = 1 << j
        right += size * (levels[j].take(right, mode="clip") >= value)
        start = left - (size - 1)
        left -= size * ((levels[j].take(start, mode="clip") > value) & (start >= 0))
    once = flat[left] < value
    row, value, left, right = row[once], value[once], left[once], right[once]
    base = row * (steps + 2)
    low = np.maximum(flat[left], flat[right])
    return row, left - base, right - base - 1, low, value
