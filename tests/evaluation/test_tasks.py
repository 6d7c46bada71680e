"""What the training program asks a task for: the metric, the outputs, the files."""

import dataclasses
from types import SimpleNamespace

import pytest
from scipy import sparse
from small_detections import classes, made

from asjax.config import AsjaxError
from asjax.evaluation import tasks


def config(objective, metric=""):
    return {"objective": objective, "eval": {"metric": metric}, "data": {}}


def source(rows, events=None):
    return SimpleNamespace(name="mine", labels=sparse.csr_matrix(rows), events=events)


MANY, ONE = [[1, 1], [0, 1]], [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("objective", "asked", "clips", "metric"),
    [
        ("tagging", "", source(MANY), "mean_ap"),
        ("tagging", "d_prime", source(MANY), "d_prime"),
        ({"name": "classify"}, "", source(ONE), "accuracy"),
        ("detection", "", source(MANY, events=[[], []]), "psds1"),
        ("detection(weak_weight=0.5)", "mean_ap", source(MANY, events=[[], []]), "mean_ap"),
        ("distillation", "", source(MANY), "mean_ap"),
        ("distillation(base='detection')", "", source(MANY, events=[[], []]), "psds1"),
    ],
)
def test_the_metric_that_chooses_the_step(objective, asked, clips, metric):
    task = tasks.of(config(objective, asked))
    assert task.metric(clips) == metric
    assert ("frame_logits" in task.outputs) == tasks.is_detection(config(objective))


@pytest.mark.parametrize(
    ("objective", "asked", "clips", "message"),
    [
        ("tagging", "psds1", source(MANY), "eval.metric='psds1' does not fit objective tagging"),
        ("detection", "d_prime", source(MANY, []), "take one of psds1, mean_ap"),
        ("tagging", "accuracy", source(MANY), "exactly one label"),
        ("detection", "", source(MANY), "mine has only labels; asjax prepare strong"),
        ("distillation", "psds1", source(MANY), "does not fit objective distillation"),
        (
            {"name": "distillation", "base": "detection"},
            "",
            source(MANY),
            "objective distillation needs",
        ),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(objective, asked, clips, message):
    with pytest.raises(AsjaxError, match=message):
        tasks.of(config(objective, asked)).metric(clips)


def test_a_detector_leaves_the_files_of_tags_and_of_events(tmp_path):
    found, label_set = made(), classes()
    card, text, tables = tasks.of(config("detection")).write(
        found, tmp_path, label_set=label_set, extra={}, n_bootstrap=0, record={"run": "r"}
    )
    for name in ("scores.npz", "metrics.json", "report.html", "events.json", "events.html"):
        assert (tmp_path / name).stat().st_size > 100
    assert 0 < card["events"]["psds1"] < 1
    assert len(card["decoding"]["threshold"]) == 4
    assert "PSDS1" in text
    assert "events.json" in tables
    assert "per_class.csv" in tables


def test_clips_that_were_scored_in_part_are_counted_and_named(tmp_path):
    found, label_set = made(), classes()
    whole_s = found.durations_s.copy()
    about = dict(label_set=label_set, extra={}, n_bootstrap=0, record={"run": "r"})
    task = tasks.of({**config("detection"), "data": {"clip_s": 5.0}})
    _, text, _ = task.write(dataclasses.replace(found, whole_s=whole_s), tmp_path, **about)
    assert "only their beginning" not in text
    whole_s[[3, 8]] += 1.0
    _, text, _ = task.write(dataclasses.replace(found, whole_s=whole_s), tmp_path, **about)
    assert "clips longer than 5 s: 2, first clip 3; only their beginning was scored" in text
