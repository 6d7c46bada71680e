"""Run work that may never end (a read from a dead network disk), with a time limit.

Python cannot stop a thread that waits inside the system or a C library. So the work runs in a
helper thread, and the caller abandons a helper that takes too long. Helpers are daemon threads, so
the program can still end. At most `MOST_STALLED` helpers may be abandoned at a time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from asjax.config import AsjaxError, shown
from asjax.data import ffmpeg
from asjax.data.sound import AudioError

MOST_STALLED = 64

_idle: list[_Helper] = []  # threads that wait for work
_stalled: set[_Helper] = set()
_lock = threading.Lock()
_mine = threading.local()  # the event `stop` of the present thread
_under_way: dict[int, tuple[str, float]] = {}  # thread -> what it makes, since when
_LOOK_S = 0.2  # how often a waiting thread looks at `stop`


class Stopped(Exception):
    """The result of the work is not needed any more."""


@contextlib.contextmanager
def until(stop: threading.Event | None):
    """Calls of this thread in the `with` block end with Stopped soon after `stop` is set."""
    before = getattr(_mine, "stop", None)
    _mine.stop = stop
    try:
        yield
    finally:
        _mine.stop = before


@contextlib.contextmanager
def making(what: str):
    """In this `with` statement, the present thread makes or waits for `what`; see `described`."""
    thread = threading.get_ident()
    _under_way[thread] = (what, time.monotonic())
    try:
        yield
    finally:
        _under_way.pop(thread, None)


def described(most: int = 3) -> str:
    """What threads of this process make now, as text: the slowest first."""
    now = time.monotonic()
    found = sorted((begin, what) for what, begin in list(_under_way.values()))
    return ", ".join(f"{shown(what)} for {now - begin:.0f} s" for begin, what in found[:most])


def call(function: Callable, limit_s: float, what: str):
    """The result of `function()`, run in a helper thread.

    Raises:
      AudioError: it takes longer than `limit_s` seconds. `what` is the name of the clip.
      AsjaxError: too many abandoned calls still hang.
      Stopped: the event of `until` was set.
    """
    if not limit_s > 0:
        raise AsjaxError(f"decode_timeout_s must be more than 0 seconds, got {limit_s!r}")
    if len(_stalled) >= MOST_STALLED:
        raise AsjaxError(
            f"{MOST_STALLED} reads of audio hang at the same time, before {what}; does "
            "the disk answer? Check whether `ls` of its folder returns"
        )
    with _lock:
        helper = _idle.pop() if _idle else _Helper()
    outcome = _Outcome()
    helper.work.put((function, outcome))
    try:
        _wait(outcome.done, limit_s)
    finally:  # also when Ctrl-C ends the waiting
        with _lock:
            if not outcome.finished:
                outcome.given_up = True
                _stalled.add(helper)
                ffmpeg.give_up(helper.thread.ident)
    if outcome.given_up:
        raise AudioError(
            f"{what} could not be read within {limit_s:g} s (data.decode_timeout_s); does its disk "
            "answer?"
        )
    with _lock:
        _idle.append(helper)
    error, outcome.error = outcome.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error  # else the error and this frame keep each other and the clip in memory
    return outcome.value


def _wait(done, limit_s: float) -> None:
    """Wait for the lock `done` for `limit_s` seconds at most.

    A pause of the whole program (Ctrl-Z) makes one look long. It counts as two, because the disk
    is not at fault.
    """
    stop, left = getattr(_mine, "stop", None), limit_s
    while left > 0:
        if stop is not None and stop.is_set():
            raise Stopped
        begin = time.monotonic()
        if done.acquire(timeout=min(left, _LOOK_S)):
            return
        left -= min(time.monotonic() - begin, 2 * _LOOK_S)


class _Outcome:
    def __init__(self):
        self.done = threading.Lock()
        self.done.acquire()
        self.value = self.error = None
        self.finished = self.given_up = False


class _Helper:
    """A thread that does one piece of work after the other, until it is abandoned."""

    def __init__(self):
        self.work: SimpleQueue = SimpleQueue()
        self.thread = threading.Thread(target=self._serve, name="asjax-read", daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            function, outcome = self.work.get()
            try:
                outcome.value = function()
            except BaseException as error:
                outcome.error = error
            with _lock:
                outcome.finished = True
                _stalled.discard(self)
            outcome.done.release()
            if outcome.given_up:
                ffmpeg.forgive(threading.get_ident())
                return
            del function, outcome


def _forget():
    """Reset the state in a forked child, because the threads do not exist there."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()
    _under_way.clear()
    _stalled.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
