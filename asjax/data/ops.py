"""Host operations on one example: `(example, rng) -> example`, numpy only; they run in workers.

An example is a dict. From the source come `id`, `audio` (bytes or path) and `labels`; the ops
below make `wave` (float32 [S]), `length` (valid samples) and `target` (float32 [C]) of them. An op
never writes into an array that it was given: waves may be shared by a cache.
"""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError

LONG_S = 60.0  # recordings beyond this are read in part, and not kept in memory


def decode(sample_rate: int, clip_s: float, train: bool):
    """`audio` -> `wave` at `sample_rate` Hz, and `whole`: is it all of the recording?

    It is, up to `LONG_S` seconds; of a longer one, a stretch of `clip_s` is read, in training from
    a random place, else from the beginning. Raises audio.AudioError.
    """
    from asjax.data import audio
    from asjax.data.audio import AudioError

    def run(example, rng):
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

    return run


def crop(size: int, train: bool):
    """`wave` [S'] -> `wave` [size] and `length`, its valid samples: a longer one is cut (in
    training from a random start, else from 0), a shorter one gets zeros on its right."""

    def run(example, rng):
        wave = example["wave"]
        if len(wave) > size:
            start = int(rng.integers(len(wave) - size + 1)) if train else 0
            wave = wave[start : start + size]
        length = len(wave)
        if length < size:
            wave = np.pad(wave, (0, size - length))
        return {**example, "wave": wave, "length": length}

    return run


def multihot(num_classes: int):
    """`labels` (class indices) -> `target` float32 [num_classes] of 0 and 1."""

    def run(example, rng):
        labels = np.asarray(example["labels"], np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            raise AsjaxError(
                f"clip {example['id']}: labels must be 0 to {num_classes - 1}, "
                f"got {labels.tolist()}"
            )
        target = np.zeros(num_classes, np.float32)
        target[labels] = 1.0
        return {**{k: v for k, v in example.items() if k != "labels"}, "target": target}

    return run
