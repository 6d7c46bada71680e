"""The pictures of `asjax stats`, with matplotlib and librosa; no display is needed."""

from __future__ import annotations

import numpy as np

BLUE, ORANGE = "#2b6cb0", "#dd6b20"


def _axes(title: str, subtitle: str):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=24)
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, fontsize=9.5, color="#4a5058")
    axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _log_ticks(axes, low: float, high: float):
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}" if y >= 1 else f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def class_counts(found: dict, path) -> None:
    """Positives per class, most frequent first, and the increase by HLP."""
    split = found["splits"][found["swept"]]
    order = np.argsort(-split.before, kind="stable")
    before, after = split.before[order].astype(float), split.after[order].astype(float)
    rank = np.arange(1, len(order) + 1)
    grown = after > before
    growth = after.sum() / max(before.sum(), 1.0) - 1.0
    figure, axes = _axes(
        f"Clips per class before and after HLP: {found['swept']}",
        f"{split.clips:,} clips; {grown.sum()} of {len(order)} classes gain, "
        f"{growth:+.1%} labels in all",
    )
    shown = np.maximum(before, 0.5)  # absent classes are at the bottom of the log axis
    axes.vlines(rank[grown], shown[grown], after[grown], color=ORANGE, alpha=0.45, linewidth=1.1)
    axes.plot(rank, shown, color=BLUE, linewidth=2, label="labels as they are")
    axes.plot(
        rank[grown], after[grown], "o", color=ORANGE, markersize=3.2, label="after HLP, if changed"
    )
    low = max(0.4, before[before > 0].min() / 3) if before.any() else 0.4
    _log_ticks(axes, low if before.all() else 0.4, max(after.max(), 1.0) * 3)
    axes.set_xlim(0, len(order) + 1)
    axes.set_xlabel("class rank by count before HLP")
    axes.set_ylabel("clips (log scale)")
    _name_top(axes, found, order, rank, before, after)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path)


def _name_top(axes, found, order, rank, before, after, most: int = 8):
    """Name the classes with the largest growth factors, if the name does not cover anything."""
    factor = np.where(before > 0, after / np.maximum(before, 1.0), 0.0)
    height = np.log10(np.maximum(after, 0.5))
    span = np.diff(np.log10(axes.get_ylim()))[0]
    boxes: list[tuple[float, float, float]] = []
    for i in np.argsort(-factor, kind="stable")[: 4 * most]:
        if factor[i] <= 1 or len(boxes) == most:
            break
        text = f"{found['label_set'].names[order[i]]} ×{factor[i]:.3g}"
        half = 0.0042 * len(text) * len(rank)  # half the width of the text, in ranks
        x = min(max(rank[i], half), len(rank) - half)
        near = (np.abs(rank - x) < half) & (height > height[i])  # points or stems behind the text
        clash = any(abs(x - u) < half + w and abs(height[i] - v) < 0.05 * span for u, v, w in boxes)
        if near.any() or clash:
            continue
        boxes.append((x, height[i], half))
        axes.annotate(
            text,
            (x, after[i]),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color="#7b341e",
        )


def beta_prior(found: dict, path) -> None:
    """Prior of every class in the oversampled list, one line per beta."""
    from matplotlib import colormaps

    split, sweep = found["splits"][found["swept"]], found["sweep"]
    order = np.argsort(-split.before, kind="stable")
    figure, axes = _axes(
        f"Class priors after oversampling: {found['swept']}",
        "share of the drawn examples with the class; "
        r"$\beta=0$ leaves the list as it is, $\beta=1$ balances fully",
    )
    rank = np.arange(1, len(order) + 1)
    lowest, highest = 1.0, 0.0
    for k, (beta, row) in enumerate(sweep.items()):
        prior = row["counts"][order] / row["sum_M"]
        lowest = min(lowest, prior[prior > 0].min(initial=1.0))
        highest = max(highest, prior.max())
        colour = colormaps["viridis"](0.88 * k / max(1, len(sweep) - 1))
        label = rf"$\beta={beta:g}$   ρ {row['imbalance_ratio']:,.0f}"
        prior = np.where(prior > 0, prior, np.nan)
        axes.plot(rank, prior, color=colour, linewidth=1.3, alpha=0.9, label=label)
    _log_ticks(axes, lowest / 1.5, min(1.0, highest * 2))
    axes.set_xlim(0, len(order) + 1)
    axes.set_xlabel("class rank by count before oversampling")
    axes.set_ylabel("prior (log scale)")
    axes.legend(frameon=False, loc="upper right", fontsize=9, ncols=2)
    figure.savefig(path)


def features(path, feats, *, title: str, sample_rate: int, hop: int, filters=None) -> None:
    """Draw a clip's features [T, F] and the frontend's filter bank [bins, F] with librosa.

    Args:
      filters: None for a frontend without a fixed filter bank; then only the clip is drawn.
    """
    from librosa.display import specshow
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = 1 if filters is None else 2
    figure = Figure(figsize=(9, 3.2 * parts), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(parts, squeeze=False)[:, 0]
    shown = specshow(np.asarray(feats).T, sr=sample_rate, hop_length=hop, x_axis="time", ax=axes[0])
    figure.colorbar(shown, ax=axes[0])
    axes[0].set_title(title, loc="left", fontsize=11)
    axes[0].set_ylabel("bin")
    if filters is not None:
        bins = len(filters)
        step = sample_rate / (2 * (bins - 1) if bins % 2 else 2 * bins)  # some have no Nyquist bin
        scaled = filters / np.maximum(filters.max(axis=0), 1e-12)
        specshow(scaled.T, x_coords=np.arange(bins) * step, x_axis="hz", ax=axes[1])
        axes[1].set_title("filter bank, each filter scaled to its maximum", loc="left", fontsize=11)
        axes[1].set_ylabel("bin")
    figure.savefig(path)
