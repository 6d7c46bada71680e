"""Which unit gives which clip: the tasks of a preparation.

The unit of the first copy of a clip has the clip. If that copy cannot be kept, the same task takes
the next copy, from whichever unit. So a sound clip is decoded once, and none is lost while a sound
copy exists.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import numpy as np

from asjax.config import AsjaxError, shown
from asjax.data.bulk import engine, readers
from asjax.data.bulk.listed import Listed, same_start
from asjax.data.bulk.units import SIZE, Options, Task, Unit, Want, youtube

_SLACK_S = 0.05  # a clip may be so much shorter than the least length
_LISTED = 3


@dataclass
class Plan:
    """The units with the items of listed clips.

    Attributes:
      units: in order. row, unit, item, fits: per item of a listed clip the line of the list, the
        unit, its number there, and whether its start is that of the list; sorted by line, then
        those that fit, then by order. rank: the place among the items of the line.
      strangers: items in no list. damaged: files that cannot be opened, with the reason.
      starts: (line, number) of items whose start is another one.
    """

    listed: Listed
    options: Options
    least_s: float
    units: list[Unit] = field(default_factory=list)
    row: np.ndarray | None = None
    unit: np.ndarray | None = None
    item: np.ndarray | None = None
    fits: np.ndarray | None = None
    rank: np.ndarray | None = None
    strangers: int = 0
    copies: int = 0
    damaged: list[str] = field(default_factory=list)
    starts: dict[tuple[int, int], float] = field(default_factory=dict)

    def tasks(self, kept=frozenset()) -> list[Task]:
        """The tasks in the order of their units. Args: kept: ids that are there already."""
        mine = np.flatnonzero(self.rank == 0)
        mine = mine[np.lexsort((self.item[mine], self.unit[mine]))]
        by_unit: dict[int, list[Want]] = {}
        for k in mine.tolist():
            if self.listed.clips[self.row[k]].id not in kept:
                by_unit.setdefault(int(self.unit[k]), []).append(self._want(k))
        return [
            Task(self.units[number], tuple(wants), self.options)
            for number, wants in by_unit.items()
        ]

    def _want(self, k: int) -> Want:
        row, item = int(self.row[k]), int(self.item[k])
        clip, span = self.listed.clips[row], self.listed.spans[row]
        if row in self.listed.without:
            return Want(item, clip, verdict=("missing", self.listed.without[row]))
        if not self.fits[k]:
            start = self.starts[int(self.unit[k]), item]
            why = f"it begins at {start:g}, the listed segment at {span[0]:g} s"
            return Want(item, clip, verdict=("other segment", why))
        least = 0.0 if span is None else max(0.0, min(self.least_s, span[1] - span[0]) - _SLACK_S)
        others, k = [], k + 1
        while k < len(self.row) and self.row[k] == row and self.fits[k]:
            others.append((self.units[self.unit[k]], int(self.item[k])))
            k += 1
        return Want(item, clip, least, others=tuple(others))

    def lines(self) -> list[str]:
        """What the user should know of the sources."""
        out = []
        if self.strangers:
            out.append(f"{self.strangers:,} items of the sources are in no list; they are not used")
        if self.copies:
            out.append(
                f"{self.copies:,} items are further copies of listed clips; the first sound copy "
                "counts"
            )
        for text in self.damaged[:_LISTED]:
            out.append(f"DAMAGED: {text}; its clips are missing, unless another source has them")
        if len(self.damaged) > _LISTED:
            out.append(f"DAMAGED: {len(self.damaged) - _LISTED} more files")
        return out


def of_sources(sources, listed: Listed, options: Options, least_s: float, pool) -> Plan:
    """The plan for sources `[(kind, place), ...]` of clips with YouTube ids.

    Raises:
      AsjaxError: no such source, or no file of any source can be opened.
    """
    plan, found = Plan(listed, options, least_s), []
    opened = [unit for kind, place in sources for unit in readers.units(kind, place)]
    for units, names, damage in engine.names(opened, pool):
        if damage:
            plan.damaged.append(damage)
        for unit, inside in zip(units, names, strict=True):
            number = len(plan.units)
            plan.units.append(replace(unit, order=number))
            _match(plan, number, inside, found)
    if not plan.units:
        raise AsjaxError(f"no file of the sources can be read: {plan.damaged[0]}")
    _rank(plan, found)
    return plan


def _match(plan: Plan, number: int, names: list[str], found: list) -> None:
    """Append (row, unit, item, fits) of the listed items of a unit."""
    row_of, spans = plan.listed.row, plan.listed.spans
    for item, name in enumerate(names):
        segment = youtube(name)
        row = row_of.get(segment[0]) if segment else None
        if row is None:
            plan.strangers += 1
            continue
        fits = same_start(segment[1], spans[row][0])
        if not fits:
            plan.starts[number, item] = segment[1]
        found.append((row, number, item, fits))


def _rank(plan: Plan, found: list) -> None:
    table = np.array(found, np.int64).reshape(-1, 4)
    table = table[np.lexsort((table[:, 2], table[:, 1], 1 - table[:, 3], table[:, 0]))]
    plan.row, plan.unit, plan.item = table[:, 0], table[:, 1], table[:, 2]
    plan.fits = table[:, 3].astype(bool)
    first = np.flatnonzero(np.diff(plan.row, prepend=-1))
    lengths = np.diff(np.append(first, len(table)))
    plan.rank = np.arange(len(table)) - np.repeat(first, lengths)
    plan.copies = int((plan.rank > 0).sum())


def of_clips(listed: Listed, options: Options, root="") -> Plan:
    """The plan for clips that have their paths; every clip has one copy.

    Args: root: the folder of the audio; the units are the same wherever it lies.
    """
    root = os.path.abspath(root or ".")
    plan, places = Plan(listed, options, 0.0), []
    for number, start in enumerate(range(0, len(listed), SIZE)):
        rows = range(start, min(start + SIZE, len(listed)))
        paths = [os.path.abspath(os.fspath(listed.clips[i].audio)) for i in rows]
        names = tuple(path.removeprefix(root + os.sep) for path in paths)
        plan.units.append(Unit("paths", root, names=names, order=number))
        places += [(row, number, row - start, 1) for row in rows]
    _rank(plan, places)
    return plan


def of_items(listed: Listed, options: Options, path: str, items: list[int]) -> Plan:
    """The plan for clips that are items of one tar; -1: the tar does not have it."""
    plan = Plan(listed, options, 0.0, units=readers.units("tar", path))
    for row, item in enumerate(items):
        if item < 0:
            listed.without[row] = "it is not in the tar"
    _rank(plan, [(row, 0, item, 1) for row, item in enumerate(items)])
    return plan


def parse_sources(texts) -> list[tuple[str, str]]:
    """`["parquet=DIR", ...]` -> `[("parquet", "DIR"), ...]`. AsjaxError: another form or kind."""
    found = []
    for text in texts:
        kind, equals, place = text.partition("=")
        if not equals or kind not in readers.KINDS or not place:
            raise AsjaxError(
                f"--from must be {'=..., '.join(readers.KINDS)}=..., got {shown(text)}"
            )
        found.append((kind, place))
    return found
