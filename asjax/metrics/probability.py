"""Scores as probabilities: one sigmoid per class, or one softmax over the classes of a clip.

The scores of a sigmoid are logits. The scores of a softmax are log-probabilities: a constant per
clip does not change a softmax, so raw logits of two clips cannot be compared. `exp` of a score is
then its probability, also if some of the classes are left out.
"""

from __future__ import annotations

import numpy as np

ACTIVATIONS = ("sigmoid", "softmax")
_TINY = np.finfo(np.float32).tiny


def as_scores(logits, activation: str = "sigmoid") -> np.ndarray:
    """Scores of a model's logits [..., C]: the logits, or the float32 log of their softmax."""
    if activation == "sigmoid":
        return logits
    logits = np.asarray(logits, np.float64)
    best = logits.argmax(axis=-1)[..., None]
    with np.errstate(invalid="ignore"):  # a logit that is not finite makes its clip NaN
        below = logits - np.take_along_axis(logits, best, axis=-1)
    others = np.exp(below)
    np.put_along_axis(others, best, 0.0, axis=-1)
    # log1p keeps the distance of a probability to 1, so that confident clips keep their order.
    return (below - np.log1p(others.sum(axis=-1, keepdims=True))).astype(np.float32)


def probabilities(scores, activation: str = "sigmoid", out=None) -> np.ndarray:
    """Probabilities of scores (see `as_scores`), in their dtype; into `out` if it is given."""
    if activation == "softmax":
        return np.exp(scores, out=out)
    # 1 / (1 + e^-x) for x >= 0 and e^x / (1 + e^x) below: no overflow. (scipy takes 0.1 s to load.)
    scores = np.asarray(scores)
    small = np.exp(-np.abs(scores))
    above = np.where(scores >= 0, small.dtype.type(1), small)
    return np.divide(above, 1 + small, out=out)


def log_both(scores, activation: str = "sigmoid") -> tuple[np.ndarray, np.ndarray]:
    """log p and log(1 - p), float64, exact where p rounds to 0 or 1."""
    scores = np.asarray(scores, np.float64)
    if activation == "sigmoid":
        return -np.logaddexp(0.0, -scores), -np.logaddexp(0.0, scores)
    low = np.minimum(scores, -_TINY)  # p = 1 would have infinite log-odds
    return low, np.log(-np.expm1(low))


def log_loss(*, scores, targets, activation: str = "sigmoid") -> float:
    """Mean cross entropy of scores [N, C] for targets [N, C] of 0 and 1.

    Sigmoid: binary, over all clips and classes. Softmax: minus the log-probability of a clip's
    label, as a mean over its labels and over the clips that have one. NaN without a term.
    """
    scores, targets = np.asarray(scores, np.float64), np.asarray(targets, np.float64)
    if activation == "sigmoid":
        terms = np.logaddexp(0.0, scores) - targets * scores
    else:
        labelled = targets.any(axis=1)
        targets = targets[labelled]
        terms = -(targets * scores[labelled]).sum(axis=1) / targets.sum(axis=1)
    return float(terms.mean()) if terms.size else float("nan")
