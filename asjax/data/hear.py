"""The source `hear`: a task of HEAR 2021 with events in time, in its published layout.

    TASK/16000/SPLIT/*.wav       long recordings (120 s), one folder per sample rate
    TASK/SPLIT.json              {file: [{"label", "start", "end"}, ...]}, in milliseconds
    TASK/labelvocabulary.csv     idx,label

The splits are train, valid, test (DCASE 2016 task 2), or fold00, fold01, ... (MAESTRO).
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from pathlib import Path

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError, quoted, shown, warn
from asjax.data import audio, content, standins
from asjax.data.annotated import Pieces, pieces
from asjax.data.source import Source, chosen, matrix, sha256
from asjax.labels import LabelSet

VOCABULARY = "labelvocabulary.csv"
_LISTED = 5
_said: set = set()


def hear(
    label_set,
    *,
    path,
    splits=None,
    piece_s: float = 10.0,
    rate: int = 16_000,
    folds: int = 0,
    of=None,
) -> Source:
    """The recordings of a task as consecutive pieces of `piece_s` seconds.

    An evaluation joins the scores of the pieces of a recording (asjax.evaluation.recordings). In
    training, the host op `random_piece` moves a piece to a random place of its recording. So an
    epoch has as many random pieces of a recording as it has consecutive ones: 12 of 120 s.

    Args:
      path: the unpacked folder of the task, or a folder with only this task in it.
        "standin:dcase16" and "standin:maestro" are small made-up tasks (asjax.data.standins).
      splits: names of SPLIT.json. rate: Hz, which of the task's folders of audio to take.
      folds, of: as for the other sources; the pieces of a recording are in one fold.

    Raises:
      AsjaxError: a file is missing or damaged, a label is not in the label set, or a time is no
        number of milliseconds from 0 on.
    """
    if isinstance(piece_s, bool) or not isinstance(piece_s, (int, float)) or not 0 < piece_s <= 60:
        raise AsjaxError(f"piece_s must be above 0 and at most 60 seconds, got {piece_s!r}")
    task = find(path)
    names, split, places, listed = [], [], [], []
    for part in _splits(task, rate):
        table = _table(task / f"{part}.json", label_set)
        _check_audio(task, rate, part, table.keys())
        names += [f"{part}/{name}" for name in table]
        split += [part] * len(table)
        places += [str(task / str(rate) / part / name) for name in table]
        listed += table.values()
    seconds = [_seconds(*item) for item in zip(places, names, strict=True)]
    _say(task, listed, seconds)
    sizes = [os.path.getsize(place) for place in places]
    texts = [f"{n}\t{d}" for n, d in zip(names, content.digests(places, sizes), strict=True)]
    texts += [f"{n}\t{lists.to_text(m.tolist())}" for n, m in zip(names, listed, strict=True)]
    begin_s, row, marks, ids = [], [], [], []
    for i, name in enumerate(names):
        apart = lists.repair(listed[i], seconds[i])[0]
        for start, end in pieces(seconds[i], piece_s):
            begin_s.append(start)
            row.append(i)
            marks.append(lists.cut(apart, start, end))
            ids.append(f"{name}@{start:g}s")
    source = Source(
        task.name,
        ids,
        [sys.intern(split[i]) for i in row],
        matrix([np.unique(m["class"]).astype(np.int64) for m in marks], label_set),
        sha256(label_set.hash, f"{piece_s:g}", *texts),
        places,
        np.array(row, np.int64),
        pcm16_hz=None,
        group=[sys.intern(names[i]) for i in row],
        events=Pieces(marks),
        begin_s=np.array(begin_s),
        piece_s=float(piece_s),
        recordings=dict(zip(names, zip(seconds, listed, strict=True), strict=True)),
    )
    return chosen(source, splits, "", label_set, folds, of)


def own_labels(path) -> LabelSet:
    """The classes of a task, in the order of its vocabulary. The set has the name of the folder."""
    task = find(path)
    file = task / VOCABULARY
    try:
        return vocabulary(file.read_text(encoding="utf-8-sig"), task.name, shown(file))
    except (OSError, UnicodeDecodeError) as error:
        raise AsjaxError(f"{shown(file)} cannot be read: {error}") from None


def vocabulary(text: str, name: str, where: str = VOCABULARY) -> LabelSet:
    """The label set `name` of the text of a vocabulary. AsjaxError: it is none."""
    try:
        rows = list(csv.reader(text.splitlines()))[1:]
    except csv.Error as error:
        raise AsjaxError(f"{where} cannot be read: {error}") from None
    if not rows or any(len(row) != 2 or row[0] != str(i) for i, row in enumerate(rows)):
        raise AsjaxError(f"{where} must have the columns idx,label with idx 0, 1, 2, ...")
    names = tuple(row[1] for row in rows)
    return LabelSet(name, names, names)


def find(path) -> Path:
    """The folder of a task: `path`, or the only folder with a vocabulary in it or in its `tasks`.

    Raises:
      AsjaxError: no such folder, or several.
    """
    path = standins.resolved(path)
    if (path / VOCABULARY).is_file():
        return path
    inside = sorted(f.parent for k in ("*", "tasks/*") for f in path.glob(f"{k}/{VOCABULARY}"))
    if len(inside) == 1:
        return inside[0]
    if path.is_file() and path.name.endswith((".tar.gz", ".tgz", ".tar")):
        raise AsjaxError(f"{shown(path)} must be unpacked first: tar -xf {shown(path)}")
    if inside:
        what = f"has {len(inside)} tasks, such as {shown(inside[0])}; give one of them"
    elif path.is_dir():
        what = f"has no {VOCABULARY}; give the unpacked folder of a HEAR task"
    else:
        what = "does not exist"
    raise AsjaxError(f"HEAR task {shown(path)} {what}")


def _splits(task: Path, rate: int) -> list[str]:
    """The splits: subfolders of the folder of audio with a list beside it."""
    folder = task / str(rate)
    if not folder.is_dir():
        rates = sorted(p.name for p in task.iterdir() if p.is_dir() and p.name.isdigit())
        raise AsjaxError(
            f"HEAR task {shown(task)} has no audio at {rate} Hz; rate must be one of its folders: "
            f"{', '.join(rates) or 'none'}"
        )
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    lacking = [name for name in names if not (task / f"{name}.json").is_file()]
    if lacking or not names:
        what = f"no list {lacking[0]}.json" if lacking else f"no splits in {folder.name}/"
        raise AsjaxError(f"HEAR task {shown(task)} has {what}; unpack it again")
    return names


def _table(file: Path, label_set) -> dict[str, np.ndarray]:
    """Recording -> its events as they are listed, which may overlap: `EVENT` array, in seconds."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AsjaxError(f"list {shown(file)} cannot be read: {error}") from None
    found = parse(table, shown(file), label_set)
    if name := next((name for name, (_, events) in found.items() if events is None), None):
        raise AsjaxError(
            f"list {shown(file)}, {shown(name)}: an event must have label, start and end in ms; "
            "asjax prepare hear makes records of a task with labels only"
        )
    return {name: events for name, (_, events) in found.items()}


