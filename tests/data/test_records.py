"""The record format: TFDS reads it, TensorFlow is not needed, opening names any damage."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import sounds

from asjax.config import AsjaxError, AsjaxWarning
from asjax.data import example, patience, records, writer
from asjax.data.clips import Clip, Encoding
from asjax.data.sources import ESC10
from asjax.labels import LabelSet

LABELS = LabelSet("pets", ("/m/dog", "/m/cat", "/m/cow"), ("Dog", "Cat, tame", "Cow"))
RATE = 8000


def tone(seconds=0.25, hz=440.0, rate=RATE, kind="WAV", channels=1):
    """Bytes of an audio file with a sine."""
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)
    out = io.BytesIO()
    soundfile.write(out, np.repeat(wave[:, None], channels, 1), rate, format=kind)
    return out.getvalue()


def clips(n=12):
    kinds = ["WAV", "FLAC", "OGG", "MP3"]
    sets = [("/m/dog",), ("/m/cow", "/m/cat"), ()]
    return [
        Clip(
            f"clip-{i}",
            tone(0.25 + 0.01 * i, 200 + 10 * i, kind=kinds[i % 4]),
            sets[i % 3],
            f"fold{1 + i % 2}",
            category="beast",
            licence="CC0",
            attribution=f"someone, {i}",
        )
        for i in range(n)
    ]


@pytest.fixture
def dataset(tmp_path):
    made = clips()
    writer.write(tmp_path / "pets" / "1.0.0", made, LABELS, progress=False)
    return tmp_path / "pets" / "1.0.0", made


def in_python(code, *args):
    """Run code in a new interpreter and return its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_clip_comes_back_byte_for_byte_with_its_facts(dataset):
    path, made = dataset
    opened = records.Dataset(path, verify=True)
    expected = sorted(made, key=lambda c: c.split)  # stable: keeps the given order within a split
    assert opened.splits == {"fold1": 6, "fold2": 6}
    for row, (clip, listed) in enumerate(zip(expected, opened.rows(), strict=True)):
        got = opened.reader.record(row)
        samples = soundfile.info(io.BytesIO(clip.audio)).frames
        assert got["id"] == [clip.id.encode()]
        assert got["audio"] == [clip.audio]
        assert got["labels"] == [label.encode() for label in clip.labels]
        assert (got["sample_rate"], got["samples"]) == ([RATE], [samples])
        digest = hashlib.sha256(clip.audio).hexdigest()
        assert listed == [
            clip.id, clip.split, ";".join(clip.labels), "beast", str(samples), str(RATE), digest
        ]  # fmt: skip


def test_tfds_reads_it_by_directory_and_by_name_without_tensorflow(dataset):
    path, made = dataset
    code = """
    import importlib.machinery, json, sys

    finder = importlib.machinery.PathFinder
    find = finder.find_spec  # as if TensorFlow were not installed, even where it is
    finder.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
    import hashlib, tensorflow_datasets as tfds

    folder, parent = sys.argv[1:]
    found = []
    for split in ("fold1", "fold2"):
        by_folder = tfds.builder_from_directory(folder).as_data_source(split)
        by_name = tfds.data_source("pets", split=split, data_dir=parent)
        assert len(by_folder) == len(by_name) == 6
        for a, b in zip(by_folder, by_name):
            assert a["audio"] == b["audio"]
            labels = [label.decode() for label in a["labels"]]
            digest = hashlib.sha256(a["audio"]).hexdigest()
            found.append([a["id"].decode(), digest, labels, a["samples"], a["sample_rate"]])
    assert "tensorflow" not in sys.modules
    print(json.dumps(found))
    """
    found = json.loads(in_python(code, path, path.parent.parent).splitlines()[-1])
    expected = sorted(made, key=lambda c: c.split)
    assert [f[0] for f in found] == [c.id for c in expected]
    assert [f[1] for f in found] == [hashlib.sha256(c.audio).hexdigest() for c in expected]
    assert [f[2] for f in found] == [list(c.labels) for c in expected]
    samples = [soundfile.info(io.BytesIO(c.audio)).frames for c in expected]
    assert [f[3:] for f in found] == [[n, RATE] for n in samples]


