"""Label tracks for Audacity and selection tables for Raven, one file per recording; also frame
scores and pictures.

A label is an event of a detector. Without events it is a stretch of time in which a class reaches
the threshold: the union of the windows with such a probability. Windows that touch or overlap
become one label.

Audacity: `onset offset label` in seconds, tabs between, no header (manual, "Importing and Exporting
Labels"). Raven: a header and tabs; the columns of BirdNET-Analyzer's tables.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from asjax.config import AsjaxError, shown
from asjax.store.files import replacing

RAVEN = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Species",
    "Score",
    "Begin File",
)
ENDINGS = {
    "audacity": ".txt",
    "raven": ".Table.1.selections.txt",
    "frames": ".tsv",
    "picture": ".png",
}
THRESHOLD = 0.5
_LONGEST = 150  # bytes of a name, because file systems allow 255 with the ending


class Label(NamedTuple):
    """A class in a stretch of time; `score` is the event's, or the highest of the windows."""

    onset_s: float
    offset_s: float
    index: int
    score: float


def merged(times, p, threshold: float, classes=None) -> list[Label]:
    """The labels of a recording, by onset, then offset, then class.

    Args:
      times: float [n, 2], begin and end of each window, in order. p: float32 [n, C].
      classes: indices of the wanted classes; default: all.
    """
    labels = []
    reached = np.asarray(p) >= np.float32(threshold)
    for c in range(reached.shape[1]) if classes is None else sorted(classes):
        for i in np.flatnonzero(reached[:, c]):
            (onset, offset), score = map(float, times[i]), float(p[i, c])
            if labels and labels[-1].index == c and onset <= labels[-1].offset_s:
                last = labels.pop()
                onset, score = last.onset_s, max(last.score, score)
            labels.append(Label(onset, offset, int(c), score))
    return sorted(labels)


def audacity(labels: list[Label], tags, sample_rate: int) -> str:
    """The text of a label track."""
    return "".join(f"{a:.6f}\t{b:.6f}\t{tags.labels[i]}\n" for a, b, i, _ in labels)


def raven(labels: list[Label], tags, sample_rate: int) -> str:
    """The text of a selection table. A selection has all frequencies that the model hears."""
    file = "".join(c if c.isprintable() else "?" for c in os.path.basename(tags.file))
    lines = ["\t".join(RAVEN)]
    for number, (a, b, i, score) in enumerate(labels, 1):
        place = [number, "Spectrogram 1", 1, f"{a:.6f}", f"{b:.6f}", 0, f"{sample_rate / 2:g}"]
        lines.append("\t".join(map(str, [*place, tags.labels[i], f"{score:.6f}", file])))
    return "\n".join(lines) + "\n"


def frames(file: Path, found, sample_rate: int, source) -> tuple[int, str]:
    """Write the frame probabilities of the chosen classes for sed_scores_eval."""
    from asjax.store.frame_scores import write_tsv

    tags = found.tags
    some = range(len(tags.labels)) if found.classes is None else sorted(found.classes)
    names = [tags.labels[i] for i in some]
    write_tsv(file, tags.frames[:, list(some)], names, frame_rate=tags.frame_rate)
    return len(tags.frames), "frame"


def picture(file: Path, found, sample_rate: int, source) -> tuple[int, str]:
    """Write the picture of a recording and its events."""
    from asjax.tag.picture import picture as png

    file.write_bytes(png(found, source, sample_rate))
    return len(found.events), "event"


class Written(NamedTuple):
    """A file that was written, and the number of its labels (or frames, events)."""

    path: Path
    labels: int
    noun: str = "label"


TEXTS = {"audacity": audacity, "raven": raven}
OTHERS = {"frames": frames, "picture": picture}


