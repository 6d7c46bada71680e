"""`asjax port`: a public checkpoint becomes a model directory, for `asjax.load`, `tag` and `eval`.

    asjax port Cnn6_mAP=0.343.pth --to=models/cnn6
    asjax port passt_s_swa_p16_128_ap476 --to=models/passt
    asjax port MIT/ast-finetuned-audioset-10-10-0.4593 --to=models/ast

Nothing in the file is run (`torch_file`), and nothing is written unless every weight of the model
is there exactly once.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asjax import build, labels
from asjax.config import AsjaxError, parse_value, split_spec, unknown
from asjax.store import files
from asjax.store.model_dir import save_model
from asjax.weights import download, published, torch_file

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class Checkpoint(NamedTuple):
    """Weights of others: where they lie, what is published of them (or None), name -> array."""

    path: Path
    row: published.Row | None
    weights: dict[str, np.ndarray]


# ---------------------------------------------------------------------------------- reading


def read_weights(path_or_name) -> dict[str, np.ndarray]:
    """Name -> array of a checkpoint: a torch or safetensors file, a published name, a Hub id.

    Names are those of the file, without wrappers ("model", "state_dict") and "module." prefixes.
    Published checkpoints are downloaded where there is a network.

    Raises:
      AsjaxError: no such thing, or one that is damaged, refused or cannot be fetched.
    """
    return read(path_or_name).weights


def read(path_or_name, *, progress: bool = False) -> Checkpoint:
    """As `read_weights`, with the file it came from and its row in `published`."""
    path, row = locate(path_or_name, progress=progress)
    with path.open("rb") as file:
        head = file.read(9)
    # a safetensors file begins with eight bytes of length, then its JSON
    value = files.read_safetensors(path) if head[8:] == b"{" else torch_file.read(path)
    try:
        return Checkpoint(path, row, torch_file.weights(value))
    except AsjaxError as error:
        raise AsjaxError(f"{path}: {error}") from None


def locate(path_or_name, *, progress: bool = False) -> tuple[Path, published.Row | None]:
    """The file that a path, a published name or a Hub id stands for, fetched if need be."""
    text = str(path_or_name)
    path = Path(text)
    if path.is_dir():
        return _in_folder(path), None
    if path.is_file():
        return path, published.by_file(path.name)
    row = published.find(text)
    if row is not None and row.urls:
        return download.fetch(row, progress=progress), row
    if row is not None and not row.hub:
        note = f" ({row.note})" if row.note else ""
        raise AsjaxError(
            f"{row.name} must be fetched by hand, from {row.page}{note}; then give the file"
        )
    repo = row.hub if row is not None else text
    if repo.count("/") == 1 and not path.suffix.startswith((".pt", ".ckpt", ".safe", ".bin")):
        return _from_hub(repo), row or published.by_hub(repo)
    if "/" in text or path.suffix in (".pt", ".pth", ".ckpt", ".safetensors", ".bin"):
        raise AsjaxError(f"checkpoint {text} does not exist")
    names = [row.name for row in published.ROWS]
    raise AsjaxError(
        f"{unknown('checkpoint', text, names)}; or give a file or a Hub id, owner/name"
    )


def _in_folder(path: Path) -> Path:
    if (path / "card.json").is_file():
        raise AsjaxError(f"{path} is an asjax model already; use it, or export it: asjax export")
    for name in HUB_FILES:
        if (path / name).is_file():
            return path / name
    raise AsjaxError(f"folder {path} holds no {' or '.join(HUB_FILES)}; give the checkpoint file")


def _from_hub(repo: str) -> Path:
    """The weights of a Hub repository, from its cache or the network as `huggingface_hub` says."""
    repo, _, revision = repo.partition("@")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise AsjaxError(
            f"{repo} is no file here; to fetch it from the Hugging Face Hub install "
            "huggingface_hub (pip install 'asjax[hub]')"
        ) from None
    reasons: dict[str, list] = {}
    for name in HUB_FILES:
        try:
            return Path(hf_hub_download(repo, name, revision=revision or None))
        except Exception as error:  # its own classes, requests', OSError: all mean "not there"
            why = f"{type(error).__name__}: {files.reason(error)}"
            reasons.setdefault(why, []).append(name)
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    state = " (HF_HUB_OFFLINE is set: only its cache was searched)" if offline else ""
    listed = "; ".join(f"{' and '.join(names)}: {why}" for why, names in reasons.items())
    raise AsjaxError(f"{repo} could not be fetched from the Hub{state}: {listed}")


# --------------------------------------------------------------------------------- converting


def convert(
    path_or_name,
    to,
    *,
    family: str | None = None,
    variant: str | None = None,
    fields: dict | None = None,
    label_set=None,
    frontend=None,
    clip_s: float | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> dict:
    """Write the model directory `to` from a checkpoint; see `asjax port --help`.

    Returns:
      What was done: checkpoint, model, matched, skipped, label_set, fingerprint (SHA-256 of the
      weights), path.

    Raises:
      AsjaxError: nothing was written; one line says why, all misfits of the weights together.
    """
    from asjax import models
    from asjax.weights import detect, port

    to = _free(Path(to), overwrite)
    if label_set is not None:
        label_set = labels.get(label_set)
    path, row, weights = read(path_or_name, progress=progress)
    fields = dict(fields or {})
    if row in published.STARTS:
        raise AsjaxError(
            f"{row.name} is {'an image model' if row.source == 'imagenet' else 'a backbone'} to "
            f"start a training from, not a tagger; in a config: init_from='{row.source}:{row.name}'"
        )
    if row is not None and family in (None, row.family) and variant in (None, row.variant):
        family, variant = row.family, row.variant
        fields = {**row.fields, **fields}
        frontend = frontend or row.frontend
    found = detect.detect(weights, family, variant, **fields)
    family, variant, fields = found.family, found.variant, found.fields
    if fields.get("num_classes") == 0:
        raise AsjaxError(
            f"{path.name} has no head, so it is no tagger: it is a {family} to start a training "
            f"from; in a config: init_from='backbone:{path}'"
        )
    match = port.match(family, variant, weights, **fields)
    module = match.module
    spec = _frontend(models.family(family).FRONTENDS[variant], module, frontend)
    built = build.make("frontend", spec)
    if clip_s is None:
        clip_s = row.clip_s if row is not None and row.clip_s else clip_seconds(module, built)
    label_set = _label_set(label_set, module.num_classes)
    digest = files.digest(path)
    parameters = sum(int(np.prod(x.shape)) for p, x in match.arrays.items() if p[:7] == "params/")
    record = {
        "ported_from": {
            "file": path.name,
            "sha256": digest,
            "checkpoint": row.name if row else None,
            "licence": row.licence if row else None,
            "skipped": {k: why for k, (_, why) in match.skipped.items()},
        },
        "parameters": parameters,
        "labels": {"name": label_set.name, "hash": label_set.hash},
    }
    save_model(
        to,
        config={
            "model": {"name": family, "variant": variant, **fields, "num_classes": len(label_set)},
            "frontend": spec,
            "data": {"sample_rate": built.sample_rate, "clip_s": clip_s},
            "labels": {"name": label_set.name},
        },
        label_set=label_set,
        variables=match.variables,
        record=record,
        extra=_kept(match.skipped),
    )
    return {
        "checkpoint": path.name,
        "row": row,
        "sha256": digest,
        "model": found,
        "matched": match.matched,
        "skipped": match.skipped,
        "parameters": parameters,
        "frontend": spec,
        "clip_s": clip_s,
        "label_set": label_set,
        "fingerprint": files.digest(to / "model.safetensors"),
        "path": to,
    }


def clip_seconds(module, frontend) -> float:
    """Seconds of audio that a model takes at a time.

    What its positions are for (`input_frames`, rounded to whole seconds: 998 frames of 10 ms are
    PaSST's 10 s, 1024 AST's), and AudioSet's 10 s for a model that takes any length.
    """
    frames = input_frames(module)
    if frames is None:
        return 10.0
    return float(max(1, round(frames * frontend.hop / frontend.sample_rate)))


def input_frames(module) -> int | None:
    """Frames of the input that a model is made for: its `input_frames` where it has a detector
    (whose `frames` are outputs), else its `frames`; None where any length serves."""
    frames = getattr(module, "input_frames", getattr(module, "frames", None))
    return frames if isinstance(frames, int) else None


def _free(to: Path, overwrite: bool) -> Path:
    """`to`, if a model may be written there."""
    if to.is_dir() and any(to.iterdir()):
        if not (to / "card.json").is_file():
            raise AsjaxError(f"--to {to} holds other things than a model; give a new folder")
        if not overwrite:
            raise AsjaxError(f"--to {to} holds a model already; add --overwrite to replace it")
    elif to.exists() and not to.is_dir():
        raise AsjaxError(f"--to {to} is a file; give a folder")
    return to


def _frontend(default: dict, module, given) -> dict:
    """The frontend's spec: the one given, or the variant's, for as many bins and frames as the
    module takes."""
    from asjax import frontends

    if given:
        name, fields = split_spec(given)
        return {"name": name, **fields}
    spec = dict(default)
    built = frontends.build(**spec)
    for key, wanted in (("n_mels", module.n_mels), ("frames", input_frames(module))):
        if wanted is not None and getattr(built, key, None) not in (None, wanted):
            spec[key] = wanted
    if build.make("frontend", spec).n_mels != module.n_mels:
        raise AsjaxError(
            f"the model takes {module.n_mels} mel bins, its frontend {default['name']} gives "
            f'{built.n_mels}: give --frontend, such as --frontend="{default["name"]}(n_mels=...)"'
        )
    return spec


def _label_set(given, classes: int):
    """The classes: those given, AudioSet's for 527, else a set that says it only counts."""
    if given is None and classes == 527:
        return labels.get("audioset527")
    if given is None:
        ids = [f"class_{i:0{len(str(classes - 1))}d}" for i in range(classes)]
        return labels.LabelSet(
            f"numbered{classes}", tuple(ids), tuple(i.replace("_", " ") for i in ids)
        )
    if len(given) != classes:
        raise AsjaxError(f"--labels {given.name} has {len(given)} classes, the model {classes}")
    return given


