"""Host operations on one example: `(example, rng, *, ...) -> example`, numpy only.

An example is a dict. A source gives `id` (str), `audio` (bytes or path) and `labels` (class
indices). A source with events in time also gives `events`: an array of `asjax.events.EVENT`, or
None for a clip that is not annotated. Then `decode` and `crop` set `start_s`, the time in the
recording at which the wave begins, `decode` sets `whole_s`, the seconds of the recording, and
`crop` sets `length`, the samples before the padding.

A chain of ops, such as "decode | crop | multihot", makes `wave` and `target`. All other entries are
batched too. Arrays and numbers go to the device and to the objective, so they must have one shape
and dtype for all clips. Other values stay on the host.

A user's op is in the chain as "my_package.my_file:thing(x=1)". Ops run in threads and in worker
processes. An op never writes into its input arrays, because a cache may share them. `rng` is a
numpy Generator that depends only on the seed and the draw. The pipeline gives these keywords to an
op that takes them, unless the chain sets them:

    sample_rate, clip_s   input of the model: Hz, seconds
    num_classes           number of classes
    train                 True in training, False in evaluation
    pcm16                 True if `wave` is int16 (see `decode`). If a user's op in the chain does
                          not take this keyword, waves are float32.

In an evaluation, a clip that cannot be decoded passes the other ops with an empty `wave`. Rows of
padding do not pass the chain.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError, shown, warn

__all__ = ["crop", "decode", "listed", "multihot", "random_piece", "strong", "teacher"]

_NOTES = 10
_noted: set[str] = set()
LONG_S = 60.0  # longer recordings are read in part and not cached


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
    """`audio` -> `wave` float32 [S'] at `sample_rate` Hz, and `whole`: True if it may be cached.

    If the example has a `part`, (begin in seconds, seconds), only this part is decoded. A recording
    of up to `LONG_S` seconds is decoded as a whole. From a longer one, `clip_s` seconds
    are read: in training from a random place, else from the beginning. With `pcm16` the wave is
    int16 with full scale 32768: the same values in half of the memory.

    Raises:
      AudioError: the clip cannot be used, or was not read within `decode_timeout_s` seconds.
    """
    from asjax.data import patience
    from asjax.data.audio import AudioError
    from asjax.data.pcm16 import samples

    example = dict(example)
    source, name, part = example.pop("audio"), example["id"], example.pop("part", None)
    example.pop("recording", None)
    plain = samples(source, sample_rate) if part is None else None
    if plain is not None and len(plain) <= LONG_S * sample_rate:  # nothing to decode
        whole, start_s, whole_s = True, 0.0, len(plain) / sample_rate
        wave = plain if pcm16 else plain * np.float32(1 / 32768)
    else:
        work = partial(_read, source, name, sample_rate, clip_s, rng if train else None)
        if part is not None:
            work = partial(_read_part, source, name, sample_rate, *part)
        wave, whole, start_s, whole_s = patience.call(work, decode_timeout_s, shown(name))
    if pcm16 and wave.dtype != np.int16:
        exact = wave * np.float32(32768)
        with np.errstate(invalid="ignore"):  # the next line finds values that do not fit
            wave = exact.astype(np.int16)
        if not np.array_equal(wave, exact):
            raise AudioError(
                f"{shown(name)} must be 16-bit mono PCM at {sample_rate} Hz, as its source says; "
                "it was changed after the source was opened"
            )
    wave.setflags(write=False)
    if "events" in example:
        example |= {"start_s": start_s, "whole_s": whole_s}
    return {**example, "wave": wave, "whole": whole}


def _read(source, name, sample_rate, clip_s, rng):
    """(wave, whether it is the whole recording, its begin, seconds of the recording).

    `rng` is used only for a long recording. A short recording must not use it, because a clip from
    the cache does not use it either.
    """
    from asjax.data import audio

    common = {"name": name, "note": _note}
    try:
        wave = audio.read(source, sample_rate, max_s=LONG_S, **common)
        return wave, True, 0.0, len(wave) / sample_rate
    except audio.AudioError:  # too long, or not audio; then `info` raises the same error
        seconds = audio.info(source, **common).duration_s
        if seconds <= LONG_S:
            raise
        start_s = rng.random() * max(0.0, seconds - clip_s) if rng is not None else 0.0
        part = {"start_s": start_s, "duration_s": clip_s, "max_s": clip_s + 1}
        return audio.read(source, sample_rate, **common, **part), False, start_s, seconds


def _read_part(source, name, sample_rate, begin_s, piece_s):
    from asjax.data import audio

    part = {"start_s": begin_s, "duration_s": piece_s, "max_s": piece_s + 1}
    wave = audio.read(source, sample_rate, name=name, note=_note, **part)
    return wave, True, 0.0, len(wave) / sample_rate


def _note(text: str) -> None:
    """Warn with the notes of the first `_NOTES` clips."""
    if text in _noted or len(_noted) > _NOTES:
        return
    _noted.add(text)
    warn(text if len(_noted) <= _NOTES else f"more clips have notes; the first {_NOTES} were shown")


def random_piece(example, rng, *, clip_s: float, train: bool, step_s: float = 0.04):
    """In training, move a piece to a random place of its recording; before `decode`.

    A piece begins at a multiple of `step_s` seconds, so that its frames are frames of the recording
    if `step_s` is the length of a label's frame. The source must have recordings (`hear`).
    """
    if not step_s > 0:
        raise AsjaxError(f"host op random_piece: step_s must be above 0, got {step_s!r}")
    if not train:
        return example
    if "recording" not in example:
        raise AsjaxError(
            "host op random_piece needs pieces of recordings, as the source hear gives them; leave "
            "it out of data.ops"
        )
    seconds, marks = example["recording"]
    last = max(0, int((seconds - clip_s) / step_s + 1e-6))
    begin_s = int(rng.integers(last + 1)) * step_s
    events = lists.cut(marks, begin_s, begin_s + clip_s)
    labels = np.unique(events["class"]).astype(np.int64)
    return {**example, "part": (begin_s, clip_s), "events": events, "labels": labels}


def crop(
    example,
    rng,
    *,
    sample_rate: int,
    clip_s: float,
    train: bool,
    train_s: float | None = None,
    loud: bool = False,
):
    """`wave` [S'] -> [S], S = clip_s * sample_rate rounded.

    A longer wave is cut: in training at a random start, else at 0. A shorter one gets zeros at its
    end.

    Args:
      train_s: seconds in training, if they are fewer than in an evaluation. A model that hears
        short windows learns from short ones. Clips with events have one length only.
      loud: in training, the chance of a start is in proportion to the energy from there on. A
        recording with silence in it else gives pieces without the sound of its labels.
    """
    seconds = clip_s if train_s is None or not train else train_s
    if not 0 < seconds <= clip_s:
        raise AsjaxError(
            f"host op crop: train_s must be above 0, at most {clip_s:g}, got {train_s}"
        )
    if train_s is not None and "events" in example:
        raise AsjaxError("host op crop: train_s is for clips without events in time; leave it out")
    wave, size, start = example["wave"], round(seconds * sample_rate), 0
    length = min(len(wave), size)
    if len(wave) > size:
        if train:
            start = _loud(wave, size, rng) if loud else int(rng.integers(len(wave) - size + 1))
        wave = wave[start : start + size]
    if len(wave) < size:
        wave = np.pad(wave, (0, size - len(wave)))
    example = {**example, "wave": wave}
    if "events" in example:  # also a clip that could not be decoded has these, for its batch
        example["start_s"] = example.get("start_s", 0.0) + start / sample_rate
        example["length"] = np.int32(length)
    return example


def _loud(wave, size: int, rng) -> int:
    """A start of `size` samples, drawn in proportion to their energy; in silence any start."""
    energy = np.cumsum(np.square(wave, dtype=np.float64))
    chance = energy[size - 1 :].copy()
    chance[1:] -= energy[:-size]
    total = np.cumsum(np.maximum(chance, 0))
    if not total[-1] > 0:
        return int(rng.integers(len(chance)))
    return int(np.searchsorted(total, rng.random() * total[-1], side="right"))


def multihot(example, rng, *, num_classes: int):
    """`labels` (class indices) -> `target` float32 [num_classes] of 0 and 1; drops `events`.

    If the data also has clips without labels, these get `has_weak` 0.0, and the others 1.0.
    """
    example = dict(example)
    known = {"has_weak": example.pop("labelled")} if "labelled" in example else {}
    for key in ("events", "start_s", "whole_s", "length"):
        example.pop(key, None)
    target = _multihot(example.pop("labels"), example["id"], num_classes)
    return {**example, "target": target, **known}


def strong(
    example,
    rng,
    *,
    num_classes: int,
    clip_s: float,
    train: bool = True,
    frame_rate: float = 25.0,
    frames: int | None = None,
    rule: str = "touched",
    single: bool = False,
    weak: bool = True,
):
    """`events` and `labels` -> targets per frame and per clip, and flags for which are known.

    The events are cut to the wave, and overlapping events of a class are merged.

    Args:
      frame_rate: frames per second. frames: number of frames T (default: as many as fit in clip_s).
      rule, single: the frames of an event, as in asjax.events.to_frames.
      weak: an annotated clip also counts as weakly labelled, by its events inside the wave.

    Returns: the example with
      frame_target: float32 [T, num_classes] of 0 and 1; zeros if the clip is not annotated.
      has_strong: 1.0 if the clip is annotated, even without any event; else 0.0.
      target: float32 [num_classes], the maximum of frame_target over time, or the clip's labels.
      has_weak: 1.0 if target may be used for training; 0.0 for a clip without labels.
      events: only in an evaluation, the events in the wave as an `EVENT` array, or None.
      whole_s: only in an evaluation, float64 seconds of the recording; 0 if it was not read.
    """
    example = dict(example)
    marked, start_s = example.pop("events", None), example.pop("start_s", 0.0)
    whole_s = np.array(example.pop("whole_s", 0.0), np.float64)
    labels, count = example.pop("labels"), frames or int(clip_s * frame_rate + 1e-6)
    labelled = example.pop("labelled", 1.0) > 0
    known, inside = marked is not None, None
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
    if not train:
        example |= {"events": inside, "whole_s": whole_s}
    has_weak = labelled and (weak or not known)
    return {**example, "has_strong": float(known), "has_weak": float(has_weak)}


def listed(example, rng, *, clip_s: float):
    """`labels` and `events` stay lists on the host. The events are cut to the wave."""
    example = dict(example)
    marked, start_s = example.pop("events", None), example.pop("start_s", 0.0)
    example["whole_s"] = np.array(example.get("whole_s", 0.0), np.float64)  # 0: it was not read
    if marked is not None:
        marked = lists.merge(lists.cut(marked, start_s, start_s + clip_s))
    labels = np.asarray(example.pop("labels"), np.int64).tolist()
    return {**example, "labels": labels, "events": marked}


def teacher(
    example,
    rng,
    *,
    path: str,
    kinds=None,
    rest="zero",
    replay: bool = True,
    check: bool = True,
    stored_logits=None,
):
    """Add the stored logits of the clip, as `asjax logits` wrote them to the folder `path`.

    It acts in training only. With frame logits, `decode` and `crop` take the beginning of every
    recording, as when the logits were stored. If the folder has views, they make those again.

    Args:
      kinds: "clip" or "frames": only these logits; None: all that the folder has.
      rest: with the highest logits only, what other classes get: "zero": a probability of 0;
        "uniform": the lowest stored probability divided by their number.
      replay: make the views of the folder again. False: take the logits of a random view, for views
        that cannot be made again, such as those of CED's files.
      check: refuse logits that fit the labels of the clips no better than a wrong index would.
      stored_logits: from the program, asjax.data.teacher.Stored.

    Returns: the example with
      teacher: logits [T', num_classes], float16 or float32, of the frames; zeros without a teacher.
      clip_teacher: float32 logits [num_classes] of the clip, likewise.
      has_teacher: 1.0 if the folder has logits of this clip, else 0.0.
    """
    example = dict(example)
    row = example.pop("teacher_row")
    return {**example, **stored_logits.at(row)}


def _multihot(labels, name, num_classes: int) -> np.ndarray:
    labels = np.asarray(labels, np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise AsjaxError(
            f"clip {name}: labels must be 0 to {num_classes - 1}, got {labels.tolist()}"
        )
    target = np.zeros(num_classes, np.float32)
    target[labels] = 1.0
    return target
