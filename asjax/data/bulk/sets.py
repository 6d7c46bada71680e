"""The layouts of published sets: where their lists and recordings are, and what their splits mean.

A layout gives clips with paths, or a tar with the items of its clips. Everything else is the same
for all sets (asjax.data.bulk.job).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from asjax import events as lists
from asjax import labels as label_sets
from asjax.config import AsjaxError, shown
from asjax.data import esc50, hear, sources, strong
from asjax.data import lists as tables
from asjax.data.bulk import readers, tars
from asjax.data.clips import Clip
from asjax.data.names import Names
from asjax.labels import LabelSet

_DESED = (  # split, list, folder of the audio, what the list has; below metadata/ and audio/
    ("synthetic21_train", "train/synthetic21_train/soundscapes.tsv", "", "events"),
    ("synthetic20_train", "train/synthetic20_train/soundscapes.tsv", "", "events"),
    ("strong_real", "train/audioset_strong.tsv", "train/strong_label_real", "events"),
    ("weak", "train/weak.tsv", "train/weak", "labels"),
    ("unlabel_in_domain", "train/unlabel_in_domain.tsv", "train/unlabel_in_domain", "nothing"),
    ("synthetic21_validation", "validation/synthetic21_validation/soundscapes.tsv", "", "events"),
    ("validation", "validation/validation.tsv", "validation/validation", "events"),
    ("eval", "eval/public.tsv", "eval/public", "events"),
)
_MOST_LIST = 256 << 20  # bytes of a list in a tar


@dataclass
class Layout:
    """A set that was found.

    Attributes:
      clips: with the paths of their audio. root: the folder of the audio.
      fields: name, licence, description, notes and strong, as for `writer.write`.
      lines: for the user.
      items: per clip the number of its item in the tar `tar`, if it has no path.
    """

    clips: list[Clip]
    label_set: LabelSet
    root: str
    fields: dict
    lines: list[str] = field(default_factory=list)
    items: list[int] | None = None
    tar: str = ""


def _folder(source) -> Path:
    path = Path(source)
    if not path.is_dir():
        raise AsjaxError(f"--source {shown(source)} must be a folder")
    return path


def _file(source: Path, *places: str) -> Path:
    """The first of some files that exists. AsjaxError: none does."""
    found = next((source / place for place in places if (source / place).is_file()), None)
    if found is None:
        raise AsjaxError(f"{shown(source)} must hold {' or '.join(places)}")
    return found


def esc_50(source, labels: str) -> Layout:
    label_set = label_sets.get(labels or "esc50")
    return _esc(source, label_set, esc50.clips(_folder(source), label_set), "esc50", "ESC-50")


def esc_10(source, labels: str) -> Layout:
    """The 400 clips of ESC-50 that are ESC-10 too."""
    label_set = label_sets.get(labels or "esc10")
    clips = esc50.clips(_folder(source), label_set, only_esc10=True)
    return _esc(source, label_set, clips, "esc10", "ESC-10")


def _esc(source, label_set, clips, name, title) -> Layout:
    about = f"{title}: Dataset for Environmental Sound Classification, K. J. Piczak, 2015"
    licence = "CC-BY-NC-3.0 (the set)" if name == "esc50" else "CC-BY-3.0 (the set)"
    fields = {"name": name, "licence": licence, "description": about}
    return Layout(clips, label_set, str(Path(source) / "audio"), fields)


def urbansound8k(source, labels: str) -> Layout:
    """UrbanSound8K: ten folds; clips of one recording (fsID) are one group."""
    source = _folder(source)
    table = _file(source, "metadata/UrbanSound8K.csv", "UrbanSound8K.csv")
    audio = source / "audio" if (source / "audio").is_dir() else source
    label_set = label_sets.get(labels) if labels else sources.own_labels(table)
    rows = tables.read_folder(table, audio, label_set, missing_ok=True)
    clips = [
        _clip(row, label_set, strong.stem(row.row.filename), row.row.split, row.row.group)
        for row in rows
    ]
    fields = {
        "name": "urbansound8k",
        "licence": "CC-BY-NC-3.0 (the set)",
        "description": "UrbanSound8K, J. Salamon, C. Jacoby, J. P. Bello, 2014",
    }
    return Layout(clips, label_set, str(audio), fields)


def fsd50k(source, labels: str) -> Layout:
    """FSD50K: splits train and val of its development set, and eval."""
    source, label_set, clips = _folder(source), label_sets.get(labels or "fsd50k200"), []
    columns = "file=fname,labels=mids" if label_set.name == "audioset527" else None
    for part in ("dev", "eval"):
        table = _file(source, f"FSD50K.ground_truth/{part}.csv", f"{part}.csv")
        audio = source / f"FSD50K.{part}_audio"
        if not audio.is_dir():
            raise AsjaxError(f"{shown(source)} must hold the folder {audio.name}")
        how = {"label_separator": ","} if columns else {}
        for row in tables.read_folder(
            table, audio, label_set, missing_ok=True, columns=columns, **how
        ):
            split = row.row.split if part == "dev" else "eval"
            clips.append(_clip(row, label_set, strong.stem(row.row.filename), split))
    fields = {
        "name": "fsd50k",
        "licence": "CC-BY-4.0 (the set)",
        "description": "FSD50K, E. Fonseca, X. Favory, J. Pons, F. Font, X. Serra, 2021",
    }
    return Layout(clips, label_set, str(source), fields)


def _clip(found, label_set, name: str, split: str, group: str = "") -> Clip:
    ids = tuple(label_set.ids[i] for i in found.classes)
    return Clip(name, found.path, ids, split, group=group)


def desed(source, labels: str) -> Layout:
    """DESED: every list below metadata/ that is there, with its folder below audio/.

    The id of a clip is SPLIT/NAME, because the synthetic parts have the same names.
    """
    source, label_set = _folder(source), label_sets.get(labels or "desed10")
    source = source / "dataset" if (source / "dataset").is_dir() else source
    out = Layout([], label_set, str(source / "audio"), {"name": "desed", "strong": True})
    out.fields["description"] = "DESED, N. Turpault, R. Serizel, A. Parag Shah, J. Salamon, 2019"
    for split, table, folder, kind in _DESED:
        path = source / "metadata" / table
        path = path if path.is_file() else path.with_name(path.name + ".gz")
        if path.is_file():
            audio = source / "audio" / (folder or os.path.dirname(table) + "/soundscapes")
            _desed_part(out, split, path, Names(audio), kind)
    if not out.clips:
        raise AsjaxError(
            f"{shown(source)} must hold DESED's lists, such as metadata/{_DESED[6][1]}"
        )
    return out


def _desed_part(out: Layout, split, path, names, kind) -> None:
    label_set = out.label_set
    if kind == "events":
        tidied = strong.tidy(strong.read(path), label_set)
        out.lines += [f"{path.name} ({split}): repaired: {line}" for line in tidied.lines(True)]
        if tidied.counts:
            out.fields.setdefault("notes", {}).setdefault("repaired", {})[split] = dict(
                tidied.counts
            )
        found = {
            name: tuple((a, b, label_set.ids[c]) for a, b, c in marks.tolist())
            for name, marks in tidied.events.items()
        }
    elif kind == "labels":
        found = strong.read_weak(path)
    else:
        lines = strong.lines_of(path)
        if lines[:1] != ["filename"]:
            raise AsjaxError(f"list {shown(path)} must have the one column filename")
        found = dict.fromkeys(lines[1:], ())
    for name, of in found.items():
        words = {label for *_, label in of} if kind == "events" else of
        ids = tuple(label_set.ids[i] for i in label_set.encode(list(words)))
        place = names.find(name).path
        events = of if kind == "events" else None
        out.clips.append(Clip(f"{split}/{strong.stem(name)}", place, ids, split, events=events))


def hear_task(source, labels: str, rate: int) -> Layout:
    """A task of HEAR in its tar: events in time, or labels of whole recordings."""
    path = os.fspath(source)
    if not os.path.isfile(path):
        raise AsjaxError(f"{shown(path)}: no such file; give the tar of a HEAR task")
    [unit] = readers.units("tar", path)
    texts, place = tars.texts(unit, (hear.VOCABULARY, ".json"), _MOST_LIST)
    vocabulary = [name for name in texts if os.path.basename(name) == hear.VOCABULARY]
    if len(vocabulary) != 1:
        raise AsjaxError(f"{shown(path)} must hold one {hear.VOCABULARY}, got {len(vocabulary)}")
    task = os.path.dirname(vocabulary[0])
    name = os.path.basename(task) or strong.stem(path).partition(".")[0]
    label_set = label_sets.get(labels) if labels else hear.vocabulary(texts[vocabulary[0]], name)
    rates = {k.split("/")[-3] for k in place if k.count("/") > 1 and _inside(k, task)}
    out = Layout([], label_set, path, {"name": name, "description": f"HEAR task {name}"})
    out.items, out.tar = [], path
    for split, table in _hear_lists(texts, task, path):
        recordings = hear.parse(table, f"{name}: {split}.json", label_set)
        for recording, (classes, marks) in recordings.items():
            key = os.path.join(task, str(rate), split, recording)
            ids = tuple(label_set.ids[i] for i in classes)
            of = None
            if marks is not None:
                out.fields["strong"] = True
                apart = lists.repair(np.array(marks, lists.EVENT))[0]
                of = tuple((a, b, label_set.ids[c]) for a, b, c in apart.tolist())
            out.clips.append(Clip(f"{split}/{strong.stem(recording)}", "", ids, split, events=of))
            out.items.append(place.get(key, -1))
    if not out.clips or max(out.items) < 0:
        raise AsjaxError(
            f"{shown(path)} has no audio at {rate} Hz for its lists; --rate must be one of "
            f"{', '.join(sorted(rates)) or 'none'}"
        )
    return out


def _inside(name: str, task: str) -> bool:
    return name.startswith(task + "/") if task else True


def _hear_lists(texts, task, path):
    """(split, parsed list) of SPLIT.json beside the vocabulary."""
    for name in sorted(texts):
        folder, base = os.path.split(name)
        split = base.removesuffix(".json")
        if folder != task or split in (base, "task_metadata"):
            continue
        try:
            yield split, json.loads(texts[name])
        except (ValueError, RecursionError) as error:
            raise AsjaxError(f"{shown(path)}: {shown(name)} is no JSON: {error}") from None


def in_splits(layout: Layout, wanted: str) -> Layout:
    """Only the clips of some splits. AsjaxError: no such split."""
    if not wanted:
        return layout
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    known = sorted({clip.split for clip in layout.clips})
    if odd := [name for name in names if name not in known]:
        raise AsjaxError(f"--splits: {odd[0]!r} is not one of {', '.join(known)}")
    keep = [i for i, clip in enumerate(layout.clips) if clip.split in names]
    items = None if layout.items is None else [layout.items[i] for i in keep]
    return replace(layout, clips=[layout.clips[i] for i in keep], items=items)
