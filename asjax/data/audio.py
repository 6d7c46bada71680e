"""Audio files as float32 mono waves: any container that libsndfile reads, any rate, any channels.

Sizes are checked against the header before anything is allocated, and decoding goes block by
block, so that a lying header costs neither time nor memory. Full scale is 1.0; NaN and Inf become
0 and values beyond +-`LIMIT` (100 dB above full scale) are clipped to it, so that a power spectrum
stays finite in float32. A FLAC file that ends early is an error; other containers hold no
checkable promise (a cut MP3, Ogg or WAV is a shorter clip).
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from asjax.config import AsjaxError

# What a folder is searched for; other containers are read when they are named.
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
    ".caf",
    ".w64",
)
LIMIT = 1e5
MAX_S = 3600.0
_MAX_CHANNELS = 64
_RATES_HZ = (100, 1_000_000)
_BLOCK = 1 << 20  # values (frames x channels) decoded at a time: 4 MiB
# No codec reaches this: a FLAC frame of digital silence holds about 6,000 frames per byte.
_MAX_FRAMES_PER_BYTE = 8192
_UNKNOWN = 1 << 62  # libsndfile's frame count of a FLAC stream whose header leaves it open


class AudioError(AsjaxError):
    """A recording that cannot be used: names the file and says why."""


class Info(NamedTuple):
    """What a header says: `rate` in Hz, `channels`, `frames` (samples per channel)."""

    rate: int
    channels: int
    frames: int

    @property
    def duration_s(self) -> float:
        return self.frames / self.rate


class _Sequential(soundfile.SoundFile):
    """A sound file read in order: soundfile otherwise seeks after each read, which costs time
    in MP3 and fails at the end of FLAC streams of unknown length."""

    def seekable(self):
        return False


# ------------------------------------------------------------------------------ public face


def info(source, *, name: str | None = None) -> Info:
    """(rate, channels, frames) of a path, bytes or binary file.

    Raises:
      AudioError: not readable as audio, or a header beyond the limits (see `read`).
    """
    with _open(source, name) as (f, what):
        frames = f.frames
        if frames >= _UNKNOWN:
            frames = sum(len(block) for block in _mono(f, what, 0, _UNKNOWN))
        return Info(f.samplerate, f.channels, frames)


def read(
    source,
    sample_rate: int,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_s: float = MAX_S,
    name: str | None = None,
) -> np.ndarray:
    """The recording as one float32 wave [S]: mean of its channels, resampled (soxr HQ).

    Args:
      source: path, the bytes of a file, or a binary file open at its beginning.
      sample_rate: Hz of the result; S = round(frames * sample_rate / rate), at least 1.
      start_s: seconds to skip; must lie within the recording.
      duration_s: seconds to read at most; None reads to the end.
      max_s: more than this is refused; longer files are for `blocks`.
      name: what errors call the source; its path by default.

    Raises:
      AudioError: missing, empty, not audio, cut short (FLAC), no samples, more than 64 channels,
        a rate outside 100 Hz to 1 MHz, a promise of more samples than its bytes can hold, or
        longer than `max_s`.
    """
    _check_request(sample_rate, start_s, duration_s)
    with _open(source, name) as (f, what):
        rate = f.samplerate
        start = round(start_s * rate)
        if start >= f.frames:
            raise AudioError(
                f"{what}: start_s={start_s:g} must lie within its {f.frames / rate:g} s"
            )
        stop = f.frames
        if duration_s is not None:
            stop = min(stop, start + max(1, round(duration_s * rate)))
        most = start + int(max_s * rate)
        if most < stop < _UNKNOWN:
            raise _too_long(what, (stop - start) / rate, max_s)
        parts = list(_mono(f, what, start, min(stop, most + 1)))
    wave = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if len(wave) > most - start:
        raise _too_long(what, len(wave) / rate, max_s)
    return resample(wave, rate, sample_rate)


def blocks(
    source, sample_rate: int, block_s: float, *, name: str | None = None
) -> Iterator[np.ndarray]:
    """`read` as a stream of float32 pieces of `block_s` seconds (the last may be shorter).

    Memory is bounded by the block, not by the recording. The pieces joined equal the one-shot
    wave. Raises AudioError as `read` does, but for the length; a file that turns out to be
    damaged raises where the damage is met, after the sound blocks.
    """
    _check_request(sample_rate, 0.0, block_s)
    size = max(1, round(block_s * sample_rate))
    with _open(source, name) as (f, what):
        held, n = [], 0
        for piece in _resampled(_mono(f, what, 0, f.frames), f.samplerate, sample_rate):
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


def from_array(wave, rate: int, sample_rate: int, *, name: str = "wave") -> np.ndarray:
    """A wave in memory as `read` would give it: float32 mono [S] at `sample_rate` Hz.

    Args:
      wave: [S], or two axes of which the shorter one is the channels; float with full scale 1, or
        signed integers, which are divided by their full scale (int16: 32768).
      rate: Hz of `wave`.

    Raises:
      AudioError: empty, another shape or type, too many channels, or an impossible rate.
    """
    _check_request(sample_rate, 0.0, None)
    _check_rate(name, rate)
    wave = np.asarray(wave)
    if wave.ndim not in (1, 2) or not wave.size or wave.dtype.kind not in "fi":
        raise AudioError(
            f"{name} must be float or signed integer [S] or [S, channels] with S > 0, "
            f"got {wave.dtype} {list(wave.shape)}"
        )
    if wave.ndim == 2 and min(wave.shape) > _MAX_CHANNELS:
        raise AudioError(f"{name} must have 1 to {_MAX_CHANNELS} channels, got {min(wave.shape)}")
    scale = -float(np.iinfo(wave.dtype).min) if wave.dtype.kind == "i" else 1.0
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes Inf, then 0
        wave = sanitise((wave / scale).astype(np.float32) if scale != 1 else np.float32(wave))
    if wave.ndim == 2:
        wave = wave.mean(axis=int(np.argmin(wave.shape)))
    return resample(np.ascontiguousarray(wave), rate, sample_rate)


def resample(wave: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """float32 wave [S] at `rate` Hz -> [S'] at `sample_rate` Hz (soxr HQ); S' >= 1 if S is."""
    if rate == sample_rate:
        return wave
    out = soxr.resample(wave, rate, sample_rate, quality="HQ")
    # soxr rounds the length, so a sample or two of a fast recording would vanish.
    return out if len(out) or not len(wave) else wave[:1].copy()


def sanitise(wave: np.ndarray) -> np.ndarray:
    """NaN and Inf -> 0, the rest clipped to +-`LIMIT`; a clean array is returned as it is."""
    if wave.size == 0 or (wave.max() <= LIMIT and wave.min() >= -LIMIT):
        return wave  # a NaN fails both comparisons
    return np.clip(np.nan_to_num(wave, nan=0.0, posinf=0.0, neginf=0.0), -LIMIT, LIMIT)


@contextlib.contextmanager
def quiet_decoders():
    """Hides what C decoders (mpg123) print on stderr. It redirects file descriptor 2 of the whole
    process, so it is for single-threaded programs and short stretches only."""
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # stderr is closed: nothing to hide
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


# --------------------------------------------------------------------------------- internals


def _check_rate(what, rate):
    low, high = _RATES_HZ
    if not (isinstance(rate, (int, float, np.number)) and low <= rate <= high):
        raise AudioError(f"{what}: its rate must be {low} to {high} Hz, got {rate!r}")


def _check_request(sample_rate, start_s, length_s):
    _check_rate("the sample_rate asked for", sample_rate)
    if not 0 <= start_s < float("inf"):
        raise AudioError(f"start_s must be 0 or more seconds, got {start_s!r}")
    if length_s is not None and not 0 < length_s < float("inf"):
        raise AudioError(f"a duration must be more than 0 seconds, got {length_s!r}")


def _too_long(what, seconds, max_s):
    return AudioError(
        f"{what} lasts {seconds:.6g} s, more than max_s={max_s:g}; "
        "read a part of it (start_s, duration_s) or stream it"
    )


def _locate(source, name):
    """source -> (what soundfile opens, name for errors, size in bytes)."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source), name or f"audio of {len(source)} bytes", len(source)
    if hasattr(source, "read"):
        at = source.tell()
        size = source.seek(0, os.SEEK_END) - at
        source.seek(at)
        return source, name or str(getattr(source, "name", "audio file object")), size
    path = Path(source)
    what = name or str(path)
    if not path.exists():
        raise AudioError(f"audio file {what} does not exist")
    if not path.is_file():
        raise AudioError(f"{what} must be an audio file, got a folder or a device")
    if not os.access(path, os.R_OK):
        raise AudioError(f"audio file {what} cannot be read: permission denied")
    # Bytes: soundfile cannot encode names that are invalid in the locale (Latin-1 in UTF-8).
    target = os.fsencode(path) if os.name == "posix" else os.fspath(path)
    return target, what, path.stat().st_size


@contextlib.contextmanager
def _open(source, name):
    """An opened, checked sound file and its name; decoder failures inside become AudioErrors."""
    target, what, size = _locate(source, name)
    if size <= 0:
        raise AudioError(f"{what} is empty (0 bytes)")
    try:
        f = _Sequential(target)
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise _unreadable(what, error) from None
    with f:
        _check_header(f, what, size)
        try:
            yield f, what
        except (soundfile.SoundFileError, OSError) as error:
            raise AudioError(f"{what} is damaged: {_reason(error)}") from None


def _reason(error) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return text.removeprefix("Error : ").strip().rstrip(".")


def _unreadable(what, error):
    hint = "give wav, flac, ogg, opus, mp3 or aiff"
    if Path(what).suffix.lower() in {".m4a", ".aac", ".mp4", ".wma", ".webm", ".mkv", ".amr"}:
        hint = "convert it first, e.g. with ffmpeg, to flac"
    return AudioError(f"{what} is not audio that libsndfile can read ({_reason(error)}); {hint}")


def _check_header(f, what, size):
    # libsndfile takes .vox, .gsm, .au or .snd files of any content for headerless telephone audio.
    if f.format == "RAW":
        raise AudioError(
            f"{what} is not audio that libsndfile can read (no header); give wav, flac, ogg or mp3"
        )
    _check_rate(what, f.samplerate)
    if not 1 <= f.channels <= _MAX_CHANNELS:
        raise AudioError(f"{what} must have 1 to {_MAX_CHANNELS} channels, got {f.channels}")
    if f.frames <= 0:
        raise AudioError(f"{what} holds no samples")
    if size * _MAX_FRAMES_PER_BYTE < f.frames < _UNKNOWN:
        raise AudioError(
            f"{what} is damaged: its header promises {f.frames} samples, "
            f"more than its {size} bytes can hold"
        )


def _mono(f, what, start, stop) -> Iterator[np.ndarray]:
    """Sanitised channel means of frames start..stop, block by block; at least one sample."""
    if start:
        f.seek(start)
    block = max(1, _BLOCK // f.channels)
    at = start
    while at < stop:
        x = f.read(min(block, stop - at), dtype="float32", always_2d=True)
        if not len(x):
            break
        at += len(x)
        x = sanitise(x)
        mono = np.ascontiguousarray(x[:, 0])
        if f.channels > 1:
            for channel in range(1, f.channels):
                mono = mono + x[:, channel]
            mono /= f.channels
        yield mono
    if at == start:
        raise AudioError(f"{what} is damaged: no samples could be decoded")
    if at < stop < _UNKNOWN and f.format == "FLAC" and f.frames < _UNKNOWN:
        raise AudioError(
            f"{what} is cut short: its header promises {f.frames} samples, {at} are there"
        )


def _resampled(pieces, rate, sample_rate) -> Iterator[np.ndarray]:
    """Streamed counterpart of `resample`."""
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
