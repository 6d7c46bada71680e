"""Ends a training that hangs, and names the culprit. See `Watchdog`.

A collective waits for every device. So if one process dies, stops or waits for its data, all others
wait in their next step, and none of them knows why. Therefore each process tells the others what it
does, through JAX's key-value store (`asjax.hosts`).
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback

from asjax import hosts
from asjax.hosts import cluster

EXIT_LOST = 76  # another process, the data or a device hung or died; the same command goes on
SHORT_S, ALONE_S, LONG_S = cluster.SILENT_S, 600.0, 1800.0  # see `Watchdog`
TICK_S = 1.0
STANDING_S = 5.0  # a process that shows no sign of life for this time is called dead or stopped
_BEATS, _FAILED = "asjax/watch/beats", "asjax/watch/failed"
_RESUMES = "the same command goes on from the last checkpoint"

_current: Watchdog | None = None


def beat(step: int | None = None, phase: str | None = None) -> None:
    """Tell the watchdog, if there is one, what the program does now. See `Watchdog.beat`."""
    if _current is not None:
        _current.beat(step, phase)


class Watchdog:
    """Ends the process with exit code 76 if the training hangs; used in a `with` statement.

    The program calls `beat(step, phase)`. A thread compares the time since then with the limit of
    the phase. With several processes, another thread tells it to the others each second or two, and
    reads what they tell.
    The process ends in these cases. A line on stderr says which process is the cause.
    1. A phase takes longer than its limit.
    2. Another process shows no sign of life for the limit of a step: it is dead or stopped.
    3. Process 0, which has the key-value store, does not answer for this time.
    4. Another process has failed (`leave`). Its line is printed here too.

    Only counted ticks of the thread make a process look old. So a pause of the program (Ctrl-Z)
    does not end it.

    Phases and limits:
      data, step: `limit_s`; by default 10 times the slowest step so far, at least 60 s (600 s in a
        single process, where nobody else waits). The first two steps: at least 1,800 s.
      report: none, because process 0 does it alone.
      others (start, compile, eval, save): at least 1,800 s since the last beat.

    Args:
      limit_s: seconds; None: the default; 0: no watchdog.
      decode_timeout_s: seconds after which the data pipeline leaves a clip out. The default limit
        of data is longer than that.
      doing: what the data pipeline does now, as text, for the line; "" if nothing is known.
    """

    def __init__(
        self, limit_s: float | None = None, *, decode_timeout_s: float = 0.0, doing=lambda: ""
    ):
        self._limit_s, self._doing = limit_s, doing
        self._data_s = decode_timeout_s + 15.0
        self._mark = (0, "start")  # a new tuple with every beat
        self._steps = 0  # steps begun by this process
        self._slowest, self._began = 0.0, None
        self._age = 0.0
        self._over = threading.Event()
        self._peers: dict[int, _Peer] = {}
        self._rounds, self._unanswered_s = 0, 0.0  # of the exchange with process 0
        self._pause_s = max(TICK_S, min(2.0, hosts.count() / 64))
        self._told = None  # the beat that a line was about

    # ---------------------------------------------------------------------- the program's side

    def beat(self, step: int | None = None, phase: str | None = None) -> None:
        """Begin a phase of a step. Without arguments: the present phase goes on well."""
        step = self._mark[0] if step is None else step
        phase = phase or self._mark[1]
        now = time.monotonic()
        if phase == "step":
            self._steps += 1
        elif phase == "data":
            if self._began is not None and self._steps > 2:
                self._slowest = max(self._slowest, now - self._began)
            self._began = now
        else:
            self._began = None
        self._mark = (step, phase)

    def __enter__(self):
        global _current
        if self._limit_s == 0:
            return self
        _current = self
        targets = [self._watch]
        if hosts.several():
            targets.append(self._exchange)
        for target in targets:
            threading.Thread(target=target, name="asjax-watchdog", daemon=True).start()
        if hosts.several():
            for number, named in enumerate(hosts.from_all([socket.gethostname(), os.getpid()])):
                self._peer(number, [0, "start", 0.0, -1, *named, False, ""])
        return self

    def __exit__(self, kind, *_):
        global _current
        if kind is not None and hosts.several():
            return  # `leave` follows, and something on the way to it may hang
        if kind is None:  # process 0 may write the report for a long time
            self.beat(phase="report")
            hosts.barrier("finished")
        self._over.set()
        _current = None

    def limit(self) -> float:
        """Seconds that the present phase may take."""
        phase = self._mark[1]
        if phase == "report":
            return math.inf
        least = self._limit_s or 0.0
        compiles = self._steps < (2 if phase == "data" else 3)
        if phase not in ("data", "step") or compiles:
            return max(LONG_S, least)
        if self._limit_s:
            return self._limit_s
        return max(
            SHORT_S if hosts.several() else ALONE_S,
            10 * self._slowest,
            self._data_s if phase == "data" else 0.0,
        )

    def _silence_s(self) -> float:
        """Seconds without a sign of life after which a process is given up."""
        return self._limit_s or SHORT_S

    # ------------------------------------------------------------------------------ the threads

    def _watch(self) -> None:
        seen, before, rounds, gap = self._mark, time.monotonic(), 0, 0.0
        while not self._over.wait(TICK_S):
            now = time.monotonic()
            tick, before = min(now - before, 2 * TICK_S), now
            if self._mark is not seen:
                seen, self._age = self._mark, 0.0
            else:
                self._age += tick
            if hosts.several():
                answered, rounds, gap = self._rounds != rounds, self._rounds, gap + tick
                self._unanswered_s = 0.0 if answered else self._unanswered_s + tick
                if answered:  # a long silence of process 0 says nothing about the others
                    for peer in list(self._peers.values()):
                        more = min(gap, 2 * self._pause_s)
                        peer.standing_s = peer.standing_s + more if peer.stands() else 0.0
                    gap = 0.0
            self._look()

    def _exchange(self) -> None:
        """Tell the others what this process does, and read what they do. It may block for ever."""
        me = [socket.gethostname(), os.getpid()]
        while not self._over.is_set():
            with contextlib.suppress(Exception):  # of the connection; then nothing is answered
                doing = self._present(TICK_S)
                hosts.publish(
                    _BEATS, [*self._mark, self._age, self._rounds, *me, hosts.waits, doing]
                )
                failed = hosts.published(_FAILED)
                for number, found in hosts.published(_BEATS).items():
                    self._peer(number, found)
                if failed:
                    self._follow(failed)
                self._rounds += 1
            self._over.wait(self._pause_s)

    def _peer(self, number: int, found: list) -> None:
        if number == hosts.index():
            return
        peer = self._peers.setdefault(number, _Peer(number))
        if not peer.now or found[3] >= peer.now[3]:
            peer.now = found

    def _look(self) -> None:
        dead = max(self._peers.values(), key=lambda peer: peer.standing_s, default=None)
        if dead is not None and dead.standing_s > self._silence_s():
            self._end(*self._verdict(), ask=True)
        if self._unanswered_s > self._silence_s():
            self._end(*self._verdict())
        if self._age > self.limit():
            self._end(*self._verdict(), ask=True)
        late = self._age > max(SHORT_S, 10 * self._slowest, self._data_s)
        if late and self._mark[1] == "data" and self._steps >= 2 and self._told is not self._mark:
            self._told = self._mark
            _say(f"waiting: {self._present()}")

    # ------------------------------------------------------------------------------ the verdict

    def _present(self, since_s: float = 0.0) -> str:
        """What this process does, for how long; "" if for less than `since_s`."""
        step, phase = self._mark
        if self._age < since_s:
            return ""
        doing = ""
        with contextlib.suppress(Exception):  # it must not end this thread
            doing = self._doing() if phase == "data" else ""
        return f"{_phase(phase, step)} for {self._age:.0f} s{doing and ': '}{doing}"

    def _verdict(self) -> tuple[str, int | None]:
        """(line, number of the process that is the cause; None: it is not known)."""
        peers = list(self._peers.values())
        dead = [peer for peer in peers if peer.standing_s > STANDING_S]
        if self._unanswered_s > STANDING_S:
            named = self._peers.get(0) or "process 0"
            return f"{named}, the coordinator, does not answer for {self._unanswered_s:.0f} s", 0
        if dead:
            worst = max(dead, key=lambda peer: peer.standing_s)
            step, phase = worst.now[:2]
            return (
                f"{worst}: silent for {worst.standing_s:.0f} s (dead or stopped), last in "
                f"{_phase(phase, step)}",
                worst.number,
            )
        half = self.limit() / 2
        if self._mark[1] != "step" and self._age > half and not hosts.waits:
            return f"{self._named()}{self._present()}", hosts.index()
        for peer in peers:  # in a step, a process waits for the others
            _, phase, age, *_, waits, doing = peer.now
            if phase not in ("step", "report") and age > half and not waits:
                return f"{peer}: {doing}", peer.number
        return f"unknown cause: {self._named()}{self._present()}", None

    def _named(self) -> str:
        if not hosts.several():
            return ""
        return f"process {hosts.index()} on {socket.gethostname()} pid {os.getpid()}: "

    def cause(self, wait_s: float = 2 * STANDING_S) -> tuple[str, int | None]:
        """The dead process behind an exception of a collective, as a verdict; else "" and this."""
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            silent = [self._unanswered_s, *(peer.standing_s for peer in list(self._peers.values()))]
            if max(silent) > STANDING_S:
                return self._verdict()
            time.sleep(0.2)
        return "", hosts.index()

    def _follow(self, failed: dict) -> None:
        """Another process has failed, with a line; this one ends with it."""
        if _leaving.locked():  # this process is the one, or has told its end already
            return
        number = min(failed, key=lambda n: not failed[n]["line"])
        about = failed[number]
        if not about["line"]:
            return
        if about["culprit"] == hosts.index():
            _show_stacks()
        _go(about["code"], about["line"], record="", culprit=None)

    def _end(self, line: str, culprit: int | None, ask: bool = False) -> None:
        """End because of the verdict, unless another process has told its own (`ask`)."""
        if _leaving.locked():
            return
        if ask and hosts.several():
            with contextlib.suppress(Exception):
                if failed := hosts.published(_FAILED):
                    self._follow(failed)
        if culprit in (None, hosts.index()):
            _show_stacks()
        line = f"{line}; {_RESUMES}"
        _go(EXIT_LOST, line, record=line, culprit=culprit)


class _Peer:
    """Another process: what it has told last, and for how long its counter stands."""

    def __init__(self, number: int):
        self.number, self.standing_s = number, 0.0
        self.now: list = []  # step, phase, age, counter, host, pid, waits, doing
        self._counter = -2

    def stands(self) -> bool:
        before, self._counter = self._counter, self.now[3]
        return before == self._counter

    def __str__(self):
        return f"process {self.number} on {self.now[4]} pid {self.now[5]}"


def _phase(phase: str, step: int) -> str:
    return f"{phase} of step {step}" if phase in ("data", "step", "eval", "save") else phase


# --------------------------------------------------------------------------- the end of a process

_leaving = threading.Lock()


def leave(code: int, line: str, error: BaseException | None = None) -> int:
    """End all processes because this one has failed with `line`, which it has printed.

    With one process: returns `code`. With several it does not return, because Python's usual exit
    waits for the other processes. The code is 2 for a user's error and 130 for Ctrl-C, on all
    processes; else it is 76.
    """
    if not hosts.several():
        return code
    code = code if code in (2, 130) else EXIT_LOST
    _show_error(error)
    _go(code, "", record=f"process {hosts.index()}: {line}", culprit=hosts.index())


def leave_for_another(error: BaseException) -> None:
    """End with the line of the dead process that is the cause of `error`; else return.

    The reason: a collective fails if another process dies, and its words do not say which.
    """
    if not hosts.several() or _current is None:
        return
    import jax

    if isinstance(error, jax.errors.JaxRuntimeError):
        found, culprit = _current.cause()
        if found:
            _show_error(error)
            line = f"{found}; {_RESUMES}"
            _go(EXIT_LOST, line, record=line, culprit=culprit)


def _show_error(error: BaseException | None) -> None:
    if os.environ.get("ASJAX_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)


def _go(code: int, line: str, record: str, culprit: int | None) -> None:
    """Print `line`, tell the others `record` and end this process. Only one thread does so."""
    if not _leaving.acquire(blocking=False):
        threading.Event().wait()
    if line:
        _say(f"error: {line}")
    if hosts.several() and (culprit != 0 or hosts.index() == 0):  # process 0 has the store
        work = threading.Thread(target=_tell, args=(code, record, culprit), daemon=True)
        work.start()
        work.join(8.0)  # the connection may hang
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _tell(code: int, line: str, culprit: int | None) -> None:
    """Publish the end of this process. Process 0 has the store, so it waits for the others."""
    hosts.publish(_FAILED, {"code": code, "line": line, "culprit": culprit})
    peers = list(_current._peers.values()) if _current else []
    dead = {peer.number for peer in peers if peer.standing_s > STANDING_S / 2}
    wanted = set(range(hosts.count())) - dead
    end = time.monotonic() + 5.0
    while hosts.index() == 0 and time.monotonic() < end:
        if wanted <= set(hosts.published(_FAILED)):
            break
        time.sleep(0.1)


def _show_stacks() -> None:
    with contextlib.suppress(Exception):  # stderr may be no file
        faulthandler.dump_traceback(all_threads=True)


def _say(line: str) -> None:
    with contextlib.suppress(Exception):
        print(f"asjax train: {line}", file=sys.stderr, flush=True)


_ABORTED = None  # ctypes must not collect it


def end_aborts_with_a_line() -> None:
    """Give SIGABRT a handler that prints the cause and ends with code 76.

    JAX's client aborts the process as soon as it loses process 0, or if a process does not come at
    the start. That happens in a thread of C++,
    so no Python handler of `signal` would run.
    """
    global _ABORTED
    if _ABORTED is not None or not sys.platform.startswith("linux"):
        return

    def aborted(number):
        signal.alarm(10)  # ends the process, if memory is broken and the rest hangs
        peer = _current and _current._peers.get(0)
        if _current is None:
            why = "a process did not come, or process 0 is not where it is looked for"
        else:
            why = f"{peer or 'process 0'}, the coordinator, is dead, or has given up a process"
        _say(f"error: jax has ended this process, see above. Most likely {why}; {_RESUMES}")
        os._exit(EXIT_LOST)

    _ABORTED = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(int(signal.SIGABRT), _ABORTED)
