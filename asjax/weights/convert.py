"""`asjax port`: convert a public checkpoint to a model directory for `asjax.load`, `tag`, `eval`.

    asjax port Cnn6_mAP=0.343.pth --to=models/cnn6
    asjax port passt_s_swa_p16_128_ap476 --to=models/passt
    asjax port MIT/ast-finetuned-audioset-10-10-0.4593 --to=models/ast

No code in the file is run (see `torch_file`). Nothing is written unless the file has every weight
of the model exactly once.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from asjax import build, labels
from asjax.config import AsjaxError, parse_value, split_spec, warn
from asjax.store import files
from asjax.store.model_dir import save_model
from asjax.weights import hub_config, locate, parts, published


def convert(
    path_or_name,
    to,
    *,
    family: str | None = None,
    variant: str | None = None,
    fields: dict | None = None,
    prefix: str = "",
    head: str = "",
    label_set=None,
    frontend=None,
    clip_s: float | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> dict:
    """Write the model directory `to` from a checkpoint; see `asjax port --help`.

    Returns:
      A report: checkpoint, chosen (`choose.Chosen`), matched, skipped, label_set, frontend,
      not_taken, fingerprint (SHA-256 of the weights), path.

    Raises:
      AsjaxError: nothing was written; one line gives the reason and lists all misfits.
    """
    from asjax.weights import port

    to = _free(Path(to), overwrite)
    if label_set is not None:
        label_set = labels.get(label_set)
    place, value, sums = locate.read(path_or_name, progress=progress)
    hub = hub_config.read(place.configs, place.name)
    known = dict(prefix=prefix, head=head, family=family, variant=variant, fields=fields)
    chosen, default = _choose(place, value, known, hub.fields)
    family, variant, fields, *_ = chosen.found
    match = port.match(family, variant, chosen.weights, **fields)
    if text := parts.not_finite(match.matched):
        warn(f"{place.path.name}: {text}")
    module = match.module
    spec, left = frontend_spec(default, module, _given(frontend), hub.features)
    built = build.make("frontend", spec)
    clip_s = clip_s or (place.row and place.row.clip_s) or clip_seconds(module, built)
    label_set, more = choose_labels(label_set, module.num_classes, hub.label_set)
    left += [f"{k}={v}: the weights contradict it" for k, v in chosen.hints.items()]
    done = {
        "checkpoint": place.path.name,
        "row": place.row,
        "sha256": sums,
        "chosen": chosen,
        "matched": match.matched,
        "skipped": match.skipped,
        "parameters": sum(
            int(np.prod(x.shape)) for path, x in match.arrays.items() if path[:7] == "params/"
        ),
        "frontend": spec,
        "clip_s": clip_s,
        "label_set": label_set,
        "not_taken": [*place.notes, *hub.not_taken, *left, *more],
        "path": to,
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
        record=_record(done),
        extra=_kept(match.skipped),
    )
    return {**done, "fingerprint": files.digest(to / "model.safetensors")}


def refuse_start(row) -> None:
    """AsjaxError: the row is no tagger but weights to train from."""
    if row in published.STARTS:
        raise AsjaxError(
            f"{row.name} is {'an image model' if row.source == 'imagenet' else 'a backbone'}, not "
            f"a tagger; to train from it, set init_from='{row.source}:{row.name}' in a config"
        )


def _choose(place, value, known: dict, hints: dict):
    """(the chosen model, its default frontend spec).

    A published file takes both from its row; for any other file they follow from names and shapes.

    Raises:
      AsjaxError: the checkpoint fits no model or is not a tagger.
    """
    from asjax import models
    from asjax.weights import choose

    row, default = place.row, None
    refuse_start(row)
    if row is not None and all(known[k] in (None, getattr(row, k)) for k in ("family", "variant")):
        default, fields = row.frontend, {**row.fields, **(known["fields"] or {})}
        known = {**known, "family": row.family, "variant": row.variant, "fields": fields}
    try:
        chosen = choose.choose(value, **known, hints=hints)
    except AsjaxError as error:
        raise AsjaxError(f"{place.path}: {error}") from None
    if chosen.found.fields.get("num_classes") == 0:
        raise AsjaxError(
            f"{place.path.name} is a {chosen.found.family} without a head, so not a tagger; to "
            f"train from it, set init_from='backbone:{place.path}' in a config"
        )
    return chosen, default or models.family(chosen.found.family).FRONTENDS[chosen.found.variant]


def _record(done: dict) -> dict:
    """The checkpoint's entry in card.json."""
    row, chosen, label_set = done["row"], done["chosen"], done["label_set"]
    return {
        "ported_from": {
            "file": done["checkpoint"],
            "sha256": done["sha256"].get(done["checkpoint"]) or done["sha256"],
            "checkpoint": row.name if row else None,
            "licence": row.licence if row else None,
            "prefix": chosen.part.prefix,
            "head": chosen.head[0] if chosen.head else None,
            "skipped": {k: why for k, (_, why) in done["skipped"].items()},
            "outside": len(chosen.outside),
            "not_taken": done["not_taken"],
        },
        "parameters": done["parameters"],
        "labels": {"name": label_set.name, "hash": label_set.hash},
    }


