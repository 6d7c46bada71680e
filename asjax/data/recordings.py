"""Recordings of any length and kind as windows of one size: files, bytes, waves in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError
from asjax.data import audio, waves


def find(paths: Iterable) -> list[Path]:
    """Files as given, folders replaced by the audio files anywhere below them, sorted.

    A file that is named twice, or named and found, counts once.

    Raises:
      AsjaxError: paths that do not exist (the first ten are listed), or a folder without audio.
    """
    paths = [Path(p) for p in paths]
    missing = [str(p) for p in paths if not p.exists()]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise AsjaxError(f"no such file or folder: {', '.join(missing[:10])}{more}")
    found: dict[Path, None] = {}
    for path in paths:
        inside = _walk(path) if path.is_dir() else [path]
        if not inside:
            raise AsjaxError(f"folder {path} holds no audio ({' '.join(audio.SUFFIXES)})")
        found.update(dict.fromkeys(inside))
    return list(found)


def _walk(folder: Path) -> list[Path]:
    """Audio files below `folder`; links to folders are not followed, so that loops end."""
    return sorted(
        Path(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(audio.SUFFIXES)
    )


def name_of(source, number: int) -> str:
    """What errors and results call a source: its path, or its place in the list."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", f"recording {number}"))


def windows(
    source, sample_rate: int, size: int, *, name: str, batch: bool | None = None
) -> Iterator[tuple[int, np.ndarray, int]]:
    """(first sample, float32 window, new samples) from the begin of a recording to its end.

    Windows of `size` samples at `sample_rate` follow one another; the last one ends with the
    recording and so overlaps the one before. A recording shorter than `size` is one short window.

    Args:
      source: path, bytes of a file, binary file, or (wave, rate) as in `audio.from_array`.
      batch: as in `waves.check`.

    Raises:
      AudioError, AsjaxError: the recording cannot be used; maybe after the first windows.
    """
    at, before = 0, None
    for chunk in _chunks(source, sample_rate, size, name, batch):
        if before is None or len(chunk) == size:
            yield at, chunk, len(chunk)
        else:
            yield at + len(chunk) - size, np.concatenate([before, chunk])[-size:], len(chunk)
        at, before = at + len(chunk), chunk


def _chunks(source, sample_rate, size, name, batch):
    if isinstance(source, tuple):
        if len(source) != 2 or np.ndim(source[1]) != 0:
            raise AsjaxError(f"{name}: give a wave in memory as (wave, sample_rate)")
        wave = waves.array(source[0], name)
        waves.check(wave, name, batch=batch)
        wave = audio.from_array(wave, source[1], sample_rate, name=name)
        yield from (wave[i : i + size] for i in range(0, len(wave), size))
    elif isinstance(source, (str, os.PathLike, bytes)) or hasattr(source, "read"):
        yield from audio.blocks(source, sample_rate, size / sample_rate, name=name)
    else:
        raise AsjaxError(
            f"{name} must be a path, bytes, a binary file or (wave, sample_rate), "
            f"got {type(source).__name__}"
        )
