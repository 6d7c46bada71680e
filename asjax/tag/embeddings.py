"""Files of embeddings: npz, parquet or CSV, written piece by piece."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from asjax.config import AsjaxError, shown

LAYER = "embedding"  # the model's output


def writer(path: Path) -> Callable:
    """The function that writes the format of `path`.

    It is called with (path, rows, dims, pieces, about). `rows` is the number of rows, `dims` the
    length of an embedding. `pieces(keys)` gives the rows piece by piece: {"file": list of names,
    and an array for each of `keys`}. `about` has "model" (the hash), "layer" and more.

    Raises:
      AsjaxError: an unknown format, or parquet without pyarrow.
    """
    kind = path.suffix.lower()
    if kind not in WRITERS:
        raise AsjaxError(f"--to {shown(path)} must end in {', '.join(WRITERS)}")
    if kind == ".parquet" and find_spec("pyarrow") is None:
        raise AsjaxError(
            f"--to {shown(path)}: parquet needs pyarrow, which is not installed; choose .npz"
        )
    return WRITERS[kind]


def text(name: str) -> str:
    """A file name as a text that every format can store; bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def write_npz(path: Path, rows: int, dims: int, pieces, about: dict) -> None:
    """file U [N], start_s and end_s float64 [N], embedding float32 [N, D], and as single values
    model, layer and about (JSON). `np.load` reads it without pickle."""
    width = max(len(text(name)) for piece in pieces(()) for name in piece["file"])
    columns = {
        "file": ((rows,), np.dtype(f"U{width}")),
        "start_s": ((rows,), np.dtype(np.float64)),
        "end_s": ((rows,), np.dtype(np.float64)),
        "embedding": ((rows, dims), np.dtype(np.float32)),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for key, (shape, dtype) in columns.items():
            found = pieces(() if key == "file" else (key,))
            blocks = ([text(n) for n in p["file"]] if key == "file" else p[key] for p in found)
            _member(archive, key, shape, dtype, blocks)
        singles = {"model": about["model"], "layer": about["layer"], "about": json.dumps(about)}
        for key, value in singles.items():
            value = np.array(value)
            _member(archive, key, (), value.dtype, [value])


def _member(archive, key: str, shape: tuple, dtype, blocks: Iterator) -> None:
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as file:
        npy.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).tobytes())


def write_csv(path: Path, rows: int, dims: int, pieces, about: dict) -> None:
    """file, start_s, end_s, model, layer, e0, e1, ...; nine digits give back each float32."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        first = ["file", "start_s", "end_s", "model", "layer"]
        out.writerow(first + [f"e{i}" for i in range(dims)])
        for piece in pieces(("start_s", "end_s", "embedding")):
            parts = zip(*(piece[k] for k in ("file", "start_s", "end_s", "embedding")), strict=True)
            for name, begin, end, row in parts:
                place = [text(name), f"{begin:.6f}", f"{end:.6f}", about["model"], about["layer"]]
                out.writerow(place + [f"{x:.9g}" for x in row])


def write_parquet(path: Path, rows: int, dims: int, pieces, about: dict) -> None:
    """The columns file, start_s, end_s, model, layer, embedding (a list of D float32)."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        {
            "file": pa.string(),
            "start_s": pa.float64(),
            "end_s": pa.float64(),
            "model": pa.dictionary(pa.int32(), pa.string()),
            "layer": pa.dictionary(pa.int32(), pa.string()),
            "embedding": pa.list_(pa.float32(), dims),
        },
        metadata={"asjax": json.dumps(about)},
    )
    with parquet.ParquetWriter(path, schema) as out:
        for piece in pieces(("start_s", "end_s", "embedding")):
            n, flat = len(piece["file"]), pa.array(piece["embedding"].reshape(-1))
            columns = [
                pa.array([text(name) for name in piece["file"]], pa.string()),
                pa.array(piece["start_s"]),
                pa.array(piece["end_s"]),
                *(pa.array([about[k]] * n).dictionary_encode() for k in ("model", "layer")),
                pa.FixedSizeListArray.from_arrays(flat, dims),
            ]
            out.write_table(pa.table(columns, schema=schema))


WRITERS = {".npz": write_npz, ".parquet": write_parquet, ".csv": write_csv}
