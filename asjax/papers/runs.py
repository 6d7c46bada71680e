"""`asjax report hlp|balance|atdr RUN...`: the papers' tables and figures, from finished scores.

A RUN is the workdir of a finished run (its `eval` and all `eval-*` folders are read) or one folder
with a scores.npz. What a run was trained with is read from its own record; it can be said or
corrected after a colon, as in `runs/x:hlp=False,model=passt_s,beta=0.5`. Every number is computed
here from the scores; the papers' own stand beside, marked as theirs.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from asjax import config
from asjax.config import AsjaxError
from asjax.store import scores

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
}
LEVEL = 0.95

# ------------------------------------------------------------------------------- finished runs


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One scores file, its clips in the order of their ids (so that resamples pair by clip)."""

    folder: Path
    title: str  # of the data
    key: str  # hash of clips, targets and classes: equal keys can be compared clip by clip
    scores: np.ndarray  # [N, C]
    targets: np.ndarray  # [N, C]
    label_set: object
    zero_shot: dict | None

    def __repr__(self) -> str:
        return f"{self.title} in {self.folder}, {len(self.scores):,} clips"


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
      name: as the user gave it. path: the workdir, or the folder of a scores file.
      folders: where its scores are, `eval` first.
      model: e.g. "cnn6"; hlp, beta, lr: how it was trained; None where nothing says so.
      draw: spec of the draw, or None. strict: which rule HLP follows.
      cfg: its config, or {}.
      said: what only the report on AudioTagging Done Right asks, as the user gave it.
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
        """The scores in one of the run's folders."""
        found = scores.load_scores(folder / "scores.npz")
        order = np.argsort(np.array(found["ids"]), kind="stable")
        values, targets = found["scores"][order], found["targets"][order]
        digest = hashlib.sha256(found["label_set"].hash.encode())
        digest.update("\n".join(found["ids"][i] for i in order).encode())
        digest.update(np.packbits(targets.astype(bool)).tobytes())
        data = read_record(folder).get("eval_data")
        name = data.get("name") if isinstance(data, dict) else None
        return Evaluation(
            folder=folder,
            title=str(name or folder.name),
            key=digest.hexdigest(),
            scores=values,
            targets=targets,
            label_set=found["label_set"],
            zero_shot=(found["extra"] or {}).get("zero_shot"),
        )


def read_runs(texts) -> list[Run]:
    """The runs named on the command line.

    Raises:
      AsjaxError: no such folder, a run that has not finished, a field that does not exist, or the
        same folder of scores twice.
    """
    runs = [read_run(text) for text in texts]
    seen: dict[Path, str] = {}
    for run in runs:
        for folder in map(Path.resolve, run.folders):
            if folder in seen:
                raise AsjaxError(
                    f"run {run.name}: the scores in {folder} are those of {seen[folder]}"
                )
            seen[folder] = run.name
    return runs


def read_run(text: str) -> Run:
    """`DIR` or `DIR:field=value,...` (model, hlp, beta, lr, procedure, stride, ablation) -> Run."""
    name, colon, rest = text.rpartition(":")
    if not colon or Path(text).exists():
        name, rest = text, ""
    own = dict(procedure=None, stride=None, ablation=None)  # of one report
    said = config.parse_arg(rest, model=None, hlp=None, beta=None, lr=None, **own)
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
        model=str(said["model"] or _model_name(record.get("model") or cfg.get("model"))),
        hlp=_flag(text, said["hlp"] if said["hlp"] is not None else known_hlp),
        draw=draw,
        beta=_number(text, "beta", said["beta"] if said["beta"] is not None else _beta(draw)),
        lr=_number(text, "lr", said["lr"] or (cfg.get("optim") or {}).get("lr")),
        strict=bool((cfg.get("labels") or {}).get("strict", False)),
        cfg=cfg,
        said={key: said[key] for key in own if said[key] is not None},
    )


def _score_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise AsjaxError(
            f"run {path} {what}; give the workdir of a finished asjax train, or a folder with a "
            "scores.npz as asjax eval writes it"
        )
    places = [path, path / "eval", *sorted(path.glob("eval-*"))]
    found = [p for p in places if (p / "scores.npz").is_file()]
    if not found and (path / "run.json").is_file():
        raise AsjaxError(
            f"run {path} has not finished: it has no eval/scores.npz; run its asjax train command "
            "again, it goes on where it stopped"
        )
    if not found:
        raise AsjaxError(f"run {path} holds no scores.npz; asjax eval --model=DIR writes one")
    return found


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise AsjaxError(f"{path} cannot be read as JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def read_record(folder: Path) -> dict:
    """What metrics.json beside a scores file says of the model; {} where there is none."""
    found = _json(folder / "metrics.json").get("record")
    return found if isinstance(found, dict) else {}


def _config(path: Path, record: dict) -> dict:
    """The run's config: of a workdir its own, of a folder in a workdir only if proven its own."""
    if (path / "run.json").is_file():
        return _json(path / "config.json")
    for folder in (path, path.parent):
        cfg = _json(folder / "config.json")
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
        raise AsjaxError(f"run {text}: {key} must be a number of 0 or more, got {value!r}")
    return float(value)


def _flag(text, value) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise AsjaxError(f"run {text}: hlp must be True or False, got {value!r}")
    return value


# ------------------------------------------------------------------------------------- writing


# ------------------------------------------------------------------------------------ the verb


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
            help="workdir of a finished run, or a folder with a scores.npz; what it does not say "
            "itself after a colon: DIR:hlp=False,model=cnn6,beta=0.5",
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
    made = not args.out.exists()
    try:  # before anything is computed, which takes a while
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AsjaxError(f"--out {args.out} must be a writable folder: {error}") from None
    collects, shows = map(import_module, PAPERS[args.paper][:2])
    try:
        found = collects.collect(read_runs(args.runs), args)
    except AsjaxError:
        if made:  # nothing to put there
            args.out.rmdir()
        raise
    print(shows.text(found))
    written = shows.write(found, args.out)
    print(f"\nwritten to {args.out}: {' '.join(written)}")
    return 0
