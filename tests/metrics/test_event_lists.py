"""Metrics of lists of events (`event_lists`), against sed_eval and sed_scores_eval."""

import numpy as np
import pytest

from asjax import decoding, events, metrics
from asjax.config import AsjaxError
from asjax.metrics.matching import largest_matching

SETTINGS = {  # sed_eval's names -> ours
    "collar200_pct20": {},
    "onset_only_50ms": {"onset_collar": 0.05, "offset_collar": None},
    "onset_only_200ms": {"offset_collar": None},
    "offset_only": {"onset_collar": None, "offset_collar": 0.25, "offset_rate": 0.5},
    "greedy_matching": {"matching": "greedy"},
}
NAMES = {"f_measure": "f1", "Nref": "n_ref", "Nsys": "n_sys"}


def same(answer, wanted):
    """Compare every number of sed_eval's nested dict to 1e-9; returns their number."""
    count = 0
    for key, value in wanted.items():
        if isinstance(value, dict):
            count += same(answer, value)
            continue
        value = float("nan") if value == "nan" else value
        np.testing.assert_allclose(answer[NAMES.get(key, key)], value, rtol=1e-9, atol=1e-9)
        count += 1
    return count


def lists_of(case, names):
    clips = list(case["reference"])
    return [
        [[(a, b, names.index(c)) for a, b, c in case[side].get(clip, [])] for clip in clips]
        for side in ("reference", "estimated")
    ]


def compare(answer, wanted, names):
    count = same(answer["micro"], wanted["overall"])
    count += same(answer["macro"], wanted["class_wise_average"])
    for c, name in enumerate(names):
        one = {key: value[c] for key, value in answer["per_class"].items()}
        count += same(one, wanted["class_wise"][name])
    return count


def test_every_number_of_sed_eval_is_met(golden):
    manifest, _ = golden("sed_events_lists")
    names, count = manifest["classes"], 0
    for case in manifest["cases"].values():
        reference, estimated = lists_of(case, names)
        given = {
            "reference": reference,
            "estimated": estimated,
            "num_classes": 4,
            "sed_eval": True,
        }
        for name, rules in SETTINGS.items():
            answer = metrics.event_f1(**given, **rules)
            count += compare(answer, case["event_based"][name], names)
        for name, rules in manifest["segment_settings"].items():
            answer = metrics.segment_f1(
                **given, durations_s=[10.0] * len(reference), segment_s=rules["time_resolution"]
            )
            count += compare(answer, case["segment_based"][name], names)
    assert count > 1000


def test_hears_onset_scores_are_met(golden):
    manifest, _ = golden("sed_onset_f_cases")
    names = manifest["labels"]
    for case in manifest["cases"].values():
        clips = list(case["reference"])
        reference, predicted = (
            [
                [(e["start"] / 1e3, e["end"] / 1e3, names.index(e["label"])) for e in side[clip]]
                for clip in clips
            ]
            for side in (case["reference"], case["predicted"])
        )
        given = {"reference": reference, "estimated": predicted, "label_set": None}
        given |= {"num_classes": len(names), "sed_eval": True}
        for name, rules in {
            "event_onset_200ms_fms": {"offset_collar": None},
            "event_onset_50ms_fms": {"onset_collar": 0.05, "offset_collar": None},
            "event_onset_offset_50ms_20perc_fms": {"onset_collar": 0.05, "offset_collar": 0.05},
        }.items():
            same(metrics.event_f1(**given, **rules)["micro"], case["scores"][name])
        durations = [
            max(b for _, b, _ in [*r, *p]) for r, p in zip(reference, predicted, strict=True)
        ]
        answer = metrics.segment_f1(**given, durations_s=durations)
        same(answer["micro"], case["scores"]["segment_1s_er"])


