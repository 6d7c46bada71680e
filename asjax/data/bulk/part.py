"""The result of a task: a folder with shards, rows and what was left out, written atomically.

    OUT.parts/NAME/part-SPLIT.array_record-0000i-of-0000n
    OUT.parts/NAME/manifest.csv      rows of the kept clips, as in a record dataset
    OUT.parts/NAME/left_out.csv      id, state and reason of the wanted clips that are not kept
    OUT.parts/NAME/about.json        counts, shards with their hashes, the unit
    OUT.parts/NAME/SHA256SUMS

The folder appears whole or not at all (asjax.store.swap). So a killed run loses only the units that
were in work.
"""

from __future__ import annotations

import csv
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from asjax.config import AsjaxError, printable, shown
from asjax.data import records
from asjax.data.bulk import readers
from asjax.data.bulk.items import Damaged
from asjax.data.bulk.units import Options, Task, Unit
from asjax.data.clips import Reason, load_all
from asjax.data.writer import Job, is_raw
from asjax.store import files, swap

ABOUT, LEFT = "about.json", "left_out.csv"
_ROWS, _GROUPS, _CREDITS = "manifest.csv", "groups.csv", "ATTRIBUTION.csv"
_REPORT = "report.csv"  # of a dataset


@dataclass(frozen=True)
class Part:
    """A part on disk, or a finished dataset, which is a part too.

    Attributes:
      folder: where it is. about: the counts and shards.
      source: what it was made of, for the report; "" for a dataset.
    """

    folder: Path
    about: dict

    @property
    def source(self) -> str:
        return self.about.get("unit", "")

    @property
    def order(self) -> tuple:
        """The place among the parts: datasets first, then by unit."""
        return (self.about.get("order", -1), self.about.get("key", ""), self.folder.name)

    @property
    def shards(self) -> list[dict]:
        return self.about["shards"]

    def rows(self):
        """Rows of manifest.csv in the order of the records."""
        with (self.folder / _ROWS).open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            next(reader, None)
            yield from reader

    @cached_property
    def left_out(self) -> list[list[str]]:
        """[id, state, reason] of the wanted clips that are not kept."""
        if (self.folder / LEFT).is_file():
            return self._table(LEFT)
        known = ("kept", "missing", "duplicate")
        return [[row[0], *row[3:5]] for row in self._table(_REPORT) if row[3] not in known]

    def sources(self) -> dict[str, str]:
        """id -> source, where it is not `source`."""
        if self.source:
            return self.about["sources"]
        rows = self._table(_REPORT)
        return {row[0]: row[5] for row in rows if row[3] == "kept"}

    @property
    def groups(self) -> list[list[str]]:
        return self._table(_GROUPS)

    @property
    def credits(self) -> list[list[str]]:
        return self._table(_CREDITS)

    def _table(self, name: str) -> list[list[str]]:
        path = self.folder / name
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))[1:]


def make(task: Task, folder: Path, threads: int = 1, tick=None, bar: bool = False) -> Part:
    """Make the part of a task below `folder`.

    Args: tick: called after every wanted clip. bar: show a progress bar.

    Raises:
      AsjaxError: a clip has a wrong label or split, or the disk cannot be read or written.
    """
    try:
        with swap.folder(folder / task.name, what="part", ours=_ours) as place:
            with ExitStack() as stack:
                about = _fill(task, place, stack, threads, tick or (lambda: None), bar)
            text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
            (place / ABOUT).write_text(text, encoding="utf-8")
            known = {shard["file"]: shard["sha256"] for shard in about["shards"]}
            names = {p.name for p in place.iterdir()} - {swap.MARKER}
            files.write_sums(place, known, only=names)
    except (OSError, RuntimeError) as error:  # ArrayRecord reports a full disk as RuntimeError
        reason = " ".join(str(error).split())
        raise AsjaxError(f"{shown(folder)} could not be written: {reason}") from error
    return Part(folder / task.name, about)


def _fill(task: Task, place: Path, stack, threads, tick, bar) -> dict:
    options = task.options
    raw = is_raw(options.encoding)
    job = Job(
        place, "part", options.labels, options.shard_bytes, stack, options.strong, raw
    )  # fmt: skip
    todo = {task.unit: [(w.item, w) for w in task.wants if w.verdict is None]}
    left = {w.clip.id: w.verdict for w in task.wants if w.verdict is not None}
    found, depth = _Found(options), 0
    while todo:
        for unit, wants in todo.items():
            items = _Items(unit, wants, found)
            clips = items if not bar else _Counted(items, len(wants))
            for clip, loaded in load_all(clips, options.encoding, options.max_bytes, threads, bar):
                loaded = _long_enough(loaded, items.want[clip.id].least_s)
                if isinstance(loaded, str):
                    items.failed[clip.id] = (loaded.state, str(loaded))
                else:
                    job.add(clip, loaded)
                    left.pop(clip.id, None)
                    if depth:
                        found.sources[clip.id] = printable(unit.what)
                if not depth:
                    tick()
            for clip, why in items.failures().items():
                left.setdefault(clip, why)  # the first copy's reason stays
        todo = _next(task.wants, left, depth)
        depth += 1
    rows = [(clip, *why) for clip, why in left.items()]
    with (place / LEFT).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file, lineterminator="\n").writerows([("id", "state", "reason"), *rows])
    about = job.finish()
    del about["left_out"]
    unit = task.unit
    about |= {"unit": printable(unit.what), "key": unit.key, "order": unit.order}
    about["wanted"] = len(task.wants)
    about |= {"left_out_count": len(left), "sources": found.sources, "damage": found.damage}
    return about | {"labels_compared": found.compared, "labels_differ": found.differ}


