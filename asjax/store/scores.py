"""The scores file, and the views of it that are evaluated.

Scores on disk are logits. A *view* is one way to look at them: labels as they are, HLP on labels,
HLP on labels and scores, or the classes of another label set that these classes stand for.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asjax import hlp, labels
from asjax.config import AsjaxError, to_plain

# --------------------------------------------------------------------------------- scores file


def save_scores(path, *, ids, scores, targets, label_set, extra=None) -> None:
    """Write scores.npz: ids [N], scores float32 [N, C] (logits), targets uint8 [N, C], the classes
    and their hash, and `extra` (JSON). The file appears whole or not at all."""
    scores, targets = np.asarray(scores, np.float32), np.asarray(targets)
    if not (scores.shape == targets.shape == (len(ids), len(label_set))):
        raise AsjaxError(
            f"scores and targets must be [{len(ids)} ids, {len(label_set)} classes], got "
            f"{scores.shape} and {targets.shape}"
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    about = {"label_set": label_set.name, "label_hash": label_set.hash, "extra": to_plain(extra)}
    try:
        with partial.open("wb") as file:
            np.savez(
                file,
                ids=np.array(list(ids), str),
                scores=scores,
                targets=targets.astype(np.uint8),
                label_ids=np.array(label_set.ids, str),
                label_names=np.array(label_set.names, str),
                about=json.dumps(about),
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_scores(path, label_set=None) -> dict:
    """What `save_scores` wrote: dict of ids, scores, targets, label_set, extra.

    Args:
      label_set: the classes expected; default: those named in the file.

    Raises:
      AsjaxError: no such file, not a scores file, or other classes than expected (both hashes).
    """
    path = Path(path)
    if not path.is_file():
        raise AsjaxError(f"scores: no file {path}; asjax eval --model=DIR writes one")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        about = json.loads(str(arrays["about"]))
        found = labels.LabelSet(
            about["label_set"],
            tuple(map(str, arrays["label_ids"])),
            tuple(map(str, arrays["label_names"])),
        )
        ids = list(map(str, arrays["ids"]))
        scores, targets = arrays["scores"], arrays["targets"]
        stored, extra = about["label_hash"], about["extra"]
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        reason = "not an npz archive" if "pickle" in str(error) else error
        raise AsjaxError(f"scores: {path} is not a scores file of asjax: {reason}") from None
    labels.check_hash(stored, found.hash, f"the class list in {path}")
    if label_set is not None:
        labels.check_hash(label_set.hash, found.hash, f"the scores in {path}")
        found = label_set
    if not (scores.shape == targets.shape == (len(ids), len(found))):
        raise AsjaxError(f"scores: {path} is damaged: {scores.shape} scores for {len(ids)} clips")
    return {"ids": ids, "scores": scores, "targets": targets, "label_set": found, "extra": extra}


# --------------------------------------------------------------------------------------- views


@dataclass(frozen=True)
class View:
    """One way to look at the scores; `mapped` when its classes are not the label set's own."""

    title: str
    scores: np.ndarray  # [N, K]
    targets: np.ndarray  # [N, K]
    ids: tuple[str, ...]
    names: tuple[str, ...]
    mapped: bool = False


def views(scores, targets, label_set, closure=None, mappings=None) -> dict[str, View]:
    """The views of one set of scores, by key: labels, hlp_labels, hlp_labels_scores, mappings.

    Args:
      closure: bool [C, C] of `hlp.closure`; None or the identity gives no HLP views.
      mappings: names of label sets (`["esc10"]`), or `{name: (bool [K, C], names of K)}`. A mapped
        class is present where all the classes it stands for are, its score is their maximum; a
        mapped class that none stands for is left out. Mapped views use scores without HLP.
    """
    own = (label_set.ids, label_set.names)
    found = {"labels": View("labels as they are", scores, targets, *own)}
    if closure is not None and closure.sum() > np.trace(closure):
        targets_hlp = hlp.propagate_labels(targets, closure)
        found["hlp_labels"] = View("HLP on labels", scores, targets_hlp, *own)
        scores_hlp = hlp.propagate_scores(scores, closure)
        found["hlp_labels_scores"] = View("HLP on labels and scores", scores_hlp, targets_hlp, *own)
    for name, table, ids, names in _mappings(mappings, label_set):
        table = np.asarray(table, bool)
        rows = np.flatnonzero(table.any(axis=1))
        if not len(rows):
            continue
        columns = [np.flatnonzero(table[i]) for i in rows]
        found[name] = View(
            f"{len(rows)} classes of {name}",
            np.stack([scores[:, c].max(axis=1) for c in columns], axis=1),
            np.stack([targets[:, c].min(axis=1) for c in columns], axis=1),
            tuple(ids[i] for i in rows),
            tuple(names[i] for i in rows),
            mapped=True,
        )
    return found


def _mappings(mappings, label_set):
    for name in mappings or ():
        if isinstance(mappings, dict):
            table, names = mappings[name]
            yield name, table, names, names
        else:
            source = labels.get(name)
            yield source.name, labels.mapping(source, label_set), source.ids, source.names
