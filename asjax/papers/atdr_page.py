"""The output of `asjax report atdr`: text, page, tables and pictures of `atdr.collect`."""

from __future__ import annotations

from html import escape

import numpy as np

from asjax import pages
from asjax.papers import atdr_plots as papers_atdr_plots
from asjax.papers import printed
from asjax.papers.atdr import stride_name, strides_shown
from asjax.papers.atdr_runs import PROCEDURES, SUBSETS, patches, subsets
from asjax.store.files import write_atomic

TITLE = "AudioTagging Done Right"


def _cell(result, subset="all", signed=False) -> str:
    """A result in %, such as `43.0 [42.1, 43.9]`."""
    value = float("nan") if result is None else result.values.get(subset, float("nan"))
    if not np.isfinite(value):
        return "-"
    sign = "+" if signed else ""
    number, ends = f"{100 * value:{sign}.1f}", result.interval(subset)
    if ends is None:
        return number
    return f"{number} [{100 * ends[0]:{sign}.1f}, {100 * ends[1]:{sign}.1f}]"


def _plus_minus(value, deviation, scale=1.0, signed=False) -> str:
    number = f"{scale * value:{'+' if signed else ''}.1f}"
    return number if deviation is None else f"{number} ± {scale * deviation:.1f}"


def _printed(value) -> str:
    return "-" if value is None else f"{value:.1f}"


# --------------------------------------------------------------------------------------- tables


def table2(found) -> tuple:
    header = ["model", "", "parameters", *PROCEDURES]
    rows = []
    for model, row in found["table2"].items():
        sizes = sorted({p for r in row.values() for p in r.parameters})
        millions = " / ".join(dict.fromkeys(f"{p / 1e6:.1f}" for p in sizes))
        ours = [_cell(row.get(p)) for p in PROCEDURES]
        rows.append([model, "ours", f"{millions} M" if sizes else "-", *ours])
        if model in printed.ATDR_TABLE2:
            size, theirs = printed.ATDR_TABLE2[model]
            rows.append(["", "paper", f"{size} M", *(_printed(theirs.get(p)) for p in PROCEDURES)])
    return "Table 2: mAP in % by architecture and procedure", header, rows


def table3(found) -> list[tuple]:
    out = []
    for features, table in found["table3"].items():
        columns = [
            p
            for p, (at, _) in PROCEDURES.items()
            if at == features and (p in table or p in printed.ATDR_STRIDES)
        ]
        header = ["stride", "patches", "printed"]
        for p in columns:
            header += [f"{p} ours"] + [f"{p} paper"] * (p in printed.ATDR_STRIDES)
        rows = []
        for stride in strides_shown(table):
            row = [stride_name(stride), *_counts(features, stride)]
            for p in columns:
                row.append(_cell(table.get(p, {}).get(stride)))
                if p in printed.ATDR_STRIDES:
                    row.append(_printed(_theirs(p, stride)))
            rows.append(row)
        out.append((f"Table 3: AST on {features}, mAP in % by stride", header, rows))
    return out


def _theirs(procedure, stride):
    """The paper's mAP for a square stride."""
    return (
        printed.ATDR_STRIDES.get(procedure, {}).get(stride[0]) if stride[0] == stride[1] else None
    )


def printed_patches(features, stride) -> int | None:
    return printed.ATDR_PATCHES[features].get(stride[0]) if stride[0] == stride[1] else None


def _counts(features, stride):
    down, across = patches(stride, features)
    printed = printed_patches(features, stride)
    wrong = " *" if printed not in (None, down * across) else ""
    shown = "-" if printed is None else f"{printed}{wrong}"
    return [f"{down} x {across} = {down * across}", shown]


