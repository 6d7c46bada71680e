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

from asjax.config import printable
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


def html_table(header, rows, numbers_from: int = 1, caption: str = "") -> str:
    """An HTML table of text cells. Further lines of a cell are printed small below the first.

    Args:
      caption: text that says what the table is; screen readers read it first.
    """

    def line(row, tag):
        for i, cell in enumerate(row):
            first, *below = escape(str(cell)).split("\n")
            small = "".join(f"<small>{text}</small>" for text in below)
            align = ' class="n"' if i >= numbers_from else ""
            scope = ' scope="col"' if tag == "th" else ""
            yield f"<{tag}{scope}{align}>{first}{small}</{tag}>"

    parts = [(header, "th"), *((row, "td") for row in rows)]
    top, *lines = [f"<tr>{''.join(line(row, tag))}</tr>" for row, tag in parts]
    head = f"<caption>{escape(caption)}</caption>" if caption else ""
    table = f"{head}<thead>{top}</thead><tbody>{''.join(lines)}</tbody>"
    return wide(f'<table class="views">{table}</table>', caption or "table")


def wide(html: str, label: str) -> str:
    """A box that scrolls sideways on a narrow screen, also with the keyboard."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{html}</div>'


def below(cell: str) -> str:
    """Move the interval of `31.0 [30.1, 31.9]` to a second line."""
    return re.sub(r" \[(.*), (.*)\]", r"\n\1 to \2", cell)


def html_notes(notes) -> str:
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


# --------------------------------------------------------------------------------------- pages

CSS = """
:root{color-scheme:light dark;--ink:#22262b;--paper:#fff;--soft:#4a5058;--line:#dfe3e7;
--box:#f4f6f8;--link:#2f6690;color:var(--ink);background:var(--paper)}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7ea;--paper:#14181d;--soft:#aab2bb;
--line:#343b44;--box:#1d232a;--link:#8fc1e8}}
*{box-sizing:border-box}
body{font:16px/1.5 Georgia,'Times New Roman',serif;max-width:50rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem} h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{overflow-wrap:anywhere} a{color:var(--link)}
table{border-collapse:collapse;font:14px/1.4 system-ui,sans-serif;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:0 0 .3rem}
th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{border-bottom:1.5px solid var(--ink);font-weight:600;white-space:nowrap;vertical-align:bottom}
.n{text-align:right} .n,.views td{white-space:nowrap} td small{color:var(--soft);display:block}
.views td,.views th{padding:.3rem .35rem}
.views td:first-child{white-space:normal;min-width:8rem;overflow-wrap:anywhere}
.wide{overflow-x:auto} .wide:focus-visible,summary:focus-visible{outline:2px solid var(--link)}
.about td:last-child{overflow-wrap:anywhere;min-width:11rem}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0;font-family:system-ui,sans-serif}
.tiles div{background:var(--box);border-radius:6px;padding:.55rem .8rem;flex:1 1 8.5rem}
.tiles dt{font-size:.85rem;color:var(--soft)} .tiles dd{margin:0;font-size:1.5rem;line-height:1.25}
.tiles small{display:block;font-size:.8rem;color:var(--soft);line-height:1.35}
.clips{list-style:none;margin:0 0 1rem;padding:0;display:grid;gap:.6rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));
font:14px/1.4 system-ui,sans-serif}
.clips li{background:var(--box);border-radius:6px;padding:.6rem .8rem;overflow-wrap:anywhere}
.clips audio{width:100%;height:2.2rem;margin:.35rem 0 0;display:block}
.clips small{color:var(--soft);display:block}
figure{margin:0 0 1.5rem} figure img{width:100%;min-width:30rem;display:block}
img[src^="data:image/png"]{background:#fff}
code{font-size:.9em;white-space:nowrap}
figcaption,.note{font-size:.9rem;color:var(--soft)} details{margin:.8rem 0}
summary{cursor:pointer;font:14px system-ui,sans-serif}
@media (max-width:30rem){body{margin:1rem auto;padding:0 .8rem}}
@media print{:root{--ink:#22262b;--paper:#fff;--soft:#4a5058;--line:#dfe3e7;--box:#f4f6f8}
body{margin:0;max-width:none;font-size:11pt}figure img{min-width:0}
figure,tr,li{break-inside:avoid}.wide{overflow:visible}audio{display:none!important}}
"""


def page(title: str, body: str) -> str:
    """A self-contained HTML page in the style of all reports; `body` is HTML, `title` text."""
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body></html>\n"
    )
    # A name may hold half of a surrogate pair, which UTF-8 cannot, or a NUL, which HTML cannot.
    html = html.encode("utf-8", "backslashreplace").decode("utf-8")
    return html.replace("\0", "\ufffd")


def figure(picture: bytes, alt: str, caption: str) -> str:
    """HTML of a figure with its caption; the picture, SVG or PNG, is embedded in the page."""
    kind = "png" if picture.startswith(b"\x89PNG") else "svg+xml"
    data = base64.b64encode(picture).decode("ascii")
    image = f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{data}">'
    return f"<figure>{wide(image, alt)}<figcaption>{caption}</figcaption></figure>"


def number(value, digits=3) -> str:
    """A number for a table, or a dash if it is undefined."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


# ------------------------------------------------------------------------------------ pictures

BLUE, ORANGE, GREY, INK = "#2f6690", "#d1703c", "#b9bec5", "#22262b"
GREEN, LINES, AXES, ON_BLUE = "#4b8550", "#e6e8eb", "#8a9099", "#fefefe"

DARK = {  # the colours of a picture on a dark page; a picture in a page knows which page it is on
    INK: "#e4e7ea",
    BLUE: "#78acd6",
    ORANGE: "#e39468",
    GREEN: "#8cc48f",
    GREY: "#59616b",
    LINES: "#2c333b",
    AXES: "#7d858e",
    ON_BLUE: "#10151a",
}

WIDTH = 7.2  # inches; at 46 rem on the page, a 9 pt font is about as large as the body text


STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # a class may be called "$" or "a_b"
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": AXES,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINES,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "asjax",
}

PAPER = "#6b7280"  # colour of a paper's published numbers


HOLLOW = dict(markerfacecolor="white", markeredgewidth=1.3, linestyle="none", zorder=3)
_PLAIN = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # no metadata in the file


def svg(draw, height: float) -> bytes:
    """A picture for a page: the SVG of WIDTH x `height` inches, drawn by `draw(figure)`.

    Its texts are texts, so that the browser has glyphs for names in any script. Its colours follow
    the light or dark scheme of the reader.
    """
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}), _drawn(draw, height) as figure:
        figure.savefig(out, format="svg", transparent=True, metadata=_PLAIN, dpi=150)
    text = out.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]  # without the address of a document type
    text = re.sub(r"<[^<>]*>", _follow_scheme, text)
    light = "".join(f"--c{i}:{color};" for i, color in enumerate(DARK))
    dark = "".join(f"--c{i}:{color};" for i, color in enumerate(DARK.values()))
    style = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    start = text.index(">") + 1
    return f"{text[:start]}{style}{text[start:]}".encode()


def _follow_scheme(tag) -> str:
    """A tag of an SVG with variables for the colours of `DARK`, and fonts that every system has."""
    text = tag[0].replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, system-ui, sans-serif")
    for i, color in enumerate(DARK):
        text = text.replace(f": {color}", f": var(--c{i})")
    return text


def short(name: str, length: int = 34) -> str:
    """A name for a picture: at most `length` characters, without control characters."""
    name = printable(name)
    return name if len(name) <= length else name[: length - 1] + "…"


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
