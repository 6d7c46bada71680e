"""Sources: the three kinds, their labels, splits and hashes, and errors of a bad CSV."""

import io
import pickle

import numpy as np
import pytest
import soundfile

from asjax import build, labels
from asjax.__main__ import main as asjax_main
from asjax.config import AsjaxError
from asjax.data import records, sources
from asjax.labels import LabelSet

PETS = LabelSet("pets", ("/m/dog", "/m/cat", "/m/cow"), ("Dog", "Cat, tame", "Cow"))
RATE = 8000


def save(path, hz=440.0, seconds=0.2):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)
    soundfile.write(path, wave, RATE)
    return path


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["a.wav", "b.flac", "sub/c d.wav", "é.wav"]):
        save(tmp_path / "audio" / name, 200 + 50 * i)
    table = tmp_path / "labels.csv"
    table.write_text(
        "\ufefffilename,labels,fold\r\n"
        "a.wav,Dog,1\r\n"
        'b.flac,"Cat, tame; dog",2\r\n'
        "sub/c d.wav,/m/cow;/m/cow,1\r\n"
        "\r\n"
        "é.wav,2;0,2\r\n",
        encoding="utf-8",
    )
    return {"name": "folder", "csv": str(table), "root": str(tmp_path / "audio")}


def test_a_folder_takes_names_mids_and_indices(folder):
    source = build.source(folder, PETS)
    assert source.ids == ["a.wav", "b.flac", "sub/c d.wav", "é.wav"]
    assert source.split == ["fold1", "fold2", "fold1", "fold2"]
    expected = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]])
    assert np.array_equal(source.labels.toarray(), expected)
    assert source.labels.dtype == np.int8
    for i in range(len(source)):
        clip = source[i]
        assert np.array_equal(clip["labels"], expected[i].nonzero()[0])
        assert clip["labels"].dtype == np.int64
        assert soundfile.info(clip["audio"]).frames == 1600
    for beyond in (4, -1):
        with pytest.raises(IndexError, match="0 to 3"):
            source[beyond]


def test_splits_select_clips_and_keep_labels_and_audio_together(folder):
    source = build.source(folder, PETS)
    part = build.source({**folder, "splits": ["fold2"]}, PETS)
    assert part.ids == ["b.flac", "é.wav"]
    assert np.array_equal(part.labels.toarray(), source.labels.toarray()[[1, 3]])
    assert [part[i]["audio"] for i in (0, 1)] == [source[i]["audio"] for i in (1, 3)]
    assert part.hash == source.select("fold2").hash != source.hash
    assert source.select(["fold2", "fold1"]).hash == source.hash
    with pytest.raises(AsjaxError, match="'fold3' does not exist"):
        source.select(["fold3"])
    with pytest.raises(AsjaxError, match="at least one"):
        source.select([])


def test_the_folder_hash_follows_content_and_not_the_place(folder, tmp_path):
    source = build.source(folder, PETS)
    moved = tmp_path / "elsewhere"
    (tmp_path / "audio").rename(moved)
    assert build.source({**folder, "root": str(moved)}, PETS).hash == source.hash
    table = tmp_path / "labels.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("a.wav,Dog", "a.wav,Cow"), encoding="utf-8")
    relabelled = build.source({**folder, "root": str(moved)}, PETS).hash
    assert relabelled != source.hash
    save(moved / "a.wav", seconds=0.3)
    assert build.source({**folder, "root": str(moved)}, PETS).hash != relabelled


