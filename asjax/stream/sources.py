"""Where a listener's sound comes from: standard input, or a microphone.

A source has `rate`, `channels`, `live` (whether sound waits for nobody), `read() -> samples [n,
channels]`, all that wait, or None at the end, and `notes() -> list[str]` after it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import stat

import numpy as np

from asjax.config import AsjaxError, counted, quoted
from asjax.stream.pcm import Pcm, Wav, refuse_others

_BLOCK, _MOST = 1 << 16, 1 << 22  # bytes of one read, and of one `read` of all that wait
_PIPE = 1 << 20  # bytes that a pipe may hold while a window is computed, where Linux lets us
_WAITING = 1000  # pieces of a microphone that may wait
FORMAT, RATE, CHANNELS = "s16le", 16_000, 1
ARECORD = "arecord -f S16_LE -r 16000 -c 1 | asjax listen -"


class Input:
    """Raw PCM or WAV from a file descriptor.

    Args:
      format, rate, channels: of raw PCM; None: s16le, 16000, 1. A WAV has its own; a given value
        that differs is an error.

    Raises:
      AsjaxError: a terminal, no sound, another container, or a wrong header.
    """

    def __init__(self, fd: int = 0, format=None, rate=None, channels=None):
        if os.isatty(fd):
            raise AsjaxError(
                "standard input is a terminal; pipe sound into asjax listen, such as "
                f"{ARECORD}, or give --device default"
            )
        self._fd, self._ended, self._lost = fd, False, 0
        self.live = not stat.S_ISREG(os.fstat(fd).st_mode)
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import fcntl

            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)
        begin = b""
        while len(begin) < 12 and (data := os.read(fd, _BLOCK)):
            begin += data
        if not begin:
            raise AsjaxError(f"no sound came from standard input; pipe some into it: {ARECORD}")
        self._left, self._size = None, None  # bytes of a WAV that are still to come
        if begin[:4] in (b"RIFF", b"RF64"):
            self._open_wav(begin, dict(format=format, rate=rate, channels=channels))
        else:
            refuse_others(begin)
            self._pcm = Pcm(
                FORMAT if format is None else format,
                RATE if rate is None else rate,
                CHANNELS if channels is None else channels,
            )
            self._first = begin
        self.rate, self.channels, self._frames = self._pcm.rate, self._pcm.channels, 0

    def _open_wav(self, data, given) -> None:
        header = Wav()
        header.feed(data)
        while header.pcm is None:
            if not (data := os.read(self._fd, _BLOCK)):
                raise AsjaxError("standard input ended within the header of its WAV")
            header.feed(data)
        self._pcm, self._first, self._left = header.pcm, header.rest, header.size
        self._size = header.size
        for name, value in given.items():
            if value is not None and value != getattr(self._pcm, name):
                raise AsjaxError(
                    f"standard input is a WAV of {self._pcm}, but --{name} says {value}; leave "
                    f"--{name} out"
                )

    def __str__(self):
        return str(self._pcm)

    def read(self) -> np.ndarray | None:
        """Samples [n, channels], at least one; None: the end."""
        while not self._ended:
            data, self._first = self._first or self._waiting(), b""
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
                self._ended |= self._left == 0
            samples = self._pcm.samples(data)
            self._frames += len(samples)
            if len(samples):
                return samples
        return None

    def _waiting(self) -> bytes:
        """All bytes that wait, at least one unless it is the end."""
        parts, total = [], 0
        while True:
            data = os.read(self._fd, _BLOCK)
            if not data:
                self._ended = True
                break
            parts.append(data)
            total += len(data)
            if total >= _MOST or not self.live or not _ready(self._fd):
                break
        return b"".join(parts)

    def notes(self) -> list[str]:
        found = []
        if self._left:
            missing = self._left / self._size
            found.append(f"the WAV ended early: {missing:.0%} of what its header says is missing")
        if self._pcm.left:
            found.append(
                f"{counted(self._pcm.left, 'byte')} left out at the end: no whole sample of "
                f"{self}; are --format and --channels right?"
            )
        if not self._frames:
            found.append("no whole sample came from standard input")
        return found


def _ready(fd: int) -> bool:
    try:
        return bool(select.select([fd], [], [], 0)[0])
    except (OSError, ValueError):  # no pipes in `select` on Windows
        return False


class Microphone:
    """An input device of PortAudio, by the extra [mic].

    Args:
      device: "default", a number, or a part of a name. rate, channels: None: those of the device,
        and 1 channel.

    Raises:
      AsjaxError: no sounddevice, no PortAudio, or no such device.
    """

    live = True

    def __init__(self, device: str, rate=None, channels=None):
        try:
            import sounddevice
        except ImportError:
            raise AsjaxError(
                'a microphone needs sounddevice: pip install "asjax[mic]", or use a pipe: '
                f"{ARECORD}"
            ) from None
        except OSError as error:
            raise AsjaxError(
                f"a microphone needs PortAudio ({error}): apt install libportaudio2, or use a "
                f"pipe: {ARECORD}"
            ) from None
        name = None if device == "default" else int(device) if device.isdigit() else device
        self._waiting, self._full = queue.Queue(_WAITING), 0
        self._overflows = 0
        try:
            self._stream = sounddevice.InputStream(
                device=name,
                samplerate=rate,
                channels=channels or 1,
                dtype="float32",
                callback=self._take,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise AsjaxError(
                f"--device {device} cannot be opened: {quoted(str(error), 200)}; "
                "python -m sounddevice lists the devices"
            ) from None
        self.rate, self.channels = float(self._stream.samplerate), channels or 1

    def __str__(self):
        return f"microphone, {self.rate:g} Hz, {counted(self.channels, 'channel')}"

    def _take(self, data, frames, time, status) -> None:
        self._overflows += bool(status)
        try:
            self._waiting.put_nowait(data.copy())
        except queue.Full:
            self._full += frames

    def read(self) -> np.ndarray:
        parts = [self._waiting.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                parts.append(self._waiting.get_nowait())
        return np.concatenate(parts)

    def notes(self) -> list[str]:
        found = []
        if self._overflows:
            found.append(f"the device lost sound {counted(self._overflows, 'time')}")
        if self._full:
            found.append(
                f"{self._full / self.rate:.1f} s of sound are lost: computing took too long"
            )
        return found
