"""Label lists: CSV files as people and programs write them, and folders named by class.

Every list is read as rows (`Row`). One error has all problems of a list, with line numbers.
"""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unicodedata import normalize

import numpy as np

from asjax.config import AsjaxError, shown, warn
from asjax.data import layouts, recordings
from asjax.data import records as record_files
from asjax.data.names import File, Names
from asjax.data.text import text_of
from asjax.labels import LabelSet

_LISTED = 10
_SEPARATORS = ",;\t|"
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u201e": "\u201c", "\u00ab": "\u00bb"}
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_SPLITS = {
    "train", "training", "dev", "devel", "development", "val", "valid", "validation", "test",
    "testing", "eval", "evaluation",
}  # fmt: skip
SPLIT_HINT = (
    "the name of a split has only letters, digits and _, such as training_set; it must not begin "
    "with a digit and must not be 'all'"
)


@dataclass(frozen=True)
class Row:
    """A usable row of a list; `line` counts from 1, the header included."""

    line: int
    filename: str  # in NFC
    labels: tuple[str, ...]  # in NFC
    split: str
    group: str = ""
    names: tuple[str, ...] = ()  # possible names of the file; empty: `filename`


@dataclass(frozen=True)
class Found:
    """A row with its class indices (sorted, int64), path, and size in bytes (-1: no such file)."""

    row: Row
    classes: np.ndarray
    path: str
    size: int


def read_folder(
    csv_path,
    root,
    label_set: LabelSet,
    *,
    label_separator=None,
    split_column="",
    columns=None,
    missing_ok=False,
    say_negatives=True,
) -> list[Found]:
    """The rows of a list, checked against the label set and (unless `missing_ok`) the disk.

    Args:
      csv_path: the list; None or "" means that the folders below `root` are the classes.
      columns: names of columns, `{"file": ..., "labels": ..., "split": ..., "group": ...}`.
      say_negatives: warn about clips without labels; no such list may have only those.

    Raises:
      AsjaxError: one message with the first ten problems of every kind and their line numbers.
    """
    if not Path(root).is_dir():
        raise AsjaxError(
            f"audio folder {shown(root)} does not exist{record_files.from_where(root)}"
        )
    if csv_path:
        rows, problems, layout = read_rows(csv_path, label_separator, split_column, columns)
    else:
        asked = {
            "columns": columns,
            "label_separator": label_separator,
            "split_column": split_column,
        }
        if odd := [name for name, value in asked.items() if value]:
            raise AsjaxError(
                f"{odd[0]} belongs to a CSV, but the classes are the folders below {shown(root)}; "
                f"leave {odd[0]} out, or give the CSV too"
            )
        rows, problems, layout = tree(root)
    place = csv_path or root
    encoded, hint = classes(rows, label_set, problems)
    names, entries = Names(root), []
    for row, indices in zip(rows, encoded, strict=True):
        file = _find(names, row)
        if file.size < 0 and not missing_ok:
            problem = f"line {row.line} {shown(row.filename)!r}{file.hint}"
            problems.setdefault("missing files", []).append(problem)
        entries.append(Found(row, indices, file.path, file.size))
    if hint and layout.hint:
        hint = f"{hint}; this is the list of {layout.name}: {layout.hint}"
    refuse(place, problems, hint)
    if say_negatives:
        say_unlabelled(place, rows)
    return entries


def without_labels(path) -> str:
    """Why a file is no list of clips with labels; "": its header is that of one."""
    try:
        _opened(path, text_of(path), None, "")
    except AsjaxError:
        return "has no column of labels"
    return ""


def read_rows(path, label_separator=None, split_column="", columns=None):
    """Usable rows, `{kind of problem: [where, ...]}`, and the layout of a CSV."""
    if label_separator == "":
        raise AsjaxError("label_separator must not be empty")
    if isinstance(columns, str):
        columns = layouts.parse_columns(columns)
    text = text_of(path)
    header, reader, layout = _opened(path, text, columns, split_column)
    separator = layout.separator if label_separator is None else label_separator
    try:
        rows, problems = _parse(header, reader, layout, separator)
    except csv.Error as error:
        raise AsjaxError(f"label list {shown(path)} cannot be read as CSV: {error}") from None
    if not rows and not problems:
        raise AsjaxError(f"label list {shown(path)} has no rows")
    return rows, problems, layout


