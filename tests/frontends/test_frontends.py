"""Log-mel frontends against the authors' numbers, librosa and float64 numpy."""

import warnings

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import rule
from reference.frontends import logmel as naive_logmel

from asjax.config import AsjaxError
from asjax.frontends import build, panns
from asjax.frontends.stft import slaney_filters as mel_filters

CASES = ["frontend_panns_logmel64", "frontend_convnext_logmel224"]


def _input(manifest):
    wave = np.stack(
        [rule.waveform(n, 4.0, 32000, salt=manifest["salt"]) for n in manifest["input"]["names"]]
    )
    wave[1] = 0
    wave[1, :200] = 0.5
    return wave


def _relative(a, b):
    return np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b)


def _strided(full, info):
    return np.asarray(full)[tuple(slice(None, None, s) for s in info["stride"])]


def _noise(shape, scale=0.1, seed=0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_output_equals_the_published_frontend(case, golden):
    manifest, want = golden(case)
    frontend = build(case.removeprefix("frontend_"))
    wave = _input(manifest)
    power, logmel = frontend.power(wave), frontend(wave)
    assert list(power.shape) == manifest["outputs"]["power"]["full_shape"]
    assert list(logmel.shape) == manifest["outputs"]["logmel"]["full_shape"]
    assert _relative(_strided(power, manifest["outputs"]["power"]), want["power"]) < 1e-6
    logmel, want = _strided(logmel, manifest["outputs"]["logmel"]), want["logmel"]
    # Measured 4.4e-8 and 1.7e-7: the rounding of a float32 FFT, seen in bands 60 dB and more below
    # the loudest of their frame (float64 arithmetic with these filters: see the next test).
    assert _relative(logmel, want) < 4e-7
    error = np.abs(logmel - want)
    assert error.max() < {64: 1e-4, 224: 2.5e-3}[want.shape[-1]]
    assert error[want > want.max(-1, keepdims=True) - 30].max() < 4e-5


@pytest.mark.parametrize(("case", "limit"), [(CASES[0], 1.3e-5), (CASES[1], 5.7e-4)])
def test_float64_numpy_oracle_equals_the_published_frontend(case, limit, golden):
    manifest, want = golden(case)
    exact = naive_logmel(_input(manifest), build(case.removeprefix("frontend_")))
    exact = _strided(exact, manifest["outputs"]["logmel"])
    assert np.abs(exact - want["logmel"]).max() < limit
    assert _relative(exact, want["logmel"]) < 5e-8


@pytest.mark.parametrize("case", CASES)
def test_mel_filters_equal_those_in_the_checkpoints_bit_for_bit(case, golden):
    _, want = golden(case)
    table = build(case.removeprefix("frontend_")).mel_filters
    np.testing.assert_array_equal(table, want["mel_filters"])


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000])
@pytest.mark.parametrize("n_fft", [256, 1000, 1023, 2048])
@pytest.mark.parametrize(("n_mels", "fmin", "fmax"), [(1, 0, 4000), (32, 0, 1), (64, 50, 0.9)])
def test_mel_filters_equal_librosa(rate, n_fft, n_mels, fmin, fmax):
    fmax = fmax * rate / 2 if fmax <= 1 else fmax
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa warns of empty filters
        want = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    got = mel_filters(rate, n_fft, n_mels, fmin, fmax)
    np.testing.assert_allclose(got, want.T, rtol=3e-7, atol=1e-12)


@pytest.mark.parametrize("name", sorted(panns.VARIANTS))
def test_every_preset_equals_float64_numpy(name):
    frontend = build(name)
    wave = _noise((2, 3 * frontend.n_fft + 77))
    want = naive_logmel(wave, frontend)
    got = np.asarray(frontend(wave))
    assert got.dtype == np.float32
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "n_fft", "hop", "fmax"),
    [
        ("panns_logmel64", 1024, 320, 14000),
        ("panns_logmel64_16k", 512, 160, 8000),
        ("panns_logmel64_8k", 256, 80, 4000),
    ],
)
def test_rates_follow_the_published_table(name, n_fft, hop, fmax):
    frontend = build(name)
    assert (frontend.n_fft, frontend.hop, frontend.fmax) == (n_fft, hop, fmax)
    assert (frontend.window, frontend.fmin, frontend.n_mels) == (n_fft, 50, 64)


