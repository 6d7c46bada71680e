"""Audio files in folders, and windows of recordings."""

import io

import numpy as np
import pytest
import sounds

from asjax.config import AsjaxError
from asjax.data import audio, ffmpeg, recordings

WAV = sounds.encode(sounds.tone(0.5, rate=8000), 8000)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    root = tmp_path / "from a mac"
    for name in ("a.wav", "sub/B.WAV", "__MACOSX/a.wav", "sub/__MACOSX/x/b.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(WAV)
    for name in ("._a.wav", "sub/._B.WAV", "__MACOSX/._a.wav"):
        (root / name).write_bytes(sounds.APPLE_DOUBLE)
    for name in ("notes.txt", "sub/cover.jpg"):
        (root / name).write_text("x")
    return root


def names(paths, root):
    return [str(path.relative_to(root)) for path in recordings.find(paths)]


def test_what_macos_leaves_is_no_audio(folder, recwarn):
    assert names([folder], folder) == ["a.wav", "sub/B.WAV"]
    assert not recwarn.list
    assert names([folder, folder / "a.wav"], folder) == ["a.wav", "sub/B.WAV"]
    # an explicitly named file is always used
    assert names([folder / "._a.wav"], folder) == ["._a.wav"]


def test_other_kinds_are_counted_and_named(folder):
    for name in ("memo.m4a", "sub/film.MP4", "sub/second.m4a", "clip.webm", "x.aac", "y.wma"):
        (folder / name).write_bytes(sounds.MP4)
    with pytest.warns(UserWarning, match="skipped 6 files") as caught:
        assert names([folder], folder) == ["a.wav", "sub/B.WAV"]
    text = str(caught[0].message)
    for part in ("2 .m4a", "1 .mp4", "1 .webm", "1 .aac", "1 .wma", "clip.webm", "ffmpeg -i"):
        assert part in text


def test_missing_paths_are_named_harmlessly(tmp_path):
    with pytest.raises(AsjaxError, match="no such file or folder") as caught:
        recordings.find([tmp_path / f"\x1b[2J{i}.wav" for i in range(12)])
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith("and 2 more")


@pytest.mark.parametrize("size", [1000, 1600, 4000, 9000])
def test_windows_of_a_file_tile_it(size):
    wave = np.arange(4000, dtype=np.float32) / 8192
    data = sounds.encode(wave, 8000, "WAV", "FLOAT")
    found = list(recordings.windows(io.BytesIO(data), 8000, size, name="x"))
    assert sum(new for _, _, new in found) == 4000
    for start, window, _ in found:
        np.testing.assert_array_equal(window, wave[start : start + size])


def test_a_file_with_nan_is_read_and_noted_but_not_a_file_of_nan():
    wave = np.full(800, np.nan, np.float32)
    wave[9] = 0.5
    data = sounds.encode(wave, 8000, "WAV", "FLOAT")
    with pytest.warns(UserWarning, match="799 of its 800 samples are not finite"):
        ((_, window, _),) = recordings.windows(data, 8000, 800, name="x")
    assert np.flatnonzero(window).tolist() == [9]
    data = sounds.encode(np.full(800, np.nan, np.float32), 8000, "WAV", "FLOAT")
    with pytest.raises(audio.AudioError, match="none of its 800 samples is finite"):
        list(recordings.windows(data, 8000, 800, name="x"))
