"""Recordings of any length and kind as windows of one size: files, bytes, waves in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, shown, warn
from asjax.data import audio, ffmpeg, patience, sound

STALL_S = 60.0  # without a window of a file


def find(paths: Iterable) -> list[Path]:
    """Files as given, folders replaced by the audio files anywhere below them, sorted.

    A file that is named twice, or named and found, counts once. Sound of other kinds is found if
    there is an ffmpeg to decode it; else a warning counts it.

    Raises:
      AsjaxError: paths that do not exist (the first ten are listed), or a folder without audio.
    """
    paths = [Path(p) for p in paths]
    missing = [shown(p) for p in paths if not p.exists()]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise AsjaxError(f"no such file or folder: {', '.join(missing[:10])}{more}")
    files: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for path in paths:
        inside, other = walk(path) if path.is_dir() else ([path], [])
        if not inside:
            hint = f"; {passed_over(other)}" if other else ""
            raise AsjaxError(
                f"folder {shown(path)} holds no audio ({' '.join(audio.SUFFIXES)}){hint}"
            )
        files.update(dict.fromkeys(inside))
        others.update(dict.fromkeys(other))
    if others:
        warn(passed_over(list(others)))
    return list(files)


def walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """(audio files, sound that is not read here) below `folder`, both sorted.

    Links to folders are not followed, so that loops end. What macOS puts beside files (`._*`,
    `__MACOSX`) is no audio, whatever it is called.
    """
    files, others = [], []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__MACOSX"]
        for name in names:
            if name.startswith("._"):
                continue
            if name.lower().endswith(audio.SUFFIXES):
                files.append(Path(root, name))
            elif name.lower().endswith(audio.OTHER_SUFFIXES):
                others.append(Path(root, name))
    if ffmpeg.program():
        files, others = files + others, []
    return sorted(files), sorted(others)


def passed_over(paths: list[Path]) -> str:
    """A word on sound that is not read."""
    counts = Counter(path.suffix.lower() for path in paths)
    kinds = ", ".join(f"{n} {kind}" for kind, n in counts.most_common())
    return (
        f"passed over {len(paths)} files of kinds that libsndfile does not read: {kinds} "
        f"(first {shown(paths[0])}); {sound.CONVERT}"
    )


def name_of(source, number: int) -> str:
    """What errors and results call a source: its path, or its place in the list."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", f"recording {number}"))


def windows(
    source, sample_rate: int, size: int, *, name: str
) -> Iterator[tuple[int, np.ndarray, int]]:
    """(first sample, float32 window, new samples) from the begin of a recording to its end.

    Windows of `size` samples at `sample_rate` follow one another; the last one ends with the
    recording and so overlaps the one before. A recording shorter than `size` is one short window.

    Args:
      source: path, bytes of a file, binary file, or (wave, rate) as in `audio.from_array`.

    Raises:
      AudioError, AsjaxError: the recording cannot be used; maybe after the first windows.
    """
    at, before = 0, None
    for chunk in _chunks(source, sample_rate, size, name):
        if before is None or len(chunk) == size:
            yield at, chunk, len(chunk)
        else:
            yield at + len(chunk) - size, np.concatenate([before, chunk])[-size:], len(chunk)
        at, before = at + len(chunk), chunk


def _chunks(source, sample_rate, size, name):
    if isinstance(source, tuple):
        if len(source) != 2 or np.ndim(source[1]) != 0:
            raise AsjaxError(f"{name}: give a wave in memory as (wave, sample_rate)")
        wave = audio.from_array(*source, sample_rate, name=name)
        yield from (wave[i : i + size] for i in range(0, len(wave), size))
    elif isinstance(source, (str, os.PathLike, bytes)) or hasattr(source, "read"):
        # How much is not finite is known at the end only, after the windows: it is noted.
        pieces = audio.blocks(
            source, sample_rate, size / sample_rate, name=name, most_not_finite=1.0
        )
        step = partial(next, pieces, None)
        while (piece := patience.call(step, STALL_S, shown(name))) is not None:
            yield piece
    else:
        raise AsjaxError(
            f"{name} must be a path, bytes, a binary file or (wave, sample_rate), "
            f"got {type(source).__name__}"
        )
