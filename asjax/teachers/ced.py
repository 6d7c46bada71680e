"""CED's stored scores of views: for each epoch and process a file logits_ep1_0.h5.

It has `topk_values` (probabilities), `topk_indexes` and `seeds`. Beside it logits_ep1_0.parquet (or
.csv) has the columns filename, start, end. An epoch is a view.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from asjax import labels
from asjax.config import AsjaxError, shown
from asjax.store import hdf5
from asjax.store.files import reason
from asjax.store.logits_writer import Form
from asjax.teachers.forms import Foreign

# Half a step of float16 beyond its smallest and largest probabilities: 0 and 1 stand for these.
_LOW, _HIGH = 2.0**-25, 1 - 2.0**-12


def read(paths, label_set, dtype) -> Foreign:
    label_set = label_set or labels.get("audioset527")
    files = _files(paths)
    epochs = sorted({epoch for epoch, _ in files})
    ids, views, draws, starts, tops = [], [], [], [0], set()
    for epoch, path in files:
        with hdf5.opened(path) as file:
            values = hdf5.dataset(file, "topk_values", "f", 2)
            indexes = hdf5.dataset(file, "topk_indexes", "iu", 2)
            seeds = hdf5.dataset(file, "seeds", "iu", 1)[:]
            names = _names(path)
            if not (values.shape == indexes.shape and len(values) == len(seeds) == len(names)):
                raise AsjaxError(
                    f"{shown(path)}: topk_values {values.shape}, topk_indexes {indexes.shape}, "
                    f"seeds {seeds.shape} and {len(names)} names do not fit together"
                )
            tops.add(values.shape[1])
        ids += names
        views += [epochs.index(epoch)] * len(names)
        draws += seeds.astype(np.int64).tolist()
        starts.append(len(ids))
    if len(tops) != 1 or not 1 <= min(tops) <= len(label_set):
        raise AsjaxError(
            f"CED's files must all have the same number of classes, got {sorted(tops)}"
        )

    def blocks():
        for (_, path), start in zip(files, starts, strict=False):
            with hdf5.opened(path) as file:
                for at, values in hdf5.blocks(file["topk_values"]):
                    classes = file["topk_indexes"][at : at + len(values)].astype(np.int64)
                    rows = np.arange(start + at, start + at + len(values))
                    yield rows, _arrays(values, classes, len(label_set), path)

    seen = {"count": len(epochs), "seed": 0, "ops": "CED"} if len(epochs) > 1 else None
    form = Form(label_set, dtype or "float32", clip=True, top=tops.pop(), views=seen)
    notes = ["the draw of a view is the seed that CED's code gave to torch"] if seen else []
    return Foreign(form, ids, blocks, views, draws, notes)


def _arrays(values, classes, count: int, path) -> dict:
    """Logits of stored probabilities, the highest first."""
    values = values.astype(np.float64)
    if not ((values >= 0) & (values <= 1)).all():  # NaN fails too
        raise AsjaxError(f"{shown(path)}: topk_values must be probabilities from 0 to 1")
    ordered = np.sort(classes, axis=1)
    if classes.min() < 0 or classes.max() >= count or (np.diff(ordered, axis=1) == 0).any():
        raise AsjaxError(
            f"{shown(path)}: topk_indexes must be different numbers from 0 to {count - 1}"
        )
    order = np.argsort(-values, axis=1, kind="stable")
    values = np.clip(np.take_along_axis(values, order, axis=1), _LOW, _HIGH)
    logits = np.log(values) - np.log1p(-values)
    return {"clip": logits, "classes": np.take_along_axis(classes, order, axis=1)}


def _files(paths) -> list[tuple[int, Path]]:
    """(epoch, HDF5 file) in the order of epochs, from files or from folders of such files."""
    found = []
    for path in paths:
        inside = sorted(path.glob("*ep*.h5")) if path.is_dir() else [path]
        if not inside:
            raise AsjaxError(f"{shown(path)} has no file logits_ep*_*.h5")
        for file in inside:
            if file.suffix not in (".h5", ".hdf5"):
                continue  # the index beside it is found by its name
            match = re.search(r"ep(\d{1,6})", file.stem)
            found.append((int(match[1]) if match else 1, file))
    if not found:
        raise AsjaxError("--form ced takes HDF5 files logits_ep*_*.h5, or their folder")
    return sorted(found)


def _names(path: Path) -> list[str]:
    """Ids of the rows: the name of the file, with `@` and the start for later chunks."""
    table = next((path.with_suffix(s) for s in (".parquet", ".csv")
                  if path.with_suffix(s).is_file()), None)  # fmt: skip
    if table is None:
        raise AsjaxError(f"{shown(path)} needs {path.stem}.parquet or .csv beside it, its names")
    if table.suffix == ".csv":
        rows = labels.read_rows(table, ("filename", "start"), "index")
        files, starts = [row["filename"] for row in rows], [row["start"] for row in rows]
    else:
        files, starts = _parquet(table)
    try:
        return [
            str(name) if float(start) == 0 else f"{name}@{float(start):g}s"
            for name, start in zip(files, starts, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise AsjaxError(f"{shown(table)} is damaged: {reason(error)}") from None


def _parquet(path: Path):
    try:
        from pyarrow import parquet
    except ImportError:
        raise AsjaxError(
            f"{shown(path)} needs pyarrow, which is not installed; convert it to {path.stem}.csv"
        ) from None
    try:
        table = parquet.read_table(path, columns=["filename", "start"])
        return table["filename"].to_pylist(), table["start"].to_pylist()
    except Exception as error:  # pyarrow has many kinds of errors
        raise AsjaxError(f"{shown(path)} is not a sound parquet file: {reason(error)}") from None
