"""`asjax prepare soundscapes`: scenes with known events, from a user's clips or embedded ones."""

from __future__ import annotations

import argparse
import csv
import os
from collections import Counter
from pathlib import Path

from asjax import labels as label_sets
from asjax.config import AsjaxError, printable, shown, unknown, warn
from asjax.data import groups, layouts, lists, own_clips, records, scenes, soundscapes, writer
from asjax.data.mixing import Rules, check
from asjax.data.scene_texts import Job
from asjax.data.source import matrix

_SEVERAL = {"action": "extend", "nargs": "+"}
_HELD_OUT = 5  # one of so many recordings is for evaluation if the list has no splits
_EXAMPLE = """examples:
  asjax prepare soundscapes --clips clips.csv --out data/scenes
  asjax prepare soundscapes --clips clips.csv --splits train=fold1+fold2 eval=fold3 \\
      --scenes train=5000 eval=500 --background street/ --snr 0 20 --out data/scenes
  asjax prepare soundscapes --scenes 20 --out data/embedded      # from the embedded recordings

Then train with --config.data.train="records(path='data/scenes', splits=['train'])".
"""


def add_arguments(parser) -> None:
    parser.description = (
        "Mixes short clips into scenes with noise, and writes them with the times of all events:\n"
        "records, events_SPLIT.tsv and scenes.html, a page to listen to some of them."
    )
    parser.epilog = _EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _clip_arguments(parser.add_argument)
    _scene_arguments(parser.add_argument)
    _output_arguments(parser.add_argument)


def _clip_arguments(add) -> None:
    add(
        "--clips",
        default="",
        metavar="CSV",
        help="filename,labels[,split][,group], or a folder with a subfolder per class "
        "(default: the embedded recordings of ESC-10)",
    )
    add("--audio", default="", metavar="DIR", help="folder of the files (default: that of the CSV)")
    add("--labels", default="", help="label set (default: own, the labels in the list)")
    add("--label-separator", help="between labels (default: ; or the layout's)")
    add("--split-column", default="", help="column of the splits (default: fold or split, if any)")
    add("--columns", default="", metavar="ROLE=NAME,...", help="names of the columns")
    add(
        "--splits",
        default=[],
        metavar="NEW=OLD+OLD",
        **_SEVERAL,
        help="splits of scenes, and the splits of clips for each (default: one for each split of "
        "the list; without splits, 1 in 5 recordings is for eval)",
    )


def _scene_arguments(add) -> None:
    add(
        "--scenes",
        default=[],
        metavar="[SPLIT=]N",
        **_SEVERAL,
        help="scenes of a split, or of every split (default: 1000)",
    )
    add("--seconds", type=float, default=10.0, help="length of a scene (default: 10)")
    add("--sample-rate", type=int, default=16_000, metavar="HZ", help="(default: 16000)")
    add("--seed", type=int, default=0, help="another seed gives other scenes (default: 0)")
    two = {"nargs": 2, "metavar": ("LOW", "HIGH")}
    add("--events", type=int, default=[1, 5], **two, help="events of a scene (default: 1 5)")
    add("--polyphony", type=int, default=3, metavar="N", help="events at one time (default: 3)")
    add("--snr", type=float, default=[6.0, 30.0], **two, help="dB over the noise (default: 6 30)")
    add(
        "--level",
        type=float,
        default=[-50.0, -30.0],
        **two,
        help="dBFS of the noise (default: -50 -30)",
    )
    add(
        "--steady",
        default=[],
        metavar="CLASS",
        **_SEVERAL,
        help="classes of steady sounds, such as rain; any 0.5 to 5 s of them are an event",
    )
    add(
        "--join",
        type=float,
        default=0.25,
        metavar="S",
        help="longest pause within an event (default: 0.25)",
    )
    add(
        "--background",
        default="",
        metavar="DIR",
        help="recordings to take the noise from, without sounds of the classes (default: made "
        "noise)",
    )


