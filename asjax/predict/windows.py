"""Recordings as windows for a model, and what it says about each window as that of the recording.

A recording is cut into windows of the model's clip length, consecutive or overlapping. The last
window ends with the recording, so its overlap is larger. A recording shorter than a window is
padded with zeros. The tags of a recording are the mean of its windows' probabilities, or their
maximum. Windows of all recordings share batches of one shape. Audio is decoded when it is needed,
so memory does not grow with the length of a recording, except by its frame scores.

The frame scores of a recording come from windows that overlap by half. The frames in the middle
half of each window are used, because a model hears too little around its first and last frames.
Frames that begin after the end of the recording are left out.

A model with objective classify gives the probabilities of a softmax, which sum to 1 over the
classes. Any other model gives one sigmoid per class. This module needs no jax.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from numbers import Real
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, quoted, unknown
from asjax.data import waves
from asjax.metrics import probability
from asjax.predict.recording import Heard, Recording
from asjax.predict.tags import NO_EMBEDDING, Tags, whole

REDUCE = ("mean", "max")
OUTPUTS = ("logits", "embedding", "frame_logits")


def folder_of(path) -> Path:
    """The path of a model: also for a repository or a published name (`weights.hub.resolve`)."""
    from asjax.weights import hub

    try:
        return hub.resolve(path)
    except TypeError:
        raise AsjaxError(f"the model folder must be a path, got {quoted(path)}") from None


def check_settings(batch_size, overlap) -> None:
    """Raise AsjaxError for a batch size or an overlap that is impossible."""
    if not whole(batch_size) or batch_size < 1:
        raise AsjaxError(
            f"batch_size must be 1 or more, as a whole number, got {quoted(batch_size)}"
        )
    if not isinstance(overlap, Real) or not 0 <= overlap < 1:
        raise AsjaxError(f"overlap must be 0 or more and less than 1, got {quoted(overlap)}")


def check_window(clip_s) -> None:
    """Raise AsjaxError for a length of a window that is no number of seconds above 0."""
    if not isinstance(clip_s, Real) or not 0 < clip_s < np.inf:
        raise AsjaxError(f"a window must be a number of seconds above 0, got {quoted(clip_s)}")


class Calls:
    """The calls of a tagger, one model or several: it has `hear`, and what `Heard.tags` reads."""

    def __call__(self, source, *, batch: bool | None = None):
        """The Tags of one recording, or the list of Tags of a list of recordings.

        Args:
          source: a path, the bytes of a file, or (wave, rate). A wave is a list of numbers, an
            array or a tensor: [S], [channels, S] or [S, channels].
          batch: True: (waves [B, S], rate) are B recordings, and the result is a list of B Tags.
            False: a short first axis means channels. None: as False, with a warning.

        Raises:
          AudioError: the first recording that cannot be used.
        """
        many = isinstance(source, list) or bool(batch)
        sources = waves.rows(source) if batch else source if many else [source]
        results = []
        for tags in self.stream(sources, batch=False if batch else batch):
            if isinstance(tags, Exception):
                raise tags
            results.append(tags)
        return results if many else results[0]

    def stream(
        self, sources: Iterable, *, batch=None, on_window=None, decoding=contextlib.nullcontext
    ) -> Iterator[Tags | AsjaxError]:
        """The Tags of each source in order, or the error for a source that cannot be tagged.

        Args:
          sources, batch: as in `__call__`, but batch is False or None.
          on_window: called with the seconds of new audio in each window, for progress bars.
          decoding: a context manager for the decoding.
        """
        results = self.hear(sources, batch=batch, on_window=on_window, decoding=decoding)
        for heard in results:
            yield heard if isinstance(heard, Exception) else heard.tags(self)

    def notes(self) -> list[str]:
        """What people should know after the last recording."""
        return []


class Windowed(Calls, ABC):
    """A tagger of windows: of a model (`Tagger`) or of an ONNX file (`OnnxTagger`).

    Args: see `Tagger`.
    """

    embeds = True

    def __init__(
        self,
        label_set,
        *,
        sample_rate: int,
        clip_s: float,
        reduce: str = "mean",
        batch_size: int = 16,
        overlap: float = 0.0,
        window_embeddings: bool = False,
        record: dict | None = None,
        activation: str = "sigmoid",
        frames: bool | None = None,
        chunks: bool = False,
        full: bool = False,
    ):
        if reduce not in REDUCE:
            raise unknown("reduce", reduce, REDUCE)
        if activation not in probability.ACTIVATIONS:
            raise unknown("activation", activation, probability.ACTIVATIONS)
        check_settings(batch_size, overlap)
        self.label_set, self.reduce, self.record = label_set, reduce, record or {}
        self.sample_rate, self.clip_s, self.batch_size = sample_rate, clip_s, batch_size
        self.activation = activation
        self.overlap, self.window_embeddings = overlap, window_embeddings
        self.window = max(1, round(clip_s * sample_rate))  # samples
        self.hop = max(1, round(self.window * (1 - overlap)))
        self.frames, self.chunks, self.full = frames, chunks, full
        self._others: dict[tuple, Windowed] = {}  # see `windowed`
        if window_embeddings and not self.embeds:
            raise AsjaxError(NO_EMBEDDING)
        if frames and not self.frame_count:
            raise AsjaxError(self.why_no_frames)

    @property
    @abstractmethod
    def frame_count(self) -> int:
        """Frames per window; 0: the tagger gives no events in time."""

    @property
    @abstractmethod
    def why_no_frames(self) -> str:
        """The reason if there are none."""

    @abstractmethod
    def _over(self, batches: Iterator[dict]) -> Iterator[tuple[dict, dict]]:
        """(outputs of the model, the batch) of each batch {"wave": [B, S], "recordings": list}."""

    def hear(
        self, sources: Iterable, *, batch=None, on_window=None, decoding=contextlib.nullcontext
    ) -> Iterator[Heard | AsjaxError]:
        """What the model says about each source in order, or the error for one.

        At most two batches of windows are in memory, plus the results of unfinished recordings.
        Args: as `stream`.
        """
        waiting = deque()
        batches = self._batches(sources, waiting, on_window, decoding, batch)
        for out, rest in self._over(batches):
            if out["logits"].shape[1:] != (len(self.label_set),):
                raise AsjaxError(
                    f"{self.name} must return logits [B, {len(self.label_set)} classes], "
                    f"got {list(out['logits'].shape)}"
                )
            for i, recording in enumerate(rest["recordings"]):  # rows of padding come after
                recording.add(*(out[n][i] if n in out else None for n in OUTPUTS))
            yield from _finished(waiting)
        yield from _finished(waiting)

    def _batches(self, sources, waiting, on_window, decoding, batch):
        """Batches of the windows of all sources. If all fit into one batch, it may be smaller."""
        rows, size = [], None
        for number, source in enumerate(sources):
            recording = Recording(source, number, self, batch)
            waiting.append(recording)
            for wave, added_s in recording.windows(decoding):
                rows.append((recording, wave))
                if on_window:
                    on_window(added_s)
                if len(rows) == self.batch_size:
                    size = self.batch_size
                    yield self._batch(rows, size)
                    rows = []
        if rows:
            yield self._batch(rows, size or self._size(len(rows)))

    def windowed(self, clip_s: float, **settings):
        """The tagger of the same model that hears windows of `clip_s` seconds, without padding.

        It is made once for the same arguments, so that it is compiled once.

        Args:
          settings: other arguments of `Tagger` that change.

        Raises:
          AsjaxError: `clip_s` is not a number above 0, or the model cannot hear that length.
        """
        check_window(clip_s)
        key = (float(clip_s), *sorted(settings.items()))
        if key not in self._others:
            self._others[key] = self._with(clip_s=float(clip_s), **settings)
        return self._others[key]

    @abstractmethod
    def _with(self, **settings):
        """A tagger of the same model with other settings."""

    @property
    def name(self) -> str:
        """What messages call the model."""
        return type(self.model).__name__

    @property
    def frame_rate(self) -> float | None:
        """Frames per second, or None without frames."""
        count = self.frame_count
        return count * self.sample_rate / self.window if count else None

    @property
    def _outputs(self) -> tuple[str, ...]:
        there = (True, self.embeds, bool(self.frame_count))
        return tuple(name for name, one in zip(OUTPUTS, there, strict=True) if one)

    def _rows(self, size: int) -> int:
        """The rows of a batch for `size` windows."""
        return size

    def _size(self, windows: int) -> int:
        """Rows of a small batch: 1, 4, 16, ... There are few sizes, because each is compiled
        separately. At most three quarters of the rows are padding."""
        size = self.batch_size if self.full else 1
        while size < windows:
            size *= 4
        return min(size, self.batch_size)

    def _batch(self, rows, size):
        """A batch of at least `size` rows; padding is silence."""
        batch = np.zeros((self._rows(size), self.window), np.float32)
        for i, (_, wave) in enumerate(rows):
            batch[i, : len(wave)] = wave
        return {"wave": batch, "recordings": [recording for recording, _ in rows]}


def _finished(waiting):
    while waiting and waiting[0].done:
        yield waiting.popleft().result()
