"""WAV and related formats by their chunks, AU and NIST by their lengths: correct, or an error."""

import io
import struct

import numpy as np
import pytest
import sounds

from asjax.data import audio, ffmpeg
from asjax.data.audio import AudioError
from asjax.data.containers import chunks, lengths, tags
from asjax.data.containers.parts import Tape
from asjax.data.containers.walk import layout

RMS = 0.3 / np.sqrt(2)
TONE = sounds.tone(1, rate=16_000)
PCM = sounds.integers(TONE, 2)
FORMS = {
    "WAV": "PCM_16", "WAVEX": "PCM_24", "RF64": "PCM_16", "W64": "PCM_16", "AIFF": "PCM_16",
    "CAF": "PCM_16", "AU": "PCM_16", "NIST": "PCM_16",
}  # fmt: skip


def read(data):
    notes = []
    return audio.read(data, 16_000, note=notes.append), notes


def rms(wave):
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def made(form, wave=TONE):
    return sounds.encode(wave, 16_000, form, FORMS[form])


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_file_is_left_to_libsndfile(form):
    assert layout(Tape(io.BytesIO(made(form)))).parts == []
    wave, notes = read(made(form))
    np.testing.assert_allclose(wave, TONE, atol=2e-4)
    assert notes == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keep", [0.999, 0.5, 0.02])
def test_a_cut_file_is_an_error(form, keep):
    data = made(form)
    for source in (data[: int(len(data) * keep)], data[:-1] if form != "CAF" else data[:-9]):
        with pytest.raises(AudioError, match="cut short|not audio|no samples"):
            audio.read(source, 16_000)


@pytest.mark.parametrize("form", FORMS)
def test_joined_files_are_read_one_after_the_other(form):
    second = made(form, sounds.tone(2, 900, 16_000))
    wave, notes = read(made(form) + second)
    assert (len(wave), notes) == (3 * 16_000, [])
    np.testing.assert_array_equal(wave[16_000:], read(second)[0])


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        (dict(block=4, bits=24), sounds.integers(TONE, 4, 24)),  # in the low bytes of int32
        (dict(block=4, bits=24), sounds.integers(TONE, 4, 24, shift=8)),
        (dict(block=4, bits=16), sounds.integers(TONE, 4)),
        (dict(block=2, channels=2), PCM),
        (dict(block=0), PCM),
        (dict(block=4, bits=20), sounds.integers(TONE, 4, 20, shift=12)),
        (dict(block=4, bits=24, tag=0xFFFE, extra=sounds.extensible(24)), PCM * 2),
        (dict(block=2, bits=0), PCM),
    ],
)
def test_a_format_that_contradicts_itself_is_an_error(fields, data):
    with pytest.raises(AudioError, match="contradicts itself"):
        audio.read(sounds.wav(data, **fields), 16_000)


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        (dict(), PCM),
        (dict(block=2, bits=12), sounds.integers(TONE, 2, 12, shift=4)),  # left-aligned
        (dict(block=3, bits=20), sounds.integers(TONE, 3, 20, shift=4)),
        (dict(block=3, bits=24), sounds.integers(TONE, 3)),
        (dict(block=4, bits=32), sounds.integers(TONE, 4)),
        (dict(block=4, bits=32, tag=3), TONE.tobytes()),
        (dict(block=8, bits=64, tag=3), TONE.astype("<f8").tobytes()),
        (dict(block=3, bits=24, tag=0xFFFE, extra=sounds.extensible(24)), sounds.integers(TONE, 3)),
        (
            dict(block=3, bits=24, tag=0xFFFE, extra=sounds.extensible(20)),
            sounds.integers(TONE, 3, 20, shift=4),
        ),
        (
            dict(block=4, bits=32, tag=0xFFFE, extra=sounds.extensible(24)),
            sounds.integers(TONE, 4, 24, shift=8),
        ),
        (dict(block=4, bits=32, tag=0xFFFE, extra=sounds.extensible(32, tag=3)), TONE.tobytes()),
        (dict(more=sounds.chunk(b"junk", b"abcde")), PCM),
    ],
)
def test_odd_formats_that_are_right_are_read_right(fields, data):
    wave, notes = read(sounds.wav(data, **fields))
    np.testing.assert_allclose(wave, TONE, atol=6e-4)
    assert notes == []


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        (dict(tag=0x55), "WAV with MP3 in it"),
        (dict(tag=0x161), "WAV with WMA in it"),
        (dict(tag=3, bits=16), "WAV of 16-bit floating point"),
        (dict(block=8, bits=64), "WAV of 64-bit integers"),
    ],
)
def test_codings_that_libsndfile_lacks_are_named(fields, what, monkeypatch):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    with pytest.raises(AudioError, match=f"{what}.*convert it first"):
        audio.read(sounds.wav(PCM, **fields), 16_000)


