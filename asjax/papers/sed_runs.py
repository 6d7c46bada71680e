"""Runs in the terms of "Effective pre-training of audio transformers for sound event detection".

Which cell of Table I or II a run belongs to, and its score.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from asjax import config
from asjax.config import AsjaxError
from asjax.papers import runs as papers
from asjax.store import formats, schema

FAMILIES = {  # family of the model -> the paper's name
    "atst_frame": "ATST-F",
    "beats": "BEATs",
    "fpasst": "fPaSST",
    "m2d": "M2D",
    "asit": "ASiT",
}
ROWS = {  # of Table I; the first is the one that the others are compared with
    "full": "full pipeline",
    "no_kd": "without distillation",
    "no_rnn": "teachers without RNN",
    "no_step2": "without step 2",
}
TEACHER = "teacher"  # a run with an RNN and without teachers
STARTS = {"strong": "step 3", "weak": "step 2", "ssl": "step 1", "none": "random weights"}
MODES = {"finetune": "fine-tuned", "frozen": "frozen"}
TASKS = {  # of Table II: key -> pattern of the classes or data, title, score, number of events.json
    "desed": (r"desed.*", "DESED", "PSDS1 with penalty", "psds1_penalised"),
    "dcase16": (r"dcase(20)?16.*", "DCASE 2016 task 2", "onset F at 50 ms", "onset_f1_50ms"),
    "maestro": (r"maestro.*", "MAESTRO", "onset F at 50 ms", "onset_f1_50ms"),
}
_FILE = re.compile(r".*_(ssl|weak|strong)(_\d+)?\.\w+")  # NAME_weak.pt of PretrainedSED
_PAIR = schema.list_of(schema.optional(schema.number(-1e9, 1e9)), 2)
_COUNT = schema.integer(0, 2**53)
_NUMBERS = schema.mapping(
    {}, {"ci": schema.mapping({}, {}, _PAIR), "n_clips": _COUNT, "n_classes": _COUNT}, schema.loose
)
_SET = schema.mapping({}, {"name": schema.text()}, schema.loose)
_EVENTS = schema.mapping({"events": _NUMBERS}, {"label_set": _SET}, schema.loose)
_MODELS = {"models": schema.list_of(schema.mapping({"path": schema.text()}, {}, schema.loose))}
_MERGED = schema.list_of(schema.mapping({}, _MODELS, schema.loose))
_EXTRA = schema.optional(schema.mapping({}, {**_MODELS, "merged": _MERGED}, schema.loose))
_ABOUT = schema.mapping({}, {"extra": _EXTRA}, schema.loose)  # about.json of stored logits
CHOICES = {"row": (*ROWS, TEACHER), "start": STARTS, "task": (*TASKS, "none"), "mode": MODES}


@dataclass(frozen=True)
class Placed:
    """A run in its cell.

    Attributes:
      table: "I", "teachers" or "II". column: the model, or (task, mode) in Table II.
      row: of ROWS, or (model, start) in Table II.
      value: the score, a fraction. ends: its interval over clips, or None.
      seed: of the run, or None. data: (name, hash, clips) of the evaluation. classes: with events.
      fold: of MAESTRO, what the run was tested on; else "".
    """

    run: papers.Run
    table: str
    row: object
    column: object
    value: float
    ends: tuple[float, float] | None
    seed: int | None
    data: tuple
    fold: str
    classes: int | None
    label_set: str


def placed(run) -> Placed:
    """The cell and the score of a run.

    Raises:
      AsjaxError: no events in time were evaluated, a value after the colon that no table has, or a
        training that is no cell of the tables.
    """
    for key, known in CHOICES.items():
        if key in run.said and run.said[key] not in known:
            raise AsjaxError(
                f"run {run.name}: {key} must be one of {', '.join(known)}, got {run.said[key]!r}"
            )
    folder, summary = _events(run)
    events, record = summary["events"], papers.read_record(folder)
    label_set = summary.get("label_set", {}).get("name", "")
    data = record.get("test_data") or record.get("eval_data") or {}
    task = run.said.get("task") or _task(label_set) or _task(data.get("name", ""))
    model = FAMILIES.get(_family(run), run.model)
    if task in TASKS:
        if "row" in run.said:
            raise AsjaxError(
                f"run {run.name} is in Table II ({TASKS[task][1]}), where row={run.said['row']} "
                "has no effect; leave it out, or write task=none for Table I"
            )
        table, key = "II", TASKS[task][3]
        row, column = (model, _start(run)), (task, run.said.get("mode") or _mode(run))
    else:
        unused = [k for k in ("start", "mode") if k in run.said]
        if unused and ("row" in run.said or unused != ["start"]):
            why = "row names the row" if "row" in run.said else "Table I has no modes"
            raise AsjaxError(
                f"run {run.name} is in Table I, where {unused[-1]}={run.said[unused[-1]]} has no "
                f"effect: {why}; leave it out"
            )
        row, column, key = run.said.get("row") or _row(run), model, "psds1"
        table = "teachers" if row == TEACHER else "I"
    seed = record.get("seed", run.cfg.get("seed"))
    ends = events.get("ci", {}).get(key, [])
    return Placed(
        run=run,
        table=table,
        row=row,
        column=column,
        value=_score(run, folder, events, key),
        ends=tuple(ends) if len(ends) == 2 and None not in ends else None,
        seed=seed if isinstance(seed, int) else None,
        data=(data.get("name"), data.get("hash"), events.get("n_clips")),
        fold=_fold(run) if task == "maestro" else "",
        classes=events.get("n_classes"),
        label_set=label_set,
    )


def _events(run) -> tuple[Path, dict]:
    """The folder and the content of the run's events.json."""
    folders = [folder for folder in run.folders if (folder / "events.json").is_file()]
    own = [folder for folder in folders if folder in (run.path, run.path / "eval")]
    if not folders:
        raise AsjaxError(
            f"run {run.name} has no eval/events.json, so it is no detector; this report needs runs "
            "that find events in time"
        )
    if len(own or folders) > 1:
        raise AsjaxError(
            f"run {run.name} was evaluated more than once: {', '.join(map(str, own or folders))}; "
            "give one of the folders as the RUN"
        )
    folder = (own or folders)[0]
    summary = schema.read_json(folder / "events.json")
    schema.require(summary, _EVENTS, folder / "events.json")
    return folder, summary


