"""What the tagger says about a recording: `Tags`, with its `Event`s in time."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from asjax.config import AsjaxError, quoted
from asjax.predict.frames import Event
from asjax.predict.frames import events as events_of

NO_EMBEDDING = (
    "an embedding is of one model, and several models or stored logits have none; give one model"
)


def whole(value) -> bool:
    """Whether a value is a whole number, and not True or False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass(frozen=True, eq=False)
class Tags:
    """The tags of one recording, and its events in time if the model has frames.

    Attributes:
      file: path, or a name for a wave in memory.
      duration_s: length of the recording in seconds.
      clip: float32 [C], probability of each class in the whole recording.
      logits: float32 [C], log-odds of `clip`; for a single window, the output of the model. With a
        softmax, the logarithm of `clip`.
      windows: float32 [n, C], probabilities of each window.
      times: float64 [n, 2], begin and end of each window in seconds.
      label_set: the classes, in order.
      window_embeddings: float32 [n, D], or None if the tagger does not keep them.
      frame_rate: frames per second, or None without frames.
    """

    file: str
    duration_s: float
    clip: np.ndarray
    logits: np.ndarray
    windows: np.ndarray
    times: np.ndarray
    label_set: object
    window_embeddings: np.ndarray | None = None
    frame_rate: float | None = None
    _embedding: np.ndarray | None = None
    _frames: np.ndarray | str = "this recording has no frame scores"
    _decoding: dict | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Display names of the classes."""
        return self.label_set.names

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the classes: AudioSet mids, or other ids of the label set."""
        return self.label_set.ids

    @property
    def embedding(self) -> np.ndarray:
        """float32 [D], mean over the windows. AsjaxError: the tags are of several models or of
        stored logits."""
        if self._embedding is None:
            raise AsjaxError(NO_EMBEDDING)
        return self._embedding

    @property
    def frames(self) -> np.ndarray:
        """float32 [T, C], probabilities of the classes in each frame of the whole recording.

        AsjaxError: the model has no frame scores, or the tagger was made with frames=False.
        """
        if isinstance(self._frames, str):
            raise AsjaxError(self._frames)
        return self._frames

    @property
    def frame_times(self) -> np.ndarray:
        """float64 [T, 2], begin and end of each frame in seconds; the last one ends with the
        recording. AsjaxError: as `frames`."""
        edges = np.arange(len(self.frames) + 1) / self.frame_rate
        edges[-1] = min(edges[-1], self.duration_s)
        return np.stack([edges[:-1], edges[1:]], axis=1)

    def events(
        self,
        threshold=None,
        median=None,
        min_duration=None,
        gap=None,
        classes=None,
        boxes: bool = False,
    ) -> list[Event]:
        """The events of the recording in time order, cut at its end.

        The frame probabilities are median-filtered. Runs of frames above the threshold are events.
        Gaps of at most `gap` are closed, then events shorter than `min_duration` are removed.

        Args:
          threshold: a probability, or one per class. Default: the thresholds that were tuned when
            the model was evaluated, 0.5 for a model without them.
          median: window of the median filter in seconds, or one per class; 0: no filter. Default:
            the tuned windows, else 0.36 s.
          min_duration, gap: in seconds; default 0.
          classes: names, ids or indices of the wanted classes; default: all.
          boxes: events between change points of the probabilities (`asjax.change_points`) in place
            of the median filter. The threshold then applies to the mean probability of a box.

        Raises:
          AsjaxError: no frames (see `frames`), an unknown class, a value out of range.
        """
        return events_of(
            self.frames,
            frame_rate=self.frame_rate,
            duration_s=self.duration_s,
            label_set=self.label_set,
            stored=self._decoding,
            threshold=threshold,
            median=median,
            min_duration=min_duration,
            gap=gap,
            classes=classes,
            boxes=boxes,
        )

    def __getitem__(self, label) -> float:
        """Probability of a class, given by display name, id or index."""
        return float(self.clip[self.label_set.index(label)])

    def order(self, k: int | None = None) -> np.ndarray:
        """Indices of the `k` (default: all) most probable classes, the most probable first.

        AsjaxError: `k` is not a whole number of 0 or more.
        """
        if k is not None and (not whole(k) or k < 0):
            raise AsjaxError(f"k must be a number of classes, 0 or more, got {quoted(k)}")
        return np.argsort(-self.logits, kind="stable")[:k]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` most probable classes as (display name, probability)."""
        return [(self.labels[i], float(self.clip[i])) for i in self.order(k)]

    def __repr__(self):
        best = ", ".join(f"{name} {p:.2f}" for name, p in self.top(3))
        return f"Tags({self.file}, {self.duration_s:.2f} s: {best}, ...)"
