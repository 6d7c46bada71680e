"""What became of every listed clip: report.csv, the counts per class, and their picture."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np

from asjax import pages
from asjax.config import printable
from asjax.data.bulk import listed as lists
from asjax.data.bulk.part import Part
from asjax.data.bulk.units import STATES
from asjax.store import clip_list

REPORT = "report.csv"
COLUMNS = ("id", "list", "split", "state", "reason", "source")
_SAID = 5
_MOST_LEFT = 1000  # in manifest.json; report.csv has all
_NAMED = 4  # classes with names in the picture
_EVALUATED = ("eval", "test")


class Report:
    """The state of every line of the lists.

    Attributes:
      counts: list -> Counter of states. The states of a list sum to its lines.
      classes: {list: {class: [listed, kept]}}.
      left: (id, reason) of the first clips that are not kept.
    """

    def __init__(self, listed: Path, parts: list[Part], kept: dict[str, Part]):
        self.listed, self.parts, self.kept = listed, parts, kept
        self.counts: dict[str, Counter] = {}
        self.classes: dict[str, dict[str, list[int]]] = {}
        self.left: list[tuple[str, str]] = []
        self._left: dict[str, tuple[str, str, str]] = {}
        self._sources: dict[str, str] = {}
        for part in parts:
            for clip, state, reason in part.left_out:
                self._left[clip] = (state, reason, part.source)
            self._sources |= part.sources()

    def text(self) -> str:
        """report.csv. It also counts."""
        out = io.StringIO()
        write = csv.writer(out, lineterminator="\n").writerow
        write(COLUMNS)
        self.counts, self.classes, self.left = {}, {}, []
        for clip, name, split, labels, twice in lists.read(self.listed):
            state, reason, source = self._state(clip, twice)
            write([clip, name, split, state, reason, source])
            self.counts.setdefault(name, Counter())[state] += 1
            if state != "kept" and len(self.left) < _MOST_LEFT:
                self.left.append((clip, reason))
            counted = self.classes.setdefault(name, {})
            for label in filter(None, labels.split(";")):
                both = counted.setdefault(label, [0, 0])
                both[0] += 1
                both[1] += state == "kept"
        return out.getvalue()

    @property
    def lines(self) -> int:
        """The number of lines of all lists."""
        return sum(sum(count.values()) for count in self.counts.values())

    def _state(self, clip: str, twice: str):
        if twice:
            return "duplicate", twice, ""
        if clip in self.kept:
            return "kept", "", self._sources.get(clip) or self.kept[clip].source
        return self._left.get(clip, ("missing", "no source has it", ""))


def lines(counts: dict[str, Counter]) -> list[str]:
    """The states per list as a text table."""
    states = [s for s in STATES if any(count[s] for count in counts.values())]
    rows = [["list", "listed", *states]]
    for name, count in counts.items():
        rows.append([name, f"{sum(count.values()):,}", *(f"{count[s]:,}" for s in states)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def told(summary, report: Report) -> list[str]:
    """The end of a preparation, for the user. Args: summary: writer.Summary."""
    out = [*lines(report.counts)]
    out.append(
        f"kept {summary.clips:,} clips, {summary.seconds / 3600:.2f} h, "
        f"{summary.bytes / 2**20:,.1f} MiB"
    )
    compared = sum(part.about.get("labels_compared", 0) for part in report.parts)
    differ = sum(part.about.get("labels_differ", 0) for part in report.parts)
    if compared:
        out.append(
            f"labels are those of the list; of {compared:,} clips with labels in the source too, "
            f"{differ:,} have others there"
        )
    damage = [part.about["damage"] for part in report.parts if part.about.get("damage")]
    out += [f"DAMAGED: {text}" for text in damage[:_SAID]]
    where = summary.path
    out.append(f"{where / REPORT} has the state of every listed clip")
    out.append(f"wrote {where}; use it as data \"records(path='{where}')\"")
    return [printable(line) for line in out]


def classes_csv(report: Report, label_set) -> str:
    """Per list and class: how many clips are listed and kept."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["list", "class", "name", "listed", "kept"])
    names = dict(zip(label_set.ids, label_set.names, strict=True))
    for name, counted in report.classes.items():
        for label in label_set.ids:
            if label in counted:
                write([name, label, names[label], *counted[label]])
    return out.getvalue()


def picture(report: Report, label_set) -> bytes:
    """PNG: the share of kept clips per class against the number of listed ones."""
    names = dict(zip(label_set.ids, label_set.names, strict=True))
    groups = [(name, counted) for name, counted in report.classes.items() if counted]

    def draw(figure):
        figure_axes = figure.subplots(max(len(groups), 1), 1, squeeze=False)[:, 0]
        for axes, (name, counted) in zip(figure_axes, groups, strict=False):
            total = np.array([both[0] for both in counted.values()])
            share = np.array([100 * both[1] / both[0] for both in counted.values()])
            labels = [names.get(label, label) for label in counted]
            axes.scatter(total, share, s=14, color=pages.BLUE, alpha=0.6, linewidths=0)
            whole = 100 * sum(b[1] for b in counted.values()) / total.sum()
            axes.axhline(whole, color=pages.ORANGE, linewidth=1)
            axes.set_xscale("log")
            axes.set_ylim(-4, 104)
            axes.set_ylabel("kept, %")
            axes.set_title(f"{name}: {len(counted)} classes, {whole:.1f} % of their labels kept")
            axes.xaxis.set_major_formatter("{x:,.0f}")
            for j in _apart(total, share, whole):
                axes.annotate(
                    pages.short(labels[j], 24),
                    (total[j], share[j]),
                    fontsize=7,
                    xytext=(4, 1),
                    textcoords="offset points",
                )
        figure_axes[-1].set_xlabel("listed clips of the class")

    return pages.png(draw, 2.9 * max(len(groups), 1))


def _apart(total, share, whole: float) -> list[int]:
    """The classes with the smallest shares whose names do not cover each other."""
    chosen: list[int] = []
    for j in np.argsort(share, kind="stable").tolist():
        near = any(
            abs(share[j] - share[k]) < 6 and abs(np.log10(total[j] / total[k])) < 0.6
            for k in chosen
        )
        if share[j] < whole and not near and len(chosen) < _NAMED:
            chosen.append(j)
    return chosen


def extras(report: Report, label_set, rows, drawn: bool = True) -> dict[str, str | bytes]:
    """The files of the report: report.csv, classes.csv, classes.png, and the clip lists of the
    evaluation splits.

    Args: rows: rows of manifest.csv of the whole set.
    """
    made: dict[str, str | bytes] = {REPORT: report.text()}
    if drawn:
        made |= {
            "classes.csv": classes_csv(report, label_set),
            "classes.png": picture(report, label_set),
        }
    pairs: dict[str, list] = {}
    for row in rows:
        if row[1] in _EVALUATED:
            pairs.setdefault(row[1], []).append((row[0], row[6]))
    return made | {f"{split}_manifest.csv": clip_list.text(p) for split, p in pairs.items()}
