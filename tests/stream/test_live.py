"""Streams of a causal model: the carried state against the whole recording."""

import jax
import numpy as np
import pytest
from small_tagger import LABELS

from asjax import frontends, models, predict
from asjax.config import AsjaxError
from asjax.predict import Event
from asjax.stream import EventStream, Stream

RATE, SECONDS = 16_000, 4.0
RNG = np.random.default_rng(3)
WAVE = (RNG.normal(size=round(RATE * SECONDS)) * 0.2).astype(np.float32)
WAVE[20_000:40_000] *= np.sin(np.arange(20_000) / 9).astype(np.float32)


def model_of(**fields):
    module = models.build("talnet", "crnn_causal", num_classes=4, width=32, **fields)
    variables = module.init(jax.random.key(0), np.zeros((1, 8, 64), np.float32))
    return module, jax.tree.map(
        lambda a: a + 0.02 * RNG.normal(size=a.shape).astype("f"), variables
    )


def tagger_of(clip_s=SECONDS, **frontend):
    how = dict(sample_rate=RATE, n_mels=64, n_fft=512, hop=320, centred=False)
    front = frontends.build("panns_logmel", **{**how, **frontend})
    return predict.Tagger(*MODEL, front, LABELS, sample_rate=RATE, clip_s=clip_s)


MODEL = model_of()
TAGGER = tagger_of()
WHOLE = TAGGER((WAVE, RATE))


@pytest.mark.parametrize("size", [1, 160, 4001, 0])
def test_frames_are_those_of_the_whole_recording_for_any_chunks(size):
    wave = WAVE[: RATE // 2] if size == 1 else WAVE
    live, found = TAGGER.live(), []
    for i in range(0, len(wave), size or len(wave)):
        found.append(live.push(wave[i : i + (size or len(wave))]))
    found = np.concatenate([*found, live.close()])
    assert live.frame_rate == TAGGER.frame_rate == 12.5
    wanted = WHOLE.frames[: len(found)]
    assert len(found) == -(-len(wave) // 1280)
    last = len(wave) // 1280  # an incomplete last frame is filled with silence
    np.testing.assert_allclose(found[:last], wanted[:last], atol=1e-5)
    assert np.ptp(wanted, axis=0).max() > 1e-3


def test_an_incomplete_last_frame_is_filled_with_silence():
    wave = WAVE[: 10 * 1280 + 333]
    live = TAGGER.live()
    found = np.concatenate([live.push(wave), live.close()])
    filled = np.zeros(round(RATE * SECONDS), np.float32)
    filled[: len(wave)] = wave
    np.testing.assert_allclose(found, TAGGER((filled, RATE)).frames[:11], atol=1e-5)
    assert len(TAGGER.live().close()) == 0


def test_events_are_those_of_the_whole_recording():
    level = float(np.median(WHOLE.frames))
    how = dict(threshold=level, median=0.24)
    wanted = WHOLE.events(**how)
    assert len(wanted) >= 4
    for size in (160, 4001):
        stream, marks = EventStream(TAGGER, **how), []
        for i in range(0, len(WAVE), size):
            marks += stream.push(WAVE[i : i + size])
        marks += stream.close()
        found = sorted(mark for mark in marks if isinstance(mark, Event))
        assert [m[:3] for m in found] == [m[:3] for m in sorted(wanted)]
        np.testing.assert_allclose(
            [m.probability for m in found], [m.probability for m in sorted(wanted)], atol=1e-5
        )
    assert stream.latency_s < 1.0 or stream._clock.compute_s > 0.5


@pytest.mark.parametrize("size", [160, 4001, 0])
def test_tags_pool_the_frames_of_their_window(size):
    stream, found = Stream(TAGGER, 1.0, 0.5), []
    for i in range(0, len(WAVE), size or len(WAVE)):
        found += stream.push(WAVE[i : i + (size or len(WAVE))])
    found += stream.close()
    assert [w.t1 for w in found] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    for window in found:  # frames of 80 ms that lie in the window
        first, end = int(np.ceil(window.t0 / 0.08 - 1e-9)), int(window.t1 / 0.08 + 1e-9)
        p = WHOLE.frames[first:end].astype(np.float64)
        np.testing.assert_allclose(window.tags.clip, (p * p).sum(0) / p.sum(0), atol=1e-5)
        assert len(window.tags.frames) == end - first


def test_a_short_stream_is_one_window():
    stream = Stream(TAGGER, 1.0, 0.5)
    assert stream.push(WAVE[:100]) == []
    (window,) = stream.close()
    assert window.t1 == 100 / RATE
    assert len(window.tags.frames) == 1


def test_a_frontend_that_looks_ahead_is_not_causal():
    assert TAGGER.causal
    centred = tagger_of(centred=True)
    assert not centred.causal
    with pytest.raises(AsjaxError, match="looks ahead"):
        centred.live()
