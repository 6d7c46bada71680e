"""The record format: a TFDS dataset of ArrayRecord shards plus a manifest that can be checked.

A dataset is one folder:

    dataset_info.json, features.json      files of TFDS for `tfds.builder_from_directory(folder)`
    NAME-SPLIT.array_record-0000i-of-0000n
    manifest.json                         counts, label set and hash, licences, shards (bytes,
                                          SHA-256), clips left out with reasons, pcm16_hz (the rate,
                                          if all clips are 16-bit mono PCM of one rate, else 0),
                                          encoding ("pcm16": see asjax.data.pcm16)
    manifest.csv                          one row per clip, in record order: id, split, labels,
                                          category, samples, sample_rate, sha256 (of the audio);
                                          in a set with events in time also: events
    labels.csv                            the label set
    ATTRIBUTION.csv                       licence and attribution per clip, if known
    groups.csv                            id and group (recording, site) per clip, if known

A record has id, audio (the bytes of an audio file, or pcm16 samples), sample_rate (Hz), samples
(per channel, at that rate), labels and category. Labels are ids as text, so they do not depend on
the order of the classes. Writing and reading do not need TensorFlow. A cut ArrayRecord file opens
without an error and reports 0 records, so sizes and counts are checked at every opening.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asjax.config import AsjaxError
from asjax.data import example, pcm16
from asjax.data.shared import Strings
from asjax.store import files

FORMAT = 1
COLUMNS = ("id", "split", "labels", "category", "samples", "sample_rate", "sha256")
_MAX_OPEN_SHARDS = 4096  # per process; an open shard takes about 10 kB
_READER_OPTIONS = "readahead_buffer_size:0"  # reading ahead is no use for random access
_HINT = "copy it again or run `asjax prepare` again"


def find(path) -> Path:
    """The dataset folder at `path`: `path`, or its newest version folder (`1.0.0`).

    Raises:
      AsjaxError: no such dataset.
    """
    path = Path(path)
    if (path / "manifest.json").is_file():
        return path
    versions = [p.parent for p in path.glob("*/manifest.json") if is_version(p.parent.name)]
    if versions:
        return max(versions, key=lambda p: tuple(map(int, p.name.split("."))))
    if not path.is_dir():
        raise AsjaxError(f"record dataset {path} does not exist{from_where(path)}")
    raise AsjaxError(
        f"{path} is not an asjax record dataset: manifest.json is missing; "
        "make one with `asjax prepare`"
    )


def from_where(path) -> str:
    """For the message about a missing path: what a relative path is relative to, else ""."""
    if Path(path).is_absolute():
        return ""
    return (
        "; it is relative to the folder where the command is started. For a finished run, start "
        "the command where the training was started"
    )


def is_dataset(path) -> bool:
    """Whether `find` finds a dataset at `path`."""
    try:
        return bool(find(path))
    except AsjaxError:
        return False


def is_version(name: str) -> bool:
    return re.fullmatch(r"\d+\.\d+\.\d+", name) is not None


def is_split(name: str) -> bool:
    """Whether TFDS allows this name of a split. In TFDS "all" means every split."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None and name != "all"


class Columns(NamedTuple):
    """Columns of manifest.csv: `cells[number[i]]` is the cell of labels of record i."""

    ids: Strings
    split: list[str]
    number: np.ndarray  # int32 [N]
    cells: list[str]
    events: list[str]  # empty in a set without events in time


