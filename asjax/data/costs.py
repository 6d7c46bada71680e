"""Where the time of the input goes: reading records, making examples of them, copying batches.

When the training waits for data, the busiest of the three is the ceiling. Threads add their seconds
to the totals of their process; a worker process publishes its totals in shared memory.
"""

from __future__ import annotations

import contextlib
import threading
import time

KINDS = ("read", "decode", "copy")
_spent = dict.fromkeys(KINDS, 0.0)  # seconds of all threads of this process
_workers: list = []  # shared arrays of the worker processes, one value for each kind
_ended = dict.fromkeys(KINDS, 0.0)  # seconds of workers that ended
_lock = threading.Lock()


@contextlib.contextmanager
def timed(kind: str):
    """Add the seconds of the `with` statement to `kind`."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - begin
        with _lock:
            _spent[kind] += seconds


def publish(shared) -> None:
    """Write the totals of this process into an array that another process has joined."""
    shared[:] = [_spent[kind] for kind in KINDS]


def join(shared) -> None:
    """Count a worker process by its array."""
    with _lock:
        _workers.append(shared)


def leave(shared) -> None:
    """Keep the seconds of a worker process that ends."""
    with _lock:
        if shared in _workers:
            _workers.remove(shared)
            for kind, seconds in zip(KINDS, shared, strict=True):
                _ended[kind] += seconds


def busy(makers: int) -> dict[str, float]:
    """Total seconds of each kind, divided by how many can do it at once.

    `makers` threads, of all workers, read and decode. One thread copies batches to the devices. So
    the growth of a value is at most the time that has passed, and equals it at the ceiling.
    """
    with _lock:
        total = {
            kind: _spent[kind] + _ended[kind] + sum(shared[k] for shared in _workers)
            for k, kind in enumerate(KINDS)
        }
    return {kind: s / (1 if kind == "copy" else max(1, makers)) for kind, s in total.items()}
