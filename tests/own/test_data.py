"""`--data` on small folders and lists."""

import threading
import time

import numpy as np
import pytest
import soundfile as sf

from asjax import build
from asjax.config import AsjaxError
from asjax.own import data


def sound(path, seconds=1.0, rate=8_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(
        path, np.random.default_rng(len(path.name)).normal(size=round(seconds * rate)) * 0.1, rate
    )


def tree(folder, clips=6, classes=("cat", "dog"), splits=("",), seconds=1.0):
    for split in splits:
        for name in classes:
            for i in range(clips):
                sound(folder / split / name / f"{split}{i}.wav", seconds)
    return folder


def listed(folder, rows, name="clips.csv", header="filename,labels"):
    for row in rows:
        sound(folder / row.partition(",")[0])
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder / name


def ids(own, role):
    return set(build.source(own.specs[role], own.label_set).ids)


def test_a_folder_of_folders_is_held_out_by_class(tmp_path):
    own = data.read(str(tree(tmp_path / "x", clips=10)))
    assert own.label_set.names == ("cat", "dog")
    assert own.single
    assert own.counts == {"train": 16, "eval": 4}
    assert not ids(own, "train") & ids(own, "eval")
    held = [clip.split("/")[0] for clip in ids(own, "eval")]
    assert sorted(held) == ["cat", "cat", "dog", "dog"]
    assert own.specs == data.read(str(tmp_path / "x")).specs  # the same every time
    assert "it has no splits" in own.lines[0]


def test_folders_of_splits(tmp_path):
    own = data.read(str(tree(tmp_path, splits=("train", "val", "test"), clips=3)))
    assert own.counts == {"train": 6, "eval": 6, "test": 6}
    assert all(clip.startswith("test/") for clip in ids(own, "test"))


def test_train_and_test_without_dev(tmp_path):
    rows = [f"{i}.wav,{'ab'[i % 2]},{'test' if i > 14 else 'train'}" for i in range(20)]
    own = data.read(str(listed(tmp_path, rows, header="filename,labels,split")))
    assert own.counts == {"train": 12, "eval": 3, "test": 5}
    assert ids(own, "test") == {f"{i}.wav" for i in range(15, 20)}
    assert not ids(own, "train") & ids(own, "eval")


def test_groups_stay_together(tmp_path):
    rows = [f"{i}.wav,{'ab'[i % 2]},site{i // 4}" for i in range(40)]
    own = data.read(str(listed(tmp_path, rows, header="filename,labels,group")))
    site = lambda role: {int(clip.split(".")[0]) // 4 for clip in ids(own, role)}  # noqa: E731
    assert len(site("eval")) == 2
    assert not site("train") & site("eval")


def test_several_labels_are_not_single(tmp_path):
    rows = [f"{i}.wav,a;b" if i else "0.wav,a" for i in range(8)]
    assert not data.read(str(listed(tmp_path, rows))).single


def test_unused_splits_are_said(tmp_path):
    names = ["train", "dev", "test", "spare"]
    rows = [f"{i}.wav,{'ab'[i // 4 % 2]},{names[i % 4]}" for i in range(16)]
    own = data.read(str(listed(tmp_path, rows, header="filename,labels,split")))
    assert own.lines[1] == "data: 4 clips are not used: spare (4 clips)"
    chosen = data.read(str(tmp_path / "clips.csv"), splits="train=train+spare,eval=dev")
    assert chosen.counts == {"train": 8, "eval": 4}
    with pytest.raises(AsjaxError, match="split 'nope' does not exist"):
        data.read(str(tmp_path / "clips.csv"), splits="train=nope,eval=dev")
    with pytest.raises(AsjaxError, match="twice"):
        data.read(str(tmp_path / "clips.csv"), splits="train=train,eval=train")


def test_the_list_in_a_folder_is_found(tmp_path):
    listed(tmp_path, [f"{i}.wav,{'ab'[i % 2]}" for i in range(6)])
    assert data.read(str(tmp_path)).specs["train"]["csv"] == str(tmp_path / "clips.csv")
    (tmp_path / "notes.tsv").write_text("hello\nworld\n")
    assert data.spec_of(str(tmp_path))["csv"] == str(tmp_path / "clips.csv")
    (tmp_path / "more.csv").write_text("filename,labels\n0.wav,a\n")
    with pytest.raises(AsjaxError, match="several lists of clips: clips.csv, more.csv"):
        data.read(str(tmp_path))


def test_audio_elsewhere_and_other_columns(tmp_path):
    for i in range(6):
        sound(tmp_path / "wav" / f"{i}.wav")
    lines = ["path|species", *(f"{i}.wav|{'ab'[i % 2]}" for i in range(6))]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    own = data.read(
        str(tmp_path / "x.csv"),
        columns="file=path,labels=species",
        audio_root=str(tmp_path / "wav"),
    )
    assert own.label_set.names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing.csv", "there is no such file or folder"),
        ("", "--data must name a CSV"),
        ("esc01", "there is no such file or folder"),
        ("esc01()", "did you mean 'esc10'"),
        ("records(", "must look like"),
    ],
)
def test_nothing_there(text, message):
    with pytest.raises(AsjaxError, match=message) as error:
        data.read(text)
    assert "\n" not in str(error.value)


