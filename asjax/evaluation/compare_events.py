"""The difference of two detectors in PSDS1, on their common annotated clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asjax import metrics
from asjax.config import AsjaxError
from asjax.evaluation import detection, detections, event_numbers


def folder_of(scores: Path) -> Path | None:
    """The folder of frame scores beside a scores file, or None."""
    path = Path(scores).parent / detection.FRAMES
    return path if (path / "about.json").is_file() else None


def psds1(first, second, *, n: int, seed: int) -> dict | None:
    """PSDS1 of two folders of frame scores: means over classes, with the window of each folder.

    Returns: dict with values: of the whole set, and drawn: of resamples with the same clips for
      both, two each; clips, n. None: no common clip has an event.

    Raises:
      AsjaxError: damaged folders, other classes, or other events for a clip.
    """
    a, b = (detections.stored(path)[0] for path in (first, second))
    place = {name: i for i, name in enumerate(b.ids)}
    pairs = sorted((name, i, place[name]) for i, name in enumerate(a.ids) if name in place)
    counted = [{*found.rows()} for found in (a, b)]
    pairs = [(i, j) for _, i, j in pairs if i in counted[0] and j in counted[1]]
    if not any(len(a.events[i]) for i, _ in pairs):
        return None
    for i, j in pairs:
        same = len(a.events[i]) == len(b.events[j]) and all(
            np.allclose(a.events[i][k], b.events[j][k], atol=1e-3)
            for k in ("onset_s", "offset_s", "class")
        )
        if not same:
            raise AsjaxError(f"{first} and {second} have different events for clip {a.ids[i]!r}")
    draws = event_numbers.resamples("psds1", n, len(pairs), a.frames.shape[2])
    out = {"values": [], "drawn": [], "clips": len(pairs), "n": draws}
    for found, rows in zip((a, b), zip(*pairs, strict=True), strict=True):
        given = {
            "scores": [found.frames[i] for i in rows],
            "events": [found.events[i] for i in rows],
            "durations_s": found.durations_s[list(rows)],
            "lengths": found.lengths()[list(rows)],
            "frame_rate": found.frame_rate,
            "median": found.median,
        }
        out["values"].append(metrics.psds(**given, **metrics.PSDS1)["macro"])
        if draws:
            drawn = metrics.psds_bootstrap(**given, n=draws, seed=seed, **metrics.PSDS1)
            out["drawn"].append(drawn["values"]["macro"])
        else:
            out["drawn"].append(np.zeros(0))
    return out
