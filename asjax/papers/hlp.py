"""Table III of "Hierarchical Label Propagation", from finished runs.

Columns: AudioSet with labels as they are; HLP on the test labels; HLP on test labels and scores;
FSD50K zero-shot on its 192 classes shared with AudioSet, without HLP. Rows: each model, trained on
labels as they are and on HLP labels. Runs of a row that are equal but for the seed are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax import hlp, labels, metrics, pages
from asjax.config import AsjaxError
from asjax.evaluation.views import views
from asjax.papers import plots as papers_plots
from asjax.papers import printed
from asjax.papers import runs as papers
from asjax.store.files import write_atomic

NAMES = {  # our name -> the paper's name
    "cnn6": "CNN6",
    "convnext femto": "ConvNeXt femto",
    "femto": "ConvNeXt femto",
    "convnext nano": "ConvNeXt nano",
    "nano": "ConvNeXt nano",
    "passt_s": "PaSST-B",
    "passt": "PaSST-B",
}
TRAINED = {False: "labels as they are", True: "HLP labels", None: "with HLP minus without"}


@dataclass(frozen=True)
class Result:
    """Mean AP of one run or a mean over runs, in one column; a fraction, not percent."""

    value: float
    resampled: np.ndarray | None  # mean AP of each bootstrap resample
    key: str  # hash of the clips and targets
    clips: int
    classes: int
    runs: int = 1
    interval: tuple[float, float] | None = None
    data: str = ""  # the name of the data


def add_arguments(parser) -> None:
    """This report has no further arguments."""


def collect(runs, args) -> dict:
    """All data of the report.

    Returns: dict with rows: {(model, hlp): {column: Result}}, differences: {model: {column:
      Result}}, notes and runs.

    Raises:
      AsjaxError: a run without a record of HLP in training, several evaluations for one column, or
        runs of one row that differ in more than the seed, or with different evaluation clips.
    """
    by_row: dict[tuple, dict[str, list]] = {}
    together: dict[tuple, list] = {}
    for run in runs:
        if run.hlp is None:
            raise AsjaxError(
                f"run {run.name} has no record whether it was trained with HLP; write "
                f"{run.name}:hlp=True or {run.name}:hlp=False"
            )
        together.setdefault((paper_name(run.model), run.hlp), []).append(run)
    for (model, trained), some in together.items():
        papers.check_repeats(some, f"{model}, trained on {TRAINED[trained]}", ignore=r"labels\.hlp")
    for run in runs:
        row = by_row.setdefault((paper_name(run.model), run.hlp), {})
        for column, result in _columns(run, args).items():
            row.setdefault(column, []).append((run, result))
    rows = {k: {c: _mean(r) for c, r in columns.items()} for k, columns in by_row.items()}
    rows = dict(sorted(rows.items(), key=lambda item: _order(item[0])))
    differences = {
        model: _differences(rows[model, False], rows[model, True])
        for model, trained in rows
        if trained and (model, False) in rows
    }
    return {
        "rows": rows,
        "differences": differences,
        "notes": _notes(rows, differences, args),
        "runs": [(paper_name(run.model), run.hlp, str(run.path)) for run in runs],
    }


def paper_name(model: str) -> str:
    """The paper's name of a model, else our name."""
    known = {**NAMES, **{name.casefold(): name for name in printed.HLP_TABLE3}}
    return known.get(model.casefold(), "PaSST-B" if model.startswith("passt_s") else model)


def _order(key):
    model, trained = key
    known = list(printed.HLP_TABLE3)
    return (known.index(model) if model in known else len(known), model, trained)


def _columns(run, args) -> dict[str, Result]:
    audioset, fsd50k = [], []
    theirs = labels.get("fsd50k200").hash
    for folder in run.folders:
        evaluation = run.load(folder)
        if evaluation.zero_shot is None:
            audioset.append(evaluation)
        elif evaluation.zero_shot.get("label_hash") == theirs:
            fsd50k.append(evaluation)
    preferred = [e for e in audioset if e.folder in (run.path, run.path / "eval")]
    out = {}
    if audioset:
        evaluation = _only(run, preferred or audioset, "its own test set")
        closure = hlp.closure_if_known(evaluation.label_set, run.strict)
        shown = views(evaluation.scores, evaluation.targets, evaluation.label_set, closure)
        out = {key: _result(view, evaluation, args) for key, view in shown.items()}
    if fsd50k:
        evaluation = _only(run, fsd50k, "FSD50K")
        view = views(evaluation.scores, evaluation.targets, evaluation.label_set)["labels"]
        out["fsd50k"] = _result(view, evaluation, args)
    if not out:
        raise AsjaxError(f"run {run.name} has no scores of AudioSet or FSD50K for this table")
    return out


