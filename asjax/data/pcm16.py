"""Which recordings are 16-bit mono PCM, so that int16 holds them without loss in half the bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

_PROBED = 50_000  # headers that are read at most


def rate_of(audio) -> int:
    """Hz of an audio file (path or bytes) of 16-bit mono PCM, such as WAV or FLAC; else 0."""
    import soundfile

    if isinstance(audio, bytes):
        audio = io.BytesIO(audio)
    elif not os.path.isfile(audio):  # a FIFO would wait for a writer
        return 0
    elif os.name == "posix":  # as asjax.data.audio: names that are invalid in the locale
        audio = os.fsencode(audio)
    try:
        with soundfile.SoundFile(audio) as file:
            plain = file.subtype == "PCM_16" and file.channels == 1
            return file.samplerate if plain else 0
    except (soundfile.SoundFileError, TypeError, OSError, ValueError):
        return 0


def rate_of_all(rates: set[int]) -> int:
    """The common rate of recordings by their `rate_of`; 0 if they have none."""
    return max(rates) if len(rates) == 1 else 0


def rate_of_records(manifest: dict) -> int:
    """Hz of the clips of a record dataset, if all are 16-bit mono PCM of one rate; else 0."""
    if "pcm16_hz" in manifest:
        return manifest["pcm16_hz"]
    encoding = manifest.get("encoding") or {}  # older records say how they were encoded
    return (encoding.get("sample_rate") or 0) if encoding.get("container") == "flac" else 0


def all_at(paths: Sequence, sample_rate: int) -> bool:
    """Whether all files are 16-bit mono PCM at `sample_rate` Hz, by their headers up to the first
    one that says otherwise. More than 50,000 files are not looked at, and taken for another kind.
    """
    return len(paths) <= _PROBED and all(rate_of(path) == sample_rate for path in paths)
