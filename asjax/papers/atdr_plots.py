"""The pictures of `asjax report atdr`, each as PNG and SVG.

Filled marks are our results, hollow marks are the paper's.
"""

from __future__ import annotations

import numpy as np

from asjax.pages import BLUE, HOLLOW, ORANGE, save
from asjax.pages import PAPER as GREY
from asjax.papers import printed
from asjax.papers.atdr import comparable, quality_rule, stride_name, strides_shown, won_rule
from asjax.papers.atdr_runs import PROCEDURES, SUBSETS, subsets
from asjax.papers.plots import _bars

START = {True: "from ImageNet", False: "from scratch"}
PAPER_MARK = dict(markersize=6.5, markeredgecolor=GREY, **HOLLOW)


def _point(axes, result, at, subset="all", across=True, **look):
    """Draw a filled mark with its interval, mAP on x (`across`) or y; returns the legend handle."""
    value, bars = 100 * result.values[subset], _bars(result.values[subset], result.interval(subset))
    bars = None if bars is None else 100 * bars
    x, y, error = (value, at, dict(xerr=bars)) if across else (at, value, dict(yerr=bars))
    return axes.errorbar(
        x, y, **error, **{"fmt": "o", "markersize": 5, "elinewidth": 1.4, "zorder": 4, **look}
    )


def _rows(axes, names):
    """Names on the y axis, from top to bottom."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)


def _legend(figure, handles):
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)


def procedures(found, stem) -> bytes:
    """Table 2: one panel per procedure, models on y, mAP on x."""
    table = found["table2"]
    models = list(table)
    shown = [p for p in PROCEDURES if any(p in row for row in table.values())]

    def draw(figure):
        across = 2 if len(shown) > 1 else 1
        grid = figure.subplots(
            -(-len(shown) // across), across, sharex=True, sharey=True, squeeze=False
        )
        handles = {}
        for axes, p in zip(grid.flat, shown, strict=False):
            for at, (model, row) in enumerate(table.items()):
                if p not in row:
                    continue
                handles["ours"] = _point(axes, row[p], at, color=BLUE)
                theirs = printed.ATDR_TABLE2.get(model, (0, {}))[1].get(p)
                if theirs is not None and comparable(row[p]):
                    handles["paper"] = axes.plot(theirs, at, "o", **PAPER_MARK)[0]
            features, start = PROCEDURES[p]
            axes.set_title(f"{p}: {features}, {START[start]}")
            _rows(axes, models)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for axes in grid.flat[max(0, len(shown) - across) : len(shown)]:  # lowest in each column
            axes.set_xlabel("mAP in %")
            axes.tick_params(labelbottom=True)
        _legend(figure, handles)

    down = -(-len(shown) // 2)
    return save(draw, 0.7 + down * (0.75 + 0.3 * max(len(models), 2)), stem)


def strides(found, stem) -> bytes:
    """Table 3: mAP over stride, one panel per feature size."""
    table = found["table3"]
    looks = {True: (BLUE, "o"), False: (ORANGE, "s")}

    def draw(figure):
        grid = figure.subplots(1, len(table), sharey=True, squeeze=False)[0]
        handles = {}
        for axes, (features, found_at) in zip(grid, table.items(), strict=True):
            shown = strides_shown(found_at)
            at = {stride: float(np.mean(stride)) for stride in shown}
            for p, row in found_at.items():
                color, mark = looks[PROCEDURES[p][1]]
                for stride, r in row.items():
                    handles[f"ours, {START[PROCEDURES[p][1]]}"] = _point(
                        axes, r, at[stride], across=False, color=color, fmt=mark
                    )
                axes.plot([at[s] for s in row], [100 * r.value for r in row.values()], color=color)
                theirs = printed.ATDR_STRIDES.get(p, {})
                if theirs and all(map(comparable, row.values())):
                    drawn = axes.plot(list(theirs), list(theirs.values()), "o", **PAPER_MARK)
                    handles["paper, from ImageNet"] = drawn[0]
            axes.set_title(f"AST on {features}")
            axes.set_xticks(list(at.values()), [stride_name(s) for s in shown])
            axes.set_xlabel("stride")
            axes.set_xlim(min(at.values()) - 0.7, max(at.values()) + 0.7)
            axes.margins(y=0.12)
        grid[0].set_ylabel("mAP in %")
        _legend(figure, handles)

    return save(draw, 3.2, stem)


def ablations(found, stem) -> bytes:
    """Table 4: points lost by component, for each model and their mean; one panel per procedure."""
    table = found["table4"]
    names = [f"without {name}" for name, _ in printed.ATDR_ABLATIONS.values()]

    def draw(figure):
        grid = figure.subplots(len(table), 1, squeeze=False)[:, 0]
        handles = {}
        for axes, (p, models) in zip(grid, table.items(), strict=True):
            for at, (component, (_, paper)) in enumerate(printed.ATDR_ABLATIONS.items()):
                some = [row[component] for row in models.values() if component in row]
                if not some:
                    continue
                value, deviation, n = found["lost"][p][component]
                handles["mean of models, ± deviation"] = axes.errorbar(
                    100 * value, at, xerr=None if deviation is None else 100 * deviation,
                    fmt="o", color=BLUE, markersize=6.5, elinewidth=1.6, zorder=4,
                )  # fmt: skip
                if n > 1:
                    values = [100 * r.value for r in some]
                    handles["a model"] = axes.plot(
                        values, [at + 0.22] * len(some), "o", color=BLUE, markersize=3.5, alpha=0.6
                    )[0]
                if p == "A4" and all(map(comparable, some)):
                    handles["paper"] = axes.errorbar(
                        paper[0], at - 0.22, xerr=paper[1], ecolor=GREY, elinewidth=1.2, fmt="o",
                        **{k: v for k, v in PAPER_MARK.items() if k != "linestyle"},
                    )  # fmt: skip
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.set_title(f"{p}: {PROCEDURES[p][0]}, {START[PROCEDURES[p][1]]}")
            _rows(axes, names)
        grid[-1].set_xlabel("mAP points lost")
        _legend(figure, handles)

    return save(draw, 0.7 + 1.9 * len(table), stem)


def quality(found, stem) -> bytes:
    """Figure 2: one panel per subset of classes; blue: large features, orange: small features."""
    table = found["figure2"]
    models, sizes = list(table), {key: mask.sum() for key, mask in subsets().items()}
    looks = {
        "A1": (BLUE, "o", -0.27),
        "A2": (BLUE, "s", -0.09),
        "A3": (ORANGE, "o", 0.09),
        "A4": (ORANGE, "s", 0.27),
    }

    def draw(figure):
        grid = figure.subplots(1, len(SUBSETS), sharex=True, sharey=True)
        handles = {}
        for axes, (subset, name) in zip(grid, SUBSETS.items(), strict=True):
            for at, row in enumerate(table.values()):
                for p, r in row.items():
                    color, mark, shift = looks[p]
                    features, start = PROCEDURES[p]
                    handles[f"{p}: {features}, {START[start]}"] = _point(
                        axes, r, at + shift, subset, color=color, fmt=mark, markersize=4.5
                    )
            axes.set_title(f"quality {name}: {sizes[subset]} classes")
            _rows(axes, models)
            axes.set_xlabel("mAP in %")
        handles = dict(sorted(handles.items()))
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=2)
        first, _, rest = quality_rule().partition("> 67")
        figure.supxlabel(
            f"{first.strip()}\n> 67{rest}\n{won_rule(found)}", fontsize=7.5, x=0.01, ha="left"
        )

    return save(draw, 1.65 + 0.55 * max(len(models), 2), stem)
