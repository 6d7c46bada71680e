"""Host operations on one example: `(example, rng, *, ...) -> example`, numpy only.

An example is a dict. A source gives `id` (str), `audio` (bytes or path) and `labels` (class
indices). A source with events in time gives `events` as well, an array of `asjax.events.EVENT`, or
None for a clip in which none are marked; `decode` and `crop` then say in `start_s` where in the
recording the wave begins. The ops of a chain, such as "decode | crop | multihot", make `wave` and
`target` of them. What is left under other names is batched as well: arrays and numbers go to the
device and to the objective, so they must have one shape and dtype for all clips; anything else
stays on the host.

A user's own op stands in the chain as "my_package.my_file:thing(x=1)". Ops run in threads and in
worker processes. An op never writes into an array that it was given, because a cache may share it.
`rng` is a numpy Generator that depends on the seed and the draw alone. Keywords that an op asks for
and the chain does not give come from the pipeline:

    sample_rate, clip_s   what the model hears: Hz, seconds
    num_classes           classes of `labels`
    train                 True in training, False in evaluation
    pcm16                 True where `wave` is int16 (see `decode`). In a chain with an own op that
                          does not ask for this, waves are float32.

A clip of an evaluation that cannot be decoded goes on through the chain with an empty `wave`. Rows
of padding do not pass through the chain.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError, shown, warn

__all__ = ["crop", "decode", "multihot", "strong"]

_NOTES = 10
_noted: set[str] = set()
LONG_S = 60.0  # recordings beyond this are read in part, and not kept in memory


def decode(
    example,
    rng,
    *,
    sample_rate: int,
    clip_s: float,
    train: bool,
    pcm16: bool = False,
    decode_timeout_s: float = 60.0,
):
    """`audio` -> `wave` float32 [S'] at `sample_rate` Hz, and `whole`: may the result be kept?

    Up to `LONG_S` seconds the whole recording is decoded. Of a longer one a stretch of `clip_s` is
    read: in training from a random place, else from the beginning. With `pcm16` the wave is int16,
    full scale 32768: the same numbers in half the bytes.

    Raises:
      AudioError: the clip cannot be used, or was not read within `decode_timeout_s` seconds.
    """
    from asjax.data import patience
    from asjax.data.audio import AudioError

    example = dict(example)
    source, name = example.pop("audio"), example["id"]
    work = partial(_read, source, name, sample_rate, clip_s, rng if train else None)
    wave, whole, start_s = patience.call(work, decode_timeout_s, shown(name))
    if pcm16:
        exact = wave * np.float32(32768)
        with np.errstate(invalid="ignore"):  # what does not fit is found in the next line
            wave = exact.astype(np.int16)
        if not np.array_equal(wave, exact):
            raise AudioError(
                f"{shown(name)} must be 16-bit mono PCM at {sample_rate} Hz, as its source says; "
                "it was changed after it was listed"
            )
    wave.setflags(write=False)
    if "events" in example:
        example["start_s"] = start_s
    return {**example, "wave": wave, "whole": whole}


def _read(source, name, sample_rate, clip_s, rng):
    """(wave, whole?, where it begins in seconds).

    `rng` places the stretch of a long recording. A short one leaves it alone, because a clip from
    the cache does so too.
    """
    from asjax.data import audio

    common = {"name": name, "note": _note}
    try:
        return audio.read(source, sample_rate, max_s=LONG_S, **common), True, 0.0
    except audio.AudioError:  # too long, or not audio, which `info` says again
        seconds = audio.info(source, **common).duration_s
        if seconds <= LONG_S:
            raise
        start_s = rng.random() * max(0.0, seconds - clip_s) if rng is not None else 0.0
        part = {"start_s": start_s, "duration_s": clip_s, "max_s": clip_s + 1}
        return audio.read(source, sample_rate, **common, **part), False, start_s


def _note(text: str) -> None:
    """A warning for each of the first `_NOTES` clips that have something to note."""
    if text in _noted or len(_noted) > _NOTES:
        return
    _noted.add(text)
    warn(text if len(_noted) <= _NOTES else f"more clips have notes; the first {_NOTES} were shown")


def crop(example, rng, *, sample_rate: int, clip_s: float, train: bool):
    """`wave` [S'] -> [S], S = clip_s * sample_rate rounded.

    A longer wave is cut, in training from a random start, else from 0. A shorter one gets zeros on
    its right.
    """
    wave, size, start = example["wave"], round(clip_s * sample_rate), 0
    if len(wave) > size:
        start = int(rng.integers(len(wave) - size + 1)) if train else 0
        wave = wave[start : start + size]
    if len(wave) < size:
        wave = np.pad(wave, (0, size - len(wave)))
    example = {**example, "wave": wave}
    if "start_s" in example:
        example["start_s"] += start / sample_rate
    return example


def multihot(example, rng, *, num_classes: int):
    """`labels` (class indices) -> `target` float32 [num_classes] of 0 and 1; drops `events`."""
    example = dict(example)
    for key in ("events", "start_s"):
        example.pop(key, None)
    target = _multihot(example.pop("labels"), example["id"], num_classes)
    return {**example, "target": target}


def strong(
    example,
    rng,
    *,
    num_classes: int,
    clip_s: float,
    frame_rate: float = 25.0,
    frames: int | None = None,
    rule: str = "touched",
    single: bool = False,
    weak: bool = True,
):
    """`events` and `labels` -> targets in time and of the clip, and which of the two are known.

    The events are cut where the wave begins and ends, and overlaps of a class are merged.

    Args:
      frame_rate: frames per second. frames: their number T (default: those that fit in clip_s).
      rule, single: what an event marks, as in asjax.events.to_frames.
      weak: a clip with marked events also counts as weakly labelled, by its events inside the wave.

    Returns: the example with
      frame_target: float32 [T, num_classes] of 0 and 1; zeros without marks.
      has_strong: 1.0 where events are marked, though there may be none; else 0.0.
      target: float32 [num_classes], the maximum of frame_target over time, or the clip's labels.
      has_weak: 1.0 where target may be trained on.
    """
    example = dict(example)
    marked, start_s = example.pop("events", None), example.pop("start_s", 0.0)
    labels, count = example.pop("labels"), frames or int(clip_s * frame_rate + 1e-6)
    known = marked is not None
    if known:
        inside = lists.merge(lists.cut(marked, start_s, start_s + clip_s))
        if len(inside) and inside["class"].max() >= num_classes:
            raise AsjaxError(
                f"clip {example['id']}: classes of events must be 0 to {num_classes - 1}, got "
                f"{inside['class'].max()}"
            )
        frame_target = lists.to_frames(
            inside,
            frames=count,
            num_classes=num_classes,
            frame_rate=frame_rate,
            rule=rule,
            single=single,
        )
        target = frame_target.max(axis=0)
    else:
        frame_target = np.zeros((count, num_classes), np.float32)
        target = _multihot(labels, example["id"], num_classes)
    example |= {"frame_target": frame_target, "target": target}
    return {**example, "has_strong": float(known), "has_weak": float(weak or not known)}


def _multihot(labels, name, num_classes: int) -> np.ndarray:
    labels = np.asarray(labels, np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise AsjaxError(
            f"clip {name}: labels must be 0 to {num_classes - 1}, got {labels.tolist()}"
        )
    target = np.zeros(num_classes, np.float32)
    target[labels] = 1.0
    return target
