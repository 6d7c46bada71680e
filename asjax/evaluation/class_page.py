"""Sections of report.html about classes: average precision, thresholds, calibration."""

from __future__ import annotations

from html import escape

import numpy as np

from asjax import metrics
from asjax.config import shown
from asjax.evaluation import decision_plots, plots
from asjax.pages import figure, html_table, number

OPEN = 30  # up to this number of rows, a table is shown without a click
MOST = 1000  # rows of a table; per_class.csv has all classes


def average_precision(results, found, train_counts, record):
    """Yields (title, HTML): first the mapped views, because these matter for a small set."""
    for key, result in results.items():
        if result["mapped"] and result["n_classes"]:
            ends = result.get("per_class_ap_ci")
            picture = plots.ap_per_class(found[key].names, result["per_class_ap"], ends=ends)
            caption = (
                f"{escape(result['title'])}: a class is present if all model classes mapped to it "
                f"are labelled; its score is the highest of their scores.{_lines(ends)}"
            )
            title = f"Average precision: {result['title']}"
            yield title, figure(picture, title, caption)
    base, other = results["labels"], results.get("hlp_labels_scores")
    if not (base["n_classes"] or (other and other["n_classes"])):
        yield "Average precision", "<p>No class has a positive clip, so there is no picture.</p>"
        return
    titles = (base["title"], other["title"] if other else "")
    ends = base.get("per_class_ap_ci")
    picture = plots.ap_per_class(
        found["labels"].names, base["per_class_ap"], other and other["per_class_ap"], titles, ends
    )
    dots = ""
    if other:
        dots = (
            " Dots: the same class with HLP on labels and scores. A dot without a bar is a class "
            "that has only implied labels."
        )
    bars = f"Bars: average precision{f' with {titles[0]}' if other else ''}, highest first."
    title = "Average precision by class"
    yield title, figure(picture, title, f"{bars}{_lines(ends)}{dots}")


def _lines(ends) -> str:
    if ends is None or not np.isfinite(ends).any():
        return ""
    return f" Lines: 95 % intervals of classes with at least {metrics.FEW} positive clips."


def against_prior(base, names, train_counts, record):
    """Yields (title, HTML) of AP against the share of clips with the class."""
    data = record.get("train_data")
    total = data.get("clips") if isinstance(data, dict) else None
    if train_counts is not None and isinstance(total, int) and total > 0:
        prior, where = np.asarray(train_counts) / total, "training clips"
    else:
        prior, where = base["prior"], "evaluated clips"
    known = prior[np.isfinite(base["per_class_ap"]) & (prior > 0)]
    if len(known) and known.max() < 2 * known.min():
        text = f"All classes have about the same share of the {where}, so there is no picture."
        yield "Average precision against class prior", f'<p class="note">{text}</p>'
    elif len(known):
        picture = plots.ap_against_prior(names, base["per_class_ap"], prior, where)
        caption = (
            f"Each dot is a class: its average precision (labels as they are) against the share "
            f"of {where} with this label, before any balancing. A rise to the right means that "
            "rare classes are recognised less well. Some of the lowest classes are named."
        )
        title = "Average precision against class prior"
        yield title, figure(picture, title, caption)


