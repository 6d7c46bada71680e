"""Frame scores of several models as one set, and of a model on data with other classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asjax import events as lists
from asjax.config import AsjaxError
from asjax.evaluation import averages, detections

_CHUNK = 64  # clips that are averaged at once


def averaged(members, kind: str, names, weights=None):
    """The average of several models' `Detections`, with the first one's clips and events.

    Args:
      members: list of `Detections` with the same classes. kind: "logits" or "probabilities".
      names: of the models, for messages. weights: a number for each; default: equal.

    Raises:
      AsjaxError: other clips, or other frames.
    """
    first = members[0]
    if len(members) == 1:
        return first
    rows = []
    for found, name in zip(members, names, strict=True):
        rows.append(averages.same_clips(first.ids, found.ids, names[0], name))
        if abs(found.frame_rate - first.frame_rate) > 1e-6 * first.frame_rate:
            raise AsjaxError(
                "the models of an ensemble must have the same frames a second, got "
                f"{first.frame_rate:g} and {found.frame_rate:g} ({names[0]}, {name})"
            )
        if found.frames.shape[1:] != first.frames.shape[1:]:
            raise AsjaxError(
                f"the models of an ensemble must have as many frames and classes for a recording, "
                f"got {list(first.frames.shape[1:])} and {list(found.frames.shape[1:])} "
                f"({names[0]}, {name})"
            )
    frames = detections.room(first.frames.shape)
    for start in range(0, len(first.ids), _CHUNK):
        stop = min(len(first.ids), start + _CHUNK)
        parts = (
            np.stack([found.frames[i] for i in order[start:stop]]).reshape(-1, frames.shape[2])
            for found, order in zip(members, rows, strict=True)
        )
        mean = averages.average_scores(parts, kind, weights=weights)
        frames[start:stop] = np.clip(mean, -detections.MOST, detections.MOST).reshape(
            -1, *frames.shape[1:]
        )
    scored = (found.logits[order] for found, order in zip(members, rows, strict=True))
    logits = first.logits
    if logits.size:
        logits = averages.average_scores(scored, kind, weights=weights)
    return replace(first, frames=frames, logits=logits)


def on_shared(found, pairs, classes: int):
    """A model's scores as scores of the data's classes, for the classes that both have.

    Args:
      found: `Detections` with the model's classes in logits and frames, the data's in targets and
        events. pairs: of `data_specs.shared`: (index in the data, indices in the model), the score
        is the highest of the latter. classes: number of classes of the data.
    """
    best = lambda scores: np.stack([scores[..., c].max(axis=-1) for _, c in pairs], axis=-1)  # noqa: E731
    table = np.zeros((classes, len(pairs)), bool)
    for j, (i, _) in enumerate(pairs):
        table[i, j] = True
    frames = detections.room((*found.frames.shape[:2], len(pairs)))
    for start in range(0, len(found.ids), _CHUNK):
        part = slice(start, start + _CHUNK)
        frames[part] = best(np.asarray(found.frames[part]))
    moved = lambda some: [None if e is None else lists.relabelled(e, table) for e in some]  # noqa: E731
    return replace(
        found,
        frames=frames,
        logits=best(found.logits),
        targets=found.targets[:, [i for i, _ in pairs]],
        events=moved(found.events),
        listed=None if found.listed is None else moved(found.listed),
    )
