"""Readers of the forms in which people have a set: parquet, tar, HDF5 of PANNs and PaSST, files.

A reader knows of a source: its units, the names of the items of a unit in order, and the audio of
wanted items. Sizes are checked before memory is allocated. Names in an archive are only compared;
nothing is written to the disk under them.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from asjax.config import AsjaxError, shown, unknown, warn
from asjax.data import pcm16
from asjax.data.bulk import tars
from asjax.data.bulk.items import LABELS, Damaged, Item, as_list, checked
from asjax.data.bulk.units import AUDIO, SIZE, Unit
from asjax.data.containers import kinds
from asjax.store import hdf5
from asjax.store.files import reason

_HDF5 = (".h5", ".hdf5", ".hdf")
KINDS = {
    "parquet": (".parquet",),
    "tar": (".tar", ".tar.gz", ".tgz"),
    "panns": _HDF5,
    "passt": _HDF5,
    "files": AUDIO,
}
_IDS = ("video_id", "ytid", "youtube_id", "__key__", "id", "key", "fname", "filename")
_ROWS = 32  # of a parquet file at a time
_MOST_ROWS = 4_000_000  # of a parquet file
_LEAST = 256 << 20  # bytes that a group of rows may claim in any case
_RATIO = 64  # encoded audio is never compressed more than this
_SILENCE = 2048  # samples in HDF5 may be compressed as much
_PACKED = 66  # bytes of 527 packed bits
_OWN = ("a Parquet file", "an HDF5 file", "a tar archive", "a gzip archive")


def units(kind: str, place: str) -> list[Unit]:
    """The files of a source in a fixed order, as units that are not `divided` yet.

    Args: place: a file, or a folder that is searched with its subfolders.

    Raises:
      AsjaxError: no such source, or it has no file of this kind.
    """
    if kind not in KINDS:
        raise unknown("--from: kind", kind, KINDS)
    what = f"--from {kind}={shown(place)}"
    if not os.path.exists(place):
        raise AsjaxError(f"{what}: no such file or folder")
    if kind == "files" and not os.path.isdir(place):
        raise AsjaxError(f"{what} must be a folder of audio files")
    names = [""] if os.path.isfile(place) else _walk(place, KINDS[kind])
    if not names:
        raise AsjaxError(f"{what}: no file with the suffix {' or '.join(KINDS[kind][:4])}")
    if kind == "files":
        parts = range(0, len(names), SIZE)
        return [Unit(kind, place, names=tuple(names[i : i + SIZE])) for i in parts]
    made = [Unit(kind, place, name) for name in names]
    return [replace(unit, size=os.path.getsize(unit.path)) for unit in made]


def _walk(folder, suffixes) -> list[str]:
    """Files below a folder with one of the suffixes, sorted. Hidden ones are passed over, and a
    folder that links lead to again."""
    found, stack, seen = [], [""], set()
    while stack:
        place = stack.pop()
        try:
            status = os.stat(os.path.join(folder, place))
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(os.path.join(folder, place)) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = os.path.join(place, entry.name)
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        stack.append(name)
                    elif entry.name.lower().endswith(suffixes):
                        found.append(name)
        except OSError as error:
            raise AsjaxError(f"folder {shown(folder)} cannot be read: {reason(error)}") from None
    return sorted(found)


def instead(path: str) -> str:
    """What a file is that is not sound, as the end of a message; "" if that is not known."""
    try:
        with open(path, "rb") as file:
            found = kinds.kind(file.read(512))
    except OSError:
        return ""
    return "" if found is None or found.name in _OWN else f"; it is {found.name}"


def divided(unit: Unit) -> list[Unit]:
    """A file as units of about 4,096 rows; a tar is one unit. Damaged: it cannot be opened."""
    if unit.kind == "parquet":
        with _parquet(unit) as file:
            rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        spans, begin, held = [], 0, 0
        for i, count in enumerate(rows, 1):
            held += count
            if held >= SIZE or i == len(rows):
                spans.append((begin, i))
                begin, held = i, 0
        return [replace(unit, begin=a, end=b) for a, b in spans]
    if unit.kind in ("panns", "passt"):
        with _hdf5(unit) as file:
            count = len(hdf5.dataset(file, "audio_name", "S", 1))
        starts = range(0, count, SIZE)
        return [replace(unit, begin=a, end=min(a + SIZE, count)) for a in starts]
    return [unit]


def names(unit: Unit) -> list[str]:
    """The name of every item of a unit, in order. Damaged: the file cannot be read."""
    if unit.names:
        return list(unit.names)
    return {"parquet": _parquet_names, "tar": tars.names}.get(unit.kind, _hdf5_names)(unit)


def read(unit: Unit, wanted: set[int], max_bytes: int) -> Iterator[Item]:
    """The wanted items of a unit, in order.

    An item of more than `max_bytes` is not read; its audio is the reason.

    Raises:
      Damaged: the file cannot be read on from here.
    """
    if unit.names:
        for number in sorted(wanted):
            yield Item(number, os.path.join(unit.root, unit.names[number]))
        return
    readers = {"parquet": _parquet_items, "tar": tars.read, "panns": _panns_items}
    yield from readers.get(unit.kind, _passt_items)(unit, wanted, max_bytes)


# -------------------------------------------------------------------------------------- parquet


@contextlib.contextmanager
def _parquet(unit: Unit):
    """An open parquet file whose declared sizes are checked."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(unit.path) as file:
            about = file.metadata
            if about.num_rows > _MOST_ROWS:
                raise ValueError(f"it has {about.num_rows:,} rows, more than {_MOST_ROWS:,}")
            most = max(_LEAST, _RATIO * os.path.getsize(unit.path))
            for i in range(about.num_row_groups):
                if about.row_group(i).total_byte_size > most:
                    size = about.row_group(i).total_byte_size
                    raise ValueError(f"it claims {size:,} bytes for a group of rows")
            yield file
    except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, AsjaxError):
            raise
        raise Damaged(f"{shown(unit.path)} is not sound parquet: {reason(error)}") from None


