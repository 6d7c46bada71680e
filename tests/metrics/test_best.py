"""Best thresholds, segments and tuning against sed_scores_eval and hand-computed values."""

import numpy as np
import pytest

from asjax import decoding, metrics
from asjax.config import AsjaxError

CLOSE = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(scope="module")
def case(golden):
    manifest, arrays = golden("sed_events_scores")
    names, case = manifest["classes"], manifest["cases"]["s12"]
    clips = list(case["ground_truth"])
    given = {
        "scores": np.stack([arrays[f"s12/{clip}"] for clip in clips]) / 1e4,
        "events": [
            [(a, b, names.index(c)) for a, b, c in case["ground_truth"][clip]] for clip in clips
        ],
        "durations_s": [10.0] * len(clips),
    }
    return given, names, case["result"]


@pytest.mark.parametrize(
    ("key", "rules"),
    [
        ("intersection_best", {"by": "intersection"}),
        ("intersection_best_min_precision_half", {"by": "intersection", "min_precision": 0.5}),
        ("collar_best", {"by": "event"}),
        ("segment_best", {"by": "segment"}),
    ],
)
def test_best_thresholds_are_those_of_sed_scores_eval(case, key, rules):
    given, names, result = case
    answer, wanted = metrics.best_f1(**given, **rules), result[key]
    for ours, theirs in (("f1", "f"), ("precision", "precision"), ("recall", "recall")):
        per_class = [wanted[theirs][name] for name in names]
        np.testing.assert_allclose(answer[ours], per_class, **CLOSE)
        for mean in ("macro", "micro"):
            np.testing.assert_allclose(
                answer[mean][ours], wanted[theirs][f"{mean}_average"], **CLOSE
            )
    thresholds = [wanted["threshold"][name] for name in names]
    np.testing.assert_allclose(answer["threshold"], thresholds, **CLOSE)
    for ours, theirs in (("n_true", "tps"), ("n_false", "fps"), ("n_ref", "n_ref")):
        assert answer[ours].tolist() == [wanted["counts"][name][theirs] for name in names]


def test_segments_are_ranked_as_sed_scores_eval_ranks_them(case, golden):
    given, names, result = case
    answer = metrics.segment_ranking(**given)
    for key, ours in (("segment_average_precision", "ap"), ("segment_auroc", "auroc")):
        per_class = [result[key][name] for name in names]
        np.testing.assert_allclose(answer[f"per_class_{ours}"], per_class, **CLOSE)
        np.testing.assert_allclose(answer[f"mean_{ours}"], result[key]["mean"], **CLOSE)
    manifest, _ = golden("sed_psds_cases")
    for one in manifest["cases"].values():
        names, clips = one["classes"], list(one["durations"])
        answer = metrics.segment_ranking(
            scores=[np.array(one["scores"][clip]) for clip in clips],
            events=[
                [(a, b, names.index(c)) for a, b, c in one["ground_truth"][clip]] for clip in clips
            ],
            durations_s=[one["durations"][clip] for clip in clips],
            frame_rate=1 / one["hop"],
        )
        wanted = one["result"]["segment_pauroc"]["per_class"]
        wanted = [np.nan if wanted[name] is None else wanted[name] for name in names]
        np.testing.assert_allclose(answer["per_class_pauroc"], wanted, **CLOSE)


@pytest.mark.parametrize("by", ["intersection", "event", "segment"])
def test_the_best_threshold_is_better_than_every_other(by):
    """Each candidate is decoded to lists, and other code measures these."""
    rng = np.random.default_rng(4)
    scores = np.round(rng.standard_normal((6, 40, 2)), 1).astype(np.float32)
    truth = [[(0.1 + 0.3 * k, 0.3 + 0.3 * k, k % 2) for k in range(4)] for _ in range(6)]
    for clip, events in zip(scores, truth, strict=True):
        for onset, offset, label in events:
            clip[int(onset * 25) : int(offset * 25) + 1, label] += 1
    given = {"scores": scores, "events": truth, "durations_s": [1.6] * 6}
    best = metrics.best_f1(by=by, **given)
    measure = {
        "intersection": metrics.intersection_f1,
        "event": metrics.event_f1,
        "segment": lambda **k: metrics.segment_f1(**k, durations_s=[1.6] * 6),
    }[by]
    answer = []
    for threshold in np.arange(-3.05, 4, 0.1):
        lists = [decoding.decode(s, threshold=threshold) for s in scores]
        answer.append(measure(reference=truth, estimated=lists, num_classes=2)["per_class"]["f1"])
    np.testing.assert_allclose(best["f1"], np.nanmax(answer, axis=0), **CLOSE)
    lists = [decoding.decode(s, threshold=best["threshold"]) for s in scores]
    again = measure(reference=truth, estimated=lists, num_classes=2)
    np.testing.assert_allclose(again["per_class"]["f1"], best["f1"], **CLOSE)


