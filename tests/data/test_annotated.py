"""The source `annotated`: recordings with lists of events, in pieces."""

import numpy as np
import pytest
import soundfile

from asjax import build, config, events, recipes
from asjax.config import AsjaxError
from asjax.data import annotated
from asjax.data import strong as lists
from asjax.labels import LabelSet
from asjax.own import data as own

RATE = 8000
CLASSES = LabelSet("two", ("bee", "cow"), ("bee", "cow"))
MARKS = {  # recording -> (seconds, events)
    "a.wav": (3.0, [(0.5, 1.25, "bee"), (1.0, 2.0, "cow")]),
    "b.wav": (25.4, [(9.5, 12.0, "bee"), (20.2, 25.4, "cow"), (0.0, 0.2, "cow")]),
    "c.wav": (10.0, [(0.0, 10.0, "cow")]),
}


@pytest.fixture
def folder(tmp_path):
    """Recordings whose sample n has the value n / 2^20, and a list of their events."""
    lines = ["filename,onset,offset,event_label"]
    for name, (seconds, marks) in MARKS.items():
        ramp = np.arange(round(seconds * RATE)) / 2**20
        soundfile.write(tmp_path / name, ramp, RATE, subtype="FLOAT")
        lines += [f"{name},{a},{b},{label}" for a, b, label in marks]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def opened(folder, label_set=CLASSES, **fields):
    spec = dict(name="annotated", events=str(folder / "events.csv"), **fields)
    return build.source(spec, label_set)


def test_pieces_cover_every_second_of_sound_and_events_once(folder):
    source = opened(folder)
    assert source.ids == ["a.wav", "b.wav@0s", "b.wav@10s", "b.wav@20s", "c.wav"]
    assert source.group == ["a.wav", "b.wav", "b.wav", "b.wav", "c.wav"]
    wanted = {label: 0.0 for label in CLASSES.ids}
    for _, marks in MARKS.values():
        for onset, offset, label in marks:
            wanted[label] += offset - onset
    found = dict.fromkeys(CLASSES.ids, 0.0)
    for marks in source.events:
        for onset, offset, c in marks.tolist():
            assert 0 <= onset < offset <= 10
            found[CLASSES.ids[c]] += offset - onset
    assert found == pytest.approx(wanted)
    # the bee from 9.5 to 12 s is in two pieces
    assert source.events[1].tolist() == [(0.0, pytest.approx(0.2), 1), (9.5, 10.0, 0)]
    assert source.events[2].tolist() == [(0.0, 2.0, 0)]
    np.testing.assert_array_equal(source.labels.toarray(), [[1, 1], [1, 1], [1, 0], [0, 1], [0, 1]])


def test_batches_have_the_sound_and_the_frames_of_their_piece(folder):
    source = opened(folder, piece_s=4.0)
    ops = "decode | crop | strong(frame_rate=10.0)"
    made = dict(num_classes=2, batch_size=len(source), sample_rate=RATE, clip_s=4.0, ops=ops)
    for train in (False, True):
        with build.pipeline(source, train=train, **made).iterate() as batches:
            batch = next(batches)
        assert batch["length"].tolist() != [0] * len(source)
        for i, clip in enumerate(batch["id"]):
            name, _, begin = clip.partition("@")
            begin_s = float(begin.rstrip("s") or 0)
            wave, length = batch["wave"][i], batch["length"][i]
            seconds = min(4.0, MARKS[name][0] - begin_s)
            assert length == round(seconds * RATE)
            expected = np.arange(length) + round(begin_s * RATE)
            np.testing.assert_allclose(wave[:length] * 2**20, expected, atol=0.51)
            fine = np.zeros((40, 2), bool)
            for onset, offset, label in MARKS[name][1]:
                for t in range(40):
                    start = begin_s + t / 10
                    inside = onset < start + 0.1 - 1e-6 and offset > start + 1e-6
                    fine[t, CLASSES.ids.index(label)] |= inside and start < begin_s + seconds
            np.testing.assert_array_equal(batch["frame_target"][i] > 0, fine)


def test_pieces_of_a_length_and_of_its_multiples():
    assert annotated.pieces(10.0, 10.0) == [(0.0, 10.0)]
    assert annotated.pieces(20.0, 10.0) == [(0.0, 10.0), (10.0, 20.0)]
    assert annotated.pieces(20.01, 10.0) == [(0.0, 10.0), (10.0, 20.0)]  # less than a frame
    assert annotated.pieces(0.5, 10.0) == [(0.0, 0.5)]
    assert annotated.pieces(70.0, 0) == [(0.0, 70.0)]


