"""The recordings of a collection: a folder, a list, or records; each with one name."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from pathlib import Path

from asjax.config import AsjaxError, quoted, shown, warn

COLUMNS = ("file", "filename", "path", "fname")
_TABLES = {".csv": ",", ".tsv": "\t"}


class Collection:
    """Recordings with different names, in a fixed order.

    Attributes:
      names: in the results: below the folder, as written in the list, or ids of records.
      hash: SHA-256 (hex) of the names; of records also of their content.
    """

    def __init__(self, names, open_, extra: str = ""):
        self.names, self._open, self._extra = names, open_, extra
        self.hash = self.hash_of(0, len(names))

    def __len__(self) -> int:
        return len(self.names)

    def hash_of(self, begin: int, end: int) -> str:
        """SHA-256 (hex) of the recordings [begin, end)."""
        digest = hashlib.sha256(self._extra.encode())
        for i in range(begin, end):
            digest.update(os.fsencode(self.names[i]) + b"\0")
        return digest.hexdigest()

    def source(self, i: int):
        """Recording i as a tagger takes it. AsjaxError: it cannot be read from its shard."""
        return self._open(i)


def opened(place: str) -> Collection:
    """The collection at `place`.

    A folder of records gives them in their order. Another folder gives all audio files below it,
    sorted. A file is a list: one path in each line, or a CSV or TSV with a column of `COLUMNS`. A
    path in a list is below the folder of the list, if it is not absolute.

    Raises:
      AsjaxError: nothing there, nothing in it, or a list that cannot be read.
    """
    from asjax.data import records

    path = Path(place)
    if not place or not path.exists():
        raise AsjaxError(f"--from {shown(place)} does not exist; give a list, a folder or records")
    if path.is_dir():
        return _records(path) if records.is_dataset(path) else _folder(path)
    names = _listed(path)
    once = list(dict.fromkeys(names))
    if len(once) < len(names):
        warn(f"{shown(path)}: {len(names) - len(once):,} lines repeat a recording and count once")
    if not once:
        raise AsjaxError(f"--from {shown(path)} lists no recording")
    return Collection(once, lambda i: path.parent / once[i])


def _folder(path: Path) -> Collection:
    from asjax.data import recordings

    names = [os.fspath(file.relative_to(path)) for file in recordings.find([path])]
    return Collection(names, lambda i: path / names[i])


def _records(path: Path) -> Collection:
    from asjax.data import records

    dataset = records.Dataset(path)
    ids = dataset.columns().ids
    if len(ids) != len(dataset.reader):
        raise AsjaxError(f"{shown(path)}: {len(ids)} ids and {len(dataset.reader)} records")

    def source(i: int):
        file = io.BytesIO(dataset.reader[i])
        file.name = ids[i]
        return file

    return Collection(ids, source, dataset.manifest["manifest_sha256"])


def _listed(path: Path) -> list[str]:
    try:
        content = os.fsdecode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise AsjaxError(f"--from {shown(path)} cannot be read: {error.strerror}") from None
    if "\0" in content:
        raise AsjaxError(f"--from {shown(path)} is not a text; give a list, a folder or records")
    if path.suffix.lower() not in _TABLES:
        lines = (line.removesuffix("\r") for line in content.split("\n"))
        return [line for line in lines if line.strip()]
    rows = csv.DictReader(io.StringIO(content, newline=""), delimiter=_TABLES[path.suffix.lower()])
    column = next((name for name in COLUMNS if name in (rows.fieldnames or ())), None)
    if column is None:
        raise AsjaxError(
            f"--from {shown(path)} has no column {', '.join(COLUMNS)}; its first line is "
            f"{quoted(','.join(rows.fieldnames or ()))}"
        )
    return [row[column] for row in rows if row[column]]
