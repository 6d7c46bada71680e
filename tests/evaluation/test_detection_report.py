"""The evaluation of events: files and numbers, against direct calls of the metrics in float64."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
import small_detections

from asjax import decoding, events, metrics
from asjax.config import AsjaxError
from asjax.evaluation import detection, detections, event_numbers, event_tuning
from asjax.store.frame_scores import FrameScores

CLASSES = small_detections.classes()
MEDIAN = 4  # 0.36 s at 10 frames a second


def given(found):
    """The keywords of `metrics.psds`, made here, in float64."""
    return {
        "scores": [np.asarray(s, np.float64) for s in found.frames],
        "events": found.events,
        "durations_s": found.durations_s,
        "frame_rate": 10.0,
        "lengths": np.ceil(np.round(found.durations_s * 10, 6)).astype(int),
    }


@pytest.fixture(scope="module")
def found():
    return small_detections.made()


@pytest.fixture(scope="module")
def summary(found, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    result = detection.evaluate(found, out, label_set=CLASSES, n_bootstrap=30)
    return result, out


def test_psds_is_that_of_float64_scores(found, summary):
    got = summary[0]["events"]
    for key, rules in (("psds1", metrics.PSDS1), ("psds2", metrics.PSDS2)):
        want = metrics.psds(**given(found), median=MEDIAN, **rules)
        assert got[key] == pytest.approx(want["macro"], abs=1e-12)
        assert got[f"{key}_penalised"] == pytest.approx(want["psds"], abs=1e-12)
        ends = metrics.psds_bootstrap(**given(found), median=MEDIAN, n=30, **rules)
        np.testing.assert_allclose(got["ci"][key], ends["macro"], atol=1e-12)
        np.testing.assert_allclose(got["ci"][f"{key}_penalised"], ends["psds"], atol=1e-12)
    assert got["n_clips"] == 24
    assert got["n_events"] == sum(map(len, found.events))
    assert got["hours"] == pytest.approx(found.durations_s.sum() / 3600, abs=1e-12)
    assert (got["n_classes"], got["left_out"]) == (3, ["sound 3"])


def naive_events(found, threshold, median):
    """Events frame by frame, with the median filter as a sorted window of mirrored scores."""
    out = []
    for scores, seconds in zip(found.frames, found.durations_s, strict=True):
        length, marks = math.ceil(round(seconds * 10, 6)), []
        for c in range(scores.shape[1]):
            x, k, start = [float(v) for v in scores[:length, c]], int(median[c]), None
            padded = x[::-1][-(k // 2) :] * (k > 1) + x + x[::-1][: k - 1 - k // 2]
            smooth = [sorted(padded[i : i + k])[k // 2] for i in range(length)]
            for i, value in enumerate([*smooth, -math.inf]):
                if value > threshold[c] and start is None:
                    start = i
                elif not value > threshold[c] and start is not None:
                    marks.append((start / 10, min(i / 10, seconds), c))
                    start = None
        out.append(events.as_events(marks))
    return out


def test_f1_at_a_half_is_that_of_naive_events(found, summary):
    lists = naive_events(found, [0.0] * 4, [MEDIAN] * 4)
    pair = {"reference": found.events, "estimated": lists, "num_classes": 4}
    got = summary[0]["events"]
    for mean in ("macro", "micro"):
        want = metrics.event_f1(**pair)[mean]["f1"]
        assert got[f"event_f1_{mean}_at_half"] == pytest.approx(want, abs=1e-12)
        want = metrics.segment_f1(**pair, durations_s=found.durations_s)[mean]["f1"]
        assert got[f"segment_f1_{mean}_at_half"] == pytest.approx(want, abs=1e-12)


def test_tuned_f1_uses_for_each_clip_what_was_tuned_on_the_other_half(found, summary):
    tried = [4, 1, 2, 6, 10, 20]  # the seconds of event_tuning.TRIED_S at 10 frames a second
    second = metrics.halves(24, 0)
    lists: list = [None] * 24
    for half in (second, ~second):
        part = given(found)
        keep = np.flatnonzero(half)
        for key in ("scores", "events", "durations_s", "lengths"):
            part[key] = [part[key][i] for i in keep]
        best = [metrics.best_f1(by="event", **part, median=k) for k in tried]
        threshold, median = [0.0] * 4, [MEDIAN] * 4
        for c in range(3):
            f1 = [b["f1"][c] for b in best]
            k = int(np.argmax(f1))
            if f1[k] > 0:
                threshold[c], median[c] = best[k]["threshold"][c], tried[k]
        made = naive_events(found, threshold, median)
        for i in np.flatnonzero(~half):
            lists[i] = made[i]
    want = metrics.event_f1(reference=found.events, estimated=lists, num_classes=4)
    got = summary[0]["events"]
    assert got["event_f1_macro"] == pytest.approx(want["macro"]["f1"], abs=1e-12)
    assert got["event_f1_micro"] == pytest.approx(want["micro"]["f1"], abs=1e-12)
    assert got["tuned_on"] == "other half"


def test_the_decoding_is_tuned_on_all_clips_and_gives_its_events_from_probabilities(found, summary):
    chosen = summary[0]["decoding"]
    best = metrics.tune_windows(windows=[4, 1, 2, 6, 10, 20], by="event", **given(found))
    assert chosen["median"] == best["window"].tolist()
    assert chosen["frame_rate"] == 10.0
    assert chosen["tuned_on"]["clips"] == 24
    assert chosen["threshold"][3] is None  # a class without an event
    want = 1 / (1 + np.exp(-best["threshold"][:3]))
    np.testing.assert_allclose(chosen["threshold"][:3], want, rtol=1e-12)
    lists = []  # as `asjax tag` makes events with these numbers
    limits = [0.5 if limit is None else limit for limit in chosen["threshold"]]
    for scores, seconds in zip(found.frames, found.durations_s, strict=True):
        p = 1 / (1 + np.exp(-np.asarray(scores, np.float64)))
        settings = {"threshold": limits, "median": np.array(chosen["median"])}
        lists.append(decoding.decode(p, **settings, frame_rate=10.0, duration_s=seconds))
    f1 = metrics.event_f1(reference=found.events, estimated=lists, num_classes=4)
    np.testing.assert_allclose(f1["per_class"]["f1"][:3], best["value"][:3], atol=1e-12)


def test_the_files(found, summary):
    result, out = summary
    text = (out / "events.json").read_text()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"not strict JSON: {name}"))
    assert strict["events"]["psds1"] == result["events"]["psds1"]
    assert strict["bootstrap"]["n"] == {"psds1": 30, "psds2": 30, "f1": 30}
    with (out / "per_class_events.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(CLASSES.names)
    want = metrics.psds(**given(found), median=MEDIAN, **metrics.PSDS1)["per_class"]
    np.testing.assert_allclose([float(r["psds1"]) for r in rows[:3]], want[:3], rtol=1e-5)
    assert rows[3]["psds1"] == rows[3]["event_f1"] == rows[3]["threshold"] == ""
    assert rows[3]["n_events"] == "0"
    stored = FrameScores(out / "frames", CLASSES, verify=True)
    np.testing.assert_array_equal(stored.scores[:], found.frames)
    assert stored.ids == found.ids
    assert all(np.array_equal(a, b) for a, b in zip(stored.events, found.events, strict=True))
    page = (out / "events.html").read_text()
    for word in ("PSDS1", "Worst clips", "sound 2", "other half"):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_evaluation_overwrites_its_own_files_only(found, tmp_path):
    detection.evaluate(found, tmp_path, label_set=CLASSES, n_bootstrap=0)
    again = detection.evaluate(found, tmp_path, label_set=CLASSES, n_bootstrap=0)
    assert again["events"]["ci"] == {}
    assert "interval" not in detection.table(again)
    other = tmp_path / "other"
    (other / "frames").mkdir(parents=True)
    (other / "frames" / "mine.txt").write_text("not asjax's")
    with pytest.raises(AsjaxError, match="frames"):
        detection.evaluate(found, other, label_set=CLASSES)
    assert [path.name for path in (other / "frames").iterdir()] == ["mine.txt"]


def test_other_clips_can_be_tuned_on(found, tmp_path):
    tuning = small_detections.made(seed=1)
    got = detection.evaluate(found, tmp_path, label_set=CLASSES, n_bootstrap=0, tuning=tuning)
    best = metrics.tune_windows(windows=[4, 1, 2, 6, 10, 20], by="event", **given(tuning))
    assert got["decoding"]["median"] == best["window"].tolist()
    threshold = np.where(best["value"] > 0, best["threshold"], 0.0)
    lists = naive_events(found, threshold, best["window"])
    want = metrics.event_f1(reference=found.events, estimated=lists, num_classes=4)
    assert got["events"]["event_f1_macro"] == pytest.approx(want["macro"]["f1"], abs=1e-12)
    assert got["events"]["tuned_on"] == "other clips"
    assert "tuned on the evaluation data" in detection.table(got)


def test_the_decoding_of_a_card_is_tried(found, summary, tmp_path):
    chosen = summary[0]["decoding"]
    got = detection.evaluate(found, tmp_path, label_set=CLASSES, n_bootstrap=0, stored=chosen)
    pair = [0.0 if p is None else math.log(p) - math.log1p(-p) for p in chosen["threshold"]]
    lists = naive_events(found, pair, chosen["median"])
    want = metrics.event_f1(reference=found.events, estimated=lists, num_classes=4)
    assert got["events"]["event_f1_macro_of_model"] == pytest.approx(want["macro"]["f1"], abs=1e-9)
    odd = [{"frame_rate": 25.0}, {"frame_rate": "x"}, {"median": [1]}, {"threshold": [2, 0, 0, 0]}]
    odd += [{"median": [0] * 4}, {"threshold": ["a"] * 4}, {"threshold": 0.5}, {"median": None}]
    for changed in (*({**chosen, **part} for part in odd), {}, "x", None, [1]):
        assert event_tuning.from_json(changed, 4, 10.0) is None
    ends = event_tuning.from_json({**chosen, "threshold": [0, 1, None, 0.5]}, 4, 10.0)
    assert ends.threshold.tolist() == [-math.inf, math.inf, 0.0, 0.0]


def test_clips_without_annotation_do_not_count(tmp_path):
    known = np.arange(24) % 4 > 0
    found = small_detections.made(annotated=known)
    got = detection.evaluate(found, tmp_path, label_set=CLASSES, n_bootstrap=0)
    assert got["events"]["n_clips"] == 18
    assert got["not_annotated"] == 6
    rows = np.flatnonzero(known)
    part = dataclasses.replace(
        found,
        ids=[found.ids[i] for i in rows],
        frames=found.frames[rows],
        durations_s=found.durations_s[rows],
        events=[found.events[i] for i in rows],
    )
    want = metrics.psds(**given(part), median=MEDIAN, **metrics.PSDS1)
    assert got["events"]["psds1"] == pytest.approx(want["macro"], abs=1e-12)
    assert "not counted: 6" in (tmp_path / "events.html").read_text()


def test_clips_without_any_event_give_no_number(tmp_path):
    found = small_detections.made(clips=3)
    nothing = [np.zeros(0, events.EVENT)] * 3
    found = dataclasses.replace(found, events=nothing)
    got = detection.evaluate(found, tmp_path, label_set=CLASSES)
    assert math.isnan(got["events"]["psds1"])
    assert got["decoding"] is None
    assert json.loads((tmp_path / "events.json").read_text())["events"]["psds1"] is None
    assert "no number is defined" in detection.table(got)
    assert "no number is defined" in (tmp_path / "events.html").read_text()
    with pytest.raises(AsjaxError, match="events in time"):
        detection.evaluate(
            dataclasses.replace(found, events=[None] * 3), tmp_path, label_set=CLASSES
        )


def test_one_clip_with_events_has_no_halves(tmp_path):
    found = small_detections.made(clips=2, seed=3)
    assert len(found.events[0])
    found = dataclasses.replace(found, events=[found.events[0], np.zeros(0, events.EVENT)])
    got = detection.evaluate(found, tmp_path, label_set=CLASSES, n_bootstrap=10)
    assert math.isnan(got["events"]["event_f1_macro"])
    assert got["events"]["event_f1_macro_at_half"] >= 0
    assert got["decoding"] is not None
    assert "no thresholds were tuned" in detection.table(got)


def test_a_diverged_model_is_an_error_of_one_line(found, tmp_path):
    broken = found.frames.copy()
    broken[3, 2, 1] = np.nan
    with pytest.raises(AsjaxError, match="'clip 3' are not finite"):
        detection.evaluate(
            dataclasses.replace(found, frames=broken), tmp_path, label_set=CLASSES, n_bootstrap=0
        )


def test_the_number_of_resamples():
    of = event_numbers.resamples
    assert of("psds1", 1000, 200, 10) == 1000
    assert of("psds2", 1000, 200, 10) == 200
    assert of("psds1", 1000, 16_935, 407) == 100
    assert of("psds2", 1000, 16_935, 407) == 0
    assert of("psds1", 20, 16_935, 407) == 20
    assert of("psds1", 1, 10, 10) == of("psds1", 0, 10, 10) == 0


def test_clips_without_events_are_left_out_if_asked(tmp_path):
    found = dataclasses.replace(small_detections.made(clips=30), only_with_events=True)
    empty = sum(len(marks) == 0 for marks in found.events)
    assert empty > 2
    classes = small_detections.classes()
    summary = detection.evaluate(found, tmp_path, label_set=classes, n_bootstrap=0)
    every = dataclasses.replace(found, only_with_events=False).annotated()
    wanted = metrics.psds(
        **every, only_with_events=True, median=found.median, num_classes=4, **metrics.PSDS1
    )
    assert summary["events"]["psds1"] == pytest.approx(wanted["macro"], abs=1e-12)
    assert summary["events"]["n_clips"] == 30 - empty
    assert summary["left_out_without_events"] == empty
    again, _ = detections.stored(tmp_path / "frames")
    assert again.only_with_events
    assert again.rows() == found.rows()
