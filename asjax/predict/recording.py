"""A recording under way: it gives windows to the forward pass and collects what comes back."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from asjax.config import AsjaxError
from asjax.metrics import probability
from asjax.predict.frames import Track
from asjax.predict.tags import Tags


class Recording:
    """A source in progress.

    The windows of the tags are consecutive or overlap by the tagger's share, and the last one ends
    with the recording. Those of the frames lie on the grid of frames. A window of both is computed
    once.
    """

    def __init__(self, source, number, tagger, batch=None):
        from asjax.data import recordings, spans

        self.tagger, self.name = tagger, recordings.name_of(source, number)
        rate, size, frames = tagger.sample_rate, tagger.window, tagger.frame_count
        self._grids = [spans.Tiled(size, tagger.hop)]
        if frames:
            self._grids.append(spans.Framed(frames, size / frames, not tagger.chunks))
        pieces = recordings.chunks(source, rate, size, self.name, batch)
        self._windows = spans.over(pieces, size, self._grids)
        self._under_way: deque[list] = deque()  # marks of the windows that are not yet computed
        self.starts, self.logits, self.embedding = [], [], 0.0
        self.embeddings = [] if tagger.window_embeddings else None
        self.track, self.finite = Track(), True
        self.samples, self.read, self.error = 0, False, None

    def windows(self, decoding):
        """(window, seconds of new audio in it) until the end or an error; see `self.error`."""
        while True:
            try:
                with decoding():
                    item = next(self._windows, None)
            except AsjaxError as error:
                self.error, item = error, None
            if item is None:
                break
            _, wave, new, marks = item
            self._under_way.append(marks)
            self.samples += new
            yield wave, new / self.tagger.sample_rate
        self.read = True

    @property
    def done(self) -> bool:
        """Whether the result can be asked for."""
        return self.read and (self.error is not None or not self._under_way)

    def add(self, logits, embedding=None, frame_logits=None):
        """What the model says about the next window, in the order of `windows`."""
        start, *first = self._under_way.popleft()
        if first and first[0] is not None:
            self.finite &= bool(np.isfinite(frame_logits).all())
            self.track.add(first[0], probability.as_scores(frame_logits, self.tagger.activation))
        if start is None:
            return
        self.starts.append(start)
        self.logits.append(logits)
        if embedding is not None:
            self.embedding = self.embedding + embedding.astype(np.float64)
        if self.embeddings is not None:
            self.embeddings.append(embedding.astype(np.float32))

    def result(self) -> Heard | AsjaxError:
        if self.error is not None:
            return self.error
        tagger = self.tagger
        logits = probability.as_scores(np.stack(self.logits), tagger.activation)
        if not (self.finite and np.isfinite(logits).all()):
            return AsjaxError(
                f"{self.name}: the model's output is not finite; check the weights for NaN"
            )
        starts = np.asarray(self.starts, np.float64)
        ends = np.minimum(starts + tagger.window, self.samples)
        frames = tagger.why_no_frames
        if tagger.frame_count:
            frames = self.track.joined(self._grids[1].frames(self.samples))
        embeds = tagger.embeds
        return Heard(
            file=self.name,
            duration_s=self.samples / tagger.sample_rate,
            logits=logits,
            times=np.stack([starts, ends], axis=1) / tagger.sample_rate,
            frames=frames,
            frame_rate=tagger.frame_rate,
            embedding=(self.embedding / len(logits)).astype(np.float32) if embeds else None,
            window_embeddings=None if self.embeddings is None else np.stack(self.embeddings),
        )


@dataclass(frozen=True, eq=False)
class Heard:
    """What a model says about a recording, as scores (`metrics.as_scores`).

    Attributes:
      file, duration_s, times: as in `Tags`.
      logits: float32 [n, C], of the windows.
      frames: float32 [T, C], or why there are none. frame_rate: frames per second.
      embedding, window_embeddings: as in `Tags`; None: not known.
    """

    file: str
    duration_s: float
    logits: np.ndarray
    times: np.ndarray
    frames: np.ndarray | str
    frame_rate: float | None = None
    embedding: np.ndarray | None = None
    window_embeddings: np.ndarray | None = None

    def tags(self, tagger) -> Tags:
        """The `Tags`. The frames become probabilities in place, because there may be many."""
        activation, frames = tagger.activation, self.frames
        if not isinstance(frames, str):
            frames = probability.probabilities(frames, activation, out=frames)
        clip = reduced(self.logits, tagger.reduce, activation)
        return Tags(
            file=self.file,
            duration_s=self.duration_s,
            clip=probability.probabilities(clip, activation).astype(np.float32),
            logits=clip.astype(np.float32),
            windows=probability.probabilities(self.logits, activation),
            times=self.times,
            label_set=tagger.label_set,
            window_embeddings=self.window_embeddings,
            frame_rate=self.frame_rate,
            _embedding=self.embedding,
            _frames=frames,
            _decoding=tagger.record.get("decoding"),
        )


def reduced(logits, reduce: str, activation: str) -> np.ndarray:
    """The scores [C] of a recording from those of its windows [n, C]. `reduce`: mean or max."""
    if len(logits) == 1:
        return logits[0]
    if reduce == "max":
        return logits.max(axis=0)
    wide = logits.astype(np.float64)
    if activation == "softmax":
        return np.logaddexp.reduce(wide, axis=0) - np.log(len(logits))
    # log-odds of the mean probability, exact where the probability rounds to 0 or 1;
    # log of a sigmoid is -log(1 + e^-x)
    yes, no = -np.logaddexp(0, -wide), -np.logaddexp(0, wide)
    return np.logaddexp.reduce(yes, axis=0) - np.logaddexp.reduce(no, axis=0)
