"""Find recordings of 16-bit mono PCM: int16 stores them without loss in half of the memory."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

_PROBED = 50_000  # largest number of headers to read


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
    return (encoding.get("sample_rate") or 0) if encoding.get("container") == "flac" else 0


def all_at(paths: Sequence, sample_rate: int) -> bool:
    """Whether all files are 16-bit mono PCM at `sample_rate` Hz, by their headers. With more than
    50,000 files the answer is False, without reading a header."""
    return len(paths) <= _PROBED and all(rate_of(path) == sample_rate for path in paths)
