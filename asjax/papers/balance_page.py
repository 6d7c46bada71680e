"""The output of `asjax report balance`: text, page, tables and pictures of `balance.collect`."""

from __future__ import annotations

from html import escape

import numpy as np

from asjax import pages
from asjax.papers import plots as papers_plots
from asjax.papers import printed
from asjax.store.files import write_atomic


def _value(point, key, digits=3, signed=False) -> str:
    sign = "+" if signed else ""
    value, ends = point[key], point["intervals"].get(key)
    if not np.isfinite(value):
        return "-" if np.isnan(value) else "inf"
    number = f"{value:{sign}.{digits}f}"
    if ends is None or not np.isfinite(ends).all():
        return number
    return f"{number} [{ends[0]:{sign}.{digits}f}, {ends[1]:{sign}.{digits}f}]"


def _theirs(name, beta) -> str:
    point = printed.BALANCE_RESULTS[name].get(beta)
    return f"{point[0]:.4f} / {point[1]:.3f}" if point else "-"


def tables(found) -> list[tuple]:
    """(title, header, rows) of every table; the cells are text."""
    out = []
    for entry in found["sets"]:
        header, theirs = ["beta", "runs", "mAP", "d'"], ()
        if entry["zero_shot"] is None:
            theirs = tuple(printed.BALANCE_RESULTS)
        header += [f"paper, {name}: mAP / d'" for name in theirs]
        rows = [
            [f"{beta:g}", str(p["runs"]), _value(p, "mean_ap", 4), _value(p, "d_prime"),
             *(_theirs(name, beta) for name in theirs)]
            for beta, p in sorted(entry["rows"].items())
        ]  # fmt: skip
        title = f"{entry['title']}: {entry['clips']:,} clips, {entry['classes']} classes"
        out.append((title, header, rows))
    header = ["beta", "runs", "lr", "smoothed d'", "step", "rho", "Gini", "paper rho", "Gini"]
    rows = []
    for beta in found["betas"]:
        choice, sampler = found["chosen"][beta], found["sampler"][beta]
        paper = printed.BALANCE_TABLE2.get(beta)
        rows.append(
            [
                f"{beta:g}",
                str(len(choice["runs"])),
                "-" if choice["lr"] is None else f"{choice['lr']:g}",
                "-" if choice["smoothed"] is None else f"{choice['smoothed']:.3f}",
                ", ".join(f"{step:,}" for step in choice["steps"]) or "-",
                *([f"{sampler[0]:,.1f}", f"{sampler[1]:.4f}"] if sampler else ["-", "-"]),
                *([f"{paper[0]:,}", f"{paper[1]:.2f}"] if paper else ["-", "-"]),
            ]
        )
    out.append(
        ("Training by beta: choice of the checkpoint, oversampled training set", header, rows)
    )
    return out


def regression_lines(found) -> list[str]:
    """One sentence per evaluation set about figure 3, then the paper's result."""
    low, high = found["compare"]
    lines = []
    for entry in found["sets"]:
        change = entry["compared"]
        if change is None:
            lines.append(f"{entry['title']}: not evaluated at both beta={low:g} and {high:g}.")
            continue
        text = f"{entry['title']}: mean change of AP {_value(change, 'mean_ap', 4, signed=True)}"
        text += f", of d' {_value(change, 'd_prime', signed=True)}"
        if (line := change["line"]) is not None:
            text += (
                f"; on log10 prior ({change['where']}) slope {line['slope']:+.4f} ± "
                f"{line['stderr']:.4f} per decade, two-sided p = {line['p']:.3g}, "
                f"{line['n']} classes"
            )
        else:
            text += "; no regression, because the priors are too similar or too few"
        lines.append(f"{text}.")
    return [*lines, f"Paper (beta=1 minus beta=0): {printed.BALANCE_REGRESSION}."]


def text(found) -> str:
    """The printed tables."""
    low, high = found["compare"]
    parts = [pages.table_text(*table) for table in tables(found)]
    title = f"AP by class, beta={high:g} minus beta={low:g}"
    parts.append("\n".join([title, *regression_lines(found)]))
    return "\n\n".join([*parts, "\n".join(found["notes"])])