@pytest.mark.parametrize("riff", [None, 0, 0xFFFFFFFF])
@pytest.mark.parametrize("data", [0, 0xFFFFFFFF])
def test_a_length_that_was_never_written_means_to_the_end(riff, data):
    whole = bytearray(sounds.wav(PCM, more=sounds.chunk(b"JUNK", bytes(28))))
    at = whole.index(b"data")
    whole[at + 4 : at + 8] = struct.pack("<I", data)
    if riff is not None:
        whole[4:8] = struct.pack("<I", riff)
    wave, notes = read(bytes(whole))
    np.testing.assert_allclose(wave, TONE, atol=1e-4)
    assert [("never finished" in note) for note in notes] == [True] * (data == 0)


def test_an_empty_file_is_not_an_unfinished_one():
    empty = sounds.wav(b"")
    for data in (empty, empty + sounds.chunk(b"LIST", b"INFO" + bytes(60))):
        with pytest.raises(AudioError, match="holds no samples"):
            audio.read(data, 16_000)


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
def test_64_bit_lengths(magic):
    wave, notes = read(sounds.rf64(PCM, len(PCM), magic))
    assert rms(wave) == pytest.approx(RMS, abs=1e-3)
    assert notes == []
    wave, notes = read(sounds.rf64(PCM, 0, magic))  # the length was never written
    assert (len(wave), rms(wave)) == (16_000, pytest.approx(RMS, abs=1e-3))
    assert "never finished" in notes[0]
    with pytest.raises(AudioError, match="cut short"):
        audio.read(sounds.rf64(PCM, 2 * len(PCM), magic), 16_000)


@pytest.mark.parametrize("form", ["W64", "AIFF", "AU", "CAF"])
def test_the_others_unfinished_are_read_or_refused(form):
    data, size = bytearray(made(form)), len(PCM)
    field = {
        "W64": struct.pack("<Q", size + 24), "AIFF": struct.pack(">I", size + 8),
        "AU": struct.pack(">I", size), "CAF": struct.pack(">Q", size + 4),
    }[form]  # fmt: skip
    at = data.index(field)
    never = {"W64": 24, "AIFF": 8, "AU": 0, "CAF": 4}[form]
    data[at : at + len(field)] = never.to_bytes(len(field), "little" if form == "W64" else "big")
    if form == "W64":
        wave, notes = read(bytes(data))
        assert rms(wave) == pytest.approx(RMS, abs=1e-3)
        assert "never finished" in notes[0]
        return
    with pytest.raises(AudioError, match=f"never finished.*{size} bytes are there"):
        audio.read(bytes(data), 16_000)


def test_samples_behind_a_short_length_are_an_error_and_a_little_is_noted():
    whole = bytearray(sounds.wav(PCM))
    whole[40:44] = struct.pack("<I", 10_000)
    with pytest.raises(AudioError, match="22000 bytes after its samples belong to no chunk"):
        audio.read(bytes(whole), 16_000)
    wave, notes = read(sounds.wav(PCM) + b"\1\2" * 50)
    assert len(wave) == 16_000
    assert "100 bytes after its samples belong to no chunk" in notes[0]
    assert read(sounds.wav(PCM) + b"TAG" + bytes(125))[1] == []
    wave, notes = read(sounds.wav(PCM + b"\0")[:-1] + sounds.chunk(b"LIST", b"INFO"))
    assert (len(wave), notes) == (16_000, [])  # without the padding byte of an odd chunk


def test_two_format_or_sample_chunks_are_an_error():
    fmt = struct.pack("<HHIIHH", 1, 2, 16_000, 64_000, 4, 16)
    with pytest.raises(AudioError, match="two format chunks"):
        audio.read(sounds.wav(PCM, more=sounds.chunk(b"fmt ", fmt)), 16_000)
    with pytest.raises(AudioError, match="two chunks of samples"):
        audio.read(sounds.wav(PCM, more=sounds.chunk(b"data", PCM)), 16_000)


def test_endless_chunks_are_an_error():
    with pytest.raises(AudioError, match="more than 10000 chunks"):
        audio.read(sounds.wav(PCM, more=sounds.chunk(b"JUNK", b"") * 10_001), 16_000)


def test_names_of_the_tests_above():
    """Parts without their own test; `layout` uses all of them."""
    for data, where in ((made("WAV"), chunks), (made("AU"), lengths)):
        assert where.layout(Tape(io.BytesIO(data))).parts == []
    assert tags.skip(Tape(io.BytesIO(sounds.id3(9) + b"TAG" + bytes(125) + b"x")), 0) == 19 + 128
