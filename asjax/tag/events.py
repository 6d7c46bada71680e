"""`asjax tag --events`: its options, and the events of a recording."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from asjax.config import AsjaxError

LONGEST_S = 60.0  # of a median window
EXAMPLE = "asjax tag dog.wav --model=runs/sed/model --events"
_OPTIONS = ("median", "min_duration", "gap", "boxes", "chunks", "frames", "picture")


def add_arguments(parser):
    group = parser.add_argument_group(
        "events in time, of models with frames",
        "An event has an onset, an offset and a probability, the mean over its frames.\n"
        "A file longer than the model's clip is cut into windows that overlap by half, so an\n"
        f"event across the edge of a window is one event. Example:\n  {EXAMPLE}",
    )
    group.add_argument(
        "--events",
        action="store_true",
        help="events in place of tags: a table on a terminal, otherwise tab-separated lines of "
        "filename, onset, offset, event_label, probability. An event is where a class is above "
        "--threshold (default here: the thresholds in the model folder, or 0.5)",
    )
    group.add_argument(
        "--median",
        type=float,
        metavar="SECONDS",
        help="window of the median filter, 0: no filter (default: as stored in the model folder, "
        "or 0.36)",
    )
    group.add_argument(
        "--min-duration",
        type=float,
        metavar="SECONDS",
        help="leave out events that are shorter (default 0)",
    )
    group.add_argument(
        "--gap",
        type=float,
        metavar="SECONDS",
        help="join events of a class with a gap of at most SECONDS (default 0)",
    )
    group.add_argument(
        "--boxes",
        action="store_true",
        help="events between the largest changes of the scores (cSEBBs), without a median filter; "
        "--threshold is then for the mean probability of an event",
    )
    group.add_argument(
        "--chunks",
        action="store_true",
        help="windows side by side, as in PretrainedSED; their edges cut events",
    )
    group.add_argument(
        "--frames",
        metavar="DIR",
        help="write the probabilities of all frames of each file into this folder, in the format "
        "of sed_scores_eval",
    )
    group.add_argument(
        "--picture",
        metavar="DIR_OR_PNG",
        help="write a picture of each file into this folder, or of one file as this PNG: "
        "spectrogram, and the events as bars",
    )


def check(args) -> None:
    """Raise AsjaxError for options of events that are out of range or contradict others."""
    if not args.events:
        for name in _OPTIONS:
            value = getattr(args, name)
            if value is not None and value is not False:
                raise AsjaxError(f"{_option(name)} is for events in time; add --events")
        return
    for name, why in (
        ("top", "--threshold and --classes choose events"),
        ("per", "events are of whole files"),
        ("windows", "events are of whole files"),
        ("reduce", "it is about the tags of a file"),
        ("overlap", "the windows of events overlap by half, or not at all with --chunks"),
        ("csv", "give --tsv or --json"),
    ):
        if getattr(args, name):
            raise AsjaxError(f"--{name} does not fit --events: {why}; leave it out")
    for name, most in (("median", LONGEST_S), ("min_duration", 1e9), ("gap", 1e9)):
        value = getattr(args, name)
        if value is not None and not 0 <= value <= most:
            limit = f" from 0 to {most:g}" if name == "median" else ", 0 or more"
            raise AsjaxError(f"{_option(name)} must be seconds{limit}, got {value:g}")
    if args.boxes and args.median is not None:
        raise AsjaxError("--boxes needs no median filter; leave out --median")
    for name in ("frames", "picture"):
        if getattr(args, name) == "":
            raise AsjaxError(f"--{name} must be the name of a folder, got an empty one")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# -------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class Detected:
    """The events of a recording, with its tags and frames."""

    tags: object
    events: list
    classes: list[int] | None

    file = property(lambda self: self.tags.file)
    duration_s = property(lambda self: self.tags.duration_s)
    labels = property(lambda self: self.tags.labels)

    @cached_property
    def marks(self) -> list[tuple[float, float, int, float]]:
        """(onset_s, offset_s, index of the class, probability) of the events."""
        index = {label: i for i, label in enumerate(self.tags.ids)}
        return [(e.onset_s, e.offset_s, index[e.id], e.probability) for e in self.events]


def decoder(args, classes, tagger):
    """Tags -> `Detected`, with the options of the command.

    Args:
      classes: indices, or None for all.

    Raises:
      AsjaxError: the defaults are needed, and those in the model folder are damaged.
    """
    from asjax.predict.frames import medians_s, thresholds

    how = {name: getattr(args, name) for name in ("threshold", "min_duration", "gap", "boxes")}
    if args.median is not None:
        how["median"] = args.median
    stored, count = tagger.record.get("decoding"), len(tagger.label_set)
    if args.threshold is None:
        thresholds(stored, count)
    if args.median is None and not args.boxes:
        medians_s(stored, count)

    def decode(tags) -> Detected:
        return Detected(tags, tags.events(classes=classes, **how), classes)

    return decode