def _kept(skipped: dict) -> dict:
    """The skipped entries that are arrays, for a round trip without loss."""
    arrays = {k: np.asarray(v) for k, (v, _) in skipped.items()}
    return {k: v for k, v in arrays.items() if v.dtype.kind in "biuf"}


# ------------------------------------------------------------------------------------ the verb


def add_arguments(parser):
    parser.add_argument(
        "checkpoint",
        metavar="FILE_OR_NAME",
        help="torch or safetensors file, a published checkpoint (asjax models), or a Hub id",
    )
    parser.add_argument("--to", required=True, help="model folder to write")
    parser.add_argument("--family", help="model family (default: found by the names)")
    parser.add_argument("--variant", help="its variant (default: found by the shapes)")
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of the model that the file does not tell, such as stride=10",
    )
    parser.add_argument(
        "--labels",
        help="the classes in order: a CSV file or a known set (default: by their number)",
    )
    parser.add_argument("--frontend", help="the features, NAME(field=value) (default: the model's)")
    parser.add_argument(
        "--clip-s", type=float, help="seconds heard at a time (default: what the model is made for)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is there")


def main(args) -> int:
    fields = {}
    for text in args.field:
        name, eq, value = text.partition("=")
        if not eq or not name:
            raise AsjaxError(f"--field {text} must be NAME=VALUE")
        fields[name] = parse_value(value)
    if args.clip_s is not None and not 0 < args.clip_s < 3600:
        raise AsjaxError(f"--clip-s must be between 0 and 3600 seconds, got {args.clip_s:g}")
    done = convert(
        args.checkpoint,
        args.to,
        family=args.family,
        variant=args.variant,
        fields=fields,
        label_set=args.labels,
        frontend=args.frontend,
        clip_s=args.clip_s,
        overwrite=args.overwrite,
        progress=True,
    )
    with contextlib.suppress(BrokenPipeError):
        print(_report(done), flush=True)
    return 0


