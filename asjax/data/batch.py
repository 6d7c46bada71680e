"""Examples by draw number and batches by step number: random access, pure functions."""

from __future__ import annotations

import sys
import threading
from functools import partial

import grain
import numpy as np

from asjax.config import AsjaxError, blaming, quoted, shown
from asjax.data import costs, patience
from asjax.data import draw as draws
from asjax.data.audio import AudioError
from asjax.data.shared import Parcel

MAX_TRIES = 100
_REDRAW = 102  # a stream of random numbers
_OF_SOUND = ("audio", "part", "recording")  # entries that `decode` takes out
_ALIGN = 64  # bytes; jax on CPU uses an array at such an address without a copy


class Examples:
    """Examples by global draw number. A record that takes longer than `timeout_s` to read counts as
    undecodable. `teacher`: stored logits (asjax.data.teacher.Stored) for the host op, or None."""

    def __init__(self, source, draw, *, ops, train, cache, timeout_s=60.0, teacher=None):
        self._teacher = teacher
        self._timeout_s = timeout_s
        self._source, self._draw, self._seed = source, draw, draw.seed
        self._ops, self._train, self._cache = [op for _, op in ops], train, cache
        self._names = names = [name for name, _ in ops]
        self._decode = names.index("decode") if "decode" in names else -1
        pcm16 = any(getattr(op, "keywords", {}).get("pcm16") for op in self._ops)
        self._silence = np.zeros(0, np.int16 if pcm16 else np.float32)

    def __len__(self):
        return sys.maxsize if self._train else len(self._source)

    def __getitem__(self, n):
        return self._trained(n) if self._train else self._evaluated(n)

    def _trained(self, n):
        """The example of draw n. Another draw of the same epoch, chosen by (seed, n), replaces an
        undecodable clip."""
        bad, index, epoch_length = [], self._drawn(n), self._draw.draws_per_epoch
        for attempt in range(MAX_TRIES):
            with patience.making(f"clip {self._source.ids[index]}"):
                example, error = self._made(index, n)
            if not error:
                return {**example, "mask": 1.0, "bad": bad}
            bad.append((self._source.ids[index], error))
            other = draws.random_bits(self._seed, _REDRAW, n, attempt) % epoch_length
            index = self._drawn(n - n % epoch_length + other)
        raise AsjaxError(
            f"{MAX_TRIES} clips in a row could not be decoded; the last error: {bad[-1][1]}"
        )

    def _evaluated(self, n):
        index = self._drawn(n)
        with patience.making(f"clip {self._source.ids[index]}"):
            example, error = self._made(index, n)
        bad = [(example["id"], error)] if error else []
        return {**example, "mask": 0.0 if error else 1.0, "bad": bad}

    def _drawn(self, n) -> int:
        """The record of draw n. AsjaxError: the draw gives no number of a record."""
        label = f"draw {type(self._draw).__name__}"
        with blaming(label):
            index = self._draw(n)
        whole = isinstance(index, (int, np.integer)) or getattr(index, "shape", None) == ()
        if not whole or not 0 <= index < len(self._source):
            raise AsjaxError(
                f"{label} must give the number of a record, 0 to {len(self._source) - 1}, got "
                f"{quoted(index)}"
            )
        return index

    def _applied(self, number, example, rng):
        """The example after an op. AsjaxError: the op failed, or returned no whole example."""
        label = f"host op {self._names[number]}"
        try:
            with blaming(label, patience.Stopped, KeyError), costs.timed("decode"):
                new = self._ops[number](example, rng)
        except KeyError as error:
            key = error.args[0] if error.args else None
            if key in example:
                raise AsjaxError(f"{label}: KeyError: {quoted(key)}") from error
            raise AsjaxError(
                f"{label} needs {quoted(key)}, and the example has only {', '.join(example)}; "
                "is the order of data.ops right?"
            ) from error
        if not isinstance(new, dict):
            raise AsjaxError(f"{label} must return the example, a dict, got {quoted(new)}")
        if lost := {"id", "wave"} & (example.keys() - new.keys()):
            raise AsjaxError(f"{label} must keep {', '.join(sorted(lost))} in the example")
        return new

    def _made(self, index, n):
        """(example, error) of a record; the error is "" if it could be decoded."""
        rng, error = self._rng(n), ""
        example = self._cache.get(index)
        done = example is not None
        if not done:
            example, error = self._read(index)
            if error and self._train:
                return example, error
        if self._teacher is not None:
            row, rng = self._teacher.pick(index, rng)
            example = {**example, "teacher_row": row}
        # Without audio, the first op after the decoder (or after the user's own one) is next.
        skip = max(0, self._decode) if error else self._decode
        for number in range(len(self._ops)):
            if (done or error) and number <= skip:
                continue
            try:
                example = self._applied(number, example, rng)
            except AudioError as caught:
                error = str(caught)
                if self._train:
                    break
                example = {k: v for k, v in example.items() if k not in _OF_SOUND}
                example["wave"] = self._silence
            # Only the result of the first op depends on the record alone and may be cached.
            if example.pop("whole", False) and self._decode == number == 0:
                self._cache.put(index, example)
        return example, error

    def _read(self, index):
        """(record, error); a record that cannot be read in time has labels and silence only."""
        name = self._source.ids[index]
        try:
            read = partial(self._source.__getitem__, index)
            label = f"data source {shown(getattr(self._source, 'name', ''))}"
            with blaming(label, patience.Stopped), costs.timed("read"):
                record = patience.call(read, self._timeout_s, shown(name))
            if not isinstance(record, dict) or "id" not in record:
                raise AsjaxError(f"{label}: a clip must be a dict with an id, got {quoted(record)}")
            return record, ""
        except AudioError as caught:
            row = self._source.labels[index]
            record = {"id": name, "labels": row.indices.astype(np.int64), "wave": self._silence}
            if getattr(self._source, "events", None) is not None:
                record["events"] = self._source.events[index]
            if getattr(self._source, "labelled", None) is not None:
                record["labelled"] = float(self._source.labelled[index])
            return record, str(caught)

    def _rng(self, n):
        return draws.generator(self._seed, n)