def parse(table, file: str, label_set) -> dict[str, tuple[list[int], np.ndarray | None]]:
    """Recording -> (its classes, its events as `EVENT` array in seconds) of a parsed list.

    A list has either events in time or only labels; then the events are None.

    Raises:
      AsjaxError: another form, or a label that is no class.
    """
    if not isinstance(table, dict):
        raise AsjaxError(f"list {file} must be an object of files, got {quoted(table)}")
    label_of = {name: i for i, name in enumerate(label_set.ids)}
    rows_of = [row for rows in table.values() if isinstance(rows, list) for row in rows]
    timed = not rows_of or isinstance(rows_of[0], dict)
    out = {}
    for name, rows in table.items():
        if Path(name).name != name or not isinstance(rows, list):
            raise AsjaxError(
                f"list {file}: {shown(name)} must be a file name with a list of events"
            )
        if timed:
            events = [_event(row, file, name, label_of, label_set) for row in rows]
            events = lists.in_order(np.array(events, lists.EVENT))
            out[name] = (sorted(set(events["class"].tolist())), events)
        else:
            out[name] = (
                sorted({_label(row, file, name, label_of, label_set) for row in rows}),
                None,
            )
    return out


def _label(label, file, name, label_of, label_set) -> int:
    if not isinstance(label, str) or label not in label_of:
        raise AsjaxError(
            f"list {file}, {shown(name)}: label {quoted(label, 120)} is no class of "
            f"{label_set.name}; labels.name='own' takes the task's vocabulary"
        )
    return label_of[label]


def _event(row, file, name, label_of, label_set) -> tuple[float, float, int]:
    try:
        label, times = str(row["label"]), (row["start"], row["end"])
        if any(isinstance(t, bool) for t in times):
            raise TypeError
        start, end = (float(t) / 1000 for t in times)
        if not 0 <= start <= end < math.inf:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise AsjaxError(
            f"list {file}, {shown(name)}: an event must have label, start and end in ms, "
            f"with 0 <= start <= end, got {quoted(row, 120)}"
        ) from None
    return start, end, _label(label, file, name, label_of, label_set)


def _check_audio(task, rate, part, wanted) -> None:
    folder = task / str(rate) / part
    there = {p.name for p in folder.iterdir() if p.name.lower().endswith(audio.SUFFIXES)}
    if missing := sorted(wanted - there):
        raise AsjaxError(
            f"HEAR task {shown(task)}: {len(missing)} of {len(wanted)} recordings of {part}.json "
            f"are not in {rate}/{part}: {', '.join(map(shown, missing[:_LISTED]))}; unpack it again"
        )
    if more := sorted(there - wanted):
        _once(
            f"HEAR task {shown(task)}: {len(more)} files in {rate}/{part} are in no list, such as "
            f"{shown(more[0])}; they are not used"
        )


def _seconds(place: str, name: str) -> float:
    return audio.info(place, name=name, note=lambda text: None).duration_s


def _say(task, listed, seconds) -> None:
    """Warn about events that are joined or cut for frames and PSDS. Onset F keeps them."""
    counts: dict[str, int] = {}
    for marks, end in zip(listed, seconds, strict=True):
        for kind, count in lists.repair(marks, end)[1].items():
            counts[kind] = counts.get(kind, 0) + count
    if counts:
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        _once(f"HEAR task {shown(task)}: repaired for frames and PSDS, kept for onset F: {what}")


def _once(text: str) -> None:
    if text not in _said:  # a run opens a task several times
        _said.add(text)
        warn(text)
