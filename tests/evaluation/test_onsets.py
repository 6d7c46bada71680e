"""Onset F1: HEAR's post-processing and score, against naive code and sed_eval's numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
from small_detections import classes, made

from asjax import events, metrics
from asjax.config import AsjaxError
from asjax.evaluation import detection, onsets, step_metrics
from asjax.evaluation.onsets import Setting, onset_f1


def hears_events(logits, median_ms, min_ms, threshold, *, on_logits=False):
    """The events of HEAR's evaluation in float64: (onset_s, offset_s, class), frames of 40 ms."""
    scores = np.asarray(logits, np.float64)
    scores = scores if on_logits else 1 / (1 + np.exp(-scores))
    scores = scipy.ndimage.median_filter(scores, size=(round(median_ms / 40), 1))
    found = []
    for c in range(scores.shape[1]):
        run = []
        for i in [*np.flatnonzero(scores[:, c] > threshold).tolist(), None]:
            if run and i != run[-1] + 1:
                start, end = 40 * run[0] + 20, 40 * run[-1] + 20
                if end - start >= min_ms:
                    found.append((start / 1000, end / 1000, c))
                run = []
            run.append(i)
    return sorted(found)


def scores(seed=0, frames=300):
    rng = np.random.default_rng(seed)
    smooth = scipy.ndimage.uniform_filter1d(rng.normal(0, 6, (frames, 4)), 5, axis=0)
    smooth[::50] = 0.0  # exactly at the threshold
    return (smooth - 0.5).astype(np.float16)


@pytest.mark.parametrize("median_s", [0.0, 0.15, 0.25])
@pytest.mark.parametrize("min_s", [0.0, 0.05, 0.08, 0.125, 0.25])
@pytest.mark.parametrize("on", ["probabilities", "logits"])
def test_events_are_hears(median_s, min_s, on):
    found = replace(made(clips=3, frames=300, rate=25.0), durations_s=np.full(3, 12.0))
    found = replace(found, frames=np.stack([scores(seed) for seed in range(3)]))
    own = onset_f1(median_s=median_s, min_s=min_s, threshold=0.5, threshold_on=on)
    answer = own.events(found, own.settings[0])
    for mine, logits in zip(answer, found.frames, strict=True):
        wanted = hears_events(
            logits, max(40, median_s * 1e3), min_s * 1e3, 0.5, on_logits=on == "logits"
        )
        assert sorted(mine.tolist()) == wanted  # the same floats, because sed_eval does not round
    assert sum(map(len, answer)) > 20


def as_lists(side, names):
    return [
        events.as_events(
            [(e["start"] / 1e3, e["end"] / 1e3, names.index(e["label"])) for e in rows]
        )
        for rows in side.values()
    ]


def test_scores_of_lists_are_sed_evals(golden, monkeypatch):
    """The metric on the reference's lists, with overlaps, gives the reference's numbers."""
    manifest, _ = golden("sed_onset_f_cases")
    names = manifest["labels"]
    for case in manifest["cases"].values():
        reference = as_lists(case["reference"], names)
        predicted = as_lists(case["predicted"], names)
        found = replace(
            made(clips=len(reference), count=len(names)),
            events=[events.repair(marks)[0] for marks in reference],
            listed=reference,
        )
        monkeypatch.setattr(onsets.Onsets, "events", lambda *_, predicted=predicted: predicted)
        numbers = onset_f1(min_s=0.1).numbers(found)
        score = case["scores"]
        for key, theirs in (
            ("onset_f1_50ms", "event_onset_50ms_fms"),
            ("onset_f1_200ms", "event_onset_200ms_fms"),
        ):
            assert numbers[key] == pytest.approx(score[theirs]["f_measure"], abs=1e-12)
        wanted = score["segment_1s_er"]["error_rate"]
        assert numbers["segment_error_rate"] == pytest.approx(wanted, abs=1e-9)


