"""The meeting of the processes at the coordinator's port, before jax joins them.

The reason: if a process is missing, has the number of another one or a wrong address, jax waits
for 300 s and then aborts from C++, without the names of the processes. Here process 0 listens
first, and the others tell it their numbers. All get the same answer. Then jax takes the port.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import sys
import time

from asjax.config import AsjaxError

LIMIT_S = 300.0  # hosts of one training may start at different times
_TELL_S = 15.0  # a wait of this time is told
_LATE_S = 20.0  # processes of one launch start within this time
_PORT_S = 20.0  # a process that has just ended may still have the port
_MOST = 4096  # bytes of a message


class Missing(AsjaxError):
    """A process has not come. It may come later, so the same command may be tried again."""

    code = 76


def address(text: str) -> tuple[str, int]:
    """ "host:port" or "[::1]:port" -> host, port."""
    found = re.fullmatch(r"\[?([^\[\]/\s]+?)\]?:(\d{1,5})", text)
    if not found or not 0 < int(found[2]) < 2**16:
        raise AsjaxError(
            f"--coordinator must be HOST:PORT of process 0, with a port from 1 to 65535, such as "
            f"node1:29500, got {text!r}"
        )
    return found[1], int(found[2])


def meet(coordinator: str, count: int, index: int, limit_s: float = LIMIT_S) -> None:
    """Return when all `count` processes have come.

    Raises:
      AsjaxError: the address is none, another program has the port, two processes have one number,
        or processes were started with different counts. All processes that have come raise it.
      Missing: a process has not come within `limit_s`.
    """
    place = address(coordinator)
    if count < 1:
        raise AsjaxError(f"num_processes must be 1 or more, got {count}")
    if not 0 <= index < count:
        raise AsjaxError(f"process_id must be in 0..{count - 1}, got {index}")
    me = {"asjax": index, "of": count, "host": socket.gethostname(), "pid": os.getpid()}
    if index == 0:
        with contextlib.ExitStack() as stack:
            listener = _listen(place[1], me, place)
            stack.enter_context(listener)
            _gather(listener, coordinator, me, limit_s)
    else:
        _come(place, coordinator, me, limit_s)


# -------------------------------------------------------------------------------- process 0


def _listen(port: int, me: dict, place) -> socket.socket:
    """A socket that listens where jax's service will listen."""
    bind = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS")
    host, port = address(bind) if bind else ("", port)
    end = time.monotonic() + _PORT_S
    while True:
        try:
            if ":" in host or (not host and socket.has_dualstack_ipv6()):
                family, both = socket.AF_INET6, not host or host == "::"
            else:
                family, both = socket.AF_INET, False
            return socket.create_server(
                (host, port), family=family, dualstack_ipv6=both, backlog=1024
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                _ask(place, me)  # a process 0 of this training may be there
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise AsjaxError(
                    f"process 0 cannot listen on port {port} of {me['host']} ({error.strerror}), "
                    "which another program may have; give all processes a --coordinator with "
                    "another port"
                ) from None
            time.sleep(0.5)


def _ask(place, me: dict) -> None:
    """Raise the answer if another process 0 listens at the address of this one."""
    with contextlib.suppress(OSError), _connected(place, me, 5.0) as line:
        _obey(_message(line))


def _gather(listener, coordinator: str, me: dict, limit_s: float) -> None:
    count, begin = me["of"], time.monotonic()
    came: dict[int, tuple[dict, socket.socket | None]] = {0: (me, None)}
    tell = begin + _TELL_S
    try:
        while True:
            while gone := [n for n, (_, line) in came.items() if line and _closed(line)]:
                for number in gone:
                    came.pop(number)[1].close()
            if len(came) == count:
                return _answer(came, {"code": 0})
            now, missing = time.monotonic(), sorted(set(range(count)) - came.keys())
            if now > begin + limit_s:
                here = ", ".join(
                    f"{n} on {about['host']}" for n, (about, _) in sorted(came.items())
                )
                _fail(
                    came,
                    f"{_named(missing)} of {count} did not come to {coordinator} within "
                    f"{limit_s:.0f} s; there are {here}. Start all {count} processes with "
                    "the same --coordinator, which must name the host of process 0, and see the "
                    "output of those that are missing",
                    Missing,
                )
            if now > tell:
                _say(f"waiting for {_named(missing)} of {count} at {coordinator}")
                tell = now + 4 * _TELL_S
            listener.settimeout(1.0)
            with contextlib.suppress(OSError):
                line, _ = listener.accept()
                _let_in(came, line, me)
    except Missing:
        raise
    except AsjaxError as error:  # processes that come a little later must not wait for 300 s
        told = {about["asjax"] for about, _ in came.values()}
        _tell_late(listener, told, {"code": error.code, "line": str(error)}, count)
        raise
    finally:
        for _, line in came.values():
            if line:
                line.close()


def _tell_late(listener, told: set[int], answer: dict, count: int) -> None:
    """Give `answer` to the processes that have not come yet, for some seconds."""
    end = time.monotonic() + _LATE_S
    while time.monotonic() < end and not told >= set(range(count)):
        with contextlib.suppress(OSError):
            line, _ = listener.accept()
            line.settimeout(5.0)
            about = _message(line)
            _answer({0: (about, line)}, answer)
            line.close()
            if isinstance(about, dict):
                told.add(about.get("asjax"))


def _let_in(came: dict, line: socket.socket, me: dict) -> None:
    line.settimeout(5.0)
    about = _message(line)
    known = isinstance(about, dict) and me.keys() <= about.keys()
    if not known or not isinstance(about["asjax"], int):
        return line.close()  # another program
    number = about["asjax"]
    if about.get("of") != me["of"]:
        came[-1] = about, line
        _fail(
            came,
            f"{_who(me)} was started with --num-processes={me['of']} and {_who(about)} with "
            f"{about.get('of')}; give all processes the same number",
        )
    old = came.get(number)
    if old and not (old[1] and _closed(old[1])):
        came[-1] = about, line
        _fail(
            came,
            f"two processes have the number {number}: on {old[0]['host']} pid {old[0]['pid']} and "
            f"on {about['host']} pid {about['pid']}; give each its own --process-id, from 0 to "
            f"{me['of'] - 1}",
        )
    came[number] = about, line


def _fail(came: dict, line: str, kind=AsjaxError) -> None:
    _answer(came, {"code": kind.code, "line": line})
    raise kind(line)


def _answer(came: dict, answer: dict) -> None:
    for _, line in came.values():
        if line:
            with contextlib.suppress(OSError):
                line.sendall(json.dumps(answer).encode() + b"\n")


def _closed(line: socket.socket) -> bool:
    """Whether the other end is closed. Nobody sends anything after the first message."""
    line.setblocking(False)
    try:
        return not line.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        line.settimeout(5.0)


# ---------------------------------------------------------------------------- other processes


def _come(place, coordinator: str, me: dict, limit_s: float) -> None:
    begin = time.monotonic()
    tell, failed = begin + _TELL_S, "no answer"
    while (now := time.monotonic()) < begin + limit_s:
        try:
            with _connected(place, me, min(5.0, limit_s)) as line:
                line.settimeout(max(1.0, begin + limit_s + 10.0 - now))  # process 0 tells it first
                answer = _message(line)
            if _obey(answer):
                return
            failed = "what answers there is no process 0 of asjax that waits for others"
        except OSError as error:
            failed = error.strerror or str(error) or type(error).__name__
        if now > tell:
            _say(f"waiting for process 0 at {coordinator} ({failed})")
            tell = now + 4 * _TELL_S
        time.sleep(0.5)
    raise Missing(
        f"process {me['asjax']} on {me['host']} did not find process 0 at {coordinator} within "
        f"{limit_s:.0f} s ({failed}). Start all {me['of']} processes with the same "
        "--coordinator, which must name the host of process 0, and see the output of process 0"
    )


@contextlib.contextmanager
def _connected(place, me: dict, timeout_s: float):
    """A connection to `place`, on which this process has told who it is."""
    with socket.create_connection(place, timeout=timeout_s) as line:
        line.sendall(json.dumps(me).encode() + b"\n")
        yield line


def _obey(answer) -> bool:
    """True if all have come; False: it is no answer. AsjaxError: process 0 says so."""
    if not isinstance(answer, dict) or "code" not in answer:
        return False
    if answer["code"]:
        raise (Missing if answer["code"] == Missing.code else AsjaxError)(str(answer.get("line")))
    return True


def _message(line: socket.socket):
    """The next line of a connection, as JSON; None if it is none."""
    data = b""
    with contextlib.suppress(OSError, ValueError):
        while not data.endswith(b"\n") and len(data) < _MOST and (more := line.recv(_MOST)):
            data += more
        return json.loads(data)
    return None


def _named(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "")
    return f"process{'es' if len(numbers) > 1 else ''} {shown}"


def _who(about: dict) -> str:
    return f"process {about['asjax']} on {about['host']}"


def _say(text: str) -> None:
    print(f"asjax train: {text}", file=sys.stderr, flush=True)
