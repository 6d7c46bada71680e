"""Where clips come from: records, the embedded ESC-10, a folder with a CSV, or a set of TFDS.

`esc10`, `records`, `folder` and `tfds` are the names in configs. All take `splits` (which clips,
default all) and `labels_csv`, rows `filename,labels` as `asjax prepare enhance` writes them: the
clips whose ids stand under `filename` get these labels, the others keep theirs.

A source is random-access and says `source[i] -> {"id", "audio", "labels"}`, where audio is the
bytes of an audio file or its path (str) and labels are int64 class indices. Decoding is the
pipeline's. Sources pickle, open files lazily per process and may be read by many threads.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from scipy import sparse

from asjax import config
from asjax import labels as label_sets
from asjax.config import AsjaxError, unknown
from asjax.data import lists
from asjax.data import records as record_files
from asjax.data import tfds as theirs
from asjax.labels import LabelSet

__all__ = ["esc10", "folder", "records", "tfds"]

ESC10 = Path(__file__).parent.parent / "assets" / "esc10"


@dataclass(frozen=True, repr=False, eq=False)
class Source:
    """Clips with labels.

    Attributes:
      name: for people.
      ids, split: one str per clip.
      labels: CSR int8 [N, C], 1 where the clip has the class.
      hash: SHA-256 (hex) over ids, labels and what is known of the audio: the recorded SHA-256 of
        every clip (records), or file names and sizes (folder: cheap, and the same on every
        machine; an edit that keeps the size is not seen).
    """

    name: str
    ids: list[str]
    split: list[str]
    labels: sparse.csr_matrix
    hash: str
    audio: Sequence  # audio[row] -> bytes or path
    row: np.ndarray  # int64 [N]: where clip i stands in `audio`

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i) -> dict:
        i = int(i)
        if not 0 <= i < len(self.ids):
            raise IndexError(f"clip must be 0 to {len(self) - 1}, got {i}")
        start, stop = self.labels.indptr[i : i + 2]
        classes = self.labels.indices[start:stop].astype(np.int64)
        return {"id": self.ids[i], "audio": self.audio[int(self.row[i])], "labels": classes}

    def __repr__(self) -> str:
        return f"Source({self.name}, {len(self)} clips, {self.hash[:12]})"

    def select(self, splits) -> Source:
        """The clips of the given split or splits, in their order here.

        Raises:
          AsjaxError: a split that does not exist, or none given.
        """
        known = set(self.split)
        asked = [splits] if isinstance(splits, (str, int)) else splits
        wanted = {lists.split_name(str(s))[0] if str(s) not in known else str(s) for s in asked}
        for split in sorted(wanted - known):
            raise unknown(f"{self.name}: split", split, known)
        if not wanted:
            raise AsjaxError(f"{self.name}: splits must name at least one of {sorted(known)}")
        if wanted == known:
            return self
        keep = np.flatnonzero([s in wanted for s in self.split])
        digest = _sha256(self.hash, *sorted(wanted))
        ids, split = [self.ids[i] for i in keep], [self.split[i] for i in keep]
        return Source(self.name, ids, split, self.labels[keep], digest, self.audio, self.row[keep])


def own_labels(path, label_separator: str = ";") -> LabelSet:
    """The label set "own": the sorted distinct labels of a CSV, or that of a record dataset.

    The labels are both ids and display names. Raises AsjaxError for unusable rows.
    """
    path = Path(path)
    if path.is_dir():
        return LabelSet.from_csv(record_files.find(path) / "labels.csv", "own")
    rows, problems = lists.read_rows(path, label_separator)
    lists.refuse(path, problems)
    found = tuple(sorted({label for row in rows for label in row.labels}))
    return LabelSet("own", found, found)


def own_tfds_labels(*, builder: str, **fields) -> LabelSet:
    """The label set "own" of a TFDS data set: the names of its ClassLabel, else its labels, sorted.

    Raises:
      AsjaxError: as `tfds`.
    """
    fields.pop("splits", None)
    fields.pop("labels_csv", None)
    found = theirs.class_names(builder, fields.get("labels", ""))
    if not found:
        opened = config.call(theirs.open_split, "data source tfds", builder=builder, **fields)
        found = tuple(sorted(set(chain(*opened.labels))))
    return LabelSet("own", found, found)


def _chosen(source: Source, splits, labels_csv, label_set) -> Source:
    """What every source does in the end: other labels where a CSV gives them, then the splits."""
    if labels_csv:
        source = _relabelled(source, Path(labels_csv), label_set)
    return source if splits is None else source.select(splits)


def _relabelled(source: Source, path: Path, label_set) -> Source:
    """`source` with the labels of a CSV (`filename,labels`) for the ids that stand in it."""
    rows, problems = lists.read_rows(path, ";")
    classes, hint = lists.look_up(rows, label_set, problems)
    place = {clip: i for i, clip in enumerate(source.ids)}
    strangers = [f"line {r.line} {r.filename!r}" for r in rows if r.filename not in place]
    if strangers:
        problems[f"ids that are not in {source.name}"] = strangers
    lists.refuse(path, problems, hint)
    new = {place[row.filename]: found for row, found in zip(rows, classes, strict=True)}
    old, lines = source.labels, [f"{i}\t{','.join(map(str, new[i]))}" for i in sorted(new)]
    encoded = [
        new[i] if i in new else old.indices[old.indptr[i] : old.indptr[i + 1]]
        for i in range(len(source))
    ]
    digest = _sha256(source.hash, *lines)
    return replace(source, labels=_matrix(encoded, len(label_set)), hash=digest)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _matrix(rows: list, classes: int) -> sparse.csr_matrix:
    """Sorted unique class indices per clip -> CSR int8 [N, classes]."""
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    columns = np.concatenate(rows) if rows else np.zeros(0)
    ones = np.ones(len(columns), np.int8)
    return sparse.csr_matrix((ones, columns.astype(np.int32), ends), (len(rows), classes))


# ------------------------------------------------------------------------------------ records


def esc10(
    label_set, *, splits=None, labels_csv="", verify: bool = False, convert: bool = False
) -> Source:
    """The 398 embedded recordings of ESC-10; splits `fold1` to `fold5`."""
    source = _read_records(label_set, ESC10, verify, convert, title="esc10")
    return _chosen(source, splits, labels_csv, label_set)


def records(
    label_set, *, path, splits=None, labels_csv="", verify: bool = False, convert: bool = False
) -> Source:
    """A record dataset, as `asjax prepare` writes it.

    Args:
      path: its folder. verify: check the SHA-256 of every shard.
      convert: accept another label set, and look every recorded id up in it (by mid or id).
    """
    source = _read_records(label_set, path, verify, convert)
    return _chosen(source, splits, labels_csv, label_set)


def _read_records(label_set, path, verify, convert, title="") -> Source:
    dataset = record_files.Dataset(path, verify=verify)
    theirs = dataset.manifest["label_set"]
    if not convert:
        what = f"{dataset.path} (label set {theirs['name']})"
        label_sets.check_hash(theirs["hash"], label_set.hash, what)
    ids, split, encoded, cells = [], [], [], {}
    for clip, name, cell, *_ in dataset.rows():
        ids.append(clip)
        split.append(sys.intern(name))
        if cell not in cells:
            cells[cell] = label_set.encode([label for label in cell.split(";") if label])
        encoded.append(cells[cell])
    if len(ids) != len(dataset.reader):
        raise AsjaxError(
            f"{dataset.path}/manifest.csv must have {len(dataset.reader)} rows, got {len(ids)}"
        )
    digest = _sha256(dataset.manifest["manifest_sha256"], label_set.hash)
    matrix = _matrix(encoded, len(label_set))
    rows = np.arange(len(ids), dtype=np.int64)
    name = title or dataset.manifest.get("name", dataset.path.name)
    return Source(name, ids, split, matrix, digest, dataset.reader, rows)


# --------------------------------------------------------------------------------------- tfds


def tfds(
    label_set,
    *,
    builder: str,
    split: str = "train",
    audio: str = "",
    labels: str = "",
    ids: str = "",
    rate: int = 0,
    label_separator: str = "",
    splits=None,
    labels_csv="",
) -> Source:
    """An audio data set that TensorFlow Datasets wrote as ArrayRecord; TensorFlow is not needed.

    Args:
      builder: its folder, or `name[/config][:version]` of one in $TFDS_DATA_DIR, else
        ~/tensorflow_datasets. split: as in TFDS, e.g. "train", "train[:80%]", "train+test".
      audio: the feature with integers or floats [S] or [S, channels], or with the bytes of audio
        files; `a/b` is feature b in a. labels: a ClassLabel, or a text, or a sequence of either:
        ids or names of the label set. Both default to the feature that is usually called so.
      ids: a text or number, other in each clip (default: the feature `id`, `filename` or the like,
        else the shard and the place in it).
      rate: Hz, where neither the audio feature nor a feature `sample_rate` says it.
      label_separator: between the labels in a text.
    """
    fields = dict(audio=audio, labels=labels, ids=ids, rate=rate)
    opened = theirs.open_split(builder, split, label_separator=label_separator, **fields)
    index = lists.index_of(label_set)
    strange = [
        name for name in dict.fromkeys(chain(*opened.labels)) if isinstance(index(name), str)
    ]
    if strange:
        raise AsjaxError(
            f"{opened.path}: {len(strange)} labels are not classes of {label_set.name}: "
            f"{', '.join(map(repr, strange[:10]))} ({index(strange[0])})"
        )
    encoded = [np.unique([index(name) for name in names]) for names in opened.labels]
    lines = [
        f"{clip}\t{','.join(map(str, classes))}"
        for clip, classes in zip(opened.ids, encoded, strict=True)
    ]
    source = Source(
        opened.path.parent.name,
        opened.ids,
        [sys.intern(name) for name in opened.split],
        _matrix(encoded, len(label_set)),
        _sha256(label_set.hash, *opened.about, split, *lines),
        opened.waves,
        opened.row,
    )
    return _chosen(source, splits, labels_csv, label_set)


# ------------------------------------------------------------------------------------- folder


def folder(
    label_set,
    *,
    csv,
    root=None,
    splits=None,
    labels_csv="",
    label_separator: str = ";",
    split_column: str = "",
) -> Source:
    """Audio files below `root` (default: where the CSV lies), listed in a CSV.

    Args:
      csv: rows `filename,labels[,fold]`. label_separator: between the labels of a clip.
      split_column: the column of the splits (default: `fold` or `split`, where there is one).
    """
    root = Path(csv).parent if root is None else root
    options = {"label_separator": label_separator, "split_column": split_column}
    found = lists.read_folder(csv, root, label_set, **options)
    lines = [
        f"{f.row.filename}\t{f.size}\t{f.row.split}\t{','.join(map(str, f.classes))}" for f in found
    ]
    source = Source(
        Path(csv).stem,
        [f.row.filename for f in found],
        [sys.intern(f.row.split) for f in found],
        _matrix([f.classes for f in found], len(label_set)),
        _sha256(label_set.hash, *lines),
        [f.path for f in found],
        np.arange(len(found), dtype=np.int64),
    )
    return _chosen(source, splits, labels_csv, label_set)
