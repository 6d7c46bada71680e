"""`asjax stats`: official lists to the printed digit, a small manual list, broken files."""

import argparse
import csv
import gzip
import json

import matplotlib.image
import numpy as np
import pytest

from asjax import labels
from asjax.config import AsjaxError
from asjax.data import audioset
from asjax.papers import lists as stats

BARK, SPEECH, CHURCH_BELL, FIRECRACKER = "/m/05tny_", "/m/09x0r", "/m/03w41f", "/g/122z_qxw"
TRAIN = [[BARK], [SPEECH], [SPEECH, BARK], [SPEECH], [CHURCH_BELL, FIRECRACKER]]


def write(path, rows, clips=None, positives=None, tail=""):
    """A segment list with the official three header lines."""
    clips = len(rows) if clips is None else clips
    positives = sum(map(len, rows)) if positives is None else positives
    lines = [
        "# Segments csv created Sun Mar  5 10:54:31 2017",
        f"# num_ytids={clips}, num_segs={clips}, num_unique_labels=527, "
        f"num_positive_labels={positives}",
        "# YTID, start_seconds, end_seconds, positive_labels",
        *(f'{i:011d}, 0.000, 10.000, "{",".join(row)}"' for i, row in enumerate(rows)),
    ]
    text = "\n".join(lines) + "\n" + tail
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def run(*argv):
    parser = argparse.ArgumentParser()
    stats.add_arguments(parser)
    return stats.main(parser.parse_args([str(a) for a in argv]))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_segments_are_read_from_plain_and_gzip_with_every_kind_of_mid(tmp_path, name):
    table = audioset.read_segments(write(tmp_path / name, TRAIN), "audioset527")
    found = labels.get("audioset527")
    expected = np.zeros((5, 527), int)
    for i, row in enumerate(TRAIN):
        expected[i, found.encode(row)] = 1
    np.testing.assert_array_equal(table.toarray(), expected)


def test_a_mid_given_twice_counts_once_and_matches_the_header(tmp_path):
    table = audioset.read_segments(write(tmp_path / "a.csv", [[BARK, BARK]]), "audioset527")
    assert table.nnz == 1
    assert table.data.tolist() == [1]


def test_cut_and_damaged_lists_are_refused_with_a_clear_line(tmp_path):
    read = audioset.read_segments
    with pytest.raises(AsjaxError, match="must have 6 clips as its header says, got 5"):
        read(write(tmp_path / "a.csv", TRAIN, clips=6), "audioset527")
    with pytest.raises(AsjaxError, match="must have 8 labels as its header says, got 7"):
        read(write(tmp_path / "a.csv", TRAIN, positives=8), "audioset527")
    for tail in ('abc, 0.000, 10.000, "/m/05t', "abc, 0.0"):
        with pytest.raises(AsjaxError, match="line 9 is cut in the middle"):
            read(write(tmp_path / "a.csv", TRAIN, tail=tail), "audioset527")
    whole = write(tmp_path / "a.csv.gz", TRAIN * 400).read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:-4] + b"0000"):
        (tmp_path / "a.csv.gz").write_bytes(broken)
        with pytest.raises(AsjaxError, match="cut short or damaged after"):
            read(tmp_path / "a.csv.gz", "audioset527")


def test_what_is_no_segment_list_is_refused(tmp_path):
    read = audioset.read_segments
    with pytest.raises(AsjaxError, match="does not exist"):
        read(tmp_path / "none.csv", "audioset527")
    with pytest.raises(AsjaxError, match="line 4: label '/m/none' is not one of audioset527"):
        read(write(tmp_path / "a.csv", [["/m/none"]]), "audioset527")
    (tmp_path / "a.csv").write_text("filename,label\na.wav,dog\n")
    with pytest.raises(AsjaxError, match="line 1 must be YTID"):
        read(tmp_path / "a.csv", "audioset527")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x01" * 50)
    with pytest.raises(AsjaxError, match="is not text"):
        read(tmp_path / "a.csv", "audioset527")
    (tmp_path / "a.csv").write_text("# nothing\n")
    with pytest.raises(AsjaxError, match="has no clips"):
        read(tmp_path / "a.csv", "audioset527")


def test_a_list_without_header_counts_is_read_with_a_warning(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(f'x, 0.0, 1.0, "{BARK}"\n')
    assert audioset.read_segments(tmp_path / "a.csv", "audioset527").shape == (1, 527)
    assert "no counts in its header" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x/balanced_train_segments.csv.gz", "balanced_train"),
        ("eval_segments.csv", "eval"),
        ("mine.csv", "mine"),
    ],
)
def test_the_split_is_named_by_the_file(path, name):
    assert audioset.split_name(path) == name