class Steps(grain.MapDataset):
    """Random access to this process's rows of the batch of each step.

    Each array is copied into the batch at once. Stacking all waves at the end would need twice the
    memory and cost a tenth of the decoding time.

    Args:
      period: steps of a pass; after it the next pass begins. 0: endless.
      stop: an event; after it is set, batches in progress end with patience.Stopped. It stays
        behind when the steps go to another process.
    """

    def __init__(self, examples, batch_size, rows, period, stop=None):
        super().__init__()
        self._stop = stop
        self._examples, self._batch_size = examples, batch_size
        self._rows, self._period = [int(row) for row in rows], period
        self._parcel, self._lock = None, threading.Lock()

    def __len__(self):
        return sys.maxsize // self._batch_size

    def __repr__(self):
        return "asjax batches"

    def __reduce__(self):
        """Pickle as a parcel, so that all workers map the same arrays (asjax.data.shared)."""
        with self._lock:
            if self._parcel is None:
                self._parcel = Parcel((self._examples, self._batch_size, self._rows, self._period))
        return _steps, (self._parcel,)

    def until(self, stop: threading.Event) -> Steps:
        """The same steps with an event `stop`."""
        return Steps(self._examples, self._batch_size, self._rows, self._period, stop)

    def __getitem__(self, step):
        if isinstance(step, slice):
            return self.slice(step)
        with patience.until(self._stop):
            return self._batch(step)

    def _batch(self, step):
        first = (step % self._period if self._period else step) * self._batch_size
        real = [first + row for row in self._rows if first + row < len(self._examples)]
        batch, rows = {}, len(self._rows)
        for row, n in enumerate(real or [0]):  # if all rows are padding, clip 0 gives the shapes
            if self._stop is not None and self._stop.is_set():
                raise patience.Stopped
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


def _steps(parts) -> Steps:
    return Steps(*parts)


def _column(value, rows: int):
    """An empty column of a batch: an array for arrays and numbers, else a list.

    Arrays with named fields, such as events, go into a list, because their lengths differ.
    """
    plain = isinstance(value, np.ndarray) and value.dtype.names is None
    if plain and value.dtype.kind in "biufcV":
        return _room((rows, *value.shape), value.dtype)
    if isinstance(value, (bool, int, float, np.generic)):
        dtype = np.float32 if isinstance(value, float) else np.asarray(value).dtype
        return np.empty(rows, dtype)
    return []


def _check_like(example, batch) -> None:
    """Raise AsjaxError if an example differs from its batch in names, shapes or dtypes."""
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


class Cache:
    """Decoded examples by record index, up to `budget` bytes. Nothing is removed again, because a
    shuffled pass returns to a clip only after all others. Workers start with an empty cache."""

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
        return Cache, (self._budget,)


def _room(shape, dtype) -> np.ndarray:
    """An empty array with its memory aligned to `_ALIGN` bytes."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.empty(size + _ALIGN, np.uint8)
    start = -raw.ctypes.data % _ALIGN
    return raw[start : start + size].view(dtype).reshape(shape)


def owned(array) -> np.ndarray:
    """A copy in aligned memory, so that jax on CPU does not copy it again."""
    copy = _room(array.shape, array.dtype)
    copy[...] = array
    return copy
