"""Runs in the terms of "AudioTagging Done Right".

Architecture, procedure, stride, ablation, and mean AP by label quality.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from asjax import config, labels, metrics
from asjax.config import AsjaxError
from asjax.papers import printed
from asjax.papers import runs as papers

SHAPES = {printed.LARGE: (128, 1024), printed.SMALL: (64, 400)}  # bins, frames
PROCEDURES = {
    "A1": (printed.LARGE, True),
    "A2": (printed.LARGE, False),
    "A3": (printed.SMALL, True),
    "A4": (printed.SMALL, False),
}
STRIDES = (4, 6, 8, 10, 12, 14, 16)
TABLE_2_STRIDE = {"A1": 10, "A2": 10, "A3": 8, "A4": 10}
SUBSETS = {"67": "> 67 %", "50": "> 50 %", "all": "≥ 0 %"}
NAMES = (  # pattern of our name -> the paper's name
    (r"(ast )?base(224|384)(_hf)?|ast", "AST"),
    (r"transformer(_64x400)?", "Transformer"),
    (r"(talnet )?cnn_transformer(_big)?|cnn\+t(ransformer)?", "CNN+Transformer"),
    (r"conformer", "Conformer"),
    (r"(resnet_att )?resnet50(_64x400|_scrambled|_asdr)?", "ResNet50"),
    (r"(resnet_att )?resnet34(_asdr)?", "ResNet34"),
    (r"(talnet )?crnn(_big)?", "CRNN"),
    (r"(efficientnet )?effnet_b2", "EfficientNet-B2"),
)
CHOICE = r"eval\.(select|metric)"  # in this recipe they follow from `average`
COMPONENTS = (  # fields of the ablated components
    r"data\.draw|augment\.(wave|feats|normed)|frontend\.(mean|std|divide)"
)


# ---------------------------------------------------------------------------- what was trained


@dataclass(frozen=True, eq=False)
class Trained:
    """A run in the terms of the paper.

    Attributes:
      model: the paper's name of the architecture, else our name.
      procedure: A1-A4. stride: (frequency, time) of AST; None for other models or if unknown.
      off: the missing components, as keys of printed.ATDR_ABLATIONS.
      facts: the training fields of the config, with one entry per component; None without a config.
    """

    run: papers.Run
    model: str
    procedure: str
    stride: tuple[int, int] | None
    off: frozenset[str]
    facts: dict | None = field(repr=False)

    @cached_property
    def parameters(self) -> int | None:
        return papers.read_record(self.run.folders[0]).get("parameters")


def paper_name(model: str) -> str:
    """The paper's name of an architecture, else our name."""
    known = {name.casefold(): name for name in printed.ATDR_TABLE2}
    for pattern, name in NAMES:
        if re.fullmatch(pattern, model.casefold()):
            return name
    return known.get(model.casefold(), model)


def trained(run) -> Trained:
    """How a run was trained.

    Raises:
      AsjaxError: an unknown value after the colon, or a procedure that neither the run nor the user
        gives.
    """
    given = run.said
    for key, known in (("procedure", PROCEDURES), ("ablation", ("full", *printed.ATDR_ABLATIONS))):
        if key in given and given[key] not in known:
            raise AsjaxError(
                f"run {run.name}: {key} must be one of {', '.join(known)}, got {given[key]!r}"
            )
    model, facts = paper_name(run.model), _facts(run)
    if "ablation" in given:
        off = {given["ablation"]} - {"full"}
    else:
        off = _off(run, facts) if facts is not None else set()
    return Trained(
        run=run,
        model=model,
        procedure=given.get("procedure") or _procedure(run),
        stride=_stride(run) if model == "AST" else None,
        off=frozenset(off),
        facts=facts,
    )


def _procedure(run) -> str:
    """A1-A4 from the features and the starting weights."""
    example = f"write {run.name}:procedure=A2"
    if not run.cfg:
        raise AsjaxError(f"run {run.name} has no config, so its procedure is unknown; {example}")
    name, fields = config.split_spec(run.cfg.get("frontend") or "none")
    frames = fields.get("frames")
    features = None
    if name.startswith("kaldi_fbank") and fields.get("n_mels", 128) == 128:
        features = printed.LARGE if frames in (None, 1024, 1056) else None
    elif name.startswith("atdr_logmel") and fields.get("n_mels", 64) == 64:
        features = printed.SMALL if frames in (None, 400) else None
    start = run.cfg.get("init_from") or ""
    if features is None:
        at = f" with {frames} frames" if frames else ""
        raise AsjaxError(
            f"run {run.name} has the features {name}{at}, which no procedure uses (known: "
            f"kaldi_fbank128 with 128 x 1024, atdr_logmel64 with 64 x 400); {example}"
        )
    if start and not start.startswith("imagenet:"):
        raise AsjaxError(
            f"run {run.name} starts from {start}, but a procedure starts from imagenet:FILE or "
            f"from scratch; {example}"
        )
    known = {value: key for key, value in PROCEDURES.items()}
    return known[features, bool(start)]