def _columns(file) -> tuple[str, str | None]:
    """The columns of ids and of labels."""
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    tops = file.schema_arrow.names
    ids = next((name for name in _IDS if name in tops), None)
    if "audio.bytes" in leaves:
        column = file.schema.column(leaves.index("audio.bytes"))
        if column.physical_type != "BYTE_ARRAY" or column.logical_type.type == "STRING":
            raise ValueError("its audio.bytes must be bytes, and is text or numbers")
    if ids is None and "audio.path" in leaves:
        ids = "audio.path"
    if "audio.bytes" not in leaves or ids is None:
        raise ValueError(
            "it must have the columns audio (bytes, path) and video_id, and has "
            f"{', '.join(map(shown, tops[:12]))}"
        )
    return ids, next((name for name in LABELS if name in tops), None)


def _parquet_names(unit: Unit) -> list[str]:
    import pyarrow.compute

    with _parquet(unit) as file:
        ids, _ = _columns(file)
        groups = list(range(unit.begin, unit.end))
        column = file.read_row_groups(groups, columns=[ids]).column(0)
        if ids == "audio.path":
            column = pyarrow.compute.struct_field(column, "path")
        return [_text(value) for value in column.to_pylist()]


def _text(value) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


def _parquet_items(unit: Unit, wanted, max_bytes):
    with _parquet(unit) as file:
        _, labels = _columns(file)
        columns = ["audio.bytes", *([labels] if labels else [])]
        groups, at = list(range(unit.begin, unit.end)), 0
        for batch in file.iter_batches(_ROWS, row_groups=groups, columns=columns):
            audio = batch.column("audio").field("bytes")
            marks = batch.column(labels) if labels else None
            for i in range(len(batch)):
                if at + i in wanted:
                    data = audio[i].as_py() or b""
                    theirs = None if marks is None else as_list(marks[i].as_py())
                    yield Item(at + i, checked(data, max_bytes), theirs)
            at += len(batch)