def test_every_problem_of_a_csv_is_in_one_error_with_line_numbers(folder, tmp_path):
    table = tmp_path / "bad.csv"
    lines = ["filename,labels", "a.wav,Dog", "./a.wav,Cow", "b.flac,Cat, tame", "é.wav,Dgo"]
    lines += [f"no{i}.wav,Dog" for i in range(12)] + [",Dog", ",Cow"]
    table.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(AsjaxError) as caught:
        build.source({**folder, "csv": str(table)}, PETS)
    message = str(caught.value)
    assert "\n" not in message
    assert "1 duplicate rows: line 3 './a.wav' (also line 2)" in message
    assert "1 rows without exactly 2 fields (quote labels that hold commas): line 4 (3)" in message
    assert "1 unknown labels: line 5 'Dgo'" in message
    assert "12 missing files: line 6 'no0.wav'" in message
    assert "line 15 'no9.wav', and 2 more" in message
    assert "line 16" not in message.split("missing files")[1]
    assert "2 rows without filename: line 18, line 19" in message
    assert "they are Dog, Cat, tame, Cow" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must start with the header filename,labels"),
        ("file,label\na.wav,Dog\n", "missing: filename, labels"),
        ("filename,labels\n", "has no rows"),
        ("filename,labels,fold\na.wav,Dog,left side\n", "unusable splits: line 2 'left side'"),
        ("filename,labels,fold\na.wav,Dog,\n", "unusable splits: line 2 ''"),
        (b"filename,labels\n\xff\xfe,Dog\n", "cannot be read as UTF-8"),
        ("filename,labels\na\0.wav,Dog\n", "missing files|cannot be read"),
        ("filename,labels\na.wav,-1\n", "unknown labels: line 2 '-1'"),
        ("filename,labels\na.wav,3\n", "unknown labels: line 2 '3'"),
    ],
)
def test_an_unusable_csv_is_told_why(folder, tmp_path, text, message):
    table = tmp_path / "bad.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AsjaxError, match=message):
        build.source({**folder, "csv": str(table)}, PETS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"csv": "nowhere.csv"}, "label list nowhere.csv does not exist"),
        ({"root": "nowhere"}, "audio folder nowhere does not exist"),
        ({"rooot": "x"}, "field 'rooot' does not exist"),
        ({"name": "foldr"}, "data source 'foldr' does not exist; did you mean 'folder'"),
        ({"label_separator": ""}, "label_separator must not be empty"),
        ({"split_column": "part"}, "does not have the columns part"),
    ],
)
def test_a_wrong_spec_is_told_what_exists(folder, change, message):
    with pytest.raises(AsjaxError, match=message):
        build.source({**folder, **change}, PETS)


def test_own_labels_are_the_sorted_distinct_labels(folder, tmp_path):
    table = tmp_path / "own.csv"
    table.write_text("filename,labels\na.wav,zebra;7\nb.flac,ape\né.wav,7\n", encoding="utf-8")
    own = sources.own_labels(table)
    assert own.ids == own.names == ("7", "ape", "zebra")
    source = build.source({**folder, "csv": str(table)}, own)
    assert source.labels.toarray().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0]]
    # with digits as ids, an unknown digit must not count as an index
    table.write_text("filename,labels\na.wav,1\n", encoding="utf-8")
    with pytest.raises(AsjaxError, match="unknown labels: line 2 '1'"):
        build.source({**folder, "csv": str(table)}, own)


@pytest.fixture
def prepared(folder, tmp_path):
    PETS.to_csv(tmp_path / "pets.csv")
    out = tmp_path / "records"
    words = ["prepare", "folder", "--csv", folder["csv"], "--audio", folder["root"]]
    assert asjax_main([*words, "--labels", str(tmp_path / "pets.csv"), "--out", str(out)]) == 0
    return {"name": "records", "path": str(out)}


def test_prepared_records_hold_what_the_folder_holds(folder, prepared):
    plain, stored = build.source(folder, PETS), build.source(prepared, PETS)
    assert sorted(stored.ids) == sorted(plain.ids)
    at = [plain.ids.index(i) for i in stored.ids]
    assert np.array_equal(stored.labels.toarray(), plain.labels.toarray()[at])
    for i, j in enumerate(at):
        with open(plain[j]["audio"], "rb") as f:
            assert stored[i]["audio"] == f.read()
        assert np.array_equal(stored[i]["labels"], plain[j]["labels"])


def test_a_source_pickles_with_its_position(prepared):
    part = build.source({**prepared, "splits": "fold2"}, PETS)
    again = pickle.loads(pickle.dumps(part))
    assert repr(again) == repr(part)
    assert again[1]["audio"] == part[1]["audio"]


def test_records_of_another_label_set_are_refused_with_both_hashes(prepared):
    other = LabelSet("other", ("/m/cow", "/m/dog", "/m/cat"), ("Cow", "Dog", "Cat"))
    with pytest.raises(AsjaxError, match=f"{PETS.hash}, got {other.hash}"):
        build.source(prepared, other)
    swapped = build.source({**prepared, "convert": True}, other)
    straight = build.source(prepared, PETS)
    assert np.array_equal(swapped.labels.toarray(), straight.labels.toarray()[:, [2, 0, 1]])
    assert swapped.hash != straight.hash
    assert sources.own_labels(prepared["path"]).hash == PETS.hash


