"""Sources and folders as people have them: other types, links, several tars in one file, wrong
places for the result. What can be used is used, the rest is told, nothing is lost."""

import csv
import io
import os
import tarfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_audioset
import soundfile

from asjax.__main__ import main
from asjax.config import AsjaxError, AsjaxWarning
from asjax.data import records
from asjax.data.bulk import engine, items, parts, readers
from asjax.data.bulk.units import Unit

MOST = 1 << 20


@pytest.fixture
def some(tmp_path):
    """Twelve listed clips, and `files` with the sound of the first ten."""
    listed = small_audioset.write_lists(tmp_path / "lists", small_audioset.rows()[::34])
    (tmp_path / "files").mkdir()
    for i, row in enumerate(listed[:10]):
        (tmp_path / "files" / f"Y{row[1]}.flac").write_bytes(small_audioset.flac(i))
    return listed


def prepare(folder, source, out, *more):
    words = ["--lists", folder / "lists", "--out", out, "--workers", "1", "--from", source]
    return main(["prepare", "audioset", *map(str, words), *more])


def kept(out) -> set[str]:
    with (out / "report.csv").open(newline="") as file:
        return {row["id"] for row in csv.DictReader(file) if row["state"] == "kept"}


def read(unit):
    return list(readers.read(unit, set(range(len(readers.names(unit)))), MOST))


def test_parquet_has_bytes_and_never_names_of_files_to_open(tmp_path):
    (tmp_path / "secret.wav").write_bytes(b"x")
    audio = pa.array([{"bytes": str(tmp_path / "secret.wav")}])
    pq.write_table(pa.table({"video_id": ["--PJHxphWEs"], "audio": audio}), tmp_path / "a.parquet")
    [unit] = readers.divided(Unit("parquet", str(tmp_path / "a.parquet")))
    with pytest.raises(items.Damaged, match=r"its audio\.bytes must be bytes"):
        read(unit)


def test_parquet_with_large_types_and_ids_as_bytes(tmp_path):
    kind = pa.struct({"bytes": pa.large_binary(), "path": pa.large_string()})
    audio = pa.array([{"bytes": b"1", "path": None}, None], kind)
    ids = pa.array([b"--PJHxphWEs", b"\xff"], pa.binary())
    pq.write_table(pa.table({"video_id": ids, "audio": audio}), tmp_path / "a.parquet")
    [unit] = readers.divided(Unit("parquet", str(tmp_path / "a.parquet")))
    assert readers.names(unit) == ["--PJHxphWEs", "\ufffd"]
    assert read(unit)[0].audio == b"1"


@pytest.mark.parametrize("fault", ["two tars", "sum"])
def test_what_follows_the_end_of_a_tar_is_told(tmp_path, fault):
    path = tmp_path / ("a.tar" if fault == "two tars" else "a.tar.gz")
    (tmp_path / "a.wav").write_bytes(b"abc")
    with tarfile.open(path, "w" if fault == "two tars" else "w:gz") as archive:
        archive.add(tmp_path / "a.wav", "a.wav")
    data, got = path.read_bytes(), []
    end = bytes([data[-8] ^ 1]) + data[-7:]  # the CRC of gzip
    path.write_bytes(2 * data if fault == "two tars" else data[:-8] + end)
    with pytest.raises(items.Damaged, match="more data follow its end mark|CRC check failed"):
        got.extend(readers.read(Unit("tar", str(path)), {0}, MOST))
    assert [item.audio for item in got] == [b"abc"]


def test_folders_behind_links_are_searched_once(tmp_path):
    (tmp_path / "disk2").mkdir()
    (tmp_path / "disk2" / "a.wav").write_bytes(b"1")
    (tmp_path / "disk2" / "round").symlink_to(tmp_path)
    (tmp_path / "all").mkdir()
    for name in ("part00", "part01"):
        (tmp_path / "all" / name).symlink_to(tmp_path / "disk2")
    [unit] = readers.units("files", str(tmp_path / "all"))
    assert len(unit.names) == 1
    assert (tmp_path / "all" / unit.names[0]).read_bytes() == b"1"


