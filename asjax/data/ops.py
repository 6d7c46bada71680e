"""Host operations on one example: `(example, rng, *, ...) -> example`, numpy only.

An example is a dict. A source gives `id` (str), `audio` (bytes or path) and `labels` (class
indices). The ops of a chain, such as "decode | crop | multihot", make `wave` and `target` of them.
What is left under other names is batched as well: arrays and numbers go to the device and to the
objective, so they must have one shape and dtype for all clips; anything else stays on the host.

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

from asjax.config import AsjaxError, shown, warn

__all__ = ["crop", "decode", "multihot"]

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
    wave, whole = patience.call(work, decode_timeout_s, shown(name))
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
    return {**example, "wave": wave, "whole": whole}


def _read(source, name, sample_rate, clip_s, rng):
    """(wave, whole?). `rng` places the stretch of a long recording; a short one leaves it alone,
    because a clip from the cache does so too."""
    from asjax.data import audio

    common = {"name": name, "note": _note}
    try:
        return audio.read(source, sample_rate, max_s=LONG_S, **common), True
    except audio.AudioError:  # too long, or not audio, which `info` says again
        seconds = audio.info(source, **common).duration_s
        if seconds <= LONG_S:
            raise
        start_s = rng.random() * max(0.0, seconds - clip_s) if rng is not None else 0.0
        part = {"start_s": start_s, "duration_s": clip_s, "max_s": clip_s + 1}
        return audio.read(source, sample_rate, **common, **part), False


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
    wave, size = example["wave"], round(clip_s * sample_rate)
    if len(wave) > size:
        start = int(rng.integers(len(wave) - size + 1)) if train else 0
        wave = wave[start : start + size]
    if len(wave) < size:
        wave = np.pad(wave, (0, size - len(wave)))
    return {**example, "wave": wave}


def multihot(example, rng, *, num_classes: int):
    """`labels` (class indices) -> `target` float32 [num_classes] of 0 and 1."""
    example = dict(example)
    labels = np.asarray(example.pop("labels"), np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise AsjaxError(
            f"clip {example['id']}: labels must be 0 to {num_classes - 1}, got {labels.tolist()}"
        )
    target = np.zeros(num_classes, np.float32)
    target[labels] = 1.0
    return {**example, "target": target}
