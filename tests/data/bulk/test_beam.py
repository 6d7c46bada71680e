"""Tasks as JSON, and the same units on Apache Beam's DirectRunner where it is installed."""

import json
import os
import shutil
import sys

import pytest
import small_audioset

from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.data.bulk import beam, beam_worker, engine, listed, named, plan, units
from asjax.data.clips import Encoding
from asjax.labels import get

PROCESSES = (
    "--runner=DirectRunner",
    "--runner-options=--direct_num_workers=2 --direct_running_mode=multi_processing",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_audioset.Made(tmp_path_factory.mktemp("audioset"))


@pytest.fixture(scope="module")
def tasks(made):
    label_set = get("audioset527")
    strong = made.folder / "strong.tsv"
    clip = made.parts[0][8]
    strong.write_text(
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        f"{clip[0]}_{clip[1] * 1000:.0f}\t0.1\t0.5\t/m/09x0r\n"
    )
    lists = listed.of_audioset(made.folder / "lists", "train,eval", label_set, [strong])
    options = units.Options(label_set, Encoding("pcm16", small_audioset.RATE), True)
    with engine.Pool(1) as pool:
        sources = plan.parse_sources(made.sources)
        return plan.of_sources(sources, lists, options, 1.0, pool).tasks()


def one_line(capsys) -> str:
    err = capsys.readouterr().err.strip()
    assert "\n" not in err, err
    return err


def test_a_task_comes_back_from_json_as_it_was(tasks):
    assert len(tasks) == 7
    assert any(want.others for task in tasks for want in task.wants)
    assert any(want.verdict for task in tasks for want in task.wants)
    assert any(want.clip.events for task in tasks for want in task.wants)
    for task in tasks:
        text = json.dumps(units.to_json(task))
        back = units.from_json(json.loads(text), task.options.labels)
        assert back == task
        assert back.name == task.name


def test_a_worker_makes_the_part_of_a_name_and_no_other(tasks, tmp_path):
    get("audioset527").to_csv(tmp_path / "labels.csv")
    (tmp_path / "tasks").mkdir()
    name = tasks[0].name
    with pytest.raises(AsjaxError, match="cannot be read"):
        named.make(name, str(tmp_path))
    about = units.to_json(tasks[0])
    (tmp_path / "tasks" / f"{name}.json").write_text(json.dumps(about))
    assert named.make(name, str(tmp_path)) == name
    inode = (tmp_path / name / "about.json").stat().st_ino
    assert named.make(name, str(tmp_path)) == name  # a retry of the engine does nothing
    assert (tmp_path / name / "about.json").stat().st_ino == inode
    about["wants"] = about["wants"][1:]
    (tmp_path / "tasks" / f"{name}.json").write_text(json.dumps(about))
    with pytest.raises(AsjaxError, match="is another one"):
        named.make(name, str(tmp_path))


def test_without_beam_it_is_one_line(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    assert main(made.command(tmp_path / "out", "--runner", "DirectRunner")) == 2
    assert 'pip install "asjax[beam]"' in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_the_direct_runner_makes_what_one_process_makes(made, tmp_path, capsys):
    pytest.importorskip("apache_beam")
    words = ("--encode", "pcm16", "--sample-rate", str(small_audioset.RATE))
    assert main(made.command(tmp_path / "audioset", *words, "--workers", "1")) == 0
    assert main(made.command(tmp_path / "beam", *words, *PROCESSES)) == 0, capsys.readouterr().err
    both = (tmp_path / "audioset", tmp_path / "beam")
    one, two = ({p.name: p.read_bytes() for p in out.iterdir()} for out in both)
    assert one == two
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audioset", "beam"]


def test_a_unit_that_fails_is_one_line_of_both(made, tmp_path, capfd):
    """A file is in the way of every part, so that no part can be written."""
    pytest.importorskip("apache_beam")
    said = []
    for how in ("--workers=1", "--runner=DirectRunner"):
        out, parts = tmp_path / how / "out", tmp_path / how / "out.parts"
        assert main(made.command(out, "--workers=1", "--shard=0/2")) == 0
        names = [path for path in parts.iterdir() if len(path.name) == 24]
        assert 1 < len(names) < 7
        for path in names:
            shutil.rmtree(path)
            path.write_text("in the way")
        capfd.readouterr()
        assert main(made.command(out, how, "--shard=0/2")) == 2
        err = capfd.readouterr().err
        assert "Traceback" not in err
        said.append([line for line in err.splitlines() if "error" in line.lower()])
    assert len(said[0]) == len(said[1]) == 1, said
    for (line,) in said:
        assert line.startswith("asjax prepare: error: part ")
        assert line.endswith("must be a folder, it is a file; choose another name")


@pytest.mark.parametrize(
    ("runner", "options", "said"),
    [
        ("NoRunner", "", "NoRunner"),
        ("DirectRunner", "--direct_num_workers=x", "invalid int value: 'x'"),
        ("DirectRunner", "--no_such_option=3", "no option --no_such_option"),
        ("DirectRunner", "stray", "--name=value"),
        ("DirectRunner", "--a='", "No closing quotation"),
    ],
)
def test_wrong_runners_and_options_are_one_line(made, tmp_path, capsys, runner, options, said):
    pytest.importorskip("apache_beam")
    words = ["--runner", runner, f"--runner-options={options}"]
    assert main(made.command(tmp_path / "out", *words)) == 2
    assert said in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_options_without_a_runner_are_one_line(made, tmp_path, capsys):
    assert main(made.command(tmp_path / "out", "--runner-options=--a=b")) == 2
    assert "needs --runner" in one_line(capsys)


def test_the_line_of_an_engine_is_that_of_the_unit():
    """What Beam's runners raise: a traceback as text, or the error with a remark."""
    layers = "Traceback (most recent call last):\n  File x\nasjax.config.AsjaxError: "
    both = f"{layers}full\n\nDuring ...\n\n{layers}full [while running 'Make']\n"
    assert beam._line(RuntimeError(both), "R") == "full"
    assert beam._line(AsjaxError("full [while running 'Make']"), "R") == "full"
    assert beam._line(RuntimeError("Traceback\n  x\nOSError: y\n"), "R") == "--runner R: OSError: y"
    assert beam._line(KeyError(), "R") == "--runner R: KeyError"


def test_a_worker_ends_with_the_program_or_the_file(tmp_path, monkeypatch):
    ended = []

    def leave(code):
        ended.append(code)
        raise SystemExit

    monkeypatch.setattr(beam_worker.os, "_exit", leave)
    for program, alive in [(os.getppid(), tmp_path / "gone"), (-1, tmp_path)]:
        with pytest.raises(SystemExit):
            beam_worker._end_with(program, str(alive))
    assert ended == [0, 0]
