"""Frame scores as sets: long recordings, ensembles, shared classes, and what training asks of them
(`detections`, `long_recordings`, `detection_sets`, `tasks`)."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import small_detections

from asjax import decoding, events, metrics
from asjax.config import AsjaxError
from asjax.evaluation import detection_sets, detections, long_recordings, tasks

RATE, SIZE, C = 10.0, 20, 4


class Recordings:
    """A source of recordings of different lengths; the score of a frame is a function of its
    time."""

    name, hash = "made", "h"

    def __init__(self, seconds):
        self.seconds = seconds
        self.ids = [f"r{i}" for i in range(len(seconds))]
        self.labels = scipy.sparse.csr_matrix(np.ones((len(seconds), C), np.int8))
        self.events = [events.as_events([(0.1, s + 5, i % C)]) for i, s in enumerate(seconds)]

    def __getitem__(self, i):
        return {"id": self.ids[i], "audio": i, "labels": np.arange(C), "events": self.events[i]}


def frames_at(i, start, count):
    """Scores of recording i from frame `start` on: whole numbers that float16 has."""
    return ((np.arange(start, start + count)[:, None] * 7 + np.arange(C) + i) % 64).astype(float)


def run(source):
    """The detections of a source, with the first SIZE frames of each clip; edges are wrong."""
    ids, scores, marks, whole = [], [], [], []
    for k in range(len(source.ids)):
        example = source[k]
        start = round(example.get("part", (0, 0))[0] * RATE)
        seconds = RECORDED[example["audio"]]
        part = frames_at(example["audio"], start, SIZE)
        if start > 0:
            part[: SIZE // 8] = 99  # a model knows less at the edges of a window
        if start + SIZE < int(decoding.frames_of(seconds, RATE)):
            part[-SIZE // 8 :] = 99
        ids.append(example["id"])
        scores.append(part)
        marks.append(example["events"])
        whole.append(seconds)
    scores = np.array(scores, np.float16)
    heard = np.minimum(whole, SIZE / RATE)
    inside = [None if m is None else events.cut(m, 0, s) for m, s in zip(marks, heard, strict=True)]
    return detections.Detections(
        ids, scores.max(1).astype(np.float32), np.ones((len(ids), C), np.uint8), scores, heard,
        inside, np.zeros(len(ids), np.float32), RATE, np.array(whole),
    )  # fmt: skip


RECORDED = (2.0, 5.23, 1.5, 2.01, 7.0)


def test_long_recordings_are_scored_whole():
    source, bad = Recordings(RECORDED), []
    first = run(source)
    assert long_recordings.is_long(first, 2.0).tolist() == [False, True, False, False, True]
    got = long_recordings.lengthened(first, source, run, 2.0, bad)
    assert got.ids == source.ids
    assert not bad
    assert got.frames.shape == (5, 70, C)
    for i, frames in ((1, 53), (4, 70)):
        np.testing.assert_array_equal(got.frames[i, :frames], frames_at(i, 0, frames))
        assert got.durations_s[i] == RECORDED[i]
        assert got.events[i].tolist() == [(0.1, RECORDED[i], i % C)]
    for i in (0, 2, 3):
        np.testing.assert_array_equal(got.frames[i, :SIZE], first.frames[i])
        assert (got.frames[i, SIZE:] == 0).all()
        assert got.durations_s[i] == first.durations_s[i]
    assert got.lengths().tolist() == [20, 53, 15, 20, 70]
    short = Recordings(RECORDED[:1])
    assert long_recordings.lengthened(run(short), short, run, 2.0, bad).frames.shape[1] == SIZE


def test_a_recording_with_a_window_that_cannot_be_read_is_left_out():
    source, bad = Recordings(RECORDED), []

    def partly(parts):
        found = run(parts)
        keep = [k for k, name in enumerate(found.ids) if name != "r1 from 2.000000 s"]
        rows = {f: getattr(found, f)[keep] for f in ("logits", "targets", "frames", "losses")}
        return dataclasses.replace(found, ids=[found.ids[k] for k in keep], **rows)

    got = long_recordings.lengthened(run(source), source, partly, 2.0, bad)
    assert got.ids == ["r0", "r2", "r3", "r4"]
    assert bad == [("r1", "a part of the recording cannot be read")]
    np.testing.assert_array_equal(got.frames[3], frames_at(4, 0, 70))


def test_scores_with_too_much_padding_are_refused(monkeypatch):
    monkeypatch.setattr(long_recordings, "MOST_BYTES", 1000)
    source = Recordings(RECORDED)
    with pytest.raises(AsjaxError, match="5 recordings of up to 7 s need"):
        long_recordings.lengthened(run(source), source, run, 2.0, [])


def test_an_average_puts_the_clips_in_order():
    first, second = small_detections.made(clips=70), small_detections.made(clips=70, seed=1)
    order = np.random.default_rng(0).permutation(70)
    mixed = dataclasses.replace(
        second,
        ids=[second.ids[i] for i in order],
        frames=second.frames[order],
        logits=second.logits[order],
    )
    got = detection_sets.averaged([first, mixed], "logits", ["a", "b"])
    want = (first.frames.astype(np.float64) + second.frames) / 2
    np.testing.assert_allclose(got.frames, want, atol=4e-3)
    np.testing.assert_allclose(got.logits, (first.logits + second.logits) / 2, atol=1e-6)
    assert got.events is first.events
    got = detection_sets.averaged([first, mixed], "probabilities", ["a", "b"])
    p = (
        1 / (1 + np.exp(-first.frames.astype(float)))
        + 1 / (1 + np.exp(-second.frames.astype(float)))
    ) / 2
    np.testing.assert_allclose(1 / (1 + np.exp(-got.frames.astype(float))), p, atol=1e-3)
    assert detection_sets.averaged([first], "logits", ["a"]) is first
    short = dataclasses.replace(first, ids=first.ids[:-1], frames=first.frames[:-1])
    with pytest.raises(AsjaxError, match="same clips: a has 70, b has 69"):
        detection_sets.averaged([first, short], "logits", ["a", "b"])
    other = small_detections.made(clips=70, frames=40)
    with pytest.raises(AsjaxError, match="frames and classes"):
        detection_sets.averaged([first, other], "logits", ["a", "b"])


def test_shared_classes_get_the_highest_of_the_models_scores():
    found = small_detections.made(clips=6)
    pairs = [(2, np.array([0, 3])), (0, np.array([1]))]  # data classes 2 and 0 of 5
    marks = [events.as_events([(0, 1, 2), (1, 2, 4), (2, 3, 0)])] * 5 + [None]
    targets = np.arange(30).reshape(6, 5)
    found = dataclasses.replace(found, events=marks, targets=targets)
    got = detection_sets.on_shared(found, pairs, 5)
    want = np.stack([found.frames[..., [0, 3]].max(-1), found.frames[..., 1]], axis=-1)
    np.testing.assert_array_equal(got.frames, want)
    assert got.events[0].tolist() == [(0, 1, 0), (2, 3, 1)]
    assert got.events[5] is None
    np.testing.assert_array_equal(got.targets, targets[:, [2, 0]])


def test_the_trace_is_the_plain_metric():
    found = small_detections.made()
    got = detections.trace(found)
    want = metrics.psds(**found.annotated(), median=4, **metrics.PSDS1)["macro"]
    assert got["psds1"] == want
    assert got["loss"] == 0
    tags = metrics.tagging(scores=found.logits, targets=found.targets)
    assert got["mean_ap"] == tags["mean_ap"]
    diverged = dataclasses.replace(found, logits=found.logits * np.nan)
    assert np.isnan(list(detections.trace(diverged).values())).all()


def test_tasks_and_their_metrics():
    spec = {"objective": {"name": "detection"}, "eval": {"metric": ""}}
    task = tasks.of(spec)
    assert isinstance(task, tasks.Events)
    assert task.outputs == ("logits", "frame_logits")
    marked = SimpleNamespace(events=[], name="x")
    assert task.metric(marked) == "psds1"
    with pytest.raises(AsjaxError, match="needs events in time"):
        task.metric(SimpleNamespace(events=None, name="x"))
    wrong = tasks.of({**spec, "eval": {"metric": "accuracy"}})
    with pytest.raises(AsjaxError, match="take one of psds1, mean_ap"):
        wrong.metric(marked)
    assert type(tasks.of({"objective": {"name": "tagging"}})) is tasks.Tags


def test_a_task_writes_events_and_tags(tmp_path):
    found = small_detections.made()
    task = tasks.of({"objective": "detection", "eval": {"metric": ""}})
    classes = small_detections.classes()
    card, text, tables = task.write(
        found, tmp_path, label_set=classes, extra={}, n_bootstrap=0, tuning=None
    )
    assert card["events"]["psds1"] == detections.trace(found)["psds1"]
    assert len(card["decoding"]["threshold"]) == 4
    assert "scores" in card
    assert "PSDS1" in text
    assert tables.startswith("events.json, per_class_events.csv")
    for name in ("events.html", "report.html", "scores.npz", "frames/about.json"):
        assert (tmp_path / name).is_file()
