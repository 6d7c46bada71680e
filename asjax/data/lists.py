"""Lists of audio files with labels: a CSV with the header `filename,labels[,fold]`."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError
from asjax.data import records
from asjax.labels import LabelSet

_LISTED = 10  # problems of a kind that a message names


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
    rows, problems = read_rows(csv_path, label_separator, split_column)
    encoded, hint = look_up(rows, label_set, problems)
    found = []
    for row, classes in zip(rows, encoded, strict=True):
        path = os.path.join(root, row.filename)
        size = _size(path)
        if size < 0 and not missing_ok:
            problems.setdefault("missing files", []).append(f"line {row.line} {row.filename!r}")
        found.append(Found(row, classes, path, size))
    refuse(csv_path, problems, hint)
    return found


def look_up(rows, label_set, problems) -> tuple[list[np.ndarray], str]:
    """Class indices of every row (sorted int64), and why the first unknown label is none.

    Unknown labels are added to `problems`.
    """
    encoded, hint, index = [], "", index_of(label_set)
    for row in rows:
        found = {label: index(label) for label in row.labels}
        for label, why in found.items():
            if isinstance(why, str):
                problems.setdefault("unknown labels", []).append(f"line {row.line} {label!r}")
                hint = hint or why
        classes = {i for i in found.values() if not isinstance(i, str)}
        encoded.append(np.array(sorted(classes), np.int64))
    return encoded, hint


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size if os.path.isfile(path) else -1
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return -1


def index_of(label_set):
    """`label -> class index, or (str) why there is none`."""
    # With ids such as "7", a digit that is no id would quietly become an index.
    no_index = any(label.isdigit() for label in label_set.ids)

    @cache
    def index(label):
        try:
            found = label_set.index(label)
        except AsjaxError as error:
            return str(error)
        if no_index and label.isdigit() and label not in label_set.ids:
            return f"label {label!r} is not a class of {label_set.name}"
        return found

    return index


def read_rows(path: Path, separator: str, split_column: str = ""):
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
        split, bad = split_name(cells[split_at].strip() if split_at is not None else "train")
        if bad:
            problem("unusable splits", repr(split))
            continue
        rows.append(Row(line, filename, labels, split))
    if not rows and not problems:
        raise AsjaxError(f"label list {path} has no rows")
    return rows, problems


def split_name(text: str) -> tuple[str, bool]:
    """A fold or split as TFDS can name it (`1` -> `fold1`), and whether it cannot."""
    name = f"fold{int(text)}" if text.isascii() and text.isdigit() else text
    return name, not records.is_split(name)


def refuse(path, problems: dict[str, list[str]], hint: str = ""):
    """AsjaxError if there are problems: the first ten of each kind, and a hint."""
    if not problems:
        return
    parts = []
    for kind, where in problems.items():
        more = f", and {len(where) - _LISTED} more" if len(where) > _LISTED else ""
        parts.append(f"{len(where)} {kind}: {', '.join(where[:_LISTED])}{more}")
    raise AsjaxError(f"label list {path}: {'; '.join(parts)}" + (f" ({hint})" if hint else ""))