@pytest.mark.parametrize("kind", ["parquet", "tar", "panns"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, kind):
    path = tmp_path / f"a{readers.KINDS[kind][0]}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with engine.Pool(1) as pool:
        [(_, _, damage)] = engine.names(readers.units(kind, str(path)), pool)
    assert "Git LFS pointer; fetch the file with git lfs pull" in damage


def panns(path, wave, target=None):
    with h5py.File(path, "w") as file:
        file["audio_name"] = np.array(["Y--PJHxphWEs.wav"] * len(wave), "S20")
        file["waveform"] = wave
        file.attrs["sample_rate"] = np.array([8000])
        if target is not None:
            file["target"] = target
    [unit] = readers.divided(Unit("panns", str(path)))
    return unit


def test_float32_waveforms_are_kept_bit_for_bit(tmp_path):
    wave = np.stack([small_audioset.wave(i) for i in range(3)]).astype(np.float32)
    got = read(panns(tmp_path / "a.h5", wave))
    for item, row in zip(got, wave, strict=True):
        found, rate = soundfile.read(io.BytesIO(item.audio), dtype="float32")
        assert rate == 8000
        np.testing.assert_array_equal(found, row)


@pytest.mark.parametrize("target", [np.zeros((2, 5), bool), np.zeros(3), np.zeros((3, 9, 9))])
def test_targets_that_do_not_fit_cost_no_clip(tmp_path, target):
    unit = panns(tmp_path / "a.h5", np.ones((3, 100), np.int16), target)
    with pytest.warns(AsjaxWarning, match="labels of the list are not compared"):
        got = read(unit)
    assert [item.labels for item in got] == [None] * 3
    assert all(len(item.audio) == 44 + 200 for item in got)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32, np.uint8])
def test_targets_of_any_number_are_compared(tmp_path, dtype):
    target = np.zeros((2, 527), dtype)
    target[0, 3] = target[1, 500] = 1
    got = read(panns(tmp_path / "a.h5", np.ones((2, 100), np.int16), target))
    assert [item.labels for item in got] == [[3], [500]]
    with h5py.File(tmp_path / "p.h5", "w") as file:  # PaSST, not packed
        file["audio_name"] = np.array(["Y--PJHxphWEs.mp3"] * 2, "S20")
        mp3 = file.create_dataset("mp3", (2,), h5py.vlen_dtype(np.dtype("uint8")))
        mp3[0] = mp3[1] = np.ones(5, np.uint8)
        file["target"] = target
    [unit] = readers.divided(Unit("passt", str(tmp_path / "p.h5")))
    assert [item.labels for item in read(unit)] == [[3], [500]]


def test_a_source_whose_name_is_no_utf8(tmp_path, some, capsys):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    try:
        os.rename(tmp_path / "files", place)
    except OSError:
        pytest.skip("this disk has only names in UTF-8")
    assert prepare(tmp_path, f"files={place}", tmp_path / "out") == 0
    assert kept(tmp_path / "out") == {row[1] for row in some[:10]}
    assert prepare(tmp_path, f"files={place}", place + "out") == 2
    assert "its name must be UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("shard", [[], ["--shard", "0/1"], ["--shard", "0/2"]])
