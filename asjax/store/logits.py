"""Stored logits of clips and of frames by clip id: teachers, ensembles, evaluations.

    teacher = logits.open("teacher", label_set)
    teacher["Yabc"]      # {"clip": float32 [C], "frames": float16 [T', C]}: the kinds it has
    teacher["Yabc", 2]   # the same for view 2

A set of logits is one folder. `asjax logits` and `FrameScoresWriter` write it:

    about.json             format, kinds, dtype, top, frames, frame_rate, label set and hash, views,
                           shards, `extra` (models, data, clips that are missing and why)
    labels.csv             the classes
    clips.csv              one row per clip and view: id, duration_s, events, labels, view, draw
    logits-00000.npy       of frames: float16 or float32 [n, frames, C], ...
    clip-00000.npy         of clips: float16 or float32 [n, C], or the `top` highest [n, top], ...
    classes-00000.npy      with `top`: uint16 [n, top], the classes of these logits, ...
    missing.csv            clips that could not be decoded, and why; only if there are any
    SHA256SUMS             of all files

Events and labels are those of the data; "-" means that the data has none. Frame logits always have
all classes. Frames of short clips after `lengths` have no meaning.
"""

from __future__ import annotations

import csv
import math
from functools import cached_property
from pathlib import Path

import numpy as np

from asjax import events as lists
from asjax import labels
from asjax.config import AsjaxError, quoted
from asjax.decoding import frames_of
from asjax.store import schema
from asjax.store.files import check_sums
from asjax.store.shards import HINT, Shards

FORMAT = 2
ABOUT, LABELS, CLIPS, MISSING = "about.json", "labels.csv", "clips.csv", "missing.csv"
FILES = {"frames": "logits", "clip": "clip", "classes": "classes"}  # array -> stem of its files
DTYPES = ("float16", "float32")
_BLOCK = 16 << 20  # bytes that are checked at once
NONE = "-"  # labels of a clip without labels in the data

_count = schema.integer(0, 2**48)
_seconds = schema.number(0, 1e9)
_FILE = schema.mapping({"file": schema.text(most=100), "bytes": _count})
_SHARD = schema.mapping({"clips": _count}, {stem: _FILE for stem in FILES})
_VIEWS = schema.mapping(
    {
        "count": schema.integer(1, 2**31),
        "seed": schema.integer(-(2**63), 2**64),
        "ops": schema.text(),
    }
)
_ABOUT = schema.mapping(
    {
        "format": schema.integer(0, 1000),
        "kinds": schema.list_of(schema.text("clip|frames", 10, "clip or frames"), 2),
        "dtype": schema.text(most=20),
        "clips": _count,
        "label_set": schema.text(most=1000),
        "label_hash": schema.text("[0-9a-f]{64}", 64, "a SHA-256"),
        "shards": schema.list_of(_SHARD),
    },
    {
        "activation": schema.text("sigmoid|softmax", 10, "sigmoid or softmax"),
        "frames": schema.integer(1, 2**31),
        "frame_rate": _seconds,
        "top": schema.optional(schema.integer(1, 2**16)),
        "views": schema.optional(_VIEWS),
    },
)


def is_folder(path) -> bool:
    """Whether this is the folder of a set of logits."""
    return (Path(path) / ABOUT).is_file() and (Path(path) / CLIPS).is_file()


def open(path, label_set=None, *, verify: bool = False) -> Logits:
    """The stored logits in a folder. See `Logits`."""
    return Logits(path, label_set, verify=verify)


