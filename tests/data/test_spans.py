"""Windows of a stream on two grids, against naive slices of the whole wave."""

import math

import numpy as np
import pytest

from asjax import decoding
from asjax.data import spans

RNG = np.random.default_rng(11)


def pieces(wave):
    at = 0
    while at < len(wave):
        step = int(RNG.integers(1, 90))
        yield wave[at : at + step]
        at += step


def tiled(n, size, hop):
    found = [s for s in range(0, n, hop) if s + size <= n]
    if not found:
        return [0]
    return found if found[-1] + size == n else [*found, n - size]


@pytest.mark.parametrize("frames", [2, 5, 7, 20])
@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("n", [1, 2, 30, 59, 60, 61, 119, 120, 121, 200, 333, 604])
def test_two_grids_have_all_their_windows_in_order_and_share_what_they_can(n, overlap, frames):
    size, hop = 60, 60
    wave = RNG.standard_normal(n).astype(np.float32)
    grids = [spans.Tiled(size, hop), spans.Framed(frames, size / frames, overlap)]
    found = list(spans.over(pieces(wave), size, grids))
    for start, window, _, _ in found:
        np.testing.assert_array_equal(window, wave[start : start + size])
    total = max(1, math.ceil(n * frames / size - 1e-6))
    plan = decoding.windows(total, frames, overlap=overlap)
    assert [m[0] for *_, m in found if m[0] is not None] == tiled(n, size, hop)
    assert [m[1] for *_, m in found if m[1] is not None] == plan.starts.tolist()
    for start, *_, (first, frame) in found:
        assert first in (None, start)
        assert frame is None or abs(start - frame * size / frames) <= 0.5
    assert grids[1].frames(n) == total
    assert sum(new for _, _, new, _ in found) == n
    both = {start for start, *_ in found}
    assert len(both) == len(found)  # no window twice


def test_one_long_piece_and_single_samples_give_the_same():
    wave = RNG.standard_normal(500).astype(np.float32)

    def of(parts):
        grids = [spans.Tiled(64, 16), spans.Framed(8, 8.0)]
        return sorted((s, w.tobytes(), m) for s, w, _, m in spans.over(parts, 64, grids))

    assert of([wave]) == of(wave[i : i + 1] for i in range(500))


def test_nothing_has_no_windows():
    grids = [spans.Tiled(64, 16), spans.Framed(8, 8.0)]
    assert list(spans.over([], 64, grids)) == []


def test_only_the_audio_of_the_next_windows_is_held():
    import tracemalloc

    def long():
        for _ in range(1000):
            yield np.zeros(10_000, np.float32)

    grids = [spans.Tiled(10_000, 10_000), spans.Framed(20, 500.0)]
    tracemalloc.start()
    count = sum(1 for _ in spans.over(long(), 10_000, grids))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1999
    assert peak < 400_000  # the whole has 40 MB
