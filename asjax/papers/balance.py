"""The figures of "Dataset balancing can hurt model performance", from finished runs.

Figures 1 and 2: mean AP and d' over beta on one or more evaluation sets. Figure 3: the change of
every class's AP between two betas, regressed on log10 of the class's prior in training. If the runs
of one beta have several learning rates, the rate with the best smoothed validation d' is used, as
in the paper (7-point centred moving average over the evaluations during training). Runs of one beta
and rate that are equal but for the seed are averaged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asjax import balance, build, metrics
from asjax.config import AsjaxError, split_spec
from asjax.labels import read_rows
from asjax.papers import runs as papers
from asjax.store import choice, log, schema

WINDOW = 7


def add_arguments(parser) -> None:
    parser.add_argument(
        "--compare",
        default=None,
        metavar="BETA,BETA",
        help="the two betas of figure 3, second minus first (default: lowest and highest)",
    )
    parser.add_argument(
        "--stats",
        type=Path,
        help="stats.json of asjax stats: imbalance ratio and Gini of the training list by beta "
        "(default: computed from the run's training data, if they are on this machine)",
    )


# ----------------------------------------------------------------------------------- computing


def collect(runs, args) -> dict:
    """All data of the report.

    Returns: dict with
      betas: ascending; chosen: {beta: {lr, runs, smoothed, step}} (the selected runs);
      sets: list of {title, clips, classes, rows: {beta: point}, compared: ... or None}, where a
        point has mean_ap, d_prime, their intervals and per_class_ap;
      sampler: {beta: (rho, gini) or None}; compare: the two betas; notes: list of str.

    Raises:
      AsjaxError: a run without a beta, only one beta, no common evaluation set, several learning
        rates without validation results, runs of one beta and rate that differ in more than the
        seed, betas to compare that no run has.
    """
    for run in runs:
        if run.beta is None:
            why = f"its draw is {run.draw!r}" if run.draw else "its draw is not recorded"
            raise AsjaxError(f"run {run.name} has no beta, {why}; write {run.name}:beta=0.5")
    betas = sorted({run.beta for run in runs})
    if len(betas) < 2:
        raise AsjaxError(
            f"a curve over beta needs runs with at least two betas; all {len(runs)} runs have "
            f"beta={betas[0]:g}"
        )
    low, high = _compared(args.compare, betas)
    chosen = {beta: _choose([r for r in runs if r.beta == beta], beta) for beta in betas}
    for beta, taken in chosen.items():
        papers.check_repeats(taken["runs"], f"beta={beta:g}", "leave one out")
    sets, notes = _sets(chosen, betas, args)
    for entry in sets:
        rows = entry["rows"]
        both = low in rows and high in rows
        entry["compared"] = _compare(entry, rows[low], rows[high], chosen, args) if both else None
    return {
        "betas": betas,
        "chosen": chosen,
        "sets": sets,
        "sampler": _sampler(args.stats, chosen),
        "compare": (low, high),
        "notes": [*notes, *_notes(sets, chosen, args)],
    }


def _compared(text, betas):
    if text is None:
        return betas[0], betas[-1]
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise AsjaxError(f"--compare must be two betas such as 0,1, got {text!r}") from None
    known = ", ".join(f"{b:g}" for b in betas)
    if low == high or low not in betas or high not in betas:
        raise AsjaxError(f"--compare must be two of the runs' betas ({known}), got {text!r}")
    return low, high


def smoothed(run) -> tuple[float, int] | None:
    """Best smoothed validation d' of a run and its step; None without logged evaluations."""
    place = run.path if (run.path / "train.jsonl").is_file() else run.path.parent
    rows = {
        row["step"]: row["eval/d_prime"]
        for row in log.read_jsonl(place / "train.jsonl")
        if isinstance(row.get("eval/d_prime"), (int, float))
    }
    steps, values = sorted(rows), [rows[step] for step in sorted(rows)]
    if not np.isfinite(values).any():
        return None
    best, value = choice.smoothed_best(values, WINDOW)
    return value, steps[best]


