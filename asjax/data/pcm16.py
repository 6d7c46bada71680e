"""16-bit mono PCM: int16 stores it without loss in half of the memory of float32.

Records with `encoding="pcm16"` hold no audio file but the samples themselves: little-endian int16,
mono, all at the rate `pcm16_hz` of the manifest. A sample of int16 stands for its value / 32768.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence

import numpy as np

NAME = "pcm16"  # the encoding in a manifest
_PROBED = 50_000  # largest number of headers to read


def quantised(wave: np.ndarray) -> np.ndarray:
    """float wave [S] -> little-endian int16 [S], the nearest values; beyond full scale clipped.

    A wave that was read from 16-bit audio comes back exactly.
    """
    return np.clip(np.rint(wave * 32768.0), -32768, 32767).astype("<i2")


def wav(samples, rate: int) -> bytes:
    """A WAV file of 16-bit mono samples: little-endian int16 bytes, or an array."""
    data = samples if isinstance(samples, bytes) else np.asarray(samples).astype("<i2").tobytes()
    return _head(len(data), rate) + data


def samples(audio, rate: int) -> np.ndarray | None:
    """The samples [S] of a file as `wav` makes it, a view of its bytes; None for any other file.

    Reading such a record takes no decoder and no copy.
    """
    if not isinstance(audio, bytes) or len(audio) < 46 or audio[:4] != b"RIFF":
        return None
    size = len(audio) - 44
    if size % 2 or audio[:44] != _head(size, rate):
        return None
    return np.frombuffer(audio, "<i2", offset=44)


def _head(size: int, rate: int) -> bytes:
    """The header of a WAV file of 16-bit mono PCM with `size` bytes of samples."""
    fmt = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
    return head + b"data" + struct.pack("<I", size)


def rate_of(audio) -> int:
    """Rate in Hz of an audio file (path or bytes) if it is 16-bit mono PCM, else 0."""
    import soundfile

    if isinstance(audio, bytes):
        audio = io.BytesIO(audio)
    elif not os.path.isfile(audio):  # opening a FIFO would wait for a writer
        return 0
    elif os.name == "posix":  # bytes, because a name may be invalid in the locale
        audio = os.fsencode(audio)
    try:
        with soundfile.SoundFile(audio) as file:
            plain = file.subtype == "PCM_16" and file.channels == 1
            return file.samplerate if plain else 0
    except (soundfile.SoundFileError, TypeError, OSError, ValueError):
        return 0


def rate_of_all(rates: set[int]) -> int:
    """The common rate, given the set of all `rate_of`; 0 if there is no common rate."""
    return max(rates) if len(rates) == 1 else 0


def rate_of_records(manifest: dict) -> int:
    """Rate in Hz of a record dataset if all clips are 16-bit mono PCM of one rate, else 0."""
    if "pcm16_hz" in manifest:
        return manifest["pcm16_hz"]
    encoding = manifest.get("encoding") or {}  # older records have only this field
    if not isinstance(encoding, dict):
        return 0
    return (encoding.get("sample_rate") or 0) if encoding.get("container") == "flac" else 0


def all_at(paths: Sequence, sample_rate: int) -> bool:
    """Whether all files are 16-bit mono PCM at `sample_rate` Hz, by their headers. With more than
    50,000 files the answer is False, without reading a header."""
    return len(paths) <= _PROBED and all(rate_of(path) == sample_rate for path in paths)
