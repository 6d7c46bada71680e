"""`asjax tag --from --runner`: the units of one process, made by workers of Apache Beam."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_detectors import CLIP_S, RATE, make

from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.tag import collection, units, work

ROOT = Path(__file__).parents[2]
GUARD_S = 600
PROCESSES = [
    "--runner=DirectRunner",
    "--runner-options=--direct_num_workers=2 --direct_running_mode=multi_processing",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """12 recordings below lake/, one of them bad, a detector, and the results without Beam."""
    root, rng = tmp_path_factory.mktemp("beam"), np.random.default_rng(3)
    (root / "lake").mkdir()
    for i in range(11):
        wave = rng.normal(0, 0.1, round((1.0, 0.3, 2.2)[i % 3] * CLIP_S * RATE))
        soundfile.write(root / "lake" / f"{i:02d}.wav", wave, RATE)
    (root / "lake" / "05 bad.wav").write_text("no sound")
    make(root / "a")
    assert main(command(root, root / "plain")) == 1
    return root


def command(root, out, *more):
    words = ["tag", "--from", root / "lake", "--to", out, "--model", root / "a", *more]
    return [*map(str, words), "--batch-size=4", "--unit-size=2"]


def content(folder) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("how", [["--runner=DirectRunner"], PROCESSES])
def test_beam_makes_the_bytes_of_one_process(root, tmp_path, capfd, how):
    pytest.importorskip("apache_beam")
    assert main(command(root, tmp_path / "out", *how)) == 1
    said = capfd.readouterr()
    assert "12 of 12 recordings: 11 tagged, 1 left out" in said.out
    assert said.err == ""
    assert content(tmp_path / "out") == content(root / "plain")


def test_shards_and_paths_of_the_working_folder(root, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    monkeypatch.chdir(root)
    out = Path("shards")
    for i in range(2):
        main(command(Path(), out, f"--shard={i}/2", "--runner=DirectRunner"))
    assert main(command(Path(), Path("here"))) == 1
    assert content(out) == content(Path("here"))


def test_a_unit_that_fails_is_the_line_and_code_of_one_process(root, tmp_path, capfd):
    """A folder is in the place of the table of unit 3."""
    pytest.importorskip("apache_beam")
    said = []
    for how in ([], ["--runner=DirectRunner"], PROCESSES):
        out = tmp_path / "out"
        assert main(command(root, out)) == 1
        (out / "tags-00003.tsv").unlink()
        (out / "tags-00003.tsv").mkdir()
        capfd.readouterr()
        assert main(command(root, out, *how)) == 2
        said.append(capfd.readouterr().err)
        (out / "tags-00003.tsv").rmdir()
        assert main(command(root, out)) == 1
        assert content(out) == content(root / "plain")
    assert said[0].count("\n") == 1
    assert "cannot be written" in said[0]
    assert said == said[:1] * 3


def workers() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"asjax.data.bulk.beam_worker" in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="lists processes by /proc")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_a_stopped_run_leaves_no_worker_and_goes_on_to_the_same_bytes(root, tmp_path, sent, code):
    pytest.importorskip("apache_beam")
    others, out, end = set(workers()), tmp_path / "out", time.monotonic() + GUARD_S
    run = subprocess.Popen(
        [sys.executable, "-m", "asjax", *command(root, out, *PROCESSES)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(out.glob("units/0*.json")) and run.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    run.send_signal(sent)
    _, said = run.communicate(timeout=GUARD_S)
    assert run.returncode == code, said
    while set(workers()) - others:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert main(command(root, out, *PROCESSES)) == 1
    assert content(out) == content(root / "plain")


def test_a_process_loads_the_model_once_and_starts_jax_itself(root, tmp_path):
    """The command without the engine: pickled, and called for each unit in a fresh process."""
    code = f"""
import pickle
from jax._src import xla_bridge
from asjax import predict
from asjax.__main__ import main
from asjax.data.bulk import beam
loads, load = [], predict.load
predict.load = lambda *a, **k: loads.append(1) or load(*a, **k)
def run(runner, names, command, finished):
    assert not xla_bridge.backends_are_initialized(), "the program itself has started jax"
    loads.clear()
    for name in names:
        pickle.loads(pickle.dumps(command))(name)
    assert xla_bridge.backends_are_initialized()
    print("UNITS", len(names), "LOADS", len(loads))
beam.of, beam.run = (lambda args: "a runner"), run
print("CODE", main({command(root, tmp_path / "out")!r}))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=GUARD_S
    )
    assert "UNITS 6 LOADS 1" in done.stdout, done.stderr
    assert "CODE 1" in done.stdout
    assert content(tmp_path / "out") == content(root / "plain")


def test_a_worker_with_another_list_is_refused(root):
    found = collection.opened(str(root / "lake"))
    with pytest.raises(AsjaxError, match="another value of list"):
        units.joined(root / "plain", found, 2, "tsv", {"list": "other"})


def test_a_worker_without_the_folder_of_the_command_is_one_line(tmp_path):
    command = work.Command("run", str(tmp_path / "gone"), Namespace(), None, None)
    with pytest.raises(AsjaxError, match="has no folder"):
        command("00000")


def test_without_beam_it_is_one_line_and_nothing_is_written(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    assert main(command(root, tmp_path / "out", "--runner=DirectRunner")) == 2
    err = capsys.readouterr().err.strip()
    assert 'pip install "asjax[beam]"' in err
    assert "\n" not in err
    assert list(tmp_path.iterdir()) == []
    assert main(["tag", "x.wav", "--model=m", "--runner=DirectRunner"]) == 2
    assert "--from" in capsys.readouterr().err
