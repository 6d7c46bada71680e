"""`asjax plan sed`: the commands of a paper's pipeline in order, for a shell, SLURM or make.

Nothing runs here. A command that has finished is skipped when the script runs again, and a stopped
one continues.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import dataclass
from itertools import groupby

from asjax import __version__, build
from asjax.config import AsjaxError, quoted, unknown
from asjax.papers.sed_runs import FAMILIES, ROWS

EXAMPLE = """example:
  asjax plan sed --data /data --out runs/sed > sed.sh && sh sed.sh
  asjax plan sed --form make --students 3 --rows full,no_kd > Makefile && make -j 4
  asjax plan sed --form slurm --config.mesh=data=8 > submit.sh && SBATCH_GPUS=8 sh submit.sh
"""
FORMS = ("sh", "slurm", "make")
FILES = dict(zip(FAMILIES, ("ATST-F", "BEATs", "fpasst", "M2D", "ASIT"), strict=True))
_WITHOUT = {"full": {}, "no_kd": {}, "no_rnn": {"sequence": "none"}, "no_step2": {"start": "ssl"}}


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
      name: lower-case letters, digits, `_` and `-`. stage: jobs of a stage can run side by side.
      words: the command. done: a file that the finished command has written; "": always run it.
      needs: names of stages that must have finished.
    """

    name: str
    stage: str
    words: tuple[str, ...]
    done: str
    needs: tuple[str, ...] = ()

    def line(self, data: str) -> str:
        """The command for a shell."""
        command = f"ASJAX_DATA={shlex.quote(data)} {shlex.join(self.words)}"
        return f"[ -e {shlex.quote(self.done)} ] || {command}" if self.done else command


def add_arguments(parser) -> None:
    parser.epilog = EXAMPLE
    parser.set_defaults(takes_fields=True)
    parser.add_argument(
        "pipeline", choices=("sed",), help="sed: transformers on AudioSet Strong, steps 2 and 3"
    )
    parser.add_argument(
        "--data", default="data", help="folder with the records and weights (default: %(default)s)"
    )
    parser.add_argument(
        "--out", default="runs/sed", help="folder of all runs (default: %(default)s)"
    )
    parser.add_argument(
        "--models", default=",".join(FAMILIES), help="of the pipeline (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="teachers of each model (default: %(default)s)"
    )
    parser.add_argument(
        "--students",
        type=int,
        default=1,
        help="students of each model and row (default: %(default)s; Table I has 3)",
    )
    parser.add_argument(
        "--rows",
        default="full",
        help=f"rows of Table I, of {', '.join(ROWS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--step2",
        choices=("train", "files"),
        default="train",
        help="train on clip labels, or take the published NAME_weak.pt (default: %(default)s)",
    )
    parser.add_argument("--form", choices=FORMS, default="sh", help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="two steps of tiny models each")
    parser.add_argument_group(
        "config fields", "options such as --config.mesh=data=8 are added to every training"
    )


def main(args) -> int:
    todo = jobs(args)
    print({"sh": shell, "slurm": slurm, "make": makefile}[args.form](todo, args.data), end="")
    stages = {stage: len(list(some)) for stage, some in groupby(todo, lambda job: job.stage)}
    print(", ".join(f"{stage}: {n}" for stage, n in stages.items()), file=sys.stderr)
    return 0


# --------------------------------------------------------------------------------- the jobs