def _choose(runs, beta) -> dict:
    """The selected runs of one beta: all, or those with the best learning rate."""
    validation = {run.name: smoothed(run) for run in runs}
    rates = sorted({run.lr for run in runs if run.lr is not None})
    taken = runs
    if len(rates) > 1:
        missing = [run.name for run in runs if validation[run.name] is None or run.lr is None]
        if missing:
            raise AsjaxError(
                f"the runs at beta={beta:g} have {len(rates)} learning rates, but {missing[0]} has "
                "no train.jsonl with evaluations, so the best rate is unknown; give only the runs "
                "of one rate"
            )
        mean = {
            rate: np.mean([validation[run.name][0] for run in runs if run.lr == rate])
            for rate in rates
        }
        best = max(mean, key=mean.get)
        taken = [run for run in runs if run.lr == best]
    traces = [validation[run.name] for run in taken if validation[run.name]]
    return {
        "runs": taken,
        "left_out": [run.name for run in runs if run not in taken],
        "lr": taken[0].lr,
        "smoothed": float(np.mean([value for value, _ in traces])) if traces else None,
        "steps": [step for _, step in traces],
    }


def _sets(chosen, betas, args):
    """The evaluation sets with at least two betas, and notes on the others."""
    entries: dict[str, dict] = {}
    for beta in betas:
        for run in chosen[beta]["runs"]:
            for folder in run.folders:
                evaluation = run.load(folder)
                entry = entries.setdefault(
                    evaluation.key,
                    {
                        "title": evaluation.title,
                        "folder": folder.name,
                        "clips": len(evaluation.scores),
                        "label_set": evaluation.label_set,
                        "zero_shot": evaluation.zero_shot,
                        "points": {},
                        "example": str(evaluation),
                    },
                )
                point = _point(evaluation, args)
                entry["points"].setdefault(beta, []).append((run.name, point))
    sets, notes = [], []
    for entry in entries.values():
        if len(entry["points"]) < 2:
            (only,) = entry["points"]
            notes.append(f"Left out, evaluated only at beta={only:g}: {entry['example']}.")
            continue
        entry["rows"] = {beta: _mean(points) for beta, points in entry.pop("points").items()}
        entry["classes"] = max(p["n_classes"] for p in entry["rows"].values())
        sets.append(entry)
    if not sets:
        examples = "; ".join(entry["example"] for entry in list(entries.values())[:2])
        raise AsjaxError(
            f"runs of different beta have no common evaluation set (same clips, labels and "
            f"classes): {examples}; score them with asjax eval --data on one set"
        )
    titles = [entry["title"] for entry in sets]
    for entry in sets:
        if titles.count(entry["title"]) > 1:
            entry["title"] = f"{entry['title']} ({entry['folder']})"
    return sets, notes


def _point(evaluation, args) -> dict:
    values = metrics.tagging(scores=evaluation.scores, targets=evaluation.targets)
    drawn = None
    if args.bootstrap:
        means = metrics.resampled(
            scores=evaluation.scores, targets=evaluation.targets, n=args.bootstrap, seed=args.seed
        )
        drawn = {
            "mean_ap": means["mean_ap"],
            "d_prime": metrics.d_prime(means["mean_auc"]),
        }
    keys = ("mean_ap", "d_prime", "per_class_ap", "prior", "n_classes")
    return {**{key: values[key] for key in keys}, "drawn": drawn}


def _mean(points) -> dict:
    """Mean over runs of one beta; its interval is over clips, the same resamples for all runs."""
    names = [name for name, _ in points]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise AsjaxError(
            f"run {min(twice)} has two folders with scores of the same clips; give one as the RUN"
        )
    points = [point for _, point in points]
    out = {**points[0], "runs": len(points), "drawn": None, "intervals": {}}
    with np.errstate(invalid="ignore"):
        for key in ("mean_ap", "d_prime", "per_class_ap"):
            out[key] = np.mean([p[key] for p in points], axis=0)
        if points[0]["drawn"]:
            out["drawn"] = {
                k: np.mean([p["drawn"][k] for p in points], axis=0) for k in points[0]["drawn"]
            }
            for key, values in out["drawn"].items():
                out["intervals"][key] = metrics.interval(values, float(out[key]), papers.LEVEL)
    return out


