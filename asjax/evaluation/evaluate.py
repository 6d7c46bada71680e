"""From scores with clip ids to metrics and a report.

The scores are written first, with clip ids (`asjax.store.scores`). Metrics and report are computed
from this file.
"""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np

from asjax import hlp, metrics
from asjax.config import to_plain
from asjax.evaluation import decide, one_label
from asjax.evaluation.views import View, views
from asjax.store import clip_list
from asjax.store.files import finite, write_atomic
from asjax.store.scores import load_scores

LEVEL = 0.95
MEANS = ("mean_ap", "mean_auc", "d_prime", "mean_of_d_prime", "micro_ap", "lrap")


# ---------------------------------------------------------------------------------- prediction


def trace(scores, targets, activation="sigmoid") -> dict:
    """The metrics that training logs: mean_ap, mean_auc, d_prime, loss; accuracy of single-label
    data.

    The loss is the mean cross entropy without label smoothing and class weights: binary for a
    sigmoid, over the labels of each clip for a softmax. Everything is NaN if a score is not finite.
    The training program handles a diverged model itself.
    """
    followed, single = ("mean_ap", "mean_auc", "d_prime"), metrics.is_single_label(targets)
    if not np.isfinite(scores).all():
        return dict.fromkeys([*followed, "loss", *["accuracy"] * single], math.nan)
    out = metrics.tagging(scores=scores, targets=targets, only=followed)
    out["loss"] = metrics.log_loss(scores=scores, targets=targets, activation=activation)
    if single:
        out["accuracy"] = float((scores.argmax(axis=1) == targets.argmax(axis=1)).mean())
    return out


# ------------------------------------------------------------------------------------- summary


def summarise(found: dict[str, View], n_bootstrap=1000, seed=0) -> dict:
    """Metrics of every view with the arrays per class, and intervals under `ci`; those of the AP
    per class under `per_class_ap_ci`.

    The bootstrap draws the same clips for all views, so their resamples are paired.
    """
    out = {}
    for key, view in found.items():
        values = metrics.tagging(scores=view.scores, targets=view.targets, names=view.names)
        ci, per_class = {}, None
        if n_bootstrap:
            pair = {"scores": view.scores, "targets": view.targets}
            ci = metrics.bootstrap(**pair, n=n_bootstrap, level=LEVEL, seed=seed, per_class=True)
            per_class = ci.pop("per_class_ap")
        single = one_label.values(view, n_bootstrap, LEVEL, seed)
        ci |= single.pop("ci", {})
        about = {"title": view.title, "mapped": view.mapped, **values, **single}
        out[key] = {**about, "ci": ci, "per_class_ap_ci": per_class}
    return out


def headline(summary: dict) -> dict:
    """The main numbers of a summary, for the card of a model folder."""
    keys = ("n_clips", "n_classes", *one_label.MEANS, "mean_ap", "mean_auc", "d_prime", "ci")
    views = summary["views"].items()
    return {key: {k: view[k] for k in keys if k in view} for key, view in views}


