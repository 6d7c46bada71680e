"""Frame scores on disk: logits [N, T, C] with the true events, for evaluation.

A set of frame scores is a folder of `store.logits` that has frame logits.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError
from asjax.store import logits_writer
from asjax.store.files import reason
from asjax.store.logits import Logits


class FrameScoresWriter(logits_writer.Writer):
    """Writes a set of frame scores. The complete folder appears when the `with` statement ends.

    Args:
      frames, frame_rate: frames per clip, frames per second. dtype: float16 or float32 on disk.
      extra, shard_mb, overwrite: as `logits_writer.Writer`.

    Raises:
      AsjaxError: the folder exists, or scores are not finite in this dtype.
    """

    def __init__(self, path, *, label_set, frames: int, frame_rate, dtype="float16", **how):
        shape = {"frames": int(frames), "frame_rate": float(frame_rate)}
        super().__init__(path, logits_writer.Form(label_set, dtype, **shape), **how)

    def add(self, ids, logits, durations_s, events=None) -> None:
        """Append clips.

        Args:
          ids: n names. logits: [n, frames, C]. durations_s: n seconds.
          events: n lists of (onset_s, offset_s, class); None for a clip that is not annotated.
        """
        if len(durations_s) != len(ids):
            raise AsjaxError(f"{len(ids)} clips need as many durations, got {len(durations_s)}")
        marks = events or [None] * len(ids)
        texts = [logits_writer.event_text(one, self.form.label_set) for one in marks]
        rows = list(map(logits_writer.Row, ids, map(float, durations_s), texts))
        super().add(rows, frames=logits)


class FrameScores(Logits):
    """An opened set of frame scores: `Logits` whose rows are clips, with these names.

    Attributes:
      ids: list of N. scores: logits [N, T, C]; `scores[a:b]` and `scores[i]` read from disk.
    """

    def __init__(self, path, label_set=None, *, verify: bool = False):
        """As `Logits`. AsjaxError: also if there are no frame logits, or several views."""
        super().__init__(path, label_set, verify=verify)
        if self.frames is None or self.views:
            has = f"{self.views['count']} views of each clip" if self.views else "no frame logits"
            raise AsjaxError(f"frame scores: {path} has {has}; asjax logits --frames writes them")
        self.scores = self.frames


# ------------------------------------------------------------------------ sed_scores_eval's files


def read_tsv(path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Read a score file of sed_scores_eval (one clip): edges [T + 1], class names, scores [T, C].

    Raises:
      AsjaxError: another kind of file, or a frame does not begin where the last one ends.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t"))
        header, table = rows[0], np.array(rows[1:], np.float64)
        if header[:2] != ["onset", "offset"] or table.ndim != 2:
            raise ValueError("it must begin with the columns onset and offset")
        if (table[1:, 0] != table[:-1, 1]).any() or (table[:, 1] <= table[:, 0]).any():
            raise ValueError("each frame must begin where the previous frame ends")
    except (OSError, ValueError, IndexError) as error:
        raise AsjaxError(f"score file {path} cannot be read: {reason(error)}") from None
    return np.append(table[:, 0], table[-1, 1]), header[2:], table[:, 2:]


def write_tsv(path, scores, names, *, frame_rate: float = 25.0) -> None:
    """Write scores [T, C] of one clip as a file for sed_scores_eval."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(names):
        raise AsjaxError(f"scores must be [frames, {len(names)} names], got {scores.shape}")
    edges = np.round(np.arange(len(scores) + 1) / frame_rate, 10)
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter="\t", lineterminator="\n")
        out.writerow(["onset", "offset", *names])
        for i, row in enumerate(scores):
            out.writerow([repr(float(x)) for x in (edges[i], edges[i + 1], *row)])
