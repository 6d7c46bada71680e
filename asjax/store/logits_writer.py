"""Write the folder of `store.logits`: shards of arrays, then the tables that describe them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError, quoted, to_plain
from asjax.store import files
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

    def arrays(self, ids, clip=None, frames=None) -> dict[str, np.ndarray]:
        """The arrays to store of n clips: clip [n, C], frames [n, T', C]; those it has.

        Raises:
          AsjaxError: another shape, or a logit that is not finite in this dtype.
        """
        out, n = {}, len(ids)
        if self.frames is not None:
            out["frames"] = self._finite(frames, (n, self.frames, len(self.label_set)), ids)
        if self.clip:
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
        np.save(content, values, allow_pickle=False)
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


def save(path, form: Form, rows, *, clip=None, frames=None, extra=None) -> None:
    """Write a small set of logits in one call: clip [N, C] and frames [N, T', C] as in `form`.

    Raises:
      AsjaxError: the folder exists, or as `Form.arrays` and `check_rows`.
    """
    path = Path(path)
    if path.exists():
        raise AsjaxError(f"{path} exists; choose another folder")
    check_rows(rows, set())
    arrays = form.check().arrays([row.id for row in rows], clip, frames)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        shard, sums = write_shard(part, 0, arrays)
        finish(part, form, rows, [shard], extra, sums)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
