"""Progress of a verb that works through audio files: a bar on stderr, and lines above it."""

from __future__ import annotations

import contextlib
import sys
from functools import partial

from asjax.config import AsjaxError


class Progress:
    """A progress bar on stderr, if stderr is a terminal and the work is long. It counts files, or
    minutes if there is one file."""

    def __init__(self, files):
        from tqdm import tqdm

        self._tqdm, self._by_file = tqdm, len(files) != 1
        total = len(files) if self._by_file else _minutes(files[0])
        little = total < (8 if self._by_file else 2)
        self._bar = tqdm(
            total=total,
            unit="file" if self._by_file else "min",
            disable=little or None,  # None: off unless stderr is a terminal
            leave=False,
            file=sys.stderr,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def heard(self, seconds: float):
        """Count the seconds of new audio."""
        if not self._by_file:
            self._bar.update(seconds / 60)

    @contextlib.contextmanager
    def file_done(self):
        """Count a file. Lines that are printed inside appear above the bar."""
        if self._by_file:
            self._bar.update()
        with self._tqdm.external_write_mode(file=sys.stderr):
            yield


def _minutes(file) -> float:
    from asjax.data import audio, patience, recordings

    try:
        with audio.quiet_decoders():
            seconds = partial(audio.info, file, note=lambda _: None)
            return patience.call(seconds, recordings.STALL_S, str(file)).duration_s / 60
    except AsjaxError:
        return 0.0
    finally:
        if hasattr(file, "seek"):
            file.seek(0)
