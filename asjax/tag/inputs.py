"""What the user names on the command line: recordings, standard input, classes."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from unicodedata import normalize

from asjax.config import AsjaxError, shown

STDIN = "standard input"
MOST_BYTES = 4 << 30  # of standard input
MOST_LIST = 4 << 20  # bytes of a list of classes
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Recording:
    """A recording to work on.

    Attributes:
      name: in results and messages.
      source: a path or a binary file, as the tagger takes it.
      stamp: changes if the content changes: size and time of a file, hash of standard input.
    """

    name: str
    source: object
    stamp: str

    @property
    def path(self) -> Path | None:
        return self.source if isinstance(self.source, Path) else None


def recordings(words) -> list[Recording]:
    """The recordings in a list of files, folders and "-" (standard input), each once.

    Raises:
      AsjaxError: as `data.recordings.find`, or standard input is a terminal, empty or too long.
    """
    from asjax.data import recordings as data

    if not all(words):
        raise AsjaxError(
            "a path is empty; give the name of a file or folder, or - for standard input"
        )
    paths = [word for word in words if word != "-"]
    found = [_standard_input()] if len(paths) < len(words) else []
    for path in data.find(paths) if paths else ():
        found.append(Recording(os.fspath(path), path, _stamp(path)))
    if [r.name for r in found].count(STDIN) > 1:
        raise AsjaxError(f"a file has the name {STDIN!r}, as - has; give its full path")
    return found


def _stamp(path: Path) -> str:
    try:
        about = path.stat()
    except OSError:
        return "missing"  # reading the file raises the error
    return f"{about.st_size}:{about.st_mtime_ns}"


def _standard_input() -> Recording:
    """Standard input, copied to a temporary file, because decoders go back in a file."""
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None or sys.stdin.isatty():
        raise AsjaxError(
            "- reads standard input; pipe a file into it, as in: asjax tag - < dog.wav"
        )
    digest, size = hashlib.sha256(), 0
    file = tempfile.TemporaryFile(prefix="asjax-", buffering=0)  # noqa: SIM115
    while block := stream.read(_BLOCK):
        size += len(block)
        if size > MOST_BYTES:
            raise AsjaxError(
                f"{STDIN} must have at most {MOST_BYTES:,} bytes; save it and give the file"
            )
        digest.update(block)
        block = memoryview(block)
        while block:  # a raw file may take less than it is given
            block = block[file.write(block) :]
    if not size:
        raise AsjaxError(f"{STDIN} is empty (0 bytes); pipe an audio file into it")
    file.seek(0)
    file.name = STDIN  # the name of its results
    return Recording(STDIN, file, f"{size}:{digest.hexdigest()}")


# -------------------------------------------------------------------------------------- classes


def classes(words, label_set) -> list[int] | None:
    """Indices of the classes in the values of --classes, in their order, or None if there are none.

    A value is a list of display names, ids or indices, or @FILE with one on each line. Names are
    separated by semicolons or commas. Some names contain commas, so the longest name that fits
    counts.

    Raises:
      AsjaxError: an unknown class (with the nearest names), no class, or no such file.
    """
    if words is None:
        return None
    names, chosen = _Names(label_set), {}
    for word in words:
        for line in _lines(word[1:]) if word.startswith("@") else [word]:
            for piece in [line] if names.index(line) is not None else line.split(";"):
                chosen.update(dict.fromkeys(names.listed(piece.strip())))
    if not chosen:
        raise AsjaxError("--classes must name at least one class, got none")
    return list(chosen)


def _lines(name: str) -> list[str]:
    try:
        with open(name, "rb") as file:
            data = file.read(MOST_LIST + 1)
        if len(data) > MOST_LIST:
            raise AsjaxError(f"--classes: @{shown(name)} must have at most {MOST_LIST:,} bytes")
        return [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "it is not a UTF-8 text"
    raise AsjaxError(f"--classes: @{shown(name)} cannot be read: {reason}")


class _Names:
    """The names of the classes, for lists of names with commas."""

    def __init__(self, label_set):
        self.label_set = label_set
        words = [*label_set.ids, *label_set.names, *(m for row in label_set.mids for m in row)]
        self._known = {_plain(word) for word in words}
        self._parts = 1 + max(word.count(",") for word in words)

    def index(self, name: str) -> int | None:
        """The index of a class, or None. (The error of `LabelSet.index` takes long to make.)"""
        if _plain(name) not in self._known and not name.strip().isdecimal():
            return None
        try:
            return self.label_set.index(name)
        except AsjaxError:
            return None

    def listed(self, text: str) -> list[int]:
        """The classes in a text with commas between names and inside names."""
        parts, at, found = text.split(","), 0, []
        while at < len(parts):
            for end in range(min(len(parts), at + self._parts), at, -1):
                index = self.index(",".join(parts[at:end]))
                if index is not None:
                    found.append(index)
                    break
            else:
                if parts[at].strip():
                    raise self._unknown(text, parts[at])
                end = at + 1  # a comma too many
            at = end
        return found

    def _unknown(self, text: str, part: str) -> AsjaxError:
        whole = get_close_matches(_plain(text)[:200], self._known, n=1, cutoff=0.85)
        name = text if whole else part  # a name with commas may be misspelt
        try:
            self.label_set.index(name)
        except AsjaxError as error:
            part = str(error)
        return AsjaxError(f"--classes: {part}; separate names by semicolons")


def _plain(word: str) -> str:
    return normalize("NFC", normalize("NFC", word.strip()).casefold())
