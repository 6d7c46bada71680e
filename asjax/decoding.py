"""From frame scores to events: median filter, thresholds, and windows over long recordings.

Everything works on scores [T, C]: logits or probabilities, because only their order matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError

_BLOCK = 1 << 17  # elements per block, so that the intermediate rows stay in the CPU cache


# ------------------------------------------------------------------------------- median filter


def window_frames(seconds, frame_rate: float):
    """A window in seconds as a number of frames: rounded half to even, at least 1."""
    return np.maximum(1, np.rint(np.asarray(seconds, np.float64) * frame_rate).astype(np.int64))


def median_filter(scores, frames, *, mode: str = "reflect", axis: int = 0) -> np.ndarray:
    """Running median over time, equal to scipy.ndimage.median_filter; shape and dtype of `scores`.

    An even window of k frames covers i - k/2 ... i + k/2 - 1, and its median is the upper of the
    two middle values. A window with a NaN gives NaN.

    Args:
      scores: [T, ...] of any real type. frames: the window, or one per class (the last axis).
      mode: "reflect" mirrors the signal at its ends, edge value included. "zeros" pads with 0 as
        sed_scores_eval does, which is right for probabilities only.
      axis: the time axis.
    """
    scores = np.moveaxis(np.asarray(scores), axis, 0)
    if mode not in ("reflect", "zeros"):
        raise AsjaxError(f"mode of the median filter must be reflect or zeros, got {mode!r}")
    windows = np.asarray(frames)
    if windows.dtype.kind not in "iu" or (windows < 1).any():
        raise AsjaxError(f"windows must be whole numbers of frames from 1 up, got {frames!r}")
    if not scores.size:
        return np.moveaxis(scores.copy(), 0, axis)
    if windows.ndim == 0:
        out = _median(scores, int(windows), mode)
        return np.moveaxis(out, 0, axis)
    if windows.shape != scores.shape[-1:]:
        raise AsjaxError(f"there must be {scores.shape[-1]} windows, one per class, got {frames!r}")
    out = np.empty_like(scores)
    for k in np.unique(windows):
        chosen = windows == k
        out[..., chosen] = _median(scores[..., chosen], int(k), mode)
    return np.moveaxis(out, 0, axis)


def _median(scores: np.ndarray, k: int, mode: str) -> np.ndarray:
    """Median over axis 0, block by block."""
    if k == 1:
        return scores.copy()
    time, shape = len(scores), scores.shape
    flat = scores.reshape(time, -1)
    out = np.empty((time, flat.shape[1]), scores.dtype)
    columns = max(1, min(flat.shape[1], _BLOCK // min(time, 256)))
    rows = max(1, _BLOCK // columns)
    pad = (k // 2, k - 1 - k // 2)
    for at in range(0, flat.shape[1], columns):
        block = np.ascontiguousarray(flat[:, at : at + columns])
        how = {"mode": "symmetric"} if mode == "reflect" else {"mode": "constant"}
        block = np.pad(block, (pad, (0, 0)), **how)
        for start in range(0, time, rows):
            stop = min(time, start + rows)
            out[start:stop, at : at + columns] = _middle(block[start : stop + k - 1], k)
    return out.reshape(shape)


def _middle(padded: np.ndarray, k: int) -> np.ndarray:
    """The value of rank k // 2 among every k consecutive rows: [L, C] -> [L - k + 1, C].

    Sorted runs of 2, 4, 8, ... rows are each merged from two runs of half the length, for all
    places at once. A window of k rows is a sequence of such runs: their lengths are the powers of
    two in k. All runs except the longest are merged into one list. The value of the wanted rank
    then comes from this list and the longest run.
    """
    places = len(padded) - k + 1
    pieces, start, run, size = [], 0, [padded], 1
    while size <= k:
        if k & size:  # the shorter runs lie first in the window, so the longest comes last
            pieces.append([row[start : start + places] for row in run])
            start += size
        if 2 * size > k:
            break
        run = _merged([row[:-size] for row in run], [row[size:] for row in run])
        size *= 2
    rest = []
    for piece in pieces[:-1]:
        rest = _merged(rest, piece)
    return _of_rank(pieces[-1], rest, k // 2)


def _merged(a: list, b: list) -> list:
    """Two sorted lists of arrays as one: Batcher's odd-even merge (Knuth, section 5.3.4)."""
    if not a or not b:
        return a or b
    if len(a) == len(b) == 1:
        return [np.minimum(a[0], b[0]), np.maximum(a[0], b[0])]
    odd, even = _merged(a[::2], b[::2]), _merged(a[1::2], b[1::2])
    out = [odd[0]]
    for low, high in zip(even, odd[1:], strict=False):
        out += [np.minimum(low, high), np.maximum(low, high)]
    return out + odd[len(even) + 1 :] + even[len(odd) - 1 :]