def test_a_small_list_gives_hand_computed_numbers_and_all_files(tmp_path, capsys):
    out = tmp_path / "new" / "stats"
    train = write(tmp_path / "balanced_train_segments.csv", TRAIN)
    more = write(tmp_path / "unbalanced_train_segments.csv.gz", [[SPEECH]] * 3)
    test = write(tmp_path / "eval_segments.csv", [[BARK, "/m/0bt9lr"]])  # Bark, Dog
    assert run(train, more, test, "--betas", "0,1", "--out", out) == 0
    found = json.loads((out / "stats.json").read_text())
    assert list(found["splits"]) == ["balanced_train", "unbalanced_train", "eval", "train", "all"]
    # Bark adds Dog, pets and Animal; Church bell adds Bell, Musical instrument and Music;
    # Firecracker adds Fireworks and Explosion
    row = found["splits"]["train"]
    assert [row[k] for k in ("clips", "labels", "labels_after")] == [8, 10, 10 + 2 * 3 + 3 + 2]
    assert [row["classes_changed"], row["clips_changed"], row["classes_absent"]] == [8, 3, 523]
    assert row["imbalance_ratio"] == 6.0
    assert found["splits"]["eval"]["labels_after"] == 4
    # 8 clips; counts Speech 6, Bark 2, bells 1: M = 6/2 for Bark, 6/1 for the bell
    full = found["oversampling"]["1"]
    assert found["oversampled_split"] == "train"
    assert [full["max_M"], full["sum_M"]] == [6, 5 + 2 * 3 + 6]
    counts = np.array(full["counts"])
    index = labels.get("audioset527").index
    expected = [(SPEECH, 8), (BARK, 6), (CHURCH_BELL, 6)]
    assert [(m, counts[index(m)]) for m, _ in expected] == expected
    assert full["rarest_one_in"] == pytest.approx(17 / 6)
    printed = capsys.readouterr().out
    assert "+110.00%" in printed
    assert "1 in 2.8" in printed
    with (out / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 527
    animal = next(r for r in rows if r["display_name"] == "Animal")
    assert [animal["train_before"], animal["train_after_hlp"]] == ["0", "2"]
    again = stats.as_json(stats.read(out))  # what was written is all that is needed
    assert again == found
    stats.write_per_class(stats.read(out), tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == (out / "per_class.csv").read_text()
    for picture in ("class_counts.png", "beta_prior.png"):
        image = matplotlib.image.imread(out / picture)
        assert image.shape[0] > 600
        assert image.shape[1] > 1000
        assert image[..., :3].std() > 0.05


def test_strict_leaves_church_bells_alone(tmp_path):
    path = write(tmp_path / "train.csv", TRAIN)
    loose = stats.collect([path], betas=[0.0])["splits"]["train"]
    strict = stats.collect([path], strict=True, betas=[0.0])["splits"]["train"]
    assert loose.after.sum() - strict.after.sum() == 2  # Musical instrument, Music


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.csv", "--betas", "x"], "--betas must be numbers"),
        (["a.csv", "--betas", "-1"], "--betas must be finite"),
        (["a.csv", "x/a.csv"], "different names, got a, a"),
        (["a.csv", "--labels", "esc10"], "esc10 has no ontology"),
        (["none.csv"], "none.csv does not exist"),
        (["."], "segment list . is a folder"),
        (["a.csv", "--out", "a.csv"], "must be a writable folder"),
        (["all.csv", "a.csv"], "must not have the name all"),
        (["--strict"], "need segment lists"),
        (["--betas", "0,1"], "need segment lists"),
        (["a.csv", "--batches", "2"], "belong to --features"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", TRAIN)
    with pytest.raises(AsjaxError, match=message):
        run(*argv)
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]  # no empty folder is left behind


def test_official_lists_reproduce_the_published_tables_to_the_digit(
    shared_dir, golden, tmp_path, capsys
):
    folder = shared_dir / "data" / "metadata" / "audioset"
    names = ["balanced_train", "unbalanced_train", "eval"]
    assert run(*(folder / f"{n}_segments.csv.gz" for n in names), "--out", tmp_path) == 0
    expected = golden("audioset_counts")[0]
    found = json.loads((tmp_path / "stats.json").read_text())
    for name, row in expected["splits"].items():
        got = found["splits"][name]
        for key in set(row) - {"counts", "counts_after"}:
            assert got[key] == pytest.approx(row[key], rel=1e-9), (name, key)
    for beta, row in expected["oversampling_train"].items():
        for key, value in row.items():
            assert found["oversampling"][beta][key] == pytest.approx(value, rel=1e-9), (beta, key)
    with (tmp_path / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in names:
        for column, key in (("before", "counts"), ("after_hlp", "counts_after")):
            counts = [int(r[f"{name}_{column}"]) for r in rows]
            assert counts == expected["splits"][name][key]
    printed = capsys.readouterr().out.splitlines()
    for name in ("stats.json", "per_class.csv"):  # the files that come with asjax
        assert (stats.OFFICIAL / name).read_text() == (tmp_path / name).read_text()
    for line in (
        "all               2,084,320  4,124,898  1.9790  4,974,608  2.3867  +20.60%  "
        "            109  549,908 (26.4%)",
        "Wild animals                               1,112  42,514   x38.2",
        "1     15,009  437,491,263  211.968     144.0        0.4653     1 in 435.2",
        "0.5      123   19,039,972    9.225     936.3        0.6294   1 in 2,310.4",
    ):
        assert line in printed


def test_without_lists_the_official_counts_that_come_with_asjax_are_shown(golden, tmp_path, capsys):
    assert run("--out", tmp_path) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("the three official lists of AudioSet, as counted before; no list")
    assert "0.5      123   19,039,972    9.225     936.3        0.6294   1 in 2,310.4" in printed
    expected = golden("audioset_counts")[0]
    with (tmp_path / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, row in expected["splits"].items():
        for column, key in (("before", "counts"), ("after_hlp", "counts_after")):
            if key in row:
                assert [int(r[f"{name}_{column}"]) for r in rows] == row[key]
