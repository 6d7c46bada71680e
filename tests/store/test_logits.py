"""Stored logits come back by clip id and view, from workers too, and damage is named."""

import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asjax import labels
from asjax.config import AsjaxError
from asjax.store import files, logits, logits_writer
from asjax.store.logits_writer import Form, Row

DESED = labels.get("desed10")
SCORES = np.random.default_rng(0)
CLIP = SCORES.normal(size=(6, 10)).astype(np.float32)
FRAMES = SCORES.normal(size=(6, 20, 10)).astype(np.float32)
ROWS = [Row(f"clip {i}", 0.8 - 0.1 * i, "-", DESED.ids[i]) for i in range(6)]


def saved(path, *, rows=ROWS, clip=CLIP, frames=FRAMES, **form):
    form = {"clip": clip is not None, **form}
    if frames is not None:
        form |= {"frames": 20, "frame_rate": 25.0}
    logits_writer.save(path, Form(DESED, **form), rows, clip=clip, frames=frames, extra={"a": 1})
    return logits.open(path, DESED, verify=True)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kinds", ["clip", "frames", "clip frames"])
def test_logits_come_back_by_id(tmp_path, dtype, kinds):
    arrays = {"clip": CLIP, "frames": FRAMES}
    given = {name: arrays[name] if name in kinds.split() else None for name in arrays}
    found = saved(tmp_path / "x", dtype=dtype, **given)
    assert found.kinds == tuple(kinds.split())
    assert found.ids == [f"clip {i}" for i in range(6)]
    assert found.frame_rate == (25.0 if "frames" in kinds else None)
    for copy in (found, pickle.loads(pickle.dumps(found))):
        one = copy["clip 4"]
        assert list(one) == kinds.split()
        for name, value in one.items():
            np.testing.assert_array_equal(value, arrays[name][4].astype(dtype))
            value += 1  # belongs to the caller
        assert copy["clip 4"].keys() == one.keys()
    assert "clip 4" in found
    assert "clip 6" not in found
    with pytest.raises(KeyError):
        found["clip 6"]
    with pytest.raises(KeyError):
        found["clip 1", 1]
    np.testing.assert_array_equal(found.targets(), np.eye(6, 10))
    assert found.extra == {"a": 1}


def test_only_the_highest_logits_of_each_clip(tmp_path):
    clip = CLIP.copy()
    clip[2] = 1.0  # ties: the first classes win
    found = saved(tmp_path / "x", top=3, dtype="float32", clip=clip)
    assert found.top == 3
    for i in range(6):
        best = sorted(range(10), key=lambda c: (-clip[i, c], c))[:3]
        wanted = np.full(10, -np.inf)
        wanted[best] = clip[i, best]
        np.testing.assert_array_equal(found[f"clip {i}"]["clip"], wanted)
    with pytest.raises(AsjaxError, match="top must be 1 to 10, the number of classes, got 11"):
        saved(tmp_path / "y", top=11)


