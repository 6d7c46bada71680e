"""Embeddings of clips and frames against formulas of the wave."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import small_tagger

from asjax import predict
from asjax.adapters import core
from asjax.config import AsjaxError
from asjax.predict.onnx_tagger import OnnxTagger

RATE, SIZE = small_tagger.RATE, small_tagger.SIZE  # 1000 Hz, windows of 500 samples
BLOCK = 10  # samples of a frame


def _framed(block=BLOCK):
    """The model hears its frames exactly: mean and maximum of each block of samples."""

    def apply(variables, feats, train):
        out = small_tagger._apply(variables, feats, train)
        frames = feats[:, : feats.shape[1] // block * block].reshape(len(feats), -1, block)
        out["frame_embedding"] = jnp.stack([frames.mean(-1), frames.max(-1)], axis=-1)
        return out

    tagger = small_tagger.tagger()
    return predict.Tagger(
        SimpleNamespace(apply=apply),
        tagger.variables,
        tagger.frontend,
        tagger.label_set,
        sample_rate=RATE,
        clip_s=small_tagger.CLIP_S,
        batch_size=4,
    )


def _noise(*shape):
    return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 137, 499, 500, 501, 1234])
def test_clips(samples):
    """A short clip is heard without zeros, a long one as the mean of its windows."""
    waves = _noise(2, samples)
    found = core.Embedder(small_tagger.tagger()).clips(waves)
    for wave, one in zip(waves, found, strict=True):
        if samples < SIZE:
            x = wave.astype(np.float64)
            right = [np.sqrt(np.mean(x**2)), x[0], x[-1], np.abs(x).max()]
        else:
            right = small_tagger.expected(wave)[2].mean(axis=0)
        np.testing.assert_allclose(one, right, rtol=1e-5, atol=1e-6)


def test_clips_of_many_lengths_are_rounded_up():
    embedder = core.Embedder(small_tagger.tagger(), grid_s=0.1)
    waves = [_noise(n) for n in (101, 150, 200, 333, 900)]
    found = embedder.clips(waves)
    x = np.pad(waves[1].astype(np.float64), (0, 50))
    np.testing.assert_allclose(found[1][0], np.sqrt(np.mean(x**2)), rtol=1e-5)
    shorter = sorted(one.window for one in embedder.tagger._others.values())
    assert shorter == [200, 400]  # two more programs, not four


@pytest.mark.parametrize("samples", [10, 95, 500, 505, 760, 2003])
def test_frames(samples):
    """The frames of a recording of any length are those of its blocks, wherever windows meet."""
    waves = _noise(3, samples)
    frames, times = core.Embedder(_framed()).frames(waves)
    blocks = -(-samples // BLOCK)
    padded = np.pad(waves, ((0, 0), (0, blocks * BLOCK - samples))).reshape(3, blocks, BLOCK)
    np.testing.assert_allclose(frames[..., 0], padded.mean(-1), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(frames[..., 1], padded.max(-1))
    np.testing.assert_allclose(times, (np.arange(blocks) + 0.5) * BLOCK / RATE)


def test_slow_frames_are_repeated():
    embedder = core.Embedder(_framed(100), step_s=0.05)
    assert embedder.repeated
    assert embedder.step_s == pytest.approx(0.05)
    wave = _noise(1, 1000)
    frames, times = embedder.frames(wave)
    means = wave[0].reshape(10, 100).mean(-1)
    np.testing.assert_allclose(frames[0, :, 0], np.repeat(means, 2), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(times, 0.025 + 0.05 * np.arange(20))
    fast = core.Embedder(_framed(10), step_s=0.05)
    assert not fast.repeated
    assert fast.step_s == pytest.approx(0.01)


def test_models_without_frames_are_heard_around_each_time():
    """The window around a time has zeros beyond the ends of the clip."""
    wave = _noise(1, 760)
    embedder = core.Embedder(small_tagger.tagger(), step_s=0.05)
    frames, times = embedder.frames(wave)
    assert frames.shape == (1, 16, 4)
    assert embedder.frame_size == 4
    padded = np.pad(wave[0].astype(np.float64), 1000)
    for frame, time in zip(frames[0], times, strict=True):
        first = 1000 + round(time * RATE) - SIZE // 2
        x = padded[first : first + SIZE]
        right = [np.sqrt(np.mean(x**2)), x[0], x[-1], np.abs(x).max()]
        np.testing.assert_allclose(frame, right, rtol=1e-5, atol=1e-6)


def test_fixed_frames_of_a_frontend_count_beyond_the_window():
    """As for AST: the frontend pads a window of 0.5 s to 0.6 s, and frames tell the true time."""
    tagger = _framed()

    class Padding:
        frames, hop, sample_rate = 60, 10, RATE

        def __call__(self, wave):
            return jnp.pad(wave, ((0, 0), (0, 100)))

    tagger.frontend = Padding()
    wave = _noise(1, 1200)
    frames, times = core.Embedder(tagger).frames(wave)
    np.testing.assert_allclose(
        frames[0, :, 0], wave.reshape(120, 10).mean(-1), rtol=1e-4, atol=1e-6
    )
    assert times[-1] == pytest.approx(1.195)


@pytest.mark.parametrize(
    ("waves", "says"),
    [
        (np.zeros(5, np.float32), "must be [clips, samples], got [5]"),
        (np.zeros((2, 0), np.float32), "clip 0 must be a wave"),
        (np.zeros((2, 5), np.int16), "wave of floats"),
        ([np.zeros(5, np.float32), np.full(5, np.nan, np.float32)], "clip 1 has values"),
        ([], "no clip"),
        ("text", "audio"),
    ],
)
def test_wrong_waves(waves, says):
    with pytest.raises(AsjaxError, match=says.replace("[", r"\[")):
        core.Embedder(small_tagger.tagger()).clips(waves)


@pytest.mark.parametrize("name", ["step_s", "grid_s"])
@pytest.mark.parametrize("value", [-1, "x", float("nan"), True, 4000])
def test_a_wrong_length_is_named(name, value):
    with pytest.raises(AsjaxError, match=f"{name} must be 0"):
        core.Embedder(small_tagger.tagger(), **{name: value})


def test_a_step_of_zero_is_named():
    with pytest.raises(AsjaxError, match=r"step_s must be 0\.001 to 3600 seconds, got 0"):
        core.Embedder(small_tagger.tagger(), step_s=0)


def test_an_onnx_file_is_named(monkeypatch):
    file = object.__new__(OnnxTagger)
    monkeypatch.setattr(predict, "load", lambda path, **settings: file)
    for model in (file, "tagger.onnx"):
        with pytest.raises(AsjaxError, match=r"\.onnx file cannot be adapted"):
            core.Embedder(model)
