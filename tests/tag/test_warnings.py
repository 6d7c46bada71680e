"""Warnings of the decoders reach the real stderr: `asjax tag` and `asjax embed` as commands."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_tagger import RATE, steps, tagger, write

from asjax.data import audio

CODE = """
import sys
from small_tagger import tagger
from asjax import predict
from asjax.__main__ import main
predict.load = lambda path, **kw: tagger(**kw)
sys.exit(main(sys.argv[1:]))
"""


def command(verb, folder, *words):
    """(exit code, lines of stderr) of a verb in another process, with real file descriptors."""
    tests = str(Path(__file__).parent.parent)
    path = os.pathsep.join([tests, *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", CODE, verb, str(folder / "in"), "--model", str(folder), *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("verb", ["tag", "embed"])
def test_counts_of_values_that_are_not_finite_reach_stderr(tmp_path, verb):
    wave = steps(0.3, 0.5)
    wave[:7] = np.inf
    write(tmp_path / "in" / "some.wav", wave)
    write(tmp_path / "in" / "fine.wav", steps(0.3))
    write(tmp_path / "in" / "all.wav", np.full(1300, np.inf, np.float32))
    more = ["--to", str(tmp_path / "e.npz")] if verb == "embed" else []
    code, lines = command(verb, tmp_path, *more)
    assert code == 1
    assert len(lines) == 3, lines
    assert f"some.wav: 7 of its {len(wave)} samples are not finite" in "\n".join(lines)
    (error,) = [line for line in lines if "all.wav" in line]
    assert error.startswith(f"asjax {verb}: ")
    assert "none of its 1300 samples is finite" in error


def test_a_recording_without_finite_samples_is_an_error_in_python(tmp_path):
    bad = np.full((1000, 2), np.nan, np.float32)
    path = write(tmp_path / "a.wav", bad)
    for source in (path, (bad, RATE)):
        with pytest.raises(audio.AudioError, match="none of its 2000"):
            tagger()(source)
    bad[:, 0] = 0.25  # one channel of two is finite
    with pytest.warns(UserWarning, match="1000 of its 2000 samples are not finite"):
        assert tagger()(write(path, bad)).duration_s == 1.0


def test_a_cut_mp3_is_mentioned(tmp_path):
    path = tmp_path / "in" / "whole.mp3"
    write(path, np.tile(steps(0.3), 40), rate=16000)
    data = path.read_bytes()
    path.unlink()
    (tmp_path / "in" / "cut.mp3").write_bytes(data[: len(data) * 2 // 3 + 11])
    with pytest.warns(UserWarning, match="is cut short") as said:
        audio.read(tmp_path / "in" / "cut.mp3", RATE)
    code, lines = command("tag", tmp_path)
    assert code == 0
    assert lines == [f"asjax tag: {one.message}" for one in said]
