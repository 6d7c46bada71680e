"""HDF5 files of others: read in blocks, after every size is checked.

A file can point to other files, and can claim any size. Links to elsewhere and sizes that its bytes
cannot hold are refused. h5py comes with `pip install asjax[hdf5]`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, quoted, shown
from asjax.store.files import reason

BLOCK = 64 << 20  # bytes that are read at once
_RATIO = 64  # logits are never compressed more than this
_NAME = 4096  # bytes of the longest name
MOST = 50_000_000  # clips


def module():
    """The package h5py. AsjaxError: it is not installed."""
    try:
        import h5py
    except ImportError:
        raise AsjaxError(
            "HDF5 files need h5py, which is not installed; pip install 'asjax[hdf5]'"
        ) from None
    return h5py


@contextlib.contextmanager
def opened(path) -> Iterator:
    """An HDF5 file for reading. AsjaxError: it is none, or it is damaged while it is read."""
    h5py, path = module(), Path(path)
    if not path.is_file():
        raise AsjaxError(f"no file {shown(path)}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except AsjaxError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise AsjaxError(f"{shown(path)} is not a sound HDF5 file: {reason(error)}") from None


def dataset(file, name: str, kinds: str, axes: int, ratio: int = _RATIO):
    """A dataset in the file, checked but not read.

    Args:
      kinds: numpy's letters of the allowed types; "S" also stands for texts of any length.
      ratio: by how much filters may have compressed the data at most.

    Raises:
      AsjaxError: no such dataset, another type or number of axes, data in another file, or more
        data than the file can hold.
    """
    h5py, where = module(), f"{shown(file.filename)}: dataset {name!r}"
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        there = ", ".join(sorted(map(quoted, list(file)[:8])))
        what = "is missing" if link is None else "points to another place"
        raise AsjaxError(f"{where} {what}; the file has {there or 'nothing'}")
    data = file[name]
    if not isinstance(data, h5py.Dataset):
        raise AsjaxError(f"{where} must be an array, it is a group")
    if data.external or data.is_virtual:
        raise AsjaxError(f"{where} has its numbers in another file; copy them into one file")
    text = h5py.check_string_dtype(data.dtype)
    kind = "S" if text is not None else data.dtype.kind
    if kind not in kinds or data.shape is None or len(data.shape) != axes:
        raise AsjaxError(
            f"{where} must have {axes} axes and a type of {kinds!r}, got {data.dtype} {data.shape}"
        )
    size, stored = math.prod(data.shape) * data.dtype.itemsize, data.id.get_storage_size()
    filters = data.id.get_create_plist().get_nfilters()
    if size > stored * (ratio if filters else 1) or stored > Path(file.filename).stat().st_size:
        raise AsjaxError(
            f"{where} claims {size:,} bytes, and the file has {stored:,} of them; is it cut off?"
        )
    if len(data) > MOST:
        raise AsjaxError(f"{where} has {len(data):,} rows, more than {MOST:,}")
    return data


def names(data, once: bool = True) -> list[str]:
    """The texts of a dataset of names. AsjaxError: one is too long, or with `once` is empty, is no
    UTF-8 or occurs twice. PANNs leaves the names empty of the clips that its packing did not find.
    """
    where, out = f"{shown(data.file.filename)}: dataset {data.name!r}", []
    if data.dtype.itemsize > _NAME:
        raise AsjaxError(f"{where}: names have {data.dtype.itemsize:,} bytes, at most {_NAME:,}")
    how = "strict" if once else "replace"
    for start in range(0, len(data), 65_536):
        for raw in data[start : start + 65_536].tolist():
            text = raw if isinstance(raw, str) else bytes(raw).rstrip(b"\0").decode("utf-8", how)
            if (once and not text) or len(text) > _NAME:
                raise AsjaxError(f"{where}: a name must not be empty or long, got {quoted(text)}")
            out.append(text)
    if once:
        check_once(out, where)
    return out


def check_once(names, where) -> None:
    """AsjaxError if a name occurs twice."""
    seen = set()
    for name in names:
        if name in seen:
            raise AsjaxError(f"{where}: {quoted(name)} occurs twice")
        seen.add(name)


def blocks(
    data, size: int = BLOCK, begin: int = 0, end: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of a dataset from row `begin` to row `end`, in blocks of about `size` bytes
    and whole chunks."""
    row = max(1, math.prod(data.shape[1:]) * data.dtype.itemsize)
    count = max(1, size // row)
    if data.chunks:
        count = max(1, round(count / data.chunks[0])) * data.chunks[0]
        if count * row > 8 * size:
            raise AsjaxError(
                f"{shown(data.file.filename)}: dataset {data.name!r} has chunks of "
                f"{data.chunks[0] * row:,} bytes, which are too large to read"
            )
    end = len(data) if end is None else min(end, len(data))
    for start in range(begin, end, count):
        yield start, data[start : min(start + count, end)]
