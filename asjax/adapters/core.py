"""`Embedder`: embeddings of clips, and of frames in time, from any model folder.

A clip that is shorter than the model's window is heard at its own length, because zeros at the end
would change models that pool over time. A longer one is heard in windows, as by `asjax.Tagger`.

Frames are the model's `frame_embedding` where it has one, from windows that overlap by half. For
BEATs and ASiT these are patches, taken as a sequence in time as PretrainedSED does. Any other model
is heard in short windows around each point in time.
"""

from __future__ import annotations

from functools import cached_property
from numbers import Real

import numpy as np

from asjax import decoding, predict
from asjax.config import AsjaxError, quoted
from asjax.data import waves as in_memory
from asjax.predict import Tagger
from asjax.predict.onnx_tagger import OnnxTagger
from asjax.predict.tags import NO_EMBEDDING

AROUND_S = 1.0  # window around a point in time, for models without frames
_NAME, _MOST_S = "audio", 3600.0


class Embedder:
    """Embeddings [D] of clips and [T, D] of their frames.

    Args:
      model: a model folder, the workdir of a finished run, or a `Tagger`.
      step_s: longest time between frames, in seconds. Slower frames are repeated (`repeated` says
        so); a model without frames is heard every `step_s`. None: the model's own frames, and
        0.16 s for a model without.
      grid_s: lengths of short clips are rounded up to a multiple of this many seconds, with zeros.
        Every length compiles a program of its own, so clips of many lengths need a grid.
      batch_size: windows per forward pass.

    Raises:
      AsjaxError: no model there; several models or stored logits, which have no embedding; an
        .onnx file; step_s or grid_s out of range.
    """

    def __init__(self, model, *, step_s: float | None = None, grid_s: float = 0.0, batch_size=16):
        if not isinstance(model, (Tagger, OnnxTagger)):
            model = predict.load(model, batch_size=batch_size, frames=False)
        if isinstance(model, OnnxTagger):
            raise AsjaxError("an .onnx file cannot be adapted; give the folder it was made from")
        if not isinstance(model, Tagger) or not model.embeds:
            raise AsjaxError(NO_EMBEDDING)
        if step_s is not None:
            _seconds("step_s", step_s, 0.001)
        _seconds("grid_s", grid_s, 0)
        self.tagger, self.grid_s = model, grid_s
        self.sample_rate = model.sample_rate
        self.rate, self.repeated = self._grid(step_s)

    # --------------------------------------------------------------------------------- the clips

    def clips(self, waves) -> np.ndarray:
        """The embeddings float32 [n, D] of n clips, at `sample_rate`.

        Args:
          waves: an array or tensor [n, S], or a list of waves [S] of any lengths.

        Raises:
          AsjaxError: not waves, an empty one, NaN.
        """
        return np.stack([self._embedding(wave) for wave in self._checked(waves)])

    def _embedding(self, wave) -> np.ndarray:
        return self._of_length(len(wave))((wave, self.sample_rate)).embedding

    def _of_length(self, samples: int) -> Tagger:
        """A tagger whose window has this many samples, at most those of the model's own."""
        grid = max(1, round(self.grid_s * self.sample_rate))
        samples = min(-(-samples // grid) * grid, self.tagger.window)
        if samples == self.tagger.window:
            return self.tagger
        return self.tagger.windowed(samples / self.sample_rate, frames=False)

    # -------------------------------------------------------------------------------- the frames

    def frames(self, waves) -> tuple[np.ndarray, np.ndarray]:
        """(float32 [n, T, D], float64 [T]): embeddings, and their times: centres in seconds.

        Args and errors as `clips`, but all waves have one length.
        """
        waves = self._checked(waves)
        if len({len(wave) for wave in waves}) > 1:
            raise AsjaxError("the clips of a batch must have one length for frames")
        seconds = len(waves[0]) / self.sample_rate
        count = max(1, int(decoding.frames_of(seconds, self.rate)))
        times = (np.arange(count) + 0.5) / self.rate
        if not self._own[0]:
            return np.stack([self._around(wave, times) for wave in waves]), times
        of_model = max(1, int(decoding.frames_of(seconds, self._own_rate)))
        tracks = np.stack([self._track(wave, of_model) for wave in waves])
        if self.repeated:
            at = np.minimum((times * self._own_rate).astype(int), of_model - 1)
            tracks = tracks[:, at]
        return tracks, times

    def _track(self, wave, count: int) -> np.ndarray:
        """The model's frames [count, D] of one wave."""
        samples_of_frame = self.sample_rate / self._own_rate
        plan = decoding.windows(count, self._usable)
        pieces = np.zeros((len(plan.starts), self.tagger.window), np.float32)
        for piece, frame in zip(pieces, plan.starts, strict=True):
            first = round(frame * samples_of_frame)
            part = wave[first : first + len(piece)]
            piece[: len(part)] = part
        parts = [self._run(pieces[i : i + self._rows]) for i in range(0, len(pieces), self._rows)]
        return decoding.stitch(np.concatenate(parts)[:, : self._usable], plan)

    def _run(self, pieces) -> np.ndarray:
        forward, variables = self._forward
        batch = np.zeros((self._rows, self.tagger.window), np.float32)
        batch[: len(pieces)] = pieces
        ((out, _),) = forward.over(variables, [{"wave": batch}], ahead=0)
        return out["frame_embedding"][: len(pieces)]

    def _around(self, wave, times) -> np.ndarray:
        """The embeddings [T, D] of windows around the times; there are zeros beyond the ends."""
        size = min(round(AROUND_S * self.sample_rate), self.tagger.window)
        starts = np.round(times * self.sample_rate).astype(int) - size // 2
        padded = np.pad(wave, (size, 2 * size))
        pieces = ((padded[s + size : s + 2 * size], self.sample_rate) for s in starts)
        return np.stack([tags.embedding for tags in _good(self._of_length(size).stream(pieces))])

    # --------------------------------------------------------------------------- what there is

    @cached_property
    def size(self) -> int:
        """D of `clips`."""
        return self._shape("embedding")[-1]

    @cached_property
    def frame_size(self) -> int:
        """D of `frames`."""
        return self._own[1] or self.size

    @property
    def step_s(self) -> float:
        """Seconds from frame to frame."""
        return 1 / self.rate

    def _grid(self, step_s) -> tuple[float, bool]:
        """(frames per second of `frames`, whether they repeat the model's)."""
        if not self._own[0]:
            return 1 / (step_s or 0.16), False
        slow = step_s is not None and self._own_rate < 1 / step_s - 1e-9
        return (1 / step_s if slow else self._own_rate), slow

    @cached_property
    def _own(self) -> tuple[int, int]:
        """(frames in a window, D) of the model; (0, 0): it has none."""
        shape = self._shape("frame_embedding")
        return (shape[1], shape[2]) if shape and len(shape) == 3 and shape[1] > 1 else (0, 0)

    @cached_property
    def _own_rate(self) -> float:
        """Frames per second. Frontends with a fixed number of frames hear more than the window."""
        front = self.tagger.frontend
        seconds = self.tagger.window / self.sample_rate
        if getattr(front, "frames", None):
            seconds = front.frames * front.hop / front.sample_rate
        return self._own[0] / seconds

    @property
    def _usable(self) -> int:
        """Frames of a window that hear audio."""
        heard = self.tagger.window / self.sample_rate * self._own_rate
        return max(2, min(self._own[0], int(heard + 1e-6)))

    def _shape(self, output: str):
        import jax

        from asjax import models

        def run(variables, wave):
            return models.apply(self.tagger.model, variables, self.tagger.frontend(wave))

        wave = jax.ShapeDtypeStruct((1, self.tagger.window), np.float32)
        out = jax.eval_shape(run, self.tagger.variables, wave).get(output)
        return None if out is None else out.shape

    @property
    def _rows(self) -> int:
        return self.tagger.batch_size

    @cached_property
    def _forward(self):
        from asjax import sharding
        from asjax.evaluation import infer

        mesh = sharding.make_mesh(batch_sizes=(self._rows,), local=True)
        forward = infer.Forward(self.tagger.model, self.tagger.frontend, mesh, ("frame_embedding",))
        return forward, forward.put(self.tagger.variables)

    def _checked(self, waves) -> list[np.ndarray]:
        if not isinstance(waves, list):
            waves = in_memory.array(waves, _NAME)
            if waves.ndim != 2:
                raise AsjaxError(f"{_NAME} must be [clips, samples], got {list(waves.shape)}")
        found = []
        for number, wave in enumerate(waves):
            wave = in_memory.array(wave, _NAME)
            if wave.ndim != 1 or not wave.size or wave.dtype.kind != "f":
                raise AsjaxError(
                    f"clip {number} must be a wave of floats [samples], got {wave.dtype} "
                    f"{list(wave.shape)}"
                )
            if not np.isfinite(wave).all():
                raise AsjaxError(f"clip {number} has values that are not finite")
            found.append(wave.astype(np.float32, copy=False))
        if not found:
            raise AsjaxError("there is no clip to embed")
        return found


def _seconds(name: str, value, low: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= _MOST_S:
        raise AsjaxError(f"{name} must be {low:g} to {_MOST_S:g} seconds, got {quoted(value)}")


def _good(results):
    for result in results:
        if isinstance(result, Exception):
            raise result
        yield result


def like(array: np.ndarray, given):
    """`array` as the kind of `given`: a torch tensor on the same device, else numpy."""
    if hasattr(given, "detach"):  # a torch tensor, without importing torch for others
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(given.device)
    return array
