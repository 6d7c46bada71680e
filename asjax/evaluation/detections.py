"""Frame scores of an evaluation set: what a detector says about every frame of every clip.

    found = detections(forward, variables, data, num_classes, sample_rate=16_000, clip_s=10.0)
    metrics.psds(**found.annotated(), **metrics.PSDS1)

`forward` has the outputs "logits" and "frame_logits"; the chain of `data` ends with the op strong.
"""

from __future__ import annotations

import math
import sys
import tempfile
from dataclasses import dataclass

import numpy as np

from asjax import decoding, metrics
from asjax import events as lists
from asjax.config import AsjaxError, counted, shown
from asjax.evaluation import infer
from asjax.store.frame_scores import FrameScores

MEDIAN_S = 0.36  # PretrainedSED's window: 9 frames of 40 ms
MOST = 60_000  # largest stored logit
IN_MEMORY = 1 << 30  # bytes of frame scores; more of them go to a temporary file


@dataclass(frozen=True, eq=False)
class Detections:
    """Scores of N clips, in the order of the data.

    Attributes:
      ids: N names. logits: float32 [N, C], of the clips. targets: uint8 [N, C], of the clips.
      frames: float16 logits [N, T', C]; perhaps a memory map, or read from files in slices. Frames
        after the end of a clip have no meaning.
      durations_s: float64 [N], seconds of each clip, at most the model's clip length.
      events: per clip an `EVENT` array in these seconds, or None for a clip that is not annotated.
      losses: float32 [N], mean binary cross-entropy over frames and classes; NaN if not annotated.
      frame_rate: frames per second.
      whole_s: float64 [N], seconds of each recording. The part after durations_s was not scored.
      median_s: window of the median filter for all metrics that name no other.
      only_with_events: metrics of events leave out annotated clips without any event.
      listed: as `events`, with events of one class that overlap as their list has them. None: as
        in `events`, which has them joined, because PSDS needs that.
    """

    ids: list[str]
    logits: np.ndarray
    targets: np.ndarray
    frames: np.ndarray
    durations_s: np.ndarray
    events: list
    losses: np.ndarray
    frame_rate: float
    whole_s: np.ndarray | None = None
    median_s: float = MEDIAN_S
    only_with_events: bool = False
    listed: list | None = None

    @property
    def median(self) -> int:
        """The window of the median filter in frames."""
        return int(decoding.window_frames(self.median_s, self.frame_rate))

    def annotated(self) -> dict:
        """The annotated clips as keywords of `metrics.psds` and others. AsjaxError: there are none.

        Clips without any event count too: every detection in them is false. But PretrainedSED's
        published numbers leave them out (`only_with_events`).
        """
        rows = self.rows()
        if not rows:
            raise AsjaxError("no clip of the evaluation data has events in time")
        every = len(rows) == len(self.ids)
        return {
            "scores": self.frames if every else [self.frames[i] for i in rows],
            "events": [self.events[i] for i in rows],
            "durations_s": self.durations_s[rows],
            "lengths": self.lengths()[rows],
            "frame_rate": self.frame_rate,
        }

    def rows(self) -> list[int]:
        """The clips that the metrics of events count."""
        least = 1 if self.only_with_events else 0
        return [
            i for i, marks in enumerate(self.events) if marks is not None and len(marks) >= least
        ]

    def cut(self) -> np.ndarray:
        """bool [N], clips of which at least half a frame at the end was not scored."""
        if self.whole_s is None:
            return np.zeros(len(self.ids), bool)
        return self.whole_s > self.durations_s + 0.5 / self.frame_rate

    def lengths(self) -> np.ndarray:
        """int64 [N], the frames of each clip that begin before its end."""
        real = decoding.frames_of(self.durations_s, self.frame_rate)
        return np.minimum(real, self.frames.shape[1])


