"""How many frames each class is active in each clip of a source, for draws."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from asjax import events as lists
from asjax.config import AsjaxError


def active_frames(source, *, frame_rate: float = 25.0, frames: int | None = None):
    """Active frames per clip and class: CSR float64 [N, C].

    A frame counts if an event of the class touches it, once if several do. A clip that is not
    annotated has estimates: each of its labels counts as many frames as the class has on average in
    the annotated clips with the class, or as all classes have if no annotated clip has the class.

    Args:
      source: with `events` (an `EVENT` array or None for each clip), `labels` (CSR [N, C]), `name`.
      frame_rate: frames per second. frames: count only the first so many frames of a recording.

    Raises:
      AsjaxError: the source has no events, or no annotated clip has one.
    """
    if getattr(source, "events", None) is None:
        raise AsjaxError(
            f"this draw needs events in time, and {source.name} has only labels; take "
            "weighted(scheme='passt', replacement=False)"
        )
    found = [source.events[i] for i in range(len(source.ids))]
    annotated = np.array([events is not None for events in found])
    empty = np.zeros(0, lists.EVENT)
    events = np.concatenate([empty, *(e for e in found if e is not None)])
    clip = np.repeat(np.arange(len(found)), [0 if e is None else len(e) for e in found])
    shape = source.labels.shape
    counts = _union(events, clip, shape, frame_rate, frames)
    if not counts.nnz:
        raise AsjaxError(f"this draw needs events in time, and no clip of {source.name} has one")
    if annotated.all():
        return counts
    clips = np.bincount(counts.indices, minlength=shape[1])
    total = np.bincount(counts.indices, counts.data, shape[1])
    mean = np.where(clips > 0, total / np.maximum(clips, 1), counts.data.mean())
    weak = sparse.diags_array((~annotated).astype(np.float64)) @ sparse.csr_array(source.labels)
    estimated = weak @ sparse.diags_array(mean)
    estimated.eliminate_zeros()
    return sparse.csr_array(counts + estimated)


def _union(events, clip, shape, frame_rate, frames):
    """Frames that events of one clip and class touch together, as CSR [N, C]."""
    first, end = lists.frame_bounds(
        events["onset_s"],
        events["offset_s"],
        frames=2**31 if frames is None else frames,
        frame_rate=frame_rate,
    )
    group = clip.astype(np.int64) * shape[1] + events["class"]
    order = np.lexsort((first, group))
    group, first, end = group[order], first[order], end[order]
    # The frames before an event that earlier events of its group have reached. Each group is moved
    # behind the ones before it, so that one running maximum does for all groups.
    _, number = np.unique(group, return_inverse=True)
    behind = number * (int(end.max(initial=0)) + 1)
    reached = np.maximum.accumulate(np.concatenate([[0], end + behind]))[:-1] - behind
    count = np.maximum(end - np.maximum(first, reached), 0)
    table = sparse.coo_array(
        (count.astype(np.float64), (group // shape[1], group % shape[1])), shape
    )
    table = table.tocsr()  # adds the events of a group
    table.eliminate_zeros()
    return table
