"""events.html: a self-contained page about events in time, with tables, pictures and sounds."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from asjax import metrics
from asjax.config import shown
from asjax.evaluation import class_page, clip_page, event_errors, event_plots, onsets, page
from asjax.pages import figure, html_table, number
from asjax.pages import page as whole

TILES = (
    ("psds1", "PSDS1"),
    ("psds2", "PSDS2"),
    ("event_f1_macro", "event F1"),
    ("segment_f1_macro", "segment F1"),
)
ONSETS = ("onset_f1_50ms", "onset F1")  # a tile if there is such a number
MEANINGS = (  # rows of the table of results: keys of macro and micro, or of one value
    (
        "onset F1, 50 ms",
        ("onset_f1_50ms_macro", "onset_f1_50ms"),
        "an event counts if its onset is within 50 ms; offsets do not count. Second value: all "
        "events together, as HEAR reports it. Settings: SETTING.",
    ),
    ("onset F1, 200 ms", ("onset_f1_200ms_macro", "onset_f1_200ms"), "likewise, within 200 ms."),
    (
        "segment error rate",
        ("segment_error_rate",),
        "errors in segments of 1 s, divided by the true ones. It has the events of onset F1, and "
        "smaller is better.",
    ),
    (
        "F1 of clips",
        ("weak_f1",),
        "over the clips with labels only, at a probability of 0.5. Mean over classes.",
    ),
    (
        "intersection F1",
        ("intersection_f1",),
        "at a probability of 0.5; a detection and an event must cover 50 % of each other. Mean "
        "over classes.",
    ),
    (
        "PSDS1",
        ("psds1", "psds1_penalised"),
        "over all thresholds, up to 100 false detections an hour; a detection and an event must "
        "cover 70 % of each other. First value: mean over classes, as published for AudioSet "
        "Strong. Second value: with the penalty for differences between classes.",
    ),
    (
        "PSDS1, tuned windows",
        ("psds1_tuned_windows",),
        "the same with the median window of each class that is best on the other half of the "
        "clips. All other PSDS have {window} for all classes.",
    ),
    (
        "PSDS2",
        ("psds2", "psds2_penalised"),
        "10 % is enough, but a detection in an event of another class costs more. It asks more "
        "for the right class, and PSDS1 for the right time.",
    ),
    (
        "event F1",
        ("event_f1_macro", "event_f1_micro"),
        "an event counts if its onset is within 0.2 s, and its offset within 0.2 s or 20 % of its "
        "length. First value: mean over classes. Second value: all events together.",
    ),
    (
        "segment F1",
        ("segment_f1_macro", "segment_f1_micro"),
        "in segments of 1 s: is the class active in the segment? Mean over classes, and all "
        "together.",
    ),
    (
        "event F1 at 0.5",
        ("event_f1_macro_at_half", "event_f1_micro_at_half"),
        "with a threshold of 0.5 and a median window of {window} for every class.",
    ),
    ("segment F1 at 0.5", ("segment_f1_macro_at_half", "segment_f1_micro_at_half"), "likewise."),
    (
        "event F1, model",
        ("event_f1_macro_of_model", "event_f1_micro_of_model"),
        "with the thresholds and windows in the model folder.",
    ),
    (
        "segment F1, model",
        ("segment_f1_macro_of_model", "segment_f1_micro_of_model"),
        "likewise.",
    ),
)
TUNED = {
    "other half": "Thresholds and median windows were tuned on each half of the clips and applied "
    "to the other half, so that the F1 are not too good.",
    "other clips": "Thresholds and median windows were tuned on the clips that chose the step, "
    "which are not the clips of this page.",
    None: "Half of the clips has no event, so no threshold could be tuned on one half and applied "
    "to the other.",
}
MOST = 1000  # rows of a table


def render(summary, made, columns, *, names, history=None, listen=None) -> str:
    """The page as a string.

    Args:
      summary: content of events.json. made: `event_numbers.Numbers`. columns: of
        `detection.per_class`. names: the classes. history: rows of train.jsonl, or None.
      listen: id -> (sound, mime type) or None, as in `page.render`.
    """
    record, events = summary["record"], summary["events"]
    head = f"<h1>{escape(page.title(record))}: events in time</h1>\n<p>{escape(_what(summary))}</p>"
    if not events["n_events"]:
        sections = [("Results", "<p>No clip has an event, so no number is defined.</p>")]
    else:
        head += _tiles(events)
        if text := page.chosen(record):
            head += f"<p>{escape(text)}</p>"
        sections = [
            ("Results", _results(summary)),
            ("Classes", _classes(columns, names)),
            ("Found events against false ones", _curves(made, names)),
            *_times(made),
            ("Worst clips", _clips(made, names, listen)),
            ("Training", page.training(history, record)),
            ("Thresholds", _thresholds(summary)),
        ]
    sections.append(("What was evaluated", page.about(summary)))
    body = "\n".join(f"<h2>{escape(title)}</h2>\n{html}" for title, html in sections if html)
    return whole(f"{page.title(record)}: events in time", f"{head}\n{body}")


# -------------------------------------------------------------------------------- main numbers


def _what(summary) -> str:
    events, record = summary["events"], summary["record"]
    data = page.data_name(record, "test_data", "eval_data")
    text = f"{page.model_name(record)} evaluated on {events['n_clips']:,} clips"
    text += (f" of {shown(data)}" if data else "") + f" ({events['hours']:.2f} hours) with "
    text += f"{events['n_events']:,} events of {events['n_classes']:,} classes."
    if missing := summary.get("not_annotated"):
        text += f" Clips without annotated times are not counted: {missing:,}."
    if empty := summary.get("left_out_without_events"):
        text += f" Clips without any event are left out: {empty:,}."
    if left := events["left_out"] if events["n_events"] else []:
        some = ", ".join(shown(name, 40) for name in left[:5]) + (", ..." if len(left) > 5 else "")
        text += f" Classes without an event are left out, {len(left):,}: {some}."
    for note in summary.get("notes", ()):
        text += f" {note}"
    if events["ci"]:
        text += f" Ranges are {summary['bootstrap']['level']:.0%} intervals."
    return text


def _tiles(events) -> str:
    boxes = "".join(
        f"<div><dt>{title}</dt><dd>{number(events[key])}{_range(events, key, tag=True)}</dd></div>"
        for key, title in ((ONSETS, *TILES) if ONSETS[0] in events else TILES)
    )
    return f'\n<dl class="tiles">{boxes}</dl>\n'


def _range(events, key, tag=False) -> str:
    if key not in events["ci"] or math.isnan(events["ci"][key][0]):
        return ""
    text = " to ".join(number(end) for end in events["ci"][key])
    return f"<small>{text}</small>" if tag else f"\n{text}"


def _results(summary) -> str:
    events, rows, notes = summary["events"], [], []
    for title, keys, meaning in MEANINGS:
        meaning = meaning.replace("{window}", f"{events['median_s']:g} s")
        if "onset_setting" in events:
            meaning = meaning.replace("SETTING", onsets.described(events["onset_setting"]))
        if not any(events.get(key, math.nan) == events.get(key, math.nan) for key in keys):
            continue
        cells = [number(events.get(key, math.nan)) + _range(events, key) for key in keys]
        rows.append([title, *cells, *[""] * (2 - len(cells))])
        notes.append(f"<dt>{escape(title)}</dt><dd>{escape(meaning)}</dd>")
    table = html_table(["", "macro", "micro or penalised"], rows, caption="All metrics")
    n = summary["bootstrap"]["n"]
    draws = ""
    if events["ci"]:
        draws = (
            f"Small figures: {summary['bootstrap']['level']:.0%} intervals over clips, from "
            f"{n['psds1']:,} bootstrap resamples for PSDS1, {n['psds2']:,} for PSDS2 and "
            f"{n['f1']:,} for F1, whose thresholds stay as they are (seed "
            f"{summary['bootstrap']['seed']}). "
        )
    text = f'<p class="note">{draws}{TUNED[events["tuned_on"]]}</p>'
    more = (
        f"<details open><summary>What the numbers mean</summary><dl>{''.join(notes)}</dl></details>"
    )
    return f"{table}{text}{more}"


# ------------------------------------------------------------------------------------- classes


def _classes(columns, names) -> str:
    rows = [c for c, n in enumerate(columns["n_events"]) if n]
    rows = sorted(rows, key=lambda c: columns["psds1"][c])[:MOST]
    count = sum(n > 0 for n in columns["n_events"])
    limits, medians = columns["threshold"], columns["median_s"]
    cells = []
    for c in rows:
        ends = [columns[f"psds1_{end}"][c] for end in ("low", "high")]
        small = "" if math.isnan(ends[0]) else f"\n{number(ends[0], 2)} to {number(ends[1], 2)}"
        cells.append(
            [
                shown(names[c]),
                f"{columns['n_events'][c]:,}\n{columns['seconds'][c]:,.0f} s",
                number(columns["psds1"][c]) + small,
                number(columns["psds2"][c]),
                number(columns["event_f1"][c]),
                number(columns["segment_f1"][c]),
                "0.5 (not tuned)" if math.isnan(limits[c]) else f"{limits[c]:.3g}",
                f"{medians[c]:.2f} s",
            ]
        )
    header = [
        "class", "events", "PSDS1", "PSDS2", "event F1", "segment F1", "threshold", "window",
    ]  # fmt: skip
    caption = "Every class with an event, lowest PSDS1 first. Small: 95 % interval."
    table = html_table(header, cells, caption=caption)
    return class_page.folded(table, "Table", len(rows), count)


def _curves(made, names) -> str:
    result = made.psds["psds1"]
    picture = event_plots.curves(names, result["class_curves"], result["per_class"])
    caption = (
        "PSDS1: share of the events of a class that are found, against false detections of the "
        "class an hour, for all thresholds. The number beside a name is the area under its curve."
    )
    if len(result["class_curves"]) > 2 * event_plots.CURVES:
        caption += f" The {event_plots.CURVES} best and the {event_plots.CURVES} worst classes."
    return figure(picture, "curves of the best and worst classes", caption)


def _times(made):
    """Yields (title, HTML) of the lengths of events and of the errors of their ends."""
    way = _shown_way(made)
    lists = made.ways[way]["event"]["lists"]
    lengths = [
        np.concatenate([marks["offset_s"] - marks["onset_s"] for marks in group])
        for group in (made.given["events"], lists)
    ]
    caption = f"Lengths of the true events and of those found with {_of(way)}."
    picture = event_plots.durations(*lengths)
    yield "Lengths of events", figure(picture, "lengths of true and of found events", caption)
    pairs = event_errors.matched(made.given["events"], lists)
    total = int(made.n_events.sum())
    if not len(pairs):
        text = "<p>No found event shares half of its time with a true one.</p>"
        yield "Errors of onsets and offsets", text
        return
    picture = event_plots.errors(pairs[:, 0], pairs[:, 1])
    caption = (
        f"{len(pairs):,} of {total:,} true events are matched: a found event of the class shares "
        "at least half of their common extent. Values beyond the ends are in the last bars. The "
        "grey band is the collar of 0.2 s of event F1."
    )
    yield "Errors of onsets and offsets", figure(picture, "errors of onsets and offsets", caption)


def _shown_way(made) -> str:
    return next(way for way in ("tuned", "half") if way in made.ways)


def _of(way: str) -> str:
    return {"tuned": "tuned thresholds", "half": "a threshold of 0.5"}[way]


# --------------------------------------------------------------------------------------- clips


def _clips(made, names, listen) -> str:
    way = _shown_way(made)
    lists, play = made.ways[way]["event"]["lists"], clip_page.Player(listen)
    durations_s, truths = made.given["durations_s"], made.given["events"]
    counts = metrics.clip_counts(
        by="segment",
        reference=truths,
        estimated=lists,
        num_classes=len(names),
        durations_s=durations_s,
    )
    chosen = event_errors.worst(counts, durations_s)
    if not len(chosen):
        return "<p>No clip is wrong.</p>"
    parts = []
    for i, wrong, total in chosen:
        truth, found = truths[i], lists[i]
        length = int(made.given["lengths"][i])
        scores = np.asarray(made.given["scores"][i], np.float32)[:length]
        with np.errstate(over="ignore"):
            p = 1 / (1 + np.exp(-scores))
        rows = event_errors.rows(truth, found, p, event_plots.ROWS)
        seconds = float(durations_s[i])
        picture = event_plots.timeline(names, rows, truth, found, _fewer(p), seconds)
        name = escape(shown(made.ids[i]))
        caption = f"<b>{name}</b>: {wrong:,} of {total:,} segments and classes are wrong."
        left = len(set(truth["class"]) | set(found["class"])) - len(rows)
        caption += f" {left} more classes are not drawn." if left > 0 else ""
        alt = f"timeline of {shown(made.ids[i])}"
        parts.append(figure(picture, alt, caption + play(made.ids[i])))
    note = (
        "Clips with the largest share of wrong segments of 1 s. In each row: the true events "
        f"(green) above the events that were found with {_of(way)} (orange). Blue: the "
        "probability of the class."
    )
    return f'<p class="note">{note}</p>{"".join(parts)}{play.note()}'


def _fewer(p, most: int = 1200):
    """At most `most` frames for a picture: the maximum of each group of frames."""
    step = -(-len(p) // most)
    if step <= 1:
        return p
    return np.maximum.reduceat(p, np.arange(0, len(p), step), axis=0)


# ---------------------------------------------------------------------------------- thresholds


def _thresholds(summary) -> str:
    decoding, events = summary["decoding"], summary["events"]
    window = f"{events['median_s']:g} s"
    known = [limit for limit in decoding["threshold"] if limit is not None]
    text = (
        f"For new recordings, the model folder stores a threshold and a median window for "
        f"each class, tuned on all {decoding['tuned_on']['clips']:,} clips for the best event F1 "
        f"({len(known):,} of {len(decoding['threshold']):,} classes; the others keep 0.5 and "
        f"{window}). "
    )
    if known:
        low, mid, high = np.quantile(known, [0, 0.5, 1])
        text += f"They go from {low:.3g} to {high:.3g}, with a median of {mid:.3g}. "
    text += (
        f"With 0.5 and {window} for all classes, event F1 is "
        f"{number(events['event_f1_macro_at_half'])} and segment F1 "
        f"{number(events['segment_f1_macro_at_half'])}; with tuned ones, each for its own metric, "
        f"{number(events['event_f1_macro'])} and {number(events['segment_f1_macro'])}."
    )
    return f"<p>{text} All thresholds are in per_class_events.csv.</p>"
