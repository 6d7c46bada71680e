"""Join folders of logits: the shards of one run, or logits of different clips."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, quoted, shown
from asjax.store import files, logits, logits_writer, swap
from asjax.store.logits_writer import Form, Row
from asjax.teachers import parts

_SAME = ("kinds", "dtype", "top", "frames", "frame_rate", "label_hash", "activation", "views")


def merge(folders, out: Path, *, overwrite: bool = False) -> None:
    """Join sets of logits into the folder `out`. The files are linked if possible, else copied.

    Shards of one run (`--shard i/N`) are put in their order; all of them must be given. Other sets
    must have the same classes and form, and different clips; they keep the order of `folders`.
    The same call again changes nothing.

    Raises:
      AsjaxError: a set is damaged, has a NaN or is of another kind, a shard is missing, an id
        occurs twice.
    """
    if len(folders) < 2:
        raise AsjaxError(f"asjax logits merge needs several folders, got {len(folders)}")
    if out.resolve() in {Path(folder).resolve() for folder in folders}:
        raise AsjaxError(f"--out {shown(out)} is one of the folders to join; choose another one")
    sets = [logits.open(folder, verify=True) for folder in folders]
    for one in sets[1:]:
        for key in _SAME:
            mine, first = one.about.get(key), sets[0].about.get(key)
            if mine != first:
                raise AsjaxError(
                    f"logits that are joined must have the same {key}: {shown(sets[0].path)} has "
                    f"{quoted(first)}, {shown(one.path)} has {quoted(mine)}"
                )
    sets, extra = _in_order(sets)
    _check_ids(sets)
    for one in sets:
        one.require_finite()
    parts.refuse_strangers(out, logits.ABOUT)
    if out.exists() and any(out.iterdir()) and not overwrite:
        if _is_there(out, sets):
            return
        raise AsjaxError(f"--out {shown(out)} exists; add --overwrite, or choose another folder")
    with swap.folder(out, what="logits", ours=parts.names_in) as new:
        _write(new, sets, extra)


def _is_there(out: Path, sets) -> bool:
    """Whether `out` holds the logits of all these sets already, as after a kill at the very end."""
    try:
        there = logits.open(out, verify=True)
    except AsjaxError:
        return False
    sums = [
        sorted(sha for one in some for name, sha in files.read_sums(one.path).items()
               if name.endswith(".npy"))
        for some in ([there], sets)
    ]  # fmt: skip
    return sums[0] == sums[1] and rows_of(there) == [row for one in sets for row in rows_of(one)]


def _in_order(sets):
    """The sets in the order of their shards, and the manifest. AsjaxError: a shard is missing."""
    shards = [((one.extra or {}).get("settings") or {}).get("shard") or [1, 1] for one in sets]
    if all(shard == [1, 1] for shard in shards):
        return sets, {"merged": [one.extra for one in sets]}
    others = [{**one.extra["settings"], "shard": None} for one in sets]
    for one, settings in zip(sets, others, strict=True):
        if settings != others[0]:
            raise AsjaxError(
                f"{shown(sets[0].path)} and {shown(one.path)} are shards of different runs: other "
                f"{', '.join(key for key in settings if settings[key] != others[0].get(key))}"
            )
    count = shards[0][1]
    there = [i for i, _ in shards]
    missing = sorted(set(range(1, count + 1)) - set(there))
    twice = sorted({i for i in there if there.count(i) > 1})
    if missing or twice:
        what = f"{', '.join(f'{i}/{count}' for i in missing or twice)}"
        raise AsjaxError(
            f"asjax logits merge needs each of the {count} shards once; "
            f"{'missing' if missing else 'given twice'}: {what}"
        )
    order = np.argsort(there)
    sets = [sets[i] for i in order]
    first, last = sets[0].extra, sets[-1].extra
    draws = [first["draws"][0], last["draws"][1]]
    settings = {**first["settings"], "shard": [1, 1]}
    cut = sum(one.extra["cut"] for one in sets)
    return sets, {**first, "settings": settings, "draws": draws, "cut": cut}


def _check_ids(sets) -> None:
    owner = {}
    for one in sets:
        for key in zip(one.row_ids, one.row_views.tolist(), strict=True):
            if key in owner:
                raise AsjaxError(
                    f"clip {quoted(key[0])} is in {shown(owner[key])} and in {shown(one.path)}; "
                    "every id must occur once"
                )
            owner[key] = one.path


def _write(new: Path, sets, extra) -> None:
    about = sets[0].about
    keys = ("dtype", "top", "frames", "frame_rate", "views")
    form = Form(
        sets[0].label_set,
        **{key: about.get(key) for key in keys},
        clip="clip" in sets[0].kinds,
        activation=sets[0].activation,
    ).check()
    shards, sums, rows, missing = [], {}, [], []
    for one in sets:
        known = files.read_sums(one.path)
        for old in one.about["shards"]:
            shard = {"clips": old["clips"]}
            for array in (key for key in logits.FILES if key in old):
                name = f"{logits.FILES[array]}-{len(shards):05d}.npy"
                source = one.path / old[array]["file"]
                try:
                    os.link(source, new / name)
                except OSError:
                    shutil.copyfile(source, new / name)
                sums[name] = known[old[array]["file"]]
                shard[array] = {**old[array], "file": name}
            shards.append(shard)
        rows += rows_of(one)
        missing += one.missing()
    there = {(row.id, row.view) for row in rows}
    missing = [one for one in missing if one[:2] not in there]
    logits_writer.finish(new, form, rows, shards, extra, sums, missing)


def rows_of(stored: logits.Logits) -> list[Row]:
    """The rows of clips.csv."""
    columns = (stored.durations_s.tolist(), stored.event_texts, stored.label_texts)
    numbers = (stored.row_views.tolist(), stored.row_draws.tolist())
    return list(map(Row, stored.row_ids, *columns, *numbers))
