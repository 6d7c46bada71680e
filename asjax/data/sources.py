"""Data sources: records, the embedded ESC-10, a folder with a CSV, or a data set of TFDS.

`esc10`, `records`, `folder` and `tfds` are names in configs. Others have files of their own:
`soundscapes`, scenes that are mixed from the embedded recordings; `annotated`, recordings with a
list of events; `hear`, a task of HEAR; `unlabelled`, clips without labels; `joined`, several
sources as one. The first four take these options:

    splits      the splits to use (default: all)
    folds       make this number of splits; clips of one group are in one split
    of          `folds` divides only the clips of these splits, into part1, part2, ...
    labels_csv  a CSV `filename,labels`, as from `asjax prepare enhance`: new labels for the clips
                with these ids; other clips do not change

A source gives random access: `source[i] -> {"id", "audio", "labels"}`. Audio is the bytes of an
audio file or its path (str); labels are int64 class indices. A source with events in time also
gives "events": an array of `asjax.events.EVENT`, or None for a clip that is not annotated. The
pipeline does the decoding. Sources can be pickled, open files when needed in each process, and many
threads may read them. They may have `pcm16(rate) -> bool`: is all audio exact as int16?
"""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

import numpy as np

from asjax import labels as label_sets
from asjax.config import AsjaxError, shown
from asjax.data import content, lists, pcm16, standins, strong
from asjax.data import records as record_files
from asjax.data import tfds as theirs
from asjax.data.annotated import annotated
from asjax.data.hear import hear
from asjax.data.lists import read_folder
from asjax.data.soundscapes import ESC10, soundscapes
from asjax.data.source import Source, chosen, matrix, sha256
from asjax.data.unlabelled import joined, unlabelled
from asjax.labels import LabelSet

__all__ = [
    "annotated", "esc10", "folder", "hear", "joined", "records", "soundscapes", "tfds",
    "unlabelled",
]  # fmt: skip


def own_labels(place, label_separator: str | None = None, columns=None) -> LabelSet:
    """The label set "own": the labels of a CSV or of class folders, or the label set of records.

    Labels are sorted. A label is both id and display name. AsjaxError: unusable rows.
    """
    place = Path(place)
    if place.is_dir() and record_files.is_dataset(place):
        return LabelSet.from_csv(record_files.find(place) / "labels.csv", "own")
    if place.is_dir():
        rows, problems, _ = lists.tree(place)
    else:
        rows, problems, _ = lists.read_rows(place, label_separator, columns=columns)
    lists.refuse(place, problems)
    labels = tuple(sorted({label for row in rows for label in row.labels}))
    if not labels:
        raise AsjaxError(f"label list {shown(place)} has no label in any of its rows")
    lists.say_commas(place, labels)
    return LabelSet("own", labels, labels)


# ------------------------------------------------------------------------------------ records


def esc10(
    label_set,
    *,
    splits=None,
    labels_csv="",
    verify: bool = False,
    convert: bool = False,
    folds: int = 0,
    of=None,
) -> Source:
    """The 398 embedded recordings of ESC-10; splits `fold1` to `fold5`."""
    source = _read_records(label_set, ESC10, verify, convert, title="esc10")
    return chosen(source, splits, labels_csv, label_set, folds, of)


def records(
    label_set,
    *,
    path,
    splits=None,
    labels_csv="",
    verify: bool = False,
    convert: bool = False,
    folds: int = 0,
    of=None,
) -> Source:
    """A record dataset of `asjax prepare`.

    Args:
      path: its folder. verify: check the SHA-256 of every shard.
      convert: accept another label set; every stored label is looked up in it (by mid or id).
      folds: make new splits fold1, fold2, ...; clips of one group are in one fold.
    """
    source = _read_records(label_set, path, verify, convert)
    return chosen(source, splits, labels_csv, label_set, folds, of)