class Dataset:
    """A checked record dataset.

    Attributes:
      path, manifest: the folder; manifest.json as a dict.
      splits: `{split: number of clips}` in record order.
      strong: whether manifest.csv has a column `events`.
      reader: `reader[row]` -> bytes of the audio file in that row of manifest.csv.
    """

    def __init__(self, path, *, verify: bool = False):
        """Open and check the dataset. `verify` also hashes every shard, which reads all data.

        Raises:
          AsjaxError: a file is missing, cut short, changed, or has another number of records.
        """
        self.path = find(path)
        self.manifest = _json(self.path / "manifest.json")
        if self.manifest.get("format") != FORMAT:
            raise AsjaxError(
                f"{self.path}: record format must be {FORMAT}, got "
                f"{self.manifest.get('format')!r}; use the asjax version that wrote it"
            )
        try:
            self._check_files(verify)
        except (KeyError, TypeError) as error:
            raise AsjaxError(f"{self.path}/manifest.json is incomplete: {error}; {_HINT}") from None
        self.splits: dict[str, int] = dict(self.manifest["splits"])
        self.strong: bool = bool(self.manifest.get("strong", False))
        shards = self.manifest["shards"]
        raw = self.manifest.get("encoding") == pcm16.NAME
        rate = pcm16.rate_of_records(self.manifest) if raw else 0
        self.reader = Reader([(str(self.path / s["file"]), s["records"]) for s in shards], rate)

    def _check_files(self, verify):
        declared = _declared_shards(self.path)
        listed = {s["file"]: s["records"] for s in self.manifest["shards"]}
        if declared != listed:
            odd = sorted({f for f in {*declared, *listed} if declared.get(f) != listed.get(f)})
            raise AsjaxError(
                f"{self.path}: dataset_info.json and manifest.json disagree about {odd[0]} "
                f"({declared.get(odd[0])} and {listed.get(odd[0])} records); {_HINT}"
            )
        for shard in self.manifest["shards"]:
            _check_shard(self.path / shard["file"], shard, verify)
        rows = self.path / "manifest.csv"
        if not rows.is_file():
            raise AsjaxError(f"{rows} is missing; {_HINT}")
        if files.digest(rows) != self.manifest["manifest_sha256"]:
            raise AsjaxError(f"{rows} was changed after it was written (SHA-256 differs); {_HINT}")

    def groups(self) -> dict[str, str]:
        """The group (recording, site) of each clip, by id. Empty if no clip has a group."""
        digest, path = self.manifest.get("groups_sha256"), self.path / "groups.csv"
        if digest is None:
            return {}
        if not path.is_file() or files.digest(path) != digest:
            raise AsjaxError(f"{path} is missing or was changed (SHA-256 differs); {_HINT}")
        with open(path, newline="", encoding="utf-8") as f:
            return dict(list(csv.reader(f))[1:])

    def columns(self) -> Columns:
        """The columns id, split, labels and events of manifest.csv in record order.

        Two million rows take two seconds and 70 MiB, a fifth of what lists of str take.
        """
        import pyarrow as pa
        from pyarrow import csv as tables

        names = ["id", "split", "labels"] + (["events"] if self.strong else [])
        path = self.path / "manifest.csv"
        split, number, known, marks = [], bytearray(), {}, []

        def ids(reader):
            for batch in reader:
                split.extend(map(sys.intern, batch["split"].to_pylist()))
                coded = batch["labels"].dictionary_encode()
                here = [known.setdefault(c, len(known)) for c in coded.dictionary.to_pylist()]
                number.extend(np.asarray(here, np.int32)[coded.indices.to_numpy()].tobytes())
                marks.extend(batch["events"].to_pylist() if self.strong else [])
                yield batch["id"]

        # A row must fit into a block. Lists of events may be long, and such sets have few clips.
        block = 1 << (26 if self.strong else 19)
        columns = dict(include_columns=names, column_types=dict.fromkeys(names, pa.string()))
        try:
            with tables.open_csv(
                path,
                read_options=tables.ReadOptions(use_threads=False, block_size=block),
                parse_options=tables.ParseOptions(newlines_in_values=True),
                convert_options=tables.ConvertOptions(**columns),
            ) as reader:
                texts = Strings.joined(ids(reader))
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise AsjaxError(f"{path} is damaged: {error}; {_HINT}") from None
        return Columns(texts, list(split), np.frombuffer(number, np.int32), list(known), marks)

    def rows(self) -> Iterator[list[str]]:
        """Rows of manifest.csv in record order: `COLUMNS`, and `events` in a set with events."""
        with open(self.path / "manifest.csv", newline="", encoding="utf-8") as f:
            reader = csv.reader(f)
            next(reader)
            yield from reader


def _json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AsjaxError(f"{path} is missing; {_HINT}") from None
    except (ValueError, RecursionError) as error:
        raise AsjaxError(f"{path} is damaged: {error}; {_HINT}") from None
    if not isinstance(value, dict):
        raise AsjaxError(f"{path} is damaged: it must hold an object; {_HINT}")
    return value


def _declared_shards(path: Path) -> dict[str, int]:
    """`{shard file: records}` from dataset_info.json."""
    info = _json(path / "dataset_info.json")
    _json(path / "features.json")
    try:
        return {
            shard_name(info["name"], s["name"], i, len(s["shardLengths"])): int(n)
            for s in info["splits"]
            for i, n in enumerate(s["shardLengths"])
        }
    except (KeyError, TypeError, ValueError) as error:
        raise AsjaxError(f"{path}/dataset_info.json is damaged: {error!r}; {_HINT}") from None


