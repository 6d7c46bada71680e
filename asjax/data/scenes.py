"""Scenes as a sequence of audio files: `scenes[i]` -> bytes of a WAV, mixed when they are read."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from scipy import sparse

from asjax import events as lists
from asjax.config import warn
from asjax.data import draw, mixing
from asjax.data.bank import Bank
from asjax.data.mixing import NOISE, PLACED, Rules
from asjax.data.source import sha256

EVENT = np.dtype(
    [
        ("onset_s", np.float64),
        ("offset_s", np.float64),
        ("class", np.int32),
        ("snr_db", np.float64),
        ("recording", np.int32),  # index in bank.recordings
        ("at_s", np.float64),  # where the sound begins in its recording
    ]
)
_MISSING = 0.01  # share of events without a place that deserves a warning


def key_of(seed: int, words: str) -> int:
    """The key of the scenes of a seed and a name: 64 bits."""
    return draw.random_bits(seed, int(sha256(words)[:15], 16))


class Scenes(Sequence):
    """Planned scenes. Threads and processes may read them in any order.

    Attributes:
      bank, rules, key: what the scenes are made of (see asjax.data.mixing).
      grounds: a Bank of recorded background noise, or None for noise from random numbers.
      placed, ends: the events of all scenes, and where those of a scene end.
      noise: `NOISE` [N]. wanted, missing: drawn events, and those without a place.
    """

    def __init__(self, bank: Bank, rules: Rules, key: int, count: int, grounds=None):
        planner = mixing.Planner(bank, rules, key)
        plans = [planner(i) for i in range(count)]
        self.bank, self.rules, self.key, self.grounds = bank, rules, key, grounds
        self.noise = np.array([noise for noise, _, _ in plans], NOISE)
        self.placed = np.array([event for _, placed, _ in plans for event in placed], PLACED)
        self.ends = np.cumsum([0, *(len(placed) for _, placed, _ in plans)], dtype=np.int64)
        self.missing = sum(missing for _, _, missing in plans)
        self.wanted = len(self.placed) + self.missing
        self.digest = sha256(str(mixing.VERSION), str(asdict(rules)), f"{key} {count}")

    def __len__(self) -> int:
        return len(self.noise)

    def __getitem__(self, i) -> bytes:
        """Scene i as a 16-bit WAV."""
        return wav(self.wave(i), self.rules.sample_rate)

    def wave(self, i: int) -> np.ndarray:
        """Scene i as int16 [S]."""
        i = range(len(self))[i]
        placed = self.placed[self.ends[i] : self.ends[i + 1]]
        noise = self.noise[i].item()
        return mixing.mix(self.bank, self.rules, self.key, i, noise, placed, self.grounds)

    def scene(self, i: int) -> np.ndarray:
        """The events of scene i: `EVENT` [E], by onset. A sound with two classes is two events."""
        i = range(len(self))[i]
        rate, rows = self.rules.sample_rate, []
        for onset, length, start, piece, snr_db in self.placed[
            self.ends[i] : self.ends[i + 1]
        ].tolist():
            first, _, recording, at_s = self.bank.pieces[piece].item()
            times = onset / rate, (onset + length) / rate
            at_s += (start - first) / rate
            for label in self.bank.classes_of(recording):
                rows.append((*times, label, snr_db, recording, at_s))
        return np.array(rows, EVENT)

    def labels(self, num_classes: int) -> sparse.csr_matrix:
        """int8 [N, num_classes]: 1 where a scene has an event of the class."""
        scene = np.repeat(np.arange(len(self)), np.diff(self.ends))
        first, end = self.bank.classes[self.bank.pieces["recording"][self.placed["piece"]]].T
        rows = np.repeat(scene, end - first)
        places = np.repeat(first, end - first) + _within(end - first)
        ones = np.ones(len(rows), np.int8)
        shape = len(self), num_classes
        table = sparse.coo_matrix((ones, (rows, self.bank.class_of[places])), shape).tocsr()
        table.data[:] = 1  # a class with several events counts once
        table.sort_indices()
        return table

    def say_missing(self, name: str) -> None:
        if self.missing > _MISSING * max(1, self.wanted):
            warn(
                f"{name}: {self.missing} of {self.wanted} drawn events found no place in their "
                "scenes; draw fewer events, or allow longer scenes or more polyphony"
            )


def _within(counts: np.ndarray) -> np.ndarray:
    """`[2, 3]` -> `[0, 1, 0, 1, 2]`."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


class SceneEvents(Sequence):
    """The events of chosen scenes as `asjax.events.EVENT` arrays."""

    def __init__(self, scenes: Scenes, chosen: np.ndarray):
        self.scenes, self.chosen = scenes, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        scene = self.scenes.scene(int(self.chosen[i]))
        events = np.empty(len(scene), lists.EVENT)
        for name in lists.EVENT.names:
            events[name] = scene[name]
        return lists.in_order(events)

    def select(self, which) -> SceneEvents:
        return SceneEvents(self.scenes, self.chosen[which])


def wav(wave: np.ndarray, sample_rate: int) -> bytes:
    """int16 [S] -> the bytes of a WAV file."""
    data = wave.astype("<i2").tobytes()
    head = (b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate)
    return struct.pack("<4sI4s4sIHHIIHH4sI", *head, 2, 16, b"data", len(data)) + data
