"""`asjax logits`: store the logits of models on data, join shards, read and write others' files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from asjax.config import TRUST, AsjaxError, counted, shown, trust_named

_MORE = """more examples:
  asjax logits runs/a runs/b --data train.csv --frames --out teacher --shard 1/4
  asjax logits merge teacher-1 teacher-2 teacher-3 teacher-4 --out teacher
  asjax logits import ensemble.hdf5 --form pretrainedsed --labels audioset_strong447 --out teacher
  asjax logits import logits.npy fname_to_index.pkl --form efficientat --data as2m --out teacher
  asjax logits export teacher --form pretrainedsed --out ensemble.hdf5
  asjax logits check teacher --data train.csv

exit codes: 0 every clip has logits; 1 some clips have none, missing.csv names them; 2 an error."""
ACTIONS = ("merge", "import", "export", "check")
FORMS = ("pretrainedsed", "efficientat", "ced")  # as forms.FORMS, which needs numpy


def add_arguments(parser):
    parser.epilog = f"{parser.epilog}\n\n{_MORE}"
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="MODEL",
        help="model folders; several: the mean of their logits. Or merge, import, export or check, "
        "then files",
    )
    parser.add_argument(
        "--data",
        help='the clips: a source such as "esc10()", records, a CSV, a folder of classes; without '
        "labels a folder of audio or a list of files",
    )
    parser.add_argument("--out", help="folder for the logits (export: the file to write)")
    parser.add_argument("--overwrite", action="store_true", help="replace other logits in --out")
    parser.add_argument("--labels", help="label set of the data (import: of the columns)")
    parser.add_argument(
        "--dtype", choices=("float16", "float32"), help="of stored logits (default: float16)"
    )
    run = parser.add_argument_group("logits of models")
    run.add_argument("--frames", action="store_true", help="also the logits of frames (detectors)")
    run.add_argument("--top", type=int, help="store only the TOP highest logits of each clip")
    run.add_argument("--weights", help="one weight for each model, such as 1,2,1 (default: equal)")
    run.add_argument("--shard", help="part i/N of the clips, such as 1/4; asjax logits merge joins")
    run.add_argument("--views", type=int, help="views of each clip, by random host ops")
    run.add_argument("--seed", type=int, help="seed of the views (default: 0)")
    run.add_argument("--ops", help="chain of host ops (default: that of the first model's config)")
    run.add_argument("--batch-size", type=int, help="clips per batch")
    run.add_argument("--trust", **TRUST)
    files = parser.add_argument_group("files of others")
    files.add_argument("--form", choices=FORMS, help="whose form the file has")
    files.add_argument(
        "--no-check", action="store_true", help="take logits that do not fit the labels of the data"
    )


_TAKES = {  # action -> its options
    "run": ("data", "out", "overwrite", "labels", "frames", "top", "weights", "shard", "views")
    + ("seed", "ops", "batch_size", "trust", "dtype"),
    "merge": ("out", "overwrite"),
    "import": ("data", "out", "overwrite", "labels", "form", "no_check", "dtype"),
    "export": ("out", "overwrite", "form"),
    "check": ("data", "labels", "no_check"),
}
_NEEDS = {
    "run": ("data", "out"),
    "merge": ("out",),
    "import": ("out", "form"),
    "export": ("out", "form"),
    "check": (),
}


def main(args) -> int:
    action = args.paths[0] if args.paths[0] in ACTIONS else "run"
    paths = args.paths if action == "run" else args.paths[1:]
    name = "asjax logits" if action == "run" else f"asjax logits {action}"
    if not paths:
        raise AsjaxError(f"{name} needs a path after {action!r}")
    for option in {option for takes in _TAKES.values() for option in takes}:
        given = getattr(args, option) not in (None, False)
        if given and option not in _TAKES[action]:
            raise AsjaxError(f"--{option.replace('_', '-')} does not belong to {name}")
    for option in _NEEDS[action]:
        if not getattr(args, option):
            raise AsjaxError(f"{name} needs --{option}")
    if args.out and not Path(args.out).absolute().name:
        raise AsjaxError(f"--out must name a folder, got {shown(args.out)}")
    if args.out and not (parent := Path(args.out).absolute().parent).is_dir():
        raise AsjaxError(f"--out {shown(args.out)}: the folder {shown(parent)} does not exist")
    if args.out:
        from asjax.store import files

        files.prove_writable(parent, "the folder of --out")
    return {
        "run": _run,
        "merge": _merge,
        "import": _import,
        "export": _export,
        "check": _check,
    }[action](paths, args)


# ------------------------------------------------------------------------------ logits of models


def _run(paths, args) -> int:
    from asjax.store import model_dir
    from asjax.weights import hub

    paths = hub.local(paths)
    for path in paths:
        if not Path(path).is_dir():
            model_dir.refuse_file(Path(path))
            near = "" if Path(path).exists() else f", nor one of {', '.join(ACTIONS)}"
            raise AsjaxError(f"{shown(path)} is no model folder{near}")
    shard = _shard(args.shard)
    views = _views(args)
    if args.batch_size is not None and args.batch_size < 1:
        raise AsjaxError(f"--batch-size must be 1 or more, got {args.batch_size}")
    trust_named(args.trust)
    from asjax.evaluation import mean
    from asjax.teachers import data, members, parts, run

    weights = mean.numbers(args.weights)
    batch_size = args.batch_size or 0
    models = members.Members(paths, weights, frames=args.frames, batch_size=batch_size)
    spec, why = data.spec_of(args.data, models.label_set)
    if spec["name"] == "annotated":  # the pieces of a training with these models
        spec = {"piece_s": models.clip_s, **spec}
    source, labelled = data.source_of(spec, args.labels, models.label_set)
    if why:
        _say(f"{counted(len(source), 'clip')} without labels: {why}")
    how = {"top": args.top, "dtype": args.dtype or "float16", "views": views, "ops": args.ops}
    job = run.Job(models, source, labelled=labelled, shard=shard, **how)
    out = Path(args.out).absolute()
    with parts.opened(out, job.settings(), job.form) as store:
        if not args.overwrite and store.finished():
            store.tidy()
            return _report(args.out, "already there")
        store.begin(args.overwrite)
        job.run(store)
        lost = job.coverage(store)
        if lost:  # never a clip less without a word
            raise RuntimeError(f"{len(lost)} clips have no logits, first {lost[0]}")
        if store.done and not any(part.rows for part in store.done):
            reason = store.done[0].missing[0][2]
            raise AsjaxError(f"no clip of {source.name} could be decoded; first: {reason}")
        store.finish(job.about(spec))
    if job.begin == job.end:
        batches = counted(job.steps, "batch", "batches")
        _say(f"--shard {args.shard} has no clip: the data have {batches}; the part is empty")
    how = f"{store.write_s:.1f} s of writing, of which {store.wait_s:.1f} s were not overlapped"
    return _report(args.out, how)


def _shard(text) -> tuple[int, int]:
    if text is None:
        return 1, 1
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    i, n = map(int, match.groups()) if match else (0, 0)
    if not 1 <= i <= n:
        raise AsjaxError(f"--shard must be i/N with i from 1 to N, such as 1/4, got {text!r}")
    return i, n


def _views(args):
    if args.views is None:
        if args.seed is not None:
            raise AsjaxError("--seed belongs to --views")
        return None
    if not 1 <= args.views <= 10_000:
        raise AsjaxError(f"--views must be 1 to 10,000, got {args.views}")
    if not 0 <= (args.seed or 0) < 2**63:
        raise AsjaxError(f"--seed must be 0 to 2^63 - 1, got {args.seed}")
    return args.views, args.seed or 0


def _report(out, how: str, check=None) -> int:
    """Print what a folder of logits holds; the exit code."""
    from asjax.store import logits, logits_check

    stored = logits.open(out)
    names = {"clip": "clips" if stored.top is None else f"clips (top {stored.top})"}
    if stored.frames is not None:
        names["frames"] = f"frames ({stored.frame_rate:g} per second)"
    what = " and ".join(names[kind] for kind in stored.kinds)
    views = f", {counted(stored.views['count'], 'view')} each" if stored.views else ""
    clips = counted(len(stored), "clip")
    print(f"logits       {clips}{views}, {stored.label_set.name}, of {what}; {how}")
    check = check or logits_check.own(stored)
    print(f"check        {check or 'none: the logits were stored without labels'}")
    if check and not check.good:
        _say("the logits fit the labels no better than chance; is the model trained?")
    cut = (stored.extra or {}).get("cut")
    if cut and not stored.views:
        one = "recording is" if cut == 1 else "recordings are"
        _say(f"{cut:,} {one} longer than the models hear; the logits are of the beginning")
    missing = stored.missing()
    if missing:
        clip, _, reason = missing[0]
        _say(
            f"{counted(len(missing), 'clip')} without logits, first {shown(clip)}: "
            f"{shown(reason)}; {out}/missing.csv has them all"
        )
    print(f"folder       {out}")
    return 1 if missing else 0


def _say(text) -> None:
    print(f"asjax logits: {text}", file=sys.stderr)


# --------------------------------------------------------------------------------- other actions


def _merge(paths, args) -> int:
    from asjax.teachers import merge

    merge.merge(paths, Path(args.out), overwrite=args.overwrite)
    return _report(args.out, f"from {counted(len(paths), 'folder')}")


def _import(paths, args) -> int:
    from asjax import labels
    from asjax.teachers import forms, take

    columns = labels.get(args.labels) if args.labels else None
    foreign = forms.read(args.form, paths, columns, args.dtype)
    source, labelled, about = None, False, {"form": args.form, "files": list(paths)}
    if args.data:
        source, labelled = _data(args.data, foreign.form.label_set)
    how = {"check": not args.no_check, "overwrite": args.overwrite}
    notes = take.take(foreign, args.out, about=about, source=source, labelled=labelled, **how)
    for note in notes:
        _say(note)
    return _report(args.out, f"from {args.form}")


def _export(paths, args) -> int:
    from asjax.store import logits
    from asjax.teachers import pretrainedsed

    if args.form != "pretrainedsed":
        raise AsjaxError("asjax logits export writes --form pretrainedsed only")
    if len(paths) != 1:
        raise AsjaxError(f"asjax logits export takes one folder of logits, got {len(paths)}")
    out = Path(args.out)
    if out.is_dir():
        raise AsjaxError(f"--out {shown(out)} must be a file, it is a folder; choose another name")
    if out.exists() and not (args.overwrite and out.is_file()):
        raise AsjaxError(f"--out {shown(out)} exists; add --overwrite, or choose another file")
    stored = logits.open(paths[0])
    pretrainedsed.write(stored, out)
    clips = counted(len(stored), "clip")
    print(f"logits       {clips}, {stored.label_set.name}\nfile         {out}")
    return 0


def _data(text: str, label_set):
    """The clips of `--data`, and whether their first classes are those of the label set."""
    from asjax.teachers import data

    spec, why = data.spec_of(text, label_set)
    source, labelled = data.source_of(spec, None, label_set)
    if why:
        _say(f"{counted(len(source), 'clip')} without labels: {why}")
    return source, labelled


def _check(paths, args) -> int:
    from asjax import labels
    from asjax.data import unlabelled
    from asjax.store import logits, logits_check

    worst = 0
    for path in paths:
        stored = logits.open(path, labels.get(args.labels) if args.labels else None, verify=True)
        stored.require_finite()
        if args.data:
            source, labelled = _data(args.data, stored.label_set)
            lost = [clip for clip in source.ids if clip not in stored]
            there = len(source) - len(lost)
            first = f"; first without: {shown(lost[0])}" if lost else ""
            have = f"logits for {there:,} of {counted(len(source), 'clip')} of {source.name}"
            print(f"data         {have}{first}")
            known = (source.labels, getattr(source, "events", None)) if labelled else (None, None)
            flags = unlabelled.flags_of(source)
            check = logits_check.against(stored, source.ids, *known, labelled=flags)
            worst = max(worst, int(bool(lost)))
        else:
            check = logits_check.own(stored)
        if check and not args.no_check:
            check.require(path)
        worst = max(worst, _report(path, "every file is sound", check))
    return worst
