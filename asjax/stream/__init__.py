"""`Stream` and `EventStream`: sound in pieces of any size -> tags of windows, events as they come.

    stream = Stream(asjax.load("runs/live/model"), window_s=2.0, hop_s=0.5, rate=48_000)
    for samples in microphone:
        for window in stream.push(samples):
            print(window.t0, window.t1, window.tags.top(3))

They need the public side of a tagger only: `sample_rate`, `clip_s`, `label_set`, `windowed` and the
call. The verb is `asjax listen`.
"""

from asjax.stream.decoder import Onset
from asjax.stream.events import EventStream
from asjax.stream.stream import Stream, Window

__all__ = ["EventStream", "Onset", "Stream", "Window"]
