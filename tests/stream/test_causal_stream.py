"""Streams of a causal model: the carried state against the whole recording."""

import numpy as np
import pytest
from small_causal import RATE, TAGGER, WAVE, WHOLE

from asjax.predict import Event
from asjax.stream import EventStream, Stream


def test_events_are_those_of_the_whole_recording():
    how = dict(threshold=np.median(WHOLE.frames, axis=0), median=0.24)
    wanted = WHOLE.events(**how)
    assert len(wanted) > 8
    for size in (160, 4001):
        stream, marks = EventStream(TAGGER, **how), []
        for i in range(0, len(WAVE), size):
            marks += stream.push(WAVE[i : i + size])
        marks += stream.close()
        found = sorted(mark for mark in marks if isinstance(mark, Event))
        assert [m[:3] for m in found] == [m[:3] for m in sorted(wanted)]
        np.testing.assert_allclose(
            [m.probability for m in found], [m.probability for m in sorted(wanted)], atol=1e-5
        )
    assert stream.latency_s < 1.0 or stream._clock.compute_s > 0.5


@pytest.mark.parametrize("size", [160, 4001, 0])
def test_tags_pool_the_frames_of_their_window(size):
    stream, found = Stream(TAGGER, 1.0, 0.5), []
    for i in range(0, len(WAVE), size or len(WAVE)):
        found += stream.push(WAVE[i : i + (size or len(WAVE))])
    found += stream.close()
    assert [w.t1 for w in found] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    for window in found:  # frames of 80 ms that lie in the window
        first, end = int(np.ceil(window.t0 / 0.08 - 1e-9)), int(window.t1 / 0.08 + 1e-9)
        p = WHOLE.frames[first:end].astype(np.float64)
        np.testing.assert_allclose(window.tags.clip, (p * p).sum(0) / p.sum(0), atol=1e-5)
        assert len(window.tags.frames) == end - first


def test_a_short_stream_is_one_window():
    stream = Stream(TAGGER, 1.0, 0.5)
    assert stream.push(WAVE[:100]) == []
    (window,) = stream.close()
    assert window.t1 == 100 / RATE
    assert len(window.tags.frames) == 1
