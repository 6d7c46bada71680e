"""`asjax listen`: tags or events of a pipe or a microphone as JSON lines, while the sound comes.

A tag line is {"t0", "t1", "top": [[label, p], ...]} in seconds from the begin. With --events there
are two kinds of lines: {"onset", "label", "id", "p"} when an event has begun, and {"onset",
"offset", "label", "id", "p"} when it has ended.

Exit codes: 0 the input has ended; 2 an error, explained in one line; 130 Ctrl-C.
"""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

from asjax.config import TRUST, AsjaxError, counted, quoted, trust_named
from asjax.stream.pcm import FORMATS
from asjax.stream.sources import ARECORD, CHANNELS, FORMAT, RATE, Input, Microphone

_AGAIN_S = 10.0  # between two lines about skipped windows
_MORE = """more examples:
  ffmpeg -i rtsp://camera -f s16le -ar 16000 -ac 1 - | asjax listen --model=runs/live
  asjax listen --model=runs/sed --events < recording.wav
  asjax listen --model=runs/live --device default"""


def add_arguments(parser):
    parser.epilog = f"{parser.epilog}\n\n{_MORE}"
    parser.add_argument(
        "source", nargs="?", default="-", metavar="-", help="standard input: raw PCM or WAV"
    )
    parser.add_argument("--model", required=True, help="model folder, workdir of a run, or .onnx")
    parser.add_argument("--trust", **TRUST)
    parser.add_argument(
        "--window",
        type=float,
        metavar="S",
        help="seconds that one answer is about (default 2; with --events the model's own length)",
    )
    parser.add_argument(
        "--hop",
        type=float,
        metavar="S",
        help="seconds between answers (default 0.5; with --events 0.25)",
    )
    parser.add_argument("--top", type=int, default=5, help="tags of a line (default 5)")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="only tags with a probability of P or more; with --events, where an event is",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="compute every window, also late ones; the input then waits. Default for a file as "
        "standard input. For a pipe or a microphone, late windows are skipped and counted",
    )
    group = parser.add_argument_group("events in time, of models with frames")
    group.add_argument("--events", action="store_true", help="onsets and events in place of tags")
    group.add_argument(
        "--median", type=float, metavar="S", help="window of the median filter; 0: no filter"
    )
    group.add_argument(
        "--classes", action="append", metavar="NAMES", help="only these classes; repeatable"
    )
    group = parser.add_argument_group("sound")
    group.add_argument("--format", choices=FORMATS, help=f"of raw PCM (default {FORMAT})")
    group.add_argument("--rate", type=int, metavar="HZ", help=f"of raw PCM (default {RATE})")
    group.add_argument(
        "--channels",
        type=int,
        help=f"of raw PCM or the device (default {CHANNELS}); their mean is heard",
    )
    group.add_argument(
        "--device", metavar="NAME", help="a microphone: default, a number, or a part of its name"
    )


def main(args) -> int:
    _check(args)
    trust_named(args.trust)
    if args.device is not None:
        source = Microphone(args.device, args.rate, args.channels)
    else:
        source = Input(_standard_input(), args.format, args.rate, args.channels)
    from asjax import devices, predict

    devices.setup()
    stream = _stream(args, predict.load(args.model, frames=args.events), source.rate)
    skip = source.live and not args.all
    _say(
        f"{source}; {'an onset' if args.events else 'a window'} is printed at most "
        f"{stream.latency_s:.2f} s after it{'' if skip else ', if the input is not faster'}"
    )
    write = _write_events if args.events else _write_tags
    told = SimpleNamespace(skipped=0, at=-_AGAIN_S)
    try:
        while (samples := source.read()) is not None:
            write(stream.push(samples, newest=skip), args)
            _tell(stream, told)
    finally:  # also at Ctrl-C: what is left is not lost
        if not isinstance(sys.exc_info()[1], (BrokenPipeError, AsjaxError)):
            write(stream.close(), args)
        for note in [*source.notes(), *_notes(stream)]:
            _say(note)
    return 0


def _standard_input() -> int:
    """Its descriptor. AsjaxError: it is closed."""
    if sys.stdin is None:
        raise AsjaxError(f"standard input is closed; pipe sound into asjax listen: {ARECORD}")
    return sys.stdin.fileno()


def _check(args) -> None:
    if args.source != "-":
        raise AsjaxError(
            f"asjax listen hears standard input or a device, got {quoted(args.source)}; for a file "
            f"use asjax tag, or asjax listen < {args.source}"
        )
    if args.device is not None and args.format is not None:
        raise AsjaxError("--format is for standard input; leave it out with --device")
    if args.top < 1:
        raise AsjaxError(f"--top must be 1 or more, got {args.top}")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise AsjaxError(f"--threshold must be a probability from 0 to 1, got {args.threshold}")
    for name in ("median", "classes"):
        if getattr(args, name) is not None and not args.events:
            raise AsjaxError(f"--{name} is for --events")


def _stream(args, tagger, rate):
    from asjax.stream.events import EventStream
    from asjax.stream.stream import Stream
    from asjax.tag import inputs

    given = {"hop_s": args.hop, "window_s": args.window}
    given = {name: value for name, value in given.items() if value is not None}
    if not args.events:
        given.setdefault("window_s", min(2.0, tagger.clip_s))
        given.setdefault("hop_s", min(0.5, given["window_s"]))
        return Stream(tagger, rate=rate, **given)
    given |= dict(threshold=args.threshold, median=args.median)
    classes = inputs.classes(args.classes, tagger.label_set)
    return EventStream(tagger, rate=rate, classes=classes, **given)


def _write_tags(windows, args) -> None:
    for window in windows:
        top = [[label, round(p, 6)] for label, p in window.tags.top(args.top)]
        if args.threshold is not None:
            top = [pair for pair in top if pair[1] >= args.threshold]
        _line(t0=round(window.t0, 6), t1=round(window.t1, 6), top=top)


def _write_events(marks, args) -> None:
    from asjax.predict import Event

    for mark in marks:
        times = {"onset": round(mark.onset_s, 6)}
        if isinstance(mark, Event):
            times["offset"] = round(mark.offset_s, 6)
        _line(**times, label=mark.label, id=mark.id, p=round(mark.probability, 6))


def _line(**fields) -> None:
    print(json.dumps(fields), flush=True)


def _tell(stream, told) -> None:
    """A line about skipped windows, at most every ten seconds."""
    if stream.skipped > told.skipped and time.monotonic() - told.at >= _AGAIN_S:
        _say(
            f"{counted(stream.skipped, 'window')} skipped so far: sound comes faster than a hop "
            "is computed; raise --hop, or give --all where the input can wait"
        )
        told.skipped, told.at = stream.skipped, time.monotonic()


def _notes(stream) -> list[str]:
    found = []
    if stream.skipped:
        found.append(f"{counted(stream.skipped, 'window')} skipped in {stream.duration_s:.1f} s")
    if lost := getattr(stream, "lost_s", 0):
        found.append(f"{lost:.1f} s were in no window; they count as silence")
    if stream.not_finite:
        found.append(f"{counted(stream.not_finite, 'value')} NaN or infinite; they count as 0")
    return found


def _say(text: str) -> None:
    print(f"asjax listen: {text}", file=sys.stderr, flush=True)
