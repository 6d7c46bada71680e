"""`asjax models`: list the architectures and their published checkpoints."""

from __future__ import annotations

import json

from asjax import frontends, models, pages
from asjax.config import AsjaxError
from asjax.weights import published


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
    """Print families and variants with computed sizes, or the published checkpoints."""
    for name in args.family:
        models.family(name)
    if args.parameters:
        if len(args.family) != 1:
            raise AsjaxError(
                "--parameters=VARIANT needs one family: asjax models cnn --parameters=cnn6"
            )
        module = models.build(args.family[0], args.parameters)
        print(pages.parameter_table(models.abstract(module)["params"]))
        return 0
    if args.published:
        return _published(args)
    rows = map(_with_input, models.list_models(args.family))
    if args.json:
        print(json.dumps(list(rows), indent=2))
        return 0
    print(f"{'family':<14}{'variant':<25}{'parameters':>12}  {'rate':>6}  {'mels':>4}  frontend")
    for row in rows:
        print(
            f"{row['family']:<14}{row['variant']:<25}{row['parameters']:>12,}  "
            f"{row['sample_rate']:>6}  {row['n_mels']:>4}  {_call(row['frontend'])}",
            flush=True,
        )
    print("\nparameters: trainable, with 527 classes; --parameters=VARIANT lists the arrays")
    print("to use one: --config.model.name=convnext --config.model.variant=femto, or")
    print("            asjax.models.build('convnext', variant='femto', num_classes=200)")
    print("published checkpoints: asjax models --published")
    return 0


def _published(args) -> int:
    rows = [r for r in published.rows() if not args.family or r["family"] in args.family]
    print(json.dumps(rows, indent=2) if args.json else published.table(rows))
    return 0


def _with_input(row: dict) -> dict:
    return {**row, "sample_rate": frontends.build(**row["frontend"]).sample_rate}


def _call(spec: dict) -> str:
    fields = ", ".join(f"{k}={v!r}" for k, v in spec.items() if k != "name")
    return f"{spec['name']}({fields})" if fields else spec["name"]
