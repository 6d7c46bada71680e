"""Do stored logits belong to these clips? A wrong index file shows at once.

`against` compares the logits with the labels of the data: mean average precision of the clips, or
of their frames. The same logits in a random order give what a wrong index would give. EfficientAT
once published a wrong index (its issue 7), and the students were bad without an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax import events as lists
from asjax import metrics
from asjax.config import AsjaxError
from asjax.store.logits import Logits

MOST_CLIPS = 4000  # evenly chosen clips beyond this are enough
MOST_SCORES = 5_000_000  # likewise for frames
FEW = 20  # fewer clips prove nothing
_ORDERS = 8  # random orders
_ABSENT = -1e4  # logit of a class outside of the top


@dataclass(frozen=True)
class Check:
    """Mean AP of `clips` clips, that of a random order, and a floor: a lower value is as bad as a
    wrong index. `what` says whether clips or their frames are ranked."""

    what: str
    clips: int
    mean_ap: float
    chance: float
    floor: float

    @property
    def good(self) -> bool:
        return bool(self.mean_ap >= self.floor)

    def __str__(self):
        floor = f"must be at least {self.floor:.3f}"
        if self.clips < FEW:
            floor = f"fewer than {FEW} clips prove nothing"
        return (
            f"mAP {self.mean_ap:.3f} of the stored logits of {self.clips:,} {self.what} against "
            f"their labels (a wrong order: {self.chance:.3f}; {floor})"
        )

    def require(self, where) -> None:
        """AsjaxError if the logits do not fit the clips."""
        if not self.good:
            raise AsjaxError(
                f"{where}: {self}: the logits do not belong to these clips; is the index file or "
                "the label set wrong? --no-check takes them anyway"
            )


def own(stored: Logits) -> Check | None:
    """The check with the labels and events in the folder itself; None: it has none."""
    rows = np.arange(len(stored.row_ids))
    return _best(stored, rows, stored.labels_at, stored.events_at)


def against(stored: Logits, ids, labels=None, events=None, labelled=None) -> Check | None:
    """The check with the labels of data; None if no clip of the data has logits and labels.

    Args:
      ids: clips of the data, as stored. labels: CSR [N, C], or None: the data have none.
      events: events[i] is an `EVENT` array or None; or None: the data have none.
      labelled: bool [N], which clips have labels; None: all, if there are labels.
    """
    place = {clip: i for i, clip in enumerate(ids)}
    rows = np.array([k for k, clip in enumerate(stored.row_ids) if clip in place], np.int64)
    mine = {int(k): place[stored.row_ids[k]] for k in rows}

    def labels_at(row):
        if labels is None or not (labelled is None or labelled[mine[row]]):
            return None
        return labels[mine[row]].indices

    return _best(stored, rows, labels_at, lambda row: None if events is None else events[mine[row]])


def _best(stored, rows, labels_at, events_at) -> Check | None:
    """The check of the frames if they have events, else of the clips."""
    if stored.frames is not None:
        count = -(-stored.frames.shape[1] // _stride(stored)) * len(stored.label_set)
        marked = [row for row in map(int, rows) if events_at(row) is not None]
        if marked and (check := _of_frames(stored, marked, events_at, MOST_SCORES // count)):
            return check
    known = [row for row in map(int, rows) if labels_at(row) is not None]
    return _of_clips(stored, known, labels_at) if known else None


def _of_clips(stored: Logits, known, labels_at) -> Check | None:
    chosen = _some(known, MOST_CLIPS)
    scores = np.empty((len(chosen), 1, len(stored.label_set)), np.float32)
    targets = np.zeros(scores.shape, bool)
    for k, row in enumerate(chosen):
        found = stored.at(row)
        scores[k, 0] = found["clip"] if "clip" in found else found["frames"].max(axis=0)
        targets[k, 0, labels_at(row)] = True
    scores = np.maximum(scores, _ABSENT)
    return _checked("clips", scores, targets) if targets.any() else None


def _of_frames(stored: Logits, marked, events_at, most: int) -> Check | None:
    stride, (count, width) = _stride(stored), stored.frames.shape[1:]
    rate = {"frames": count, "num_classes": width, "frame_rate": stored.frame_rate}
    scores, targets = [], []
    for row in _some(marked, max(FEW, most)):
        score = np.array(stored.frames[row], np.float32)
        score[stored.lengths[row] :] = _ABSENT  # frames after the end have no meaning
        scores.append(score[::stride])
        targets.append(lists.to_frames(lists.merge(events_at(row)), **rate)[::stride] > 0)
    targets = np.stack(targets)
    return _checked("clips by frames", np.stack(scores), targets) if targets.any() else None


def _stride(stored) -> int:
    return max(1, stored.frames.shape[1] // 50)


def _checked(what: str, scores, targets) -> Check:
    """Scores and targets [N, T, C]. A random order moves whole clips."""
    classes = np.flatnonzero(targets.any(axis=(0, 1)))
    clips, scores = len(scores), scores[..., classes]
    truth = targets[..., classes].reshape(-1, len(classes)).astype(np.uint8)

    def mean_ap(order) -> float:
        flat = scores[order].reshape(truth.shape)
        return metrics.tagging(scores=flat, targets=truth, only=("mean_ap",))["mean_ap"]

    rng = np.random.default_rng(0)
    random = [mean_ap(rng.permutation(clips)) for _ in range(_ORDERS)]
    chance = float(np.mean(random))
    # Four deviations above a random order, and clearly above it: a teacher is far above both.
    floor = min(0.95, max(chance + 4 * float(np.std(random)), 1.25 * chance))
    value = float(mean_ap(np.arange(clips)))
    return Check(what, clips, value, chance, floor if clips >= FEW else 0.0)


def _some(rows, most: int) -> list[int]:
    """At most `most` of the rows, evenly spread."""
    pick = np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)
    return [rows[i] for i in pick]
