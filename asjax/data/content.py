"""Digests of files by what they hold: the same on every machine, another for a swapped clip.

Modification times are left out on purpose. A copy to another machine changes them, and a run that
is refused for that teaches people to allow any change. Small sets, which people edit by hand, are
read in full. Of large ones a few blocks of every file are read, which a swapped recording changes
and an edit of a few samples may not: records (`asjax prepare`) hold the hash of every byte.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from asjax.config import AsjaxError, shown
from asjax.data import patience

FULL_BYTES = 1 << 30  # sets up to this size are read in full
_BLOCK = 4096
_BLOCKS = 4
_THREADS = 8

_known: dict[tuple, str] = {}  # training and evaluation often share a folder


def digests(paths: list[str], sizes: list[int]) -> list[str]:
    """SHA-256 (hex) of each file's size and bytes, or of blocks of them in a set of many bytes.

    Raises:
      AsjaxError: a file cannot be read.
    """
    full = sum(sizes) <= FULL_BYTES
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_digest, full), paths, sizes))


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
    found = hashlib.sha256(f"{size}\n".encode())
    with open(path, "rb", buffering=0) as file:
        if full or size <= _BLOCK * _BLOCKS:
            while data := file.read(1 << 20):
                found.update(data)
        else:
            for i in range(_BLOCKS):
                file.seek((size - _BLOCK) * i // (_BLOCKS - 1))
                found.update(file.read(_BLOCK))
    return found.hexdigest()
