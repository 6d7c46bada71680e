"""Views of scores: labels as they are, HLP on labels, HLP on labels and scores, other classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax import hlp, labels, metrics


@dataclass(frozen=True)
class View:
    """One view of the scores; `mapped`: its classes are not those of the label set."""

    title: str
    scores: np.ndarray  # [N, K]
    targets: np.ndarray  # [N, K]
    ids: tuple[str, ...]
    names: tuple[str, ...]
    mapped: bool = False
    activation: str = "sigmoid"  # of the scores: logits, or log-probabilities of a "softmax"

    @property
    def probabilities(self) -> np.ndarray:
        """The probability of each class in each clip: [N, K]."""
        return metrics.probabilities(self.scores, self.activation)


def views(
    scores, targets, label_set, closure=None, mappings=None, activation="sigmoid"
) -> dict[str, View]:
    """The views of one set of scores, by key: labels, hlp_labels, hlp_labels_scores, mappings.

    Args:
      closure: bool [C, C] of `hlp.closure`; None or the identity gives no HLP views. A softmax has
        none either, because its classes exclude each other.
      mappings: names of label sets (`["esc10"]`), or `{name: (bool [K, C], names of K)}`, where the
        matrix says which of the C classes belong to each of the K. A mapped class is present if all
        its classes are. Its score is their maximum. A mapped class without classes is left out.
        Mapped views use scores without HLP.
      activation: of the scores, as in `store.scores`.
    """
    classes = (label_set.ids, label_set.names, False, activation)
    closure = None if activation == "softmax" else closure
    out = {"labels": View("labels as they are", scores, targets, *classes)}
    if closure is not None and closure.sum() > np.trace(closure):
        targets_hlp = hlp.propagate_labels(targets, closure)
        out["hlp_labels"] = View("HLP on labels", scores, targets_hlp, *classes)
        scores_hlp = hlp.propagate_scores(scores, closure)
        out["hlp_labels_scores"] = View(
            "HLP on labels and scores", scores_hlp, targets_hlp, *classes
        )
    for name, table, ids, names in _mappings(mappings, label_set):
        table = np.asarray(table, bool)
        rows = np.flatnonzero(table.any(axis=1))
        if not len(rows):
            continue
        columns = [np.flatnonzero(table[i]) for i in rows]
        out[name] = View(
            f"{len(rows)} classes of {name}",
            np.stack([scores[:, c].max(axis=1) for c in columns], axis=1),
            np.stack([targets[:, c].min(axis=1) for c in columns], axis=1),
            tuple(ids[i] for i in rows),
            tuple(names[i] for i in rows),
            True,
            activation,
        )
    return out


def _mappings(mappings, label_set):
    for name in mappings or ():
        if isinstance(mappings, dict):
            table, names = mappings[name]
            yield name, table, names, names
        else:
            source = labels.get(name)
            yield source.name, labels.mapping(source, label_set), source.ids, source.names
