"""A killed run goes on where it was, and the logits are those of one run."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_detectors import CLASSES, make, write_clips
from test_run import assert_same

from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.store import logits
from asjax.store.logits_writer import Form, Row
from asjax.teachers import parts

PROGRAM = """
import sys, time
from asjax.teachers import parts
from asjax.__main__ import main
parts.PART_BYTES = 1  # every batch is a part
write = parts.Parts._write
def slowly(*args):
    time.sleep(0.05)
    return write(*args)
parts.Parts._write = slowly
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_killed_at_any_time_goes_on(tmp_path):
    audio = write_clips(tmp_path / "audio", count=30)
    make(tmp_path / "model", batch=2)
    words = ["logits", str(tmp_path / "model"), f"--data={audio / 'events.tsv'}", "--frames"]
    assert main([*words, f"--out={tmp_path / 'one'}"]) == 0
    out, rng = tmp_path / "out", random.Random(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NPROC": "2"}
    command = [sys.executable, "-c", PROGRAM, *words, f"--out={out}"]
    kills, seen = 0, set()
    while not out.exists():
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        folder, start = out.with_name("out.parts"), time.monotonic()
        before = len(list(folder.glob("part-*.json")))
        while process.poll() is None and time.monotonic() - start < 120:
            if kills < 3 and len(list(folder.glob("part-*.json"))) > before + 1:
                time.sleep(rng.random() * 0.2)
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        process.wait()
        seen.add(len(list(folder.glob("part-*.json"))) if folder.exists() else "all")
    assert kills == 3
    assert len(seen) == 4  # every run did a piece
    assert_same(out, tmp_path / "one")


def filled(path, settings, steps, form=None):
    """Parts of a run with batches of one clip; the logits of clip k are k."""
    form = form or Form(CLASSES, "float32", clip=True)
    with parts.opened(path, settings, form) as store:
        store.begin(False)
        for step in steps:
            store.add(step, [Row(f"c{step}", 1.0)], np.full((1, 3), step), None, [])
            store.flush()
        store.wait()
        yield store


def finished(path, settings, count):
    for store in filled(path, settings, []):
        for begin, end in store.gaps(0, count):
            for step in range(begin, end):
                store.add(step, [Row(f"c{step}", 1.0)], np.full((1, 3), step), None, [])
        store.flush()
        store.wait()
        assert store.gaps(0, count) == []
        store.finish({"x": 1})
    return logits.open(path, verify=True)


def test_gaps_are_filled_in_order(tmp_path):
    for store in filled(tmp_path / "x", {"a": 1}, [1, 4, 5]):
        assert store.gaps(0, 7) == [(0, 1), (2, 4), (6, 7)]
        assert store.gaps(4, 6) == []
    found = finished(tmp_path / "x", {"a": 1}, 7)
    assert found.ids == [f"c{k}" for k in range(7)]
    np.testing.assert_array_equal(found.clip[:], np.arange(7)[:, None] * np.ones(3))
    assert not (tmp_path / "x.parts").exists()


def test_damaged_parts_are_computed_again(tmp_path, recwarn):
    for _ in filled(tmp_path / "x", {"a": 1}, range(6)):
        pass
    folder = tmp_path / "x.parts"
    (folder / "clip-00001.npy").write_bytes(b"short")
    (folder / "clip-00002.npy").unlink()
    (folder / "part-00003.json").write_text('{"steps": [3, 4]}')
    (folder / "part-00004.json").write_text("")
    for store in filled(tmp_path / "x", {"a": 1}, []):
        assert store.gaps(0, 6) == [(1, 5)]
    assert len([w for w in recwarn if "is damaged and is computed again" in str(w.message)]) == 4
    found = finished(tmp_path / "x", {"a": 1}, 6)
    np.testing.assert_array_equal(found.clip[:][:, 0], range(6))
    assert len(list((tmp_path / "x").iterdir())) == len(found.about["shards"]) + 4


def test_other_settings_do_not_take_or_remove_the_parts(tmp_path):
    for _ in filled(tmp_path / "x", {"a": 1}, range(2)):
        pass
    with pytest.raises(AsjaxError, match="unfinished run with another value of a; add --overwrite"):
        next(filled(tmp_path / "x", {"a": 2}, []))
    assert len(list((tmp_path / "x.parts").glob("part-*.json"))) == 2
    with parts.opened(tmp_path / "x", {"a": 2}, Form(CLASSES, clip=True)) as store:
        store.begin(True)
        assert store.gaps(0, 2) == [(0, 2)]


def test_one_process_at_a_time_and_no_file_of_others(tmp_path):
    form = Form(CLASSES, clip=True)
    again = parts.opened(tmp_path / "x", {}, form)
    with (
        parts.opened(tmp_path / "x", {}, form),
        pytest.raises(AsjaxError, match="another asjax logits writes"),
    ):
        again.__enter__()
    assert not (tmp_path / "x.parts").exists()  # nothing was in it
    (tmp_path / "x.parts").mkdir()
    (tmp_path / "x.parts" / "thesis.txt").write_text("mine")
    again = parts.opened(tmp_path / "x", {}, form)
    with pytest.raises(AsjaxError, match="such as thesis.txt"):
        again.__enter__()
    assert (tmp_path / "x.parts" / "thesis.txt").read_text() == "mine"


def test_an_error_keeps_the_complete_batches(tmp_path):
    form = Form(CLASSES, clip=True)

    def run():
        with parts.opened(tmp_path / "x", {"a": 1}, form) as store:
            store.begin(False)
            store.add(0, [Row("c0", 1.0)], np.zeros((1, 3)), None, [])
            store.add(1, [Row("c1", 1.0)], np.full((1, 3), np.nan), None, [])

    with pytest.raises(AsjaxError, match="clip 'c1' are not finite"):
        run()
    for store in filled(tmp_path / "x", {"a": 1}, [], form):
        assert store.gaps(0, 2) == [(1, 2)]


def test_a_full_disk_ends_the_run_with_its_error(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    def run():
        with parts.opened(tmp_path / "x", {"a": 1}, Form(CLASSES, clip=True)) as store:
            store.begin(False)
            store.add(0, [Row("c0", 1.0)], np.zeros((1, 3)), None, [])
            store.flush()
            store.wait()

    monkeypatch.setattr(parts.logits_writer, "write_shard", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    assert not (tmp_path / "x").exists()


def test_a_run_killed_in_its_last_step_is_tidied(tmp_path):
    found = finished(tmp_path / "x", {"a": 1}, 2)
    (found.path / "lock").touch()
    (found.path / "part-00000.json").touch()
    store = parts.Parts(tmp_path / "x", {"a": 1})
    assert store.finished()
    store.tidy()
    assert {p.name for p in found.path.iterdir()} >= {"about.json", "clips.csv"}
    assert not (found.path / "lock").exists()
    with pytest.raises(AsjaxError, match="another value of a"):
        parts.Parts(tmp_path / "x", {"a": 2}).finished()
    (found.path / "about.json").write_text("{}")
    with pytest.raises(AsjaxError, match="holds damaged logits; add --overwrite"):
        store.finished()
