"""Where the windows of a recording begin, and their audio, from a stream of pieces.

A *grid* is a rule for the first samples of windows: every so many samples, and a rule for the last
window. `over` follows several grids at once and gives a window that two grids share only once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from asjax import decoding


class Tiled:
    """A window every `hop` samples. The last one ends with the recording.

    A recording shorter than `size` is one short window. The mark of a window is its first sample.
    """

    def __init__(self, size: int, hop: int):
        self.size, self.hop, self.count = size, hop, 0

    def ahead(self) -> tuple[int, int, int]:
        """First sample of the next window, samples that must be there, mark of the window."""
        start = self.count * self.hop
        return start, start + self.size, start

    def rest(self, samples: int) -> list[tuple[int, int]]:
        """(first sample, mark) of the windows that are still missing at the recording's end."""
        end = (self.count - 1) * self.hop + self.size if self.count else 0
        last = max(0, samples - self.size)
        return [(last, last)] if samples > end else []


class Framed:
    """Windows of `size` frames for frame scores: the plan of `decoding.windows`, made as it comes.

    Every window begins with a frame. The last one may end less than a frame after the recording.
    The mark of a window is its first frame.

    Args:
      rate: samples per frame, a float.
      overlap: see `decoding.windows`.
    """

    def __init__(self, size: int, rate: float, overlap: bool = True):
        self.size, self.rate, self.overlap = size, rate, overlap
        self.hop, self.count = size // 2 if overlap else size, 0

    def ahead(self):
        frame = self.count * self.hop
        return self._sample(frame), int(np.ceil((frame + self.size) * self.rate - 1e-6)), frame

    def rest(self, samples: int):
        if not samples:
            return []
        plan = decoding.windows(self.frames(samples), self.size, overlap=self.overlap)
        return [(self._sample(int(frame)), int(frame)) for frame in plan.starts[self.count :]]

    def frames(self, samples: int) -> int:
        """Frames that begin before the end of a recording."""
        return max(1, int(decoding.frames_of(samples, 1 / self.rate)))

    def _sample(self, frame: int) -> int:
        return round(frame * self.rate)


def over(
    pieces: Iterable[np.ndarray], size: int, grids
) -> Iterator[tuple[int, np.ndarray, int, list]]:
    """(first sample, window, number of new samples, mark in each grid or None) of every window.

    Windows of one grid come in the order of time. At most three windows and a piece are in memory.

    Args:
      pieces: float32 [n], one after the other. size: samples of a window. A window at the end of
        the recording may be shorter.
    """
    held, at, total, seen = np.zeros(0, np.float32), 0, 0, 0

    def window(start, marks):
        nonlocal seen
        end = min(start + size, total)
        new, seen = max(0, end - seen), max(seen, end)
        return start, held[start - at : end - at], new, marks

    for piece in pieces:
        held, total = np.concatenate([held, piece]) if len(held) else piece, total + len(piece)
        while True:  # a window that ends here waits: it may be the last one of another grid too
            ahead = [grid.ahead() for grid in grids]
            ready = [start for start, need, _ in ahead if need < total]
            if not ready:
                break
            first = min(ready)
            marks = [m if s == first and need < total else None for s, need, m in ahead]
            for grid, mark in zip(grids, marks, strict=True):
                grid.count += mark is not None
            yield window(first, marks)
        # The last window of a grid begins at the latest `size` samples before the end.
        drop = min([start for start, _, _ in ahead] + [total - size]) - at
        if drop > 0:
            held, at = held[drop:], at + drop
    last: dict[int, list] = {}
    for number, grid in enumerate(grids):
        for start, mark in grid.rest(total):
            last.setdefault(start, [None] * len(grids))[number] = mark
    for start in sorted(last):
        yield window(start, last[start])
