"""`Stream` against the tagger on the same slices, for every way to cut the sound."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import small_tagger
from small_tagger import LABELS, RATE

from asjax.config import AsjaxError
from asjax.data import audio
from asjax.stream import EventStream, Stream

RNG = np.random.default_rng(14)
WINDOW_S, HOP_S = 1.0, 0.25
ONE = small_tagger.tagger(clip_s=4.0, batch_size=16)


def noise(seconds, rate=RATE):
    """Noise that is louder and quieter in turn."""
    n = round(seconds * rate)
    levels = np.repeat(RNG.choice([0.05, 0.15, 0.3, 0.6, 0.9], n // 130 + 1), 130)[:n]
    return (levels * RNG.choice([-1, 1], n)).astype(np.float32)


def made(**kw):
    return Stream(ONE, **{"window_s": WINDOW_S, "hop_s": HOP_S, **kw})


def heard(stream, wave, size):
    """All windows of a wave that comes in chunks of `size` samples; 0: as one block."""
    found = []
    for i in range(0, len(wave), size or len(wave)):
        found += stream.push(wave[i : i + (size or len(wave))])
    return found + stream.close()


def same(a, b, atol=1e-5):
    assert [(w.t0, w.t1) for w in a] == [(w.t0, w.t1) for w in b]
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one.tags.clip, other.tags.clip, atol=atol, rtol=0)


@pytest.mark.parametrize("size", [1, 160, 4001, 0])
def test_windows_are_the_tagger_on_their_samples_for_any_chunks(size):
    wave = noise(7.13)
    found = heard(made(), wave, size)
    # in float64: the formula of the small tagger on naive slices, the last one ends with the wave
    starts = [k * 250 for k in range(len(wave)) if k * 250 + 1000 <= len(wave)]
    starts += [len(wave) - 1000] if starts[-1] + 1000 < len(wave) else []
    assert [round(w.t0 * RATE) for w in found] == starts
    for window in found:
        part = wave[round(window.t0 * RATE) : round(window.t1 * RATE)].astype(np.float64)
        assert len(part) == 1000
        rms = np.sqrt(np.mean(part**2))
        wanted = 1 / (1 + np.exp(-40.0 * (rms - small_tagger.LEVELS.astype(np.float64))))
        np.testing.assert_allclose(window.tags.clip, wanted, atol=1e-5)
        direct = ONE.windowed(WINDOW_S)((part.astype(np.float32), RATE))
        np.testing.assert_allclose(window.tags.logits, direct.logits, atol=1e-4)
        assert window.tags.labels == LABELS.names


@pytest.mark.parametrize("rate", [1000, 1600, 44_100])
@pytest.mark.parametrize("channels", [0, 2])
def test_a_stream_of_another_rate_is_the_recording_of_that_rate(rate, channels):
    wave = noise(3.4, rate)
    if channels:
        wave = np.stack([wave, noise(3.4, rate)[: len(wave)]], axis=1)
    mono = audio.from_array(wave, rate, RATE)
    whole = ONE.windowed(WINDOW_S, overlap=1 - HOP_S / WINDOW_S)((mono, RATE))
    for size in (1, 997, 0) if rate < 10_000 else (997, 0):
        found = heard(made(rate=rate), wave, size)
        np.testing.assert_allclose([(w.t0, w.t1) for w in found], whole.times, atol=1e-9)
        np.testing.assert_allclose([w.tags.clip for w in found], whole.windows, atol=1e-5)


def test_integers_and_floats_are_the_same_sound():
    wave = np.round(noise(2) * 32768).clip(-32768, 32767).astype(np.int16)
    whole = heard(made(), wave.astype(np.float32) / 32768, 0)
    same(heard(made(), wave, 333), whole)
    same(heard(made(), wave.astype(np.int32) * 65536, 333), whole)
    same(heard(made(), (wave / 32768).tolist(), 0), whole)


def test_a_stream_shorter_than_a_window_is_one_window():
    (window,) = heard(made(), noise(0.4), 7)
    assert (window.t0, window.t1) == (0.0, 0.4)
    assert heard(made(), np.zeros(0, np.float32), 1) == []


def test_close_gives_no_window_twice():
    stream = made()
    assert [w.t1 for w in stream.push(noise(1.5))] == [1.0, 1.25, 1.5]
    assert stream.close() == []
    assert stream.close() == []
    with pytest.raises(AsjaxError, match="closed"):
        stream.push(noise(0.1))


@pytest.mark.parametrize("stream", [Stream, EventStream])
@pytest.mark.parametrize("tagger", ["runs/live", None, Path("x")])
def test_a_path_is_no_tagger(stream, tagger):
    with pytest.raises(AsjaxError, match=r"a stream needs a tagger, such as asjax.load"):
        stream(tagger)


def test_a_rate_of_zero_is_not_the_default():
    with pytest.raises(AsjaxError, match="its rate must be 100"):
        made(rate=0)


def test_only_the_newest_window_is_computed_when_time_is_short():
    wave, stream = noise(4), made()
    all_of_it = heard(made(), wave, 0)
    first = stream.push(wave[:1100], newest=True)
    late = stream.push(wave[1100:3100], newest=True)
    assert [w.t1 for w in first + late] == [1.0, 3.0]
    assert stream.skipped == 7
    same(late, [w for w in all_of_it if w.t1 == 3.0])
    same(stream.push(wave[3100:3400], newest=True), [w for w in all_of_it if w.t1 == 3.25])
    assert stream.skipped == 7


class Numb:
    """A tagger that says nothing, so that the memory is that of the stream."""

    sample_rate, clip_s, label_set = 16_000, 2.0, LABELS

    def __call__(self, source):
        return [None for _ in source]


def test_memory_does_not_grow_in_ten_minutes():
    stream, chunk = Stream(Numb(), 2.0, 0.5, rate=44_100), noise(1, 44_100)
    tracemalloc.start()
    try:
        for second in range(600):
            stream.push(chunk)
            if second == 10:
                tracemalloc.reset_peak()
                early = tracemalloc.get_traced_memory()[0]
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stream.duration_s == 600
    # 10 minutes are 38 MB at the tagger's rate, a window is 0.13 MB
    assert now - early < 300_000
    assert peak - early < 1_500_000


def test_latency_is_a_hop_and_the_measured_computation():
    stream = made()
    assert HOP_S < stream.latency_s < HOP_S + 60


def test_nan_counts_as_zero_and_is_said_once():
    wave = noise(2)
    wave[[100, 900, 1500]] = [np.nan, np.inf, -np.inf]
    stream = made()
    with pytest.warns(UserWarning, match="NaN or infinite") as caught:
        found = heard(stream, wave, 160)
    assert len(caught) == 1
    assert stream.not_finite == 3
    wave[[100, 900, 1500]] = 0
    same(found, heard(made(), wave, 0))


def test_a_wrong_scale_is_said_once():
    with pytest.warns(UserWarning, match="full scale") as caught:
        heard(made(), noise(3) * 32768, 100)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (dict(window_s=0.5, hop_s=0.1), "window_s must be 1 to"),
        (dict(window_s=4.5), "the model hears windows of up to 4 s"),
        (dict(hop_s=0), "hop_s must be 0.01 to 1 s"),
        (dict(hop_s=1.5), "hop_s must be"),
        (dict(hop_s="a"), "hop_s must be a number of seconds"),
        (dict(rate=3), "rate must be 100 to"),
    ],
)
def test_settings_out_of_range_are_one_line(how, text):
    with pytest.raises(AsjaxError, match=text):
        made(**how)


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (np.zeros((2, 3, 4)), "float or signed integer"),
        (np.zeros(3, np.uint8), "float or signed integer"),
        (np.zeros((3, 65)), "1 to 64 channels"),
        ("abc", "float or signed integer"),
    ],
)
def test_samples_of_another_form_are_one_line(samples, text):
    with pytest.raises(AsjaxError, match=text):
        made().push(samples)


class Foreign:
    """A tagger with the public side only, as one of another runtime may have it."""

    sample_rate, clip_s, label_set = ONE.sample_rate, 1.0, ONE.label_set

    def __init__(self):
        self._one = ONE.windowed(1.0)

    def __call__(self, source):
        return self._one(source)


def test_a_tagger_of_another_kind_needs_the_public_side_only():
    wave = noise(3)
    same(heard(Stream(Foreign(), 1.0, HOP_S), wave, 160), heard(made(), wave, 0))
    other = Foreign()
    other.clip_s = 3.0
    with pytest.raises(AsjaxError, match="windows of 3 s only"):
        Stream(other, 2.0)
