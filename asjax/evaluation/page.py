"""report.html: a self-contained page about one evaluation, with tables and pictures."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from asjax import __version__
from asjax.config import flatten
from asjax.evaluation import plots
from asjax.pages import figure, number, page


def render(*, summary, results, found, closure=None, history=None, train_counts=None) -> str:
    """The page as a string.

    Args:
      summary: the content of metrics.json. results: metrics by view, with the arrays per class.
      found: the views. closure: bool [C, C] or None. history: rows of train.jsonl or None.
      train_counts: positives per class in the training set [C], or None.
    """
    record = summary["record"]
    head = _header(summary, record)
    sections = [
        ("Results", _results_table(summary)),
        ("What was evaluated", _about(summary)),
        *_class_pictures(results, found, train_counts, record),
        ("Training", _training(history, record)),
        ("Parent and child classes", _parent_child(found, closure)),
        ("Every class", _class_table(results, found)),
    ]
    body = "\n".join(f"<h2>{escape(title)}</h2>\n{html}" for title, html in sections if html)
    return page(_title(record), f"{head}\n{body}")


# ------------------------------------------------------------------------------------- parts


def _title(record) -> str:
    data = record.get("eval_data")
    name = data.get("name") if isinstance(data, dict) else None
    return f"asjax evaluation on {name}" if name else "asjax evaluation"


def _header(summary, record) -> str:
    first = next(iter(summary["views"].values()))
    label_set = summary["label_set"]
    left = len(summary["left_out_clips"])
    unread = f"; {left:,} clips could not be read and are left out" if left else ""
    switch = {True: " Trained with HLP.", False: " Trained without HLP."}.get(record.get("hlp"), "")
    return (
        f"<h1>{escape(_title(record))}</h1>\n<p>{first['n_clips']:,} clips, {label_set['classes']} "
        f"classes ({escape(label_set['name'])}){unread}.{switch}</p>"
    )


def _cell(value, interval=None, digits=3) -> str:
    small = ""
    if interval is not None and not math.isnan(interval[0]):
        small = f"<small>{number(interval[0], digits)} to {number(interval[1], digits)}</small>"
    return f'<td class="n">{number(value, digits)}{small}</td>'


def _results_table(summary) -> str:
    heads = ("mAP", "AUC", "d′", "mean of d′", "micro AP", "LRAP", "classes")
    rows, left = [], []
    for view in summary["views"].values():
        ci = view["ci"]
        cells = [
            _cell(view["mean_ap"], ci.get("mean_ap")),
            _cell(view["mean_auc"], ci.get("mean_auc")),
            _cell(view["d_prime"], ci.get("d_prime"), 2),
            _cell(view["mean_of_d_prime"], digits=2),
            _cell(view["micro_ap"]),
            _cell(view["lrap"]),
            f'<td class="n">{view["n_classes"]}</td>',
        ]
        rows.append(f"<tr><td>{escape(view['title'])}</td>{''.join(cells)}</tr>")
        if view["left_out"]:
            names = ", ".join(escape(str(n)) for n in view["left_out"])
            left.append(
                f"<details><summary>{escape(view['title'])}: {len(view['left_out'])} classes "
                f"without a positive clip are left out</summary><p class=note>{names}</p></details>"
            )
    draws = summary["bootstrap"]
    small = (
        f"Small figures: {draws['level']:.0%} intervals from {draws['n']:,} bootstrap resamples of "
        f"the clips (seed {draws['seed']}; the same resamples in every row), centred on the "
        "estimate. "
        if draws["n"]
        else ""
    )
    return (
        '<div class="wide"><table class="views"><tr><th>view</th>'
        + "".join(f'<th class="n">{h}</th>' for h in heads)
        + f"</tr>{''.join(rows)}</table></div>\n"
        f'<p class="note">{small}mAP: mean over classes of average precision, not interpolated. '
        "d′ = √2 Φ⁻¹ of the mean AUC, as in PANNs. The mean of per-class d′ is another convention. "
        "It is larger, so the two cannot be compared. HLP on labels adds all ancestors of a label. "
        "HLP on scores raises every class to the score of its best-scoring descendant.</p>"
        + "".join(left)
    )


def _about(summary) -> str:
    rows = {f"labels {k}": v for k, v in summary["label_set"].items()}
    record = {k: v for k, v in summary["record"].items() if k != "labels"}  # already in rows
    for key, value in flatten(record).items():
        rows[key.replace("_", " ").replace(".", " · ")] = value
    rows["asjax"] = __version__
    cells = "".join(
        f"<tr><td>{escape(str(k))}</td><td>{escape(_plain(v))}</td></tr>" for k, v in rows.items()
    )
    return f'<div class="wide"><table class="about">{cells}</table></div>{_bad(summary)}'


def _plain(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _bad(summary) -> str:
    clips = summary["left_out_clips"]
    if not clips:
        return ""
    items = "".join(f"<li>{escape(': '.join(map(str, c)))}</li>" for c in clips[:100])
    more = f"<li>and {len(clips) - 100:,} more</li>" if len(clips) > 100 else ""
    title = f"<summary>clips left out: {len(clips):,}</summary>"
    return f"<details>{title}<ul>{items}{more}</ul></details>"


def _class_pictures(results, found, train_counts, record):
    """The AP pictures: first the mapped views, because these matter for a small set, then all."""
    for key, result in results.items():
        if result["mapped"] and result["n_classes"]:
            png = plots.ap_per_class(found[key].names, result["per_class_ap"])
            caption = (
                f"{escape(result['title'])}: a class is present if all model classes mapped to it "
                "are labelled; its score is the highest of their scores."
            )
            yield f"Average precision: {result['title']}", figure(png, "AP by class", caption)
    base, other = results["labels"], results.get("hlp_labels_scores")
    if not (base["n_classes"] or (other and other["n_classes"])):
        yield "Average precision", "<p>No class has a positive clip, so there is no picture.</p>"
        return
    titles = (base["title"], other["title"] if other else "")
    png = plots.ap_per_class(
        found["labels"].names, base["per_class_ap"], other and other["per_class_ap"], titles
    )
    dots = ""
    if other:
        dots = (
            " Dots: the same class with HLP on labels and scores. A dot without a bar is a class "
            "that has only implied labels."
        )
    caption = f"Bars: average precision with {titles[0]}, highest first.{dots}"
    yield "Average precision by class", figure(png, "AP by class", caption)
    yield from _prior_picture(base, found["labels"].names, train_counts, record)


def _prior_picture(base, names, train_counts, record):
    data = record.get("train_data")
    total = data.get("clips") if isinstance(data, dict) else None
    if train_counts is not None and total:
        prior, where = np.asarray(train_counts) / total, "training clips"
    else:
        prior, where = base["prior"], "evaluated clips"
    shown = prior[np.isfinite(base["per_class_ap"]) & (prior > 0)]
    if len(shown) and shown.max() < 2 * shown.min():
        text = f"All classes have about the same share of the {where}, so there is no picture."
        yield "Average precision against class prior", f'<p class="note">{text}</p>'
    elif len(shown):
        png = plots.ap_against_prior(names, base["per_class_ap"], prior, where)
        caption = (
            f"Each dot is a class: its average precision (labels as they are) against the share "
            f"of {where} with this label, before any balancing. A rise to the right means that "
            "rare classes are recognised less well. Some of the lowest classes are named."
        )
        yield "Average precision against class prior", figure(png, "AP against prior", caption)


def _training(history, record) -> str:
    step = record.get("step")
    png = plots.training_curves(history or [], step if isinstance(step, int) else None)
    if png is None:
        return ""
    caption = (
        "As logged during training: loss of single batches (with augmentation), and mean AP, mean "
        "AUC and d′ on the evaluation set with labels as they are. The dotted line marks the step "
        "of the weights that are evaluated here."
    )
    return figure(png, "training curves", caption)


def direct_parents(closure) -> np.ndarray:
    """int64 [n, 2]: (child, parent) pairs of the closure with no class in between."""
    above = np.asarray(closure, bool) & ~np.eye(len(closure), dtype=bool)
    between = above.astype(np.float32) @ above.astype(np.float32) > 0
    return np.argwhere(above & ~between)


def parent_child_rows(scores, targets, closure, names) -> list[dict]:
    """How often a child scores above its direct parent on the clips of the child.

    Args: scores [N, C] without HLP on scores; targets [N, C] with HLP on labels.
    Returns: a dict per pair with clips: child, parent, clips (number of clips with the child),
      above (share of these clips with score[child] > score[parent]), gap (mean of score[child] -
      score[parent]).
    """
    rows = []
    for child, parent in direct_parents(closure):
        clips = np.flatnonzero(targets[:, child])
        if len(clips):
            with np.errstate(invalid="ignore"):
                gap = scores[clips, child].astype(np.float64) - scores[clips, parent]
            gap = gap[np.isfinite(gap)]  # the difference is NaN if both scores are -inf
            rows.append(
                {
                    "child": names[child],
                    "parent": names[parent],
                    "clips": len(clips),
                    "above": float((scores[clips, child] > scores[clips, parent]).mean()),
                    "gap": float(gap.mean()) if len(gap) else 0.0,
                }
            )
    return rows


def _parent_child(found, closure) -> str:
    if closure is None or "hlp_labels" not in found:
        return ""
    view = found["hlp_labels"]
    rows = parent_child_rows(view.scores, view.targets, closure, view.names)
    if not rows:
        return ""
    png = plots.parent_child(rows)
    shown = min(len(rows), 30)
    caption = (
        f"The {shown} of {len(rows)} pairs with most clips (number in brackets). The value is the "
        "share of the child's clips (HLP on labels) in which the model scores the child above its "
        "parent. A clip with the child also has the parent. So the value of a consistent model is "
        "near 0. Near 1, the model knows the child but not that it implies the parent. Colour: "
        "mean difference of the logits (red: child higher). Scores are without HLP, which would "
        "set every pair to 0."
    )
    worst = sorted(
        (r for r in rows if r["clips"] >= 5), key=lambda r: (-r["above"], -r["gap"], r["child"])
    )[:15]
    cells = "".join(
        f"<tr><td>{escape(r['child'])}</td><td>{escape(r['parent'])}</td>"
        f'<td class="n">{r["clips"]:,}</td>{_cell(r["above"], digits=2)}{_cell(r["gap"], digits=2)}'
        "</tr>"
        for r in worst
    )
    table = (
        '<div class="wide"><table><tr><th>child</th><th>parent</th><th class="n">clips</th>'
        f'<th class="n">child above</th><th class="n">mean gap</th></tr>{cells}</table></div>'
        '<p class="note">The least consistent pairs with at least 5 clips. HLP on scores makes '
        "them consistent.</p>"
        if worst
        else ""
    )
    return figure(png, "child above parent", caption) + table


def _class_table(results, found) -> str:
    unmapped = {k: r for k, r in results.items() if not r["mapped"]}
    names = found["labels"].names
    some = np.any([np.isfinite(r["per_class_ap"]) for r in unmapped.values()], axis=0)
    if not some.any():
        return ""
    heads = "".join(f'<th class="n">AP, {escape(r["title"])}</th>' for r in unmapped.values())
    rows = "".join(
        f"<tr><td>{escape(names[i])}</td>"
        f'<td class="n">{int(unmapped["labels"]["n_positive"][i]):,}</td>'
        + "".join(_cell(r["per_class_ap"][i]) for r in unmapped.values())
        + "</tr>"
        for i in np.flatnonzero(some)
    )
    return (
        f"<details><summary>Table of {int(some.sum())} classes</summary><div class=wide><table>"
        f'<tr><th>class</th><th class="n">clips</th>{heads}</tr>{rows}</table></div></details>'
    )
