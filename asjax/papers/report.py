"""`asjax report hlp|balance|atdr|sed RUN...`: the papers' tables and figures, from finished scores.

A RUN is the workdir of a finished run (its `eval` and all `eval-*` folders are read) or one folder
with a scores.npz. The training settings are read from the run's record. The user can add or correct
them after a colon, as in `runs/x:hlp=False,model=passt_s,beta=0.5`. All numbers are computed here
from the scores, except the papers' numbers, which are marked as such.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from asjax.config import AsjaxError
from asjax.papers.runs import read_runs

# name -> (module that collects, module that shows, one line, example)
PAPERS = {
    "hlp": (
        "asjax.papers.hlp",
        "asjax.papers.hlp",
        "Table III of Hierarchical Label Propagation: trained with and without HLP, four tests",
        "asjax report hlp runs/cnn6 runs/cnn6_hlp --out report-hlp",
    ),
    "balance": (
        "asjax.papers.balance",
        "asjax.papers.balance_page",
        "figures 1-3 of Dataset balancing can hurt model performance: curves over beta, regression",
        "asjax report balance runs/ast_beta0 runs/ast_beta0.5 runs/ast_beta1 --out report-balance",
    ),
    "atdr": (
        "asjax.papers.atdr",
        "asjax.papers.atdr_page",
        "tables 2-4 and figure 2 of AudioTagging Done Right: architectures, procedures, ablations",
        "asjax report atdr runs/ast_A1 runs/crnn_A2 old/scores:model=crnn,procedure=A4",
    ),
    "sed": (
        "asjax.papers.sed",
        "asjax.papers.sed_page",
        "tables I and II of Effective pre-training of audio transformers for SED: five models, "
        "other tasks",
        "asjax report sed runs/student-* runs/teacher-* --out report-sed",
    ),
}


def add_arguments(parser) -> None:
    papers = parser.add_subparsers(dest="paper", metavar="PAPER", required=True)
    for name, (module, _, line, example) in PAPERS.items():
        sub = papers.add_parser(
            name, help=line, description=f"{line}.", epilog=f"example: {example}"
        )
        sub.add_argument(
            "runs",
            nargs="+",
            metavar="RUN",
            help="workdir of a finished run, or a folder with a scores.npz; add settings that it "
            "does not record after a colon: DIR:hlp=False,model=cnn6,beta=0.5",
        )
        sub.add_argument(
            "--out", type=Path, default=Path(f"report-{name}"), help="folder (default: %(default)s)"
        )
        sub.add_argument(
            "--bootstrap", type=int, default=1000, help="resamples for the intervals; 0: none"
        )
        sub.add_argument("--seed", type=int, default=0, help="seed of the resamples")
        import_module(module).add_arguments(sub)


def main(args) -> int:
    if args.bootstrap < 0:
        raise AsjaxError(f"--bootstrap must be 0 or more, got {args.bootstrap}")
    new_folder = not args.out.exists()
    try:  # first, because the computation takes a while
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AsjaxError(f"--out {args.out} must be a writable folder: {error}") from None
    collects, shows = map(import_module, PAPERS[args.paper][:2])
    try:
        data = collects.collect(read_runs(args.runs), args)
    except AsjaxError:
        if new_folder:  # leave no empty folder
            args.out.rmdir()
        raise
    print(shows.text(data))
    written = shows.write(data, args.out)
    print(f"\nwritten to {args.out}: {' '.join(written)}")
    return 0