def test_lists_of_scores_give_the_numbers_of_sed_scores_eval(golden):
    manifest, arrays = golden("sed_events_scores")
    names, case = manifest["classes"], manifest["cases"]["s12"]
    clips, result = list(case["ground_truth"]), case["result"]
    reference = [
        [(a, b, names.index(c)) for a, b, c in case["ground_truth"][clip]] for clip in clips
    ]
    scores = [arrays[f"s12/{clip}"] / 1e4 for clip in clips]

    def detected(threshold):
        return [decoding.decode(s, threshold=threshold) for s in scores]

    half = {"reference": reference, "estimated": detected(0.5), "num_classes": 4}
    each = [manifest["settings"]["classwise_thresholds"][name] for name in names]
    durations = {"durations_s": [10.0] * len(clips)}
    segments = metrics.segment_f1(**half, **durations)
    collars = metrics.event_f1(**half)
    for name, answer in {
        "intersection_f_at_half": metrics.intersection_f1(**half),
        "intersection_f_at_classwise": metrics.intersection_f1(
            **{**half, "estimated": detected(each)}
        ),
        "intersection_f_dtc7": metrics.intersection_f1(**half, dtc=0.7, gtc=0.7),
        "collar_f_at_half": collars,
        "segment_f_at_half": segments,
    }.items():
        for ours, theirs in (("f1", "f"), ("precision", "precision"), ("recall", "recall")):
            wanted = result[name][theirs]
            per_class = [wanted[label] for label in names]
            np.testing.assert_allclose(answer["per_class"][ours], per_class, rtol=0, atol=1e-12)
            for mean in ("macro", "micro"):
                assert answer[mean][ours] == pytest.approx(wanted[f"{mean}_average"], abs=1e-12)
    for name, answer in {
        "segment_error_rate_at_half": segments,
        "collar_error_rate_at_half": collars,
    }.items():
        rates = ("error_rate", "insertion_rate", "deletion_rate")
        for key, wanted in zip(rates, result[name], strict=False):
            per_class = [wanted[label] for label in names]
            np.testing.assert_allclose(answer["per_class"][key], per_class, rtol=0, atol=1e-12)


def test_a_deviation_of_one_collar_counts_wherever_it_lies():
    """In floats 3.2 - 3.0 > 0.2 and 1.2 - 1.0 < 0.2; our code rounds to microseconds."""
    for start in np.arange(0, 9, 0.04):
        reference, estimated = [[(start, start + 1, 0)]], [[(start + 0.2, start + 0.8, 0)]]
        given = {"reference": reference, "estimated": estimated, "num_classes": 1}
        assert metrics.event_f1(**given)["micro"]["f1"] == 1
        late = {**given, "estimated": [[(start + 0.20001, start + 0.8, 0)]]}
        assert metrics.event_f1(**late)["micro"]["f1"] == 0
    for start, counts in ((1.0, 1), (3.0, 0)):
        reference, estimated = [[(start, 4.0, 0)]], [[(start + 0.2, 4.0, 0)]]
        given = {"reference": reference, "estimated": estimated, "num_classes": 1}
        assert metrics.event_f1(**given, sed_eval=True)["micro"]["f1"] == counts


def test_silence_is_worth_nothing_unless_sed_eval_is_asked():
    given = {"reference": [[(0, 1, 0)], []], "estimated": [[], [(0, 1, 1)]], "num_classes": 3}
    answer = metrics.event_f1(**given)
    np.testing.assert_array_equal(answer["per_class"]["f1"], [0, np.nan, np.nan])
    np.testing.assert_array_equal(answer["per_class"]["precision"], [0, 0, np.nan])
    np.testing.assert_array_equal(answer["per_class"]["error_rate"], [1, np.nan, np.nan])
    assert answer["macro"]["f1"] == 0
    assert np.isnan(metrics.event_f1(**given, sed_eval=True)["per_class"]["f1"][0])
    nothing = metrics.event_f1(reference=[[]], estimated=[[]], num_classes=1)
    assert np.isnan(nothing["micro"]["f1"])


