"""Worker processes that make batches: started again when they die, ended when they hang.

Worker i of W makes every W-th batch. The program takes one batch of each worker in turn, so the
order does not depend on their speed. A batch is a pure function of its number. So a new process
continues where a dead one stopped: no batch is lost, and none comes twice.

The arrays of a batch go through memory that both processes map, the rest goes through a pipe. A
worker has `SLOTS` such pieces of memory. It fills one, sends its number, and fills it again after
the program has copied the batch and sent the number back.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from multiprocessing import util

import grain
import numpy as np

from asjax.config import AsjaxError
from asjax.data import costs, patience
from asjax.data.batch import owned
from asjax.data.shared import Block, attach

RESTARTS = 3  # of each worker
SLOTS = 2
START_S = 120.0  # for the imports of a new process; they may come from a slow disk
STUCK_S = 10.0  # a worker may be silent for this time at least, for a busy machine
GRACE_S = 1.0  # for the end of a worker that is asked to end
_BEAT_S = 0.2
_ALIGN = 64  # bytes

_log = logging.getLogger("asjax")
_spawn = multiprocessing.get_context("spawn")


class Crew:
    """The batches of `steps[start:]` in order, made by worker processes.

    Attributes:
      stop: a threading.Event. Setting it ends the waiting for a batch with patience.Stopped.
    """

    def __init__(self, steps, start: int, *, workers: int, threads: int, silent_s: float):
        """Start the processes.

        Args:
          steps: grain MapDataset of batches that can be pickled. threads: of each worker.
          silent_s: a worker that shows no sign of life for this time is killed (at least
            `STUCK_S`). A decoder that hangs does not matter here, because signs of life come from
            another thread; `decode_timeout_s` ends it.
        """
        self.stop = threading.Event()
        self._steps, self._next, self._threads = steps, start, threads
        self._workers = [_Worker(i, workers, max(silent_s, STUCK_S)) for i in range(workers)]
        # At exit this must run before multiprocessing waits for its children.
        self._end = util.Finalize(self, _end, args=(self._workers, self.stop), exitpriority=10)
        self._turn = 0
        try:
            for i, worker in enumerate(self._workers):
                worker.begin(steps[start + i :: workers], threads)
        except BaseException:
            self.close()
            raise

    def __iter__(self):
        return self

    def __next__(self) -> dict:
        worker = self._workers[self._turn]
        with patience.making(worker.name):
            while (batch := worker.take(self.stop)) is None:
                if self.stop.is_set():  # it was ended, perhaps because the program ends
                    raise patience.Stopped
                worker.bury()
                worker.begin(self._steps[self._next :: len(self._workers)], self._threads)
        self._turn = (self._turn + 1) % len(self._workers)
        self._next += 1
        return batch

    def close(self) -> None:
        """End the processes. A second call does nothing."""
        self._end()


class _Worker:
    """One place of a crew: its present process, and how often its processes died."""

    def __init__(self, number: int, of: int, silent_s: float):
        self.name, self._silent_s = f"data worker {number + 1} of {of}", silent_s
        self._deaths, self._process, self._stuck = 0, None, False

    def begin(self, steps, threads: int) -> None:
        import cloudpickle  # as in grain; it can pickle classes of the user's main program

        self._pipe, theirs = _spawn.Pipe()
        self._beats, self._blocks, self._stuck = _spawn.RawValue("Q", 0), [None] * SLOTS, False
        self._costs = _spawn.RawArray("d", len(costs.KINDS))
        self._process = _spawn.Process(
            target=_serve,
            args=(theirs, self._beats, self._costs, cloudpickle.dumps(steps), threads),
            name="asjax-data",
            daemon=True,
        )
        try:
            self._process.start()
        except OSError as error:
            self._process = None
            raise AsjaxError(
                f"{self.name} cannot be started: {error}; use fewer workers "
                "(--config.data.workers=0 decodes in this process)"
            ) from None
        costs.join(self._costs)
        theirs.close()  # so that the pipe ends when the process does
        for slot in range(SLOTS):
            self._allow(slot)

    def _allow(self, slot: int) -> None:
        with contextlib.suppress(OSError):  # it died, which `take` finds
            self._pipe.send(slot)

    def take(self, stop: threading.Event) -> dict | None:
        """The next batch; None if the process died.

        Raises:
          patience.Stopped: `stop` was set.
          Exception: what the worker raised.
        """
        if not self._answers(stop):
            return None
        try:
            slot, path, head, spans, error = self._pipe.recv()
            if path:
                self._blocks[slot] = np.frombuffer(attach(path), np.uint8)
        except (EOFError, OSError):
            return None
        if error is not None:
            raise error
        block = self._blocks[slot]
        with costs.timed("copy"):
            parts = [owned(block[start : start + size]) for start, size in spans]
        batch = pickle.loads(head, buffers=parts)
        self._allow(slot)
        return batch

    def _answers(self, stop: threading.Event) -> bool:
        """Wait for a message or the end of the process. False: it hung and was killed."""
        silent_s, beats = 0.0, None
        while not self._pipe.poll(_BEAT_S):
            if stop.is_set():
                raise patience.Stopped
            # Waits are counted, not read from a clock: Ctrl-Z pauses the workers and the program.
            before, beats = beats, self._beats.value
            silent_s = silent_s + _BEAT_S if beats == before else 0.0
            if silent_s > (self._silent_s if beats else max(self._silent_s, START_S)):
                self._stuck = True
                self._process.kill()
                return False
        return True

    def bury(self) -> None:
        """Count a death and say it. AsjaxError: it is not worth another try."""
        began = self._beats.value > 0
        self.hang_up()
        self.end(time.monotonic() + GRACE_S)
        code, self._deaths = self._process.exitcode, self._deaths + 1
        how = self._silence() if self._stuck else _reason(code)
        if not began and (code or 0) > 0:
            raise AsjaxError(
                f"{self.name} could not start ({how}): see the lines above; a program that is no "
                "module of asjax needs `if __name__ == '__main__':`; --config.data.workers=0 "
                "decodes in this process"
            )
        if self._deaths > RESTARTS:
            raise AsjaxError(
                f"{self.name} died {self._deaths} times, the last time {how}; use fewer workers "
                "(--config.data.workers=0 decodes in this process), or less memory with a smaller "
                "--config.data.cache or batch_size"
            )
        _log.warning(
            "%s died, %s; it is started again (%d of at most %d times), and no clip is lost",
            self.name, how, self._deaths, RESTARTS,
        )  # fmt: skip

    def _silence(self) -> str:
        return f"because it hung for more than {self._silent_s:g} s"

    def hang_up(self) -> None:
        """Close the pipe. A worker that waits for it ends."""
        self._pipe.close()

    def end(self, deadline: float) -> None:
        """Wait for the end of the process until `deadline`, then kill it."""
        costs.leave(self._costs)
        self._process.join(max(0.0, deadline - time.monotonic()))
        if self._process.is_alive():
            self._process.kill()  # also ends a process that SIGSTOP has paused
            self._process.join(GRACE_S * 5)


def _end(workers: list[_Worker], stop: threading.Event) -> None:
    stop.set()
    begun = [worker for worker in workers if worker._process is not None]
    for worker in begun:
        worker.hang_up()
    deadline = time.monotonic() + GRACE_S
    for worker in begun:
        worker.end(deadline)


def _reason(code: int | None) -> str:
    if code is None:
        return "and cannot be removed"
    if code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    likely = {
        "SIGKILL": "memory ran out, or somebody killed it",
        "SIGBUS": "memory or a disk is full, or a file became shorter",
        "SIGSEGV": "a decoder crashed on a clip",
        "SIGABRT": "a library gave up",
    }.get(name)
    return f"killed by {name}" + (f" (likely: {likely})" if likely else "")


# ------------------------------------------------------------------------- in the worker process


def _serve(pipe, beats, spent, packed: bytes, threads: int) -> None:
    """Make batches until the program closes the pipe.

    Ctrl-C and SIGTERM go to all processes of a terminal or of a batch system. A worker ignores
    them, because the program handles them and may still need the batches in progress.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for work in (_beat, _end_with_parent):
        threading.Thread(target=work, args=(beats, spent), daemon=True).start()
    blocks: list[Block | None] = [None] * SLOTS
    try:
        import cloudpickle

        for batch in batches_of(cloudpickle.loads(packed), threads):
            _send(pipe, batch, blocks)
    except _HungUp:
        pass
    except BaseException as error:
        _report(pipe, error)
    os._exit(0)  # threads that decode need not finish


