"""A detector whose frame scores are a formula of the sound, and naive windows of a recording."""

import functools
import math
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
from small_tagger import LABELS, LEVELS

from asjax import predict

RATE, CLIP_S, FRAMES = 1000, 2.0, 20
SIZE = round(RATE * CLIP_S)  # samples of a window
GAIN, CLASSES = 40.0, len(LABELS)
EDGE = -30.0  # added to the scores of the first and last quarter of a window


def model(frames=FRAMES, edge=EDGE, classes=CLASSES):
    """frame_logits: GAIN (rms of the frame - level of the class); logits: of the window's rms.

    The frames around the ends of a window are wrong, by `edge`, as those of a real model may be.
    """

    def apply(variables, feats, train):
        assert not train
        wrong = np.zeros(frames, np.float32)
        wrong[_edges(frames)] = edge
        places = np.round(np.arange(frames + 1) * feats.shape[1] / frames).astype(int)
        parts = [feats[:, a:b] for a, b in zip(places[:-1], places[1:], strict=True)]
        rms = jnp.sqrt(jnp.stack([jnp.mean(part**2, axis=1) for part in parts], axis=1))
        levels = jnp.resize(variables["levels"], classes)
        every = jnp.sqrt(jnp.mean(feats**2, axis=1))[:, None]
        return {
            "frame_logits": GAIN * (rms[..., None] - levels[None, None]) + wrong[None, :, None],
            "logits": GAIN * (every - variables["levels"][None]),
            "embedding": every,
        }

    return SimpleNamespace(apply=apply)


def _edges(frames: int) -> list[int]:
    quarter = frames // 4
    return [*range(quarter), *range(frames - quarter, frames)]


def tagger(**kw):
    """A new tagger, or the same one again where the keywords can be compared: it is compiled."""
    return (_tagger if "record" in kw else _compiled)(**kw)


def _tagger(*, frames_of_window=FRAMES, edge=EDGE, classes=CLASSES, **kw):
    kw = {"sample_rate": RATE, "clip_s": CLIP_S, "batch_size": 4, **kw}
    return predict.Tagger(
        model(frames_of_window, edge, classes), {"levels": LEVELS}, lambda w: w, LABELS, **kw
    )


_compiled = functools.cache(_tagger)


def starts(total: int, frames=FRAMES, chunks=False) -> list[int]:
    """First frames of the windows, naively."""
    hop, found = frames if chunks else frames // 2, [0]
    while found[-1] + frames < total:
        found.append(found[-1] + hop if chunks else min(found[-1] + hop, total - frames))
    return found


def expected(wave, frames=FRAMES, edge=EDGE, chunks=False):
    """Frame probabilities [T, 4] in float64, each from the window that has it inmost."""
    per = SIZE / frames
    total = math.ceil(len(wave) / per - 1e-9)
    begins = starts(total, frames, chunks)
    out = np.zeros((total, len(LEVELS)))
    for i in range(total):
        inside = [s for s in begins if s <= i < s + frames]
        # the farthest from the window's ends; of two that are equally far the later window
        s = max(inside, key=lambda s, i=i: (min(i + 0.5 - s, s + frames - i - 0.5), s))
        window = np.zeros(SIZE)
        part = wave[round(s * per) : round(s * per) + SIZE]
        window[: len(part)] = part
        place = i - s
        piece = window[round(place * per) : round((place + 1) * per)]
        logits = GAIN * (np.sqrt(np.mean(piece**2)) - LEVELS.astype(np.float64))
        logits += edge * (place in _edges(frames))
        out[i] = 1 / (1 + np.exp(-logits))
    return out


def sounds(seconds: float, *events, rate=RATE) -> np.ndarray:
    """Silence with (onset_s, offset_s, level) in it, of alternating sign."""
    wave = np.zeros(round(seconds * rate), np.float32)
    for onset, offset, level in events:
        wave[round(onset * rate) : round(offset * rate)] = level
    wave[1::2] *= -1
    return wave
