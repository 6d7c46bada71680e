"""Where clips come from: record datasets, the embedded ESC-10, or a folder with a CSV.

`esc10`, `records` and `folder` are the names in configs. All take `splits` (which clips, default
all) and `labels_csv`, rows `filename,labels` as `asjax prepare enhance` writes them: the clips
whose ids stand under `filename` get these labels, the others keep theirs.

A source is random-access and says `source[i] -> {"id", "audio", "labels"}`, where audio is the
bytes of an audio file or its path (str) and labels are int64 class indices. Where events in time
are known there is also "events": an array of `asjax.events.EVENT`, or None for a clip in which none
are marked. Decoding is the
pipeline's. Sources pickle, open files lazily per process and may be read by many threads.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse

from asjax import labels as label_sets
from asjax.config import AsjaxError, unknown
from asjax.data import records as record_files
from asjax.data import strong
from asjax.labels import LabelSet

__all__ = ["esc10", "folder", "records"]

ESC10 = Path(__file__).parent.parent / "assets" / "esc10"
_LISTED = 10


@dataclass(frozen=True, repr=False, eq=False)
class Source:
    """Clips with labels.

    Attributes:
      name: for people.
      ids, split: one str per clip.
      labels: CSR int8 [N, C], 1 where the clip has the class.
      hash: SHA-256 (hex) over ids, labels and what is known of the audio: the recorded SHA-256 of
        every clip (records), or file names and sizes (folder: cheap, and the same on every
        machine; an edit that keeps the size is not seen).
    """

    name: str
    ids: list[str]
    split: list[str]
    labels: sparse.csr_matrix
    hash: str
    audio: Sequence  # audio[row] -> bytes or path
    row: np.ndarray  # int64 [N]: where clip i stands in `audio`
    events: Sequence | None = None  # events[i] -> EVENT array, or None: not marked

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i) -> dict:
        i = int(i)
        if not 0 <= i < len(self.ids):
            raise IndexError(f"clip must be 0 to {len(self) - 1}, got {i}")
        start, stop = self.labels.indptr[i : i + 2]
        classes = self.labels.indices[start:stop].astype(np.int64)
        example = {"id": self.ids[i], "audio": self.audio[int(self.row[i])], "labels": classes}
        return example if self.events is None else {**example, "events": self.events[i]}

    def __repr__(self) -> str:
        return f"Source({self.name}, {len(self)} clips, {self.hash[:12]})"

    def select(self, splits) -> Source:
        """The clips of the given split or splits, in their order here.

        Raises:
          AsjaxError: a split that does not exist, or none given.
        """
        known = set(self.split)
        asked = [splits] if isinstance(splits, (str, int)) else splits
        wanted = {_split(str(s))[0] if str(s) not in known else str(s) for s in asked}
        for split in sorted(wanted - known):
            raise unknown(f"{self.name}: split", split, known)
        if not wanted:
            raise AsjaxError(f"{self.name}: splits must name at least one of {sorted(known)}")
        if wanted == known:
            return self
        keep = np.flatnonzero([s in wanted for s in self.split])
        digest = _sha256(self.hash, *sorted(wanted))
        ids, split = [self.ids[i] for i in keep], [self.split[i] for i in keep]
        events = None if self.events is None else self.events.select(keep)
        labels, row = self.labels[keep], self.row[keep]
        return Source(self.name, ids, split, labels, digest, self.audio, row, events)


def own_labels(path, label_separator: str = ";") -> LabelSet:
    """The label set "own": the sorted distinct labels of a CSV, or that of a record dataset.

    The labels are both ids and display names. Raises AsjaxError for unusable rows.
    """
    path = Path(path)
    if path.is_dir():
        return LabelSet.from_csv(record_files.find(path) / "labels.csv", "own")
    rows, problems = _rows(path, label_separator)
    _refuse(path, problems)
    found = tuple(sorted({label for row in rows for label in row.labels}))
    return LabelSet("own", found, found)


def _chosen(source: Source, splits, labels_csv, label_set) -> Source:
    """What every source does in the end: other labels where a CSV gives them, then the splits."""
    if labels_csv:
        source = _relabelled(source, Path(labels_csv), label_set)
    return source if splits is None else source.select(splits)


def _relabelled(source: Source, path: Path, label_set) -> Source:
    """`source` with the labels of a CSV (`filename,labels`) for the ids that stand in it."""
    rows, problems = _rows(path, ";")
    classes, hint = _classes(rows, label_set, problems)
    place = {clip: i for i, clip in enumerate(source.ids)}
    strangers = [f"line {r.line} {r.filename!r}" for r in rows if r.filename not in place]
    if strangers:
        problems[f"ids that are not in {source.name}"] = strangers
    _refuse(path, problems, hint)
    new = {place[row.filename]: found for row, found in zip(rows, classes, strict=True)}
    old, lines = source.labels, [f"{i}\t{','.join(map(str, new[i]))}" for i in sorted(new)]
    encoded = [
        new[i] if i in new else old.indices[old.indptr[i] : old.indptr[i + 1]]
        for i in range(len(source))
    ]
    digest = _sha256(source.hash, *lines)
    return replace(source, labels=_matrix(encoded, len(label_set)), hash=digest)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _matrix(rows: list, classes: int) -> sparse.csr_matrix:
    """Sorted unique class indices per clip -> CSR int8 [N, classes]."""
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    columns = np.concatenate(rows) if rows else np.zeros(0)
    ones = np.ones(len(columns), np.int8)
    return sparse.csr_matrix((ones, columns.astype(np.int32), ends), (len(rows), classes))


# ------------------------------------------------------------------------------------ records


def esc10(
    label_set, *, splits=None, labels_csv="", verify: bool = False, convert: bool = False
) -> Source:
    """The 398 embedded recordings of ESC-10; splits `fold1` to `fold5`."""
    source = _read_records(label_set, ESC10, verify, convert, title="esc10")
    return _chosen(source, splits, labels_csv, label_set)


def records(
    label_set, *, path, splits=None, labels_csv="", verify: bool = False, convert: bool = False
) -> Source:
    """A record dataset, as `asjax prepare` writes it.

    Args:
      path: its folder. verify: check the SHA-256 of every shard.
      convert: accept another label set, and look every recorded id up in it (by mid or id).
    """
    source = _read_records(label_set, path, verify, convert)
    return _chosen(source, splits, labels_csv, label_set)


def _read_records(label_set, path, verify, convert, title="") -> Source:
    dataset = record_files.Dataset(path, verify=verify)
    theirs = dataset.manifest["label_set"]
    if not convert:
        what = f"{dataset.path} (label set {theirs['name']})"
        label_sets.check_hash(theirs["hash"], label_set.hash, what)
    ids, split, encoded, cells, marks = [], [], [], {}, []
    for clip, name, cell, *rest in dataset.rows():
        ids.append(clip)
        split.append(sys.intern(name))
        if cell not in cells:
            cells[cell] = label_set.encode([label for label in cell.split(";") if label])
        encoded.append(cells[cell])
        marks += rest[-1:] if dataset.strong else []
    if len(ids) != len(dataset.reader):
        raise AsjaxError(
            f"{dataset.path}/manifest.csv must have {len(dataset.reader)} rows, got {len(ids)}"
        )
    digest = _sha256(dataset.manifest["manifest_sha256"], label_set.hash)
    matrix = _matrix(encoded, len(label_set))
    rows = np.arange(len(ids), dtype=np.int64)
    name = title or dataset.manifest.get("name", dataset.path.name)
    events = strong.Marked(marks, label_set) if dataset.strong else None
    return Source(name, ids, split, matrix, digest, dataset.reader, rows, events)


# ------------------------------------------------------------------------------------- folder


@dataclass(frozen=True)
class Row:
    """A usable row of a folder's CSV; `line` counts from 1, the header included."""

    line: int
    filename: str
    labels: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Found:
    """A row looked up: class indices (sorted, int64), path, size in bytes (-1: no such file)."""

    row: Row
    classes: np.ndarray
    path: str
    size: int


