"""AudioSet: the `data` of its recipes, and its segment lists, checked against their header."""

from __future__ import annotations

import gzip
import math
import os
import re
import sys
import zlib
from array import array
from pathlib import Path

import numpy as np

from asjax import labels as label_sets
from asjax.config import AsjaxError


def recipe_data(*, tiny: bool, draw: str, sample_rate: int = 32_000, clip_s: float = 10.0):
    """The `data` of an AudioSet recipe: records in $ASJAX_DATA/audioset, splits train and eval.

    `tiny` uses one second of the embedded recordings instead, so that a recipe runs anywhere.
    """
    folder = os.path.join(os.environ.get("ASJAX_DATA", "data"), "audioset")

    def source(split: str, stand_in: str) -> dict:
        if tiny:
            return dict(name="esc10", splits=[stand_in])
        return dict(name="records", path=folder, splits=[split])

    return dict(
        train=dict(source("train", "fold1"), labels_csv=""),  # see asjax prepare enhance
        eval=source("eval", "fold5"),
        sample_rate=sample_rate,
        clip_s=1.0 if tiny else clip_s,
        draw=draw,
        workers=0 if tiny else 8,
        threads=2,
        cache=False,
        max_bad=0.05,
    )


def strong_recipe_data(*, tiny: bool, draw: str, frames: int):
    """The `data` of an AudioSet Strong recipe: records in $ASJAX_DATA/audioset_strong, 16 kHz.

    `tiny` uses embedded soundscapes of 2 s instead, with the classes of ESC-10. `frames`: of the
    labels, for the whole clip.
    """
    folder = os.path.join(os.environ.get("ASJAX_DATA", "data"), "audioset_strong")

    def source(split: str, stand_in: str, clips: int) -> dict:
        if tiny:
            return dict(name="soundscapes", splits=[stand_in], clips=clips, clip_s=2.0)
        return dict(name="records", path=folder, splits=[split])

    return dict(
        train=source("train", "fold1", 8),
        eval=source("eval", "fold5", 4),
        sample_rate=16_000,
        clip_s=2.0 if tiny else 10.0,
        draw=draw,
        ops=f"decode | crop | strong(frames={frames})",
        workers=0 if tiny else 8,
        threads=2,
        cache=False,
        max_bad=0.05,
    )


def read_segments(path, label_set, progress: bool = True, clips: list | None = None):
    """Labels of an AudioSet segment list: scipy CSR int8 [clips, C], one row per data line.

    The format is `YTID, start_seconds, end_seconds, "mid,mid,..."` below comment lines. A comment
    line gives `num_segs=` and `num_positive_labels=`. Lines are streamed, so memory grows only with
    the positives (about 7 bytes each).

    Args: clips: a list that gets (id, start_s, end_s) of every line.

    Raises:
      AsjaxError: no such file, another format, a mid that is no class, a cut or damaged file, or
        another number of clips or labels than in the header.
    """
    from scipy import sparse

    path, label_set = Path(path), label_sets.get(label_set)
    if not path.is_file():
        why = "is a folder" if path.is_dir() else "does not exist"
        raise AsjaxError(f"segment list {path} {why}")
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    opened = gzip.open if zipped else open
    classes, lengths, promised = array("i"), array("i"), {}
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            _parse(file, path, label_set, classes, lengths, promised, progress, clips)
    except (EOFError, zlib.error, OSError) as error:
        raise AsjaxError(
            f"segment list {path} is cut short or damaged after {len(lengths):,} clips "
            f"({error}); fetch it again"
        ) from None
    except UnicodeDecodeError:
        raise AsjaxError(f"segment list {path} is not text; give a .csv or .csv.gz") from None
    for what, key, count in (
        ("clips", "num_segs", len(lengths)),
        ("labels", "num_positive_labels", len(classes)),
    ):
        if promised.get(key, count) != count:
            raise AsjaxError(
                f"segment list {path} must have {promised[key]:,} {what} as its header says, got "
                f"{count:,}; it is cut or changed: fetch it again"
            )
    if not lengths:
        raise AsjaxError(f"segment list {path} has no clips")
    if not promised:
        print(f"{path.name}: no counts in its header, so a cut is not detected", file=sys.stderr)
    starts = np.concatenate([[0], np.cumsum(np.frombuffer(lengths, np.int32))])
    table = sparse.csr_array(
        (np.ones(len(classes), np.int8), np.frombuffer(classes, np.int32), starts),
        shape=(len(lengths), len(label_set)),
    )
    table.sum_duplicates()  # a mid given twice in a row counts once
    table.data[:] = 1
    return table


def _parse(file, path, label_set, classes, lengths, promised, progress, clips=None):
    """Append the classes and the number of labels of every line. `promised` gets header counts."""
    column = {label: i for i, label in enumerate(label_set.ids)}
    bar = None
    try:
        for number, line in enumerate(file, 1):
            if line.startswith("#"):
                found = re.findall(r"(num_segs|num_positive_labels)\s*=\s*(\d+)", line)
                promised.update((key, int(value)) for key, value in found)
                continue
            try:
                clip, start, end, text = line.split(",", 3)
                text = text.strip(' "\r\n').replace(" ", "")
                found = [column[mid] for mid in text.split(",")]
                if clips is not None:
                    span = float(start), float(end)
                    if not 0 <= span[0] < span[1] < math.inf:
                        raise ValueError("its times")
                    clips.append((clip.strip(' "'), *span))
            except (ValueError, KeyError) as error:
                if not line.strip() or (not lengths and line.lower().startswith("ytid,")):
                    continue
                raise _bad_line(path, number, line, error, label_set) from None
            classes.extend(found)
            lengths.append(len(found))
            if progress and number % 50_000 == 0:
                bar = bar or _bar(path.name, promised.get("num_segs"))
                bar.update(len(lengths) - bar.n)
    finally:
        if bar is not None:
            bar.update(len(lengths) - bar.n)
            bar.close()


def _bar(name: str, total: int | None):
    from tqdm import tqdm

    every = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=name, unit=" clips", unit_scale=True, mininterval=every)


def _bad_line(path, number, line, error, label_set) -> AsjaxError:
    place = f"segment list {path}, line {number}"
    if "ytid" in line.lower():
        return AsjaxError(f"{place} has an index before YTID; write it with to_csv(index=False)")
    if line.count('"') % 2 or not line.endswith("\n"):
        return AsjaxError(f"{place} is cut in the middle: {line.strip()[:80]!r}; fetch it again")
    if isinstance(error, KeyError):
        mid = error.args[0]
        return AsjaxError(f"{place}: label {mid!r} is not one of {label_set.name}'s classes")
    return AsjaxError(
        f'{place} must be YTID, start_seconds, end_seconds, "mids", got {line.strip()[:80]!r}'
    )


def split_name(path) -> str:
    """`.../balanced_train_segments.csv.gz` -> `balanced_train`."""
    return re.sub(r"(_segments)?(\.csv|\.txt)?(\.gz)?$", "", Path(path).name) or Path(path).name
