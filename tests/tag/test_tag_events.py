"""`asjax tag --events`: forms, label tracks, frame scores, and what it refuses.

The detector is a formula of the sound, so the events are known.
"""

import io
import json
import os
import sys

import numpy as np
import pytest
import small_detector as small
import small_tagger
from small_detector import RATE, expected, sounds
from small_tagger import LABELS, write

from asjax import predict
from asjax.__main__ import main
from asjax.data import strong
from asjax.store import frame_scores
from asjax.tag import event_forms, events

RAIN = [(1.0, 3.2), (3.6, 8.5)]  # louder than Rain's level, not than that of Dishes
WAVE = sounds(9.35, *((a, b, 0.17) for a, b in RAIN), (9.0, 9.35, 0.9))
HEADER = "filename\tonset\toffset\tevent_label\tprobability"


@pytest.fixture(autouse=True)
def model(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(predict, "load", lambda path, **kw: small.tagger(edge=0.0, **kw))
    return str(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(capsys, model):
    def call(*words, events=True):
        words = [*map(str, words), *(["--events"] if events else [])]
        code = main(["tag", *words, "--model", model])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture
def wav(tmp_path):
    return write(tmp_path / "a b.wav", WAVE)


def rows(text):
    header, *lines = text.splitlines()
    assert header == HEADER
    return [line.split("\t") for line in lines]


# --------------------------------------------------------------------------------------- forms


def test_lines_for_programs_are_the_events_in_time_order(wav, run):
    code, out, err = run(wav, "--median", 0.1)
    assert (code, err) == (0, "")
    found = rows(out)
    rain = [(float(a), float(b)) for _, a, b, label, _ in found if label == "Rain"]
    np.testing.assert_allclose(rain, [*RAIN, (9.0, 9.35)])
    assert sorted(row[3] for row in found[2:]) == sorted(LABELS.names)
    assert {row[0] for row in found} == {str(wav)}
    p = expected(WAVE, edge=0.0)
    np.testing.assert_allclose(float(found[0][4]), p[10:32, 0].mean(), atol=1e-5)
    assert run(wav, "--median", 0.1, "--tsv")[1] == out


def test_a_list_of_events_is_read_by_the_readers_of_such_lists(tmp_path, wav, run):
    run(wav, "--median", 0.1, "--out", tmp_path / "list.tsv")
    read = strong.read(tmp_path / "list.tsv")
    assert [(r.onset_s, r.offset_s, r.label) for r in read[:2]] == [(*t, "Rain") for t in RAIN]
    assert {strong.stem(r.recording) for r in read} == {"a b"}
    assert len(read) == 6


def test_json_has_the_same_events_with_ids(wav, run):
    item = json.loads(run(wav, "--json", "--median", 0.1)[1])
    table = rows(run(wav, "--median", 0.1)[1])
    assert (item["file"], item["duration_s"]) == (str(wav), 9.35)
    assert set(item) == {"file", "duration_s", "events"}
    for event, row in zip(item["events"], table, strict=True):
        assert list(event) == ["onset_s", "offset_s", "label", "id", "probability"]
        assert [event[k] for k in ("onset_s", "offset_s", "probability")] == [
            pytest.approx(float(row[i]), abs=1e-6) for i in (1, 2, 4)
        ]
        assert LABELS.index(event["id"]) == LABELS.index(row[3])


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_terminal_gets_a_table(wav, run, monkeypatch):
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    run(wav, "--median", 0.1)
    first, *lines = screen.getvalue().splitlines()
    assert first == f"{wav}  9.35 s"
    assert lines[0].split()[:4] == ["1.00", "-", "3.20", "s"]
    assert lines[0].endswith("  Rain")
    assert "█" in lines[0]
    assert len(lines) == 7  # and an empty line
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    run(wav, "--threshold", 1)
    assert "no events" in screen.getvalue()
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    run(wav, "--tsv")
    assert screen.getvalue().startswith(HEADER)


def test_files_without_an_event_are_mentioned(tmp_path, wav, run):
    quiet = write(tmp_path / "q.wav", sounds(3))
    code, out, err = run(wav, quiet, "--median", 0.1)
    assert (code, err) == (0, f"asjax tag: no event in 1 of 2 files, first {quiet}\n")
    assert len(rows(out)) == 6
    assert json.loads(run(quiet, "--json")[1])["events"] == []


def test_a_control_character_in_a_name_does_not_break_a_line(tmp_path, run):
    path = write(tmp_path / "a\tb\nc.wav", WAVE)
    found = rows(run(path, "--median", 0.1)[1])
    assert {len(row) for row in found} == {5}
    assert found[0][0] == f"{tmp_path}/a\\x09b\\x0ac.wav"
    assert event_forms.plain('a "quoted" Ö') == 'a "quoted" Ö'


# ------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("words", "how"),
    [
        ([], {}),
        (["--threshold", 0.9], {"threshold": 0.9}),
        (["--median", 0], {"median": 0}),
        (["--min-duration", 1], {"min_duration": 1.0}),
        (["--gap", 0.5], {"gap": 0.5}),
        (["--classes", "Dog;Rain"], {"classes": ["Dog", "Rain"]}),
        (["--boxes"], {"boxes": True}),
        (["--boxes", "--threshold", 0.8, "--gap", 1], {"boxes": True, "threshold": 0.8, "gap": 1}),
    ],
)
def test_options_are_those_of_python(wav, run, words, how):
    wanted = small.tagger(edge=0.0)(wav).events(**how)
    found = json.loads(run(wav, "--json", *words)[1])["events"]
    assert [(e["onset_s"], e["offset_s"], e["label"], e["id"]) for e in found] == [
        (round(e.onset_s, 6), round(e.offset_s, 6), e.label, e.id) for e in wanted
    ]


def test_chunks_are_windows_side_by_side(wav, run, monkeypatch):
    monkeypatch.setattr(predict, "load", lambda path, **kw: small.tagger(**kw))
    wanted = small.tagger(chunks=True)(wav).events(median=0.1)
    found = json.loads(run(wav, "--json", "--chunks", "--median", 0.1)[1])["events"]
    assert [e["onset_s"] for e in found] == [e.onset_s for e in wanted]
    assert len(found) > 6


def test_the_thresholds_of_the_model_folder_are_the_default(wav, run, monkeypatch):
    tuned = {"threshold": [0.99, 0.5, 0.5, 0.5], "median": [1] * 4, "frame_rate": 10.0}
    record = {"sha256": {"card.json": small_tagger.HASH}, "decoding": tuned}
    how = dict(record=record, edge=0.0)
    monkeypatch.setattr(predict, "load", lambda path, **kw: small.tagger(**how, **kw))
    assert sorted(row[3] for row in rows(run(wav)[1])) == sorted(LABELS.names)
    assert len(rows(run(wav, "--threshold", 0.5)[1])) == 6


def test_damaged_thresholds_of_the_model_folder_are_one_line_before_any_work(
    tmp_path, wav, run, monkeypatch
):
    record = {"sha256": {"card.json": small_tagger.HASH}, "decoding": {"threshold": [3]}}
    how = dict(record=record, edge=0.0)
    monkeypatch.setattr(predict, "load", lambda path, **kw: small.tagger(**how, **kw))
    code, out, err = run(wav, "--out", tmp_path / "x.tsv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "decoding.threshold must have a number from 0 to 1 for each of 4 classes, got [3]" in err
    assert not (tmp_path / "x.tsv").exists()
    assert len(rows(run(wav, "--threshold", 0.5, "--median", 0.1)[1])) == 6


# --------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["audacity", "raven"])
def test_tracks_hold_the_events_and_not_the_windows(tmp_path, wav, run, kind):
    code, out, err = run(wav, f"--{kind}", tmp_path / "out", "--median", 0.1)
    (path,) = (tmp_path / "out").iterdir()
    assert (code, out, err) == (0, f"{path}  6 labels\n", "")
    read = strong.read(path)
    assert [(r.onset_s, r.offset_s, r.label) for r in read[:2]] == [(*t, "Rain") for t in RAIN]
    if kind == "raven":
        score = path.read_text().splitlines()[1].split("\t")[8]
        assert float(score) == pytest.approx(expected(WAVE, edge=0.0)[10:32, 0].mean(), abs=1e-5)


def test_frames_are_written_for_sed_scores_eval(tmp_path, wav, run):
    folder = tmp_path / "frames"
    code, out, _ = run(wav, "--frames", folder)
    assert (code, out) == (0, f"{folder}/a b.tsv  94 frames\n")
    edges, names, scores = frame_scores.read_tsv(folder / "a b.tsv")
    assert tuple(names) == LABELS.names
    np.testing.assert_allclose(edges, np.arange(95) / 10)
    np.testing.assert_allclose(scores, expected(WAVE, edge=0.0), atol=1e-5)
    run(wav, "--frames", tmp_path / "some", "--classes", "Dog;Rain")
    _, names, some = frame_scores.read_tsv(tmp_path / "some" / "a b.tsv")
    assert names == ["Rain", "Dog"]
    np.testing.assert_array_equal(some, scores[:, [0, 2]])


def test_a_list_and_files_are_written_together(tmp_path, wav, run):
    out = tmp_path / "list.json"
    words = ["--json", "--out", out, "--audacity", tmp_path / "t", "--frames", tmp_path / "t"]
    code, printed, _ = run(wav, *words, "--median", 0.1)
    assert (code, printed) == (0, "")
    assert len(json.loads(out.read_text())["events"]) == 6
    assert sorted(os.listdir(tmp_path / "t")) == ["a b.tsv", "a b.txt"]


def test_a_damaged_file_is_named_and_the_rest_is_done(tmp_path, wav, run):
    (tmp_path / "b.wav").write_text("no sound")
    code, out, err = run(tmp_path, "--median", 0.1)
    assert code == 1
    assert len(rows(out)) == 6
    assert "b.wav" in err
    assert "1 of 2 files could not be tagged" in err


def test_tags_without_events_are_as_before_and_cost_no_frames(wav, run, monkeypatch):
    asked = []

    def load(path, **kw):
        asked.append(kw)
        return small.tagger(**kw)

    monkeypatch.setattr(predict, "load", load)
    out = run(wav, "--json", events=False)[1]
    assert asked[0]["frames"] is False
    p = {t["label"]: t["probability"] for t in json.loads(out)["tags"]}
    clip = dict(small.tagger()(wav).top())
    assert p == pytest.approx(clip, abs=1e-5)


# ---------------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("WAV --median 0.3", "--median is for events in time; add --events"),
        ("WAV --min-duration 1", "--min-duration is for events in time; add --events"),
        ("WAV --gap 0", "--gap is for events in time; add --events"),
        ("WAV --boxes", "--boxes is for events"),
        ("WAV --chunks", "--chunks is for events"),
        ("WAV --frames DIR/x", "--frames is for events"),
        ("WAV --picture DIR/x", "--picture is for events"),
        ("WAV --events --top 3", "--top does not fit --events"),
        ("WAV --events --per window", "--per does not fit --events"),
        ("WAV --events --windows", "--windows does not fit --events"),
        ("WAV --events --reduce mean", "--reduce does not fit --events"),
        ("WAV --events --overlap 0.5", "--overlap does not fit --events"),
        ("WAV --events --csv", "--csv does not fit --events: give --tsv or --json"),
        ("WAV --events --threshold 1.5", "--threshold must be a probability from 0 to 1, got 1.5"),
        ("WAV --events --threshold nan", "from 0 to 1, got nan"),
        ("WAV --events --median=-1", "--median must be seconds from 0 to 60, got -1"),
        ("WAV --events --median 61", "--median must be seconds from 0 to 60, got 61"),
        ("WAV --events --median nan", "got nan"),
        ("WAV --events --min-duration=-0.1", "--min-duration must be seconds, 0 or more, got -0.1"),
        ("WAV --events --gap inf", "--gap must be seconds, 0 or more, got inf"),
        ("WAV --events --boxes --median 1", "leave out --median"),
        ("WAV --events --classes Doge", "'Doge' is not a class of four"),
        ("WAV --events --frames=", "--frames must be the name of a folder, got an empty one"),
        ("WAV --events --picture=", "--picture must be the name of a folder, got an empty one"),
        ("WAV --events --frames WAV", "--frames WAV must be a folder"),
        ("WAV --events --frames DIR/old", "--frames: 1 of 1 files exist already, first"),
        ("WAV --events --audacity DIR/old", "--audacity: 1 of 1 files exist already, first"),
        ("WAV --events --picture DIR/old", "--picture: 1 of 1 files exist already, first"),
        ("WAV --events --picture DIR/old/a.png", "--picture: 1 of 1 files exist already, first"),
        ("WAV --events --picture DIR/no/a.png", "its folder does not exist; make it first"),
        ("WAV OLD --events --picture DIR/a.png", "is for one recording, got 2; give the name of a"),
        ("WAV --events --picture WAV.PNG/x", "must be a folder"),
        ("WAV --events --out DIR/x.png --picture DIR/x.png", "is also the output of"),
        ("WAV --events --out DIR/no/x.tsv", "does not exist; make it first"),
        ("WAV --events --overwrite", "--overwrite is for files"),
    ],
)
def test_wrong_use_is_one_line_and_nothing_is_written(tmp_path, run, words, match):
    places = {
        "WAV.PNG": write(tmp_path / "a.png.wav", WAVE[:99]),
        "WAV": write(tmp_path / "a.wav", WAVE),
        "OLD": write(tmp_path / "old" / "b.wav", WAVE[:99]),
        "DIR": tmp_path,
    }
    for name in ("a.txt", "a.tsv", "a.png"):
        (tmp_path / "old" / name).write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for key, place in places.items():
        words, match = words.replace(key, str(place)), match.replace(key, str(place))
    code, out, err = run(*words.split(" "), events=False)
    assert (code, out) == (2, "")
    assert match in err
    assert err.count("\n") == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_model_without_frames_is_one_line(tmp_path, wav, run, monkeypatch):
    monkeypatch.setattr(predict, "load", lambda path, **kw: small_tagger.tagger(**kw))
    out = tmp_path / "list.tsv"
    code, printed, err = run(wav, "--out", out)
    assert (code, printed, err.count("\n")) == (2, "", 1)
    assert "gives scores of clips and not of frames: it has no events in time" in err
    assert not out.exists()


def test_help_has_an_example_with_events(capsys):
    with pytest.raises(SystemExit):
        main(["tag", "--help"])
    out = capsys.readouterr().out
    assert events.EXAMPLE in out
    assert "the mean over its frames" in out
    assert RATE == 1000
