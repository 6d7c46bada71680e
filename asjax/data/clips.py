"""Clips on their way into records: read, checked by decoding to the end, re-encoded on request."""

from __future__ import annotations

import io
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from asjax.config import AsjaxError

_BLOCK_S = 30.0
_ENCODINGS = {"ogg": ("OGG", "VORBIS"), "flac": ("FLAC", "PCM_16")}


@dataclass(frozen=True)
class Clip:
    """A clip to be written: `audio` is the path or the bytes of an audio file, labels are ids.

    `events` are (onset_s, offset_s, id); None means that nobody marked when things sound.
    """

    id: str
    audio: str | Path | bytes
    labels: tuple[str, ...]
    split: str = "train"
    category: str = ""
    licence: str = ""
    attribution: str = ""
    events: tuple[tuple[float, float, str], ...] | None = None


@dataclass(frozen=True)
class Encoding:
    """How audio is re-encoded: mono, at `sample_rate` Hz (None keeps it), as ogg or flac.

    `compression` is libsndfile's level: 0 is the best quality (ogg) or the fastest (flac), 1 the
    smallest file. FLAC clips what lies beyond full scale.
    """

    container: str
    sample_rate: int | None = None
    compression: float = 0.5

    def __post_init__(self):
        if self.container not in _ENCODINGS:
            raise AsjaxError(f"encoding must be ogg or flac, got {self.container!r}")
        if not 0 <= self.compression <= 1:
            raise AsjaxError(f"compression must be 0 to 1, got {self.compression!r}")

    def __call__(self, wave, rate: int) -> bytes:
        import soundfile

        kind, subtype = _ENCODINGS[self.container]
        out = io.BytesIO()
        with soundfile.SoundFile(
            out, "w", rate, 1, subtype, format=kind, compression_level=self.compression
        ) as f:
            for start in range(0, len(wave), 1 << 16):  # libvorbis overflows on long single writes
                f.write(wave[start : start + (1 << 16)])
        return out.getvalue()


def load_all(clips, encoding, max_bytes, threads, progress):
    """`(clip, (bytes, rate, samples) or reason)` in the order of `clips`, decoded by threads."""
    from tqdm import tqdm

    total = len(clips) if hasattr(clips, "__len__") else None
    threads = threads or min(8, os.cpu_count() or 1)
    waiting = deque()
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=total, unit="clip", disable=None if progress else True) as bar,
    ):
        try:
            for clip in clips:
                waiting.append((clip, pool.submit(_load, clip, encoding, max_bytes)))
                if len(waiting) >= 4 * threads:
                    clip, future = waiting.popleft()
                    yield clip, future.result()
                    bar.update()
            while waiting:
                clip, future = waiting.popleft()
                yield clip, future.result()
                bar.update()
        finally:
            for _, future in waiting:
                future.cancel()


def _load(clip: Clip, encoding, max_bytes):
    """`(bytes, rate Hz, samples)` of a clip that decodes to its end, else the reason (str)."""
    from asjax.data import audio

    try:
        given = clip.audio
        size = len(given) if isinstance(given, bytes) else Path(given).stat().st_size
        if size > max_bytes:
            return f"{size / 2**20:.0f} MiB is more than {max_bytes >> 20}; cut it into clips"
        data = given if isinstance(given, bytes) else Path(given).read_bytes()
        if reason := _cut_wav(data):
            return reason
        rate = audio.info(data, name=clip.id).rate
        if encoding:
            rate = encoding.sample_rate or rate
            wave = audio.read(data, rate, name=clip.id)
            return encoding(wave, rate), rate, len(wave)
        samples = sum(map(len, audio.blocks(data, rate, _BLOCK_S, name=clip.id)))
        return data, rate, samples
    except FileNotFoundError:
        return "file does not exist"
    except (AsjaxError, OSError) as error:
        return str(error)


def _cut_wav(data: bytes) -> str:
    """Why a RIFF file is shorter than it says, or ''. libsndfile reads it as a shorter clip.

    Recorders that write to a pipe put a placeholder (0 or about 2**31, 2**32) as the size.
    """
    if data[:4] != b"RIFF" or len(data) < 8:
        return ""
    promised = int.from_bytes(data[4:8], "little") + 8
    if len(data) + 1 < promised < 0x7FFF0000:
        return f"cut short: its header promises {promised} bytes, {len(data)} are there"
    return ""
