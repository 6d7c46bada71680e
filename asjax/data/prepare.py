"""`asjax prepare`: audio and labels -> checked records (see `asjax.data.records`)."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from asjax import labels as label_sets
from asjax.config import AsjaxError, printable, shown
from asjax.data import enhance, scene_sets
from asjax.data.bulk import verb as bulk

_LISTED = 10
# name -> (help, help of its source, label set)
_SETS = {
    "esc50": ("ESC-50 from a copy of its repository", "meta/esc50.csv and audio/", "esc50"),
    "esc10": ("ESC-10 from a copy of ESC-50", "meta/esc50.csv and audio/", "esc10"),
    "urbansound8k": ("UrbanSound8K, ten folds", "metadata/UrbanSound8K.csv and audio/", "own"),
    "fsd50k": (
        "FSD50K: train, val, eval",
        "FSD50K.ground_truth/, FSD50K.dev_audio/ and FSD50K.eval_audio/",
        "fsd50k200",
    ),
    "desed": ("DESED: the parts that are there", "metadata/ and audio/", "desed10"),
    "hear": ("a task of HEAR from its tar", "as downloaded, perhaps .gz", "the task's own"),
}
_AT_ONCE = ("soundscapes", "enhance", "status")  # no units, so nothing to go on with
_STRONG_EXAMPLE = """examples:
  asjax prepare strong --events train=audioset_train_strong.tsv eval=audioset_eval_strong.tsv \\
      --durations eval_durations.csv --audio clips/ --out data/audioset_strong
  asjax prepare strong --events train=synthetic.tsv eval=validation.tsv --weak train=weak.tsv \\
      --labels desed10 --audio desed/ --out data/desed
  asjax prepare strong --events tracks/*.txt --labels own --audio recordings/ --out data/mine
"""


def add_arguments(parser):
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    folder = kinds.add_parser(
        "folder",
        help="a folder of audio with a CSV (filename,labels), or with a subfolder per class",
    )
    folder.add_argument(
        "--csv",
        default="",
        help="filename,labels[,fold][,group], or a published layout (default: none)",
    )
    folder.add_argument(
        "--audio", required=True, metavar="DIR", help="folder that filenames are relative to"
    )
    folder.add_argument(
        "--labels",
        default="audioset527",
        help="label set: audioset527, fsd50k200, esc50, a .csv, or own (default: audioset527)",
    )
    folder.add_argument("--label-separator", help="between labels (default: ; or the layout's)")
    folder.add_argument(
        "--split-column", default="", help="column of the splits (default: fold or split, if any)"
    )
    folder.add_argument(
        "--columns",
        default="",
        metavar="ROLE=NAME,...",
        help="names of the columns; roles: file, labels, split, group",
    )
    folder.add_argument(
        "--folds", type=int, default=0, metavar="N", help="make N splits that keep groups together"
    )
    folder.add_argument("--licence", default="", help="licence of the whole set, for the manifest")
    events = kinds.add_parser(
        "strong",
        help="audio with lists of events in time: AudioSet Strong, DESED, CSV, Audacity, Raven",
        epilog=_STRONG_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _strong_arguments(events)
    for kind in (folder, events, *map(partial(_set_parser, kinds), _SETS)):
        kind.add_argument("--out", required=True, metavar="DIR", help="record dataset to make")
        add_writer_arguments(kind)
    scene_sets.add_arguments(
        kinds.add_parser("soundscapes", help="scenes with known events, mixed from single sounds")
    )
    bulk.add_arguments(kinds)
    enhance.add_arguments(
        kinds.add_parser("enhance", help="add labels by the scores of a first model (PSLA)")
    )


def _set_parser(kinds, name: str):
    about, where, default = _SETS[name]
    parser = kinds.add_parser(name, help=about)
    if name == "hear":
        parser.add_argument("source", metavar="TASK.tar", help=where)
        parser.add_argument(
            "--rate", type=int, default=48_000, help="Hz, which of its folders (default: 48000)"
        )
    else:
        parser.add_argument("--source", required=True, metavar="DIR", help=where)
    parser.add_argument("--labels", default="", help=f"label set (default: {default})")
    parser.add_argument("--splits", default="", help="some of its splits, with commas")
    return parser


def _strong_arguments(parser):
    more = {"action": "extend", "nargs": "+", "metavar": "[SPLIT=]FILE"}
    parser.add_argument(
        "--events", required=True, **more, help="lists of events; the split is train if not given"
    )
    parser.add_argument(
        "--weak", default=[], **more, help="lists of filename and event_labels, without times"
    )
    parser.add_argument(
        "--audio", required=True, metavar="DIR", help="folder of the audio, with subfolders"
    )
    parser.add_argument(
        "--labels",
        default="audioset_strong456",
        help="label set: audioset_strong456, audioset_strong447, desed10, audioset527, a .csv, or "
        "own (default: %(default)s)",
    )
    parser.add_argument(
        "--label-column", default="", help="column of the class, if it has no usual name"
    )
    parser.add_argument(
        "--durations",
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE",
        help="lists of filename and seconds",
    )
    parser.add_argument(
        "--faults",
        choices=["repair", "refuse"],
        default="repair",
        help="faults of the lists: repair and report them, or stop (default: %(default)s)",
    )
    parser.add_argument("--licence", default="", help="licence of the whole set, for the manifest")


def add_writer_arguments(parser):
    """Add the options of `writer.write`, for every kind."""
    parser.add_argument(
        "--encode",
        choices=["ogg", "flac", "pcm16"],
        help="re-encode as mono; pcm16: int16 samples, fastest to read (default: bytes unchanged)",
    )
    parser.add_argument(
        "--sample-rate", type=int, metavar="HZ", help="resample to this rate; needs --encode"
    )
    parser.add_argument(
        "--compression",
        type=float,
        default=0.5,
        help="for --encode: 0 best quality (ogg) or fastest (flac) ... 1 smallest",
    )
    parser.add_argument("--threads", type=int, help="decoding threads (default: up to 8)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all CPUs)")
    parser.add_argument("--shard", metavar="i/N", help="the units of machine i of N, from 0")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset at --out")


def main(args) -> int:
    if args.kind in _AT_ONCE:
        return _kind(args)
    try:
        from asjax.data.bulk import engine, job
    except KeyboardInterrupt:  # nothing has begun, so all that was saved is there
        print("SIGINT: stopped; the same command goes on", flush=True)
        return 75  # engine.EXIT_STOPPED
    with engine.stoppable():
        try:
            return _kind(args)
        except engine.Stopped as stop:
            if args.kind == "merge":
                print(f"{stop}: stopped; all parts stay, the same command joins them", flush=True)
                return engine.EXIT_STOPPED
            return job.stopped(args.out, stop)


def _kind(args) -> int:
    kinds = {
        "folder": _folder,
        "strong": _strong,
        **dict.fromkeys(_SETS, _set),
        "soundscapes": _soundscapes,
        "enhance": enhance.main,
        "audioset": bulk.main,
        "merge": bulk.main,
        "status": bulk.main,
    }
    return kinds[args.kind](args)


def run(args, clips, label_set, **fields):
    """Write `clips` with the options in `args` and print how many were stored and left out.

    Clips with paths are written in units, so the same command goes on after a kill. Clips whose
    audio is made while they are written are written at once.

    Returns: a writer.Summary; None with --shard, which makes parts for `asjax prepare merge`.
    """
    from asjax.data import writer
    from asjax.data.bulk import job
    from asjax.data.clips import Encoding

    if args.sample_rate and not args.encode:
        raise AsjaxError("--sample-rate needs --encode ogg, flac or pcm16")
    encoding = None
    if args.encode:
        encoding = Encoding(args.encode, args.sample_rate, args.compression)
    if isinstance(clips, list) and not any(isinstance(clip.audio, bytes) for clip in clips):
        done = job.of_clips(args, clips, label_set, encoding, **fields)
        if done is None:
            return None
        summary, left = done
    else:
        options = {"encoding": encoding, "threads": args.threads, "overwrite": args.overwrite}
        summary = writer.write(args.out, clips, label_set, **options, **fields)
        left = len(summary.left_out)
    splits = ", ".join(f"{name} {n}" for name, n in summary.splits.items())
    print(
        f"kept {summary.clips} clips ({splits}), {summary.seconds / 3600:.2f} h, "
        f"{summary.bytes / 2**20:.1f} MiB; labels {label_set.name} {label_set.hash[:12]}"
    )
    print(f"left out {left}" + (":" if left else ""))
    for clip, reason in summary.left_out[:_LISTED]:
        print(f"  {shown(clip)}: {printable(reason)}")
    if left > _LISTED:
        report = summary.path / "report.csv"
        print(f"  ... all in {report if report.exists() else summary.path / 'manifest.json'}")
    print(f"wrote {summary.path}; use it as data \"records(path='{summary.path}')\"")
    return summary


def _folder(args) -> int:
    from asjax.data import groups, layouts, lists, sources
    from asjax.data.clips import Clip

    options = {"columns": layouts.parse_columns(args.columns)}
    options["label_separator"] = args.label_separator
    place = args.csv or args.audio
    if args.labels == "own":
        label_set = sources.own_labels(place, **options)
    else:
        label_set = label_sets.get(args.labels)
    options |= {"split_column": args.split_column, "missing_ok": True}
    rows = lists.read_folder(args.csv, args.audio, label_set, **options)
    splits = [f.row.split for f in rows]
    if args.folds:
        origin = [f.row.group or f"clip {f.row.filename}" for f in rows]
        table = sources.matrix([f.classes for f in rows], label_set)
        splits = groups.folds(origin, table, args.folds)
    clips = [
        Clip(
            f.row.filename,
            f.path,
            tuple(label_set.ids[i] for i in f.classes),
            split,
            group=f.row.group,
        )
        for f, split in zip(rows, splits, strict=True)
    ]
    run(args, clips, label_set, licence=args.licence, description=f"from {Path(place).name}")
    return 0


def _strong(args) -> int:
    from asjax.data import strong, strong_clips

    events, weak = ([_split_of(text) for text in texts] for texts in (args.events, args.weak))
    if args.labels == "own":
        label_set = strong.own_labels(
            [p for _, p in events], [p for _, p in weak], args.label_column
        )
    else:
        label_set = label_sets.get(args.labels)
    lists = strong_clips.clips(
        events,
        weak,
        args.audio,
        label_set,
        durations=args.durations,
        faults=args.faults,
        label_column=args.label_column,
    )
    print("\n".join(lists.lines))
    summary = run(
        args,
        lists.clips,
        label_set,
        strong=True,
        licence=args.licence,
        left_out=lists.left_out,
        notes=lists.notes,
        description="events from " + ", ".join(Path(p).name for _, p in events),
    )
    if summary is None:
        return 0
    print(f"{summary.events} events, {summary.cut} of them cut at the end of the decoded audio")
    return 0


def _soundscapes(args) -> int:
    from asjax.data import scene_texts

    made = scene_sets.job(args)
    print("\n".join(scene_texts.report(made)))
    suffix = args.format or "flac"
    extras = {f"events_{s}.tsv": scene_texts.annotations(made, s, suffix) for s in made.sets}
    extras["scenes.html"] = scene_texts.page(made, args, f"Soundscapes: {Path(args.out).name}")
    written = {"encode": "flac", "sample_rate": None, "compression": 0.5}
    written = argparse.Namespace(**{**vars(args), **written})
    fields = {"licence": args.licence, "notes": scene_texts.about(made, args)}
    description = f"scenes mixed from {Path(args.clips).name or 'the recordings of ESC-10'}"
    made_set = run(
        written,
        made,
        made.label_set,
        strong=True,
        extras=extras,
        description=description,
        **fields,
    )
    print(f"{made_set.events} events; {', '.join(sorted(extras))} are in {made_set.path}")
    if args.files:
        count = scene_texts.export(made_set.path, args.files, suffix)
        print(f"wrote {count} files to {args.files}")
    return 0


def _split_of(text: str) -> tuple[str, str]:
    """`"eval=list.tsv"` -> `("eval", "list.tsv")`; the default split is train."""
    split, equals, path = text.partition("=")
    if equals and not Path(text).is_file():
        return split, path
    return "train", text


def _set(args) -> int:
    from asjax.data.bulk import sets

    makers = {
        "esc50": sets.esc_50,
        "esc10": sets.esc_10,
        "urbansound8k": sets.urbansound8k,
        "fsd50k": sets.fsd50k,
        "desed": sets.desed,
        "hear": partial(sets.hear_task, rate=getattr(args, "rate", 0)),
    }
    layout = sets.in_splits(makers[args.kind](args.source, args.labels), args.splits)
    print("\n".join([f"{len(layout.clips):,} clips are listed", *layout.lines]), flush=True)
    where = {"root": layout.root, "items": layout.items}
    run(args, layout.clips, layout.label_set, drawn=True, **where, **layout.fields)
    return 0