def detections(
    forward,
    variables,
    data,
    num_classes: int,
    *,
    sample_rate: int,
    clip_s: float,
    median_s: float = MEDIAN_S,
    only_with_events: bool = False,
    progress=True,
    bad=None,
    stop=None,
) -> Detections:
    """Frame scores of an evaluation set; padding and clips that cannot be decoded are left out.

    If the data has other classes than the model, targets and events are of the data's classes.
    Frame logits beyond +-60,000 are stored as that, because float16 ends there. NaN stays NaN.

    Args: as `infer.scores`. sample_rate, clip_s: of the model's input, Hz and seconds. median_s,
      only_with_events: as in `Detections`.

    Raises:
      AsjaxError: the model's frame_logits are not [B, T', C], or too many clips are left out.
    """
    from tqdm import tqdm

    ids, left_out, events = [], [], []
    columns = {name: [] for name in ("mask", "logits", "target", "length", "whole_s", "loss")}
    frames, at = None, 0
    with data.iterate() as batches:
        steps = forward.over(variables, batches, stop=stop)
        total = data.steps_per_epoch
        for out, rest in tqdm(steps, "scoring", total, unit="batch", disable=not progress):
            _check(out, rest, num_classes)
            ids += map(str, rest["id"])
            left_out += rest["bad"]
            events += rest["events"]
            scores = out["frame_logits"]
            if frames is None:
                frames = room((total * len(scores), *scores.shape[1:]))
            frames[at : at + len(scores)] = np.clip(scores, -MOST, MOST)
            at += len(scores)
            columns["mask"].append(rest["mask"] > 0)
            columns["logits"].append(out["logits"])
            columns["target"].append(rest["target"] > 0.5)
            columns["length"].append(rest["length"])
            columns["whole_s"].append(rest["whole_s"])
            columns["loss"].append(_losses(scores, rest))
    arrays = [np.concatenate(columns[name]) for name in columns]
    frames = frames[:at]
    if len(data.rows) < data.batch_size:
        texts = [_text(marks) for marks in events]
        (ids, left_out, texts), (*arrays, frames) = infer.join(
            data, [ids, left_out, texts], [*arrays, frames]
        )
        events = [_parsed(text) for text in texts]
        data.check_bad(dict(left_out))
    if progress and left_out:
        name, reason = left_out[0]
        clips = counted(len(left_out), "clip")
        print(f"left out {clips}, first {shown(name)}: {reason}", file=sys.stderr)
    if bad is not None:
        bad += left_out
    mask, logits, targets, length, whole_s, losses = arrays
    rows = np.flatnonzero(mask)
    if not np.array_equal(rows, np.arange(len(rows))):  # some clips in between were left out
        frames = frames[rows]
    durations_s = length[rows] / sample_rate
    kept = [events[i] for i in rows]
    return Detections(
        [ids[i] for i in rows],
        logits[rows],
        targets[rows].astype(np.uint8),
        frames[: len(rows)],
        durations_s,
        [_until(marks, end) for marks, end in zip(kept, durations_s, strict=True)],
        losses[rows],
        frames.shape[1] / clip_s,
        whole_s[rows],
        median_s,
        only_with_events,
    )


def stored(path) -> tuple[Detections, FrameScores]:
    """A folder of frame scores as `Detections`, and the opened folder. There are no clip logits.

    Raises:
      AsjaxError: as `FrameScores`.
    """
    folder = FrameScores(path)
    events = [
        _until(marks, end) for marks, end in zip(folder.events, folder.durations_s, strict=True)
    ]
    nothing = np.zeros((len(folder), 0))
    found = Detections(
        folder.ids, nothing, nothing, folder.scores, folder.durations_s, events, nothing[:, :0],
        folder.frame_rate, median_s=_median_s(folder.extra),
        only_with_events=isinstance(folder.extra, dict)
        and folder.extra.get("only_with_events") is True,
    )  # fmt: skip
    return found, folder


def _median_s(extra) -> float:
    """The window in `extra` of a folder of frame scores, which may hold anything."""
    value = extra.get("median_s") if isinstance(extra, dict) else None
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 60
    return float(value) if usable else MEDIAN_S


def trace(found: Detections) -> dict:
    """The metrics that a training of a detector logs: psds1 (mean over classes), mean_ap, loss.

    Everything is NaN if a score is not finite.
    """
    if not (np.isfinite(found.logits).all() and np.isfinite(np.nansum(found.losses))):
        return dict.fromkeys(("psds1", "mean_ap", "loss"), math.nan)
    tags = metrics.tagging(scores=found.logits, targets=found.targets, only=("mean_ap",))
    psds = metrics.psds(**found.annotated(), median=found.median, **metrics.PSDS1)
    return {"psds1": psds["macro"], **tags, "loss": float(np.nanmean(found.losses))}


def _check(out, rest, num_classes: int) -> None:
    scores, clips = out["frame_logits"], len(rest["mask"])
    if out["logits"].shape != (clips, num_classes) or scores.shape[2:] != (num_classes,):
        raise AsjaxError(
            f"the model must return logits [{clips}, {num_classes}] and frame_logits [{clips}, "
            f"frames, {num_classes}], got {out['logits'].shape} and {scores.shape}"
        )
    if rest["frame_target"].shape[:2] != scores.shape[:2]:
        raise AsjaxError(
            f"the model has {scores.shape[1]} frames and the data {rest['frame_target'].shape[1]}; "
            "frames is a field of the model, and frame_rate or frames a field of the op strong"
        )


def _losses(scores, rest) -> np.ndarray:
    """Mean binary cross-entropy of every clip, float32 [B]; NaN if the data has other classes."""
    if rest["frame_target"].shape != scores.shape:
        return np.full(len(scores), np.nan, np.float32)
    loss = np.logaddexp(0, scores) - scores * rest["frame_target"]
    return np.where(rest["has_strong"] > 0, loss.mean(axis=(1, 2)), np.nan).astype(np.float32)


def room(shape) -> np.ndarray:
    """An empty float16 array, in a temporary file if it is large."""
    if 2 * math.prod(shape) <= IN_MEMORY:
        return np.empty(shape, np.float16)
    with tempfile.TemporaryFile() as file:  # the map keeps the file until its end
        return np.memmap(file, np.float16, "w+", shape=shape)


def _until(marks, end_s: float):
    return None if marks is None else lists.cut(marks, 0.0, end_s)


def _text(marks) -> str:
    return lists.to_text(None if marks is None else marks.tolist())


def _parsed(text: str):
    marks = lists.from_text(text)
    return None if marks is None else lists.as_events([(a, b, int(c)) for a, b, c in marks])