def test_views_of_a_clip_have_their_own_logits_and_draws(tmp_path):
    rows = [Row(f"c{i % 3}", 0.5, view=i // 3, draw=70 + i) for i in range(6)]
    views = {"count": 2, "seed": 9, "ops": "decode | crop"}
    found = saved(tmp_path / "x", rows=rows, views=views, dtype="float32")
    assert found.ids == ["c0", "c1", "c2"]
    assert len(found) == 3
    assert found.views == views
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(found[row.id, row.view]["clip"], CLIP[i])
        assert found.draw((row.id, row.view)) == 70 + i
    np.testing.assert_array_equal(found["c1"]["clip"], CLIP[1])
    assert found.targets() is None  # the data had no labels


def change(path, name, edit):
    text = (path / name).read_text()
    (path / name).write_text(edit(text))
    (path / files.SUMS).unlink()
    files.write_sums(path)


def about(**values):
    return lambda text: json.dumps({**json.loads(text), **values})


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("clips.csv", lambda t: t.replace("clip 3", "clip 2"), "clip 'clip 2' occurs twice"),
        ("clips.csv", lambda t: t.replace("duration_s", "seconds"), "clips.csv is damaged"),
        ("clips.csv", lambda t: t[:-9], "clips.csv is damaged: it must have 6 rows"),
        ("about.json", about(top=5), "must hold float16 \\(6, 5\\)"),
        ("about.json", about(top=50), "kinds and top disagree"),
        ("about.json", about(kinds=[]), "kinds and top disagree"),
        ("about.json", about(kinds=["other"]), "must be clip or frames"),
        ("about.json", about(frame_rate=None), "frame_rate must be a number"),
        ("about.json", about(clips=2**40), "clips.csv is damaged: it must have"),
        ("about.json", about(frames=2**30), "must hold float16"),
        ("about.json", lambda t: t[:-20], "about.json cannot be read"),
        ("labels.csv", lambda t: t.replace("Speech", "Talk"), "label hash|damaged|labels"),
    ],
)
def test_damage_is_named(tmp_path, name, edit, message):
    saved(tmp_path / "x")
    change(tmp_path / "x", name, edit)
    if name == "labels.csv":  # a name is no part of the hash, an id is
        change(tmp_path / "x", name, lambda t: t.replace(DESED.ids[0], "/m/other"))
    with pytest.raises(AsjaxError, match=message):
        logits.open(tmp_path / "x")


def test_other_classes_and_other_folders_are_refused(tmp_path):
    saved(tmp_path / "x")
    with pytest.raises(AsjaxError, match="x has other classes than label set esc10"):
        logits.open(tmp_path / "x", labels.get("esc10"))
    with pytest.raises(AsjaxError, match="is not a folder of logits: about.json is missing"):
        logits.open(tmp_path)
    assert logits.is_folder(tmp_path / "x")
    assert not logits.is_folder(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": np.where(CLIP[1, 0] == CLIP, np.nan, CLIP)}, "clip 'clip 1' are not finite"),
        ({"frames": FRAMES[:, :9]}, "logits must be \\(6, 20, 10\\)"),
        ({"rows": [*ROWS[:5], ROWS[0]]}, "'clip 0' must occur once"),
        ({"rows": [*ROWS[:5], Row("z", 0.0)]}, "'z' must occur once and have a duration"),
        ({"dtype": "float64"}, "float16 or float32"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_appears(tmp_path, options, message):
    with pytest.raises(AsjaxError, match=message):
        saved(tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


def test_a_failed_replacement_keeps_the_old_logits(tmp_path, monkeypatch):
    saved(tmp_path / "x")
    before, rename = digests(tmp_path), Path.rename

    def failing(path, target):
        if path.name.endswith(".new"):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    form = Form(DESED, clip=True)
    with (
        pytest.raises(OSError, match="No space left"),
        logits_writer.Writer(tmp_path / "x", form, overwrite=True) as out,
    ):
        out.add([Row("other", 1.0)], np.zeros((1, len(DESED))))
    assert digests(tmp_path) == before


KILLED = """
import os, sys
import numpy as np
from asjax import labels
from asjax.store.logits_writer import Form, Row, Writer
with Writer(sys.argv[1], Form(labels.get("desed10"), clip=True), shard_mb=0, overwrite=True) as out:
    out.add([Row("other", 1.0)], np.zeros((1, 10)))
    os.kill(os.getpid(), 9)
"""


def test_a_killed_writer_leaves_nothing_that_the_next_one_does_not_remove(tmp_path):
    saved(tmp_path / "x")
    before = digests(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert digests(tmp_path).items() > before.items()  # its own folder beside the old one
    with logits_writer.Writer(tmp_path / "x", Form(DESED, clip=True), overwrite=True) as out:
        out.add([Row("other", 1.0)], np.zeros((1, len(DESED))))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert logits.open(tmp_path / "x", verify=True).ids == ["other"]


def digests(folder) -> dict:
    return {path: files.digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