@dataclass(frozen=True)
class Tracks:
    """The files of one kind: label tracks, or frame scores or pictures of events.

    Attributes:
      kind: a key of ENDINGS. paths: name of a recording -> the file of its track.
    """

    kind: str
    paths: dict[str, Path]
    threshold: float = THRESHOLD
    classes: list[int] | None = None

    def refuse_existing(self) -> None:
        """Raise AsjaxError if a file is there already; the user may have edited it."""
        there = [path for path in self.paths.values() if os.path.lexists(path)]
        if there:
            raise AsjaxError(
                f"--{self.kind}: {len(there)} of {len(self.paths)} files exist already, first "
                f"{shown(there[0])}; choose another folder, or give --overwrite"
            )

    def write(self, tags, sample_rate: int, source=None) -> Written:
        """Write the file of a recording.

        Args:
          tags: of the recording, or its events as from `events.decoder`. source: what was tagged.
        """
        path = self.paths[tags.file]
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            if self.kind in OTHERS:
                return Written(path, *OTHERS[self.kind](temporary, tags, sample_rate, source))
            labels = self._labels(tags)
            text = TEXTS[self.kind](labels, tags, sample_rate)
            temporary.write_text(text, encoding="utf-8", newline="\n")
        return Written(path, len(labels))

    def _labels(self, tags) -> list[Label]:
        if hasattr(tags, "marks"):
            return [Label(*mark) for mark in tags.marks]
        return merged(tags.times, tags.windows, self.threshold, self.classes)


def paths(folder: str, kind: str, recordings, words) -> dict[str, Path]:
    """name of a recording -> the file of its track, all different.

    `words` are the files and folders that the user named. Below `folder` are the same folders as
    below the common folder of these. A track has the name of its recording, without the ending of
    the audio unless two would be the same.

    A picture of one recording may have the name of a .png file in place of a folder.

    Raises:
      AsjaxError: `folder` is a file.
    """
    if kind == "picture" and folder.lower().endswith(".png") and not os.path.isdir(folder):
        return _single(folder, recordings)
    for place in (Path(folder), *Path(folder).parents):
        if place.exists() and not place.is_dir():
            raise AsjaxError(f"--{kind} {shown(folder)} must be a folder, {shown(place)} is a file")
    full = {r.name: os.path.abspath(r.path) if r.path else "" for r in recordings}
    named = [os.path.abspath(word) for word in words if word != "-"]
    homes = [path if os.path.isdir(path) else os.path.dirname(path) for path in named]
    common = os.path.commonpath(homes) if homes else ""
    stems = {}
    for name, path in full.items():
        relative = os.path.relpath(path, common) if path else name.replace(" ", "-")
        stems[name] = os.path.splitext(relative)[0], relative
    counts = Counter(_folded(stem) for stem, _ in stems.values())
    out, taken = {}, set()
    for name, (stem, relative) in stems.items():
        base = _fit(stem if counts[_folded(stem)] == 1 else relative)
        unique, n = base, 1
        while _folded(unique) in taken:
            n += 1
            unique = f"{base}-{n}"
        taken.add(_folded(unique))
        out[name] = Path(folder, unique + ENDINGS[kind])
    return out


def _single(file: str, recordings) -> dict[str, Path]:
    if len(recordings) > 1:
        raise AsjaxError(
            f"--picture {shown(file)} is for one recording, got {len(recordings)}; give the name "
            "of a folder"
        )
    if not Path(file).absolute().parent.is_dir():
        raise AsjaxError(f"--picture {shown(file)}: its folder does not exist; make it first")
    return {recordings[0].name: Path(file)}


def _folded(name: str) -> str:
    """Equal for names that some file system takes for the same."""
    return normalize("NFC", name).casefold()


def _fit(name: str) -> str:
    """The name, with its last part shortened if it is too long for a file system."""
    head, last = os.path.split(name)
    data = os.fsencode(last)
    if len(data) > _LONGEST:
        mark = hashlib.sha256(data).hexdigest()[:12]
        last = f"{data[: _LONGEST - 13].decode(errors='ignore')}-{mark}"
    return os.path.join(head, last)
