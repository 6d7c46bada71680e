"""Frame scores on disk: logits [N, T, C] in shards, for evaluation and as teachers.

A set of frame scores is one folder:

    about.json        format, dtype, frames, frame_rate, label set and hash, shards, `extra`
    labels.csv        the classes
    clips.csv         one row per clip: id, duration_s, events ("-": not annotated)
    logits-00000.npy  float16 or float32 [n, frames, classes], ...
    SHA256SUMS        of all files

Clips shorter than `frames` are padded. `lengths` is the number of real frames of each clip. Shards
are memory maps, so a slice reads only its own part of the file.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from functools import cached_property
from pathlib import Path

import numpy as np

from asjax import events as lists
from asjax import labels
from asjax.config import AsjaxError, to_plain
from asjax.decoding import frames_of
from asjax.store.files import check_sums, reason, write_sums

FORMAT = 1
_KINDS = ("float16", "float32")
_ABOUT, _LABELS, _CLIPS = "about.json", "labels.csv", "clips.csv"
_HEADER = 1 << 12  # largest size of a .npy header in bytes
_HINT = "copy it again or write it again"


class FrameScoresWriter:
    """Writes a set of frame scores. The complete folder appears when the `with` statement ends.

    Args:
      frames, frame_rate: frames per clip, frames per second. dtype: float16 or float32 on disk.
      extra: JSON for about.json, such as the model's folder. shard_mb: size of a shard in MiB.

    Raises:
      AsjaxError: the folder exists, or scores are not finite in this dtype.
    """

    def __init__(
        self,
        path,
        *,
        label_set,
        frames: int,
        frame_rate: float,
        dtype: str = "float16",
        extra=None,
        shard_mb: int = 256,
        overwrite: bool = False,
    ):
        self.path = Path(path)
        if self.path.exists() and not (overwrite and (self.path / _ABOUT).is_file()):
            raise AsjaxError(f"{path} exists; choose another folder, or set overwrite=True")
        if dtype not in _KINDS:
            raise AsjaxError(f"dtype of frame scores must be float16 or float32, got {dtype!r}")
        self.part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self.shape, self.dtype = (int(frames), len(label_set)), np.dtype(dtype)
        self.label_set, self.frame_rate, self.extra = label_set, float(frame_rate), extra
        size = self.dtype.itemsize * math.prod(self.shape)
        self.per_shard = max(1, (shard_mb << 20) // max(1, size))
        self.waiting, self.shards, self.rows, self.seen = [], [], [], set()

    def __enter__(self):
        self.part.mkdir(parents=True)
        return self

    def add(self, ids, logits, durations_s, events=None) -> None:
        """Append clips.

        Args:
          ids: n names. logits: [n, frames, C]. durations_s: n seconds.
          events: n lists of (onset_s, offset_s, class); None for a clip that is not annotated.
        """
        logits = np.asarray(logits)
        if logits.shape != (len(ids), *self.shape) or len(durations_s) != len(ids):
            raise AsjaxError(
                f"logits must be {(len(ids), *self.shape)}, with as many durations, got "
                f"{logits.shape} and {len(durations_s)}"
            )
        with np.errstate(over="ignore"):  # an overflow raises an error below
            stored = logits.astype(self.dtype)
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=(1, 2)))
        if len(bad):
            raise AsjaxError(
                f"logits of clip {ids[bad[0]]!r} are not finite as {self.dtype.name}; the model "
                "has diverged, or the logits need float32"
            )
        for i, clip in enumerate(ids):
            seconds = float(durations_s[i])
            if clip in self.seen or not 0 < seconds < math.inf:
                raise AsjaxError(
                    f"clip {clip!r} must occur once and have a duration above 0, got {seconds} s"
                )
            self.seen.add(clip)
            self.rows.append([clip, repr(seconds), self._text(events[i] if events else None)])
        self.waiting.append(stored)
        while sum(map(len, self.waiting)) >= self.per_shard:
            self._flush()

    def _text(self, events) -> str:
        if events is None:
            return lists.to_text(None)
        marks = lists.as_events(events)
        ids = self.label_set.ids
        return lists.to_text((a, b, ids[c]) for a, b, c in marks.tolist())

    def _flush(self):
        whole = np.concatenate(self.waiting)
        shard, rest = whole[: self.per_shard], whole[self.per_shard :]
        self.waiting = [rest] if len(rest) else []
        name = f"logits-{len(self.shards):05d}.npy"
        np.save(self.part / name, shard)
        size = (self.part / name).stat().st_size
        self.shards.append({"file": name, "clips": len(shard), "bytes": size})

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self.part, ignore_errors=True)

    def _finish(self):
        if self.waiting:
            self._flush()
        with (self.part / _CLIPS).open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["id", "duration_s", "events"])
            out.writerows(self.rows)
        self.label_set.to_csv(self.part / _LABELS)
        about = {
            "format": FORMAT,
            "clips": len(self.rows),
            "frames": self.shape[0],
            "frame_rate": self.frame_rate,
            "dtype": self.dtype.name,
            "label_set": self.label_set.name,
            "label_hash": self.label_set.hash,
            "shards": self.shards,
            "extra": to_plain(self.extra),
        }
        (self.part / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        write_sums(self.part)
        if self.path.exists():
            shutil.rmtree(self.path)
        self.part.rename(self.path)


class FrameScores:
    """An opened set of frame scores. Sizes are checked at once; logits are read when needed.

    Attributes:
      ids: list of N. durations_s: float64 [N]. lengths: int64 [N], number of real frames.
      scores: logits [N, T, C]; `scores[a:b]` and `scores[i]` read from disk.
      frame_rate: frames per second. label_set: the classes. extra: `extra` of the writer.
    """

    def __init__(self, path, label_set=None, *, verify: bool = False):
        """Args: label_set: the expected classes. verify: check the SHA-256 of every file.

        Raises:
          AsjaxError: no such folder, a file is missing, changed or of another size, or the classes
            are not the expected ones (the message has both hashes).
        """
        self.path = Path(path)
        if not (self.path / _ABOUT).is_file():
            raise AsjaxError(f"{path} is not a folder of frame scores: {_ABOUT} is missing")
        problems = check_sums(self.path, None if verify else _ABOUT)
        problems = problems or ([] if verify else check_sums(self.path, _CLIPS))
        if problems:
            raise AsjaxError(f"frame scores {path}: {problems[0]}; {_HINT}")
        try:
            about = json.loads((self.path / _ABOUT).read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise AsjaxError(f"frame scores {path}: format must be {FORMAT}")
            stored = labels.LabelSet.from_csv(self.path / _LABELS, about["label_set"])
            self.frame_rate, self.extra = float(about["frame_rate"]), about["extra"]
            shape = (int(about["frames"]), len(stored))
            kind = about["dtype"]
            shards = [(s["file"], int(s["clips"]), int(s["bytes"])) for s in about["shards"]]
            clips = int(about["clips"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, AsjaxError):
                raise
            raise AsjaxError(f"frame scores {path}: {_ABOUT} is damaged: {error}") from None
        labels.check_hash(about["label_hash"], stored.hash, f"the class list in {path}")
        if label_set is not None:
            labels.check_hash(label_set.hash, stored.hash, f"the frame scores in {path}")
        self.label_set = label_set or stored
        self._read_clips(clips)
        self.scores = Shards(self.path, shards, shape, kind)
        if len(self.scores) != clips:
            raise AsjaxError(f"frame scores {path}: {len(self.scores)} logits for {clips} clips")
        self.lengths = np.minimum(frames_of(self.durations_s, self.frame_rate), shape[0])

    def _read_clips(self, clips: int):
        with (self.path / _CLIPS).open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        if len(rows) != clips or any(len(row) != 3 for row in rows):
            raise AsjaxError(f"frame scores {self.path}: {_CLIPS} must have {clips} rows of 3")
        self.ids = [row[0] for row in rows]
        self.durations_s = np.array([float(row[1]) for row in rows])
        self._texts = [row[2] for row in rows]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def events(self) -> list:
        """An `EVENT` array per clip, or None for a clip that is not annotated."""
        marks = map(lists.from_text, self._texts)
        return [None if e is None else lists.as_events(e, self.label_set) for e in marks]


class Shards:
    """Shards [n, T, C] as one array [N, T, C] that is read in slices."""

    def __init__(self, folder: Path, shards, shape, kind: str):
        if kind not in _KINDS:
            raise AsjaxError(f"frame scores {folder}: dtype must be one of {_KINDS}, got {kind!r}")
        self.dtype = np.dtype(kind)
        self.maps = [_mapped(folder / n, (c, *shape), self.dtype, size) for n, c, size in shards]
        self.ends = np.cumsum([0, *(len(m) for m in self.maps)])
        self.shape = (int(self.ends[-1]), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which) -> np.ndarray:
        if not isinstance(which, slice):
            i = range(len(self))[which]
            k = int(np.searchsorted(self.ends, i, side="right")) - 1
            return self.maps[k][i - self.ends[k]]
        start, stop, step = which.indices(len(self))
        if step != 1:
            return np.stack([self[i] for i in range(start, stop, step)])
        parts = [
            part[max(0, start - at) : max(0, stop - at)]
            for part, at in zip(self.maps, self.ends[:-1], strict=True)
            if at < stop and start < at + len(part)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *parts])


def _mapped(file: Path, shape, dtype, size: int) -> np.ndarray:
    """A .npy file as a memory map, after a check of its size and header."""
    try:
        if file.parent / file.name != file or file.stat().st_size != size:
            raise ValueError(f"its size must be {size} bytes")
        with file.open("rb") as opened:
            version = np.lib.format.read_magic(opened)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
            if read is None:
                raise ValueError(f"version {version} of .npy is not supported")
            header = read(opened, max_header_size=_HEADER)
            start = opened.tell()
    except (OSError, ValueError) as error:
        raise AsjaxError(f"frame scores: {file} cannot be used: {reason(error)}; {_HINT}") from None
    if header != (shape, False, dtype) or size != start + dtype.itemsize * math.prod(shape):
        raise AsjaxError(f"frame scores: {file} must hold {dtype.name} {shape}; {_HINT}")
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", start, shape)


# ------------------------------------------------------------------------ sed_scores_eval's files


def read_tsv(path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Read a score file of sed_scores_eval (one clip): edges [T + 1], class names, scores [T, C].

    Raises:
      AsjaxError: another kind of file, or a frame does not begin where the last one ends.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t"))
        header, table = rows[0], np.array(rows[1:], np.float64)
        if header[:2] != ["onset", "offset"] or table.ndim != 2:
            raise ValueError("it must begin with the columns onset and offset")
        if (table[1:, 0] != table[:-1, 1]).any() or (table[:, 1] <= table[:, 0]).any():
            raise ValueError("each frame must begin where the previous frame ends")
    except (OSError, ValueError, IndexError) as error:
        raise AsjaxError(f"score file {path} cannot be read: {reason(error)}") from None
    return np.append(table[:, 0], table[-1, 1]), header[2:], table[:, 2:]


def write_tsv(path, scores, names, *, frame_rate: float = 25.0) -> None:
    """Write scores [T, C] of one clip as a file for sed_scores_eval."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(names):
        raise AsjaxError(f"scores must be [frames, {len(names)} names], got {scores.shape}")
    edges = np.round(np.arange(len(scores) + 1) / frame_rate, 10)
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter="\t", lineterminator="\n")
        out.writerow(["onset", "offset", *names])
        for i, row in enumerate(scores):
            out.writerow([repr(float(x)) for x in (edges[i], edges[i + 1], *row)])
