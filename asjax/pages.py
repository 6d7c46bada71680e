"""The style of all tables, pages and figures: text tables, CSV, HTML, matplotlib settings."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import math
import re
import warnings
from html import escape
from pathlib import Path

import numpy as np

from asjax.store.files import write_atomic

# ----------------------------------------------------------------------------- text and tables


def table_text(title: str, header: list[str], rows: list[list[str]]) -> str:
    """A plain text table: the first column is aligned left, the others right."""
    width = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [title]
    for row in [header, ["-" * w for w in width], *rows]:
        cells = [row[0].ljust(width[0])] + [
            c.rjust(w) for c, w in zip(row[1:], width[1:], strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def parameter_table(arrays, *, sharding: bool = False) -> str:
    """Path, shape, type and size of every array of a nested dict, and the total (uses clu).

    Args:
      sharding: also show the sharding over devices. This needs arrays, not only their shapes.
    """
    from clu.parameter_overview import get_parameter_overview

    return get_parameter_overview(arrays, include_stats="sharding" if sharding else False)


def write_csv(path: Path, header, rows) -> None:
    """Write a CSV. A cell is empty if its value is None or not finite."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(header)
    for row in rows:
        out.writerow([_csv_cell(value) for value in row])
    write_atomic(path, text.getvalue())


def _csv_cell(value):
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def html_table(header, rows, numbers_from: int = 1) -> str:
    """An HTML table of text cells. Further lines of a cell are printed small below the first."""

    def line(row, tag):
        for i, cell in enumerate(row):
            first, *below = escape(str(cell)).split("\n")
            small = "".join(f"<small>{text}</small>" for text in below)
            align = ' class="n"' if i >= numbers_from else ""
            yield f"<{tag}{align}>{first}{small}</{tag}>"

    parts = [(header, "th"), *((row, "td") for row in rows)]
    lines = [f"<tr>{''.join(line(row, tag))}</tr>" for row, tag in parts]
    return f'<div class="wide"><table class="views">{"".join(lines)}</table></div>'


def below(cell: str) -> str:
    """Move the interval of `31.0 [30.1, 31.9]` to a second line."""
    return re.sub(r" \[(.*), (.*)\]", r"\n\1 to \2", cell)


def html_notes(notes) -> str:
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


# --------------------------------------------------------------------------------------- pages

CSS = """
:root{color:#22262b;background:#fff}
body{font:16px/1.5 Georgia,'Times New Roman',serif;max-width:50rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .3rem}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
table{border-collapse:collapse;font:14px/1.4 system-ui,sans-serif;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid #e3e6e9;vertical-align:top}
th{border-bottom:1.5px solid #22262b;font-weight:600;white-space:nowrap}
.n{text-align:right} .n,.views td{white-space:nowrap} td small{color:#667;display:block}
.views td,.views th{padding:.3rem .35rem}
.wide{overflow-x:auto} .about td:last-child{overflow-wrap:anywhere}
figure{margin:0 0 1.5rem} figure img{width:100%;min-width:36rem;display:block}
figcaption,.note{font-size:.9rem;color:#4a5058} details{margin:.8rem 0}
summary{cursor:pointer;font:14px system-ui,sans-serif}
@media print{body{margin:0;max-width:none;font-size:11pt}figure img{min-width:0}
figure,tr{break-inside:avoid}.wide{overflow:visible}}
"""


def page(title: str, body: str) -> str:
    """A self-contained HTML page in the style of all reports; `body` is HTML, `title` text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def figure(png: bytes, alt: str, caption: str) -> str:
    """HTML of a figure with its caption; the picture is embedded in the page."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><div class="wide"><img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
        f"</div><figcaption>{caption}</figcaption></figure>"
    )


def number(value, digits=3) -> str:
    """A number for a table, or a dash if it is undefined."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


# ------------------------------------------------------------------------------------ pictures

BLUE, ORANGE, GREY, INK = "#2f6690", "#d1703c", "#b9bec5", "#22262b"


WIDTH = 7.2  # inches; at 46 rem on the page, a 9 pt font is about as large as the body text


STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # a class may be called "$" or "a_b"
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a9099",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "asjax",
}

PAPER = "#6b7280"  # colour of a paper's published numbers


HOLLOW = dict(markerfacecolor="white", markeredgewidth=1.3, linestyle="none", zorder=3)


def png(draw, height: float) -> bytes:
    """The PNG bytes of a picture of WIDTH x `height` inches, drawn by `draw(figure)`."""
    out = io.BytesIO()
    with _drawn(draw, height) as figure:
        figure.savefig(out, format="png", dpi=150, metadata={"Software": None})
    return out.getvalue()


def save(draw, height: float, stem: Path) -> bytes:
    """Save the picture as stem.png and stem.svg; return the PNG bytes."""
    with _drawn(draw, height) as figure:
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(stem.with_suffix(".png"), dpi=150, metadata={"Software": None})
    return stem.with_suffix(".png").read_bytes()


@contextlib.contextmanager
def _drawn(draw, height: float):
    """A matplotlib figure in our style; no display is needed."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name may be in any script
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        yield figure
