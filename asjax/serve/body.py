"""The body of a request into a temporary file: any transfer, with limits of size and of time."""

from __future__ import annotations

import errno
import io
import tempfile
import time

IDLE_S = 20.0  # longest wait for the next bytes of a client
HEAD_S = 30.0  # longest time for the first line and the headers of a request
SLOWEST = 32 << 10  # bytes per second that a body must reach on average
_BLOCK = 1 << 18
_MOST_LINE = 4096  # bytes of a line between two chunks
_MOST_TRAILERS = 64


class Refused(Exception):
    """A request that gets an error: an HTTP status, and one line for people."""

    def __init__(self, status: int, line: str, **headers):
        super().__init__(line)
        self.status, self.line, self.headers = status, line, headers


class Timed(io.RawIOBase):
    """Reads from a socket. TimeoutError: `IDLE_S` without a byte, or the deadline has passed."""

    def __init__(self, connection):
        self.connection = connection
        self.allow(HEAD_S)

    def allow(self, seconds: float) -> None:
        """Set the deadline: this many seconds from now."""
        self.deadline = time.monotonic() + seconds

    def readable(self):
        return True

    def readinto(self, buffer):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self.connection.settimeout(min(left, IDLE_S))
        return self.connection.recv_into(buffer)


def length(headers, most: int) -> int | None:
    """The length of a body from its headers, or None for chunks.

    Raises:
      Refused: 400, 411, 413 or 501.
    """
    lengths, coding = headers.get_all("Content-Length", []), headers.get("Transfer-Encoding")
    if coding is not None:
        if lengths:
            raise Refused(400, "give Content-Length or Transfer-Encoding, not both")
        if coding.strip().lower() != "chunked":
            raise Refused(501, "of the transfer encodings only chunked is known")
        return None
    if not lengths:
        raise Refused(411, "the request has no body; send the bytes of an audio file")
    if len(lengths) > 1 or not lengths[0].strip().isascii() or not lengths[0].strip().isdigit():
        raise Refused(400, "Content-Length must be one number of bytes")
    text = lengths[0].strip().lstrip("0") or "0"
    if len(text) > 18 or int(text) > most:
        raise too_large(most)
    return int(text)


def too_large(most: int) -> Refused:
    return Refused(
        413,
        f"the body must have at most {most >> 20} MB; start the service with a larger --max-mb, or "
        "tag the file with asjax tag",
    )


def receive(rfile, timed: Timed, headers, most: int):
    """The body as a binary file at its beginning. It is deleted when it is closed.

    Args:
      rfile: a buffered reader of `timed`. most: bytes.

    Raises:
      Refused: a wrong length, too large (also in chunks), too slow, or it ends early.
    """
    wanted = length(headers, most)
    timed.allow(IDLE_S + (most if wanted is None else wanted) / SLOWEST)
    file = tempfile.TemporaryFile(prefix="asjax-", buffering=0)  # noqa: SIM115
    try:
        if wanted is None:
            _chunks(rfile, file, most)
        else:
            _copy(rfile, file, wanted)
        file.seek(0)
    except TimeoutError:
        file.close()
        raise Refused(408, "the body came too slowly; send it again") from None
    except BaseException as error:
        file.close()
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise Refused(507, "the disk for temporary files is full; free some space") from None
        raise
    return file


def _copy(rfile, file, count: int) -> None:
    while count:
        block = rfile.read1(min(count, _BLOCK))
        if not block:
            raise Refused(400, "the body ends before its Content-Length")
        count -= len(block)
        _write(file, block)


def _write(file, block) -> None:
    block = memoryview(block)
    while block:  # a raw file may take less than it is given
        block = block[file.write(block) :]


def _chunks(rfile, file, most: int) -> None:
    """A body in chunks (RFC 9112, 7.1); extensions and trailers are read and not used."""
    total = 0
    while True:
        word = _line(rfile).partition(b";")[0].strip()
        if not word or len(word) > 15 or word.strip(b"0123456789abcdefABCDEF"):
            raise Refused(400, "a chunk must begin with its size in hexadecimal digits")
        size = int(word, 16)
        if not size:
            break
        total += size
        if total > most:
            raise too_large(most)
        _copy(rfile, file, size)
        if _line(rfile):
            raise Refused(400, "a chunk is longer than its size says")
    for _ in range(_MOST_TRAILERS):
        if not _line(rfile):
            return
    raise Refused(400, "there are too many trailers")


def _line(rfile) -> bytes:
    line = rfile.readline(_MOST_LINE)
    if not line.endswith(b"\n"):
        raise Refused(400, "the body ends inside a chunk")
    return line.rstrip(b"\r\n")


def drain(rfile, timed: Timed, seconds: float = 5.0) -> None:
    """Read and forget what a refused client still sends, so that it can read the answer."""
    timed.allow(seconds)
    try:
        while rfile.read1(_BLOCK):
            pass
    except (OSError, ValueError):
        pass
