"""The progress bar: files, or minutes of one file."""

import io
import sys

import numpy as np
import pytest
import soundfile

from asjax.tag.progress import Progress


def test_the_progress_bar_counts_minutes_of_a_long_file(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 100, 1) as file:
        file.write(np.zeros(18000))
    with Progress([tmp_path / "long.wav"]) as progress:
        progress.heard(60.0)
        assert progress._bar.n == 1
        assert progress._bar.total == pytest.approx(3)
    with Progress([tmp_path / "a.wav"] * 10) as progress, progress.file_done():
        assert progress._bar.n == 1
    with Progress([tmp_path / "a.wav"] * 2) as progress:
        assert progress._bar.disable


def test_a_binary_file_is_left_at_its_begin(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 100)
    with (tmp_path / "a.wav").open("rb") as file, Progress([file]):
        assert file.tell() == 0