@pytest.mark.parametrize("place", ["thesis.txt", "x.parts", "gs://bucket/set"])
def test_an_impossible_out_is_refused_before_the_work(tmp_path, some, place, shard, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    out = place if ":" in place else tmp_path / place
    assert prepare(tmp_path, f"files={tmp_path / 'files'}", out, *shard) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--out" in error
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.exists("gs:")


def test_shards_of_retry_missing_never_replace_the_set(tmp_path, some, capsys):
    out, parts, more = tmp_path / "out", str(tmp_path / "out.parts"), tmp_path / "more"
    assert prepare(tmp_path, f"files={tmp_path / 'files'}", out) == 0
    more.mkdir()
    (more / f"{some[10][1]}.flac").write_bytes(small_audioset.flac(10))
    for i in (0, 1):
        words = ["--retry-missing", "--shard", f"{i}/2"]
        assert prepare(tmp_path, f"files={more}", out, *words) == 0
    assert f"merge {parts} {out} --out {out} --overwrite" in capsys.readouterr().out
    assert main(["prepare", "merge", parts, "--out", str(out), "--overwrite"]) == 2
    assert "adds clips to a record dataset" in capsys.readouterr().err
    assert kept(out) == {row[1] for row in some[:10]}
    assert main(["prepare", "merge", parts, str(out), "--out", str(out), "--overwrite"]) == 0
    assert kept(out) == {row[1] for row in some[:11]}
    assert records.Dataset(out).manifest["clips"] == 11


def test_a_merge_into_the_parts_or_with_a_broken_plan_is_refused(tmp_path, some, capsys):
    out, parts = tmp_path / "out", tmp_path / "out.parts"
    assert prepare(tmp_path, f"files={tmp_path / 'files'}", out, "--shard", "0/2") == 0
    assert prepare(tmp_path, f"files={tmp_path / 'files'}", out, "--shard", "1/2") == 0
    assert main(["prepare", "merge", str(parts), "--out", str(parts / "in")]) == 2
    assert "inside of the parts" in capsys.readouterr().err
    plan = parts / "plan-0-of-2.json"
    for text in ("[1]", '{"a": "x"}'):
        good = plan.read_text()
        plan.write_text(text)
        assert main(["prepare", "merge", str(parts), "--out", str(out)]) == 2
        assert "is no plan" in capsys.readouterr().err
        plan.write_text(good)
    assert main(["prepare", "merge", str(parts), "--out", str(out)]) == 0
    assert kept(out) == {row[1] for row in some[:10]}


def test_shards_run_beside_each_other_and_not_beside_a_run_without_shards(tmp_path):
    out, settings = tmp_path / "out", {"a": 1}
    with parts.opened(out, settings, (0, 2)), parts.opened(out, settings, (1, 2)):
        for shard in ((1, 2), (0, 1)):
            refused(out, settings, shard)
    with parts.opened(out, settings):
        refused(out, settings, (0, 2))
    with parts.opened(out, settings, (0, 2)):
        pass


def refused(out, settings, shard):
    place = parts.opened(out, settings, shard)
    with pytest.raises(AsjaxError, match="another asjax prepare writes"):
        place.__enter__()


def test_out_may_be_the_folder_where_one_is_and_never_the_root(tmp_path, some, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["prepare", "status", "."]) == 2
    assert "neither a folder of parts" in capsys.readouterr().err
    assert prepare(tmp_path, f"files={tmp_path / 'files'}", ".") == 0
    assert kept(tmp_path / "here") == {row[1] for row in some[:10]}
    monkeypatch.chdir(tmp_path / "here")  # the folder is a new one
    assert parts.folder_of("a/..").name == "here.parts"
    with pytest.raises(AsjaxError, match="root of the disk"):
        parts.folder_of("/")


@pytest.mark.parametrize("kind", ["files", "parquet"])
def test_a_source_that_is_gone_in_the_run_makes_no_clip_missing(
    tmp_path, some, kind, monkeypatch, capsys
):
    place, out, run = tmp_path / "files", tmp_path / "out", engine.run
    if kind == "parquet":
        place = tmp_path / "hub"
        place.mkdir()
        audio = pa.array([{"bytes": small_audioset.flac(i)} for i in range(10)])
        ids = [row[1] for row in some[:10]]
        pq.write_table(pa.table({"video_id": ids, "audio": audio}), place / "a.parquet")

    def unplugged(*args, **more):
        place.rename(tmp_path / "gone")
        try:
            return run(*args, **more)
        finally:
            (tmp_path / "gone").rename(place)

    monkeypatch.setattr(engine, "run", unplugged)
    assert prepare(tmp_path, f"{kind}={place}", out) == 2
    assert "was there and is gone" in capsys.readouterr().err
    monkeypatch.undo()
    assert prepare(tmp_path, f"{kind}={place}", out) == 0
    assert kept(out) == {row[1] for row in some[:10]}


def test_rows_of_an_hdf5_without_a_name_cost_no_other_row(tmp_path):
    """PANNs' packing leaves a row empty where the recording was not found."""
    wave = np.arange(300, dtype=np.int16).reshape(3, 100)
    unit = panns(tmp_path / "a.h5", wave)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["audio_name"][0], file["audio_name"][1] = b"", b"\xff.wav"
    assert readers.names(unit) == ["", "\ufffd.wav", "Y--PJHxphWEs.wav"]
    [item] = readers.read(unit, {2}, MOST)
    np.testing.assert_array_equal(np.frombuffer(item.audio, "<i2", offset=44), wave[2])


@pytest.mark.parametrize("times", ["nan, 10.000", "30.000, 30.000", "-1.000, 9.000", "0.000, inf"])
def test_a_listed_segment_has_a_time(tmp_path, some, times, capsys):
    path = tmp_path / "lists" / "eval_segments.csv"
    lines = path.read_text().splitlines()
    name, _, _, labels = lines[3].split(", ", 3)
    path.write_text("\n".join([*lines[:3], f"{name}, {times}, {labels}", *lines[4:]]) + "\n")
    assert prepare(tmp_path, f"files={tmp_path / 'files'}", tmp_path / "out") == 2
    assert "eval_segments.csv, line 4 must be YTID, start_seconds" in capsys.readouterr().err
