"""Readers of parquet, tars, HDF5 and folders: names of clips, damage, files that claim too much.

Also what a user can get wrong in `asjax prepare audioset` (its verb, listed, plan, job and parts):
one line each, and nothing of others is touched.
"""

import io
import json
import shutil
import tarfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_audioset

from asjax.__main__ import main
from asjax.config import AsjaxError, AsjaxWarning
from asjax.data import records
from asjax.data.bulk import engine, items, join, listed, merge, readers, report, units
from asjax.data.clips import Reason
from asjax.labels import get

MOST = 1 << 20


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Y--PJHxphWEs.wav", ("--PJHxphWEs", None)),
        ("--PJHxphWEs", ("--PJHxphWEs", None)),
        ("YouTube1234.flac", ("YouTube1234", None)),  # an id that begins with Y
        ("YYouTube1234.flac", ("YouTube1234", None)),
        ("a/b/Y--PJHxphWEs_30.000_40.000.wav", ("--PJHxphWEs", 30.0)),
        ("--PJHxphWEs_30.000", ("--PJHxphWEs", 30.0)),
        ("--PJHxphWEs_30000_40000.mp3", ("--PJHxphWEs", 30000.0)),
        ("__________a_0.m4a", ("__________a", 0.0)),
        ("..\\x\\Y--PJHxphWEs.WAV", ("--PJHxphWEs", None)),
        ("../../Y--PJHxphWEs.wav", ("--PJHxphWEs", None)),
        ("--PJHxphWEs.part", None),
        ("--PJHxphWE.wav", None),
        ("--PJHxphWEs_x.wav", None),
        ("Y--PJHxphWEs.wav.flac", None),
        ("", None),
    ],
)
def test_ids_in_names(name, wanted):
    assert units.youtube(name) == wanted


@pytest.mark.parametrize(
    ("found", "start_s", "same"),
    [
        (None, 30, True), (30, 30, True), (30.2, 30, True), (30_000, 30, True), (40, 30, False),
        (0, 0, True), (30, 0, False), (300, 0, False), (1230, 1230, True), (1230, 1.0, True),
        (31_000, 30, False),
    ],
)  # fmt: skip
def test_starts_in_seconds_or_milliseconds(found, start_s, same):
    assert listed.same_start(found, start_s) == same


# ------------------------------------------------------------------------------- damage, sizes


def tar(path, members):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    [unit] = readers.units("tar", str(path))
    return unit


def items_of(unit, most=MOST):
    names = readers.names(unit)
    return names, list(readers.read(unit, set(range(len(names))), most))


@pytest.mark.parametrize("end", [".tar", ".tar.gz"])
def test_a_cut_tar_gives_what_is_before_the_cut_and_says_so(tmp_path, end):
    rng = np.random.default_rng(0)
    sound = [(f"{i}.wav", rng.bytes(5000)) for i in range(10)]
    unit = tar(tmp_path / f"a{end}", sound)
    path = tmp_path / f"a{end}"
    path.write_bytes(path.read_bytes()[: 23_000 if end == ".tar" else 21_000])
    names = readers.names(unit)
    assert names == [name for name, _ in sound[: len(names)]]
    assert 3 <= len(names) < 10
    got = []
    with pytest.raises(items.Damaged, match=r"a\.tar"):
        got.extend(readers.read(unit, set(range(len(names))), MOST))
    assert [item.audio for item in got] == [data for _, data in sound[: len(got)]]
    assert len(got) >= 3


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_in_a_tar_are_told(tmp_path, kind):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a.txt", "b.flac"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "elsewhere"
            archive.addfile(link)
    with pytest.warns(AsjaxWarning, match=r"it has 1 link to audio, first b\.flac; give the files"):
        assert readers.names(units.Unit("tar", str(path))) == []


def test_waveforms_without_a_rate_are_told(tmp_path):
    path = tmp_path / "panns.h5"
    with h5py.File(path, "w") as file:
        file["audio_name"] = np.array([b"Y0123456789a.wav"])
        file["waveform"] = np.zeros((1, 100), np.int16)
    unit = units.Unit("panns", str(path), begin=0, end=1)
    with pytest.warns(AsjaxWarning, match="counts as 32,000 Hz"):
        assert len(list(readers.read(unit, {0}, MOST))) == 1


