"""What a data source is: clips with labels, and perhaps with events in time."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
from scipy import sparse

from asjax.config import AsjaxError, shown, unknown, warn
from asjax.data import groups, lists, pcm16
from asjax.data.shared import Strings


@dataclass(frozen=True, repr=False, eq=False)
class Source:
    """Clips with labels.

    Attributes:
      name: a name for messages and reports.
      ids, split: one str per clip, as lists or `shared.Strings`.
      labels: CSR int8 [N, C], 1 where the clip has the class.
      hash: SHA-256 (hex) over ids, labels and the audio: for records the stored SHA-256 of every
        clip, for folders the digests of the files (see asjax.data.content).
      group: one name per clip: its origin (recording, site). None: not known.
      events: events in time of each clip, in seconds from its begin.
      begin_s, piece_s: clip i is the part of its audio from begin_s[i] on, at most piece_s seconds
        long. None: a clip is the whole audio.
      recordings: group -> (seconds, events as they are listed), if the clips are the consecutive
        pieces of recordings that are scored as a whole (asjax.evaluation.recordings).
      labelled: which clips have labels; no labels are not the same as none of the classes. None:
        all have.
    """

    name: str
    ids: Sequence
    split: list[str]
    labels: sparse.csr_matrix
    hash: str
    audio: Sequence  # audio[row] -> bytes or path
    row: np.ndarray  # integer [N]: the index of clip i in `audio`
    pcm16_hz: int | None = 0  # rate if all clips are 16-bit mono PCM; 0: no; None: not known yet
    group: list[str] | None = None
    events: Sequence | None = None  # events[i] -> EVENT array, or None: not annotated
    begin_s: np.ndarray | None = None  # float64 [N]
    piece_s: float = 0.0
    recordings: dict | None = None
    labelled: np.ndarray | None = None  # bool [N]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i) -> dict:
        i = int(i)
        if not 0 <= i < len(self.ids):
            raise IndexError(f"clip must be 0 to {len(self) - 1}, got {i}")
        start, stop = self.labels.indptr[i : i + 2]
        classes = self.labels.indices[start:stop].astype(np.int64)
        example = {"id": self.ids[i], "audio": self.audio[int(self.row[i])], "labels": classes}
        if self.begin_s is not None:
            example["part"] = (float(self.begin_s[i]), self.piece_s)
        if self.recordings is not None:
            example["recording"] = self.recordings[self.group[i]]
        if self.labelled is not None:
            example["labelled"] = float(self.labelled[i])
        return example if self.events is None else {**example, "events": self.events[i]}

    def __repr__(self) -> str:
        return f"Source({self.name}, {len(self)} clips, {self.hash[:12]})"

    def __getstate__(self) -> dict:
        """The state with texts as arrays, because workers share arrays (asjax.data.shared)."""
        texts = {k: Strings(v) for k, v in vars(self).items() if isinstance(v, list)}
        return {**vars(self), **texts}

    def pcm16(self, sample_rate: int) -> bool:
        """Whether every clip is known to be 16-bit mono PCM at `sample_rate` Hz."""
        if self.pcm16_hz is not None:
            return self.pcm16_hz == sample_rate
        return pcm16.all_at([self.audio[int(row)] for row in self.row], sample_rate)

    def wanted(self, splits) -> set[str]:
        """The names of one or several splits as they are here. AsjaxError: as `select`."""
        known = set(self.split)
        asked = [splits] if isinstance(splits, (str, int)) else splits
        wanted = {lists.split_name(str(s))[0] if str(s) not in known else str(s) for s in asked}
        for split in sorted(wanted - known):
            raise unknown(f"{self.name}: split", split, known)
        if not wanted:
            raise AsjaxError(f"{self.name}: splits must name at least one of {sorted(known)}")
        return wanted

    def select(self, splits) -> Source:
        """The clips of one or several splits, in the same order as here.

        Raises:
          AsjaxError: a split does not exist, or no split is given.
        """
        wanted = self.wanted(splits)
        if wanted == set(self.split):
            return self
        keep = np.flatnonzero([s in wanted for s in self.split])
        digest = sha256(self.hash, *sorted(wanted))
        texts = isinstance(self.ids, Strings)
        ids = self.ids.take(keep) if texts else [self.ids[i] for i in keep]
        split = [self.split[i] for i in keep]
        group = [self.group[i] for i in keep] if self.group else None
        events = None if self.events is None else self.events.select(keep)
        fields = {"ids": ids, "split": split, "labels": self.labels[keep], "row": self.row[keep]}
        begin_s = None if self.begin_s is None else self.begin_s[keep]
        if self.labelled is not None:
            fields["labelled"] = self.labelled[keep]
        return replace(self, hash=digest, group=group, events=events, begin_s=begin_s, **fields)


def sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def matrix(rows: list, label_set) -> sparse.csr_matrix:
    """Sorted unique class indices per clip -> CSR int8 [N, classes]."""
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    columns = np.concatenate(rows) if rows else np.zeros(0)
    ones = np.ones(len(columns), np.int8)
    return sparse.csr_matrix((ones, columns.astype(np.int32), ends), (len(rows), len(label_set)))


# ------------------------------------------------------------------------------------- options


def chosen(source: Source, splits, labels_csv, label_set, folds: int = 0, of=None) -> Source:
    """The last steps of every source: new labels from a CSV, folds, the choice of splits."""
    if labels_csv:
        source = _relabelled(source, Path(labels_csv), label_set)
    if of is not None and not folds:
        raise AsjaxError(f"{source.name}: of={of!r} needs folds, the number of splits to make")
    if folds:
        source = _folded(source, folds, of)
    if source.group and (both := groups.straddling(source.group, source.split)):
        warn(
            f"{source.name}: {len(both)} groups have clips in more than one split, such as "
            f"{shown(both[0])!r}; folds=5 makes splits that keep groups together"
        )
    return source if splits is None else source.select(splits)


def _folded(source: Source, folds: int, of) -> Source:
    """`source` in the splits fold1, fold2, ..., or with part1, part2, ... in place of `of`."""
    names = set(source.split) if of is None else source.wanted(of)
    which = np.flatnonzero([name in names for name in source.split])
    group, split = source.group or source.ids, list(source.split)
    made = groups.folds([group[i] for i in which], source.labels[which], folds)
    for i, name in zip(which, made, strict=True):
        split[i] = sys.intern(name if of is None else name.replace("fold", "part"))
    if taken := sorted((set(source.split) - names) & {split[i] for i in which}):
        raise AsjaxError(f"{source.name}: of={of!r} would make a second split {taken[0]}")
    return replace(source, split=split, hash=sha256(source.hash, *split))


def _relabelled(source: Source, path: Path, label_set) -> Source:
    """`source` with new labels for the ids in a CSV (`filename,labels`)."""
    rows, problems, _ = lists.read_rows(path)
    classes, hint = lists.classes(rows, label_set, problems)
    place = {normalize("NFC", clip): i for i, clip in enumerate(source.ids)}
    strangers = [f"line {r.line} {shown(r.filename)!r}" for r in rows if r.filename not in place]
    if strangers:
        problems[f"ids that are not in {source.name}"] = strangers
    lists.refuse(path, problems, hint)
    lists.say_unlabelled(path, rows)
    new = {place[row.filename]: indices for row, indices in zip(rows, classes, strict=True)}
    old, lines = source.labels, [f"{i}\t{','.join(map(str, new[i]))}" for i in sorted(new)]
    encoded = [
        new[i] if i in new else old.indices[old.indptr[i] : old.indptr[i + 1]]
        for i in range(len(source))
    ]
    digest = sha256(source.hash, *lines)
    return replace(source, labels=matrix(encoded, label_set), hash=digest)