def _compare(found, low, high, chosen, args) -> dict:
    """Change of AP by class and its regression on log10 prior (figure 3)."""
    change = high["per_class_ap"] - low["per_class_ap"]
    prior, where = _train_prior(chosen, found["label_set"])
    if prior is None:
        prior, where = low["prior"], "the evaluated clips"
    with np.errstate(divide="ignore"):
        x = np.where(prior > 0, np.log10(prior), np.nan)
    shown = x[np.isfinite(x) & np.isfinite(change)]
    line = None  # a slope needs classes with different priors
    if len(shown) > 2 and np.ptp(shown) > np.log10(2.0):
        line = metrics.regress(x=x, y=change)
    out = {"change": change, "prior": prior, "where": where, "line": line, "intervals": {}}
    for key in ("mean_ap", "d_prime"):
        out[key] = float(high[key] - low[key])
        if low["drawn"] and high["drawn"]:
            with np.errstate(invalid="ignore"):
                drawn = high["drawn"][key] - low["drawn"][key]
            out["intervals"][key] = metrics.interval(drawn, out[key], papers.LEVEL)
    return out


def _train_prior(chosen, label_set):
    """Share of training clips with each class, and the name of the data; (None, "") if unknown."""
    for run in (run for entry in chosen.values() for run in entry["runs"]):
        for folder in dict.fromkeys([*run.folders, run.path / "eval", run.path.parent / "eval"]):
            data = papers.read_record(folder).get("train_data")
            clips = data.get("clips") if isinstance(data, dict) else None
            table = folder / "per_class.csv"
            if not clips or not table.is_file():
                continue
            rows = read_rows(table, ("mid",), "results by class")
            counts = {r["mid"]: r.get("n_train") for r in rows}
            if all(counts.get(label) for label in label_set.ids):
                try:
                    n = np.array([float(counts[label]) for label in label_set.ids])
                except ValueError as error:
                    raise AsjaxError(f"{table}: n_train must be numbers: {error}") from None
                return n / clips, f"the {clips:,} training clips of {data.get('name', 'this run')}"
    return None, ""


def _sampler(stats, chosen) -> dict:
    """(imbalance ratio, Gini) of the oversampled training set by beta, None if unknown."""
    if stats is None:
        return {beta: _sampler_of(choice["runs"][0], beta) for beta, choice in chosen.items()}
    try:
        sweep = schema.read_json(stats)["oversampling"]
        known = {float(b): (r["imbalance_ratio"], r["gini_equation_3"]) for b, r in sweep.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AsjaxError(f"--stats {stats} is not a stats.json of asjax stats: {error!r}") from None
    return {beta: known.get(beta) for beta in chosen}


def _sampler_of(run, beta):
    """The same from the run's training data, if they are on this machine; labels as they are."""
    try:
        spec = run.cfg["data"]["train"]
        split_spec(spec)
        table = build.source(spec, build.label_set(run.cfg)).labels
    except (KeyError, TypeError, AsjaxError, OSError):
        return None
    if (run.draw or "").startswith("expected"):
        copies = balance.clip_factor(table, beta)
    else:
        copies = balance.oversampling(table, beta)
    counts = balance.effective_counts(table, copies)
    return balance.imbalance_ratio(counts), balance.gini(counts)


def _notes(sets, chosen, args) -> list[str]:
    notes = []
    if args.bootstrap:
        notes.append(
            f"Brackets and bars: {papers.LEVEL:.0%} intervals from {args.bootstrap:,} bootstrap "
            f"resamples of the clips (seed {args.seed}); differences are paired by clip."
        )
    left = [name for choice in chosen.values() for name in choice["left_out"]]
    if left:
        notes.append(
            "Only the learning rate with the best smoothed validation d′ is shown; "
            f"left out: {', '.join(left)}."
        )
    many = [f"beta={b:g}: {len(c['runs'])}" for b, c in chosen.items() if len(c["runs"]) > 1]
    if many:
        notes.append(f"Means over runs, {', '.join(many)}.")
    notes.append(
        "The paper trains AST on 1,728,000 clips of AudioSet. Its public evaluation set has the "
        "16,591 clips of AudioSet's that were still available. Its internal set (39,164 clips) is "
        "not published."
    )
    if any(entry["classes"] < 500 for entry in sets):
        notes.append(
            "Evaluation sets with few of AudioSet's classes cannot be compared with the paper's. "
            "Their pictures do not show the paper's numbers."
        )
    return notes
