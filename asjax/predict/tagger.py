"""`load` and `Tagger`: from a model folder and recordings to `Tags`.

A recording is cut into windows of the model's clip length, consecutive or overlapping. The last
window ends with the recording, so its overlap is larger. A recording shorter than a window is
padded with zeros. The tags of a recording are the mean of its windows' probabilities, or their
maximum. Windows of all recordings share batches of one shape. Audio is decoded when it is needed,
so memory does not grow with the length of a recording, except by its frame scores.

The frame scores of a recording come from windows that overlap by half. The frames in the middle
half of each window are used, because a model hears too little around its first and last frames.
Frames that begin after the end of the recording are left out.

A model with objective classify gives the probabilities of a softmax, which sum to 1 over the
classes. Any other model gives one sigmoid per class.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from numbers import Real
from pathlib import Path

import numpy as np

from asjax import build, models
from asjax.config import AsjaxError, quoted, unknown
from asjax.data import waves
from asjax.evaluation import infer
from asjax.evaluation.mean import Mean
from asjax.metrics import probability
from asjax.predict.frames import NO_FRAMES
from asjax.predict.live import Live, causal
from asjax.predict.recording import Heard, Recording
from asjax.predict.tags import NO_EMBEDDING, Tags, whole
from asjax.store import model_dir
from asjax.store.scores import activation_of

REDUCE = ("mean", "max")
_OUTPUTS = ("logits", "embedding", "frame_logits")
HOW_TO_GET_A_MODEL = (
    "train one with: asjax train --config=configs/quickstart.py --workdir=runs/quickstart, "
    "then give runs/quickstart/model"
)


# ------------------------------------------------------------------------------ public face


def load_one(path, *, reduce: str = "mean", batch_size: int = 16, **settings) -> Tagger:
    """The tagger from a model folder, or from the workdir of a finished run.

    Args:
      reduce, batch_size, settings: see `Tagger`.

    Raises:
      AsjaxError: no such folder, no model in it, or files that do not fit together.
    """
    check_settings(batch_size, settings.get("overlap", 0.0))
    folder = folder_of(path)
    if not folder.is_dir():
        raise AsjaxError(f"model folder {folder} does not exist; {HOW_TO_GET_A_MODEL}")
    if (folder / "model").is_dir():
        folder = folder / "model"
    elif (folder / "checkpoints").is_dir():
        raise AsjaxError(
            f"{folder} holds a run that has not finished, so it has no model yet; "
            "run its asjax train command again"
        )
    elif not any(folder.iterdir()):
        raise AsjaxError(f"model folder {folder} is empty; {HOW_TO_GET_A_MODEL}")

    cfg, label_set, variables, record = model_dir.load_model(folder)
    return Tagger(
        build.make("model", {**cfg["model"], "num_classes": len(label_set)}),
        variables,
        build.make("frontend", cfg["frontend"]),
        label_set,
        sample_rate=cfg["data"]["sample_rate"],
        clip_s=cfg["data"]["clip_s"],
        reduce=reduce,
        batch_size=batch_size,
        record=record,
        activation=activation_of(cfg),
        **settings,
    )


def folder_of(path) -> Path:
    """A path. AsjaxError: it is something else."""
    try:
        return Path(path)
    except TypeError:
        raise AsjaxError(f"the model folder must be a path, got {quoted(path)}") from None


def check_settings(batch_size, overlap) -> None:
    """Raise AsjaxError for a batch size or an overlap that is impossible."""
    if not whole(batch_size) or batch_size < 1:
        raise AsjaxError(
            f"batch_size must be 1 or more, as a whole number, got {quoted(batch_size)}"
        )
    if not isinstance(overlap, Real) or not 0 <= overlap < 1:
        raise AsjaxError(f"overlap must be 0 or more and less than 1, got {quoted(overlap)}")


class Calls:
    """The calls of a tagger, one model or several: it has `hear`, and what `Heard.tags` reads."""

    def __call__(self, source, *, batch: bool | None = None):
        """The Tags of one recording, or the list of Tags of a list of recordings.

        Args:
          source: a path, the bytes of a file, or (wave, rate). A wave is a list of numbers, an
            array or a tensor: [S], [channels, S] or [S, channels].
          batch: True: (waves [B, S], rate) are B recordings, and the result is a list of B Tags.
            False: a short first axis means channels. None: as False, with a warning.

        Raises:
          AudioError: the first recording that cannot be used.
        """
        many = isinstance(source, list) or bool(batch)
        sources = waves.rows(source) if batch else source if many else [source]
        results = []
        for tags in self.stream(sources, batch=False if batch else batch):
            if isinstance(tags, Exception):
                raise tags
            results.append(tags)
        return results if many else results[0]

    def stream(
        self, sources: Iterable, *, batch=None, on_window=None, decoding=contextlib.nullcontext
    ) -> Iterator[Tags | AsjaxError]:
        """The Tags of each source in order, or the error for a source that cannot be tagged.

        Args:
          sources, batch: as in `__call__`, but batch is False or None.
          on_window: called with the seconds of new audio in each window, for progress bars.
          decoding: a context manager for the decoding.
        """
        results = self.hear(sources, batch=batch, on_window=on_window, decoding=decoding)
        for heard in results:
            yield heard if isinstance(heard, Exception) else heard.tags(self)

    def notes(self) -> list[str]:
        """What people should know after the last recording."""
        return []


class Tagger(Calls):
    """Tags recordings: `tagger("dog.wav")`, `tagger((wave, rate))` or a list of these.

    Args:
      model: has `.apply(variables, feats [B, T, F], train=False)` -> dict of logits [B, C] and
        embedding [B, D].
      variables: the model's parameters and statistics.
      frontend: wave [B, S] -> feats [B, T, F].
      label_set: the C classes.
      sample_rate, clip_s: input of the model: Hz, seconds per window.
      reduce: "mean" or "max" over the probabilities of a recording's windows.
      batch_size: windows per forward pass.
      overlap: share of a window that the next window covers too, 0 <= overlap < 1.
      window_embeddings: keep the embedding of every window, as `Tags.window_embeddings`.
      record: how the model was trained and on what data.
      activation: "sigmoid", or "softmax" for one class per clip: from logits to probabilities.
      frames: True: events in time are wanted; a model without frame scores is an error. None: they
        are there if the model has them. False: without them, a detector does half the work for a
        recording of several windows.
      chunks: frame scores of windows side by side, as in PretrainedSED. An event that crosses the
        edge of a window is then often cut. Default: windows that overlap by half.
      full: every batch has `batch_size` rows, so that one program serves any number of windows.
        Default: few windows are one smaller batch.
    """

    def __init__(
        self,
        model,
        variables,
        frontend,
        label_set,
        *,
        sample_rate: int,
        clip_s: float,
        reduce: str = "mean",
        batch_size: int = 16,
        overlap: float = 0.0,
        window_embeddings: bool = False,
        record: dict | None = None,
        activation: str = "sigmoid",
        frames: bool | None = None,
        chunks: bool = False,
        full: bool = False,
    ):
        if reduce not in REDUCE:
            raise unknown("reduce", reduce, REDUCE)
        if activation not in probability.ACTIVATIONS:
            raise unknown("activation", activation, probability.ACTIVATIONS)
        check_settings(batch_size, overlap)
        self.model, self.variables, self.frontend = model, variables, frontend
        self.label_set, self.reduce, self.record = label_set, reduce, record or {}
        self.sample_rate, self.clip_s, self.batch_size = sample_rate, clip_s, batch_size
        self.activation = activation
        self.overlap, self.window_embeddings = overlap, window_embeddings
        self.window = max(1, round(clip_s * sample_rate))  # samples
        self.hop = max(1, round(self.window * (1 - overlap)))
        self.frames, self.chunks, self.full = frames, chunks, full
        self.embeds = not isinstance(model, Mean)
        self._others: dict[tuple, Tagger] = {}  # see `windowed`
        if window_embeddings and not self.embeds:
            raise AsjaxError(NO_EMBEDDING)
        if getattr(frontend, "top_db_scope", None) == "batch":  # a result must not depend on others
            self.frontend = replace(frontend, top_db_scope="clip")
        if frames and not self.frame_count:
            raise AsjaxError(self.why_no_frames)

    def hear(
        self, sources: Iterable, *, batch=None, on_window=None, decoding=contextlib.nullcontext
    ) -> Iterator[Heard | AsjaxError]:
        """What the model says about each source in order, or the error for one.

        At most two batches of windows are in memory, plus the results of unfinished recordings.
        Args: as `stream`.
        """
        waiting = deque()
        batches = self._batches(sources, waiting, on_window, decoding, batch)
        first = next(batches, None)
        if first is not None:
            forward, variables = self._forward(len(first["wave"]))
            # ahead=0 decodes in this thread, because `decoding` may redirect all threads' output.
            for out, rest in forward.over(variables, chain([first], batches), ahead=0):
                if out["logits"].shape[1:] != (len(self.label_set),):
                    raise AsjaxError(
                        f"{type(self.model).__name__} must return logits [B, "
                        f"{len(self.label_set)} classes], got {list(out['logits'].shape)}"
                    )
                for i, recording in enumerate(rest["recordings"]):  # rows of padding come after
                    recording.add(*(out[n][i] if n in out else None for n in _OUTPUTS))
                yield from _finished(waiting)
        yield from _finished(waiting)

    def _batches(self, sources, waiting, on_window, decoding, batch):
        """Batches of the windows of all sources. If all fit into one batch, it may be smaller."""
        rows, size = [], None
        for number, source in enumerate(sources):
            recording = Recording(source, number, self, batch)
            waiting.append(recording)
            for wave, added_s in recording.windows(decoding):
                rows.append((recording, wave))
                if on_window:
                    on_window(added_s)
                if len(rows) == self.batch_size:
                    size = self.batch_size
                    yield self._batch(rows, size)
                    rows = []
        if rows:
            yield self._batch(rows, size or self._size(len(rows)))

    def __repr__(self):
        import jax

        numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables))
        overlap = f", overlap {self.overlap:g}" if self.overlap else ""
        return (
            f"Tagger({type(self.model).__name__} of {numbers:,} numbers, {len(self.label_set)} "
            f"classes of {self.label_set.name}, {self.sample_rate} Hz, windows of {self.clip_s:g} "
            f"s{overlap}, reduce={self.reduce!r}, {self.activation})"
        )

    def __reduce__(self):
        """Pickle the arguments only: compiled programs and weights on devices are made again."""
        import jax

        variables = jax.tree.map(np.asarray, self.variables)
        return _made, (self.model, variables, self.frontend, self.label_set, self._keywords)

    @property
    def _keywords(self) -> dict:
        names = ("sample_rate", "clip_s", "reduce", "batch_size", "record")
        names += ("activation", "overlap", "window_embeddings", "frames", "chunks", "full")
        return {name: getattr(self, name) for name in names}

    def windowed(self, clip_s: float, **settings) -> Tagger:
        """The tagger of the same model that hears windows of `clip_s` seconds, without padding.

        It is made once for the same arguments, so that it is compiled once.

        Args:
          settings: other arguments of `Tagger` that change.

        Raises:
          AsjaxError: `clip_s` is not a number above 0.
        """
        if not isinstance(clip_s, Real) or not 0 < clip_s < np.inf:
            raise AsjaxError(f"a window must be a number of seconds above 0, got {quoted(clip_s)}")
        key = (float(clip_s), *sorted(settings.items()))
        if key not in self._others:
            keywords = {**self._keywords, "clip_s": float(clip_s), **settings}
            made = _made(self.model, self.variables, self.frontend, self.label_set, keywords)
            self._others[key] = made
        return self._others[key]

    @cached_property
    def _frames_of_model(self) -> tuple[int, str]:
        """Frames per window, and the reason if there are none."""
        import jax

        name = type(self.model).__name__
        if self.frames is False:
            return 0, "the tagger was made with frames=False; make it with frames=True"

        def frame_logits(variables, wave):
            return models.apply(self.model, variables, self.frontend(wave)).get("frame_logits")

        wave = jax.ShapeDtypeStruct((1, self.window), np.float32)
        found = jax.eval_shape(frame_logits, self.variables, wave)
        if found is None:
            return 0, f"{name} gives scores of clips and not of frames: {NO_FRAMES}"
        classes = len(self.label_set)
        if found.ndim != 3 or found.shape[1] < 2 or found.shape[2] != classes:
            return 0, (
                f"{name} must return frame_logits [B, 2 or more frames, {classes} classes], got "
                f"{list(found.shape)}: {NO_FRAMES}"
            )
        return found.shape[1], ""

    @property
    def frame_count(self) -> int:
        """Frames per window; 0: the tagger gives no events in time."""
        return self._frames_of_model[0]

    @property
    def why_no_frames(self) -> str:
        return self._frames_of_model[1]

    @property
    def frame_rate(self) -> float | None:
        """Frames per second, or None without frames."""
        count = self.frame_count
        return count * self.sample_rate / self.window if count else None

    @property
    def causal(self) -> bool:
        """Whether the model looks at no later sound, so that `live` can carry its state."""
        return causal(self.model, self.frontend)

    def live(self) -> Live:
        """A new stream of frame scores. AsjaxError: the model is not causal."""
        return Live(self)

    @property
    def _outputs(self) -> tuple[str, ...]:
        there = (True, self.embeds, bool(self.frame_count))
        return tuple(name for name, one in zip(_OUTPUTS, there, strict=True) if one)

    def _size(self, windows: int) -> int:
        """Rows of a small batch: 1, 4, 16, ... There are few sizes, because each is compiled
        separately. At most three quarters of the rows are padding."""
        size = self.batch_size if self.full else 1
        while size < windows:
            size *= 4
        return min(size, self.batch_size)

    def _batch(self, rows, size):
        """A batch of `size` rows, rounded up to a multiple of the devices; padding is silence."""
        devices = self._mesh.size if size > 1 else 1
        batch = np.zeros((-(-size // devices) * devices, self.window), np.float32)
        for i, (_, wave) in enumerate(rows):
            batch[i, : len(wave)] = wave
        return {"wave": batch, "recordings": [recording for recording, _ in rows]}

    @cached_property
    def _mesh(self):
        from asjax import sharding

        return sharding.make_mesh(batch_sizes=(self.batch_size,), local=True)

    @cached_property
    def _passes(self):
        """Two forward passes: larger batches run on all devices, one row on the first device."""
        from jax.sharding import Mesh

        meshes = self._mesh, Mesh(self._mesh.devices.ravel()[:1], ("data",))
        return [infer.Forward(self.model, self.frontend, mesh, self._outputs) for mesh in meshes]

    def _forward(self, rows: int):
        """The forward pass for batches of `rows` rows, and the weights on its devices.

        The weights are on the first device only, until a batch needs all devices. After that,
        single rows use the first device's copy.
        """
        import jax

        from asjax import sharding

        forward, where = self._passes[rows == 1], sharding.replicated(self._mesh)
        placed = [getattr(x, "sharding", None) for x in jax.tree.leaves(self.variables)]
        if rows == 1 and all(at == where for at in placed):
            return forward, forward.put(
                jax.tree.map(lambda x: x.addressable_data(0), self.variables)
            )
        self.variables = forward.put(self.variables)
        return forward, self.variables


def _made(model, variables, frontend, label_set, keywords) -> Tagger:
    return Tagger(model, variables, frontend, label_set, **keywords)


def _finished(waiting):
    while waiting and waiting[0].done:
        yield waiting.popleft().result()
