"""`asjax <verb>`: one small parser. Each verb's module has its own arguments and `main`.

Exit codes: 2 for an error that the user can act on, explained in one line. 70 for an error inside
asjax: one line names the file with the traceback (ASJAX_DEBUG=1 prints the traceback instead). 130
for Ctrl-C. Other codes come from the verb. If several processes train together, an error of one
ends all of them (asjax.hosts.watchdog).
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
from importlib import import_module

from asjax import __version__
from asjax.config import AsjaxError, printable, unknown, warnings_as_lines

EXIT_UNEXPECTED = 70  # sysexits.h: an error inside the program

# options of all verbs that name an output
_OUTPUTS = (
    *("workdir", "out", "to", "safetensors", "onnx", "stablehlo"),
    *("frames", "picture", "audacity", "raven"),
)

# verb -> (module, one line, example)
VERBS = {
    "train": (
        "asjax.train",
        "train a tagger from a config; the same command resumes a stopped run",
        "asjax train --config=configs/quickstart.py:beta=0.5 --workdir=runs/quickstart",
    ),
    "finetune": (
        "asjax.finetune",
        "go on from a trained model with your own clips and labels",
        "asjax finetune --from models/cnn14 --data clips.csv --to runs/birds --epochs 20",
    ),
    "sweep": (
        "asjax.sweep",
        "a recipe over learning rates, folds and seeds; the rate is chosen on evaluation data",
        "asjax sweep --config=configs/sed_maestro.py --lr 1e-4,3e-4 --out runs/maestro",
    ),
    "fit": (
        "asjax.fit.verb",
        "will a recipe fit into the memory of a device? compiled for it, never run",
        "asjax fit --config=configs/hlp_passt.py --topology v5e:2x4 --config.batch_size=16",
    ),
    "probe": (
        "asjax.evaluation.probe",
        "a linear model on embeddings or log-mel statistics: a baseline in seconds",
        "asjax probe --data clips.csv --model models/cnn14 --out runs/probe",
    ),
    "configs": (
        "asjax.recipes",
        "list, show and copy the recipes that come with asjax",
        "asjax configs copy quickstart --to mine.py",
    ),
    "eval": (
        "asjax.evaluation.verb",
        "score a model on a data set: mAP, AUC, d' with confidence intervals, report.html",
        "asjax eval --model=runs/quickstart/model --data \"esc10(splits=['fold5'])\"",
    ),
    "soup": (
        "asjax.evaluation.soup",
        "average the weights of models of one config, such as seeds, into one model",
        "asjax soup runs/seed0 runs/seed1 runs/seed2 --out models/soup",
    ),
    "compare": (
        "asjax.evaluation.compare",
        "compare two evaluations of the same clips: differences with intervals, by class",
        "asjax compare runs/a runs/b --out compare-ab",
    ),
    "tag": (
        "asjax.tag.tag",
        "name the sounds in audio files",
        "asjax tag dog.wav recordings/ --model=runs/quickstart/model --top 5",
    ),
    "embed": (
        "asjax.tag.embed",
        "store the embeddings of audio files; the same command resumes a stopped run",
        "asjax embed recordings/ --model=runs/quickstart/model --to embeddings.npz",
    ),
    "serve": (
        "asjax.serve.serve",
        "a model as a local service over HTTP, with a page for the browser",
        "asjax serve runs/quickstart/model --port 8000",
    ),
    "demo": (
        "asjax.serve.demo",
        "a static page that runs a model in the browser: files, microphone, events",
        "asjax demo runs/quickstart/model --to site/ --ort node_modules/onnxruntime-web/dist",
    ),
    "listen": (
        "asjax.stream.listen",
        "tags or events of a pipe or a microphone as JSON lines, while the sound comes",
        "arecord -f S16_LE -r 16000 -c 1 | asjax listen --model=runs/live",
    ),
    "logits": (
        "asjax.teachers.verb",
        "store the logits of a model or an ensemble on data, to teach other models",
        "asjax logits runs/a runs/b --data train.csv --out teacher",
    ),
    "prepare": (
        "asjax.data.prepare",
        "turn audio and labels into checked records",
        "asjax prepare folder --csv labels.csv --audio clips/ --out data/mine",
    ),
    "report": (
        "asjax.papers.report",
        "a paper's tables and figures from finished runs, beside the published numbers",
        "asjax report hlp runs/cnn6 runs/cnn6_hlp --out report-hlp",
    ),
    "plan": (
        "asjax.papers.plan",
        "print the commands of a paper's pipeline in order, for a shell, SLURM or make",
        "asjax plan sed --data /data --out runs/sed > sed.sh && sh sed.sh",
    ),
    "port": (
        "asjax.weights.convert",
        "convert a published checkpoint (torch, safetensors, Hub) to a model folder",
        "asjax port Cnn6_mAP=0.343.pth --to=models/cnn6",
    ),
    "export": (
        "asjax.export.verb",
        "write a model for other programs: ONNX, StableHLO, or its authors' torch code",
        "asjax export runs/quickstart/model --onnx tagger.onnx",
    ),
    "push": (
        "asjax.weights.hub_push",
        "put a model folder with its model card on the Hugging Face Hub",
        "asjax push runs/quickstart org/my-tagger --license apache-2.0 --dry-run",
    ),
    "stats": (
        "asjax.papers.lists",
        "the papers' tables on HLP and balancing, made from AudioSet segment lists",
        "asjax stats balanced_train_segments.csv eval_segments.csv --out stats/",
    ),
    "models": (
        "asjax.weights.zoo",
        "list the models (family, variant, parameters) and their published checkpoints",
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


class _Once(argparse._StoreAction):
    """An option with one value. AsjaxError: it is given twice."""

    given = False

    def __call__(self, parser, namespace, values, option_string=None):
        if self.given:
            raise AsjaxError(f"{self.option_strings[-1]} is given twice")
        self.given = True
        super().__call__(parser, namespace, values, option_string)


def _take_once(parser: argparse.ArgumentParser) -> None:
    """Let a parser and its subparsers refuse a second value, which would replace the first."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in set(action.choices.values()):
                _take_once(sub)
        elif type(action) is argparse._StoreAction and action.option_strings:
            action.__class__ = _Once


