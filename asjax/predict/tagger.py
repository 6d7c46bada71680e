"""`load` and `Tagger`: from a model folder and recordings to `Tags`.

See `windows` for how a recording becomes windows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import chain

import numpy as np

from asjax import build, models
from asjax.config import AsjaxError
from asjax.evaluation import infer
from asjax.evaluation.mean import Mean
from asjax.predict.frames import NO_FRAMES
from asjax.predict.live import Live, causal
from asjax.predict.saving import Saves
from asjax.predict.windows import Windowed, check_settings, folder_of
from asjax.store import model_dir
from asjax.store.scores import activation_of
from asjax.weights import published

HOW_TO_GET_A_MODEL = (
    "train one with: asjax train --config=configs/quickstart.py --workdir=runs/quickstart, "
    "then give runs/quickstart/model; or give a repository org/name of the Hugging Face Hub, or a "
    "published checkpoint (asjax models --published)"
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
    model_dir.refuse_file(folder)
    if not folder.is_dir():
        hint = f"{published.near(path)} Or" if published.near(path) else ";"
        raise AsjaxError(f"model folder {folder} does not exist{hint} {HOW_TO_GET_A_MODEL}")
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
    tagger = Tagger(
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
    tagger.folder = folder
    return tagger


class Tagger(Windowed, Saves):
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

    def __init__(self, model, variables, frontend, label_set, **settings):
        self.model, self.variables, self.frontend = model, variables, frontend
        self.embeds = not isinstance(model, Mean)
        self.folder = None  # the model folder that it was loaded from
        if getattr(frontend, "top_db_scope", None) == "batch":  # a result must not depend on others
            self.frontend = replace(frontend, top_db_scope="clip")
        super().__init__(label_set, **settings)

    def _over(self, batches):
        first = next(batches, None)
        if first is not None:
            forward, variables = self._forward(len(first["wave"]))
            # ahead=0 decodes in this thread, because `decoding` may redirect all threads' output.
            yield from forward.over(variables, chain([first], batches), ahead=0)

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
        made = (self.model, variables, self.frontend, self.label_set, self._keywords)
        return _made, made, {"folder": self.folder}

    @property
    def _keywords(self) -> dict:
        names = ("sample_rate", "clip_s", "reduce", "batch_size", "record")
        names += ("activation", "overlap", "window_embeddings", "frames", "chunks", "full")
        return {name: getattr(self, name) for name in names}

    def _with(self, **settings) -> Tagger:
        keywords = {**self._keywords, **settings}
        return _made(self.model, self.variables, self.frontend, self.label_set, keywords)

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
    def causal(self) -> bool:
        """Whether the model looks at no later sound, so that `live` can carry its state."""
        return causal(self.model, self.frontend)

    def live(self) -> Live:
        """A new stream of frame scores. AsjaxError: the model is not causal."""
        return Live(self)

    def _rows(self, size: int) -> int:
        """Rounded up to a multiple of the devices."""
        devices = self._mesh.size if size > 1 else 1
        return -(-size // devices) * devices

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