def test_the_setting_is_chosen_on_other_clips_and_used_on_these():
    tuning, found = made(seed=1, rate=25.0, frames=125), made(seed=2, rate=25.0, frames=125)
    own = onset_f1(median_s=[0.04, 0.2, 0.6], min_s=[0.0, 0.2], threshold=[0.2, 0.5, 0.9])
    assert len(own.settings) == 18

    def f1(clips, setting):
        result = metrics.event_f1(
            reference=clips.events,
            estimated=own.events(clips, setting),
            num_classes=4,
            onset_collar=0.05,
            offset_collar=None,
            sed_eval=True,
        )
        return result["micro"]["f1"]

    values = [f1(tuning, setting) for setting in own.settings]
    best = own.settings[int(np.argmax(values))]
    assert len(set(values)) > 5
    assert own.chosen(tuning) == (best, max(values))
    numbers = own.numbers(found, tuning, n_bootstrap=50)
    assert numbers["onset_f1_50ms"] == pytest.approx(f1(found, best))
    about = numbers["onset_setting"]
    assert about["chosen_on"] == "other clips"
    assert about["tried"] == 18
    assert own.stored(about) == best
    assert own.stored({"median_s": 9}) is own.stored([]) is own.stored(None) is None
    low, high = numbers["ci"]["onset_f1_50ms"]
    assert low <= numbers["onset_f1_50ms"] <= high
    assert own.numbers(found)["onset_f1_50ms"] == pytest.approx(own.chosen(found)[1])


def test_what_chooses_the_step():
    found = made()
    assert onset_f1().step_metric == "onset_f1_50ms"
    assert onset_f1(collar_s=0.2).step_metric == "onset_f1_200ms"
    by_loss = onset_f1(step_by="loss")
    assert by_loss.step_metric == "minus_loss"
    found = replace(found, losses=np.arange(24, dtype=np.float32))
    assert by_loss.trace(found) == {
        "onset_f1_50ms": by_loss.chosen(found)[1],
        "minus_loss": pytest.approx(-11.5),
    }
    assert set(by_loss.trace(found)) == set(by_loss.names)


def test_nothing_found_is_a_score_of_zero():
    found = made()
    found = replace(found, frames=np.full_like(found.frames, -9))
    numbers = onset_f1().numbers(found)
    assert numbers["onset_f1_50ms"] == 0
    assert numbers["segment_error_rate"] == 1


def test_the_numbers_are_in_the_files_the_text_and_the_page(tmp_path):
    found = made(annotated=np.arange(24) % 3 > 0)
    own = onset_f1(median_s=[0.1, 0.3])
    summary = detection.evaluate(
        found, tmp_path, label_set=classes(), n_bootstrap=20, numbers=own.numbers
    )
    stored = json.loads((tmp_path / "events.json").read_text())["events"]
    assert stored["onset_f1_50ms"] == summary["events"]["onset_f1_50ms"] > 0
    assert stored["ci"]["onset_f1_200ms"][0] <= stored["onset_f1_200ms"]
    text = detection.table(summary)
    assert "onset F1, 50 ms" in text
    assert "best of 4 settings on these clips" in text
    page = (tmp_path / "events.html").read_text()
    assert "segment error rate" in page
    assert "best of 4 settings on these clips" in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onset_f1(median_s=-1)", "median_s must be from 0 to 60, got -1"),
        ("onset_f1(min_s=[])", "min_s must have a number"),
        ("onset_f1(threshold=1.0)", "threshold must be from 1e-06 to 0.999999, got 1.0"),
        ("onset_f1(threshold='half')", "threshold must be from"),
        ("onset_f1(collar_s=True)", "collar_s must be from"),
        ("onset_f1(threshold_on='logit')", "threshold_on 'logit' does not exist; did you mean"),
        ("onset_f1(step_by='f1')", "step_by 'f1' does not exist"),
        ("onset_f1(window=3)", "field 'window' does not exist"),
    ],
)
def test_wrong_values_are_refused_in_one_line(text, message):
    with pytest.raises(AsjaxError, match=message) as error:
        step_metrics.of({"eval": {"metric": text}})
    assert "\n" not in str(error.value)
    assert onset_f1(threshold=3, threshold_on="logits").settings[0] == Setting(0.25, 0.125, 3.0)
