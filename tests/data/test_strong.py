"""Lists of events in every format, their faults, records with events, targets in time."""

import csv
import gzip
import io
import json
import math
import pickle

import numpy as np
import pytest
import soundfile

from asjax import build, events, hlp, labels
from asjax.__main__ import main as asjax_main
from asjax.config import AsjaxError
from asjax.data import example, ops, records, sources, strong, strong_clips, writer
from asjax.data.clips import Clip
from asjax.labels import LabelSet

PETS = LabelSet("pets", ("/m/dog", "/m/cat", "/m/cow"), ("Dog", "Cat, tame", "Cow"))
RATE = 8000
NAN = math.nan


def save(path, seconds=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.random.default_rng(len(path.name)).uniform(-0.5, 0.5, int(seconds * RATE))
    soundfile.write(path, wave, RATE)
    return path


def listed(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def rows(path, **options):
    return [(r.recording, r.onset_s, r.offset_s, r.label) for r in strong.read(path, **options)]


# -------------------------------------------------------------------------------------- reading

TWO = [("a.wav", 1.0, 2.5, "bark"), ("b.wav", 0.0, 1.5, "speech")]


@pytest.mark.parametrize(
    "text",
    [
        "filename\tonset\toffset\tevent_label\na.wav\t1.0\t2.5\tbark\nb.wav\t0\t1.5\tspeech\n",
        "filename,onset,offset,event_label\na.wav,1.0,2.5,bark\nb.wav,0.0,1.5,speech\n",
        "\ufefffilename;onset;offset;event_label\r\na.wav;1.0;2.5;bark\r\n\r\nb.wav;0;1.5;speech",
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        "a.wav\t1.0\t2.5\tbark\nb.wav\t0\t1.5\tspeech\n",
        "event_label,filename,offset,onset,mood\nbark,a.wav,2.5,1,x\nspeech,b.wav,1.5,0,\n",
        "a.wav\t1.0\t2.5\tbark\nb.wav\t0.0\t1.5\tspeech\n",
        "a.wav\thome\t1.0\t2.5\tbark\nb.wav\thome\t0.0\t1.5\tspeech\n",
        "filename\tonset\toffset\tevent_label\na.wav\t1,0\t2,5\tbark\nb.wav\t0,0\t1,5\tspeech\n",
    ],
)
def test_every_usual_form_gives_the_same_rows(tmp_path, text):
    assert rows(listed(tmp_path / "list.txt", text)) == TWO


def test_the_forms_of_dcase_util_and_desed(golden, tmp_path):
    manifest, _ = golden("sed_events_formats")
    for name, case in manifest["dcase_util"].items():
        answer = rows(listed(tmp_path / name, case["text"]))
        for row, item in zip(answer, case["items"], strict=True):
            recording = item.get("filename", name.removesuffix(".txt"))
            assert row == (recording, item["onset"], item["offset"], item["event_label"])
    truth = manifest["desed_truth"]
    answer = rows(listed(tmp_path / "truth.tsv", truth["text"]))
    names = LabelSet("two", ("bark", "cough"), ("bark", "cough"))
    tidied = strong.tidy(strong.read(tmp_path / "truth.tsv"), names)
    assert answer[1] == ("clip01.wav", None, None, None)
    for clip, wanted in truth["parsed"].items():
        mine = tidied.events[f"{clip}.wav"].tolist()
        assert [(a, b, names.ids[c]) for a, b, c in mine] == [tuple(w) for w in wanted]


def test_an_audacity_track_is_of_the_recording_with_its_name(tmp_path):
    text = '0.5\t1.25\tbark\n\\\t200.0\t900.0\n2\t3\tspeech, "far"\n'
    path = listed(tmp_path / "yard 1.txt", text)
    assert rows(path) == [("yard 1", 0.5, 1.25, "bark"), ("yard 1", 2, 3, 'speech, "far"')]


def test_a_raven_table_lists_each_selection_once(tmp_path):
    head = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tSpecies\n"
    body = "".join(
        f"{n}\t{view} 1\t1\t{n}.5\t{n + 1}.25\t100\tbark\n"
        for n in (1, 2)
        for view in ("Waveform", "Spectrogram")
    )
    path = listed(tmp_path / "yard.Table.1.selections.txt", head + body)
    assert rows(path) == [("yard", 1.5, 2.25, "bark"), ("yard", 2.5, 3.25, "bark")]


def test_another_column_and_gzip(tmp_path):
    text = "filename,onset,offset,event_label,mid\na.wav,0,1,SP,/m/dog\n"
    path = tmp_path / "list.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert rows(path, label_column="mid") == [("a.wav", 0, 1, "/m/dog")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("filename,onset,event_label\na.wav,0,x\n", "no column for the offset"),
        ("filename,onset,offset\na.wav,0,1\n", "no column for the class"),
        ("filename,onset,offset,label\na.wav,0,1,x,y\n", "line 2: must have 4 fields, got 5"),
        ("a.wav\tb\tc\td\n", "no known header and has no times: a.wav,b,c,d"),
        ("path,begin,stop,what\nx.wav,0,1,dog\n", "has no times: path,begin,stop,what"),
        ("one\ttwo\n", "must have 3, 4 or 5 fields, got 2"),
        ('filename,onset,offset,label\na.wav,0,1,"x\n', "cannot be read as a table|unexpected"),
    ],
)
def test_what_is_no_list_is_told(tmp_path, text, message):
    with pytest.raises(AsjaxError, match=message):
        strong.read(listed(tmp_path / "list.csv", text))
    with pytest.raises(AsjaxError, match="does not exist"):
        strong.read(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AsjaxError, match="cannot be read as text"):
        strong.read(tmp_path / "binary.csv")


