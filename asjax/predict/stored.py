"""Stored logits in the place of the model that made them: they tag files whose clips are stored."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, counted, shown
from asjax.data import audio, recordings
from asjax.evaluation.stored_logits import check, filled
from asjax.predict.recording import Heard
from asjax.store import logits


class Stored:
    """A member of an `Ensemble` that looks its logits up by the name of a file.

    The clip of a file is the longest end of its path that is an id: of `a/b/c.wav`, these are
    `a/b/c.wav`, `b/c.wav`, `c.wav`, and each without `.wav`. The file itself is only asked for its
    length, which must be that of the clip.

    Args:
      frames: as for `Tagger`.
      rest: classes outside of the `top` stored ones get "zero" probability, or "uniform" (see
        `data.teacher.dense`). alone: there are no other members; else "zero" is refused.

    Raises:
      AsjaxError: no logits of clips or of frames where they are needed, several views, or `rest`.
    """

    embeds = False

    def __init__(self, path, *, frames=None, rest="zero", alone=True):
        self.path, self.stored = shown(path), logits.open(path)
        stored, extra = self.stored, self.stored.extra
        extra = extra if isinstance(extra, dict) else {}
        self.label_set, self.activation = stored.label_set, stored.activation
        check(stored, rest, alone)
        self.rest, self.cut, self._by_clip = rest, [], {}
        self.heard_s = extra.get("clip_s")  # seconds that the models heard
        longest = float(stored.durations_s.max()) if len(stored.durations_s) else 0.0
        self.clip_s = float(self.heard_s or longest)
        # Only pictures and the frequencies of tables need it, and others' files do not have it.
        self.sample_rate = int(extra.get("sample_rate") or 16_000)
        self.frame_count = 0 if stored.frames is None else stored.frames.shape[1]
        self.frame_rate = stored.frame_rate
        self.why_no_frames = "these logits are of clips and not of frames; store with --frames"
        if frames is False:
            self.frame_count = 0
        if frames and not self.frame_count:
            raise AsjaxError(f"{self.path}: {self.why_no_frames}")
        if stored.clip is None and not self.frame_count:
            raise AsjaxError(f"{self.path} has logits of frames only; add --events")
        self.record = {}
        self._missing = {clip: reason for clip, _, reason in stored.missing()}

    def hear(self, sources, *, batch=None, on_window=None, decoding=contextlib.nullcontext):
        """What is stored about each source: `Heard`, or an error."""
        for number, source in enumerate(sources):
            try:
                with decoding():
                    heard = self._heard(source, recordings.name_of(source, number))
            except AsjaxError as error:
                heard = error
            else:
                if on_window:
                    on_window(heard.duration_s)
            yield heard

    def _heard(self, source, name: str) -> Heard:
        if not isinstance(source, (str, os.PathLike)):
            raise AsjaxError(
                f"{name}: stored logits are found by the name of a file, and this has none"
            )
        clip = self.clip_of(source)
        row = self.stored.row(clip)
        duration_s = float(self.stored.durations_s[row])
        seconds = audio.info(source, name=name, note=lambda text: None).duration_s
        wanted = min(seconds, self.heard_s or min(seconds, duration_s))
        if abs(wanted - duration_s) > 0.05 + 0.01 * wanted:
            raise AsjaxError(
                f"{name}: it is {seconds:.2f} s long, and {self.path} has logits of "
                f"{duration_s:.2f} s for the clip {shown(clip)}; is this another file?"
            )
        other = self._by_clip.setdefault(clip, os.path.realpath(source))
        if other != os.path.realpath(source):
            raise AsjaxError(
                f"{name}: {self.path} has one clip {shown(clip)} for it and for {shown(other)}; "
                "tag them in two commands, from where the clips of the data are"
            )
        if seconds > duration_s * 1.01 + 0.05:
            self.cut.append((shown(name), duration_s))
        found, frames = self.stored.at(row), self.why_no_frames
        if self.frame_count:
            frames = np.array(found["frames"][: self.stored.lengths[row]], np.float32)
        whole = "clip" in found
        scores = filled(self.stored, row, self.rest) if whole else frames.max(axis=0)
        arrays = [scores] if isinstance(frames, str) else [scores, frames]
        if not all(np.isfinite(array).all() for array in arrays):
            raise AsjaxError(f"{name}: its logits in {self.path} are not finite; store them again")
        times = np.array([[0.0, duration_s]])
        return Heard(name, duration_s, scores[None], times, frames, self.frame_rate)

    def clip_of(self, path) -> str:
        """The id of the clip of a file. AsjaxError: there is none."""
        parts = Path(os.path.abspath(path)).parts
        for k in range(len(parts)):
            end = os.path.join(*parts[k:])
            for clip in (end, os.path.splitext(end)[0]):
                if clip in self.stored:
                    return clip
        name = os.path.basename(path)
        why = self._missing.get(name) or self._missing.get(os.path.splitext(name)[0])
        if f"{name}@0s" in self.stored:
            why = "they are of pieces of it"
        first = shown(self.stored.row_ids[0]) if self.stored.row_ids else "none"
        raise AsjaxError(
            f"{os.fspath(path)}: {self.path} has no logits of it"
            + (f": {why}" if why else f"; its clips are called as {first}")
        )

    def notes(self) -> list[str]:
        if not self.cut:
            return []
        name, seconds = self.cut[0]
        return [
            f"{self.path} has logits of the beginning of {counted(len(self.cut), 'file')}, first "
            f"{name}: {seconds:.2f} s"
        ]
