"""Tables I and II of "Effective pre-training of audio transformers for sound event detection".

Table I: PSDS1 of five models after the full pipeline, and with one part of it left out. Table II:
detectors on other tasks, by the step that they start from. Runs of a cell that are equal but for
the seed are averaged. Almost stochastic order (ASO) decides between cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax import metrics
from asjax.config import AsjaxError, counted
from asjax.metrics.aso import CORRECTIONS, THRESHOLD, corrected
from asjax.papers import printed, sed_runs
from asjax.papers import runs as papers

FEWEST = 3  # seeds of a cell for ASO; the paper has 3 and 4
SPLITS = r"data\.(train|eval|test)\.splits"


@dataclass(frozen=True)
class Cell:
    """The runs of one cell.

    Attributes:
      values: one fraction per seed, a mean over folds if the task has them.
      mean, ends: of the values; ends: None for a single seed. folds: of each seed.
    """

    runs: tuple[sed_runs.Placed, ...]
    values: tuple[float, ...]
    mean: float
    ends: tuple[float, float] | None
    folds: int


@dataclass(frozen=True)
class Decision:
    """ASO of two cells of a column.

    Attributes:
      first, second: rows. eps: correction -> (eps_min that the first is better, that the second is
        better). comparisons: how many decisions are made together.
    """

    table: str
    column: object
    first: object
    second: object
    comparisons: int
    eps: dict[str, tuple[float, float]]

    def better(self, correction: str) -> object:
        """The row that is better, or None."""
        a, b = self.eps[correction]
        return self.first if a < THRESHOLD else self.second if b < THRESHOLD else None


def add_arguments(parser) -> None:
    parser.epilog += (
        ". Cells are recognised by the configs. After the colon: row=full|no_kd|no_rnn|no_step2|"
        "teacher for Table I, start=strong|weak|ssl|none and mode=finetune|frozen for Table II"
    )


def collect(runs, args) -> dict:
    """All data of the report.

    Returns: dict with cells: {(table, row, column): Cell}, decisions: list of Decision, notes.

    Raises:
      AsjaxError: as `sed_runs.placed`; runs of one cell that differ in more than the seed, have the
        same seed or other evaluation clips.
    """
    together: dict[tuple, list] = {}
    for run in runs:
        one = sed_runs.placed(run)
        together.setdefault((one.table, one.row, one.column), []).append(one)
    cells = {key: _cell(key, some) for key, some in sorted(together.items(), key=_order)}
    decisions, apart = _decisions(cells, args)
    return {"cells": cells, "decisions": decisions, "notes": _notes(cells, decisions, apart, args)}


def title(key) -> str:
    """The name of a cell for people."""
    table, row, column = key
    if table == "II":
        (model, start), (task, mode) = row, column
        task, mode = sed_runs.TASKS[task][1], sed_runs.MODES[mode]
        return f"{model} from {sed_runs.STARTS[start]}, {task}, {mode}"
    return f"{column}, {'single teachers' if table == 'teachers' else sed_runs.ROWS[row]}"


def _order(item):
    """Cells by table, then as in the paper."""
    (table, row, column), _ = item
    model, rest = (row[0], (row[1], *column)) if table == "II" else (column, (row,))
    known = [*printed.SED_MODELS, model]
    choices = [*sed_runs.ROWS, *sed_runs.STARTS, *sed_runs.TASKS, *sed_runs.MODES, *rest]
    return table, known.index(model), model, [choices.index(part) for part in rest]


def _cell(key, some) -> Cell:
    folds: dict[str, list] = {}
    for one in some:
        folds.setdefault(one.fold, []).append(one)
    for same in folds.values():
        _check_fold(key, same)
    first = some[0].run
    for one in (same[0].run for same in folds.values()):  # folds have other training clips
        fields = papers.unlike(first, one, SPLITS) if first.cfg and one.cfg else []
        if fields := [field for field in fields if not field.startswith("the training data")]:
            raise papers.unequal(first.name, one.name, title(key), fields, "leave one out")
    values = [one.value for one in some] if len(folds) == 1 else _over_folds(key, folds)
    return Cell(tuple(some), tuple(values), float(np.mean(values)), _interval(values), len(folds))


def _check_fold(key, some) -> None:
    """AsjaxError unless the runs are equal but for the seed, which differs."""
    papers.check_repeats([one.run for one in some], title(key), "leave one out")
    first = some[0]
    for i, other in enumerate(some[1:], 1):
        if other.data != first.data:
            raise AsjaxError(
                f"runs {first.run.name} and {other.run.name} both belong to {title(key)}, but were "
                f"evaluated on other clips ({first.data[2]} and {other.data[2]} annotated); "
                "evaluate both on the same clips"
            )
        same = [one for one in some[:i] if one.seed is not None and one.seed == other.seed]
        if same:
            raise AsjaxError(
                f"runs {same[0].run.name} and {other.run.name} both belong to {title(key)} and "
                f"have the seed {other.seed}; a repeat needs another seed: leave one out"
            )


def _over_folds(key, folds) -> list[float]:
    """The mean over folds of each seed. AsjaxError: a seed has not all folds."""
    seeds = [{one.seed: one.value for one in same} for same in folds.values()]
    for fold, known in zip(folds, seeds, strict=True):
        if None in known or known.keys() != seeds[0].keys():
            raise AsjaxError(
                f"{title(key)}: every seed needs a run of every fold, but the fold tested on "
                f"{fold} has the seeds {', '.join(map(str, known))} and another one "
                f"{', '.join(map(str, seeds[0]))}; give the runs that lack, or leave some out"
            )
    return [float(np.mean([known[seed] for known in seeds])) for seed in seeds[0]]


def _interval(values) -> tuple[float, float] | None:
    """Student's t interval of the mean over seeds."""
    from scipy.stats import t

    n, mean = len(values), np.mean(values)
    if n < 2:
        return None
    half = t.ppf((1 + papers.LEVEL) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return float(mean - half), float(mean + half)


# -------------------------------------------------------------------------------- decisions


def _pairs(cells) -> list[tuple]:
    """(family, first key, second key): cells to compare; a family is decided together."""
    out = []
    for key in cells:
        table, row, column = key
        if table == "I" and row != "full":
            out.append(((table, row), (table, "full", column), key))
        if table == "II" and row[1] != "strong":
            out.append(((table, row[1], column), (table, (row[0], "strong"), column), key))
    return [pair for pair in out if pair[1] in cells]


def _decisions(cells, args) -> tuple[list[Decision], list[str]]:
    """The decisions, and the names of cells whose clips differ."""
    pairs, apart = {}, []
    for family, first, second in _pairs(cells):
        a, b = cells[first], cells[second]
        if min(len(a.values), len(b.values)) < FEWEST:
            continue
        if {one.data for one in a.runs} != {one.data for one in b.runs}:
            apart.append(title(second))
            continue
        pairs.setdefault(family, []).append((first, second))
    out = []
    for some in pairs.values():
        for first, second in some:
            a, b = cells[first].values, cells[second].values
            how = dict(comparisons=len(some), n=args.bootstrap or 1000, seed=args.seed)
            eps = {
                c: (metrics.aso(a, b, correction=c, **how), metrics.aso(b, a, correction=c, **how))
                for c in CORRECTIONS
            }
            out.append(Decision(first[0], first[2], first[1], second[1], len(some), eps))
    return out, apart


# ------------------------------------------------------------------------------------- notes


def _notes(cells, decisions, apart, args) -> list[str]:
    several = any(cell.ends for cell in cells.values())
    notes = []
    if several:
        notes.append(
            f"Brackets: {papers.LEVEL:.0%} interval of the mean over seeds (Student's t). The "
            "interval of a single run over its clips is in runs.csv."
        )
    counts = sorted({len(cell.values) for cell in cells.values()})
    notes.append(f"Seeds in a cell: {', '.join(map(str, counts))}. The paper has 3 in Table I.")
    folds = sorted({cell.folds for key, cell in cells.items() if key[2][0] == "maestro"})
    if folds:
        of = " or ".join([*map(str, folds[:-1]), counted(folds[-1], "fold")])
        notes.append(f"MAESTRO: mean over {of}; the task has 5.")
    if decisions:
        levels = {
            c: ", ".join(sorted({f"{corrected(0.95, d.comparisons, c):.3g}" for d in decisions}))
            for c in CORRECTIONS
        }
        notes.append(
            f"ASO: almost stochastic order, {args.bootstrap or 1000:,} resamples. A cell is better "
            f"than the full pipeline (Table II: than step 3) if eps_min is below {THRESHOLD:g}, as "
            f"in the paper. The level 0.95 is corrected for "
            f"the comparisons of a row in two ways: by Bonferroni ({levels['bonferroni']}), and as "
            f"the package deepsig does ({levels['deepsig']}). The paper decides by the second, and "
            "so do the tables."
        )
    else:
        notes.append(
            f"ASO compares cells with at least {FEWEST} seeds each; there are no two such cells."
        )
    if apart:
        notes.append(f"Not compared, because the clips differ: {'; '.join(apart)}.")
    first = [cell for key, cell in cells.items() if key[0] in ("I", "teachers")]
    if first:
        notes += _about_data(first)
    tasks = dict.fromkeys(key[2][0] for key in cells if key[0] == "II")
    if tasks:
        scores = "; ".join("{1}: {2}".format(*sed_runs.TASKS[task]) for task in tasks)
        notes.append(f"Scores of Table II: {scores}.")
        notes.append("Table II has no numbers of the paper, because asjax does not hold them.")
    return notes


def _about_data(some) -> list[str]:
    sets = sorted({(str(c.runs[0].data[0]), c.runs[0].data[2], c.runs[0].classes) for c in some})
    notes = [f"Table I was evaluated on {papers.data_titles(sets)} (with events)."]
    if any(c.runs[0].classes != printed.SED_CLASSES for c in some):
        notes.append(
            f"The paper evaluates {printed.SED_CLASSES} classes of AudioSet Strong, so its numbers "
            "cannot be compared with these."
        )
    return notes
