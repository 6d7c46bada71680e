"""Kills, signals, shards, retries and damage: a preparation goes on, and loses nothing."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_audioset

from asjax.__main__ import main
from asjax.data import records
from asjax.data.bulk import merge

REPO = Path(__file__).parents[3]
PCM = ("--encode", "pcm16", "--sample-rate", str(small_audioset.RATE))
LIMIT_S = 600


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_audioset.Made(tmp_path_factory.mktemp("audioset"))


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "audioset"
    assert main(made.command(out, *PCM, "--workers", "1")) == 0
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def start(words, **more):
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.Popen(
        [sys.executable, "-m", "asjax", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=env, cwd=REPO, **more,
    )  # fmt: skip


def stamps(parts: Path) -> dict[str, tuple]:
    """name -> identity of what is finished; a part that is made again has another one."""
    if not parts.is_dir():
        return {}
    done = [p for p in parts.iterdir() if len(p.name) == 24 and (p / "SHA256SUMS").is_file()]
    found = {}
    for place in done:
        status = (place / "about.json").stat()
        found[place.name] = (status.st_ino, status.st_mtime_ns)
    return found


def killed(words, parts: Path, after: int, wait_s: float) -> str:
    """Start a run, kill its main process when `after` parts are done and `wait_s` more are over;
    returns its output. All its processes are gone then, because they hold the pipe."""
    process, limit = start(words), time.monotonic() + LIMIT_S
    while process.poll() is None and len(stamps(parts)) < after and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(wait_s)
    process.kill()
    return process.communicate(timeout=LIMIT_S)[0]


def ended(process) -> str:
    """The output of a run that was disturbed."""
    text = process.communicate(timeout=LIMIT_S)[0]
    if process.returncode == 0:
        pytest.skip("the run was over before it could be disturbed, on a very busy machine")
    return text


def check_kills(made, whole, out, times):
    """Kill, go on and kill again; then compare with an uninterrupted run."""
    words, parts = made.command(out, *PCM, "--workers", "2"), out.with_name(out.name + ".parts")
    before = {}
    for after, wait_s in times:
        killed(words, parts, after, wait_s)
        if out.is_dir():
            break
        now = stamps(parts)
        assert before.items() <= now.items()  # nothing finished was made again
        before = now
    process = start(words)
    text = process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode == 0, text
    if before:
        assert f"{len(before)} of 7 units" in text or "is complete" in text
    assert content(out) == content(whole)
    assert not parts.exists()
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_kill_9_costs_only_the_units_in_work(made, whole, tmp_path):
    check_kills(made, whole, tmp_path / "out", [(1, 0.0), (3, 0.02), (5, 0.05)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_kill_9_at_any_time(made, whole, tmp_path, seed):
    rng = random.Random(seed)
    check_kills(made, whole, tmp_path / "out", [(0, rng.uniform(0.5, 4.0)) for _ in range(3)])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_folder_that_goes_on(made, whole, tmp_path, number):
    out = tmp_path / "out"
    words, parts = made.command(out, *PCM, "--workers", "2"), tmp_path / "out.parts"
    process, limit = start(words), time.monotonic() + LIMIT_S
    while not stamps(parts) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(number)
    text = ended(process)
    assert process.returncode == 75, text
    assert text.splitlines()[-1].startswith(f"{number.name}: stopped; finished units are in")
    assert text.splitlines()[-1].endswith("the same command goes on")
    assert "Traceback" not in text
    assert main(words) == 0
    assert content(out) == content(whole)


def test_a_signal_to_all_processes_is_the_same(made, whole, tmp_path):
    """As `timeout`, SLURM and a terminal send it."""
    out = tmp_path / "out"
    words, parts = made.command(out, *PCM, "--workers", "2"), tmp_path / "out.parts"
    process, limit = start(words, start_new_session=True), time.monotonic() + LIMIT_S
    while not stamps(parts) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    text = ended(process)
    assert process.returncode == 75, text
    assert text.splitlines()[-1].endswith("the same command goes on")
    assert main(words) == 0
    assert content(out) == content(whole)


def test_a_worker_that_dies_ends_the_run_in_one_line(made, whole, tmp_path):
    out = tmp_path / "out"
    words, parts = made.command(out, *PCM, "--workers", "2"), tmp_path / "out.parts"
    process, limit = start(words), time.monotonic() + LIMIT_S
    while not stamps(parts) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGKILL)
            break
    text = ended(process)
    assert process.returncode == 2, text
    assert "a worker process died" in text.splitlines()[-1]
    assert main(words) == 0
    assert content(out) == content(whole)


def test_shards_and_merge_make_what_one_process_makes(made, whole, tmp_path):
    """On disks of their own, in another order."""
    for i in (2, 0, 1):
        words = made.command(tmp_path / f"part{i}", *PCM, "--workers", "1", "--shard", f"{i}/3")
        assert main(words) == 0
    some = [str(tmp_path / f"part{i}.parts") for i in (0, 2)]
    every = [str(tmp_path / f"part{i}.parts") for i in (1, 2, 0)]
    out = str(tmp_path / "audioset")
    lacking = ["prepare", "merge", *some[:1], "--out", out]
    assert main(lacking) == 2
    assert not (tmp_path / "audioset").exists()
    assert main([*lacking, "--partial"]) == 0
    assert len(records.Dataset(out).reader) < len(records.Dataset(whole).reader)
    assert main(["prepare", "merge", *every, "--out", out, "--overwrite"]) == 0
    assert content(tmp_path / "audioset") == content(whole)
    assert main(["prepare", "status", out]) == 0


def test_an_old_plan_is_named_and_what_to_do(made, whole, tmp_path, capsys):
    """The plan of a command with other sources has units that no shard makes any more."""
    out = tmp_path / "out"
    assert main(made.command(out, *PCM, "--workers", "1", "--shard", "0/1000")) == 0
    (tmp_path / "out.parts" / "plan-1-of-5.json").write_text('{"%s": 40}' % ("a" * 24))
    for i in (0, 1):
        assert main(made.command(out, *PCM, "--workers", "1", "--shard", f"{i}/2")) == 0
    capsys.readouterr()
    words = ["prepare", "merge", str(tmp_path / "out.parts"), "--out", str(out)]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "1 of 8 planned units, 40 clips, are not done: of " in err
    assert "plan-1-of-5.json; finish" in err
    assert "remove its file" in err
    (tmp_path / "out.parts" / "plan-1-of-5.json").unlink()
    assert main(words) == 0
    assert content(out) == content(whole)


def test_ctrl_c_in_a_merge_is_75_and_the_command_begins_again(
    made, whole, tmp_path, capsys, monkeypatch
):
    out, real = tmp_path / "out", merge.files.digest
    for i in (0, 1):
        assert main(made.command(out, *PCM, "--workers", "1", "--shard", f"{i}/2")) == 0
    before = content(tmp_path / "out.parts" / sorted(stamps(tmp_path / "out.parts"))[0])

    def interrupted(path, *more):
        if path.name == "manifest.csv":  # the rows are written, the dataset is not complete
            signal.raise_signal(signal.SIGINT)
        return real(path, *more)

    words = ["prepare", "merge", str(tmp_path / "out.parts"), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(merge.files, "digest", interrupted)
        assert main(words) == 75
    assert "the same command joins them" in capsys.readouterr().out
    assert not out.exists()
    assert content(tmp_path / "out.parts" / sorted(stamps(tmp_path / "out.parts"))[0]) == before
    assert main(words) == 0
    assert content(out) == content(whole)


@pytest.mark.parametrize("how", ["flipped", "cut", "removed"])
def test_damage_of_a_part_is_found_before_the_merge(made, whole, tmp_path, how, capsys):
    """A cut ArrayRecord opens as an empty one, so sizes and hashes are compared."""
    out = tmp_path / "out"
    for i in (0, 1):
        words = made.command(out, *PCM, "--workers", "1", "--shard", f"{i}/2")
        assert main(words) == 0
    shard = sorted((tmp_path / "out.parts").glob("*/*.array_record-*"))[1]
    data = bytearray(shard.read_bytes())
    if how == "removed":
        shard.unlink()
    else:
        data[len(data) // 2] ^= 1
        shard.write_bytes(data[: 4096 if how == "cut" else None])
    joined = ["prepare", "merge", str(out), "--out", str(out)]
    assert main(joined) == 2
    text = capsys.readouterr().err
    assert ("is damaged" in text) if how == "flipped" else ("1 of 7 planned units" in text), text
    assert not out.exists()
    if how == "flipped":
        shutil.rmtree(shard.parent)
    for i in (0, 1):
        words = made.command(out, *PCM, "--workers", "1", "--shard", f"{i}/2")
        assert main(words) == 0
    assert main(joined) == 0
    assert {k: v for k, v in content(out).items() if k[0] != "o"}.keys() == content(whole).keys()


def test_retry_finds_what_was_missing_and_keeps_the_rest(made, whole, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    more = tmp_path / "more"
    more.mkdir()
    lost = [row[1] for row in made.listed if made.states.get(row[1], "missing") != "kept"]
    found = lost[::2]
    for clip in found:
        (more / f"{clip}.flac").write_bytes(small_audioset.flac(made.index[clip]))
    before = {row[0]: row for row in records.Dataset(out).rows()}
    assert main([*made.command(out, *PCM), "--retry-missing", "--from", f"files={more}"]) == 0
    after = {row[0]: row for row in records.Dataset(out, verify=True).rows()}
    assert after.keys() - before.keys() == set(found)
    assert before.items() <= after.items()
    with (out / "report.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for clip, row in rows.items():
        state = "kept" if clip in found else made.states.get(clip, "missing")
        assert row["state"] == state, clip
        assert bool(row["source"]) == (state != "missing")
    assert main(made.command(out, *PCM)) == 0
    assert "is complete" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] in (["out", "more"], ["more", "out"])
