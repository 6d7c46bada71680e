"""What watches over a running training: stop signals, and the time that evaluations take."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time

from asjax import hosts

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class StopSignal:
    """In a `with` statement, SIGTERM and Ctrl-C set `requested`. A line says at once what follows.

    Python runs a signal handler only between two instructions of the main thread, so never while
    XLA compiles. Therefore a thread also reads the signals, from a socket, and prints the line.
    Outside the main thread this object does nothing, because Python allows handlers only there.
    With several processes, JAX's preemption service handles SIGTERM, and Ctrl-C becomes SIGTERM.

    Attributes:
      requested: whether a signal has come.
      busy: what the program does now that cannot be interrupted; "" if nothing.
      then: what happens after that, for the line.
    """

    then = (
        "last finished step is saved and the run ends with exit code 75. The same command resumes "
        "it. A second Ctrl-C ends it at once, without a save."
    )

    def __init__(self, say=None):
        self.requested, self.busy = False, ""
        self._handled = self._questions = 0
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._before: dict = {}

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            return self
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._old_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in _NAMES:
            if number == signal.SIGTERM and hosts.several():
                continue  # JAX's handler tells the other processes; see `asked`
            self._before[number] = signal.signal(number, self._handle)
        self._thread = threading.Thread(target=self._listen, name="asjax-signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        signal.set_wakeup_fd(self._old_fd)
        self._write.close()  # ends the thread
        self._thread.join(5)
        self._read.close()

    def asked(self) -> bool:
        """Whether the program must stop.

        Several processes stop together. Each must ask equally often, and all get True in answer to
        the same question, soon after one of them got a signal.
        """
        if not hosts.several():
            return self.requested
        from jax.experimental import multihost_utils

        self._questions += 1
        return multihost_utils.reached_preemption_sync_point(self._questions)

    @contextlib.contextmanager
    def during(self, work: str):
        """Name work that cannot be interrupted, such as a compilation, for the line."""
        self.busy = work
        try:
            yield
        finally:
            self.busy = ""

    def _handle(self, number, frame):
        self.requested = True
        self._handled += 1
        if self._handled > 1 and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C ends the program; the last save remains
        if hosts.several():
            os.kill(os.getpid(), signal.SIGTERM)

    def _listen(self):
        told = False
        while data := self._read.recv(64):
            for number in data:
                if number not in _NAMES:
                    continue
                self.requested = True
                if not told:
                    wait = f"{self.busy} must end first, then the" if self.busy else "The"
                    self._say(f"asjax train: {_NAMES[number]}: {wait} {self.then}")
                told = True


class Pace:
    """Decides which evaluations run, so that they take at most `share` of the time.

    The first evaluation has no effect on the decisions, because XLA compiles during it.

    Args:
      share: 0 to 1; with 1 every evaluation runs.
      now: a clock in seconds.
    """

    def __init__(self, share: float, now=time.perf_counter):
        self._share, self._now, self._start = share, now, now()
        self._first = True
        self._spent, self._last = 0.0, 0.0

    def allows(self) -> bool:
        """Whether one more evaluation, as long as the last one, keeps to the share."""
        if self._share >= 1:
            return True
        spent = self._spent + self._last
        return spent <= self._share * (self._now() - self._start + self._last)

    @contextlib.contextmanager
    def measure(self):
        begin = self._now()
        yield
        took = self._now() - begin
        if self._first:
            self._first = False
            self._start += took
        else:
            self._spent, self._last = self._spent + took, took
