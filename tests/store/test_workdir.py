"""Which run may use a workdir, and the errors otherwise."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asjax.config import AsjaxError
from asjax.store import files
from asjax.store.workdir import Workdir

CONFIG = {"optim": {"name": "adam", "lr": 1e-3}, "seed": 1, "splits": ("a", "b")}


def enter(path, config=CONFIG, data="d1", **allow):
    return Workdir.open(path, config=config, data_fingerprint=data, **allow)


def test_a_new_workdir_is_made_and_taken_up_again(tmp_path):
    path = tmp_path / "runs" / "Käfer 1"
    with enter(path) as work:
        assert work.path == path
        assert not work.resumed
    assert json.loads((path / "config.json").read_text()) == {**CONFIG, "splits": ["a", "b"]}
    created = json.loads((path / "run.json").read_text())["created"]
    with enter(path) as work:
        assert work.resumed
    run = json.loads((path / "run.json").read_text())
    assert run["created"] == created
    assert run["changes"] == []
    assert run["data_fingerprint"] == "d1"
    assert sorted(p.name for p in path.iterdir()) == [".lock", "config.json", "run.json"]


def test_a_relative_path_stays_the_same_folder_after_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with enter("run") as work:
        monkeypatch.chdir("/")
        assert work.path == tmp_path / "run"


def test_a_foreign_folder_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(AsjaxError, match=r"not empty and no run of asjax.*another --workdir"):
        enter(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.txt"]
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    with pytest.raises(AsjaxError, match="no run of asjax"):
        enter(tmp_path / "repo")
    with pytest.raises(AsjaxError, match="must be a folder"):
        enter(tmp_path / "thesis.txt")


def test_a_changed_config_is_refused_with_its_fields_until_allowed(tmp_path):
    enter(tmp_path).close()
    other = {**CONFIG, "optim": {"name": "adam", "lr": 0.01}, "new": 3}
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(AsjaxError) as caught:
        enter(tmp_path, other)
    message = str(caught.value)
    for words in (
        "optim.lr: 0.001 -> 0.01",
        "new: '(absent)' -> 3",
        "another --workdir",
        "--allow-config-change",
    ):
        assert words in message
    assert "seed" not in message
    assert (tmp_path / "config.json").read_text() == before
    enter(tmp_path, other, allow_config_change=True).close()
    assert json.loads((tmp_path / "config.json").read_text())["optim"]["lr"] == 0.01
    changes = json.loads((tmp_path / "run.json").read_text())["changes"]
    assert [c["what"] for c in changes] == ["new: '(absent)' -> 3", "optim.lr: 0.001 -> 0.01"]
    enter(tmp_path, other).close()  # the run now has the new config


def test_changed_data_are_refused_with_both_hashes_until_allowed(tmp_path):
    enter(tmp_path, data="aaaa").close()
    with pytest.raises(AsjaxError, match="before aaaa, now bbbb.*--allow-data-change"):
        enter(tmp_path, data="bbbb")
    with pytest.raises(AsjaxError, match="other data"):
        enter(tmp_path, data="bbbb", allow_config_change=True)
    enter(tmp_path, data="bbbb", allow_data_change=True).close()
    enter(tmp_path, data="bbbb").close()


HOLDER = """
import sys
from asjax.store.workdir import Workdir
with Workdir.open(sys.argv[1], config={"a": 1}, data_fingerprint="d"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_busy_workdir_names_its_holder_and_is_free_once_that_is_killed(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline().strip() == "held"
        with pytest.raises(AsjaxError, match=f"in use by process {child.pid} on "):
            enter(tmp_path, {"a": 1}, "d")
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with enter(tmp_path, {"a": 1}, "d") as work:
        assert work.resumed


def test_two_runs_of_one_process_do_not_share_a_folder_and_a_refusal_releases_it(tmp_path):
    with enter(tmp_path), pytest.raises(AsjaxError, match=f"process {os.getpid()} on "):
        enter(tmp_path)
    with pytest.raises(AsjaxError, match="other data"):
        enter(tmp_path, data="x")
    enter(tmp_path).close()


def test_a_process_that_is_not_the_first_neither_locks_nor_writes(tmp_path):
    with enter(tmp_path / "w"), enter(tmp_path / "w", data="x", primary=False) as other:
        assert other.path == tmp_path / "w"
    assert not enter(tmp_path / "none", primary=False).resumed
    assert not (tmp_path / "none").exists()


def test_a_workdir_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(AsjaxError, match=r"workdir .* cannot be written: Not a directory"):
        enter(tmp_path / "file" / "run")

    def refuse(self, data):  # root may write anywhere, so a read-only disk is simulated
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(AsjaxError, match="cannot be written: Read-only file system; choose"):
        enter(tmp_path / "run")


def test_a_disk_full_while_starting_is_one_clear_error_and_keeps_the_old_config(
    tmp_path, monkeypatch
):
    enter(tmp_path).close()
    before = (tmp_path / "config.json").read_text()

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(AsjaxError, match="No space left"):
            enter(tmp_path, {"seed": 2}, allow_config_change=True)
    assert (tmp_path / "config.json").read_text() == before
    enter(tmp_path).close()


def test_a_start_that_was_killed_half_way_is_taken_up(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.77.tmp").write_text("{")
    enter(tmp_path).close()
    (tmp_path / "config.json").unlink()  # killed between the two files
    with enter(tmp_path) as work:
        assert work.resumed
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


DAMAGED = [
    "", "[]", "{", "{}", "3", "null", "[" * 200_000, "9" * 5000, "\0" * 100, '{"config": []}',
    '{"config": {}, "data_fingerprint": 3}',
    '{"config": {}, "data_fingerprint": "d", "changes": 5}',
]  # fmt: skip


def checkpoint(path, step, data="d1"):
    """The part of a checkpoint that a workdir uses."""
    folder = path / "checkpoints" / str(step)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"step": step, "meta": {"data": data}}))
    files.write_sums(folder)
    return folder


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_run_file_is_named_and_made_anew_when_that_is_allowed(text, tmp_path):
    enter(tmp_path).close()
    (tmp_path / "run.json").write_text(text)
    for step in (5, 10):
        checkpoint(tmp_path, step)
    with pytest.raises(AsjaxError, match=r"run\.json.*\(5, 10\).*--allow-config-change") as caught:
        enter(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert (tmp_path / "run.json").read_text() == text
    with enter(tmp_path, allow_config_change=True) as work:
        assert work.resumed
    run = json.loads((tmp_path / "run.json").read_text())
    assert [change["what"] for change in run["changes"]] == [
        "run.json could not be read and was written again"
    ]
    assert run["config"]["seed"] == 1
    assert [p.read_text() for p in tmp_path.glob("run.json.*.damaged")] == [text]
    enter(tmp_path).close()


def test_a_run_file_of_bytes_or_of_another_kind_is_named_and_made_anew(tmp_path):
    for kind in ("bytes", "folder", "pipe"):
        path = tmp_path / kind
        enter(path).close()
        checkpoint(path, 5)
        marker = path / "run.json"
        marker.unlink()
        if kind == "bytes":
            marker.write_bytes(bytes(range(256)) * 9)
        elif kind == "folder":
            marker.mkdir()
        elif hasattr(os, "mkfifo"):
            os.mkfifo(marker)
        with pytest.raises(AsjaxError, match=r"run\.json.*--allow-config-change") as caught:
            enter(path)
        assert "\n" not in str(caught.value)
        with enter(path, allow_config_change=True) as work:
            assert work.resumed
        assert json.loads(marker.read_text())["config"]["seed"] == 1
        enter(path).close()


def test_a_run_file_made_anew_notes_what_differs_from_the_copy_of_the_config(tmp_path):
    enter(tmp_path).close()
    (tmp_path / "run.json").write_text("{")
    enter(tmp_path, {**CONFIG, "seed": 2}, allow_config_change=True).close()
    changes = [c["what"] for c in json.loads((tmp_path / "run.json").read_text())["changes"]]
    assert changes[0].endswith("the data of the run are unknown")
    assert changes[1:] == ["seed: 1 -> 2"]


def test_a_run_file_that_is_gone_is_made_anew_too(tmp_path):
    enter(tmp_path).close()
    checkpoint(tmp_path, 5)
    (tmp_path / "run.json").unlink()
    with pytest.raises(AsjaxError, match="--allow-config-change"):
        enter(tmp_path)
    enter(tmp_path, allow_config_change=True).close()
    enter(tmp_path).close()


def test_a_run_file_made_anew_still_knows_its_data(tmp_path):
    """The newest sound checkpoint has them."""
    enter(tmp_path).close()
    (tmp_path / "run.json").write_text("{")
    checkpoint(tmp_path, 5)
    (checkpoint(tmp_path, 10, data="other") / "run.json").write_text("damaged")
    with pytest.raises(AsjaxError, match="other data: before d1, now d2"):
        enter(tmp_path, data="d2", allow_config_change=True)
    assert (tmp_path / "run.json").read_text() == "{"
    enter(tmp_path, allow_config_change=True).close()