def table(summary: dict) -> str:
    """The views as a small text table. Accuracy and F1 are there if a view is single-label."""
    found = summary["views"].values()
    draws = any(view["ci"] for view in found)
    note = f" [{LEVEL:.0%} interval]" if draws else ""
    single = any("accuracy" in view for view in found)
    titles = [f"accuracy{note}", "macro F1", "weighted F1", "top-k"] if single else []
    rows = [["view", "clips", "classes", *titles, f"mAP{note}", "AUC", "d'"]]
    for view in found:
        rows.append(
            [
                view["title"],
                f"{view['n_clips']:,}",
                str(view["n_classes"]),
                *(_single_cells(view) if single else ()),
                _with_interval(view, "mean_ap"),
                _number(view["mean_auc"]),
                _number(view["d_prime"], 2),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        cells = [cell.rjust(w) for cell, w in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    if summary.get("activation") == "softmax" and not single:
        lines.append("no accuracy: some clips have no label or several")
    return "\n".join(lines)


def _single_cells(view) -> list[str]:
    if "accuracy" not in view:
        return ["-"] * 4
    top = f"{_number(view['top_k'])} (k={view['k']})"
    return [
        _with_interval(view, "accuracy"),
        _number(view["f1_macro"]),
        _number(view["f1_weighted"]),
        top,
    ]


def _with_interval(view, key: str) -> str:
    low, high = view["ci"].get(key, (None, None))
    interval = f" [{_number(low)}, {_number(high)}]" if low is not None else ""
    return _number(view[key]) + interval


def _number(value, digits=3) -> str:
    if value is None or math.isnan(value):
        return "-"
    return "inf" if math.isinf(value) else f"{value:.{digits}f}"


# ------------------------------------------------------------------------------------- writing


def evaluate_scores(
    scores_path,
    outdir,
    *,
    label_set=None,
    closure="auto",
    mappings=None,
    history=None,
    train_counts=None,
    record=None,
    n_bootstrap=1000,
    seed=0,
    listen=None,
) -> dict:
    """Scores file -> metrics.json, per_class.csv, report.html in `outdir`; returns the summary.

    Views with exactly one label per clip also get accuracy, F1 and confusion.csv.

    Args:
      closure: as in `views`; "auto" uses the label set's ontology if there is one, with the rule
        (`labels.strict`) of the model that made the scores.
      history: rows of train.jsonl, for the training curves.
      train_counts: positives per class in the training set [C], for AP against prior.
      record: dict about the model and the data, for the report and the JSON. Its `run` is the title
        of the report; default: the name of the folder.
      listen: id -> (sound file as bytes, its mime type) or None, for players on the report (see
        `asjax.evaluation.listen`).
    """
    loaded = load_scores(scores_path, label_set)
    label_set, extra = loaded["label_set"], loaded["extra"] or {}
    if isinstance(closure, str):
        # Zero-shot scores are compared with the data's own labels, as in the HLP paper's Table III.
        strict = bool(extra.get("strict"))
        closure = None if "zero_shot" in extra else hlp.closure_if_known(label_set, strict)
    activation = loaded["activation"]
    closure = None if activation == "softmax" else closure
    found = views(loaded["scores"], loaded["targets"], label_set, closure, mappings, activation)
    results = summarise(found, n_bootstrap, seed)
    counts = None if train_counts is None else np.asarray(train_counts).ravel()
    about = {
        "label_set": {"name": label_set.name, "hash": label_set.hash, "classes": len(label_set)},
        "activation": activation,
        "data": clip_list.about(loaded["ids"], loaded["content"]),
        "left_out_clips": extra.get("left_out", []),
        "bootstrap": {"n": n_bootstrap, "level": LEVEL, "seed": seed},
        "record": record or {},
    }
    more = {"history": history, "train_counts": counts, "clips": loaded["ids"], "listen": listen}
    return write(outdir, found, results, about=about, closure=closure, **more)


def write(
    outdir,
    found,
    results,
    *,
    about,
    closure=None,
    history=None,
    train_counts=None,
    clips=None,
    listen=None,
) -> dict:
    """Write metrics.json, per_class*.csv, confusion*.csv and report.html; returns the content of
    metrics.json.

    Args: `clips`: ids [N]; the others: as `evaluate_scores`.

    In the JSON, null stands for an undefined value (a mean over nothing) or an infinite one (d' of
    a perfect AUC).
    """
    from asjax.evaluation import page as report

    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    keys = ("title", "mapped", "n_clips", "n_classes", *one_label.MEANS, *MEANS, "ci", "left_out")
    summary = {
        **about,
        "views": {v: {k: r[k] for k in keys if k in r} for v, r in results.items()},
    }
    decisions = decide.decisions(found, about["record"])
    summary |= decide.headline(decisions, found["labels"].ids)
    text = json.dumps(finite(to_plain(summary)), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(outdir / "metrics.json", text + "\n")
    unmapped = {k: r for k, r in results.items() if not r["mapped"]}
    more = {"n_train": train_counts, **decide.columns(decisions)}
    _write_per_class(outdir / "per_class.csv", found["labels"], unmapped, more)
    for key in results.keys() - unmapped.keys():
        _write_per_class(outdir / f"per_class_{key}.csv", found[key], {key: results[key]}, {})
    one_label.write_confusion(outdir, found, results)
    html = report.render(
        summary=summary,
        results=results,
        found=found,
        closure=closure,
        history=history,
        train_counts=train_counts,
        decisions=decisions,
        clips=clips,
        listen=listen,
    )
    write_atomic(outdir / "report.html", html)
    return summary


def _write_per_class(path: Path, view: View, results: dict, more: dict) -> None:
    """One row per class: positives, prior, AP and AUC by view, of single-label views precision,
    recall and F1, and columns of `more` that are not None; empty where undefined. Thresholds have
    all digits, because a decision may depend on the last."""
    first = next(iter(results.values()))
    columns = {"n_positive": first["n_positive"], "prior": first["prior"]}
    columns |= {key: values for key, values in more.items() if values is not None}
    for key, result in results.items():
        if key == "hlp_labels":
            columns["n_positive_hlp"] = result["n_positive"]
        columns[f"ap_{key}"] = result["per_class_ap"]
        columns[f"auc_{key}"] = result["per_class_auc"]
        if result.get("per_class_ap_ci") is not None:
            columns[f"ap_{key}_low"], columns[f"ap_{key}_high"] = result["per_class_ap_ci"].T
        for name in one_label.PER_CLASS:
            if name in result:
                columns[f"{name}_{key}"] = result[name]
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["index", "mid", "name", *columns])
    for i, (label, name) in enumerate(zip(view.ids, view.names, strict=True)):
        values = [
            _cell(column[i], 17 if key == "threshold" else 6) for key, column in columns.items()
        ]
        out.writerow([i, label, name, *values])
    write_atomic(path, text.getvalue())


def _cell(value, digits: int) -> str:
    """A count in full, another number with so many digits; empty if it is undefined."""
    if isinstance(value, (int, np.integer)):
        return str(value)
    return "" if value != value else f"{value:.{digits}g}"