def test_weak_lists_and_durations(tmp_path):
    path = listed(tmp_path / "weak.tsv", "filename\tevent_labels\na.wav\tDog,Cow\nb.wav\tDog\n")
    assert strong.read_weak(path) == {"a.wav": ["Dog", "Cow"], "b.wav": ["Dog"]}
    with pytest.raises(AsjaxError, match="columns filename and event_labels"):
        strong.read_weak(listed(tmp_path / "bad.tsv", "file\tlabel\n"))
    twice = listed(tmp_path / "bad.tsv", "filename\tevent_labels\na\tx\na\ty\n")
    with pytest.raises(AsjaxError, match="line 3"):
        strong.read_weak(twice)
    for text in ("Ya,10.0\nYb,2.5\n", "filename\tduration\nYa.wav\t10.0\nYb.wav\t2.5\n"):
        assert strong.read_durations(listed(tmp_path / "d.csv", text)) == {"Ya": 10, "Yb": 2.5}
    for text in ("a,0\n", "x,1\na,b\n", "a,1\na.wav,2\n", "a,1,2\n"):
        with pytest.raises(AsjaxError, match="durations .* line"):
            strong.read_durations(listed(tmp_path / "d.csv", text))


# --------------------------------------------------------------------------------------- faults

FAULTY = """filename,onset,offset,event_label
a.wav,0.5,1.0,Dog
a.wav,0.8,1.5,Dog
a.wav,1.5,1.8,Dog
a.wav,1.9,1.1,Cow
a.wav,nan,1.0,Cow
a.wav,,1.0,Cow
a.wav,1.5,9.0,Cow
a.wav,5,6,Cow
a.wav,0.1,0.2,Wolf
b.wav,0.1,0.1,Cow
b.wav,-0.5,0.3,"Cat, tame"
c.wav,,,
"""


def test_every_fault_is_counted_and_mended(tmp_path):
    answer = strong.tidy(strong.read(listed(tmp_path / "bad.csv", FAULTY)), PETS, lambda _: 2.0)
    assert answer.counts == {
        "unknown classes": 1,
        "times that are no numbers": 2,
        "offsets before onsets": 1,
        "events without length": 1,
        "events beyond the end": 1,
        "events cut at the end": 1,
        "onsets before the start": 1,
        "overlaps of one class": 1,
    }
    assert answer.unknown == {"Wolf": 1}
    assert answer.events["a.wav"].tolist() == [(0.5, 1.5, 0), (1.5, 1.8, 0), (1.5, 2.0, 2)]
    assert answer.events["b.wav"].tolist() == [(0, 0.3, 1)]
    assert not len(answer.events["c.wav"])
    assert any("bad.csv line 10 'Wolf'" in line for line in answer.lines())


