"""Runs tasks by processes: each takes the next task, and what is finished stays finished."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from asjax.config import AsjaxError, warn
from asjax.data.bulk import part, readers
from asjax.data.bulk.items import Damaged
from asjax.data.bulk.units import Task, Unit

EXIT_STOPPED = 75  # as in asjax train: everything finished is saved
_LOOK_S = 0.3
_NOTED = 10
_counter = None  # of a worker process


class Stopped(BaseException):
    """SIGTERM or Ctrl-C has come."""


@contextlib.contextmanager
def stoppable(first: Callable[[], object] | None = None) -> Iterator[None]:
    """SIGTERM and Ctrl-C raise Stopped in the block, after a call of `first`. In other threads
    nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        if first is not None:
            first()
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Pool:
    """`workers` processes, or this process alone if there is one worker."""

    def __init__(self, workers: int):
        self.workers = workers
        self._pool = self._stop = self._count = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self._pool is not None:
            if kind is not None:  # do not wait for the tasks in work
                self._stop.close()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _started(self):
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            # Neither has a lock, which a worker that is killed might hold for ever.
            ends, self._stop = context.Pipe(duplex=False)
            self._count = context.Value("q", 0, lock=False)
            self._pool = ProcessPoolExecutor(self.workers, context, _begin, (ends, self._count))
        return self._pool

    def map(self, function, items: list, bar=None) -> Iterator[tuple[int, object]]:
        """(number of the item, result), in the order in which they are finished.

        Raises:
          AsjaxError: of the function, or a worker process died.
        """
        if self.workers == 1 or len(items) < 2:
            for i, item in enumerate(items):
                yield i, function(item)
            return
        pool, waiting, todo = self._started(), {}, list(enumerate(items))[::-1]
        seen = self._count.value
        try:
            while todo or waiting:
                while todo and len(waiting) < 2 * self.workers:
                    number, item = todo.pop()
                    waiting[pool.submit(function, item)] = number
                done, _ = wait(waiting, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                if bar is not None:
                    now = self._count.value
                    bar.update(now - seen)
                    seen = now
                for future in done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool:
            raise AsjaxError(
                "a worker process died; is the memory used up? The same command goes on; fewer "
                "--workers need less memory"
            ) from None


def _begin(ends, count) -> None:
    """Start of a worker. It ends when the program closes its end of the pipe, or is killed.
    Signals are the program's, also those to the whole group of processes."""
    global _counter
    _counter = count
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(ends,), daemon=True).start()


def _end_with(ends) -> None:
    with contextlib.suppress(EOFError, OSError):
        ends.recv()
    os._exit(1)


def _tick() -> None:
    if _counter is not None:
        _counter.value += 1  # for the bar only; two at the same time may count once


def names(units: list[Unit], pool: Pool) -> Iterator[tuple[list[Unit], list[list[str]], str]]:
    """Per file of a source, in order: its units, the names in each, and the damage or ""."""
    found = dict.fromkeys(range(len(units)))
    for number, result in pool.map(_names, units):
        found[number] = result
    return iter(found.values())


def _names(unit: Unit):
    try:
        units = readers.divided(unit)
        return units, [readers.names(one) for one in units], ""
    except Damaged as error:
        return [], [], f"{error}{readers.instead(unit.path)}"


def run(tasks: list[Task], folder: Path, pool: Pool, threads: int | None, progress=True):
    """Make the parts of tasks; returns {name: Part}.

    Raises:
      AsjaxError: a clip is wrong, the disk is full, or a worker died. Finished parts stay.
    """
    from tqdm import tqdm

    alone = pool.workers == 1 or len(tasks) < 2
    if alone and len(tasks) == 1:  # its own bar counts clips
        made = part.make(tasks[0], folder, threads, bar=progress)
        return {tasks[0].name: made}
    total, found, notes = sum(len(task.wants) for task in tasks), {}, []
    how = dict(mininterval=0.5 if os.isatty(2) else 10.0, disable=None if progress else True)
    with tqdm(total=total, unit="clip", **how) as bar:
        job = _Work(folder, threads if alone else 1, bar.update if alone else None)
        for number, (made, texts) in pool.map(job, tasks, bar):
            found[tasks[number].name] = made
            notes += texts
    for text in notes[:_NOTED]:
        warn(text)
    if len(notes) > _NOTED:
        warn(f"{len(notes) - _NOTED:,} more notes about stored clips were not shown")
    return found


class _Work:
    """Makes the part of a task; travels to the workers."""

    def __init__(self, folder: Path, threads, tick):
        self.folder, self.threads, self.tick = folder, threads, tick

    def __call__(self, task: Task):
        """The part, and the warnings that came while it was made."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = part.make(task, self.folder, self.threads, self.tick or _tick)
        return made, [str(one.message) for one in caught]
