"""Stored logits in the place of the model that made them: a member of `scoring.Models`."""

from __future__ import annotations

from functools import partial

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError, counted, shown
from asjax.data import teacher
from asjax.evaluation import detections
from asjax.store import logits

ABSENT = -1e4  # the score of a class that is not stored: its probability is 0 in float32


class Stored:
    """A folder of `asjax logits` with what `scoring` asks of a model.

    Attributes: `cfg`, with the fields of a model's config that an evaluation reads. `label_set`.

    Args: rest, alone: as in `check`.
    """

    def __init__(self, path, rest: str = "zero", alone: bool = True):
        self.path, self.stored, self.rest = str(path), logits.open(path), rest
        check(self.stored, rest, alone)
        if self.stored.clip is None:
            raise AsjaxError(
                f"{shown(path)} has logits of frames only, and an evaluation also needs those of "
                "clips; asjax eval --frames takes such a folder"
            )
        extra = self.stored.extra if isinstance(self.stored.extra, dict) else {}
        self.label_set, longest = self.stored.label_set, self.stored.durations_s.max(initial=0.0)
        spec = (extra.get("data") or {}).get("spec") or {}
        self.piece_s, self.data_hash = spec.get("piece_s"), (extra.get("data") or {}).get("hash")
        self.missing = {clip: reason for clip, _, reason in self.stored.missing()}
        heard = {"clip_s": float(extra.get("clip_s") or longest)}
        self.cfg = {
            "data": {**heard, "sample_rate": int(extra.get("sample_rate") or 0)},
            "model": {"name": "logits", "variant": self.stored.path.name},
            **({"objective": "classify"} if self.stored.activation == "softmax" else {}),
        }

    def frames(self, clip_s: float) -> int | None:
        """Number of frames of a clip; None: it has none."""
        return None if self.stored.frames is None else self.stored.frames.shape[1]

    def piece_of(self, clip_s) -> float:
        """Seconds of the pieces of recordings. AsjaxError: `clip_s` asks for others."""
        seconds = float(self.piece_s or self.cfg["data"]["clip_s"])
        if clip_s and clip_s != seconds:
            raise AsjaxError(
                f"--clip-s must be {seconds:g} s, that of {shown(self.path)}, got {clip_s:g}"
            )
        return seconds

    def clips(self, source, n_targets: int):
        """ids, scores float32 [N, C] and targets uint8 [N, n_targets] of the clips of a source."""
        rows = self._rows(source)
        scores = np.stack([filled(self.stored, row, self.rest) for row in rows])
        self._check(scores, source)
        targets = np.asarray(source.labels.todense(), np.uint8)[:, :n_targets]
        return list(map(str, source.ids)), scores, targets

    def detections(self, source, n_targets: int, **about) -> detections.Detections:
        """As `clips`, with frames. `about`: fields of `Detections`."""
        rows, stored = self._rows(source), self.stored
        ids, scores, targets = self.clips(source, n_targets)
        frames = detections.room((len(rows), *stored.frames.shape[1:]))
        seconds, rate = stored.frames.shape[1] / stored.frame_rate, stored.frame_rate
        events = []
        for i, row in enumerate(rows):
            frames[i] = np.clip(stored.frames[row], -detections.MOST, detections.MOST)
            marks = source.events[i]
            inside = None if marks is None else lists.merge(lists.cut(marks, 0.0, seconds))
            end_s = stored.durations_s[row]
            events.append(None if inside is None else lists.cut(inside, 0.0, end_s))
            if inside is not None:
                targets[i] = lists.weak(inside, n_targets)
        losses = np.full(len(rows), np.nan, np.float32)  # only a training needs them
        durations_s = stored.durations_s[rows]
        return detections.Detections(
            ids, scores, targets, frames, durations_s, events, losses, rate, durations_s.copy(),
            **about,
        )  # fmt: skip

    def _rows(self, source) -> list[int]:
        return [self.stored.row(clip) for clip in source.ids]

    def _check(self, scores, source) -> None:
        bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if len(bad):
            raise AsjaxError(
                f"{shown(self.path)}: the logits of clip {shown(source.ids[bad[0]])} are not "
                "finite; store them again"
            )


