"""`--restrict-to`: an evaluation on the clips of a list, so that two models have the same clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, shown, warn
from asjax.data import content, records
from asjax.data.source import sha256
from asjax.store import clip_list
from asjax.store.scores import load_scores


class Wanted:
    """The clips that all of several lists name.

    A list is a file of `asjax.store.clip_list`, a scores.npz, a folder with one, or a record
    dataset. The hash of a clip's audio is taken from the first list that has it.

    Raises:
      AsjaxError: a list cannot be read, or no clip is in all of them.
    """

    def __init__(self, paths):
        self.paths = [str(path) for path in paths]
        lists = [_read(Path(path)) for path in paths]
        self.of = {
            clip: next(filter(None, (one[clip] for one in lists)), "")
            for clip in lists[0]
            if all(clip in one for one in lists)
        }
        if not self.of:
            raise AsjaxError(f"--restrict-to: no clip is in all of {', '.join(self.paths)}")

    def rows(self, ids) -> np.ndarray:
        """The rows of wanted clips. AsjaxError: there is none. A warning: some are missing."""
        keep = np.array([i for i, clip in enumerate(ids) if clip in self.of], np.int64)
        if not len(keep):
            raise AsjaxError(f"--restrict-to: the data have no clip of {', '.join(self.paths)}")
        if lacking := len(self.of) - len({ids[i] for i in keep}):
            warn(
                f"--restrict-to: {lacking:,} of its {len(self.of):,} clips are not in the data, so "
                "the numbers are of fewer clips"
            )
        return keep

    def check(self, ids, hashes) -> None:
        """Warn if clips have other audio than in the lists. `hashes`: of `content.of_source`."""
        if hashes is None:
            return
        found = clip_list.as_hex(hashes)
        other = [
            clip
            for clip, digest in zip(ids, found, strict=True)
            if digest and self.of.get(clip) not in (None, "", digest)
        ]
        if other:
            warn(
                f"--restrict-to: {len(other):,} of {len(ids):,} clips have other audio than in the "
                f"list, such as {shown(other[0])}"
            )

    def source(self, source):
        """The wanted clips of a source."""
        keep = self.rows(source.ids)
        if getattr(source, "recordings", None) is not None:
            raise AsjaxError("--restrict-to does not take data that are pieces of recordings")
        fields = {
            "ids": [source.ids[i] for i in keep],
            "split": [source.split[i] for i in keep],
            "labels": source.labels[keep],
            "row": source.row[keep],
            "hash": sha256(source.hash, *sorted(self.of)),
            "group": [source.group[i] for i in keep] if source.group else None,
            "events": None if source.events is None else source.events.select(keep),
            "begin_s": None if source.begin_s is None else source.begin_s[keep],
        }
        chosen = replace(source, **fields)
        self.check(chosen.ids, content.of_source(chosen, chosen.ids))
        return chosen

    def scores(self, loaded: dict) -> dict:
        """The wanted clips of a dict of `load_scores`."""
        keep, hashes = self.rows(loaded["ids"]), loaded["content"]
        out = {
            **loaded,
            "ids": [loaded["ids"][i] for i in keep],
            "scores": loaded["scores"][keep],
            "targets": loaded["targets"][keep],
            "content": None if hashes is None else hashes[keep],
        }
        self.check(out["ids"], out["content"])
        return out


def _read(path: Path) -> dict[str, str]:
    """id -> SHA-256 of its audio, or ""."""
    if path.is_dir() and records.is_dataset(path):
        return {row[0]: row[6] for row in records.Dataset(path).rows()}
    places = [path, path / "scores.npz", path / "eval" / "scores.npz"]
    scores = next((p for p in places if p.suffix == ".npz" and p.is_file()), None)
    if scores is None:
        return clip_list.read(path)
    loaded = load_scores(scores)
    hashes = loaded["content"]
    found = clip_list.as_hex(hashes) if hashes is not None else [""] * len(loaded["ids"])
    return dict(zip(loaded["ids"], found, strict=True))
