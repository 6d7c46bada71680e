"""The pictures of events.html: arrays in, SVG bytes out."""

from __future__ import annotations

import numpy as np

from asjax.pages import BLUE, GREEN, INK, ORANGE, short, svg

CURVES = 5  # classes at each end
ROWS = 6  # classes of a timeline
_SHADE = np.array([58, 134, 196]) / 255  # visible on light and on dark


def curves(names, class_curves, areas, max_efpr: float = 100.0) -> bytes:
    """TPR over effective false positives an hour: the best classes and the worst ones.

    Args: names [C]; class_curves: class -> (eFPR, TPR, ...); areas: float [C], NaN: left out.
    """
    order = sorted(class_curves, key=lambda c: -areas[c])
    groups = [("all classes", order)]
    if len(order) > 2 * CURVES:
        groups = [("best", order[:CURVES]), ("worst", order[-CURVES:])]
    looks = [(color, line) for line in ("-", "--") for color in (BLUE, ORANGE, GREEN, INK)]
    looks += [(color, ":") for color in (BLUE, ORANGE)]

    def draw(figure):
        grid = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, (title, classes) in zip(grid, groups, strict=True):
            for c, (color, line) in zip(classes, looks, strict=False):
                x, y = class_curves[c][:2]
                x, y = np.append(x, max_efpr), np.append(y, y[-1:])
                label = f"{short(names[c], 22)} {areas[c]:.2f}"
                options = {"where": "post", "color": color, "linestyle": line, "linewidth": 1.5}
                axes.step(x, y, label=label, **options)
            axes.set_title(title)
            axes.set(xlim=(0, max_efpr), ylim=(-0.02, 1.02))
            axes.set_xlabel("effective false positives an hour")
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8, ncols=len(grid) % 2 + 1
            )
        grid[0].set_ylabel("share of events found")

    most = max(len(classes) for _, classes in groups)
    return svg(draw, 3.6 + 0.2 * (most if len(groups) > 1 else most / 2))


def durations(true_s, found_s) -> bytes:
    """Histograms of the lengths of true and of found events, on one log axis."""
    both = np.concatenate([true_s, found_s])
    low, high = max(0.02, both.min()), max(both.max(), 0.1)
    bins = np.geomspace(low * 0.9, high * 1.1, 31)

    def draw(figure):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes = figure.subplots()
        for values, color, label in ((true_s, BLUE, "true"), (found_s, ORANGE, "found")):
            if len(values):
                text = f"{label}: {len(values):,}, median {np.median(values):.2f} s"
                look = {"histtype": "step", "linewidth": 1.8}
                axes.hist(np.clip(values, low, high), bins, color=color, label=text, **look)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="length of an event", ylabel="events")
        figure.legend(loc="outside upper left", ncols=2)

    return svg(draw, 2.7)


def errors(onset_s, offset_s) -> bytes:
    """Histograms of onset and offset errors of matched events; limits hold 95 % of them."""
    both = np.abs(np.concatenate([onset_s, offset_s]))
    limit = max(0.25, float(np.quantile(both, 0.95)))
    bins = np.linspace(-limit, limit, 42)

    def draw(figure):
        for axes, title, values, color in zip(
            figure.subplots(1, 2, sharey=True),
            ("onset", "offset"),
            (onset_s, offset_s),
            (BLUE, ORANGE),
            strict=True,
        ):
            axes.hist(np.clip(values, -limit, limit), bins, color=color)
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.axvspan(-0.2, 0.2, color=INK, alpha=0.08, linewidth=0)
            axes.set_title(f"{title}: median {np.median(values):+.2f} s")
            axes.set_xlabel("found minus true, seconds")
        figure.axes[0].set_ylabel("matched events")

    return svg(draw, 2.5)


def timeline(names, classes, truth, found, probability, seconds: float) -> bytes:
    """One clip: per class the true events above the found ones, on the probability as a shade.

    Args:
      classes: rows, from the top. truth, found: `EVENT` arrays.
      probability: float [T, C] over the clip of `seconds`.
    """

    def draw(figure):
        axes = figure.subplots()
        for row, c in enumerate(classes):
            strip = np.zeros((1, len(probability), 4))
            strip[..., :3], strip[0, :, 3] = _SHADE, 0.75 * probability[:, c]
            extent = (0, seconds, row + 0.46, row - 0.46)
            axes.imshow(strip, extent=extent, aspect="auto", interpolation="nearest", zorder=1)
            for marks, top, color in ((truth, -0.4, GREEN), (found, 0.06, ORANGE)):
                mine = marks[marks["class"] == c]
                spans = [(a, b - a) for a, b in zip(mine["onset_s"], mine["offset_s"], strict=True)]
                axes.broken_barh(spans, (row + top, 0.34), color=color, linewidth=0, zorder=2)
        axes.set_yticks(range(len(classes)), [short(names[c], 24) for c in classes], fontsize=8)
        axes.set(xlim=(0, seconds), ylim=(len(classes) - 0.5, -0.5), xlabel="seconds")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)

    return svg(draw, 0.75 + 0.38 * max(1, len(classes)))
