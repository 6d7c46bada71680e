"""Clips with events for `asjax prepare strong`: lists and audio files brought together."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from asjax.config import AsjaxError
from asjax.data import strong
from asjax.data.clips import Clip

_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aif", ".aiff", ".m4a", ".mp4", ".webm")
_DIFFER_S = 0.5  # by which a listed duration may differ from that of the file


@dataclass
class Found:
    """Clips to write, `(id, reason)` of those without audio, and what to tell the user."""

    clips: list[Clip] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: dict = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def clips(lists, weak_lists, audio, label_set, *, durations=(), faults="repair", label_column=""):
    """Clips of lists of events and of weak lists.

    Args:
      lists, weak_lists: (split, path) pairs. audio: folder, searched with all its subfolders.
      durations: lists of `filename seconds`, which count where the file is not asked.
      faults: "repair" mends the lists and says so, "refuse" raises.

    Raises:
      AsjaxError: unreadable lists, a clip in two splits, two audio files of one name, faults.
    """
    index, out = AudioIndex(audio), Found()
    listed: dict[str, float] = {}
    for path in durations:
        listed |= strong.read_durations(path)
    odd: list[str] = []

    def duration_of(name):
        path, key = index.find(name), strong.stem(name)
        given = listed.get(key, listed.get(f"Y{video_of(name)}"))
        real = _seconds(path) if path else None
        if given and real and abs(given - real) > _DIFFER_S:
            odd.append(f"{name} {given:g} s listed, {real:g} s")
        return min(filter(None, (given, real)), default=None)

    seen: dict[str, str] = {}
    for split, path in lists:
        rows = strong.read(path, label_column)
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
        out.lines.append(f"{len(index.by_id)} recordings were found by their YouTube id")
    if odd:
        out.notes["durations that differ"] = len(odd)
        out.lines.append(f"{len(odd)} durations differ from the files: {', '.join(odd[:3])}")
    return out


def _report(out, path, rows, tidied, label_set, faults):
    marked = sum(len(events) for events in tidied.events.values())
    out.lines.append(
        f"{Path(path).name}: {len(rows)} lines, {len(tidied.events)} recordings, {marked} events"
    )
    problems = tidied.lines()
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
    except AsjaxError:  # the writer says what is wrong with it
        return None


def video_of(name: str) -> str | None:
    """The YouTube id of AudioSet's names: `Y<id>`, `<id>_<start>`, `Y<id>_<start>_<end>`."""
    key = strong.stem(name)
    match = re.fullmatch(r"Y([\w-]{11})|Y?([\w-]{11})(_\d+(\.\d+)?){1,2}", key)
    return (match[1] or match[2]) if match else None


class AudioIndex:
    """Audio files below a folder: by relative path, by name without ending, by YouTube id."""

    def __init__(self, folder):
        self.folder, self.by_stem, self.by_video, self.twice = Path(folder), {}, {}, {}
        self.by_id = set()  # recordings that only their YouTube id led to a file
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
          AsjaxError: two files could be meant.
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
