"""What is prepared: units of a source, the clips that are wanted of them, and their hashes.

A unit is a part of a source that is read from its begin to its end: a parquet file, a tar, 4,096
rows of an HDF5, 4,096 file names. A task is a unit with the clips that are wanted of it. Its result
is a pure function of the task, so the hash of the task is the name of the result.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field, fields
from functools import cached_property

from asjax.config import AsjaxError, quoted
from asjax.data.audio import OTHER_SUFFIXES, SUFFIXES
from asjax.data.clips import Clip, Encoding

SIZE = 4096  # clips of a unit, where its source has no parts of its own
STATES = (
    "kept", "missing", "undecodable", "too short", "other segment", "duplicate", "needs ffmpeg",
)  # fmt: skip
AUDIO = SUFFIXES + OTHER_SUFFIXES
_ID = re.compile(r"Y?([A-Za-z0-9_-]{11})(?:_(\d+(?:\.\d+)?)(?:_(\d+(?:\.\d+)?))?)?")


@dataclass(frozen=True)
class Unit:
    """A part of a source.

    Attributes:
      kind: the reader. root: the file or folder that the user gave.
      place: of the unit's file below `root`; "" stands for `root` itself.
      begin, end: row groups or rows of the file. size: bytes of the file, 0 for names.
      names: the files of the unit below `root`, if it has no file of its own.
      order: the position among all units.
    """

    kind: str
    root: str
    place: str = ""
    begin: int = 0
    end: int = 0
    size: int = 0
    names: tuple[str, ...] = ()
    order: int = 0

    @property
    def path(self) -> str:
        return os.path.join(self.root, self.place) if self.place else self.root

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of what the unit is, the same wherever the source lies."""
        name = self.place or os.path.basename(self.root.rstrip(os.sep))
        return _sha([self.kind, name, self.begin, self.end, self.size, self.names])

    @property
    def what(self) -> str:
        """The unit in messages and in the report."""
        if self.names:
            return self.root
        return f"{self.path} [{self.begin}:{self.end}]" if self.end else self.path


_FIELDS = tuple(one.name for one in fields(Unit))


@dataclass(frozen=True)
class Want:
    """A wanted clip: the number of its item in the unit, and the clip without its audio.

    `least_s`: a shorter clip is too short. `verdict`: state and reason of an item that cannot be
    the clip; it is not decoded. `others`: further copies, as (unit, item); the next one is taken
    where a copy cannot be kept.
    """

    item: int
    clip: Clip
    least_s: float = 0.0
    verdict: tuple[str, str] | None = None
    others: tuple[tuple[Unit, int], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Options:
    """How clips are stored. It is a part of the hash of every task. `labels`: the label set."""

    labels: object
    encoding: Encoding | None = None
    strong: bool = False
    max_bytes: int = 256 << 20
    shard_bytes: int = 1 << 30


@dataclass(frozen=True)
class Task:
    """A unit and the clips that are wanted of it."""

    unit: Unit
    wants: tuple[Want, ...] = field(repr=False)
    options: Options

    @cached_property
    def name(self) -> str:
        """The name of the result: a hash of everything that it depends on."""
        o = self.options
        kind = vars(o.encoding) if o.encoding else None
        how = [kind, o.strong, o.max_bytes, o.shard_bytes, o.labels.hash]
        wants = [_about(want, self.unit) for want in self.wants]
        return _sha([self.unit.key, how, wants])[:24]


def to_json(task: Task) -> dict:
    """A task as plain JSON, without the classes of its label set."""
    units = list(dict.fromkeys([task.unit, *(u for w in task.wants for u, _ in w.others)]))
    place = {unit: i for i, unit in enumerate(units)}
    options = {k: v for k, v in vars(task.options).items() if k != "labels"}
    options["encoding"] = vars(options["encoding"]) if options["encoding"] else None
    return {
        "label_set": task.options.labels.name,
        "options": options,
        "units": [{k: v for k, v in vars(unit).items() if k in _FIELDS} for unit in units],
        "wants": [
            {
                "item": want.item,
                "clip": {**vars(want.clip), "audio": ""},
                "least_s": want.least_s,
                "verdict": want.verdict,
                "others": [(place[unit], item) for unit, item in want.others],
            }
            for want in task.wants
        ],
    }


def from_json(about: dict, labels) -> Task:
    """The task of `to_json`. Args: labels: its label set."""
    encoding = about["options"]["encoding"]
    options = {**about["options"], "encoding": Encoding(**encoding) if encoding else None}
    units = [Unit(**{**unit, "names": tuple(unit["names"])}) for unit in about["units"]]
    wants = []
    for want in about["wants"]:
        clip = {**want["clip"], "labels": tuple(want["clip"]["labels"])}
        if clip["events"] is not None:
            clip["events"] = tuple(tuple(event) for event in clip["events"])
        others = tuple((units[i], item) for i, item in want["others"])
        verdict = want["verdict"] and tuple(want["verdict"])
        wants.append(Want(want["item"], Clip(**clip), want["least_s"], verdict, others))
    return Task(units[0], tuple(wants), Options(labels, **options))


def _about(want: Want, unit: Unit) -> list:
    clip, stamp = want.clip, None
    if unit.kind == "paths":  # a changed file makes another task
        try:
            status = os.stat(os.path.join(unit.root, unit.names[want.item]))
            stamp = [status.st_size, status.st_mtime_ns]
        except (OSError, ValueError):
            stamp = []
    about = [clip.id, clip.labels, clip.split, clip.category, clip.licence, clip.attribution]
    others = [(other.key, item) for other, item in want.others]
    how = [want.item, want.verdict, want.least_s, others]
    return [*how, *about, clip.group, clip.events, stamp]


def _sha(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def stem(name: str) -> str:
    """The last part of a name in a source, without the suffix of an audio file."""
    base = name.replace("\\", "/").rpartition("/")[2]
    head, dot, tail = base.rpartition(".")
    return head if dot and f".{tail.lower()}" in AUDIO else base


def youtube(name: str) -> tuple[str, float | None] | None:
    """(id, first number after it or None) of `Y<id>_<start>_<end>.wav` or a shorter form of it."""
    found = _ID.fullmatch(stem(name))
    return found and (found[1], float(found[2]) if found[2] else None)


def in_shard(unit: Unit, shard: tuple[int, int]) -> bool:
    """Whether the machine i of N, counted from 0, has this unit."""
    return int(unit.key[:16], 16) % shard[1] == shard[0]


def parse_shard(text: str | None) -> tuple[int, int]:
    """`"0/3"` -> (0, 3); None -> (0, 1). AsjaxError: not i/N with 0 <= i < N."""
    if not text:
        return 0, 1
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not found or not int(found[1]) < int(found[2]):
        raise AsjaxError(
            f"--shard must be i/N, counted from 0, such as 0/3, 1/3 and 2/3, got {quoted(text)}"
        )
    return int(found[1]), int(found[2])