def table4(found) -> list[tuple]:
    header = ["without", *(name for name, _ in printed.ATDR_ABLATIONS.values())]
    out = []
    for procedure, models in found["table4"].items():
        rows = [
            [m, *(_cell(row.get(c)) for c in printed.ATDR_ABLATIONS)] for m, row in models.items()
        ]
        lost = found["lost"][procedure]
        cells = [
            _plus_minus(*lost[c][:2], scale=100) if c in lost else "-"
            for c in printed.ATDR_ABLATIONS
        ]
        rows.append(["mean ± deviation", *cells])
        rows.append(
            ["paper (A4)", *(_plus_minus(*paper) for _, paper in printed.ATDR_ABLATIONS.values())]
        )
        out.append((f"Table 4: mAP points lost without a component, {procedure}", header, rows))
    return out


def subset_names() -> dict[str, str]:
    return {key: f"{SUBSETS[key]}: {mask.sum()} classes" for key, mask in subsets().items()}


def figure2(found) -> tuple:
    header = ["model and procedure", *subset_names().values()]
    rows = [
        [f"{model} {p}", *(_cell(r, s) for s in SUBSETS)]
        for model, row in found["figure2"].items()
        for p, r in row.items()
    ]
    for (model, large, small), r in found["large_wins"].items():
        rows.append([f"{model} {large} - {small}", *(_cell(r, s, signed=True) for s in SUBSETS)])
    if found["large_wins"]:
        won = found["won"]
        means = [
            _plus_minus(*won[s][:2], scale=100, signed=True) if s in won else "-" for s in SUBSETS
        ]
        rows.append(["large - small, mean ± deviation", *means])
    rows.append(
        ["paper: large - small", f"{_plus_minus(*printed.ATDR_LARGE_WINS, signed=True)}", "-", "-"]
    )
    return "Figure 2: mAP in % by quality of the classes' labels", header, rows


def tables(found) -> list[tuple]:
    """(title, header, rows) of every table; the cells are text."""
    return [
        *([table2(found)] if found["table2"] else []),
        *table3(found),
        *table4(found),
        *([figure2(found)] if found["figure2"] else []),
    ]


def text(found) -> str:
    """The printed tables."""
    left_out = [f"Left out. {line}" for line in found["left_out"]]
    parts = [pages.table_text(*table) for table in tables(found)]
    return "\n\n".join([*parts, "\n".join([*found["notes"], *left_out])])


# -------------------------------------------------------------------------------------- writing


def write(found, out) -> list[str]:
    """Write the page, the tables and the pictures; returns their names."""
    written, pictures = ["report.html"], {}
    makers = {
        "table2": (_rows2, papers_atdr_plots.procedures),
        "table3": (_rows3, papers_atdr_plots.strides),
        "table4": (_rows4, papers_atdr_plots.ablations),
        "figure2": (_rows_figure2, papers_atdr_plots.quality),
    }
    for name, (rows, draw) in makers.items():
        if found[name]:
            pages.write_csv(out / f"{name}.csv", *rows(found))
            pictures[name] = draw(found, out / name)
            written += [f"{name}.csv", f"{name}.png", f"{name}.svg"]
    write_atomic(out / "report.html", _page(found, pictures))
    return written


def _numbers(result, subset="all"):
    return [result.values[subset], *(result.interval(subset) or (None, None))]


def _fraction(value):
    return None if value is None else value / 100


def _rows2(found):
    header = "model,procedure,runs,parameters,clips,classes,map,low,high,paper_map"
    rows = [
        [model, p, len(r.runs), " ".join(map(str, r.parameters)), r.clips, r.classes["all"],
         *_numbers(r), _fraction(printed.ATDR_TABLE2.get(model, (0, {}))[1].get(p))]
        for model, row in found["table2"].items()
        for p, r in row.items()
    ]  # fmt: skip
    return header.split(","), rows