# ----------------------------------------------------------------------------------------- HDF5


@contextlib.contextmanager
def _hdf5(unit: Unit):
    hdf5.module()  # its absence is no damage
    try:
        with hdf5.opened(unit.path) as file:
            yield file
    except Damaged:
        raise
    except AsjaxError as error:
        raise Damaged(str(error)) from None


def _hdf5_names(unit: Unit) -> list[str]:
    with _hdf5(unit) as file:
        data = hdf5.dataset(file, "audio_name", "S", 1)
        return hdf5.names(data, once=False)[unit.begin : unit.end]


def _classes(file, unit: Unit):
    """number -> classes by the file; PaSST's are packed bits. None: the file does not say."""
    if "target" not in file:
        return lambda number: None
    try:
        data = hdf5.dataset(file, "target", "buif", 2, ratio=_SILENCE)
        if len(data) < unit.end or data.shape[1] > 8192:
            raise AsjaxError(f"{shown(unit.path)}: its targets do not fit its clips")
        rows = data[unit.begin : unit.end]
    except AsjaxError as error:  # labels are those of the list in any case
        warn(f"{error}; the labels of the list are not compared with them")
        return lambda number: None
    if unit.kind == "passt" and rows.dtype == np.uint8 and rows.shape[1] == _PACKED:
        rows = np.unpackbits(rows, axis=1)
    return lambda number: np.flatnonzero(rows[number]).tolist()


def _panns_items(unit: Unit, wanted, max_bytes):
    with _hdf5(unit) as file:
        data = hdf5.dataset(file, "waveform", "if", 2, ratio=_SILENCE)
        size = data.dtype.itemsize
        kept = data.dtype.kind + str(size) in ("i2", "f4")
        if not kept or size * data.shape[1] > max_bytes or len(data) < unit.end:
            raise AsjaxError(
                f"{shown(unit.path)}: waveform must be int16 or float32 [clips, samples] with a "
                f"row for each audio_name, got {data.dtype} {data.shape}"
            )
        rate = _rate(file, unit)
        wav = pcm16.wav if size == 2 else _float_wav
        classes = _classes(file, unit)
        for start, block in hdf5.blocks(data, begin=unit.begin, end=unit.end):
            for number, row in enumerate(block, start - unit.begin):
                if number in wanted:
                    yield Item(number, wav(row, rate), classes(number))


def _rate(file, unit: Unit) -> int:
    """Hz of the waveforms; PANNs' files without the attribute have 32,000."""
    if "sample_rate" not in file.attrs:
        warn(f"{shown(unit.path)} does not say its sample_rate; it counts as 32,000 Hz, as PANNs'")
    given = np.ravel(file.attrs.get("sample_rate", 32_000))
    if given.size != 1 or given.dtype.kind not in "iuf" or not 100 <= given[0] <= 1_000_000:
        raise AsjaxError(f"{shown(unit.path)}: sample_rate must be one number of Hz")
    return int(given[0])


def _float_wav(row, rate: int) -> bytes:
    """A WAV of float32 samples."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, row, rate, subtype="FLOAT", format="WAV")
    return out.getvalue()


def _passt_items(unit: Unit, wanted, max_bytes):
    with _hdf5(unit) as file:
        data = hdf5.dataset(file, "mp3", "O", 1)
        if len(data) < unit.end:
            raise AsjaxError(f"{shown(unit.path)}: mp3 has fewer rows than audio_name")
        classes = _classes(file, unit)
        for number in sorted(wanted):
            value = np.asarray(data[unit.begin + number])
            if value.dtype != np.uint8 or value.ndim != 1:
                raise AsjaxError(f"{shown(unit.path)}: mp3 must hold bytes, got {value.dtype}")
            yield Item(number, checked(value.tobytes(), max_bytes), classes(number))
