"""The scores file: scores, targets and ids of clips, with the classes of the columns.

Scores are logits of one sigmoid per class, or log-probabilities of a softmax over the classes. The
file says which (`activation`); a file that does not say it is older and has logits.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from asjax import labels
from asjax.config import AsjaxError, quoted, split_spec, to_plain, unknown
from asjax.metrics.probability import ACTIVATIONS
from asjax.store import clip_list, files, formats, npz, schema

KINDS = {  # name -> numpy's letters of the allowed types, number of axes
    "ids": ("U", 1),
    "scores": ("f", 2),
    "targets": ("bui", 2),
    "label_ids": ("U", 1),
    "label_names": ("U", 1),
    "about": ("U", 0),
    "content": ("u", 2),  # SHA-256 of the audio of each clip; zeros: not known
}


def activation_of(cfg) -> str:
    """How the scores of a model with this config become probabilities: "softmax" or "sigmoid"."""
    objective = cfg.get("objective")
    return "softmax" if objective and split_spec(objective)[0] == "classify" else "sigmoid"


def save_scores(
    path,
    *,
    ids,
    scores,
    targets,
    label_set,
    extra=None,
    activation="sigmoid",
    content=None,
) -> None:
    """Write scores.npz: ids [N], scores float32 [N, C], targets uint8 [N, C], the classes and their
    hash, and `extra` (JSON). The write is atomic.

    Args:
      activation: "sigmoid": scores are logits; "softmax": they are log-probabilities, as of
        `metrics.as_scores`.
      content: uint8 [N, 32], the SHA-256 of the audio of each clip, zeros where it is not known.
    """
    if activation not in ACTIVATIONS:
        raise unknown("activation of scores", activation, ACTIVATIONS)
    scores, targets = np.asarray(scores, np.float32), np.asarray(targets)
    if not (scores.shape == targets.shape == (len(ids), len(label_set))):
        raise AsjaxError(
            f"scores and targets must be [{len(ids)} ids, {len(label_set)} classes], got "
            f"{scores.shape} and {targets.shape}"
        )
    _check_softmax(scores, activation, "scores")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"label_set": label_set.name, "label_hash": label_set.hash, "extra": to_plain(extra)}
    about["activation"] = activation
    about["data"] = clip_list.about(ids, content)
    hashes = {} if content is None else {"content": np.asarray(content, np.uint8)}
    if label_set.taxonomy is not None:
        about["parents"] = label_set.taxonomy
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            ids=np.array(list(ids), str),
            scores=scores,
            targets=targets.astype(np.uint8),
            label_ids=np.array(label_set.ids, str),
            label_names=np.array(label_set.names, str),
            about=json.dumps(about),
            **hashes,
        )


def load_scores(path, label_set=None) -> dict:
    """Read a file of `save_scores`: dict of ids, scores, targets, label_set, extra,
    activation, content (None: the file has no hashes of the audio).

    Args:
      label_set: the expected classes; default: the classes in the file.

    Raises:
      AsjaxError: no such file, not a scores file, or other classes than expected (the message has
        both hashes).
    """
    path = Path(path)
    if not path.is_file():
        raise AsjaxError(f"scores: no file {path}; asjax eval --model=DIR writes one")
    try:
        arrays = npz.load(path, KINDS, optional=("content",))
        about = schema.parse_json(str(arrays["about"]))
        ids, label_ids, label_names = (
            tuple(map(str, arrays[key].tolist())) for key in ("ids", "label_ids", "label_names")
        )
    except (OSError, ValueError) as error:
        raise AsjaxError(f"scores: {path} is not a scores file of asjax: {error}") from None
    schema.require(about, formats.ABOUT, f"scores: {path}: about")
    stored = labels.LabelSet(
        about["label_set"], label_ids, label_names, taxonomy=_parents(about, label_ids, path)
    )
    labels.check_hash(about["label_hash"], stored.hash, f"the class list in {path}")
    if label_set is not None:
        labels.check_hash(label_set.hash, stored.hash, f"the scores in {path}")
        stored = label_set
    scores, targets = arrays["scores"], arrays["targets"]
    if not (scores.shape == targets.shape == (len(ids), len(stored))):
        raise AsjaxError(
            f"scores: {path} is damaged: scores {scores.shape} and targets {targets.shape} of "
            f"{len(ids)} clips and {len(stored)} classes"
        )
    if targets.dtype != bool and targets.size and not 0 <= targets.min() <= targets.max() <= 1:
        raise AsjaxError(f"scores: {path} is damaged: its targets must be 0 or 1")
    content = arrays.get("content")
    if content is not None and (content.shape != (len(ids), 32) or content.dtype != np.uint8):
        raise AsjaxError(f"scores: {path} is damaged: its hashes do not fit its clips")
    activation = about.get("activation", "sigmoid")
    _check_softmax(scores, activation, f"scores: {path} is damaged: its scores")
    return {
        "ids": list(ids),
        "scores": scores,
        "targets": targets,
        "label_set": stored,
        "extra": about.get("extra"),
        "activation": activation,
        "content": content,
    }


def _check_softmax(scores, activation: str, what: str) -> None:
    if activation == "softmax" and scores.size and (scores > 1e-3).any():
        raise AsjaxError(
            f"{what} of a softmax must be log-probabilities, at most 0, got {scores.max():.3g}"
        )


def _parents(about: dict, label_ids, path) -> dict | None:
    """The taxonomy of a scores file, or None. AsjaxError: a class or parent is not a node."""
    parents = about.get("parents")
    if parents is not None:
        nodes = {node for above in parents.values() for node in above}
        lacking = sorted({*nodes, *label_ids} - parents.keys())
        if lacking:
            raise AsjaxError(f"scores: {path} is damaged: its taxonomy lacks {quoted(lacking[0])}")
    return parents
