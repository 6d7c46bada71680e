"""The pictures of report.html: arrays in, SVG bytes out. matplotlib needs no display."""

from __future__ import annotations

import numpy as np

from asjax.pages import AXES, BLUE, GREEN, GREY, INK, ON_BLUE, ORANGE, short, svg

MANY = 60  # up to this number of classes, each gets a named bar
ENDS = 25  # with more classes, this number is named at each end


def _bars(axes, names, values, dots=None, labels=(), ends=None):
    """Horizontal bars, the first on top, each with its value as text; `ends` [n, 2]: intervals."""
    at = np.arange(len(names))
    handles = [axes.barh(at, values, color=BLUE, height=0.66)]
    if ends is not None:
        axes.hlines(at, ends[:, 0], ends[:, 1], color=INK, linewidth=1, zorder=2)
    if dots is not None:
        handles += axes.plot(dots, at, "o", color=ORANGE, markersize=4.5, zorder=3)
        if labels:
            axes.figure.legend(handles, labels, loc="outside upper left", ncols=2)
    for y, value in zip(at, values, strict=True):
        if value == value:
            inside = value > 0.12  # the number is at the start of the bar, away from the dots
            near = dots is not None and value < dots[y] < value + 0.1
            far = value if ends is None else np.fmax(value, ends[y, 1])  # right of the interval
            x = 0.01 if inside else (dots[y] if near and dots[y] > far else far) + 0.014
            color = ON_BLUE if inside else INK
            axes.text(x, y, f"{value:.2f}", va="center_baseline", color=color, fontsize=7.5)
    axes.set_yticks(at, [short(n) for n in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def ap_per_class(names, ap, other=None, labels=("", ""), ends=None) -> bytes:
    """Sorted AP: up to MANY classes, a named bar for each; otherwise a histogram and both ends.

    Args: names [C], ap [C] (NaN: left out), other [C]: AP in a second view, drawn as dots;
      ends [C, 2]: intervals of ap, NaN: not drawn.
    """
    ap = np.asarray(ap, float)
    shown = np.isfinite(ap) if other is None else np.isfinite(ap) | np.isfinite(other)
    rank = np.where(np.isfinite(ap), ap, -1.0)
    order = [i for i in np.argsort(-rank, kind="stable") if shown[i]]
    part = lambda values, rows: None if values is None else values[rows]  # noqa: E731

    def bars(axes, rows, legend=()):
        named = [names[i] for i in rows]
        _bars(axes, named, ap[rows], part(other, rows), legend, part(ends, rows))

    def few(figure):
        axes = figure.subplots()
        bars(axes, order, labels)
        axes.set_xlabel("average precision")

    def many(figure):
        barred = [i for i in order if np.isfinite(ap[i])]
        top, bottom = barred[:ENDS], barred[-ENDS:]
        grid = figure.add_gridspec(2, 1, height_ratios=[1, 5.5])
        axes = figure.add_subplot(grid[0])
        known = ap[np.isfinite(ap)]
        axes.hist(known, bins=np.linspace(0, 1, 41), color=BLUE)
        axes.axvline(known.mean(), color=ORANGE, linewidth=1.5)
        title = f"all {len(known)} classes; their mean is {known.mean():.3f}"
        axes.set(xlim=(0, 1.02), ylabel="classes", title=title)
        lists = grid[1].subgridspec(2, 1)
        for place, (rows, title) in enumerate(((top, "highest"), (bottom, "lowest"))):
            axes = figure.add_subplot(lists[place])
            bars(axes, rows, labels if place == 0 else ())
            axes.set_title(f"{len(rows)} {title}")
        axes.set_xlabel("average precision")

    if len(order) <= MANY or np.isfinite(ap).sum() < 2 * ENDS:
        order = order[: 2 * MANY]
        return svg(few, 0.9 + 0.21 * max(len(order), 2))
    return svg(many, 2.0 + 2 * ENDS * 0.2)


def ap_against_prior(names, ap, prior, where: str) -> bytes:
    """Scatter of AP over the share of clips with the class, on a log axis."""
    ap, prior = np.asarray(ap, float), np.asarray(prior, float)
    rows = np.flatnonzero(np.isfinite(ap) & (prior > 0))

    def draw(figure):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes = figure.subplots()
        x, y = prior[rows], ap[rows]
        crowd = len(rows) > 200
        axes.plot(x, y, "o", color=BLUE, markersize=3.5 if crowd else 5.5,
                  alpha=0.5 if crowd else 0.8, markeredgewidth=0)  # fmt: skip
        axes.set_xscale("log")
        low, high = x.min(), x.max()
        spread = max(1.6, np.sqrt(10 * low / high))  # at least a decade, for several ticks
        axes.set_xlim(low / spread, high * spread)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(-0.03, 1.05)
        line = np.linspace(*np.log10(axes.get_xlim()), 200)
        chance = axes.plot(10**line, 10**line, ":", color=INK, linewidth=1)[0]
        handles, texts = [chance], ["AP of random scores (the share itself)"]
        if len(rows) >= 30 and high > low:
            edges = np.quantile(np.log10(x), np.linspace(0, 1, 11))
            bins = np.clip(np.searchsorted(edges, np.log10(x), "right") - 1, 0, 9)
            middle = [(10 ** np.log10(x[bins == b]).mean(), y[bins == b].mean())
                      for b in range(10) if (bins == b).any()]  # fmt: skip
            handles += axes.plot(*zip(*middle, strict=True), "-", color=ORANGE, linewidth=2)
            texts.append("mean AP by tenth of the classes")
        _name_points(axes, x, y, [short(names[i], 26) for i in rows])
        axes.set(xlabel=f"share of {where} with the class", ylabel="average precision")
        figure.legend(handles, texts, loc="outside upper left", ncols=2)

    return svg(draw, 4.2)


def _name_points(axes, x, y, names, at_most=8):
    """Name the lowest points whose names do not overlap."""
    left, right = np.log10(axes.get_xlim())
    taken = []
    for i in np.argsort(y, kind="stable"):
        if len(taken) == at_most:
            return
        at = (np.log10(x[i]) - left) / (right - left)
        width = 0.0135 * len(names[i]) + 0.02
        to_left = at + width > 1
        box = (at - width if to_left else at, at if to_left else at + width)
        free = all(b[1] < box[0] or box[1] < b[0] or abs(h - y[i]) > 0.05 for b, h in taken)
        if free:
            taken.append((box, y[i]))
            axes.annotate(
                names[i], (x[i], y[i]), xytext=(-6 if to_left else 6, 0), va="center",
                ha="right" if to_left else "left", textcoords="offset points", fontsize=7.5,
            )  # fmt: skip


PANELS = (  # title, then the keys of train.jsonl with their labels and colours
    ("loss", {"loss": ("training", BLUE), "eval/loss": ("evaluation", ORANGE)}),
    (
        "evaluation",
        {
            "eval/psds1": ("PSDS1", INK),
            "eval/mean_ap": ("mean AP", BLUE),
            "eval/accuracy": ("accuracy", GREEN),
            "eval/mean_auc": ("mean AUC", ORANGE),
        },
    ),
    ("evaluation d′", {"eval/d_prime": ("d′ of mean AUC", BLUE)}),
    ("learning rate", {"lr": ("learning rate", BLUE)}),
)


def training_curves(rows, chosen=None, reference=None) -> bytes | None:
    """Losses, evaluation metrics and learning rate over steps; None without any value.

    Args:
      rows: of train.jsonl. chosen: the step of the weights, marked in all panels.
      reference: (key, value, name) of a baseline, such as ("eval/mean_ap", 0.52, "linear model").
    """
    drawn = []
    for title, wanted in PANELS:
        curves = [(key, *look, *_series(rows, key)) for key, look in wanted.items()]
        if curves := [line for line in curves if len(line[3])]:
            drawn.append((title, curves))
    if not drawn:
        return None

    def draw(figure):
        from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

        grid = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, lines) in zip(grid, drawn, strict=True):
            for key, label, color, x, y in lines:
                mark = "o-" if len(x) <= 60 else "-"
                axes.plot(x, y, mark, color=color, markersize=3, linewidth=1.4, label=label)
                at = y[x == chosen]
                if len(at) and key.startswith("eval/"):
                    axes.plot(chosen, at[-1], "o", color=color, markersize=7, zorder=4)
                if reference and reference[0] == key:
                    axes.axhline(reference[1], color=color, linestyle="--", linewidth=1.2)
                    axes.annotate(
                        short(reference[2], 60), (0.995, reference[1]), ha="right", va="bottom",
                        color=color, fontsize=8, xycoords=("axes fraction", "data"),
                        xytext=(0, 1.5), textcoords="offset points",
                    )  # fmt: skip
            values = np.concatenate([y for *_, y in lines])
            if title == "loss" and values.min() > 0 and values.max() > 20 * values.min():
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            if title == "learning rate":
                axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
            axes.set_title(title)
            if chosen is not None:
                axes.axvline(chosen, color=INK, linestyle=":", linewidth=1)
            if len(axes.get_legend_handles_labels()[1]) > 1:
                axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=4)
        grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        grid[-1].set_xlabel("step" if chosen is None else f"step (dotted: the chosen, {chosen:,})")

    return svg(draw, 0.7 + 1.55 * len(drawn))


