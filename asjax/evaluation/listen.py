"""Clips of a data source as small sound files, for the players on a report page."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np

from asjax.config import shown

RATE_HZ = 16_000
SECONDS = 10.0  # from the beginning of a clip
TIMEOUT_S = 20.0
LEVEL = 0.6  # libsndfile's compression level: 10 s of noise become 30 kB


def listener(source, seconds: float = SECONDS) -> Callable[[str], tuple[bytes, str] | None]:
    """A function id -> (MP3, "audio/mpeg"): the first seconds of a clip, mono at 16 kHz.

    It returns None for an id that `source` does not have. It raises `AudioError` if the clip cannot
    be decoded.
    """
    row: dict[str, int] = {}

    def listen(clip: str):
        from asjax.data import audio, patience

        if not row:
            row.update((name, i) for i, name in enumerate(source.ids))
        if clip not in row:
            return None
        example, quiet = source[row[clip]], lambda text: None
        start_s, piece_s = example.get("part", (0.0, seconds))
        part = {"start_s": start_s, "duration_s": min(seconds, piece_s)}
        read = partial(audio.read, example["audio"], RATE_HZ, **part, name=clip, note=quiet)
        return encoded(patience.call(read, TIMEOUT_S, shown(clip)))

    return listen


def encoded(wave) -> tuple[bytes, str]:
    """A wave [S] at 16 kHz as (MP3, "audio/mpeg"), because all browsers play MP3."""
    import soundfile

    out = io.BytesIO()
    options = {"bitrate_mode": "VARIABLE", "compression_level": LEVEL}
    soundfile.write(out, np.clip(wave, -1, 1), RATE_HZ, format="MP3", **options)
    return out.getvalue(), "audio/mpeg"
