"""ESC-50 from a copy of its repository."""

from __future__ import annotations

import csv
from pathlib import Path

from asjax import labels as label_sets
from asjax.config import AsjaxError
from asjax.data.clips import Clip


def clips(source: Path, label_set, only_esc10: bool = False) -> list:
    """Clips of a copy of ESC-50: 5 official folds, labels as ids of `label_set`, mapped by mids.

    Args: only_esc10: only the clips of ESC-10, by the column of this name.

    Raises:
      AsjaxError: no esc50.csv, or a category without a class in `label_set`.
    """
    esc50 = label_sets.get("esc50")
    table = label_sets.mapping(esc50, label_set)
    if label_set.hash == esc50.hash:  # two classes may share a mid, so map each to itself
        table = table & False
        table[range(len(esc50)), range(len(esc50))] = True
    meta = next((p for p in (source / "meta/esc50.csv", source / "esc50.csv") if p.is_file()), None)
    if meta is None:
        raise AsjaxError(f"{source} must be a copy of ESC-50: meta/esc50.csv is missing")
    audio = source / "audio" if (source / "audio").is_dir() else source
    with meta.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    needed = {"filename", "fold", "category", "src_file", *["esc10"] * only_esc10}
    if not rows or not needed <= rows[0].keys():
        raise AsjaxError(f"{meta} must have the columns {', '.join(sorted(needed))}")
    found = []
    for row in rows:
        if only_esc10 and row["esc10"] != "True":
            continue
        columns = table[esc50.index(row["category"])].nonzero()[0]
        if not len(columns):
            raise AsjaxError(
                f"ESC-50 category {row['category']!r} has no class in {label_set.name}"
            )
        found.append(
            Clip(
                Path(row["filename"]).stem,
                audio / row["filename"],
                tuple(label_set.ids[i] for i in columns),
                f"fold{int(row['fold'])}",
                row["category"],
                attribution=f"freesound.org clip {row['src_file']}; ESC-50 (K. J. Piczak)",
            )
        )
    return found
