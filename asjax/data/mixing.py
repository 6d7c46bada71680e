"""Scenes mixed from a bank of recordings: planned by (key, index), mixed when they are read.

A plan has all choices. It is cheap, so that the labels of ten thousand scenes are known before any
scene is mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from asjax.config import AsjaxError
from asjax.data.bank import Bank

VERSION = 1  # of the rules; a change of plans or samples needs a new number
PLACED = np.dtype(
    [
        ("onset", np.int64),  # in the scene, in samples
        ("length", np.int64),
        ("start", np.int64),  # in the samples of the bank
        ("piece", np.int32),
        ("snr_db", np.float64),
    ]
)
NOISE = np.dtype(
    [(name, np.float64) for name in ("level_db", "slope", "depth", "rate_hz", "phase")]
)
FADE_S, LOWEST_HZ, PEAK = 0.01, 20.0, 0.99
_PLACES, _EVENTS = 8, 10  # tries: places for one event, events for one place in the list
_LIMITS = {
    "clip_s": (1, 600),
    "sample_rate": (1000, 384_000),
    "events": (0, 200),
    "polyphony": (1, 200),
    "snr_db": (-60, 60),
    "level_db": (-80, -10),
    "slope": (-4, 4),
    "modulated": (0, 1),
    "apart_s": (0, 600),
    "steady_s": (0.1, 600),
}
_PAIRS = ("events", "snr_db", "level_db", "slope", "steady_s")
_WHOLE = ("sample_rate", "events", "polyphony")
_LEAST = 1e-3  # in a pause of a recorded noise, its power counts as 30 dB below that of the scene
_JOINT_S = 0.05  # a recorded noise that is shorter than the scene is repeated with such crossfades
_NOISE = 1  # second stream of random numbers of a scene


@dataclass(frozen=True)
class Rules:
    """What scenes are like. Pairs are limits of uniform draws.

    Attributes:
      clip_s: seconds of a scene. sample_rate: Hz.
      events: fewest and most events. polyphony: most events at one time.
      snr_db: power of an event over the power of the noise during the event.
      level_db: RMS of the noise in dBFS.
      slope: the noise has power f ** slope.
      modulated: share of scenes with noise that is slowly amplitude-modulated.
      apart_s: smallest distance of events of one class.
      steady_s: pieces of steady sounds that last more than 1 s are cut to this many seconds. Other
        pieces are cut to it only if they are longer than its largest value, or than the scene.
    """

    clip_s: float = 10.0
    sample_rate: int = 16_000
    events: tuple[int, int] = (1, 5)
    polyphony: int = 3
    snr_db: tuple[float, float] = (6.0, 30.0)
    level_db: tuple[float, float] = (-50.0, -30.0)
    slope: tuple[float, float] = (-2.0, 0.0)
    modulated: float = 0.3
    apart_s: float = 0.1
    steady_s: tuple[float, float] = (0.5, 5.0)

    def __post_init__(self):
        for name, (low, high) in _LIMITS.items():
            value, whole = getattr(self, name), name in _WHOLE
            if name in _PAIRS:
                _check_pair(name, value, whole)
            for one in value if name in _PAIRS else [value]:
                check(name, one, low, high, whole)
            kind = int if whole else float
            value = tuple(map(kind, value)) if name in _PAIRS else kind(value)
            object.__setattr__(self, name, value)
        check("the largest number of events", self.events[1], 1, _LIMITS["events"][1])

    @property
    def samples(self) -> int:
        return round(self.clip_s * self.sample_rate)


def _number(value, whole: bool) -> bool:
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool)


def check(name: str, value, low, high, whole: bool = False) -> None:
    """AsjaxError unless the value is a number (with `whole`: an integer) in [low, high]."""
    if not _number(value, whole) or not low <= value <= high:  # NaN fails too
        kind = "a whole number" if whole else "a number"
        raise AsjaxError(f"scenes: {name} must be {kind} from {low} to {high}, got {value!r}")


def _check_pair(name, value, whole):
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    if not pair or not all(_number(v, whole) for v in value) or not value[0] <= value[1]:
        kind = "whole numbers" if whole else "numbers"
        raise AsjaxError(
            f"scenes: {name} must be two {kind}, the smallest and the largest, got {value!r}"
        )


# ------------------------------------------------------------------------------------- plans


class Planner:
    """Plans scenes: `planner(index)` -> (noise as in `NOISE`, events as in `PLACED`, missing).

    `missing` counts the events that found no place. A plan is a pure function of (bank, rules, key,
    index).
    """

    def __init__(self, bank: Bank, rules: Rules, key: int):
        self.rules, self.key = rules, key
        self._table = bank.by_class()
        self._start, self._length = bank.pieces["start"].tolist(), bank.pieces["length"].tolist()
        of = [tuple(bank.classes_of(r)) for r in range(len(bank.recordings))]
        self._classes = [of[r] for r in bank.pieces["recording"].tolist()]
        self._steady = bank.steady[bank.pieces["recording"]].tolist()

    def __call__(self, index: int):
        rules, u = self.rules, _uniform(_rng(self.key, index))
        noise = (
            _between(u, rules.level_db),
            _between(u, rules.slope),
            (0.3 + 0.6 * u()) * (u() < rules.modulated),
            0.1 * 20 ** u(),  # 0.1 to 2 Hz
            2 * np.pi * u(),
        )
        low, high = rules.events
        wanted, placed = low + int(u() * (high - low + 1)), []
        for _ in range(wanted):
            for _ in range(_EVENTS):
                if self._place(u, placed):
                    break
        placed.sort()
        return noise, placed, wanted - len(placed)

    def _place(self, u, placed) -> bool:
        """Draw an event and places for it. False if it fits in none of them."""
        rules = self.rules
        pieces = _one(u, _one(u, self._table))
        piece = _one(u, pieces)
        length, at, mine = self._length[piece], u(), self._classes[piece]
        rate, (shortest, longest) = rules.sample_rate, rules.steady_s
        limit = min(length, rules.samples)
        if (self._steady[piece] and length > rate) or length > longest * rate:
            limit = min(limit, round((shortest + u() * (longest - shortest)) * rate))
        start, snr_db = int(at * (length - limit + 1)), _between(u, rules.snr_db)
        for _ in range(_PLACES):
            onset = int(u() * (rules.samples - limit + 1))
            if self._free(placed, onset, onset + limit, mine):
                placed.append((onset, limit, self._start[piece] + start, piece, snr_db))
                return True
        return False

    def _free(self, placed, onset, end, mine) -> bool:
        gap, over = self.rules.apart_s * self.rules.sample_rate, []
        for first, length, _, piece, _ in placed:
            last = first + length
            if first < end + gap and onset < last + gap:
                if not set(mine).isdisjoint(self._classes[piece]):
                    return False
                if first < end and onset < last:
                    over.append((first, last))
        if len(over) < self.rules.polyphony:
            return True
        starts = [onset, *(first for first, _ in over if first > onset)]
        most = max(sum(a <= t < b for a, b in over) for t in starts)
        return most < self.rules.polyphony


def _rng(key: int, *words: int) -> np.random.Generator:
    counter = [0, 0, 0, words[1] if len(words) > 1 else 0]
    key = np.array([key, words[0]], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array(counter, np.uint64)))


def _uniform(rng) -> Callable[[], float]:
    """A function that gives the next number in [0, 1). Single draws from numpy are slow."""

    def numbers():
        while True:
            yield from rng.random(64).tolist()

    return numbers().__next__


def _between(u, limits) -> float:
    return limits[0] + u() * (limits[1] - limits[0])


def _one(u, choices: Sequence):
    return choices[int(u() * len(choices))]


# ------------------------------------------------------------------------------------ sound


def mix(bank: Bank, rules: Rules, key: int, index: int, noise, placed, grounds=None):
    """The samples of a planned scene: int16 [S].

    An event is scaled so that its power is `snr_db` above the power of the noise at its place. If
    the sum is above full scale, the whole scene is made quieter, which keeps the SNR.

    Args:
      noise, placed: from a Planner. grounds: a Bank of recordings to take the noise from.
    """
    rng = _rng(key, index, _NOISE)
    ground = recorded(grounds, rules, rng, noise) if grounds else background(rules, rng, noise)
    scene, least = ground.copy(), _power(ground) * _LEAST
    for onset, length, start, _, snr_db in placed.tolist():
        event = faded(bank.samples[start : start + length], rules.sample_rate)
        under = ground[onset : onset + length]
        ratio = max(_power(under), least) / max(_power(event), 1e-20) * 10 ** (snr_db / 10)
        scene[onset : onset + length] += event * np.float32(np.sqrt(ratio))
    peak = max(float(scene.max()), -float(scene.min()))
    scale = 32767 * min(1.0, PEAK / peak)
    return np.rint(scene * np.float32(scale)).astype(np.int16)


def _power(wave) -> float:
    return float(np.dot(wave, wave)) / len(wave)


def faded(piece: np.ndarray, sample_rate: int) -> np.ndarray:
    """A piece int16 [S] as float32 that begins and ends at zero (10 ms, raised cosine)."""
    wave = piece.astype(np.float32) / np.float32(32768)
    size = min(round(FADE_S * sample_rate), len(wave) // 2)
    ramp = np.sin(np.linspace(0, np.pi / 2, size, endpoint=False, dtype=np.float32)) ** 2
    wave[:size] *= ramp
    wave[len(wave) - size :] *= ramp[::-1]
    return wave


def background(rules: Rules, rng, noise) -> np.ndarray:
    """Noise float32 [S] with the level, slope and modulation of `noise`, one row of `NOISE`.

    It is made from a random spectrum: power f ** slope above `LOWEST_HZ`, nothing below.
    """
    level_db, slope, depth, rate_hz, phase = noise
    size, rate = rules.samples, rules.sample_rate
    padded = fft.next_fast_len(size, real=True)
    spectrum = rng.standard_normal(2 * (padded // 2 + 1), np.float32).view(np.complex64)
    first = max(1, int(np.ceil(LOWEST_HZ * padded / rate)))
    spectrum[:first] = 0
    bins = np.arange(first, len(spectrum), dtype=np.float32)
    spectrum[first:] *= np.power(bins / np.float32(first), np.float32(slope / 2))
    wave = fft.irfft(spectrum, padded)[:size]
    if depth:
        turns = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi * rate_hz / rate)
        wave *= 1 + np.float32(depth) * np.sin(turns + np.float32(phase))
    return wave * np.float32(10 ** (level_db / 20) / np.sqrt(_power(wave)))


def recorded(grounds: Bank, rules: Rules, rng, noise) -> np.ndarray:
    """A random part of a random piece of `grounds`, float32 [S], with the level of `noise`."""
    _, length, *_ = piece = grounds.pieces[rng.integers(len(grounds.pieces))].item()
    size, first = rules.samples, piece[0]
    start = int(rng.integers(max(1, length - size + 1)))
    wave = grounds.samples[first + start : first + min(length, start + size)].astype(np.float32)
    joint = min(round(_JOINT_S * rules.sample_rate), len(wave) // 4)
    ramp = np.sqrt(np.linspace(0, 1, joint, dtype=np.float32))
    once = wave
    while len(wave) < size:
        middle = wave[-joint:] * ramp[::-1] + once[:joint] * ramp
        wave = np.concatenate([wave[:-joint], middle, once[joint:]])
    wave = wave[:size]
    return wave * np.float32(10 ** (noise[0] / 20) / max(np.sqrt(_power(wave)), 1e-9))
