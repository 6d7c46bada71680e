"""The output of `asjax report sed`: text, page and tables of `sed.collect`."""

from __future__ import annotations

from html import escape

from asjax import pages
from asjax.metrics.aso import CORRECTIONS
from asjax.papers import printed, sed, sed_runs
from asjax.store.files import write_atomic

BY = "deepsig"  # the correction by which the paper decides
HEAD = {
    "I": "Table I: PSDS1 in %",
    "teachers": "Single teachers: PSDS1 in %",
    "II": "Table II: other tasks, in %",
}


def _number(cell) -> str:
    low_high = ""
    if cell.ends:
        low_high = f" [{100 * cell.ends[0]:.1f}, {100 * cell.ends[1]:.1f}]"
    return f"{100 * cell.mean:.1f}{low_high}"


def _decided(found, table, row, column) -> str:
    """The decision about a cell in words, or nothing."""
    for one in found["decisions"]:
        if (one.table, one.second, one.column) == (table, row, column):
            better = one.better(BY)
            words = {one.first: "worse", one.second: "better", None: "undecided"}
            return f"ASO: {words[better]}"
    return ""


def tables(found) -> list[tuple]:
    """(table, title, header, rows) of each table; a row is (names, cells), a cell its lines."""
    out = []
    for table in HEAD:
        keys = [key for key in found["cells"] if key[0] == table]
        if not keys:
            continue
        if table == "II":
            rows, columns = ({key[k]: None for key in keys} for k in (1, 2))
            columns = sorted(columns, key=lambda c: (list(sed_runs.TASKS).index(c[0]), c[1]))
            names = [sed_runs.TASKS[t][1] + f", {sed_runs.MODES[m]}" for t, m in columns]
        else:
            rows = list(sed_runs.ROWS) if table == "I" else [sed_runs.TEACHER]
            extra = [key[2] for key in keys if key[2] not in printed.SED_MODELS]
            names = columns = [*printed.SED_MODELS, *dict.fromkeys(extra)]
        body = [(_row_name(row), [_lines(found, table, row, c) for c in columns]) for row in rows]
        if table == "I":
            theirs = [["-", f"paper {value:.1f}"] for value in printed.SED_BEFORE]
            theirs += [["-"]] * (len(columns) - len(theirs))
            body.append(("Li et al., before the paper", theirs))
        out.append((table, HEAD[table], ["", *names], body))
    return out


def _row_name(row) -> str:
    if isinstance(row, tuple):
        return f"{row[0]} from {sed_runs.STARTS[row[1]]}"
    return sed_runs.ROWS.get(row, "with an RNN, without teachers")


def _lines(found, table, row, column) -> list[str]:
    """The lines of a cell: our number, its decision, the paper's number."""
    cell = found["cells"].get((table, row, column))
    lines = [_number(cell) if cell else "-"]
    paper = None if table == "II" else printed.sed_value(row, column)
    return [
        *lines,
        _decided(found, table, row, column) if cell else "",
        "" if paper is None else f"paper {paper:.1f}",
    ]


ASO_HEADER = ["first or second", *(f"eps_min, {name}" for name in CORRECTIONS)]


def aso_rows(found) -> list[list[str]]:
    """One row per decision: eps_min in both directions and the better cell, by correction."""
    out = []
    for one in found["decisions"]:
        better = {one.first: "first", one.second: "second", None: "undecided"}
        row = [f"{sed.title((one.table, one.first, one.column))} or {_row_name(one.second)}"]
        for correction in CORRECTIONS:
            a, b = one.eps[correction]
            row.append(f"{a:.3f} / {b:.3f}\n{better[one.better(correction)]}")
        out.append(row)
    return out


def text(found) -> str:
    """The printed tables."""
    parts = []
    for _, head, header, body in tables(found):
        rows = []
        for name, cells in body:
            for k in range(max(map(len, cells))):
                line = [cell[k] if k < len(cell) else "" for cell in cells]
                if k == 0 or any(line):
                    rows.append([name if k == 0 else "", *line])
        parts.append(pages.table_text(head, header, rows))
    if found["decisions"]:
        head = "Almost stochastic order: eps_min that the first / the second is better"
        rows = [[cell.replace("\n", " ") for cell in row] for row in aso_rows(found)]
        parts.append(pages.table_text(head, ASO_HEADER, rows))
    return "\n\n".join([*parts, "\n".join(found["notes"])])


def write(found, out) -> list[str]:
    """Write the page and the tables; returns their names."""
    rows, runs = [], []
    for (table, row, column), cell in found["cells"].items():
        place = [table, *row, *column] if table == "II" else [table, column, row, "", ""]
        eps = [None] * 2 * len(CORRECTIONS)
        for one in found["decisions"]:
            if (one.table, one.second, one.column) == (table, row, column):
                eps = [value for c in CORRECTIONS for value in one.eps[c]]
        paper = None if table == "II" else printed.sed_value(row, column)
        low, high = cell.ends or (None, None)
        rows.append(
            [*place, len(cell.values), cell.mean, low, high, *eps,
             None if paper is None else paper / 100]
        )  # fmt: skip
        runs += [
            [*place, str(one.run.path), one.seed, one.value, *(one.ends or (None, None)),
             one.data[0], one.fold, one.data[2], one.classes]
            for one in cell.runs
        ]  # fmt: skip
    place = ["table", "model", "row", "task", "mode"]
    eps = [f"eps_{c}_{way}" for c in CORRECTIONS for way in ("first_better", "this_better")]
    header = [*place, "seeds", "mean", "low", "high", *eps, "paper"]
    pages.write_csv(out / "tables.csv", header, rows)
    header = [*place, "run", "seed", "value", "low", "high", "data", "fold", "clips", "classes"]
    pages.write_csv(out / "runs.csv", header, runs)
    write_atomic(out / "report.html", _page(found))
    return ["report.html", "tables.csv", "runs.csv"]


def _page(found) -> str:
    parts = [
        "<h1>Pre-training of transformers for sound event detection</h1>"
        "<p>Mean over seeds, with its interval below. Numbers marked “paper” are the paper’s. All "
        "others come from the runs.</p>"
    ]
    for _, head, header, body in tables(found):
        rows = [
            [name, *("\n".join(filter(None, [pages.below(c[0]), *c[1:]])) for c in cells)]
            for name, cells in body
        ]
        parts.append(f"<h2>{escape(head)}</h2>{pages.html_table(header, rows)}")
    if found["decisions"]:
        parts.append("<h2>Almost stochastic order</h2>")
        parts.append("<p>eps_min that the first, and that the second, is better.</p>")
        parts.append(pages.html_table(ASO_HEADER, aso_rows(found)))
    parts.append(pages.html_notes(found["notes"]))
    about = [
        [sed.title(key), "-" if one.seed is None else str(one.seed), f"{100 * one.value:.1f}",
         str(one.run.path)]
        for key, cell in found["cells"].items()
        for one in cell.runs
    ]  # fmt: skip
    table = pages.html_table(["cell", "seed", "%", "run"], about, numbers_from=9)
    parts.append(f"<h2>Runs</h2>{table}")
    return pages.page("Pre-training for sound event detection: Tables I and II", "\n".join(parts))