def read_folder(
    csv_path, root, label_set: LabelSet, *, label_separator=";", split_column="", missing_ok=False
) -> list[Found]:
    """The rows of a folder's CSV, checked against the label set and (unless `missing_ok`) the disk.

    Raises:
      AsjaxError: one message listing the first ten of every kind of problem with line numbers.
    """
    csv_path, root = Path(csv_path), Path(root)
    if not root.is_dir():
        raise AsjaxError(f"audio folder {root} does not exist")
    rows, problems = _rows(csv_path, label_separator, split_column)
    encoded, hint = _classes(rows, label_set, problems)
    found = []
    for row, classes in zip(rows, encoded, strict=True):
        path = os.path.join(root, row.filename)
        size = _size(path)
        if size < 0 and not missing_ok:
            problems.setdefault("missing files", []).append(f"line {row.line} {row.filename!r}")
        found.append(Found(row, classes, path, size))
    _refuse(csv_path, problems, hint)
    return found


def _classes(rows, label_set, problems) -> tuple[list[np.ndarray], str]:
    """Class indices of every row (sorted int64), and why the first unknown label is none.

    Unknown labels are added to `problems`.
    """
    encoded, cache = [], {}
    # With ids such as "7", a digit that is no id would quietly become an index.
    no_index = any(label.isdigit() for label in label_set.ids)
    for row in rows:
        for label in row.labels:
            if label not in cache:
                cache[label] = _index(label_set, label, no_index)
            if isinstance(cache[label], str):
                problems.setdefault("unknown labels", []).append(f"line {row.line} {label!r}")
        classes = {cache[label] for label in row.labels if not isinstance(cache[label], str)}
        encoded.append(np.array(sorted(classes), np.int64))
    hints = [text for text in cache.values() if isinstance(text, str)]
    return encoded, hints[0] if hints else ""


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size if os.path.isfile(path) else -1
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return -1


