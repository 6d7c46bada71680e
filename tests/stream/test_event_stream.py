"""`EventStream` against `Tags.events` of the whole recording, and against known events."""

import numpy as np
import pytest
import small_detector as small
from small_detector import RATE, sounds
from small_tagger import LABELS, LEVELS
from small_tagger import tagger as plain

from asjax.config import AsjaxError
from asjax.predict import Event
from asjax.stream import EventStream, Onset

RNG = np.random.default_rng(4)
EXACT = small.tagger(edge=0.0)  # a frame depends on its own samples only
EDGES = small.tagger()  # the first and last quarter of a window are wrong


def noise(seconds):
    n = round(seconds * RATE)
    levels = np.repeat(RNG.choice([0.05, 0.15, 0.3, 0.6, 0.9], n // 130 + 1), 130)[:n]
    return (levels * RNG.choice([-1, 1], n)).astype(np.float32)


def heard(stream, wave, size=0):
    """[(seconds pushed, mark)] of a wave in chunks of `size` samples."""
    found = []
    for i in range(0, len(wave), size or len(wave)):
        piece = wave[i : i + (size or len(wave))]
        found += [((i + len(piece)) / RATE, mark) for mark in stream.push(piece)]
    return found + [(len(wave) / RATE, mark) for mark in stream.close()]


def events_of(found):
    return sorted(mark for _, mark in found if isinstance(mark, Event))


def same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, sorted(wanted), strict=True):
        assert a.label == b.label
        assert a.id == b.id
        assert a[:2] == pytest.approx(b[:2], abs=1e-9)
        assert a.probability == pytest.approx(b.probability, abs=2e-5)


@pytest.mark.parametrize("median", [0.0, 0.3, 0.4, [0.0, 0.2, 0.5, 0.9]])
@pytest.mark.parametrize("size", [1, 160, 4001, 0])
def test_events_are_those_of_the_whole_recording_for_any_chunks(size, median):
    wave = noise(6.23 if size == 1 else 23.45)
    wanted = EXACT((wave, RATE)).events(median=median)
    assert len(wanted) > 5
    for hop_s in (0.25, 0.7):
        stream = EventStream(EXACT, hop_s, median=median, ahead_s=0.2)
        found = heard(stream, wave, size)
        same(events_of(found), wanted)
        # every event has one onset, which comes before it
        onsets = [mark for _, mark in found if isinstance(mark, Onset)]
        begun = [(m.onset_s, m.label) for m in onsets]
        assert sorted(begun) == sorted((e.onset_s, e.label) for e in wanted)
        assert len(set(begun)) == len(begun)
        order = [m for _, m in found]
        for event in events_of(found):
            first = next(m for m in onsets if m[:2] == (event.onset_s, event.label))
            assert order.index(first) < order.index(event)


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.1, 0.93, 1.95, 2.0, 2.001, 3.0])
def test_a_short_stream_has_the_events_of_the_recording(seconds):
    wave = noise(seconds)
    wanted = EXACT((wave, RATE)).events(median=0.3)
    same(events_of(heard(EventStream(EXACT, median=0.3), wave, 77)), wanted)


def test_an_empty_stream_has_no_events():
    assert EventStream(EXACT).close() == []


def test_onsets_come_within_a_second_and_no_edge_cuts_or_doubles_an_event():
    """Known events, of a model that is wrong around the ends of its windows."""
    truth = [(1.0, 1.8, 0.5), (2.5, 7.3, 0.5), (8.0, 8.6, 0.3), (9.1, 14.2, 0.5)]
    wave = sounds(16.0, *truth)
    stream = EventStream(EDGES, 0.2, median=0.0, ahead_s=0.5)
    found = heard(stream, wave, 160)
    for label, level in zip(LABELS.names, LEVELS, strict=True):
        times = [m[:2] for m in events_of(found) if m.label == label]
        assert times == [pytest.approx(e[:2]) for e in truth if e[2] > level]
    delays = [at - m.onset_s for at, m in found if isinstance(m, Onset)]
    assert len(delays) == 4 + 4 + 3 + 0
    assert max(delays) <= 1.0
    assert max(delays) <= stream.latency_s + 0.16


def test_the_last_frames_of_a_window_wait_for_the_next_one():
    """Without `ahead_s` the wrong frames at the ends of windows are heard: the test can fail."""
    wave = sounds(8.0, (1.0, 7.0, 0.5))
    cut = events_of(heard(EventStream(EDGES, 0.2, median=0.0, ahead_s=0.0), wave))
    whole = events_of(heard(EventStream(EDGES, 0.2, median=0.0, ahead_s=0.5), wave))
    assert [m[:2] for m in whole if m.label == "Rain"] == [pytest.approx((1.0, 7.0))]
    assert [m[:2] for m in cut if m.label == "Rain"] != [pytest.approx((1.0, 7.0))]


def test_skipped_windows_lose_no_frame_while_a_window_covers_them():
    wave = noise(12)
    stream, found = EventStream(EXACT, 0.2, median=0.3), []
    for i in range(0, len(wave), 1500):  # seven hops at once
        found += stream.push(wave[i : i + 1500], newest=True)
    found += stream.close()
    assert stream.skipped > 30
    assert stream.lost_s == 0
    same(sorted(m for m in found if isinstance(m, Event)), EXACT((wave, RATE)).events(median=0.3))


def test_sound_that_no_window_heard_is_counted_and_silent():
    wave = sounds(12.0, (0.0, 12.0, 0.9))
    stream = EventStream(EXACT, 0.2, median=0.0, ahead_s=0.0)
    found = stream.push(wave[:1000], newest=True) + stream.push(wave[1000:11_000], newest=True)
    found += stream.push(wave[11_000:]) + stream.close()
    assert stream.lost_s == pytest.approx(8.0)
    rain = [m[:2] for m in found if isinstance(m, Event) and m.label == "Rain"]
    assert rain == [pytest.approx((0.0, 1.0)), pytest.approx((9.0, 12.0))]


def test_chosen_classes_and_thresholds_are_those_of_events():
    wave = noise(9)
    how = dict(threshold=[0.2, 0.5, 0.5, 0.9], median=0.2, classes=["Rain", "/m/d"])
    same(events_of(heard(EventStream(EXACT, **how), wave, 333)), EXACT((wave, RATE)).events(**how))


def test_the_tuned_decoding_of_the_model_is_used():
    tuned = {"threshold": [0.3, 0.4, 0.6, 0.7], "median": [3, 5, 1, 7], "frame_rate": 10.0}
    tagger = small.tagger(edge=0.0, record={"decoding": tuned})
    wave = noise(9)
    same(events_of(heard(EventStream(tagger), wave, 333)), tagger((wave, RATE)).events())


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (dict(hop_s=1.5), "hop_s must be 0.01 to 1 s"),
        (dict(ahead_s=1.5), "ahead_s must be 0 to 1 s"),
        (dict(threshold=2), "threshold must be a probability"),
        (dict(classes=["Cat"]), "Cat"),
        (dict(window_s=1.0), "its own 2 s, got 1"),
    ],
)
def test_settings_out_of_range_are_one_line(how, text):
    with pytest.raises(AsjaxError, match=text):
        EventStream(EXACT, **how)


def test_a_model_without_frames_is_one_line():
    with pytest.raises(AsjaxError, match="frames"):
        EventStream(plain())
