"""Take over logits of others: under the ids of the data, after a check against their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asjax import __version__
from asjax.config import AsjaxError, counted, quoted, to_plain
from asjax.store import logits, logits_check
from asjax.store.logits_writer import Row, Writer, event_text, label_text
from asjax.teachers import forms, names


def take(foreign: forms.Foreign, out, *, about: dict, source=None, labelled=False, check=True,
         overwrite=False) -> list[str]:  # fmt: skip
    """Write the logits of a file of others as the folder `out`. Returns lines for the user.

    Args:
      about: JSON for the manifest. source: the data; None: the ids stay as they are in the file.
      labelled: the first classes of the source are those of the logits. check: refuse logits that
        fit the labels no better than a wrong index.

    Raises:
      AsjaxError: NaN, an id that occurs twice, no clip of the data, or as `Check.require`.
    """
    views = foreign.views or [0] * len(foreign.ids)
    draws = foreign.draws or [0] * len(foreign.ids)
    per_view = [[i for i, v in enumerate(views) if v == view] for view in sorted(set(views))]
    rows: list[Row | None] = [None] * len(foreign.ids)
    missing, notes = [], list(foreign.notes)
    everyone = list(dict.fromkeys(foreign.ids)) if len(per_view) > 1 else []
    known = foreign.form.label_set if labelled else None
    place = {} if source is None else {clip: i for i, clip in enumerate(source.ids)}
    if source is not None and len(place) < len(source.ids):
        raise AsjaxError("a clip occurs twice in the data; every id must occur once")
    for mine in per_view:
        ids, view = [foreign.ids[i] for i in mine], views[mine[0]]
        if len(set(ids)) < len(ids):  # which of its rows is right?
            raise AsjaxError(f"{quoted(_twice(ids))} occurs twice in the file")
        if source is None:
            found = {clip: k for k, clip in enumerate(ids)}
            lost = [clip for clip in everyone if clip not in found]
            missing += [(clip, view, "no logits in the file") for clip in lost]
        else:
            matched = names.match(ids, source.ids)
            found = matched.rows
            missing += [(clip, view, why) for clip, why in matched.missing]
            if matched.extra:
                notes.append(
                    f"{counted(matched.extra, 'row')} of the file without a clip in the data"
                )
        for clip, k in found.items():
            rows[mine[k]] = _row(clip, view, draws[mine[k]], source, place.get(clip), known)
    if not any(rows):
        raise AsjaxError(
            f"no clip of the data is in the file: the data have {quoted(source.ids[0])}, the file "
            f"has {quoted(foreign.ids[0])}"
        )
    extra = {**about, "asjax": __version__}
    if source is not None:
        extra["data"] = {"name": source.name, "clips": len(source), "hash": source.hash}
    verdict = (lambda folder: _require(folder, out)) if check else None
    with Writer(out, foreign.form, extra=to_plain(extra), missing=missing, overwrite=overwrite,
                check=verdict) as writer:  # fmt: skip
        for numbers, arrays in _progress(foreign):
            keep = np.array([k for k, n in enumerate(numbers) if rows[n] is not None], np.int64)
            if len(keep):
                some = {key: array[keep] for key, array in arrays.items()}
                writer.add([rows[numbers[k]] for k in keep], **some)
    return list(dict.fromkeys(notes))


def _row(clip, view, draw, source, i, label_set) -> Row:
    """The row of a clip, with the labels and events of the data."""
    if label_set is None or i is None:
        return Row(clip, forms.CLIP_S, view=view, draw=draw)
    known = None
    if getattr(source, "labelled", None) is None or source.labelled[i]:
        known = [int(c) for c in source.labels[i].indices if c < len(label_set)]
    marks = getattr(source, "events", None)
    marks = None if marks is None else marks[i]
    marks = None if marks is None else marks[marks["class"] < len(label_set)]
    texts = (event_text(marks, label_set), label_text(known, label_set))
    return Row(clip, forms.CLIP_S, *texts, view, draw)


def _progress(foreign):
    from tqdm import tqdm

    with tqdm(desc="logits", total=len(foreign.ids), unit="clip", disable=None) as bar:
        for numbers, arrays in foreign.blocks():
            yield numbers, arrays
            bar.update(len(numbers))


def _require(folder: Path, out) -> None:
    check = logits_check.own(logits.open(folder))
    if check:
        check.require(out)


def _twice(values):
    seen: set = set()
    return next(v for v in values if v in seen or seen.add(v))
