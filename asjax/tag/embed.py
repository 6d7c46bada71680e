"""`asjax embed`: the embeddings of audio files, per window or per file, in one npz, parquet or CSV.

A killed run goes on where it was when the same command is given again. A finished output is only
made again if the inputs have changed. If the command has other inputs, another model or other
windows, it needs --overwrite to replace a finished output.

Exit codes: 0 all files are embedded; 1 some files could not be embedded, each has a line on stderr;
2 nothing was done, one line says why.
"""

from __future__ import annotations

import sys
from pathlib import Path

from asjax import __version__
from asjax.config import AsjaxError, printable, shown, trust_named
from asjax.tag.tag import add_common_arguments, check_overlap, start


def add_arguments(parser):
    add_common_arguments(parser)
    parser.add_argument(
        "--to", required=True, metavar="FILE", help="the output: a name in .npz, .parquet or .csv"
    )
    parser.add_argument(
        "--per",
        choices=("file", "window"),
        default="file",
        help="an embedding of each file, the mean of its windows (default), or of each window",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the embeddings of other inputs, of another model or with other options",
    )


def main(args) -> int:
    check_overlap(args.overlap)
    if len(args.model) > 1:
        raise AsjaxError(
            f"asjax embed takes one --model, got {len(args.model)}: embeddings of several models "
            "have no mean; run it once for each"
        )
    (model,) = args.model
    trust_named(args.trust)
    from asjax.store import logits

    if logits.is_folder(model):
        raise AsjaxError(f"--model {shown(model)} holds stored logits, which have no embeddings")
    from asjax.tag import embeddings, inputs, outputs, parts

    out = Path(args.to)
    write = embeddings.writer(out)
    found = inputs.recordings(args.paths)
    beside = parts.Parts(out, {})
    outputs.check([("--to", args.to), ("--to's manifest", beside.manifest)], found, args.model)
    if not out.parent.is_dir():
        raise AsjaxError(f"--to {shown(out)}: the folder {shown(out.parent)} does not exist")
    beside.refuse_strangers()
    from asjax import predict

    start([model])
    tagger = predict.load(
        model,
        batch_size=args.batch_size,
        overlap=args.overlap,
        window_embeddings=args.per == "window",
        frames=False,
    )
    settings = {
        "model": tagger.record["sha256"]["card.json"],
        "layer": embeddings.LAYER,
        "per": args.per,
        "overlap": args.overlap,
    }
    command = parts.command_hash(args.paths)
    before = parts.Parts(out, settings, command)
    if not args.overwrite and not before.finished(found):
        before.refuse_other()
    with parts.opened(out, settings, command) as store:
        about = store.finished(found)
        if about:
            store.tidy()
            print(f"{_counts(about, len(found))} in {printable(args.to)} already; nothing to do")
            for _, reason in about["failed"]:
                _say(reason)
            return _report(len(found) - about["recordings"], len(found))
        if note := store.begin():
            _say(note)
        failed = _run(tagger, [r for r in found if not store.has(r)], store, args.per)
        store.flush()
        there = [r for r in found if store.has(r)]
        if len(there) + len(failed) != len(found):  # never a recording less without a word
            raise RuntimeError(f"{len(found)} inputs, {len(there)} rows, {len(failed)} failed")
        if not there:
            store.tidy()
            _say(f"no file of {len(found)} could be embedded; {printable(args.to)} was not written")
            return 1

        def put(path):
            rows = store.rows_of(there)
            about = {**settings, "asjax": __version__}
            write(path, rows, store.dims, lambda keys: store.segments(there, keys), about)

        about = store.finish(found, failed, put)
    print(f"{_counts(about, len(found))}, {store.dims} numbers each, to {printable(args.to)}")
    return _report(len(failed), len(found))


def _run(tagger, recordings, store, per: str) -> list[tuple[str, str]]:
    """Embed the recordings; (name, reason) of those that fail."""
    import numpy as np

    from asjax.data import audio
    from asjax.tag.progress import Progress

    failed, sources = [], [r.source for r in recordings]
    if not sources:
        return failed
    with Progress(sources) as progress:
        results = tagger.stream(sources, on_window=progress.heard, decoding=audio.quiet_decoders)
        for recording, tags in zip(recordings, results, strict=True):
            with progress.file_done():
                if not isinstance(tags, Exception):
                    times, rows = tags.times, tags.window_embeddings
                    if per == "file":
                        times, rows = np.array([[0.0, tags.duration_s]]), tags.embedding[None]
                    if np.isfinite(rows).all():
                        store.add(recording, times, rows)
                        continue
                    tags = AsjaxError(f"{recording.name}: its embedding is not finite")
                _say(tags)
                failed.append((recording.name, str(tags)))
    return failed


def _counts(about: dict, total: int) -> str:
    return f"{about['recordings']} of {total} files, {about['rows']} embeddings"


def _report(failed: int, total: int) -> int:
    if failed and total > 1:
        _say(f"{failed} of {total} files could not be embedded")
    return 1 if failed else 0


def _say(text) -> None:
    print(f"asjax embed: {printable(str(text))}", file=sys.stderr)
