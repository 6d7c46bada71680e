"""The list of clips that could not be decoded, kept in a run's folder."""

from __future__ import annotations

import contextlib
import csv
import os
from pathlib import Path

from asjax.config import AsjaxError

_HEADER = ["id", "reason", "count"]


class Quarantine:
    """Counts undecodable clips in `path` (id,reason,count, sorted by id) and stops a run that
    meets too many.

    Counts go on from the file, if it exists. `count` is the number of distinct clips.

    Args:
      total: clips in the source.
      max_rate: share of them that may be undecodable.

    Raises:
      AsjaxError: the file exists and is no quarantine list.
    """

    def __init__(self, path, total: int, max_rate: float = 0.05):
        if not 0 <= max_rate <= 1:
            raise AsjaxError(f"max_bad must be 0 to 1 (a share of the clips), got {max_rate!r}")
        self.path, self.total, self.max_rate = Path(path), int(total), float(max_rate)
        self._found: dict[str, tuple[str, int]] = self._read()

    @property
    def count(self) -> int:
        return len(self._found)

    def add(self, bad) -> None:
        """Count `(id, reason)` pairs and rewrite the file at once; nothing to do for none.

        Raises:
          AsjaxError: more than `max_rate` of the clips are undecodable by now.
        """
        if not bad:
            return
        for clip, reason in bad:
            first, count = self._found.get(clip, (reason, 0))
            self._found[clip] = (first, count + 1)
        self._write()
        if self.count > self.max_rate * self.total:
            reasons = "; ".join(sorted(reason for reason, _ in self._found.values())[:3])
            raise AsjaxError(
                f"{self.count} of {self.total} clips cannot be decoded, more than max_bad="
                f"{self.max_rate:g} allows; they are listed in {self.path} ({reasons}); repair or "
                f"remove them, or allow more with --config.data.max_bad"
            )

    def _read(self):
        if not self.path.exists():
            return {}
        try:
            with open(self.path, newline="", encoding="utf-8") as f:
                header, *rows = csv.reader(f)
            if header != _HEADER:
                raise ValueError("another header")
            return {clip: (reason, int(count)) for clip, reason, count in rows}
        except (ValueError, OSError, csv.Error) as error:
            raise AsjaxError(
                f"{self.path} must be a list id,reason,count as written by asjax ({error}); "
                "move it away"
            ) from None

    def _write(self):
        """Whole or not at all: a temporary file takes the name."""
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "w", newline="", encoding="utf-8") as f:
                out = csv.writer(f)
                out.writerow(_HEADER)
                out.writerows((clip, *self._found[clip]) for clip in sorted(self._found))
            os.replace(part, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise AsjaxError(f"{self.path} cannot be written: {error.strerror}") from None
