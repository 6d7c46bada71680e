"""Frame scores of a causal model while sound comes in, without a second look at any of it."""

from __future__ import annotations

import functools

import numpy as np

from asjax.config import AsjaxError
from asjax.metrics import probability
from asjax.predict.recording import Heard

_SIZES = (16, 4, 1)  # frames that are computed at once: one program each


def causal(model, frontend) -> bool:
    """Whether no output of a model and of its frontend looks at later sound."""
    return bool(getattr(model, "causal", False)) and getattr(frontend, "centred", True) is False


class Live:
    """The state of a stream in a causal tagger: `push` sound, get the frames that are complete.

    The joined frames are those of the model on the whole recording. A second of sound costs the
    same, however long the stream is.

    Attributes:
      per: samples of a frame. frame_rate: frames per second.

    Raises:
      AsjaxError: the model or its frontend looks ahead.
    """

    def __init__(self, tagger):
        if not causal(tagger.model, tagger.frontend):
            raise AsjaxError(
                f"{type(tagger.model).__name__} looks ahead, so it cannot carry its state from "
                "piece to piece; take a causal model, such as quickstart_sed.py:causal"
            )
        self.tagger, model, frontend = tagger, tagger.model, tagger.frontend
        self.per = frontend.hop * model.stride
        self.frame_rate = tagger.sample_rate / self.per
        # frames whose windows reach back before a piece
        self._back = -(-max(0, frontend.n_fft - frontend.hop) // frontend.hop)
        self._wave = np.zeros(self._back * frontend.hop, np.float32)
        self._state = model.init_state(1)
        self._step = _steps(model, frontend)
        self._kept, self._first, self._most = [], 0, 0  # frame logits for `tags`
        self._closed = False
        for size in _SIZES:  # compile before the first sound comes
            silence = np.zeros((1, len(self._wave) + size * self.per), np.float32)
            self._step(tagger.variables, self._state, silence, self._back)

    def push(self, wave: np.ndarray) -> np.ndarray:
        """Probabilities [n, C] of the frames that these samples complete; n may be 0."""
        self._wave = np.concatenate([self._wave, wave])
        before = self._back * self.tagger.frontend.hop
        found, at, left = [], 0, (len(self._wave) - before) // self.per
        if not left:
            return np.zeros((0, len(self.tagger.label_set)), np.float32)
        for size in _SIZES:
            while left >= size:
                part = self._wave[None, at : at + before + size * self.per]
                out, self._state = self._step(self.tagger.variables, self._state, part, self._back)
                found.append(np.asarray(out[0]))
                at, left = at + size * self.per, left - size
        self._wave = self._wave[at:].copy()
        logits = np.concatenate(found)
        self._remember(logits)
        activation = self.tagger.activation
        scores = probability.as_scores(logits, activation)
        return probability.probabilities(scores, activation).astype(np.float32)

    def close(self) -> np.ndarray:
        """The last frame, if samples are left for it; silence fills it."""
        self._closed = True
        left = len(self._wave) - self._back * self.tagger.frontend.hop
        return self.push(np.zeros((-left) % self.per, np.float32))

    def keep(self, samples: int) -> None:
        """Keep the frames of the last `samples` samples, and some more, for `tags`."""
        self._most = 2 * (-(-samples // self.per)) + 2

    def _remember(self, logits) -> None:
        if self._most:
            self._kept.append(logits)
            while sum(map(len, self._kept)) - len(self._kept[0]) > self._most:
                self._first += len(self._kept.pop(0))

    def tags(self, start: int, end: int):
        """The `Tags` of samples start..end: the model's own pooling of their frames.

        The frames know the sound before `start` too.
        """
        from asjax.nn import pooling

        tagger, seconds = self.tagger, (end - start) / self.tagger.sample_rate
        count = -(-end // self.per) if self._closed else end // self.per
        kept = np.concatenate(self._kept)
        rows = kept[max(0, -(-start // self.per) - self._first) : count - self._first]
        clip, _ = pooling.pool(tagger.model.pooling)(rows[None])
        return Heard(
            file="stream",
            duration_s=seconds,
            logits=np.array(pooling.logit(clip), np.float32),
            times=np.array([[0.0, seconds]]),
            frames=probability.as_scores(rows, tagger.activation).copy(),
            frame_rate=self.frame_rate,
        ).tags(tagger)


@functools.lru_cache(maxsize=8)
def _steps(model, frontend):
    """The jitted step: (variables, state, wave [1, S], frames to leave out) -> (frame logits [1, n,
    C], state)."""
    import jax

    def step(variables, state, wave, back):
        feats = frontend(wave)[:, back:]
        out = model.apply(variables, feats, train=False, state=state)
        return out["frame_logits"], out["state"]

    return jax.jit(step, static_argnums=3)