def _index(label_set, label, no_index):
    """Class index, or (str) why there is none."""
    try:
        index = label_set.index(label)
    except AsjaxError as error:
        return str(error)
    if no_index and label.isdigit() and label not in label_set.ids:
        return f"label {label!r} is not a class of {label_set.name}"
    return index


def folder(
    label_set,
    *,
    csv,
    root=None,
    splits=None,
    labels_csv="",
    events_csv="",
    label_separator: str = ";",
    split_column: str = "",
) -> Source:
    """Audio files below `root` (default: where the CSV lies), listed in a CSV.

    Args:
      events_csv: rows `filename,onset,offset,event_label` (or what `asjax prepare strong` reads),
        in seconds; clips that it does not name have no marks. Faulty lists are refused.
      csv: rows `filename,labels[,fold]`. label_separator: between the labels of a clip.
      split_column: the column of the splits (default: `fold` or `split`, where there is one).
    """
    root = Path(csv).parent if root is None else root
    options = {"label_separator": label_separator, "split_column": split_column}
    found = read_folder(csv, root, label_set, **options)
    lines = [
        f"{f.row.filename}\t{f.size}\t{f.row.split}\t{','.join(map(str, f.classes))}" for f in found
    ]
    ids, events = [f.row.filename for f in found], None
    if events_csv:
        events, texts = strong.marked(events_csv, ids, label_set)
        lines += texts
    source = Source(
        Path(csv).stem,
        ids,
        [sys.intern(f.row.split) for f in found],
        _matrix([f.classes for f in found], len(label_set)),
        _sha256(label_set.hash, *lines),
        [f.path for f in found],
        np.arange(len(found), dtype=np.int64),
        events,
    )
    return _chosen(source, splits, labels_csv, label_set)


def _rows(path: Path, separator: str, split_column: str = ""):
    """Usable rows and `{kind of problem: [where, ...]}` of a folder's CSV."""
    if not separator:
        raise AsjaxError("label_separator must not be empty")
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            return _parse(path, csv.reader(f, skipinitialspace=True), separator, split_column)
    except FileNotFoundError:
        raise AsjaxError(f"label list {path} does not exist") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AsjaxError(f"label list {path} cannot be read as UTF-8 CSV: {error}") from None


def _parse(path, reader, separator, split_column):
    header = [cell.strip() for cell in next(reader, [])]
    wanted = ["filename", "labels"]
    split_column = split_column or next((c for c in ("fold", "split") if c in header), "")
    missing = [c for c in [*wanted, *filter(None, [split_column])] if c not in header]
    if missing:
        raise AsjaxError(
            f"label list {path} must start with the header filename,labels[,fold], "
            f"got {','.join(header) or 'nothing'}; missing: {', '.join(missing)}"
        )
    name_at, labels_at = header.index("filename"), header.index("labels")
    split_at = header.index(split_column) if split_column else None
    rows, problems, first = [], {}, {}

    def problem(kind, text):
        problems.setdefault(kind, []).append(f"line {line} {text}".rstrip())

    for cells in reader:
        line = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            kind = f"rows without exactly {len(header)} fields (quote labels that hold commas)"
            problem(kind, f"({len(cells)})")
            continue
        filename = cells[name_at].strip()
        labels = tuple(filter(None, map(str.strip, cells[labels_at].split(separator))))
        if not filename or not labels:
            problem("rows without filename or labels", repr(filename))
            continue
        key = os.path.normpath(filename)
        if key in first:
            problem("duplicate rows", f"{filename!r} (also line {first[key]})")
            continue
        first[key] = line
        split, bad = _split(cells[split_at].strip() if split_at is not None else "train")
        if bad:
            problem("unusable splits", repr(split))
            continue
        rows.append(Row(line, filename, labels, split))
    if not rows and not problems:
        raise AsjaxError(f"label list {path} has no rows")
    return rows, problems


def _split(text: str) -> tuple[str, bool]:
    """A fold or split as TFDS can name it (`1` -> `fold1`), and whether it cannot."""
    name = f"fold{int(text)}" if text.isascii() and text.isdigit() else text
    return name, not record_files.is_split(name)


def _refuse(path, problems: dict[str, list[str]], hint: str = ""):
    if not problems:
        return
    parts = []
    for kind, where in problems.items():
        more = f", and {len(where) - _LISTED} more" if len(where) > _LISTED else ""
        parts.append(f"{len(where)} {kind}: {', '.join(where[:_LISTED])}{more}")
    raise AsjaxError(f"label list {path}: {'; '.join(parts)}" + (f" ({hint})" if hint else ""))
