"""Kaldi's filter bank and ATDR's log-mel against the references' numbers and float64 numpy."""

import jax
import librosa
import numpy as np
import pytest
import rule
from reference import fbank

from asjax import frontends
from asjax.config import AsjaxError
from asjax.frontends import atdr, stft

SILENCE = np.float32(np.log(2.0**-23))


def _relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def _noise(shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _wave(manifest):
    given = manifest["input"]
    return rule.waveform(
        given["name"], given["seconds"], given["sample_rate"], salt=manifest["salt"]
    )


def _within(found, want, manifest, floor=0.0):
    """Every output within 20 times the reference's own float32 error."""
    assert set(found) == set(want) - {"mel_banks", "mel_fb", "multiplier", "frames"}
    for name, array in found.items():
        limit = max(20 * manifest["float32_error"][name], floor)
        assert np.shape(array) == want[name].shape
        assert _relative(array, want[name]) < limit, name


@pytest.mark.parametrize("case", ["frontend_kaldi128_10s", "frontend_kaldi128_1p3s"])
def test_kaldi_equals_torchaudio(case, golden):
    manifest, want = golden(case)
    frontend = frontends.build("kaldi_fbank128")
    wave = _wave(manifest)[None]
    raw, feats = np.asarray(frontend.logmel(wave))[0], np.asarray(frontend(wave))[0]
    assert (len(raw), len(feats)) == (want["frames"][0], 1024)
    found = dict(fbank=raw[::5], fbank_head=raw[:4], fbank_tail=raw[-4:])
    found |= dict(normalised_head=feats[:2], normalised_last=feats[-2:])
    found["stats"] = [raw.mean(), raw.std(ddof=1)]
    _within(found, want, manifest)
    banks = frontend.mel_filters[:256, ::8].T
    np.testing.assert_allclose(banks, want["mel_banks"], atol=1.5e-5)  # one rounding error of a mel


@pytest.mark.parametrize("case", ["frontend_logmel64_10s", "frontend_logmel64_2p5s"])
def test_atdr_equals_its_dataloader(case, golden):
    manifest, want = golden(case)
    constants = dict(zip(("mean", "std"), atdr.constants(64, 12, 60, 0.3), strict=True))
    frontend = frontends.build("atdr_logmel64", **constants)
    right = frontends.build("atdr_logmel64", db_multiplier=10)
    wave = _wave(manifest)[None]
    raw, feats = np.asarray(frontend.logmel(wave))[0], np.asarray(frontend(wave))[0]
    assert (len(raw), len(feats)) == (want["frames"][0], 400)
    found = dict(logmel=raw[::7], logmel_head=raw[:3], logmel_tail=raw[-3:])
    found |= dict(normalised_head=feats[:2], normalised_last=feats[-2:])
    found["logmel_power_db"] = right.logmel(wave)[0, ::7]
    found["mel_power"] = frontend.mel_power(wave)[0, ::7]
    _within(found, want, manifest)
    assert _relative(frontend.mel_filters[::4, ::4], want["mel_fb"]) < 3e-7


@pytest.mark.parametrize("name", ["beats", "asit"])
def test_beats_and_asit_equal_their_wrappers(name, golden):
    manifest, want = golden(f"sed_frontend_{name}")
    frontend = frontends.build(f"{name}_fbank128")
    wave = rule.waveform("waveform", 10.0, 16000, salt=manifest["salt"])
    quiet = np.float32(1e-3) * wave
    waves = {
        "waveform": wave[None],
        "quiet_1e-3": quiet[None],
        "silence": 0 * wave[None],
        "batch_waveform_quiet": np.stack([wave, quiet]),
    }
    for case, given in waves.items():
        feats = np.asarray(frontend(given))
        assert feats.shape == (len(given), 998, 128)
        feats = feats.transpose(0, 2, 1)[:, None][..., want[f"{case}_frames"]]
        assert _relative(feats, want[case]) < 20 * manifest["float32_error"][case], case


@pytest.mark.parametrize(
    "fields",
    [
        dict(),
        dict(window_type="povey", remove_mean=False, scale_int16=True, n_mels=40),
        dict(sample_rate=32000, fmin=0, fmax=7000, n_mels=64),
        dict(sample_rate=8000, hop=100, window=256, n_mels=23),
    ],
)
def test_kaldi_equals_float64_numpy(fields):
    frontend = frontends.build("kaldi_fbank", **{**fields, "frames": None, "mean": 0, "std": 0.5})
    wave = _noise((2, 5000)) + np.float32(0.05)
    want = np.stack([fbank.kaldi(row, frontend) for row in wave])
    got = np.asarray(frontend(wave))
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=5e-3)  # rounding errors of the mels in narrow bands
    assert _relative(got, want) < 3e-5


@pytest.mark.parametrize("fields", [{}, dict(n_fft=512, hop=160, window=400, fmin=50, fmax=7000)])
@pytest.mark.parametrize("samples", [1, 399, 4000])
def test_atdr_equals_float64_numpy(samples, fields):
    fields = dict(n_mels=20, frames=None, mean=0, std=0.5, remove_mean=False, **fields)
    frontend = frontends.build("atdr_logmel", **fields)
    wave = _noise((2, samples))
    want = np.stack([fbank.atdr(row, frontend) for row in wave])
    got = np.asarray(frontend(wave))
    assert got.shape == want.shape
    assert _relative(got, want) < 2e-6


