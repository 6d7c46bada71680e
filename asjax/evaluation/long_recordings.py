"""Recordings that are longer than the model's input: scored in half-overlapping windows.

A window starts every half of the model's clip length, and the middle of each window is kept
(`decoding.windows`). So an event at the end of a window is one event, and no part of a recording
is left out.
"""

from __future__ import annotations

import numpy as np

from asjax import decoding
from asjax import events as lists
from asjax.config import AsjaxError
from asjax.evaluation import detections

SPARE = 0.01  # a recording that is longer by this share is cut instead, as AudioSet's 10.01 s
MOST_BYTES = 1 << 35  # of the scores with their padding


class Parts:
    """Windows of `seconds` of the clips of a source, as a source of clips without annotation.

    Part k begins `start_s[k]` seconds into clip `rows[k]`.
    """

    def __init__(self, source, seconds, rows, start_s):
        self.source, self.seconds, self.rows, self.start_s = source, seconds, rows, start_s
        self.name, self.hash = source.name, source.hash
        self.labels = source.labels[rows]
        self.events = [None] * len(rows)
        self.ids = [
            f"{source.ids[row]} from {start:.6f} s"
            for row, start in zip(rows, start_s, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k) -> dict:
        example, start_s = self.source[self.rows[k]], self.start_s[k]
        begin_s, piece_s = example.get("part", (0.0, np.inf))
        part = (begin_s + start_s, min(self.seconds, piece_s - start_s))
        return {**example, "id": self.ids[k], "events": None, "part": part}


def is_long(found, clip_s: float) -> np.ndarray:
    """bool [N]: which recordings need windows."""
    return found.whole_s > clip_s * (1 + SPARE)


def lengthened(found, source, run, clip_s: float, bad: list):
    """`found` with all windows of the long recordings; the others do not change.

    The clip's score is its highest score in any window. The other arrays have room for the longest
    recording.

    Args:
      found: `Detections` of the first `clip_s` seconds of each clip of `source`.
      run: source -> `Detections` of its clips. bad: gets (id, reason) of recordings with a window
        that cannot be read; they are left out.

    Raises:
      AsjaxError: the padded scores would be larger than MOST_BYTES.
    """
    long = np.flatnonzero(is_long(found, clip_s))
    if not len(long):
        return found
    size, rate, classes = found.frames.shape[1], found.frame_rate, found.frames.shape[2]
    row = {name: i for i, name in enumerate(source.ids)}
    plans = {}
    for i in long.tolist():
        frames = int(decoding.frames_of(found.whole_s[i], rate))
        plans[i] = decoding.windows(frames, size)
    longest = max(plan.frames for plan in plans.values())
    if (needed := 2 * len(found.ids) * longest * classes) > MOST_BYTES:
        raise AsjaxError(
            f"the scores of {len(found.ids)} recordings of up to {longest / rate:.0f} s need "
            f"{needed / 1e9:.0f} GB; cut the long recordings, or evaluate them by themselves"
        )
    places = [(row[found.ids[i]], start / rate) for i in plans for start in plans[i].starts]
    parts = run(Parts(source, clip_s, *map(list, zip(*places, strict=True))))
    at = {name: k for k, name in enumerate(parts.ids)}
    out = detections.room((len(found.ids), longest, classes))
    out[:, :size], out[:, size:] = found.frames, 0
    logits, targets = found.logits.copy(), found.targets.copy()
    events, durations_s = list(found.events), found.durations_s.copy()
    keep = np.ones(len(found.ids), bool)
    for i, plan in plans.items():
        clip = row[found.ids[i]]
        names = [f"{source.ids[clip]} from {start / rate:.6f} s" for start in plan.starts]
        if any(name not in at for name in names):
            keep[i] = False
            bad.append((found.ids[i], "a part of the recording cannot be read"))
            continue
        rows = [at[name] for name in names]
        out[i, : plan.frames] = decoding.stitch(parts.frames[rows], plan)
        logits[i] = parts.logits[rows].max(axis=0)
        durations_s[i] = found.whole_s[i]
        if (marks := source.events[clip]) is not None:
            events[i] = lists.merge(lists.cut(marks, 0.0, durations_s[i]))
            targets[i] = lists.weak(events[i], targets.shape[1])
    rows = np.flatnonzero(keep)
    return detections.Detections(
        [found.ids[i] for i in rows],
        logits[rows],
        targets[rows],
        out if keep.all() else out[rows],
        durations_s[rows],
        [events[i] for i in rows],
        found.losses[rows],
        rate,
        found.whole_s[rows],
        found.median_s,
        found.only_with_events,
    )