def test_prepare_leaves_out_missing_and_broken_files_but_not_wrong_labels(folder, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    (tmp_path / "audio" / "a.wav").write_text("no sound")
    (tmp_path / "audio" / "b.flac").unlink()
    words = ["prepare", "folder", "--csv", str(table), "--audio", folder["root"]]
    PETS.to_csv(tmp_path / "pets.csv")
    words += ["--labels", str(tmp_path / "pets.csv"), "--out"]
    assert asjax_main([*words, str(tmp_path / "some")]) == 0
    out = capsys.readouterr().out
    assert "kept 2 clips (fold1 1, fold2 1)" in out
    assert "left out 2:" in out
    assert "b.flac: file does not exist" in out
    reasons = records.Dataset(tmp_path / "some").manifest["left_out"]
    assert [r["id"] for r in reasons] == ["a.wav", "b.flac"]
    table.write_text("filename,labels\né.wav,Elk\n", encoding="utf-8")
    assert asjax_main([*words, str(tmp_path / "none")]) == 2
    assert "unknown labels: line 2 'Elk'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_prepare_re_encodes_on_request_and_with_own_labels(folder, tmp_path):
    words = ["prepare", "folder", "--csv", folder["csv"], "--audio", folder["root"]]
    table = tmp_path / "own.csv"
    table.write_text("filename,labels\na.wav,beep\nb.flac,boop\n", encoding="utf-8")
    words[3] = str(table)
    words += ["--labels", "own", "--out", str(tmp_path / "own")]
    assert asjax_main([*words, "--sample-rate", "16000"]) == 2
    assert asjax_main([*words, "--encode", "flac", "--sample-rate", "16000"]) == 0
    own = sources.own_labels(tmp_path / "own")
    assert own.ids == ("beep", "boop")
    source = build.source({"name": "records", "path": str(tmp_path / "own")}, own)
    info = soundfile.info(io.BytesIO(source[0]["audio"]))
    assert (info.format, info.samplerate, info.frames) == ("FLAC", 16000, 3200)


def test_the_embedded_esc10_opens_with_its_folds_and_mids():
    label_set = labels.get("audioset527")
    source = build.source("esc10(verify=True)", label_set)
    assert len(source) == 398
    counts = {f"fold{i}": source.split.count(f"fold{i}") for i in range(1, 6)}
    assert counts == {"fold1": 79, "fold2": 79, "fold3": 80, "fold4": 80, "fold5": 80}
    train = build.source({"name": "esc10", "splits": [f"fold{i}" for i in range(1, 5)]}, label_set)
    assert len(train) == 318
    per_class = np.asarray(source.labels.sum(0)).ravel()
    assert sorted(per_class[per_class > 0]) == [38] + [40] * 11
    assert per_class[label_set.index("Crowing, cock-a-doodle-doo")] == 38
    ten = build.source("esc10(convert=True)", labels.get("esc10"))
    assert np.array_equal(np.asarray(ten.labels.sum(1)).ravel(), np.ones(398))


def test_folds_of_one_split_leave_the_others_alone(tmp_path):
    """part1 to part3 divide the clips of train by group; test keeps its clips."""
    rows = ["filename,labels,split,group"]
    for i in range(24):
        save(tmp_path / f"{i}.wav", 200 + i)
        rows.append(f"{i}.wav,{'ab'[i % 2]},{'test' if i >= 18 else 'train'},g{i // 2}")
    (tmp_path / "x.csv").write_text("\n".join(rows) + "\n")
    own = sources.own_labels(tmp_path / "x.csv")

    def ids(**options):
        return set(sources.folder(own, csv=tmp_path / "x.csv", folds=3, **options).ids)

    parts = [ids(of=["train"], splits=[f"part{k}"]) for k in (1, 2, 3)]
    assert [len(part) for part in parts] == [6, 6, 6]
    assert set().union(*parts) == {f"{i}.wav" for i in range(18)}
    for part in parts:
        assert len({int(clip[:-4]) // 2 for clip in part}) == 3  # whole groups
    assert ids(of="train", splits=["test"]) == {f"{i}.wav" for i in range(18, 24)}
    with pytest.raises(AsjaxError, match="split 'nope' does not exist"):
        ids(of="nope")
    with pytest.raises(AsjaxError, match="of='train' needs folds"):
        sources.folder(own, csv=tmp_path / "x.csv", of="train")