@pytest.mark.parametrize(("rate", "n_fft", "n_mels"), [(16000, 4096, 64), (32000, 1024, 128)])
def test_torchaudios_slaney_filters_are_librosas_up_to_rounding(rate, n_fft, n_mels):
    got = stft.torchaudio_slaney_filters(rate, n_fft, n_mels, 50.0, rate / 2)
    want = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=50, fmax=rate / 2).T
    assert 0 < _relative(got, want) < 2e-5


@pytest.mark.parametrize("samples", [1, 159, 399, 400, 559, 560, 1234])
def test_a_wave_shorter_than_a_frame_is_extended_by_zeros(samples):
    frontend = frontends.build("kaldi_fbank128", frames=None, mean=0, std=0.5)
    wave = _noise((2, samples))
    got = np.asarray(frontend(wave))
    assert got.shape == (2, 1 + max(0, samples - 400) // 160, 128)
    want = np.stack([fbank.kaldi(row, frontend) for row in wave])
    np.testing.assert_allclose(got, want, atol=5e-3)


@pytest.mark.parametrize("name", ["kaldi_fbank128", "kaldi_fbank128_hf", "atdr_logmel64"])
def test_padding_and_cut_are_before_the_normalisation(name):
    wave = _noise((1, 8000))
    whole = frontends.build(name, frames=None)
    raw = np.asarray(whole(wave))
    long = frontends.build(name, frames=raw.shape[1] + 5)
    padded, cut = np.asarray(long(wave)), np.asarray(frontends.build(name, frames=7)(wave))
    np.testing.assert_allclose(padded[:, :-5], raw, atol=1e-6)
    np.testing.assert_allclose(padded[:, -5:], -long.mean / (2 * long.std), rtol=1e-6)
    np.testing.assert_allclose(padded[:, -5:], long.padding, rtol=1e-6)
    np.testing.assert_array_equal(cut, raw[:, :7])


def test_hugging_faces_extractor_keeps_the_mean_which_frames_lose_anyway():
    wave = _noise((1, 4000))
    ours, theirs = (
        frontends.build(n, frames=None) for n in ("kaldi_fbank128", "kaldi_fbank128_hf")
    )
    assert ours.remove_mean
    assert not theirs.remove_mean
    assert 0 < np.abs(theirs(wave + np.float32(0.3)) - ours(wave)).max() < 1e-2


@pytest.mark.parametrize("name", sorted({**frontends.kaldi.VARIANTS, **atdr.VARIANTS}))
def test_silence_is_the_floor_and_int16_is_scaled(name):
    frontend = frontends.build(name, frames=None, mean=0, std=0.5)
    floor = SILENCE if name not in atdr.VARIANTS else np.float32(-200)
    np.testing.assert_allclose(frontend(np.zeros((1, 3000), np.int16)), floor, rtol=1e-6)
    pcm = np.random.default_rng(1).integers(-32768, 32767, (2, 3000)).astype(np.int16)
    np.testing.assert_array_equal(frontend(pcm), frontend(pcm.astype(np.float32) / 32768))
    inside = jax.jit(lambda w: frontend(w))(pcm)
    np.testing.assert_allclose(inside, frontend(pcm), atol=1e-4)


def test_constants_go_with_the_augmentation():
    assert atdr.constants(128, 36, 192, 0.3) == (-3.6788461, 4.3739743)
    frontend = frontends.build("atdr_logmel64")
    assert (frontend.mean, frontend.std) == atdr.constants(64, 12, 75, 0.3)
    assert len(atdr.CONSTANTS) == 19
    with pytest.raises(AsjaxError, match=r"no constants.*\(64, 12, 75, 0.4\).*\(64, 12, 75, 0.3\)"):
        atdr.constants(64, 12, 75, 0.4)
    psla = frontends.build("kaldi_fbank128", **atdr.RECIPES["psla_audioset"])
    feats = np.asarray(psla(_noise((1, 160000))))
    assert feats.shape == (1, 1056, 128)
    np.testing.assert_allclose(feats[0, -1], 4.6476 / 4.5699, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("kaldi_fbank128", dict(window_type="hamming"), "window_type 'hamming'.*hann, povey"),
        ("kaldi_fbank128", dict(frames=0), "frames must be in 1"),
        ("kaldi_fbank128", dict(std=0), "std must be in"),
        ("kaldi_fbank128", dict(remove_mean="no"), "remove_mean must be True or False"),
        ("kaldi_fbank128", dict(fmax=9000), "fmax must be in 0..8000 Hz"),
        ("kaldi_fbank128", dict(fmin=8000), "fmin must be below fmax"),
        ("kaldi_fbank128", dict(bins=3), "field 'bins' does not exist"),
        ("atdr_logmel64", dict(window=5000), "window must be in 2..4096"),
        ("atdr_logmel64", dict(db_multiplier=0), "db_multiplier must be in"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(name, fields, message):
    with pytest.raises(AsjaxError, match=message):
        frontends.build(name, **fields)