def test_detections_that_compete_for_an_event_count_once():
    """Two short detections within the collars of one event, and one near two events."""
    scores = np.zeros((1, 50, 1))
    scores[0, [10, 12, 30], 0] = [3.0, 2.0, 2.5]
    truth = [[(0.4, 0.5, 0), (1.16, 1.24, 0), (1.25, 1.3, 0)]]
    answer = metrics.best_f1(by="event", scores=scores, events=truth, durations_s=[2.0])
    assert (answer["n_true"].tolist(), answer["n_false"].tolist()) == ([2], [0])
    assert answer["threshold"].tolist() == [2.25]
    lists = [decoding.decode(scores[0], threshold=1.0)]
    all_three = metrics.event_f1(reference=truth, estimated=lists, num_classes=1)
    assert all_three["per_class"]["n_true"].tolist() == [2]


def test_first_of_equal_candidates_and_nan_last():
    values = [[0.5, np.nan, 0.1, np.nan], [0.5, 0.2, 0.3, np.nan], [0.4, 0.2, 0.3, np.nan]]
    assert metrics.first_best(values).tolist() == [0, 1, 1, 0]


def test_windows_are_chosen_per_class(case):
    given, _, _ = case
    windows = (1, 5, 9, 25)
    tables = [metrics.psds(**given, median=w)["per_class"] for w in windows]
    answer = metrics.tune_windows(windows=windows, **given)
    np.testing.assert_array_equal(answer["value"], np.max(tables, axis=0))
    again = metrics.psds(**given, median=answer["window"])
    np.testing.assert_array_equal(again["per_class"], answer["value"])
    by_event = metrics.tune_windows(windows=windows, by="event", **given)
    best = metrics.best_f1(by="event", **given, median=by_event["window"])
    np.testing.assert_array_equal(best["f1"], by_event["value"])
    np.testing.assert_array_equal(best["threshold"], by_event["threshold"])


def test_a_clip_is_measured_with_settings_tuned_without_it(case):
    given, _, _ = case
    answer = metrics.tuned_halves(windows=(1, 9, 25), seed=2, **given)
    second = answer["second"]
    assert second.sum() == 5
    assert not np.array_equal(second, metrics.halves(10, 3))
    half = np.flatnonzero(second)
    part = {key: [given[key][i] for i in half] for key in given}
    tuned = metrics.tune_windows(windows=(1, 9, 25), by="event", **part)
    np.testing.assert_array_equal(answer["median"][~second], np.tile(tuned["window"], (5, 1)))
    np.testing.assert_array_equal(answer["threshold"][~second], np.tile(tuned["threshold"], (5, 1)))
    changed = {**given, "scores": given["scores"].copy()}
    # Other scores of clip 0 must not change its own settings.
    changed["scores"][0] = np.random.default_rng(0).random((250, 4))
    other = metrics.tuned_halves(windows=(1, 9, 25), seed=2, **changed)
    np.testing.assert_array_equal(other["threshold"][0], answer["threshold"][0])
    honest = metrics.psds(**given, median=answer["median"])
    assert 0 < honest["macro"] < 1
    lists = [
        decoding.decode(s, threshold=t, median=m)
        for s, t, m in zip(given["scores"], answer["threshold"], answer["median"], strict=True)
    ]
    measured = metrics.event_f1(reference=given["events"], estimated=lists, num_classes=4)
    assert (
        measured["macro"]["f1"]
        <= metrics.tune_windows(windows=(1, 9, 25), by="event", **given)["value"].mean()
    )


def test_unknown_measures_are_told(case):
    given, _, _ = case
    with pytest.raises(AsjaxError, match="did you mean 'event'"):
        metrics.best_f1(by="events", **given)
    with pytest.raises(AsjaxError, match="two halves need two clips"):
        metrics.tuned_halves(windows=(1,), **{k: v[:1] for k, v in given.items()})
