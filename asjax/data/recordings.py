"""Recordings (files, bytes, waves in memory) of any length as windows of one size."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, shown, warn
from asjax.data import audio, ffmpeg, patience, sound, spans, waves

STALL_S = 60.0  # longest wait for a window of a file


def find(paths: Iterable) -> list[Path]:
    """The audio files in `paths`. A folder gives all audio files below it, sorted.

    A file that occurs twice counts once. Audio of other kinds is included if there is an ffmpeg to
    decode it. Else a warning gives the number of such files.

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
    """(audio files, audio files that cannot be decoded here) below `folder`, both sorted.

    Links to folders are followed, but not back to a folder that is being walked (a loop). Files
    that macOS adds (`._*`, `__MACOSX`) are skipped, because they are not audio.
    """
    files, others = [], []
    ways = {os.fspath(folder): (Path(os.path.realpath(folder)),)}
    for root, folders, names in os.walk(folder, followlinks=True):
        way = ways.pop(root)
        inside = {name: _way(way, root, name) for name in folders if name != "__MACOSX"}
        folders[:] = [name for name, further in inside.items() if further]
        ways.update((os.path.join(root, name), inside[name]) for name in folders)
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


def _way(way: tuple[Path, ...], root: str, name: str) -> tuple[Path, ...]:
    """The real folders on the way to `root/name`, one more at each link; () at a loop."""
    path = os.path.join(root, name)
    if not os.path.islink(path):
        return (*way[:-1], way[-1] / name)
    real = Path(os.path.realpath(path))
    return () if any(place.is_relative_to(real) for place in way) else (*way, real)


def passed_over(paths: list[Path]) -> str:
    """The message about audio files that are skipped."""
    counts = Counter(path.suffix.lower() for path in paths)
    kinds = ", ".join(f"{n} {kind}" for kind, n in counts.most_common())
    return (
        f"skipped {len(paths)} files of kinds that libsndfile does not read: {kinds} "
        f"(first {shown(paths[0])}); {sound.CONVERT}"
    )


def name_of(source, number: int) -> str:
    """The name of a source in errors and results: its path, or its number in the list."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", f"recording {number}"))


def windows(
    source,
    sample_rate: int,
    size: int,
    *,
    name: str,
    batch: bool | None = None,
    hop: int | None = None,
) -> Iterator[tuple[int, np.ndarray, int]]:
    """(first sample, float32 window, number of new samples) for each window of a recording.

    A window of `size` samples at `sample_rate` begins every `hop` samples. The last one ends with
    the recording, so it overlaps the previous one more. A recording shorter than `size` is one
    short window.

    Args:
      source: path, bytes of a file, binary file, or (wave, rate) as in `audio.from_array`.
      batch: as in `waves.check`.
      hop: 1 to `size`; default `size`, so that the windows are consecutive.

    Raises:
      AudioError, AsjaxError: the recording cannot be used. The error may come after some windows.
    """
    grid = spans.Tiled(size, size if hop is None else hop)
    for start, window, new, _ in spans.over(
        chunks(source, sample_rate, size, name, batch), size, [grid]
    ):
        yield start, window, new


def chunks(source, sample_rate: int, size: int, name: str, batch: bool | None = None):
    """The audio of a recording as float32 pieces of about `size` samples; see `windows`."""
    if isinstance(source, tuple):
        if len(source) != 2 or np.ndim(source[1]) != 0:
            raise AsjaxError(f"{name}: give a wave in memory as (wave, sample_rate)")
        wave = waves.array(source[0], name)
        waves.check(wave, name, batch=batch)
        wave = audio.from_array(wave, source[1], sample_rate, name=name)
        yield from (wave[i : i + size] for i in range(0, len(wave), size))
    elif isinstance(source, (str, os.PathLike, bytes)) or hasattr(source, "read"):
        # The share of NaN and Inf is known only at the end, after the windows. So it is only noted.
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