def _read_records(label_set, path, verify, convert, title="") -> Source:
    dataset = record_files.Dataset(standins.resolved(path), verify=verify)
    theirs = dataset.manifest["label_set"]
    if not convert:
        what = f"{dataset.path} (label set {theirs['name']})"
        label_sets.check_hash(theirs["hash"], label_set.hash, what)
    ids, split, number, cells, marks = dataset.columns()
    if len(ids) != len(dataset.reader):
        raise AsjaxError(
            f"{dataset.path}/manifest.csv must have {len(dataset.reader)} rows, got {len(ids)}"
        )
    digest = sha256(dataset.manifest["manifest_sha256"], label_set.hash)
    classes = [label_set.encode([label for label in cell.split(";") if label]) for cell in cells]
    table, of_clip = matrix(classes, label_set)[number], dataset.groups()
    del number
    group = _groups([of_clip.get(clip, "") for clip in ids], ids) if of_clip else None
    rows = np.arange(len(ids), dtype=np.min_scalar_type(-len(ids)))
    name = title or dataset.manifest.get("name", dataset.path.name)
    rate = pcm16.rate_of_records(dataset.manifest)
    events = strong.Marked(marks, label_set) if dataset.strong else None
    reader = dataset.reader
    return Source(name, ids, split, table, digest, reader, rows, rate, group, events)


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
    folds: int = 0,
    of=None,
) -> Source:
    """An audio data set of TensorFlow Datasets, stored as ArrayRecord; TensorFlow is not needed.

    Args:
      builder: its folder, or `name[/config][:version]` in $TFDS_DATA_DIR or
        ~/tensorflow_datasets. split: as in TFDS, e.g. "train", "train[:80%]", "train+test".
      audio: name of the feature with samples (integers or floats, [S] or [S, channels]) or with the
        bytes of audio files. `a/b` is feature b in feature a. labels: name of a feature with class
        labels or texts (ids or names of the label set), one or several per clip. Both default to a
        feature with a usual name.
      ids: name of a feature with a unique text or number per clip. Default: the feature `id`,
        `filename` or similar, else the shard and the position in it.
      rate: Hz, if neither the audio feature nor a feature `sample_rate` has it.
      label_separator: between several labels in one text.
    """
    fields = dict(audio=audio, labels=labels, ids=ids, rate=rate)
    opened = theirs.open_split(builder, split, label_separator=label_separator, **fields)
    index = lists.index_of(label_set)
    strange = [n for n in dict.fromkeys(chain(*opened.labels)) if isinstance(index(n), str)]
    if strange:
        raise AsjaxError(
            f"{opened.path}: {len(strange)} labels are not classes of {label_set.name}: "
            f"{', '.join(map(repr, map(shown, strange[:10])))} ({index(strange[0])})"
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
        matrix(encoded, label_set),
        sha256(label_set.hash, *opened.about, split, *lines),
        opened.waves,
        opened.row,
        opened.waves.pcm16_hz,
    )
    return chosen(source, splits, labels_csv, label_set, folds, of)


# ------------------------------------------------------------------------------------- folder


def folder(
    label_set,
    *,
    csv="",
    root=None,
    splits=None,
    labels_csv="",
    events_csv="",
    label_separator: str | None = None,
    split_column: str = "",
    columns: dict | str | None = None,
    folds: int = 0,
    of=None,
) -> Source:
    """Audio files below `root` (default: the folder of the CSV), listed in a CSV.

    Without a CSV the folders below `root` are the classes: `root/dog/1.wav`, or
    `root/train/dog/1.wav`.

    Args:
      csv: rows `filename,labels[,fold][,group]`, or a published layout (asjax.data.layouts).
      events_csv: rows `filename,onset,offset,event_label` in seconds, or another list that
        `asjax prepare strong` reads. Clips that are not in it are not annotated. A list with faults
        is an error.
      label_separator: between the labels of a clip (default: that of the layout, or ";").
      split_column: the column of the splits (default: `fold` or `split`, if there is one).
      columns: names of columns, `dict(file="fname", labels="tags", split="part", group="site")`,
        or as text, "file=fname,labels=tags".
      folds: make new splits fold1, fold2, ...; clips of one group are in one fold.
    """
    if not csv and root is None:
        raise AsjaxError("data source folder needs csv, a list of clips, or root, a folder of them")
    root = Path(csv).parent if root is None else root
    options = {"label_separator": label_separator, "split_column": split_column}
    entries = read_folder(csv, root, label_set, columns=columns, **options)
    prints = content.digests([f.path for f in entries], [f.size for f in entries])
    lines = [
        f"{f.row.filename}\t{digest}\t{f.row.split}\t{','.join(map(str, f.classes))}"
        for f, digest in zip(entries, prints, strict=True)
    ]
    ids, events = [f.row.filename for f in entries], None
    if events_csv:
        events, texts = strong.marked(events_csv, ids, label_set)
        lines += texts
    source = Source(
        Path(csv or root).stem,
        ids,
        [sys.intern(f.row.split) for f in entries],
        matrix([f.classes for f in entries], label_set),
        sha256(label_set.hash, *lines),
        [f.path for f in entries],
        np.arange(len(entries), dtype=np.int64),
        pcm16_hz=None,
        group=_groups([f.row.group for f in entries], ids),
        events=events,
    )
    return chosen(source, splits, labels_csv, label_set, folds, of)


def _groups(group: list[str], ids: list[str]) -> list[str] | None:
    """Groups of clips; None if no clip has a group. A clip without a group is its own group."""
    if not any(group):
        return None
    return [sys.intern(name or f"clip {clip}") for name, clip in zip(group, ids, strict=True)]
