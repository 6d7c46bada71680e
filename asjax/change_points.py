"""Events as boxes between change points of the scores (cSEBBs).

"Sound event bounding boxes", Ebbers et al., Interspeech 2024 (arXiv 2406.04212).
A frame score mixes two things: the model's confidence and the place of the event. Here the
boundaries are the places where the score changes most, and each box has one score, its mean. This
is written from the paper and checked against numbers of the authors' package.
"""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError
from asjax.events import EVENT

BOX = np.dtype([*EVENT.descr, ("score", np.float64)])
_SOFT = 1e-3  # added to two scores before their ratio is computed
_SHORT = 1e-6  # seconds added to a length before a division by it
_SAME = 1e-10  # a smaller difference counts as no change


def boxes(
    scores,
    *,
    frame_rate: float = 25.0,
    step_s=0.5,
    merge_abs=1.0,
    merge_rel=2.0,
) -> np.ndarray:
    """Boxes of the probabilities [T, C] of a clip: `BOX` array, sorted by class and onset.

    At every time, the mean score of the next step_s / 2 seconds is compared with the mean score of
    the last step_s / 2 seconds. Outside the clip the score is 0. Maxima of the difference are
    onsets and minima are offsets, in turn. If the difference is constant at an extreme, the first
    point counts. Two neighbouring boxes are merged under two conditions. The larger of their
    maxima must exceed the minimum in the gap by less than `merge_abs`, and by a factor below
    `merge_rel`.

    Args:
      step_s, merge_abs, merge_rel: one number, or one per class. merge_* = inf turns its
        condition off.

    Raises:
      AsjaxError: the scores are not probabilities.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or (scores.size and not (scores.min() >= 0 and scores.max() <= 1)):
        raise AsjaxError(f"boxes need probabilities [T, C], 0 to 1, got shape {scores.shape}")
    count = scores.shape[1]
    step_s, merge_abs, merge_rel = (
        np.broadcast_to(np.asarray(v, np.float64), (count,)) for v in (step_s, merge_abs, merge_rel)
    )
    if not (step_s > 0).all():
        raise AsjaxError(f"step_s must be above 0 seconds, got {step_s.min()}")
    parts = [np.zeros(0, BOX)]
    for step in np.unique(step_s):
        classes = np.flatnonzero(step_s == step)
        limits = merge_abs[classes], merge_rel[classes]
        part = _boxes(scores[:, classes], float(step), *limits, frame_rate)
        part["class"] = classes[part["class"]]
        parts.append(part)
    parts = np.concatenate(parts)
    return parts[np.lexsort((parts["onset_s"], parts["class"]))]


def above(scored: np.ndarray, threshold) -> np.ndarray:
    """Boxes with a score above `threshold` (a number, or one per class) as an `EVENT` array."""
    limit = np.asarray(threshold, np.float64)
    limit = limit[scored["class"]] if limit.ndim else limit
    chosen = scored[scored["score"] > limit]
    out = np.empty(len(chosen), EVENT)
    for key in EVENT.names:
        out[key] = chosen[key]
    return out


def _boxes(scores, step_s, merge_abs, merge_rel, frame_rate) -> np.ndarray:
    if not len(scores):
        return np.zeros(0, BOX)
    times, difference, total = _differences(scores, step_s / 2, frame_rate)
    label, onset, offset = _alternating(times, difference)
    if not len(label):
        return np.zeros(0, BOX)
    tall = _over(np.maximum, scores, label, onset, offset, frame_rate)
    inner = label[1:] == label[:-1]  # the next box has the same class, so there is a gap
    low = _over(np.minimum, scores, label[:-1], offset[:-1], onset[1:], frame_rate, inner)
    high = np.maximum(tall[:-1], tall[1:])
    with np.errstate(invalid="ignore"):
        joined = inner & (high - low < merge_abs[label[1:]])
        joined &= (high + _SOFT) / (low + _SOFT) < merge_rel[label[1:]]
    first = np.flatnonzero(np.append(True, ~joined))
    last = np.append(first[1:] - 1, len(label) - 1)
    out = np.empty(len(first), BOX)
    out["class"], out["onset_s"], out["offset_s"] = label[first], onset[first], offset[last]
    area = total(out["offset_s"], out["class"]) - total(out["onset_s"], out["class"])
    out["score"] = area / (out["offset_s"] - out["onset_s"] + _SHORT)
    return out


def _differences(scores, half_s, frame_rate):
    """Times [K], differences [K, C], and the integral of the scores as a function.

    Between two neighbouring times everything is linear. The function takes times in seconds and
    classes.
    """
    frames, count = scores.shape
    edges = np.arange(frames + 1) / frame_rate
    times = np.unique(np.round(np.concatenate([edges, edges + half_s, edges - half_s]), 9))
    times = times[(times >= 0) & (times <= edges[-1] + 1e-9)]
    sums = np.concatenate([np.zeros((1, count)), np.cumsum(scores, axis=0)]) / frame_rate
    padded = np.concatenate([scores, np.zeros((1, count))])

    def total(at, label=slice(None)):
        place = np.clip(np.asarray(at) * frame_rate, 0, frames)
        frame = np.minimum(np.floor(place + 1e-9).astype(np.int64), frames)
        rest = np.maximum(place - frame, 0) / frame_rate
        if isinstance(label, slice):
            return sums[frame] + rest[:, None] * padded[frame]
        return sums[frame, label] + rest * padded[frame, label]

    difference = total(times + half_s) - 2 * total(times) + total(times - half_s)
    return times, difference / half_s, total


def _alternating(times, difference):
    """Class, onset (a maximum) and offset (the next minimum), sorted by class and time."""
    step = np.diff(difference, axis=0)
    step = np.where(np.abs(step) < _SAME, 0, np.sign(step)).astype(np.int8)
    # A plateau gets the direction after it, so its first point is the extreme.
    order = np.where(step != 0, np.arange(len(step))[:, None], len(step))
    following = np.minimum.accumulate(order[::-1], axis=0)[::-1]
    edge = np.ones((1, step.shape[1]), np.int8)
    last = np.take_along_axis(np.concatenate([step, edge]), following, axis=0)
    direction = np.concatenate([edge, last, edge])
    turn = np.diff(direction, axis=0)
    label, start = np.nonzero(turn.T < 0)
    _, end = np.nonzero(turn.T > 0)
    return label, times[start], times[end]


def _over(reduce, scores, label, start_s, end_s, frame_rate, wanted=None) -> np.ndarray:
    """Maximum or minimum over the frames that each interval touches; NaN where not wanted."""
    frames = len(scores)
    flat = np.append(scores.T.reshape(-1), 0.0)
    first = np.floor(start_s * frame_rate + 1e-6).astype(np.int64)
    end = np.ceil(end_s * frame_rate - 1e-6).astype(np.int64)
    out = np.full(len(label), np.nan)
    some = np.ones(len(label), bool) if wanted is None else wanted
    if some.any():
        base = label[some] * frames
        ends = np.stack([base + first[some], base + end[some]], axis=1).ravel()
        out[some] = reduce.reduceat(flat, ends)[::2]
    return out