def _only(run, evaluations, what):
    if len(evaluations) > 1:
        raise AsjaxError(
            f"run {run.name} was evaluated on {what} more than once: "
            f"{', '.join(str(e.folder) for e in evaluations)}; give one of the folders as the RUN"
        )
    return evaluations[0]


def _result(view, evaluation, args) -> Result:
    values = metrics.tagging(scores=view.scores, targets=view.targets, names=view.names)
    drawn = None
    if args.bootstrap:
        drawn = metrics.resampled(
            scores=view.scores, targets=view.targets, n=args.bootstrap, seed=args.seed
        )["mean_ap"]
    sizes = values["n_clips"], values["n_classes"]
    found = Result(values["mean_ap"], drawn, evaluation.key, *sizes, data=evaluation.title)
    return _with_interval(found)


def _with_interval(result: Result) -> Result:
    if result.resampled is None:
        return result
    ends = metrics.interval(result.resampled, result.value, papers.LEVEL)
    return Result(**{**vars(result), "interval": ends})


def _mean(found) -> Result:
    """The mean over runs; its interval is over clips, with the same resamples for all runs."""
    run, first = found[0]
    for other, result in found[1:]:
        if result.key != first.key:
            raise AsjaxError(
                f"runs {run.name} and {other.name} belong to one row but were evaluated on "
                f"different clips ({first.clips:,} and {result.clips:,}); report them separately"
            )
    drawn = None
    if first.resampled is not None:
        drawn = np.mean([r.resampled for _, r in found], axis=0)
    value = float(np.mean([r.value for _, r in found]))
    return _with_interval(
        Result(
            value, drawn, first.key, first.clips, first.classes, runs=len(found), data=first.data
        )
    )


def _differences(base, with_hlp) -> dict[str, Result]:
    """Trained with HLP minus trained without, by column; paired if the clips are the same."""
    out = {}
    for column in base.keys() & with_hlp.keys():
        a, b = base[column], with_hlp[column]
        paired = a.key == b.key and a.resampled is not None
        drawn = b.resampled - a.resampled if paired else None
        key = a.key if a.key == b.key else ""
        out[column] = _with_interval(Result(b.value - a.value, drawn, key, a.clips, a.classes))
    return out


def _notes(rows, differences, args) -> list[str]:
    notes = []
    if args.bootstrap:
        notes.append(
            f"Intervals: {papers.LEVEL:.0%} from {args.bootstrap:,} bootstrap "
            f"resamples of the clips (seed {args.seed}). Differences are paired: both models have "
            "the same resamples."
        )
    notes.append(
        "AS: the test set, labels as they are; AudioSet in the paper. AS-HLP: HLP on the test "
        "labels; + scores: also on the scores. FSD50K: zero-shot on its 192 classes shared with "
        "AudioSet, no HLP."
    )
    every = [(column, r) for row in rows.values() for column, r in row.items()]
    parts = [
        f"{name} is {papers.data_titles((r.data, r.clips, r.classes) for r in some)}"
        for name, some in (
            ("AS", [r for column, r in every if column != "fsd50k"]),
            ("FSD50K", [r for column, r in every if column == "fsd50k"]),
        )
        if some
    ]
    notes.append(
        f"Our data: {'. '.join(parts)} (a class without a positive is left out). The paper's "
        f"AudioSet test has {printed.HLP_CLIPS:,} clips. The paper prints no intervals."
    )
    apart = [m for m, d in differences.items() if any(not r.key for r in d.values())]
    if apart:
        notes.append(
            f"{', '.join(apart)}: the runs with and without HLP were evaluated on different clips, "
            "so their difference has no paired interval."
        )
    many = [f"{m} ({TRAINED[t]}): {n}" for (m, t), row in rows.items() if (n := _runs(row)) > 1]
    if many:
        notes.append(f"Means over runs, {', '.join(many)}.")
    small = [
        not printed.hlp_comparable(r.classes, c) for row in rows.values() for c, r in row.items()
    ]
    if any(small):
        notes.append(
            "Some test sets here have too few classes for a comparison with the paper. The picture "
            "does not show the paper's numbers for them."
        )
    return notes