def test_reading_needs_neither_tensorflow_nor_tfds_and_writing_no_tensorflow(dataset, tmp_path):
    path, _ = dataset
    code = """
    import sys
    from asjax.data import records, writer
    from asjax.data.clips import Clip
    from asjax.labels import LabelSet
    opened = records.Dataset(sys.argv[1], verify=True)
    label_set = LabelSet.from_csv(opened.path / "labels.csv")
    made = [Clip(str(i), opened.reader[i], (label_set.ids[0],)) for i in range(3)]
    assert not {"tensorflow", "tensorflow_datasets"} & set(sys.modules)
    print(writer.write(sys.argv[2], made, label_set, progress=False).clips)
    assert "tensorflow" not in sys.modules
    """
    assert in_python(code, path, tmp_path / "again").strip() == "3"


def test_records_of_older_versions_stay_readable():
    """The embedded ESC-10 was written before TFDS's classes wrote the metadata."""
    opened = records.Dataset(ESC10)
    features = json.loads((opened.path / "features.json").read_text())
    assert next(iter(features["featuresDict"]["features"])) == "id"  # TFDS sorts them
    assert sum(opened.splits.values()) == len(opened.reader) == 398


def test_our_examples_equal_those_of_tfds():
    tfds = pytest.importorskip("tensorflow_datasets")
    text, many = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
    features = tfds.features.FeaturesDict(
        {"id": text, "audio": text, "samples": np.int64, "labels": many}
    )
    fields = {"id": "ä", "audio": bytes(range(256)), "samples": 2**40, "labels": ["a", "ß"]}
    theirs = features.serialize_example(features.encode_example(fields))
    got = example.decode(theirs)
    assert got["audio"] == [fields["audio"]]
    assert got["samples"] == [2**40]
    assert example.decode(example.encode(fields)) == got
    back = features.deserialize_example_np(example.encode(fields))
    assert list(back["labels"]) == [b"a", "ß".encode()]


def test_features_json_is_what_tfds_writes_for_the_same_features(dataset):
    tfds = pytest.importorskip("tensorflow_datasets")
    text = tfds.features.Text()
    fields = {"id": text, "audio": text, "category": text, "labels": tfds.features.Sequence(text)}
    fields |= {"sample_rate": np.int32, "samples": np.int64}
    ours = tfds.features.FeaturesDict.from_config(str(dataset[0]))
    assert repr(ours) == repr(tfds.features.FeaturesDict(fields))


def test_shards_are_split_by_size_and_read_as_one(tmp_path):
    made = [Clip(f"c{i:02d}", tone(10, 200 + i, rate=32000), ("/m/dog",)) for i in range(8)]
    summary = writer.write(tmp_path / "many", made, LABELS, shard_mb=1, progress=False)
    opened = records.Dataset(tmp_path / "many", verify=True)
    assert [s["records"] for s in opened.manifest["shards"]] == [1] * 8
    assert summary.seconds == pytest.approx(80)
    assert [opened.reader[i] for i in range(8)] == [c.audio for c in made]
    tfds = pytest.importorskip("tensorflow_datasets")
    source = tfds.builder_from_directory(str(tmp_path / "many")).as_data_source("train")
    assert [row["id"].decode() for row in source] == [c.id for c in made]


