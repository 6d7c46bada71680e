"""`Stream`: the tags of the last seconds, again and again, while sound comes in."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from asjax.stream.clock import Clock, check_open, check_tagger, seconds, windowed
from asjax.stream.sound import Inflow, Ring, pieces

LEAST_S, MOST_S = 1.0, 3600.0
LEAST_HOP_S = 0.01
_TOGETHER = 16  # windows that are computed at once


class Window(NamedTuple):
    """The tags of the stream from `t0` to `t1`, in seconds from its begin."""

    t0: float
    t1: float
    tags: object


class Stream:
    """Tags of overlapping windows of a stream of sound.

    Window k begins k hops after the begin. Its tags are those of `tagger.windowed(window_s)` on its
    samples. The last window ends with the stream (`close`), as in a recording. There are no
    threads. The memory is that of a few windows, however long the stream is.

    A causal model carries its state: no window is computed twice, and the tags of a window pool its
    frames, which know all the sound before them.

    Args:
      tagger: of `asjax.load`.
      window_s: seconds of a window, 1 up to the tagger's clip length. Short windows answer sooner
        and know less (docs/streams.md).
      hop_s: seconds between windows, up to `window_s`.
      rate: Hz of the samples; default: the tagger's rate.

    Attributes:
      window, hop: in samples at the tagger's rate.
      skipped: windows that `push(newest=True)` has passed over.

    Raises:
      AsjaxError: a length out of range, or an impossible rate.
    """

    def __init__(
        self, tagger, window_s: float = 2.0, hop_s: float = 0.5, rate: float | None = None
    ):
        check_tagger(tagger)
        window_s = seconds("window_s", window_s, LEAST_S, MOST_S)
        longest = f"; the model hears windows of up to {tagger.clip_s:g} s"
        seconds("window_s", window_s, LEAST_S, tagger.clip_s + 1e-6, longest)
        hop_s = seconds("hop_s", hop_s, LEAST_HOP_S, window_s)
        self.sample_rate = tagger.sample_rate
        self.window = max(1, round(window_s * self.sample_rate))
        self.hop = max(1, round(hop_s * self.sample_rate))
        self._in = Inflow(rate, self.sample_rate)
        self._ring, self._count, self._end = Ring(self.window), 0, 0
        self._clock, self.closed, self.skipped = Clock(), False, 0
        self._live = None
        if getattr(tagger, "causal", False):
            self.tagger = tagger
            self._live = tagger.live()
            self._live.keep(self.window)
        else:
            self.tagger = windowed(tagger, window_s, frames=False)
        self._warm()

    def push(self, samples, newest: bool = False) -> list[Window]:
        """The windows that end in these samples.

        Args:
          samples: [n] or [n, channels], float with full scale 1 or signed integers.
          newest: compute the last of these windows only, and count the others as `skipped`.

        Raises:
          AsjaxError: other samples, or the stream is closed.
        """
        check_open(self.closed)
        return self._extend(self._in.push(samples), newest)

    def close(self) -> list[Window]:
        """The end of the stream: what is left, as windows. The last one ends with the stream."""
        if self.closed:
            return []
        results = self._extend(self._in.close(), False)
        self.closed, total = True, self._ring.total
        if self._live:
            self._live.close()
        if total > self._end:  # sound that no window has heard
            results += self._hear([self._cut(max(0, total - self.window), total)])
        return results

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
        """Longest time from a sound to the window that ends after it: a hop, and the longest of the
        last computations."""
        return self.hop / self.sample_rate + self._clock.compute_s

    # ----------------------------------------------------------------------------- internals

    def _extend(self, wave, newest: bool) -> list[Window]:
        results, due = [], []
        for piece in pieces(wave, self.hop):
            self._ring.extend(piece)
            if self._live:
                with self._clock.timed():
                    self._live.push(piece)
            while self._ring.total >= (start := self._count * self.hop) + self.window:
                self._count, self._end = self._count + 1, start + self.window
                if newest:
                    self.skipped += len(due)
                    due = []
                due.append(self._cut(start, self._end))
                if len(due) == _TOGETHER:
                    results += self._hear(due)
                    due = []
        return results + self._hear(due)

    def _cut(self, start: int, end: int):
        """(first sample, end, the window's samples or its tags)."""
        if self._live:
            return start, end, self._live.tags(start, end)
        return start, end, self._ring.cut(start, end)

    def _hear(self, due) -> list[Window]:
        if not due:
            return []
        found = [what for _, _, what in due]
        if not self._live:
            with self._clock.timed(), warnings.catch_warnings():
                if self._in.loud:  # it was said once
                    warnings.simplefilter("ignore")
                found = self.tagger([(wave, self.sample_rate) for wave in found])
        ends = np.array([(start, end) for start, end, _ in due]) / self.sample_rate
        return [Window(*map(float, at), tags) for at, tags in zip(ends, found, strict=True)]

    def _warm(self) -> None:
        """Compile before the first sound comes, and measure one call."""
        if not self._live:
            silence = np.zeros(self.window, np.float32)
            self.tagger((silence, self.sample_rate))
            with self._clock.timed():
                self.tagger((silence, self.sample_rate))