def thresholds(decided, found) -> str:
    """The table of thresholds; empty without a positive clip."""
    chosen = decided["thresholds"]
    rows = np.flatnonzero(np.isfinite(chosen["threshold"]))
    if not len(rows):
        return ""
    names, n_positive = found["labels"].names, decided["targets"].sum(axis=0)
    count, rows = len(rows), rows[np.argsort(chosen["f1"][rows], kind="stable")][:MOST]
    cells = [
        [
            shown(names[i]),
            f"{int(n_positive[i]):,}",
            f"{chosen['threshold'][i]:.3g}",
            *(number(chosen[key][i], 2) for key in ("precision", "recall", "f1")),
        ]
        for i in rows
    ]
    header = ["class", "clips", "threshold", "precision", "recall", "F1"]
    caption = "Threshold of each class with the best F1, lowest F1 first"
    table = html_table(header, cells, caption=caption)
    on = ""
    if decided["view"] != "labels":
        on = " Labels: HLP labels, because the model was trained with them."
    return (
        "<p>A clip has a class if the probability of the class is at or above the threshold of the "
        "class. The thresholds were chosen for the best F1 on the same clips, so the values in "
        f"the table are optimistic. Mean F1: {number(chosen['macro_f1'])} as in the table, "
        f"{number(chosen['macro_f1_other_half'])} if the thresholds come from the other half of "
        f"the clips, {number(chosen['macro_f1_at_half'])} with a threshold of 0.5 for every class."
        f"{on} All thresholds are in per_class.csv.</p><p>One threshold for all classes, "
        f"<code>asjax tag --threshold={chosen['one']['threshold']:.3g}</code>: precision "
        f"{number(chosen['one']['precision'])}, recall {number(chosen['one']['recall'])}, F1 "
        f"{number(chosen['one']['f1'])} over all pairs of clip and class.</p>"
        f"{folded(table, 'Thresholds', len(rows), count)}"
    )


def folded(table: str, title: str, rows: int, count: int) -> str:
    """A table with `rows` of `count` classes in a details element, open if it is small."""
    state = " open" if rows <= OPEN else ""
    of = f"{count:,} classes" if rows == count else f"the first {rows:,} of {count:,} classes"
    return f"<details{state}><summary>{escape(title)} of {of}</summary>{table}</details>"


def calibration(decided) -> str:
    """Reliability diagram and ECE; empty without a clip."""
    found = decided["calibration"]
    if not np.any(found["count"]):
        return ""
    if found["of"] == "pairs":
        what = (
            "every pair of clip and class. The share is the share of the pairs with the label. "
            "Most pairs have a probability near 0, so ECE over all pairs is small; look at the dots"
        )
        means = (
            f"The model expects {number(found['mean_predicted'], 2)} labels in a clip; the clips "
            f"have {number(found['mean_true'], 2)}."
        )
    else:
        what = (
            "the class with the highest probability of each clip. The share is the share of the "
            "clips where this class is right"
        )
        means = (
            f"The mean probability is {number(found['mean_predicted'])}; "
            f"{number(found['mean_true'])} of the clips are right."
        )
    caption = (
        f"Probabilities of {what}. {len(found['count'])} bins of equal width; a dot is the mean of "
        "a bin. Below the dotted line the model is too sure. Expected calibration error (ECE): "
        f"mean over all values of |share − mean probability| of their bin: "
        f"{number(found['ece'], 4)}. {means}"
    )
    picture = decision_plots.reliability(found)
    alt = f"Reliability diagram: expected calibration error {number(found['ece'], 4)}"
    return figure(picture, alt, caption)


def every_class(results, found) -> str:
    """A table of AP of every class, in every view that has the classes of the model."""
    unmapped = [r for r in results.values() if not r["mapped"]]
    names, base = found["labels"].names, results["labels"]
    ap = np.array([r["per_class_ap"] for r in unmapped])
    rows = np.flatnonzero(np.isfinite(ap).any(axis=0))
    if not len(rows):
        return ""
    count = len(rows)
    rows = rows[np.argsort(np.nan_to_num(ap[0, rows], nan=-1.0), kind="stable")][:MOST]

    def cell(result, i):
        value, ends = number(result["per_class_ap"][i]), result.get("per_class_ap_ci")
        if ends is None or not np.isfinite(ends[i]).all():
            return value
        return f"{value}\n{number(ends[i, 0])} to {number(ends[i, 1])}"

    cells = [
        [shown(names[i]), f"{int(base['n_positive'][i]):,}", *(cell(r, i) for r in unmapped)]
        for i in rows
    ]
    heads = [f"AP, {r['title']}" for r in unmapped] if len(unmapped) > 1 else ["AP"]
    caption = "Average precision of each class, lowest first. Small: 95 % interval."
    table = html_table(["class", "clips", *heads], cells, caption=caption)
    return folded(table, "Table", len(rows), count)
