"""Open a sound file and read it from its first to its last sample.

The structure of the file is checked first (`asjax.data.containers`). So all streams of a file are
read, and a cut or damaged file is an error, not a shorter clip.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from functools import partial
from itertools import accumulate, chain

import numpy as np
import soundfile
import soxr

from asjax.config import AsjaxError, shown
from asjax.data import ffmpeg
from asjax.data.containers.parts import Broken, Foreign, Loss, Part, Tape, Window
from asjax.data.containers.walk import layout

LIMIT = 1e5
MAX_NOT_FINITE = 0.01  # share of a recording's values
MAX_CHANNELS = 64
RATES_HZ = (100, 1_000_000)
UNKNOWN = 1 << 62  # libsndfile's frame count of a FLAC stream without a count in its header
# More than any codec reaches: FLAC with digital silence has about 6,000 frames per byte.
_MAX_FRAMES_PER_BYTE = 8192
# Other containers of libsndfile do not store their length, so a cut could not be detected.
_READ = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST", "ffmpeg"}
_KINDS = {stat.S_IFIFO: "a FIFO (named pipe)", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
_MPEG_FRAME = 1152
_PREROLL = 24 * _MPEG_FRAME  # layer III needs up to 511 earlier bytes; a frame has at least 24
_VARIANTS = {b"OggS": "ogg", b"RIFF": "wav", b"FORM": "aiff", b"caff": "caf"}  # ffmpeg's names
_NONE = np.zeros(0, np.float32)
_HINT = "give wav, flac, ogg, opus, mp3 or aiff"
CONVERT = "convert it first, e.g. ffmpeg -i IN OUT.flac, or put ffmpeg on the PATH"


class AudioError(AsjaxError):
    """A recording cannot be used. The message has the file and the reason."""


class NeedsFfmpeg(AudioError):
    """Only ffmpeg decodes the recording, and it is missing or must not be needed later."""


def check_rate(what, rate):
    low, high = RATES_HZ
    if not (isinstance(rate, (int, float, np.number)) and low <= rate <= high):
        raise AudioError(f"{what}: its rate must be {low} to {high} Hz, got {rate!r}")


def sanitise(wave: np.ndarray) -> tuple[np.ndarray, int]:
    """(wave with 0 for NaN and Inf, other values clipped to +-`LIMIT`; number of NaN and Inf).

    A clean array is returned as it is.
    """
    if wave.size == 0 or (wave.max() <= LIMIT and wave.min() >= -LIMIT):
        return wave, 0  # a NaN fails both comparisons
    bad = wave.size - int(np.isfinite(wave).sum())
    return np.clip(np.nan_to_num(wave, nan=0.0, posinf=0.0, neginf=0.0), -LIMIT, LIMIT), bad


class _Sequential(soundfile.SoundFile):
    """A sound file that is read in order. A seekable soundfile seeks after each read, which costs
    time for MP3 and fails at the end of FLAC streams of unknown length."""

    def seekable(self):
        return False


class _Memory(io.BytesIO):
    """Bytes as a file. Seeks before the begin go to 0: libsndfile does them for damaged headers."""

    def seek(self, offset, whence=io.SEEK_SET):
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.getbuffer().nbytes}
        return super().seek(max(0, base[whence] + offset))


class Sound:
    """An opened sound file; use `opened`.

    Attributes:
      what: its name in messages.
      rate, channels: of its first stream, rate in Hz. Other streams are resampled to this rate.
      frames: samples per channel; `UNKNOWN` if only decoding can tell.
    """

    def __init__(self, what: str, streams: list[_Stream], note, most_not_finite: float):
        self.what, self._streams, self._note = what, streams, note
        self._most_bad = most_not_finite
        self.rate, self.channels = streams[0].rate, streams[0].channels
        frames = [stream.frames_at(self.rate) for stream in streams]
        self.frames = min(UNKNOWN, sum(frames))
        self._ends = [0, *accumulate(frames)]

    def mono(self, start: int, stop: int, block: int) -> Iterator[np.ndarray]:
        """Means over the channels of frames start..stop as float32, in blocks of `block` values.

        NaN and Inf become 0. Their number is noted at the end.

        Raises:
          AudioError: damage, fewer samples than in the header, or too many NaN and Inf.
        """
        bad = heard = 0
        for stream, begin, end in zip(self._streams, self._ends, self._ends[1:], strict=False):
            if start < end and begin < stop:
                stretch = (max(0, start - begin), min(stop, end) - begin)
                for wave, wrong, values in stream.mono(*stretch, self.rate, block):
                    bad, heard = bad + wrong, heard + values
                    yield wave
                if words := stream.complaint:
                    text = f"{self.what} may be cut short or damaged; ffmpeg reports: {words}"
                    self._note(Loss(text))
                if len(self._streams) > 1:
                    stream.close()
        if not heard:
            raise AudioError(f"{self.what} is damaged: no samples could be decoded")
        if bad:
            self._judge(bad, heard)

    def _judge(self, bad: int, heard: int):
        text = f"{self.what}: {bad} of its {heard} samples are not finite (NaN or infinite)"
        if bad > self._most_bad * heard:
            raise AudioError(f"{text}, more than {self._most_bad:.0%}; repair or remove it")
        if bad == heard:
            raise AudioError(
                f"{self.what}: none of its {heard} samples is finite (all are NaN or infinite); "
                "repair or remove it"
            )
        self._note(f"{text}; they count as 0")


class _Stream:
    """The audio of one decoder. `opener` opens it, and opens it again after `close`."""

    def __init__(self, what: str, size: int, opener, most: int = 0):
        self.what, self._opener = what, opener
        self._file = opener()
        f = self._file
        if f.format not in _READ:
            # libsndfile reads any .vox or .gsm file as telephone audio without a header.
            raise AudioError(
                f"{what} is not audio that libsndfile can read with certainty ({f.format}); {_HINT}"
            )
        self.rate, self.channels = f.samplerate, f.channels
        check_rate(what, self.rate)
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise AudioError(f"{what} must have 1 to {MAX_CHANNELS} channels, got {self.channels}")
        self.frames = min(f.frames, most) if most else f.frames
        if self.frames <= 0:
            raise AudioError(f"{what} holds no samples")
        if size * _MAX_FRAMES_PER_BYTE < self.frames < UNKNOWN:
            raise AudioError(
                f"{what} is damaged: its header promises {self.frames} samples, "
                f"more than its {size} bytes can hold"
            )

    def close(self):
        if self._file is not None:
            self._file.close()
        self._file = None

    @property
    def complaint(self) -> str:
        """The last error line of ffmpeg for this file, or ""."""
        return getattr(self._file, "words", "")

    def frames_at(self, rate: int) -> int:
        """Samples per channel at another rate; at least 1."""
        if self.rate == rate or self.frames >= UNKNOWN:
            return self.frames
        return max(1, round(self.frames * rate / self.rate))

    def mono(self, start, stop, rate, block) -> Iterator[tuple[np.ndarray, int, int]]:
        """(float32 [n] at `rate` Hz, number of decoded values that were not finite, number of
        decoded values: samples times channels)."""
        if rate == self.rate:
            yield from self._decoded(start, stop, block)
            return
        first = min(self.frames - 1, round(start * self.rate / rate))
        stream = soxr.ResampleStream(self.rate, rate, 1, dtype="float32", quality="HQ")
        left, total = stop - start, 0
        for wave, *counts in chain(self._decoded(first, self.frames, block), [(_NONE, 0, 0)]):
            out = stream.resample_chunk(wave, last=not len(wave))[: left - total]
            total += len(out)
            yield out, *counts
            if total >= left:
                return

    def _decoded(self, start, stop, block) -> Iterator[tuple[np.ndarray, int, int]]:
        f = self._file = self._file or self._opener()
        step = max(1, block // self.channels)
        if start:
            # An MPEG frame needs earlier frames, so mpg123 gives zeros for the first ones.
            early = min(start, _PREROLL if f.format == "MP3" else 0)
            f.seek(start - early)
            while early > 0 and len(skipped := f.read(min(step, early), always_2d=True)):
                early -= len(skipped)
        at = start
        while at < stop:
            x = f.read(min(step, stop - at), dtype="float32", always_2d=True)
            if not len(x):
                break
            at += len(x)
            x, bad = sanitise(x)
            mono = np.ascontiguousarray(x[:, 0])
            if self.channels > 1:
                for channel in range(1, self.channels):
                    mono = mono + x[:, channel]
                mono /= self.channels
            yield mono, bad, x.size
        # mpg123 counts a frame in the header that has no sound.
        allowed = _MPEG_FRAME if f.format == "MP3" else 0
        if at + allowed < stop < UNKNOWN and self.frames < UNKNOWN:
            raise AudioError(
                f"{self.what} is cut short: its header promises {self.frames} samples, "
                f"{at} are there"
            )


@contextlib.contextmanager
def opened(source, name, note, most_not_finite: float = MAX_NOT_FINITE) -> Iterator[Sound]:
    """The sound of a path, bytes or binary file. Errors of libraries become AudioErrors.

    Args:
      source, name: as in `audio.read`. note: called with a text for the user.
      most_not_finite: allowed share of NaN and Inf. They become 0, with a note.
    """
    with located(source, name) as (file, path, what), contextlib.ExitStack() as stack:
        try:
            tape = Tape(file)
            if tape.size <= 0:
                raise AudioError(f"{what} is empty (0 bytes)")
            streams = []
            stack.callback(lambda: [stream.close() for stream in streams])
            for opener, most in _openers(tape, path, what, note, stack):
                if streams:
                    streams[-1].close()
                streams.append(_Stream(what, tape.size, opener, most))
            yield Sound(what, streams, note, most_not_finite)
        except (soundfile.SoundFileError, OSError) as error:
            raise AudioError(f"{what} is damaged: {_reason(error)}") from None
        except ffmpeg.FfmpegError as error:
            raise AudioError(f"{what} cannot be decoded by ffmpeg: {error}") from None


def _openers(tape: Tape, path, what, note, stack):
    """Pairs (function that opens a stream, number of its samples or 0) of a file."""
    try:
        structure = layout(tape)
    except Foreign as error:
        return [(_by_ffmpeg(error, tape, path, what, stack), 0)]
    except Broken as error:
        raise AudioError(f"{what} {error}") from None
    for text in structure.notes:
        note(Loss(f"{what} {text}") if isinstance(text, Loss) else f"{what}: {text}")
    if not structure.parts:
        return [(partial(_open_whole, tape, path, what, stack), 0)]
    return [(partial(_open, tape, part, what), part.most) for part in structure.parts]


def _open_whole(tape: Tape, path, what, stack):
    """Open a file of one stream. If libsndfile does not read its variant, ffmpeg tries."""
    try:
        return _open(tape, Part(((0, tape.size),), whole=True), what)
    except AudioError:
        demuxer = _VARIANTS.get(tape.at(0, 4))
        if demuxer is None or not ffmpeg.program():
            raise
    return _by_ffmpeg(Foreign("of a variant", demuxer), tape, path, what, stack)()


def _open(tape: Tape, part: Part, what: str) -> soundfile.SoundFile:
    try:
        target = _target(tape) if part.whole else Window(tape, part.spans, part.head)
        f = _Sequential(target, closefd=False)
        if f.frames < part.least:
            f.close()
            if part.spare is None:
                raise AudioError(f"{what}: libsndfile reads the lengths of its MPEG frames wrongly")
            f = _Sequential(Window(tape, part.spare.spans, part.spare.head), closefd=False)
        return f
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise AudioError(
            f"{what} is not audio that libsndfile can read ({_reason(error)}); "
            f"{CONVERT if tape.at(0, 4) in _VARIANTS else _HINT}"
        ) from None


def _target(tape: Tape):
    """The object that soundfile opens fastest: the file descriptor, if there is one."""
    tape.file.seek(tape.begin)
    if isinstance(tape.file, io.FileIO) and os.name == "posix" and not tape.begin:
        return tape.file.fileno()
    return tape.file


def _by_ffmpeg(error: Foreign, tape: Tape, path, what, stack):
    if not error.demuxer:
        raise AudioError(f"{what} is not audio that libsndfile can read: it is {error}; {_HINT}")
    if not ffmpeg.program():
        raise NeedsFfmpeg(f"{what} is {error}, which libsndfile does not read; {CONVERT}")
    place = stack.enter_context(ffmpeg.as_path(tape.file, path))
    return partial(ffmpeg.Child, place, error.demuxer)


def refuse_foreign(data: bytes, name) -> None:
    """AudioError if only ffmpeg decodes these bytes, because other machines may have no ffmpeg."""
    try:
        layout(Tape(io.BytesIO(data)))
    except Foreign as error:
        if error.demuxer and ffmpeg.program():
            raise NeedsFfmpeg(
                f"{shown(name)} is {error}; asjax can store it only converted: add --encode flac"
            ) from None
    except Broken:
        pass  # reading the file raises the error


@contextlib.contextmanager
def located(source, name):
    """source -> (binary file, its path or None, name for messages)."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield _Memory(source), None, shown(name or f"audio of {len(source)} bytes")
        return
    if hasattr(source, "read"):
        if hasattr(source, "encoding"):  # a text file, or a wrapper of one
            what = shown(name or getattr(source, "name", "audio file object"))
            raise AudioError(f"{what} is open as text; open it as binary, open(path, 'rb')")
        yield source, None, shown(name or getattr(source, "name", "audio file object"))
        return
    what = shown(name or os.fspath(source))
    try:
        mode = stat.S_IFMT(os.stat(source).st_mode)
        if mode != stat.S_IFREG:
            raise AudioError(f"{what} must be an audio file, got {_KINDS.get(mode, 'a device')}")
        # Non-blocking: if a FIFO has just replaced the file, opening it would wait forever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = io.FileIO(os.open(source, flags | getattr(os, "O_CLOEXEC", 0)))
    except FileNotFoundError:
        raise AudioError(f"audio file {what} does not exist") from None
    except AudioError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"audio file {what} cannot be read: {reason.lower()}") from None
    with file:
        yield file, os.fspath(source), what


def _reason(error) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return text.removeprefix("Error : ").strip().rstrip(".")
