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

from asjax.config import AsjaxError, shown
from asjax.data import patience

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