def test_options_that_do_not_fit(tmp_path):
    with pytest.raises(AsjaxError, match="--audio belongs to --data with a CSV"):
        data.spec_of("esc10", audio_root="x")
    with pytest.raises(AsjaxError, match="--label-separator belongs"):
        data.spec_of("esc10", label_separator=",")


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ({"columns": "file=a,labels=b"}, "--columns"),
        ({"label_separator": ","}, "--label-separator"),
        ({"audio_root": "x"}, "--audio"),
    ],
)
def test_options_of_a_csv_do_not_fit_a_folder_of_classes(tmp_path, field, option):
    tree(tmp_path / "x", clips=1)
    with pytest.raises(AsjaxError, match=f"{option} belongs to --data with a CSV") as caught:
        data.read(str(tmp_path / "x"), **field)
    assert "\n" not in str(caught.value)
    name = field.keys() - {"audio_root"}
    if name:
        spec = {"name": "folder", "root": str(tmp_path / "x"), **field}
        with pytest.raises(AsjaxError, match=f"{name.pop()} belongs to a CSV"):
            build.source(
                spec, data.label_set_of({"name": "folder", "root": spec["root"]}, "own")[0]
            )


def test_options_of_a_csv_fit_a_folder_that_holds_one(tmp_path):
    listed(tmp_path, ["a.wav,x|y"], header="wav,tags")
    found = data.spec_of(str(tmp_path), columns="file=wav,labels=tags", label_separator="|")
    assert found["csv"] == str(tmp_path / "clips.csv")
    (tmp_path / "sub").mkdir()
    with pytest.raises(AsjaxError, match="does not have the columns nope"):
        data.spec_of(str(tmp_path), columns="file=nope,labels=tags")


def test_esc10_has_ten_classes_and_five_folds():
    own = data.read("esc10")
    assert (own.labels, len(own.label_set), own.single) == ("esc10", 10, True)
    assert own.specs["test"]["splits"] == ["fold5"]
    assert own.folds == tuple(f"fold{i}" for i in range(1, 6))
    assert own.clip_s == 5.0


@pytest.mark.parametrize(("seconds", "want"), [(0.1, 0.5), (1.0, 1.0), (2.3, 2.5), (13.0, 10.0)])
def test_clip_length(tmp_path, seconds, want):
    assert data.read(str(tree(tmp_path, clips=3, seconds=seconds))).clip_s == want


def test_undecodable_clips_do_not_matter_for_the_length(tmp_path):
    tree(tmp_path, clips=5)
    (tmp_path / "cat" / "0.wav").write_bytes(b"no audio")
    assert data.read(str(tmp_path)).clip_s == 1.0


def test_clips_that_hang_do_not_stop_the_reading_of_lengths(tmp_path, monkeypatch):
    own = data.read(str(tree(tmp_path, clips=5, seconds=2.0)))
    source, info = build.source(own.specs["train"], own.label_set), data.audio.info
    hang = threading.Event()

    def slow(path, **options):
        return info(path, **options) if not path.endswith("3.wav") else hang.wait(60)

    monkeypatch.setattr(data.audio, "info", slow)
    monkeypatch.setitem(data.FIELDS["data"], "decode_timeout_s", 0.5)
    begin = time.monotonic()
    with pytest.warns(UserWarning, match="clips were tried for their length, because reading took"):
        assert data.clip_length(source) == 2.0
    assert time.monotonic() - begin < 20
    hang.set()