def test_a_member_that_claims_too_much_is_not_read(tmp_path):
    unit = tar(tmp_path / "a.tar.gz", [("big.wav", bytes(MOST + 1)), ("b.wav", b"abc")])
    assert (tmp_path / "a.tar.gz").stat().st_size < 10_000
    _, (big, small) = items_of(unit)
    assert isinstance(big.audio, Reason)
    assert "MiB is more than" in big.audio
    assert small.audio == b"abc"
    claims = tmp_path / "claims.tar"
    with claims.open("wb") as file:  # a header that claims 8 GiB in a file of 2 kB
        info = tarfile.TarInfo("huge.wav")
        info.size = 8 << 30
        file.write(info.tobuf() + bytes(1024))
    [unit] = readers.units("tar", str(claims))
    assert readers.names(unit) == ["huge.wav"]
    huge = []
    with pytest.raises(items.Damaged, match="is cut or damaged"):
        huge.extend(readers.read(unit, {0}, MOST))
    assert "8192 MiB is more" in huge[0].audio


def test_labels_of_a_tar_come_from_the_json_beside(tmp_path):
    about = json.dumps({"labels": ["/m/1", "/m/2"]}).encode()
    unit = tar(
        tmp_path / "a.tar",
        [
            ("x/a.wav", b"a"), ("x/a.json", about), ("b.json", b'{"labels": "/m/3,/m/4"}'),
            ("b.wav", b"b"), ("x/b.wav", b"c"), ("c.json", b"[1"), ("c.wav", b"d"),
            ("d.json", b"[" * 100_000), ("d.wav", b"e"),
        ],
    )  # fmt: skip
    names, got = items_of(unit)
    assert names == ["x/a.wav", "b.wav", "x/b.wav", "c.wav", "d.wav"]
    assert [item.labels for item in got] == [["/m/1", "/m/2"], ["/m/3", "/m/4"], None, None, None]


def test_parquet_that_is_none_or_claims_too_much_is_damaged(tmp_path, monkeypatch):
    zeros = [b"%d" % i + bytes(1 << 16) for i in range(64)]
    audio = pa.array([{"bytes": data, "path": "a.wav"} for data in zeros])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"video_id": ["a"] * 64, "audio": audio}), path, compression="zstd")
    [unit] = readers.units("parquet", str(path))
    assert [u.end for u in readers.divided(unit)] == [1]
    monkeypatch.setattr(readers, "_LEAST", 1 << 20)
    with pytest.raises(items.Damaged, match="claims .* bytes for a group of rows"):
        readers.divided(unit)
    monkeypatch.undo()
    pq.write_table(pa.table({"video_id": ["a"], "sound": ["b"]}), path)
    with pytest.raises(items.Damaged, match="must have the columns audio"):
        readers.names(readers.divided(unit)[0])
    for data in (b"", b"PAR1", path.read_bytes()[:-20], b"x" * 1000):
        path.write_bytes(data)
        with pytest.raises(items.Damaged, match=r"a\.parquet is not sound parquet"):
            readers.divided(unit)


def test_parquet_with_names_in_the_audio_column(tmp_path):
    path = tmp_path / "a.parquet"
    audio = pa.array([{"bytes": b"1", "path": "x/Y--PJHxphWEs.wav"}, {"bytes": b"2", "path": None}])
    pq.write_table(pa.table({"audio": audio}), path)
    [unit] = readers.divided(readers.units("parquet", str(path))[0])
    names, got = items_of(unit)
    assert names == ["x/Y--PJHxphWEs.wav", ""]
    assert [item.audio for item in got] == [b"1", b"2"]


