"""Splits that keep groups together: one recording or site must not be in training and test."""

from __future__ import annotations

import hashlib

import numpy as np

from asjax.config import AsjaxError


def folds(groups: list[str], labels, count: int) -> list[str]:
    """`fold1` ... `fold{count}` for each clip. Clips of one group are in one fold.

    Classes and clips are spread evenly. Groups are assigned one by one, the largest first, to the
    fold where the sum over classes of (share of the class)^2 grows least. The number of clips
    counts as one more class. Groups of equal size are ordered by the SHA-256 of their name, so the
    result does not depend on the order of the list.

    Args:
      groups: one per clip. labels: scipy sparse [N, C].

    Raises:
      AsjaxError: fewer groups than folds, or fewer than 2 folds.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise AsjaxError(f"folds must be an integer of at least 2, got {count!r}")
    names, which = np.unique(np.array(groups, dtype=object), return_inverse=True)
    if len(names) < count:
        raise AsjaxError(f"folds must be at most the {len(names)} groups of clips, got {count}")
    table = _per_group(which, labels, len(names))
    sizes = np.bincount(which)
    totals = np.append(np.asarray(table.sum(axis=0)).ravel(), len(groups)).astype(np.float64)
    held = np.zeros((count, len(totals)))
    digests = [hashlib.sha256(str(name).encode()).digest() for name in names]
    chosen = np.zeros(len(names), np.int64)
    for group in sorted(range(len(names)), key=lambda g: (-sizes[g], digests[g])):
        start, stop = table.indptr[group : group + 2]
        columns = np.append(table.indices[start:stop], len(totals) - 1)
        added = np.append(table.data[start:stop], sizes[group])
        cost = ((2 * held[:, columns] + added) * added / totals[columns] ** 2).sum(axis=1)
        fold = chosen[group] = int(np.argmin(np.round(cost, 12)))
        held[fold, columns] += added
    return [f"fold{fold + 1}" for fold in chosen[which]]


def straddling(groups: list[str], splits: list[str]) -> list[str]:
    """Groups with clips in more than one split, sorted."""
    first: dict[str, str] = {}
    both = {g for g, s in zip(groups, splits, strict=True) if first.setdefault(g, s) != s}
    return sorted(both)


def _per_group(which, labels, count: int):
    """Labels [N, C] summed over each group: CSR [count, C]."""
    from scipy import sparse

    ones = np.ones(len(which), np.int64)
    gather = sparse.csr_array((ones, (which, np.arange(len(which)))), (count, len(which)))
    table = sparse.csr_array(gather @ sparse.csr_array(labels).astype(np.int64))
    table.sum_duplicates()
    return table
