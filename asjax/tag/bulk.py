"""`asjax tag --from --to`: the tags or events of a large collection, in units that stay done.

Exit codes: 0 all recordings are tagged; 1 some are left out, each has a line in left_out.csv; 75
stopped by SIGTERM or Ctrl-C, the finished units stay; 2 nothing was done, one line says why.
"""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.data.bulk import beam
from asjax.tag.work import ALONE

UNIT = 256  # recordings
_BULK = ("source", "to", "shard", "format", "unit_size", "retry", "runner", "runner_options")


def add_arguments(parser):
    group = parser.add_argument_group(
        "a large collection",
        "The results go to tables in the folder of --to, one for each unit of recordings. After a\n"
        "kill, the same command goes on. Machines that share the folder take one --shard each;\n"
        "else copy their folders into one and give the command without --shard. Example:\n"
        "  asjax tag --from lake/ --to tags/ --model=runs/a --threshold 0.2 --shard 0/3",
    )
    group.add_argument(
        "--from",
        dest="source",
        metavar="PLACE",
        help="a folder; records of asjax prepare; or a list: a path in each line, or a CSV or TSV "
        "with a column file, below the folder of the list",
    )
    group.add_argument(
        "--to",
        metavar="DIR",
        help="folder for tags-NNNNN.tsv, left_out.csv and manifest.json. --overwrite replaces "
        "results of another list, model or option",
    )
    group.add_argument("--shard", metavar="i/N", help="the units of machine i of N, from 0")
    group.add_argument("--format", choices=("tsv", "parquet"), help="of the tables (default tsv)")
    group.add_argument(
        "--unit-size", type=int, metavar="N", help=f"recordings of a unit (default {UNIT})"
    )
    group.add_argument(
        "--retry", action="store_true", help="tag the units again that left a recording out"
    )
    beam.add_arguments(group)


def wanted(args) -> bool:
    """Whether the command is about a collection. AsjaxError: its options do not fit together."""
    given = [name for name in _BULK if getattr(args, name) not in (None, False, "")]
    if not given:
        return False
    if args.source is None or args.to is None:
        given = ["from" if name == "source" else name.replace("_", "-") for name in given]
        raise AsjaxError(f"--{given[0]} is for a collection, which needs --from PLACE and --to DIR")
    if args.paths:
        raise AsjaxError(f"give files or --from, not both; got {shown(args.paths[0])} and --from")
    for name in ALONE:
        if getattr(args, name) not in (None, False):
            raise AsjaxError(f"--{name} does not fit --from: --format chooses the form of --to")
    if args.unit_size is not None and not 1 <= args.unit_size <= 1_000_000:
        raise AsjaxError(f"--unit-size must be 1 to 1000000, got {args.unit_size}")
    return True


def main(args, load, choice_of) -> int:
    """Tag a collection.

    Args:
      load: (options, settings) -> tagger. choice_of: (options, label set) -> `forms.Choice`.
    """
    from asjax.data.bulk import engine
    from asjax.data.bulk.units import parse_shard
    from asjax.tag import collection, tables, units, work

    tables.check(args.format)
    shard, runner = parse_shard(args.shard), beam.of(args)
    args.unit_size, args.format = args.unit_size or UNIT, args.format or "tsv"
    size, kind = args.unit_size, args.format
    units.refuse_strangers(Path(args.to))
    try:
        with engine.stoppable():
            found = collection.opened(args.source)
            tagger = load(args, full=True)
            choice = choice_of(args, tagger.label_set)
            settings = work.settings(args, found, tagger, choice, size, kind)
            with units.opened(args.to, found, size, kind, settings, shard, args.overwrite) as store:
                mine = list(range(store.count))[shard[0] :: shard[1]]
                command = work.Command(uuid.uuid4().hex, os.getcwd(), args, choice, load)
                done = _run(work.Work(args, tagger, choice, store), mine, runner, command)
                about = store.finish()
    except engine.Stopped as stopped:
        print(
            f"{stopped}: stopped; finished units are in {shown(args.to)}, the same command goes on"
        )
        return engine.EXIT_STOPPED
    for note in tagger.notes():
        _say(note)
    return _told(args, store, shard, mine, done, about)


def _told(args, store, shard, mine, done, about) -> int:
    if about is None:
        here = sum(len(store.recordings(i)) for i in mine)
        left = sum(len(one["left_out"]) for one in done)
        print(
            f"shard {shard[0]}/{shard[1]}: its {len(mine)} of {store.count} units are done, "
            f"{here:,} of {len(store.collection):,} recordings, {left:,} of them left out; other "
            "units are not here yet"
        )
        return 1 if left else 0
    n = about["counts"]
    if n["without_rows"]:
        what = "event" if args.events else "tag"
        print(f"no {what} in {n['without_rows']:,} recordings; units/*.json name them")
    left = f", {n['left_out']:,} left out (see left_out.csv)" if n["left_out"] else ""
    print(
        f"{n['recordings']:,} of {n['recordings']:,} recordings: {n['tagged']:,} tagged{left}; "
        f"{n['rows']:,} rows in {shown(args.to)}"
    )
    return 1 if n["left_out"] else 0


def _run(work, mine: list[int], runner, command) -> list[dict]:
    """Make the units that are not there yet; what is known about each."""
    from tqdm import tqdm

    store = work.store
    ready = {i: about for i in mine if (about := work.ready(i)) is not None}
    sizes = {i: len(store.recordings(i)) for i in mine}
    old = sum(sizes[i] for i in ready)
    if ready:
        print(
            f"{len(ready)} of {len(mine)} units, {old:,} recordings, are done already", flush=True
        )
    todo = [unit for unit in mine if unit not in ready]
    if runner is not None:
        beam.run(runner, [f"{unit:05d}" for unit in todo], command, store.present)
        ready |= {unit: store.load(unit) for unit in todo}
        beam.prove([unit for unit in todo if ready[unit] is None], len(todo), store.folder)
        return [ready[i] for i in mine]
    show = dict(total=sum(sizes.values()), initial=old, unit="file", disable=None)
    with tqdm(**show) as bar:  # disable=None: off unless stderr is a terminal
        for unit in todo:
            ready[unit] = work.make(unit, bar.update)
    return [ready[i] for i in mine]


def _say(text) -> None:
    print(f"asjax tag: {text}", file=sys.stderr)
