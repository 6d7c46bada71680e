"""The source `unlabelled`, clips without labels, and `joined`, several sources as one.

A student learns such clips from its teacher alone (objective `distillation`). `source.labelled`
says which clips have labels, as `source.events[i] is None` says which have no events in time. The
host ops `multihot` and `strong` turn it into `has_weak`.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
from scipy import sparse

from asjax.config import AsjaxError, counted, quoted, shown, split_spec, warn
from asjax.data import audio, content, layouts, lists, recordings
from asjax.data.names import Names
from asjax.data.shared import Strings
from asjax.data.source import Source, matrix, sha256
from asjax.data.text import text_of

_BY_LABEL = ("class_queue", "importance", "weighted")  # draws that never draw a clip without labels
_LEARN = ("tagging", "classify", "auto", "detection")  # objectives that learn from labels only


def unlabelled(label_set, *, path: str = "", root=None, of="", load=None) -> Source:
    """Clips without labels; labels and events of `of` are taken away.

    Args:
      path: a folder (all audio below it), a CSV or TSV with a column of files such as filename
        (other columns have no effect), or a text file with one path in each line. An id is the path
        below the folder, or the name in the list.
      root: the folder of the listed files (default: that of the list).
      of: another source in place of a path, such as "soundscapes(clips=1000)".
      load: from the program: spec -> source.

    Raises:
      AsjaxError: no audio, listed files that do not exist or are listed twice.
    """
    if bool(path) == bool(of):
        raise AsjaxError("data source unlabelled needs path, or of, another source")
    if of:
        if root is not None:
            raise AsjaxError("data source unlabelled: root belongs to a list of files (path)")
        return _bare(load(of), label_set)
    ids, files, sizes = _folder(path, root) if os.path.isdir(path) else _list(path, root)
    prints = content.digests(files, sizes)
    lines = [f"{clip}\t{digest}" for clip, digest in zip(ids, prints, strict=True)]
    return Source(
        Path(path).resolve().stem,
        ids,
        ["train"] * len(ids),
        matrix([()] * len(ids), label_set),
        sha256("unlabelled", label_set.hash, *lines),
        files,
        np.arange(len(ids), dtype=np.int64),
        pcm16_hz=None,
        labelled=np.zeros(len(ids), bool),
    )


def _bare(source, label_set) -> Source:
    """A source without its labels and events."""
    if not isinstance(source, Source):
        raise AsjaxError("data source unlabelled: of must be one source of asjax, not joined ones")
    return replace(
        source,
        labels=matrix([()] * len(source), label_set),
        hash=sha256("unlabelled", source.hash),
        events=None,
        recordings=None,
        labelled=np.zeros(len(source), bool),
    )


def _folder(path, root):
    """(ids, files, sizes) of the audio below a folder, but not in folders that begin with a dot."""
    if root is not None:
        raise AsjaxError("data source unlabelled: root belongs to a list of files, not to a folder")
    found, others = recordings.walk(Path(path))
    below = [(file, file.relative_to(path).parts) for file in found]
    below = [(file, parts) for file, parts in below if not lists.hidden(parts)]
    if others := [one for one in others if not lists.hidden(one.relative_to(path).parts)]:
        warn(recordings.passed_over(others))
    if not below:
        raise AsjaxError(f"folder {shown(path)} holds no audio ({' '.join(audio.SUFFIXES)})")
    files = [str(file) for file, _ in below]
    ids = [normalize("NFC", "/".join(parts)) for _, parts in below]
    return ids, files, [os.path.getsize(file) for file in files]


def _list(path, root):
    """(ids, files, sizes) of a list. AsjaxError: files that do not exist or are listed twice."""
    root = Path(path).parent if root is None else root
    ids, files, sizes, problems, seen = [], [], [], {}, {}
    names = Names(root)
    for line, name in listed(path):
        key, file = os.path.normpath(name), names.find(name)
        if key in seen:
            where = f"line {line} {shown(name)!r} (also line {seen[key]})"
            problems.setdefault("duplicate rows", []).append(where)
        elif file.size < 0:
            where = f"line {line} {shown(name)!r}{file.hint}"
            problems.setdefault("missing files", []).append(where)
        seen.setdefault(key, line)
        ids.append(normalize("NFC", name))
        files.append(file.path)
        sizes.append(file.size)
    lists.refuse(path, problems)
    return ids, files, sizes


def listed(path) -> list[tuple[int, str]]:
    """(line, name) of the files in a list without labels.

    Raises:
      AsjaxError: it has neither a column of files nor one path in each line.
    """
    try:
        return _listed(path)
    except csv.Error as error:
        raise AsjaxError(f"list of files {shown(path)} cannot be read as CSV: {error}") from None


def _listed(path) -> list[tuple[int, str]]:
    lines = text_of(path).splitlines()
    first = next((k for k, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise AsjaxError(f"list of files {shown(path)} has no rows")
    for separator in ",;\t|":
        cells = next(csv.reader([lines[first]], delimiter=separator), [])
        header = [cell.strip().casefold() for cell in cells]
        column = next((header.index(name) for name in layouts.FILES if name in header), None)
        if column is not None:
            rows = csv.reader(lines[first + 1 :], delimiter=separator, skipinitialspace=True)
            found = [(first + 1 + rows.line_num, cells) for cells in rows if any(cells)]
            break
    else:
        column, found = 0, [(k + 1, [line]) for k, line in enumerate(lines) if line.strip()]
        if not lines[first].strip().lower().endswith(audio.SUFFIXES + audio.OTHER_SUFFIXES):
            raise AsjaxError(
                f"list of files {shown(path)} must have a column such as filename, or one path in "
                f"each line, got {shown(lines[first][:200])!r}"
            )
    if bad := [line for line, cells in found if len(cells) <= column or not cells[column].strip()]:
        lists.refuse(path, {"rows without filename": [f"line {line}" for line in bad]})
    if not found:
        raise AsjaxError(f"list of files {shown(path)} has no rows")
    return [(line, cells[column].strip()) for line, cells in found]


# ------------------------------------------------------------------------------- several sources


@dataclass(frozen=True, repr=False, eq=False)
class Joined:
    """The clips of several sources, one after the other. Attributes as those of `Source`."""

    parts: tuple
    name: str
    ids: list[str]
    split: list[str]
    labels: sparse.csr_matrix
    hash: str
    group: list[str] | None
    events: _Events | None
    labelled: np.ndarray | None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i) -> dict:
        part, i = _place(self.parts, int(i))
        example = dict(part[i])
        if self.labelled is not None:
            example.setdefault("labelled", 1.0)
        if self.events is not None:
            example.setdefault("events", None)
        return example

    def __repr__(self) -> str:
        return f"Joined({self.name}, {len(self)} clips, {self.hash[:12]})"

    def __getstate__(self) -> dict:
        texts = {k: Strings(v) for k, v in vars(self).items() if isinstance(v, list)}
        return {**vars(self), **texts}

    def pcm16(self, sample_rate: int) -> bool:
        return all(hasattr(one, "pcm16") and one.pcm16(sample_rate) for one in self.parts)


@dataclass(frozen=True)
class _Events:
    """The events of the clips of several sources; None for a clip of a source without events."""

    parts: tuple

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, i):
        part, i = _place(self.parts, int(i))
        events = getattr(part, "events", None)
        return None if events is None else events[i]


def _place(parts, i: int):
    """The part with clip i, and its number there. IndexError: there is no such clip."""
    for part in parts if i >= 0 else ():
        if i < len(part):
            return part, i
        i -= len(part)
    raise IndexError("no such clip")


def joined(label_set, *, of, load=None) -> Joined:
    """Several sources as one, such as labelled clips and `unlabelled(path="more/")`.

    Args:
      of: the sources, as calls: `joined(of=["records(path='a')", "unlabelled(path='b')"])`.
      load: from the program: spec -> source.

    Raises:
      AsjaxError: fewer than two sources, or an id that occurs in two of them.
    """
    if not isinstance(of, (list, tuple)) or len(of) < 2:
        raise AsjaxError(f"data source joined needs of, a list of two or more sources, got {of!r}")
    parts = tuple(load(one) for one in of)
    owner: dict[str, int] = {}
    for k, part in enumerate(parts):
        for clip in part.ids:
            if owner.setdefault(clip, k) != k:
                raise AsjaxError(
                    f"data source joined: clip {quoted(clip)} is in {_said(of[owner[clip]])} and "
                    f"in {_said(of[k])}; every id must occur once"
                )
    some = any(getattr(part, "events", None) is not None for part in parts)
    flags = [flags_of(part) for part in parts]
    groups = [getattr(part, "group", None) or part.ids for part in parts]
    return Joined(
        parts,
        "+".join(part.name for part in parts),
        [clip for part in parts for clip in part.ids],
        [name for part in parts for name in part.split],
        sparse.vstack([part.labels for part in parts], format="csr"),
        sha256("joined", *(part.hash for part in parts)),
        [name for group in groups for name in group],
        _Events(parts) if some else None,
        None if all(one.all() for one in flags) else np.concatenate(flags),
    )


def _said(spec) -> str:
    return quoted(spec if isinstance(spec, str) else split_spec(spec)[0])


# ------------------------------------------------------------------------------------- checks


def flags_of(source) -> np.ndarray:
    """bool [N]: which clips of a source have labels."""
    flags = getattr(source, "labelled", None)
    return np.ones(len(source), bool) if flags is None else np.asarray(flags)


def check(source, *, train: bool, draw: str = "", objective: str = "", ops=()) -> None:
    """AsjaxError if clips without labels would be negatives of every class, or never be drawn.

    Args: draw, objective, ops: names; "" and () are not checked.
    """
    without = int((~flags_of(source)).sum())
    if not without:
        return
    have = (
        f"{counted(without, 'clip')} of {source.name} {'have' if without > 1 else 'has'} no labels"
    )
    if objective in _LEARN:
        raise AsjaxError(
            f"{have}: objective {objective} learns from labels alone; take objective distillation "
            "with a teacher, or leave the clips out of data.train"
        )
    if draw in _BY_LABEL:
        raise AsjaxError(
            f"{have}: the draw {draw} would never draw them; take shuffle, or "
            "strong_weak(strong=..., weak=..., unlabelled=...), which sets their share"
        )
    if not train and not {"listed"} & set(ops):
        raise AsjaxError(f"{have}: they cannot be scored; leave them out of the evaluation")


def notes(source) -> list[str]:
    """A line about the training clips without labels, if there are any."""
    without = int((~flags_of(source)).sum())
    if not without:
        return []
    clips = counted(len(source), "training clip")
    return [f"data: {without:,} of {clips} have no labels and learn from the teacher alone"]
