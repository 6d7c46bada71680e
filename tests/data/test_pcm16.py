"""Samples of plain WAV files without a decoder: equal to the decoder, which gets all others."""

import io

import numpy as np
import pytest
import soundfile

from asjax.data import audio, ops, pcm16

RATE = 8000
FIELDS = dict(sample_rate=RATE, clip_s=1.0, train=False)


def tone(n=4000):
    rng = np.random.default_rng(0)
    wave = rng.integers(-32768, 32768, n).astype(np.int16)
    wave[:2] = (-32768, 32767)[:n]
    return wave


def file(wave, rate=RATE, form="WAV", subtype="PCM_16"):
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=form, subtype=subtype)
    return out.getvalue()


def decoded(source, **more):
    return ops.decode({"id": "c", "audio": source, "labels": []}, None, **{**FIELDS, **more})


@pytest.mark.parametrize("made", [pcm16.wav(tone(), RATE), file(tone())])
def test_samples_are_those_of_the_decoder(made):
    np.testing.assert_array_equal(pcm16.samples(made, RATE), tone())
    whole = audio.read(made, RATE)
    np.testing.assert_array_equal(decoded(made)["wave"], whole)
    assert decoded(made)["wave"].dtype == np.float32
    short = decoded(made, pcm16=True)["wave"]
    np.testing.assert_array_equal(short, tone())
    assert short.dtype == np.int16
    assert not short.flags.writeable


@pytest.mark.parametrize(
    "other",
    [
        file(tone(), rate=16_000),
        file(np.stack([tone(), tone()], 1)),
        file(tone(), subtype="PCM_24"),
        file(tone(), form="FLAC"),
        file(tone(), form="RF64"),
        pcm16.wav(tone(), RATE)[:-2],
        pcm16.wav(tone(), RATE) + b"LIST",
        pcm16.wav(tone(), RATE)[:44],
        pcm16.wav(tone(0), RATE),
        b"RIFF",
        b"",
        "some/path.wav",
    ],
)
def test_any_other_file_goes_to_the_decoder(other):
    assert pcm16.samples(other, RATE) is None


def test_a_cut_file_is_still_an_error_of_the_decoder():
    with pytest.raises(audio.AudioError):
        decoded(pcm16.wav(tone(), RATE)[:-100])


def test_a_long_recording_is_read_in_part_as_before(monkeypatch):
    monkeypatch.setattr(ops, "LONG_S", 0.25)
    example = decoded(pcm16.wav(tone(16_000), RATE))
    assert len(example["wave"]) == RATE  # clip_s from its beginning
    assert example["whole"] is False
