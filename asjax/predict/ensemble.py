"""`Ensemble`: several models, or stored logits, with the calls of one tagger.

The result is that of a model whose logits are the mean of the members' logits, as in `asjax eval`
and `asjax logits`. With one label per clip (softmax) it is the mean of the log-probabilities.

Members with the same sample rate and clip length are one jitted program, so they share decoding.
If clip lengths differ, each member hears windows of its own length, and the mean is that of their
scores of the whole recording. Frame scores need members with one frame rate.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from itertools import tee
from typing import NamedTuple

import numpy as np

from asjax import labels
from asjax.config import AsjaxError, shown, unknown
from asjax.evaluation import mean
from asjax.evaluation.averages import average_scores
from asjax.predict import onnx_tagger
from asjax.predict.recording import Heard, reduced
from asjax.predict.stored import Stored
from asjax.predict.tagger import Tagger, load_one
from asjax.predict.tags import NO_EMBEDDING
from asjax.predict.windows import REDUCE, Calls, check_settings
from asjax.store import logits

_BLOCK = 4096  # frames that are averaged at once


class Ensemble(Calls):
    """Several members as one tagger: `Ensemble([dir, ...])(source)`.

    Attributes: as of `Tagger`; `sample_rate` is the highest and `clip_s` the longest of the
    members. `one_window` says whether all members have the same windows.
    """

    embeds = False

    def __init__(
        self, paths, *, weights=None, rest="zero", reduce="mean", batch_size=16, overlap=0.0,
        window_embeddings=False, frames=None, chunks=False, full=False,
    ):  # fmt: skip
        if window_embeddings:
            raise AsjaxError(NO_EMBEDDING)
        if reduce not in REDUCE:
            raise unknown("reduce", reduce, REDUCE)
        check_settings(batch_size, overlap)
        self.paths, self.reduce = list(map(str, paths)), reduce
        self.weights = mean.weights(weights, len(paths))
        mean.say_twice(paths)
        how = {"reduce": reduce, "batch_size": batch_size, "overlap": overlap}
        how |= {"chunks": chunks, "full": full}
        members = []
        for one in paths:
            if logits.is_folder(one):
                members.append(Stored(one, frames=frames, rest=rest, alone=len(paths) == 1))
            else:
                load = onnx_tagger.load_file if onnx_tagger.is_file(one) else load_one
                with _of(one):
                    members.append(load(one, frames=frames, **how))
        first = members[0]
        self.label_set, self.activation = first.label_set, first.activation
        for one, member in zip(paths, members, strict=True):
            labels.check_same(self.label_set, member.label_set, shown(one), shown(paths[0]))
            if member.activation != self.activation:
                raise AsjaxError(
                    f"{shown(paths[0])} and {shown(one)} have no common logits: one has one label "
                    "per clip (softmax), the other has several (sigmoid); give models of one kind"
                )
        self._check_frames(members, frames)
        self.sample_rate = max(member.sample_rate for member in members)
        self.clip_s = max(member.clip_s for member in members)
        self.one_window = len({member.clip_s for member in members}) == 1
        # Thresholds that were tuned for one model are not those of a mean.
        self.record = {**first.record} if len(members) == 1 else {}
        self.record["ensemble"] = dict(zip(self.paths, self.weights, strict=True))
        self._parts = _joined(members, self.weights, how, bool(self.frame_count))

    def _check_frames(self, members, frames) -> None:
        """The frames of the mean. AsjaxError: they are wanted, and frame rates differ."""
        self.frame_count, self.frame_rate, self.why_no_frames = 0, None, ""
        for path, member in zip(self.paths, members, strict=True):
            if not member.frame_count:
                self.why_no_frames = f"{shown(path)}: {member.why_no_frames}"
                return
        rates = [member.frame_rate for member in members]
        for path, rate in zip(self.paths, rates, strict=True):
            if abs(rate - rates[0]) > 1e-6 * rates[0]:
                self.why_no_frames = (
                    "the models of an ensemble must have the same frame rate: "
                    f"{shown(self.paths[0])} has {rates[0]:g} and {shown(path)} {rate:g} frames "
                    "per second"
                )
                if frames:
                    raise AsjaxError(self.why_no_frames)
                return
        self.frame_count, self.frame_rate = members[0].frame_count, rates[0]

    def hear(self, sources, *, batch=None, on_window=None, decoding=contextlib.nullcontext):
        """The mean of what the members say about each source: `Heard`, or an error."""
        streams, several = [], len(self._parts) > 1
        copies = tee(map(_read, sources) if several else sources, len(self._parts))
        for k, ((part, _), own) in enumerate(zip(self._parts, copies, strict=True)):
            seen = on_window if k == 0 else None
            own = map(_opened, own) if several else own
            streams.append(part.hear(own, batch=batch, on_window=seen, decoding=decoding))
        for every in zip(*streams, strict=True):
            failed = next((one for one in every if isinstance(one, Exception)), None)
            yield self._mean(every) if failed is None else failed

    def _mean(self, every) -> Heard | AsjaxError:
        first = every[0]
        frames = self.why_no_frames or first.frames
        if len(every) == 1:
            return replace(first, frames=frames)
        for (part, _), one in zip(self._parts, every, strict=True):
            if abs(one.duration_s - first.duration_s) > 0.02 + 1e-3 * first.duration_s:
                short = part if one.duration_s < first.duration_s else self._parts[0][0]
                return AsjaxError(
                    f"{first.file}: {getattr(short, 'path', 'a member')} has logits of "
                    f"{min(one.duration_s, first.duration_s):.2f} s of it, and another member "
                    f"hears {max(one.duration_s, first.duration_s):.2f} s; leave one of them out"
                )
        weights = [weight for _, weight in self._parts]
        average = lambda parts: average_scores(parts, "logits", [self.activation], weights)  # noqa: E731
        if self.one_window:
            # Rounding of the length to samples may give one window more at one of the rates.
            count = min(len(one.logits) for one in every)
            scores, times = average(one.logits[:count] for one in every), first.times[:count]
        else:
            whole = [reduced(one.logits, self.reduce, self.activation)[None] for one in every]
            scores, times = average(whole), np.array([[0.0, first.duration_s]])
        if not self.why_no_frames:
            count = min(len(one.frames) for one in every)
            frames = first.frames[:count]
            for start in range(0, count, _BLOCK):
                part = slice(start, min(count, start + _BLOCK))
                frames[part] = average(one.frames[part] for one in every)
        return replace(first, logits=scores, times=times, frames=frames)

    def notes(self) -> list[str]:
        return [note for part, _ in self._parts for note in part.notes()]

    def __repr__(self):
        return (
            f"Ensemble({len(self.paths)} members, {len(self.label_set)} classes of "
            f"{self.label_set.name}, {self.activation}: {', '.join(self.paths)})"
        )


@contextlib.contextmanager
def _of(path):
    """Put the name of a member before its errors, unless they have it."""
    try:
        yield
    except AsjaxError as error:
        if str(path) in str(error):
            raise
        raise AsjaxError(f"{shown(path)}: {error}") from None


def _same(wave):
    return wave


def _joined(members, weights, how: dict, frames: bool) -> list:
    """(part, weight): stored logits, ONNX files, and one tagger for the models of one kind of
    input."""
    parts, kinds = [], {}
    for member, weight in zip(members, weights, strict=True):
        if not isinstance(member, Tagger):
            parts.append((member, weight))
        else:
            kinds.setdefault((member.sample_rate, member.clip_s), []).append((member, weight))
    for (sample_rate, clip_s), group in kinds.items():
        total, first = sum(weight for _, weight in group), group[0][0]
        if len(group) > 1:
            shares = [(m.model, m.frontend, weight / total) for m, weight in group]
            outputs = ("logits", "frame_logits") if frames else ("logits",)
            first = Tagger(
                mean.Mean(shares, outputs, first.activation == "softmax"),
                {str(k): member.variables for k, (member, _) in enumerate(group)},
                _same,
                first.label_set,
                sample_rate=sample_rate,
                clip_s=clip_s,
                activation=first.activation,
                frames=frames,
                **how,
            )
        parts.append((first, total))
    return parts


class _Copy(NamedTuple):
    """The content of a binary file, which has one position and several readers."""

    content: bytes
    name: str


def _read(source):
    binary = hasattr(source, "read") and not isinstance(source, io.TextIOBase)
    return _Copy(source.read(), getattr(source, "name", "")) if binary else source


def _opened(source):
    """A source for one of several readers."""
    if not isinstance(source, _Copy):
        return source
    file = io.BytesIO(source.content)
    if source.name:
        file.name = str(source.name)
    return file
