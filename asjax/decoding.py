"""From frame scores to events: median filter, thresholds, and windows over long recordings.

Everything works on scores [T, C]: logits or probabilities, of which only the order counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError

_BLOCK = 1 << 17  # elements filtered at once: the intermediate rows of a block stay in the cache


# ------------------------------------------------------------------------------- median filter


def window_frames(seconds, frame_rate: float):
    """A window in seconds as the nearest number of frames (halves to even), at least 1."""
    return np.maximum(1, np.rint(np.asarray(seconds, np.float64) * frame_rate).astype(np.int64))


def median_filter(scores, frames, *, mode: str = "reflect", axis: int = 0) -> np.ndarray:
    """Running median over time, as scipy.ndimage.median_filter has it; an array like `scores`.

    An even window of k frames covers i - k/2 ... i + k/2 - 1 and gives the upper of its two middle
    values. A NaN makes every window NaN that holds it.

    Args:
      scores: [T, ...] of any real type. frames: the window, or one per class (the last axis).
      mode: "reflect" repeats the signal backwards beyond its ends, edge value included; "zeros" is
        what sed_scores_eval does, right for probabilities only.
      axis: of time.
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

    Sorted runs of 1, 2, 4, ... rows are merged from two runs of half the length, once for all
    places. A window is made of runs whose lengths are the binary digits of k. All but the longest
    are merged, and the rank is chosen between the two lists that are left.
    """
    places = len(padded) - k + 1
    pieces, start, run, size = [], 0, [padded], 1
    while size <= k:
        if k & size:  # the shorter runs come first, so that the longest is found last
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
    """The value of a rank (from 0) among two sorted lists of arrays.

    i of the rank + 1 smallest come from a and the others from b; the right i makes the larger of
    their last ones the smallest.
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
      scores: [T, C]. threshold: one, or one per class; a score equal to it is not active.
      low: for hysteresis: a stretch above `low` counts where some frame of it is above `threshold`.
    """
    scores = np.asarray(scores)
    high = scores > _per_class(threshold, scores, "threshold")
    if low is None:
        return high
    low = _per_class(low, scores, "low")
    if (low > _per_class(threshold, scores, "threshold")).any():
        raise AsjaxError("low must not be above the threshold")
    wide = scores > low
    # number the stretches of each class, then keep those that a high frame falls into
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
) -> np.ndarray:
    """Events of frame scores [T, C], an `EVENT` array in time order.

    Frames that begin after `duration_s` are dropped before the median filter, so that padding does
    not reach into the last frames. Then: median filter, threshold, gaps of at most `gap_s` closed,
    events shorter than `min_s` removed.

    Args:
      threshold, low: as in `active`, in the unit of the scores. median: window in frames, or one
        per class.
    """
    scores = np.asarray(scores)
    if np.isfinite(duration_s):
        scores = scores[: frames_of(duration_s, frame_rate)]
    smooth = median_filter(scores, median)
    found = lists.from_frames(
        active(smooth, threshold, low), frame_rate=frame_rate, duration_s=duration_s
    )
    if gap_s > 0:
        found = lists.merge(found, gap_s)
    return lists.longer_than(found, min_s)


def frames_of(duration_s, frame_rate: float):
    """Frames that begin before the end: ceil(duration * rate), a millionth of a frame forgiven."""
    return np.ceil(np.asarray(duration_s) * frame_rate - 1e-6).astype(np.int64)


# ------------------------------------------------------------------------------ long recordings


@dataclass(frozen=True)
class Windows:
    """Windows over a recording, in frames; window i starts at frame `starts[i]`.

    Attributes:
      frames: of the recording. size: of a window. starts: int64 [W].
      keep: int64 [W, 2], the frames of the recording that are taken from each window.
    """

    frames: int
    size: int
    starts: np.ndarray
    keep: np.ndarray


def windows(frames: int, size: int = 250, *, overlap: bool = True) -> Windows:
    """How a recording is cut. A recording of up to `size` frames is one window.

    Args:
      overlap: True: windows at half their length, the last one moved back to the recording's end.
        Of each overlap both windows keep their half, so that no frame but those of the recording's
        ends lies near the edge of its window. False: windows side by side, the last one to be
        padded (PretrainedSED's 10-s chunks).
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
            f"scores of the windows must be [{len(plan.starts)}, {plan.size}, ...], got "
            f"{parts.shape}"
        )
    out = np.empty((plan.frames, *parts.shape[2:]), parts.dtype)
    for part, start, (a, b) in zip(parts, plan.starts, plan.keep, strict=True):
        out[a:b] = part[a - start : b - start]
    return out
