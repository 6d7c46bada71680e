"""The tiny form of benchmarks/distillation.py: its numbers are those of the runs' reports."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import distillation

    return distillation


def reported(out: Path, start: str, file: str, *keys):
    """A number of the report of the run whose name begins like that."""
    (folder,) = (p for p in out.glob(f"{start}-*") if p.is_dir())
    value = json.loads((folder / "eval" / file).read_text())
    for key in keys:
        value = value[key]
    return value


def test_scenes(study, tmp_path, capsys, monkeypatch):
    command = ["--tiny", "--part", "frames", "--seeds", "1", "--bootstrap", "20"]
    command += ["--out", str(tmp_path)]
    assert study.main(command) == 0
    first = capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())
    rows = found["parts"]["frames"]
    psds1 = lambda name: reported(tmp_path, name, "events.json", "events", "psds1")  # noqa: E731
    teachers = [psds1(f"frames-BiGRU {seed}") for seed in range(3)]
    assert rows["BiGRU"]["seeds"] == pytest.approx(teachers)
    assert rows["BiGRU"]["value"] == pytest.approx(sum(teachers) / 3)
    for name in ("", ", labels and teachers", ", teachers, unlabelled scenes"):
        row = rows[f"student{name}"]
        assert row["value"] == pytest.approx(psds1(f"frames-student 0{name}"))
        assert 10 * row["parameters"] < rows["BiGRU"]["parameters"]
        assert row["interval"][0] <= row["value"] <= row["interval"][1]
        assert f"| student{name} | {row['parameters']:,} | {100 * row['value']:.1f} [" in first
    assert rows["ensemble"]["parameters"] == 3 * rows["BiGRU"]["parameters"]
    assert len(found["runs"]) == 8  # three teachers, logits of two sets of scenes, three students
    assert found["cpu_s"] == pytest.approx(sum(run["cpu_s"] for run in found["runs"].values()))
    assert (tmp_path / "distillation.png").read_bytes()[:4] == b"\x89PNG"

    # Finished runs are not made again; a stopped one ends the study and is not taken for finished.
    monkeypatch.setattr(study.train, "run", lambda *_: 75)
    assert study.main(command) == 0
    assert capsys.readouterr().out == first
    with pytest.raises(SystemExit) as error:
        study.main([*command, "--seed", "7"])
    assert error.value.code == 75
    assert not list(tmp_path.glob("frames-BiGRU 7*.json"))


@pytest.mark.slow
def test_clips(study, tmp_path):
    command = ["--tiny", "--part", "clips", "--folds", "1", "--bootstrap", "20"]
    assert study.main([*command, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["parts"]["clips"]
    runs = {"student": "student", "student, KD": "student KD", "ResNet": "ResNet", "CNN": "CNN"}
    for name, run in runs.items():
        file = ("metrics.json", "views", "labels", "mean_ap")
        assert rows[name]["folds"] == pytest.approx(
            [reported(tmp_path, f"clips-fold5-{run}", *file)]
        )
    small = 10 * rows["student, KD"]["parameters"]
    assert all(small < row["parameters"] for name, row in rows.items() if "student" not in name)