def _series(rows, key):
    """Finite (step, value) pairs of a key, sorted by step; the last row of a step wins."""
    values = {}
    for row in rows or ():
        step, value = row.get("step"), row.get(key)
        if _is_number(step) and _is_number(value):
            values[step] = value
    steps = sorted(values)
    return np.array(steps, float), np.array([values[s] for s in steps], float)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)


def parent_child(rows, at_most=30) -> bytes:
    """Dot plot of how often a child scores above its parent, for the pairs with most clips."""
    rows = sorted(rows, key=lambda r: (-r["clips"], r["child"]))[:at_most]
    rows = sorted(rows, key=lambda r: (-r["above"], -r["gap"]))

    def draw(figure):
        axes = figure.subplots()
        at = np.arange(len(rows))
        gap = np.array([r["gap"] for r in rows])
        limit = max(np.abs(gap).max(), 1e-6)
        size = 26 + 70 * np.sqrt([r["clips"] / max(q["clips"] for q in rows) for r in rows])
        rates = [r["above"] for r in rows]
        axes.hlines(at, 0, rates, color=GREY, linewidth=1, zorder=1)
        dots = axes.scatter(rates, at, s=size, c=gap, cmap="coolwarm", vmin=-limit, vmax=limit,
                            edgecolors=AXES, linewidths=0.6, zorder=2)  # fmt: skip
        names = [f"{short(r['child'], 26)} > {short(r['parent'], 26)} ({r['clips']})" for r in rows]
        axes.set_yticks(at, names, fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(-0.03, 1.03)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of the child's clips where it scores above its parent")
        bar = figure.colorbar(dots, ax=axes, location="top", shrink=0.6, aspect=40, pad=0.02)
        bar.set_label("mean logit of child minus parent")

    return svg(draw, 1.5 + 0.22 * max(len(rows), 2))
