"""M2D's log-mel against nnAudio's numbers and float64 numpy; lengths, wrong fields."""

import numpy as np
import pytest
import rule

from asjax.config import AsjaxError
from asjax.frontends import build


def _relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


def _noise(samples, clips=2):
    return 0.1 * np.random.default_rng(0).standard_normal((clips, samples)).astype(np.float32)


def test_the_filters_are_nnaudios(golden):
    _, banks = golden("sed_mel_banks")
    table = build("m2d_logmel80").mel_filters
    np.testing.assert_array_equal(table.T, banks["m2d_mel_basis_80x201"])


def test_the_features_are_pretrainedseds(golden):
    manifest, want = golden("sed_frontend_m2d")
    frontend = build("m2d_logmel80")
    wave = rule.waveform("waveform", 10.0, 16000, salt=manifest["salt"])
    quiet = (1e-3 * wave).astype(np.float32)
    waves = {
        "waveform": wave[None],
        "quiet_1e-3": quiet[None],
        "silence": 0 * wave[None],
        "batch_waveform_quiet": np.stack([wave, quiet]),
    }
    for case, given in waves.items():
        feats = np.asarray(frontend(given)).swapaxes(1, 2)[:, None]
        assert list(feats.shape) == manifest["outputs"][case]["full_shape"]
        feats = feats[..., want[f"{case}_frames"]]
        assert _relative(feats, want[case]) < 2e-6, case
        assert np.abs(feats - want[case]).max() < 1e-4, case


def test_the_features_are_those_of_float64_numpy():
    frontend = build("m2d_logmel", n_mels=20, n_fft=512, window=300, hop=100, fmin=100, fmax=7000)
    wave = _noise(3000, 1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(300) / 300)
    padded = np.pad(wave[0].astype(np.float64), 256, mode="reflect")
    frames = [padded[t * 100 : t * 100 + 512][106:406] * window for t in range(31)]
    power = np.abs(np.fft.rfft(np.pad(frames, ((0, 0), (106, 106))))) ** 2
    want = (np.log(power @ frontend.mel_filters.astype(np.float64) + 2.0**-23) + 7.1) / 4.2
    assert _relative(frontend(wave)[0], want) < 1e-5


def test_any_length_gives_one_frame_for_each_started_hop():
    frontend = build("m2d_logmel80")
    for samples in (1, 159, 160, 401, 16000):
        feats = frontend(_noise(samples))
        assert feats.shape == (2, 1 + samples // 160, 80)
        assert np.isfinite(feats).all()
    silence = frontend(np.zeros((1, 1000), np.float32))
    np.testing.assert_allclose(silence, (np.log(2.0**-23) + 7.1) / 4.2, rtol=1e-5)


def test_constants_of_a_checkpoint_may_be_given():
    wave = _noise(1000)
    x = build("m2d_logmel80", mean=0, std=1)(wave)
    np.testing.assert_allclose(build("m2d_logmel80")(wave), (x + 7.1) / 4.2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(window=500), "window must be in 2..400"),
        (dict(fmin=9000), "fmin must be in 0..8000"),
        (dict(std=0), "std must be in"),
        (dict(mels=3), "n_mels"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields, words):
    with pytest.raises(AsjaxError, match=words) as caught:
        build("m2d_logmel80", **fields)
    assert "\n" not in str(caught.value)
