"""PSLA's label enhancement: a first model's scores fill in labels that the ontology suggests.

AudioSet's annotators often gave a parent without its child, or a child without its parent. For
every label that a clip has, classes beside it in the ontology are added when the model's
probability is above a threshold of their own, taken from the clips that do have the class (Gong,
Chung & Glass 2021, section III). HLP adds parents whatever a model says; this adds children, too.
"""

from __future__ import annotations

import numpy as np

from asjax import labels as label_sets
from asjax.config import AsjaxError, unknown

# Statistic of a class's probabilities over the clips that have it; numbers are percentiles. The
# paper takes the mean for the balanced set, and found no gain on the full one.
THRESHOLDS = ("mean", "median", "25", "10", "5")
TYPES = {1: "children of a label", 2: "ancestors of a label"}


def relations(label_set) -> dict[int, np.ndarray]:
    """What may be added beside what: `{type: bool [C, C]}`, True at [label there, class added].

    Type 1: direct children. Type 2: ancestors over any number of steps, also through nodes that
    are no class. As in the authors' code, a node that the ontology calls "abstract", and nothing
    besides, is no parent: a path does not go through it. AudioSet's 527 classes have 378 pairs of
    the first kind and 767 of the second.

    Raises:
      AsjaxError: the ids are not AudioSet's mids.
    """
    label_set = label_sets.get(label_set)
    abstract = {n for n, words in label_sets.restrictions().items() if words == ("abstract",)}
    above = {
        node: [p for p in parents if p not in abstract]
        for node, parents in label_sets.parents(label_set).items()
    }
    column = {label: i for i, label in enumerate(label_set.ids)}
    found = {kind: np.zeros((len(column), len(column)), bool) for kind in TYPES}
    for label, i in column.items():
        found[1][[column[p] for p in above[label] if p in column], i] = True
        reached, ahead = set(), list(above[label])
        while ahead:
            node = ahead.pop()
            if node not in reached:
                reached.add(node)
                ahead += above[node]
        found[2][i, [column[a] for a in reached if a in column]] = True
    return found


def thresholds(probabilities, targets, kind: str = "mean") -> np.ndarray:
    """The probability that a class must exceed: float64 [C], NaN where no clip has the class.

    Args:
      probabilities: [N, C] of the first model on its training clips.
      targets: [N, C] of 0 and 1.
      kind: one of `THRESHOLDS`, over the clips that have the class.
    """
    statistic = _statistic(kind)
    _check(probabilities, targets)
    values = [
        statistic(probabilities[targets[:, k] > 0, k].astype(np.float64)) if present else np.nan
        for k, present in enumerate((targets > 0).any(axis=0))
    ]
    return np.array(values)


def enhance(probabilities, targets, allowed, limits) -> np.ndarray:
    """Targets with what the scores confirm added: uint8 [N, C].

    Only labels that a clip had before suggest others: what is added suggests nothing.

    Args:
      probabilities, targets: as `thresholds` takes them.
      allowed: bool [C, C], True at [label there, class added]: a matrix of `relations`, or several
        joined by `|`, which gives the union of their results.
      limits: [C], what a probability must exceed; NaN adds nothing.
    """
    _check(probabilities, targets)
    grown = (targets > 0).astype(np.uint8)
    for k, suggests in enumerate(allowed.T):  # by class: a table of all pairs would be big
        suggested = (targets[:, suggests] > 0).any(axis=1)
        rows = np.flatnonzero(suggested & (targets[:, k] == 0))
        grown[rows[probabilities[rows, k].astype(np.float64) > limits[k]], k] = 1
    return grown


def _statistic(kind: str):
    if kind not in THRESHOLDS:
        raise unknown("threshold", kind, THRESHOLDS)
    if kind == "mean":
        return np.mean
    if kind == "median":
        return np.median
    return lambda values: np.percentile(values, float(kind))


def _check(probabilities, targets) -> None:
    if probabilities.shape != targets.shape or probabilities.ndim != 2:
        raise AsjaxError(
            f"probabilities and targets must both be [N, C], got {probabilities.shape} and "
            f"{targets.shape}"
        )
