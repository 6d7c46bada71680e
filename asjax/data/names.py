"""Find a list's files on disk, also if Unicode form, slashes or the extension differ."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from asjax.config import shown
from asjax.data import audio


class File(NamedTuple):
    """A path and its size in bytes. -1: no such file; `hint` then may describe what is there."""

    path: str
    size: int
    hint: str = ""


class Names:
    """Looks up names below a folder. A folder is listed at most once, if a name does not exist."""

    def __init__(self, root):
        self.root = Path(root)
        self._listing = cache(self._list)

    def find(self, name: str) -> File:
        """The file for a name in a list.

        If no file has exactly this name, three differences are allowed: composed or decomposed
        accents, backslashes for slashes, and a missing extension. If several files match, none is
        chosen.
        """
        path = os.path.join(self.root, name)
        size, kind = _size(path)
        if size >= 0:
            return File(path, size)
        if kind:
            return File(path, -1, f" (it is {kind})")
        plain = name.replace("\\", "/") if os.sep == "/" else name
        matches = self._search(plain) if not os.path.isabs(plain) else []
        if len(matches) == 1:
            path = os.path.join(self.root, matches[0])
            size, _ = _size(path)
            return File(path, size)
        if matches:
            return File(path, -1, f" (it may mean {' or '.join(map(shown, matches[:3]))})")
        return File(path, -1, self._near(plain))

    def _search(self, name: str) -> list[str]:
        """Paths on disk, relative to the root, that match `name`."""
        places = [""]
        *folders, last = os.path.normpath(name).split(os.sep)
        for folder in folders:
            places = [
                os.path.join(place, there)
                for place in places
                for there in self._listing(place)[0].get(normalize("NFC", folder), [])
            ]
        last = normalize("NFC", last)
        whole = [os.path.join(p, n) for p in places for n in self._listing(p)[0].get(last, [])]
        if whole:
            return whole
        return [os.path.join(p, n) for p in places for n in self._listing(p)[1].get(last, [])]

    def _near(self, name: str) -> str:
        folder, last = os.path.split(name)
        there = self._listing(folder)[2].get(normalize("NFC", last).casefold(), [])
        return f" (there is {shown(there[0])!r})" if there else ""

    def _list(self, folder: str):
        """Three tables of a folder: names by NFC, audio by NFC stem, names by casefolded NFC."""
        whole: dict[str, list[str]] = {}
        stems: dict[str, list[str]] = {}
        folded: dict[str, list[str]] = {}
        try:
            names = os.listdir(os.path.join(self.root, folder))
        except (OSError, ValueError):
            names = []
        for name in sorted(names):
            plain = normalize("NFC", name)
            whole.setdefault(plain, []).append(name)
            folded.setdefault(plain.casefold(), []).append(name)
            stem, suffix = os.path.splitext(plain)
            if suffix.lower() in audio.SUFFIXES + audio.OTHER_SUFFIXES:
                stems.setdefault(stem, []).append(name)
        return whole, stems, folded


def _size(path: str) -> tuple[int, str]:
    """(size of a regular file in bytes, ""), or (-1, the kind of thing that it is)."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return -1, ""
    if stat.S_ISREG(status.st_mode):
        return status.st_size, ""
    if stat.S_ISFIFO(status.st_mode):
        return -1, "a FIFO"
    return -1, "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
