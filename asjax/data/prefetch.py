"""Batches placed ahead of use, in a thread."""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable

_log = logging.getLogger("asjax")


def prefetch(batches: Iterable[dict], place: Callable[[dict], dict], depth: int = 2) -> Prefetch:
    """Place up to `depth` batches ahead in a thread; iterates `(device_batch, rest_on_host)`."""
    return Prefetch(batches, place, depth)


class Prefetch:
    """What `prefetch` returns: an iterator and context manager.

    Attributes:
      waited_s: seconds that the consumer has waited for data so far.
    """

    def __init__(self, batches, place, depth: int = 2):
        self.waited_s = 0.0
        self._ready: queue.Queue = queue.Queue(maxsize=max(1, depth))
        self._stop = threading.Event()
        self._ended = False
        # The thread holds no reference to self: an abandoned iterator is collected and stops it.
        self._thread = threading.Thread(
            target=_fill,
            args=(batches, place, self._ready, self._stop),
            name="asjax-prefetch",
            daemon=True,
        )
        weakref.finalize(self, self._stop.set)
        self._thread.start()

    def __iter__(self):
        return self

    def __next__(self):
        if self._ended:
            raise StopIteration
        start = time.perf_counter()
        item, error = self._ready.get()
        self.waited_s += time.perf_counter() - start
        if item is not None:
            return item
        self.close()
        if error is not None:
            raise error
        raise StopIteration

    def close(self, timeout_s: float = 30.0) -> None:
        """Stop the thread, close the source and drop what is ready; may be called again."""
        self._ended = True
        self._stop.set()
        while True:
            try:
                self._ready.get_nowait()
            except queue.Empty:
                break
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.warning("the data pipeline did not stop within %g s", timeout_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _fill(batches, place, ready: queue.Queue, stop: threading.Event) -> None:
    def put(item) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    error = None
    iterator = None
    try:
        iterator = iter(batches)
        while not stop.is_set():
            batch = next(iterator, None)
            if batch is None:
                break
            placed = place(batch)
            put(((placed, {k: v for k, v in batch.items() if k not in placed}), None))
            del batch, placed  # else one more batch would stay alive while this one waits
    except BaseException as caught:  # handed to the consumer, who raises it
        error = caught
    try:  # closed by the thread that ran it: a generator refuses to be closed by another
        close = getattr(iterator if hasattr(iterator, "close") else batches, "close", None)
        if close is not None:
            close()
    except Exception as caught:
        error = error or caught
    put((None, error))
