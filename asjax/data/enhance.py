"""PSLA's label enhancement: the scores of a first model add missing labels.

AudioSet's annotators often gave a parent without its child, or a child without its parent. For
every label of a clip, its children and ancestors in the ontology are candidates. A candidate is
added if the model's probability is above the threshold of its class. The threshold comes from the
clips that have the class (Gong, Chung & Glass 2021, section III). HLP adds ancestors without a
model; this method also adds children.
"""

from __future__ import annotations

import numpy as np

from asjax import labels as label_sets
from asjax.config import AsjaxError, unknown

# Statistic of a class's probabilities over the clips that have it; numbers are percentiles. The
# paper uses the mean for the balanced set, and reports no gain on the full set.
THRESHOLDS = ("mean", "median", "25", "10", "5")
TYPES = {1: "children of a label", 2: "ancestors of a label"}


def relations(label_set) -> dict[int, np.ndarray]:
    """The candidates for each label: `{type: bool [C, C]}`, True at [label of a clip, candidate].

    Type 1: direct children. Type 2: ancestors over any number of steps, also through nodes that
    are no class. As in the authors' code, a node with the single restriction "abstract" is no
    parent, and no path goes through it. AudioSet's 527 classes have 378 pairs of type 1 and 767 of
    type 2.

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
    pairs = {kind: np.zeros((len(column), len(column)), bool) for kind in TYPES}
    for label, i in column.items():
        pairs[1][[column[p] for p in above[label] if p in column], i] = True
        reached, ahead = set(), list(above[label])
        while ahead:
            node = ahead.pop()
            if node not in reached:
                reached.add(node)
                ahead += above[node]
        pairs[2][i, [column[a] for a in reached if a in column]] = True
    return pairs


def thresholds(probabilities, targets, kind: str = "mean") -> np.ndarray:
    """The threshold of each class: float64 [C], NaN where no clip has the class.

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
    """Targets with added labels: uint8 [N, C].

    Only the original labels of a clip give candidates. Added labels do not lead to more additions.

    Args:
      probabilities, targets: as in `thresholds`.
      allowed: bool [C, C], True at [label of a clip, candidate]: a matrix of `relations`, or
        several joined by `|`, which gives the union of their results.
      limits: [C], thresholds; NaN adds nothing.
    """
    _check(probabilities, targets)
    grown = (targets > 0).astype(np.uint8)
    for k, suggests in enumerate(allowed.T):  # a loop, because a table of all pairs would be big
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
