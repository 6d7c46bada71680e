"""Damaged sound files of every kind give an AudioError or a wave, nothing else, and quickly."""

import time

import numpy as np
import sounds

from asjax.data import audio
from asjax.data.audio import AudioError

FORMS = [
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "MS_ADPCM"), ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("AU", "PCM_16"),
    ("NIST", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
]  # fmt: skip


def mutants(data, rng):
    """A damaged version: bytes changed, removed, doubled or inserted, or extreme lengths."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        near = min(200, len(out)) if rng.random() < 0.5 else len(out)
        at, size = int(rng.integers(near)), int(rng.integers(1, 5000 if rng.random() < 0.3 else 20))
        kind = rng.integers(6)
        if kind == 0:
            out[at] = int(rng.integers(256))
        elif kind == 1:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del out[at : at + size]
        elif kind == 3:
            out[at:at] = out[at : at + size]
        elif kind == 4:
            out[at:at] = rng.bytes(size)
        else:
            out[at : at + 4] = int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1])).to_bytes(4, "little")
        out = out or bytearray(b"x")
    return bytes(out)


def test_two_thousand_damaged_files_crash_nothing():
    wave = sounds.tone(0.5, rate=48_000)
    sound = [sounds.encode(wave, 48_000, *form) for form in FORMS]
    sound += [sounds.mp3(sounds.tone(0.5)), sounds.without_info(sounds.mp3(sounds.tone(0.5)))]
    sound += [sound[0] * 2, sound[-3] * 2, sound[-2] + sound[-1]]
    rng = np.random.default_rng(0)
    with audio.quiet_decoders():
        for n in range(2000):
            data = mutants(sound[n % len(sound)], rng)
            begin = time.monotonic()
            try:
                waves = audio.read(data, 16_000, note=lambda _: None)
                assert np.isfinite(waves).all()
            except AudioError as error:
                assert str(error).isprintable()  # noqa: PT017
            assert time.monotonic() - begin < 60
