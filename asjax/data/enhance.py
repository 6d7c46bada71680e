"""PSLA's label enhancement: the scores of a first model add missing labels.

AudioSet's annotators often gave a parent without its child, or a child without its parent. For
every label of a clip, its children and ancestors in the ontology are candidates. A candidate is
added if the model's probability is above the threshold of its class. The threshold comes from the
clips that have the class (Gong, Chung & Glass 2021, section III). HLP adds ancestors without a
model; this method also adds children.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from asjax import labels as label_sets
from asjax.config import AsjaxError, unknown

_EXAMPLE = """example:
  asjax train --config=configs/atdr.py:model=effnet_b2 --workdir=runs/first
  asjax eval --model=runs/first/model --data "records(path='data/audioset', splits=['train'])" \\
      --out runs/first/train
  asjax prepare enhance --scores=runs/first/train/scores.npz --threshold=mean --out enhanced.csv
  asjax train --config=configs/atdr.py:model=effnet_b2 --workdir=runs/second \\
      --config.data.train.labels_csv=enhanced.csv
"""
_LISTED = 10
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


# ------------------------------------------------------------------------------------ the verb


def add_arguments(parser) -> None:
    parser.description = (
        "PSLA's label enhancement: classes below and above a label in the ontology\n"
        "are added to a clip if the scores of a first model are high enough."
    )
    parser.epilog = _EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--scores",
        required=True,
        metavar="NPZ",
        help="scores of a first model on its training clips, from asjax eval --data",
    )
    parser.add_argument(
        "--threshold",
        choices=THRESHOLDS,
        default="mean",
        help="threshold of a class: this statistic of its probabilities over the clips that have "
        "it; numbers are percentiles (default: %(default)s)",
    )
    parser.add_argument(
        "--types",
        default="1,2",
        help="1: children of a label, 2: ancestors of a label (default: %(default)s)",
    )
    parser.add_argument("--out", required=True, metavar="CSV", help="labels to write")


def main(args) -> int:
    from asjax.store.files import write_atomic
    from asjax.store.scores import load_scores

    kinds = _types(args.types)
    stored = load_scores(args.scores)
    label_set, scores, before = stored["label_set"], stored["scores"], stored["targets"]
    if not np.isfinite(scores).all():
        raise AsjaxError(f"{args.scores}: all scores must be finite; the model has diverged")
    related = relations(label_set)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    probabilities = _sigmoid(scores) if stored["activation"] == "sigmoid" else np.exp(scores)
    limits = thresholds(probabilities, before, args.threshold)
    print(f"{len(before):,} clips, labels {label_set.name}, threshold {args.threshold}")
    for kind in kinds:
        grown = enhance(probabilities, before, related[kind], limits)
        print(f"type {kind}: {grown.sum() - before.sum():,} {TYPES[kind]} added")
    either = np.any([related[kind] for kind in kinds], axis=0)
    after = enhance(probabilities, before, either, limits)
    total, grew = int(before.sum()), (after != before).any(axis=1).sum()
    print(f"labels {total:,} -> {int(after.sum()):,}, in {grew:,} clips")
    gains = after.sum(axis=0, dtype=np.int64) - before.sum(axis=0, dtype=np.int64)
    for k in np.argsort(-gains, kind="stable")[:_LISTED]:
        if gains[k]:
            print(f"  {label_set.names[k]}: +{gains[k]:,} to {before[:, k].sum(dtype=int):,}")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["filename", "labels"])
    for clip, classes in zip(stored["ids"], after, strict=True):
        if classes.any():  # a clip without labels cannot gain one
            rows.writerow([clip, ";".join(label_set.ids[k] for k in classes.nonzero()[0])])
    write_atomic(out, text.getvalue())
    print(f"wrote {out}; add labels_csv='{out}' to the data source of the training clips")
    return 0


def _sigmoid(logits):
    """Probabilities, computed in place of the logits float32 [N, C] to save memory."""
    with np.errstate(over="ignore"):  # exp(-x) = inf is a probability of 0
        np.exp(np.negative(logits, out=logits), out=logits)
    return np.reciprocal(np.add(logits, 1, out=logits), out=logits)


def _types(text: str) -> list[int]:
    """`"1,2"` -> `[1, 2]`."""
    words = sorted(set(text.split(",")))
    if not words or not set(words) <= set(map(str, TYPES)):
        raise AsjaxError(f"--types must be 1, 2 or 1,2, got {text!r}")
    return list(map(int, words))
