"""Events in time: lists of (onset_s, offset_s, class), and their form on a grid of frames.

The events of one clip are an array of `EVENT`, sorted by onset; `as_events` makes it of any list
of tuples. Frame i of a grid covers the seconds [i / frame_rate, (i + 1) / frame_rate).
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from asjax.config import AsjaxError

EVENT = np.dtype([("onset_s", np.float64), ("offset_s", np.float64), ("class", np.int32)])
FAULTS = (  # what `repair` finds, in the order in which it looks
    "times that are no numbers",
    "offsets before onsets",
    "events without length",
    "events beyond the end",
    "events cut at the end",
    "onsets before the start",
    "overlaps of one class",
)


def as_events(events, label_set=None, *, sort: bool = True) -> np.ndarray:
    """Events of one clip as an `EVENT` array, in time order (or as given).

    Args:
      events: a list of (onset_s, offset_s, class), or an `EVENT` array.
      label_set: looks classes up that are given as names or ids; else they are indices.

    Raises:
      AsjaxError: not such a list, a time that is not finite, an offset before its onset, an
        unknown class.
    """
    if not (isinstance(events, np.ndarray) and events.dtype == EVENT):
        events = _parsed(events, label_set)
    bad = ~np.isfinite(events["onset_s"]) | ~np.isfinite(events["offset_s"])
    bad |= events["offset_s"] < events["onset_s"]
    if bad.any():
        raise AsjaxError(
            "events must have finite times and no offset before its onset, got "
            f"{tuple(events[bad][0].tolist())}; asjax.events.repair mends lists"
        )
    limit = np.inf if label_set is None else len(label_set)
    if len(events) and not 0 <= events["class"].min() <= events["class"].max() < limit:
        raise AsjaxError(f"classes of events must be 0 to {limit - 1}, got {events['class'].max()}")
    return in_order(events) if sort else events


def _parsed(events, label_set) -> np.ndarray:
    rows = [tuple(event) for event in events]
    try:
        if label_set is not None:
            rows = [(a, b, label_set.index(c)) for a, b, c in rows]
        return np.array(rows, EVENT)
    except AsjaxError:
        raise
    except (ValueError, TypeError):
        odd = next((r for r in rows if len(r) != 3), rows[0] if rows else events)
        hint = "; give a label_set for classes by name" if label_set is None else ""
        raise AsjaxError(
            f"an event must be (onset_s, offset_s, class), got {odd!r}{hint}"
        ) from None


def in_order(events: np.ndarray) -> np.ndarray:
    """A copy in order of onset, then offset, then class."""
    order = np.lexsort((events["class"], events["offset_s"], events["onset_s"]))
    return events[order]


# ------------------------------------------------------------------------------ lists to lists


def merge(events: np.ndarray, gap_s: float = 0.0) -> np.ndarray:
    """Events of one class that overlap, touch, or lie at most `gap_s` seconds apart become one."""
    if len(events) < 2:
        return in_order(events)
    by_class = events[np.lexsort((events["onset_s"], events["class"]))]
    classes, starts = np.unique(by_class["class"], return_index=True)
    merged = []
    for part in np.split(by_class, starts[1:]):
        reach = np.maximum.accumulate(part["offset_s"])
        first = np.r_[True, part["onset_s"][1:] > reach[:-1] + gap_s]
        found = part[first].copy()
        found["offset_s"] = reach[np.r_[np.flatnonzero(first)[1:] - 1, len(part) - 1]]
        merged.append(found)
    return in_order(np.concatenate(merged))


def cut(events: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """What lies in [start_s, end_s), in seconds from start_s; events that end up empty go."""
    inside = (events["offset_s"] > start_s) & (events["onset_s"] < end_s)
    inside &= events["offset_s"] > events["onset_s"]
    found = events[inside].copy()
    for key in ("onset_s", "offset_s"):
        found[key] = np.clip(found[key], start_s, end_s) - start_s
    return found


def longer_than(events: np.ndarray, min_s: float) -> np.ndarray:
    """The events of at least `min_s` seconds; a nanosecond of rounding is forgiven."""
    return events[events["offset_s"] - events["onset_s"] >= min_s - 1e-9]


def repair(events: np.ndarray, duration_s: float = np.inf) -> tuple[np.ndarray, Counter]:
    """A list without faults, and how often each fault of `FAULTS` occurred.

    Removed: times that are no numbers, offsets before onsets, events without length, and events
    that begin at or after the end. Cut: what reaches beyond `duration_s` or begins before 0.
    Joined: events of one class that overlap (those that only touch stay apart).
    """
    counts = Counter()

    def remove(kind, bad):
        counts[kind] += int(bad.sum())
        return events[~bad]

    bad = ~np.isfinite(events["onset_s"]) | ~np.isfinite(events["offset_s"])
    events = remove("times that are no numbers", bad)
    events = remove("offsets before onsets", events["offset_s"] < events["onset_s"])
    events = remove("events without length", events["offset_s"] == events["onset_s"])
    outside = (events["onset_s"] >= duration_s) | (events["offset_s"] <= 0)
    events = remove("events beyond the end", outside).copy()
    counts["events cut at the end"] = int((events["offset_s"] > duration_s).sum())
    counts["onsets before the start"] = int((events["onset_s"] < 0).sum())
    for key in ("onset_s", "offset_s"):
        events[key] = np.clip(events[key], 0, duration_s)
    overlapping = overlaps(events)
    counts["overlaps of one class"] = overlapping
    events = _joined(events) if overlapping else in_order(events)
    return events, +counts


def overlaps(events: np.ndarray) -> int:
    """How many events begin before an earlier one of their class has ended."""
    by_class = events[np.lexsort((events["onset_s"], events["class"]))]
    found = 0
    for part in np.split(by_class, np.flatnonzero(np.diff(by_class["class"])) + 1):
        reach = np.maximum.accumulate(part["offset_s"])
        found += int((part["onset_s"][1:] < reach[:-1]).sum())
    return found


def _joined(events: np.ndarray) -> np.ndarray:
    """`merge`, but events that only touch stay apart."""
    found = []
    for event in events[np.lexsort((events["onset_s"], events["class"]))]:
        last = found[-1] if found else None
        if last is None or last["class"] != event["class"] or event["onset_s"] >= last["offset_s"]:
            found.append(event.copy())
        else:
            last["offset_s"] = max(last["offset_s"], event["offset_s"])
    return in_order(np.array(found, EVENT))


# ------------------------------------------------------------------------------ lists and frames


def to_frames(
    events: np.ndarray,
    *,
    frames: int,
    num_classes: int,
    frame_rate: float = 25.0,
    sample_rate: int = 16_000,
    single: bool = False,
    rule: str = "touched",
) -> np.ndarray:
    """Which class is active in which frame: float32 [frames, num_classes] of 0 and 1.

    Args:
      frame_rate: frames per second (PretrainedSED: 25, frames of 40 ms). sample_rate: times are
        counted in samples first, as PretrainedSED and DESED do, which decides a few boundaries.
      single: times rounded to float32, as the published PretrainedSED data set stores them: a
        boundary that is a multiple of a frame may then spill over by one frame.
      rule: "touched" marks every frame that an event touches; "centre" those whose centre c lies in
        onset <= c < offset (HEAR: DCASE 2016, MAESTRO; an offset on a centre counts).
    """
    target = np.zeros((frames, num_classes), np.float32)
    if not len(events):
        return target
    first, end = frame_bounds(
        events["onset_s"],
        events["offset_s"],
        frames=frames,
        frame_rate=frame_rate,
        sample_rate=sample_rate,
        single=single,
        rule=rule,
    )
    for a, b, label in zip(first, end, events["class"], strict=True):
        target[a:b, label] = 1.0
    return target


def frame_bounds(
    onset_s, offset_s, *, frames, frame_rate=25.0, sample_rate=16_000, single=False, rule="touched"
):
    """First frame and end (exclusive) of each event, int64 [E] each; see `to_frames`."""
    kind = np.float32 if single else np.float64
    onset, offset = (np.asarray(t, kind).astype(np.float64) for t in (onset_s, offset_s))
    if rule == "centre":
        # HEAR asks intervals [start, end + 0.1 us) of milliseconds for the frames' centres
        first = np.ceil(onset * frame_rate - 0.5 - 1e-9)
        end = np.ceil((offset + 1e-7) * frame_rate - 0.5)
        first, end = (np.clip(f, 0, frames).astype(np.int64) for f in (first, end))
        return first, np.maximum(first, end)
    if rule != "touched":
        raise AsjaxError(f"rule must be touched or centre, got {rule!r}")
    per_frame = sample_rate / frame_rate
    first = np.floor(np.clip(onset * sample_rate / per_frame, 0, frames)).astype(np.int64)
    end = np.ceil(np.clip(offset * sample_rate / per_frame, 0, frames)).astype(np.int64)
    empty = offset <= onset
    return first, np.where(empty, first, np.maximum(first, end))


def from_frames(active, *, frame_rate: float = 25.0, duration_s: float = np.inf) -> np.ndarray:
    """Contiguous active frames as events: `EVENT` array in time order.

    Args:
      active: bool (or above 0) [T, C]. duration_s: events end here at the latest, and those that
        would begin here are left out.
    """
    active = np.asarray(active) > 0
    edge = np.zeros((1, active.shape[1]), np.int8)
    steps = np.diff(active.astype(np.int8), axis=0, prepend=edge, append=edge)
    labels, first = np.nonzero(steps.T == 1)
    _, end = np.nonzero(steps.T == -1)
    events = np.empty(len(first), EVENT)
    events["onset_s"], events["offset_s"] = first / frame_rate, end / frame_rate
    events["class"] = labels
    events = events[events["onset_s"] < duration_s]
    events["offset_s"] = np.minimum(events["offset_s"], duration_s)
    return in_order(events)


def weak(events: np.ndarray, num_classes: int) -> np.ndarray:
    """The clip's labels, float32 [num_classes]: 1 where a class has an event (the maximum)."""
    target = np.zeros(num_classes, np.float32)
    target[events["class"]] = 1.0
    return target
