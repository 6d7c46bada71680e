"""Stored logits as teachers of the clips of a source: what the host op `teacher` reads.

`begin` opens the folder before training, proves that it fits the run, and finds the logits of every
clip. A worker process then needs no ids: it gets row numbers, and opens the files when it reads.

A student must hear what its teacher heard. Without views, the teacher heard the beginning of every
recording. So frame logits make the ops `decode` and `crop` act as in an evaluation. With views, a
draw takes one view of its clip at random, and the host ops get the random numbers of that view. The
views of others, such as CED's, cannot be made again: with `replay=False` the student hears its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from asjax import config
from asjax.config import AsjaxError, counted, quoted, shown
from asjax.data import draw, unlabelled
from asjax.store import files, logits, logits_check

_LOOK = 256 << 20  # bytes of logits that are looked at for NaN at the start; the others when read
KINDS, RESTS = ("clip", "frames"), ("zero", "uniform")
_LABELS = ("multihot", "strong", "listed", "teacher")  # host ops that do not change the wave


@dataclass(frozen=True, eq=False)
class Stored:
    """The logits of the clips of a source.

    Attributes:
      rows: int64 [N, views], row of each clip and view in the folder; -1: it has none.
      clip, classes, frames: arrays on disk, as in `store.logits.Logits`; None: not there or unused.
      width: number of classes. rest: of the op.
      draws, seed: the random numbers of the views; None: the student hears its own.
    """

    path: str
    rows: np.ndarray
    clip: object
    classes: object
    frames: object
    width: int
    rest: str
    draws: np.ndarray | None
    seed: int

    def pick(self, index: int, rng) -> tuple[int, np.random.Generator]:
        """The row for a draw of clip `index`, or -1, and the random numbers for its host ops."""
        known = self.rows[index][self.rows[index] >= 0]
        if not len(known):
            return -1, rng
        row = int(known[0] if self.rows.shape[1] == 1 else known[rng.integers(len(known))])
        if self.draws is None:
            return row, rng
        return row, draw.generator(self.seed, int(self.draws[row]))

    def at(self, row: int) -> dict:
        """The entries of an example: see `ops.teacher`."""
        out = {"has_teacher": float(row >= 0)}
        if self.clip is not None:
            out["clip_teacher"] = np.zeros(self.width, np.float32)
            if row >= 0:
                classes = None if self.classes is None else self.classes[row]
                values = self._finite(self.clip[row], row)
                out["clip_teacher"] = dense(values, classes, self.width, self.rest)
        if self.frames is not None:
            taught = self.frames[row] if row >= 0 else np.zeros(self.frames.shape[1:])
            out["teacher"] = np.array(self._finite(taught, row), self.frames.dtype)
        return out

    def _finite(self, values, row: int):
        """The values. AsjaxError: one is NaN or infinite."""
        if logits.not_finite(values).any():
            raise AsjaxError(
                f"teacher {self.path}: the logits in row {row + 1} of {logits.CLIPS} are not "
                "finite; write them again"
            )
        return values


def dense(values, classes, width: int, rest: str) -> np.ndarray:
    """Logits of one clip, float32 [C], from all its logits, or from the highest and their classes.

    Args:
      rest: what the other classes get: "zero": probability 0, as in CED's recipe. "uniform": the
        lowest stored probability divided by their number (CED's code: label_type "last_mean").
    """
    out = logits.dense(values, classes, width)
    if rest == "uniform" and classes is not None and len(classes) < width:
        lowest = 1 / (1 + np.exp(-np.min(values).astype(np.float64)))
        each = lowest / (width - len(classes))
        out[~np.isfinite(out)] = np.log(each) - np.log1p(-each)
    return out


@dataclass(frozen=True)
class Begun:
    """Host ops that are ready, and what opening the logits has shown.

    Attributes:
      ops: of the pipeline. stored: None without a teacher. identity: SHA-256 of the logits, or "".
      notes: lines for people.
    """

    ops: list
    stored: Stored | None = None
    identity: str = ""
    notes: tuple[str, ...] = ()


def begin(ops, source, text, *, train, label_set, num_classes, clip_s, sample_rate) -> Begun:
    """Open the logits of the op `teacher`, if the chain has it. In an evaluation it is left out.

    Args: ops: the chain, [(name, function)]. text: the same as text. The others are of the program.

    Raises:
      AsjaxError: the folder does not fit the classes, frames, views or clips of this training.
    """
    given = [op.keywords for name, op in ops if name == "teacher"]
    if not given:
        return Begun(ops)
    if not train:
        return Begun([(name, op) for name, op in ops if name != "teacher"])
    if len(given) > 1:
        raise AsjaxError(
            "data.ops must have the op teacher once; asjax logits MODEL MODEL stores the mean of "
            "several models"
        )
    path, kinds, rest, replay, check = _fields(**given[0])
    found = logits.open(path, label_set)
    where = f"teacher {path}"
    if found.activation != "sigmoid":
        raise AsjaxError(
            f"{where}: its logits are of a softmax over the classes, and a student has one sigmoid "
            "per class; take a teacher of objective tagging or detection"
        )
    if len(found.label_set) != num_classes:
        raise AsjaxError(f"{where} must have {num_classes} classes, got {len(found.label_set)}")
    used = {kind for kind in found.kinds if kinds in (None, kind)}
    if not used:
        raise AsjaxError(f"{where} has no logits of kind {kinds}, only {', '.join(found.kinds)}")
    if "frames" in used:
        _check_frames(where, found, ops, clip_s)
    views = found.views or {}
    if views and replay:
        _check_views(where, found, text, sample_rate)
    elif views and "frames" in used:
        raise AsjaxError(f"{where} has frame logits of views, which need replay=True")
    rows = _rows(found, source.ids)
    notes = _notes(where, found, used, rows, source, check)
    stored = Stored(
        str(path),
        rows,
        found.clip if "clip" in used else None,
        found.classes if "clip" in used else None,
        found.frames if "frames" in used else None,
        num_classes,
        rest,
        found.row_draws if views and replay else None,
        views.get("seed", 0),
    )
    still = ("decode", "crop") if "frames" in used and not views else ()
    ready = [(name, _changed(name, op, stored, still)) for name, op in ops]
    return Begun(ready, stored, files.digest(found.path / files.SUMS), tuple(notes))


def _fields(path=None, kinds=None, rest="zero", replay=True, check=True, **_):
    if not isinstance(path, str) or not path:
        raise AsjaxError(
            f"host op teacher: path must be a folder of asjax logits, got {quoted(path)}"
        )
    if kinds is not None and kinds not in KINDS:
        raise config.unknown("host op teacher: kinds", kinds, KINDS)
    if rest not in RESTS:
        raise config.unknown("host op teacher: rest", rest, RESTS)
    for name, value in (("replay", replay), ("check", check)):
        if not isinstance(value, bool):
            raise AsjaxError(f"host op teacher: {name} must be True or False, got {quoted(value)}")
    return path, kinds, rest, replay, check


def _changed(name: str, op, stored: Stored, still):
    if name == "teacher":
        return partial(op, stored_logits=stored)
    return partial(op, train=False) if name in still else op


def _check_frames(where: str, found, ops, clip_s: float) -> None:
    count = found.frames.shape[1]
    seconds = count / found.frame_rate
    if abs(seconds - clip_s) * found.frame_rate > 0.5:
        raise AsjaxError(
            f"{where} has frame logits of {seconds:g} s, and data.clip_s is {clip_s:g} s; they "
            "must be equal"
        )
    for name, op in ops:
        known = op.keywords if name == "strong" else {"frames": count}
        frames = known.get("frames") or int(clip_s * known.get("frame_rate", 25.0) + 1e-6)
        if frames != count:
            raise AsjaxError(
                f"{where} has {count} frames per clip ({found.frame_rate:g} per second), and the "
                f"op strong makes {frames}; take a teacher and a student of one frame rate"
            )


def _check_views(where: str, found, text: str, sample_rate: int) -> None:
    theirs, ours = (
        [link for link in config.chain(chain) if link[0] not in _LABELS]
        for chain in (found.views["ops"], text)
    )
    if theirs != ours:
        raise AsjaxError(
            f"{where} has views of the host ops {found.views['ops']!r}, and data.ops is {text!r}; "
            "up to the labels they must be the same, so that the student hears the same views; "
            "teacher(replay=False) takes the logits of a random view, and the student hears another"
        )
    rate = found.extra.get("sample_rate") if isinstance(found.extra, dict) else None
    if rate not in (None, sample_rate):
        raise AsjaxError(
            f"{where} has views made at {rate} Hz, and data.sample_rate is {sample_rate}; random "
            "views differ between sample rates"
        )


def _rows(found, ids) -> np.ndarray:
    """int64 [N, views]: the row of each clip and view; -1: it has none."""
    rows = np.full((len(ids), (found.views or {"count": 1})["count"]), -1, np.int64)
    place: dict[str, list] = {}
    for row, clip in enumerate(found.row_ids):
        place.setdefault(clip, []).append(row)
    for i, clip in enumerate(ids):
        for row in place.get(clip, ()):
            if found.row_views[row] < rows.shape[1]:
                rows[i, found.row_views[row]] = row
    return rows


def _notes(where: str, found, used, rows, source, check: bool) -> list[str]:
    """What people should know at the start. AsjaxError: the logits are of other clips."""
    taught, count = int((rows >= 0).any(axis=1).sum()), len(rows)
    if not taught:
        raise AsjaxError(
            f"{where} has logits of none of the {count:,} training clips of {source.name} (first "
            f"clip {shown(source.ids[0])}, first logits {shown(found.row_ids[0])}); are they of "
            "other data?"
        )
    what = " and ".join({"clip": "clips", "frames": "frames"}[kind] for kind in sorted(used))
    views = f", {rows.shape[1]} views each" if found.views else ""
    line = f"{where}: logits of {what} for {taught:,} of {counted(count, 'training clip')}{views}"
    if taught < count:
        line += _untaught(source, ~(rows >= 0).any(axis=1))
    if not check:
        return [line]
    found.require_finite(most=_LOOK)
    try:
        events = getattr(source, "events", None)
        flags = unlabelled.flags_of(source)
        proof = logits_check.against(found, source.ids, source.labels, events, labelled=flags)
    except AsjaxError as error:  # such as a class beyond the last one
        raise AsjaxError(f"{where}: {error}") from None
    if proof is None:
        return [line]
    if not proof.good:
        raise AsjaxError(
            f"{where}: {proof}: the logits do not belong to these clips; is the index file or the "
            "label set wrong? teacher(check=False) takes them anyway"
        )
    return [line, f"{where}: {proof}"]


def _untaught(source, without) -> str:
    """What the clips that have no logits learn from, with the first one of each kind."""
    flags, out = unlabelled.flags_of(source), ""
    for some, what in (
        (without & flags, "learn from their labels alone"),
        (without & ~flags, "have neither logits nor labels and teach nothing"),
    ):
        if some.any():
            out += f"; {int(some.sum()):,} {what}, first {shown(source.ids[int(np.argmax(some))])}"
    return out
