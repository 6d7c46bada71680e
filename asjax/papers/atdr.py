"""Tables 2-4 and Figure 2 of "AudioTagging Done Right", from finished runs.

Table 2: architectures under procedures A1-A4. Table 3: AST by stride. Table 4: ablations of
balancing, mixup, SpecAugment and normalisation. Figure 2: classes by the quality of their labels.
The procedure of a run follows from its features and its starting weights. Its ablation follows from
the components that its config lacks. The user can give both: `DIR:procedure=A2,ablation=mixup`.
Runs of one cell that are equal but for the seed are averaged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asjax.config import AsjaxError
from asjax.papers import printed
from asjax.papers import runs as papers
from asjax.papers.atdr_runs import (
    PROCEDURES,
    SHAPES,
    STRIDES,
    TABLE_2_STRIDE,
    differing,
    label_quality,
    mean,
    measure,
    minus,
    patches,
    subsets,
    trained,
)


def add_arguments(parser) -> None:
    """This report has no further arguments."""


def collect(runs, args) -> dict:
    """All data of the report.

    Returns: dict with
      table2: {model: {procedure: Result}};
      table3: {features: {procedure: {stride (frequency, time): Result}}};
      table4: {procedure: {model: {component: Result}}}, mAP lost, as a fraction;
      lost: {procedure: {component: (mean, deviation or None, models)}};
      figure2: {model: {procedure: Result}};
      large_wins: {(model, large, small): Result} and won: {subset: (mean, deviation, pairs)};
      left_out: missing parts and the reasons; notes; runs: (model, procedure, without, path).
      A section without runs is empty.

    Raises:
      AsjaxError: a run with an unknown procedure, runs of one cell that differ in more than the
        seed or have different evaluation clips, or no section at all.
    """
    every = [trained(run) for run in runs]
    results = {}

    def result(t):
        if t not in results:
            parameters = () if t.parameters is None else (t.parameters,)
            results[t] = replace(measure(t.run, args), parameters=parameters)
        return results[t]

    full = [t for t in every if not t.off]
    notes, left_out = [], []
    cells, said = _cells(full)
    notes += said
    made = {cell: mean([result(t) for t in some], "cell") for cell, some in cells.items()}
    table2: dict[str, dict] = {}
    for model in sorted({m for m, _ in made}, key=_order):
        table2[model] = {p: made[model, p] for p in PROCEDURES if (model, p) in made}
    table3, said = _strides(full, result)
    left_out += said
    table4, said = _ablations(every, result)
    left_out += said
    figure2 = {m: {p: r for p, r in row.items() if "67" in r.values} for m, row in table2.items()}
    figure2 = {m: row for m, row in figure2.items() if row}
    if not table2:
        left_out.insert(0, "Table 2: every run lacks a component of the recipe.")
    if not figure2:
        why = "the scores are not of AudioSet's 527 classes" if table2 else "Table 2 has no runs"
        left_out.append(f"Figure 2: {why}.")
    if not (table2 or table4):
        raise AsjaxError(
            f"nothing to show: run {runs[0].name} was trained without "
            f"{_without(every[0])} and no run has the full recipe; write "
            f"{runs[0].name}:ablation=full to treat it as the full recipe"
        )
    wins = _large_wins(figure2)
    found = {
        "table2": table2,
        "table3": table3,
        "table4": table4,
        "lost": {p: _over_models(rows.values()) for p, rows in table4.items()},
        "figure2": figure2,
        "large_wins": wins,
        "won": _spread({s: [r.values[s] for r in wins.values()] for s in subsets()}),
        "left_out": left_out,
        "runs": [(t.model, t.procedure, _without(t), str(t.run.path)) for t in every],
    }
    return {**found, "notes": _notes(found, every, notes, results, args)}


def _order(model):
    known = list(printed.ATDR_TABLE2)
    return known.index(model) if model in known else len(known), model


def _without(t) -> str:
    return ", ".join(
        printed.ATDR_ABLATIONS[key][0] for key in printed.ATDR_ABLATIONS if key in t.off
    )


# ------------------------------------------------------------------------------------- sections


def _cells(full):
    """The runs of each (model, procedure); for AST, the stride nearest to that of the paper."""
    cells, notes = {}, []
    for t in full:
        cells.setdefault((t.model, t.procedure), []).append(t)
    for (model, procedure), some in cells.items():
        strides = {t.stride for t in some}
        if len(strides) > 1:
            wanted = TABLE_2_STRIDE[procedure]
            known = sorted(strides - {None})
            best = min(known, key=lambda s: sum(abs(x - wanted) for x in s))
            cells[model, procedure] = some = [t for t in some if t.stride == best]
            notes.append(
                f"{model} {procedure}: Table 2 shows stride {stride_name(best)} of {len(known)} "
                f"strides (the paper: {wanted})."
            )
        _check_alike(some, f"{model} {procedure}")
    return cells, notes


def _check_alike(some, where: str) -> None:
    """AsjaxError unless the runs are equal but for the seed; a run without a config passes."""
    known = [t for t in some if t.facts is not None]
    for t in known[1:]:
        if fields := differing(known[0], t):
            raise papers.unequal(known[0].run.name, t.run.name, where, fields)


def stride_name(stride) -> str:
    return str(stride[0]) if stride[0] == stride[1] else f"{stride[0]}x{stride[1]}"


def _strides(full, result):
    """AST by features, procedure and stride."""
    table: dict = {}
    said = []
    for t in full:
        if t.model == "AST" and t.stride is None:
            said.append(
                f"Table 3: the stride of {t.run.name} is not known; write {t.run.name}:stride=10."
            )
        elif t.model == "AST":
            features = PROCEDURES[t.procedure][0]
            table.setdefault(features, {}).setdefault(t.procedure, {}).setdefault(
                t.stride, []
            ).append(t)
    for rows in table.values():
        for p, strides in rows.items():
            for stride, some in strides.items():
                _check_alike(some, f"AST {p} with stride {stride_name(stride)}")
                strides[stride] = mean([result(t) for t in some], "stride")
    out = {
        features: {
            p: dict(sorted(table[features][p].items())) for p in PROCEDURES if p in table[features]
        }
        for features in SHAPES
        if features in table
    }
    if not out and not said:
        said.append("Table 3: no run of AST with the full recipe.")
    return out, said


def _ablations(every, result):
    """mAP lost without a component, by procedure and model, from runs that differ only in it.

    Mixup and SpecAugment change the measured mean and deviation of the features. So with them the
    normalisation constants may differ too. A model with several groups of equal configs gets the
    mean over the groups.
    """
    pairs: dict = {}
    said = []
    for t in (t for t in every if t.off):
        near = [
            f
            for f in every
            if not f.off and (f.model, f.procedure, f.stride) == (t.model, t.procedure, t.stride)
        ]
        alike = [f for f in near if len(t.off) == 1 and not _others(f, t)]
        if alike:
            (component,) = t.off
            groups = pairs.setdefault((t.procedure, component, t.model, t.stride), {})
            groups.setdefault(tuple(alike), []).append(t)
            continue
        why = "there is no run with the full recipe that differs only in this"
        if len(t.off) > 1:
            why = "more than one component is missing"
        elif near:
            fields = min((_others(f, t) for f in near), key=len)
            why = f"the nearest run with it also differs in {', '.join(fields)}"
        said.append(f"Table 4: {t.run.name}, {t.model} {t.procedure} without {_without(t)}: {why}.")
    strides = {(p, model, stride) for p, _, model, stride in pairs}
    table: dict = {p: {} for p in PROCEDURES if any(key[0] == p for key in pairs)}
    for key in sorted(pairs, key=lambda k: (k[0], _order(k[2]), k[3] or (0, 0))):
        procedure, component, model, stride = key
        if sum((p, m) == (procedure, model) for p, m, _ in strides) > 1 and stride:
            model = f"{model}, stride {stride_name(stride)}"
        lost = []
        for alike, without in pairs[key].items():
            a, b = (mean([result(t) for t in some], "ablation") for some in (alike, without))
            mean([a, b], "ablation")  # the same clips
            lost.append(minus(a, b))
        table[procedure].setdefault(model, {})[component] = mean(lost, "ablation")
    if not table and not said:
        said.append("Table 4: no run lacks a component of the recipe.")
    return table, said


def _others(full, without) -> list[str]:
    """Fields that differ besides the missing component."""
    (component,) = without.off if len(without.off) == 1 else ("",)
    allowed = {component}
    if component in ("mixup", "specaug") and "normalise" not in full.off | without.off:
        allowed.add("normalise")
    return [key for key in differing(full, without) if key not in allowed]


def _over_models(rows) -> dict:
    return _spread({c: [row[c].value for row in rows if c in row] for c in printed.ATDR_ABLATIONS})


def _spread(values) -> dict:
    """key -> (mean, standard deviation (n - 1) or None, n), for keys with a finite value."""
    out = {}
    for key, some in values.items():
        some = [v for v in some if np.isfinite(v)]
        if some:
            deviation = float(np.std(some, ddof=1)) if len(some) > 1 else None
            out[key] = (float(np.mean(some)), deviation, len(some))
    return out


def _large_wins(figure2) -> dict:
    """Large features minus small features, by model and starting weights."""
    return {
        (model, a, b): minus(row[a], row[b])
        for model, row in figure2.items()
        for a, b in (("A1", "A3"), ("A2", "A4"))
        if a in row and b in row
    }


# ---------------------------------------------------------------------------------------- notes


def quality_rule() -> str:
    """The rule of figure 2 and the number of classes in each subset."""
    quality, rated = label_quality()
    masks = subsets()
    return (
        "Quality of a class: correct labels / rated examples in AudioSet's qa_true_counts.csv "
        f"(usually 10). > 67 %: {masks['67'].sum()} classes; > 50 %: {masks['50'].sum()}; ≥ 0 %: "
        f"all {len(rated)}. Of these, {int((rated == 0).sum())} classes have no rated example and "
        "are in no other subset."
    )


def won_rule(found) -> str:
    """Figure 2's difference in the paper, and the same for the runs, if there is a pair."""
    said = "paper {:+.1f} ± {:.1f}".format(*printed.ATDR_LARGE_WINS)
    if "67" in found["won"]:
        value, deviation, pairs = found["won"]["67"]
        spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
        noun = "pair" if pairs == 1 else "pairs"
        said = f"ours {100 * value:+.1f}{spread} ({pairs} {noun} of procedures), {said}"
    return f"Large features minus small, mAP points in the subset > 67 %: {said}."