def tree(root):
    """As `read_rows`, for folders: the class of a clip is the name of its folder.

    If a folder below `root` has the name of a split (train, test, ...) and holds folders, those
    are the classes. Then every audio file must be at split/class/file. Folders whose names begin
    with a dot are skipped.

    Raises:
      AsjaxError: no audio, or audio that is not at split/class/file.
    """
    root = Path(root)
    files, others = recordings.walk(root)
    if others := [path for path in others if not hidden(path.relative_to(root).parts)]:
        warn(recordings.passed_over(others))
    parts = [path.relative_to(root).parts for path in files]
    parts = [names for names in parts if not hidden(names)]
    if not parts:
        raise AsjaxError(f"folder {shown(root)} holds no audio, so it has no classes")
    by_split = any(_fits_split(names) for names in parts)
    if by_split and (odd := ["/".join(names) for names in parts if not _fits_split(names)]):
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        splits = ", ".join(sorted({shown(names[0]) for names in parts if _fits_split(names)}))
        raise AsjaxError(
            f"folder {shown(root)} has the splits {splits}, so audio must be at split/class/file, "
            f"got {shown(odd[0])}{more}; move or rename it, or list the clips in a CSV"
        )
    rows, problems = [], {}
    for line, names in enumerate(parts, 1):
        filename = "/".join(names)
        if len(names) < 2 + by_split:
            problems.setdefault("audio files outside of any class folder", []).append(
                repr(shown(filename))
            )
            continue
        split, bad = split_name(names[0] if by_split else "train")
        if bad:
            problems.setdefault("unusable splits", []).append(repr(split))
        label = normalize("NFC", names[by_split])
        rows.append(Row(line, normalize("NFC", filename), (label,), split, "", (filename,)))
    return rows, problems, layouts.Layout("folder of folders", "", "")


def classes(rows, label_set, problems) -> tuple[list[np.ndarray], str]:
    """Class indices of every row (sorted int64), and the message for the first unknown label.

    Unknown labels are added to `problems`.
    """
    encoded, hint, index = [], "", index_of(label_set)
    for row in rows:
        results = {label: index(label) for label in row.labels}
        for label in row.labels:
            if isinstance(results[label], str):
                problem = f"line {row.line} {shown(label)!r}"
                problems.setdefault("unknown labels", []).append(problem)
                hint = hint or results[label]
        indices = {i for i in results.values() if not isinstance(i, str)}
        encoded.append(np.array(sorted(indices), np.int64))
    return encoded, hint


def index_of(label_set):
    """A cached function: label -> class index, or a message (str) if there is none."""
    # If ids are numbers such as "7", a number that is no id must not become an index.
    no_index = any(label.isdigit() for label in label_set.ids)
    return cache(lambda label: _index(label_set, label, no_index))


def say_unlabelled(place, rows) -> None:
    """Warn about clips without labels. AsjaxError: no clip has a label."""
    without = sum(not row.labels for row in rows)
    if without == len(rows):
        raise AsjaxError(f"label list {shown(place)} has no label in any of its rows")
    if without:
        warn(
            f"label list {shown(place)}: {without} of its {len(rows)} clips have no labels; each "
            "is a negative example of every class"
        )


def say_commas(place, labels) -> None:
    """Warn about labels with commas, because each may be several labels."""
    odd = [label for label in labels if re.search(r"[^\s,],[^\s,]", label)]
    if odd:
        warn(
            f"label list {shown(place)}: {len(odd)} labels hold commas, such as {shown(odd[0])!r}; "
            "each is one class. If commas separate labels, give label_separator=',' "
            "(--label-separator ,)"
        )


def split_name(text: str) -> tuple[str, bool]:
    """(the name of a split in TFDS, whether TFDS does not allow it); `1` -> `fold1`."""
    name = f"fold{int(text)}" if text.isascii() and text.isdigit() else text
    return name, not record_files.is_split(name)


def refuse(path, problems: dict[str, list[str]], hint: str = "") -> None:
    """Raise AsjaxError with the first ten problems of every kind, if there are any."""
    if not problems:
        return
    hints = [hint] if hint else []
    hints += [SPLIT_HINT] if "unusable splits" in problems else []
    parts = []
    for kind, where in problems.items():
        more = f", and {len(where) - _LISTED} more" if len(where) > _LISTED else ""
        parts.append(f"{len(where)} {kind}: {', '.join(where[:_LISTED])}{more}")
    text = f"label list {shown(path)}: {'; '.join(parts)}"
    raise AsjaxError(text + (f" ({'; '.join(hints)})" if hints else ""))


