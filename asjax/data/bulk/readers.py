"""Readers of the forms in which people have a set: parquet, tar, HDF5 of PANNs and PaSST, files.

A reader knows of a source: its units, the names of the items of a unit in order, and the audio of
wanted items. Sizes are checked before memory is allocated. Names in an archive are only compared;
nothing is written to the disk under them.
"""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from asjax.config import AsjaxError, shown, unknown
from asjax.data import pcm16
from asjax.data.bulk.units import AUDIO, SIZE, Unit, stem
from asjax.data.clips import Reason
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
_LABELS = ("labels", "label", "positive_labels", "mids", "target")
_ROWS = 32  # of a parquet file at a time
_MOST_ROWS = 4_000_000  # of a parquet file
_LEAST = 256 << 20  # bytes that a group of rows may claim in any case
_RATIO = 64  # encoded audio is never compressed more than this
_SILENCE = 2048  # samples in HDF5 may be compressed as much
_JSON = 1 << 20  # bytes of a .json in a tar


class Item(NamedTuple):
    """An item of a unit: its number, its audio (path, bytes, or the reason why there is none), and
    the labels that the source gives it: texts, numbers of classes, or None."""

    number: int
    audio: str | bytes | Reason
    labels: list | None = None


class Damaged(AsjaxError):
    """A file of a source cannot be read, or not on from here."""


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
    """Files below a folder with one of the suffixes, sorted. Hidden ones are passed over."""
    found, stack = [], [""]
    while stack:
        place = stack.pop()
        try:
            with os.scandir(os.path.join(folder, place)) as entries:
                for entry in entries:
                    name = os.path.join(place, entry.name)
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(name)
                    elif entry.name.lower().endswith(suffixes):
                        found.append(name)
        except OSError as error:
            raise AsjaxError(f"folder {shown(folder)} cannot be read: {reason(error)}") from None
    return sorted(found)


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
    return {"parquet": _parquet_names, "tar": _tar_names}.get(unit.kind, _hdf5_names)(unit)


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
    readers = {"parquet": _parquet_items, "tar": _tar_items, "panns": _panns_items}
    yield from readers.get(unit.kind, _passt_items)(unit, wanted, max_bytes)


def _checked(audio: bytes, most: int) -> bytes | Reason:
    if len(audio) > most:
        return _too_large(len(audio), most)
    return audio or Reason("the source has no bytes for it")


def _too_large(size: int, most: int) -> Reason:
    return Reason(f"{size / 2**20:.0f} MiB is more than {most / 2**20:.0f}; cut it into clips")


def _as_list(value) -> list | None:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, (list, tuple)) else None


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
    if ids is None and "audio.path" in leaves:
        ids = "audio.path"
    if "audio.bytes" not in leaves or ids is None:
        raise ValueError(
            "it must have the columns audio (bytes, path) and video_id, and has "
            f"{', '.join(map(shown, tops[:12]))}"
        )
    return ids, next((name for name in _LABELS if name in tops), None)


def _parquet_names(unit: Unit) -> list[str]:
    import pyarrow.compute

    with _parquet(unit) as file:
        ids, _ = _columns(file)
        groups = list(range(unit.begin, unit.end))
        column = file.read_row_groups(groups, columns=[ids]).column(0)
        if ids == "audio.path":
            column = pyarrow.compute.struct_field(column, "path")
        return ["" if value is None else str(value) for value in column.to_pylist()]


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
                    theirs = None if marks is None else _as_list(marks[i].as_py())
                    yield Item(at + i, _checked(data, max_bytes), theirs)
            at += len(batch)


# ------------------------------------------------------------------------------------------ tar


class _Member(tarfile.TarInfo):
    """A member of an archive that knows whether its end mark was seen. Python's tarfile takes a
    cut or damaged header for the end, without a word."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            archive.ended = True
            raise


def _members(unit: Unit, more: tuple[str, ...] = (".json",)):
    """(archive, member) of every audio file of a tar, and of files with the endings `more`, in
    order. A member that is no plain file, such as a link, is passed over."""
    with _sound(unit), tarfile.open(unit.path, tarinfo=_Member) as archive:
        archive.ended = False
        for member in archive:
            if member.isfile() and member.name.lower().endswith((*AUDIO, *more)):
                yield archive, member
            archive.members = []  # tarfile would keep all of them
        if not archive.ended:
            raise tarfile.ReadError(f"no end mark after {archive.offset:,} bytes")


@contextlib.contextmanager
def _sound(unit: Unit):
    """Errors of a tar become Damaged."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, AsjaxError):
            raise
        raise Damaged(f"{shown(unit.path)} is cut or damaged: {reason(error)}") from None


