"""Events in time: lists of (onset_s, offset_s, class), and the same events on a grid of frames.

The events of one clip are an array of `EVENT`, sorted by onset. `as_events` converts a list of
tuples to such an array. Frame i of a grid covers the seconds
[i / frame_rate, (i + 1) / frame_rate).
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from asjax.config import AsjaxError, unknown

EVENT = np.dtype([("onset_s", np.float64), ("offset_s", np.float64), ("class", np.int32)])
RULES = ("touched", "pretrained_sed", "centre")
FAULTS = (  # the faults that `repair` looks for, in its order
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
      label_set: needed if classes are names or ids; without it they must be indices.

    Raises:
      AsjaxError: another kind of list, a time that is not finite, an offset before its onset, an
        unknown class.
    """
    if not (isinstance(events, np.ndarray) and events.dtype == EVENT):
        events = _parsed(events, label_set)
    bad = ~np.isfinite(events["onset_s"]) | ~np.isfinite(events["offset_s"])
    bad |= events["offset_s"] < events["onset_s"]
    if bad.any():
        raise AsjaxError(
            "events must have finite times and no offset before its onset, got "
            f"{tuple(events[bad][0].tolist())}; asjax.events.repair corrects such lists"
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
    """A copy, sorted by onset, then offset, then class."""
    order = np.lexsort((events["class"], events["offset_s"], events["onset_s"]))
    return events[order]


# ------------------------------------------------------------------------------ lists to lists


def merge(events: np.ndarray, gap_s: float = 0.0) -> np.ndarray:
    """Join events of one class that overlap, touch, or are at most `gap_s` seconds apart."""
    if len(events) < 2:
        return in_order(events)
    by_class = events[np.lexsort((events["onset_s"], events["class"]))]
    classes, starts = np.unique(by_class["class"], return_index=True)
    merged = []
    for part in np.split(by_class, starts[1:]):
        reach = np.maximum.accumulate(part["offset_s"])
        first = np.r_[True, part["onset_s"][1:] > reach[:-1] + gap_s]
        group = part[first].copy()
        group["offset_s"] = reach[np.r_[np.flatnonzero(first)[1:] - 1, len(part) - 1]]
        merged.append(group)
    return in_order(np.concatenate(merged))


def cut(events: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    """The parts of events in [start_s, end_s), in seconds from start_s, without empty events."""
    inside = (events["offset_s"] > start_s) & (events["onset_s"] < end_s)
    inside &= events["offset_s"] > events["onset_s"]
    inside_events = events[inside].copy()
    for key in ("onset_s", "offset_s"):
        inside_events[key] = np.clip(inside_events[key], start_s, end_s) - start_s
    return inside_events


def longer_than(events: np.ndarray, min_s: float) -> np.ndarray:
    """The events of at least `min_s` seconds, with a tolerance of a nanosecond for rounding."""
    return events[events["offset_s"] - events["onset_s"] >= min_s - 1e-9]


def repair(events: np.ndarray, duration_s: float = np.inf) -> tuple[np.ndarray, Counter]:
    """A list without faults, and how often each fault of `FAULTS` occurred.

    Removed: events with times that are no numbers, with an offset before the onset, without
    length, or wholly outside the clip. Cut: events that reach beyond `duration_s` or begin before
    0. Joined: events of one class that overlap (events that only touch are not joined).
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
    """How many events begin before an earlier event of the same class ends."""
    by_class = events[np.lexsort((events["onset_s"], events["class"]))]
    count = 0
    for part in np.split(by_class, np.flatnonzero(np.diff(by_class["class"])) + 1):
        reach = np.maximum.accumulate(part["offset_s"])
        count += int((part["onset_s"][1:] < reach[:-1]).sum())
    return count


def _joined(events: np.ndarray) -> np.ndarray:
    """Like `merge`, but events that only touch are not joined."""
    joined = []
    for event in events[np.lexsort((events["onset_s"], events["class"]))]:
        last = joined[-1] if joined else None
        if last is None or last["class"] != event["class"] or event["onset_s"] >= last["offset_s"]:
            joined.append(event.copy())
        else:
            last["offset_s"] = max(last["offset_s"], event["offset_s"])
    return in_order(np.array(joined, EVENT))


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
    """Activity of each class in each frame: float32 [frames, num_classes] of 0 and 1.

    Args:
      frame_rate: frames per second (PretrainedSED: 25, frames of 40 ms).
      rule: "touched" marks every frame that an event touches. A boundary within a millionth of a
        frame from a frame edge counts as on the edge. "pretrained_sed" has no such tolerance and
        converts to samples at `sample_rate` first, so a boundary on an edge can mark one frame
        more. "centre" marks frames with their centre c in onset <= c <= offset (HEAR: DCASE 2016,
        MAESTRO).
      single: round times to float32 first, as the published PretrainedSED data set stores them.
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
    _check_rule(rule)
    kind = np.float32 if single else np.float64
    onset, offset = (np.asarray(t, kind).astype(np.float64) for t in (onset_s, offset_s))
    if rule == "centre":
        # HEAR tests the frame centres against intervals [start, end + 0.1 us) in milliseconds.
        first = np.ceil(onset * frame_rate - 0.5 - 1e-9)
        end = np.ceil((offset + 1e-7) * frame_rate - 0.5)
        first, end = (np.clip(f, 0, frames).astype(np.int64) for f in (first, end))
        return first, np.maximum(first, end)
    if rule == "touched":
        first, end = _on_edges(onset * frame_rate), _on_edges(offset * frame_rate)
    else:
        per_frame = sample_rate / frame_rate
        first, end = onset * sample_rate / per_frame, offset * sample_rate / per_frame
    first = np.floor(np.clip(first, 0, frames)).astype(np.int64)
    end = np.ceil(np.clip(end, 0, frames)).astype(np.int64)
    return first, np.where(offset > onset, np.maximum(first, end), first)


def _on_edges(x):
    """Positions in frames; a position within a millionth of a frame edge moves to the edge."""
    whole = np.rint(x)
    return np.where(np.abs(x - whole) < 1e-6, whole, x)


def _check_rule(rule: str):
    if rule not in RULES:
        raise unknown("rule", rule, RULES)


def from_frames(
    active, *, frame_rate: float = 25.0, duration_s: float = np.inf, rule: str = "touched"
) -> np.ndarray:
    """Contiguous active frames as events: `EVENT` array in time order.

    Args:
      active: [T, C], bool or a number (active above 0). duration_s: latest end of an event. An
        event that would begin at or after it is left out.
      rule: "centre": from the centre of the first frame to the centre of the last (HEAR), so an
        event of one frame has length 0. Others: from the start of the first frame to the end of
        the last.
    """
    active = np.asarray(active) > 0
    edge = np.zeros((1, active.shape[1]), np.int8)
    steps = np.diff(active.astype(np.int8), axis=0, prepend=edge, append=edge)
    labels, first = np.nonzero(steps.T == 1)
    _, end = np.nonzero(steps.T == -1)
    events = np.empty(len(first), EVENT)
    _check_rule(rule)
    inward = 0.5 if rule == "centre" else 0.0
    events["onset_s"] = (first + inward) / frame_rate
    events["offset_s"] = (end - inward) / frame_rate
    events["class"] = labels
    events = events[events["onset_s"] < duration_s]
    events["offset_s"] = np.minimum(events["offset_s"], duration_s)
    return in_order(events)


def weak(events: np.ndarray, num_classes: int) -> np.ndarray:
    """The clip's labels, float32 [num_classes]: 1 where a class has an event."""
    target = np.zeros(num_classes, np.float32)
    target[events["class"]] = 1.0
    return target


# ----------------------------------------------------------------------------------------- text


def to_text(events) -> str:
    """Events (onset_s, offset_s, class id) as one field of a table; None (not annotated) is "-".

    The text is "onset offset id;onset offset id;..." in seconds. `from_text` reads exactly the same
    numbers.
    """
    if events is None:
        return "-"
    return ";".join(f"{float(a)!r} {float(b)!r} {label}" for a, b, label in events)


def from_text(text: str) -> list[tuple[float, float, str]] | None:
    """The events that `to_text` wrote. AsjaxError: any other text."""
    if text == "-":
        return None
    try:
        parts = (part.split(" ", 2) for part in text.split(";") if part)
        return [(float(onset), float(offset), label) for onset, offset, label in parts]
    except ValueError:
        raise AsjaxError(f"events are damaged: {text[:60]!r} is no list of events") from None


def relabelled(events: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Events in another label set, without the classes that it does not have.

    Args:
      table: bool [C, D], True where class i means class j, as from `labels.mapping`.
    """
    which, label = np.nonzero(table[events["class"]])
    moved = events[which].copy()
    moved["class"] = label
    return in_order(moved)
