"""The page about events: what it says and shows, errors of matched events, the worst clips."""

import numpy as np
import pytest
import small_detections

from asjax import events
from asjax.evaluation import detection, event_errors, event_page, event_plots, page


def listed(*marks):
    return events.as_events(list(marks)) if marks else np.zeros(0, events.EVENT)


def test_events_are_matched_by_their_common_share():
    truth = [listed((0, 2, 0), (3, 4, 0), (5, 6, 1)), listed((0, 1, 0)), listed()]
    found = [listed((0.5, 2.1, 0), (3.9, 5, 0), (5, 6, 0)), listed((0, 1, 1)), listed((0, 1, 0))]
    got = event_errors.matched(truth, found)
    np.testing.assert_allclose(got, [[0.5, 0.1]], atol=1e-12)  # 1.5 of 2.1 s
    loose = event_errors.matched(truth, found, share=0.01)
    np.testing.assert_allclose(loose, [[0.5, 0.1], [0.9, 1.0]], atol=1e-12)
    assert event_errors.matched([listed()], [listed()]).shape == (0, 2)


def test_a_found_event_is_matched_once():
    truth = [listed((0, 1, 0), (1, 2, 0))]
    got = event_errors.matched(truth, [listed((0, 2, 0))])
    np.testing.assert_allclose(got, [[0, 1]])


def test_the_worst_clips_have_most_wrong_segments_a_second():
    counts = np.zeros((3, 4, 2), np.int32)
    counts[0] = [[2, 0], [1, 1], [0, 0], [4, 0]]
    counts[1] = [[2, 0], [1, 0], [1, 2], [0, 0]]
    counts[2] = [[2, 0], [1, 0], [0, 0], [0, 0]]
    got = event_errors.worst(counts, [10.0, 10.0, 10.0, 40.0])
    assert got == [(2, 3, 3), (1, 1, 2), (3, 4, 4)]  # clip 0 is right; clip 3 is long
    assert event_errors.worst(counts, [10.0] * 4, most=1) == [(3, 4, 4)]


def test_the_rows_of_a_timeline():
    p = np.array([[0.1, 0.9, 0.5, 0.8]])
    truth, found = listed((0, 1, 0), (0, 1, 2)), listed((0, 1, 3), (0, 1, 2))
    assert event_errors.rows(truth, found, p, 6) == [2, 0, 3]
    assert event_errors.rows(truth, found, p, 2) == [2, 0]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    found = small_detections.made(clips=12)
    out = tmp_path_factory.mktemp("page")
    history = [{"step": i, "loss": 1 / i, "eval/psds1": i / 10} for i in (1, 2)]
    record = {
        "run": "<run>",
        "model": {"name": "frame_mn", "variant": "frame_mn06"},
        "train_data": {"name": "scenes"},
        "eval_data": {"name": "fold5", "clips": 12, "hash": "h"},
        "chosen": {"step": 2, "rule": "best", "metric": "psds1", "value": 0.2},
        "evaluated_on": "eval",
    }
    detection.evaluate(
        found,
        out,
        label_set=small_detections.classes(),
        n_bootstrap=10,
        history=history,
        record=record,
        listen=lambda clip: (b"sound", "audio/mpeg"),
    )
    return (out / "events.html").read_text()


@pytest.mark.parametrize(
    "words",
    [
        "<h1>&lt;run&gt;: events in time</h1>",
        "frame_mn06 trained on scenes, evaluated on 12 clips of fold5",
        "because it has the best PSDS1",
        "no test set (data.test)",
        "95% intervals over clips, from 10 bootstrap resamples",
        "Found events against false ones",
        "Lengths of events",
        "Errors of onsets and offsets",
        "training curves",
        'src="data:audio/mpeg;base64,c291bmQ="',
        "of 4 classes; the others keep 0.5",
        "Model, data and their hashes",
    ],
)
def test_the_page_says(html, words):
    assert words in html


def test_the_page_needs_nothing_else(html):
    import base64
    import re

    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    for picture in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html):
        text = base64.b64decode(picture).decode()
        assert "prefers-color-scheme:dark" in text
        assert not re.search(r'href="http', text)
    assert html.count("data:image/svg") >= 5


def test_many_classes_have_curves_of_the_ends_only():
    curves = {c: (np.array([0.0]), np.array([c / 20])) for c in range(20)}
    areas = np.arange(20) / 20
    picture = event_plots.curves([f"name{c}" for c in range(20)], curves, areas).decode()
    assert "name19 0.95" in picture
    assert "name0 0.00" in picture
    assert "name10 " not in picture


def test_pictures_of_odd_values():
    """A single event, an event without a pair, one frame, no row."""
    assert b"<svg" in event_plots.durations(np.array([1.0]), np.zeros(0))
    assert b"<svg" in event_plots.errors(np.zeros(1), np.zeros(1))
    nothing = listed()
    assert b"<svg" in event_plots.timeline(["$a_b"], [0], nothing, nothing, np.zeros((1, 1)), 0.04)


def test_a_long_recording_has_fewer_columns():
    p = np.random.default_rng(0).random((5000, 2))
    got = event_page._fewer(p)
    assert len(got) == 1000
    np.testing.assert_array_equal(got[0], p[:5].max(axis=0))
    assert event_page._fewer(p[:1200]) is not None
    assert len(event_page._fewer(p[:1200])) == 1200


def test_names_of_models():
    assert page.model_name({}) == "Model"
    assert page.model_name({"model": "x"}) == "x"
