"""Made-up tasks in the layouts of DCASE 2016 task 2, MAESTRO 5h and DESED.

The audio of these sets cannot come with asjax. A stand-in has the same folders and lists, so a
recipe can be tried from its first to its last file. Scores on it say nothing about the real task.
`data_prep/standins.py` writes one of any size. A path "standin:NAME" means a small one, which is
written to asjax's cache when it is first needed.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from asjax import labels
from asjax.config import AsjaxError, unknown

VERSION = 1  # of the content; a change needs a new number
PREFIX, RATE = "standin:", 16_000
_ABOUT = "standin.json"
_FOLDS = {"train": ("fold1", "fold2", "fold3"), "valid": ("fold4",), "test": ("fold5",)}
LOWEST, HIGHEST = 21, 108  # MIDI notes of a piano
SMALL = {  # arguments of the stand-ins of "standin:NAME"
    "dcase16": dict(files=(2, 1, 1), seconds=5.0, events=(3, 4)),
    "maestro": dict(files=1, seconds=5.0),
    "desed": dict(clips=(8, 8, 4, 4), seconds=2.0),
}


def resolved(path) -> Path:
    """A path, or the folder of the small stand-in that "standin:NAME" means."""
    if not str(path).startswith(PREFIX):
        return Path(path)
    from asjax import devices

    name = str(path).removeprefix(PREFIX)
    if name not in MAKERS:
        raise unknown("stand-in", name, MAKERS)
    folder = devices.cache_folder() / "standins" / f"{name}-{VERSION}"
    if not _is_whole(folder):
        make(name, folder, **SMALL[name])
    return folder / "records" if name == "desed" else folder


def make(name: str, folder, **options) -> None:
    """Write the stand-in NAME to a folder; it appears there when it is complete.

    Args:
      options: of the function with this name.

    Raises:
      AsjaxError: the folder holds something else, or a number is out of range.
    """
    from asjax.store import swap

    def ours(place):
        return {p.name for p in place.iterdir()} if (place / _ABOUT).is_file() else None

    with swap.folder(folder, what="stand-in", ours=ours) as part:
        MAKERS[name](part, **options)
        sizes = {str(p.relative_to(part)): p.stat().st_size for p in _files(part)}
        about = {"name": name, "version": VERSION, "files": sizes}
        (part / _ABOUT).write_text(json.dumps(about, indent=1) + "\n")


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def _is_whole(folder: Path) -> bool:
    """Whether all files are there; a cleaner of caches may have removed some."""
    try:
        sizes = json.loads((folder / _ABOUT).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


# --------------------------------------------------------------------------------- HEAR's layout


def dcase16(folder, *, files=(12, 4, 8), seconds=120.0, events=(20, 40), seed=0) -> None:
    """Scenes of the embedded recordings of ESC-10 as DCASE 2016 task 2 in HEAR's layout.

    Folds 1 to 3 of ESC-10 are in train, 4 in valid, 5 in test. The classes are those of ESC-10.

    Args:
      files: recordings of train, valid and test. seconds: of each. events: fewest and most.
    """
    names = labels.get("esc10").ids
    for split, count in zip(_FOLDS, _counts("files", files, 3), strict=True):
        waves, marks = _scenes(_FOLDS[split], count, seconds, events, seed)
        _hear_split(folder, split, zip(waves, marks, strict=True), names)
    _vocabulary(folder, names)


def maestro(folder, *, files=4, seconds=120.0, seed=0) -> None:
    """Made-up piano music as MAESTRO 5h in HEAR's layout: five folds of `files` recordings each.

    A note is a sum of eight harmonics that decay; the higher, the faster.
    """
    [count] = _counts("files", (files,), 1)
    names = tuple(str(pitch) for pitch in range(LOWEST, HIGHEST + 1))
    for fold in range(5):
        rows = (_piano(np.random.default_rng([seed, fold, i]), seconds) for i in range(count))
        _hear_split(folder, f"fold{fold:02d}", rows, names)
    _vocabulary(folder, names)


def _hear_split(folder, split, rows, names) -> None:
    from asjax.data import scenes

    (folder / str(RATE) / split).mkdir(parents=True)
    table = {}
    for i, (wave, marks) in enumerate(rows):
        name = f"{split}-{i:03d}.wav"
        (folder / str(RATE) / split / name).write_bytes(scenes.wav(wave, RATE))
        table[name] = [
            {"label": names[c], "start": round(a * 1e3, 1), "end": round(b * 1e3, 1)}
            for a, b, c in marks
        ]
    (folder / f"{split}.json").write_text(json.dumps(table, indent=1) + "\n")


def _vocabulary(folder, names) -> None:
    text = "".join(f"{i},{name}\n" for i, name in enumerate(names))
    (folder / "labelvocabulary.csv").write_text(f"idx,label\n{text}")


def _piano(rng, seconds: float):
    """(int16 wave, [(onset_s, offset_s, class), ...]) of random notes of known pitch."""
    wave, free, marks = np.zeros(round(seconds * RATE)), {}, []
    at = 0.1
    while at < seconds - 0.1:
        for pitch in {int(p) for p in rng.integers(40, 85, rng.integers(1, 4))}:
            end = min(seconds, at + rng.uniform(0.2, 1.2))
            if free.get(pitch, 0.0) + 0.05 < at:
                free[pitch] = end
                marks.append((at, end, pitch - LOWEST))
                _add_note(wave, pitch, at, end, rng.uniform(0.03, 0.1))
        at += rng.uniform(0.15, 0.6)
    wave += rng.normal(0, 1e-3, len(wave))
    return np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int16), sorted(marks)


def _add_note(wave, pitch, onset_s, offset_s, level) -> None:
    first, end = round(onset_s * RATE), min(len(wave), round((offset_s + 0.03) * RATE))
    t = np.arange(end - first) / RATE
    hz = 440.0 * 2 ** ((pitch - 69) / 12)
    decay_s = 1.5 * 2 ** (-(pitch - LOWEST) / 24)
    orders = [k for k in range(1, 9) if k * hz < RATE / 2]
    tone = sum(np.sin(2 * np.pi * k * hz * t) * np.exp(-t * k / decay_s) / k for k in orders)
    rise, fall = t / 0.005, (offset_s - onset_s + 0.03 - t) / 0.03
    wave[first:end] += level * tone * np.clip(np.minimum(rise, fall), 0, 1)


# -------------------------------------------------------------------------------- DESED's layout


def desed(folder, *, clips=(64, 64, 16, 16), seconds=10.0, events=(1, 4), seed=0) -> None:
    """Scenes as DESED: synthetic clips with times, weak clips with labels only, two validations.

    `audio/` and `metadata/` have the lists of DESED. `records` is what `asjax prepare strong` makes
    of them, with the splits synthetic, weak, synthetic_validation and validation. The classes are
    those of ESC-10.

    Args:
      clips: of these four splits. seconds: of each clip. events: fewest and most of a clip.
    """
    from asjax.data import strong_clips, writer

    splits = ("synthetic", "weak", "synthetic_validation", "validation")
    used = {"synthetic": "train", "weak": "train", "synthetic_validation": "valid"}
    label_set, listed = labels.get("esc10"), {}
    (folder / "metadata").mkdir(parents=True)
    for k, (split, count) in enumerate(zip(splits, _counts("clips", clips, 4), strict=True)):
        folds = _FOLDS[used.get(split, "test")]
        waves, marks = _scenes(folds, count, seconds, events, seed + k)
        listed[split] = folder / "metadata" / f"{split}.tsv"
        _desed_split(folder / "audio" / split, listed[split], waves, marks, label_set.ids)
    weak = [("weak", listed.pop("weak"))]
    found = strong_clips.clips(listed.items(), weak, folder / "audio", label_set)
    writer.write(
        folder / "records", found.clips, label_set, name="desed", strong=True, progress=False
    )


def _desed_split(audio, path, waves, marks, names) -> None:
    from asjax.data import scenes

    audio.mkdir(parents=True)
    weak = path.stem == "weak"
    rows = ["filename\tevent_labels" if weak else "filename\tonset\toffset\tevent_label"]
    for i, (wave, mine) in enumerate(zip(waves, marks, strict=True)):
        name = f"{path.stem}-{i:04d}.wav"
        (audio / name).write_bytes(scenes.wav(wave, RATE))
        if weak:
            rows.append(f"{name}\t{','.join(sorted({names[c] for *_, c in mine}))}")
        rows += [] if weak else [f"{name}\t{a:.3f}\t{b:.3f}\t{names[c]}" for a, b, c in mine]
    path.write_text("\n".join(rows) + "\n")


# ----------------------------------------------------------------------------------------- parts


def _scenes(folds, count: int, seconds: float, events, seed: int):
    """`count` waves (lazily) and lists of (onset_s, offset_s, class) of mixed recordings."""
    from asjax.data import mixing, scenes

    rules = mixing.Rules(clip_s=seconds, sample_rate=RATE, events=tuple(events))
    made = scenes.Scenes(_bank(folds), rules, scenes.key_of(seed, "+".join(folds)), count)
    marks = [[tuple(event)[:3] for event in made.scene(i).tolist()] for i in range(count)]
    return (made.wave(i) for i in range(count)), marks


@lru_cache(maxsize=3)
def _bank(folds):
    from asjax.data import soundscapes

    bank, cells, _ = soundscapes.embedded(folds, RATE)
    return bank.with_classes(soundscapes.classes(cells, labels.get("esc10")))


def _counts(name: str, values, length: int) -> tuple[int, ...]:
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    if not whole or len(values) != length or not all(1 <= v <= 100_000 for v in values):
        raise AsjaxError(
            f"stand-in: {name} must be {length} whole numbers from 1 to 100000, got {values!r}"
        )
    return tuple(values)


MAKERS = {"dcase16": dcase16, "maestro": maestro, "desed": desed}
