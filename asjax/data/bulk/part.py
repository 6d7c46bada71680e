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
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.data import records
from asjax.data.bulk import readers
from asjax.data.bulk.units import Task
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
        """The place among the parts: datasets first, then by turn and unit."""
        about = self.about
        key = (about.get("turn", -1), about.get("order", -1), about.get("key", ""))
        return (*key, self.folder.name)

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
        """id -> source of the kept clips of a dataset; a part has one source for all."""
        rows = () if self.source else self._table(_REPORT)
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
    job = Job(
        place, "part", options.labels, options.shard_bytes, stack, options.strong,
        is_raw(options.encoding),
    )  # fmt: skip
    items = _Items(task, tick)
    clips = items if not bar else _Counted(items, len(task.wants))
    for clip, loaded in load_all(clips, options.encoding, options.max_bytes, threads, bar):
        least = items.wants[items.item_of[clip.id]].least_s
        if not isinstance(loaded, str) and loaded[2] / loaded[1] < least:
            seconds = loaded[2] / loaded[1]
            loaded = Reason(f"it has {seconds:.2f} s, and {least:.2f} s are the least", "too short")
        job.add(clip, loaded)
        tick()
    left = [(clip, getattr(why, "state", "undecodable"), why) for clip, why in job.left_out]
    left += items.left()
    with (place / LEFT).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerows([("id", "state", "reason"), *left])
    about = job.finish()
    del about["left_out"]
    unit = task.unit
    about |= {
        "unit": unit.what, "key": unit.key, "order": unit.order, "turn": task.turn,
        "wanted": len(task.wants), "left_out_count": len(left), "damage": items.damage,
        "labels_compared": items.compared, "labels_differ": items.differ,
    }  # fmt: skip
    return about


class _Items:
    """The wanted clips with their audio, in the order of the unit."""

    def __init__(self, task: Task, tick):
        self.task, self.tick = task, tick
        self.wants = {want.item: want for want in task.wants if want.verdict is None}
        self.item_of = {want.clip.id: item for item, want in self.wants.items()}
        self.damage, self.compared, self.differ = "", 0, 0
        self._refused: list[tuple] = []
        self._unseen = set(self.wants)

    def __iter__(self):
        limit = self.task.options.max_bytes
        try:
            for item in readers.read(self.task.unit, self.wants.keys(), limit):
                self._unseen.discard(item.number)
                want = self.wants[item.number]
                self._compare(item.labels, want.clip.labels)
                if isinstance(item.audio, Reason):
                    self._refused.append((want.clip.id, item.audio.state, item.audio))
                    self.tick()
                else:
                    yield replace(want.clip, audio=item.audio)
        except readers.Damaged as error:
            self.damage = str(error)

    def _compare(self, theirs, ours) -> None:
        """Count whether the labels of the source are those of the list, if they can be read."""
        if theirs is None:
            return
        index = self.task.options.labels.index
        try:
            found = {index(label) for label in theirs}
        except (AsjaxError, TypeError, AttributeError):
            return
        self.compared += 1
        self.differ += found != {index(label) for label in ours}

    def left(self) -> list[tuple]:
        """(id, state, reason) of the clips that were not decoded."""
        lost = self.damage or "the source ends before it"
        rest = [(self.wants[i].clip.id, "undecodable", lost) for i in sorted(self._unseen)]
        ruled = [(w.clip.id, *w.verdict) for w in self.task.wants if w.verdict is not None]
        return [*self._refused, *rest, *ruled]


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
