"""From a source to batches: draw -> chain of host ops -> batch and mask (grain).

Row j of step k of the whole run is the global draw n = k * batch_size + j, and every example is a
function of (seed, n) alone. So neither threads, workers, caches nor processes change a number, and
a run resumes from its step. A process makes the rows of each batch that live on its devices.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import grain
import numpy as np

from asjax import config
from asjax.config import AsjaxError
from asjax.data import draw as draws
from asjax.data.audio import AudioError
from asjax.data.shared import Parcel

CACHE_BYTES = 1 << 30
MAX_TRIES = 100
_VERSION = 1  # of the numbers: change it with anything that changes an example
_EXAMPLE, _REDRAW = 101, 102  # streams of random numbers
_ALIGN = 64  # bytes; jax on CPU takes over an array that begins at such an address, without a copy


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
) -> Pipeline:
    """Batches of `source`: endless in training, one pass in order in evaluation.

    A config is turned into these arguments by asjax.build.pipeline.

    Args:
      draw: which record comes n-th, of asjax.data.draw.
      ops: the chain of host ops, [(name, function)]. An example that an op cannot decode
        (AudioError) is replaced in training, and masked in evaluation.
      batch_size: rows of the global batch, over all processes.
      described: text that changes with anything that changes a number of a batch.
      workers: processes that decode beside this one (0: none); each runs `threads` threads.
      rows: which rows of every global batch this process makes, ascending, as
        asjax.sharding.local_rows says. Default: the `process_index`-th of `process_count` equal
        stretches.
      cache: keep decoded recordings in memory. True is `CACHE_BYTES`, a number is that many bytes,
        for this pipeline and all its workers together; what does not fit is decoded each time.
        `cache_shares` divides a budget among the pipelines of a program.
      max_bad: share of undecodable clips at which an evaluation stops. In training they are
        replaced and reported in `bad`; quarantine.Quarantine counts them.

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
    examples = _Examples(
        source, draw, ops=ops, train=train, cache=_Cache(budget // max(1, workers))
    )
    steps_per_epoch = -(-draw.draws_per_epoch // batch_size)
    identity = [_VERSION, source.hash, described, batch_size, train, draw.seed if train else 0]
    return Pipeline(
        steps=_Steps(examples, batch_size, np.asarray(rows), 0 if train else steps_per_epoch),
        train=train,
        workers=workers,
        threads=threads,
        rows=np.asarray(rows),
        batch_size=batch_size,
        draws_per_epoch=draw.draws_per_epoch,
        steps_per_epoch=steps_per_epoch,
        fingerprint=config.fingerprint(identity),
        max_bad=None if train else max_bad * len(source),
    )


def cache_shares(cache: bool | int, clips: Sequence[int]) -> list[int]:
    """A budget (True: `CACHE_BYTES`) divided among pipelines in proportion to their clips."""
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
    """What `build` returns.

    The worker processes of an evaluation stay for its next pass. `close`, or a `with` statement,
    ends them; so do the end of the program and the loss of the last reference to the pipeline.

    Attributes:
      steps: the batches by step, a grain MapDataset; an evaluation begins again after its last.
      rows: int [R], the rows of each global batch that this process makes.
      batch_size: rows of the global batch.
      steps_per_epoch: batches that hold an epoch's draws (the last one rounded up).
      fingerprint: SHA-256 (hex) of everything that decides a number of a batch; not of workers,
        threads, cache and processes.
      max_bad: undecodable clips that an evaluation may have, over all processes.
    """

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
    _idle: list = field(default_factory=list, init=False)  # workers that wait for the next pass

    def __post_init__(self):
        weakref.finalize(self, _close, self._idle)

    def iterate(self, start_step: int = 0) -> Batches:
        """Batches from `start_step` on. Close the iterator, or use it in a `with` statement.

        A batch is a dict of what the chain makes, such as wave [B, S] (int16 or float32) and target
        float32 [B, C], and of mask float32 [B] (0: padding, or an undecodable clip of an
        evaluation), id (list of str, "" for padding) and bad, a list of (id, reason) of the clips
        replaced or masked. Its arrays belong to the caller: nothing writes to them again.

        Of an evaluation whose pass ended, the workers have begun the next pass: its first batch is
        ready. A pass that is closed before its end ends them.
        """
        if start_step < 0:
            raise AsjaxError(f"start_step must be 0 or more, got {start_step}")
        if self._idle and not start_step:
            return Batches(self._idle.pop(), self, self.steps_per_epoch)
        left = None if self.train else max(0, self.steps_per_epoch - start_step)
        # The buffer counts whole batches: one per thread bounds the memory.
        read = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=self.threads)
        last = None if self.train or self.workers else self.steps_per_epoch
        dataset = self.steps[start_step:last].to_iter_dataset(read)
        if self.workers:
            _parse_flags()
            options = grain.MultiprocessingOptions(
                num_workers=self.workers, per_worker_buffer_size=1
            )
            dataset = dataset.mp_prefetch(options, _serve_parent)
        return Batches(iter(dataset), self, left)

    def check_bad(self, bad: dict[str, str]) -> None:
        """AsjaxError when more clips of an evaluation cannot be decoded than max_bad allows."""
        if self.max_bad is not None and len(bad) > self.max_bad:
            raise AsjaxError(
                f"{len(bad)} clips of the evaluation set cannot be decoded, more than "
                f"max_bad allows ({'; '.join(sorted(bad.values())[:3])}); repair or remove "
                "them, or allow more with --config.data.max_bad"
            )

    def close(self) -> None:
        """End the workers that wait for a next pass; may be called again."""
        _close(self._idle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _parse_flags():
    """grain's workers read absl flags, which a program without absl has never parsed."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _serve_parent(worker: int, workers: int):
    """In a worker: it ends when the program is killed, for it would wait for a taker for ever.

    Ctrl-C goes to all processes of a terminal. It is the program's to answer, which may want the
    batches that are under way.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="asjax-parent", daemon=True).start()


class Batches:
    """Iterator over batches and context manager; `close()` stops threads and worker processes.

    Args:
      left: batches until the pass ends; None: endless.
    """

    def __init__(self, iterator, pipeline: Pipeline, left: int | None):
        self._pipeline, self._left, self._bad = pipeline, left, {}
        self._held = [iterator]
        # Also when the caller forgets, and at exit while grain's modules are still alive.
        self._stop = weakref.finalize(self, _close, self._held)

    def __iter__(self):
        return self

    def __next__(self) -> dict:
        if self._left == 0:
            self.close()
        if not self._held:
            raise StopIteration
        try:
            batch = next(self._held[0])
        except RuntimeError as error:
            self.close()
            if "terminated unexpectedly" not in str(error):
                raise
            raise AsjaxError(
                f"a data worker died ({str(error).split('.')[0]}): out of memory, killed, or the "
                "program lacks `if __name__ == '__main__':`; use fewer workers "
                "(--config.data.workers=0 decodes in this process)"
            ) from None
        except BaseException:
            self.close()
            raise
        if self._pipeline.workers:  # out of shared memory, which is freed here: the only copy
            batch = {k: _owned(v) if isinstance(v, np.ndarray) else v for k, v in batch.items()}
        if self._left is not None:
            self._left -= 1
            self._check(batch["bad"])
        return batch

    def _check(self, bad):
        self._bad.update(bad)
        # With several processes all must stop, so who joins their results checks them.
        if len(self._pipeline.rows) == self._pipeline.batch_size:
            try:
                self._pipeline.check_bad(self._bad)
            except AsjaxError:
                self.close()
                raise

    def close(self):
        """Stop decoding, or leave the workers of a pass that ended to the next pass; may be called
        again."""
        idle = self._pipeline._idle
        if self._held and self._left == 0 and self._pipeline.workers and not idle:
            idle.append(self._held.pop())
        self._stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _close(held: list):
    while held:
        held.pop().close()


def _room(shape, dtype) -> np.ndarray:
    """An array whose memory begins at a multiple of `_ALIGN` bytes."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.empty(size + _ALIGN, np.uint8)
    start = -raw.ctypes.data % _ALIGN
    return raw[start : start + size].view(dtype).reshape(shape)


def _owned(array) -> np.ndarray:
    copy = _room(array.shape, array.dtype)
    copy[...] = array
    return copy


# ------------------------------------------------------------------------------ examples, batches


class _Examples:
    """Examples by global draw number."""

    def __init__(self, source, draw, *, ops, train, cache):
        self._source, self._draw, self._seed = source, draw, draw.seed
        self._ops, self._train, self._cache = [op for _, op in ops], train, cache
        # A decoded clip may be kept if nothing that depends on the draw came before.
        self._keeps = bool(ops) and ops[0][0] == "decode"
        pcm16 = any(getattr(op, "keywords", {}).get("pcm16") for op in self._ops)
        self._silence = np.zeros(0, np.int16 if pcm16 else np.float32)

    def __len__(self):
        return sys.maxsize if self._train else len(self._source)

    def __getitem__(self, n):
        return self._trained(n) if self._train else self._evaluated(n)

    def _trained(self, n):
        """Draw n; an undecodable clip gives way to a draw of the same epoch chosen by (seed, n)."""
        bad, index, epoch_length = [], self._draw(n), self._draw.draws_per_epoch
        for attempt in range(MAX_TRIES):
            example, error = self._made(index, n)
            if not error:
                return {**example, "mask": 1.0, "bad": bad}
            bad.append((self._source.ids[index], error))
            other = draws.random_bits(self._seed, _REDRAW, n, attempt) % epoch_length
            index = self._draw(n - n % epoch_length + other)
        raise AsjaxError(
            f"{MAX_TRIES} draws in a row could not be decoded, the last one: {bad[-1][1]}"
        )

    def _evaluated(self, n):
        example, error = self._made(self._draw(n), n)
        bad = [(example["id"], error)] if error else []
        return {**example, "mask": 0.0 if error else 1.0, "bad": bad}

    def _made(self, index, n):
        """The example of a record, and why it could not be decoded ("" if it could)."""
        rng, ops, error = self._rng(n), self._ops, ""
        example = self._cache.get(index)
        if example is None:
            example = self._source[index]
        else:
            ops = ops[1:]
        for op in ops:
            try:
                example = op(example, rng)
            except AudioError as caught:
                error = str(caught)
                if self._train:
                    break
                example = {k: v for k, v in example.items() if k != "audio"}
                example["wave"] = self._silence
            if example.pop("whole", False) and self._keeps:
                self._cache.put(index, example)
        return example, error

    def _rng(self, n):
        key = [draws.random_bits(self._seed, _EXAMPLE), n]
        return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))


class _Steps(grain.MapDataset):
    """Random access to this process's rows of the batch of each step.

    Arrays go into the batch one by one: held apart and stacked, waves would need twice the memory
    and cost a tenth of the decoding's time.

    Args:
      period: steps of a pass, after which it begins again; 0: endless.
    """

    def __init__(self, examples, batch_size, rows, period):
        super().__init__()
        self._examples, self._batch_size = examples, batch_size
        self._rows, self._period = [int(row) for row in rows], period
        self._parcel, self._lock = None, threading.Lock()

    def __len__(self):
        return sys.maxsize // self._batch_size

    def __repr__(self):
        return "asjax batches"

    def __reduce__(self):
        """For workers: all of them map the same arrays (asjax.data.shared)."""
        with self._lock:
            if self._parcel is None:
                self._parcel = Parcel((self._examples, self._batch_size, self._rows, self._period))
        return _steps, (self._parcel,)

    def __getitem__(self, step):
        if isinstance(step, slice):
            return self.slice(step)
        first = (step % self._period if self._period else step) * self._batch_size
        real = [first + row for row in self._rows if first + row < len(self._examples)]
        batch, rows = {}, len(self._rows)
        for row, n in enumerate(real or [0]):  # of padding alone, the first clip gives the shapes
            example = self._examples[n]
            if not batch:
                batch = {key: _column(value, rows) for key, value in example.items()}
            _check_like(example, batch)
            for key, value in example.items():
                if isinstance(batch[key], np.ndarray):
                    batch[key][row] = value
                elif key == "bad":
                    batch[key] += value
                else:
                    batch[key].append(value)
        for key, column in batch.items() if len(real) < rows else ():
            if isinstance(column, np.ndarray):
                column[len(real) :] = 0
            elif key == "bad":
                batch[key] = column if real else []
            else:
                blank = "" if isinstance(column[0], str) else None
                batch[key] = column[: len(real)] + [blank] * (rows - len(real))
        return batch


def _steps(parts) -> _Steps:
    return _Steps(*parts)


def _column(value, rows: int):
    """Room for one entry of each example: an array for arrays and numbers, else a list."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufcV":
        return _room((rows, *value.shape), value.dtype)
    if isinstance(value, (bool, int, float, np.generic)):
        dtype = np.float32 if isinstance(value, float) else np.asarray(value).dtype
        return np.empty(rows, dtype)
    return []


def _check_like(example, batch) -> None:
    """AsjaxError unless an example has the names, shapes and dtypes of its batch."""
    if example.keys() != batch.keys():
        odd = ", ".join(sorted(example.keys() ^ batch.keys()))
        raise AsjaxError(f"clip {example['id']}: the host ops give {odd} to some clips only")
    for key, value in example.items():
        column = batch[key]
        if not isinstance(column, np.ndarray):
            continue
        kind = (np.shape(value), getattr(value, "dtype", column.dtype))
        if kind != (column.shape[1:], column.dtype):
            raise AsjaxError(
                f"clip {example['id']}: the host ops must make {key} of one shape and dtype for "
                f"all clips, got {kind[1]} {list(kind[0])} and {column.dtype} "
                f"{list(column.shape[1:])}"
            )


class _Cache:
    """Decoded examples by record index until `budget` bytes are used; nothing is thrown out,
    because a shuffled pass comes back to each clip after all others. Workers start empty."""

    def __init__(self, budget: int):
        self._budget, self._free, self._kept = budget, budget, {}
        self._lock = threading.Lock()

    def get(self, index):
        example = self._kept.get(index)
        return None if example is None else dict(example)

    def put(self, index, example):
        size = sum(v.nbytes for v in example.values() if isinstance(v, np.ndarray))
        with self._lock:
            if index not in self._kept and size <= self._free:
                self._free -= size
                self._kept[index] = dict(example)

    def __reduce__(self):
        return _Cache, (self._budget,)
