"""Random access to the bytes of a file, and the parts of it that are sound files."""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

_BLOCK = 1 << 16


class Broken(ValueError):
    """The file has less than it promises, or contradicts itself. The text is the reason."""


class Foreign(Broken):
    """A file that libsndfile does not decode. `demuxer`: ffmpeg's name of its container, or ""."""

    def __init__(self, what: str, demuxer: str = ""):
        super().__init__(what)
        self.demuxer = demuxer


class Loss(str):
    """A note about missing samples in a file that is still read."""


class Part(NamedTuple):
    """A sound file inside a file: the bytes of `head`, then of `spans`, (start, stop) each.

    `most` is the counted number of samples per channel (0: not counted). If libsndfile reports
    fewer than `least` samples, it gets `spare` instead of this part. `whole`: libsndfile gets the
    unchanged file.
    """

    spans: tuple[tuple[int, int], ...]
    head: bytes = b""
    most: int = 0
    least: int = 0
    spare: Part | None = None
    whole: bool = False


@dataclass
class Layout:
    """Parts of a file in order, and notes for the user. No parts: libsndfile reads the file."""

    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Tape:
    """Random access to the bytes of a binary file, with a buffer of one block."""

    def __init__(self, file):
        self.file = file
        self.begin = file.tell()
        self.size = file.seek(0, io.SEEK_END) - self.begin
        self._at, self._block = 0, b""

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes from `position` on, fewer at the end of the file."""
        skip = position - self._at
        if skip >= 0 and skip + count <= len(self._block):
            return self._block[skip : skip + count]
        if position >= self.size:
            return b""
        self.file.seek(self.begin + position)
        block = self.file.read(max(count, _BLOCK))
        self._at, self._block = position, block
        return block[:count]

    def find(self, pattern: bytes, position: int, stop: int | None = None) -> int:
        """The next place of `pattern` at or after `position`, or -1."""
        stop = self.size if stop is None else min(stop, self.size)
        step = 1 << 20
        while position < stop:
            block = self.at(position, min(step + len(pattern) - 1, stop - position))
            place = block.find(pattern)
            if place >= 0:
                return position + place
            if len(block) < len(pattern):
                break
            position += len(block) - len(pattern) + 1
        return -1

    def all_zero(self, start: int, stop: int) -> bool:
        step = 1 << 20
        return not any(
            self.at(at, min(step, stop - at)).strip(b"\0") for at in range(start, stop, step)
        )


class Window(io.RawIOBase):
    """A part as a read-only file for soundfile."""

    def __init__(self, tape: Tape, spans, head: bytes = b""):
        super().__init__()
        self._tape, self._head, self._spans = tape, head, spans
        self._ends = list(accumulate((stop - start for start, stop in spans), initial=len(head)))
        self._size, self._place = self._ends[-1], 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._place

    def seek(self, offset, whence=io.SEEK_SET):
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer):
        wanted = memoryview(buffer).cast("B")
        done = 0
        while done < len(wanted):
            piece = self._piece(self._place, len(wanted) - done)
            if not piece:
                break
            wanted[done : done + len(piece)] = piece
            done += len(piece)
            self._place += len(piece)
        return done

    def _piece(self, place: int, count: int) -> bytes:
        """At most `count` bytes from `place` on, up to the end of a span."""
        if place < len(self._head):
            return self._head[place : place + count]
        i = bisect_right(self._ends, place) - 1
        if i >= len(self._spans):
            return b""
        start, stop = self._spans[i]
        start += place - self._ends[i]
        return self._tape.at(start, min(count, stop - start))
