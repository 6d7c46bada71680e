"""What `--data` means, and which of its clips train, choose and test a model."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from asjax import build, labels
from asjax.config import AsjaxError, parse_call, shown, warn
from asjax.data import audio, layouts, lists, patience, strong
from asjax.data import records as record_files
from asjax.fields import FIELDS
from asjax.labels import LabelSet
from asjax.own import splits as divided

_LISTS = (".csv", ".tsv")
_PROBED = 64  # clips whose length is read to choose clip_s
MAX_CLIP_S = 10.0


@dataclass(frozen=True)
class Data:
    """The clips of `--data`, divided.

    Attributes:
      specs: role -> source spec; "test" only if there is such a split.
      counts: role -> number of clips.
      labels: the config's `labels.name`. label_set: the classes.
      single: every clip has exactly one label. detects: the clips have events in time.
      folds: the names of the data's own folds, if all its splits are folds.
      lines: what was decided, for the user.
    """

    specs: dict
    counts: dict
    labels: str
    label_set: LabelSet
    single: bool
    folds: tuple[str, ...]
    lines: tuple[str, ...]
    train: object = field(repr=False)  # the source of the training clips

    @property
    def detects(self) -> bool:
        return getattr(self.train, "events", None) is not None

    def cut(self, clip_s: float) -> dict:
        """The specs, with recordings that have a list of events cut into pieces of `clip_s`."""
        with_pieces = {"piece_s": float(clip_s)}
        return {
            role: {**spec, **with_pieces} if spec["name"] == "annotated" else spec
            for role, spec in self.specs.items()
        }

    @cached_property
    def clip_s(self) -> float:
        """A length that holds 19 of 20 clips, at most MAX_CLIP_S. Audio is read on first use."""
        return clip_length(self.train)


def spec_of(text: str, *, audio_root="", columns="", label_separator="") -> dict:
    """`--data` -> source spec: a CSV, a folder, or a source such as "records(path='data/x')".

    A CSV is a list of clips with labels, or a list of events in time. A folder is a record dataset,
    or holds one list, or its folders are the classes.

    Raises:
      AsjaxError: nothing there, or a folder with several lists.
    """
    path, fields = Path(text), {}
    if audio_root:
        fields["root"] = audio_root
    if columns:
        fields["columns"] = columns
    if label_separator:
        fields["label_separator"] = label_separator
    if not text.strip():
        raise AsjaxError("--data must name a CSV, a folder of audio or a source, got nothing")
    if path.is_file():
        return _with_events(text, fields) or {"name": "folder", "csv": text, **fields}
    if path.is_dir() and record_files.is_dataset(path):
        spec = {"name": "records", "path": text}
    elif path.is_dir():
        found = _list_in(path, columns)
        if fields and not found:
            raise AsjaxError(
                f"{_option(fields)} belongs to --data with a CSV, but the folder {shown(text)} has "
                f"no CSV of clips; leave {_option(fields)} out, or give the CSV as --data"
            )
        if found and (spec := _with_events(str(found), {"root": text, **fields})):
            return spec
        where = {"csv": str(found), "root": text} if found else {"root": text}
        return {"name": "folder", **where, **fields}
    else:
        spec = _called(text)
    if fields:
        raise AsjaxError(
            f"{_option(fields)} belongs to --data with a CSV, got --data {shown(text)}"
        )
    return spec


def _with_events(path: str, fields: dict) -> dict | None:
    """The spec of a list of events; None if the file is a list of clips."""
    if not strong.is_list(path):
        return None
    spec = {"name": "annotated", "events": path}
    if "root" in fields:
        spec["root"] = fields["root"]
    columns = layouts.parse_columns(fields.get("columns", ""))
    if odd := [f"columns {role}" for role in columns if role != "labels"]:
        raise AsjaxError(
            f"--{odd[0]} belongs to a list of clips, and {shown(path)} is a list of events; "
            "--columns labels=NAME names the column of the class"
        )
    if columns:
        spec["label_column"] = columns["labels"]
    if "label_separator" in fields:
        raise AsjaxError(
            f"--label-separator belongs to a list of clips, and {shown(path)} is a list of events, "
            "with one class in each line"
        )
    return spec


def _option(fields: dict) -> str:
    return "--" + next(iter(fields)).replace("root", "audio").replace("_", "-")


def _called(text: str) -> dict:
    try:
        name, fields = parse_call(text)
        build.find("source", name)
    except AsjaxError as error:
        looks = re.match(r"[A-Za-z_]\w*\s*\(", text)
        why = str(error) if looks else "there is no such file or folder"
        raise AsjaxError(
            f"--data {shown(text)}: {why}; give a CSV, a folder of audio, or a source such as "
            "\"records(path='data/mine')\""
        ) from None
    if name == "esc10":  # one class per clip, instead of AudioSet's 527
        fields.setdefault("convert", True)
    return {"name": name, **fields}


def _list_in(folder: Path, columns) -> Path | None:
    """The list of clips in a folder. AsjaxError: several, or only an unusable one."""
    there = sorted(p for p in folder.iterdir() if p.suffix.lower() in _LISTS and p.is_file())
    good, error = [], None
    for path in there:
        try:
            if not strong.is_list(path):
                lists.read_rows(path, columns=columns or None)
            good.append(path)
        except AsjaxError as problem:
            error = error or problem
    if len(good) > 1:
        names = ", ".join(shown(p.name) for p in good)
        raise AsjaxError(
            f"folder {shown(folder)} holds several lists of clips: {names}; give one as --data"
        )
    if not good and error and (columns or not any(p.is_dir() for p in folder.iterdir())):
        raise error
    return good[0] if good else None


# ------------------------------------------------------------------------------------- the data


def label_set_of(spec: dict, name: str):
    """The label set, and its name in the config. "own": the labels of the data."""
    if name != "own":
        return labels.get(name), name
    if spec["name"] == "esc10":
        return labels.get("esc10"), "esc10"
    return build.label_set({"labels": {"name": "own"}, "data": {"train": spec}}), "own"


def read(
    text: str,
    *,
    label_name: str = "own",
    audio_root: str = "",
    columns: str = "",
    label_separator: str = "",
    splits: str = "",
) -> Data:
    """Read the list of `--data` and decide who trains. No audio is decoded.

    Raises:
      AsjaxError: unusable data, or splits without a known meaning.
    """
    spec = spec_of(text, audio_root=audio_root, columns=columns, label_separator=label_separator)
    label_set, labels_name = label_set_of(spec, label_name)
    source = build.source(spec, label_set)
    counts = Counter(source.split)
    wanted = divided.parse(splits) if splits else None
    if wanted:
        wanted = {role: sorted(source.wanted(names)) for role, names in wanted.items()}
        if len(twice := sum(wanted.values(), [])) > len(set(twice)):
            raise AsjaxError(f"--splits must not use a split twice, got {splits!r}")
    whose = source.group or source.ids
    groups = Counter(split for split, _ in set(zip(source.split, whose, strict=True)))
    fields, why = divided.divide(groups, wanted, spec.get("splits"))
    if "folds" in fields["train"] and "folds" in spec:
        raise AsjaxError("--data has folds of its own; say with --splits which one evaluates")
    specs = {role: {**spec, **more} for role, more in fields.items()}
    sources = {role: build.source(one, label_set) for role, one in specs.items()}
    used = {role: len(one) for role, one in sources.items()}
    lines = [_counted(used, why)]
    if rest := len(source) - sum(used.values()):
        asked = {n for f in fields.values() for n in (*f["splits"], *f.get("of", ()))}
        left = sorted(f"{n} ({c} clips)" for n, c in counts.items() if n not in asked)
        lines.append(f"data: {rest} clips are not used: {', '.join(left)}")
    each = np.asarray(source.labels.sum(axis=1)).ravel()
    single = bool((each == 1).all())
    folds = tuple(divided.folds_of(counts)) if len(counts) > 1 else ()
    train = sources["train"]
    return Data(specs, used, labels_name, label_set, single, folds, tuple(lines), train)


def _counted(used: dict, why: str) -> str:
    chooses = "choose the step" if "test" in used else "evaluate"
    words = {"train": "train", "eval": chooses, "test": "test"}
    return f"data: {', '.join(f'{n:,} clips {words[role]}' for role, n in used.items())} ({why})"


def clip_length(source) -> float:
    """Seconds that hold 19 of 20 clips of a source but for 2 %, in halves, up to MAX_CLIP_S."""
    lengths = []
    end = time.monotonic() + FIELDS["data"]["decode_timeout_s"]  # for all of them together
    which = np.unique(np.linspace(0, len(source) - 1, _PROBED).astype(int))
    for tried, i in enumerate(which):
        if (left := end - time.monotonic()) <= 0:
            warn(
                f"only {tried} of {len(which)} clips were tried for their length, because reading "
                f"took too long (the last one: {shown(source.ids[which[tried - 1]])}); does "
                "the disk answer? --clip-s sets the length"
            )
            break
        try:
            lengths.append(patience.call(partial(_seconds, source, i), left, shown(source.ids[i])))
        except (AsjaxError, OSError):
            continue  # training puts it into the quarantine
    if not lengths:
        return MAX_CLIP_S
    return min(MAX_CLIP_S, max(0.5, math.ceil(1.96 * float(np.quantile(lengths, 0.95))) / 2))


def _seconds(source, i: int) -> float:
    example = source[i]
    about = audio.info(example["audio"], note=lambda text: None)
    begin_s, piece_s = example.get("part", (0.0, np.inf))
    return min(about.frames / about.rate - begin_s, piece_s)