class Some:
    """Some clips of a source, in their order."""

    def __init__(self, source, rows):
        self._source, self._rows = source, rows
        self.labels = source.labels[rows]
        for name in ("ids", "split", "group", "events", "row", "begin_s"):
            values = getattr(source, name, None)
            setattr(self, name, None if values is None else [values[i] for i in rows])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i) -> dict:
        return self._source[self._rows[i]]

    def __getattr__(self, name: str):
        if name.startswith("_"):  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self._source, name)

    def pcm16(self, sample_rate: int) -> bool:
        return hasattr(self._source, "pcm16") and self._source.pcm16(sample_rate)


def known(source, members) -> tuple[object, list[tuple[str, str]], list[str]]:
    """The clips of a source that have logits in all `Stored` members, (id, reason) of the others,
    and lines for people.

    AsjaxError: no clip has logits.
    """
    rows, lost = [], []
    for i, clip in enumerate(source.ids):
        without = next((m for m in members if clip not in m.stored), None)
        if without is None:
            rows.append(i)
        else:
            why = without.missing.get(clip)
            lost.append((clip, f"no logits in {without.path}" + (f": {why}" if why else "")))
    if not rows:
        raise AsjaxError(
            f"{shown(members[0].path)} has logits of none of the {counted(len(source), 'clip')} of "
            f"{source.name} (first clip {shown(source.ids[0])}, first logits "
            f"{shown(next(iter(members[0].stored.row_ids), 'none'))}); are they of other data?"
        )
    notes = _notes(source, members)
    if lost:
        clip, why = lost[0]
        notes.append(
            f"no logits    {len(lost):,} of {counted(len(source), 'clip')}, first {shown(clip)}: "
            f"{why}; metrics.json names them"
        )
    return (Some(source, rows) if lost else source), lost, notes


def _notes(source, members) -> list[str]:
    notes = []
    for member in members:
        name, extra = shown(member.path), member.stored.extra
        if member.data_hash not in (None, source.hash):
            notes.append(
                f"other data   {name} was stored from other clips, labels or audio than "
                f"{source.name}; clips are matched by id"
            )
        if isinstance(extra, dict) and extra.get("cut"):
            count, seconds = counted(extra["cut"], "longer recording"), member.cfg["data"]["clip_s"]
            notes.append(f"cut          {name} has logits of the first {seconds:g} s of {count}")
    if getattr(source, "begin_s", None) is not None and source.piece_s:
        seconds = f"{source.piece_s:g} s"
        notes.append(f"pieces       recordings are scored in pieces of {seconds}, as stored")
    return notes


def check(stored: logits.Logits, rest: str, alone: bool) -> None:
    """Raise AsjaxError if the logits cannot stand for a model.

    Args:
      rest: classes outside of the `top` stored ones get probability 0 ("zero"), or "uniform" (see
        `data.teacher.dense`). alone: no mean of logits; else "zero" is refused.
    """
    where = shown(stored.path)
    if rest not in teacher.RESTS:
        raise AsjaxError(f"rest must be one of {', '.join(teacher.RESTS)}, got {rest!r}")
    if stored.views:
        raise AsjaxError(
            f"{where} has logits of {stored.views['count']} random views of each clip, which are "
            "for students; store the clips without --views"
        )
    cut = stored.top is not None and stored.top < len(stored.label_set)
    if cut and rest == "zero" and not alone:
        raise AsjaxError(
            f"{where} has the {stored.top} highest logits of each clip, and the others count as "
            "probability 0, which no mean of logits can have; give --rest uniform, or store all"
        )
    if cut and rest == "uniform" and stored.activation == "softmax":
        raise AsjaxError(f"{where} has log-probabilities of a softmax, which have no uniform rest")


def filled(stored: logits.Logits, row: int, rest: str) -> np.ndarray:
    """The scores of all classes of a row, float32 [C]; a class of probability 0 has ABSENT."""
    classes = None if stored.classes is None else stored.classes[row]
    dense = partial(teacher.dense, width=len(stored.label_set), rest=rest)
    scores = dense(stored.clip[row], classes)
    return np.where(np.isneginf(scores), np.float32(ABSENT), scores)
