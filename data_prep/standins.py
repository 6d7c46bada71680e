"""Write a stand-in: a made-up task in the layout of DCASE 2016 task 2, MAESTRO 5h or DESED.

    python data_prep/standins.py dcase16 --out data/dcase2016_task2-hear2021-full
    python data_prep/standins.py maestro --out data/maestro-v3.0.0-5h --files 4 --seconds 120
    python data_prep/standins.py desed --out data/desed_layout --files 1000 500 100 100

With ASJAX_DATA=data the recipes of the first two train on them. A stand-in of DESED has that
layout's lists and audio, and `records`, which `asjax prepare strong` makes of them. Its classes are
those of ESC-10, so configs/sed_desed.py also needs `--config.labels.name=esc10`, and the path of
the records in data.train, data.eval and data.test.
"""

from __future__ import annotations

import argparse
import sys

from asjax.config import AsjaxError
from asjax.data import standins


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(standins.MAKERS))
    parser.add_argument("--out", required=True, help="folder to make")
    parser.add_argument(
        "--files",
        type=int,
        nargs="+",
        help="dcase16: recordings of train, valid, test; maestro: of each fold; desed: clips of "
        "synthetic, weak, synthetic_validation, validation",
    )
    parser.add_argument("--seconds", type=float, help="of each (default: 120; desed: 10)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    options = {"seed": args.seed}
    if args.seconds is not None:
        options["seconds"] = args.seconds
    if args.files is not None:
        key = "clips" if args.name == "desed" else "files"
        one = args.name == "maestro" and len(args.files) == 1
        options[key] = args.files[0] if one else tuple(args.files)
    try:
        standins.make(args.name, args.out, **options)
    except AsjaxError as error:
        print(f"standins.py: error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