def _stride(run) -> tuple[int, int] | None:
    stride = run.said.get("stride")
    if stride is None and run.cfg:
        stride = (run.cfg.get("model") or {}).get("stride", 10)
    pair = tuple(stride) if isinstance(stride, (list, tuple)) else (stride, stride)
    if stride is None:
        return None
    if len(pair) != 2 or not all(type(s) is int and s > 0 for s in pair):
        raise AsjaxError(f"run {run.name}: stride must be a positive integer, got {stride!r}")
    return pair


def _facts(run) -> dict | None:
    """The flat config without the ignored fields; the four components have keys of their own."""
    if not run.cfg:
        return None
    flat = config.flatten(run.cfg)
    out = {
        k: v
        for k, v in flat.items()
        if not re.fullmatch(f"{papers.NEUTRAL}|{CHOICE}|{COMPONENTS}", k)
    }
    out |= {"balancing": run.draw, "mixup": [], "specaug": []}
    for place in ("wave", "feats", "normed"):
        for name, fields in config.chain(flat.get(f"augment.{place}")):
            fields = {k: v for k, v in fields.items() if k != "fill"}  # depends on mean and std
            key = name if name in ("mixup", "specaug") else f"augment.{place}"
            out.setdefault(key, []).append((name, fields))
    out["normalise"] = tuple(flat.get(f"frontend.{k}") for k in ("mean", "std", "divide"))
    return out


def _off(run, facts) -> set[str]:
    off = set()
    if run.beta == 0:
        off.add("balancing")
    if not any(fields.get("rate", 1) for _, fields in facts["mixup"]):
        off.add("mixup")
    widths = ("time_width", "freq_width"), ("time_stripes", "freq_stripes")
    if not any(
        fields.get(width, 1) and fields.get(stripes, 1)
        for _, fields in facts["specaug"]
        for width, stripes in zip(*widths, strict=True)
    ):
        off.add("specaug")
    mean, std, divide = facts["normalise"]
    if mean == 0 and std is not None and std * (2 if divide is None else divide) == 1:
        off.add("normalise")
    return off


def differing(a: Trained, b: Trained) -> list[str]:
    """The training fields in which two runs differ; none if a run has no config."""
    if a.facts is None or b.facts is None:
        return []
    keys = a.facts.keys() | b.facts.keys()
    return sorted(k for k in keys if a.facts.get(k) != b.facts.get(k))


# ------------------------------------------------------------------------------------ patches


