"""The active parts of recordings, against a naive search frame by frame."""

import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.data import bank

RATE = 8000


def naive_spans(wave, rate, join_s):
    """Spans as in the module's text, with a loop over frames."""
    hop = rate // 100
    frames = [wave[i : i + hop].astype(np.float64) for i in range(0, len(wave), hop)]
    level = [10 * np.log10(np.mean(f**2) + 1e-30) for f in frames]
    active = [x > -60 and x > max(level) - 30 for x in level]
    spans = []
    for i in (i for i, on in enumerate(active) if on):
        if spans and i - spans[-1][1] <= round(join_s * 100):
            spans[-1][1] = i + 1
        else:
            spans.append([i, i + 1])
    return [(a * hop, min(b * hop, len(wave))) for a, b in spans if b - a >= 8]


def bursts(seed, seconds=4.0):
    """Noise whose level changes at random times, also to far below the limits."""
    rng = np.random.default_rng(seed)
    wave = rng.standard_normal(round(seconds * RATE)).astype(np.float32)
    edges = np.sort(rng.integers(0, len(wave), 30))
    for a, b in zip(edges, np.r_[edges[1:], len(wave)], strict=True):
        wave[a:b] *= 10 ** (rng.uniform(-70, -10) / 20)
    return wave[: len(wave) - int(rng.integers(1, 80))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("join_s", [0.05, 0.25, 1.5])
def test_spans_equal_a_naive_search(seed, join_s):
    wave = bursts(seed)
    got = bank.active_spans(wave, RATE, join_s)
    assert got.tolist() == [list(span) for span in naive_spans(wave, RATE, join_s)]


def test_silence_and_short_sounds_have_no_span():
    quiet = np.full(RATE, 0.0009, np.float32)  # -61 dBFS
    blip = np.zeros(RATE, np.float32)
    blip[800:1360] = 0.5  # 70 ms
    for wave in (np.zeros(RATE, np.float32), quiet, blip, np.zeros(0, np.float32)):
        assert len(bank.active_spans(wave, RATE)) == 0


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_bank_holds_the_active_samples_of_each_recording_at_full_scale(on_disk):
    waves = [bursts(1), 0.01 * bursts(2)]
    spans = [bank.active_spans(wave * k, RATE) for wave, k in zip(waves, (1, 100), strict=True)]
    made = bank.build(
        [
            ("a", [3], False, spans[0], bank.cut(waves[0], spans[0])),
            ("b", [0, 2], True, spans[1], bank.cut(waves[1], spans[1])),
        ],
        RATE,
        on_disk,
    )
    assert made.classes_of(0) == [3]
    assert made.classes_of(1) == [0, 2]
    assert list(made.steady) == [False, True]
    assert list(made.recordings) == ["a", "b"]
    assert len(made.pieces) == sum(map(len, spans))
    for piece in made.pieces:
        start, length, recording, at_s = piece.item()
        wave, first = waves[recording], round(at_s * RATE)
        want = wave[first : first + length] * (32767 / np.abs(wave).max())
        assert np.abs(made.samples[start : start + length] - want).max() <= 0.5001


def test_classes_with_the_same_recordings_are_one_sound():
    span = np.array([[0, RATE]])
    wave = bank.cut(np.ones(RATE, np.float32), span)
    rows = [("a", [1, 2], False), ("b", [1, 2], False), ("c", [0], False), ("d", [2], False)]
    made = bank.build([(*row, span, wave) for row in rows[:3]], RATE)
    assert made.by_class() == [[[0], [1]], [[2]]]
    made = bank.build([(*row, span, wave) for row in rows], RATE)
    assert made.by_class() == [[[0], [1]], [[0], [1], [3]], [[2]]]
    other = made.with_classes([[5], [6], [7], [5]])
    assert [other.classes_of(i) for i in range(4)] == [[5], [6], [7], [5]]


def test_nothing_to_mix_is_an_error():
    with pytest.raises(AsjaxError, match="no recording has an active part"):
        bank.build([("a", [0], False, np.zeros((0, 2), int), [])], RATE)
