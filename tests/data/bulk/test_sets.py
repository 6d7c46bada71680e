"""Published sets in their true layout: every clip ends in the state that it was made with."""

import csv
import shutil

import pytest
import small_sets

from asjax import build, labels
from asjax.__main__ import main
from asjax.data import records, sources
from asjax.data.bulk import sets

MAKERS = {
    "esc50": small_sets.esc50,
    "esc10": lambda folder: small_sets.esc50(folder, esc10=True),
    "urbansound8k": small_sets.urbansound8k,
    "fsd50k": small_sets.fsd50k,
    "desed": small_sets.desed,
}


def words(name, place, out, *more):
    where = [str(place)] if name == "hear" else ["--source", str(place)]
    return ["prepare", name, *where, "--out", str(out), *more]


def check(out, made, wrong_labels=None):
    """Compare the report and the records with what was made."""
    with (out / "report.csv").open(newline="") as file:
        found = {row["id"]: row["state"] for row in csv.DictReader(file)}
    assert found == {clip: state for clip, (*_, state) in made.items()}
    dataset = records.Dataset(out, verify=True)
    rows = {row[0]: row for row in dataset.rows()}
    assert rows.keys() == {clip for clip, (*_, state) in made.items() if state == "kept"}
    for clip, row in rows.items():
        split, wanted, _ = made[clip]
        assert (row[1], set(filter(None, row[2].split(";")))) == (split, wanted), clip
    assert dataset.manifest["left_out_count"] == len(made) - len(rows)
    return dataset


@pytest.mark.parametrize("name", MAKERS)
def test_a_set_in_its_layout_becomes_records(tmp_path, name):
    made = MAKERS[name](tmp_path / "set")
    assert main(words(name, tmp_path / "set", tmp_path / "out")) == 0
    dataset = check(tmp_path / "out", made)
    if name == "urbansound8k":
        assert dataset.groups()["100032-0-0-0"] == "100032"


def test_events_of_desed_are_in_the_records(tmp_path):
    made = small_sets.desed(tmp_path / "set", count=24)
    assert main(words("desed", tmp_path / "set", tmp_path / "out", "--encode", "flac")) == 0
    source = sources.records(labels.get("desed10"), path=tmp_path / "out")
    for i, clip in enumerate(source.ids):
        events, split = source[i]["events"], made[clip][0]
        if split in ("weak", "unlabel_in_domain"):
            assert events is None
        elif not made[clip][1]:
            assert len(events) == 0
        else:
            assert events["onset_s"].tolist() == [0.05, 0.1]
            assert events["offset_s"][0] == 0.15
            assert 0.29 < events["offset_s"][1] < 0.4  # cut at the end of the sound


@pytest.mark.parametrize(("end", "events"), [(".tar", True), (".tar.gz", True), (".tar", False)])
def test_a_task_of_hear_is_read_from_its_tar(tmp_path, end, events, capsys):
    tar = tmp_path / f"hear2021-dcase2016_task2-48000{end}"
    made = small_sets.hear(tar, events=events)
    assert main(words("hear", tar, tmp_path / "out")) == 0
    dataset = check(tmp_path / "out", made)
    assert dataset.strong == events
    assert main(words("hear", tar, tmp_path / "no", "--rate", "16000")) == 2
    assert "--rate must be one of 48000" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([tar.name, "out"])


