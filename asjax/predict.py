"""`asjax.load` and `Tagger`: audio files or waves -> tags and embeddings.

A recording is cut into windows of the model's clip length, one after the other. The last window
ends with the recording (it overlaps the one before it); a recording shorter than one window is
padded with zeros. The tags of a recording are the mean of its windows' probabilities, or their
maximum. Windows of all recordings share batches of one shape, and audio is decoded as it is
needed, so that memory does not grow with the length of a recording.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from asjax import build, models
from asjax.config import AsjaxError, unknown
from asjax.data import waves
from asjax.store import model_dir

REDUCE = ("mean", "max")
HOW_TO_GET_A_MODEL = (
    "train one with: asjax train --config=configs/quickstart.py --workdir=runs/quickstart, "
    "then give runs/quickstart/model"
)


# ------------------------------------------------------------------------------ public face


def load(path, *, reduce: str = "mean", batch_size: int = 16) -> Tagger:
    """The tagger in a model folder, or in the workdir of a finished run.

    Raises:
      AsjaxError: no such folder or no model in it, or files that do not belong together.
    """
    folder = Path(path)
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
        build.make("model", cfg["model"]),
        variables,
        build.make("frontend", cfg["frontend"]),
        label_set,
        sample_rate=cfg["data"]["sample_rate"],
        clip_s=cfg["data"]["clip_s"],
        reduce=reduce,
        batch_size=batch_size,
        record=record,
    )


@dataclass(frozen=True, eq=False)
class Tags:
    """What a tagger heard in one recording.

    Attributes:
      file: path, or a name for a wave in memory.
      duration_s: length of the recording in seconds.
      clip: float32 [C], probability of each class in the whole recording.
      logits: float32 [C], log-odds of `clip`; of a single window, the model's own output.
      embedding: float32 [D], mean over the windows.
      windows: float32 [n, C], probabilities of each window.
      times: float64 [n, 2], begin and end of each window in seconds.
      label_set: the classes, in order.
    """

    file: str
    duration_s: float
    clip: np.ndarray
    logits: np.ndarray
    embedding: np.ndarray
    windows: np.ndarray
    times: np.ndarray
    label_set: object

    @property
    def labels(self) -> tuple[str, ...]:
        """Display names of the classes."""
        return self.label_set.names

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the classes (AudioSet mids, or the label set's own)."""
        return self.label_set.ids

    def __getitem__(self, label) -> float:
        """Probability of a class by display name, id or index."""
        return float(self.clip[self.label_set.index(label)])

    def order(self, k: int | None = None) -> np.ndarray:
        """Indices of the `k` (default: all) most probable classes, the most probable first."""
        return np.argsort(-self.logits, kind="stable")[:k]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` most probable classes as (display name, probability)."""
        return [(self.labels[i], float(self.clip[i])) for i in self.order(k)]

    def __repr__(self):
        best = ", ".join(f"{name} {p:.2f}" for name, p in self.top(3))
        return f"Tags({self.file}, {self.duration_s:.2f} s: {best}, ...)"


class Tagger:
    """Tags recordings: `tagger("dog.wav")`, `tagger((wave, rate))` or a list of these.

    Args:
      model: has `.apply(variables, feats [B, T, F], train=False)` -> dict of logits [B, C] and
        embedding [B, D].
      variables: of the model.
      frontend: wave [B, S] -> feats [B, T, F].
      label_set: the C classes.
      sample_rate, clip_s: what the model hears: Hz, seconds per window.
      reduce: "mean" or "max" over the probabilities of a recording's windows.
      batch_size: windows per forward pass.
      record: what the model says of itself.
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
        record: dict | None = None,
    ):
        if reduce not in REDUCE:
            raise unknown("reduce", reduce, REDUCE)
        if batch_size < 1:
            raise AsjaxError(f"batch_size must be 1 or more, got {batch_size}")
        self.model, self.variables, self.frontend = model, variables, frontend
        self.label_set, self.reduce, self.record = label_set, reduce, record or {}
        self.sample_rate, self.clip_s, self.batch_size = sample_rate, clip_s, batch_size
        self.window = max(1, round(clip_s * sample_rate))  # samples
        self._forwards = {}

    def __call__(self, source, *, batch: bool | None = None):
        """Tags of a path, the bytes of a file, or (wave, rate); of a list, the list of Tags.

        Args:
          source: a wave is numbers, an array or a tensor: [S], [channels, S] or [S, channels].
          batch: True takes (waves [B, S], rate) as B recordings and returns the list of their
            Tags. False says that a short first axis is channels; None does so with a warning.

        Raises:
          AudioError: the first recording that cannot be used.
        """
        many = isinstance(source, list) or bool(batch)
        sources = waves.rows(source) if batch else source if many else [source]
        found = []
        for tags in self.stream(sources, batch=False if batch else batch):
            if isinstance(tags, Exception):
                raise tags
            found.append(tags)
        return found if many else found[0]

    def stream(
        self, sources: Iterable, *, batch=None, on_window=None, decoding=contextlib.nullcontext
    ) -> Iterator[Tags | AsjaxError]:
        """Tags of each source in order, or the error that kept it from being tagged.

        At most two batches of windows are held, plus the logits of unfinished recordings.

        Args:
          sources: as for a call. batch: False or None, as there.
          on_window: called with the seconds of audio each window added, for progress bars.
          decoding: a context manager to decode in.
        """
        waiting, rows, flying, size = deque(), [], None, None
        for number, source in enumerate(sources):
            recording = _Recording(source, number, self, batch)
            waiting.append(recording)
            for wave, added_s in recording.windows(decoding):
                rows.append((recording, wave))
                if on_window:
                    on_window(added_s)
                if len(rows) == self.batch_size:
                    size = self.batch_size
                    flying, rows = self._launch(rows, size, flying), []
                    yield from _finished(waiting)
        if rows:
            # A call of a few windows need not wait for a full batch: the next power of two.
            size = size or min(self.batch_size, 1 << (len(rows) - 1).bit_length())
            flying = self._launch(rows, size, flying)
        _land(flying)
        yield from _finished(waiting)

    def __repr__(self):
        import jax

        numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables))
        return (
            f"Tagger({type(self.model).__name__} of {numbers:,} numbers, {len(self.label_set)} "
            f"classes of {self.label_set.name}, {self.sample_rate} Hz, windows of {self.clip_s:g} "
            f"s, reduce={self.reduce!r})"
        )

    def __reduce__(self):
        """Pickled as what it was made of: compiled programs and placed weights are made anew."""
        import jax

        variables = jax.tree.map(np.asarray, self.variables)
        keywords = {
            name: getattr(self, name)
            for name in ("sample_rate", "clip_s", "reduce", "batch_size", "record")
        }
        return _made, (self.model, variables, self.frontend, self.label_set, keywords)

    @cached_property
    def _apply(self):
        import jax
        import jax.numpy as jnp

        def apply(variables, wave):
            out = models.apply(self.model, variables, self.frontend(wave))
            if out["logits"].shape != (len(wave), len(self.label_set)):
                raise AsjaxError(
                    f"{type(self.model).__name__} must return logits [{len(wave)}, "
                    f"{len(self.label_set)} classes], got {list(out['logits'].shape)}"
                )
            return {k: out[k].astype(jnp.float32) for k in ("logits", "embedding")}

        return jax.jit(apply)

    def _forward(self, size):
        """wave [size, S] -> logits and embedding, and the rows to pad to: all devices share them,
        or as many CPU devices as there are rows."""
        if size not in self._forwards:
            import jax

            from asjax import sharding

            few = size < jax.device_count()
            mesh = sharding.make_mesh(batch_sizes=(size,) if few else ())
            variables = jax.device_put(self.variables, sharding.replicated(mesh))
            placed, apply = sharding.batch_sharding(mesh), self._apply
            self._forwards[size] = (
                lambda wave: apply(variables, jax.device_put(wave, placed)),
                -(-size // mesh.size) * mesh.size,
            )
        return self._forwards[size]

    def _launch(self, rows, size, before):
        """Start a forward pass of `rows` padded to `size`, then collect the one before it."""
        forward, padded = self._forward(size)
        batch = np.zeros((padded, self.window), np.float32)
        for i, (_, wave) in enumerate(rows):
            batch[i, : len(wave)] = wave
        out = forward(batch)
        _land(before)
        return [recording for recording, _ in rows], out


def _made(model, variables, frontend, label_set, keywords) -> Tagger:
    return Tagger(model, variables, frontend, label_set, **keywords)


# ----------------------------------------------------------------------- recordings under way


class _Recording:
    """A source on its way: its windows go out, their logits come back."""

    def __init__(self, source, number, tagger, batch=None):
        from asjax.data import recordings

        self.tagger, self.name = tagger, recordings.name_of(source, number)
        self._windows = recordings.windows(
            source, tagger.sample_rate, tagger.window, name=self.name, batch=batch
        )
        self.starts, self.logits, self.embedding = [], [], 0.0
        self.samples, self.read, self.error = 0, False, None

    def windows(self, decoding):
        """(window, seconds of audio it adds) until the end or an error, which is kept."""
        while True:
            try:
                with decoding():
                    item = next(self._windows, None)
            except AsjaxError as error:
                self.error, item = error, None
            if item is None:
                break
            start, wave, new = item
            self.starts.append(start)
            self.samples += new
            yield wave, new / self.tagger.sample_rate
        self.read = True

    def add(self, logits, embedding):
        self.logits.append(logits)
        self.embedding = self.embedding + embedding.astype(np.float64)

    def result(self) -> Tags | AsjaxError:
        if self.error is not None:
            return self.error
        from scipy.special import expit, log_expit, logsumexp

        logits = np.stack(self.logits)
        if not np.isfinite(logits).all():
            return AsjaxError(f"{self.name}: the model's output is not finite; are its weights?")
        windows = expit(logits)
        if len(logits) == 1:
            clip = logits[0]
        elif self.tagger.reduce == "max":
            clip = logits.max(axis=0)
        else:  # log-odds of the mean probability, exact where the probability rounds to 0 or 1
            wide = logits.astype(np.float64)
            clip = logsumexp(log_expit(wide), axis=0) - logsumexp(log_expit(-wide), axis=0)
        rate, n = self.tagger.sample_rate, len(logits)
        starts = np.asarray(self.starts, np.float64)
        ends = np.minimum(starts + self.tagger.window, self.samples)
        return Tags(
            file=self.name,
            duration_s=self.samples / rate,
            clip=expit(clip).astype(np.float32),
            logits=clip.astype(np.float32),
            embedding=(self.embedding / n).astype(np.float32),
            windows=windows,
            times=np.stack([starts, ends], axis=1) / rate,
            label_set=self.tagger.label_set,
        )


def _land(flight):
    """Hand the outputs of a launched batch to their recordings; padding rows have none."""
    if flight is None:
        return
    recordings, out = flight
    logits, embedding = np.asarray(out["logits"]), np.asarray(out["embedding"])
    for i, recording in enumerate(recordings):
        recording.add(logits[i].copy(), embedding[i])


def _finished(waiting):
    while waiting and waiting[0].read:
        first = waiting[0]
        if first.error is None and len(first.logits) < len(first.starts):
            return
        yield waiting.popleft().result()
