"""From frame scores to numbers, files and a page about events in time.

frames/               the frame scores with ids and true events (asjax.store.frame_scores)
events.json           the numbers; null where a number is undefined
per_class_events.csv  one row per class
events.html           the page
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from asjax import pages
from asjax.config import to_plain
from asjax.evaluation import event_numbers, event_tuning, onsets
from asjax.store.files import finite, write_atomic
from asjax.store.frame_scores import FrameScoresWriter

FRAMES = "frames"
_CHUNK = 64  # clips that are written at once
ROWS = (  # key, title, in the order of the text table and the page
    ("onset_f1_50ms", "onset F1, 50 ms"),
    ("onset_f1_200ms", "onset F1, 200 ms"),
    ("segment_error_rate", "segment error rate"),
    ("weak_f1", "F1 of clips, macro"),
    ("intersection_f1", "intersection F1, macro"),
    ("psds1", "PSDS1"),
    ("psds1_penalised", "PSDS1 with penalty"),
    ("psds1_tuned_windows", "PSDS1, tuned windows"),
    ("psds2", "PSDS2"),
    ("psds2_penalised", "PSDS2 with penalty"),
    ("event_f1_macro", "event F1, macro"),
    ("event_f1_micro", "event F1, micro"),
    ("segment_f1_macro", "segment F1, macro"),
    ("segment_f1_micro", "segment F1, micro"),
    ("event_f1_macro_at_half", "event F1 at 0.5, macro"),
    ("event_f1_micro_at_half", "event F1 at 0.5, micro"),
    ("segment_f1_macro_at_half", "segment F1 at 0.5, macro"),
    ("segment_f1_micro_at_half", "segment F1 at 0.5, micro"),
    ("event_f1_macro_of_model", "event F1, the model's thresholds, macro"),
    ("event_f1_micro_of_model", "event F1, the model's thresholds, micro"),
    ("segment_f1_macro_of_model", "segment F1, the model's thresholds, macro"),
    ("segment_f1_micro_of_model", "segment F1, the model's thresholds, micro"),
)


def evaluate(
    found,
    out,
    *,
    label_set,
    n_bootstrap: int = 1000,
    seed: int = 0,
    history=None,
    record=None,
    listen=None,
    tuning=None,
    stored=None,
    write_frames: bool = True,
    about=None,
    numbers=None,
) -> dict:
    """Write the files above to the folder `out`; returns the content of events.json.

    Args:
      found: a `Detections`. label_set: its C classes.
      n_bootstrap, seed: resamples for the intervals; PSDS of a large set gets fewer of them.
      history, record, listen: for the page, as in `evaluate.evaluate_scores`.
      tuning: `Detections` of other clips, on which thresholds and windows are tuned. Default: the
        two halves of `found`, each for the other one.
      stored: "decoding" of the model's card, to be tried as it is.
      write_frames: False keeps the folder `frames`, from which `found` may come.
      about: more entries of events.json, such as how long recordings were scored.
      numbers: a function of (found, tuning), n_bootstrap and seed that gives more main numbers, as
        of asjax.evaluation.step_metrics.

    Returns: dict with
      events: the main numbers for a card (`event_numbers.headline`), and `tuned_on`;
      decoding: threshold [C], probabilities, null where 0.5 is as good as any; median [C], frames;
        frame_rate; tuned_on. It was tuned on all clips of `tuning` or `found`, for new recordings.
        None if no clip has an event.

    Raises:
      AsjaxError: no clip is annotated, scores are not finite, or a folder `frames` of something
        else is there.
    """
    from asjax.evaluation import event_page

    out, record = Path(out), record or {}
    out.mkdir(parents=True, exist_ok=True)
    if write_frames:
        _write_frames(found, out / FRAMES, label_set, record)
    own = event_tuning.from_json(stored, len(label_set), found.frame_rate)
    made = event_numbers.numbers(
        found, n_bootstrap=n_bootstrap, seed=seed, tuning=tuning, stored=own
    )
    role = "other half" if tuning is None else "other clips"
    events = event_numbers.headline(made, label_set.names)
    events["median_s"] = found.median_s
    events["only_with_events"] = found.only_with_events
    if numbers is not None and events["n_events"]:
        more = numbers(found, tuning, n_bootstrap=n_bootstrap, seed=seed)
        events["ci"] |= more.pop("ci", {})
        events |= more
    events["tuned_on"] = role if "tuned" in made.ways else None
    decoding = None
    if made.decoding is not None:
        on = {"role": "eval", "clips": len(tuning.ids if tuning is not None else made.ids)}
        data = record.get("eval_data")
        keys = ("name", "hash") if isinstance(data, dict) else ()
        on |= {key: data[key] for key in keys if key in data}
        decoding = event_tuning.as_json(made.decoding, found.frame_rate, on)
    summary = {
        "label_set": {"name": label_set.name, "hash": label_set.hash, "classes": len(label_set)},
        "events": events,
        "decoding": decoding,
        "bootstrap": {"level": event_numbers.LEVEL, "seed": seed, "n": made.resamples},
        "not_annotated": sum(marks is None for marks in found.events),
        "left_out_without_events": sum(marks is not None for marks in found.events) - len(made.ids),
        **(about or {}),
        "record": record,
    }
    text = json.dumps(finite(to_plain(summary)), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(out / "events.json", text + "\n")
    columns = per_class(made)
    header = ["index", "mid", "name", *columns]
    classes = zip(range(len(label_set)), label_set.ids, label_set.names, strict=True)
    rows = [[*row, *(column[row[0]] for column in columns.values())] for row in classes]
    pages.write_csv(out / "per_class_events.csv", header, rows)
    html = event_page.render(
        summary, made, columns, names=label_set.names, history=history, listen=listen
    )
    write_atomic(out / "events.html", html)
    return summary


def _write_frames(found, path, label_set, record) -> None:
    options = {"frames": found.frames.shape[1], "frame_rate": found.frame_rate, "overwrite": True}
    extra = {"model": record.get("model"), "run": record.get("run"), "median_s": found.median_s}
    extra["only_with_events"] = found.only_with_events
    with FrameScoresWriter(path, label_set=label_set, extra=extra, **options) as writer:
        for start in range(0, len(found.ids), _CHUNK):
            part = slice(start, start + _CHUNK)
            writer.add(
                found.ids[part], found.frames[part], found.durations_s[part], found.events[part]
            )


def per_class(made: event_numbers.Numbers) -> dict[str, list]:
    """Columns of per_class_events.csv: numbers of every class, NaN where undefined."""
    classes = len(made.n_events)
    nothing = np.full(classes, math.nan)
    out = {"n_events": made.n_events, "seconds": made.seconds}
    for key in event_numbers.SETS:
        result = made.psds.get(key, {})
        ends = result["ci"]["per_class"] if "ci" in result else np.full((classes, 2), math.nan)
        out[key] = result.get("per_class", nothing)
        out[f"{key}_low"], out[f"{key}_high"] = ends.T
    for way, ending in (("tuned", ""), ("half", "_at_half"), ("model", "_of_model")):
        if way != "model" or way in made.ways:
            for by in event_numbers.KINDS:
                result = made.ways.get(way, {}).get(by)
                out[f"{by}_f1{ending}"] = result["f1"]["per_class"] if result else nothing
                if by == "event" and not ending:
                    for key in ("precision", "recall"):
                        out[f"event_{key}"] = result[key] if result else nothing
    chosen = made.decoding
    if chosen is not None:
        rate = made.given["frame_rate"]
        limits = event_tuning.as_json(chosen, rate, {})["threshold"]
        out["threshold"] = [math.nan if limit is None else limit for limit in limits]
        out["median_s"] = chosen.median / rate
    return {key: np.asarray(values).tolist() for key, values in out.items()}


def table(summary: dict) -> str:
    """The main numbers as text."""
    events = summary["events"]
    head = (
        f"events in time: {events['n_clips']:,} clips, {events['hours']:.2f} h, "
        f"{events['n_events']:,} events; classes with an event: {events['n_classes']:,} of "
        f"{events['n_classes'] + len(events['left_out']):,}"
    )
    if not events["n_events"]:
        return f"{head}; no number is defined without events"
    rows = []
    for key, title in ROWS:
        value = events.get(key, math.nan)
        if value == value:
            low, high = events["ci"].get(key, (None, None))
            rows.append([title, f"{value:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}"])
    level = f"{event_numbers.LEVEL:.0%} interval" if events["ci"] else ""
    lines = pages.table_text(head, ["", "value", level], rows).splitlines()
    how = {
        "other half": "thresholds and windows of each half of the clips were tuned on the other",
        "other clips": "thresholds and windows were tuned on the evaluation data, not on these",
        None: "no thresholds were tuned, because a half of the clips has no event",
    }
    if "onset_setting" in events:
        lines.append(f"onset F1: {onsets.described(events['onset_setting'])}")
    return "\n".join([*lines, f"F1: {how[events['tuned_on']]}"])