def _rows3(found):
    header = "features,procedure,stride,patches_frequency,patches_time,patches,paper_patches,runs"
    rows = []
    for features, table in found["table3"].items():
        procedures = [p for p, (at, _) in PROCEDURES.items() if at == features]
        for p in procedures:
            for stride in strides_shown(table):
                r, theirs = table.get(p, {}).get(stride), _theirs(p, stride)
                if r is None and theirs is None:
                    continue
                down, across = patches(stride, features)
                ours = [len(r.runs), *_numbers(r)] if r else [0, None, None, None]
                rows.append(
                    [features, p, stride_name(stride), down, across, down * across,
                     printed_patches(features, stride), *ours, _fraction(theirs)]
                )  # fmt: skip
    return [*header.split(","), "map", "low", "high", "paper_map"], rows


def _rows4(found):
    header = "procedure,without,model,models,lost,low,high,deviation,paper_lost,paper_deviation"
    rows = []
    for p, models in found["table4"].items():
        for c, (_, paper) in printed.ATDR_ABLATIONS.items():
            for model, row in models.items():
                if c in row:
                    rows.append([p, c, model, 1, *_numbers(row[c]), None, None, None])
            if c in found["lost"][p]:
                value, deviation, n = found["lost"][p][c]
                theirs = [_fraction(v) for v in paper] if p == "A4" else [None, None]
                rows.append([p, c, "mean", n, value, None, None, deviation, *theirs])
    return header.split(","), rows


def _rows_figure2(found):
    header = "model,procedure,quality,classes,counted,map,low,high"
    sizes = {key: int(mask.sum()) for key, mask in subsets().items()}
    results = [(m, p, r) for m, row in found["figure2"].items() for p, r in row.items()]
    results += [(m, f"{a}-{b}", r) for (m, a, b), r in found["large_wins"].items()]
    rows = [
        [model, p, SUBSETS[s], sizes[s], r.classes[s], *_numbers(r, s)]
        for model, p, r in results
        for s in SUBSETS
    ]
    return header.split(","), rows


def _page(found, pictures) -> str:
    ours = "Filled: ours, with 95 % intervals if they were computed."
    hollow = "Hollow: the paper’s numbers."
    captions = {
        "table2": f"Mean average precision by architecture. {ours} {hollow}",
        "table3": f"Mean average precision of AST by stride. {ours} {hollow}",
        "table4": "mAP points lost without a component. Small: each model. Large: mean and "
        "standard deviation over models. Hollow: the paper’s numbers, for A4.",
        "figure2": f"Mean average precision of three nested subsets of classes. {ours}",
    }
    parts = [
        f"<h1>{TITLE}: tables 2-4, figure 2</h1>",
        "<p>mAP in %. Numbers marked “paper” are the paper’s. All others were computed here from "
        "the runs’ scores.</p>",
    ]
    groups = {
        "table2": [_merged(*table2(found))] if found["table2"] else [],
        "table3": table3(found),
        "table4": table4(found),
        "figure2": [figure2(found)] if found["figure2"] else [],
    }
    for name, group in groups.items():
        for title, header, rows in group:
            rows = [[pages.below(cell) for cell in row] for row in rows]
            parts.append(f"<h2>{escape(title)}</h2>{pages.html_table(header, rows)}")
        if name in pictures:
            parts.append(pages.figure(pictures[name], name, captions[name]))
    parts.append(pages.html_notes(found["notes"]))
    if found["left_out"]:
        parts.append(f"<h2>Left out</h2>{pages.html_notes(found['left_out'])}")
    header = ["model", "procedure", "without", "run"]
    parts.append(f"<h2>Runs</h2>{pages.html_table(header, found['runs'], numbers_from=9)}")
    return pages.page(TITLE, "\n".join(parts))


def _merged(title, header, rows):
    """The table with the paper's numbers below ours in the same cells."""
    out = []
    for model, whose, *cells in rows:
        if whose == "paper":
            pairs = zip(out[-1][1:], cells, strict=True)
            out[-1][1:] = [f"{a}\npaper {b}" if b != "-" else a for a, b in pairs]
        else:
            out.append([model, *map(pages.below, cells)])
    return title, [header[0], *header[2:]], out