def patches(stride, features) -> tuple[int, int]:
    """Number of 16 x 16 patches in frequency and time: floor((size - 16) / stride) + 1 each."""
    return tuple((size - 16) // s + 1 for size, s in zip(SHAPES[features], stride, strict=True))


# ------------------------------------------------------------------------------------- quality


def label_quality() -> tuple[np.ndarray, np.ndarray]:
    """Share of correct labels and number of rated examples of AudioSet's 527 classes, [C] each.

    The share is NaN for a class without a rated example.
    """
    columns = ("label_id", "num_rated", "num_true")
    path = labels.ASSETS.parent / "audioset" / "qa_true_counts.csv"
    rows = labels.read_rows(path, columns, "AudioSet's label quality")
    by_id = {row["label_id"]: row for row in rows}
    rows = [by_id[label] for label in labels.get("audioset527").ids]
    rated, right = (np.array([int(row[key]) for row in rows]) for key in columns[1:])
    return np.where(rated > 0, right / np.maximum(rated, 1), np.nan), rated


def subsets() -> dict[str, np.ndarray]:
    """The class subsets of figure 2, bool [C] by key of SUBSETS.

    A class without a rated example has no quality and is only in the last subset.
    """
    quality, _ = label_quality()
    return {"67": quality > 0.67, "50": quality > 0.5, "all": np.ones(len(quality), bool)}


# -------------------------------------------------------------------------------------- results


@dataclass(frozen=True, eq=False)
class Result:
    """Mean AP by subset of classes, as a fraction: of a run, a mean over runs or a difference."""

    values: dict[str, float]
    drawn: dict[str, np.ndarray] | None  # the value in each bootstrap resample
    key: str  # hash of clips and targets; "" for a difference of results on different clips
    clips: int
    classes: dict[str, int]  # number of classes with a positive
    runs: tuple[str, ...] = ()
    parameters: tuple[int, ...] = ()
    data: str = ""  # the name of the data

    @property
    def value(self) -> float:
        return self.values["all"]

    def interval(self, subset="all") -> tuple[float, float] | None:
        if self.drawn is None:
            return None
        ends = metrics.interval(self.drawn[subset], self.values[subset], papers.LEVEL)
        return ends if np.isfinite(ends).all() else None


def measure(run, args) -> Result:
    """Mean AP of a run on its own test set."""
    evaluations = [e for e in map(run.load, run.folders) if e.zero_shot is None]
    preferred = [e for e in evaluations if e.folder in (run.path, run.path / "eval")] or evaluations
    if not preferred:
        raise AsjaxError(f"run {run.name} has only zero-shot scores, which these tables do not use")
    if len(preferred) > 1:
        raise AsjaxError(
            f"run {run.name} was evaluated more than once: "
            f"{', '.join(str(e.folder) for e in preferred)}; give one of the folders as the RUN"
        )
    (e,) = preferred
    audioset = e.label_set.hash == labels.get("audioset527").hash
    masks = subsets() if audioset else {"all": np.ones(len(e.label_set), bool)}
    values = metrics.tagging(scores=e.scores, targets=e.targets, names=e.label_set.names)
    ap = values["per_class_ap"]
    counted = {key: mask & np.isfinite(ap) for key, mask in masks.items()}
    return Result(
        values={k: float(ap[m].mean()) if m.any() else float("nan") for k, m in counted.items()},
        drawn=_resampled(e, masks, args) if args.bootstrap else None,
        key=e.key,
        clips=len(e.scores),
        classes={key: int(mask.sum()) for key, mask in counted.items()},
        data=e.title,
        runs=(run.name,),
    )


def _resampled(e, masks, args) -> dict[str, np.ndarray]:
    """Mean AP of every resample by subset.

    The class subsets are nested. The mean AP of each difference between neighbouring subsets (a
    ring) is computed once. The rings are combined with the number of classes that have a positive
    in the resample as weights. So every class is ranked once.
    """
    from scipy.sparse import csr_array

    targets = csr_array(e.targets.astype(np.int32)).T
    draws = metrics.resample_counts(len(e.scores), args.bootstrap, args.seed)
    left = np.array([targets @ draw > 0 for draw in draws])  # [R, C]
    total, count, out = 0.0, 0, {}
    inner = np.zeros(len(e.label_set), bool)
    for key, mask in masks.items():
        ring, inner = mask & ~inner, mask
        mean = metrics.resampled(
            scores=e.scores, targets=e.targets, n=args.bootstrap, seed=args.seed, class_mask=ring
        )["mean_ap"]
        n = left[:, ring].sum(axis=1)
        total, count = total + np.where(n, np.nan_to_num(mean) * n, 0.0), count + n
        out[key] = np.where(count, total / np.maximum(count, 1), np.nan)
    return out


def mean(results, what: str) -> Result:
    """The mean over runs; its interval is over clips, with the same resamples for all runs."""
    first = results[0]
    for other in results[1:]:
        if other.key != first.key:
            raise AsjaxError(
                f"runs {first.runs[0]} and {other.runs[0]} belong to one {what} but were evaluated "
                f"on different clips ({first.clips:,} and {other.clips:,}); report them separately"
            )
    drawn = None
    if first.drawn is not None:
        drawn = {key: np.mean([r.drawn[key] for r in results], axis=0) for key in first.drawn}
    return Result(
        values={key: float(np.mean([r.values[key] for r in results])) for key in first.values},
        drawn=drawn,
        key=first.key,
        clips=first.clips,
        classes=first.classes,
        data=first.data,
        runs=tuple(dict.fromkeys(name for r in results for name in r.runs)),
        parameters=tuple(sorted({p for r in results for p in r.parameters})),
    )


def minus(a: Result, b: Result) -> Result:
    """a - b; paired by clip if the clips are the same."""
    paired = a.key == b.key and a.drawn is not None
    keys = a.values.keys() & b.values.keys()
    return Result(
        values={key: a.values[key] - b.values[key] for key in keys},
        drawn={key: a.drawn[key] - b.drawn[key] for key in keys} if paired else None,
        key=a.key if a.key == b.key else "",
        clips=a.clips,
        classes=a.classes,
        data=a.data,
        runs=(*a.runs, *b.runs),
    )
