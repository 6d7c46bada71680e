"""A user's clips as banks for mixing. Clips that cannot be used are named with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, shown
from asjax.data import bank as banks
from asjax.data import recordings, sound

_LONGEST_S = 3600.0
_GROUND_JOIN_S, _GROUND_BELOW_DB = 1.0, -80.0  # a background has no pauses, and may be uneven


def bank(clips, sample_rate: int, join_s: float, steady, threads: int, left_out: list):
    """A Bank of (id, path, class indices); the pieces are the active parts of the clips.

    Args:
      steady: class indices of steady sounds. left_out: gets (id, reason) of unusable clips.

    Returns:
      the bank, or None without any usable clip.
    """

    def load(clip):
        name, path, labels = clip
        if not len(labels):
            return "no label"
        wave = _wave(name, path, sample_rate)
        return wave if isinstance(wave, str) else _cut(wave, sample_rate, join_s)

    def usable():
        for (name, _, labels), found in _loaded(load, clips, threads):
            if isinstance(found, str):
                left_out.append((name, found))
            else:
                yield name, labels, not steady.isdisjoint(labels), *found

    return _built(usable(), sample_rate)


def grounds(folder, sample_rate: int, shares: dict[str, int], threads: int, left_out: list):
    """`{split: Bank}` of background recordings; no recording is in two splits.

    A recording below a folder with the name of a split belongs to this split. Without such folders
    the recordings are dealt to the splits.

    Args:
      shares: split -> number of its scenes.

    Raises:
      AsjaxError: no such folder, no audio, or a split without a usable recording.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AsjaxError(f"--background must be a folder of audio, {shown(folder)} is none")
    paths = recordings.find([folder])
    names = [path.relative_to(folder) for path in paths]
    by_folder = any(len(name.parts) > 1 and name.parts[0] in shares for name in names)

    def load(clip):
        wave = _wave(clip[0], clip[1], sample_rate)
        if isinstance(wave, str):
            return wave
        return _cut(wave, sample_rate, _GROUND_JOIN_S, _GROUND_BELOW_DB, shortest_s=1.0)

    clips = [(str(name), path) for name, path in zip(names, paths, strict=True)]
    usable = []
    for (name, _), found in _loaded(load, clips, threads):
        if isinstance(found, str):
            left_out.append((f"background {name}", found))
        else:
            usable.append((name, (), False, *found))
    splits = sorted(shares)
    rows: dict[str, list] = {split: [] for split in splits}
    for i, row in enumerate(usable):
        split = Path(row[0]).parts[0] if by_folder else splits[i % len(splits)]
        if split in rows:
            rows[split].append(row)
        else:
            left_out.append((f"background {row[0]}", "not below a folder of a split"))
    for split in splits:
        if not rows[split]:
            raise AsjaxError(
                f"--background {shown(folder)}: split {split} has no usable recording; give at "
                "least one recording per split, of 1 s or more and above -60 dBFS"
            )
    return {split: _built(iter(rows[split]), sample_rate) for split in splits}


def _built(usable: Iterator, sample_rate: int):
    first = list(islice(usable, 1))
    if not first:
        return None

    def rows():
        yield from first
        yield from usable

    return banks.build(rows(), sample_rate, on_disk=True)


def _loaded(load, clips: list, threads: int):
    """(clip, `load(clip)`) in the order of `clips`, by threads, with few results in memory."""
    from tqdm import tqdm

    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(clips), unit="clip", disable=None) as bar,
    ):
        size = 4 * threads
        waiting = [pool.submit(load, clip) for clip in clips[:size]]
        for i, clip in enumerate(clips):
            found = waiting[i % size].result()
            if i + size < len(clips):
                waiting[i % size] = pool.submit(load, clips[i + size])
            bar.update()
            yield clip, found


def _wave(name: str, path, sample_rate: int):
    """float32 [S], or the reason why the file cannot be used."""
    from asjax.data import audio, patience

    notes: list[str] = []
    try:
        size = os.stat(path).st_size
        read = partial(
            audio.read, path, sample_rate, max_s=_LONGEST_S, name=name, note=notes.append
        )
        wave = patience.call(read, 60.0 + size / 100_000, shown(name))
    except FileNotFoundError:
        return "file does not exist"
    except sound.AudioError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    lost = [note for note in notes if isinstance(note, sound.Loss)]
    return str(lost[0]) if lost else wave


def _cut(wave, sample_rate, join_s, below_db=banks.BELOW_DB, shortest_s=banks.SHORTEST_S):
    """(spans, pieces) of a wave, or the reason why it has none."""
    if len(wave) < shortest_s * sample_rate:
        return f"too short: {len(wave) / sample_rate:.3f} s, must be at least {shortest_s:g} s"
    spans = banks.active_spans(wave, sample_rate, join_s, below_db)
    spans = spans[spans[:, 1] - spans[:, 0] > (shortest_s - banks.FRAME_S) * sample_rate]
    if len(spans):
        return spans, banks.cut(wave, spans)
    hop = max(1, round(banks.FRAME_S * sample_rate))
    power = np.square(wave[: len(wave) // hop * hop], dtype=np.float64).reshape(-1, hop).mean(1)
    loudest = 10 * np.log10(max(power.max(initial=0), 1e-30))
    if loudest <= banks.FLOOR_DB:
        level = f"at {loudest:.0f} dBFS" if loudest > -200 else "zeros"
        return f"silent: its loudest 10 ms are {level}, must be above {banks.FLOOR_DB:g} dBFS"
    return f"no sound in it lasts {shortest_s:g} s"
