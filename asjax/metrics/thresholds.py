"""Counts at every threshold: sums of changes by class and score, in any order of the clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax.metrics.piecewise import none_of

_CROSS = ("weight", "other")
_COMPACT = 1 << 22  # changes in a sparse table before those with equal scores are summed


@dataclass(frozen=True)
class Changes:
    """Changes of counts when the threshold falls to a key. Changes at the key "no score" are
    ignored.

    Attributes:
      label, key, clip: [K] each.
      false, true: change of the number of false and true positives, [K] or None (no change).
      weight: change of the weight of cross triggers. other: the class of these events. Or None.
    """

    label: np.ndarray
    key: np.ndarray
    clip: np.ndarray
    false: np.ndarray | None = None
    true: np.ndarray | None = None
    weight: np.ndarray | None = None
    other: np.ndarray | None = None

    def select(self, which) -> Changes:
        columns = (getattr(self, name) for name in self.__dataclass_fields__)
        return Changes(*(None if c is None else c[which] for c in columns))

    def column(self, name: str, kind) -> np.ndarray:
        value = getattr(self, name)
        return np.zeros(len(self.key), kind) if value is None else value.astype(kind, copy=False)


class Table:
    """Sums of changes by class and key.

    A table of 16-bit keys has one cell per key, 65,536 per class. Changes at wider keys are kept as
    lists, and equal keys are summed from time to time.
    """

    def __init__(self, classes: int, kind, weighted: bool):
        self.classes, self.kind, self.weighted = classes, np.dtype(kind), weighted
        self.dense = self.kind.itemsize == 2
        if self.dense:
            self.counts = np.zeros((2, classes << 16), np.int32)
            self.weights = np.zeros(classes << 16 if weighted else 0)
        else:
            self.parts, self.size, self.least = [], 0, 0

    def add(self, change: Changes) -> None:
        real = change.key > none_of(self.kind)
        if not real.all():
            change = change.select(real)
        if self.dense:
            place = (change.label << 16) + change.key + (1 << 15)
            for total, value in zip(self.counts, (change.false, change.true), strict=True):
                if value is not None:
                    np.add.at(total, place, value.astype(np.int32))
            if change.weight is not None:
                np.add.at(self.weights, place, change.weight)
            return
        values = [
            change.column(n, k) for n, k in (("false", int), ("true", int), ("weight", float))
        ]
        self.parts.append((change.label, change.key, *values))
        self.size += len(change.key)
        if self.size > max(_COMPACT, 2 * self.least):
            self._compact()

    def _compact(self):
        if self.size == self.least:
            return
        label, key, *values = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        order = np.lexsort((key, label))
        label, key = label[order], key[order]
        first = np.ones(len(key), bool)
        first[1:] = (label[1:] != label[:-1]) | (key[1:] != key[:-1])
        starts = np.flatnonzero(first)
        sums = [np.add.reduceat(v[order], starts) if len(starts) else v for v in values]
        some = np.any([v != 0 for v in sums], axis=0)
        self.parts = [tuple(v[some] for v in (label[starts], key[starts], *sums))]
        self.size = self.least = int(some.sum())

    def of_class(self, c: int, above=None) -> tuple[np.ndarray, ...]:
        """(keys, false positives, true positives, cross-trigger weight) from the highest key down.

        The counts are for a threshold equal to the key. Keys without a change are left out. With
        `above`, only keys above it are returned.
        """
        if self.dense:
            part = slice(c << 16, (c + 1) << 16)
            false, true = self.counts[0, part], self.counts[1, part]
            weight = self.weights[part] if self.weighted else np.zeros(1 << 16)
            place = np.flatnonzero((false != 0) | (true != 0) | (weight != 0))[::-1]
            key = (place - (1 << 15)).astype(self.kind)
            false, true, weight = false[place], true[place], weight[place]
        else:
            self._compact()
            if not self.parts:
                self.parts = [tuple(np.zeros(0, t) for t in (np.int32, self.kind, *"qqd"))]
            label, *columns = self.parts[0]
            start, stop = np.searchsorted(label, [c, c + 1])
            key, false, true, weight = (x[start:stop][::-1] for x in columns)
        if above is not None:
            some = key > above
            key, false, true, weight = key[some], false[some], true[some], weight[some]
        sums = (np.cumsum(x, dtype=np.int64) for x in (false, true))
        return (key, *sums, np.cumsum(weight))


class Kept:
    """All changes with their clips, for resampling."""

    _KINDS = {
        "label": np.int16,
        "clip": np.int32,
        "false": np.int8,
        "true": np.int8,
        "weight": np.float64,
        "other": np.int16,
    }

    def __init__(self, weighted: bool):
        self.names = [
            name for name in Changes.__dataclass_fields__ if weighted or name not in _CROSS
        ]
        self.parts: list[dict] = []

    def add(self, change: Changes) -> None:
        real = change.key > none_of(change.key.dtype)
        change = change.select(real)
        self.parts.append(
            {
                name: change.key if name == "key" else change.column(name, self._KINDS[name])
                for name in self.names
            }
        )

    def by_class(self, classes: int):
        """Yields the changes of each class as a dict of arrays, from the highest key down."""
        if not self.parts:
            return
        label = np.concatenate([part["label"] for part in self.parts])
        order = np.argsort(label, kind="stable")
        ends = np.searchsorted(label[order], np.arange(classes + 1))
        columns = {}
        for name in self.names[1:]:
            columns[name] = np.concatenate([part.pop(name) for part in self.parts])[order]
        for start, stop in zip(ends[:-1], ends[1:], strict=True):
            part = {name: value[start:stop] for name, value in columns.items()}
            order = np.argsort(~part["key"], kind="stable")
            yield {name: value[order] for name, value in part.items()}
