"""Scores of the pieces of recordings, joined."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_detections import made

from asjax import events
from asjax.config import AsjaxError
from asjax.evaluation import recordings, tasks

RATE, FRAMES, PIECE_S = 10.0, 50, 5.0
SECONDS = {"a": 12.3, "b": 5.0, "c": 3.0}
LISTED = {  # of one class they may overlap, and one is longer than the recording
    "a": [(0.0, 6.0, 0), (4.0, 8.0, 0), (4.9, 5.1, 1), (12.0, 13.0, 2)],
    "b": [],
    "c": [(1.0, 2.0, 1)],
}


def pieces():
    """A source of the pieces of three recordings, and `Detections` of them in this order."""
    ids, group, seconds = [], [], []
    for name, whole in SECONDS.items():
        for k in range(-(-int(whole * 10) // 50)):
            ids.append(f"{name}@{k}")
            group.append(name)
            seconds.append(min(PIECE_S, whole - k * PIECE_S))
    listed = {name: (SECONDS[name], events.as_events(rows)) for name, rows in LISTED.items()}
    source = SimpleNamespace(name="s", ids=ids, group=group, piece_s=PIECE_S, recordings=listed)
    found = made(clips=len(ids), frames=FRAMES, rate=RATE)
    losses = np.arange(len(ids), dtype=np.float32)
    return source, replace(found, ids=ids, durations_s=np.array(seconds), losses=losses)


def test_recordings_have_the_scores_of_their_pieces_side_by_side():
    source, found = pieces()
    whole = recordings.joined(found, source)
    assert whole.ids == ["a", "b", "c"]
    np.testing.assert_allclose(whole.durations_s, [12.3, 5.0, 3.0])
    np.testing.assert_array_equal(whole.lengths(), [123, 50, 30])
    assert whole.frames.shape == (3, 123, 4)
    np.testing.assert_array_equal(whole.frames[0, :50], found.frames[0])
    np.testing.assert_array_equal(whole.frames[0, 50:100], found.frames[1])
    np.testing.assert_array_equal(whole.frames[0, 100:123], found.frames[2, :23])
    np.testing.assert_array_equal(whole.frames[2, :30], found.frames[4, :30])
    np.testing.assert_array_equal(whole.logits[0], found.logits[:3].max(axis=0))
    assert whole.losses[0] == pytest.approx((0 * 50 + 1 * 50 + 2 * 23) / 123)
    assert whole.frame_rate == RATE


def test_events_are_those_of_the_list_not_of_the_pieces():
    source, found = pieces()
    whole = recordings.joined(found, source)
    assert [e.tolist() for e in whole.listed] == [
        events.as_events(rows).tolist() for rows in LISTED.values()
    ]
    assert whole.events[0].tolist() == [
        (0.0, 8.0, 0), (4.9, 5.1, 1), (12.0, pytest.approx(12.3), 2),
    ]  # fmt: skip
    np.testing.assert_array_equal(whole.targets, [[1, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    assert len(whole.annotated()["events"]) == 3  # also the recording without an event


def test_the_order_of_the_pieces_does_not_matter_and_a_missing_one_leaves_its_recording_out():
    source, found = pieces()
    order = np.array([4, 2, 0, 3])  # without the second piece of a
    part = replace(
        found,
        ids=[found.ids[i] for i in order],
        **{k: getattr(found, k)[order] for k in ("logits", "frames", "durations_s", "losses")},
    )
    bad = []
    whole = recordings.joined(part, source, bad)
    assert whole.ids == ["b", "c"]
    assert bad == [("a", "a piece of the recording cannot be read")]
    np.testing.assert_array_equal(whole.frames[1, :30], found.frames[4, :30])


def test_other_sources_do_not_change_anything():
    _, found = pieces()
    assert recordings.joined(found, SimpleNamespace(name="x")) is found
    assert recordings.joined(found, SimpleNamespace(name="x", recordings=None)) is found


def test_pieces_of_another_length_are_refused():
    source, found = pieces()
    source.piece_s = 10.0
    with pytest.raises(AsjaxError, match="as long as the model's input, 5 s, got piece_s=10"):
        recordings.joined(found, source)
    cfg = {"objective": "detection", "eval": {"metric": ""}, "data": {"clip_s": 5.0}}
    with pytest.raises(AsjaxError, match="got piece_s=10"):  # before a training begins
        tasks.of(cfg).metric(SimpleNamespace(**vars(source), events=[[]]))
    source.piece_s = PIECE_S
    source.ids = [f"other {name}" for name in source.ids]
    with pytest.raises(AsjaxError, match="no recording could be read as a whole"):
        recordings.joined(found, source)
