"""`asjax port`: a public checkpoint becomes a model directory, for `asjax.load`, `tag` and `eval`.

    asjax port Cnn6_mAP=0.343.pth --to=models/cnn6
    asjax port passt_s_swa_p16_128_ap476 --to=models/passt
    asjax port MIT/ast-finetuned-audioset-10-10-0.4593 --to=models/ast

Nothing in the file is run (`torch_file`), and nothing is written unless every weight of the model
is there exactly once.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from asjax import build, labels
from asjax.config import AsjaxError, parse_value, split_spec
from asjax.store import files
from asjax.store.model_dir import save_model
from asjax.weights import hub_config, locate, published


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
      What was done: checkpoint, chosen (`choose.Chosen`), matched, skipped, label_set, frontend,
      not_taken, fingerprint (SHA-256 of the weights), path.

    Raises:
      AsjaxError: nothing was written; one line says why, all misfits of the weights together.
    """
    from asjax.weights import port

    to = _free(Path(to), overwrite)
    if label_set is not None:
        label_set = labels.get(label_set)
    place, value, sums = locate.read(path_or_name, progress=progress)
    said = hub_config.read(place.configs, place.name)
    known = dict(prefix=prefix, head=head, family=family, variant=variant, fields=fields)
    chosen, default = _choose(place, value, known, said.fields)
    family, variant, fields, *_ = chosen.found
    match = port.match(family, variant, chosen.weights, **fields)
    module = match.module
    spec, left = _frontend(default, module, _given(frontend), said.features)
    built = build.make("frontend", spec)
    clip_s = clip_s or (place.row and place.row.clip_s) or clip_seconds(module, built)
    label_set, more = _label_set(label_set, module.num_classes, said.label_set)
    left += [f"{k}={v}: the weights say otherwise" for k, v in chosen.hints.items()]
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
        "not_taken": [*place.notes, *said.not_taken, *left, *more],
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


def _choose(place, value, known: dict, hints: dict):
    """(the chosen model, its frontend's spec by default): as published where this file is, else
    found by names and shapes.

    Raises:
      AsjaxError: it fits no model, or is no tagger.
    """
    from asjax import models
    from asjax.weights import choose

    row, default = place.row, None
    if row in published.STARTS:
        raise AsjaxError(
            f"{row.name} is {'an image model' if row.source == 'imagenet' else 'a backbone'} to "
            f"start a training from, not a tagger; in a config: init_from='{row.source}:{row.name}'"
        )
    if row is not None and all(known[k] in (None, getattr(row, k)) for k in ("family", "variant")):
        default, fields = row.frontend, {**row.fields, **(known["fields"] or {})}
        known = {**known, "family": row.family, "variant": row.variant, "fields": fields}
    try:
        chosen = choose.choose(value, **known, hints=hints)
    except AsjaxError as error:
        raise AsjaxError(f"{place.path}: {error}") from None
    if chosen.found.fields.get("num_classes") == 0:
        raise AsjaxError(
            f"{place.path.name} has no head, so it is no tagger: it is a {chosen.found.family} to "
            f"start a training from; in a config: init_from='backbone:{place.path}'"
        )
    return chosen, default or models.family(chosen.found.family).FRONTENDS[chosen.found.variant]


def _record(done: dict) -> dict:
    """What card.json says of the checkpoint."""
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


def _given(frontend) -> dict | None:
    """The frontend's spec that a user gave."""
    if not frontend:
        return None
    name, fields = split_spec(frontend)
    return {"name": name, **fields}


def _frontend(default: dict, module, given, features=None) -> tuple[dict, list[str]]:
    """The frontend's spec, and what of `features` it has no field for.

    It is the one given, or the variant's with the features that the checkpoint's folder states,
    for as many bins and frames as the module takes.
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
            f"the model takes {module.n_mels} mel bins, its frontend {default['name']} gives "
            f'{built.n_mels}: give --frontend, such as --frontend="{default["name"]}(n_mels=...)"'
        )
    return spec, left


def _label_set(given, classes: int, said):
    """The classes, and what was not taken of those that the checkpoint's folder names.

    They are those given, those of the folder, AudioSet's for 527, else a set that only counts.
    """
    left = []
    if said is not None and given is not None and said.ids != given.ids:
        left = [f"id2label of {len(said)} classes: --labels was given"]
    if said is not None and given is None:
        if len(said) == classes:
            return said, []
        left = [f"id2label of {len(said)} classes: the weights have {classes}"]
    if given is None and classes == 527:
        return labels.get("audioset527"), left
    if given is None:
        ids = [f"class_{i:0{len(str(classes - 1))}d}" for i in range(classes)]
        names = tuple(i.replace("_", " ") for i in ids)
        return labels.LabelSet(f"numbered{classes}", tuple(ids), names), left
    if len(given) != classes:
        raise AsjaxError(f"--labels {given.name} has {len(given)} classes, the model {classes}")
    return given, left


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
        "--prefix",
        default="",
        help="which weights of a file that holds several: the beginning of their names, or the "
        "name of what they lie under, such as net_swa or model_ema",
    )
    parser.add_argument(
        "--head",
        default="",
        help="the linear layer beside the model that gives its classes, such as fc_transfer; "
        "own: the model's own (default: the one that is called like a head, if there is one)",
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
            lines.append(f"             BUT this is another file: its SHA-256 is {sha256}")
    return "\n".join(
        [
            *lines,
            f"fingerprint  {done['fingerprint']}",
            f"written      {done['path']}",
            f"try it:      asjax tag YOUR_FILE.wav --model={done['path']}",
        ]
    )


def _choice(chosen, parameters: int) -> list[str]:
    """Which weights were taken of the file, and what else lies in it."""
    lines = [f"model        {chosen.found}, {parameters:,} parameters"]
    if chosen.part.prefix or chosen.others:
        lines.append(f"weights      those below {chosen.part.prefix or 'no prefix'}")
    for other in chosen.others:
        lines.append(f"             also there: {other.prefix}; --prefix={other.prefix} takes it")
    for one in chosen.found.unsure:
        fields = " ".join(f"--field={k}={v}" for k, v in one.items())
        lines.append(f"             its positions would also allow {fields}")
    if chosen.head:
        lines.append(f"head         {chosen.head[0]}, in the place of {chosen.head[1]}")
    if chosen.outside:
        names = list(chosen.outside)
        more = f" and {len(names) - 3} arrays more" if len(names) > 3 else ""
        lines.append(f"outside      {', '.join(names[:3])}{more}")
    return lines


def _skipped(skipped: dict) -> list[str]:
    """The entries of the model's own that it has no use for, by reason."""
    reasons: dict[str, list] = {}
    for key, (value, why) in skipped.items():
        reasons.setdefault(why, []).append((key, np.shape(value)))
    lines = []
    for why, entries in reasons.items():
        names = ", ".join(f"{key} {shape}" for key, shape in entries[:3])
        more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
        lines.append(f"skipped      {len(entries)} ({why}): {names}{more}")
    return lines or ["skipped      nothing"]
