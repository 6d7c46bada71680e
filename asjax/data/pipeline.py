"""From a source to batches: draw -> chain of host ops -> batch and mask (grain).

Row j of step k of the whole run is the global draw n = k * batch_size + j, and every example is a
function of (seed, n) alone. So threads, workers, caches and processes do not change any number, and
a run resumes from its step. A process makes only the rows of a batch that belong to its devices.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import grain
import numpy as np

from asjax import config
from asjax.config import AsjaxError
from asjax.data import patience
from asjax.data import workers as processes
from asjax.data.batch import Cache, Examples, Steps

CACHE_BYTES = 1 << 30
_VERSION = 1  # increase it with every change of the code that changes an example


def build(
    source,
    *,
    draw,
    ops,
    batch_size: int,
    described: str,
    train: bool = True,
    workers: int = 0,
    threads: int = 2,
    rows: Sequence[int] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    cache: bool | int = True,
    max_bad: float = 0.05,
    decode_timeout_s: float = 60.0,
    teacher=None,
    table=None,
    notes: Sequence[str] = (),
) -> Pipeline:
    """Batches of `source`: endless in training, one pass in order in evaluation.

    asjax.build.pipeline makes these arguments from a config.

    Args:
      draw: the record of each draw number, from asjax.data.draw.
      ops: the chain of host ops, [(name, function)]. An example that an op cannot decode
        (AudioError) is replaced in training, and masked in evaluation.
      batch_size: rows of the global batch, over all processes.
      described: a text of all options that change a number of a batch, for the fingerprint.
      workers: number of additional processes that decode; each runs `threads` threads. One that
        dies is started again (asjax.data.workers).
      rows: the rows of every global batch that this process makes, ascending, as from
        asjax.sharding.local_rows. Default: part `process_index` of `process_count` equal parts.
      cache: keep decoded recordings in memory. True means `CACHE_BYTES`; a number is a size in
        bytes, for this pipeline and all its workers together. Other recordings are decoded each
        time. `cache_shares` divides a budget among the pipelines of a program.
      max_bad: largest share of undecodable clips in an evaluation. In training such clips are
        replaced and reported in `bad`, and quarantine.Quarantine counts them.
      decode_timeout_s: seconds after which a record counts as unreadable and a silent worker as
        dead.
      teacher: stored logits for the host op `teacher` (asjax.data.teacher.Stored), or None.
      table: all waves (asjax.data.resident.Table), if `wave` has their numbers; for the attribute.
      notes: lines for people about the data, for the attribute of this name.

    Raises:
      AsjaxError: a value out of its range, an empty source.
    """
    _check_counts(batch_size, workers, threads, process_index, process_count)
    if not 0 <= max_bad <= 1:
        raise AsjaxError(f"max_bad must be 0 to 1 (a share of the clips), got {max_bad!r}")
    if not len(source):
        raise AsjaxError("the data source must have at least one clip, got none; check its splits")
    if rows is None:
        share = batch_size // process_count
        rows = range(process_index * share, (process_index + 1) * share)
    budget = CACHE_BYTES if cache is True else int(cache)
    kept = Cache(budget // max(1, workers))
    examples = Examples(
        source, draw, ops=ops, train=train, cache=kept, timeout_s=decode_timeout_s, teacher=teacher
    )
    steps_per_epoch = -(-draw.draws_per_epoch // batch_size)
    identity = [_VERSION, source.hash, described, batch_size, train, draw.seed if train else 0]
    return Pipeline(
        source=source,
        steps=Steps(examples, batch_size, np.asarray(rows), 0 if train else steps_per_epoch),
        train=train,
        workers=workers,
        threads=threads,
        rows=np.asarray(rows),
        batch_size=batch_size,
        draws_per_epoch=draw.draws_per_epoch,
        steps_per_epoch=steps_per_epoch,
        fingerprint=config.fingerprint(identity),
        max_bad=None if train else max_bad * len(source),
        decode_timeout_s=decode_timeout_s,
        notes=tuple(notes),
        table=table,
    )


def cache_shares(cache: bool | int, clips: Sequence[int]) -> list[int]:
    """Divide a budget (True: `CACHE_BYTES`) among pipelines in proportion to their clips."""
    budget = CACHE_BYTES if cache is True else int(cache)
    return [budget * n // max(1, sum(clips)) for n in clips]


def _check_counts(batch_size, workers, threads, process_index, process_count):
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("workers", workers, 0),
        ("threads", threads, 0),
        ("process_count", process_count, 1),
    ):
        if value < least:
            raise AsjaxError(f"{name} must be at least {least}, got {value!r}")
    if not 0 <= process_index < process_count:
        raise AsjaxError(f"process_index must be below {process_count}, got {process_index}")
    if batch_size % process_count:
        raise AsjaxError(
            f"batch_size must be a multiple of the {process_count} processes, got {batch_size}"
        )


# --------------------------------------------------------------------------- passes over the data


@dataclass(frozen=True, repr=False, eq=False)
class Pipeline:
    """The result of `build`.

    The worker processes of an evaluation wait for its next pass. They end with `close`, with a
    `with` statement, with the program, and with the last reference to the pipeline.

    Attributes:
      source: the clips.
      steps: the batches by step, a grain MapDataset; an evaluation begins again after its last.
      rows: int [R], the rows of each global batch that this process makes.
      batch_size: rows of the global batch.
      steps_per_epoch: number of batches for the draws of an epoch, rounded up.
      fingerprint: SHA-256 (hex) of everything that changes a number of a batch. Workers, threads,
        cache and processes do not change it.
      max_bad: largest number of undecodable clips in an evaluation, over all processes.
      notes: lines for people about the data.
      table: all waves, if `wave` has only their numbers (asjax.data.resident.Table); else None.
    """

    source: object
    steps: grain.MapDataset
    train: bool
    workers: int
    threads: int
    rows: np.ndarray
    batch_size: int
    draws_per_epoch: int
    steps_per_epoch: int
    fingerprint: str
    max_bad: float | None
    decode_timeout_s: float
    notes: tuple[str, ...] = ()
    table: object = None
    _idle: list = field(default_factory=list, init=False)  # workers that wait for the next pass

    def __post_init__(self):
        weakref.finalize(self, _close, self._idle)

    def iterate(self, start_step: int = 0) -> Batches:
        """Batches from `start_step` on. Close the iterator, or use it in a `with` statement.

        A batch is a dict with the results of the chain, such as wave [B, S] (int16 or float32) and
        target float32 [B, C], and these entries:
          mask: float32 [B], 0 for padding and for an undecodable clip of an evaluation
          id: list of str, "" for padding
          bad: list of (id, reason) of replaced or masked clips
        The arrays belong to the caller: nothing writes to them again.

        At the end of a pass of an evaluation, its workers begin the next pass, so the first batch
        of that pass is ready. If a pass is closed before its end, the workers end.
        """
        if start_step < 0:
            raise AsjaxError(f"start_step must be 0 or more, got {start_step}")
        if self._idle and not start_step:
            crew = self._idle.pop()
            crew.stop.clear()
            return Batches(crew, self, self.steps_per_epoch, crew.stop)
        if not self.train:  # a pass has no batch after its end
            start_step = min(start_step, self.steps_per_epoch)
        left = None if self.train else self.steps_per_epoch - start_step
        if self.workers:
            counts = {"workers": self.workers, "threads": self.threads}
            crew = processes.Crew(self.steps, start_step, **counts, silent_s=self.decode_timeout_s)
            return Batches(crew, self, left, crew.stop)
        stop = threading.Event()
        last = None if self.train else self.steps_per_epoch
        steps = self.steps.until(stop)[start_step:last]
        return Batches(processes.batches_of(steps, self.threads), self, left, stop)

    def check_bad(self, bad: dict[str, str]) -> None:
        """Raise AsjaxError if more clips of an evaluation are undecodable than max_bad allows."""
        if self.max_bad is not None and len(bad) > self.max_bad:
            raise AsjaxError(
                f"{len(bad)} clips of the evaluation set cannot be decoded, more than "
                f"max_bad allows ({'; '.join(sorted(bad.values())[:3])}); repair or remove "
                "them, or allow more with data.max_bad (--config.data.max_bad of asjax train)"
            )

    def close(self) -> None:
        """End the workers that wait for a next pass. A second call does nothing."""
        _close(self._idle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Batches:
    """Iterator over batches and context manager. `close()` stops threads and worker processes.

    Args:
      left: number of batches until the end of the pass; None: endless.
      interruption: an event that ends the waiting of `iterator` with patience.Stopped.
    """

    def __init__(self, iterator, pipeline: Pipeline, left: int | None, interruption):
        self._pipeline, self._left, self._bad = pipeline, left, {}
        self._interruption = interruption
        self._held = [iterator]
        # Closes also if the caller does not, and at exit, before grain's modules are removed.
        self._stop = weakref.finalize(self, _close, self._held, interruption)

    def __iter__(self):
        return self

    def __next__(self) -> dict:
        if self._left == 0:
            self.close()
        if not self._held:
            raise StopIteration
        try:
            batch = next(self._held[0])
        except patience.Stopped:
            self.close()
            raise StopIteration from None
        except BaseException:
            self.close()
            raise
        if self._left is not None:
            self._left -= 1
            self._check(batch["bad"])
        return batch

    def _check(self, bad):
        self._bad.update(bad)
        # With several processes all must stop. So the check is where their results are joined.
        if len(self._pipeline.rows) == self._pipeline.batch_size:
            try:
                self._pipeline.check_bad(self._bad)
            except AsjaxError:
                self.close()
                raise

    def interrupt(self) -> None:
        """End a `next` that waits in another thread, with StopIteration. It takes under a second,
        even if a read hangs."""
        if self._held:
            self._interruption.set()

    def close(self):
        """Stop decoding. After a complete pass the workers remain for the next pass. A second call
        does nothing."""
        idle = self._pipeline._idle
        if self._held and self._left == 0 and self._pipeline.workers and not idle:
            idle.append(self._held.pop())
        self._stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def say_untrained(label_set, train, *others) -> None:
    """Warn about classes that clips of `others` have and no clip of `train` has (all sources).

    Not for label propagation, where clips of subclasses train a class too.
    """
    has = [np.asarray(source.labels.sum(axis=0)).ravel() > 0 for source in (train, *others)]
    never = np.flatnonzero(np.any(has[1:], axis=0) & ~has[0])
    if len(never):
        names = ", ".join(config.shown(label_set.names[i]) for i in never[:3])
        more = f" and {len(never) - 3} more" if len(never) > 3 else ""
        config.warn(
            f"no training clip has the classes {names}{more}, but clips of the evaluation have; a "
            "model cannot learn them"
        )


def _close(held: list, interruption: threading.Event | None = None):
    while held:
        if interruption is not None:
            interruption.set()  # threads that still decode stop before their next clip
        held.pop().close()