def _output_arguments(add) -> None:
    add("--files", default="", metavar="DIR", help="also write every scene as a file to here")
    add("--format", choices=["flac", "wav"], help="of --files (default: flac)")
    add(
        "--listen",
        type=int,
        default=6,
        metavar="N",
        help="scenes of each split on the page (default: 6)",
    )
    add("--licence", default="", help="licence of the clips, for the manifest and the page")
    add("--out", required=True, metavar="DIR", help="record dataset to make")
    add("--threads", type=int, help="decoding threads (default: up to 8)")
    add("--overwrite", action="store_true", help="replace the dataset at --out")


def job(args) -> Job:
    """The scenes that the options ask for.

    Raises:
      AsjaxError: wrong options, faults of the list, a split without usable clips.
    """
    rules = Rules(
        clip_s=args.seconds,
        sample_rate=args.sample_rate,
        events=args.events,
        polyphony=args.polyphony,
        snr_db=args.snr,
        level_db=args.level,
    )
    if args.format and not args.files:
        raise AsjaxError("--format belongs to --files; give the folder for the files")
    check("seed", args.seed, 0, 2**63 - 1, whole=True)
    check("join", args.join, 0, 60)
    check("listen", args.listen, 0, 100, whole=True)
    threads = min(8, os.cpu_count() or 1) if args.threads is None else args.threads
    check("threads", threads, 1, 256, whole=True)
    writer.check_free(args.out, args.overwrite)
    made, banks = _own(args, rules, threads) if args.clips else _embedded(args, rules)
    counts = _counts(args.scenes, banks)
    grounds = {}
    if args.background:
        grounds = own_clips.grounds(
            args.background, rules.sample_rate, counts, threads, made.left_out
        )
    for split, bank in banks.items():
        key = scenes.key_of(args.seed, "+".join(made.origin[split]))
        them = scenes.Scenes(bank, rules, key, counts[split], grounds.get(split))
        them.say_missing(split)
        made.sets[split] = them
    return made


def _embedded(args, rules):
    """The embedded recordings: scenes as of the source `soundscapes` with the same folds."""
    for name in ("audio", "columns", "label_separator", "split_column", "steady"):
        if getattr(args, name):
            raise AsjaxError(f"--{name.replace('_', '-')} belongs to --clips; give a list of clips")
    label_set = label_sets.get(args.labels or "esc10")
    made, banks = Job(label_set, rules), {}
    known = list(records.Dataset(soundscapes.ESC10).splits)
    made.origin = _splits(args.splits, known) or {"train": known[:-1], "eval": known[-1:]}
    for split, folds in made.origin.items():
        folds = tuple(sorted(folds))
        made.origin[split] = list(folds)
        bank, cells, _ = soundscapes.embedded(folds, rules.sample_rate)
        banks[split] = bank.with_classes(soundscapes.classes(cells, label_set))
    with (records.find(soundscapes.ESC10) / "ATTRIBUTION.csv").open(encoding="utf-8") as f:
        rows = csv.DictReader(f)
        made.credits = {row["id"]: (row["licence"], row["attribution"]) for row in rows}
    return made, banks


