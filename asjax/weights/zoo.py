"""`asjax models`: list the architectures with sizes and scores, and their published checkpoints."""

from __future__ import annotations

import json

from asjax import models, pages
from asjax.config import AsjaxError, unknown
from asjax.weights import published, sizes

# Scores that asjax measured itself, with 95 % intervals: README.md and benchmarks/README.md. No
# published checkpoint was scored here.
_FOLDS = "mean AP {} on ESC-10, five folds"
OWN = {
    ("cnn", "mini"): "mean AP .950 [.904, .983] on ESC-10, fold 5",
    ("conformer", "conformer_mini"): _FOLDS.format(".881 [.846, .911]"),
    ("resnet_att", "resnet_mini"): _FOLDS.format(".915 [.884, .939]"),
    ("talnet", "cnn_transformer_mini"): _FOLDS.format(".905 [.876, .932]"),
    ("talnet", "crnn_mini"): _FOLDS.format(".865 [.833, .896]"),
    ("transformer", "transformer_mini"): _FOLDS.format(".781 [.740, .820]"),
}
NOT_RUN = "not run"


def add_arguments(parser):
    parser.add_argument("family", nargs="*", help="only these families (default: all)")
    parser.add_argument(
        "--published", action="store_true", help="list the checkpoints that `asjax port` can fetch"
    )
    parser.add_argument(
        "--parameters", metavar="VARIANT", help="list the arrays of a variant of one given family"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(args) -> int:
    """Print families and variants with sizes and scores, or the published checkpoints."""
    for name in args.family:
        if name not in models.families():
            if family := next((r["family"] for r in sizes.stored() if r["variant"] == name), None):
                raise AsjaxError(
                    f"{name} is a variant of the family {family}: asjax models {family}"
                )
            raise unknown("model family", name, models.families())
    if args.parameters:
        if len(args.family) != 1:
            raise AsjaxError(
                "--parameters=VARIANT needs one family: asjax models cnn --parameters=cnn6"
            )
        module = models.build(args.family[0], args.parameters)
        print(pages.parameter_table(models.abstract(module)["params"]))
        return 0
    if args.published:
        rows = [r for r in published.rows() if not args.family or r["family"] in args.family]
        print(json.dumps(rows, indent=2) if args.json else published.table(rows))
        return 0
    rows = listed(args.family)
    print(json.dumps(rows, indent=2) if args.json else table(rows))
    return 0


def listed(families: list[str] | None = None) -> list[dict]:
    """The rows of `sizes.stored` in the order of `families`, with what is known about weights.

    published: the best score of each kind, as text; "-": none. checkpoints: their names. licence:
    of these checkpoints. own: the score that asjax measured, or "not run".
    """
    rows = []
    for family in families or models.families():
        for row in sizes.stored():
            if row["family"] == family:
                found = [
                    p
                    for p in published.ROWS
                    if (p.family, p.variant) == (row["family"], row["variant"])
                ]
                licences = dict.fromkeys(p.licence for p in found)
                about = {
                    "published": _best(found),
                    "checkpoints": [p.name for p in found],
                    "licence": "; ".join(licences) or "-",
                    "own": OWN.get((row["family"], row["variant"]), NOT_RUN),
                }
                rows.append({**row, **about})
    return rows


def _best(rows) -> str:
    """The best score of each metric and evaluation set; AudioSet's name is left out."""
    best: dict = {}
    for row in rows:
        if row.score != "-":
            metric, number = row.score.rsplit(" ", 1)
            on = "" if row.data.startswith("AudioSet") else f" on {row.data}"
            key = (metric, on)
            best[key] = max(best.get(key, number), number, key=float)
    return ", ".join(f"{metric} {number}{on}" for (metric, on), number in best.items()) or "-"


def table(rows: list[dict]) -> str:
    """The rows as text, a line for each variant."""
    head = ("family", "variant", "parameters", "GMAC", "rate", "mels", "published", "n")
    lines = [(*head, "own score", "parity", "licence of the weights", "frontend")]
    for row in rows:
        lines.append(
            (
                *(row[key] for key in ("family", "variant")),
                f"{row['parameters']:,}",
                f"{row['macs'] / 1e9:.3g}",
                *(str(row[key]) for key in ("sample_rate", "n_mels", "published")),
                str(len(row["checkpoints"]) or "-"),
                row["own"],
                f"{row['parity']:.1e}" if row["parity"] else "-",
                row["licence"],
                _call(row["frontend"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = {2, 3, 4, 5, 7, 9}
    text = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(
        [
            *text,
            "",
            "parameters: trainable, with 527 classes; --parameters=VARIANT lists the arrays",
            "GMAC: 1e9 multiply-accumulates of a forward pass over 10 s, without the frontend",
            "published: the authors' best score on AudioSet, of n checkpoints. own score: measured",
            "  by asjax (benchmarks/README.md). parity: worst relative L2 to the authors' code of",
            "  all arrays compared. If it is above 3e-6, that array is a mean close to zero",
            "  (asjax/models/README.md)",
            "to use one: --config.model.name=convnext --config.model.variant=femto, or",
            "            asjax.models.build('convnext', variant='femto', num_classes=200)",
            'checkpoints: asjax models --published; asjax.load("cnn14") fetches and converts one',
        ]
    )


def _call(spec: dict) -> str:
    fields = ", ".join(f"{k}={v!r}" for k, v in spec.items() if k != "name")
    return f"{spec['name']}({fields})" if fields else spec["name"]
