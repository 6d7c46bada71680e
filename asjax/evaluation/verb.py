"""`asjax eval`: scores of a model or an ensemble on data, then metrics and a report."""

from __future__ import annotations

import math
from pathlib import Path

from asjax import hlp, labels
from asjax.config import TRUST, AsjaxError, counted, shown, trust_named
from asjax.evaluation import averages, detection, evaluate, mean, one_label, restrict
from asjax.store import logits, model_dir
from asjax.store.scores import load_scores, save_scores
from asjax.weights import hub

_MORE = """more examples:
  asjax eval --model=runs/a --model=runs/b --weights 2,1       the mean of their logits
  asjax eval --model=teacher --model=runs/a --data clips.csv   stored logits as a member

exit codes: 0 every readable clip is scored; 1 some clips have no stored logits, metrics.json names
them; 2 an error."""


def add_arguments(parser):
    parser.epilog = f"{parser.epilog}\n\n{_MORE}"
    parser.add_argument(
        "--model",
        action="append",
        help="model folder written by training, a repository org/name of the Hugging Face Hub, a "
        "published checkpoint such as cnn14, or a folder of asjax logits, which has the logits "
        "of the clips of --data; several: an ensemble",
    )
    parser.add_argument(
        "--data",
        action="append",
        help="data to score, e.g. \"esc10(splits=['fold5'])\", \"folder(csv='x.csv', "
        "root='audio')\", a folder of records, a CSV of clips and labels, a list of events beside "
        "its audio, or a folder of class folders; repeatable (default: the evaluation set of the "
        "model's config). Data with events in time also gives PSDS and event F1, if the model has "
        "frame scores. Records with other classes are scored zero-shot on the shared classes",
    )
    parser.add_argument(
        "--scores",
        action="append",
        help="a scores.npz to evaluate instead of running a model; several: an ensemble",
    )
    parser.add_argument(
        "--frames",
        action="append",
        metavar="DIR",
        help="a folder of frame scores, such as eval/frames of a run, to evaluate instead of "
        "running a model; several: an ensemble",
    )
    parser.add_argument(
        "--average",
        choices=("logits", "probabilities", "weights"),
        help="what an ensemble averages (default: logits); asjax soup keeps averaged weights",
    )
    mean.add_options(parser)
    parser.add_argument("--labels", help="label set of the --data folder, if it is not the model's")
    parser.add_argument(
        "--out",
        help="folder for the results (default: eval beside the model, or here for a model of the "
        "Hub; eval-NAME with --data; -ensemble is added for several models; with --scores or "
        "--frames: the folder where these are; for the frames of a run, eval-frames beside its "
        "eval)",
    )
    parser.add_argument(
        "--restrict-to",
        action="append",
        metavar="LIST",
        help="score only the clips of a list: eval_manifest.csv of asjax prepare, lines of ids, a "
        "scores.npz of another model, or records; repeatable: the clips that all of them have",
    )
    parser.add_argument("--batch-size", type=int, default=None, help="clips per batch")
    parser.add_argument("--clip-s", type=float, help="seconds of each clip (default: the model's)")
    parser.add_argument(
        "--mapping",
        action="append",
        help="also report the classes of this label set, e.g. esc10 or fsd50k200; repeatable",
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="resamples for the intervals; 0: none"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the resamples")
    parser.add_argument("--trust", **TRUST)


def main(args) -> int:
    if sum(map(bool, (args.model, args.scores, args.frames))) != 1:
        raise AsjaxError("give either --model=DIR or --scores=FILE.npz, or --frames=DIR")
    if args.clip_s is not None and not 0 < args.clip_s < math.inf:
        raise AsjaxError(f"--clip-s must be a number of seconds above 0, got {args.clip_s}")
    if args.out is not None:
        _check_out(args.out)
    trust_named(args.trust)
    args.wanted = None
    if args.restrict_to:
        if args.frames:
            raise AsjaxError("--restrict-to needs --model or --scores, not --frames")
        args.wanted = restrict.Wanted(args.restrict_to)
    if args.model:
        return _main_models(args)
    return _main_scores(args) if args.scores else _main_frames(args)


def _weights(args) -> list[float] | None:
    given = mean.numbers(args.weights)
    members = args.model or args.scores or args.frames
    return None if given is None else mean.weights(given, len(members))


def _check_out(out: str) -> None:
    """Raise AsjaxError if the results cannot go there, before anything is scored."""
    path = Path(out)
    if not out.strip() or (path.exists() and not path.is_dir()):
        raise AsjaxError(f"--out must be a folder, got {shown(out) or 'nothing'}; choose another")
    if (path / model_dir.FILES[-1]).exists():
        raise AsjaxError(f"--out {shown(out)} is a model folder; choose another")
    if logits.is_folder(path):
        raise AsjaxError(f"--out {shown(out)} holds stored logits; choose another")


def _stored(args, paths, option: str):
    """The first path, the results' folder and the name of its run; checks the other options."""
    if args.data or args.labels or args.clip_s:
        raise AsjaxError(f"--data, --labels and --clip-s need --model, not {option}")
    first, several = Path(paths[0]), len(paths) > 1
    if args.average and (not several or args.average == "weights"):
        raise AsjaxError(f"--average={args.average} needs several --model, or another average")
    folder = first.resolve().parent
    run = folder.parent.name if folder.name.startswith("eval") else folder.name
    beside = first.parent
    if option == "--frames" and (beside / "events.json").is_file():
        beside = beside.with_name(f"{folder.name}-frames")  # the run's own page knows more
    out = Path(args.out or (beside / "ensemble" if several else beside))
    return first, out, run


def _main_scores(args) -> int:
    first, out, run = _stored(args, args.scores, "--scores")
    if args.wanted is not None:
        out = out if args.out else out / "restricted"
        loaded = load_scores(first)
        if len(args.scores) > 1:
            loaded = averages.average_files(args.scores, args.average or "logits", _weights(args))
        save_scores(out / "scores.npz", **args.wanted.scores(loaded))
        return _finish(args, out / "scores.npz", out, mappings=args.mapping, record={"run": run})
    if len(args.scores) == 1:
        return _finish(args, first, out, mappings=args.mapping, record={"run": run})
    averaged = averages.average_files(args.scores, args.average or "logits", _weights(args))
    save_scores(out / "scores.npz", **averaged)
    return _finish(args, out / "scores.npz", out, mappings=args.mapping)


def _main_frames(args) -> int:
    from asjax.evaluation import detection_sets, detections

    if args.mapping:
        raise AsjaxError("--mapping needs --model or --scores, not --frames")
    _, out, run = _stored(args, args.frames, "--frames")
    opened = [detections.stored(path) for path in args.frames]
    label_set = opened[0][1].label_set
    for (_, folder), path in zip(opened, args.frames, strict=True):
        labels.check_hash(label_set.hash, folder.label_set.hash, f"the frame scores in {path}")
    members, several = [found for found, _ in opened], len(opened) > 1
    kind = args.average or "logits"
    found = detection_sets.averaged(members, kind, args.frames, _weights(args))
    record = {} if several else {"run": run}
    _finish_events(args, found, out, label_set=label_set, record=record, write_frames=several)
    return 0


def _main_models(args) -> int:
    from asjax.evaluation import data_specs, listen, scoring
    from asjax.store import log

    named, args.model = hub.slug(args.model[0]), hub.local(args.model)
    models = scoring.Models(args.model, args.average, args.batch_size, _weights(args), args.rest)
    wanted = [data_specs.data_spec(text) for text in args.data or ()]
    folder = Path(args.model[0]).resolve()  # a model folder, the workdir of a run, or logits
    beside = folder if (folder / "model" / "card.json").is_file() else folder.parent
    if named:  # results never go into a cache
        beside, folder = Path.cwd(), folder.with_name(named)
    single, stored = len(args.model) == 1, logits.is_folder(folder)
    run = folder.name if stored or named else beside.name
    lost = 0
    for i, (spec, name) in enumerate(wanted or [(models.own_data(), "")]):
        own = folder.name if stored or named else ""
        kind = ["restricted" if args.wanted else "", "" if single else "ensemble"]
        parts = ["eval", own, name, *kind]
        out = Path(args.out) if args.out else beside / "-".join(filter(None, parts))
        if len(wanted) > 1:
            out = out.with_name(f"{out.name}-{i + 1}")
        how = dict(clip_s=args.clip_s, data_labels=args.labels, wanted=args.wanted)
        about = models.score(spec, out, **how)
        lost += len(models.lost)
        for note in models.notes:
            print(note)
        zero_shot = about.get("zero_shot")
        strict = models.cfg.get("labels", {}).get("strict", False)
        if zero_shot:
            print(
                f"zero-shot    {zero_shot['shared']} of {zero_shot['of']} classes of "
                f"{zero_shot['label_set']}; not in the model: {', '.join(zero_shot['left_out'])}"
            )
        common = {
            "history": log.read_jsonl(beside / "train.jsonl") if single and not named else None,
            "record": {
                **_about_model(models, spec, about),
                "run": run if single else f"ensemble of {len(args.model)} models",
            },
            "listen": listen.listener(models.source),
        }
        if models.found is not None:
            _models_events(args, models, out, about, common)
        elif about.get("events"):
            print(f"no events    {about['events']}, so only tags are evaluated")
        _finish(
            args,
            out / "scores.npz",
            out,
            closure=None if zero_shot else hlp.closure_if_known(models.label_set, strict),
            mappings=args.mapping or _mappings(models.cfg, spec, own_data=not wanted),
            **common,
        )
    return 1 if lost else 0


def _models_events(args, models, out, about, common) -> None:
    """The evaluation of the events of a scored data set."""
    zero_shot, notes = about.get("zero_shot"), []
    if about["in_windows"]:
        notes.append(
            f"In half-overlapping windows: {counted(about['in_windows'], 'recording')} longer than "
            f"{about['clip_s']:g} s."
        )
    if about["cut"]:
        notes.append(
            f"With its end cut: {counted(about['cut'], 'recording')} a little longer than "
            f"{about['clip_s']:g} s."
        )
    for note in notes:
        print(note)
    if zero_shot and zero_shot["left_out"]:  # already printed
        notes.append(f"Classes that the model does not have: {', '.join(zero_shot['left_out'])}.")
    stored = None if zero_shot else models.decoding
    on = stored.get("tuned_on") if isinstance(stored, dict) else None
    if isinstance(on, dict) and on.get("hash") == about["hash"]:
        stored = None  # it was tuned on these clips, so its numbers would be too good
    _finish_events(
        args,
        models.found,
        out,
        label_set=models.scored_labels,
        stored=stored,
        numbers=models.numbers,
        about={"notes": notes, **({"zero_shot": zero_shot} if zero_shot else {})},
        **common,
    )


def _finish_events(args, found, out, **about) -> None:
    options = {"n_bootstrap": args.bootstrap, "seed": args.seed}
    summary = detection.evaluate(found, out, **options, **about)
    print(detection.table(summary))
    print(f"events       {out / 'events.html'}")
    print(f"metrics      {out / 'events.json'}, per_class_events.csv; scores {out / 'frames'}\n")


def _about_model(models, spec, about) -> dict:
    """The record of the models, with the data that was scored now instead of that of the training.

    `evaluated_on` says whether the model's config has this data as "eval", on which its step was
    chosen, or as "test". The baseline stays only if it was measured on this data.
    """
    record, data = {**models.record}, models.cfg.get("data") or {}
    measured = record.pop("test_data", None) or record.get("eval_data") or {}
    if measured.get("hash") != about["hash"]:
        record.pop("baseline", None)
    role = next((role for role in ("eval", "test") if data.get(role) == spec), "other")
    return {**record, "eval_data": about, "evaluated_on": role}


def _mappings(cfg, spec, own_data: bool):
    """The default mappings: from the config, or the data set's own label set."""
    if own_data:
        return cfg.get("eval", {}).get("mappings")
    return [spec["name"]] if spec["name"] in labels.KNOWN else None


def _finish(args, scores, out, **about) -> int:
    summary = evaluate.evaluate_scores(
        scores, out, n_bootstrap=args.bootstrap, seed=args.seed, **about
    )
    print(evaluate.table(summary))
    data = summary["data"]
    audio = f", with their audio {data['content'][:12]}" if data["content"] else ""
    print(f"clips        {data['clips']:,}, their ids have the hash {data['ids'][:12]}{audio}")
    for wanted in map(labels.get, args.mapping or ()):
        if wanted.name not in summary["views"]:
            print(f"mapping      {wanted.name}: the model has none of its classes")
    if summary["left_out_clips"]:
        left_out = counted(len(summary["left_out_clips"]), "clip")
        print(f"left out     {left_out} that could not be scored")
    print(f"report       {out / 'report.html'}")
    print(f"metrics      {out / 'metrics.json'}, {one_label.tables(summary)}; scores {scores}")
    return 0