class Logits:
    """An opened set of logits. Sizes are checked at once; logits are read when needed.

    It can be pickled. A worker process opens the files when it reads the first logits.

    Attributes:
      ids: list of the clips, each once. label_set: the classes. extra: of the writer.
      kinds: "clip", "frames", or both.
      frame_rate: frames per second; None without frame logits.
      activation: "sigmoid": one probability per class; "softmax": the logits are log-probabilities.
      top: number of stored logits of each clip; None: all C.
      views: None, or {"count": V, "seed": S, "ops": host chain}: there are V views of each clip.
        The host chain made a view with the random numbers of `data.draw.generator(S, draw)`.
      event_texts, label_texts: N fields of clips.csv.
      row_ids: id of each row, N in total: clips times views. row_views, row_draws: int64 [N].
      durations_s: float64 [N]. lengths: int64 [N], number of real frames.
      frames: frame logits [N, T', C], `frames[a:b]` reads from disk; None without frame logits.
      clip, classes: clip logits [N, C], or [N, top] and their classes; None without clip logits.
    """

    def __init__(self, path, label_set=None, *, verify: bool = False):
        """Args: label_set: the expected classes. verify: check the SHA-256 of every file.

        Raises:
          AsjaxError: no such folder, a file is missing, changed or of another size, an id occurs
            twice, or the classes are not the expected ones (the message names a difference).
        """
        self.path = Path(path)
        if not (self.path / ABOUT).is_file():
            card = (self.path / "card.json", self.path / "model" / "card.json")
            why = "it is a model" if any(map(Path.is_file, card)) else f"{ABOUT} is missing"
            raise AsjaxError(f"{path} is not a folder of logits: {why}")
        problems = check_sums(self.path, None if verify else ABOUT)
        problems = problems or ([] if verify else check_sums(self.path, CLIPS))
        if problems:
            raise AsjaxError(f"logits {path}: {problems[0]}; {HINT}")
        about = schema.read_json(self.path / ABOUT)
        if isinstance(about, dict) and about.get("format", FORMAT) != FORMAT:
            raise AsjaxError(f"logits {path}: format must be {FORMAT}, got {about['format']!r}")
        schema.require(about, _ABOUT, f"logits {path}: {ABOUT}")
        stored = labels.LabelSet.from_csv(self.path / LABELS, about["label_set"])
        labels.check_hash(about["label_hash"], stored.hash, f"the class list in {path}")
        if label_set is not None:
            labels.check_same(label_set, stored, str(path), f"label set {label_set.name}")
        self.label_set = label_set or stored
        self.about, self.extra = about, about.get("extra")
        self.kinds, self.top = tuple(about["kinds"]), about.get("top")
        self.views, self.activation = about.get("views"), about.get("activation", "sigmoid")
        self._read_clips(about["clips"])
        self._open(about)

    def _open(self, about) -> None:
        classes, top, kind = len(self.label_set), self.top, about["dtype"]
        if kind not in DTYPES:
            raise AsjaxError(f"logits {self.path}: dtype must be one of {DTYPES}, got {kind!r}")
        if not self.kinds or (top and (top > classes or "clip" not in self.kinds)):
            raise AsjaxError(f"logits {self.path}: {ABOUT} is damaged: its kinds and top disagree")
        if "frames" in self.kinds and not {"frames", "frame_rate"} <= about.keys():
            raise AsjaxError(f"logits {self.path}: {ABOUT} needs the fields frames and frame_rate")
        self.frame_rate, self.lengths, self.classes = None, None, None
        self.frames = self.clip = None
        if "frames" in self.kinds:
            self.frame_rate = float(about["frame_rate"])
            self.frames = self._shards("frames", (about["frames"], classes), kind)
            lengths = frames_of(self.durations_s, self.frame_rate)
            self.lengths = np.minimum(lengths, about["frames"])
        if "clip" in self.kinds:
            self.clip = self._shards("clip", (top or classes,), kind)
            self.classes = self._shards("classes", (top,), "uint16") if top else None

    def _shards(self, array: str, shape, kind) -> Shards:
        """The files of an array. AsjaxError: they have other rows than clips.csv."""
        try:
            files = [
                (shard[array]["file"], shard["clips"], shard[array]["bytes"])
                for shard in self.about["shards"]
            ]
        except KeyError:
            raise AsjaxError(
                f"logits {self.path}: {ABOUT} is damaged: a shard has no {array}"
            ) from None
        opened = Shards(self.path, files, shape, kind)
        if len(opened) != len(self.row_ids):
            raise AsjaxError(
                f"logits {self.path}: {len(opened)} logits for {len(self.row_ids)} clips"
            )
        return opened

    def _read_clips(self, clips: int) -> None:
        try:
            with (self.path / CLIPS).open(newline="", encoding="utf-8") as file:
                header, *rows = csv.reader(file)
            column = {name: k for k, name in enumerate(header)}
            if len(rows) != clips or any(len(row) != len(header) for row in rows):
                raise ValueError(f"it must have {clips} rows of {len(header)}")
            of = lambda name: [row[column[name]] for row in rows]  # noqa: E731
            self.row_ids, self.event_texts = of("id"), of("events")
            self.durations_s = np.array(of("duration_s"), np.float64)
            self.label_texts = of("labels") if "labels" in column else [NONE] * clips
            nothing = np.zeros(clips, np.int64)
            self.row_views = np.array(of("view"), np.int64) if "view" in column else nothing
            self.row_draws = np.array(of("draw"), np.int64) if "draw" in column else nothing
        except (OSError, KeyError, ValueError, OverflowError, csv.Error) as error:
            raise AsjaxError(f"logits {self.path}: {CLIPS} is damaged: {error}; {HINT}") from None
        if len(self._rows) != clips:
            twice = _twice(zip(self.row_ids, self.row_views.tolist(), strict=True))
            raise AsjaxError(f"logits {self.path}: clip {quoted(twice[0])} occurs twice; {HINT}")

    @cached_property
    def _rows(self) -> dict:
        """Row of each (id, view). The key of view 0 is the id alone."""
        keys = zip(self.row_ids, self.row_views.tolist(), strict=True)
        return {(clip, view) if view else clip: i for i, (clip, view) in enumerate(keys)}

    @cached_property
    def ids(self) -> list[str]:
        return list(dict.fromkeys(self.row_ids))

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ("_rows", "ids")}

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.ids)

    def __contains__(self, key) -> bool:
        return self._key(key) in self._rows

    def __getitem__(self, key) -> dict[str, np.ndarray]:
        """The logits of a clip, in new arrays: {"clip": float32 [C], "frames": [T', C]}.

        With `top`, the other classes of "clip" have -inf, which is a probability of 0.

        Args: key: an id, or (id, view).

        Raises:
          KeyError: no such clip or view.
        """
        return self.at(self.row(key))

    def row(self, key) -> int:
        """The row of a clip, or of (id, view). KeyError: there is none."""
        return self._rows[self._key(key)]

    def at(self, row: int) -> dict[str, np.ndarray]:
        """The logits of a row, as of a clip."""
        out = {}
        if self.clip is not None:
            out["clip"] = dense(
                self.clip[row], None if self.top is None else self.classes[row], len(self.label_set)
            )
        if self.frames is not None:
            out["frames"] = np.array(self.frames[row])
        return out

    def draw(self, key) -> int:
        """The draw number of a clip's view: the view is a function of (views["seed"], draw)."""
        return int(self.row_draws[self.row(key)])

    @staticmethod
    def _key(key):
        return key[0] if isinstance(key, tuple) and key[1] == 0 else key

    def missing(self) -> list[tuple[str, int, str]]:
        """(id, view, reason) of the clips that could not be decoded."""
        if not (self.path / MISSING).is_file():
            return []
        rows = labels.read_rows(self.path / MISSING, ("id", "view", "reason"), "missing clips")
        return [(row["id"], int(row["view"]), row["reason"]) for row in rows]

    @cached_property
    def events(self) -> list:
        """An `EVENT` array per row, or None for a clip that is not annotated."""
        return list(map(self.events_at, range(len(self.event_texts))))

    def events_at(self, row: int) -> np.ndarray | None:
        """The events of a row; None: not annotated."""
        marks = lists.from_text(self.event_texts[row])
        return None if marks is None else lists.as_events(marks, self.label_set)

    def labels_at(self, row: int) -> np.ndarray | None:
        """The labels of a row as class indices; None: the data had no labels."""
        text = self.label_texts[row]
        if text == NONE:
            return None
        return self.label_set.encode(list(filter(None, text.split(";"))))

    def require_finite(self, most: int = 0) -> None:
        """AsjaxError if a logit is NaN or infinite; it names the clip.

        Args: most: bytes of each array to look at, evenly chosen; 0: all.
        """
        for array in (one for one in (self.clip, self.frames) if one is not None):
            step = max(1, _BLOCK // max(1, array.dtype.itemsize * math.prod(array.shape[1:])))
            starts = np.arange(0, len(array), step)
            if 0 < most < len(starts) * _BLOCK:
                starts = starts[np.linspace(0, len(starts) - 1, max(1, most // _BLOCK)).astype(int)]
            for start in starts.tolist():
                block = array[start : start + step]
                bad = not_finite(block).reshape(len(block), -1).any(axis=1)
                if bad.any():
                    row = start + int(np.argmax(bad))
                    raise AsjaxError(
                        f"logits {self.path}: the logits of clip {quoted(self.row_ids[row])} (row "
                        f"{row + 1} of {CLIPS}) are not finite; write them again"
                    )

    def targets(self) -> np.ndarray | None:
        """The labels of the data: uint8 [N, C]. None: the logits were stored without labels."""
        if not self.label_texts or NONE in self.label_texts:
            return None
        out = np.zeros((len(self.label_texts), len(self.label_set)), np.uint8)
        for row in range(len(out)):
            out[row, self.labels_at(row)] = 1
        return out


def dense(values, classes, width: int) -> np.ndarray:
    """Logits of one clip, float32 [C], from the stored [C], or from [top] and their classes.

    AsjaxError: a class is not below C.
    """
    if classes is None:
        return np.array(values, np.float32)
    if len(classes) and classes.max() >= width:
        raise AsjaxError(f"a stored class must be below {width}, got {classes.max()}; {HINT}")
    out = np.full(width, -np.inf, np.float32)
    out[classes] = values
    return out


def not_finite(values) -> np.ndarray:
    """Which numbers are NaN or infinite, a bool array of the same shape."""
    if values.dtype == np.float16:  # 10 times as fast as isfinite
        return (np.asarray(values).view(np.uint16) & 0x7C00) == 0x7C00
    return ~np.isfinite(values)


def _twice(keys) -> tuple:
    seen: set = set()
    return next(key for key in keys if key in seen or seen.add(key))