def _runs(row) -> int:
    return max(result.runs for result in row.values())


# ------------------------------------------------------------------------------------- showing


def _cell(result: Result | None, signed=False) -> str:
    if result is None:
        return "-"
    sign = "+" if signed else ""
    if result.interval is None or not np.isfinite(result.interval).all():
        return f"{100 * result.value:{sign}.1f}"
    low, high = result.interval
    return f"{100 * result.value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def table_rows(found) -> list[tuple]:
    """(model, trained, whose, cells) in the order of the table."""
    out = []
    for model in dict.fromkeys(m for m, _ in found["rows"]):
        for trained in (False, True, None):
            if trained is None:
                results = found["differences"].get(model)
            else:
                results = found["rows"].get((model, trained))
            if results is None:
                continue
            ours = [_cell(results.get(c), signed=trained is None) for c in printed.HLP_COLUMNS]
            out.append((model, trained, "ours", ours))
            theirs = [printed.hlp_value(model, trained, c) for c in printed.HLP_COLUMNS]
            sign = "+" if trained is None else ""
            if theirs[0] is not None:
                out.append((model, trained, "paper", [f"{v:{sign}.1f}" for v in theirs]))
    return out


def text(found) -> str:
    """The printed table."""
    rows = [
        [f"{model}, {TRAINED[trained]}" if whose == "ours" else "", whose, *cells]
        for model, trained, whose, cells in table_rows(found)
    ]
    header = ["model, trained on", "", *(short for _, short in printed.HLP_COLUMNS.values())]
    return "\n".join([pages.table_text("mAP in %", header, rows), "", *found["notes"]])


def write(found, out) -> list[str]:
    """Write the page, the tables and the picture; returns their names."""
    header = "model,trained_with_hlp,column,runs,clips,classes,map,low,high,paper_map"
    rows = []
    tables = [(m, t, row) for (m, t), row in found["rows"].items()]
    tables += [(m, None, row) for m, row in found["differences"].items()]
    for model, trained, row in tables:
        for column in printed.HLP_COLUMNS:
            if (r := row.get(column)) is not None:
                paper = printed.hlp_value(model, trained, column)
                rows.append(
                    [model, "difference" if trained is None else trained, column, r.runs, r.clips,
                     r.classes, r.value, *(r.interval or (None, None)),
                     None if paper is None else paper / 100]
                )  # fmt: skip
    pages.write_csv(out / "table.csv", header.split(","), rows)
    png = papers_plots.hlp_table(found, out / "table")
    write_atomic(out / "report.html", _page(found, png))
    return ["report.html", "table.csv", "table.png", "table.svg"]


def _page(found, png) -> str:
    header = ["model", "trained on", *(short for _, short in printed.HLP_COLUMNS.values())]
    rows, last = [], None
    for model, trained, whose, cells in table_rows(found):
        if whose == "paper":  # below our number in the same cell
            rows[-1][2:] = [f"{a}\npaper {b}" for a, b in zip(rows[-1][2:], cells, strict=True)]
        else:
            first = model if model != last else ""
            rows.append([first, TRAINED[trained], *map(pages.below, cells)])
        last = model
    caption = (
        "Mean average precision on four tests, trained on labels as they are and on HLP labels. "
        "Filled: ours, with 95 % intervals if they were computed. Hollow: the paper's numbers."
    )
    about = [[m, TRAINED[t], path] for m, t, path in found["runs"]]
    body = (
        "<h1>Hierarchical label propagation: Table III</h1>"
        "<p>mAP in %, with its interval below. Numbers marked “paper” are the paper’s. All others "
        "were computed here from the runs’ scores.</p>"
        f"{pages.html_table(header, rows, numbers_from=2)}{pages.html_notes(found['notes'])}"
        f"<h2>The same as a picture</h2>{pages.figure(png, 'mean AP by model and test', caption)}"
        f"<h2>Runs</h2>{pages.html_table(['model', 'trained on', 'run'], about, numbers_from=9)}"
    )
    return pages.page("Hierarchical label propagation: Table III", body)
