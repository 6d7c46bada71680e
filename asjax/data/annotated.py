"""The source `annotated`: recordings with a list of events, in pieces of one clip length.

A long recording is cut into consecutive pieces, so that every second of it trains or is scored.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError, shown, warn
from asjax.data import content, strong, strong_clips
from asjax.data.lists import SPLIT_HINT, split_name
from asjax.data.source import Source, chosen, matrix, sha256

_LISTED = 5
_said: set = set()
_SHORTEST_S = 0.02  # a shorter rest of a recording is no piece


def annotated(
    label_set,
    *,
    events,
    root=None,
    piece_s: float = 10.0,
    label_column: str = "",
    empty: bool = False,
    splits=None,
    folds: int = 0,
    of=None,
) -> Source:
    """Recordings below `root` (default: the folder of the list) with events in time.

    Args:
      events: a list of events, or several: all kinds that `asjax.data.strong.read` knows. Only
        recordings in a list are clips. A column `split` or `fold` gives their splits.
      piece_s: seconds of a piece; the last piece of a recording may be shorter. 0: no pieces.
      label_column: the column of the class, if it has no usual name.
      empty: take a list without any event too.
      folds, of, splits: as for the other sources; pieces of one recording are in one fold.

    A recording that cannot be read is one clip. The reader of the audio reports it, as it does for
    other sources.

    Raises:
      AsjaxError: unusable lists, a recording without audio or in two splits, or unknown classes.
        Other faults of the lists are repaired, and a warning counts them.
    """
    if isinstance(piece_s, bool) or not isinstance(piece_s, (int, float)) or not 0 <= piece_s <= 60:
        raise AsjaxError(f"piece_s must be 0 to 60 seconds, got {piece_s!r}")
    paths = [Path(p) for p in ([events] if isinstance(events, (str, Path)) else events)]
    if not paths:
        raise AsjaxError("data source annotated needs events, a list of events")
    rows = [row for path in paths for row in strong.read(path, label_column)]
    index = strong_clips.AudioIndex(paths[0].parent if root is None else root)
    split_of = _splits(paths[0], rows)
    files = _files(paths[0], split_of, index)
    seconds = {name: _seconds(path, os.stat(path).st_mtime_ns) for name, path in files.items()}
    tidied = strong.tidy(rows, label_set, seconds.get)
    _say(paths[0], tidied, label_set, empty)
    if rest := len(set(index.by_stem.values()) - set(files.values())):
        _once(
            f"list of events {shown(paths[0])}: {rest} other audio files below "
            f"{shown(index.folder)} are in no line and are not used; a line with only a file name "
            "says that it has no event"
        )
    names, places = list(files), list(files.values())
    prints = content.digests(places, [os.path.getsize(place) for place in places])
    begin_s, row, marks, ids = [], [], [], []
    for i, name in enumerate(names):
        for start, end in pieces(seconds[name], piece_s):
            whole = piece_s == 0 or seconds[name] <= piece_s or seconds[name] == math.inf
            begin_s.append(start)
            row.append(i)
            marks.append(lists.cut(tidied.events[name], start, end))
            ids.append(name if whole else f"{name}@{start:g}s")
    texts = [f"{name}\t{digest}" for name, digest in zip(names, prints, strict=True)]
    texts += [f"{clip}\t{lists.to_text(m.tolist())}" for clip, m in zip(ids, marks, strict=True)]
    texts += [f"{name}\t{split}" for name, split in split_of.items() if split != "train"]
    source = Source(
        paths[0].stem,
        ids,
        [sys.intern(split_of[names[i]]) for i in row],
        matrix([np.unique(m["class"]).astype(np.int64) for m in marks], label_set),
        sha256(label_set.hash, f"{piece_s:g}", *texts),
        places,
        np.array(row, np.int64),
        pcm16_hz=None,
        group=[sys.intern(names[i]) for i in row],
        events=Pieces(marks),
        begin_s=np.array(begin_s) if piece_s else None,
        piece_s=float(piece_s),
    )
    return chosen(source, splits, "", label_set, folds, of)


def pieces(seconds: float, piece_s: float) -> list[tuple[float, float]]:
    """(begin, end) of the consecutive pieces of a recording; all of it if `piece_s` is 0.

    A recording of unknown length (inf) has one piece.
    """
    if not piece_s or seconds == math.inf:
        return [(0.0, min(seconds, piece_s or math.inf))]
    count = max(1, math.ceil((seconds - _SHORTEST_S) / piece_s))
    return [(i * piece_s, min(seconds, (i + 1) * piece_s)) for i in range(count)]


class Pieces(Sequence):
    """The events of clips: `pieces[i]` -> `EVENT` array."""

    def __init__(self, marks):
        self.ends = np.cumsum([0, *map(len, marks)], dtype=np.int64)
        self.marks = np.concatenate([np.zeros(0, lists.EVENT), *marks])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        i = range(len(self))[i]
        return self.marks[self.ends[i] : self.ends[i + 1]]

    def select(self, which) -> Pieces:
        return Pieces([self[int(i)] for i in which])


def _files(path, names, index) -> dict[str, str]:
    """Recording -> audio file. AsjaxError: some have none, or two recordings have the same."""
    files = {name: index.find(name) for name in names}
    if missing := [name for name, file in files.items() if file is None]:
        more = ", ..." if len(missing) > _LISTED else ""
        raise AsjaxError(
            f"list of events {shown(path)}: {len(missing)} of {len(files)} recordings have no "
            f"audio below {shown(index.folder)}: {', '.join(map(shown, missing[:_LISTED]))}{more}; "
            + (
                "the list has no column such as filename, so its own name counts as that of the "
                "recording; name the column filename, or give"
                if missing == [strong.recording_of(path)]
                else "remove their lines, or give"
            )
            + " the folder of the audio (--audio, or root= of annotated)"
        )
    owner: dict[str, str] = {}
    for name, file in files.items():
        if (other := owner.setdefault(file, name)) != name:
            raise AsjaxError(
                f"list of events {shown(path)}: {shown(other)} and {shown(name)} are the same "
                f"file, {shown(file)}; use one name"
            )
    return files


def _splits(path, rows) -> dict[str, str]:
    """Recording -> split, "train" without a column for it, in the order of the list.

    Raises:
      AsjaxError: the name of a split is unusable, or a recording is in two splits.
    """
    split_of: dict[str, str] = {}
    for row in rows:
        name, bad = split_name(row.split) if row.split is not None else ("train", False)
        if bad:
            raise AsjaxError(
                f"list of events {shown(path)}: {row.where} has the split {name!r}; {SPLIT_HINT}"
            )
        if (other := split_of.setdefault(row.recording, name)) != name:
            raise AsjaxError(
                f"list of events {shown(path)}: {shown(row.recording)} is in the splits {other} "
                f"and {name} ({row.where}); all lines of a recording must have one split"
            )
    return split_of


@lru_cache(maxsize=1 << 20)
def _seconds(path: str, changed_ns: int) -> float:
    """The length of a recording; inf if it cannot be read. A run opens a list several times."""
    from asjax.data import audio

    try:
        return audio.info(path, note=lambda text: None).duration_s
    except AsjaxError:
        return math.inf


def _say(path, tidied, label_set, empty: bool) -> None:
    """Warn about repaired faults. AsjaxError: a class is not in the label set."""
    if tidied.unknown:
        most = ", ".join(f"{shown(k)!r} {n}" for k, n in tidied.unknown.most_common(_LISTED))
        raise AsjaxError(
            f"list of events {shown(path)}: {len(tidied.unknown)} labels are no classes of "
            f"{label_set.name}: {most}"
        )
    if not empty and not any(len(marks) for marks in tidied.events.values()):
        why = f": {'; '.join(tidied.lines())}" if tidied.counts else ""
        raise AsjaxError(f"list of events {shown(path)} has no usable event{why}")
    for line in tidied.lines(repaired=True):
        _once(f"list of events {shown(path)}: repaired {line}")


def _once(text: str) -> None:
    if text not in _said:  # a run opens a list several times
        _said.add(text)
        warn(text)