def _parse(verb: str, argv: list[str]) -> argparse.Namespace:
    """Arguments of a verb; `--config.a.b=value` is collected into `args.overrides`.

    The last value of a config field counts, so that a script can add fields to a command.
    """
    parser = parser_for(verb)
    _take_once(parser)
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
    _refuse_addresses(args)
    return args


def _refuse_addresses(args: argparse.Namespace) -> None:
    """AsjaxError: an output is an address such as gs://bucket/run."""
    for name in _OUTPUTS:
        value = getattr(args, name, None)
        if isinstance(value, str | os.PathLike) and ":/" in os.fspath(value):
            from asjax.store import files

            files.refuse_url(value, f"--{name}")


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
        fields = getattr(args, "config", None) or getattr(args, "takes_fields", False)
        if args.overrides and not fields:
            raise AsjaxError("--config.field=value needs --config=FILE, which asjax train takes")
        with warnings_as_lines(f"asjax {verb}"):
            return import_module(VERBS[verb][0]).main(args)
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (AsjaxError, OSError) as error:
        if error.__cause__ and os.environ.get("ASJAX_DEBUG", "0") not in ("", "0"):
            import traceback

            traceback.print_exception(error.__cause__)
        print(f"asjax {verb}: error: {_one_line(error)}", file=sys.stderr)
        code = error.code if isinstance(error, AsjaxError) else 2
        return _with_others(code, _one_line(error), error)
    except KeyboardInterrupt as error:
        print(f"asjax {verb}: interrupted", file=sys.stderr)
        return _with_others(130, "interrupted", error)
    except Exception as error:
        if watchdog := sys.modules.get("asjax.hosts.watchdog"):
            watchdog.leave_for_another(error)
        if os.environ.get("ASJAX_DEBUG", "0") not in ("", "0"):
            _with_others(EXIT_UNEXPECTED, repr(error), error)
            raise
        line = _unexpected(error, argv)
        print(f"asjax {verb}: error: {line}", file=sys.stderr)
        return _with_others(EXIT_UNEXPECTED, line, error)


def run(command: str | list) -> None:
    """A command in this process, such as `asjax.run("train --config=quickstart --workdir=runs/q")`.

    For notebooks, where a failed `!asjax ...` would not stop the cells after it.

    Args:
      command: as in a shell, with or without `asjax` in front; or the list of its words, where
        nothing needs quoting.

    Raises:
      AsjaxError: the exit code is not 0. Its reason stands above, where the verb has printed it.
    """
    try:
        words = shlex.split(command) if isinstance(command, str) else list(map(str, command))
        if words[:1] == ["asjax"]:
            del words[0]
        code = main(words)
    except (SystemExit, ValueError) as error:  # of argparse, of shlex
        code = error.code if isinstance(error, SystemExit) else error
    if code:
        why = f"exit code {code}" if isinstance(code, int) else str(code)
        text = command if isinstance(command, str) else shlex.join(words)
        raise AsjaxError(f"asjax {text.removeprefix('asjax ')}: {why}")


def _with_others(code: int, line: str, error: BaseException) -> int:
    """The exit code of this process. If others train with it, all of them end now."""
    watchdog = sys.modules.get("asjax.hosts.watchdog")
    return code if watchdog is None else watchdog.leave(code, line, error)


def _unexpected(error: Exception, argv: list[str]) -> str:
    """One line about an unexpected error. It names the file with the traceback."""
    import tempfile
    import traceback

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "".join(c if c.isprintable() else "?" for c in lines[0][:200]) if lines else ""
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, MemoryError):
        what = "the memory is used up; give smaller files or a smaller --batch-size"
    try:
        handle, name = tempfile.mkstemp(prefix="asjax-", suffix=".traceback.txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"asjax {__version__}, Python {sys.version}\n{argv}\n\n")
            traceback.print_exception(error, file=file)
    except (OSError, MemoryError) as failed:
        return f"{what} (its traceback could not be saved: {failed}; ASJAX_DEBUG=1 shows it)"
    return f"{what}; this should not happen, the traceback is in {name}"


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free some space and run the same command again"
    return printable(str(error)) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
