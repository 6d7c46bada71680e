"""The pictures of `asjax report`, each as PNG and SVG; matplotlib needs no display.

Filled marks are our results, hollow marks are the paper's.
"""

from __future__ import annotations

import numpy as np

from asjax.pages import BLUE, HOLLOW, INK, ORANGE, PAPER, save
from asjax.papers import printed


def _bars(value, interval):
    """Lengths of an error bar, [[below], [above]]; None without an interval."""
    if interval is None or not np.isfinite(interval).all() or not np.isfinite(value):
        return None
    return np.maximum([[value - interval[0]], [interval[1] - value]], 0.0)


# --------------------------------------------------------------------------------- HLP, Table III


def hlp_table(found, stem) -> bytes:
    """Table III as four panels: models on y, mAP on x; blue: without HLP, orange: with HLP."""
    from matplotlib.lines import Line2D

    rows = found["rows"]
    models = list(dict.fromkeys(model for model, _ in rows))
    columns = [c for c in printed.HLP_COLUMNS if any(c in row for row in rows.values())]
    looks = {
        False: (BLUE, -0.17, "trained on labels as they are"),
        True: (ORANGE, 0.17, "on HLP labels"),
    }

    def draw(figure):
        across = 2 if len(columns) > 1 else 1
        down = -(-len(columns) // across)
        grid = figure.subplots(down, across, sharey=True, squeeze=False)
        handles = {}
        hollow = Line2D([], [], marker="o", markersize=6.5, markeredgecolor=PAPER, **HOLLOW)
        for axes, column in zip(grid.flat, columns, strict=False):
            for (model, trained), row in rows.items():
                color, shift, label = looks[trained]
                at = models.index(model) + shift
                result = row.get(column)
                if result is None:
                    continue
                value, bars = 100 * result.value, _bars(result.value, result.interval)
                handles[label] = axes.errorbar(
                    value, at, xerr=None if bars is None else 100 * bars, fmt="o", color=color,
                    markersize=5, elinewidth=1.4, zorder=4,
                )  # fmt: skip
                paper = printed.hlp_value(model, trained, column)
                if paper is not None and printed.hlp_comparable(result.classes, column):
                    axes.plot(paper, at, "o", markersize=6.5, markeredgecolor=color, **HOLLOW)
                    handles["paper"] = hollow
            axes.set_title(printed.HLP_COLUMNS[column][0])
            axes.set_ylim(len(models) - 0.5, -0.5)
            axes.set_yticks(range(len(models)), models)
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.margins(x=0.12)
        for axes in grid.flat[len(columns) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("mAP in %")
        handles["paper"] = handles.pop("paper", None)  # last
        shown = {name: handle for name, handle in handles.items() if handle is not None}
        figure.legend(shown.values(), shown.keys(), loc="outside upper left", ncols=3)

    down = -(-len(columns) // 2)
    return save(draw, 0.7 + down * (0.85 + 0.42 * max(len(models), 2)), stem)


# ------------------------------------------------------------------------------ balance, figs 1-2


def beta_curves(found, paper, stem) -> bytes:
    """mAP (left) and d' (right) over beta, one row of panels per evaluation set."""
    sets = found["sets"]
    marks = {"public": "o", "internal": "s"}

    def draw(figure):
        grid = figure.subplots(len(sets), 2, squeeze=False)
        handles = {}
        for k, (entry, pair) in enumerate(zip(sets, grid, strict=True)):
            betas = sorted(entry["rows"])
            for which, (axes, key, label) in enumerate(
                zip(pair, ("mean_ap", "d_prime"), ("mAP", "d′ of the mean AUC"), strict=True)
            ):
                points = [entry["rows"][beta] for beta in betas]
                values = [float(p[key]) for p in points]
                line = axes.plot(
                    betas, values, "o-", color=BLUE, markersize=5, linewidth=1.6, zorder=4
                )
                handles["ours"] = line[0]
                for beta, value, p in zip(betas, values, points, strict=True):
                    bars = _bars(value, p["intervals"].get(key))
                    if bars is not None:
                        axes.errorbar(
                            beta, value, yerr=bars, color=BLUE, elinewidth=1.2, capsize=2.5
                        )
                if entry["classes"] >= 500 and entry["zero_shot"] is None:
                    for name, mark in marks.items():
                        rows = paper[name]
                        theirs = [row[which] for row in rows.values()]
                        drawn = axes.plot(
                            list(rows), theirs, mark, markersize=6, markeredgecolor=PAPER, **HOLLOW
                        )
                        handles[f"paper, {name} evaluation set"] = drawn[0]
                axes.set_ylabel(label)
                axes.set_xticks(sorted({*betas, 0.0, 1.0} if max(betas) <= 1 else betas))
                axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
                axes.margins(y=0.12)
                if k == len(sets) - 1:
                    axes.set_xlabel("β (0: labels as they occur, 1: fully balanced)")
            pair[0].set_title(f"{entry['title']}: {entry['clips']:,} clips")
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)

    return save(draw, 0.6 + 2.7 * len(sets), stem)


# -------------------------------------------------------------------------------- balance, fig 3


def change_on_prior(compare, sets, stem) -> bytes:
    """Change of AP of every class over its prior, with the least squares line and its band."""
    low, high = compare

    def draw(figure):
        grid = figure.subplots(len(sets), 1, squeeze=False)[:, 0]
        handles = {}
        for axes, entry in zip(grid, sets, strict=True):
            made = entry["compared"]
            known = np.isfinite(made["change"]) & (made["prior"] > 0)
            x, y = np.log10(made["prior"][known]), made["change"][known]
            crowd = len(x) > 200
            axes.axhline(0, color=INK, linewidth=0.8)
            handles["a class"] = axes.plot(
                10**x, y, "o", color=BLUE, markersize=3.5 if crowd else 5,
                alpha=0.45 if crowd else 0.8, markeredgewidth=0,
            )[0]  # fmt: skip
            axes.set_xscale("log")
            _share_ticks(axes, x)
            if made["line"] is not None:
                handles |= _line(axes, x, y, made["line"])
            axes.set_title(_caption(entry, made))
            axes.set_ylabel(f"AP at β = {high:g} minus β = {low:g}")
            axes.set_xlabel(f"share of {made['where']} with the class")
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3)

    return save(draw, 0.5 + 3.4 * len(sets), stem)


def _caption(entry, made) -> str:
    text = f"{entry['title']}: mean change {made['mean_ap']:+.4f}"
    line = made["line"]
    return f"{text}; slope {line['slope']:+.4f} per decade, p = {line['p']:.2g}" if line else text


def _share_ticks(axes, x):
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    spread = max(0.15, 0.5 * (1 - np.ptp(x)))
    axes.set_xlim(10 ** (x.min() - spread), 10 ** (x.max() + spread))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if np.ptp(x) < 1.5 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _line(axes, x, y, line) -> dict:
    """The fitted line, the 95 % band of its mean, and means of tenths of the classes."""
    from scipy.stats import t

    at = np.linspace(x.min(), x.max(), 100)
    fit = line["intercept"] + line["slope"] * at
    residual = y - (line["intercept"] + line["slope"] * x)
    n = len(x)
    scale = np.sqrt((residual**2).sum() / (n - 2))
    half = t.ppf(0.975, n - 2) * scale * np.sqrt(1 / n + (at - x.mean()) ** 2 / n / x.var())
    drawn = axes.plot(10**at, fit, color=ORANGE, linewidth=2, zorder=4)[0]
    axes.fill_between(10**at, fit - half, fit + half, color=ORANGE, alpha=0.18, linewidth=0)
    handles = {"least squares, 95 % band": drawn}
    if n >= 30:
        order = np.array_split(np.argsort(x, kind="stable"), 10)
        handles["mean of a tenth of the classes"] = axes.plot(
            [10 ** x[part].mean() for part in order], [y[part].mean() for part in order], "o",
            markersize=6, markeredgecolor=INK, **HOLLOW,
        )[0]  # fmt: skip
    return handles
