"""The source `hear` and random pieces of its recordings."""

import json

import numpy as np
import pytest
import soundfile

from asjax import build, labels
from asjax.config import AsjaxError
from asjax.data import hear

RATE, SECONDS = 16_000, 16.0
FILES = {"train": 2, "valid": 1, "test": 1}
# HEAR allows an event without length; it is dropped here, and a warning counts it
pytestmark = pytest.mark.filterwarnings("ignore:.*repaired for frames")


@pytest.fixture
def cases(golden):
    return golden("sed_hear_labels")[0]["cases"]


@pytest.fixture
def task(tmp_path, cases):
    """Recordings of 16 s whose sample n has the value n / 2^20, with the reference's events."""
    folder = tmp_path / "tasks" / "dcase2016_task2-made"
    names = sorted({e["label"] for case in cases for e in case["events"]})
    number = 0
    for split, count in FILES.items():
        (folder / "16000" / split).mkdir(parents=True)
        table = {}
        for i in range(count):
            ramp = np.arange(round(SECONDS * RATE)) / 2**20
            soundfile.write(folder / "16000" / split / f"{i}.wav", ramp, RATE, subtype="FLOAT")
            table[f"{i}.wav"] = cases[number % len(cases)]["events"]
            number += 1
        (folder / f"{split}.json").write_text(json.dumps(table))
    rows = "".join(f"{i},{name}\n" for i, name in enumerate(names))
    (folder / "labelvocabulary.csv").write_text(f"idx,label\n{rows}")
    return folder


def opened(task, **fields):
    return build.source(dict(name="hear", path=str(task), **fields), hear.own_labels(task))


def wanted(case, names):
    """The reference's frames, without those of events that have no length."""
    whole = np.zeros((400, len(names)), bool)
    lengthless = {e["label"] for e in case["events"] if e["start"] == e["end"]}
    for name, frames in case["frames"].items():
        if name not in lengthless:
            whole[frames, names.index(name)] = True
    return whole


def batches(source, train, clip_s, ops, count=1):
    made = dict(num_classes=source.labels.shape[1], sample_rate=RATE, clip_s=clip_s)
    with build.pipeline(
        source, train=train, batch_size=len(source), ops=ops, **made
    ).iterate() as b:
        return [next(b) for _ in range(count)]


def test_frames_of_the_pieces_are_the_references_frames(task, cases):
    source = opened(task, piece_s=4.0)
    assert len(source) == 4 * 4
    assert set(source.group) == {"train/0.wav", "train/1.wav", "valid/0.wav", "test/0.wav"}
    [batch] = batches(source, False, 4.0, "random_piece | decode | crop | strong(rule='centre')")
    names = list(hear.own_labels(task).ids)
    order = ["test/0.wav", "train/0.wav", "train/1.wav", "valid/0.wav"]  # splits by name
    case_of = {"train/0.wav": 0, "train/1.wav": 1, "valid/0.wav": 2, "test/0.wav": 0}
    for i, name in enumerate(order):
        frames = batch["frame_target"][4 * i : 4 * i + 4].reshape(400, -1)
        np.testing.assert_array_equal(frames > 0, wanted(cases[case_of[name]], names))


