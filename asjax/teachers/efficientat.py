"""EfficientAT's ensemble logits: float [N, 527] in a .npy file, and {name: row} in an index.

The index is the published pickle, which is read without running anything in it, or a JSON object,
or a CSV with the columns filename,index.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asjax import labels
from asjax.config import AsjaxError, counted, quoted, shown
from asjax.store import hdf5, schema
from asjax.store.files import reason
from asjax.store.logits_writer import Form
from asjax.teachers.forms import Foreign, check_width
from asjax.weights import torch_pickle

MOST_INDEX = 1 << 29  # bytes of an index file
_INTEGERS = {"i8": 8, "i4": 4, "i2": 2, "u4": 4, "u2": 2, "u1": 1, "i1": 1}


def read(paths, label_set, dtype) -> Foreign:
    arrays = [path for path in paths if path.suffix == ".npy"]
    if len(paths) != 2 or len(arrays) != 1:
        raise AsjaxError(
            "--form efficientat takes two files, the logits (.npy) and the index (.pkl, .json or "
            f".csv), got {', '.join(shown(path) for path in paths)}"
        )
    label_set = label_set or labels.get("audioset527")
    (array,), (index,) = arrays, [path for path in paths if path.suffix != ".npy"]
    try:
        data = np.load(array, mmap_mode="r", allow_pickle=False, max_header_size=4096)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise AsjaxError(f"{shown(array)} is not a sound .npy file: {reason(error)}") from None
    if getattr(data, "ndim", 0) != 2 or data.dtype.kind != "f":
        what = f"{data.dtype} {list(data.shape)}" if hasattr(data, "shape") else "an archive"
        raise AsjaxError(f"{shown(array)} must be floats [clips, classes], got {what}")
    check_width(data.shape[1], label_set, f"{shown(array)} {list(data.shape)}")
    table = _index(index)
    rows = np.array(list(table.values()), np.int64)
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(data):
        bad = next(name for name, row in table.items() if not 0 <= row < len(data))
        raise AsjaxError(
            f"{shown(index)}: {quoted(bad)} has row {table[bad]}, and {shown(array)} has "
            f"{len(data)} rows"
        )
    order = np.argsort(rows, kind="stable")
    if len(twice := np.flatnonzero(np.diff(rows[order]) == 0)):
        names = list(table)
        pair = [names[order[i]] for i in (twice[0], twice[0] + 1)]
        raise AsjaxError(
            f"{shown(index)}: {quoted(pair[0])} and {quoted(pair[1])} have the same row "
            f"{rows[order[twice[0]]]}"
        )
    ids, rows = [list(table)[i] for i in order], rows[order]

    def blocks():
        step = max(1, hdf5.BLOCK // max(1, data.itemsize * data.shape[1]))
        for start in range(0, len(rows), step):
            mine = rows[start : start + step]
            yield np.arange(start, start + len(mine)), {"clip": np.asarray(data[mine])}

    notes = []
    if len(data) > len(rows):
        more = counted(len(data) - len(rows), "row")
        notes.append(f"{more} of {shown(array)} without a name in the index")
    return Foreign(Form(label_set, dtype or "float16", clip=True), ids, blocks, notes=notes)


def _index(path: Path) -> dict[str, int]:
    """name -> row, from a pickle, a JSON object or a CSV. Nothing of a pickle is run."""
    if not path.is_file():
        raise AsjaxError(f"no file {shown(path)}")
    if path.stat().st_size > MOST_INDEX:
        raise AsjaxError(f"{shown(path)} has more than {MOST_INDEX:,} bytes")
    if path.suffix == ".csv":
        read = labels.read_rows(path, ("filename", "index"), "index")
        pairs = [(row["filename"], row["index"]) for row in read]
        hdf5.check_once([name for name, _ in pairs], shown(path))
        table = {name: int(row) if row.strip().isdecimal() else row for name, row in pairs}
    elif path.suffix == ".json":
        table = schema.read_json(path, MOST_INDEX)
    else:
        content = memoryview(path.read_bytes())
        table, _, _ = torch_pickle.load(content, {}, shown(path), len(content), "index file")
    if not isinstance(table, dict) or not table:
        raise AsjaxError(f"{shown(path)} must hold a dict of names and rows, and be not empty")
    out = {}
    for name, row in table.items():
        number = _number(row)
        if not isinstance(name, str) or number is None:
            raise AsjaxError(
                f"{shown(path)} must map names to rows, got {quoted(name)}: {quoted(row)}"
            )
        out[name] = number
    return out


def _number(value) -> int | None:
    """A row number; also of a numpy scalar in a pickle, which is not made but read."""
    if type(value) is int:
        return value
    args = getattr(value, "args", ())
    if str(getattr(value, "name", "")).endswith("multiarray.scalar") and len(args) == 2:
        kind, data = (getattr(args[0], "args", None) or ("",))[0], args[1]
        if isinstance(kind, str) and isinstance(data, bytes) and len(data) == _INTEGERS.get(kind):
            return int.from_bytes(data, "little", signed=kind[0] == "i")
    return None
