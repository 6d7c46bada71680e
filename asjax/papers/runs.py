"""Finished runs for the papers' reports: scores and training settings."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asjax import build, config
from asjax.config import AsjaxError
from asjax.store import formats, schema, scores

LEVEL = 0.95
# Fields of a config that do not change the result, or only where the same data are. Which step is
# the result depends on eval.select and eval.metric.
NEUTRAL = (
    r"seed|log\..*|eval\.(?!select|metric).*|mesh|data\.(eval\..*|train\.(path|root|csv)|workers|threads|cache|"
    r"max_bad|decode_timeout_s)"
)
ONE_REPORT = dict.fromkeys(  # settings after the colon: the report atdr, then the report sed
    ("procedure", "stride", "ablation", "row", "start", "task", "mode")
)

# ------------------------------------------------------------------------------- finished runs


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One scores file with its clips sorted by id, so that resamples of two runs are paired."""

    folder: Path
    title: str  # name of the data
    key: str  # hash of clips, targets and classes: equal keys can be compared clip by clip
    scores: np.ndarray  # [N, C]
    targets: np.ndarray  # [N, C]
    label_set: object
    zero_shot: dict | None

    def __repr__(self) -> str:
        return f"{self.title} in {self.folder}, {len(self.scores):,} clips"


@dataclass(frozen=True)
class Run:
    """A finished run and its settings.

    Attributes:
      name: as on the command line. path: the workdir, or the folder of a scores file.
      folders: the folders with scores, `eval` first.
      model: e.g. "cnn6"; hlp, beta, lr: training settings, None if unknown.
      draw: spec of the draw, or None. strict: the rule of HLP.
      cfg: the config, or {}.
      said: the user's settings for one report, of ONE_REPORT.
    """

    name: str
    path: Path
    folders: tuple[Path, ...]
    model: str
    hlp: bool | None
    draw: str | None
    beta: float | None
    lr: float | None
    strict: bool
    cfg: dict = field(repr=False)
    said: dict = field(default_factory=dict, repr=False)

    def load(self, folder: Path) -> Evaluation:
        """Load the scores in one of the run's folders."""
        loaded = scores.load_scores(folder / "scores.npz")
        order = np.argsort(np.array(loaded["ids"]), kind="stable")
        values, targets = loaded["scores"][order], loaded["targets"][order]
        digest = hashlib.sha256(loaded["label_set"].hash.encode())
        digest.update("\n".join(loaded["ids"][i] for i in order).encode())
        digest.update(np.packbits(targets.astype(bool)).tobytes())
        data = read_record(folder).get("eval_data")
        name = data.get("name") if isinstance(data, dict) else None
        return Evaluation(
            folder=folder,
            title=str(name or folder.name),
            key=digest.hexdigest(),
            scores=values,
            targets=targets,
            label_set=loaded["label_set"],
            zero_shot=(loaded["extra"] or {}).get("zero_shot"),
        )


def check_repeats(runs, where: str, remedy: str = "", ignore: str = "") -> None:
    """AsjaxError unless the runs of one place in a table are equal but for the seed.

    Args:
      where: the name of the place. remedy: what to do (default: leave out or rename).
      ignore: a pattern of further fields that may differ.
    A run without a config is not checked.
    """
    known = [run for run in runs if run.cfg]
    for other in known[1:]:
        fields = unlike(known[0], other, ignore)
        if fields:
            raise unequal(known[0].name, other.name, where, fields, remedy)


def unequal(a: str, b: str, where: str, fields: list[str], remedy: str = "") -> AsjaxError:
    """The error for two runs of one place that differ in `fields`."""
    more = f" and {len(fields) - 3} more" if len(fields) > 3 else ""
    return AsjaxError(
        f"runs {a} and {b} both belong to {where}, but they differ in {'; '.join(fields[:3])}"
        f"{more}; only runs that are equal but for the seed are averaged: "
        f"{remedy or f'leave one out, or call it {b}:model=NAME'}"
    )


def unlike(a: Run, b: Run, ignore: str = "") -> list[str]:
    """The differences in training between two runs with configs, seeds and neutral fields aside."""
    neutral = f"{NEUTRAL}|{ignore}" if ignore else NEUTRAL
    defaults = {k: v for k, v in config.flatten(build.FIELDS).items() if v is not build.REQUIRED}
    flat = [
        {k: v for k, v in {**defaults, **config.flatten(run.cfg)}.items()
         if not re.fullmatch(neutral, k)}
        for run in (a, b)
    ]  # fmt: skip
    fields = config.differences(*flat)
    data = [read_record(run.folders[0]).get("train_data") or {} for run in (a, b)]
    hashes = [one.get("hash") for one in data]
    if all(hashes) and hashes[0] != hashes[1]:
        fields.insert(0, f"the training data ({data[0].get('name')}, {data[1].get('name')})")
    return fields


