"""FLAC: rare bit depths are named, joined files are read in full, sample counts are checked."""

import io

import numpy as np
import pytest
import sounds

from asjax.data import audio, ffmpeg
from asjax.data.audio import AudioError
from asjax.data.containers import flac
from asjax.data.containers.parts import Tape

TONE = sounds.encode(sounds.tone(2, rate=16_000), 16_000, "FLAC", "PCM_16")
STEREO = sounds.encode(np.stack([sounds.noise(1)] * 2, 1), sounds.RATE, "FLAC", "PCM_24")


def test_the_last_frames_tell_the_number_of_samples():
    for data in (TONE, STEREO, sounds.encode(sounds.noise(0.01), sounds.RATE, "FLAC")):
        total = int.from_bytes(data[18:26], "big") & (1 << 36) - 1
        assert flac._samples(Tape(io.BytesIO(data)), 0, len(data)) == total
        assert flac.layout(Tape(io.BytesIO(data))).parts == []
    own = sounds.flac_verbatim(np.arange(9000) % 100, 16)
    assert flac._samples(Tape(io.BytesIO(own)), 0, len(own)) == 9000


@pytest.mark.parametrize("depth", [4, 12, 20, 32])
def test_a_depth_that_libsndfile_lacks_is_told(depth, monkeypatch):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    data = sounds.flac_verbatim(np.zeros(100, int), depth)
    with pytest.raises(AudioError, match=f"FLAC of {depth} bits per sample.*ffmpeg -i"):
        audio.read(data, 16_000, name="x.flac")


@pytest.mark.parametrize("depth", [8, 16, 24])
def test_the_other_depths_are_read(depth):
    wave = sounds.tone(0.5, rate=16_000)
    data = sounds.flac_verbatim((wave * (1 << depth - 1)).astype(int), depth)
    np.testing.assert_allclose(audio.read(data, 16_000), wave, atol=2.0 ** (1 - depth))


def test_joined_files_are_read_one_after_the_other():
    found = audio.read(TONE + STEREO, 16_000)
    assert len(found) == 3 * 16_000
    np.testing.assert_array_equal(found[:32_000], audio.read(TONE, 16_000))
    assert len(audio.read(sounds.id3(100) + TONE + TONE, 16_000)) == 4 * 16_000


def test_a_header_that_says_too_little_is_not_believed():
    notes = []
    found = audio.read(sounds.with_flac_total(TONE, 5000), 16_000, note=notes.append)
    np.testing.assert_array_equal(found, audio.read(TONE, 16_000))
    assert "promises 5000 samples, 32000 are there; all are read" in notes[0]


def test_a_header_that_says_too_much_is_an_error():
    with pytest.raises(AudioError, match="promises 32001 samples, 32000 are there"):
        audio.read(sounds.with_flac_total(TONE, 32_001), 16_000)
