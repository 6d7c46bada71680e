"""The list of clips that could not be decoded, in the folder of a run."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import time
from pathlib import Path

from asjax.config import AsjaxError

_HEADER = ["id", "reason", "count"]
OTHERS_S = 10.0
_SHORT = 256  # clips; a list up to this length is rewritten each time


class Quarantine:
    """Counts undecodable clips in the file `path` (id,reason,count, sorted by id) and stops a run
    with too many of them.

    If the file exists, its counts are used. `count` is the number of different clips. When `add`
    returns, its clips are on disk, even if the program is killed then. In a long list, `add` only
    appends a line per clip, so its cost does not depend on the length. A clip may then have several
    lines; their counts add up. The list is tidied to one line per clip when it has doubled, when it
    is closed and when it is opened.

    Several processes write one list each, in one folder. `max_rate` is for all of them together: a
    process that counts new clips also reads the lists of the others, at most every `OTHERS_S`
    seconds. The lists of processes that a run had before count too.

    Args:
      total: number of clips in the source.
      max_rate: largest share of undecodable clips.
      others: a pattern for the names of all lists in the folder, such as quarantine*.csv; "": this
        process is alone.

    Raises:
      AsjaxError: the file exists and is not a quarantine list.
    """

    def __init__(self, path, total: int, max_rate: float = 0.05, others: str = ""):
        if not 0 <= max_rate <= 1:
            raise AsjaxError(f"max_bad must be 0 to 1 (a share of the clips), got {max_rate!r}")
        self.path, self.total, self.max_rate = Path(path), int(total), float(max_rate)
        self._clips: dict[str, tuple[str, int]] = {}  # id -> reason, count
        self._added = 0  # lines since the list was tidied
        self._pattern, self._others = others, {}  # clips in the lists of the others
        self._looked = -math.inf
        if self.path.exists() and self._read():
            self._tidy()

    @property
    def listed(self) -> Path:
        """The list, or a pattern for all lists."""
        return self.path.parent / self._pattern if self._others else self.path

    @property
    def count(self) -> int:
        """Number of different undecodable clips, also in the lists of the others."""
        return len(self._clips.keys() | self._others.keys())

    def add(self, bad) -> None:
        """Count `(id, reason)` pairs and write them to the file.

        Raises:
          AsjaxError: more than `max_rate` of the clips are undecodable now.
        """
        if not bad:
            return
        for clip, reason in bad:
            self._count(clip, reason, 1)
        short = len(self._clips) <= _SHORT or not self.path.exists()
        if short or self._added + len(bad) > len(self._clips):
            self._tidy()
        else:
            self._write(_lines((clip, self._clips[clip][0], 1) for clip, _ in bad), "a")
            self._added += len(bad)
        self._look_at_others()
        if self.count > self.max_rate * self.total:
            reasons = "; ".join(sorted(reason for reason, _ in self._clips.values())[:3])
            raise AsjaxError(
                f"{self.count} of {self.total} clips cannot be decoded, more than max_bad="
                f"{self.max_rate:g} allows; they are listed in {self.listed} ({reasons}); repair "
                f"or remove them, or allow more with --config.data.max_bad"
            )

    def close(self) -> None:
        """Tidy the list: one line per clip, sorted."""
        if self._added:
            self._tidy()
        self._looked = -math.inf
        self._look_at_others()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _count(self, clip, reason, count):
        first, before = self._clips.get(clip, (reason, 0))
        self._clips[clip] = (first, before + count)

    def _read(self) -> bool:
        """Count the clips in the file. Returns whether the list must be tidied."""
        rows, whole = _rows(self.path)
        for clip, reason, count in rows:
            self._count(clip, reason, count)
        return not whole or len(rows) > len(self._clips)

    def _look_at_others(self) -> None:
        """Read the lists of the other processes, unless they were read a short time ago."""
        now = time.monotonic()
        if not self._pattern or now - self._looked < OTHERS_S:
            return
        self._looked = now
        for path in self.path.parent.glob(self._pattern):
            if path != self.path:
                with contextlib.suppress(FileNotFoundError):
                    self._others.update(dict.fromkeys(clip for clip, _, _ in _rows(path)[0]))

    def _tidy(self):
        """Rewrite the whole list, sorted. A temporary file replaces it, so the write is atomic."""
        rows = sorted((clip, *about) for clip, about in self._clips.items())
        self._write(_lines([_HEADER, *rows]), "w")
        self._added = 0

    def _write(self, text: str, mode: str):
        place = self.path
        try:
            if mode == "w":
                self.path.parent.mkdir(parents=True, exist_ok=True)
                place = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
            with open(place, f"{mode}b") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
            if mode == "w":
                os.replace(place, self.path)
        except OSError as error:
            if mode == "w":
                with contextlib.suppress(OSError):
                    place.unlink()
            raise AsjaxError(f"{self.path} cannot be written: {error.strerror}") from None


def in_folder(folder, total: int, max_rate: float, process: int) -> Quarantine:
    """The list of process number `process` in `folder`."""
    name = f"quarantine-{process}.csv" if process else "quarantine.csv"
    return Quarantine(Path(folder) / name, total, max_rate, "quarantine*.csv")


def _rows(path: Path) -> tuple[list[tuple[str, str, int]], bool]:
    """The rows of a list, and whether its last row is complete. FileNotFoundError: no list."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        if header != _HEADER:
            raise ValueError("another header")
        whole = text.endswith("\n")  # else the program was killed while writing the last row
        return [(clip, why, int(n)) for clip, why, n in (rows if whole else rows[:-1])], whole
    except FileNotFoundError:
        raise
    except (ValueError, OSError, csv.Error) as error:
        raise AsjaxError(
            f"{path} must be a list id,reason,count as written by asjax ({error}); move it away"
        ) from None


def _lines(rows) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()