def write(found, out) -> list[str]:
    """Write the page, the tables and the pictures; returns their names."""
    header = "set,clips,classes,beta,runs,map,map_low,map_high,d_prime,d_prime_low,d_prime_high"
    header += ",rho,gini,paper_public_map,paper_public_d_prime,paper_internal_map"
    header += ",paper_internal_d_prime,paper_rho,paper_gini"
    rows = []
    none = (None, None)
    for entry in found["sets"]:
        for beta, p in sorted(entry["rows"].items()):
            ends = [p["intervals"].get(key) or none for key in ("mean_ap", "d_prime")]
            rows.append(
                [entry["title"], entry["clips"], entry["classes"], beta, p["runs"],
                 float(p["mean_ap"]), *ends[0], float(p["d_prime"]), *ends[1],
                 *(found["sampler"][beta] or none),
                 *printed.BALANCE_RESULTS["public"].get(beta, none),
                 *printed.BALANCE_RESULTS["internal"].get(beta, none),
                 *printed.BALANCE_TABLE2.get(beta, none)]
            )  # fmt: skip
    pages.write_csv(out / "curves.csv", header.split(","), rows)
    written = ["report.html", "curves.csv", "curves.png", "curves.svg"]
    pictures = {"curves": papers_plots.beta_curves(found, printed.BALANCE_RESULTS, out / "curves")}
    compared = [entry for entry in found["sets"] if entry["compared"]]
    if compared:
        _write_change(out / "change_per_class.csv", found["compare"], compared)
        pictures["change"] = papers_plots.change_on_prior(
            found["compare"], compared, out / "change"
        )
        written += ["change_per_class.csv", "change.png", "change.svg"]
    write_atomic(out / "report.html", _page(found, pictures))
    return written


def _write_change(path, compare, made) -> None:
    low, high = compare
    rows = []
    for entry in made:
        a, b = (entry["rows"][beta]["per_class_ap"] for beta in (low, high))
        change = entry["compared"]
        classes = zip(entry["label_set"].ids, entry["label_set"].names, strict=True)
        for i, (mid, name) in enumerate(classes):
            values = (change["prior"][i], a[i], b[i], change["change"][i])
            rows.append([entry["title"], i, mid, name, *map(float, values)])
    head = [
        "set",
        "index",
        "mid",
        "name",
        "prior",
        f"ap_beta_{low:g}",
        f"ap_beta_{high:g}",
        "change",
    ]
    pages.write_csv(path, head, rows)


def _page(found, pictures) -> str:
    low, high = found["compare"]
    parts = ["<h1>Dataset balancing over β</h1>"]
    *results, training = tables(found)
    for title, header, rows in results:
        rows = [[pages.below(cell) for cell in row] for row in rows]
        parts.append(f"<h2>{escape(title)}</h2>{pages.html_table(header, rows)}")
    caption = (
        "Mean AP and d′ over the oversampling exponent β. Filled: ours, with 95 % intervals if "
        "computed. Hollow: the paper’s numbers, on its public and internal evaluation sets."
    )
    parts.append(f"<h2>Curves</h2>{pages.figure(pictures['curves'], 'curves over beta', caption)}")
    parts.append(f"<h2>Change by class, β = {high:g} minus β = {low:g}</h2>")
    if "change" in pictures:
        caption = (
            "Each dot is a class: the change of its average precision against its share of the "
            "clips. Line: least squares with 95 % band. Ring: mean of a tenth of the classes."
        )
        parts.append(pages.figure(pictures["change"], "change of AP on log prior", caption))
    parts.append(pages.html_notes(regression_lines(found)))
    for entry in found["sets"]:
        if entry["compared"]:
            parts.append(_extremes(entry))
    title, header, rows = training
    parts.append(f"<h2>{escape(title)}</h2>{pages.html_table(header, rows)}")
    parts.append(pages.html_notes(found["notes"]))
    about = [
        [f"{beta:g}", str(run.path)]
        for beta, choice in found["chosen"].items()
        for run in choice["runs"]
    ]
    parts.append(f"<h2>Runs</h2>{pages.html_table(['β', 'run'], about, numbers_from=9)}")
    return pages.page("Dataset balancing over beta", "\n".join(parts))


def _extremes(entry, most=8) -> str:
    """Table of the classes with the largest gains and losses."""
    change, prior = entry["compared"]["change"], entry["compared"]["prior"]
    order = [i for i in np.argsort(-np.nan_to_num(change), kind="stable") if np.isfinite(change[i])]
    names = entry["label_set"].names
    rows = []
    for up, down in zip(order[:most], order[::-1][:most], strict=True):
        row = []
        for i in (up, down):
            row += [names[i], f"{100 * prior[i]:.3g} %", f"{change[i]:+.3f}"]
        rows.append(row)
    header = ["gain most", "share", "change of AP", "lose most", "share", "change of AP"]
    title = f"<summary>{escape(entry['title'])}: classes that change most</summary>"
    return f"<details>{title}{pages.html_table(header, rows)}</details>"
