"""Host ops on single examples."""

import io

import numpy as np
import pytest
import soundfile

from asjax.config import AsjaxError
from asjax.data import ops
from asjax.data.audio import AudioError

RATE = 1000


def wav(wave, rate=RATE, subtype="FLOAT"):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def ramp(n, offset=0.0):
    return (np.arange(n) / 2**20 + offset).astype(np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def decoded(example, seed=0, rate=RATE, clip_s=1.0, train=True):
    return ops.decode(example, rng(seed), sample_rate=rate, clip_s=clip_s, train=train)


def cropped(wave, size, seed=0, train=True):
    return ops.crop({"wave": wave}, rng(seed), sample_rate=1, clip_s=size, train=train)["wave"]


def test_decode_gives_the_file_as_soundfile_reads_it_and_drops_the_bytes():
    audio = wav(rng().uniform(-1, 1, 700), subtype="PCM_16")
    example = {"id": "a", "audio": audio, "labels": [1]}
    out = decoded(example, clip_s=0.5)
    assert np.array_equal(out["wave"], soundfile.read(io.BytesIO(audio), dtype="float32")[0])
    assert out["whole"]
    assert set(out) == {"id", "labels", "wave", "whole"}
    assert example["audio"] is audio
    assert not out["wave"].flags.writeable


def test_decode_resamples_to_the_asked_rate():
    tone = np.sin(2 * np.pi * 50 * np.arange(2000) / RATE).astype(np.float32)
    out = decoded({"id": "a", "audio": wav(tone)}, rate=2 * RATE)["wave"]
    ideal = np.sin(2 * np.pi * 50 * np.arange(4000) / (2 * RATE))
    assert len(out) == 4000
    assert np.abs(out - ideal)[200:-200].max() < 1e-3


def test_decode_reads_only_a_stretch_of_long_recordings():
    long = ramp(int(ops.LONG_S + 20) * RATE)
    example = {"id": "a", "audio": wav(long)}
    starts = []
    for seed in range(20):
        out = decoded(example, seed, clip_s=2.0, train=True)
        assert not out["whole"]
        assert len(out["wave"]) == 2 * RATE
        starts.append(round(float(out["wave"][0]) * 2**20))
        assert np.array_equal(out["wave"], long[starts[-1] : starts[-1] + 2 * RATE])
    assert max(starts) - min(starts) > 30 * RATE
    out = decoded(example, 0, clip_s=2.0, train=False)
    assert np.array_equal(out["wave"], long[: 2 * RATE])


def test_decode_names_the_clip_it_cannot_read():
    with pytest.raises(AudioError, match="clip-7"):
        decoded({"id": "clip-7", "audio": b"no audio at all"})


def test_crop_pads_with_zeros_on_the_right():
    out = cropped(ramp(6, 1.0), 10, 0, True)
    assert np.array_equal(out, np.r_[ramp(6, 1.0), np.zeros(4)].astype(np.float32))
    exact = cropped(ramp(6), 6, 0, True)
    assert np.array_equal(exact, ramp(6))


def test_crop_starts_anywhere_in_training_and_at_zero_in_evaluation():
    wave = ramp(14)
    counts = np.zeros(5)
    for seed in range(500):
        out = cropped(wave, 10, seed, True)
        start = round(float(out[0]) * 2**20)
        assert np.array_equal(out, wave[start : start + 10])
        counts[start] += 1
    assert counts.min() > 60  # of 100 expected each
    assert np.array_equal(cropped(wave, 10, 0, False), wave[:10])


def piece(wave, clip, seed=0, train=True, **kw):
    how = dict(sample_rate=1, clip_s=clip, train=train, **kw)
    return ops.crop({"wave": wave}, rng(seed), **how)["wave"]


def test_a_training_piece_is_shorter_and_an_evaluation_hears_all():
    wave = ramp(50)
    starts = {round(float(piece(wave, 50, seed, train_s=20)[0]) * 2**20) for seed in range(300)}
    assert starts == set(range(31))
    assert len(piece(wave, 50, train_s=20)) == 20
    np.testing.assert_array_equal(piece(wave, 50, train=False, train_s=20, loud=True), wave)
    np.testing.assert_array_equal(piece(wave[:7], 50, train_s=20)[:7], wave[:7])
    assert len(piece(wave[:7], 50, train_s=20)) == 20


def test_loud_pieces_start_in_proportion_to_their_energy():
    wave = np.array([0, 0, 0, 1, 2, 0, 0, 0, 0, 0], np.float32)
    energy = np.array([np.square(wave[i : i + 3]).sum() for i in range(8)], np.float64)
    count, n = np.zeros(8), 4000
    for seed in range(n):
        start = ops._loud(wave, 3, rng(seed))
        count[start] += 1
    assert (count[energy == 0] == 0).all()
    np.testing.assert_allclose(count / n, energy / energy.sum(), atol=0.03)
    silence = {ops._loud(np.zeros(10, np.float32), 3, rng(seed)) for seed in range(200)}
    assert silence == set(range(8))
    assert piece(wave, 10, train_s=3, loud=True).sum() > 0


@pytest.mark.parametrize("train_s", [0, -1, 50.5])
def test_a_piece_longer_than_the_clip_is_an_error(train_s):
    with pytest.raises(AsjaxError, match="train_s must be above 0, at most 50"):
        piece(ramp(60), 50, train_s=train_s)


def test_clips_with_events_have_no_shorter_pieces():
    example = {"wave": ramp(60), "events": None}
    with pytest.raises(AsjaxError, match="clips without events"):
        ops.crop(example, rng(), sample_rate=1, clip_s=50, train=True, train_s=20)


def test_multihot_marks_the_labels():
    out = ops.multihot({"id": "a", "labels": np.array([0, 3])}, rng(), num_classes=5)
    assert out["target"].tolist() == [1, 0, 0, 1, 0]
    assert out["target"].dtype == np.float32
    assert not ops.multihot({"id": "a", "labels": []}, rng(), num_classes=5)["target"].any()
    for bad in ([5], [-1]):
        with pytest.raises(AsjaxError, match="clip a: labels must be 0 to 4"):
            ops.multihot({"id": "a", "labels": bad}, rng(), num_classes=5)


def test_a_clip_of_nan_is_an_error_and_a_few_are_noted_for_some_clips(monkeypatch):
    monkeypatch.setattr(ops, "_noted", set())
    with pytest.raises(AudioError, match="1000 of its 1000 samples are not finite"):
        decoded({"id": "a", "audio": wav(np.full(1000, np.nan)), "labels": []})
    texts = []
    monkeypatch.setattr(ops, "warn", texts.append)
    for n in range(20):
        few = ramp(1000)
        few[n] = np.nan
        for _ in range(2):
            decoded({"id": f"clip {n}", "audio": wav(few), "labels": []})
    assert len(texts) == 11
    assert texts[0].startswith("clip 0: 1 of its 1000 samples are not finite")
    assert texts[-1] == "more clips have notes; the first 10 were shown"


def test_decode_has_a_time_limit():
    example = {"id": "a", "audio": wav(ramp(500)), "labels": []}
    options = dict(sample_rate=RATE, clip_s=1.0, train=False)
    assert len(ops.decode(example, rng(), **options, decode_timeout_s=60)["wave"]) == 500
    with pytest.raises(AsjaxError, match="decode_timeout_s must be more than 0"):
        ops.decode(example, rng(), **options, decode_timeout_s=0)
