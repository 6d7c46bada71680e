"""Tasks as JSON, and the same units on Apache Beam's DirectRunner where it is installed."""

import json
import sys

import pytest
import small_audioset

from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.data.bulk import beam, engine, listed, plan, units
from asjax.data.clips import Encoding
from asjax.labels import get


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
        beam.make_named(name, str(tmp_path))
    about = units.to_json(tasks[0])
    (tmp_path / "tasks" / f"{name}.json").write_text(json.dumps(about))
    assert beam.make_named(name, str(tmp_path)) == name
    inode = (tmp_path / name / "about.json").stat().st_ino
    assert beam.make_named(name, str(tmp_path)) == name  # a retry of the engine does nothing
    assert (tmp_path / name / "about.json").stat().st_ino == inode
    about["wants"] = about["wants"][1:]
    (tmp_path / "tasks" / f"{name}.json").write_text(json.dumps(about))
    with pytest.raises(AsjaxError, match="is another one"):
        beam.make_named(name, str(tmp_path))


def test_without_beam_it_is_one_line(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert main(made.command(tmp_path / "out", "--runner", "DirectRunner")) == 2
    assert "pip install 'asjax[beam]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_direct_runner_makes_what_one_process_makes(made, tmp_path, capsys):
    pytest.importorskip("apache_beam")
    words = ("--encode", "pcm16", "--sample-rate", str(small_audioset.RATE))
    assert main(made.command(tmp_path / "audioset", *words, "--workers", "1")) == 0
    runner = ("--runner", "DirectRunner", "--runner-options=--direct_num_workers=2")
    options = " --direct_running_mode=multi_processing"
    runner = (*runner[:2], runner[2] + options)
    assert main(made.command(tmp_path / "beam", *words, *runner)) == 0, capsys.readouterr().err
    both = (tmp_path / "audioset", tmp_path / "beam")
    one, two = ({p.name: p.read_bytes() for p in out.iterdir()} for out in both)
    assert one == two
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audioset", "beam"]
    assert main(made.command(tmp_path / "no", *words, "--runner", "NoRunner")) == 2
    assert "--runner NoRunner" in capsys.readouterr().err