def shard_name(name: str, split: str, index: int, count: int) -> str:
    """TFDS's file name of a shard."""
    return f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def _check_shard(file: Path, shard: dict, verify: bool):
    if not file.is_file():
        raise AsjaxError(f"shard {file} is missing; {_HINT}")
    size = file.stat().st_size
    if size != shard["bytes"]:
        state = "cut short" if size < shard["bytes"] else "changed"
        raise AsjaxError(
            f"shard {file} is {state}: must be {shard['bytes']} bytes, got {size}; {_HINT}"
        )
    count = count_records(file)
    if count != shard["records"]:
        raise AsjaxError(
            f"shard {file} is damaged: must hold {shard['records']} records, got {count}; {_HINT}"
        )
    if verify and files.digest(file) != shard["sha256"]:
        raise AsjaxError(f"shard {file} is damaged: its SHA-256 differs; {_HINT}")


def count_records(file) -> int:
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(str(file), _READER_OPTIONS)
    count = reader.num_records()
    with contextlib.suppress(RuntimeError):  # `close` raises for a damaged file; its count is 0
        reader.close()
    return count


def most_open() -> int:
    """Shards that a process keeps open: up to half of its limit on open files, which it raises.

    A random read that must open its shard first takes seven times as long.
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return min(_MAX_OPEN_SHARDS, 256)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MAX_OPEN_SHARDS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(
            ValueError, OSError
        ):  # some systems have a lower limit of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return _MAX_OPEN_SHARDS if soft == resource.RLIM_INFINITY else min(_MAX_OPEN_SHARDS, soft // 2)


class Reader:
    """Random access to the records of a list of shards.

    A shard is opened when needed, once per process, and shared by threads. The reader may be
    pickled, and the process may be forked. At most `most_open()` shards are open. A shard that
    is removed from the list closes when its last user ends.

    `raw_hz`: the rate, if the records are pcm16 samples; `reader[row]` makes a WAV file of them.
    """

    def __init__(self, shards: list[tuple[str, int]], raw_hz: int = 0):
        self.raw_hz = raw_hz
        self.files = [file for file, _ in shards]
        self.ends = np.cumsum([count for _, count in shards], dtype=np.int64)
        self.__setstate__({})

    def __getstate__(self):
        return {"files": self.files, "ends": self.ends, "raw_hz": self.raw_hz}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock, self._open, self._pid = threading.Lock(), OrderedDict(), os.getpid()
        self._most_open = most_open()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def _shard(self, k: int):
        from array_record.python import array_record_module

        if self._pid != os.getpid():  # after a fork, do not use the parent's readers and lock
            self.__setstate__({})
        with self._lock:
            reader = self._open.get(k)
            if reader is None:
                reader = self._open[k] = array_record_module.ArrayRecordReader(
                    self.files[k], _READER_OPTIONS, file_reader_buffer_size=1 << 15
                )
                if len(self._open) > self._most_open:
                    self._open.popitem(last=False)
            self._open.move_to_end(k)
            return reader

    def _place(self, row: int) -> tuple[int, int]:
        """(shard, record in the shard) of a row. IndexError: no such row."""
        if not 0 <= row < len(self):
            raise IndexError(f"row must be 0 to {len(self) - 1}, got {row}")
        k = int(np.searchsorted(self.ends, row, side="right"))
        return k, int(row - (self.ends[k - 1] if k else 0))

    def where(self, row: int, short: bool = False) -> str:
        """The shard of a row and its number there, in the form of TFDS's `tfds_id`."""
        k, at = self._place(row)
        return f"{os.path.basename(self.files[k]) if short else self.files[k]}__{at}"

    def raw(self, row: int) -> bytes:
        """The bytes of a record. IndexError: no such row."""
        k, at = self._place(row)
        return self._shard(k).read([at])[0]

    def record(self, row: int, only=None) -> dict:
        """The fields of a row (with `only`: these names) as sequences of bytes or numbers.

        Raises:
          IndexError: no such row.
          AsjaxError: the shard is damaged at this record.
        """
        k, at = self._place(row)
        try:
            return example.decode(self._shard(k).read([at])[0], only)
        except (RuntimeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())
            raise AsjaxError(
                f"shard {self.files[k]} is damaged at record {at}: {reason}; {_HINT}"
            ) from None

    def __getitem__(self, row: int) -> bytes:
        audio = self.record(row)["audio"][0]
        return pcm16.wav(audio, self.raw_hz) if self.raw_hz else audio