@pytest.mark.parametrize("fault", ["claims", "float", "short", "external", "rate", "none", "cut"])
def test_hdf5_that_is_wrong_is_damaged(tmp_path, fault):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["audio_name"] = np.array(["Y--PJHxphWEs.wav"] * 4, "S20")
        if fault == "claims":  # chunks that were never written: 1 TB in 10 kB
            file.create_dataset("waveform", (4, 1 << 18), np.int16, chunks=(1, 1 << 18))
        elif fault == "float":
            file["waveform"] = np.zeros((4, 10), np.float64)
        elif fault == "short":
            file["waveform"] = np.zeros((3, 10), np.int16)
        elif fault == "external":
            file["waveform"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif fault != "none":
            file["waveform"] = np.zeros((4, 10), np.int16)
        file.attrs["sample_rate"] = -1 if fault == "rate" else 8000
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    [unit] = readers.units("panns", str(path))
    with pytest.raises(items.Damaged, match=r"a\.h5"):
        [items_of(one) for one in readers.divided(unit)]


# ------------------------------------------------------------------------------- what users do


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_audioset.Made(tmp_path_factory.mktemp("audioset"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--from", "zip=x"], "--from must be parquet=..., tar=..., panns=..., passt=..., files="),
        (["--from", "parquet=/nowhere"], "no such file or folder"),
        (["--from", "files={lists}/eval_segments.csv"], "must be a folder of audio files"),
        (["--from", "parquet={lists}"], "no file with the suffix .parquet"),
        (["--shard", "3/3"], "--shard must be i/N, counted from 0"),
        (["--shard", "x"], "--shard must be i/N"),
        (["--splits", "test"], "--splits: split 'test' does not exist. Known: balanced, eval"),
        (["--splits", "train,balanced"], "names the list balanced twice"),
        (["--splits", ","], "--splits must name some of"),
        (["--encode", "pcm16"], "--encode pcm16 needs --sample-rate"),
        (["--sample-rate", "8000"], "--sample-rate needs --encode"),
        (["--labels", "audioset_strong456"], "needs --strong"),
        (["--strong", "{lists}/eval_segments.csv"], "list of events"),
        (["--workers", "0"], "--workers must be 1 to 1024"),
        (["--max-mb", "0"], "--max-mb must be 1 to 65536"),
        (["--min-s", "nan"], "--min-s must be seconds"),
        (["--retry-missing"], "--retry-missing needs a finished"),
    ],
)
def test_wrong_input_is_one_line(made, tmp_path, more, message, capsys):
    lists = str(made.folder / "lists")
    words = made.command(tmp_path / "out", *(word.replace("{lists}", lists) for word in more))
    assert main(words) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(err) == 1, err
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


def test_lists_that_are_missing_or_cut_are_one_line(made, tmp_path, capsys):
    shutil.copytree(made.folder / "lists", tmp_path / "lists")
    cut = tmp_path / "lists" / "eval_segments.csv"
    lines = cut.read_text().splitlines()
    words = made.command(tmp_path / "out")
    words[words.index("--lists") + 1] = str(tmp_path / "lists")
    cut.write_text("\n".join(lines[:-3]) + "\n")
    assert main(words) == 2
    assert "as its header says" in capsys.readouterr().err
    cut.unlink()
    assert main(words) == 2
    assert "must hold AudioSet's eval_segments.csv" in capsys.readouterr().err


def test_a_folder_of_others_is_refused_and_stays(made, tmp_path, capsys):
    for name in ("out", "out.parts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
        assert main(made.command(tmp_path / "out", "--overwrite")) == 2
        err = capsys.readouterr().err.splitlines()[-1]
        assert "choose another" in err
        assert (tmp_path / name / "mine.txt").read_text() == "mine"
        shutil.rmtree(tmp_path / name)
    (tmp_path / "out.parts").write_text("a file")
    assert main(made.command(tmp_path / "out")) == 2
    assert (tmp_path / "out.parts").read_text() == "a file"


def test_other_settings_do_not_mix(made, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("--workers", "1", "--shard", "0/2")
    assert main(made.command(out, *words)) == 0
    assert main(made.command(out, *words, "--min-s", "0.5")) == 2
    assert "with another value of min_s; add --overwrite" in capsys.readouterr().err
    other = tmp_path / "other"
    assert main(made.command(other, "--workers", "1", "--shard", "1/2", "--min-s", "0.5")) == 0
    with pytest.raises(AsjaxError, match="another value of min_s"):
        join.join([out, other], tmp_path / "x")
    assert main(["prepare", "status", str(tmp_path)]) == 2
    assert main(["prepare", "merge", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "neither a folder of parts nor a record dataset" in capsys.readouterr().err


def test_a_damaged_source_is_told_and_the_others_are_used(made, tmp_path, capsys):
    """Its clips are missing then; a source that is damaged alone is an error."""
    hub = tmp_path / "hub"
    shutil.copytree(made.folder / "hub", hub)
    whole = (hub / "a.parquet").read_bytes()
    (hub / "a.parquet").write_bytes(whole[: len(whole) // 2])
    words = made.command(tmp_path / "out", "--workers", "1")
    words = [word.replace(str(made.folder / "hub"), str(hub)) for word in words]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert f"DAMAGED: {hub / 'a.parquet'} is not sound parquet" in out
    kept = {row[0] for row in records.Dataset(tmp_path / "out").rows()}
    lost = {clip[0] for clip in made.parts[0]}
    again = {made.parts[0][0][0], made.parts[0][9][0]}  # two have a copy among the files
    assert kept & lost == again
    (hub / "b.parquet").unlink()
    alone = ["prepare", "audioset", "--from", f"parquet={hub}", *words[12:14]]
    alone = [*alone, "--out", str(tmp_path / "alone")]
    assert main(alone) == 2
    assert "no file of the sources can be read" in capsys.readouterr().err


def test_strong_events_join_by_segment(made, tmp_path):
    """With times in ms in the id, as in AudioSet Strong; a class outside of the 527 is left out."""
    kept = [clip for clip in made.parts[4][:3]]
    lines = ["segment_id\tstart_time_seconds\tend_time_seconds\tlabel"]
    for clip in kept[:2]:
        segment = f"{clip[0]}_{clip[1] * 1000:.0f}"
        lines += [f"{segment}\t0.100\t0.500\t/m/09x0r", f"{segment}\t0.2\t9.0\t/m/04rlf"]
    lines.append(f"{kept[2][0]}_999000\t0.1\t0.2\t/m/09x0r")  # another part of the recording
    (tmp_path / "strong.tsv").write_text("\n".join(lines) + "\n")
    words = made.command(
        tmp_path / "out", "--workers", "1", "--strong", str(tmp_path / "strong.tsv")
    )
    assert main(words) == 0
    dataset = records.Dataset(tmp_path / "out")
    assert dataset.strong
    rows = {row[0]: row for row in dataset.rows()}
    for clip in kept[:2]:
        marks = dataset.reader.record(list(rows).index(clip[0]))
        assert marks["strong"] == [1]
        assert len(marks["events"]) == 2
        assert set(rows[clip[0]][2].split(";")) == set(clip[3])
    assert dataset.reader.record(list(rows).index(kept[2][0]))["strong"] == [0]
    only = [*words, "--labels", "audioset_strong456", "--overwrite"]
    assert main(only) == 0
    rows = {row[0]: row for row in records.Dataset(tmp_path / "out").rows()}
    assert rows.keys() == {clip[0] for clip in kept[:2]}
    assert {row[2] for row in rows.values()} <= {"/m/09x0r;/m/04rlf", "/m/04rlf;/m/09x0r"}


def test_a_clip_of_two_parts_is_kept_once(made, tmp_path):
    """Two machines with disks of their own may hold the same clip; the merge drops the second."""
    from asjax.data.bulk import part

    words = ("--workers", "1", "--shard", "0/1")
    made_parts = []
    for name in ("one", "two"):
        source = made.folder / "hub" / "b.parquet"
        command = ["prepare", "audioset", "--from", f"parquet={source}", "--lists"]
        command += [str(made.folder / "lists"), "--out", str(tmp_path / name), *words]
        if name == "two":
            shutil.copy(source, tmp_path / "c.parquet")
            command[3] = f"parquet={tmp_path / 'c.parquet'}"
            command[3:3] = [f"files={made.folder / 'files'}", "--from"]
        # A single shard is merged at once, so two are asked for and both are made.
        for i in range(2):
            command[-1] = f"{i}/2"
            assert main(command) == 0
        made_parts.append(str(tmp_path / f"{name}.parts"))
    summary, found = join.join(made_parts, tmp_path / "joined")
    dataset = records.Dataset(tmp_path / "joined", verify=True)
    ids = [row[0] for row in dataset.rows()]
    assert len(ids) == len(set(ids)) == len(dataset.reader) == summary.clips
    for row, clip in enumerate(ids):
        assert dataset.reader.record(row)["id"] == [clip.encode()]
    assert found.counts
    assert part.of_dataset(tmp_path / "joined").about["clips"] == len(ids)


def test_units_and_engine_run_in_processes_or_alone():
    """Every item once, in both ways; an error of a worker is an error of the run."""
    for workers in (1, 2):
        with engine.Pool(workers) as pool:
            got = dict(pool.map(str.upper, list("abcdef")))
        assert got == dict(enumerate("ABCDEF"))
    with engine.Pool(2) as pool, pytest.raises(AsjaxError, match="--shard must be"):
        list(pool.map(units.parse_shard, ["0/2", "2/2", "x"]))
    assert len({i for i in range(50) if units.in_shard(units.Unit("tar", f"{i}"), (0, 2))}) > 10


def test_the_picture_has_a_panel_per_list(made):
    label_set = get("audioset527")
    drawn = report.Report.__new__(report.Report)
    drawn.classes = {"eval": {label_set.ids[0]: [10, 3], label_set.ids[1]: [100, 100]}}
    one = report.picture(drawn, label_set)
    drawn.classes["train"] = {label_set.ids[2]: [5, 0]}
    two = report.picture(drawn, label_set)
    assert one[:4] == two[:4] == b"\x89PNG"
    assert int.from_bytes(two[20:24]) > 1.5 * int.from_bytes(one[20:24])
    assert merge.__doc__