def clip_seconds(module, frontend) -> float:
    """Seconds of audio that a model takes at a time.

    This is the length of `input_frames`, rounded to whole seconds: 10 s are 998 frames of 10 ms
    for PaSST and 1024 for AST. A model that takes any length gets AudioSet's 10 s.
    """
    frames = input_frames(module)
    if frames is None:
        return 10.0
    return float(max(1, round(frames * frontend.hop / frontend.sample_rate)))


def input_frames(module) -> int | None:
    """Number of input frames of a model; None if it takes any length.

    The field is `input_frames` in a model with a detector, where `frames` counts outputs.
    """
    frames = getattr(module, "input_frames", getattr(module, "frames", None))
    return frames if isinstance(frames, int) else None


def _free(to: Path, overwrite: bool) -> Path:
    """Return `to` if a model may be written there, else raise."""
    if to.is_dir() and any(to.iterdir()):
        if not (to / "card.json").is_file():
            raise AsjaxError(f"--to {to} holds files that are no model; give a new folder")
        if not overwrite:
            raise AsjaxError(f"--to {to} already holds a model; add --overwrite to replace it")
    elif to.exists() and not to.is_dir():
        raise AsjaxError(f"--to {to} is a file; give a folder")
    return to


def _given(frontend) -> dict | None:
    """The frontend spec that the user gave, or None."""
    if not frontend:
        return None
    name, fields = split_spec(frontend)
    return {"name": name, **fields}


def frontend_spec(default: dict, module, given, features=None) -> tuple[dict, list[str]]:
    """The frontend spec, and the entries of `features` that it does not use.

    The user's spec comes first. Otherwise it is the variant's spec, changed to the features that
    the checkpoint's folder states and to the number of bins and frames that the module takes.
    """
    from asjax import frontends

    if given:
        return given, [f"{k}={v}: --frontend was given" for k, v in (features or {}).items()]
    known = build.fields("frontend", default["name"])
    plain = frontends.build(**default)
    taken = {k: v for k, v in (features or {}).items() if k in known}
    left = [
        f"{k}={v}: {default['name']} has no such field"
        for k, v in (features or {}).items()
        if k not in known and getattr(plain, k, None) != v
    ]
    spec = {**default, **{k: v for k, v in taken.items() if getattr(plain, k, None) != v}}
    built = frontends.build(**spec)
    for key, wanted in (("n_mels", module.n_mels), ("frames", input_frames(module))):
        if isinstance(wanted, int) and getattr(built, key, None) not in (None, wanted):
            if key in taken:
                left.append(f"{key}={taken[key]}: the model takes {wanted}")
            spec[key] = wanted
    if build.make("frontend", spec).n_mels != module.n_mels:
        raise AsjaxError(
            f"the model takes {module.n_mels} mel bins, but its frontend {default['name']} gives "
            f'{built.n_mels}; give --frontend, such as --frontend="{default["name"]}(n_mels=...)"'
        )
    return spec, left


# number of classes -> label set: AudioSet's taggers and PretrainedSED's detectors
BY_NUMBER = {527: "audioset527", 447: "audioset_strong447"}


