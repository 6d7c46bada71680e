"""Files as lists call them and as disks hold them: other Unicode, other slashes, no extension."""

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
    """`size` in bytes is -1 where there is no such file; `hint` may then say what there is."""

    path: str
    size: int
    hint: str = ""


class Names:
    """Looks names up below a folder. Folders are listed once, and only for names not found."""

    def __init__(self, root):
        self.root = Path(root)
        self._listing = cache(self._list)

    def find(self, name: str) -> File:
        """The file that `name` means.

        It is the file of that name. If there is none, the one whose name differs in the
        composition of its accents, in backslashes for slashes, or by an extension that the list
        leaves out. Two that fit are none.
        """
        path = os.path.join(self.root, name)
        size, kind = _size(path)
        if size >= 0:
            return File(path, size)
        if kind:
            return File(path, -1, f" (it is {kind})")
        plain = name.replace("\\", "/") if os.sep == "/" else name
        found = self._search(plain) if not os.path.isabs(plain) else []
        if len(found) == 1:
            path = os.path.join(self.root, found[0])
            size, _ = _size(path)
            return File(path, size)
        if found:
            return File(path, -1, f" (it may mean {' or '.join(map(shown, found[:3]))})")
        return File(path, -1, self._near(plain))

    def _search(self, name: str) -> list[str]:
        """Names on disk, relative to the root, that `name` may mean."""
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
        """Names in a folder by NFC, sound by NFC without extension, names by folded case."""
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
    """(bytes of a regular file or -1, what it is if it is something else)."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return -1, ""
    if stat.S_ISREG(found.st_mode):
        return found.st_size, ""
    if stat.S_ISFIFO(found.st_mode):
        return -1, "a FIFO"
    return -1, "a folder" if stat.S_ISDIR(found.st_mode) else "no file"
