"""Pictures of decisions: confusion matrix, reliability; arrays in, SVG bytes out."""

from __future__ import annotations

import numpy as np

from asjax.pages import AXES, BLUE, INK, ON_BLUE, ORANGE, WIDTH, short, svg

NAMED = 30  # up to this number of classes, each row and column has its name
COUNTED = 16  # up to this number of classes, each cell has its count


def confusion(names, table) -> bytes:
    """The confusion matrix: row = true class, column = decision, colour = share of the row.

    Args: names [C]; table: int [C, C], clips. Only a matrix of up to NAMED classes has names.
    """
    table = np.asarray(table, float)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    few = len(names) <= NAMED

    def draw(figure):
        axes = figure.subplots()
        if few:
            _cells(axes, table, share)
            labels = [short(n, 24) for n in names]
            axes.set_xticks(range(len(names)), labels, fontsize=8, rotation=45, ha="right")
            axes.set_yticks(range(len(names)), labels, fontsize=8)
            axes.set(xlabel="decision", ylabel="true class")
        else:
            axes.imshow(_tinted(share), interpolation="nearest", aspect="equal")
            axes.set(xlabel=f"decision: {len(names)} classes", ylabel="true class, same order")
            axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set(visible=True, color=AXES)

    height = min(WIDTH, 2.0 + 0.42 * len(names)) if few else WIDTH - 0.4
    return svg(draw, max(height, 2.6))


def _cells(axes, table, share):
    """One rectangle for each cell that is not empty, and its count if there are few classes."""
    for i, j in np.argwhere(table > 0).tolist():
        axes.add_patch(_cell(j, i, 0.12 + 0.88 * share[i, j]))
        if len(table) <= COUNTED:
            color = ON_BLUE if share[i, j] > 0.5 else INK
            axes.text(j, i, f"{table[i, j]:,.0f}", ha="center", va="center_baseline",
                      color=color, fontsize=8)  # fmt: skip
    axes.set(xlim=(-0.5, len(table) - 0.5), ylim=(len(table) - 0.5, -0.5), aspect="equal")


def _cell(x, y, alpha):
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=BLUE, alpha=alpha, linewidth=0)


def _tinted(share) -> np.ndarray:
    """RGBA of shares [C, C]: a blue that is visible on light and on dark, clear where 0."""
    out = np.zeros((*share.shape, 4))
    out[..., :3] = np.array([58, 134, 196]) / 255
    out[..., 3] = np.where(share > 0, 0.25 + 0.75 * share, 0.0)
    return out


def reliability(found) -> bytes:
    """Share against mean probability of each bin of `decide.calibration`, and the bins' counts."""
    pairs = found["of"] == "pairs"
    count = np.asarray(found["count"])
    some = count > 0
    edges = np.asarray(found["edges"])
    centre, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)

    def draw(figure):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        top.plot([0, 1], [0, 1], ":", color=INK, linewidth=1, label="perfect calibration")
        p, y = found["mean_probability"][some], found["share"][some]
        top.vlines(p, np.minimum(p, y), np.maximum(p, y), color=ORANGE, linewidth=2, alpha=0.7)
        top.plot(p, y, "o-", color=BLUE, markersize=5, linewidth=1.4, label="model")
        top.set(ylim=(-0.03, 1.03), xlim=(-0.01, 1.01))
        top.set_ylabel("share with the label" if pairs else "share that is right")
        top.legend(loc="upper left")
        below.bar(centre[some], count[some], width=0.9 * width[some], color=BLUE)
        below.set_yscale("log")
        below.yaxis.set_major_locator(LogLocator(numticks=4))
        below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        below.yaxis.set_minor_formatter(NullFormatter())
        below.set_ylabel("pairs" if pairs else "clips")
        below.set_xlabel("probability of the model")

    return svg(draw, 4.4)
