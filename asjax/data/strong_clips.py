"""Clips with events for `asjax prepare strong`: the audio files for lists of events."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from asjax.config import AsjaxError
from asjax.data import strong
from asjax.data.clips import Clip

_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aif", ".aiff", ".m4a", ".mp4", ".webm")
_DIFFER_S = 0.5  # allowed difference between a listed duration and that of the file


@dataclass
class Found:
    """Clips to write, `(id, reason)` of clips without audio, notes for the manifest, messages."""

    clips: list[Clip] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: dict = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def clips(lists, weak_lists, audio, label_set, *, durations=(), faults="repair", label_column=""):
    """Clips from lists of events and from weak lists.

    Args:
      lists, weak_lists: (split, path) pairs. audio: folder, searched with all its subfolders.
      durations: lists of `filename seconds`. Of the listed and the file's duration, the smaller
        one is used.
      faults: "repair" repairs the lists and reports it, "refuse" raises an error.

    Raises:
      AsjaxError: unreadable lists, a clip in two splits, two audio files of one name, or faults.
    """
    index, out = AudioIndex(audio), Found()
    listed: dict[str, float] = {}
    for path in durations:
        listed |= strong.read_durations(path)
    odd: list[str] = []

    def duration_of(name):
        path, key = index.find(name), strong.stem(name)
        in_list = listed.get(key, listed.get(f"Y{video_of(name)}"))
        real = _seconds(path) if path else None
        if in_list and real and abs(in_list - real) > _DIFFER_S:
            odd.append(f"{name} {in_list:g} s in the list, {real:g} s in the file")
        return min(filter(None, (in_list, real)), default=None)

    seen: dict[str, str] = {}
    for split, path in lists:
        rows = strong.read(path, label_column)
        if found := {row.split for row in rows if row.split is not None} - {split, ""}:
            raise AsjaxError(
                f"list of events {path} has a column for splits ({', '.join(sorted(found))}), and "
                f"all its clips would be in {split}; give one list for each split: --events "
                "train=FILE eval=FILE"
            )
        tidied = strong.tidy(rows, label_set, duration_of)
        _report(out, path, rows, tidied, label_set, faults)
        for name, events in tidied.events.items():
            marks = tuple((a, b, label_set.ids[c]) for a, b, c in events.tolist())
            labels = tuple(label_set.ids[c] for c in sorted(set(events["class"].tolist())))
            _add(out, seen, index, split, path, name, labels, marks)
    for split, path in weak_lists:
        for name, words in strong.read_weak(path).items():
            labels = tuple(label_set.ids[i] for i in label_set.encode(words))
            _add(out, seen, index, split, path, name, labels, None)
    if index.by_id:
        out.lines.append(f"the files of {len(index.by_id)} recordings were found by YouTube id")
    if odd:
        out.notes["durations that differ"] = len(odd)
        out.lines.append(f"{len(odd)} durations differ from the files: {', '.join(odd[:3])}")
    return out


def _report(out, path, rows, tidied, label_set, faults):
    marked = sum(len(events) for events in tidied.events.values())
    out.lines.append(
        f"{Path(path).name}: {len(rows)} lines, {len(tidied.events)} recordings, {marked} events"
    )
    problems = tidied.lines(repaired=faults != "refuse")
    if tidied.unknown:
        most = ", ".join(f"{k!r} {n}" for k, n in tidied.unknown.most_common(10))
        problems.append(f"the unknown classes are: {most}")
    if not marked and any(row.label for row in rows):
        raise AsjaxError(
            f"list of events {path}: no event is left ({'; '.join(problems)}); is {label_set.name} "
            "the right label set (--labels)?"
        )
    if problems and faults == "refuse":
        raise AsjaxError(f"list of events {path}: {'; '.join(problems)}")
    out.lines += [f"  repaired: {line}" for line in problems]
    if tidied.counts:
        out.notes.setdefault("repaired", {})[Path(path).name] = dict(tidied.counts)
    if tidied.unknown:
        out.notes.setdefault("unknown classes", {})[Path(path).name] = dict(tidied.unknown)


def _add(out, seen, index, split, path, name, labels, marks):
    if name in seen:
        raise AsjaxError(f"recording {name!r} is in {seen[name]} and in {path}; ids must be unique")
    seen[name] = str(path)
    file = index.find(name)
    if file is None:
        out.left_out.append((name, "audio file does not exist"))
    else:
        out.clips.append(Clip(name, file, labels, split, events=marks))


def _seconds(path: str) -> float | None:
    from asjax.data import audio

    try:
        return audio.info(path).duration_s
    except AsjaxError:  # the writer reports the fault later
        return None


def video_of(name: str) -> str | None:
    """The YouTube id in a name of AudioSet: `Y<id>`, `<id>_<start>`, `Y<id>_<start>_<end>`."""
    key = strong.stem(name)
    match = re.fullmatch(r"Y([\w-]{11})|Y?([\w-]{11})(_\d+(\.\d+)?){1,2}", key)
    return (match[1] or match[2]) if match else None


class AudioIndex:
    """Finds audio files below a folder by relative path, by stem, or by YouTube id."""

    def __init__(self, folder):
        self.folder, self.by_stem, self.by_video, self.twice = Path(folder), {}, {}, {}
        self.by_id = set()  # recordings that were found only by their YouTube id
        if not self.folder.is_dir():
            raise AsjaxError(f"audio folder {folder} does not exist")
        for place, _, names in os.walk(self.folder):
            for name in sorted(names):
                if name.lower().endswith(_AUDIO):
                    path = os.path.join(place, name)
                    self._add(self.by_stem, strong.stem(name), path)
                    self._add(self.by_video, video_of(name) or strong.stem(name), path)

    def _add(self, table, key, path):
        if table.setdefault(key, path) != path:
            self.twice[id(table), key] = path

    def find(self, name: str) -> str | None:
        """The path of a recording's audio, or None.

        Raises:
          AsjaxError: two files match.
        """
        direct = self.folder / name
        if name and ".." not in Path(name).parts and direct.is_file():
            return str(direct)
        for table, key in ((self.by_stem, strong.stem(name)), (self.by_video, video_of(name))):
            if (id(table), key) in self.twice:
                raise AsjaxError(
                    f"recording {name!r} may be {table[key]} or {self.twice[id(table), key]}; give "
                    "its path below the audio folder in the list, or remove one"
                )
            if key in table:
                if table is self.by_video:
                    self.by_id.add(name)
                return table[key]
        return None