def batches_of(steps, threads: int):
    """An iterator over a grain MapDataset; `threads` threads make batches ahead, in order."""
    # The buffer counts whole batches. One per thread limits the memory.
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return iter(steps.to_iter_dataset(read))


def _beat(beats, spent) -> None:
    while True:
        beats.value += 1
        costs.publish(spent)
        time.sleep(_BEAT_S)


def _end_with_parent(*_) -> None:
    """End if the program is killed; this worker would wait forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


class _HungUp(Exception):
    """The program closed the pipe."""


def _send(pipe, batch: dict, blocks: list) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    raws = [buffer.raw() for buffer in buffers]
    ends = np.cumsum([0, *(-(-len(raw) // _ALIGN) * _ALIGN for raw in raws)]).tolist()
    try:
        slot = pipe.recv()
    except (EOFError, OSError):
        raise _HungUp from None
    path, block = "", blocks[slot]
    if block is None or len(block.view) < ends[-1]:
        block = blocks[slot] = Block(max(1, ends[-1]))
        path = block.path
    spans = [(start, len(raw)) for start, raw in zip(ends, raws, strict=False)]
    for (start, size), raw in zip(spans, raws, strict=True):
        block.view[start : start + size] = raw
    _put(pipe, (slot, path, head, spans, None))


def _report(pipe, error: BaseException) -> None:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error of a user's op that cannot travel
        error = RuntimeError(f"{type(error).__name__}: {error}")
    with contextlib.suppress(_HungUp):
        _put(pipe, (0, "", b"", [], error))


def _put(pipe, message) -> None:
    try:
        pipe.send(message)
    except OSError:
        raise _HungUp from None
