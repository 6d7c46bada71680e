"""Recordings that a source gives as consecutive pieces: their scores are joined before they count.

Median filter, thresholds and metrics then see a recording as a whole, as in HEAR: an event across
the edge of two pieces is one event.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError
from asjax.evaluation import detections


def joined(found, source, bad: list | None = None):
    """`Detections` of whole recordings from those of the pieces of `source`.

    A recording has the highest clip score of its pieces. Other sources do not change anything.

    Args:
      bad: gets (id, reason) of recordings with a piece that could not be read; they are left out.

    Raises:
      AsjaxError: the pieces are longer or shorter than the model's input.
    """
    known = getattr(source, "recordings", None)
    if known is None:
        return found
    check(source, found.frames.shape[1] / found.frame_rate)
    row = {name: i for i, name in enumerate(found.ids)}
    pieces: dict[str, list[str]] = {}
    for name, recording in zip(source.ids, source.group, strict=True):
        pieces.setdefault(recording, []).append(name)
    rows = {}
    for recording, names in pieces.items():
        if all(name in row for name in names):
            rows[recording] = [row[name] for name in names]
        elif bad is not None:
            bad.append((recording, "a piece of the recording cannot be read"))
    if not rows:
        raise AsjaxError(f"{source.name}: no recording could be read as a whole")
    return _joined(found, rows, {name: known[name][1] for name in rows})


def check(source, clip_s: float) -> None:
    """AsjaxError: the source has pieces of recordings that are not `clip_s` seconds long."""
    whole = getattr(source, "recordings", None) is None
    if not whole and abs(source.piece_s - clip_s) > 1e-6:
        raise AsjaxError(
            f"pieces of {source.name} must be as long as the model's input, {clip_s:g} s, got "
            f"piece_s={source.piece_s:g}"
        )


def _joined(found, rows: dict, listed: dict):
    rate, classes = found.frame_rate, found.frames.shape[2]
    lengths = found.lengths()
    longest = max(int(lengths[r].sum()) for r in rows.values())
    frames = detections.room((len(rows), longest, classes))
    seconds, events = np.zeros(len(rows)), []
    losses = np.zeros(len(rows), np.float32)
    for i, (name, r) in enumerate(rows.items()):
        at = 0
        for k in r:
            frames[i, at : at + lengths[k]] = found.frames[k, : lengths[k]]
            at += lengths[k]
        frames[i, at:] = 0
        # A piece in the middle has as many seconds as frames. Only the last one may end in a frame.
        seconds[i] = lengths[r[:-1]].sum() / rate + found.durations_s[r[-1]]
        losses[i] = np.average(found.losses[r], weights=lengths[r])
        events.append(lists.repair(listed[name], seconds[i])[0])
    return replace(
        found,
        ids=list(rows),
        logits=np.stack([found.logits[r].max(axis=0) for r in rows.values()]),
        targets=np.stack([lists.weak(marks, classes) for marks in events]).astype(np.uint8),
        frames=frames,
        durations_s=seconds,
        events=events,
        losses=losses,
        whole_s=seconds.copy(),
        listed=list(listed.values()),
    )