def _score(run, folder, events, key) -> float:
    value = events.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise AsjaxError(
            f"run {run.name}: {folder / 'events.json'} has no number {key}; evaluate it again on "
            "clips with events"
        )
    return float(value)


# --------------------------------------------------------------------------------- recognising


def _part(run, key) -> tuple[str, dict]:
    spec = run.cfg.get(key)
    return config.split_spec(spec) if spec else ("", {})


def _family(run) -> str:
    """The family of the run's model, also if the user gives the paper's or our name."""
    names = {**{v.casefold(): k for k, v in FAMILIES.items()}, **{k: k for k in FAMILIES}}
    names |= {f"{k}_base": k for k in FAMILIES}
    return names.get(run.model.casefold(), _part(run, "model")[0])


def _task(name: str) -> str | None:
    """The task of a label set's or a data set's name."""
    name = name.casefold()
    return next((k for k, (form, *_) in TASKS.items() if re.fullmatch(form, name)), None)


def _fold(run) -> str:
    """The splits that test the run, for a task with folds."""
    data = run.cfg.get("data") or {}
    spec = data.get("test") or data.get("eval")
    return str(config.split_spec(spec)[1].get("splits", "")) if spec else ""


def _mode(run) -> str:
    _needs_config(run, "mode=frozen or mode=finetune")
    return "finetune" if _part(run, "optim")[1].get("freeze", "none") == "none" else "frozen"