def choose_labels(given, classes: int, named):
    """The label set, and a note if the classes named by the checkpoint's folder are not used.

    The order is: the user's classes, the folder's classes, a set of `BY_NUMBER`, else a set with
    numbered names.
    """
    left = []
    if named is not None and given is not None and named.ids != given.ids:
        left = [f"id2label of {len(named)} classes: --labels was given"]
    if named is not None and given is None:
        if len(named) == classes:
            return named, []
        left = [f"id2label of {len(named)} classes: the weights have {classes}"]
    if given is None and classes in BY_NUMBER:
        return labels.get(BY_NUMBER[classes]), left
    if given is None:
        ids = [f"class_{i:0{len(str(classes - 1))}d}" for i in range(classes)]
        names = tuple(i.replace("_", " ") for i in ids)
        return labels.LabelSet(f"numbered{classes}", tuple(ids), names), left
    if len(given) != classes:
        raise AsjaxError(f"--labels {given.name} has {len(given)} classes, the model has {classes}")
    return given, left


def _kept(skipped: dict) -> dict:
    """The skipped entries that are arrays; they are stored so that `asjax export` loses nothing."""
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
    parser.add_argument("--family", help="model family (default: detected from the names)")
    parser.add_argument("--variant", help="its variant (default: detected from the shapes)")
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a model field that cannot be read from the file, such as stride=10",
    )
    parser.add_argument(
        "--prefix",
        default="",
        help="which weights to take if the file holds several sets: the prefix of their names, or "
        "the key above them, such as net_swa or model_ema",
    )
    parser.add_argument(
        "--head",
        default="",
        help="the linear layer outside the model that gives its classes, such as fc_transfer; "
        "own: the model's own head (default: a layer with a classifier's name, if there is one)",
    )
    parser.add_argument(
        "--labels",
        help="the classes in order: a CSV file or a known set (default: chosen by their number)",
    )
    parser.add_argument("--frontend", help="the features, NAME(field=value) (default: the model's)")
    parser.add_argument(
        "--clip-s", type=float, help="seconds of audio per clip (default: the model's input length)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")


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
        prefix=args.prefix,
        head=args.head,
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
    fields = ", ".join(f"{k}={v!r}" for k, v in done["frontend"].items() if k != "name")
    lines = [
        f"checkpoint   {done['checkpoint']}",
        *_choice(done["chosen"], done["parameters"]),
        f"matched      {len(done['matched'])} arrays, {values:,} numbers",
        *_skipped(done["skipped"]),
        f"frontend     {done['frontend']['name']}({fields}), {done['clip_s']:g} s at a time",
        f"labels       {done['label_set'].name}, {len(done['label_set'])} classes",
        *(f"not taken    {line}" for line in done["not_taken"]),
    ]
    row = done["row"]
    if row is not None:
        lines.append(f"published    {row.claim}; licence of the weights: {row.licence}")
        sha256 = done["sha256"].get(done["checkpoint"], "")
        if row.sha256 and not sha256.startswith(row.sha256):
            lines.append(f"             WARNING: this is another file, its SHA-256 is {sha256}")
    return "\n".join(
        [
            *lines,
            f"fingerprint  {done['fingerprint']}",
            f"written      {done['path']}",
            f"try it:      asjax tag YOUR_FILE.wav --model={done['path']}",
        ]
    )


def _choice(chosen, parameters: int) -> list[str]:
    """Report lines: which weights were taken, and what else the file holds."""
    lines = [f"model        {chosen.found}, {parameters:,} parameters"]
    if chosen.part.prefix or chosen.others:
        lines.append(f"weights      below {chosen.part.prefix or 'no prefix'}")
    for other in chosen.others:
        lines.append(f"             also there: {other.prefix}; --prefix={other.prefix} takes it")
    for one in chosen.found.unsure:
        fields = " ".join(f"--field={k}={v}" for k, v in one.items())
        lines.append(f"             its position embeddings would also fit {fields}")
    if chosen.head:
        lines.append(f"head         {chosen.head[0]}, instead of {chosen.head[1]}")
    if chosen.outside:
        names = list(chosen.outside)
        more = f" and {len(names) - 3} more arrays" if len(names) > 3 else ""
        lines.append(f"outside      {', '.join(names[:3])}{more}")
    return lines


def _skipped(skipped: dict) -> list[str]:
    """Report lines: the model's entries that are not used, grouped by reason."""
    reasons: dict[str, list] = {}
    for key, (value, why) in skipped.items():
        reasons.setdefault(why, []).append((key, np.shape(value)))
    lines = []
    for why, entries in reasons.items():
        names = ", ".join(f"{key} {shape}" for key, shape in entries[:3])
        more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
        lines.append(f"skipped      {len(entries)} ({why}): {names}{more}")
    return lines or ["skipped      nothing"]
