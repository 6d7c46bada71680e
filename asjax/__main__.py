"""`asjax <verb>`: one small parser; each verb's module brings its own arguments and `main`."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from importlib import import_module

from asjax import __version__
from asjax.config import AsjaxError, printable, unknown, warnings_as_lines

# verb -> (module, one line, example)
VERBS = {
    "train": (
        "asjax.train",
        "train a tagger from a config; run it again to go on where it stopped",
        "asjax train --config=configs/quickstart.py:beta=0.5 --workdir=runs/quickstart",
    ),
    "eval": (
        "asjax.evaluation.evaluate",
        "score a model on a data set: mAP, AUC, d' with confidence intervals, report.html",
        "asjax eval --model=runs/quickstart/model --data \"esc10(splits=['fold5'])\"",
    ),
    "compare": (
        "asjax.evaluation.compare",
        "two evaluations on the same clips: paired differences with intervals, by class",
        "asjax compare runs/a runs/b --out compare-ab",
    ),
    "tag": (
        "asjax.tag",
        "name the sounds in audio files",
        "asjax tag dog.wav recordings/ --model=runs/quickstart/model --top 5",
    ),
    "prepare": (
        "asjax.data.prepare",
        "turn audio and labels into checked records",
        "asjax prepare folder --csv labels.csv --audio clips/ --out data/mine",
    ),
    "report": (
        "asjax.papers.report",
        "the papers' tables and figures from finished runs, their numbers beside yours",
        "asjax report hlp runs/cnn6 runs/cnn6_hlp --out report-hlp",
    ),
    "port": (
        "asjax.weights.convert",
        "turn a published checkpoint (torch, safetensors, Hub) into a model folder",
        "asjax port Cnn6_mAP=0.343.pth --to=models/cnn6",
    ),
    "export": (
        "asjax.weights.export",
        "write a model's weights for its authors' torch code",
        "asjax export runs/quickstart/model --safetensors cnn6.safetensors",
    ),
    "stats": (
        "asjax.papers.lists",
        "the papers' tables on HLP and balancing from AudioSet segment lists",
        "asjax stats balanced_train_segments.csv eval_segments.csv --out stats/",
    ),
    "models": (
        "asjax.weights.zoo",
        "list the models: family, variant, parameters; their published checkpoints",
        "asjax models passt ast --json",
    ),
}


def parser_for(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb; only that verb's module is imported."""
    module, line, example = VERBS[verb]
    parser = argparse.ArgumentParser(
        prog=f"asjax {verb}",
        description=line[0].upper() + line[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    import_module(module).add_arguments(parser)
    return parser


def _overview() -> str:
    rows = "\n".join(f"  {verb:<9}{line}" for verb, (_, line, _) in VERBS.items())
    return (
        "usage: asjax <verb> [options]\n\nAudio tagging and sound event detection in JAX.\n\n"
        f"verbs:\n{rows}\n\nasjax <verb> --help shows the options and an example.\n"
        "example:\n  asjax train --config=configs/quickstart.py --workdir=runs/quickstart\n"
    )


def _parse(verb: str, argv: list[str]) -> argparse.Namespace:
    """Arguments of a verb; `--config.a.b=value` is collected into `args.overrides`."""
    parser = parser_for(verb)
    overrides, rest = {}, []
    for word in argv:
        key, eq, value = word.partition("=")
        if key.startswith("--config."):
            if not eq:
                parser.error(f"{word}: write it as --config.field=value")
            overrides[key.removeprefix("--config.")] = value
        else:
            rest.append(word)
    args = parser.parse_args(rest)
    args.overrides = overrides
    return args


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview(), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"asjax {__version__}")
        return 0
    verb, *rest = argv
    try:
        if verb not in VERBS:
            raise unknown("verb", verb, VERBS)
        args = _parse(verb, rest)
        if args.overrides and not getattr(args, "config", None):
            raise AsjaxError("--config.field=value goes with --config=FILE, as asjax train has it")
        with warnings_as_lines(f"asjax {verb}"):
            return import_module(VERBS[verb][0]).main(args)
    except BrokenPipeError:  # the reader of a table, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (AsjaxError, OSError) as error:
        print(f"asjax {verb}: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"asjax {verb}: interrupted", file=sys.stderr)
        return 130


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free some space and run the same command again"
    return printable(str(error)) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
