"""Sections of report.html about clips: the confusion matrix, and wrong clips with players."""

from __future__ import annotations

import base64
import time
from html import escape
from pathlib import Path

import numpy as np

from asjax import metrics
from asjax.config import shown
from asjax.evaluation import decide, decision_plots
from asjax.pages import figure, html_table, number

MOST_CLASSES = 2000  # of a confusion matrix
MOST = 8  # clips in each of the two lists
SOUND_BYTES = 1_200_000  # of all embedded sounds together
SOUND_S = 30.0  # no more clips are read after this time


def confusion(results, found):
    """Yields (title, HTML) for each view in which every clip has exactly one class."""
    for key, result in results.items():
        view = found[key]
        plain = key == "labels" or result["mapped"]
        if not plain or not metrics.is_single_label(view.targets):
            continue
        title = "Confusion matrix" + (f": {result['title']}" if result["mapped"] else "")
        if len(view.names) > MOST_CLASSES:
            yield title, f"<p>It is not shown for more than {MOST_CLASSES:,} classes.</p>"
            continue
        table = result["confusion"]
        picture = decision_plots.confusion(view.names, table)
        pairs = decide.confused_pairs(table)
        right = int(np.trace(table))
        text = f"{right:,} of {int(table.sum()):,} clips are right"
        caption = (
            f"{text} (on the diagonal). The decision is the class with the highest score. Colour: "
            "share of the clips of the true class."
        )
        if len(view.names) > decision_plots.NAMED:
            caption += " The classes have the order of per_class.csv; the table names the pairs."
        counts = np.maximum(table.sum(axis=1), 1)
        rows = [
            [shown(view.names[i]), shown(view.names[j]), f"{n:,}", f"{n / counts[i]:.0%}"]
            for i, j, n in pairs
        ]
        head = ["true class", "decision", "clips", "share of the class"]
        most = f"The {len(rows)} most frequent mistakes"
        listed = html_table(head, rows, numbers_from=2, caption=most) if rows else ""
        yield title, figure(picture, f"Confusion matrix: {text}", caption) + listed


def mistakes(decided, found, clips, listen=None) -> str:
    """Two lists of wrong clips with players; empty without ids or without a mistake."""
    names, p, targets = found["labels"].names, decided["probabilities"], decided["targets"]
    if clips is None or not np.any(targets):
        return ""
    limit = decided["thresholds"]["threshold"]
    limit = np.where(np.isfinite(limit), limit, 0.5)  # a class without a positive clip
    lists = decide.mistakes(p, targets, limit, MOST)
    if not any(lists.values()):
        return "<p>No clip is wrong.</p>"
    single = metrics.is_single_label(targets)
    play = Player(listen)
    heads = {
        "confident": (
            "Wrong with the most confidence",
            "The decision with the highest probability that is not the label of the clip."
            if single
            else "The highest probabilities of a class that is not labelled. Some of these clips "
            "may lack the label. A clip is listed once, a class at most twice.",
        ),
        "missed": (
            "Worst clips" if single else "Missed with the most confidence",
            "Wrong clips with the lowest probability of their label."
            if single
            else "The lowest probabilities of a label. A clip is listed once, a class at most "
            "twice.",
        ),
    }
    parts = []
    if not single:
        parts.append(
            '<p class="note">Right or wrong is decided with the thresholds of the table below.</p>'
        )
    for key, pairs in lists.items():
        title, note = heads[key]
        cards = "".join(_card(clips[i], i, c, names, p, targets, play, single) for i, c in pairs)
        text = f'<p class="note">{note}</p><ul class="clips">{cards}</ul>'
        parts.append(f"<h3>{title}</h3>{text if cards else '<p>None.</p>'}")
    return "\n".join([*parts, play.note()])


def _card(clip, row, wrong, names, p, targets, play, single) -> str:
    """One clip: the class that is wrong, its labels, the highest probabilities, a player."""
    name = escape(shown(clip))
    label = np.flatnonzero(targets[row])
    first, *others = (_with(names, p[row], c) for c in np.argsort(-p[row], kind="stable")[:3])
    labelled = ", ".join(_with(names, p[row], c) for c in label[:5])
    more = f" and {len(label) - 5} more" if len(label) > 5 else ""
    if single:
        text = f"label: {labelled}<br>decision: {first}<small>then {', '.join(others)}</small>"
    else:
        kind = "missed" if targets[row, wrong] else "not labelled"
        text = (
            f"{kind}: {_with(names, p[row], wrong)}"
            f"<small>labels: {labelled or 'none'}{more}</small>"
            f"<small>highest: {', '.join([first, *others])}</small>"
        )
    return f"<li><b>{name}</b><br>{text}{play(clip)}</li>"


def _with(names, p, c) -> str:
    return f"{escape(shown(names[c], 60))} {number(float(p[c]), 2)}"


class Player:
    """HTML of a player for a clip; counts what is embedded and what is not."""

    def __init__(self, listen):
        self.listen, self.bytes, self.refused = listen, 0, 0
        self.until = time.monotonic() + SOUND_S

    def __call__(self, clip) -> str:
        if self.listen is None:
            return ""
        if self.bytes > SOUND_BYTES or time.monotonic() > self.until:
            self.refused += 1
            return ""
        try:
            found = self.listen(clip)
        except Exception as error:  # a clip that cannot be played must not cost the evaluation
            return f"<small>cannot be played: {escape(shown(error))}</small>"
        if found is None:
            return ""
        sound, mime = found
        if isinstance(sound, (str, Path)):
            return f'<small><a href="{escape(Path(sound).absolute().as_uri())}">sound</a></small>'
        data = base64.b64encode(sound).decode("ascii")
        if self.bytes + len(data) > SOUND_BYTES:
            self.refused += 1
            return ""
        self.bytes += len(data)
        return (
            f'<audio controls preload="none" aria-label="{escape(shown(clip))}" '
            f'src="data:{escape(mime)};base64,{data}"></audio>'
        )

    def note(self) -> str:
        parts = []
        if self.bytes:
            parts.append("The players have the first 10 s of a clip, mono at 16 kHz.")
        if self.refused:
            parts.append(f"{self.refused} clips have no player, because the page would be too big.")
        return f'<p class="note">{" ".join(parts)}</p>' if parts else ""
