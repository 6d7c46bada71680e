"""Write the folder of `store.logits`: shards of arrays, then the tables that describe them."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError, quoted, to_plain
from asjax.store import files, swap
from asjax.store.logits import ABOUT, CLIPS, DTYPES, FILES, FORMAT, LABELS, MISSING, NONE


class Row(NamedTuple):
    """One row of clips.csv: a view of a clip. Events and labels are text; "-": not in the data."""

    id: str
    duration_s: float
    events: str = "-"
    labels: str = NONE
    view: int = 0
    draw: int = 0


class Form(NamedTuple):
    """The arrays of a set of logits: what `Logits` has under the same names."""

    label_set: object
    dtype: str = "float16"
    clip: bool = False
    top: int | None = None
    frames: int | None = None
    frame_rate: float | None = None
    views: dict | None = None
    activation: str = "sigmoid"

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("clip",) * self.clip + ("frames",) * (self.frames is not None)

    def check(self) -> Form:
        """This form. AsjaxError: it cannot be written."""
        if self.dtype not in DTYPES:
            raise AsjaxError(f"dtype of logits must be float16 or float32, got {self.dtype!r}")
        if self.top is not None and not (self.clip and 1 <= self.top <= len(self.label_set)):
            raise AsjaxError(
                f"top must be 1 to {len(self.label_set)}, the number of classes, got {self.top}"
            )
        return self

    def clip_bytes(self) -> int:
        """Bytes of one row of all arrays."""
        classes, size = len(self.label_set), np.dtype(self.dtype).itemsize
        width = classes if self.top is None else self.top
        return size * ((self.frames or 0) * classes + self.clip * width) + 2 * (self.top or 0)

    def arrays(self, ids, clip=None, frames=None, classes=None) -> dict[str, np.ndarray]:
        """The arrays to store of n clips: clip [n, C], frames [n, T', C]; those it has.

        With `classes` [n, top], `clip` is [n, top] too: the logits of these classes.

        Raises:
          AsjaxError: another shape, or a logit that is not finite in this dtype.
        """
        out, n = {}, len(ids)
        if self.frames is not None:
            out["frames"] = self._finite(frames, (n, self.frames, len(self.label_set)), ids)
        if self.clip and classes is not None:
            out["clip"] = self._finite(clip, (n, self.top), ids)
            out["classes"] = np.asarray(classes, np.uint16)
        elif self.clip:
            clip = self._finite(clip, (n, len(self.label_set)), ids)
            if self.top is not None:
                # Stable: of equal logits the lower class comes first, whatever the batch.
                best = np.argsort(-clip.astype(np.float32), axis=1, kind="stable")[:, : self.top]
                out["classes"] = best.astype(np.uint16)
                clip = np.take_along_axis(clip, best, axis=1)
            out["clip"] = clip
        return out

    def _finite(self, logits, shape, ids) -> np.ndarray:
        logits = np.asarray(logits)
        if logits.shape != shape:
            raise AsjaxError(f"logits must be {shape}, got {logits.shape}")
        with np.errstate(over="ignore"):  # an overflow raises an error below
            stored = logits.astype(self.dtype)
        bad = np.flatnonzero(~np.isfinite(stored.reshape(len(ids), -1)).all(axis=1))
        if len(bad):
            raise AsjaxError(
                f"logits of clip {quoted(ids[bad[0]])} are not finite as {self.dtype}; the model "
                "has diverged, or the logits need float32"
            )
        return stored


def label_text(labels, label_set) -> str:
    """The labels of a clip, given as class indices, as one field of clips.csv; None is "-"."""
    return NONE if labels is None else ";".join(label_set.ids[i] for i in labels)


def event_text(events, label_set) -> str:
    """The events of a clip as one field of clips.csv; None (not annotated) is "-"."""
    if events is None:
        return lists.to_text(None)
    marks = lists.as_events(events)
    return lists.to_text((a, b, label_set.ids[c]) for a, b, c in marks.tolist())


def check_rows(rows, seen: set) -> None:
    """Add the keys of new rows to `seen`. AsjaxError: one occurs twice, or has no duration."""
    for row in rows:
        key = (row.id, row.view)
        if key in seen or not 0 < row.duration_s < math.inf:
            raise AsjaxError(
                f"clip {quoted(row.id)} must occur once and have a duration above 0, got "
                f"{row.duration_s} s"
            )
        seen.add(key)


def write_shard(folder: Path, number: int, arrays: dict) -> tuple[dict, dict[str, str]]:
    """Write the arrays of some rows, each file atomically.

    Returns: the shard for about.json, and the SHA-256 of each file.
    """
    shard, sums = {"clips": len(next(iter(arrays.values())))}, {}
    for array, values in arrays.items():
        name, content = f"{FILES[array]}-{number:05d}.npy", io.BytesIO()
        np.save(content, np.ascontiguousarray(values), allow_pickle=False)
        data = content.getbuffer()
        with files.replacing(folder / name) as temporary:
            temporary.write_bytes(data)
        shard[array] = {"file": name, "bytes": len(data)}
        sums[name] = hashlib.sha256(data).hexdigest()
    return shard, sums


def finish(folder: Path, form: Form, rows, shards, extra=None, sums=None, missing=()) -> None:
    """Write the tables and the list of hashes of a folder whose shards are written.

    Args:
      rows: in the order of the shards. extra: JSON. sums: known SHA-256 of files.
      missing: (id, view, reason) of clips that could not be decoded.
    """
    texts = ([row.id, repr(float(row.duration_s)), *row[2:]] for row in rows)
    _table(folder / CLIPS, Row._fields, texts)
    if missing:
        _table(folder / MISSING, ("id", "view", "reason"), missing)
    form.label_set.to_csv(folder / LABELS)
    about = {
        "format": FORMAT,
        "kinds": list(form.kinds),
        "dtype": form.dtype,
        "clips": len(rows),
        "label_set": form.label_set.name,
        "label_hash": form.label_set.hash,
        "activation": form.activation,
        "top": form.top,
        "views": form.views,
        "shards": shards,
        "extra": to_plain(extra),
    }
    if form.frames is not None:
        about |= {"frames": form.frames, "frame_rate": form.frame_rate}
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    names = {part["file"] for shard in shards for part in shard.values() if isinstance(part, dict)}
    names |= {ABOUT, LABELS, CLIPS, *([MISSING] if missing else [])}
    files.write_sums(folder, known=sums, only=names)


def _table(path: Path, header, rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


class Writer:
    """Writes a set of logits. The complete folder appears when the `with` statement ends.

    Args:
      extra: JSON for about.json. missing: (id, view, reason) of clips without logits.
      shard_mb: size of a shard in MiB. overwrite: replace an older set of logits.
      check: function of the complete folder, before it gets its place; it may raise.

    Raises:
      AsjaxError: the folder exists, or logits are not finite in this dtype.
    """

    def __init__(
        self, path, form: Form, *, extra=None, missing=(), shard_mb=256, overwrite=False, check=None
    ):
        self.path, self.form, self.extra, self.missing = Path(path), form.check(), extra, missing
        if os.path.lexists(self.path) and not (overwrite and _is_ours(self.path)):
            what = "exists; add --overwrite, or"
            if overwrite:
                what = "is no set of logits, or has other files too;"
            raise AsjaxError(f"{path} {what} choose another folder")
        self._swap = contextlib.ExitStack()
        self.per_shard = max(1, (shard_mb << 20) // max(1, self.form.clip_bytes()))
        self.check, self.waiting, self.shards, self.rows = check, [], [], []
        self.seen, self.sums = set(), {}

    def __enter__(self):
        folder = swap.folder(self.path, what="logits", ours=_names)
        self.part = self._swap.enter_context(folder)
        return self

    def add(self, rows, clip=None, frames=None, classes=None) -> None:
        """Append n rows: clip [n, C] or, with `classes`, [n, top]; frames [n, T', C]."""
        stored = self.form.arrays([row.id for row in rows], clip, frames, classes)
        check_rows(rows, self.seen)
        self.rows += rows
        self.waiting.append(stored)
        while sum(len(next(iter(one.values()))) for one in self.waiting) >= self.per_shard:
            self._flush()

    def _flush(self):
        whole = {k: np.concatenate([one[k] for one in self.waiting]) for k in self.waiting[0]}
        shard = {key: array[: self.per_shard] for key, array in whole.items()}
        rest = {key: array[self.per_shard :] for key, array in whole.items()}
        self.waiting = [rest] if len(next(iter(rest.values()))) else []
        about, sums = write_shard(self.part, len(self.shards), shard)
        self.shards.append(about)
        self.sums |= sums

    def __exit__(self, kind, error, _):
        with self._swap:
            if kind is not None:
                raise error
            self._finish()

    def _finish(self):
        if self.waiting:
            self._flush()
        tables = (self.rows, self.shards, self.extra, self.sums, self.missing)
        finish(self.part, self.form, *tables)
        if self.check:
            self.check(self.part)


def _names(folder: Path) -> set[str] | None:
    """The names of the files of a set of logits; None: the folder is none."""
    with contextlib.suppress(OSError, ValueError):
        return {files.SUMS, *files.read_sums(folder)}
    return None


def _is_ours(path: Path) -> bool:
    """Whether a folder is a set of logits without other files."""
    if not path.is_dir() or path.is_symlink():
        return False
    names = {entry.name for entry in path.iterdir()} - {swap.MARKER}
    return names <= (_names(path) or set())


def save(path, form: Form, rows, *, clip=None, frames=None, extra=None) -> None:
    """Write a small set of logits in one call: clip [N, C] and frames [N, T', C] as in `form`.

    Raises:
      AsjaxError: as `Writer`.
    """
    with Writer(path, form, extra=extra) as out:
        out.add(list(rows), clip, frames)
