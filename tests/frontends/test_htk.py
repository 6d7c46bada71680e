"""torchaudio's HTK mel in dB against the authors' numbers and float64 numpy, for any length."""

import numpy as np
import pytest
import rule

from asjax.config import AsjaxError
from asjax.frontends import build, htk

NAMES = ["ced_logmel64", "atst_logmel64", "atst_frame_logmel64"]


def _relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


def _exact_filters(n_fft, fmin, fmax, n_mels=64, rate=16000):
    """HTK's triangles in float64, band by band."""
    mels = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (fmin, fmax)), n_mels + 2)
    hz = 700 * (10 ** (mels / 2595) - 1)
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    return np.stack([np.interp(bins, hz[i : i + 3], [0, 1, 0]) for i in range(n_mels)], 1)


def _naive(wave, name):
    """[S] -> [T, 64] in float64, frame by frame; for waves longer than half a window."""
    n_fft, fmin, fmax, top = (512, 0, 8000, 120) if name == NAMES[0] else (1024, 60, 7800, 80)
    wave = np.pad(wave.astype(np.float64), n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = [wave[i : i + n_fft] * window for i in range(0, len(wave) - n_fft + 1, 160)]
    mel = np.abs(np.fft.rfft(frames)) ** 2 @ _exact_filters(n_fft, fmin, fmax)
    db = 10 * np.log10(np.maximum(mel, 1e-10))
    db = np.maximum(db, db.max() - top)
    if name == NAMES[0]:
        return db
    db = np.clip(db, -50, 80) if name == NAMES[2] else db
    return (db + 79.6482) / (50.6842 + 79.6482) * 2 - 1


def _wave(seconds=1.0, seed=0):
    t = np.arange(int(16000 * seconds)) / 16000
    noise = 1e-3 * np.random.default_rng(seed).standard_normal(t.size)
    return (0.5 * np.sin(2 * np.pi * 440 * t) * (t < 0.5) + noise).astype(np.float32)


def test_the_filters_are_torchaudios(golden):
    _, banks = golden("sed_mel_banks")
    ours = htk.filters(16000, 1024, 64, 60, 7800)
    assert _relative(ours, banks["atst_fb_513x64"]) < 5e-7
    assert _relative(ours, _exact_filters(1024, 60, 7800)) < 1e-5
    with pytest.raises(ValueError, match="read-only"):
        ours[0] = 1


def test_the_features_are_pretrainedseds(golden):
    manifest, want = golden("sed_frontend_atst_frame")
    wave = rule.waveform("waveform", 10.0, 16000, salt=manifest["salt"])[None]
    quiet = (wave * np.float32(1e-3)).astype(np.float32)
    own, batch = (build("atst_frame_logmel64", top_db_scope=s) for s in ("clip", "batch"))
    found = {
        "waveform": own(wave),
        "quiet_1e-3": own(quiet),
        "silence": own(0 * wave),
        "batch_waveform_quiet": batch(np.concatenate([wave, quiet])),
    }
    for name, feats in found.items():
        feats = np.asarray(feats).swapaxes(1, 2)[:, None]
        assert list(feats.shape) == manifest["outputs"][name]["full_shape"]
        assert _relative(feats[..., want[name + "_frames"]], want[name]) < 1e-6, name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [600, 1000, 16000])
def test_the_features_are_those_of_float64_numpy(name, samples):
    wave = _wave()[:samples] * np.float32(0.8)
    feats = build(name)(wave[None])
    assert feats.shape == (1, 1 + samples // 160, 64)
    assert feats.dtype == np.float32
    assert _relative(feats[0], _naive(wave, name)) < 2e-5


def test_a_clip_does_not_depend_on_its_batch_unless_asked_to():
    loud, quiet = _wave(), _wave(seed=1) * np.float32(1e-4)
    for name in NAMES:
        both = build(name)(np.stack([loud, quiet]))
        np.testing.assert_allclose(both[1], build(name)(quiet[None])[0], atol=1e-5)
    batch = build("atst_logmel64", top_db_scope="batch")
    floor = float(batch(loud[None]).max()) - 2 * 80 / (50.6842 + 79.6482)
    assert np.isclose(batch(np.stack([loud, quiet]))[1].min(), floor, atol=1e-5)
    assert build("atst_logmel64")(quiet[None]).min() < floor - 0.1


def test_only_the_frame_model_limits_the_decibels():
    wave = _wave()[None] * np.float32(1e-4)
    clip, frame = build("atst_logmel64")(wave), build("atst_frame_logmel64")(wave)
    low = (-50 + 79.6482) / (50.6842 + 79.6482) * 2 - 1
    assert np.isclose(frame.min(), low)
    assert clip.min() < low - 0.1
    np.testing.assert_allclose(frame, np.maximum(clip, low), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_any_length_silence_and_integers(name):
    frontend = build(name)
    assert (frontend.sample_rate, frontend.n_mels, frontend.hop) == (16000, 64, 160)
    for samples in (1, 159, 160, 511):
        feats = frontend(_wave()[None, :samples])
        assert feats.shape == (1, 1 + samples // 160, 64)
        assert np.isfinite(feats).all()
    silent = np.unique(frontend(np.zeros((2, 3200), np.float32)))
    low = {NAMES[0]: -100, NAMES[1]: (-100 + 79.6482), NAMES[2]: (-50 + 79.6482)}[name]
    low = low if name == NAMES[0] else low / (50.6842 + 79.6482) * 2 - 1
    np.testing.assert_allclose(silent, low, rtol=1e-6)
    wave = np.random.default_rng(0).integers(-20000, 20000, (1, 3200), dtype=np.int16)
    np.testing.assert_array_equal(frontend(wave), frontend(wave / np.float32(32768)))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (dict(fmin=9000, fmax=5000), "fmin must be in 0..5000 Hz"),
        (dict(fmin=4000, fmax=4000), "fmin must be below fmax"),
        (dict(fmax=9000), "fmax must be in 0..8000 Hz"),
        (dict(top_db=-1), "top_db must be in 0..1e+06 dB"),
        (dict(top_db_scope="file"), "top_db_scope must be clip or batch, got 'file'"),
        (dict(clamp=3), "clamp must be a pair (low, high) in dB or None, got 3"),
        (dict(minmax=(2, 1)), "minmax must be (low, high) with low < high"),
        (dict(n_mels=0), "n_mels must be in 1.."),
        (dict(window=2048), "window must be in 2..512"),
    ],
)
def test_wrong_fields_are_named_in_one_line(fields, text):
    with pytest.raises(AsjaxError) as caught:
        build("htk_logmel", **fields)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_limits_may_be_lists_and_be_left_out():
    frontend = build("atst_frame_logmel64", clamp=[-50, 80], minmax=None, top_db=None)
    assert frontend.clamp == (-50.0, 80.0)
    assert hash(frontend)
    feats = frontend(_wave()[None] * np.float32(1e-3))
    assert feats.min() == -50
    assert feats.max() > -20
