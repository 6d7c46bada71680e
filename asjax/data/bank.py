"""The active parts of recordings, cut out for mixing: a bank of pieces with known boundaries."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asjax.config import AsjaxError
from asjax.data.shared import Strings

FRAME_S = 0.01  # activity is measured in frames of this length
SHORTEST_S, JOIN_S = 0.08, 0.25
FLOOR_DB, BELOW_DB = -60.0, -30.0  # dBFS; dB relative to the loudest frame
PIECE = np.dtype(
    [("start", np.int64), ("length", np.int64), ("recording", np.int32), ("at_s", np.float64)]
)


def active_spans(
    wave: np.ndarray, sample_rate: int, join_s: float = JOIN_S, below_db: float = BELOW_DB
) -> np.ndarray:
    """Where a recording is active: int64 [N, 2] of first sample and end (exclusive).

    A frame of 10 ms is active if its RMS is above -60 dBFS and above the RMS of the loudest frame
    plus `below_db`. Gaps of at most `join_s` seconds are joined. Spans below 0.08 s are left out.
    """
    hop = max(1, round(FRAME_S * sample_rate))
    count = -(-len(wave) // hop)
    if not count:
        return np.zeros((0, 2), np.int64)
    power = np.add.reduceat(np.square(wave, dtype=np.float64), np.arange(0, len(wave), hop))
    power /= np.diff(np.r_[np.arange(0, len(wave), hop), len(wave)])
    active = power > max(10 ** (FLOOR_DB / 10), power.max() * 10 ** (below_db / 10))
    steps = np.diff(np.r_[0, active, 0].astype(np.int8))
    first, end = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    if not len(first):
        return np.zeros((0, 2), np.int64)
    apart = first[1:] - end[:-1] > round(join_s / FRAME_S)
    first, end = first[np.r_[True, apart]], end[np.r_[apart, True]]
    long = end - first >= round(SHORTEST_S / FRAME_S)
    return np.stack([first[long] * hop, np.minimum(end[long] * hop, len(wave))], 1)


@dataclass(frozen=True, repr=False, eq=False)
class Bank:
    """Pieces of recordings.

    Attributes:
      samples: int16, all pieces one after the other. Every recording has its own full scale.
      pieces: `PIECE` [P]: place in `samples`, recording, and the place in the recording (seconds).
      recordings: one id per recording.
      steady: bool [R]: the sound of the recording is steady, so any part of a piece is an event.
      classes: int32 [R, 2]: where the classes of a recording are in `class_of`.
      class_of: class indices.
    """

    sample_rate: int
    samples: np.ndarray
    pieces: np.ndarray
    recordings: Sequence[str]
    steady: np.ndarray
    classes: np.ndarray
    class_of: np.ndarray

    def __getstate__(self) -> dict:
        """The state with texts as arrays, because workers share arrays (asjax.data.shared)."""
        return {**vars(self), "recordings": Strings(self.recordings)}

    def classes_of(self, recording: int) -> list[int]:
        first, end = self.classes[recording]
        return self.class_of[first:end].tolist()

    def used(self) -> list[int]:
        """The recordings that have pieces here."""
        return np.unique(self.pieces["recording"]).tolist()

    def used_classes(self) -> list[int]:
        """The classes of these recordings, sorted."""
        return sorted({label for recording in self.used() for label in self.classes_of(recording)})

    def part(self, which: Sequence[str]) -> Bank:
        """The pieces of the recordings with these ids; the samples are shared."""
        chosen = np.isin(np.array(list(self.recordings), object), list(which))
        return replace(self, pieces=self.pieces[chosen[self.pieces["recording"]]])

    def with_classes(self, classes: Sequence[Sequence[int]]) -> Bank:
        """The same pieces with other classes; `classes` has the class indices of each recording."""
        return replace(self, **_lists(classes))

    def by_class(self) -> list[list[list[int]]]:
        """For each class its recordings, each as the list of its pieces, in order of appearance.

        Two classes with the same recordings are listed once, because they are one sound.
        """
        of_recording: dict[int, list[int]] = {}
        for piece, recording in enumerate(self.pieces["recording"].tolist()):
            of_recording.setdefault(recording, []).append(piece)
        table: dict[int, list[int]] = {}
        for recording in of_recording:
            for label in self.classes_of(recording):
                table.setdefault(label, []).append(recording)
        once = dict.fromkeys(map(tuple, table.values()))
        return [[of_recording[recording] for recording in recordings] for recordings in once]


def _lists(classes) -> dict:
    ends = np.cumsum([0, *map(len, classes)], dtype=np.int32)
    flat = [int(label) for labels in classes for label in labels]
    return {"classes": np.stack([ends[:-1], ends[1:]], 1), "class_of": np.array(flat, np.int32)}


def cut(wave: np.ndarray, spans: np.ndarray) -> list[np.ndarray]:
    """The spans of a wave as int16; the largest value of the wave becomes full scale."""
    scale = 32767 / max(float(np.abs(wave).max(initial=0)), 1e-9)
    return [np.rint(wave[first:end] * scale).astype(np.int16) for first, end in spans.tolist()]


def build(recordings: Iterable[tuple], sample_rate: int, on_disk: bool = False) -> Bank:
    """A bank of (id, class indices, steady, spans [N, 2], pieces as from `cut`) per recording.

    Args:
      on_disk: keep the samples in a temporary file without a name, not in memory.

    Raises:
      AsjaxError: no recording has a span.
    """
    ids, classes, steady, pieces, size = [], [], [], [], 0
    file = tempfile.TemporaryFile() if on_disk else io.BytesIO()  # noqa: SIM115 (memmap keeps it)
    for name, labels, is_steady, spans, parts in recordings:
        for (first, _), part in zip(spans.tolist(), parts, strict=True):
            pieces.append((size, len(part), len(ids), first / sample_rate))
            size += len(part)
            file.write(part.tobytes())
        ids.append(name)
        classes.append(labels)
        steady.append(is_steady)
    if not pieces:
        raise AsjaxError("no recording has an active part, so there is nothing to mix")
    file.flush()
    samples = np.memmap(file, np.int16, "r") if on_disk else np.frombuffer(file.getbuffer(), "i2")
    table, flags = np.array(pieces, PIECE), np.array(steady, bool)
    return Bank(sample_rate, samples, table, ids, flags, **_lists(classes))