def printed_wrong() -> tuple[int, int]:
    """Number of wrong patch counts in the paper, and number of all."""
    wrong = [
        printed != np.prod(patches((stride, stride), features))
        for features, row in printed.ATDR_PATCHES.items()
        for stride, printed in row.items()
    ]
    return sum(wrong), len(wrong)


def _notes(found, every, notes, results, args) -> list[str]:
    out = []
    if args.bootstrap:
        out.append(
            f"Intervals: {papers.LEVEL:.0%} from {args.bootstrap:,} bootstrap resamples of the "
            f"clips (seed {args.seed}); differences are paired by clip."
        )
    out.append(
        "Procedures: A1 has features of 128 x 1024 and starts from ImageNet weights, A2 has the "
        "same features and starts from scratch. A3 and A4 are the same with 64 x 400."
    )
    ours = papers.data_titles((r.data, r.clips, r.classes["all"]) for r in results.values())
    out.append(
        f"Our data: {ours} (a class without a positive is left out). The paper evaluates on "
        f"{printed.ATDR_CLIPS:,} clips of AudioSet and prints no intervals."
    )
    many = [
        f"{m} {p}: {len(r.runs)}"
        for m, row in found["table2"].items()
        for p, r in row.items()
        if len(r.runs) > 1
    ]
    if many:
        out.append(f"Means over runs, {', '.join(many)}.")
    unknown = [t.run.name for t in every if t.facts is None and "ablation" not in t.run.said]
    if unknown:
        out.append(
            f"Treated as the full recipe, because there is no config: {', '.join(unknown)} "
            f"(otherwise write {unknown[0]}:ablation=mixup)."
        )
    aside = [t for t in every if t.off]
    if aside and found["table2"]:
        count = f"{len(aside)} run{'s' * (len(aside) > 1)}"
        out.append(f"Not in tables 2, 3 and figure 2: {count} with a missing component.")
    if found["table3"]:
        wrong, of = printed_wrong()
        out.append(
            f"Patches: ((128 or 64) - 16) // stride + 1 times ((1024 or 400) - 16) // stride + 1. "
            f"*: {wrong} of the paper's {of} counts differ from this."
        )
    if found["table4"]:
        out.append(
            "Table 4: full recipe minus the run without the component; mean ± standard deviation "
            "(n - 1) over the models. The paper's numbers are for A4."
        )
    if found["figure2"]:
        out.append(f"Figure 2. {quality_rule()} {won_rule(found)}")
        counted = {
            tuple(r.classes.values()) for row in found["figure2"].values() for r in row.values()
        }
        whole = tuple(int(m.sum()) for m in subsets().values())
        if counted != {whole}:
            out.append(
                "The number of these classes with a positive in the test sets here: "
                f"{'; '.join(', '.join(map(str, c)) for c in sorted(counted))}."
            )
    small = any(not comparable(r) for r in results.values())
    if small:
        out.append(
            "Some test sets here have too few classes for a comparison with the paper. Their "
            "pictures do not show the paper's numbers."
        )
    return [*out, *notes]


def comparable(result) -> bool:
    """Whether a test set has nearly all classes of the paper."""
    return result.classes["all"] >= 500


def strides_shown(rows) -> list[tuple[int, int]]:
    """The strides of the paper and of the runs, ascending."""
    return sorted({(s, s) for s in STRIDES} | {s for row in rows.values() for s in row})
