"""`asjax tag`: tables, JSON lines, TSV, CSV and label tracks of the tags or events in files.

With --from and --to it tags a collection in units (asjax.tag.bulk).

Exit codes: 0 all files are tagged; 1 some files could not be tagged, each has a line on stderr; 2
nothing was done, one line says why.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace

from asjax.config import TRUST, AsjaxError, shown, trust_named
from asjax.evaluation import mean
from asjax.tag import bulk, events

TOP = 5


_MORE = """more examples:
  asjax tag dog.wav --model=runs/a --model=runs/b --weights 2,1      the mean of their logits
  asjax tag clips/ --model=runs/sed_a --model=runs/sed_b --events    events of an ensemble
  asjax tag clips/ --model=teacher                                   from stored logits
  asjax tag --from lake/ --to tags/ --model=teacher --shard 0/3      one of three machines"""


def add_arguments(parser):
    parser.epilog = f"{parser.epilog}\n\n{_MORE}"
    add_common_arguments(parser, paths="*")
    mean.add_options(parser)
    chosen = parser.add_argument_group("which tags")
    chosen.add_argument(
        "--top",
        type=int,
        help=f"at most this number of tags (default {TOP}; with --threshold or --classes: all)",
    )
    chosen.add_argument(
        "--threshold", type=float, metavar="P", help="only tags with a probability of P or more"
    )
    chosen.add_argument(
        "--classes",
        action="append",
        metavar="NAMES",
        help="only these classes: names, ids or indices, separated by semicolons or commas, or "
        "@FILE with one on each line; repeatable",
    )
    chosen.add_argument(
        "--per", choices=("file", "window"), help="tags of each file (default) or of each window"
    )
    chosen.add_argument("--windows", action="store_true", help="tags of each file and each window")
    chosen.add_argument(
        "--reduce",
        choices=("mean", "max"),
        help="tags of a file: mean (default) or maximum of the probabilities of its windows",
    )
    events.add_arguments(parser)
    bulk.add_arguments(parser)
    form = parser.add_argument_group("form of the results").add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one line per file, a JSON object")
    form.add_argument("--tsv", action="store_true", help="tab-separated, one line per tag")
    form.add_argument(
        "--csv", action="store_true", help="a row per file or window, a column per class"
    )
    places = parser.add_argument_group("files to write")
    places.add_argument("--out", help="write to this file instead of standard output")
    places.add_argument(
        "--audacity", metavar="DIR", help="an Audacity label track for each file, into this folder"
    )
    places.add_argument(
        "--raven",
        metavar="DIR",
        help="a Raven selection table for each file, into this folder. A label is an event, or "
        "without --events a stretch of windows with a probability of at least --threshold (default "
        "here: 0.5)",
    )
    places.add_argument("--overwrite", action="store_true", help="replace files that exist already")


def add_common_arguments(parser, paths: str = "+"):
    """The arguments of all verbs that run a model over files. `paths`: as `nargs` of argparse."""
    parser.add_argument(
        "paths",
        nargs=paths,
        metavar="FILE_OR_FOLDER",
        help="audio files; folders with all subfolders; - for standard input",
    )
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        help="model folder, workdir of a finished run, or file of asjax export --onnx. asjax tag "
        "also takes several (the mean of their logits), and folders of asjax logits, for files "
        "whose clips are in them",
    )
    parser.add_argument("--trust", **TRUST)
    parser.add_argument("--batch-size", type=int, default=16, help="windows per batch (default 16)")
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of a window that the next one covers too: 0 (default) or more, less than 1",
    )


def main(args) -> int:
    _check(args)
    trust_named(args.trust)
    if bulk.wanted(args):
        return bulk.main(args, _loaded, _choice)
    if not args.paths:
        raise AsjaxError("give audio files or folders, or a collection with --from and --to")
    from asjax.tag import outputs

    found = _found(args.paths)
    tracks = _tracks(args, found)
    targets = [(f"--{track.kind}", path) for track in tracks for path in track.paths.values()]
    targets += [("--out", args.out)] if args.out is not None else []
    lists = [word[1:] for word in args.classes or () if word.startswith("@")]
    outputs.check(targets, found, args.model, lists)
    if args.out is not None:
        outputs.check_place("--out", args.out, args.overwrite)
    for track in () if args.overwrite else tracks:
        track.refuse_existing()
    tagger = _loaded(args)
    choice = _choice(args, tagger.label_set)
    tracks = [replace(track, classes=choice.classes) for track in tracks]
    look = events.decoder(args, choice.classes, tagger) if args.events else None
    with _output(args.out) as out:
        form = _form(args, out)(out, choice, tagger.label_set)
        failed, empty = _run(tagger, found, form, tracks, out, look)
    for note in tagger.notes():
        _say(note)
    if empty:
        least = tracks[0].threshold if tracks else args.threshold
        what = "no event" if args.events else f"no tag of {least:g} or more"
        _say(f"{what} in {len(empty)} of {len(found)} files, first {empty[0]}")
    if failed and len(found) > 1:
        _say(f"{failed} of {len(found)} files could not be tagged")
    return 1 if failed else 0


def _loaded(args, **more):
    """The tagger of the options, with more settings of `predict.load`."""
    if args.rest != "zero":
        more["rest"] = args.rest
    if args.weights is not None:
        more["weights"] = mean.weights(mean.numbers(args.weights), len(args.model))
    from asjax import predict

    start(args.model)
    tagger = predict.load(
        args.model if len(args.model) > 1 else args.model[0],
        reduce=args.reduce or "mean",
        batch_size=args.batch_size,
        overlap=args.overlap,
        frames=args.events,
        chunks=args.chunks,
        **more,
    )
    if not getattr(tagger, "one_window", True) and not args.events:
        for name in ("per", "windows", "audacity", "raven"):
            if getattr(args, name) not in (None, False, "file"):
                raise AsjaxError(
                    f"--{name} needs windows, and these models hear windows of different lengths; "
                    "take models with one clip length"
                )
    return tagger


def start(paths) -> None:
    """Prepare jax, unless all models are ONNX files."""
    from asjax.predict import onnx_tagger

    if not all(map(onnx_tagger.is_file, paths)):
        from asjax import devices

        devices.setup()


def _found(paths) -> list:
    """The recordings. AsjaxError: none; a model in the place of a file is said."""
    from asjax.store import logits, model_dir
    from asjax.tag import inputs

    try:
        return inputs.recordings(paths)
    except AsjaxError:
        for path in paths:
            if model_dir.is_model(path) or logits.is_folder(path):
                raise AsjaxError(
                    f"{shown(path)} is a model, not a recording; write --model {shown(path)}, "
                    "once for each model"
                ) from None
        raise


def _run(tagger, found, form, tracks, out, look=None) -> tuple[int, list[str]]:
    """Tag everything: (number of failed files, names of files without a tag to mention).

    `look` makes the events of a file out of its tags.
    """
    from asjax.data import audio
    from asjax.tag import event_forms, forms
    from asjax.tag.progress import Progress

    failed, empty, tables = 0, [], (forms.Table, event_forms.Table)
    sources = [r.source for r in found]
    with Progress(sources) as progress:
        results = tagger.stream(sources, on_window=progress.heard, decoding=audio.quiet_decoders)
        try:
            for tags, source in zip(results, sources, strict=True):
                with progress.file_done():
                    try:
                        if isinstance(tags, Exception):
                            raise tags
                        tags = look(tags) if look else tags
                        rate = tagger.sample_rate
                        written = [track.write(tags, rate, source) for track in tracks]
                    except AsjaxError as error:
                        failed += 1
                        _say(error)
                        continue
                    count = form(tags, written)
                    if written:
                        count = len(tags.events) if look else written[0].labels
                    if not count and (written or not isinstance(form, tables)):
                        empty.append(shown(tags.file))
                    out.flush()
        except BrokenPipeError:  # the reader of the output, such as `head`, has closed the pipe
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    return failed, empty


def _say(text) -> None:
    print(f"asjax tag: {text}", file=sys.stderr)


# ------------------------------------------------------------------------------------ arguments


def _check(args) -> None:
    """Raise AsjaxError for options that are out of range or contradict each other."""
    events.check(args)
    tracks = bool(args.audacity or args.raven)
    forms = args.json or args.tsv or args.csv or args.out is not None
    if args.top is not None and args.top < 1:
        raise AsjaxError(f"--top must be 1 or more, got {args.top}")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise AsjaxError(f"--threshold must be a probability from 0 to 1, got {args.threshold}")
    check_overlap(args.overlap)
    if args.windows and args.per:
        raise AsjaxError("--windows shows files and windows; leave it out with --per")
    if args.csv and args.windows:
        raise AsjaxError(
            "--csv has rows for files or for windows; give --per window, not --windows"
        )
    if args.csv and args.top is not None:
        raise AsjaxError(
            "--csv has a column for every class; choose them with --classes, not --top"
        )
    if args.csv and args.threshold is not None and not tracks:
        raise AsjaxError("--csv has all probabilities; leave out --threshold, or give --tsv")
    if tracks and not forms and args.top is not None:
        raise AsjaxError("--top does not choose labels of tracks; give --threshold or --classes")
    for option in ("audacity", "raven"):
        if getattr(args, option) == "":
            raise AsjaxError(f"--{option} must be the name of a folder, got an empty one")
    writes = tracks or args.frames or args.picture or args.out is not None
    if args.overwrite and not writes and not bulk.wanted(args):
        raise AsjaxError(
            "--overwrite is for files; give --out FILE, or a folder for --audacity, --raven, "
            "--frames or --picture"
        )


def check_overlap(overlap: float) -> None:
    if not 0 <= overlap < 1:
        raise AsjaxError(f"--overlap must be 0 or more and less than 1, got {overlap}")


def _tracks(args, found) -> list:
    from asjax.tag import tracks

    threshold = tracks.THRESHOLD if args.threshold is None else args.threshold
    kinds = ("audacity", "raven", "frames", "picture")
    return [
        tracks.Tracks(kind, tracks.paths(getattr(args, kind), kind, found, args.paths), threshold)
        for kind in kinds
        if getattr(args, kind)
    ]


def _choice(args, label_set):
    from asjax.tag import forms, inputs

    some = args.threshold is not None or args.classes is not None
    return forms.Choice(
        classes=inputs.classes(args.classes, label_set),
        top=args.top if args.top is not None or some else TOP,
        threshold=args.threshold,
        rows="both" if args.windows else args.per or "file",
    )


def _form(args, out):
    from asjax.tag import event_forms, forms

    each = args.audacity or args.raven or args.frames or args.picture
    if args.events:
        chosen = {"json": event_forms.Json, "tsv": event_forms.Tsv}
        default = event_forms.Table if out.isatty() else event_forms.Tsv
    else:
        chosen = {"json": forms.Json, "tsv": forms.Tsv, "csv": forms.Csv}
        default = forms.Table
    default = forms.Written if each and args.out is None else default
    return next((form for name, form in chosen.items() if getattr(args, name)), default)


@contextlib.contextmanager
def _output(path):
    if path:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(
                    open(path, "w", encoding="utf-8", errors="replace", newline="")
                )
            except OSError as error:
                reason = error.strerror
                raise AsjaxError(f"--out {shown(path)} cannot be written: {reason}") from None
            yield file
        return
    if hasattr(sys.stdout, "reconfigure"):  # stdout may not be able to encode a file name
        sys.stdout.reconfigure(errors="replace")
    yield sys.stdout
