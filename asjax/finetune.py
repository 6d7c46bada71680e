"""`asjax finetune`: a config for `asjax train` from a model folder and your own clips."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np

from asjax import build, config, train
from asjax.config import AsjaxError
from asjax.optim import groups
from asjax.own import options, parts
from asjax.store import model_dir
from asjax.weights import hub

HEAD_LR = 1e-2  # of --freeze all, a convex problem


def add_arguments(parser):
    parser.set_defaults(takes_fields=True)
    parser.add_argument(
        "--from",
        dest="model_dir",
        required=True,
        metavar="MODEL",
        help="a model folder, or the workdir of a finished run: its model, features, sample rate "
        "and clip length are taken. A head's row is taken for each class that MODEL has, too",
    )
    options.add_data(parser, required=True)
    parser.add_argument("--to", required=True, metavar="DIR", help="workdir; resumed if it exists")
    parser.add_argument(
        "--freeze",
        choices=groups.FREEZE,
        default="none",
        help="none (default): all weights are trained. all: only the head is trained; the rest "
        "stays as it is, with the statistics of its batch norms, and runs without dropout. head: "
        "the head keeps its rows and the rest is trained, for known classes on other sounds; "
        "MODEL must have every class",
    )
    parser.add_argument(
        "--layer-decay",
        type=float,
        default=1.0,
        metavar="X",
        help="multiply the learning rate by X per block, from the head downwards (default 1)",
    )
    options.add_training(parser)
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="K trainings, each on K - 1 parts of the clips, and the scores of the left-out parts "
        "together. A split named test is left out. No left-out part chooses a step: the last "
        "step counts",
    )
    parser.add_argument("--multilabel", action="store_true", help="as in asjax train")
    parser.add_argument("--allow-config-change", action="store_true", help="as in asjax train")
    parser.add_argument("--allow-data-change", action="store_true", help="as in asjax train")
    parser.add_argument("--cpu-devices", type=int, help="devices on CPU (default: one per core)")
    parser.add_argument_group(
        "config fields", "options such as --config.optim.clip_norm=0 override any field"
    )


def main(args) -> int:
    from asjax import devices

    groups.check(args.freeze, args.layer_decay)
    if args.folds is not None and args.folds < 2:
        raise AsjaxError(f"--folds must be at least 2, got {args.folds}")
    devices.setup(cpu_devices=args.cpu_devices)
    cfg = recipe(args)
    if args.folds:
        return _by_folds(cfg, args)
    cfg = build.finished(cfg, args.overrides, "asjax finetune")
    for line in options.described(args, cfg):
        print(line)
    code = train.run(cfg, _run(args, args.to))
    again = f"asjax train --config={Path(args.to) / 'config.json'} --workdir={args.to}"
    if code == train.EXIT_STOPPED:
        print(f"or resume with {again}")
    return code


def recipe(args):
    """The unlocked config: configs/own.py with the model and the features of `--from`."""
    theirs, label_set, _, _ = model_dir.load_model(hub.resolve(args.model_dir))
    model = {k: v for k, v in theirs["model"].items() if k != "num_classes"}
    if args.lr is None:
        tuned = parts.learning_rate(model, pretrained=True)
        args.lr = HEAD_LR if args.freeze == "all" else tuned
    if args.epochs is None and args.steps is None:
        args.epochs = parts.epochs(options.read(args).counts["train"], pretrained=True)
    args.model, args.clip_s = None, theirs["data"]["clip_s"]
    cfg = options.recipe(args)
    if args.freeze == "head":
        _check_known(options.read(args).label_set, label_set, args.model_dir)
    detects = cfg.objective.name == "detection"
    if detects and parts.frames_of(model) is None:
        raise AsjaxError(
            f"--data has events in time, and the model in {args.model_dir} gives no scores per "
            "frame; start from a detector (asjax models --published), or train one with asjax "
            "train --data"
        )
    cfg.model = model
    cfg.frontend = theirs["frontend"]
    cfg.data.sample_rate, cfg.data.clip_s = theirs["data"]["sample_rate"], theirs["data"]["clip_s"]
    if detects:
        frames = parts.frames_of(model)
        rate = frames / cfg.data.clip_s
        cfg.data.ops = f"decode | crop | strong(frames={frames}, frame_rate={rate!r})"
    else:
        masks = parts.masks(cfg.model, cfg.frontend, cfg.data.sample_rate, cfg.data.clip_s)
        cfg.augment.update(masks)
    cfg.optim.update(freeze=args.freeze, layer_decay=args.layer_decay)
    cfg.init_from = str(args.model_dir)
    return cfg


def _check_known(ours, theirs, model) -> None:
    """AsjaxError unless the other model has every class: a frozen row must not be random."""
    from asjax.weights import start

    known = {i for i, _ in start.shared(ours, theirs)}
    new = [name for i, name in enumerate(ours.names) if i not in known]
    if new:
        raise AsjaxError(
            f"--freeze head needs a model that has every class, and {model} lacks {len(new)} of "
            f"{len(ours)}, such as {config.quoted(new[0])}; a new row that stays random is of no "
            "use. Give --freeze none or all"
        )


def _run(args, workdir) -> argparse.Namespace:
    keys = ("allow_config_change", "allow_data_change", "multilabel")
    return argparse.Namespace(workdir=workdir, **{key: getattr(args, key) for key in keys})


# ------------------------------------------------------------------------------------- folds


def _by_folds(cfg, args) -> int:
    """K runs in DIR/fold1 to DIR/foldK, and the scores of all left-out clips in DIR/eval."""
    from asjax.evaluation import evaluate
    from asjax.store.scores import load_scores, save_scores

    to, count = Path(args.to), args.folds
    if cfg.objective.name == "detection":
        raise AsjaxError(
            "--folds joins scores of clips, and --data has events in time; leave it out"
        )
    made = fold_specs(options.read(args), count)
    print(f"folds: {count} trainings, in {to / 'fold1'} to {to / f'fold{count}'}")
    for number, specs in enumerate(made, 1):
        print(f"fold {number} of {count}", flush=True)
        one = copy.deepcopy(cfg)
        one.data.update(specs)
        if "test" in one.data:
            del one.data["test"]
        last_step_only(one)
        ready = build.finished(one, args.overrides, "asjax finetune")
        code = train.run(ready, _run(args, str(to / f"fold{number}")))
        if code:
            return code
    scored = [load_scores(to / f"fold{n}" / "eval" / "scores.npz") for n in range(1, count + 1)]
    left_out = [clip for one in scored for clip in (one["extra"] or {}).get("left_out", [])]
    pooled = {
        **scored[0],
        "ids": [clip for one in scored for clip in one["ids"]],
        **{k: np.concatenate([one[k] for one in scored]) for k in ("scores", "targets")},
        "extra": {"left_out": left_out},
        "content": None,
    }
    if all(one["content"] is not None for one in scored):
        pooled["content"] = np.concatenate([one["content"] for one in scored])
    save_scores(to / "eval" / "scores.npz", **pooled)
    record = {
        "run": f"{to.resolve().name}: {count} folds",
        "model": {key: cfg.model.get(key) for key in ("name", "variant")},
        "eval_data": {"name": str(args.data), "clips": len(pooled["ids"])},
        "seed": int(cfg.seed),
        "folds": count,
    }
    resamples = {"n_bootstrap": ready.eval.bootstrap, "record": record}
    summary = evaluate.evaluate_scores(to / "eval" / "scores.npz", to / "eval", **resamples)
    print(f"all {len(pooled['ids'])} clips, each scored by the model that was trained without it:")
    print(evaluate.table(summary))
    names = " ".join(f"--model {to / f'fold{n}'}" for n in range(1, count + 1))
    print(f"report      {to / 'eval' / 'report.html'}")
    print(f"the {count} models together on other clips: asjax eval {names} --data CLIPS")
    return 0


def fold_specs(own, count: int) -> list[dict]:
    """data.train and data.eval of each fold, over all clips but those of a test split.

    If the data have exactly so many folds of their own, these are used. Otherwise clips of one
    group are in one fold (asjax.data.groups).
    """
    spec = {k: v for k, v in own.specs["train"].items() if k not in ("splits", "folds", "of")}
    if len(own.folds) == count:
        names = list(own.folds)
    else:
        divided = [own.specs[role] for role in ("train", "eval")]
        used = {n for s in divided for n in (s.get("of", ()) if "folds" in s else s["splits"])}
        used |= set(own.folds)  # their last one is no test split here
        spec |= {"folds": count, **({"of": sorted(used)} if used else {})}
        names = [f"{'part' if used else 'fold'}{i + 1}" for i in range(count)]
    return [
        {
            "train": {**spec, "splits": [n for n in names if n != name]},
            "eval": {**spec, "splits": [name]},
        }
        for name in names
    ]


def last_step_only(cfg) -> None:
    """Evaluate after the last step only, so that the left-out clips choose nothing."""
    cfg.eval.patience = 0
    cfg.eval.select = "last"
    cfg.eval.baseline = False
    cfg.eval.every_steps = 10**9
    cfg.eval.every_epochs = 0.0
