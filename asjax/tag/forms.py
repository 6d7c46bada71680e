"""The forms of the results on standard output or in one file: table, JSON lines, TSV, CSV.

A form is called with the Tags of each recording and the label tracks that were written for it. It
returns the number of tags that it wrote.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass

import numpy as np

from asjax.config import printable
from asjax.tag.embeddings import text

BAR_WIDTH = 20


@dataclass(frozen=True)
class Choice:
    """The tags to show.

    Attributes:
      classes: indices, or None for all classes.
      top: the most probable ones, at most this number; None: no limit.
      threshold: lowest probability, or None.
      rows: "file", "window" or "both".
    """

    classes: list[int] | None = None
    top: int | None = None
    threshold: float | None = None
    rows: str = "file"

    def of(self, order: np.ndarray, p: np.ndarray) -> list[tuple[int, float]]:
        """(index, probability) of the chosen classes.

        Args:
          order: all indices, the most probable first. p: float32 [C].
        """
        if self.classes is not None:
            order = order[np.isin(order, self.classes)]
        if self.threshold is not None:
            order = order[p[order] >= np.float32(self.threshold)]
        return [(int(i), float(p[i])) for i in order[: self.top]]

    def blocks(self, tags):
        """(window number or None, begin_s, end_s, chosen tags): the file, its windows, or both."""
        if self.rows != "window":
            yield None, 0.0, tags.duration_s, self.of(tags.order(), tags.clip)
        if self.rows != "file":
            for n, ((begin, end), row) in enumerate(zip(tags.times, tags.windows, strict=True)):
                order = np.argsort(-row, kind="stable")
                yield n, float(begin), float(end), self.of(order, row)


class Table:
    """For people: one block per file, with bars."""

    def __init__(self, out, choice: Choice, label_set):
        self.out, self.choice = out, choice
        with_blocks = "utf" in (getattr(out, "encoding", None) or "").lower()
        self.block = "█" if with_blocks else "#"

    def __call__(self, tags, written=()) -> int:
        lines, count = [f"{printable(tags.file)}  {tags.duration_s:.2f} s"], 0
        for window, begin, end, best in self.choice.blocks(tags):
            count += len(best)
            if window is not None:
                names = ", ".join(f"{tags.labels[i]} {p:.2f}" for i, p in best) or "-"
                lines.append(f"  {begin:9.2f} - {end:9.2f} s  {names}")
                continue
            for i, p in best:
                bar = self.block * round(p * BAR_WIDTH)
                lines.append(f"  {p:5.3f}  {bar:<{BAR_WIDTH}}  {tags.labels[i]}")
            if not best:
                lines.append(f"  no tag has a probability of {self.choice.threshold:g} or more")
        print(*lines, "", sep="\n", file=self.out)
        return count


class Json:
    """One line per file, a JSON object; probabilities have the 7 digits of float32."""

    def __init__(self, out, choice: Choice, label_set):
        self.out, self.choice = out, choice

    def __call__(self, tags, written=()) -> int:
        item, count = {"file": tags.file, "duration_s": round(tags.duration_s, 6)}, 0
        if self.choice.rows != "file":
            windows = []
        for window, begin, end, best in self.choice.blocks(tags):
            count += len(best)
            found = [
                {"label": tags.labels[i], "id": tags.ids[i], "probability": float(f"{p:.7g}")}
                for i, p in best
            ]
            if window is None:
                item["tags"] = found
            else:
                times = {"start_s": round(begin, 6), "end_s": round(end, 6)}
                windows.append({**times, "tags": found})
        if self.choice.rows != "file":
            item["windows"] = windows
        # json.dumps escapes other characters, so a line is always ASCII.
        print(json.dumps(item), file=self.out)
        return count


class _Rows:
    """A table with a header, for programs."""

    dialect = "excel-tab"

    def __init__(self, out, choice: Choice, label_set):
        self.out = csv.writer(out, self.dialect, lineterminator="\n")
        self.choice, self.on_screen = choice, out.isatty()
        self.out.writerow(self.header(label_set))

    def name(self, tags) -> str:
        return printable(tags.file) if self.on_screen else text(tags.file)


class Tsv(_Rows):
    """A header, then one line per tag; `window` is empty for the tags of the whole file."""

    def header(self, label_set) -> list[str]:
        return ["file", "window", "start_s", "end_s", "rank", "id", "label", "probability"]

    def __call__(self, tags, written=()) -> int:
        count = 0
        for window, begin, end, best in self.choice.blocks(tags):
            count += len(best)
            place = [self.name(tags), "" if window is None else window]
            place += [f"{begin:.6f}", f"{end:.6f}"]
            for rank, (i, p) in enumerate(best, 1):
                self.out.writerow([*place, rank, tags.ids[i], tags.labels[i], f"{p:.7g}"])
        return count


class Csv(_Rows):
    """A header, then one line per file or per window with the probability of every class."""

    dialect = "excel"

    def header(self, label_set) -> list[str]:
        first = ["file", "start_s", "end_s"]
        columns = range(len(label_set)) if self.choice.classes is None else self.choice.classes
        self.columns = list(columns)
        names = {i: label_set.names[i] for i in self.columns}
        taken = {i for i, name in names.items() if name.casefold() in first}
        return first + [f"{n} [{label_set.ids[i]}]" if i in taken else n for i, n in names.items()]

    def __call__(self, tags, written=()) -> int:
        if self.choice.rows == "file":
            rows = [(0.0, tags.duration_s, tags.clip)]
        else:
            rows = [(*t, p) for t, p in zip(tags.times, tags.windows, strict=True)]
        for begin, end, p in rows:
            values = [f"{p[i]:.7g}" for i in self.columns]
            self.out.writerow([self.name(tags), f"{begin:.6f}", f"{end:.6f}", *values])
        return len(rows)


class Written:
    """A line for each file that was written."""

    def __init__(self, out, choice: Choice, label_set):
        self.out = out

    def __call__(self, tags, written=()) -> int:
        for path, count, noun in written:
            plural = "" if count == 1 else "s"
            print(f"{printable(str(path))}  {count} {noun}{plural}", file=self.out)
        return len(written)