def _content(archive, member, unit) -> bytes:
    with _sound(unit):
        data = archive.extractfile(member).read()
    if len(data) < member.size:
        raise Damaged(f"{shown(unit.path)} is cut in {shown(member.name)}")
    return data


def _tar_names(unit: Unit) -> list[str]:
    found = []
    try:
        for _, member in _members(unit):
            if not member.name.lower().endswith(".json"):
                found.append(member.name)
    except Damaged:
        if not found:
            raise  # else the reading reports it, after the sound members
    return found


def _tar_items(unit: Unit, wanted, max_bytes):
    """Items with the labels in a .json of the same name, which may come before or after them."""
    number, held, labels_of = -1, None, ("", None)
    try:
        for archive, member in _members(unit):
            if member.name.lower().endswith(".json"):
                labels_of = (_key(member.name[:-5]), _tar_labels(archive, member, unit))
                if held is not None and held[0] == labels_of[0]:
                    item, held = held[1]._replace(labels=labels_of[1]), None
                    yield item
                continue
            number += 1
            if held is not None:
                item, held = held[1], None
                yield item
            if number in wanted:
                key = _key(member.name)
                labels = labels_of[1] if labels_of[0] == key else None
                held = (key, Item(number, _tar_audio(archive, member, unit, max_bytes), labels))
    except Damaged:
        if held is not None:
            yield held[1]
        raise
    if held is not None:
        yield held[1]


def texts(unit: Unit, endings: tuple[str, ...], most: int) -> tuple[dict, dict[str, int]]:
    """Of a tar: {name: text} of the members with these endings, and {name: item} of the audio.

    Args: most: bytes of a text.

    Raises:
      Damaged: the tar is damaged, or a text is larger or no UTF-8.
    """
    found: dict[str, str] = {}
    place: dict[str, int] = {}
    number = 0
    for archive, member in _members(unit, endings):
        name = os.path.normpath(member.name)
        if name.endswith(endings):
            if member.size > most:
                raise Damaged(f"{shown(unit.path)}: {shown(name)} has {member.size:,} bytes")
            data = _content(archive, member, unit)
            try:
                found[name] = data.decode("utf-8-sig")
            except UnicodeDecodeError:
                raise Damaged(f"{shown(unit.path)}: {shown(name)} is no text") from None
        else:
            place.setdefault(name, number)
            number += 1
    return found, place


def _key(name: str) -> str:
    return f"{os.path.dirname(name)}/{stem(name)}"


def _tar_audio(archive, member, unit, max_bytes) -> bytes | Reason:
    if member.size > max_bytes:
        return _too_large(member.size, max_bytes)
    return _checked(_content(archive, member, unit), max_bytes)


def _tar_labels(archive, member, unit) -> list | None:
    if member.size > _JSON:
        return None
    data = _content(archive, member, unit)
    try:
        about = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(about, dict):
        return None
    return next((_as_list(about[key]) for key in _LABELS if key in about), None)


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
    data = hdf5.dataset(file, "target", "bu", 2, ratio=_SILENCE)
    if len(data) < unit.end or data.shape[1] > 8192:
        raise AsjaxError(f"{shown(unit.path)}: its targets do not fit its clips")
    rows = data[unit.begin : unit.end]
    if unit.kind == "passt" and rows.dtype == np.uint8:
        rows = np.unpackbits(rows, axis=1)
    return lambda number: np.flatnonzero(rows[number]).tolist()


def _panns_items(unit: Unit, wanted, max_bytes):
    with _hdf5(unit) as file:
        data = hdf5.dataset(file, "waveform", "i", 2, ratio=_SILENCE)
        if data.dtype.itemsize != 2 or 2 * data.shape[1] > max_bytes or len(data) < unit.end:
            raise AsjaxError(
                f"{shown(unit.path)}: waveform must be int16 [clips, samples] with a row for each "
                f"audio_name, got {data.dtype} {data.shape}"
            )
        rate = int(file.attrs.get("sample_rate", 32_000))
        if not 100 <= rate <= 1_000_000:
            raise AsjaxError(f"{shown(unit.path)}: sample_rate must be in Hz, got {rate}")
        classes = _classes(file, unit)
        for start, block in hdf5.blocks(data, begin=unit.begin, end=unit.end):
            for number, row in enumerate(block, start - unit.begin):
                if number in wanted:
                    yield Item(number, pcm16.wav(row, rate), classes(number))


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
            yield Item(number, _checked(value.tobytes(), max_bytes), classes(number))