@pytest.mark.parametrize("n_mels", [32, 64, 128, 224])
def test_no_band_is_empty_at_the_published_sizes(n_mels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frontend = build("panns_logmel", n_mels=n_mels)
        build("convnext_logmel224_16k")
    assert frontend.mel_filters.max(0).min() > 0


def test_empty_bands_are_told():
    with pytest.warns(UserWarning, match=r"of 224 mel bands contain no FFT bin .* raise n_fft"):
        build("panns_logmel64_16k", n_mels=224)


@pytest.mark.parametrize("samples", [0, 1, 100, 511, 512, 513, 1023, 1024, 12345])
def test_awkward_lengths_give_finite_frames_equal_to_numpy(samples):
    frontend = build("panns_logmel64")
    wave = _noise((2, samples))
    got = np.asarray(frontend(wave))
    assert got.shape == (2, 1 + samples // 320, 64)
    np.testing.assert_allclose(got, naive_logmel(wave, frontend), atol=2e-4)


def test_twenty_millisecond_hop_and_short_window_equal_numpy():
    frontend = build("panns_logmel", sample_rate=16000, hop=320, window=400, fmin=0, fmax=7600)
    wave = _noise((1, 16000))
    got = np.asarray(frontend(wave))
    assert got.shape == (1, 51, 64)
    np.testing.assert_allclose(got, naive_logmel(wave, frontend), atol=2e-4)


def test_silence_and_underflow_are_exactly_the_floor():
    frontend = build("panns_logmel64_16k")
    for level in (0.0, 1e-30, -1e-38, 1e-45):
        got = np.asarray(frontend(np.full((1, 4000), level, np.float32)))
        np.testing.assert_array_equal(got, np.float32(-100))


def test_quiet_tone_beside_loud_clip_keeps_its_accuracy():
    tone = np.sin(2 * np.pi * 440 / 16000 * np.arange(8000))
    frontend = build("panns_logmel64_16k")
    wave = np.stack([tone, 1e-3 * tone]).astype(np.float32)
    got, want = np.asarray(frontend(wave)), naive_logmel(wave, frontend)
    loud = want > want.max(axis=(1, 2), keepdims=True) - 60
    np.testing.assert_allclose(got[loud], want[loud], atol=1e-4)
    np.testing.assert_array_equal(got[1:], np.asarray(frontend(wave[1:])))


def test_rows_do_not_see_each_other():
    frontend = build("panns_logmel64_16k")
    wave = _noise((3, 4000))
    alone = np.concatenate([np.asarray(frontend(wave[i : i + 1])) for i in range(3)])
    np.testing.assert_allclose(np.asarray(frontend(wave)), alone, atol=1e-5)


def test_gain_of_ten_adds_twenty_decibels():
    frontend = build("convnext_logmel224_16k")
    wave = _noise((1, 8000), 1e-2)
    np.testing.assert_allclose(frontend(10 * wave) - frontend(wave), 20, atol=1e-3)


def test_integer_waves_are_scaled_by_their_range():
    frontend = build("panns_logmel64_16k")
    pcm = np.random.default_rng(1).integers(-32768, 32767, (2, 4000)).astype(np.int16)
    want = np.asarray(frontend(pcm.astype(np.float32) / 32768))
    np.testing.assert_array_equal(np.asarray(frontend(pcm)), want)
    wide = pcm.astype(np.int32) * 65536
    np.testing.assert_array_equal(np.asarray(frontend(wide)), want)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_waves_are_computed_in_float32(dtype):
    frontend = build("panns_logmel64_16k")
    wave = jnp.asarray(_noise((1, 4000)), dtype)
    got = frontend(wave)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, frontend(wave.astype(jnp.float32)))


def test_default_matmul_precision_does_not_change_the_result():
    wave = _noise((1, 4000))
    with jax.default_matmul_precision("bfloat16"):
        low = jax.jit(lambda w: build("panns_logmel64_8k")(w))(wave)
    np.testing.assert_allclose(low, naive_logmel(wave, build("panns_logmel64_8k")), atol=2e-4)


def test_equal_frontends_compile_once_and_work_inside_jit():
    wave = _noise((2, 1234))
    before = panns._logmel._cache_size()
    first = build("panns_logmel", sample_rate=16000, hop=200)(wave)
    second = build("panns_logmel", sample_rate=16000, hop=200)(wave + 0)
    assert panns._logmel._cache_size() == before + 1
    np.testing.assert_array_equal(first, second)
    inside = jax.jit(build("panns_logmel", sample_rate=16000, hop=200))(wave)
    np.testing.assert_allclose(inside, first, atol=1e-5)


def test_batch_sharded_over_devices_gives_the_same_without_communication():
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()[:2]), ("data",), axis_types=(AxisType.Auto,))
    frontend, wave = build("panns_logmel64_16k"), _noise((4, 4000))
    placed = jax.device_put(wave, NamedSharding(mesh, PartitionSpec("data")))
    step = jax.jit(lambda w: frontend(w))
    text = step.lower(placed).compile().as_text()
    assert "all-" not in text  # XLA alone gathers the whole batch for an FFT
    assert step(placed).sharding.spec[0] == "data"
    np.testing.assert_allclose(step(placed), frontend(wave), atol=1e-5)


