"""Lists of events in time: AudioSet Strong, DESED, plain CSV, Audacity and Raven label tracks.

Every reader gives rows (recording, onset_s, offset_s, class as text). Reading does not check the
rows. `tidy` finds and repairs the faults of all lists of a set.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError, shown
from asjax.data.shared import Strings
from asjax.data.text import decoded
from asjax.labels import LabelSet

_FILE = ("filename", "file", "audio_id", "segment_id", "begin file", "audio_name")
_ONSET = ("onset", "start", "start_time_seconds", "begin time (s)", "start_s", "onset_s")
_OFFSET = ("offset", "end", "end_time_seconds", "end time (s)", "end_s", "offset_s")
_LABEL = ("event_label", "label", "class", "annotation", "event_class", "species", "common name")
_LISTED = 5
UNKNOWN, NAMELESS = "unknown classes", "events without a class"
_SPLIT = ("fold", "split")
# what happens to an event with a fault of events.FAULTS; the others are left out
_MENDED = {
    "events cut at the end": "",
    "onsets before the start": " (moved to 0 s)",
    "overlaps of one class": " (joined)",
}


@dataclass(frozen=True)
class Row:
    """One line of a list. A time is NaN if it is not a number. If label and times are None, the
    recording was annotated and this line has no event."""

    where: str  # file and line, for messages
    recording: str
    onset_s: float | None
    offset_s: float | None
    label: str | None
    split: str | None = None  # None: the list has no column for it


# -------------------------------------------------------------------------------------- reading


def read(path, label_column: str = "") -> list[Row]:
    """Rows of a list of events of any supported kind.

    Lists with a header, columns are found by their usual names:
      AudioSet Strong: `segment_id start_time_seconds end_time_seconds label`
      DESED: `filename onset offset event_label` (empty times: no event)
      Raven: selection tables. A table lists a selection once per view; it is read once.
    Lists without a header:
      Audacity's label track: `onset offset label`; the file has the name of the recording
      `filename onset offset label` or `filename scene onset offset label`
    Fields are separated by tabs, commas or semicolons. `.gz` files are read too.

    Args:
      label_column: the column of the class, if it has no usual name.

    Raises:
      AsjaxError: no such file, not text, a line with another number of fields, no known columns.
    """
    path = Path(path)
    text = _text(path)
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    # Audacity writes the frequencies of a selection on a second line that begins with \.
    lines = [(i, line) for i, line in lines if not line.startswith("\\")]
    if not lines:
        raise AsjaxError(f"list of events {path} is empty")
    separator = next((c for c in "\t;," if c in lines[0][1]), ",")
    quoting = csv.QUOTE_MINIMAL
    if separator == "\t" and not re.fullmatch('"[^"\t]*"(\t"[^"\t]*")*', lines[0][1]):
        quoting = csv.QUOTE_NONE  # a label may have a "; R writes all texts in quotes
    table = csv.reader(
        [line for _, line in lines], delimiter=separator, quoting=quoting, strict=True
    )
    try:
        rows = [(i, [c.strip() for c in row]) for (i, _), row in zip(lines, table, strict=True)]
    except (csv.Error, ValueError) as error:
        raise AsjaxError(f"list of events {path} cannot be read as a table: {error}") from None
    header = [cell.casefold() for cell in rows[0][1]]
    if any(name in header for name in (*_ONSET, *_LABEL, "event_labels")):
        return _with_header(path, header, rows[1:], label_column)
    return _without_header(path, rows)


def is_list(path) -> bool:
    """Whether a file is a list of events: by its header, or by the times in its first line."""
    try:
        first = next((line for line in _text(Path(path)).splitlines() if line.strip()), "")
    except AsjaxError:
        return False
    cells = [
        cell.strip() for cell in re.split("[\t;]" if re.search("[\t;]", first) else ",", first)
    ]
    header = [cell.casefold().strip('"') for cell in cells]
    if any(name in header for name in _ONSET) and any(name in header for name in _OFFSET):
        return True
    times = [_seconds(cell) for cell in cells[-3:-1]]
    return len(cells) in (3, 4, 5) and len(times) == 2 and all(t == t for t in times)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return decoded(data)
    except FileNotFoundError:
        raise AsjaxError(f"list of events {path} does not exist") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise AsjaxError(f"list of events {path} cannot be read as text: {error}") from None


def _column(header, names, path, what):
    for name in names:
        if name in header:
            return header.index(name)
    raise AsjaxError(
        f"list of events {path}: no column for the {what}; the header must have one of "
        f"{', '.join(names)}, got {', '.join(header)}"
    )


def _with_header(path, header, rows, label_column) -> list[Row]:
    onset_at = _column(header, _ONSET, path, "onset")
    offset_at = _column(header, _OFFSET, path, "offset")
    names = (label_column.casefold(),) if label_column else _LABEL
    label_at = _column(header, names, path, "class")
    file_at = next((header.index(name) for name in _FILE if name in header), None)
    split_at = next((header.index(name) for name in _SPLIT if name in header), None)
    view = "view" in header and "selection" in header
    out, seen = [], set()
    for number, cells in rows:
        cells += [""] * (len(header) - len(cells))  # editors drop empty fields at the end
        if len(cells) != len(header):
            raise _fields(path, number, len(header), len(cells))
        if view:  # Raven lists a selection once for the waveform and once for the spectrogram
            key = (cells[header.index("selection")], cells[onset_at], cells[offset_at])
            if key in seen:
                continue
            seen.add(key)
        name = cells[file_at] if file_at is not None else recording_of(path)
        split = cells[split_at] if split_at is not None else None
        times = cells[onset_at], cells[offset_at]
        out.append(_row(path, number, name, *times, cells[label_at], split))
    return out


def _without_header(path, rows) -> list[Row]:
    out = []
    for number, cells in rows:
        if len(cells) not in (3, 4, 5):
            raise _fields(path, number, "3, 4 or 5", len(cells))
        name = cells[0] if len(cells) > 3 else recording_of(path)
        out.append(_row(path, number, name, *cells[-3:]))
    known = out[0].onset_s == out[0].onset_s or out[0].offset_s == out[0].offset_s
    if not known:  # a header with other names must not count as a recording
        raise AsjaxError(
            f"list of events {path}: the first line is no known header and has no times: "
            f"{shown(','.join(rows[0][1]))}; expected filename,onset,offset,event_label, or onset, "
            "offset and label with tabs"
        )
    return out


def _fields(path, number, wanted, got) -> AsjaxError:
    return AsjaxError(f"list of events {path}, line {number}: must have {wanted} fields, got {got}")


def recording_of(path: Path) -> str:
    """The recording of a list without a column for it: `dir/a.Table.1.selections.txt` -> `a`."""
    return re.sub(r"(\.Table\.\d+)?(\.selections)?\.\w+(\.gz)?$", "", path.name)


def _row(path, number, name, onset, offset, label, split=None) -> Row:
    where = f"{path.name} line {number}"
    if not onset and not offset and not label:
        return Row(where, name, None, None, None, split)
    return Row(where, name, _seconds(onset), _seconds(offset), label, split)


def _seconds(text: str) -> float:
    try:  # a file with tabs between its fields may have decimal commas
        return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return math.nan


def read_weak(path, separator: str = ",") -> dict[str, list[str]]:
    """`filename event_labels` (DESED's weak list): recording -> labels."""
    path = Path(path)
    lines = [line for line in _text(path).splitlines() if line.strip()]
    header = [c.strip().casefold() for c in re.split("[\t;]", lines[0])] if lines else []
    if header[:1] != ["filename"] or "event_labels" not in header:
        raise AsjaxError(
            f"weak list {path} must have the columns filename and event_labels, with tabs between"
        )
    at, out = header.index("event_labels"), {}
    for number, line in enumerate(lines[1:], 2):
        cells = [c.strip() for c in re.split("[\t;]", line)]
        if len(cells) != len(header) or cells[0] in out:
            raise AsjaxError(
                f"weak list {path}, line {number}: must have {len(header)} fields and a filename "
                "that occurs once"
            )
        out[cells[0]] = [c.strip() for c in cells[at].split(separator) if c.strip()]
    return out


def lines_of(path) -> list[str]:
    """The lines of a text file without the empty ones, perhaps .gz; stripped."""
    return [line.strip() for line in _text(Path(path)).splitlines() if line.strip()]


def read_durations(path) -> dict[str, float]:
    """`filename duration`, with tabs or commas, with or without a header: recording -> seconds."""
    path, out = Path(path), {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        cells = [c.strip() for c in re.split("[\t,;]", line) if c.strip()]
        if not cells or (number == 1 and _seconds(cells[-1]) != _seconds(cells[-1])):
            continue
        seconds = _seconds(cells[-1])
        if len(cells) != 2 or not 0 < seconds < math.inf:
            raise AsjaxError(
                f"durations {path}, line {number}: must be filename and seconds above 0"
            )
        if out.setdefault(stem(cells[0]), seconds) != seconds:
            raise AsjaxError(f"durations {path}, line {number}: {cells[0]} has two durations")
    return out


def stem(name: str) -> str:
    """The name without folders and without an audio extension."""
    name = name.replace("\\", "/").rpartition("/")[2]
    return re.sub(r"\.(wav|flac|mp3|ogg|opus|m4a|aif|aiff|mp4|webm)$", "", name, flags=re.I)


def own_labels(event_lists, weak_lists=(), label_column: str = "") -> LabelSet:
    """The label set "own": the sorted labels of all lists."""
    words = {row.label for path in event_lists for row in read(path, label_column) if row.label}
    words |= {
        word for path in weak_lists for words_of in read_weak(path).values() for word in words_of
    }
    if not words:
        raise AsjaxError("the lists have no event, so there is no label for a label set")
    ids = tuple(sorted(words))
    return LabelSet("own", ids, ids)


# --------------------------------------------------------------------------------------- repairs


@dataclass
class Tidy:
    """The result of `tidy`: events per recording as EVENT arrays, and the faults with examples."""

    events: dict[str, np.ndarray] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unknown: Counter = field(default_factory=Counter)

    def lines(self, repaired: bool = False) -> list[str]:
        """One line per kind of fault; `repaired`: with what was done about it."""
        out = []
        for kind, count in sorted(self.counts.items()):
            more = ", ..." if count > len(self.examples[kind]) else ""
            done = _MENDED.get(kind, " (left out)") if repaired else ""
            out.append(f"{count} {kind}{done}: {', '.join(self.examples[kind])}{more}")
        return out


def tidy(rows, label_set, duration_of=None) -> Tidy:
    """Repair the events of every recording; see `asjax.events.repair` for the rules.

    Args:
      rows: of one or several lists. duration_of: recording -> seconds, or None if not known.
    """
    tidied, by_recording, known = Tidy(), {}, {}
    for row in rows:
        mine = by_recording.setdefault(row.recording, [])
        if row.label is None:
            continue
        if not row.label:
            _note(tidied, NAMELESS, f"{row.where} ({row.recording})")
            continue
        if row.label not in known:
            known[row.label] = _class(label_set, row.label)
        if known[row.label] is None:
            tidied.unknown[row.label] += 1
            _note(tidied, UNKNOWN, f"{row.where} {row.label!r}")
        else:
            mine.append((row.onset_s, row.offset_s, known[row.label], row.where))
    for name, mine in by_recording.items():
        events = np.array([event[:3] for event in mine], lists.EVENT)
        seconds = (duration_of(name) if duration_of else None) or math.inf
        tidied.events[name], counts = lists.repair(events, seconds)
        for kind, count in counts.items():
            first = _first(kind, events, seconds)
            _note(tidied, kind, f"{mine[first][3]} ({name})", count)
    return tidied


def _first(kind: str, events, seconds: float) -> int:
    """The index of the first event with which a list has this fault; later events keep it."""
    faulty = lambda end: lists.repair(events[:end], seconds)[1][kind] > 0  # noqa: E731
    return bisect_left(range(1, len(events)), True, key=faulty)


def _class(label_set, label: str) -> int | None:
    if label.isascii() and label.isdigit() and label not in label_set.ids:
        return None  # in a list, a number is not the index of a class
    try:
        return label_set.index(label)
    except AsjaxError:
        return None


def _note(tidied: Tidy, kind: str, example: str, count: int = 1):
    tidied.counts[kind] += count
    examples = tidied.examples.setdefault(kind, [])
    if len(examples) < _LISTED:
        examples.append(example)


# -------------------------------------------------------------------------------- for sources


class Marked(Sequence):
    """Events per clip, parsed when needed: `marked[i]` -> EVENT array, or None: not annotated."""

    def __init__(self, cells: list[str], label_set, chosen=None):
        self.cells, self.label_set = cells, label_set
        self.chosen = np.arange(len(cells)) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        marks = lists.from_text(self.cells[self.chosen[i]])
        return None if marks is None else lists.as_events(marks, self.label_set)

    def __getstate__(self) -> dict:
        """The state with texts as arrays, because workers share arrays (asjax.data.shared)."""
        return {**vars(self), "cells": Strings(self.cells)}

    def select(self, which) -> Marked:
        return Marked(self.cells, self.label_set, self.chosen[which])


def marked(path, ids, label_set) -> tuple[Marked, list[str]]:
    """Events of the clips `ids` of a folder from a list, and the same as texts for a hash.

    Raises:
      AsjaxError: the list has a fault, or a recording that is not a clip of the folder.
    """
    tidied = tidy(read(path), label_set)
    known = {stem(name): i for i, name in enumerate(ids)}  # label tracks have no audio extension
    known |= {name: i for i, name in enumerate(ids)}
    strangers = [name for name in tidied.events if name not in known]
    problems = tidied.lines()
    if strangers:
        problems.append(f"{len(strangers)} recordings that are no clips: {strangers[:_LISTED]}")
    if problems:
        raise AsjaxError(f"list of events {path}: {'; '.join(problems)}")
    cells = [lists.to_text(None)] * len(ids)
    for name, events in tidied.events.items():
        marks = ((a, b, label_set.ids[c]) for a, b, c in events.tolist())
        cells[known[name]] = lists.to_text(marks)
    return Marked(cells, label_set), cells
