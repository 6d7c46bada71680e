"""Digests of the content of files: the same on every machine, different if a clip changes.

Modification times are not used on purpose. A copy to another machine changes them; if a run then
refused its data, people would learn to allow any change. Small sets are read in full, because
people edit them by hand. Of large sets only a few blocks of every file are read. This detects
another recording, but perhaps not an edit of a few samples. Records (`asjax prepare`) have the hash
of every byte.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from asjax.config import AsjaxError, shown
from asjax.data import patience, records
from asjax.store import clip_list

FULL_BYTES = 1 << 30  # sets up to this size are read in full
_BLOCK = 4096
_BLOCKS = 4
_THREADS = 8

_known: dict[tuple, str] = {}  # a cache, because training and evaluation often share a folder


def digests(paths: list[str], sizes: list[int]) -> list[str]:
    """SHA-256 (hex) of each file's size and bytes; above `FULL_BYTES` in all, only of some blocks.

    Raises:
      AsjaxError: a file cannot be read.
    """
    full = sum(sizes) <= FULL_BYTES
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_digest, full), paths, sizes))


def of_source(source, ids) -> np.ndarray | None:
    """SHA-256 of the audio of the clips `ids` of a source, uint8 [N, 32]; zeros: not known.

    Records have the hash of every clip in their manifest. Files are read. None: the source has
    neither, or its clips are pieces of recordings.
    """
    audio = source.audio if hasattr(source, "audio") else None
    if getattr(source, "recordings", None) is not None:
        return None
    if isinstance(audio, records.Reader):
        wanted, found = set(ids), {}
        for row in records.Dataset(os.path.dirname(audio.files[0])).rows():
            if row[0] in wanted:
                found[row[0]] = row[6]
    elif isinstance(audio, list) and all(isinstance(path, str) for path in audio):
        try:
            every = digests(audio, [os.path.getsize(path) for path in audio])
        except (OSError, AsjaxError):  # a file has gone since; the scores are worth more
            return None
        found = {clip: every[int(i)] for clip, i in zip(source.ids, source.row, strict=True)}
    else:
        return None
    return clip_list.as_array([found.get(clip, "") for clip in ids])


def _digest(full: bool, path: str, size: int) -> str:
    try:
        key = (full, path, size, os.stat(path).st_mtime_ns)
        if key not in _known:
            read = partial(_read, full, path, size)
            _known[key] = patience.call(read, 60.0 + size / 1_000_000, shown(path))
        return _known[key]
    except OSError as error:
        raise AsjaxError(f"{shown(path)} cannot be read: {error.strerror}") from None


def _read(full: bool, path: str, size: int) -> str:
    digest = hashlib.sha256(f"{size}\n".encode())
    with open(path, "rb", buffering=0) as file:
        if full or size <= _BLOCK * _BLOCKS:
            while data := file.read(1 << 20):
                digest.update(data)
        else:
            for i in range(_BLOCKS):
                file.seek((size - _BLOCK) * i // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()
