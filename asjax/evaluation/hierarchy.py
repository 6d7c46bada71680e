"""A section of report.html: does a model that knows a class also know its parent?"""

from __future__ import annotations

import numpy as np

from asjax.evaluation import plots
from asjax.pages import figure, html_table, number


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


def section(found, closure) -> str:
    """The HTML of the section; empty without an ontology or without a clip of a child class."""
    if closure is None or "hlp_labels" not in found:
        return ""
    view = found["hlp_labels"]
    rows = parent_child_rows(view.scores, view.targets, closure, view.names)
    if not rows:
        return ""
    picture = plots.parent_child(rows)
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
    header = ["child", "parent", "clips", "child above", "mean gap"]
    cells = [
        [r["child"], r["parent"], f"{r['clips']:,}", number(r["above"], 2), number(r["gap"], 2)]
        for r in worst
    ]
    title = "The least consistent pairs with at least 5 clips. HLP on scores makes them consistent."
    table = html_table(header, cells, numbers_from=2, caption=title) if worst else ""
    return figure(picture, "How often a child class scores above its parent", caption) + table