def _report(done: dict) -> str:
    values = sum(int(np.size(v)) for v in done["matched"].values())
    lines = [
        f"checkpoint   {done['checkpoint']}",
        f"model        {done['model']}, {done['parameters']:,} parameters",
        f"matched      {len(done['matched'])} arrays, {values:,} numbers",
    ]
    reasons: dict[str, list] = {}
    for key, (value, why) in done["skipped"].items():
        reasons.setdefault(why, []).append((key, np.shape(value)))
    for why, entries in reasons.items():
        shown = ", ".join(f"{key} {shape}" for key, shape in entries[:3])
        more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
        lines.append(f"skipped      {len(entries)} ({why}): {shown}{more}")
    if not reasons:
        lines.append("skipped      nothing")
    fields = ", ".join(f"{k}={v!r}" for k, v in done["frontend"].items() if k != "name")
    lines += [
        f"frontend     {done['frontend']['name']}({fields}), {done['clip_s']:g} s at a time",
        f"labels       {done['label_set'].name}, {len(done['label_set'])} classes",
    ]
    row = done["row"]
    if row is not None:
        lines.append(f"published    {row.claim}; licence of the weights: {row.licence}")
        if row.sha256 and not done["sha256"].startswith(row.sha256):
            lines.append(f"             BUT this is another file: its SHA-256 is {done['sha256']}")
    return "\n".join(
        [
            *lines,
            f"fingerprint  {done['fingerprint']}",
            f"written      {done['path']}",
            f"try it:      asjax tag YOUR_FILE.wav --model={done['path']}",
        ]
    )
