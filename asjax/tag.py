"""`asjax tag`: tables, JSON lines or TSV of the tags in files and folders.

Exit codes: 0 all files are tagged; 1 some files could not be tagged, each has a line on stderr; 2
nothing was done, one line says why.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from functools import partial
from pathlib import Path

from asjax.config import AsjaxError, printable

BAR_WIDTH = 20


def add_arguments(parser):
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="FILE_OR_FOLDER",
        help="audio files; folders with all subfolders",
    )
    parser.add_argument("--model", required=True, help="model folder, or workdir of a finished run")
    parser.add_argument("--top", type=int, default=5, help="tags per file (default 5)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one line per file, a JSON object")
    form.add_argument("--tsv", action="store_true", help="tab-separated, one line per tag")
    parser.add_argument("--out", help="write to this file instead of standard output")
    parser.add_argument("--windows", action="store_true", help="also the tags of every window")
    parser.add_argument(
        "--reduce",
        choices=("mean", "max"),
        default="mean",
        help="tags of a file: mean (default) or maximum of the probabilities of its windows",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="windows per batch (default 16)")


def main(args) -> int:
    if args.top < 1:
        raise AsjaxError(f"--top must be 1 or more, got {args.top}")
    from asjax.data import audio, recordings

    files = recordings.find(args.paths)
    if args.out and any(Path(args.out).resolve() == f.resolve() for f in files):
        raise AsjaxError(f"--out {args.out} is one of the files to tag; choose another name")
    from asjax import devices, predict

    devices.setup()
    tagger = predict.load(args.model, reduce=args.reduce, batch_size=args.batch_size)
    form = _Json if args.json else _Tsv if args.tsv else _Table
    failed = 0
    with _output(args.out) as out, _Progress(files) as progress:
        results = tagger.stream(files, on_window=progress.heard, decoding=audio.quiet_decoders)
        try:
            write = form(out, args.top, args.windows)
            for tags in results:
                with progress.file_done():
                    if isinstance(tags, Exception):
                        failed += 1
                        print(f"asjax tag: {tags}", file=sys.stderr)
                    else:
                        write(tags)
                        out.flush()
        except BrokenPipeError:  # the reader of the output, such as `head`, has closed the pipe
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    if failed and len(files) > 1:
        print(f"asjax tag: {failed} of {len(files)} files could not be tagged", file=sys.stderr)
    return 1 if failed else 0


@contextlib.contextmanager
def _output(path):
    if path:
        with open(path, "w", encoding="utf-8", errors="replace", newline="") as file:
            yield file
        return
    if hasattr(sys.stdout, "reconfigure"):  # stdout may not be able to encode a file name
        sys.stdout.reconfigure(errors="replace")
    yield sys.stdout


# ------------------------------------------------------------------------------------ formats


def _best(tags, probabilities, top):
    """(index, probability) of the `top` highest. `probabilities` None means those of the clip."""
    if probabilities is None:
        return [(i, float(tags.clip[i])) for i in tags.order(top)]
    order = (-probabilities).argsort(kind="stable")[:top]
    return [(i, float(probabilities[i])) for i in order]


class _Table:
    """For people: one block per file, with bars."""

    def __init__(self, out, top, windows):
        self.out, self.top, self.windows = out, top, windows
        with_blocks = "utf" in (getattr(out, "encoding", None) or "").lower()
        self.block = "█" if with_blocks else "#"

    def __call__(self, tags):
        lines = [f"{printable(tags.file)}  {tags.duration_s:.2f} s"]
        for i, p in _best(tags, None, self.top):
            bar = self.block * round(p * BAR_WIDTH)
            lines.append(f"  {p:5.3f}  {bar:<{BAR_WIDTH}}  {tags.labels[i]}")
        for (begin, end), row in zip(tags.times, tags.windows, strict=True):
            if not self.windows:
                break
            best = ", ".join(f"{tags.labels[i]} {p:.2f}" for i, p in _best(tags, row, self.top))
            lines.append(f"  {begin:9.2f} - {end:9.2f} s  {best}")
        print(*lines, "", sep="\n", file=self.out)


class _Json:
    """One line per file, a JSON object; probabilities have the 7 digits of float32."""

    def __init__(self, out, top, windows):
        self.out, self.top, self.windows = out, top, windows

    def __call__(self, tags):
        item = {
            "file": tags.file,
            "duration_s": round(tags.duration_s, 6),
            "tags": self._tags(tags, None),
        }
        if self.windows:
            item["windows"] = [
                {
                    "start_s": round(float(begin), 6),
                    "end_s": round(float(end), 6),
                    "tags": self._tags(tags, row),
                }
                for (begin, end), row in zip(tags.times, tags.windows, strict=True)
            ]
        # json.dumps escapes other characters, so a line is always ASCII.
        print(json.dumps(item), file=self.out)

    def _tags(self, tags, probabilities):
        return [
            {"label": tags.labels[i], "id": tags.ids[i], "probability": float(f"{p:.7g}")}
            for i, p in _best(tags, probabilities, self.top)
        ]


class _Tsv:
    """A header, then one line per tag; `window` is empty for the tags of the whole file."""

    def __init__(self, out, top, windows):
        self.out = csv.writer(out, "excel-tab", lineterminator="\n")
        self.top, self.windows, self.on_screen = top, windows, out.isatty()
        self.out.writerow(
            ["file", "window", "start_s", "end_s", "rank", "id", "label", "probability"]
        )

    def __call__(self, tags):
        self._rows(tags, "", (0.0, tags.duration_s), None)
        if self.windows:
            for n, (times, row) in enumerate(zip(tags.times, tags.windows, strict=True)):
                self._rows(tags, n, times, row)

    def _rows(self, tags, window, times, probabilities):
        begin, end = (f"{t:.3f}" for t in times)
        name = printable(tags.file) if self.on_screen else tags.file
        for rank, (i, p) in enumerate(_best(tags, probabilities, self.top), 1):
            label = [tags.ids[i], tags.labels[i], f"{p:.7g}"]
            self.out.writerow([name, window, begin, end, rank, *label])


# ----------------------------------------------------------------------------------- progress


class _Progress:
    """A progress bar on stderr, if stderr is a terminal and the work is long. It counts files, or
    minutes if there is one file."""

    def __init__(self, files):
        from tqdm import tqdm

        self._tqdm, self._by_file = tqdm, len(files) > 1
        total = len(files) if self._by_file else _minutes(files[0])
        little = total < (8 if self._by_file else 2)
        self._bar = tqdm(
            total=total,
            unit="file" if self._by_file else "min",
            disable=little or None,  # None: off unless stderr is a terminal
            leave=False,
            file=sys.stderr,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def heard(self, seconds: float):
        if not self._by_file:
            self._bar.update(seconds / 60)

    @contextlib.contextmanager
    def file_done(self):
        """Count a file. Lines that are printed inside appear above the bar."""
        if self._by_file:
            self._bar.update()
        with self._tqdm.external_write_mode(file=sys.stderr):
            yield


def _minutes(file) -> float:
    from asjax.data import audio, patience, recordings

    try:
        with audio.quiet_decoders():
            seconds = partial(audio.info, file, note=lambda _: None)
            return patience.call(seconds, recordings.STALL_S, str(file)).duration_s / 60
    except AsjaxError:
        return 0.0