def _own(args, rules, threads):
    """The user's clips, read and divided into splits."""
    folder = Path(args.clips).is_dir()
    table, root = (
        ("", args.clips) if folder else (args.clips, args.audio or Path(args.clips).parent)
    )
    if folder and args.audio:
        raise AsjaxError("--audio belongs to a CSV; --clips is a folder, so leave --audio out")
    options = {"columns": layouts.parse_columns(args.columns)}
    options["label_separator"] = args.label_separator
    if args.labels in ("", "own"):
        from asjax.data.sources import own_labels

        label_set = own_labels(args.clips, **options)
    else:
        label_set = label_sets.get(args.labels)
    options |= {"split_column": args.split_column, "missing_ok": True, "say_negatives": False}
    rows = lists.read_folder("" if folder else args.clips, root, label_set, **options)
    steady = frozenset(label_set.encode(args.steady).tolist())
    made, known = Job(label_set, rules), list(dict.fromkeys(row.row.split for row in rows))
    chosen = _splits(args.splits, known)
    wanted = {old for olds in chosen.values() for old in olds} or set(known)
    if rest := [old for old in known if old not in wanted]:
        made.lines.append(f"splits that are not used: {', '.join(rest)}")
    rows = [row for row in rows if row.row.split in wanted]
    clips = [(row.row.filename, row.path, row.classes) for row in rows]
    bank = own_clips.bank(clips, rules.sample_rate, args.join, steady, threads, made.left_out)
    usable = set() if bank is None else set(bank.recordings)
    rows = [row for row in rows if row.row.filename in usable]
    made.origin, split_of = _divided(rows, chosen or {old: [old] for old in known}, made)
    banks = {}
    for split in made.origin:
        mine = [row.row.filename for row, name in zip(rows, split_of, strict=True) if name == split]
        if not mine:
            first = "; ".join(f"{shown(i)}: {printable(why)}" for i, why in made.left_out[:3])
            raise AsjaxError(
                f"{shown(args.clips)}: split {split} has no usable clip, so there is nothing to "
                f"mix ({first})"
            )
        banks[split] = bank.part(mine)
    return made, banks


def _divided(rows, chosen: dict[str, list[str]], made: Job):
    """(new split -> old splits, the new split of each row)."""
    group = [row.row.group or f"clip {row.row.filename}" for row in rows]
    count = min(_HELD_OUT, len(set(group)))
    if list(chosen) == ["train"] and chosen["train"] == ["train"] and count > 1:
        table = matrix([row.classes for row in rows], made.label_set)
        folds = groups.folds(group, table, count)
        split_of = ["eval" if fold == f"fold{count}" else "train" for fold in folds]
        chosen = {"train": ["train"], "eval": ["eval"]}
        made.lines.append(f"the list has no splits, so 1 in {count} recordings is for eval")
    else:
        new = {old: split for split, olds in chosen.items() for old in olds}
        split_of = [new[row.row.split] for row in rows]
    if both := groups.straddling(group, split_of):
        warn(
            f"{len(both)} groups have clips in more than one split, such as {shown(both[0])!r}; "
            "scenes of these splits share recordings"
        )
    return chosen, split_of


def _splits(texts: list[str], known: list[str]) -> dict[str, list[str]]:
    """`["train=a+b", "eval=c"]` -> `{"train": ["a", "b"], "eval": ["c"]}`."""
    chosen: dict[str, list[str]] = {}
    for text in texts:
        new, _, old = text.partition("=")
        olds = [name for name in old.split("+") if name]
        if not olds or new in chosen or not records.is_split(new):
            raise AsjaxError(
                f"--splits must look like train=fold1+fold2 eval=fold3, each new name once, of "
                f"letters, digits and _, got {text!r}"
            )
        for name in olds:
            if name not in known:
                raise unknown("--splits: split", name, known)
        chosen[new] = olds
    counts = Counter(name for olds in chosen.values() for name in olds)
    if twice := [name for name, n in counts.items() if n > 1]:
        raise AsjaxError(f"--splits uses {twice[0]} twice; splits must not share recordings")
    return chosen


def _counts(texts: list[str], splits) -> dict[str, int]:
    """`["train=5000", "eval=500"]` or `["1000"]` -> scenes of each split."""
    counts, default = {}, 1000
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 10_000_000:
            raise AsjaxError(
                f"--scenes must be a number from 1 to 10000000, such as 1000 or train=1000, got "
                f"{text!r}"
            )
        if not equals:
            default = int(number)
        elif name not in splits:
            raise unknown("--scenes: split", name, splits)
        else:
            counts[name] = int(number)
    return {split: counts.get(split, default) for split in splits}
