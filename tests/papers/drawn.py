"""Access to the figure of a picture, so that a test can check its content."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def capture(monkeypatch, module) -> list:
    """The figures that `module` saves from now on; each is laid out once."""
    figures = []

    def save(draw, height, stem):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.canvas.draw()
        figures.append(figure)
        return b"png"

    monkeypatch.setattr(module, "save", save)
    return figures


def points(axes, filled=True) -> list[tuple[float, float]]:
    """(x, y) of all filled marks, or of all hollow marks, from left to right."""
    found = []
    for line in axes.lines:
        mark = line.get_marker() not in ("None", None, "")
        hollow = line.get_markerfacecolor() == "white"
        if mark and hollow != filled:
            found += zip(line.get_xdata(), line.get_ydata(), strict=True)
    return sorted((float(x), float(y)) for x, y in found)


def bars(axes) -> list[list[tuple[float, float]]]:
    """The end points of every error bar."""
    return [
        [tuple(map(float, end)) for end in segment]
        for collection in axes.collections
        for segment in getattr(collection, "get_segments", list)()
    ]
