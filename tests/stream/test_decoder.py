"""The decoder of a stream against `decoding.decode` on all frames, and the clock."""

import numpy as np
import pytest
from small_tagger import LABELS

from asjax import decoding
from asjax.config import AsjaxError
from asjax.predict import Event
from asjax.stream import clock, decoder

RNG = np.random.default_rng(9)
RATE = 25.0


@pytest.mark.parametrize("median", [[1, 1, 1, 1], [2, 2, 2, 2], [1, 4, 9, 40], [7, 7, 3, 3]])
@pytest.mark.parametrize("frames", [1, 2, 5, 60, 333])
def test_events_are_those_of_all_frames(frames, median):
    scores = RNG.random((frames, 4)).astype(np.float32)
    scores[frames // 3 : frames // 2] += 0.3
    threshold, duration_s = np.array([0.3, 0.5, 0.5, 0.7]), (frames - 0.25) / RATE
    wanted = decoding.decode(
        scores, threshold=threshold, median=np.array(median), frame_rate=RATE, duration_s=duration_s
    )
    for most in (1, 3, 50, 1000):
        one = decoder.Decoder(LABELS, RATE, threshold, median, np.arange(4))
        marks, at = [], 0
        while at < frames:
            size = int(RNG.integers(0, most + 1))
            marks += one.push(scores[at : at + size])
            at += size
        marks += one.close(duration_s)
        found = [m for m in marks if isinstance(m, Event)]
        found.sort(key=lambda m: (m.onset_s, m.offset_s, LABELS.index(m.id)))
        assert [(m.onset_s, m.offset_s, LABELS.index(m.id)) for m in found] == [
            pytest.approx(row) for row in sorted(wanted.tolist())
        ]
        for m in found:
            rows = slice(round(m.onset_s * RATE), int(np.ceil(m.offset_s * RATE - 1e-6)))
            mean = scores[rows, LABELS.index(m.id)].astype(np.float64).mean()
            assert m.probability == pytest.approx(mean, abs=1e-6)


def test_its_memory_is_that_of_the_filter():
    one = decoder.Decoder(LABELS, RATE, np.full(4, 0.5), [21] * 4, np.arange(4))
    for _ in range(1000):
        one.push(RNG.random((10, 4)).astype(np.float32))
        assert len(one._held) <= 10 + 2 * 21
    assert one.frames == 10_000


def test_the_clock_knows_the_longest_of_the_last_calls(monkeypatch):
    now = iter([0.0, 5.0, *(x for i in range(32) for x in (10.0 + i, 10.25 + i))])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(now))
    one = clock.Clock()
    assert one.compute_s == 0
    with one.timed():
        pass
    assert one.compute_s == 5
    for _ in range(32):
        with one.timed():
            pass
    assert one.compute_s == 0.25


def test_a_number_out_of_range_is_named():
    assert clock.seconds("hop_s", 1, 0, 2) == 1.0
    with pytest.raises(AsjaxError, match="hop_s must be 0 to 2 s, got 3; why"):
        clock.seconds("hop_s", 3, 0, 2, "; why")
    with pytest.raises(AsjaxError, match="hop_s must be a number of seconds, got True"):
        clock.seconds("hop_s", True, 0, 2)