def test_random_pieces_are_slices_of_their_recordings_on_the_grid_of_frames(task, cases):
    source = opened(task, splits=["train"], piece_s=2.0)
    ops = "random_piece(step_s=0.04) | decode | crop | strong(rule='centre')"
    made = batches(source, True, 2.0, ops, count=20)
    names, begins = list(hear.own_labels(task).ids), []
    for batch in made:
        for i, clip in enumerate(batch["id"]):
            first = round(float(batch["wave"][i][0]) * 2**20)
            np.testing.assert_allclose(
                batch["wave"][i] * 2**20, first + np.arange(2 * RATE), atol=0.51
            )
            frame, rest = divmod(first, RATE // 25)
            assert rest == 0
            whole = wanted(cases[int(clip[len("train/")])], names)
            np.testing.assert_array_equal(batch["frame_target"][i] > 0, whole[frame : frame + 50])
            begins.append(frame)
    assert len(begins) == 20 * 16  # as many pieces in an epoch as there are consecutive ones
    assert 0 <= min(begins) < 30
    assert 320 < max(begins) <= 350
    assert len(set(begins)) > 150
    again = batches(source, True, 2.0, ops)[0]
    np.testing.assert_array_equal(again["wave"], made[0]["wave"])


def test_the_reader_takes_the_folder_above_and_names_the_classes_after_the_task(task):
    above = task.parent.parent
    assert hear.find(above) == hear.find(task) == task
    own = hear.own_labels(above)
    assert own.name == "dcase2016_task2-made"
    cfg = {"labels": {"name": "own"}, "data": {"train": dict(name="hear", path=str(task))}}
    assert build.label_set(cfg) == own
    assert opened(above).hash == opened(task).hash


def test_lists_with_numbers_as_labels(task):
    table = {f"{i}.wav": [{"label": 60 + i, "start": 0, "end": 1000}] for i in range(2)}
    (task / "train.json").write_text(json.dumps(table))
    for split in ("valid", "test"):
        (task / f"{split}.json").write_text('{"0.wav": []}')
    (task / "labelvocabulary.csv").write_text("idx,midi_pitch\n0,60\n1,61\n")
    source = opened(task, splits=["train"], piece_s=16.0)
    assert [e.tolist() for e in source.events] == [[(0.0, 1.0, 0)], [(0.0, 1.0, 1)]]


def test_overlaps_are_kept_for_the_whole_recording(task):
    marks = [{"label": "phone", "start": a, "end": a + 900} for a in (0, 500)]
    (task / "valid.json").write_text(json.dumps({"0.wav": marks}))
    with pytest.warns(UserWarning, match="overlaps of one class"):
        source = opened(task, splits=["valid"], piece_s=16.0)
    assert [e.tolist()[:2] for e in source.events] == [[(0.0, 1.4, source.events[0]["class"][0])]]
    seconds, listed = source.recordings["valid/0.wav"]
    assert seconds == SECONDS
    assert listed[["onset_s", "offset_s"]].tolist() == [(0.0, 0.9), (0.5, 1.4)]


def test_a_file_that_cannot_be_decoded_is_masked_in_an_evaluation(task):
    source = opened(task, splits=["train"], piece_s=8.0)
    path = task / "16000" / "train" / "1.wav"
    path.write_bytes(b"RIFF" + path.read_bytes()[4:100])
    ops = "random_piece | decode | crop | strong(rule='centre')"
    made = dict(num_classes=source.labels.shape[1], sample_rate=RATE, clip_s=8.0, ops=ops)
    with build.pipeline(source, train=False, batch_size=4, max_bad=1.0, **made).iterate() as b:
        batch = next(b)
    assert batch["mask"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: (t / "16000").rename(t / "48000"), "no audio at 16000 Hz.*: 48000"),
        (lambda t: (t / "valid.json").unlink(), "no list valid.json"),
        (lambda t: (t / "valid.json").write_text("[1]"), "must be an object of files"),
        (lambda t: (t / "valid.json").write_text('{"0.wav": [{"label": "x"'), "cannot be read"),
        (lambda t: (t / "valid.json").write_text('{"../0.wav": []}'), "must be a file name"),
        (lambda t: (t / "valid.json").write_text('{"9.wav": []}'), "1 of 1 .*: 9.wav; unpack"),
        (lambda t: (t / "labelvocabulary.csv").write_text("idx,label\n1,a\n"), "idx 0, 1, 2"),
        (lambda t: (t / "labelvocabulary.csv").unlink(), "has no labelvocabulary.csv"),
        (lambda t: (t / "16000" / "test" / "0.wav").write_bytes(b"x"), "0.wav"),
    ],
)
def test_damaged_tasks_are_refused_in_one_line(task, change, message):
    change(task)
    with pytest.raises(AsjaxError, match=message) as error:
        opened(task)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"label": "dog", "start": 0, "end": 1}, "label 'dog' is no class of .*labels.name='own'"),
        ({"label": "phone", "start": 2, "end": 1}, "0 <= start <= end"),
        ({"label": "phone", "start": -1, "end": 1}, "0 <= start <= end"),
        ({"label": "phone", "start": None, "end": 1}, "0 <= start <= end"),
        ({"label": "phone", "start": True, "end": 1}, "0 <= start <= end"),
        ({"label": "phone", "start": 0, "end": float("nan")}, "0 <= start <= end"),
        ({"start": 0, "end": 1}, "must have label, start and end"),
        ("phone", "must have label, start and end"),
    ],
)
def test_damaged_events_are_refused_in_one_line(task, event, message):
    (task / "valid.json").write_text(json.dumps({"0.wav": [event]}))
    with pytest.raises(AsjaxError, match=message) as error:
        opened(task)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(piece_s=0), "piece_s must be above 0"),
        (dict(piece_s=True), "piece_s must be above 0"),
        (dict(splits=["fold00"]), "fold00"),
        (dict(rate=44100), "no audio at 44100 Hz"),
    ],
)
def test_wrong_fields_are_refused(task, fields, message):
    with pytest.raises(AsjaxError, match=message):
        opened(task, **fields)


def test_an_archive_and_a_missing_folder_are_refused(tmp_path):
    archive = tmp_path / "task.tar.gz"
    archive.write_bytes(b"x")
    for path, message in (
        (archive, "unpacked first: tar -xf"),
        (tmp_path / "no", "does not exist"),
    ):
        with pytest.raises(AsjaxError, match=message):
            hear.own_labels(path)


def test_random_pieces_need_recordings():
    source = build.source(
        dict(name="soundscapes", clips=2, clip_s=2.0, splits=["fold1"]), labels.get("esc10")
    )
    with pytest.raises(AsjaxError, match="random_piece needs pieces of recordings"):
        batches(source, True, 2.0, "random_piece | decode | crop | strong")
    with pytest.raises(AsjaxError, match="step_s must be above 0"):
        batches(source, True, 2.0, "random_piece(step_s=0) | decode | crop | strong")