def test_splits_keep_recordings_together_and_the_hash_sees_events(folder):
    parts = [opened(folder, piece_s=2.0, folds=2, splits=[name]) for name in ("fold1", "fold2")]
    assert not {*parts[0].group} & {*parts[1].group}
    assert len(parts[0]) + len(parts[1]) == len(opened(folder, piece_s=2.0))
    assert [len(part.begin_s) for part in parts] == [len(part) for part in parts]
    before = opened(folder).hash
    text = (folder / "events.csv").read_text()
    (folder / "events.csv").write_text(text.replace("0.5,1.25", "0.5,1.26"))
    assert opened(folder).hash != before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(piece_s=-1), "piece_s must be 0 to 60"),
        (dict(piece_s="10"), "piece_s must be 0 to 60"),
        (dict(root="nowhere"), "nowhere does not exist"),
        (dict(splits=["test"]), "test"),
        (dict(label_column="species"), "species"),
    ],
)
def test_wrong_fields_are_refused(folder, fields, message):
    with pytest.raises(AsjaxError, match=message):
        opened(folder, **fields)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("d.wav,0,1,bee", "1 of 4 recordings have no audio .*d.wav"),
        ("a.wav,0,1,dog", "1 labels are no classes of two: 'dog' 1"),
        ("./a.wav,0,1,bee", "are the same file"),
    ],
)
def test_wrong_lists_are_refused(folder, line, message):
    with (folder / "events.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(AsjaxError, match=message):
        opened(folder)


def test_repairs_are_said_once(folder, recwarn):
    with (folder / "events.csv").open("a") as file:
        file.write("a.wav,2.5,9,bee\n")
    source = opened(folder)
    assert source.events[0].tolist()[-1] == (2.5, 3.0, 0)
    opened(folder)
    said = [str(w.message) for w in recwarn if "1 events cut at the end" in str(w.message)]
    assert len(said) == 1
    assert "events.csv line 8" in said[0]


@pytest.mark.parametrize(
    ("name", "text", "is_list"),
    [
        ("a.csv", "filename,onset,offset,event_label\n", True),
        ("a.tsv", "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n", True),
        ("a.txt", "0.5\t1.5\tdog, large\n", True),
        ("a.csv", "x.wav,0.5,1.5,dog\n", True),
        ("a.csv", "filename,labels\nx.wav,dog\n", False),
        ("a.csv", "filename,labels,fold\nx.wav,dog,1\n", False),
        ("a.csv", "", False),
        ("a.bin", b"\x00\xff\xfe".decode("latin1"), False),
    ],
)
def test_a_list_of_events_is_recognised(tmp_path, name, text, is_list):
    (tmp_path / name).write_text(text, encoding="latin1")
    assert lists.is_list(tmp_path / name) is is_list


def test_data_of_the_command_line_may_be_a_list_of_events(folder):
    wanted = dict(name="annotated", events=str(folder / "events.csv"))
    assert own.spec_of(wanted["events"]) == wanted
    assert own.spec_of(str(folder)) == {**wanted, "root": str(folder)}
    given = own.spec_of(wanted["events"], columns="labels=kind", audio_root="x")
    assert given == {**wanted, "root": "x", "label_column": "kind"}
    for option in (dict(columns="file=name"), dict(label_separator=",")):
        with pytest.raises(AsjaxError, match="list of events"):
            own.spec_of(wanted["events"], **option)
    read = own.read(wanted["events"])
    assert read.detects
    assert read.label_set.ids == ("bee", "cow")
    assert read.cut(5)["train"]["piece_s"] == 5.0
    cfg = config.read(str(recipes.path_of("own")), {"data": wanted["events"], "tiny": True})
    assert cfg.objective.name == "detection"
    assert cfg.model.frames == round(25 * cfg.data.clip_s)
    assert events.as_events([]).dtype == events.EVENT


def test_a_column_gives_the_splits(folder):
    (folder / "events.csv").write_text(
        "filename,onset,offset,event_label,split\na.wav,0.5,1,bee,train\nb.wav,,,,train\n"
        "c.wav,0,1,cow,test\n"
    )
    assert opened(folder, splits=["test"]).ids == ["c.wav"]
    assert opened(folder, splits=["train"]).group == ["a.wav", "b.wav", "b.wav", "b.wav"]
    read = own.read(str(folder / "events.csv"))
    assert read.counts["test"] == 1
    assert read.counts["train"] + read.counts["eval"] == 4
    text = (folder / "events.csv").read_text()
    for line, message in (
        ("a.wav,1,2,bee,test\n", "a.wav is in the splits train and test .*line 5"),
        ("a.wav,1,2,bee,no split\n", "line 5 has the split 'no split'"),
    ):
        (folder / "events.csv").write_text(text + line)
        with pytest.raises(AsjaxError, match=message):
            opened(folder)


def test_a_recording_that_cannot_be_read_is_left_to_the_reader_of_the_audio(folder):
    (folder / "b.wav").write_bytes((folder / "b.wav").read_bytes()[:1000])
    source = opened(folder)
    assert source.ids == ["a.wav", "b.wav", "c.wav"]
    assert source.events[1].tolist() == [(0.0, 0.2, 1), (9.5, 10.0, 0)]
    assert source[1]["part"] == (0.0, 10.0)


def test_what_is_not_used_is_said(folder, recwarn):
    soundfile.write(folder / "unlisted.wav", np.zeros(80), RATE)
    opened(folder)
    assert any("1 other audio files below" in str(w.message) for w in recwarn)
    (folder / "events.csv").write_text("name,onset,offset,event_label\na.wav,0,1,bee\n")
    with pytest.raises(AsjaxError, match="no column such as filename"):
        opened(folder)
    (folder / "events.csv").write_text("filename,onset,offset,event_label\na.wav,500,900,bee\n")
    with pytest.raises(AsjaxError, match="no usable event: 1 events beyond the end: events.csv li"):
        opened(folder)
