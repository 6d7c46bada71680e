"""`asjax stats`: the tables and pictures of the HLP and balancing papers, from AudioSet's lists.

Reads segment CSVs (plain or gzip), checks them against their own headers, and writes `stats.json`,
`per_class.csv`, `class_counts.png` and `beta_prior.png`. All printed numbers are computed here.
Without lists it shows those of the official AudioSet, from the two files of such a run that come
with asjax.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asjax import balance, hlp, pages
from asjax import labels as label_sets
from asjax.config import AsjaxError
from asjax.data.audioset import read_segments, split_name

BETAS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
LABELS = "audioset527"
OFFICIAL = label_sets.ASSETS.parent / "audioset" / "stats"  # of the three official lists
EXAMPLE = """example, from the counts that come with asjax:
  asjax stats --out stats/
example:
  asjax stats balanced_train_segments.csv.gz unbalanced_train_segments.csv.gz \\
      eval_segments.csv.gz --out stats/
example:
  asjax stats --features --config=configs/atdr.py:model=crnn,procedure=A4 \\
      --config.batch_size=100 --out features.json
"""

# ---------------------------------------------------------------------------------- computing


class Split(NamedTuple):
    """Counts of one or several lists: clips, positives per class, clips that HLP changes."""

    clips: int
    before: np.ndarray
    after: np.ndarray
    clips_changed: int

    def __add__(self, other: Split) -> Split:
        return Split(*(a + b for a, b in zip(self, other, strict=True)))

    def summary(self) -> dict:
        """The rows of the HLP paper's Table II and of the balancing paper's Table 1."""
        labels, after = int(self.before.sum()), int(self.after.sum())
        return {
            "clips": self.clips,
            "labels": labels,
            "labels_per_clip": labels / self.clips,
            "labels_after": after,
            "labels_per_clip_after": after / self.clips,
            "growth": after / labels - 1.0 if labels else 0.0,
            "classes_changed": int((self.after != self.before).sum()),
            "clips_changed": self.clips_changed,
            "classes_absent": int((self.before == 0).sum()),
            "imbalance_ratio": balance.imbalance_ratio(self.before),
            "gini_equation_3": balance.gini(self.before),
            "gini_textbook": balance.gini(self.before, textbook=True),
            "imbalance_ratio_after": balance.imbalance_ratio(self.after),
            "gini_after": balance.gini(self.after),
        }


def count_split(table, closure) -> Split:
    """Statistics of one list from its labels, a CSR matrix [clips, C]."""
    grown = hlp.propagate_labels(table, closure)
    changed = int((np.diff(grown.indptr) != np.diff(table.indptr)).sum())
    return Split(table.shape[0], balance.counts(table), balance.counts(grown), changed)


def sweep(table, betas) -> dict[float, dict]:
    """The balancing paper's Table 2: beta -> statistics of the oversampled list.

    `counts` are the effective N_k' (int64 [C]). `rarest_one_in` is the number of draws per draw of
    the rarest class that occurs.
    """
    rows = {}
    for beta in betas:
        copies = balance.oversampling(table, beta)
        counts = balance.effective_counts(table, copies)
        total = int(copies.sum())
        rarest = counts[counts > 0].min() if counts.any() else 0
        rows[beta] = {
            "max_M": int(copies.max()),
            "sum_M": total,
            "mean_M": total / table.shape[0],
            "imbalance_ratio": balance.imbalance_ratio(counts),
            "gini_equation_3": balance.gini(counts),
            "rarest_one_in": float(total / rarest) if rarest else float("nan"),
            "counts": counts,
        }
    return rows


def collect(paths, label_set="audioset527", strict=False, betas=BETAS, progress=True) -> dict:
    """All data of `asjax stats`.

    Returns:
      `label_set`, `strict`, `splits` (name -> Split: each list; `train`, if several lists have
      "train" in their names; `all`), `swept` (split of the sweep: the training lists, else all),
      `sweep` (see `sweep`).
    """
    label_set = label_sets.get(label_set)
    closure = hlp.closure(label_set, strict=strict)
    names = [split_name(path) for path in paths]
    if len(set(names)) != len(names):
        raise AsjaxError(f"segment lists must have different names, got {', '.join(names)}")
    train = [name for name in names if "train" in name]
    groups = {"train": train} if len(train) > 1 else {}
    if len(names) > max(1, len(train)):
        groups["all"] = names
    swept = train[0] if len(train) == 1 else next(iter(groups), names[0])
    if set(groups) & set(names):
        raise AsjaxError(f"a list must not have the name {' or '.join(groups)}: {names}")
    splits, pool = {}, []
    for name, path in zip(names, paths, strict=True):
        table = read_segments(path, label_set, progress)
        splits[name] = count_split(table, closure)
        if name in groups.get(swept, [swept]):
            pool.append(table)
    for title, (first, *rest) in groups.items():
        splits[title] = sum((splits[name] for name in rest), splits[first])
    return {
        "label_set": label_set,
        "strict": strict,
        "splits": splits,
        "swept": swept,
        "sweep": sweep(_stacked(pool), betas),
    }


def read(folder) -> dict:
    """What `collect` has returned, from the `stats.json` and `per_class.csv` in a folder."""
    found = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    rows = label_sets.read_rows(folder / "per_class.csv", ("mid",), "counts by class")
    counts = lambda name, when: np.array([int(row[f"{name}_{when}"]) for row in rows])  # noqa: E731
    splits = {
        name: Split(
            row["clips"], counts(name, "before"), counts(name, "after_hlp"), row["clips_changed"]
        )
        for name, row in found["splits"].items()
    }
    swept = {float(b): row for b, row in found["oversampling"].items()}
    return {
        "label_set": label_sets.get(found["label_set"]),
        "strict": found["strict"],
        "splits": splits,
        "swept": found["oversampled_split"],
        "sweep": {b: {**row, "counts": np.array(row["counts"])} for b, row in swept.items()},
    }


def _stacked(tables):
    from scipy import sparse

    return tables[0] if len(tables) == 1 else sparse.vstack(tables, format="csr")


# ------------------------------------------------------------------------------------ writing


def report(found: dict, top: int = 10) -> str:
    """The printed tables."""
    splits, names = found["splits"], found["label_set"].names
    rows = {name: split.summary() for name, split in splits.items()}
    rule = "strict" if found["strict"] else "contracted"
    growth = [
        [
            name,
            f"{r['clips']:,}",
            f"{r['labels']:,}",
            f"{r['labels_per_clip']:.4f}",
            f"{r['labels_after']:,}",
            f"{r['labels_per_clip_after']:.4f}",
            f"{r['growth']:+.2%}",
            f"{r['classes_changed']}",
            f"{r['clips_changed']:,} ({r['clips_changed'] / r['clips']:.1%})",
        ]
        for name, r in rows.items()
    ]
    head = "split,clips,labels,/clip,after HLP,/clip,growth,classes changed,clips changed"
    parts = [
        pages.table_text(f"Labels before and after HLP ({rule} rule)", head.split(","), growth)
    ]
    pool = splits[found["swept"]]
    gains = [
        [names[i], f"{pool.before[i]:,}", f"{pool.after[i]:,}", _factor(pool, i)]
        for i in top_factors(pool, top)
    ]
    title = f"Classes that grow most ({found['swept']})"
    parts.append(pages.table_text(title, ["class", "before", "after", "factor"], gains))
    spread = [
        [
            name,
            f"{r['imbalance_ratio']:,.1f}",
            f"{r['gini_equation_3']:.4f}",
            f"{r['gini_textbook']:.4f}",
            f"{r['imbalance_ratio_after']:,.1f}",
            f"{r['gini_after']:.4f}",
            f"{r['classes_absent']}",
        ]
        for name, r in rows.items()
    ]
    head = "split,rho,Gini (eq. 3),Gini (textbook),rho after HLP,Gini (eq. 3) after HLP,absent"
    parts.append(
        pages.table_text("Imbalance (rho over the classes present)", head.split(","), spread)
    )
    steps = [
        [
            f"{beta:g}",
            f"{r['max_M']:,}",
            f"{r['sum_M']:,}",
            f"{r['mean_M']:.3f}",
            f"{r['imbalance_ratio']:,.1f}",
            f"{r['gini_equation_3']:.4f}",
            f"1 in {r['rarest_one_in']:,.1f}",
        ]
        for beta, r in found["sweep"].items()
    ]
    head = ["beta", "max M", "sum M", "mean M", "rho", "Gini (eq. 3)", "rarest class"]
    parts.append(
        pages.table_text(f"Oversampling of {found['swept']}, labels as they are", head, steps)
    )
    return "\n\n".join(parts)


def top_factors(split: Split, top: int) -> np.ndarray:
    """Indices of the classes with the largest growth factors, largest first; no absent ones."""
    factor = np.where(split.before > 0, split.after / np.maximum(split.before, 1), 0.0)
    order = np.argsort(-factor, kind="stable")
    return order[factor[order] > 1.0][:top]


def _factor(split: Split, i: int) -> str:
    return f"x{split.after[i] / split.before[i]:.3g}" if split.before[i] else "new"


def as_json(found: dict) -> dict:
    """The content of `stats.json`: plain numbers; null for undefined values."""
    swept = {f"{b:g}": {**r, "counts": r["counts"].tolist()} for b, r in found["sweep"].items()}
    body = {
        "label_set": found["label_set"].name,
        "label_hash": found["label_set"].hash,
        "strict": found["strict"],
        "splits": {name: split.summary() for name, split in found["splits"].items()},
        "oversampled_split": found["swept"],
        "oversampling": swept,
    }
    return json.loads(json.dumps(body), parse_constant=lambda _: None)


def write_per_class(found: dict, path) -> None:
    """`per_class.csv`: counts of every class before and after HLP, and its prior per beta."""
    labels, splits, betas = found["label_set"], found["splits"], found["sweep"]
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        counts = [f"{name}_{when}" for name in splits for when in ("before", "after_hlp")]
        oversampled = [f"prior_beta_{beta:g}" for beta in betas]
        out.writerow(["index", "mid", "display_name", *counts, *oversampled])
        for i, (mid, name) in enumerate(zip(labels.ids, labels.names, strict=True)):
            found_here = [int(n[i]) for s in splits.values() for n in (s.before, s.after)]
            prior = [f"{r['counts'][i] / r['sum_M']:.6g}" for r in betas.values()]
            out.writerow([i, mid, name, *found_here, *prior])


def add_arguments(parser) -> None:
    """Arguments of the verb."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "segments",
        nargs="*",
        help="AudioSet segment lists, .csv or .csv.gz (default: the counts of the three official "
        "lists, which come with asjax)",
    )
    parser.add_argument(
        "--labels", default=LABELS, help="label set or its CSV (default: %(default)s)"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="HLP only along nodes that have one parent in the original ontology",
    )
    parser.add_argument(
        "--betas",
        default=",".join(f"{b:g}" for b in BETAS),
        help="oversampling exponents, comma-separated (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder (default: stats); with --features: a JSON file"
    )
    features = parser.add_argument_group(
        "mean and deviation of features",
        "as in a training run, with augmentation; --config.NAME=VALUE overrides a field of the\n  "
        "config, such as --config.batch_size=100",
    )
    features.add_argument("--features", action="store_true", help="measure the config's features")
    features.add_argument("--config", help="train config, FILE.py or FILE.py:key=value")
    features.add_argument(
        "--batches", type=int, metavar="N", help="number of batches (default: an epoch)"
    )


