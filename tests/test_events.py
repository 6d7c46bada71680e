"""Lists of events and their frames against outputs of PretrainedSED and HEAR."""

import math
from functools import partial

import numpy as np
import pytest

from asjax import events, labels
from asjax.config import AsjaxError

ABC = labels.LabelSet("abc", ("a", "b", "c"), ("a", "b", "c"))


def listed(rows):
    return events.as_events(rows, ABC)


def raw(rows):
    """Events without checks, as made by a reader of lists."""
    return np.array(rows, events.EVENT)


@pytest.mark.parametrize("single", [False, True])
def test_frames_are_those_of_pretrained_sed_in_both_precisions(golden, single):
    rows = golden("sed_labels")[0]["encode"]["rows"]
    assert len(rows) == 161
    onset, offset = (np.array([row[k] for row in rows]) for k in (0, 1))
    options = {"frames": 250, "rule": "pretrained_sed", "single": single}
    first, end = events.frame_bounds(onset, offset, **options)
    wanted = np.array([row[3 if single else 2] for row in rows])
    some = first < end
    np.testing.assert_array_equal(np.stack([first, end], axis=1)[some], wanted[some])
    assert not wanted[~some].any()


def test_an_event_on_the_edges_of_its_frames_marks_no_other_frame():
    for rate in (25.0, 50.0, 12.5, 62.5, 49.95):
        edges = np.arange(400)
        options = {"frames": 400, "frame_rate": rate}
        first, end = events.frame_bounds(edges / rate, (edges + 1) / rate, **options)
        np.testing.assert_array_equal(first, edges)
        np.testing.assert_array_equal(end, edges + 1)
    spilled = events.frame_bounds([8.08], [8.12], frames=250, rule="pretrained_sed")
    assert [int(f[0]) for f in spilled] == [202, 203]


def test_merging_and_counting_frames_is_that_of_pretrained_sed(golden):
    for case in golden("sed_labels")[0]["merge"]:
        merged = events.merge(listed(case["input"]))
        np.testing.assert_array_equal(merged, listed(case["merged"]))
        frames = events.to_frames(merged, frames=250, num_classes=3)
        assert frames.sum(axis=0).tolist() == case["event_count_frames"]


