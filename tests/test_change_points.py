"""Boxes between change points against numbers from the authors' package."""

import numpy as np
import pytest

from asjax import change_points as cp
from asjax import metrics
from asjax.config import AsjaxError

INF = float("inf")


@pytest.fixture(scope="module")
def cases(golden):
    manifest, _ = golden("sed_events_sebbs")
    truth, scores = golden("sed_events_scores")
    names, case = manifest["classes"], manifest["cases"]["s12"]["result"]
    clips = list(truth["cases"]["s12"]["ground_truth"])
    events = [
        [(a, b, names.index(c)) for a, b, c in truth["cases"]["s12"]["ground_truth"][clip]]
        for clip in clips
    ]
    return case, names, clips, [scores[f"s12/{clip}"] / 1e4 for clip in clips], events


def number(value):
    return INF if value == "inf" else float(value)


def settings(case):
    answer = case["settings"]
    return {
        "step_s": answer["step_filter_length"],
        "merge_abs": number(answer["merge_threshold_abs"]),
        "merge_rel": number(answer["merge_threshold_rel"]),
    }


@pytest.mark.parametrize("name", ["default", "f0.32_abs0.2", "f0.64_rel1.5"])
def test_boxes_scores_and_psds_are_those_of_the_package(cases, name):
    results, names, clips, scores, events = cases
    case = results[name]
    boxes = [cp.boxes(s, **settings(case)) for s in scores]
    for clip, answer in zip(clips, boxes, strict=True):
        for c, label in enumerate(names):
            if clip not in case["boxes"]:
                continue
            wanted = np.array([b[:2] + b[3:] for b in case["boxes"][clip] if b[2] == label])
            mine = answer[answer["class"] == c]
            got = np.stack([mine["onset_s"], mine["offset_s"], mine["score"]], axis=1)
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)
    assert sum(len(cp.above(b, 0.4)) for b in boxes) == case["detected_above_0.4"]
    durations = [10.0] * len(clips)
    answer = metrics.psds(boxes=boxes, events=events, durations_s=durations, num_classes=4)
    np.testing.assert_allclose(answer["macro"], case["psds1"]["value"], rtol=0, atol=1e-12)
    wanted = [case["psds1"]["per_class"][label] for label in names]
    np.testing.assert_allclose(answer["per_class"], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("by", "key"), [("psds", "tuned_psds1"), ("event", "tuned_collar_f")])
def test_tuned_settings_are_those_of_the_package(cases, by, key):
    results, names, clips, scores, events = cases
    answer = metrics.tune_boxes(scores=scores, events=events, durations_s=[10.0] * 10, by=by)
    for ours, theirs in (("step_s", "step"), ("merge_abs", "abs"), ("merge_rel", "rel")):
        wanted = [number(results[key][theirs][label]) for label in names]
        assert answer[ours].tolist() == wanted
    wanted = [results[key]["values"][label] for label in names]
    np.testing.assert_allclose(answer["value"], wanted, rtol=0, atol=1e-9)
    if by == "event":
        wanted = [results[key]["threshold"][label] for label in names]
        np.testing.assert_allclose(answer["threshold"], wanted, rtol=0, atol=1e-9)


def test_a_rectangle_is_one_box_with_its_own_edges():
    scores = np.zeros((200, 2))
    scores[50:90, 1] = 0.8
    answer = cp.boxes(scores, step_s=0.4)
    strong = answer[answer["score"] > 0.1]
    assert len(strong) == 1
    assert strong["class"][0] == 1
    np.testing.assert_allclose([strong["onset_s"][0], strong["offset_s"][0]], [2.0, 3.6])
    np.testing.assert_allclose(strong["score"], 0.8, rtol=1e-5)


def test_settings_per_class_are_those_of_each_class_alone():
    scores = np.random.default_rng(0).random((120, 3)) ** 3
    step, limit, ratio = [0.32, 0.6, 0.32], [0.2, INF, 0.3], [INF, 2.0, INF]
    answer = cp.boxes(scores, step_s=step, merge_abs=limit, merge_rel=ratio)
    for c in range(3):
        one = {"step_s": step[c], "merge_abs": limit[c], "merge_rel": ratio[c]}
        alone = cp.boxes(scores[:, [c]], **one)
        mine = answer[answer["class"] == c]
        for key in ("onset_s", "offset_s", "score"):
            np.testing.assert_array_equal(mine[key], alone[key])
        assert (mine["onset_s"][1:] >= mine["offset_s"][:-1]).all()
        assert (mine["offset_s"] <= 120 / 25).all()


def test_merging_more_leaves_fewer_boxes_and_inf_joins_all():
    scores = np.random.default_rng(1).random((250, 1))
    counts = [len(cp.boxes(scores, merge_abs=a, merge_rel=INF)) for a in (0.0, 0.3, 0.6, INF)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


def test_what_is_no_probability_is_refused():
    for bad in (np.full((5, 2), 1.5), np.full((5, 2), -0.1), np.full((5, 2), np.nan), np.zeros(5)):
        with pytest.raises(AsjaxError, match="boxes need probabilities"):
            cp.boxes(bad)
    with pytest.raises(AsjaxError, match="step_s must be above 0"):
        cp.boxes(np.zeros((5, 2)), step_s=0.0)
    assert not len(cp.boxes(np.zeros((0, 2))))
    assert not len(cp.boxes(np.zeros((50, 2))))