def data_titles(evaluations) -> str:
    """Names and sizes of evaluation sets, `(title, clips, classes)`, for a note."""
    return "; ".join(f"{t}: {n:,} clips, {k} classes" for t, n, k in sorted(set(evaluations)))


def read_runs(texts) -> list[Run]:
    """The runs on the command line.

    Raises:
      AsjaxError: no such folder, an unfinished run, an unknown field, or the same scores twice.
    """
    runs = [read_run(text) for text in texts]
    seen: dict[Path, str] = {}
    for run in runs:
        for folder in map(Path.resolve, run.folders):
            if folder in seen:
                raise AsjaxError(
                    f"run {run.name}: the scores in {folder} also belong to run {seen[folder]}"
                )
            seen[folder] = run.name
    return runs


def read_run(text: str) -> Run:
    """`DIR` or `DIR:field=value,...` -> Run. Fields: model, hlp, beta, lr, and ONE_REPORT's."""
    name, colon, rest = text.rpartition(":")
    if not colon or Path(text).exists():
        name, rest = text, ""
    given = config.parse_arg(rest, model=None, hlp=None, beta=None, lr=None, **ONE_REPORT)
    path = Path(name)
    folders = _score_folders(path)
    record = read_record(folders[0])
    cfg = _config(path, record)
    draw = record.get("draw") or (cfg.get("data") or {}).get("draw")
    known_hlp = record.get("hlp", (cfg.get("labels") or {}).get("hlp"))
    return Run(
        name=name,
        path=path,
        folders=tuple(folders),
        model=str(given["model"] or _model_name(record.get("model") or cfg.get("model"))),
        hlp=_flag(text, given["hlp"] if given["hlp"] is not None else known_hlp),
        draw=draw,
        beta=_number(text, "beta", given["beta"] if given["beta"] is not None else _beta(draw)),
        lr=_number(text, "lr", given["lr"] or (cfg.get("optim") or {}).get("lr")),
        strict=bool((cfg.get("labels") or {}).get("strict", False)),
        cfg=cfg,
        said={key: given[key] for key in ONE_REPORT if given[key] is not None},
    )


def _score_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise AsjaxError(
            f"run {path} {what}; give the workdir of a finished asjax train, or a folder with a "
            "scores.npz as asjax eval writes it"
        )
    places = [path, path / "eval", *sorted(path.glob("eval-*"))]
    folders = [p for p in places if (p / "scores.npz").is_file()]
    if not folders and (path / "run.json").is_file():
        raise AsjaxError(
            f"run {path} has not finished: it has no eval/scores.npz; run its asjax train command "
            "again, and it continues where it stopped"
        )
    if not folders:
        raise AsjaxError(f"run {path} holds no scores.npz; asjax eval --model=DIR writes one")
    return folders


def _json(path: Path, check) -> dict:
    """The content of a small file of a run; {} if there is no such file."""
    if not path.exists():
        return {}
    value = schema.read_json(path)
    schema.require(value, check, path)
    return value


def read_record(folder: Path) -> dict:
    """The record of the model in the metrics.json beside a scores file; {} if there is none."""
    return _json(folder / "metrics.json", formats.METRICS).get("record") or {}


def _config(path: Path, record: dict) -> dict:
    """The run's config. A folder with scores may use its parent's config if the hash matches."""
    if (path / "run.json").is_file():
        return _json(path / "config.json", formats.RUN_CONFIG)
    for folder in (path, path.parent):
        with contextlib.suppress(AsjaxError):  # config.json may be another program's file
            cfg = _json(folder / "config.json", formats.RUN_CONFIG)
            if cfg and config.fingerprint(cfg) == record.get("config_hash"):
                return cfg
    return {}


def _model_name(spec) -> str:
    if not isinstance(spec, dict):
        return "model"
    name, variant = spec.get("name") or "model", spec.get("variant")
    return f"{name} {variant}" if variant and name not in variant else str(variant or name)


def _beta(draw: str | None) -> float | None:
    if not draw:
        return None
    name, fields = config.parse_call(draw)
    if name in ("oversample", "expected"):
        return fields.get("beta")
    return 0.0 if name in ("shuffle", "sequential") else None


def _number(text, key, value) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise AsjaxError(f"run {text}: {key} must be a number >= 0, got {value!r}")
    return float(value)


def _flag(text, value) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise AsjaxError(f"run {text}: hlp must be True or False, got {value!r}")
    return value
