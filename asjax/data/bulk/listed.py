"""The lists of a set: every clip that it should have, with labels, split and perhaps events."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asjax.config import AsjaxError, shown, unknown
from asjax.data import audioset, strong
from asjax.data.bulk.units import youtube
from asjax.data.clips import Clip
from asjax.store import files

LISTS = {"balanced": "balanced_train", "unbalanced": "unbalanced_train", "eval": "eval"}
SPLITS = {  # a name of --splits -> (list, split in the records)
    "balanced": [("balanced", "balanced")],
    "unbalanced": [("unbalanced", "unbalanced")],
    "eval": [("eval", "eval")],
    "train": [("balanced", "train"), ("unbalanced", "train")],
}
SAME_S = 0.5  # starts that differ by less are the same segment
_COLUMNS = ("id", "list", "split", "labels", "twice")


@dataclass
class Listed:
    """Every line of the lists.

    Attributes:
      clips: per line a clip without audio. lists: per line the name of its list.
      spans: per line (start_s, end_s) in the recording, or None.
      twice: line -> why it is no clip of its own: its id stands on an earlier line.
      row: id -> its first line. without: line -> why it has no audio, known from the start.
    """

    clips: list[Clip] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    spans: list[tuple[float, float] | None] = field(default_factory=list)
    twice: dict[int, str] = field(default_factory=dict)
    row: dict[str, int] = field(default_factory=dict)
    without: dict[int, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)  # for the user
    notes: dict = field(default_factory=dict)  # for the manifest

    def __len__(self) -> int:
        return len(self.clips)

    def add(self, clip: Clip, name: str, span=None) -> None:
        at = len(self.clips)
        first = self.row.setdefault(clip.id, at)
        if first != at:
            self.twice[at] = f"it is also in the list {self.lists[first]}"
        self.clips.append(clip)
        self.lists.append(name)
        self.spans.append(span)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of all lines."""
        digest = hashlib.sha256()
        for clip, name, span in zip(self.clips, self.lists, self.spans, strict=True):
            parts = (clip.id, name, clip.split, clip.labels, clip.events, span)
            digest.update(repr(parts).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write id, list, split, labels and why a line is a duplicate, for the report."""
        with files.replacing(path) as new, new.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(_COLUMNS)
            for i, (clip, name) in enumerate(zip(self.clips, self.lists, strict=True)):
                labels = ";".join(clip.labels)
                out.writerow([clip.id, name, clip.split, labels, self.twice.get(i, "")])


def read(path: Path) -> Iterator[list[str]]:
    """The lines that `Listed.write` wrote: id, list, split, labels, twice."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if next(rows, None) != list(_COLUMNS):
                raise ValueError("its header is another one")
            yield from rows
    except (OSError, ValueError, csv.Error) as error:
        raise AsjaxError(f"{shown(path)} cannot be read: {files.reason(error)}") from None


def of_clips(clips, left_out=()) -> Listed:
    """Clips that have the path of their audio, such as the rows of a CSV, in one list per split.

    Args: left_out: (id, reason) of clips without audio.

    Raises:
      AsjaxError: an id occurs twice.
    """
    listed = Listed()
    for clip, reason in left_out:
        listed.without[len(listed)] = str(reason)
        listed.add(Clip(clip, "", (), ""), "without audio")
    for clip in clips:
        listed.add(clip, clip.split)
    if listed.twice:
        clip = listed.clips[min(listed.twice)].id
        raise AsjaxError(f"clip {clip!r} occurs twice; ids must be unique")
    return listed


def of_audioset(folder, splits: str, label_set, strong_lists=()) -> Listed:
    """The segments of AudioSet's lists in a folder.

    Args:
      splits: names of `SPLITS`, with commas.
      strong_lists: lists of events, `segment_id start end label`. With another label set than
        audioset527, only segments with events count, and their labels are the classes of these.

    Raises:
      AsjaxError: a list is missing, is cut, or has other classes; no such split.
    """
    weak = label_set.name == "audioset527"
    if not weak and not strong_lists:
        raise AsjaxError(f"--labels {label_set.name} needs --strong: the lists have audioset527")
    events, listed = _Events(strong_lists, label_set), Listed()
    for name, split in _chosen(splits):
        path, clips, cells = _find(Path(folder), LISTS[name]), [], {}
        table = audioset.read_segments(path, "audioset527", clips=clips)
        for i, (clip, start_s, end_s) in enumerate(clips):
            marks = events.of(clip, start_s)
            if not weak and marks is None:
                continue
            if weak:
                key = tuple(table.indices[table.indptr[i] : table.indptr[i + 1]].tolist())
                labels = cells.get(key)
                if labels is None:
                    labels = cells[key] = tuple(label_set.ids[c] for c in sorted(key))
            else:
                index = label_set.index
                labels = tuple(sorted({label for *_, label in marks}, key=index))
            listed.add(Clip(clip, "", labels, split, events=marks), name, (start_s, end_s))
    events.report(listed)
    if not len(listed):
        raise AsjaxError("no listed segment has events; is it the right list of events (--strong)?")
    return listed


def _chosen(splits: str) -> list[tuple[str, str]]:
    found = []
    for word in filter(None, map(str.strip, splits.split(","))):
        if word not in SPLITS:
            raise unknown("--splits: split", word, SPLITS)
        found += SPLITS[word]
    names = [name for name, _ in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise AsjaxError(f"--splits {splits} names the list {twice} twice")
    if not found:
        raise AsjaxError(f"--splits must name some of {', '.join(SPLITS)}")
    return found


def _find(folder: Path, name: str) -> Path:
    places = [folder / f"{name}_segments.csv{end}" for end in ("", ".gz")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise AsjaxError(
            f"--lists {shown(folder)} must hold AudioSet's {places[0].name} or {places[1].name}"
        )
    return path


class _Events:
    """The events of segments, `<id>_<start in ms>`."""

    def __init__(self, paths, label_set):
        self.paths, self.label_set = [str(path) for path in paths], label_set
        self.found: dict[str, list] = {}
        self.tidied = []
        self.used = 0
        for path in self.paths:
            tidied = strong.tidy(strong.read(path), label_set)
            self.tidied.append(tidied)
            for name, events in tidied.events.items():
                segment = youtube(name)
                if segment is None:
                    raise AsjaxError(
                        f"list of events {path}: {shown(name)} is no segment of AudioSet, such as "
                        "b0RFKhbpFJA_30000"
                    )
                marks = tuple((a, b, label_set.ids[c]) for a, b, c in events.tolist())
                self.found.setdefault(segment[0], []).append((segment[1], marks))

    def of(self, clip: str, start_s: float):
        """The events of a segment; None: it is not annotated."""
        for start, marks in self.found.get(clip, ()):
            if same_start(start, start_s):
                self.used += 1
                return marks
        return None

    def report(self, listed: Listed) -> None:
        for path, tidied in zip(self.paths, self.tidied, strict=True):
            listed.lines += [f"{Path(path).name}: repaired: {line}" for line in tidied.lines(True)]
            if tidied.unknown:
                count, most = sum(tidied.unknown.values()), tidied.unknown.most_common(5)
                listed.lines.append(
                    f"{Path(path).name}: {count:,} events of {len(tidied.unknown)} classes that "
                    f"{self.label_set.name} does not have are left out: "
                    + ", ".join(f"{name} {n}" for name, n in most)
                )
                listed.notes.setdefault("unknown classes", {})[Path(path).name] = dict(
                    tidied.unknown
                )
        if self.paths:
            count = sum(map(len, self.found.values()))
            listed.lines.append(
                f"{self.used:,} of {count:,} segments with events are in the lists of the splits"
            )


def same_start(found: float | None, start_s: float) -> bool:
    """Whether the number in a name is the start of the segment, in s, or from 1,000 on in ms."""
    if found is None or abs(found - start_s) < SAME_S:
        return True
    return found >= 1000 and abs(found / 1000 - start_s) < SAME_S
