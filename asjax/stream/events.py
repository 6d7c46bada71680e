"""`EventStream`: onsets and events of a stream of sound, from a model with frame scores."""

from __future__ import annotations

import warnings

import numpy as np

from asjax import decoding
from asjax.config import AsjaxError
from asjax.predict import frames as decoded
from asjax.stream.clock import Clock, check_open, check_tagger, seconds, windowed
from asjax.stream.decoder import Decoder
from asjax.stream.sound import Inflow, Ring, pieces
from asjax.stream.stream import LEAST_HOP_S, MOST_S


class EventStream:
    """Onsets as soon as they are certain, and events when they have ended.

    The model hears its window again every hop. It ends with the newest frame; before the stream's
    begin there is silence. A window decides the frames that no earlier one has decided, but not its
    last `ahead_s` seconds, where the model knows too little of what follows. Every frame is decided
    once, so the edge of a window never cuts or doubles an event. Then come median filter and
    threshold, as in `Tags.events`. A causal model carries its state, and needs neither windows nor
    `ahead_s`.

    An onset is given at most `latency_s` after it: hop_s + ahead_s + half of the median filter +
    the measured computation.

    Args:
      tagger: of `asjax.load`, a model with frame scores.
      hop_s: seconds between windows. ahead_s: see above. rate: Hz of the samples; default: the
        tagger's rate.
      threshold, median, classes: as in `Tags.events`.
      window_s: seconds of a window. Default: the model's own length.

    Attributes:
      skipped: windows that `push(newest=True)` has passed over. Their frames are decided by the
        next window.
      lost_s: seconds that were in no window, because more windows were skipped than a window is
        long. Their frames count as silence.

    Raises:
      AsjaxError: no frame scores, a value out of range, or an unknown class.
    """

    def __init__(
        self, tagger, hop_s: float = 0.25, rate: float | None = None, *, threshold=None,
        median=None, classes=None, ahead_s: float = 0.2, window_s: float | None = None,
    ):  # fmt: skip
        check_tagger(tagger)
        causal = getattr(tagger, "causal", False)
        if window_s is not None and not causal:
            seconds("window_s", window_s, 0.1, MOST_S)
            shorter = windowed(tagger, window_s, frames=True)
            if abs(shorter.frame_rate - tagger.frame_rate) > 1e-3 * tagger.frame_rate:
                raise AsjaxError(
                    f"this model has {tagger.frame_count} frames in a window of any length, so "
                    f"window_s must be its own {tagger.clip_s:g} s, got {window_s:g}"
                )
            tagger = shorter
        if not tagger.frame_count:
            raise AsjaxError(tagger.why_no_frames)
        self.tagger, self.sample_rate = tagger, tagger.sample_rate
        window_s = tagger.clip_s
        hop_s = seconds("hop_s", hop_s, LEAST_HOP_S, window_s / 2)
        seconds("ahead_s", ahead_s, 0, window_s / 2)
        self._live = tagger.live() if causal else None
        self.frame_rate = self._live.frame_rate if causal else tagger.frame_rate
        self._per = self.sample_rate / self.frame_rate  # samples, a float
        self._size = tagger.frame_count
        self._hop = max(1, round(hop_s * self.frame_rate))  # in frames, as all that follow
        self._ahead = 0 if causal else round(ahead_s * self.frame_rate)
        self._decoder = self._make(threshold, median, classes)
        self._window = round(tagger.clip_s * self.sample_rate)
        self._in = Inflow(rate, self.sample_rate)
        self._ring, self._next = Ring(self._window + int(self._per) + 1), self._hop
        self._clock, self.closed, self.skipped, self.lost_s = Clock(), False, 0, 0.0
        if not causal:
            self._scores(0)
            with self._clock.timed():
                self._scores(0)

    def _make(self, threshold, median, classes) -> Decoder:
        label_set = self.tagger.label_set
        limits = decoded.limits(
            getattr(self.tagger, "record", {}).get("decoding"), len(label_set), threshold, median
        )
        windows = decoding.window_frames(limits[1], self.frame_rate)
        wanted = decoded.indices(classes, label_set)
        return Decoder(label_set, self.frame_rate, limits[0], windows, wanted)

    def push(self, samples, newest: bool = False) -> list:
        """`Onset`s and `Event`s that these samples decide, in the order of time.

        Args:
          samples: as in `Stream.push`. newest: compute the last of several windows only.
        """
        check_open(self.closed)
        return self._extend(self._in.push(samples), newest)

    def close(self) -> list:
        """The end of the stream: its last frames, and the ends of the events that go on."""
        if self.closed:
            return []
        marks = self._extend(self._in.close(), False)
        self.closed, total = True, self._ring.total
        if not total:
            return marks
        duration_s = total / self.sample_rate
        if self._live:
            marks += self._decoder.push(self._live.close())
        else:
            end = max(1, int(decoding.frames_of(total, 1 / self._per)))
            if end > self._decoder.frames:
                marks += self._take(end, end)
        return marks + self._decoder.close(duration_s)

    flush = close

    @property
    def duration_s(self) -> float:
        """Seconds of sound so far."""
        return self._in.samples / self._in.rate

    @property
    def not_finite(self) -> int:
        """Values so far that were NaN or infinite; they count as 0."""
        return self._in.not_finite

    @property
    def latency_s(self) -> float:
        """Longest time from an onset to its `Onset`."""
        hop = 1 if self._live else self._hop
        return (hop + self._ahead + self._decoder.ahead) / self.frame_rate + self._clock.compute_s

    # ----------------------------------------------------------------------------- internals

    def _extend(self, wave, newest: bool) -> list:
        marks, late = [], None
        for piece in pieces(wave, max(1, int(self._hop * self._per))):
            self._ring.extend(piece)
            if self._live:
                with self._clock.timed():
                    scores = self._live.push(piece)
                marks += self._decoder.push(scores) if len(scores) else []
                continue
            while self._ring.total >= int(np.ceil(self._next * self._per - 1e-6)):
                end, self._next = self._next, self._next + self._hop
                if newest:
                    self.skipped += late is not None
                    late = end
                else:
                    marks += self._take(end, end - self._ahead)
        return marks if late is None else marks + self._take(late, late - self._ahead)

    def _take(self, end: int, until: int) -> list:
        """Decide the frames up to `until` by the window that ends with frame `end`."""
        at = self._decoder.frames
        if until <= at:
            return []
        with self._clock.timed():
            scores = self._scores(end)
        first = end - self._size
        marks = []
        if at < first:  # no window has heard these frames
            self.lost_s += (first - at) / self.frame_rate
            marks += self._decoder.push(np.zeros((first - at, scores.shape[1]), np.float32))
            at = first
        return marks + self._decoder.push(scores[at - first : until - first])

    def _scores(self, end: int) -> np.ndarray:
        """Frame probabilities [size, C] of the window that ends with frame `end`."""
        start = round((end - self._size) * self._per)
        wave = self._ring.cut(start, start + self._window)
        with warnings.catch_warnings():
            if self._in.loud:
                warnings.simplefilter("ignore")
            return self.tagger((wave, self.sample_rate)).frames
