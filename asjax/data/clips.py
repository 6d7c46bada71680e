"""Clips on their way into records: read, checked by decoding to the end, re-encoded on request."""

from __future__ import annotations

import io
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asjax.config import AsjaxError, shown, warn
from asjax.data import sound

_BLOCK_S = 30.0
_NOTED = 10
_ENCODINGS = {"ogg": ("OGG", "VORBIS"), "flac": ("FLAC", "PCM_16")}


@dataclass(frozen=True)
class Clip:
    """A clip to be written: `audio` is the path or the bytes of an audio file, labels are ids."""

    id: str
    audio: str | Path | bytes
    labels: tuple[str, ...]
    split: str = "train"
    category: str = ""
    licence: str = ""
    attribution: str = ""
    group: str = ""  # what it comes from (recording, site)


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
    """`(clip, (bytes, rate, samples) or reason)` in the order of `clips`, decoded by threads.

    What the user should know of clips that are stored is said as warnings.
    """
    from tqdm import tqdm

    total = len(clips) if hasattr(clips, "__len__") else None
    threads = threads or min(8, os.cpu_count() or 1)
    waiting, noted = deque(), 0
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=total, unit="clip", disable=None if progress else True) as bar,
    ):

        def next_done():
            nonlocal noted
            clip, future = waiting.popleft()
            loaded, notes = future.result()
            noted += bool(notes)
            if noted <= _NOTED:
                for note in notes:
                    warn(note)
            bar.update()
            return clip, loaded

        try:
            for clip in clips:
                waiting.append((clip, pool.submit(_load, clip, encoding, max_bytes)))
                if len(waiting) >= 4 * threads:
                    yield next_done()
            while waiting:
                yield next_done()
        finally:
            for _, future in waiting:
                future.cancel()
    if noted > _NOTED:
        warn(f"{noted} clips were stored that have notes; those of the first {_NOTED} were shown")


def _load(clip: Clip, encoding, max_bytes):
    """`((bytes, rate Hz, samples), notes)` of a clip that decodes to its end; `(reason, [])` else.

    A clip of which a part is missing is not stored.
    """
    from asjax.data import patience

    notes: list[str] = []
    try:
        data = given = clip.audio
        size = len(given) if isinstance(given, bytes) else os.stat(given).st_size
        if size > max_bytes:
            reason = f"{size / 2**20:.0f} MiB is more than {max_bytes >> 20}; cut it into clips"
            return reason, []
        if not isinstance(given, bytes):
            read = partial(_bytes, given, clip.id)
            data = patience.call(read, _limit_s(size), shown(clip.id))
        work = partial(_decoded, data, encoding, clip.id, notes.append)
        done = patience.call(work, _limit_s(len(data)), shown(clip.id))
    except FileNotFoundError:
        return "file does not exist", []
    except (sound.AudioError, OSError) as error:
        return str(error), []
    lost = [note for note in notes if isinstance(note, sound.Loss)]
    return (str(lost[0]), []) if lost else (done, list(dict.fromkeys(notes)))


def _limit_s(size: int) -> float:
    """Seconds after which a clip of `size` bytes is given up: a stalled disk, a decoder's loop."""
    return 60.0 + size / 100_000


def _bytes(path, name) -> bytes:
    with sound.located(path, name) as (file, _, _):
        return file.readall()


def _decoded(data: bytes, encoding, name, note):
    """`(bytes to store, rate Hz, samples)`."""
    from asjax.data import audio

    options = {"name": name, "note": note}
    if encoding:
        rate = encoding.sample_rate or audio.info(data, **options).rate
        wave = audio.read(data, rate, **options)
        return encoding(wave, rate), rate, len(wave)
    sound.refuse_foreign(data, name)
    rate = audio.info(data, **options).rate
    return data, rate, sum(map(len, audio.blocks(data, rate, _BLOCK_S, **options)))
