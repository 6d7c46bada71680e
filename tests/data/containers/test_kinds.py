"""The format follows from the first bytes, errors say what to do; parts of files count as files."""

import io

import numpy as np
import pytest
import sounds

from asjax.data import audio, ffmpeg
from asjax.data.audio import AudioError
from asjax.data.containers import kinds
from asjax.data.containers.parts import Tape, Window
from asjax.data.containers.walk import layout


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (sounds.MP4, "is MP4 or QuickTime.*convert it first"),
        (sounds.WEBM, "is WebM or Matroska.*convert it first"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(900), "is AAC.*convert it first"),
        (bytes.fromhex("3026b2758e66cf11a6d9") + bytes(900), "Windows Media.*convert it first"),
        (b"#!AMR\n" + bytes(900), "is AMR.*convert it first"),
        (sounds.WEB_PAGE, "a web page"),
        (b"\xef\xbb\xbf  <HTML><body>x", "a web page"),
        (b'{"error": "not found"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG picture"),
        (b"PK\x03\x04" + bytes(99), "a zip archive"),
        (b"MThd" + bytes(99), "MIDI"),
        (sounds.APPLE_DOUBLE, "AppleDouble"),
        (bytes(5000), "zeros"),
        ("schöne Grüße, 音\n".encode() * 40, "is text"),
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "flac", "ogg"])
def test_the_content_decides_whatever_the_name(tmp_path, data, words, suffix, monkeypatch, capfd):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(AudioError, match=words) as caught:
            audio.read(source, 16_000, name=str(path))
        assert "does not exist" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_sound_that_libsndfile_reads_is_nothing_known():
    wave = sounds.tone(0.2)
    for form in ("WAV", "FLAC", "OGG", "AIFF", "CAF", "AU", "W64", "RF64"):
        assert kinds.kind(sounds.encode(wave, sounds.RATE, form)[:512]) is None
    assert kinds.kind(sounds.mp3(wave)[:512]) is None
    assert kinds.kind(b"") is None


def test_noise_is_left_to_libsndfile():
    found = layout(Tape(io.BytesIO(b"\x01\x02" + np.random.default_rng(0).bytes(4000))))
    assert (found.parts, found.notes) == ([], [])


def test_a_window_reads_as_the_bytes_it_shows():
    rng = np.random.default_rng(5)
    data = rng.bytes(300_000)
    spans = ((10, 50), (200_000, 290_001), (60, 60), (3, 9))
    shown = b"head" + b"".join(data[a:b] for a, b in spans)
    window = Window(Tape(io.BytesIO(b"before" + data)), ())
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    window = Window(Tape(file), spans, b"head")
    assert window.read() == shown
    for _ in range(200):
        at, count = int(rng.integers(len(shown) + 9)), int(rng.integers(70_000))
        window.seek(at)
        assert window.read(count) == shown[at : at + count]
    assert window.seek(-3, io.SEEK_END) == len(shown) - 3
    assert window.read() == shown[-3:]


def test_a_tape_finds_patterns_across_its_blocks():
    data = bytearray(3 << 20)
    for at in (5, (1 << 20) - 2, (2 << 20) + 1, len(data) - 4):
        data[at : at + 4] = b"fLaC"
    tape, found, at = Tape(io.BytesIO(bytes(data))), [], 0
    while (at := tape.find(b"fLaC", at)) >= 0:
        found.append(at)
        at += 1
    assert found == [5, (1 << 20) - 2, (2 << 20) + 1, len(data) - 4]
    assert not tape.all_zero(0, len(data))
    assert tape.all_zero(100, 1000)
    assert tape.at(len(data) + 5, 10) == tape.at(1 << 70, 10) == b""
