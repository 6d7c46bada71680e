"""The scores file, and the views of it that are evaluated.

Scores on disk are logits. A *view* is one way to look at them: labels as they are, HLP on labels,
HLP on labels and scores, or the classes of another label set that these classes stand for.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from asjax import labels
from asjax.config import AsjaxError, to_plain
from asjax.store import files

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
    about = {"label_set": label_set.name, "label_hash": label_set.hash, "extra": to_plain(extra)}
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            ids=np.array(list(ids), str),
            scores=scores,
            targets=targets.astype(np.uint8),
            label_ids=np.array(label_set.ids, str),
            label_names=np.array(label_set.names, str),
            about=json.dumps(about),
        )


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
