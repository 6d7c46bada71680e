"""The source `soundscapes`: scenes with known events, mixed from the embedded ESC-10 recordings."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, unknown
from asjax.data import bank as banks
from asjax.data import mixing, records, scenes
from asjax.data.mixing import Rules
from asjax.data.source import Source, sha256

__all__ = ["soundscapes"]

ESC10 = Path(__file__).parent.parent / "assets" / "esc10"
STEADY = ("rain", "sea_waves", "crackling_fire", "clock_tick", "helicopter", "chainsaw")
JOIN_S = {"clock_tick": 1.5, "crackling_fire": 1.5}  # sounds that repeat with longer gaps


def soundscapes(
    label_set,
    *,
    splits=None,
    clips: int = 10_000,
    seed: int = 0,
    clip_s: float = 10.0,
    sample_rate: int = 16_000,
    events=(1, 5),
    polyphony: int = 3,
    snr_db=(6.0, 30.0),
    level_db=(-50.0, -30.0),
    slope=(-2.0, 0.0),
    modulated: float = 0.3,
    apart_s: float = 0.1,
) -> Source:
    """Scenes of events in noise, mixed when they are read, from the 398 embedded recordings.

    Scene i depends only on the folds, the seed, i, and the other options but `clips`.

    Args:
      splits: the folds whose recordings are mixed, fold1 to fold5 (default: all). Scenes of other
        folds have other recordings and other noise.
      clips: number of scenes. seed: another seed gives other scenes.
      clip_s, sample_rate: length in seconds and rate in Hz of a scene.
      events: fewest and most events of a scene. polyphony: most events at one time.
      snr_db: power of an event over the noise during the event.
      level_db: RMS of the noise in dBFS. slope: its power is f ** slope.
      modulated: share of scenes with slowly modulated noise.
      apart_s: smallest distance of two events of one class.

    Raises:
      AsjaxError: an unknown fold, a value out of range, or a label set without one of the classes.
    """
    rules = Rules(
        clip_s=clip_s,
        sample_rate=sample_rate,
        events=events,
        polyphony=polyphony,
        snr_db=snr_db,
        level_db=level_db,
        slope=slope,
        modulated=modulated,
        apart_s=apart_s,
    )
    mixing.check("clips", clips, 1, 10_000_000, whole=True)
    mixing.check("seed", seed, 0, 2**63 - 1, whole=True)
    names = _folds(splits)
    bank, cells, digest = embedded(tuple(names), sample_rate)
    bank = bank.with_classes(classes(cells, label_set))
    split = "+".join(names)
    made = scenes.Scenes(bank, rules, scenes.key_of(seed, split), clips)
    made.say_missing("soundscapes")
    rows = np.arange(clips, dtype=np.int64)
    return Source(
        "soundscapes",
        [f"{split}-{seed}-{i:06d}" for i in range(clips)],
        [split] * clips,
        made.labels(len(label_set)),
        sha256(digest, made.digest, label_set.hash),
        made,
        rows,
        sample_rate,
        events=scenes.SceneEvents(made, rows),
    )


def _folds(splits) -> list[str]:
    known = list(records.Dataset(ESC10).splits)
    if splits is None:
        return known
    asked = [splits] if isinstance(splits, (str, int)) else list(splits)
    asked = {f"fold{s}" if str(s).isdigit() else str(s) for s in asked}
    for name in sorted(asked - set(known)):
        raise unknown("soundscapes: split", name, known)
    if not asked:
        raise AsjaxError(f"soundscapes: splits must name at least one of {', '.join(known)}")
    return sorted(asked)


def classes(cells: list[tuple[str, str]], label_set) -> list[list[int]]:
    """The class indices of each recording, given (category, mids)."""
    found = {cell: _indices(label_set, *cell) for cell in dict.fromkeys(cells)}
    if lacking := sorted(category for (category, _), indices in found.items() if not indices):
        raise AsjaxError(
            f"soundscapes: label set {label_set.name} must have all ten classes of ESC-10, and it "
            f"has no class for {', '.join(lacking)}; use labels esc10 or audioset527"
        )
    return [found[cell] for cell in cells]


def _indices(label_set, category: str, mids: str) -> list[int]:
    """The classes with one of the mids, else the class with the name of the category, if any."""
    for names in (mids.split(";"), [category]):
        found = set()
        for name in names:
            with contextlib.suppress(AsjaxError):
                found.add(label_set.index(name))
        if found:
            return sorted(found)
    return []


@lru_cache(maxsize=4)
def embedded(splits: tuple[str, ...], sample_rate: int):
    """(bank without classes, (category, mids) per recording, SHA-256) of the recordings of folds.

    They are decoded once per process. Worker processes get the bank with the source.
    """
    dataset = records.Dataset(ESC10)
    rows = [(i, row) for i, row in enumerate(dataset.rows()) if row[1] in splits]
    work = partial(_decoded, dataset.reader, sample_rate)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        bank = banks.build(pool.map(work, rows), sample_rate)
    cells = [(category, mids) for _, (_, _, mids, category, *_) in rows]
    return bank, cells, sha256(*(row[-1] for _, row in rows))


def _decoded(reader, sample_rate, numbered) -> tuple:
    from asjax.data import audio

    row, (name, _, _, category, *_) = numbered
    wave = audio.read(reader[row], sample_rate, name=name)
    spans = banks.active_spans(wave, sample_rate, JOIN_S.get(category, banks.JOIN_S))
    return name, (), category in STEADY, spans, banks.cut(wave, spans)