def test_events_of_frames_are_those_of_pretrained_sed(golden):
    for case in golden("sed_labels")[0]["decode"]:
        active = np.zeros((250, 3), bool)
        for c, frames in enumerate(case["active_frames"]):
            active[frames, c] = True
        answer = events.from_frames(active, duration_s=10.0)
        wanted = listed([(a, b, label) for label, a, b in case["events"]])
        for key in ("onset_s", "offset_s"):
            np.testing.assert_allclose(answer[key], wanted[key], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(answer["class"], wanted["class"])


def test_hear_labels_frames_by_their_centres(golden):
    for case in golden("sed_hear_labels")[0]["cases"]:
        names = sorted(case["frames"])
        rows = [(e["start"] / 1e3, e["end"] / 1e3, names.index(e["label"])) for e in case["events"]]
        options = {"frames": 400, "num_classes": len(names), "rule": "centre"}
        frames = events.to_frames(events.as_events(rows), **options)
        answer = {name: np.flatnonzero(frames[:, i]).tolist() for i, name in enumerate(names)}
        assert answer == case["frames"]


def test_frames_and_back_are_the_events_when_they_lie_on_the_grid():
    rng = np.random.default_rng(0)
    for rate, frames in ((25.0, 250), (50.0, 77), (12.5, 9)):
        active = rng.random((frames, 4)) < 0.4
        answer = events.from_frames(active, frame_rate=rate)
        options = {"frames": frames, "num_classes": 4, "frame_rate": rate}
        again = events.to_frames(answer, **options)
        np.testing.assert_array_equal(again, active.astype(np.float32))
    centres = events.from_frames(active, frame_rate=rate, rule="centre")
    again = events.to_frames(centres, **options, rule="centre")
    np.testing.assert_array_equal(again, active.astype(np.float32))


def test_from_frames_ends_with_the_clip():
    active = np.ones((5, 1), bool)
    assert events.from_frames(active, duration_s=0.19).tolist() == [(0.0, 0.19, 0)]
    active[:] = [[1], [0], [0], [0], [1]]
    assert events.from_frames(active, duration_s=0.16).tolist() == [(0.0, 0.04, 0)]


def test_merge_closes_gaps_and_never_shortens():
    rows = [(0, 5, "a"), (1, 2, "a"), (5.5, 6, "a"), (0.5, 0.7, "b"), (6, 7, "a")]
    merged = events.merge(listed(rows))
    assert merged.tolist() == [(0, 5, 0), (0.5, 0.7, 1), (5.5, 7, 0)]
    assert events.merge(listed(rows), 0.5).tolist() == [(0, 7, 0), (0.5, 0.7, 1)]
    assert not len(events.merge(listed([])))


def test_cut_moves_events_with_the_crop():
    rows = listed([(0, 1, "a"), (2, 4, "b"), (3.5, 9, "c"), (5, 6, "a")])
    assert events.cut(rows, 3, 5).tolist() == [(0, 1, 1), (0.5, 2, 2)]
    assert events.longer_than(rows, 2).tolist() == [(2, 4, 1), (3.5, 9, 2)]
    third = listed([(0.1, 0.4, "a")])  # 0.4 - 0.1 is a little above 0.3, 0.3 - 0.1 below 0.2
    assert len(events.longer_than(third, 0.3)) == 1
    assert len(events.longer_than(listed([(0.1, 0.3, "a")]), 0.2)) == 1


def test_repair_names_every_fault_and_leaves_none():
    rows = [
        (math.nan, 1, 0),
        (0, math.inf, 0),
        (2, 1, 0),
        (3, 3, 0),
        (11, 12, 1),
        (-2, -1, 1),
        (9, 12, 1),
        (-1, 0.5, 2),
        (4, 6, 0),
        (5, 7, 0),
        (7, 8, 0),
    ]
    answer, counts = events.repair(raw(rows), 10.0)
    assert counts == {
        "times that are no numbers": 2,
        "offsets before onsets": 1,
        "events without length": 1,
        "events beyond the end": 2,
        "events cut at the end": 1,
        "onsets before the start": 1,
        "overlaps of one class": 1,
    }
    assert set(counts) == set(events.FAULTS)
    assert answer.tolist() == [(0, 0.5, 2), (4, 7, 0), (7, 8, 0), (9, 10, 1)]
    again, counts = events.repair(answer, 10.0)
    assert not counts
    np.testing.assert_array_equal(again, answer)


@pytest.mark.parametrize("bad", [[(1, 0, 0)], [(math.nan, 1, 0)], [(0, math.inf, 0)]])
def test_faulty_times_are_refused(bad):
    with pytest.raises(AsjaxError, match="finite times and no offset before its onset"):
        events.as_events(bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([(0, 1)], "must be \\(onset_s, offset_s, class\\)"),
        ([(0, 1, "a", 2)], "must be \\(onset_s, offset_s, class\\)"),
        ([(0, "x", 1)], "must be \\(onset_s, offset_s, class\\)"),
        ([(0, 1, -1)], "classes of events must be"),
    ],
)
def test_what_is_no_event_is_told(bad, message):
    with pytest.raises(AsjaxError, match=message):
        events.as_events(bad)
    with pytest.raises(AsjaxError, match="not a class of abc"):
        listed([(0, 1, "dog")])
    with pytest.raises(AsjaxError, match="rule 'half'"):
        events.to_frames(listed([(0, 1, "a")]), frames=5, num_classes=3, rule="half")


def test_text_keeps_every_digit():
    rows = [(0.1, 1 / 3, "/m/x y"), (1e-9, 123456.789, "a,b")]
    assert events.from_text(events.to_text(rows)) == rows
    assert events.from_text(events.to_text([])) == []
    assert events.from_text(events.to_text(None)) is None
    for damaged in ("1 2", "1 x a", "nothing"):
        with pytest.raises(AsjaxError, match="damaged"):
            events.from_text(damaged)


def test_weak_labels_are_the_maximum_over_time():
    rows = listed([(0, 1, "c"), (2, 3, "c"), (1, 4, "a")])
    make = partial(events.to_frames, rows, frames=100, num_classes=3)
    np.testing.assert_array_equal(events.weak(rows, 3), make().max(axis=0))


def test_events_move_to_another_label_set():
    table = labels.mapping("desed10", "audioset527")
    desed, audioset = labels.get("desed10"), labels.get("audioset527")
    rows = events.as_events([(0, 1, "Electric_shaver_toothbrush"), (2, 3, "Speech")], desed)
    moved = events.relabelled(rows, table)
    names = [audioset.names[c] for c in moved["class"]]
    assert sorted(names) == ["Electric shaver, electric razor", "Electric toothbrush", "Speech"]
