"""The options `--data`, `--model`, ... of `asjax train` and `asjax finetune`, and their config."""

from __future__ import annotations

from asjax import build, config, recipes
from asjax.config import AsjaxError
from asjax.own import data

_READ = {  # option -> keyword of data.read
    "audio": "audio_root",
    "columns": "columns",
    "label_separator": "label_separator",
    "splits": "splits",
    "labels": "label_name",
}
_NAMED = 12  # classes that are named when a run begins
_NUMBERS = ("epochs", "clip_s", "lr", "batch_size", "seed")


def add_data(parser, required: bool = False):
    """The options that say which clips, and what their labels mean."""
    parser.add_argument(
        "--data",
        required=required,
        metavar="CSV|FOLDER|SOURCE",
        help="your clips: a CSV of file names and labels, a folder of class folders, records of "
        "asjax prepare, or a source such as \"records(path='data/mine')\". Splits named train, "
        "dev (val, valid, eval) and test are used as such, fold1 to foldK as K - 2 to train, one "
        "to choose the step and one to test; without splits 1 in 5 recordings evaluates",
    )
    parser.add_argument("--audio", metavar="DIR", help="folder of the files in the CSV")
    parser.add_argument("--columns", help="columns of the CSV, e.g. file=path,labels=species")
    parser.add_argument("--label-separator", help="between the labels of a clip (default ;)")
    parser.add_argument("--splits", help="which split is which, e.g. train=a+b,eval=c,test=d")
    parser.add_argument(
        "--labels",
        help="own (default): the classes are the labels of the data; or a label set such as "
        "audioset527",
    )


def add_training(parser):
    """The options that change the default recipe."""
    parser.add_argument("--epochs", type=float, help="passes over the training clips")
    parser.add_argument("--steps", type=int, help="training steps, in place of --epochs")
    parser.add_argument("--lr", type=float, help="largest learning rate")
    parser.add_argument("--batch-size", type=int, help="clips per step (default 32)")
    parser.add_argument("--seed", type=int, help="seed of everything random (default 0)")


def read(args) -> data.Data:
    """The clips of the options."""
    chosen = {_READ[name]: getattr(args, name) for name in _READ if getattr(args, name)}
    return data.read(args.data, **chosen)


def given(args) -> dict:
    """The arguments of configs/own.py that the command line gives. AsjaxError: out of range."""
    values = {"data": args.data}
    for name in (*_READ, "model", *_NUMBERS):
        if (value := getattr(args, name, None)) is not None:
            values[name] = value
    for name, most in (("epochs", 1e9), ("clip_s", 3600), ("lr", 1e9), ("batch_size", 2**20)):
        if name in values and not 0 < values[name] <= most:
            option, got = "--" + name.replace("_", "-"), values[name]
            raise AsjaxError(f"{option} must be a number above 0 and up to {most:g}, got {got}")
    if args.multilabel:
        values["multilabel"] = True
    if args.epochs is not None and args.steps is not None:
        raise AsjaxError("give either --epochs or --steps")
    if args.steps is not None and args.steps < 1:
        raise AsjaxError(f"--steps must be 1 or more, got {args.steps}")
    return values


def recipe(args):
    """The unlocked config of configs/own.py for the options."""
    cfg = config.read(str(recipes.path_of("own")), given(args))
    if args.steps is not None:
        set_steps(cfg, args.steps)
    return cfg


def set_steps(cfg, steps: int) -> None:
    """Let a config train for so many steps."""
    cfg.total_steps, cfg.total_epochs = steps, 0.0
    cfg.optim.schedule = f"cosine(warmup_steps={steps // 10})"


def load(args, say=print):
    """The complete, locked config of `asjax train`: from --config or from --data.

    Raises:
      AsjaxError: both or none of them, or as `build.load`.
    """
    if bool(args.config) == bool(args.data):
        raise AsjaxError(
            "give --config=FILE, or --data with a CSV or a folder of clips"
            + (", not both" if args.config else "")
        )
    if args.config:
        names = (*_READ, "model", *_NUMBERS, "steps")
        if odd := [name for name in names if getattr(args, name) is not None]:
            raise AsjaxError(
                f"--{odd[0].replace('_', '-')} belongs to --data; with --config give "
                "--config.FIELD=VALUE or an argument of the recipe (asjax configs list)"
            )
        if note := recipes.resolve(args.config)[1]:
            say(note)
        return build.load(args.config, args.overrides)
    cfg = build.finished(recipe(args), args.overrides, "--data")
    for line in described(args, cfg):
        say(line)
    return cfg


def described(args, cfg) -> list[str]:
    """What was decided about the clips, as lines; the same as in the config."""
    own = read(args)
    kind = "one label per clip" if own.single else "any number of labels per clip"
    kind = "events in time" if own.detects else kind
    names = ", ".join(config.shown(name) for name in own.label_set.names[:_NAMED])
    more = ", ..." if len(own.label_set) > _NAMED else ""
    return [
        *own.lines,
        f"labels: {len(own.label_set)} classes ({own.labels}), {kind}: {names}{more}",
        f"clips: {cfg.data.clip_s:g} s at {cfg.data.sample_rate} Hz; {cfg.model.name} "
        f"{cfg.model.get('variant', '')}",
    ]
