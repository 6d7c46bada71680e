"""`asjax prepare audioset`, `merge` and `status`."""

from __future__ import annotations

import argparse
from pathlib import Path

from asjax import labels as label_sets
from asjax.config import AsjaxError, printable, shown
from asjax.data.bulk import beam

_EXAMPLE = """examples:
  asjax prepare audioset --from parquet=hub/ --from files=more/ --lists lists/ \\
      --splits train,eval --encode flac --sample-rate 32000 --out data/audioset
  asjax prepare audioset ... --out data/audioset --shard 0/3      (and 1/3, 2/3 elsewhere)
  asjax prepare merge data/audioset.parts --out data/audioset
"""


def add_arguments(kinds) -> None:
    """Add the parsers of the three words to the subparsers `kinds`."""
    parser = kinds.add_parser(
        "audioset",
        help="AudioSet from parquet, tar, HDF5 or folders, joined to its lists; resumes",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--from",
        dest="sources",
        action="append",
        required=True,
        metavar="KIND=PLACE",
        help="parquet=DIR, tar=DIR, panns=FILE.h5, passt=FILE.h5 or files=DIR; repeatable, the "
        "first sound copy of a clip counts",
    )
    parser.add_argument(
        "--lists", required=True, metavar="DIR", help="AudioSet's *_segments.csv, perhaps .gz"
    )
    parser.add_argument(
        "--splits",
        default="train,eval",
        help="of train (balanced and unbalanced), balanced, unbalanced, eval (default: train,eval)",
    )
    parser.add_argument(
        "--strong",
        action="append",
        default=[],
        metavar="TSV",
        help="events of segments; repeatable",
    )
    parser.add_argument(
        "--labels",
        default="audioset527",
        help="audioset527, or with --strong audioset_strong456 and others: only segments with "
        "events, labelled by them (default: %(default)s)",
    )
    parser.add_argument(
        "--retry-missing",
        action="store_true",
        help="seek the clips that a finished --out does not have, and add them",
    )
    parser.add_argument(
        "--min-s", type=float, default=1.0, help="shorter clips are left out (default: %(default)s)"
    )
    parser.add_argument("--licence", default="", help="licence of the whole set, for the manifest")
    beam.add_arguments(parser)
    add_run_arguments(parser)
    merge = kinds.add_parser("merge", help="join the parts of prepare --shard into one record set")
    merge.add_argument("parts", nargs="+", metavar="PART", help="OUT.parts, or a record dataset")
    merge.add_argument("--out", required=True, metavar="DIR", help="record dataset to make")
    merge.add_argument("--partial", action="store_true", help="also if planned units are not done")
    merge.add_argument("--overwrite", action="store_true", help="replace the dataset at --out")
    status = kinds.add_parser("status", help="how far a preparation is, and what was left out")
    status.add_argument("folder", metavar="DIR", help="OUT or OUT.parts")


def add_run_arguments(parser) -> None:
    """Add how clips are stored, and by how many processes and machines."""
    parser.add_argument("--out", required=True, metavar="DIR", help="record dataset to make")
    parser.add_argument(
        "--encode",
        choices=["pcm16", "flac", "ogg", "none"],
        default="none",
        help="pcm16: int16 samples, fastest to read; flac: the same samples, half the size; none: "
        "the bytes of the source (default: %(default)s)",
    )
    parser.add_argument("--sample-rate", type=int, metavar="HZ", help="resample; needs --encode")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all CPUs)")
    parser.add_argument("--shard", metavar="i/N", help="the units of machine i of N, from 0")
    parser.add_argument("--max-mb", type=int, default=256, help="largest clip (default: 256)")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset at --out")


def main(args) -> int:
    return {"audioset": _audioset, "merge": _merge, "status": _status}[args.kind](args)


def _audioset(args) -> int:
    from asjax.data import writer
    from asjax.data.bulk import engine, job, listed, part, plan, units

    shard, sources = units.parse_shard(args.shard), plan.parse_sources(args.sources)
    encoding, label_set = encoding_of(args), label_sets.get(args.labels)
    workers, runner = job.workers_of(args), beam.of(args)
    if not 0 <= args.min_s < 3600:
        raise AsjaxError(f"--min-s must be seconds from 0 on, got {args.min_s}")
    lists = listed.of_audioset(args.lists, args.splits, label_set, args.strong)
    print("\n".join([f"{len(lists):,} clips are listed", *lists.lines]), flush=True)
    settings = {
        "set": "audioset",
        "lists": lists.hash,
        "labels": label_set.hash,
        "encoding": vars(encoding) if encoding else None,
        "min_s": args.min_s,
        "max_mb": args.max_mb,
    }
    base = None
    if args.overwrite:
        writer.check_free(args.out, overwrite=True)
    if not args.overwrite and job.finished(args.out, settings):
        if not args.retry_missing:
            print(f"{args.out} is complete; --retry-missing seeks what it does not have")
            return 0
        base = part.of_dataset(args.out)
    elif args.retry_missing:
        raise AsjaxError(f"--retry-missing needs a finished {shown(args.out)}; leave it out")
    options = units.Options(label_set, encoding, bool(args.strong), args.max_mb << 20)
    fields = {
        "licence": args.licence,
        "description": "AudioSet",
        "encoding": writer.as_json(encoding),
        "prepare": {"settings": settings},
        **({"notes": lists.notes} if lists.notes else {}),
    }
    with engine.Pool(workers) as pool:
        planned = plan.of_sources(sources, lists, options, args.min_s, pool)
        print("\n".join(planned.lines()) or "all items of the sources are listed", flush=True)
        done = job.prepare(
            args.out,
            planned,
            pool,
            settings=settings,
            fields=fields,
            shard=shard,
            overwrite=args.overwrite,
            base=base,
            name="audioset",
            runner=runner,
        )
    if done is not None:
        _tell(*done)
    return 0


def encoding_of(args):
    """The Encoding of the options, or None. AsjaxError: they do not fit."""
    from asjax.data.clips import Encoding

    if not 1 <= args.max_mb <= 1 << 16:
        raise AsjaxError(f"--max-mb must be 1 to 65536, got {args.max_mb}")
    if args.encode == "none":
        if args.sample_rate:
            raise AsjaxError("--sample-rate needs --encode pcm16, flac or ogg")
        return None
    return Encoding(args.encode, args.sample_rate)


def _tell(summary, report) -> None:
    from asjax.data.bulk import report as reports

    print("\n".join(reports.told(summary, report)))


def _merge(args) -> int:
    from asjax.data.bulk import join

    done = join.join(args.parts, args.out, partial=args.partial, overwrite=args.overwrite)
    _tell(*done)
    return 0


def _status(args) -> int:
    from asjax.data.bulk import join

    print("\n".join(map(printable, join.status(Path(args.folder)))))
    return 0