def _row(run) -> str:
    """The row of Table I from the config: teachers, RNN and start."""
    _needs_config(run, f"row={'|'.join(CHOICES['row'])}")
    rnn, stored = _has_rnn(run.cfg), _teacher(run)
    start, about = _start(run), "taught by nobody"
    if stored is None and start == "weak":
        return TEACHER if rnn else "no_kd"
    if stored is not None and not rnn:
        facts = {(_has_rnn(cfg), _start_of(cfg, run)) for cfg in _teachers(run, stored)}
        kinds = {(with_rnn, theirs == "weak", start) for with_rnn, theirs in facts}
        rows = {(True, True, "weak"): "full", (False, True, "weak"): "no_rnn"}
        rows |= {(True, False, first): "no_step2" for first in ("ssl", "none")}
        if len(kinds) == 1 and kinds <= rows.keys():
            return rows[kinds.pop()]
        told = sorted(f"{'RNN' if a else 'no RNN'}, from {STARTS[b]}" for a, b in facts)
        about = f"taught by models with {' and with '.join(told)}"
    rnn = "an RNN" if rnn else "no RNN"
    raise AsjaxError(
        f"run {run.name} is in no row of Table I: it has {rnn}, starts from {STARTS[start]} and is "
        f"{about if stored is None or rnn == 'no RNN' else 'taught by others'}; write "
        f"{run.name}:row=full or another row, or leave it out"
    )


def _needs_config(run, example: str) -> None:
    if not run.cfg:
        raise AsjaxError(
            f"run {run.name} has no config, so its cell is unknown; write {run.name}:{example}"
        )


def _has_rnn(cfg) -> bool:
    spec = cfg.get("model")
    return bool(spec) and config.split_spec(spec)[1].get("sequence") is not None


def _teacher(run) -> str | list | None:
    """Folder of the teachers' logits; folders of models that taught in the step; None: neither."""
    name, fields = _part(run, "objective")
    if name == "distillation" and fields.get("teacher"):
        given = fields["teacher"]
        return [given] if isinstance(given, str) else list(given)
    for name, fields in config.chain((run.cfg.get("data") or {}).get("ops")):
        if name == "teacher":
            return str(fields.get("path", ""))
    return None


def _teachers(run, taught) -> list[dict]:
    """The configs of the teachers. `taught`: of `_teacher`."""
    ask = f"write {run.name}:row=full, row=no_rnn or row=no_step2"
    found = []
    for path in taught if isinstance(taught, list) else _models(run, Path(taught), ask):
        cfg = _config_of(Path(path))
        if cfg is None:
            raise AsjaxError(f"run {run.name}: its teacher {path} is not there; {ask}")
        found.append(cfg)
    return found


def _models(run, stored: Path, ask: str) -> list[str]:
    """The folders of the models whose logits are stored."""
    about = stored / "about.json"
    if not about.is_file():
        raise AsjaxError(
            f"run {run.name} was taught by the logits in {stored}, which are not there; {ask}"
        )
    content = schema.read_json(about)
    schema.require(content, _ABOUT, about)
    extra = content.get("extra") or {}
    models = [m for one in (extra, *extra.get("merged", ())) for m in one.get("models", ())]
    if not models:
        raise AsjaxError(f"run {run.name}: {about} does not name the teachers; {ask}")
    return [model["path"] for model in models]


def _config_of(path: Path) -> dict | None:
    """The config of a run or model folder, or None."""
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            cfg = schema.read_json(folder / "config.json")
            schema.require(cfg, formats.RUN_CONFIG, folder / "config.json")
            return cfg
    return None


def _start(run) -> str:
    """Of STARTS: what the run started from."""
    if "start" in run.said:
        return run.said["start"]
    _needs_config(run, f"start={'|'.join(STARTS)}")
    return _start_of(run.cfg, run)


def _start_of(cfg, run) -> str:
    text = str(cfg.get("init_from") or "")
    if not text:
        return "none"
    if named := _FILE.fullmatch(text):
        return named[1]
    theirs = None if ":" in text else _config_of(Path(text))
    if theirs is None:
        raise AsjaxError(
            f"run {run.name}: the start {text} of it or of its teachers is not there, so its step "
            f"is unknown; write {run.name}:row=full or another row (Table II: start=weak)"
        )
    objective = config.split_spec(theirs["objective"])[0] if theirs.get("objective") else "tagging"
    detects = objective == "detection" or "strong" in str((theirs.get("data") or {}).get("ops"))
    return "strong" if detects else "weak"