def test_segments_on_a_boundary_do_not_spill():
    reference = [[(0.0, 0.3, 0)]]
    estimated = [[(0.1 + 0.2, 0.6, 0)]]  # begins 5e-17 beyond the boundary of segment 3
    given = {"reference": reference, "estimated": estimated, "num_classes": 1}
    answer = metrics.segment_f1(**given, durations_s=[0.7], segment_s=0.1)
    assert answer["per_class"]["n_ref"].tolist() == [3]
    assert answer["per_class"]["n_sys"].tolist() == [3]
    assert answer["micro"]["f1"] == 0
    beyond = metrics.segment_f1(**given, durations_s=[0.25], segment_s=0.1)
    assert beyond["per_class"]["n_ref"].tolist() == [3]
    assert beyond["per_class"]["n_sys"].tolist() == [0]


def test_the_matching_is_as_large_as_any():
    rng = np.random.default_rng(0)
    for _ in range(200):
        lefts, rights = rng.integers(1, 6, 2)
        edges = rng.random((lefts, rights)) < 0.5
        pairs = largest_matching({i: np.flatnonzero(e).tolist() for i, e in enumerate(edges)})
        assert all(edges[i, j] for i, j in pairs.items())
        assert len(set(pairs.values())) == len(pairs)
        best = 0
        for choice in np.ndindex(*(rights + 1,) * int(lefts)):  # `rights` means not paired
            used = [(i, j) for i, j in enumerate(choice) if j < rights]
            if len({j for _, j in used}) == len(used) and all(edges[i, j] for i, j in used):
                best = max(best, len(used))
        assert len(pairs) == best


def test_intersections_share_the_counts_of_psds():
    """At one threshold, lists and scores must give the same counts."""
    rng = np.random.default_rng(2)
    scores = rng.standard_normal((20, 60, 3))
    reference = [
        [
            (float(a), float(a) + 0.5, int(c))
            for c in range(3)
            for a in np.flatnonzero(rng.random(3) < 0.4) * 0.7
        ]
        for _ in range(20)
    ]
    reference[0] = [(0.0, 2.0, c) for c in range(3)]
    best = metrics.best_f1(
        by="intersection", scores=scores, events=reference, durations_s=[2.4] * 20
    )
    estimated = [decoding.decode(s, threshold=best["threshold"]) for s in scores]
    answer = metrics.intersection_f1(reference=reference, estimated=estimated, num_classes=3)
    np.testing.assert_array_equal(answer["per_class"]["f1"], best["f1"])
    np.testing.assert_array_equal(answer["per_class"]["n_false"], best["n_false"])


def test_faults_are_told():
    given = {"reference": [[(0, 1, 0)]], "estimated": [[(0, 1, 0)]]}
    with pytest.raises(AsjaxError, match="need num_classes or label_set"):
        metrics.event_f1(**given)
    with pytest.raises(AsjaxError, match="same clips, got 1 and 2"):
        metrics.event_f1(reference=[[]], estimated=[[], []], num_classes=1)
    with pytest.raises(AsjaxError, match="classes of events must be below 2, got 2"):
        metrics.event_f1(reference=[[(0, 1, 2)]], estimated=[[]], num_classes=2)
    with pytest.raises(AsjaxError, match="must not both be None"):
        metrics.event_f1(**given, num_classes=1, onset_collar=None, offset_collar=None)
    with pytest.raises(AsjaxError, match="optimal or greedy"):
        metrics.event_f1(**given, num_classes=1, matching="best")
    with pytest.raises(AsjaxError, match="durations_s must be 1 seconds"):
        metrics.segment_f1(**given, num_classes=1, durations_s=[])
    bad = [events.repair(np.array([(2, 1, 0)], events.EVENT))[0]]
    assert metrics.event_f1(reference=bad, estimated=[[]], num_classes=1)["per_class"]["n_ref"] == 0
