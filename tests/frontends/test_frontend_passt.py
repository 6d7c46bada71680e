"""PaSST's log-mel and frontends based on it, against the authors' numbers and float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule

from asjax.config import AsjaxError
from asjax.frontends import build, stft
from asjax.models import passt

NAMES = [
    "passt_mel128", "passt_mel128_hop100", "passt_mel128_hop160", "mn_mel128", "fpasst_mel128",
    "frame_mn_mel128",
]  # fmt: skip


def _relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


def _noise(*shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _exact_filters(rate, n_fft, n_mels, fmin, fmax):
    """Kaldi's triangles in float64, one by one."""
    mel = lambda hz: 1127 * np.log(1 + hz / 700)  # noqa: E731
    edges = np.linspace(mel(fmin), mel(fmax), n_mels + 2)
    table = np.zeros((n_fft // 2 + 1, n_mels))
    for k in range(n_fft // 2):
        at = mel(k * rate / n_fft)
        for band in range(n_mels):
            left, peak, right = edges[band : band + 3]
            if left < at < right:
                table[k, band] = min((at - left) / (peak - left), (right - at) / (right - peak))
    return table


def _naive(wave, f, filters):
    """The formula in float64, frame by frame."""
    x = wave[1:].astype(np.float64) - f.preemphasis * wave[:-1]
    x = np.pad(x, f.n_fft // 2, mode="reflect")
    period = f.window if f.periodic else f.window - 1
    window = np.zeros(f.n_fft)
    left = (f.n_fft - f.window) // 2
    window[left : left + f.window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(f.window) / period)
    frames = []
    for start in range(0, len(wave), f.hop):
        if start + f.n_fft > len(x):
            break
        power = np.abs(np.fft.rfft(x[start : start + f.n_fft] * window)) ** 2
        frames.append((np.log(np.maximum(power @ filters, f.floor) + f.offset) + 4.5) / 5)
    return np.array(frames)


def test_output_and_filters_equal_the_authors(golden):
    manifest, want = golden("frontend_passt_mel128")
    names = manifest["input"]["names"]
    wave = np.stack([rule.waveform(n, 4.0, 32000, salt=manifest["salt"]) for n in names])
    wave[1] = 0
    wave[1, :200] = 0.5
    frontend = build("passt_mel128")
    mel = np.asarray(frontend(wave)).transpose(0, 2, 1)
    assert list(mel.shape) == manifest["outputs"]["mel"]["full_shape"]
    assert _relative(mel[:, :, ::5], want["mel"]) < 1e-5  # the reference's own float32: 3.5e-6
    assert np.abs(mel[:, :, ::5] - want["mel"]).max() < 5e-4
    # float32 in the same order; torch's vectorised logarithm sometimes differs in the last bit
    np.testing.assert_allclose(frontend.mel_filters.T, want["mel_filters"], rtol=0, atol=2e-5)
    assert (want["mel_filters"] == frontend.mel_filters.T).mean() > 0.998


@pytest.mark.parametrize("edges", [(20, 8000), (0, 7000)])
def test_filters_equal_those_of_torchaudio_at_16_khz(edges, golden):
    _, want = golden("sed_mel_banks")
    want = want[f"kaldi_128_512_{edges[0]}_{edges[1]}"]
    table = stft.kaldi_filters(16000, 512, 128, *edges)
    np.testing.assert_allclose(table[:256].T, want, rtol=0, atol=2e-5)
    assert not table[256].any()


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("fpasst", "fpasst_mel128"),
        ("frame_mn06", "frame_mn_mel128"),
        ("frame_mn10", "frame_mn_mel128"),
    ],
)
def test_the_16_khz_frontends_equal_the_authors(case, name, golden):
    manifest, want = golden(f"sed_frontend_{case}")
    loud = rule.waveform("waveform", 10.0, 16000, salt=manifest["salt"])
    quiet = (1e-3 * loud).astype(np.float32)
    waves = {
        "waveform": loud[None],
        "quiet_1e-3": quiet[None],
        "silence": 0 * loud[None],
        "batch_waveform_quiet": np.stack([loud, quiet]),
    }
    for key, wave in waves.items():
        mel = np.asarray(build(name)(wave)).transpose(0, 2, 1)[:, None]
        assert list(mel.shape) == manifest["outputs"][key]["full_shape"]
        mel = mel[..., want[f"{key}_frames"]]
        assert _relative(mel, want[key]) < 1e-5, key  # the reference's own: up to 6e-6
        assert np.abs(mel - want[key]).max() < 5e-4, key


@pytest.mark.parametrize(
    "fields",
    [
        dict(sample_rate=16000, n_fft=400, window=400, hop=161, n_mels=20, fmin=30, fmax=7999),
        dict(sample_rate=44100, n_fft=2048, window=1001, n_mels=64, periodic=True, floor=1e-3),
        dict(hop=100, preemphasis=0.5, offset=1e-3, fmax_aug_range=1),
    ],
)
def test_any_setting_equals_the_formula_in_float64(fields):
    frontend, wave = build("passt_mel128", **fields), _noise(2, 9000)
    edges = (frontend.n_mels, frontend.fmin, frontend.fmax)
    filters = _exact_filters(frontend.sample_rate, frontend.n_fft, *edges)
    np.testing.assert_allclose(frontend.mel_filters, filters, rtol=0, atol=6e-5)
    for row, got in zip(wave, frontend(wave), strict=True):
        want = _naive(row, frontend, filters)
        assert got.shape == want.shape
        assert _relative(got, want) < 1e-5


# ------------------------------------------------------------------------------------ training


def test_edges_are_drawn_in_whole_hz_from_the_authors_ranges():
    frontend = build("passt_mel128")
    assert frontend.draws_in_training
    keys = jax.random.split(jax.random.key(0), 4000)
    fmin, fmax = map(np.asarray, jax.vmap(frontend.draw_edges)(keys))
    assert sorted(set(fmin)) == list(range(10))
    np.testing.assert_array_equal(fmax, np.round(fmax))
    assert fmax.min() in range(14001, 14006)
    assert fmax.max() in range(15996, 16001)
    assert abs(fmax.mean() - 15000.5) < 3 * 577 / 4000**0.5
    assert abs(np.corrcoef(fmin, fmax)[0, 1]) < 0.05


@pytest.mark.parametrize("name", ["passt_mel128", "fpasst_mel128"])
def test_drawn_filters_equal_numpys(name):
    frontend = build(name)
    size = (frontend.sample_rate, frontend.n_fft, frontend.n_mels)
    for seed in range(6):
        key = jax.random.key(seed)
        table = stft.kaldi_filters(*size, *map(float, frontend.draw_edges(key)))
        drawn = jax.jit(frontend.draw_filters)(key)
        # float32 mels have the same rounding except for the order of one multiplication and
        # addition
        np.testing.assert_allclose(drawn, table, rtol=0, atol=5e-5)
        assert not np.array_equal(table, frontend.mel_filters)


def test_a_key_changes_the_filters_of_the_whole_batch_and_only_them():
    frontend, wave = build("passt_mel128"), _noise(1, 12000).repeat(2, 0)
    key = jax.random.key(3)
    drawn = np.asarray(frontend(wave, rng=key))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn, frontend(wave, rng=key))
    assert np.abs(drawn - frontend(wave)).max() > 0.01
    want = _naive(wave[0], frontend, np.asarray(frontend.draw_filters(key), np.float64))
    assert _relative(drawn[0], want) < 1e-5
    fixed = build("passt_mel128", fmin_aug_range=1, fmax_aug_range=1, fmax=15000)
    np.testing.assert_allclose(fixed(wave, rng=key), fixed(wave), rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("name", NAMES)
def test_any_length_gives_one_frame_for_each_started_hop_of_the_shortened_wave(name):
    frontend = build(name)
    for samples in (1, 2, frontend.hop, frontend.hop + 1, frontend.n_fft // 2 + 2, 5001):
        feats = frontend(_noise(2, samples))
        assert feats.shape == (2, 1 + (samples - 1) // frontend.hop, 128)
        assert feats.dtype == jnp.float32
        assert np.isfinite(feats).all()


def test_ten_seconds_fill_the_encodings():
    frames = {n: jax.eval_shape(build(n), jnp.zeros((1, 320000))).shape[1] for n in NAMES[:3]}
    assert frames == dict(zip(NAMES[:3], (1000, 3200, 2000), strict=True))


def test_silence_is_what_the_model_pads_with():
    feats = build("passt_mel128")(np.zeros((1, 4000), np.float32))
    np.testing.assert_allclose(feats, passt.SILENCE, rtol=1e-6)


def test_int16_is_read_at_full_scale():
    pcm = (_noise(1, 4000) * 32768).astype(np.int16)
    frontend = build("passt_mel128")
    np.testing.assert_array_equal(frontend(pcm), frontend(pcm.astype(np.float32) / 32768))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(n_fft=1023), "n_fft must be even"),
        (dict(window=2000), "window must be in 2..1024"),
        (dict(fmax=17000), "fmax must be in 0..16000"),
        (dict(fmin=14500, fmax=15000), "in every draw of training"),
        (dict(offset=0), "offset or floor"),
        (dict(preemphasis=2), "preemphasis must be in 0..1"),
        (dict(periodic=1), "periodic must be true or false"),
        (dict(fmin_aug_range=0), "fmin_aug_range must be in"),
        (dict(mels=3), "n_mels"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields, words):
    with pytest.raises(AsjaxError, match=words) as caught:
        build("passt_mel128", **fields)
    assert "\n" not in str(caught.value)


def test_a_wave_of_one_axis_is_refused():
    with pytest.raises(AsjaxError, match="wave"):
        build("passt_mel128")(np.zeros(100, np.float32))