def test_gradient_to_the_wave_equals_finite_differences():
    frontend, wave = build("panns_logmel64_8k"), _noise((1, 800))
    way = _noise((1, 800), 1.0, seed=1)
    got = (jax.grad(lambda w: frontend(w).mean())(wave) * way).sum()
    up, down = (naive_logmel(wave + s * 1e-5 * way, frontend).mean() for s in (1.0, -1.0))
    np.testing.assert_allclose(got, (up - down) / 2e-5, rtol=1e-3)


def test_a_frontend_tells_its_settings():
    frontend = build("convnext_logmel224", sample_rate=32000)
    assert (frontend.sample_rate, frontend.n_mels, frontend.hop) == (32000, 224, 320)
    assert "n_mels=224" in repr(frontend)
    assert "hop=320" in repr(frontend)
    assert frontend == build("panns_logmel", n_mels=224)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("panns_logmel46", {}, "did you mean 'panns_logmel64'.*convnext_logmel224"),
        ("panns_logmel", {"nmels": 64}, "field 'nmels' does not exist.*n_mels.*window"),
        ("panns_logmel", {"n_mels": 0}, "n_mels must be in 1"),
        ("panns_logmel", {"n_mels": "64"}, "n_mels must be an integer, got '64'"),
        ("panns_logmel", {"hop": 0}, "hop must be in 1"),
        ("panns_logmel", {"hop": True}, "hop must be an integer"),
        ("panns_logmel", {"window": 2000}, "window must be in 2..1024"),
        ("panns_logmel", {"fmax": 20000}, r"fmax must be in 0..16000 Hz, got 20000"),
        ("panns_logmel", {"fmin": "low"}, "fmin must be a number"),
        ("panns_logmel", {"fmin": 200, "fmax": 200}, "fmin must be below fmax"),
        ("panns_logmel", {"sample_rate": 0}, "sample_rate must be in"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(name, fields, message):
    with pytest.raises(AsjaxError, match=message):
        build(name, **fields)


def test_a_wrong_wave_is_one_clear_error():
    frontend = build("panns_logmel64_16k")
    with pytest.raises(AsjaxError, match=r"must be \[B, S\], got shape \(400,\)"):
        frontend(np.zeros(400, np.float32))
    with pytest.raises(AsjaxError, match="signed integer.*got uint8"):
        frontend(np.zeros((1, 400), np.uint8))
