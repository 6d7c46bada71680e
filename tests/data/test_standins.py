"""Stand-ins: made-up tasks in the layouts of the real ones."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from asjax import labels
from asjax.config import AsjaxError
from asjax.data import audio, hear, sources, standins

REPO = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ASJAX_CACHE", str(tmp_path / "cache"))


def test_a_small_task_is_written_when_it_is_needed_and_again_if_a_file_is_lost(tmp_path):
    task = hear.find("standin:dcase16")
    assert task.is_relative_to(tmp_path / "cache")
    assert sorted(p.name for p in (task / "16000").iterdir()) == ["test", "train", "valid"]
    first = {p.name: p.read_bytes() for p in task.rglob("*.wav")}
    wave = next(task.rglob("*.wav"))
    wave.unlink()
    assert hear.find("standin:dcase16") == task
    assert {p.name: p.read_bytes() for p in task.rglob("*.wav")} == first
    with pytest.raises(AsjaxError, match="stand-in 'dcase' does not exist; did you mean 'dcase16'"):
        hear.find("standin:dcase")


def test_the_notes_of_the_piano_are_where_the_list_says(tmp_path):
    """The power at a note's frequency rises at its onset."""
    standins.make("maestro", tmp_path / "m", files=1, seconds=6.0)
    label_set = hear.own_labels(tmp_path / "m")
    assert label_set.ids == tuple(str(p) for p in range(21, 109))
    louder = []
    for fold in range(5):
        table = json.loads((tmp_path / "m" / f"fold{fold:02d}.json").read_text())
        for name, notes in table.items():
            wave = audio.read(tmp_path / "m" / "16000" / f"fold{fold:02d}" / name, 16_000)
            assert len(wave) == 6 * 16_000
            assert len(notes) > 5
            for note in notes:
                hz = 440 * 2 ** ((int(note["label"]) - 69) / 12)
                at, size = round(note["start"] * 16), 1600
                if at >= size and at + size <= len(wave):
                    tone = np.exp(-2j * np.pi * hz * np.arange(size) / 16_000) * np.hanning(size)
                    before, after = wave[at - size : at], wave[at : at + size]
                    louder.append(abs(after @ tone) > 1.5 * abs(before @ tone))
    assert np.mean(louder) > 0.9


def test_desed_has_clips_with_times_and_clips_with_labels_only(tmp_path):
    path = standins.resolved("standin:desed")
    source = sources.records(labels.get("esc10"), path="standin:desed")
    counts = {s: source.split.count(s) for s in set(source.split)}
    assert counts == {"synthetic": 8, "weak": 8, "synthetic_validation": 4, "validation": 4}
    for split, marks in zip(source.split, source.events, strict=True):
        assert (marks is None) == (split == "weak")
    listed = path.parent / "metadata" / "weak.tsv"
    with listed.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    weak = [i for i, split in enumerate(source.split) if split == "weak"]
    for i, row in zip(weak, rows, strict=True):
        assert source.ids[i] == row["filename"]
        found = {labels.get("esc10").ids[c] for c in source.labels[i].indices}
        assert found == set(filter(None, row["event_labels"].split(",")))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dcase16", dict(files=(1, 1)), "files must be 3 whole numbers"),
        ("maestro", dict(files=0), "files must be 1 whole numbers"),
        ("desed", dict(clips=(1, 1, 1, 1.5)), "clips must be 4 whole numbers"),
        ("dcase16", dict(seconds=0), "clip_s must be a number from 1"),
    ],
)
def test_wrong_sizes_are_refused_and_leave_nothing(tmp_path, name, options, message):
    with pytest.raises(AsjaxError, match=message):
        standins.make(name, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_another_folder_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(AsjaxError, match="mine"):
        standins.make("maestro", tmp_path / "mine", files=1, seconds=1.0)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_the_script_writes_a_task_of_any_size(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("script", REPO / "data_prep" / "standins.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    out = str(tmp_path / "dcase2016_task2-made")
    words = ["dcase16", "--out", out, "--files", "1", "1", "2", "--seconds", "3", "--seed", "5"]
    assert script.main(words) == 0
    source = hear.hear(hear.own_labels(out), path=out, piece_s=1.0)
    assert sorted({*source.group}) == [
        "test/test-000.wav", "test/test-001.wav", "train/train-000.wav", "valid/valid-000.wav",
    ]  # fmt: skip
    assert len(source) == 4 * 3
    assert script.main(["dcase16", "--out", out, "--files", "1"]) == 2
    assert "files must be 3 whole numbers" in capsys.readouterr().err