def jobs(args) -> list[Job]:
    """The commands in an order in which each has what it needs.

    Raises:
      AsjaxError: an unknown model or row, a number below 1, or a path that a script cannot hold.
    """
    models = _listed("--models", args.models, FAMILIES)
    rows = _listed("--rows", args.rows, ROWS)
    for name in ("seeds", "students"):
        if not 1 <= getattr(args, name) <= 1000:
            raise AsjaxError(f"--{name} must be 1 to 1000, got {getattr(args, name)}")
    for name in ("data", "out"):
        path = getattr(args, name)
        if not path.strip() or path[0] == "-" or not _printable(path):
            raise AsjaxError(
                f"--{name} must be a folder's name without control characters that does not begin "
                f"with -, got {quoted(path)}"
            )
    for pair in args.overrides.items():
        if not all(map(_printable, pair)):
            raise AsjaxError(f"--config.{quoted(pair[0])} must not hold control characters")
    for model in models if args.overrides else ():  # a wrong field would stop the script late
        for stage in ("weak", "teacher", "student,teacher=none"):
            build.load(f"sed_pipeline:model={model},stage={stage},tiny={args.tiny}", args.overrides)
    own_step2 = args.step2 == "train" and set(rows) != {"no_step2"}
    out = [] if args.tiny else [_step1(args, models, rows)]
    first = tuple(job.name for job in out)
    if own_step2:
        out += [_train(args, "step2", "weak", model, needs=first) for model in models]
    for row in rows:
        own = own_step2 and row != "no_step2"
        out += _row(args, row, models, ("step2",) if own else first)
    reported = tuple(_stages(row)[-1] for row in rows)
    if "full" in rows:  # the table has no row for other teachers
        reported = ("teachers-full", *reported)
    seen = [job.done.removesuffix("/model/card.json") for job in out if job.stage in reported]
    words = ("asjax", "report", "sed", *seen, "--out", f"{args.out}/report")
    return [*out, Job("report", "report", words, "", reported)]


def _step1(args, models, rows) -> Job:
    """A look at the files of other authors that the pipeline starts from; `ls` names a missing."""
    kinds = {"ssl"} if args.step2 == "train" or "no_step2" in rows else set()
    kinds |= {"weak"} if args.step2 == "files" and set(rows) != {"no_step2"} else set()
    files = [f"{args.data}/weights/{FILES[m]}_{kind}.pt" for m in models for kind in sorted(kinds)]
    return Job("step1", "step1", ("ls", "-d", "--", *files), "")


def _stages(row) -> tuple[str, ...]:
    """Names of the stages of a row: teachers, logits, students."""
    if row == "no_kd":
        return ("students-no_kd",)
    return tuple(f"{stage}-{row}" for stage in ("teachers", "logits", "students"))


def _row(args, row, models, needs) -> list[Job]:
    """Teachers, their logits and students of one row of Table I."""
    how = _WITHOUT[row]
    *taught, last = _stages(row)
    out, start = [], {key: how[key] for key in how if key == "start"}
    if taught:
        out = [
            _train(args, taught[0], "teacher", model, seed, needs, **how)
            for model in models
            for seed in range(args.seeds)
        ]
        logits = f"{args.out}/{taught[1]}"
        folders = [job.done.removesuffix("/card.json") for job in out]
        words = ("asjax", "logits", *folders, "--data", _clips(args), "--out", logits, "--frames")
        out.append(Job(taught[1], taught[1], words, f"{logits}/about.json", taught[:1]))
        start["teacher"], needs = logits, (*needs, taught[1])
    else:
        start["teacher"] = "none"
    return out + [
        _train(args, last, "student", model, seed, needs, **start)
        for model in models
        for seed in range(args.students)
    ]


def _clips(args) -> str:
    """The training clips as a spec."""
    if args.tiny:
        return 'soundscapes(splits=["fold1"], clips=8, clip_s=2.0)'
    return f'records(path={_quoted(args.data + "/audioset_strong")}, splits=["train"])'


def _train(args, stage, kind, model, seed=0, needs=(), **how) -> Job:
    """The training of one model. `how`: arguments of the recipe."""
    fields = {"stage": kind, "model": model, "seed": seed, **how}
    fields |= {"tiny": True} if args.tiny else {}
    recipe = ",".join(f"{key}={_value(value)}" for key, value in fields.items())
    workdir = f"{args.out}/{stage}/{model}-{seed}"
    words = ["asjax", "train", f"--config=sed_pipeline:{recipe}", f"--workdir={workdir}"]
    if "step2" in needs:
        words.append(f"--config.init_from={args.out}/step2/{model}-0")
    words += [f"--config.{key}={value}" for key, value in args.overrides.items()]
    done = f"{workdir}/model/card.json"
    return Job(f"{stage}-{model}-{seed}", stage, tuple(words), done, needs)


