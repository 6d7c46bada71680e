"""`asjax prepare`: audio and labels -> checked records (see `asjax.data.records`)."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from asjax import labels as label_sets
from asjax.config import AsjaxError, printable, shown
from asjax.data import enhance

_LISTED = 10
_ENHANCE_EXAMPLE = """example:
  asjax train --config=configs/atdr.py:model=effnet_b2 --workdir=runs/first
  asjax eval --model=runs/first/model --data "records(path='data/audioset', splits=['train'])" \\
      --out runs/first/train
  asjax prepare enhance --scores=runs/first/train/scores.npz --threshold=mean --out enhanced.csv
  asjax train --config=configs/atdr.py:model=effnet_b2 --workdir=runs/second \\
      --config.data.train.labels_csv=enhanced.csv
"""


def add_arguments(parser):
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="folder|esc50|enhance")
    folder = kinds.add_parser(
        "folder",
        help="a folder of audio with a CSV (filename,labels), or of folders named by class",
    )
    folder.add_argument(
        "--csv", default="", help="filename,labels[,fold][,group], or as published (default: none)"
    )
    folder.add_argument("--audio", required=True, metavar="DIR", help="what filenames start from")
    folder.add_argument(
        "--labels",
        default="audioset527",
        help="label set: audioset527, fsd50k200, esc50, a .csv, or own (default: audioset527)",
    )
    folder.add_argument("--label-separator", help="between labels (default: ; or the layout's)")
    folder.add_argument("--split-column", default="", help="default: fold or split, where present")
    folder.add_argument(
        "--columns", default="", metavar="ROLE=NAME,...", help="of file, labels, split, group"
    )
    folder.add_argument(
        "--folds", type=int, default=0, metavar="N", help="make N splits; groups stay together"
    )
    folder.add_argument("--licence", default="", help="licence of the whole set, for the manifest")
    esc50 = kinds.add_parser("esc50", help="ESC-50 from a copy of its repository")
    esc50.add_argument("--source", required=True, metavar="DIR", help="meta/esc50.csv and audio/")
    esc50.add_argument(
        "--labels", default="esc50", help="label set: esc50 or audioset527 (default: esc50)"
    )
    for kind in (folder, esc50):
        kind.add_argument("--out", required=True, metavar="DIR", help="record dataset to make")
        add_writer_arguments(kind)
    grown = kinds.add_parser(
        "enhance",
        help="labels that a first model's scores add (PSLA)",
        description="PSLA's label enhancement: classes that stand under or above a label in the\n"
        "ontology are added to a clip where a first model is sure enough of them.",
        epilog=_ENHANCE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    grown.add_argument(
        "--scores",
        required=True,
        metavar="NPZ",
        help="scores of a first model on its training clips, by asjax eval --data",
    )
    grown.add_argument(
        "--threshold",
        choices=enhance.THRESHOLDS,
        default="mean",
        help="of a class's probabilities over the clips that have it; numbers are percentiles "
        "(default: %(default)s)",
    )
    grown.add_argument(
        "--types",
        default="1,2",
        help="1: children of a label, 2: ancestors of a label (default: %(default)s)",
    )
    grown.add_argument("--out", required=True, metavar="CSV", help="labels to write")


def add_writer_arguments(parser):
    """Options of `writer.write`, for every builder."""
    parser.add_argument(
        "--encode", choices=["ogg", "flac"], help="re-encode as mono (default: bytes as they are)"
    )
    parser.add_argument("--sample-rate", type=int, metavar="HZ", help="with --encode; resamples")
    parser.add_argument(
        "--compression", type=float, default=0.5, help="with --encode; 0 best ... 1 smallest"
    )
    parser.add_argument("--threads", type=int, help="decoding threads (default: up to 8)")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset at --out")


def main(args) -> int:
    return {"folder": _folder, "esc50": _esc50, "enhance": _enhance}[args.kind](args)


def run(args, clips, label_set, **fields):
    """Write `clips` by the options in `args`, print what was kept and what was left out."""
    from asjax.data import writer
    from asjax.data.clips import Encoding

    if args.sample_rate and not args.encode:
        raise AsjaxError("--sample-rate needs --encode ogg or --encode flac")
    encoding = None
    if args.encode:
        encoding = Encoding(args.encode, args.sample_rate, args.compression)
    out = Path(args.out)
    for stale in out.parent.glob(f".{out.name}.*.part"):
        print(
            f"note: {shown(stale)} is left of a run that was killed, or is still at work; "
            "remove it if it is not"
        )
    options = {"encoding": encoding, "threads": args.threads, "overwrite": args.overwrite}
    summary = writer.write(args.out, clips, label_set, **options, **fields)
    splits = ", ".join(f"{name} {n}" for name, n in summary.splits.items())
    print(
        f"kept {summary.clips} clips ({splits}), {summary.seconds / 3600:.2f} h, "
        f"{summary.bytes / 2**20:.1f} MiB; labels {label_set.name} {label_set.hash[:12]}"
    )
    print(f"left out {len(summary.left_out)}" + (":" if summary.left_out else ""))
    for clip, reason in summary.left_out[:_LISTED]:
        print(f"  {shown(clip)}: {printable(reason)}")
    if len(summary.left_out) > _LISTED:
        print(f"  ... all in {summary.path / 'manifest.json'}")
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
        own = [f.row.group or f"clip {f.row.filename}" for f in rows]
        splits = groups.folds(own, sources.matrix([f.classes for f in rows], label_set), args.folds)
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


def _esc50(args) -> int:
    label_set = label_sets.get(args.labels)
    clips = esc50_clips(Path(args.source), label_set)
    run(
        args,
        clips,
        label_set,
        name="esc50",
        licence="CC-BY-NC-3.0 (the set)",
        description="ESC-50: Dataset for Environmental Sound Classification, K. J. Piczak, 2015",
    )
    return 0


def esc50_clips(source: Path, label_set) -> list:
    """Clips of an ESC-50 copy: 5 official folds, labels as ids of `label_set` by way of mids.

    Raises:
      AsjaxError: no esc50.csv there, or a category without a class in `label_set`.
    """
    from asjax.data.clips import Clip

    esc50 = label_sets.get("esc50")
    table = label_sets.mapping(esc50, label_set)
    if label_set.hash == esc50.hash:  # classes that share a mid stay apart
        table = table & False
        table[range(len(esc50)), range(len(esc50))] = True
    meta = next((p for p in (source / "meta/esc50.csv", source / "esc50.csv") if p.is_file()), None)
    if meta is None:
        raise AsjaxError(f"{source} must be a copy of ESC-50: meta/esc50.csv is missing")
    audio = source / "audio" if (source / "audio").is_dir() else source
    with meta.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    needed = {"filename", "fold", "category", "src_file"}
    if not rows or not needed <= rows[0].keys():
        raise AsjaxError(f"{meta} must have the columns {', '.join(sorted(needed))}")
    clips = []
    for row in rows:
        columns = table[esc50.index(row["category"])].nonzero()[0]
        if not len(columns):
            raise AsjaxError(
                f"ESC-50 category {row['category']!r} has no class in {label_set.name}"
            )
        clips.append(
            Clip(
                Path(row["filename"]).stem,
                audio / row["filename"],
                tuple(label_set.ids[i] for i in columns),
                f"fold{int(row['fold'])}",
                row["category"],
                attribution=f"freesound.org clip {row['src_file']}; ESC-50 (K. J. Piczak)",
            )
        )
    return clips


def _enhance(args) -> int:
    import numpy as np

    from asjax.store.files import write_atomic
    from asjax.store.scores import load_scores

    kinds = _types(args.types)
    found = load_scores(args.scores)
    label_set, scores, before = found["label_set"], found["scores"], found["targets"]
    if not np.isfinite(scores).all():
        raise AsjaxError(f"{args.scores}: all scores must be finite; the model has diverged")
    related = enhance.relations(label_set)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    probabilities = _sigmoid(scores)
    limits = enhance.thresholds(probabilities, before, args.threshold)
    print(f"{len(before):,} clips, labels {label_set.name}, threshold {args.threshold}")
    for kind in kinds:
        grown = enhance.enhance(probabilities, before, related[kind], limits)
        print(f"type {kind}: {grown.sum() - before.sum():,} {enhance.TYPES[kind]} added")
    either = np.any([related[kind] for kind in kinds], axis=0)
    after = enhance.enhance(probabilities, before, either, limits)
    total, grew = int(before.sum()), (after != before).any(axis=1).sum()
    print(f"labels {total:,} -> {int(after.sum()):,}, in {grew:,} clips")
    gains = after.sum(axis=0, dtype=np.int64) - before.sum(axis=0, dtype=np.int64)
    for k in np.argsort(-gains, kind="stable")[:_LISTED]:
        if gains[k]:
            print(f"  {label_set.names[k]}: +{gains[k]:,} to {before[:, k].sum(dtype=int):,}")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["filename", "labels"])
    for clip, classes in zip(found["ids"], after, strict=True):
        if classes.any():  # a clip without labels cannot gain one
            rows.writerow([clip, ";".join(label_set.ids[k] for k in classes.nonzero()[0])])
    write_atomic(out, text.getvalue())
    print(f"wrote {out}; add labels_csv='{out}' to the data source of the training clips")
    return 0


def _sigmoid(logits):
    """In place of the logits: float32 [N, C], a table that need not be held twice."""
    import numpy as np

    with np.errstate(over="ignore"):  # exp(-x) = inf is a probability of 0
        np.exp(np.negative(logits, out=logits), out=logits)
    return np.reciprocal(np.add(logits, 1, out=logits), out=logits)


def _types(text: str) -> list[int]:
    """`"1,2"` -> `[1, 2]`."""
    words = sorted(set(text.split(",")))
    if not words or not set(words) <= set(map(str, enhance.TYPES)):
        raise AsjaxError(f"--types must be 1, 2 or 1,2, got {text!r}")
    return list(map(int, words))
