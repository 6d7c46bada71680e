"""`asjax sweep`: a recipe over learning rates, folds and seeds, and a table of the results.

For each fold, every learning rate is trained once, with the first seed. The rate with the best
metric on the evaluation data is chosen; the test data have no part in this. The other seeds are
trained with the chosen rate only.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asjax import build, config, pages, recipes, train
from asjax.config import AsjaxError, shown
from asjax.evaluation import detection
from asjax.store import formats, schema
from asjax.store.files import write_atomic
from asjax.store.log import Diverged

_FIELDS = {"lr": "optim.lr", "seed": "seed"}  # argument of a recipe -> field that it sets
DIVERGED = "diverged.txt"  # in the workdir of a run whose loss was not finite
_NUMBERS = ("mean_ap", "mean_auc", "accuracy")
_EXAMPLE = """example:
  asjax sweep --config=configs/sed_maestro.py:model=beats --lr 3e-5,1e-4,3e-4 \\
      --folds 0,1,2,3,4 --out runs/maestro
  asjax sweep --config=configs/sed_desed.py:mode=frozen --lr 0.1,0.01 --out runs/desed --print

A finished training is never run again, so the same command goes on after a stop. With --print on
several machines: run the printed commands, then print again; the choice needs all rates.
"""


@dataclass(frozen=True)
class Run:
    """One training: its recipe with arguments, and its workdir. fold, lr: None if not given.

    `fields`: (config field, value as text), for arguments that the recipe does not have.
    """

    spec: str
    path: Path
    fold: int | None
    lr: float | None
    seed: int
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def finished(self) -> bool:
        return self.card.is_file() or (self.path / DIVERGED).is_file()

    @property
    def card(self) -> Path:
        return self.path / "model" / "card.json"

    def value(self) -> float:
        """The metric of the evaluation data that chose the step; -inf if the training diverged."""
        if not self.card.is_file():
            return -math.inf
        chosen = _card(self).get("chosen")
        value = chosen.get("value") if isinstance(chosen, dict) else None
        return float(value) if isinstance(value, (int, float)) else -math.inf


def add_arguments(parser):
    parser.epilog = _EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--config", required=True, help="a recipe with its arguments, as for asjax train")
    add("--out", required=True, metavar="DIR", help="folder of all runs and of the results")
    add(
        "--lr",
        default="",
        metavar="X,Y",
        help="values of the recipe's argument lr, or of optim.lr if it has none (default: its own)",
    )
    add("--folds", default="", metavar="0,1", help="values of the recipe's argument fold")
    add("--seeds", default="0,1,2,3", metavar="0,1", help="(default: %(default)s)")
    add("--print", action="store_true", help="print the commands that are to be run now")
    add("--cpu-devices", type=int, help="devices on CPU (default: one per core)")
    parser.add_argument_group(
        "config fields", "options such as --config.mesh=data=8 are added to every training"
    )


def main(args) -> int:
    plan = Plan(args)
    plan.check()
    for name, field in plan.fields.items():
        print(f"sweep: the recipe has no argument {name}; --config.{field} is set", file=sys.stderr)
    if not args.print:
        from asjax import devices

        devices.setup(cpu_devices=args.cpu_devices)
    while todo := plan.due():
        if args.print:
            print("\n".join(plan.command(run) for run in todo))
            return 0
        left = sum(not run.finished for run in plan.all_runs())
        print(f"sweep: {todo[0].path} ({config.counted(left, 'training')} left)", flush=True)
        if code := plan.train(todo[0]):
            return code
    print(plan.summary())
    return 0


# ------------------------------------------------------------------------------------- the plan


class Plan:
    """The trainings of a sweep; which of them are due follows from the finished ones on disk."""

    def __init__(self, args):
        self.out, self.recipe, self.overrides = Path(args.out), args.config, args.overrides
        self.lrs = _listed("--lr", args.lr, float) or [None]
        self.folds = _listed("--folds", args.folds, int) or [None]
        self.seeds = _listed("--seeds", args.seeds, int)
        if self.recipe.partition(":")[0].endswith(".json"):
            raise AsjaxError("--config must be a recipe that takes lr, fold and seed, not a .json")
        if not self.seeds:
            raise AsjaxError("--seeds must name at least one seed")
        for name, given in (("lr", self.lrs != [None]), ("seed", True)):
            if given and (field := _FIELDS[name]) in self.overrides:
                option = "--lr" if name == "lr" else "--seeds"
                raise AsjaxError(f"--config.{field} and {option} set the same field; leave one out")
        self.fields = self._fields()

    def _fields(self) -> dict[str, str]:
        """Argument -> config field, for arguments that the recipe does not have."""
        self.fields = {}
        while True:
            spec = self.run(self.folds[0], self.lrs[0], self.seeds[0]).spec
            try:
                config.read(recipes.resolve(spec)[0])
                return self.fields
            except config.NoArgument as error:
                if error.name not in _FIELDS or error.name in self.fields:
                    raise
                self.fields[error.name] = _FIELDS[error.name]

    def run(self, fold, lr, seed) -> Run:
        values = {"fold": fold, "lr": lr, "seed": seed}
        values = {key: repr(value) for key, value in values.items() if value is not None}
        recipe, _, arg = self.recipe.partition(":")
        given = [f"{key}={text}" for key, text in values.items() if key not in self.fields]
        spec = f"{recipe}:{','.join([*filter(None, [arg]), *given])}"
        name = "-".join(f"{key}{text}" for key, text in values.items())
        fields = tuple((field, values[key]) for key, field in self.fields.items() if key in values)
        return Run(spec, self.out / name, fold, lr, seed, fields)

    def rates(self, fold) -> list[Run]:
        """One training for each rate, with the first seed."""
        return [self.run(fold, lr, self.seeds[0]) for lr in self.lrs]

    def chosen(self, fold) -> list[Run] | None:
        """The trainings of a fold that count, or None while the rate is not known.

        Raises:
          AsjaxError: every rate has diverged.
        """
        rates = self.rates(fold)
        if not all(run.finished for run in rates):
            return None
        values = [run.value() for run in rates]
        best = int(np.argmax(values))
        if not rates[best].card.is_file():
            where = "" if fold is None else f" of fold {fold}"
            raise AsjaxError(f"every learning rate{where} has diverged; give smaller ones (--lr)")
        return [self.run(fold, self.lrs[best], seed) for seed in self.seeds]

    def due(self) -> list[Run]:
        """The unfinished trainings that can be run now."""
        runs = [run for fold in self.folds for run in self.chosen(fold) or self.rates(fold)]
        return [run for run in runs if not run.finished]

    def all_runs(self) -> list[Run]:
        """All trainings, those with a rate that is not yet known with the first one."""
        some = []
        for fold in self.folds:
            counted = self.chosen(fold) or [self.run(fold, self.lrs[0], s) for s in self.seeds]
            some += [*self.rates(fold), *counted[1:]]
        return some

    def config(self, run: Run):
        return build.load(run.spec, {**self.overrides, **dict(run.fields)})

    def check(self) -> None:
        """AsjaxError: the recipe lacks an argument, or a finished run has another config."""
        for fold in self.folds:
            for run in self.rates(fold):
                cfg = self.config(run)
                if run.finished:
                    _check_same(run, cfg)

    def command(self, run: Run) -> str:
        fields = {**self.overrides, **dict(run.fields)}
        more = [f"--config.{key}={value}" for key, value in fields.items()]
        words = ["asjax", "train", f"--config={run.spec}", f"--workdir={run.path}", *more]
        return shlex.join(words)

    def train(self, run: Run) -> int:
        how = dict(allow_config_change=False, allow_data_change=False, multilabel=False)
        try:
            return train.run(self.config(run), argparse.Namespace(workdir=str(run.path), **how))
        except Diverged as error:
            if self.chosen(run.fold) is not None:  # not one of several rates
                raise
            print(f"sweep: {run.path} has diverged: {error}")
            write_atomic(run.path / DIVERGED, f"{error}\n")
            return 0

    # ------------------------------------------------------------------------------ the results

    def summary(self) -> str:
        """Write runs.csv, chosen.txt and summary.json; returns the table for people."""
        counted = [run for fold in self.folds for run in self.chosen(fold)]
        every = {run for fold in self.folds for run in self.rates(fold)} | {*counted}
        every = sorted(every, key=lambda run: (run.fold or 0, run.lr or 0.0, run.seed))
        numbers = {run: _numbers(_card(run)) for run in every if run.card.is_file()}
        keys = list(dict.fromkeys(key for run in counted for key in numbers[run]))
        titles = dict(detection.ROWS)
        rows = [
            [run.path.name, run.fold, run.lr, run.seed, run in counted, run.value()]
            + [numbers.get(run, {}).get(key, math.nan) for key in keys]
            for run in every
        ]
        header = ["run", "fold", "lr", "seed", "counted", "chosen_by", *keys]
        pages.write_csv(self.out / "runs.csv", header, rows)
        write_atomic(self.out / "chosen.txt", "".join(f"{run.path}\n" for run in counted))
        table, record = [], {}
        for key in keys:
            by_seed = [
                float(np.mean([numbers[r].get(key, math.nan) for r in counted if r.seed == seed]))
                for seed in self.seeds
            ]
            record[key] = _spread(by_seed)
            shown_ = [pages.number(record[key][k]) for k in ("mean", "deviation")]
            span = f"{min(by_seed):.3f} to {max(by_seed):.3f}"
            table.append([titles.get(key, key), *shown_, span])
        rates = {run.fold: run.lr for run in counted}
        self._write_summary(record, rates)
        how = config.counted(len(self.seeds), "seed")
        if self.folds != [None]:
            how += f", each the mean over {config.counted(len(self.folds), 'fold')}"
        text = pages.table_text(how, ["", "mean", "deviation", "seeds"], table)
        if self.lrs != [None]:
            words = [f"{lr:g}" if f is None else f"fold {f}: {lr:g}" for f, lr in rates.items()]
            text += f"\nlearning rate, chosen on the evaluation data: {', '.join(words)}"
        names = ", ".join(("summary.json", "runs.csv", "chosen.txt"))
        return f"{text}\nwrote {names} to {shown(self.out)}"

    def _write_summary(self, record, rates) -> None:
        summary = {
            "config": self.recipe,
            "overrides": self.overrides,
            "seeds": self.seeds,
            "folds": [fold for fold in self.folds if fold is not None],
            "lr": {str(fold): lr for fold, lr in rates.items()},
            "numbers": record,
        }
        text = json.dumps(config.to_plain(summary), indent=2, allow_nan=False)
        write_atomic(self.out / "summary.json", text + "\n")


def _spread(values) -> dict:
    """Mean and standard deviation (ddof 1) over seeds; None where undefined."""
    finite = lambda x: float(x) if math.isfinite(x) else None  # noqa: E731
    deviation = np.std(values, ddof=1) if len(values) > 1 else math.nan
    return {
        "mean": finite(np.mean(values)),
        "deviation": finite(deviation),
        "values": [finite(v) for v in values],
    }


def _card(run: Run) -> dict:
    card = schema.read_json(run.card)
    schema.require(card, formats.CARD, run.card)
    return card


def _numbers(card: dict) -> dict[str, float]:
    """The main numbers of a card: of events if it has some, and of the tags."""
    events = card.get("events") if isinstance(card.get("events"), dict) else {}
    tags = (card.get("scores") or {}).get("labels") or {}
    pairs = [(key, events.get(key)) for key, _ in detection.ROWS]
    pairs += [(key, tags.get(key)) for key in _NUMBERS]
    return {
        key: float(value)
        for key, value in pairs
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
    }


def _check_same(run: Run, cfg) -> None:
    path = run.path / "config.json"
    if not path.is_file():
        return
    old, new = schema.read_json(path), config.to_plain(cfg)
    if isinstance(old, dict):
        old, new = ({k: v for k, v in c.items() if k != "objective"} for c in (old, new))
        if changed := config.differences(old, new):
            raise AsjaxError(
                f"{shown(run.path)} is finished with another config: {'; '.join(changed[:3])}; "
                "choose another --out, or remove this run"
            )


def _listed(option: str, text: str, kind) -> list:
    """`"0.1,0.01"` -> numbers. AsjaxError: not numbers, negative ones, or one twice."""
    try:
        values = [kind(word) for word in text.split(",") if word.strip()]
    except ValueError:
        values = [math.nan]
    least = 0 if kind is int else 1e-30
    if not all(least <= v < math.inf for v in values) or len({*values}) < len(values):
        what = "whole numbers from 0" if kind is int else "numbers above 0"
        raise AsjaxError(f"{option} must be different {what} such as 0,1, got {text!r}")
    return values