def _printable(text: str) -> bool:
    """Whether a script can hold a text in one line, in UTF-8."""
    return not any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in text)


def _value(value) -> str:
    """A value of a recipe's argument; a text is quoted if it is no plain name or path."""
    plain = not isinstance(value, str) or re.fullmatch(r"[a-zA-Z._/][\w./-]*", value)
    return str(value) if plain else _quoted(value)


def _quoted(text: str) -> str:
    """A Python literal in double quotes, which a shell's single quotes can hold as it is."""
    return json.dumps(text, ensure_ascii=False)


def _listed(option: str, text: str, known) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise unknown(option, name, known)
    if len(set(names)) < len(names):
        raise AsjaxError(f"{option} names one twice: {text}")
    return names


# ------------------------------------------------------------------------------- the forms


def _head(comment: str) -> str:
    return f"# Made by asjax {__version__}, asjax plan. {comment}\n"


def shell(todo, data) -> str:
    """A shell script that runs one command after the other."""
    parts = ["#!/bin/sh\n", _head("Run it again after a stop: it continues."), "set -eu\n"]
    for stage, some in groupby(todo, lambda job: job.stage):
        parts.append(f"\n# {stage}\n")
        parts += [f"{job.line(data)}\n" for job in some]
    return "".join(parts)


def slurm(todo, data) -> str:
    """A shell script that submits one array per stage; each waits for those that it needs."""
    parts = [
        "#!/bin/sh\n",
        _head("Options of sbatch: variables such as SBATCH_PARTITION and SBATCH_TIMELIMIT."),
        "set -eu\nids=$(mktemp -d)\ntrap 'rm -r \"$ids\"' EXIT\n",
    ]
    for stage, some in groupby(todo, lambda job: job.stage):
        some = list(some)
        after = "".join(f":${_variable(need)}" for need in some[0].needs)
        wait = f' --dependency="afterok{after}" --kill-on-invalid-dep=yes' if after else ""
        parts.append(
            f"\nsbatch --parsable --job-name={stage} --array=0-{len(some) - 1}{wait} "
            f"> \"$ids/{stage}\" <<'ASJAX_JOBS'\n#!/bin/sh\nset -eu\n"
            "case $SLURM_ARRAY_TASK_ID in\n"
        )
        parts += [f"{i}) {job.line(data)} ;;\n" for i, job in enumerate(some)]
        # sbatch may add the name of the cluster after a semicolon.
        parts.append(f'esac\nASJAX_JOBS\n{_variable(stage)}=$(cut -d ";" -f 1 "$ids/{stage}")\n')
        parts.append(f'echo "{stage}: job ${_variable(stage)}"\n')
    return "".join(parts)


def makefile(todo, data) -> str:
    """A Makefile with one target per command and one per stage."""
    stages = {}
    for job in todo:
        stages.setdefault(job.stage, []).append(job)
    last = todo[-1].name
    parts = [_head("make -j N runs N commands at a time."), f"all: {last}\n"]
    names = [job.name for job in todo]
    phony = dict.fromkeys(["all", *names, *stages])
    parts.append(f".PHONY: {' '.join(phony)}\n")
    for stage, some in stages.items():
        targets = [job.name for job in some]
        parts.append(f"\n{stage}: {' '.join(targets)}\n" if targets != [stage] else "\n")
        for job in some:
            line = job.line(data).replace("$", "$$")
            parts.append(f"{job.name}: {' '.join(job.needs)}".rstrip() + f"\n\t{line}\n")
    return "".join(parts)


def _variable(stage: str) -> str:
    return "job_" + stage.replace("-", "_")
