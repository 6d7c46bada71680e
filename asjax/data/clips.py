"""Load clips for records: read them, check them by decoding all samples, perhaps re-encode them."""

from __future__ import annotations

import contextlib
import io
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asjax.config import AsjaxError, shown, warn
from asjax.data import pcm16, sound

_BLOCK_S = 30.0
_NOTED = 10
_ENCODINGS = {"ogg": ("OGG", "VORBIS"), "flac": ("FLAC", "PCM_16"), pcm16.NAME: None}


class Reason(str):
    """Why a clip is left out. `state`: missing, undecodable, too short, or needs ffmpeg."""

    state: str

    def __new__(cls, text: str, state: str = "undecodable"):
        made = super().__new__(cls, text)
        made.state = state
        return made

    def __reduce__(self):
        return Reason, (str(self), self.state)


@dataclass(frozen=True)
class Clip:
    """A clip to write: `audio` is the path or the bytes of an audio file, labels are ids.

    `events` are (onset_s, offset_s, id); None means that the clip is not annotated.
    """

    id: str
    audio: str | Path | bytes
    labels: tuple[str, ...]
    split: str = "train"
    category: str = ""
    licence: str = ""
    attribution: str = ""
    group: str = ""  # its origin (recording, site)
    events: tuple[tuple[float, float, str], ...] | None = None


@dataclass(frozen=True)
class Encoding:
    """Re-encode audio as mono ogg, flac or pcm16 at `sample_rate` Hz (None: as it is; not pcm16).

    `compression` is libsndfile's level: 0 is the best quality (ogg) or the fastest (flac), 1 is the
    smallest file. FLAC and pcm16 (asjax.data.pcm16) hold the same int16 samples. They clip values
    beyond full scale.
    """

    container: str
    sample_rate: int | None = None
    compression: float = 0.5

    def __post_init__(self):
        if self.container not in _ENCODINGS:
            raise AsjaxError(f"encoding must be ogg, flac or pcm16, got {self.container!r}")
        if self.container == pcm16.NAME and not self.sample_rate:
            raise AsjaxError("--encode pcm16 needs --sample-rate: all its clips have one rate")
        if not 0 <= self.compression <= 1:
            raise AsjaxError(f"compression must be 0 to 1, got {self.compression!r}")

    def __call__(self, wave, rate: int) -> bytes:
        if self.container == pcm16.NAME:
            return pcm16.quantised(wave).tobytes()
        import soundfile

        if self.container == "flac":  # libsndfile would scale floats by 32767
            wave = pcm16.quantised(wave)
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

    The notes of stored clips become warnings.
    """
    threads = threads or min(8, os.cpu_count() or 1)
    waiting, noted = deque(), 0
    with (
        ThreadPoolExecutor(threads) as pool,
        _bar(clips) if progress else contextlib.nullcontext() as bar,
    ):

        def next_done():
            nonlocal noted
            clip, future = waiting.popleft()
            loaded, notes = future.result()
            noted += bool(notes)
            if noted <= _NOTED:
                for note in notes:
                    warn(note)
            if bar is not None:
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
        warn(f"{noted} stored clips have notes; the notes of the first {_NOTED} were shown")


def _bar(clips):
    from tqdm import tqdm  # it makes a lock between processes, which a killed worker would leave

    total = len(clips) if hasattr(clips, "__len__") else None
    return tqdm(total=total, unit="clip", disable=None)


def _load(clip: Clip, encoding, max_bytes):
    """`((bytes, rate Hz, samples), notes)` of a clip, or `(Reason, [])` if it cannot be decoded.

    A clip with a missing part counts as not decodable.
    """
    from asjax.data import patience

    notes: list[str] = []
    try:
        data = given = clip.audio
        size = len(given) if isinstance(given, bytes) else os.stat(given).st_size
        if size > max_bytes:
            text = f"{size / 2**20:.0f} MiB is more than {max_bytes >> 20}; cut it into clips"
            return Reason(text), []
        if not isinstance(given, bytes):
            read = partial(_bytes, given, clip.id)
            data = patience.call(read, _limit_s(size), shown(clip.id))
        work = partial(_decoded, data, encoding, clip.id, notes.append)
        done = patience.call(work, _limit_s(len(data)), shown(clip.id))
    except FileNotFoundError:
        return Reason("file does not exist", "missing"), []
    except sound.NeedsFfmpeg as error:
        return Reason(str(error), "needs ffmpeg"), []
    except sound.AudioError as error:
        return Reason(str(error)), []
    except AsjaxError:  # not a fault of the clip: the disk does not answer
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        return Reason(f"cannot be read: {getattr(error, 'strerror', None) or error}"), []
    lost = [note for note in notes if isinstance(note, sound.Loss)]
    return (Reason(str(lost[0])), []) if lost else (done, list(dict.fromkeys(notes)))


def _limit_s(size: int) -> float:
    """Time limit in seconds for a clip of `size` bytes, against stalled disks and endless loops."""
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
        if encoding.container == "flac" and data[:4] == b"fLaC" and pcm16.rate_of(data) == rate:
            return data, rate, len(wave)  # it is what the encoder would make
        return encoding(wave, rate), rate, len(wave)
    sound.refuse_foreign(data, name)
    rate = audio.info(data, **options).rate
    return data, rate, sum(map(len, audio.blocks(data, rate, _BLOCK_S, **options)))