def _long_enough(loaded, least_s: float):
    """What `load_all` gave, or the reason that it is too short."""
    if isinstance(loaded, str) or loaded[2] / loaded[1] >= least_s:
        return loaded
    seconds = loaded[2] / loaded[1]
    return Reason(f"it has {seconds:.2f} s, and {least_s:.2f} s are the least", "too short")


def _next(wants, left: dict, depth: int) -> dict:
    """unit -> (item, want) of the next copies of clips that are not kept yet."""
    todo: dict[Unit, list] = {}
    for want in wants:
        if want.clip.id in left and depth < len(want.others):
            unit, item = want.others[depth]
            todo.setdefault(unit, []).append((item, want))
    return todo


@dataclass
class _Found:
    """What the reading of a task has found besides audio."""

    options: Options
    damage: str = ""
    compared: int = 0
    differ: int = 0
    sources: dict[str, str] = field(default_factory=dict)  # of clips that are not of the unit

    def compare(self, theirs, ours) -> None:
        """Count whether the labels of the source are those of the list, if they can be read."""
        if theirs is None:
            return
        index = self.options.labels.index
        try:
            found = {index(label) for label in theirs}
        except (AsjaxError, TypeError, AttributeError):
            return
        self.compared += 1
        self.differ += found != {index(label) for label in ours}


class _Items:
    """The wanted clips of a unit with their audio, in the order of the unit.

    Attributes: want: id -> Want. failed: id -> (state, reason) of what was not decoded.
    """

    def __init__(self, unit: Unit, wants, found: _Found):
        self.unit, self.found = unit, found
        self.of_item = dict(wants)
        self.want = {want.clip.id: want for _, want in wants}
        self.failed: dict[str, tuple[str, str]] = {}
        self._unseen = dict.fromkeys(sorted(self.of_item))

    def __iter__(self):
        limit = self.found.options.max_bytes
        try:
            for item in readers.read(self.unit, self.of_item.keys(), limit):
                self._unseen.pop(item.number, None)
                clip = self.of_item[item.number].clip
                self.found.compare(item.labels, clip.labels)
                if isinstance(item.audio, Reason):
                    self.failed[clip.id] = (item.audio.state, str(item.audio))
                else:
                    yield replace(clip, audio=item.audio)
        except Damaged as error:
            self.found.damage = str(error)

    def failures(self) -> dict[str, tuple[str, str]]:
        """id -> (state, reason) of the clips that cannot be kept from this unit.

        Raises:
          AsjaxError: the source itself is gone, such as a disk in the network.
        """
        lacks = self.failed or self._unseen
        if lacks and self.unit.kind in readers.KINDS and not os.path.exists(self.unit.path):
            raise AsjaxError(
                f"{shown(self.unit.path)} was there and is gone; is its disk still connected? Then "
                "the same command goes on"
            )
        lost = self.found.damage or "the source ends before it"
        rest = {self.of_item[i].clip.id: ("undecodable", lost) for i in self._unseen}
        return {**self.failed, **rest}


class _Counted:
    """An iterable of known length, for the progress bar."""

    def __init__(self, items, count: int):
        self.items, self.count = items, count

    def __iter__(self):
        return iter(self.items)

    def __len__(self) -> int:
        return self.count


def load(folder: Path) -> Part | None:
    """The part in a folder; None if it is not whole. Its shards are not hashed, only measured."""
    try:
        sums = files.read_sums(folder)
        small = [name for name in sums if ".array_record-" not in name]
        if any(files.digest(folder / name) != sums[name] for name in small):
            return None
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        for shard in about["shards"]:
            if Path(shard["file"]).name != shard["file"] or not records.is_split(shard["split"]):
                return None
            if (folder / shard["file"]).stat().st_size != shard["bytes"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Part(folder, about)


def of_dataset(path) -> Part:
    """A finished record dataset as a part. AsjaxError: it is none, or it is damaged."""
    dataset = records.Dataset(path)
    return Part(dataset.path, dataset.manifest)


def _ours(folder: Path) -> set[str] | None:
    """Names of asjax in a part; None for another folder."""
    if not (folder / ABOUT).is_file():
        return None
    return {p.name for p in folder.iterdir() if is_name(p.name)}


def is_name(name: str) -> bool:
    """Whether a file of a part may have this name."""
    known = (ABOUT, LEFT, _ROWS, _GROUPS, _CREDITS, files.SUMS, swap.MARKER)
    return name in known or ".array_record-" in name
