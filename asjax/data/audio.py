"""Audio files as float32 mono waves: any container that libsndfile reads, any rate, any channels.

Header and file size are compared before memory is allocated, and decoding goes block by block. So a
wrong header costs neither time nor memory. Full scale is 1.0. NaN and Inf become 0. Values beyond
+-`LIMIT` (100 dB above full scale) are clipped, so that a power spectrum is finite in float32.

No data are lost without a message. If a file has fewer samples than its header promises, that is an
error. All parts of joined files are read. A possible loss (a stream without an end mark, some NaN)
calls `note`, which by default warns.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import soxr

from asjax.config import shown, warn
from asjax.data import sound
from asjax.data.sound import LIMIT, MAX_CHANNELS, AudioError

__all__ = [
    "LIMIT",
    "MAX_S",
    "OTHER_SUFFIXES",
    "SUFFIXES",
    "AudioError",
    "Info",
    "blocks",
    "from_array",
    "info",
    "quiet_decoders",
    "read",
    "resample",
    "sanitise",
]

# Suffixes that a search of a folder finds. Other containers are read if the user names the file.
SUFFIXES = (
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aif",
    ".aiff",
    ".au",
    ".aifc",
    ".caf",
    ".w64",
    ".rf64",
    ".bw64",
)
# Suffixes of audio that only ffmpeg decodes. A search of a folder counts such files.
OTHER_SUFFIXES = (
    ".m4a",
    ".m4b",
    ".mp4",
    ".mov",
    ".3gp",
    ".aac",
    ".webm",
    ".weba",
    ".mka",
    ".mkv",
    ".wma",
    ".amr",
    ".ape",
    ".wv",
    ".tta",
    ".ac3",
    ".dsf",
)
MAX_S = 3600.0
_BLOCK = 1 << 20  # values (frames x channels) decoded at a time: 4 MiB


class Info(NamedTuple):
    """Values of a header: `rate` in Hz, `channels`, `frames` (samples per channel)."""

    rate: int
    channels: int
    frames: int

    @property
    def duration_s(self) -> float:
        return self.frames / self.rate


# ------------------------------------------------------------------------------ public face


def info(source, *, name: str | None = None, note: Callable[[str], None] = warn) -> Info:
    """(rate, channels, frames) of a path, bytes or binary file.

    Raises:
      AudioError: not readable as audio, cut short, or beyond the limits (see `read`).
    """
    with sound.opened(source, name, note) as f:
        frames = f.frames
        if frames >= sound.UNKNOWN:
            frames = sum(map(len, f.mono(0, frames, _BLOCK)))
        return Info(f.rate, f.channels, frames)


def read(
    source,
    sample_rate: int,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_s: float = MAX_S,
    name: str | None = None,
    note: Callable[[str], None] = warn,
    most_not_finite: float = sound.MAX_NOT_FINITE,
) -> np.ndarray:
    """The recording as one float32 wave [S]: mean of its channels, resampled (soxr HQ).

    Args:
      source: path, the bytes of a file, or a binary file open at its beginning.
      sample_rate: Hz of the result; S = round(frames * sample_rate / rate), at least 1.
      start_s: seconds to skip; must be within the recording.
      duration_s: largest number of seconds to read; None reads to the end.
      max_s: a longer result is an error; use `blocks` for long files.
      name: name of the source in messages; default: its path.
      note: called with a text about a fault that does not stop the reading.
      most_not_finite: allowed share of NaN and Inf. They become 0, with a note.

    Raises:
      AudioError: missing, empty, not audio, cut short, no samples, more than 64 channels, a rate
        outside 100 Hz to 1 MHz, more samples in the header than fit into the file, longer than
        `max_s`, or too many NaN and Inf.
    """
    _check_request(sample_rate, start_s, duration_s)
    with sound.opened(source, name, note, most_not_finite) as f:
        rate = f.rate
        start = round(start_s * rate)
        if start >= f.frames:
            raise AudioError(
                f"{f.what}: start_s={start_s:g} must lie within its {f.frames / rate:g} s"
            )
        stop = f.frames
        if duration_s is not None:
            stop = min(stop, start + max(1, round(duration_s * rate)))
        most = start + int(max_s * rate)
        if most < stop < sound.UNKNOWN:
            raise _too_long(f.what, (stop - start) / rate, max_s)
        parts = list(f.mono(start, min(stop, most + 1), _BLOCK))
        wave = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(wave) > most - start:
            raise _too_long(f.what, len(wave) / rate, max_s)
    return resample(wave, rate, sample_rate)


def blocks(
    source,
    sample_rate: int,
    block_s: float,
    *,
    name: str | None = None,
    note: Callable[[str], None] = warn,
    most_not_finite: float = sound.MAX_NOT_FINITE,
) -> Iterator[np.ndarray]:
    """`read` as a stream of float32 pieces of `block_s` seconds (the last may be shorter).

    Memory depends on the block size, not on the length of the recording. The joined pieces equal
    the result of `read`. AudioError: as `read`, except for the length. In a damaged file the error
    comes after the undamaged blocks.
    """
    _check_request(sample_rate, 0.0, block_s)
    size = max(1, round(block_s * sample_rate))
    with sound.opened(source, name, note, most_not_finite) as f:
        held, n = [], 0
        for piece in _resampled(f.mono(0, f.frames, _BLOCK), f.rate, sample_rate):
            held.append(piece)
            n += len(piece)
            if n < size:
                continue
            joined = np.concatenate(held)
            full = n - n % size
            for i in range(0, full, size):
                yield joined[i : i + size]
            held, n = [joined[full:].copy()], n - full
        if n:
            yield np.concatenate(held)


def from_array(
    wave,
    rate: int,
    sample_rate: int,
    *,
    name: str = "wave",
    note: Callable[[str], None] = warn,
) -> np.ndarray:
    """Convert a wave in memory to the form of `read`: float32 mono [S] at `sample_rate` Hz.

    Args:
      wave: [S], or two axes, where the shorter one is the channels. Float with full scale 1, or
        signed integers, which are divided by their full scale (int16: 32768).
      rate: Hz of `wave`.

    Raises:
      AudioError: empty, another shape or type, too many channels, or an impossible rate.
    """
    name = shown(name)
    _check_request(sample_rate, 0.0, None)
    sound.check_rate(name, rate)
    wave = np.asarray(wave)
    if wave.ndim not in (1, 2) or not wave.size or wave.dtype.kind not in "fi":
        raise AudioError(
            f"{name} must be float or signed integer [S] or [S, channels] with S > 0, "
            f"got {wave.dtype} {list(wave.shape)}"
        )
    if wave.ndim == 2 and min(wave.shape) > MAX_CHANNELS:
        raise AudioError(f"{name} must have 1 to {MAX_CHANNELS} channels, got {min(wave.shape)}")
    scale = -float(np.iinfo(wave.dtype).min) if wave.dtype.kind == "i" else 1.0
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes Inf, and later 0
        scaled = (wave / scale).astype(np.float32) if scale != 1 else np.float32(wave)
    wave, bad = sound.sanitise(scaled)
    if bad == wave.size:
        raise AudioError(f"{name}: none of its {bad} values is finite (all are NaN or infinite)")
    if bad:
        note(
            f"{name}: {bad} of {wave.size} values are not finite (NaN or infinite); they count as 0"
        )
    if wave.ndim == 2:
        wave = wave.mean(axis=int(np.argmin(wave.shape)))
    return resample(np.ascontiguousarray(wave), rate, sample_rate)


def resample(wave: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """float32 wave [S] at `rate` Hz -> [S'] at `sample_rate` Hz (soxr HQ); S' >= 1 if S is."""
    if rate == sample_rate:
        return wave
    out = soxr.resample(wave, rate, sample_rate, quality="HQ")
    # soxr rounds the length, so one or two samples at a high rate would give no sample.
    return out if len(out) or not len(wave) else wave[:1].copy()


def sanitise(wave: np.ndarray) -> np.ndarray:
    """NaN and Inf -> 0, other values clipped to +-`LIMIT`. A clean array is returned as it is."""
    return sound.sanitise(wave)[0]


@contextlib.contextmanager
def quiet_decoders():
    """Hide the output of C decoders (mpg123) on stderr. It redirects file descriptor 2 of the whole
    process, so use it only in single-threaded programs and for a short time. Python's warnings are
    shown afterwards."""
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # stderr is closed: nothing to hide
        yield
        return
    sink, held = os.open(os.devnull, os.O_WRONLY), []
    show, warnings.showwarning = warnings.showwarning, lambda *args: held.append(args)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        warnings.showwarning = show
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
        for args in held:
            show(*args)


# --------------------------------------------------------------------------------- internals


def _check_request(sample_rate, start_s, length_s):
    sound.check_rate("the requested sample_rate", sample_rate)
    if not 0 <= start_s < float("inf"):
        raise AudioError(f"start_s must be 0 or more seconds, got {start_s!r}")
    if length_s is not None and not 0 < length_s < float("inf"):
        raise AudioError(f"a duration must be more than 0 seconds, got {length_s!r}")


def _too_long(what, seconds, max_s):
    return AudioError(
        f"{what} lasts {seconds:.6g} s, more than max_s={max_s:g}; "
        "read a part of it (start_s, duration_s) or stream it"
    )


def _resampled(pieces, rate, sample_rate) -> Iterator[np.ndarray]:
    """`resample` for a stream of pieces."""
    if rate == sample_rate:
        yield from pieces
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    total, first = 0, None
    for piece in pieces:
        first = piece[:1] if first is None else first
        out = stream.resample_chunk(piece)
        total += len(out)
        yield out
    out = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    yield out if total + len(out) else first