def _of_rank(a: list, b: list, rank: int) -> np.ndarray:
    """The value of a rank (counted from 0) in the union of two sorted lists of arrays.

    Take the first i values of a and the first rank + 1 - i of b. The larger of their last values
    is at least the wanted one. So the wanted value is the minimum over all i.
    """
    best = None
    for i in range(max(0, rank + 1 - len(b)), min(len(a), rank + 1) + 1):
        last = [x[n - 1] for x, n in ((a, i), (b, rank + 1 - i)) if n]
        high = last[0] if len(last) == 1 else np.maximum(*last)
        best = high if best is None else np.minimum(best, high)
    return best


# ---------------------------------------------------------------------------------- thresholds


def active(scores, threshold, low=None) -> np.ndarray:
    """Frames above a threshold: bool [T, C].

    Args:
      scores: [T, C]. threshold: one, or one per class. A score equal to it is not active.
      low: for hysteresis: a run of frames above `low` is active if one frame is above `threshold`.
    """
    scores = np.asarray(scores)
    high = scores > _per_class(threshold, scores, "threshold")
    if low is None:
        return high
    low = _per_class(low, scores, "low")
    if (low > _per_class(threshold, scores, "threshold")).any():
        raise AsjaxError("low must not be above the threshold")
    wide = scores > low
    # Number the runs of each class, then choose the runs that contain a high frame.
    first = np.diff(wide, axis=0, prepend=np.zeros((1, wide.shape[1]), bool)) & wide
    number = np.cumsum(first, axis=0)
    number += np.arange(wide.shape[1]) * (len(wide) + 1)
    return wide & np.isin(number, number[high])


def _per_class(value, scores, what) -> np.ndarray:
    value = np.asarray(value, np.float64)
    if value.shape not in ((), scores.shape[1:]) or np.isnan(value).any():
        raise AsjaxError(
            f"{what} must be one number or {scores.shape[1]}, one per class, got {value!r}"
        )
    return value


def decode(
    scores,
    *,
    threshold=0.5,
    low=None,
    median=1,
    min_s: float = 0.0,
    gap_s: float = 0.0,
    frame_rate: float = 25.0,
    duration_s: float = np.inf,
    rule: str = "touched",
) -> np.ndarray:
    """Events of frame scores [T, C], an `EVENT` array in time order.

    1. Drop frames that begin after `duration_s`, so that padding does not affect the last frames.
    2. Apply the median filter and the threshold.
    3. Close gaps of at most `gap_s`, then remove events shorter than `min_s`.

    Args:
      threshold, low: as in `active`, in the unit of the scores. median: window in frames, or one
        per class. rule: begin and end of an event within its frames, see `events.from_frames`.
    """
    scores = np.asarray(scores)
    if np.isfinite(duration_s):
        scores = scores[: frames_of(duration_s, frame_rate)]
    smooth = median_filter(scores, median)
    events = lists.from_frames(
        active(smooth, threshold, low), frame_rate=frame_rate, duration_s=duration_s, rule=rule
    )
    if gap_s > 0:
        events = lists.merge(events, gap_s)
    return lists.longer_than(events, min_s)


def frames_of(duration_s, frame_rate: float):
    """Frames that begin before the end: ceil(duration * rate - 1e-6); 1e-6 absorbs rounding."""
    return np.ceil(np.asarray(duration_s) * frame_rate - 1e-6).astype(np.int64)


# ------------------------------------------------------------------------------ long recordings


@dataclass(frozen=True)
class Windows:
    """Windows over a recording, in frames; window i starts at frame `starts[i]`.

    Attributes:
      frames: length of the recording. size: length of a window. starts: int64 [W].
      keep: int64 [W, 2], first and end (exclusive) of the frames that each window contributes.
    """

    frames: int
    size: int
    starts: np.ndarray
    keep: np.ndarray


def windows(frames: int, size: int = 250, *, overlap: bool = True) -> Windows:
    """The windows of a recording. A recording of up to `size` frames is one window.

    Args:
      overlap: True: a window starts every size // 2 frames, and the last one ends with the
        recording. Each overlap is divided in the middle between its two windows. So only the first
        and last frames of the recording come from a window's edge. False: windows side by side;
        the last one needs padding (PretrainedSED's 10-s chunks).
    """
    if frames < 1 or size < 2:
        raise AsjaxError(f"windows need a frame and a size of 2 or more, got {frames} and {size}")
    hop = size // 2 if overlap else size
    starts = np.arange(max(1, -(-(frames - size) // hop) + 1), dtype=np.int64) * hop
    if overlap:
        starts = np.minimum(starts, max(0, frames - size))
    edges = (starts[1:] + starts[:-1] + size) // 2
    keep = np.stack([np.r_[0, edges], np.r_[edges, frames]], axis=1)
    return Windows(frames, size, starts, keep)


def stitch(parts, plan: Windows) -> np.ndarray:
    """Scores of the windows [W, size, ...] -> scores of the recording [frames, ...]."""
    parts = np.asarray(parts)
    if parts.shape[:2] != (len(plan.starts), plan.size):
        raise AsjaxError(
            f"window scores must have shape [{len(plan.starts)}, {plan.size}, ...], got "
            f"{parts.shape}"
        )
    out = np.empty((plan.frames, *parts.shape[2:]), parts.dtype)
    for part, start, (a, b) in zip(parts, plan.starts, plan.keep, strict=True):
        out[a:b] = part[a - start : b - start]
    return out
