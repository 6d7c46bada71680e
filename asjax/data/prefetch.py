"""Place batches on the devices ahead of their use, in a thread."""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable

from asjax.data import costs

_log = logging.getLogger("asjax")


class Stopped(Exception):
    """`Prefetch.wait` ended because the program was asked to stop."""


def prefetch(batches: Iterable[dict], place: Callable[[dict], dict], depth: int = 2) -> Prefetch:
    """Place up to `depth` batches ahead in a thread. Iterates `(device_batch, rest_on_host)`."""
    return Prefetch(batches, place, depth)


class Prefetch:
    """The iterator of `prefetch`, also a context manager.

    A loop that must answer signals while it waits for data uses `wait` in place of `next`, or `get`
    with its own limit. Nothing is lost if the loop ends: a batch that came too late stays for the
    next call.

    Attributes:
      waited_s: total seconds that the consumer has waited for data.
    """

    def __init__(self, batches, place, depth: int = 2):
        self.waited_s = 0.0
        self._ready: queue.Queue = queue.Queue(maxsize=max(1, depth))
        self._stop = threading.Event()
        self._ended = False
        # The thread has no reference to self. So an unused iterator is collected, which stops it.
        self._thread = threading.Thread(
            target=_fill,
            args=(batches, place, self._ready, self._stop),
            name="asjax-prefetch",
            daemon=True,
        )
        self._halt = weakref.finalize(self, _halt, self._stop, batches)
        self._thread.start()

    def __iter__(self):
        return self

    def __next__(self):
        return self.get()

    def wait(self, stop: Callable[[], bool] | None, every_s: float = 0.3):
        """As `next`, but Stopped is raised as soon as `stop()` is true and no batch is ready."""
        if stop is None:
            return self.get()
        while (item := self.get(0.0 if stop() else every_s)) is None:
            if stop():
                raise Stopped
        return item

    def get(self, timeout_s: float | None = None):
        """The next `(device_batch, rest_on_host)`, or None if there is none within `timeout_s`.

        Args:
          timeout_s: seconds to wait; None waits until there is a batch, as `next` does.

        Raises:
          StopIteration: after the last batch, and after `close`.
          Exception: what the source or `place` raised, once. It is raised as soon as the batches
            before it are used.
        """
        if self._ended:
            raise StopIteration
        start = time.perf_counter()
        try:
            item, error = self._ready.get(timeout_s != 0, timeout_s)
        except queue.Empty:
            return None
        finally:
            self.waited_s += time.perf_counter() - start
        if item is not None:
            return item
        self.close()
        if error is not None:
            raise error
        raise StopIteration

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop the thread, close the source and drop ready batches. A second call does nothing.

        A source that waits for data is interrupted, if it has a method `interrupt`.
        """
        self._ended = True
        self._halt()
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


def _halt(stop: threading.Event, batches) -> None:
    stop.set()
    if hasattr(batches, "interrupt"):
        batches.interrupt()


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
            with costs.timed("copy"):
                placed = place(batch)
            put(((placed, {k: v for k, v in batch.items() if k not in placed}), None))
            del batch, placed  # else these batches stay in memory while the next one is made
    except BaseException as caught:  # the consumer raises it
        error = caught
    try:  # close in this thread, because only the thread that runs a generator can close it
        close = getattr(iterator if hasattr(iterator, "close") else batches, "close", None)
        if close is not None:
            close()
    except Exception as caught:
        error = error or caught
    put((None, error))