def test_fsd50k_with_the_classes_of_audioset(tmp_path, capsys):
    """192 of its 200 classes are classes of AudioSet; a list with another one is refused."""
    made = small_sets.fsd50k(tmp_path / "set", count=40)
    known, ours = labels.get("fsd50k200"), labels.get("audioset527")
    mid = dict(zip(known.ids, [known.meanings(i)[0] for i in range(200)], strict=True))
    lost = {clip for clip, (_, of, _) in made.items() if not {mid[x] for x in of} <= {*ours.ids}}
    assert 0 < len(lost) < 20
    out = tmp_path / "out"
    command = words("fsd50k", tmp_path / "set", out, "--labels", "audioset527")
    assert main(command) == 2
    assert "is not a class of audioset527" in capsys.readouterr().err
    for part in ("dev", "eval"):
        table = tmp_path / "set" / "FSD50K.ground_truth" / f"{part}.csv"
        lines = table.read_text().splitlines()
        keep = [line for line in lines if line.split(",")[0] not in lost]
        table.write_text("\n".join(keep) + "\n")
    assert main(command) == 0
    left = {k: (a, {mid[x] for x in b}, c) for k, (a, b, c) in made.items() if k not in lost}
    check(out, left)


def test_some_splits_only(tmp_path, capsys):
    made = small_sets.fsd50k(tmp_path / "set", count=40)
    out = tmp_path / "out"
    assert main(words("fsd50k", tmp_path / "set", out, "--splits", "val,eval")) == 0
    check(out, {k: v for k, v in made.items() if v[0] != "train"})
    assert main(words("fsd50k", tmp_path / "set", tmp_path / "no", "--splits", "test")) == 2
    assert "'test' is not one of eval, train, val" in capsys.readouterr().err


def test_shards_of_a_set_join_to_the_whole(tmp_path, monkeypatch):
    """With small units, wherever the set lies on a machine."""
    monkeypatch.setattr("asjax.data.bulk.plan.SIZE", 30)
    made = small_sets.esc50(tmp_path / "set")
    assert main(words("esc50", tmp_path / "set", tmp_path / "esc50", "--workers", "1")) == 0
    check(tmp_path / "esc50", made)
    shutil.copytree(tmp_path / "set", tmp_path / "elsewhere" / "set")
    for i in range(3):
        place = tmp_path / ("set" if i % 2 else "elsewhere/set")
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        out = tmp_path / f"shard{i}"
        code = main(words("esc50", place, out, "--workers", "1", "--shard", f"{i}/3"))
        assert code == 0
    shards = [str(tmp_path / f"shard{i}.parts") for i in range(3)]
    assert main(["prepare", "merge", *shards, "--out", str(tmp_path / "joined")]) == 0
    one, two = (records.Dataset(tmp_path / name) for name in ("esc50", "joined"))
    assert list(one.rows()) == list(two.rows())
    assert (tmp_path / "esc50" / "report.csv").read_text().count("\n") == 401


@pytest.mark.parametrize(
    ("name", "lack", "message"),
    [
        ("esc50", "meta/esc50.csv", "meta/esc50.csv is missing"),
        ("urbansound8k", "metadata/UrbanSound8K.csv", "must hold metadata/UrbanSound8K.csv"),
        ("fsd50k", "FSD50K.ground_truth/eval.csv", "must hold FSD50K.ground_truth/eval.csv"),
        ("desed", "metadata", "must hold DESED's lists, such as metadata/validation"),
    ],
)
def test_what_is_no_copy_of_a_set_is_told_so(tmp_path, name, lack, message, capsys):
    small = {"esc50": 5, "urbansound8k": 5, "fsd50k": 8, "desed": 3}[name]
    MAKERS[name](tmp_path / "set", small)
    place = tmp_path / "set" / lack
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert main(words(name, tmp_path / "set", tmp_path / "out")) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert message in err[0]
    assert main(words(name, tmp_path / "nowhere", tmp_path / "out")) == 2
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.parts").exists()


def test_a_layout_is_data_for_a_config(tmp_path):
    """What a set was prepared to is a source of a config, in its official splits."""
    small_sets.urbansound8k(tmp_path / "set", count=60)
    layout = sets.urbansound8k(tmp_path / "set", "")
    assert main(words("urbansound8k", tmp_path / "set", tmp_path / "out")) == 0
    spec = {"name": "records", "path": str(tmp_path / "out"), "splits": ["fold1", "fold2"]}
    source = build.source(spec, layout.label_set)
    assert set(source.split) == {"fold1", "fold2"}