def test_the_reader_pickles_is_shared_by_threads_and_survives_a_fork(dataset):
    opened = records.Dataset(dataset[0])
    expected = [opened.reader[i] for i in range(12)]
    assert [pickle.loads(pickle.dumps(opened.reader))[i] for i in range(12)] == expected
    rows = np.random.default_rng(0).integers(0, 12, 2000)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(opened.reader.__getitem__, rows)) == [expected[i] for i in rows]
    code = """
    import os, sys
    from asjax.data import records
    reader = records.Dataset(sys.argv[1]).reader
    first = reader[3]
    child = os.fork()
    if child == 0:
        os._exit(0 if reader[3] == first and reader._pid == os.getpid() else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert in_python(code, dataset[0]).strip() == "0"
    with pytest.raises(IndexError, match="0 to 11"):
        opened.reader[12]


def test_columns_are_those_of_the_rows(tmp_path):
    """pyarrow reads what the csv module writes: quotes, commas, breaks and spaces in ids."""
    names = ["a,b", 'say "x"', "two\nlines", " spaces ", "ünï", "-dash", "NULL", "1"]
    labels = [("/m/dog",), ("/m/cat", "/m/dog"), (), ("/m/cat",)] * 2
    made = [
        Clip(name, tone(10, rate=32000), label, "fold1")
        for name, label in zip(names, labels, strict=True)
    ]
    writer.write(tmp_path / "d", made, LABELS, progress=False)
    opened = records.Dataset(tmp_path / "d")
    found, rows = opened.columns(), list(opened.rows())
    assert list(found.ids) == [row[0] for row in rows] == names
    assert found.split == [row[1] for row in rows]
    assert [found.cells[k] for k in found.number] == [row[2] for row in rows]


def test_a_process_raises_its_limit_on_open_files_for_shards():
    code = """if True:
    import resource
    from asjax.data import records
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    most = records.most_open()
    print(most == min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2) and most > 32)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print(records.most_open())
    """
    assert in_python(code, "").split() == ["True", "32"]


def test_old_readers_are_dropped_beyond_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_MAX_OPEN_SHARDS", 2)
    made = [Clip(f"c{i}", tone(10, rate=32000), ("/m/dog",), f"s{i}") for i in range(4)]
    writer.write(tmp_path / "d", made, LABELS, progress=False)
    reader = records.Dataset(tmp_path / "d").reader
    for i in (0, 1, 2, 3, 0, 1):
        assert reader[i] == made[i].audio
        assert len(reader._open) <= 2


def _edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def _cut(path, to):
    os.truncate(path, to)


SHARD = "pets-fold1.array_record-00000-of-00001"
DAMAGE = {
    "a shard cut short": (lambda d: _cut(d / SHARD, 1000), f"{SHARD} is cut short"),
    "an empty shard": (lambda d: _cut(d / SHARD, 0), f"{SHARD} is cut short"),
    "a missing shard": (lambda d: (d / SHARD).unlink(), f"{SHARD} is missing"),
    "a shard that holds nothing, of the right size": (
        lambda d: (d / SHARD).write_bytes(b"\0" * (d / SHARD).stat().st_size),
        "must hold 6 records, got 0",
    ),
    "a wrong count in dataset_info": (
        lambda d: _edit_json(
            d / "dataset_info.json", lambda v: v["splits"][0].update(shardLengths=["7"])
        ),
        "7 and 6 records",
    ),
    "a wrong count everywhere": (
        lambda d: (
            _edit_json(
                d / "dataset_info.json", lambda v: v["splits"][0].update(shardLengths=["7"])
            ),
            _edit_json(d / "manifest.json", lambda v: v["shards"][0].update(records=7)),
        ),
        "must hold 7 records, got 6",
    ),
    "a changed row": (
        lambda d: (d / "manifest.csv").write_text((d / "manifest.csv").read_text() + "x\n"),
        "manifest.csv was changed",
    ),
    "no manifest.csv": (lambda d: (d / "manifest.csv").unlink(), "manifest.csv is missing"),
    "no manifest.json": (lambda d: (d / "manifest.json").unlink(), "manifest.json is missing"),
    "no features.json": (lambda d: (d / "features.json").unlink(), "features.json is missing"),
    "half a manifest.json": (lambda d: _cut(d / "manifest.json", 100), "manifest.json is damaged"),
    "a newer format": (
        lambda d: _edit_json(d / "manifest.json", lambda v: v.update(format=99)),
        "format must be 1, got 99",
    ),
    "a manifest without shards": (
        lambda d: _edit_json(d / "manifest.json", lambda v: v.pop("shards")),
        "manifest.json is incomplete",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_refused_at_opening_by_name(dataset, what):
    spoil, message = DAMAGE[what]
    spoil(dataset[0])
    with pytest.raises(AsjaxError, match=message):
        records.Dataset(dataset[0])


def test_flipped_bytes_are_found_by_verify_and_by_reading(dataset):
    shard = dataset[0] / SHARD
    data = bytearray(shard.read_bytes())
    at = data.index(dataset[1][0].audio[100:140]) + 10
    data[at : at + 4] = b"\xff\x00\xff\x00"
    shard.write_bytes(data)
    opened = records.Dataset(dataset[0])
    with pytest.raises(AsjaxError, match=f"{SHARD} is damaged: its SHA-256 differs"):
        records.Dataset(dataset[0], verify=True)
    with pytest.raises(AsjaxError, match=f"{SHARD} is damaged at record 0"):
        opened.reader[0]


def test_bad_clips_are_left_out_with_their_reason(tmp_path):
    flac, wav = tone(2, kind="FLAC"), tone(2)
    (tmp_path / "text.wav").write_text("not audio at all")
    bad = [
        Clip("missing", tmp_path / "no.wav", ("/m/dog",)),
        Clip("text", tmp_path / "text.wav", ("/m/dog",)),
        Clip("empty", b"", ("/m/dog",)),
        Clip("half flac", flac[: len(flac) // 2], ("/m/dog",)),
        Clip("half wav", wav[: len(wav) // 2], ("/m/dog",)),
        Clip("large", bytes(2 << 20), ("/m/dog",)),
    ]
    good = Clip("good", tone(), ("/m/cat",))
    known = [("gone", "removed by its author")]
    out = tmp_path / "d"
    summary = writer.write(
        out, [*bad, good], LABELS, left_out=known, max_mb=1, progress=False
    )  # fmt: skip
    assert (summary.clips, summary.splits) == (1, {"train": 1})
    reasons = dict(summary.left_out)
    assert list(reasons) == ["gone", *(c.id for c in bad)]
    assert reasons["missing"] == "file does not exist"
    assert "not audio" in reasons["text"]
    assert "empty" in reasons["empty"]
    assert "half wav" in reasons
    assert "cut short" in reasons["half wav"]
    assert "2 MiB is more than 1" in reasons["large"]
    manifest = records.Dataset(out).manifest
    assert manifest["left_out_count"] == 7
    assert {r["id"]: r["reason"] for r in manifest["left_out"]} == reasons


def test_no_stump_is_stored_and_joined_files_are_stored_whole(tmp_path):
    """A truncated MP3 is readable elsewhere, but stored it would stay a short clip for ever."""
    vbr = sounds.mp3(sounds.quiet_middle())
    cut = vbr[: len(vbr) // 2]
    bare = sounds.without_info(vbr)
    ogg = sounds.encode(sounds.tone(2), sounds.RATE, "OGG", "VORBIS")
    unfinished = sounds.wav(sounds.integers(sounds.tone(1, rate=16_000), 2))
    unfinished = unfinished[:40] + bytes(4) + unfinished[44:]
    clips = [
        Clip("cut", cut, ("/m/dog",)),
        Clip("bare", bare, ("/m/dog",)),
        Clip("two", ogg + ogg, ("/m/dog",)),
        Clip("unfinished", unfinished, ("/m/dog",)),
        Clip("nan", encode_float(np.full(800, np.nan)), ("/m/dog",)),
    ]
    for encoding in (None, Encoding("flac")):
        out = tmp_path / str(encoding)[:4]
        with pytest.warns(UserWarning, match="unfinished: its header was never finished"):
            summary = writer.write(out, clips, LABELS, encoding=encoding, progress=False)
        reasons = dict(summary.left_out)
        assert list(reasons) == ["cut", "nan"]
        assert "cut is cut short" in reasons["cut"]
        assert "not finite" in reasons["nan"]
        rows = {row[0]: int(row[4]) / int(row[5]) for row in records.Dataset(out).rows()}
        assert rows == {
            "bare": pytest.approx(6.0, abs=0.1), "two": 4.0, "unfinished": 1.0,
        }  # fmt: skip


def encode_float(wave):
    return sounds.encode(wave.astype(np.float32), 8000, "WAV", "FLOAT")


def test_notes_of_many_clips_are_counted(tmp_path):
    data = sounds.wav(sounds.integers(sounds.tone(0.1, rate=16_000), 2)) + b"\1\2" * 9
    clips = [Clip(f"c{i}", data, ("/m/dog",)) for i in range(15)]
    with pytest.warns(AsjaxWarning) as caught:
        writer.write(tmp_path / "d", clips, LABELS, progress=False)
    texts = [str(w.message) for w in caught]
    assert len(texts) == 11
    assert texts[-1] == "15 stored clips have notes; the notes of the first 10 were shown"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_left_out_and_nobody_waits(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    clips = [Clip("pipe", tmp_path / "pipe.wav", ("/m/dog",)), Clip("good", tone(), ("/m/cat",))]
    summary = writer.write(tmp_path / "d", clips, LABELS, progress=False)
    assert "got a FIFO" in dict(summary.left_out)["pipe"]


def test_a_disk_that_is_gone_ends_the_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "MOST_STALLED", 0)
    with pytest.raises(AsjaxError, match="reads of audio hang"):
        writer.write(tmp_path / "d", [Clip("a", tone(), ("/m/cat",))], LABELS, progress=False)
    assert not (tmp_path / "d").exists()


def test_a_streamed_wav_with_a_placeholder_size_is_kept(tmp_path):
    data = bytearray(tone())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    summary = writer.write(
        tmp_path / "d", [Clip("pipe", bytes(data), ("/m/dog",))], LABELS, progress=False
    )  # fmt: skip
    assert summary.clips == 1


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([Clip("a", tone(), ("/m/dog",)), Clip("a", tone(), ("/m/dog",))], "'a' occurs twice"),
        ([Clip("a", tone(), ("/m/elk",))], "'/m/elk' must be an id of pets"),
        ([Clip("a", tone(), ("/m/dog",), "1st")], "split must be letters"),
        ([Clip("a", tone(), ("/m/dog",), "all")], "split must be letters"),
        ([Clip("a", b"x", ("/m/dog",))], "no clip could be stored"),
        ([], "none was given"),
    ],
)
def test_nothing_appears_when_writing_is_refused(tmp_path, made, message):
    with pytest.raises(AsjaxError, match=message):
        writer.write(tmp_path / "d", made, LABELS, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_is_replaced_only_on_request_and_a_foreign_folder_never(dataset, tmp_path):
    path, made = dataset
    with pytest.raises(AsjaxError, match="--overwrite"):
        writer.write(path, made[:1], LABELS, progress=False)
    writer.write(path, made[:1], LABELS, overwrite=True, progress=False)
    assert records.Dataset(path).splits == {"fold1": 1}
    assert [p.name for p in path.parent.iterdir()] == ["1.0.0"]
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").write_bytes(b"x")
    with pytest.raises(AsjaxError, match="not a record dataset"):
        writer.write(foreign, made, LABELS, overwrite=True, progress=False)


def test_what_lies_in_a_dataset_and_beside_it_stays(tmp_path):
    """A file that asjax did not write is never removed, whatever its name is."""
    made = clips(2)
    writer.write(tmp_path / "d", made, LABELS, progress=False)
    (tmp_path / "d" / "README.md").write_text("where the clips are from")
    neighbours = [f".d.{os.getpid()}.part", f".d.{os.getpid()}.old", "d.old"]
    for name in neighbours:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years of work")
    writer.write(tmp_path / "d", made[:1], LABELS, overwrite=True, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["d", *neighbours])
    assert all((tmp_path / name / "thesis.tex").is_file() for name in neighbours)
    assert (tmp_path / "d" / "README.md").read_text() == "where the clips are from"
    assert len(list((tmp_path / "d").glob("*.array_record-*"))) == 1


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("write() failed: No space left on device;\n at byte 7")

    monkeypatch.setattr(writer._Split, "add", full)
    with pytest.raises(AsjaxError, match="could not be written: .*No space left on device; at"):
        writer.write(tmp_path / "d", clips(2), LABELS, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("container", "least_db"), [("flac", 60), ("ogg", 15)])
def test_re_encoding_is_mono_at_the_asked_rate_and_faithful(tmp_path, container, least_db):
    data = tone(1.0, 440, rate=44100, channels=2)
    made = [Clip("a", data, ("/m/dog",))]
    encoding = Encoding(container, 32000, 0.3)
    writer.write(tmp_path / "d", made, LABELS, encoding=encoding, progress=False)
    got = records.Dataset(tmp_path / "d").reader.record(0)
    wave, rate = soundfile.read(io.BytesIO(got["audio"][0]))
    assert (wave.ndim, rate, got["sample_rate"], got["samples"]) == (1, 32000, [32000], [32000])
    want = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 32000)
    middle = slice(3200, -3200)
    noise = np.mean((wave - want)[middle] ** 2)
    assert 10 * np.log10(np.mean(want[middle] ** 2) / noise) > least_db


@pytest.mark.parametrize("fields", [("mp3",), ("ogg", 8000, 2.0)])
def test_an_unknown_encoding_is_refused(fields):
    with pytest.raises(AsjaxError, match="must be"):
        Encoding(*fields)


def test_find_takes_the_newest_version_and_names_what_is_not_there(tmp_path):
    for version in ("1.9.0", "1.10.0"):
        writer.write(tmp_path / "d" / version, clips(1), LABELS, progress=False)
    assert records.find(tmp_path / "d").name == "1.10.0"
    with pytest.raises(AsjaxError, match="does not exist"):
        records.find(tmp_path / "e")
    with pytest.raises(AsjaxError, match="not an asjax record dataset"):
        records.find(tmp_path)
