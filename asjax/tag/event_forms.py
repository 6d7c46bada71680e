"""The forms of events on standard output or in one file: table, TSV, JSON lines.

A form is called with the `events.Detected` of each recording and the files that were written for
it. It returns the number of events.
"""

from __future__ import annotations

import json

from asjax.config import printable
from asjax.tag.embeddings import text
from asjax.tag.events import Detected
from asjax.tag.forms import BAR_WIDTH

COLUMNS = ("filename", "onset", "offset", "event_label", "probability")


class Table:
    """For people: one block per file, a line per event."""

    def __init__(self, out, choice=None, label_set=None):
        self.out = out
        with_blocks = "utf" in (getattr(out, "encoding", None) or "").lower()
        self.block = "█" if with_blocks else "#"

    def __call__(self, found: Detected, written=()) -> int:
        lines = [f"{printable(found.file)}  {found.duration_s:.2f} s"]
        for event in found.events:
            bar = self.block * round(event.probability * BAR_WIDTH)
            times = f"{event.onset_s:9.2f} - {event.offset_s:9.2f} s"
            lines.append(f"  {times}  {event.probability:5.3f}  {bar:<{BAR_WIDTH}}  {event.label}")
        if not found.events:
            lines.append("  no events")
        print(*lines, "", sep="\n", file=self.out)
        return len(found.events)


class Tsv:
    """A header, then one line per event: the columns of DESED's lists, and the probability.

    The fields are not quoted, because readers of such lists do not expect it. A control character
    in a name is written as \\xNN.
    """

    def __init__(self, out, choice=None, label_set=None):
        self.out, self.on_screen = out, out.isatty()
        print(*COLUMNS, sep="\t", file=out)

    def __call__(self, found: Detected, written=()) -> int:
        name = printable(found.file) if self.on_screen else plain(text(found.file))
        for onset, offset, label, _, p in found.events:
            row = [name, f"{onset:.6f}", f"{offset:.6f}", plain(label), f"{p:.7g}"]
            print(*row, sep="\t", file=self.out)
        return len(found.events)


def plain(name: str) -> str:
    """A name without control characters: each is written as \\xNN."""
    return "".join(f"\\x{ord(c):02x}" if ord(c) < 32 or c == "\x7f" else c for c in name)


class Json:
    """One line per file, a JSON object with the list of events."""

    def __init__(self, out, choice=None, label_set=None):
        self.out = out

    def __call__(self, found: Detected, written=()) -> int:
        events = [
            {
                "onset_s": round(event.onset_s, 6),
                "offset_s": round(event.offset_s, 6),
                "label": event.label,
                "id": event.id,
                "probability": float(f"{event.probability:.7g}"),
            }
            for event in found.events
        ]
        item = {"file": found.file, "duration_s": round(found.duration_s, 6), "events": events}
        print(json.dumps(item), file=self.out)
        return len(events)
