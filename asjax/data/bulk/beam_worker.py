"""A worker process of Beam's DirectRunner: `python -m asjax.data.bulk.beam_worker FILE`.

It is Beam's worker with three changes. It writes its number into FILE, and at its end the number
with a minus, so that the program sees if it dies. It ends when the program ends or has removed
FILE, also in the middle of a unit. It leaves Ctrl-C, and what is said of
errors, to the program. ASJAX_DEBUG=1 shows the log and the tracebacks of Beam.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

_LOOK_S = 0.3


def main(alive: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = os.getppid()
    _tell(alive, os.getpid())
    threading.Thread(target=_end_with, args=(program, alive), daemon=True).start()
    shown = logging.StreamHandler()
    logging.getLogger().addHandler(shown)  # Beam adds one if there is none
    if os.environ.get("ASJAX_DEBUG", "0") in ("", "0"):
        shown.setLevel(logging.CRITICAL + 1)
        threading.excepthook = lambda _: None  # of Beam's threads, when the program is gone
        sys.stderr = _Lines(sys.stderr)
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])
    _tell(alive, -os.getpid())


class _Lines:
    """Standard error without the traceback that Beam prints; the program says its last line."""

    def __init__(self, out):
        self._out, self._hid = out, False

    def __getattr__(self, name):
        return getattr(self._out, name)

    def write(self, text: str) -> int:
        self._hid = text.startswith("Traceback (") or (self._hid and text == "\n")
        return len(text) if self._hid else self._out.write(text)


def _tell(alive: str, number: int) -> None:
    with open(alive, "a", encoding="ascii") as file:
        file.write(f"{number}\n")


def _end_with(program: int, alive: str) -> None:
    while os.getppid() == program and os.path.exists(alive):
        time.sleep(_LOOK_S)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
