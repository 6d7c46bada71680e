"""From a source to batches: draw -> chain of host ops -> batch and mask (grain).

Row j of step k of the whole run is the global draw n = k * batch_size + j, and every example is a
function of (seed, n) alone. So neither threads, workers, caches nor processes change a number, and
a run resumes from its step. Process p of P yields the p-th of P equal stretches of each batch: the
global array has its rows in the same order whatever the number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import weakref
from dataclasses import dataclass

import grain
import numpy as np

from asjax import config
from asjax.config import AsjaxError
from asjax.data import draw as draws
from asjax.data.audio import AudioError

CACHE_BYTES = 1 << 30
MAX_TRIES = 100
_VERSION = 1  # of the numbers: change it with anything that changes an example
_EXAMPLE, _REDRAW = 101, 102  # streams of random numbers


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
    process_index: int = 0,
    process_count: int = 1,
    cache: bool | int = True,
    max_bad: float = 0.05,
) -> Pipeline:
    """Batches of `source`: endless in training, one pass in order in evaluation.

    A config is turned into these arguments by asjax.build.pipeline.

    Args:
      draw: which record comes n-th, of asjax.data.draw.
      ops: the chain of host ops, [(name, function)]. An example that the op called "decode" cannot
        read is replaced in training, and masked in evaluation.
      batch_size: rows of the global batch, over all processes.
      described: text that changes with anything that changes a number of a batch.
      workers: processes that decode beside this one (0: none); each runs `threads` threads.
      cache: keep decoded recordings in memory up to 1 GiB (or this many bytes) in all; what does
        not fit is decoded each time.
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
    budget = CACHE_BYTES if cache is True else int(cache)
    examples = _Examples(
        source,
        draw,
        ops=ops,
        pad_to=0 if train else -(-len(source) // batch_size) * batch_size,
        cache=_Cache(budget // max(1, workers)),
    )
    share = batch_size // process_count
    rows = slice(process_index * share, (process_index + 1) * share)
    identity = [_VERSION, source.hash, described, batch_size, train, draw.seed if train else 0]
    return Pipeline(
        steps=_Steps(examples, batch_size, rows),
        workers=workers,
        threads=threads,
        draws_per_epoch=draw.draws_per_epoch,
        steps_per_epoch=-(-draw.draws_per_epoch // batch_size),
        fingerprint=config.fingerprint(identity),
        max_bad=None if train else max_bad * len(source) / process_count,
    )


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


@dataclass(frozen=True, repr=False, eq=False)
class Pipeline:
    """What `build` returns.

    Attributes:
      steps: the batches by step, a grain MapDataset.
      steps_per_epoch: batches that hold an epoch's draws (the last one rounded up).
      fingerprint: SHA-256 (hex) of everything that decides a number of a batch; not of workers,
        threads, cache and processes.
    """

    steps: grain.MapDataset
    workers: int
    threads: int
    draws_per_epoch: int
    steps_per_epoch: int
    fingerprint: str
    max_bad: float | None

    def iterate(self, start_step: int = 0) -> Batches:
        """Batches from `start_step` on. Close the iterator, or use it in a `with` statement.

        A batch is a dict of what the chain makes, such as wave float32 [B, S] and target float32
        [B, C], and of mask float32 [B] (0: padding, or an undecodable clip of an evaluation), id
        (list of str, "" for padding) and bad, a list of (id, reason) of the clips replaced or
        masked.
        """
        if start_step < 0:
            raise AsjaxError(f"start_step must be 0 or more, got {start_step}")
        # The buffer counts whole batches: one per thread bounds the memory.
        read = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=self.threads)
        dataset = self.steps[start_step:].to_iter_dataset(read)
        if self.workers:
            _parse_flags()
            options = grain.MultiprocessingOptions(
                num_workers=self.workers, per_worker_buffer_size=1
            )
            dataset = dataset.mp_prefetch(options, _die_with_parent)
        return Batches(dataset, self.max_bad, self.workers)


def _parse_flags():
    """grain's workers read absl flags, which a program without absl has never parsed."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _die_with_parent(worker: int, workers: int):
    """Ends this worker when the program is killed: it would wait for a taker for ever."""
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="asjax-parent", daemon=True).start()


class Batches:
    """Iterator over batches and context manager; `close()` stops threads and worker processes."""

    def __init__(self, dataset, max_bad: float | None, workers: int):
        self._max_bad, self._bad, self._workers = max_bad, {}, workers
        self._held = [iter(dataset)]
        # Also when the caller forgets, and at exit while grain's modules are still alive.
        self._close = weakref.finalize(self, _close, self._held)

    def __iter__(self):
        return self

    def __next__(self) -> dict:
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
        if self._workers:  # out of shared memory, which is freed here and not by the user's care
            batch = {k: np.array(v) if isinstance(v, np.ndarray) else v for k, v in batch.items()}
        self._check(batch["bad"])
        return batch

    def _check(self, bad):
        self._bad.update(bad)
        if self._max_bad is not None and len(self._bad) > self._max_bad:
            self.close()
            raise AsjaxError(
                f"{len(self._bad)} clips of the evaluation set cannot be decoded, more than "
                f"max_bad allows ({'; '.join(sorted(self._bad.values())[:3])}); repair or remove "
                "them, or allow more with --config.data.max_bad"
            )

    def close(self):
        """Stop decoding; may be called again."""
        self._close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _close(held: list):
    while held:
        held.pop().close()


class _Examples(grain.MapDataset):
    """Random access to examples by global draw number; `pad_to` > 0 ends there with blank rows."""

    def __init__(self, source, draw, *, ops, pad_to, cache):
        super().__init__()
        self._source, self._draw, self._seed = source, draw, draw.seed
        self._ops, self._cache, self._pad_to = [op for _, op in ops], cache, pad_to
        names = [name for name, _ in ops]
        self._decoded = names.index("decode") + 1 if "decode" in names else 0

    def __len__(self):
        return self._pad_to or sys.maxsize

    def __repr__(self):
        return "asjax examples"

    def __getitem__(self, n):
        if isinstance(n, slice):
            return self.slice(n)
        if not self._pad_to:
            return self._trained(n)
        return self._evaluated(n) if n < len(self._source) else self._blank(n, "", [])

    def _trained(self, n):
        """Draw n; an undecodable clip gives way to a draw of the same epoch chosen by (seed, n)."""
        bad, index, epoch_length = [], self._draw(n), self._draw.draws_per_epoch
        for attempt in range(MAX_TRIES):
            try:
                return {**self._made(index, self._rng(n)), "mask": 1.0, "bad": bad}
            except AudioError as error:
                bad.append((self._source.ids[index], str(error)))
            other = draws.random_bits(self._seed, _REDRAW, n, attempt) % epoch_length
            index = self._draw(n - n % epoch_length + other)
        raise AsjaxError(
            f"{MAX_TRIES} draws in a row could not be decoded, the last one: {bad[-1][1]}"
        )

    def _evaluated(self, n):
        index = self._draw(n)
        try:
            return {**self._made(index, self._rng(n)), "mask": 1.0, "bad": []}
        except AudioError as error:
            start, stop = self._source.labels.indptr[index : index + 2]
            labels, name = self._source.labels.indices[start:stop], self._source.ids[index]
            return {**self._blank(n, name, labels), "bad": [(name, str(error))]}

    def _made(self, index, rng):
        """The example of a record, decoded now or found in the cache."""
        example = self._cache.get(index)
        if example is None:
            example = self._source[index]
            for op in self._ops[: self._decoded]:
                example = op(example, rng)
            if example.pop("whole", False):
                self._cache.put(index, example)
        return self._rest(example, rng)

    def _blank(self, n, name, labels):
        """A row of padding: silence that went through the rest of the chain."""
        example = {"id": name, "labels": labels, "wave": np.zeros(0, np.float32)}
        return {**self._rest(example, self._rng(n)), "mask": 0.0, "bad": []}

    def _rest(self, example, rng):
        for op in self._ops[self._decoded :]:
            example = op(example, rng)
        return example

    def _rng(self, n):
        key = [draws.random_bits(self._seed, _EXAMPLE), n]
        return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))


class _Steps(grain.MapDataset):
    """Random access to this process's rows of the batch of each step.

    Arrays go into the batch one by one: held apart and stacked, waves would need twice the memory
    and cost a tenth of the decoding's time.
    """

    def __init__(self, examples, batch_size, rows):
        super().__init__()
        self._examples, self._batch_size, self._rows = examples, batch_size, rows

    def __len__(self):
        return len(self._examples) // self._batch_size

    def __repr__(self):
        return "asjax batches"

    def __getitem__(self, step):
        if isinstance(step, slice):
            return self.slice(step)
        draws = range(step * self._batch_size, (step + 1) * self._batch_size)[self._rows]
        batch = {}
        for row, n in enumerate(draws):
            example = self._examples[n]
            if not batch:
                batch = {key: _column(value, len(draws)) for key, value in example.items()}
            _check_like(example, batch)
            for key, value in example.items():
                if isinstance(batch[key], np.ndarray):
                    batch[key][row] = value
                elif key == "bad":
                    batch[key] += value
                else:
                    batch[key].append(value)
        return batch


def _column(value, rows: int):
    """Room for one entry of each example: an array for arrays and numbers, else a list."""
    if isinstance(value, np.ndarray):
        return np.empty((rows, *value.shape), value.dtype)
    if isinstance(value, (bool, int, float, np.generic)):
        dtype = np.float32 if isinstance(value, float) else np.asarray(value).dtype
        return np.empty(rows, dtype)
    return []


def _check_like(example, batch) -> None:
    """AsjaxError unless an example has the names and shapes of its batch."""
    if example.keys() != batch.keys():
        odd = ", ".join(sorted(example.keys() ^ batch.keys()))
        raise AsjaxError(f"clip {example['id']}: the host ops give {odd} to some clips only")
    for key, value in example.items():
        shape = getattr(batch[key], "shape", None)
        if shape is not None and np.shape(value) != shape[1:]:
            raise AsjaxError(
                f"clip {example['id']}: the host ops must make {key} of one shape for all clips, "
                f"got {np.shape(value)} and {shape[1:]}"
            )


class _Cache:
    """Decoded examples by record index until `budget` bytes are used; nothing is thrown out,
    because a shuffled pass comes back to each clip after all others. Workers start empty."""

    def __init__(self, budget: int):
        self._budget, self._free, self._kept = budget, budget, {}
        self._lock = threading.Lock()

    def get(self, index):
        return self._kept.get(index)

    def put(self, index, example):
        with self._lock:
            if index not in self._kept and example["wave"].nbytes <= self._free:
                self._free -= example["wave"].nbytes
                self._kept[index] = example

    def __reduce__(self):
        return _Cache, (self._budget,)