def test_the_line_of_a_fault_is_the_faulty_line(tmp_path):
    answer = strong.tidy(strong.read(listed(tmp_path / "bad.csv", FAULTY)), PETS, lambda _: 2.0)
    assert {kind: lines for kind, lines in answer.examples.items() if kind != strong.UNKNOWN} == {
        "overlaps of one class": ["bad.csv line 3 (a.wav)"],
        "offsets before onsets": ["bad.csv line 5 (a.wav)"],
        "times that are no numbers": ["bad.csv line 6 (a.wav)"],
        "events cut at the end": ["bad.csv line 8 (a.wav)"],
        "events beyond the end": ["bad.csv line 9 (a.wav)"],
        "events without length": ["bad.csv line 11 (b.wav)"],
        "onsets before the start": ["bad.csv line 12 (b.wav)"],
    }


def test_events_without_a_class_are_counted(tmp_path):
    text = "filename,onset,offset,event_label\na.wav,0.5,1,\na.wav,0.5\na.wav,1,2,Dog\n"
    answer = strong.tidy(strong.read(listed(tmp_path / "x.csv", text)), PETS)
    assert answer.events["a.wav"].tolist() == [(1, 2, 0)]
    assert answer.lines(repaired=True) == [
        "2 events without a class (left out): x.csv line 2 (a.wav), x.csv line 3 (a.wav)"
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_as_programs_save_them(tmp_path, encoding):
    text = '"filename"\t"onset"\t"offset"\t"event_label"\r\n"a b.wav"\t0.5\t"1,5"\t"d\u00f6g"\r\n'
    path = tmp_path / "x.tsv"
    path.write_bytes(text.encode(encoding))
    assert strong.is_list(path)
    assert rows(path) == [("a b.wav", 0.5, 1.5, "d\u00f6g")]


def test_a_column_of_splits_is_not_ignored_by_prepare(set_of_three, capsys):
    path = set_of_three
    text = "filename,onset,offset,event_label,split\na.wav,0.5,1,Dog,test\n"
    listed(path / "x.csv", text)
    common = ["--audio", path / "audio", "--labels", path / "pets.csv", "--out", path / "out"]
    code, said = run(capsys, "--events", path / "x.csv", *common)
    assert code == 2
    assert "column for splits (test)" in said
    assert run(capsys, "--events", f"test={path / 'x.csv'}", *common)[0] == 0


def test_lists_given_one_by_one_are_all_read(set_of_three, capsys):
    path = set_of_three
    listed(path / "x.csv", "filename,onset,offset,event_label\na.wav,0.5,1.0,Dog\n")
    listed(path / "y.csv", "filename,onset,offset,event_label\nb.wav,0.5,1.0,Dog\n")
    code, text = run(
        capsys, "--events", path / "x.csv", "--events", f"eval={path / 'y.csv'}", "--audio",
        path / "audio", "--labels", path / "pets.csv", "--out", path / "out",
    )  # fmt: skip
    assert code == 0, text
    assert "kept 2 clips (eval 1, train 1)" in text


def run(capsys, *words):
    """Output and exit code of `asjax prepare strong`."""
    code = asjax_main(["prepare", "strong", *map(str, words)])
    done = capsys.readouterr()
    return code, done.out + done.err


@pytest.fixture
def set_of_three(tmp_path):
    for name in ("a.wav", "sub/b.wav", "c.flac"):
        save(tmp_path / "audio" / name)
    listed(tmp_path / "bad.csv", FAULTY)
    listed(
        tmp_path / "pets.csv",
        'index,mid,display_name\n0,/m/dog,Dog\n1,/m/cat,"Cat, tame"\n2,/m/cow,Cow\n',
    )
    return tmp_path


def test_prepare_says_what_it_repaired_and_the_records_hold_the_rest(set_of_three, capsys):
    path = set_of_three
    code, text = run(
        capsys, "--events", f"test={path / 'bad.csv'}", "--audio", path / "audio",
        "--labels", path / "pets.csv", "--out", path / "out",
    )  # fmt: skip
    assert code == 0, text
    for line in (
        "bad.csv: 12 lines, 3 recordings, 4 events",
        "repaired: 1 unknown classes (left out): bad.csv line 10 'Wolf'",
        "repaired: 2 times that are no numbers (left out)",
        "the unknown classes are: 'Wolf' 1",
        "kept 3 clips (test 3)",
        "4 events, 0 of them cut at the end of the decoded audio",
    ):
        assert line in text
    notes = json.loads((path / "out" / "manifest.json").read_text())["notes"]
    assert notes["repaired"]["bad.csv"]["offsets before onsets"] == 1
    source = sources.records(labels.get(path / "pets.csv"), path=path / "out")
    assert source.ids == ["a.wav", "b.wav", "c.wav"]
    assert source[0]["events"].tolist() == [(0.5, 1.5, 0), (1.5, 1.8, 0), (1.5, 2.0, 2)]
    assert source[2]["events"].tolist() == []
    np.testing.assert_array_equal(source.labels.toarray(), [[1, 0, 1], [0, 1, 0], [0, 0, 0]])


def test_prepare_can_refuse(set_of_three, capsys):
    path = set_of_three
    common = ["--audio", path / "audio", "--labels", path / "pets.csv", "--out", path / "out"]
    code, text = run(capsys, "--events", path / "bad.csv", *common, "--faults", "refuse")
    assert code == 2
    assert len(text.strip().splitlines()) == 1
    for kind in ("offsets before onsets", "unknown classes", "overlaps of one class"):
        assert f"1 {kind}" in text
    assert not (path / "out").exists()
    clean = "filename,onset,offset,event_label\na.wav,0.5,1.0,Dog\n"
    listed(path / "good.csv", clean)
    code, text = run(capsys, "--events", path / "good.csv", *common, "--faults", "refuse")
    assert code == 0, text
    listed(path / "again.csv", clean)
    code, text = run(
        capsys, "--events", path / "good.csv", f"eval={path / 'again.csv'}", *common, "--overwrite"
    )
    assert code == 2
    assert "recording 'a.wav' is in" in text


def test_a_wrong_label_set_is_told(set_of_three, capsys):
    path = set_of_three
    listed(path / "good.csv", "filename,onset,offset,event_label\na.wav,0.5,1.0,Dog\n")
    code, text = run(
        capsys, "--events", path / "good.csv", "--audio", path / "audio", "--labels", "esc10",
        "--label-column", "filename", "--out", path / "out",
    )  # fmt: skip
    assert code == 2
    assert "no event is left" in text
    assert "is esc10 the right label set" in text


def test_strong_and_weak_clips_in_one_set(set_of_three, capsys):
    path = set_of_three
    save(path / "audio" / "d.wav", 3.0)
    listed(path / "good.csv", "filename,onset,offset,event_label\na.wav,0.5,1.0,dog\n")
    listed(path / "weak.tsv", "filename\tevent_labels\nd.wav\tcow,dog\ngone.wav\tcow\n")
    code, text = run(
        capsys, "--events", path / "good.csv", "--weak", path / "weak.tsv", "--audio",
        path / "audio", "--labels", "own", "--out", path / "out",
    )  # fmt: skip
    assert code == 0, text
    assert "gone.wav: audio file does not exist" in text
    classes = sources.own_labels(path / "out")
    assert classes.ids == ("cow", "dog")
    batches = build.pipeline(
        sources.records(classes, path=path / "out"),
        num_classes=2,
        batch_size=2,
        sample_rate=RATE,
        clip_s=2.0,
        train=False,
        ops="decode | crop | strong(frame_rate=10.0, weak=False)",
    )
    with batches.iterate() as answer:
        batch = next(answer)
    assert batch["id"] == ["a.wav", "d.wav"]
    assert batch["has_strong"].tolist() == [1, 0]
    assert batch["has_weak"].tolist() == [0, 1]
    assert batch["frame_target"].shape == (2, 20, 2)
    assert np.argwhere(batch["frame_target"]).tolist() == [[0, t, 1] for t in range(5, 10)]
    assert batch["target"].tolist() == [[0, 1], [1, 1]]


def test_audioset_names_find_their_audio(tmp_path):
    for name in ("YaBcDeFgHiJk.wav", "x/lMnOpQrStUv_30.flac", "Y12345678901_10.000_20.000.ogg"):
        if name.endswith("ogg"):
            soundfile.write(tmp_path / name, np.zeros(100), RATE, format="OGG")
        else:
            save(tmp_path / name)
    index = strong_clips.AudioIndex(tmp_path)
    assert index.find("aBcDeFgHiJk_30000").endswith("YaBcDeFgHiJk.wav")
    assert index.find("YlMnOpQrStUv.wav").endswith("lMnOpQrStUv_30.flac")
    assert index.find("Y12345678901_10.000_20.000.wav").endswith(".ogg")
    assert len(index.by_id) == 2
    assert index.find("nothing.wav") is None
    assert index.find("../outside.wav") is None
    assert index.find("") is None
    save(tmp_path / "y" / "YaBcDeFgHiJk.wav")
    with pytest.raises(AsjaxError, match="may be .* or "):
        strong_clips.AudioIndex(tmp_path).find("aBcDeFgHiJk_30000")
    with pytest.raises(AsjaxError, match="audio folder"):
        strong_clips.AudioIndex(tmp_path / "none")


def test_listed_durations_end_the_events_and_differences_are_said(set_of_three):
    path = set_of_three
    listed(path / "d.csv", "a,1.2\nb.wav,2.0\n")
    listed(path / "good.csv", "filename,onset,offset,event_label\na.wav,0.5,1.9,Dog\n")
    answer = strong_clips.clips(
        [("train", path / "good.csv")], [], path / "audio", PETS, durations=[path / "d.csv"]
    )
    assert answer.clips[0].events == ((0.5, 1.2, "/m/dog"),)
    assert any(
        "durations differ from the files: a.wav 1.2 s in the list, 2 s in the file" in t
        for t in answer.lines
    )


def test_the_official_partial_list_reads_as_counted(shared_dir):
    """Events of the 110 most frequent classes, against AudioSet Strong's own counts."""
    folder = shared_dir / "data" / "metadata" / "audioset_strong"
    answer = rows(folder / "eval_strong_top110_partial.tsv.gz")
    assert len(answer) == 103_207
    with (folder / "class_counts_weak_and_strong.tsv").open() as file:
        wanted = {r["class_id"]: r for r in csv.DictReader(file, delimiter="\t")}
    mids, counts = np.unique([label for *_, label in answer], return_counts=True)
    assert len(mids) == 110
    for mid, count in zip(mids, counts, strict=True):  # from 15,646 of the 16,996 clips
        assert 0.75 < count / int(wanted[mid]["eval_event_count"]) <= 1
    tidied = strong.tidy(
        strong.read(folder / "eval_strong_top110_partial.tsv.gz"), labels.get("audioset_strong407")
    )
    assert tidied.counts == {"overlaps of one class": 94}


# -------------------------------------------------------------------------------------- records


def tone(seconds):
    out = io.BytesIO()
    soundfile.write(out, np.zeros(int(seconds * RATE)), RATE, format="WAV")
    return out.getvalue()


def test_events_come_back_exactly_and_tfds_reads_them(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    marks = ((0.1, 1 / 3, "/m/dog"), (0.5, 1e-3 + 0.5, "/m/cow"))
    clips = [
        Clip("strong", tone(1.0), ("/m/dog", "/m/cow"), events=marks),
        Clip("silent", tone(1.0), (), events=()),
        Clip("weak", tone(1.0), ("/m/cat",)),
        Clip("long", tone(0.5), ("/m/dog",), events=((0.2, 0.7, "/m/dog"), (0.6, 0.7, "/m/dog"))),
    ]
    built = writer.write(tmp_path / "set" / "1.0.0", clips, PETS, strong=True, progress=False)
    assert (built.events, built.cut) == (3, 2)
    source = sources.records(PETS, path=built.path)
    answer = [source[i]["events"] for i in range(4)]
    assert answer[0].tolist() == [(0.1, 1 / 3, 0), (0.5, 0.501, 2)]
    assert answer[1].tolist() == []
    assert answer[2] is None
    assert answer[3].tolist() == [(0.2, 0.5, 0)]
    assert [e["events"] is None for e in map(source.__getitem__, range(4))] == [0, 0, 1, 0]
    assert source.events[:2][0].tolist() == answer[0].tolist()
    copy = pickle.loads(pickle.dumps(source))
    assert copy.events[0].tolist() == answer[0].tolist()
    record = example.decode(example.encode({"events": ["0.1 0.2 /m/dog"], "strong": 1}))
    assert record == {"events": [b"0.1 0.2 /m/dog"], "strong": [1]}
    theirs = tfds.builder_from_directory(str(built.path)).as_data_source("train")
    assert [int(e["strong"]) for e in theirs] == [1, 1, 0, 1]
    texts = [t.decode() for t in theirs[0]["events"]]
    assert events.from_text(";".join(texts)) == list(marks)


def test_a_set_without_events_is_as_it_was(tmp_path):
    clip = Clip("a", tone(1.0), ("/m/dog",))
    built = writer.write(tmp_path / "set", [clip], PETS, progress=False)
    opened = records.Dataset(built.path)
    assert not opened.strong
    assert "events" not in json.loads((built.path / "manifest.json").read_text())
    assert "events" not in sources.records(PETS, path=built.path)[0]
    marked = Clip("b", tone(1.0), (), events=())
    with pytest.raises(AsjaxError, match="write the set with strong=True"):
        writer.write(tmp_path / "other", [marked], PETS, progress=False)


@pytest.mark.parametrize(
    "bad",
    [
        (1, 0.5, "/m/dog"),
        (NAN, 1, "/m/dog"),
        (-1, 1, "/m/dog"),
        (0, math.inf, "/m/dog"),
        (0, 1, "wolf"),
    ],
)
def test_faulty_events_are_not_written(tmp_path, bad):
    clip = Clip("a", tone(1.0), ("/m/dog",), events=(bad,))
    with pytest.raises(AsjaxError, match="an event must be"):
        writer.write(tmp_path / "set", [clip], PETS, strong=True, progress=False)
    assert not (tmp_path / "set").exists()


def test_splits_keep_events_with_their_clips(tmp_path):
    clips = [
        Clip(f"c{i}", tone(1.0), ("/m/dog",), f"fold{1 + i % 2}", events=((0.1 * i, 1, "/m/dog"),))
        for i in range(6)
    ]
    built = writer.write(tmp_path / "set", clips, PETS, strong=True, progress=False)
    source = sources.records(PETS, path=built.path, splits=["fold2"])
    for i, name in enumerate(source.ids):
        assert source[i]["events"]["onset_s"][0] == pytest.approx(0.1 * int(name[1:]))
    assert source.hash != sources.records(PETS, path=built.path).hash


def test_a_folder_takes_events_and_refuses_faults(tmp_path):
    for name in ("a.wav", "b.wav"):
        save(tmp_path / name)
    table = listed(tmp_path / "labels.csv", "filename,labels\na.wav,Dog\nb.wav,Cow\n")
    marks = listed(tmp_path / "events.csv", "filename,onset,offset,event_label\na.wav,0,1,Dog\n")
    plain = sources.folder(PETS, csv=table)
    source = sources.folder(PETS, csv=table, events_csv=marks)
    assert source[0]["events"].tolist() == [(0, 1, 0)]
    assert source[1]["events"] is None
    assert source.hash != plain.hash
    assert "events" not in plain[0]
    track = listed(tmp_path / "b.txt", "0.5\t1.5\tCow\n")
    assert sources.folder(PETS, csv=table, events_csv=track)[1]["events"].tolist() == [
        (0.5, 1.5, 2)
    ]
    for text, message in (
        ("a.wav,1,0,Dog\n", "1 offsets before onsets"),
        ("z.wav,0,1,Dog\n", "1 recordings that are no clips"),
        ("a.wav,0,1,Wolf\n", "1 unknown classes"),
    ):
        listed(marks, "filename,onset,offset,event_label\n" + text)
        with pytest.raises(AsjaxError, match=message):
            sources.folder(PETS, csv=table, events_csv=marks)


# -------------------------------------------------------------------------------------- targets


def clip_of(marks, seconds=4.0):
    wave = np.arange(int(seconds * 100), dtype=np.float32)
    return {
        "id": "a",
        "labels": np.array([1]),
        "wave": wave,
        "start_s": 0.0,
        "events": None if marks is None else events.as_events(marks),
    }


def targets(start, **options):
    options = {"num_classes": 3, "clip_s": 2.0, "frame_rate": 10.0, **options}
    return ops.strong(start, None, **options)


def test_labels_move_with_the_crop():
    marks = [(0.5, 1.0, 0), (1.55, 2.5, 1), (3.0, 4.0, 2), (3.2, 3.4, 2)]
    fine = np.zeros((400, 3), bool)
    for onset, offset, label in marks:
        fine[round(onset * 100) : round(offset * 100), label] = True
    for seed in range(30):
        rng = np.random.default_rng(seed)
        cropped = ops.crop(clip_of(marks), rng, sample_rate=100, clip_s=2.0, train=True)
        start = int(cropped["wave"][0])
        answer = targets(cropped)
        wanted = fine[start : start + 200].reshape(20, 10, 3).any(axis=1)
        np.testing.assert_array_equal(answer["frame_target"], wanted)
        np.testing.assert_array_equal(answer["target"], wanted.any(axis=0))
        assert set(answer) == {
            "id", "wave", "length", "frame_target", "target", "has_strong", "has_weak"
        }  # fmt: skip


def test_a_stretch_of_a_long_recording_says_where_it_begins(tmp_path):
    seconds = ops.LONG_S + 20
    ramp = np.arange(int(seconds * 100)) / (seconds * 100)
    soundfile.write(tmp_path / "long.wav", ramp, 100, subtype="FLOAT")
    clip = {"id": "a", "audio": str(tmp_path / "long.wav"), "labels": [], "events": None}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        answer = ops.decode(clip, rng, sample_rate=100, clip_s=2.0, train=True)
        assert answer["start_s"] == pytest.approx(answer["wave"][0] * seconds, abs=0.02)
    assert "start_s" not in ops.decode(
        {k: v for k, v in clip.items() if k != "events"},
        rng,
        sample_rate=100,
        clip_s=2.0,
        train=True,
    )


def test_what_is_known_of_a_clip():
    answer = targets(clip_of([]))
    assert (answer["has_strong"], answer["has_weak"]) == (1, 1)
    assert not answer["target"].any()  # a list exists, but it has no event
    answer = targets(clip_of(None))
    assert (answer["has_strong"], answer["has_weak"]) == (0, 1)
    assert answer["target"].tolist() == [0, 1, 0]
    assert targets(clip_of([]), weak=False)["has_weak"] == 0
    blank = {"id": "", "labels": [], "wave": np.zeros(0, np.float32)}
    assert targets(blank)["has_strong"] == 0
    assert targets(clip_of([]), frames=7)["frame_target"].shape == (7, 3)
    with pytest.raises(AsjaxError, match="clip a: classes of events must be 0 to 2, got 5"):
        targets(clip_of([(0, 1, 5)]))


def test_weak_training_on_a_strong_set_drops_the_marks():
    answer = ops.multihot(clip_of([(0, 1, 0)]), None, num_classes=3)
    assert set(answer) == {"id", "wave", "target"}
    assert answer["target"].tolist() == [0, 1, 0]


def test_a_frames_labels_propagate_up_the_ontology():
    strong447 = labels.get("audioset_strong447")
    closure = hlp.closure(strong447)
    marks = events.as_events([(0.2, 0.6, "Bark"), (0.4, 1.0, "Meow")], strong447)
    frames = events.to_frames(marks, frames=50, num_classes=447)
    grown = hlp.propagate_labels(frames, closure)
    names = np.array(strong447.names)
    assert set(names[grown[6] > 0]) == {"Bark", "Dog", "Domestic animals, pets", "Animal"}
    assert set(names[grown[20] > 0]) == {"Meow", "Cat", "Domestic animals, pets", "Animal"}
    np.testing.assert_array_equal(grown[12], np.maximum(grown[6], grown[20]))
    assert not grown[30:].any()
    clip = hlp.propagate_labels(frames.max(axis=0), closure)
    np.testing.assert_array_equal(grown.max(axis=0), clip)