def parse_betas(text: str) -> list[float]:
    """`"0,.5,1"` -> `[0.0, 0.5, 1.0]`, ascending and unique."""
    try:
        betas = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise AsjaxError(f"--betas must be numbers such as 0,.5,1, got {text!r}") from None
    if not all(0 <= beta < np.inf for beta in betas):
        raise AsjaxError(f"--betas must be finite and >= 0, got {text!r}")
    return betas


def main(args) -> int:
    """Run the verb; returns 0."""
    if args.features:
        from asjax.papers import features as stats_features

        return stats_features.main(args)
    if args.config or args.batches:
        raise AsjaxError("--config and --batches belong to --features; leave them out, or give it")
    args.out = args.out or Path("stats")
    betas = parse_betas(args.betas)
    if not args.segments and (args.labels != LABELS or args.strict or betas != list(BETAS)):
        raise AsjaxError(
            "--labels, --strict and --betas need segment lists; the counts that come with asjax "
            "are those of its defaults"
        )
    new_folder = not args.out.exists()
    try:  # first, because reading the lists takes a while
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AsjaxError(f"--out {args.out} must be a writable folder: {error}") from None
    try:
        if args.segments:
            data = collect(args.segments, args.labels, args.strict, betas)
        else:
            print("the three official lists of AudioSet, as counted before; no list was read\n")
            data = read(OFFICIAL)
    except AsjaxError:
        if new_folder:  # leave no empty folder
            args.out.rmdir()
        raise
    print(report(data))
    (args.out / "stats.json").write_text(json.dumps(as_json(data), indent=1) + "\n")
    write_per_class(data, args.out / "per_class.csv")
    from asjax.papers import lists_plots as stats_plots

    stats_plots.class_counts(data, args.out / "class_counts.png")
    stats_plots.beta_prior(data, args.out / "beta_prior.png")
    print(f"\nwritten to {args.out}: stats.json per_class.csv class_counts.png beta_prior.png")
    return 0
