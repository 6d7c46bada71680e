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
from asjax.labels import LabelSet

_LISTED = 10
_MAX_BYTES = 2 << 30
_SEPARATORS = ",;\t|"
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u201e": "\u201c", "\u00ab": "\u00bb"}
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_SPLITS = {
    "train", "training", "dev", "devel", "development", "val", "valid", "validation", "test",
    "testing", "eval", "evaluation",
}  # fmt: skip
_SPLIT_HINT = (
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
) -> list[Found]:
    """The rows of a list, checked against the label set and (unless `missing_ok`) the disk.

    Args:
      csv_path: the list; None or "" means that the folders below `root` are the classes.
      columns: names of columns, `{"file": ..., "labels": ..., "split": ..., "group": ...}`.

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
    say_unlabelled(place, rows)
    return entries


def read_rows(path, label_separator=None, split_column="", columns=None):
    """Usable rows, `{kind of problem: [where, ...]}`, and the layout of a CSV."""
    if label_separator == "":
        raise AsjaxError("label_separator must not be empty")
    if isinstance(columns, str):
        columns = layouts.parse_columns(columns)
    text = _text(path)
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

    If the folders below `root` have names of splits (train, test, ...), the folders below those
    are the classes.
    """
    root = Path(root)
    files, others = recordings.walk(root)
    if others:
        warn(recordings.passed_over(others))
    parts = [path.relative_to(root).parts for path in files]
    if not files:
        raise AsjaxError(f"folder {shown(root)} holds no audio, so it has no classes")
    by_split = all(len(p) > 2 and _is_split_folder(p[0]) for p in parts)
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
    hints += [_SPLIT_HINT] if "unusable splits" in problems else []
    parts = []
    for kind, where in problems.items():
        more = f", and {len(where) - _LISTED} more" if len(where) > _LISTED else ""
        parts.append(f"{len(where)} {kind}: {', '.join(where[:_LISTED])}{more}")
    text = f"label list {shown(path)}: {'; '.join(parts)}"
    raise AsjaxError(text + (f" ({'; '.join(hints)})" if hints else ""))


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


# ------------------------------------------------------------------------------------- text


def _text(path) -> str:
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise AsjaxError(f"label list {shown(path)} is larger than {_MAX_BYTES >> 30} GiB")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise AsjaxError(
            f"label list {shown(path)} does not exist{record_files.from_where(path)}"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AsjaxError(f"label list {shown(path)} cannot be read: {reason}") from None
    encoding = next((e for mark, e in _MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and len(data) > 3:  # UTF-16 without a mark: every second byte is 0
        if not any(data[1:64:2]):
            encoding = "utf-16-le"
        elif not any(data[0:64:2]):
            encoding = "utf-16-be"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AsjaxError(
            f"label list {shown(path)} cannot be read as UTF-8 CSV: line {line} holds the byte "
            f"0x{data[error.start]:02x}; save it as UTF-8"
        ) from None


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
