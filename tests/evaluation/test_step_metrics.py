"""Metrics of `eval.metric` that are calls; the validation metric of DESED (weak_strong)."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import f1_score
from small_detections import made

from asjax import decoding, metrics
from asjax.config import AsjaxError
from asjax.evaluation import step_metrics, tasks


def cfg(metric, objective="detection"):
    return {"objective": objective, "eval": {"metric": metric, "median_s": 0.36}, "data": {}}


def mixed():
    """Half of the clips have labels only; their targets and scores are random."""
    known = np.arange(24) % 2 > 0
    found, rng = made(annotated=known), np.random.default_rng(3)
    targets = rng.random((24, 4)) < 0.4
    targets[:, 3] = False  # a class without a clip
    logits = np.where(targets, 1, -1) + rng.normal(0, 1.5, (24, 4))
    return replace(found, logits=logits.astype(np.float32), targets=targets.astype(np.uint8)), known


def test_the_metric_of_desed_is_the_mean_of_two_f1():
    found, known = mixed()
    own = step_metrics.of(cfg("weak_strong_f1"))
    values = own.trace(found)
    weak = f1_score(found.targets[~known], found.logits[~known] > 0, average=None)[:3].mean()
    assert values["weak_f1"] == pytest.approx(weak)
    lists, truth = [], []
    for i in np.flatnonzero(known):
        scores = found.frames[i, : found.lengths()[i]].astype(np.float64)
        how = dict(median=4, frame_rate=10.0, duration_s=found.durations_s[i])
        lists.append(decoding.decode(1 / (1 + np.exp(-scores)), threshold=0.5, **how))
        truth.append(found.events[i])
    by_events = metrics.intersection_f1(reference=truth, estimated=lists, num_classes=4)
    assert values["intersection_f1"] == pytest.approx(by_events["macro"]["f1"])
    assert values["weak_strong_f1"] == pytest.approx((weak + by_events["macro"]["f1"]) / 2)
    only = replace(found, events=[e if e is not None else [] for e in found.events])
    only = replace(only, events=made().events)
    assert own.numbers(only).keys() == {"intersection_f1"}


def test_a_detector_logs_the_metric_and_chooses_by_it():
    found, _ = mixed()
    for metric, step in (
        ("weak_strong_f1", "weak_strong_f1"),
        ("onset_f1(min_s=0.1)", "onset_f1_50ms"),
    ):
        task = tasks.of(cfg(metric))
        source = SimpleNamespace(
            name="m", labels=sparse.csr_matrix(found.targets), events=found.events
        )
        assert task.metric(source) == step
        values = task.trace(found)
        assert 0 < values[step] <= 1
        assert 0 < values["psds1"] < 1
        lost = replace(found, losses=np.full(24, np.inf, np.float32))
        assert np.isnan(task.trace(lost)[step])


def test_the_metric_of_desed_needs_both_kinds_of_clips():
    for events, says in (([[], []], "have events"), ([None, None], "lack events")):
        source = SimpleNamespace(name="mine", labels=sparse.csr_matrix([[1]]), events=events)
        with pytest.raises(AsjaxError, match=f"all clips of mine {says}"):
            tasks.of(cfg("weak_strong_f1")).metric(source)


def test_metrics_that_are_no_calls():
    for metric in ("", "psds1", "mean_ap", None):
        assert step_metrics.of(cfg(metric)) is None
    assert step_metrics.of({}) is None
    with pytest.raises(AsjaxError, match="dtc must be 0 to 1, got 2"):
        step_metrics.of(cfg("weak_strong_f1(dtc=2)"))
    source = SimpleNamespace(name="m", labels=sparse.csr_matrix([[1]]), events=[[]])
    with pytest.raises(AsjaxError, match="does not fit objective tagging"):
        tasks.of(cfg("onset_f1(min_s=0.1)", "tagging")).metric(source)
    with pytest.raises(AsjaxError, match="does not fit objective detection"):
        tasks.of(cfg("psds1(x=1)")).metric(source)