def hidden(names) -> bool:
    """Whether a file (by its parts) is in a folder whose name begins with a dot."""
    return any(name.startswith(".") for name in names[:-1])


def _fits_split(names) -> bool:
    """Whether a file (by its parts) is at split/class/file or deeper."""
    return len(names) > 2 and _is_split_folder(names[0])


def _is_split_folder(name: str) -> bool:
    return name.casefold() in _SPLITS or re.fullmatch(r"fold_?\d+", name.casefold()) is not None


def _index(label_set, label, no_index):
    """Class index, or a message (str) if there is none."""
    try:
        index = label_set.index(label)
    except AsjaxError as error:
        return f"{error}{_several(label_set, label)}"
    if no_index and label.isdigit() and label not in label_set.ids:
        return f"label {label!r} is not a class of {label_set.name}"
    return index


def _several(label_set, label: str) -> str:
    parts = [part.strip() for part in label.split(",")]
    try:
        label_set.encode(parts)
    except AsjaxError:
        return ""
    return "; it is several labels with commas: give label_separator=',' (--label-separator ,)"


def _find(names: Names, row: Row) -> File:
    tried = [names.find(name) for name in row.names or (row.filename,)]
    return next((file for file in tried if file.size >= 0), tried[0])


# ------------------------------------------------------------------------------------- cells


def _opened(path, text: str, columns, split_column):
    """(header, reader of the rows, layout), with the separator that gives a known header."""
    first = text[:64].lstrip()
    skip = first[:4].lower() == "sep=" and len(first) > 5  # Excel writes the separator like this
    separators = first[4] if skip else _SEPARATORS
    why, cells = None, 0
    for separator in separators:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True
        )
        try:
            header = next(reader, []) if not skip else (next(reader), next(reader, []))[1]
            header = [_unquoted(cell) for cell in header]
            layout = layouts.choose(header, columns, split_column)
        except AsjaxError as error:
            why, cells = (error, len(header)) if len(header) > cells else (why, cells)
            continue
        except csv.Error:
            continue
        if layout:
            keys = [name.casefold() for name in header if name]
            if twice := sorted({name for name in keys if keys.count(name) > 1}):
                raise AsjaxError(
                    f"label list {shown(path)}: its header has the column {shown(twice[0])} twice; "
                    "rename or remove one of them"
                )
            return header, reader, layout
    if why:
        raise AsjaxError(f"label list {shown(path)}: {why}")
    header = max((_header(text, s) for s in separators), key=len)
    raise AsjaxError(f"label list {shown(path)} {layouts.explain(header)}")


def _header(text: str, separator: str) -> list[str]:
    line = text.lstrip().splitlines()[0] if text.strip() else ""
    try:
        cells = next(csv.reader([line[:10_000]], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        cells = [line[:200]]
    return [_unquoted(cell) for cell in cells]


def _unquoted(cell: str) -> str:
    """A cell without spaces and quotes around it. The csv module removes only straight quotes."""
    cell = cell.strip()
    if len(cell) > 1 and _QUOTES.get(cell[0]) == cell[-1]:
        return cell[1:-1].strip()
    return cell


def _labels(cell: str, separator: str) -> tuple[str, ...]:
    """Labels of a cell. A printed list of strings (Python, numpy) is read as a list."""
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        parts = [a or b for a, b in _QUOTED.findall(cell)]
    else:
        parts = _unquoted(cell).split(separator) if separator else [_unquoted(cell)]
    return tuple(filter(None, (normalize("NFC", part.strip()) for part in parts)))


def _parse(header, reader, layout, separator):
    keys = [name.casefold() for name in header]
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
        named = dict(zip(keys, cells, strict=True))
        plain = {key: _unquoted(value) for key, value in named.items()}
        names = layout.names(plain) if layout.names else [plain[layout.file]]
        filename = normalize("NFC", names[0])
        if not filename:
            problem("rows without filename", "")
            continue
        key = os.path.normpath(filename)
        if key in first:
            problem("duplicate rows", f"{shown(filename)!r} (also line {first[key]})")
            continue
        first[key] = line
        split, bad = split_name(plain[layout.split] if layout.split else "train")
        if bad:
            problem("unusable splits", repr(shown(split)))
            continue
        group = plain[layout.group] if layout.group else ""
        labels = _labels(named[layout.labels], separator)
        names = tuple(names) if names != [filename] else ()
        rows.append(Row(line, filename, labels, split, group, names))
    return rows, problems
