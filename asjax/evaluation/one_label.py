"""Evaluation of views with exactly one label per clip: accuracy, F1, confusion."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from asjax import metrics
from asjax.evaluation.views import View
from asjax.store.files import write_atomic

# In summaries and metrics.json; `k` belongs to `top_k`.
MEANS = ("accuracy", "f1_macro", "f1_weighted", "mean_recall", "top_k", "k")
PER_CLASS = ("precision", "recall", "f1")
MOST = 5  # k of top_k, if there are more classes
_NAMES = {"macro_f1": "f1_macro", "weighted_f1": "f1_weighted"}


def values(view: View, n_bootstrap: int, level: float, seed: int) -> dict:
    """The numbers of MEANS and PER_CLASS, `confusion`, and intervals under "ci"; {} if a clip of
    the view has no label or several.

    `k` is 5, or one less than the number of classes.
    """
    if not metrics.is_single_label(view.targets):
        return {}
    data = {"scores": view.scores, "targets": view.targets}
    k = min(MOST, view.scores.shape[1] - 1)
    got = metrics.single_label(**data, top=(k,))
    got["top_k"] = got.pop("top")[k]
    ci = {}
    if n_bootstrap:
        options = dict(n=n_bootstrap, level=level, seed=seed, top=k)
        ci = metrics.bootstrap_single_label(**data, **options)
    keep = (*_NAMES, "accuracy", "mean_recall", "top_k", *PER_CLASS, "confusion")
    out = {_NAMES.get(key, key): got[key] for key in keep}
    return {**out, "k": k, "ci": {_NAMES.get(key, key): ends for key, ends in ci.items()}}


def tables(summary: dict) -> str:
    """The names of the CSV files of an evaluation, for a line of text."""
    single = "accuracy" in summary["views"].get("labels", {})
    return "per_class.csv, confusion.csv" if single else "per_class.csv"


def write_confusion(outdir: Path, found: dict[str, View], results: dict) -> None:
    """confusion.csv, and confusion_NAME.csv of mapped classes: a row per class, a column per
    decision, numbers of clips."""
    for key, result in results.items():
        if "confusion" not in result or not (key == "labels" or result["mapped"]):
            continue
        view = found[key]
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        out.writerow(["class", *view.names])
        out.writerows(
            [name, *row] for name, row in zip(view.names, result["confusion"], strict=True)
        )
        name = "confusion.csv" if key == "labels" else f"confusion_{key}.csv"
        write_atomic(outdir / name, text.getvalue())
