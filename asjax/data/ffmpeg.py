"""Decode audio that libsndfile does not read with the `ffmpeg` on the user's PATH.

ffmpeg runs as a child process with limits on memory, time and protocols. We pass the container
format instead of letting ffmpeg guess it, so that a file cannot make ffmpeg open other files.

No ffmpeg outlives its use. `give_up` kills those of a thread whose work took too long. A small
guard process kills those that are left when this process ends, whatever ended it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from struct import unpack_from

import numpy as np

WAIT_S = 60.0  # longest wait for a byte from ffmpeg
_CPU_S = 3600
_MEMORY_KB = 4 << 20
_HEADER = 1 << 16  # largest size of the WAV header in bytes
_LIMITED = f'ulimit -t {_CPU_S}; ulimit -v {_MEMORY_KB} 2>/dev/null; exec "$@"'
# The guard reads "+ PID" and "- PID". At the end of its input it kills the processes that are left.
_GUARD = """trap '' HUP INT TERM
left=' '
while read -r sign pid; do
  case $sign in
    +) left="$left$pid " ;;
    -) case $left in *" $pid "*) left="${left%% $pid *} ${left#* $pid }" ;; esac ;;
  esac
done
for pid in $left; do kill -9 -"$pid"; done"""

_using: dict[Child, int] = {}  # child -> the thread that waits for it
_given_up: set[int] = set()  # threads whose work is not wanted any more
_guard: subprocess.Popen | None = None
_lock = threading.Lock()


class FfmpegError(RuntimeError):
    """ffmpeg failed, stalled or gave a wrong output. The text is the reason."""


def program() -> str | None:
    """The path of ffmpeg, or None."""
    return shutil.which("ffmpeg") if os.name == "posix" else None


@contextlib.contextmanager
def as_path(file, path):
    """The path of an open file. A file without a path is copied to a temporary file."""
    if path is not None:
        yield os.fspath(path)
        return
    with tempfile.NamedTemporaryFile(prefix="asjax-") as copy:
        file.seek(0)
        shutil.copyfileobj(file, copy)
        copy.flush()
        yield copy.name


class Child:
    """The first audio track of a file, read in order, with the interface of a soundfile file.

    Attributes:
      samplerate, channels: of the track. format: "ffmpeg". frames: 2**62, because not known.

    Raises:
      FfmpegError: at the start, or when the reading reaches the damage.
    """

    format, frames = "ffmpeg", 1 << 62

    def __init__(self, path: str, demuxer: str):
        command = ["/bin/sh", "-c", _LIMITED, "sh", program() or "ffmpeg"]
        command += ["-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1", "-xerror"]
        command += ["-protocol_whitelist", "file", "-f", demuxer, "-i", f"file:{path}"]
        command += ["-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-bitexact", "pipe:1"]
        self._words, self._bytes, self._ended = b"", b"", False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _tell_guard(f"+ {self._process.pid}")
            self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Stop ffmpeg; it is killed if it still runs."""
        self.kill()
        if not self._process.stdout.closed:
            _tell_guard(f"- {self._process.pid}")
        self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()

    def kill(self):
        """Kill ffmpeg if it still runs. Another thread may call it."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def words(self) -> str:
        """The last error line of ffmpeg."""
        lines = self._words.decode(errors="replace").strip().splitlines()
        return lines[-1][-200:].strip() if lines else ""

    def seek(self, frame: int):
        """Skip to a frame, counted from the beginning. Call it before the first read."""
        while frame > 0:
            skipped = len(self.read(min(frame, 1 << 16)))
            if not skipped:
                return
            frame -= skipped

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """float32 [n, channels]; n < frames only at the end."""
        width = 4 * self.channels
        data = self._take(frames * width)
        data = data[: len(data) // width * width]
        return np.frombuffer(data, "<f4").reshape(-1, self.channels).astype(np.float32)

    def _read_header(self):
        head = b""
        while (place := head.find(b"data", 12)) < 0 or len(head) < place + 8:
            more = self._take(256)
            head += more
            if not more or len(head) > _HEADER:
                self._fail("it gave no sound")
        form = head.find(b"fmt ", 12, place)
        if not head.startswith((b"RIFF", b"RF64")) or form < 0 or form + 24 > place:
            self._fail("it gave no WAV")
        tag, self.channels, self.samplerate = unpack_from("<HHI", head, form + 8)
        bits = unpack_from("<H", head, form + 22)[0]
        if tag not in (3, 0xFFFE) or bits != 32 or not self.channels:
            self._fail(f"it gave {bits}-bit samples of {self.channels} channels")
        self._bytes = head[place + 8 :] + self._bytes

    def _fail(self, reason: str):
        raise FfmpegError(self.words or reason)

    def _take(self, count: int) -> bytes:
        """`count` bytes of the output; fewer at its end."""
        parts, missing = [self._bytes[:count]], count - len(self._bytes)
        self._bytes = self._bytes[count:]
        while missing > 0 and not self._ended:
            block = self._wait()
            parts.append(block[:missing])
            self._bytes, missing = block[missing:], missing - len(block)
        return b"".join(parts)

    def _wait(self) -> bytes:
        thread = threading.get_ident()
        _using[self] = thread  # before the next line: `give_up` does the same in the other order
        try:
            if thread in _given_up:
                raise FfmpegError("it is not wanted any more")
            return self._next()
        finally:
            del _using[self]

    def _next(self) -> bytes:
        """The next bytes of the output, b"" at its end. Error lines are read at the same time."""
        out, words = self._process.stdout.fileno(), self._process.stderr.fileno()
        waiting = select.poll()
        for pipe in (out, words):
            waiting.register(pipe, select.POLLIN)
        limit, block, both = time.monotonic() + WAIT_S, None, {out, words}
        while both if block == b"" else block is None:  # at the end, read both pipes to their end
            ready = waiting.poll(1000 * max(0.0, limit - time.monotonic()))
            if not ready:
                raise FfmpegError(self.words or f"it gave no data for {WAIT_S:g} s")
            for pipe, _ in ready:
                data = os.read(pipe, 1 << 16)
                if pipe == words:
                    self._words = (self._words + data)[-4096:]
                else:
                    block = data
                if not data:
                    waiting.unregister(pipe)
                    both.discard(pipe)
        if not block:
            self._ended = True
            try:
                code = self._process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                raise FfmpegError(self.words or f"it did not end within {WAIT_S:g} s") from None
            if code:
                raise FfmpegError(self.words or f"it ended with exit code {code}")
        return block


# ----------------------------------------------------------------------------- no child is left


def give_up(thread: int) -> None:
    """Kill the ffmpeg that a thread (its ident) waits for; it starts no other until `forgive`."""
    _given_up.add(thread)
    for child, user in list(_using.items()):
        if user == thread:
            child.kill()


def forgive(thread: int) -> None:
    """The thread ends or begins other work, so its ident may be used again."""
    _given_up.discard(thread)


def _tell_guard(line: str) -> None:
    """Send a line to the guard of this process, which starts with the first one."""
    global _guard
    with _lock:
        if _guard is None:
            quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
            _guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD],
                stdin=subprocess.PIPE,
                start_new_session=True,
                cwd="/",
                **quiet,
            )
        with contextlib.suppress(BrokenPipeError, ValueError):  # it was killed, or this is the end
            os.write(_guard.stdin.fileno(), f"{line}\n".encode())


@atexit.register
def _end_guard() -> None:
    if _guard is not None:
        _guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            _guard.wait(1.0)


def _forget() -> None:
    """Reset the state in a forked child, which has no children and would keep the guard alive."""
    global _guard, _lock
    _lock = threading.Lock()
    if _guard is not None:
        _guard.stdin.close()
        _guard.returncode = 0  # it is no child of this process
        _guard = None
    _using.clear()
    _given_up.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
