"""Host operations on one example: `(example, rng, *, ...) -> example`, numpy only.

An example is a dict. A source gives `id` (str), `audio` (bytes or path) and `labels` (class
indices). The ops of a chain, such as "decode | crop | multihot", make `wave` and `target` of them;
what is left under other names is batched as well. Ops run in worker processes. An op never writes
into an array that it was given, because a cache may share it. Keywords that an op asks for and the
chain does not give, such as `sample_rate`, `clip_s`, `num_classes` and `train`, come from the
pipeline. `rng` is a numpy Generator that depends on the seed and the draw alone.
"""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError

__all__ = ["crop", "decode", "multihot"]

LONG_S = 60.0  # recordings beyond this are read in part, and not kept in memory


def decode(example, rng, *, sample_rate: int, clip_s: float, train: bool):
    """`audio` -> `wave` float32 [S'] at `sample_rate` Hz, and `whole`: may the result be kept?

    Up to `LONG_S` seconds the whole recording is decoded. Of a longer one a stretch of `clip_s` is
    read: in training from a random place, else from the beginning. Raises audio.AudioError.
    """
    from asjax.data import audio
    from asjax.data.audio import AudioError

    example = dict(example)
    source, name = example.pop("audio"), example["id"]
    try:
        wave, whole = audio.read(source, sample_rate, name=name, max_s=LONG_S), True
    except AudioError:  # too long, or not audio, which `info` says again
        seconds = audio.info(source, name=name).duration_s
        if seconds <= LONG_S:
            raise
        start_s = rng.random() * max(0.0, seconds - clip_s) if train else 0.0
        part = {"start_s": start_s, "duration_s": clip_s, "max_s": clip_s + 1}
        wave, whole = audio.read(source, sample_rate, name=name, **part), False
    wave.setflags(write=False)
    return {**example, "wave": wave, "whole": whole}


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
