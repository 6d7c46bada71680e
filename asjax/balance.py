"""Data set balancing: class statistics, beta-oversampling, and the samplers' weights.

The equations come from "Dataset balancing can hurt model performance". `labels` is hard multi-hot
[N, C], dense or scipy.sparse. Every value except 0 is one positive. Everything is float64 or
integer, because float32 sums give other tables. Each function visits the positives only, not N x C.
"""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError


def _rows(labels) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels as `(row starts [N + 1], class of each positive, number of classes)`, as in CSR."""
    if len(getattr(labels, "shape", ())) != 2:
        labels = np.asarray(labels)
        if labels.ndim != 2:
            raise AsjaxError(f"labels must be [N, C], got shape {labels.shape}")
    if not hasattr(labels, "tocsr"):
        rows, classes = np.nonzero(np.asarray(labels))
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=labels.shape[0]))])
        return starts, classes, labels.shape[1]
    csr = labels.tocsr()
    if not csr.has_canonical_format or (csr.nnz and not csr.data.all()):
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr.indptr, csr.indices, csr.shape[1]


def counts(labels) -> np.ndarray:
    """Positives per class N_k, int64 [C]."""
    _, classes, size = _rows(labels)
    return np.bincount(classes, minlength=size)


def priors(labels) -> np.ndarray:
    """Share of the clips that hold each class, p_k = N_k / N, float64 [C]."""
    starts, classes, size = _rows(labels)
    if len(starts) < 2:
        raise AsjaxError("priors need at least one clip, got none")
    return np.bincount(classes, minlength=size) / (len(starts) - 1)


def imbalance_ratio(counts) -> float:
    """rho = max N_k / min N_k over the classes that occur; NaN when none occurs.

    A class without a positive would make rho infinite, so report the number of such classes beside.
    """
    present = np.asarray(counts, np.float64)
    present = present[present > 0]
    return float(present.max() / present.min()) if present.size else float("nan")


def gini(p, textbook: bool = False) -> float:
    """Gini coefficient of priors or counts over all C classes, absent ones included.

    The default is the paper's eq. 3, 1 - 2 sum_k cumsum_k / (C sum p) over ascending p. The
    textbook coefficient is larger by exactly 1 / C. The result is NaN when no class occurs.
    """
    p = np.sort(np.asarray(p, np.float64))
    if p.ndim != 1 or not p.size or not np.isfinite(p).all() or p[0] < 0:
        raise AsjaxError("gini needs one finite non-negative number per class")
    if not p.any():
        return float("nan")
    value = 1.0 - 2.0 * np.cumsum(p).sum() / (p.size * p.sum())
    return float(value + 1.0 / p.size if textbook else value)


def _rarest(labels) -> np.ndarray:
    """N_k of the rarest class of each clip, int64 [N].

    A clip without a label gets the largest value that occurs, so its weight is the smallest.
    """
    starts, classes, size = _rows(labels)
    per_class = np.bincount(classes, minlength=size)
    lengths = np.diff(starts)
    labelled = lengths > 0
    rarest = np.ones(len(lengths), np.int64)
    if labelled.any():
        rarest[labelled] = np.minimum.reduceat(per_class[classes], starts[:-1][labelled])
        rarest[~labelled] = rarest[labelled].max()
    return rarest


def _check_beta(beta: float) -> float:
    if not (isinstance(beta, (int, float, np.number)) and np.isfinite(beta) and beta >= 0):
        raise AsjaxError(
            f"beta must be a finite number >= 0 (0: no balancing, 1: full balancing), got {beta!r}"
        )
    return float(beta)


def clip_factor(labels, beta: float) -> np.ndarray:
    """m_j = max over the classes k of clip j of (1 / p_k)^beta, float64 [N].

    A clip without a label gets the smallest m_j that occurs. m_j is proportional to the expected
    number of draws, so it is a sampling weight too.
    """
    beta, rarest = _check_beta(beta), _rarest(labels)
    return (len(rarest) / rarest) ** beta


def oversampling(labels, beta: float) -> np.ndarray:
    """Copies of each clip per epoch, M_j = round(m_j / min_j m_j), int64 [N], at least 1.

    The ratio is computed as (N_a / N_b)^beta from the counts of the rarest classes. So for beta = 1
    it is one correctly rounded division and exact halves stay exact; they round to even. A clip
    without a label has 1 copy.
    """
    beta = _check_beta(beta)
    rarest = _rarest(labels)
    if not rarest.size:
        return rarest
    values, inverse = np.unique(rarest, return_inverse=True)
    return np.rint((values[-1] / values) ** beta).astype(np.int64)[inverse]


def effective_counts(labels, copies) -> np.ndarray:
    """Positives per class after repeating clip j `copies[j]` times, N_k' = sum_j c_jk M_j, [C].

    int64 for integer copies, float64 for weights (expected counts).
    """
    starts, classes, size = _rows(labels)
    copies = np.asarray(copies)
    if copies.shape != (len(starts) - 1,):
        raise AsjaxError(f"copies must be one per clip ({len(starts) - 1}), got {copies.shape}")
    sums = np.bincount(classes, np.repeat(copies.astype(np.float64), np.diff(starts)), size)
    return sums.astype(np.int64) if copies.dtype.kind in "iub" else sums  # exact below 2^53


def _summed(labels, per_class) -> np.ndarray:
    """Sum of a per-class number over the labels of each clip, float64 [N]; 0 without a label."""
    starts, classes, size = _rows(labels)
    per_count = per_class(np.bincount(classes, minlength=size).astype(np.float64))
    clip = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return np.bincount(clip, per_count[classes], len(starts) - 1)


def passt_weights(labels) -> np.ndarray:
    """PaSST's sampling weights: sum over the labels of 1000 / (N_k + 100), float64 [N]."""
    return _summed(labels, lambda n: 1000.0 / (n + 100.0))


def ast_weights(labels) -> np.ndarray:
    """AST's and PSLA's weights: sum over the labels of 1000 / (N_k + 0.01), float64 [N]."""
    return _summed(labels, lambda n: 1000.0 / (n + 0.01))


def importance_weights(frames, offset: float = 30.0) -> np.ndarray:
    """PretrainedSED's sampling weights: sum over c of n_c 1000 / (offset + N_c), float64 [N].

    Args:
      frames: n_c, active frames of each class in each clip, [N, C], dense or sparse. N_c is their
        sum over the clips.
    """
    per_class = np.asarray(frames.sum(axis=0), np.float64).ravel()
    return np.asarray(frames @ (1000.0 / (offset + per_class)), np.float64).ravel()


def panns_weights(labels) -> np.ndarray:
    """Expected draws of each clip per cycle of PANNs' class queue: sum of 1 / N_k, float64 [N].

    Every cycle draws one clip of each class that occurs, uniformly among its clips.
    """
    return _summed(labels, lambda n: 1.0 / np.maximum(n, 1.0))
