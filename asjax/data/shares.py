"""Draws from several groups of clips in fixed shares."""

from __future__ import annotations

import numpy as np

from asjax.config import AsjaxError, warn


def kinds(source, wanted: dict[str, int], count: int) -> list[tuple[str, np.ndarray]]:
    """(kind, its clips) for the kinds of `wanted` that are drawn: strong, weak, unlabelled.

    Args: wanted: kind -> share. count: number of clips.

    AsjaxError: a kind that is to be drawn has no clip, or one that has clips is never drawn.
    """
    marks = getattr(source, "events", None)
    strong = np.array([marks is not None and marks[i] is not None for i in range(count)], bool)
    labelled = getattr(source, "labelled", None)
    bare = ~strong & (False if labelled is None else ~np.asarray(labelled))
    masks = {"strong": strong, "weak": ~strong & ~bare, "unlabelled": bare}
    words = {
        "strong": "clips with events",
        "weak": "clips with labels only",
        "unlabelled": "clips without labels",
    }
    if lacks := [words[kind] for kind, share in wanted.items() if share and not masks[kind].any()]:
        needs = " and ".join(words[kind] for kind, share in wanted.items() if share)
        raise AsjaxError(
            f"draw strong_weak needs {needs}, and {source.name} has no {' and no '.join(lacks)}; "
            "a share of 0 draws none"
        )
    for kind, share in wanted.items():
        if not share and (many := int(masks[kind].sum())):
            raise AsjaxError(
                f"draw strong_weak: {source.name} has {many:,} {words[kind]}, which would never "
                f"be drawn; set {kind}, their share, or leave them out of data.train"
            )
    if not any(wanted.values()):
        raise AsjaxError("draw strong_weak: strong, weak or unlabelled must be above 0")
    return [(kind, np.flatnonzero(masks[kind])) for kind, share in wanted.items() if share]


class Shares:
    """Of every sum(shares) draws, shares[g] are of group g; a pure function of the draw number.

    The groups take turns as evenly as possible, so a part of a batch has nearly the same shares.
    Each group has its own draw, and begins again when all its clips have come. An epoch ends when a
    group has too few clips left for another sum(shares) draws.

    Args:
      draws: per group a draw of its clips. rows: per group int64 [N_g], the records of its clips.
      shares: whole numbers from 1. names: of the groups, for messages.
    """

    def __init__(self, draws, rows, shares, names, seed: int):
        for name, share in zip(names, shares, strict=True):
            if isinstance(share, bool) or not isinstance(share, int) or not 1 <= share <= 1 << 20:
                raise AsjaxError(f"draw: {name} must be a whole number from 1, got {share!r}")
        self.seed, self._draws, self._rows, self._shares = seed, draws, rows, tuple(shares)
        total = sum(shares)
        # Turn t of group g is due at (t + 1/2) / shares[g] of the period.
        due = [((t + 0.5) / share, g, t) for g, share in enumerate(shares) for t in range(share)]
        order = sorted(due)
        self._group = np.array([g for _, g, _ in order])
        self._turn = np.array([t for *_, t in order])
        periods = min(len(some) // share for some, share in zip(rows, shares, strict=True))
        if not periods:
            warn(
                f"draw: a group has fewer clips ({', '.join(str(len(some)) for some in rows)}) "
                f"than its share of {total} draws, so some come twice in it"
            )
        self.draws_per_epoch = max(1, periods) * total

    def __call__(self, n):
        """Record index (int, or int64 array like n) of the global draw number n >= 0."""
        if not isinstance(n, np.ndarray):
            return int(self(np.array([n], np.int64))[0])
        period, place = np.divmod(n.astype(np.int64), len(self._group))
        group, out = self._group[place], np.empty(n.shape, np.int64)
        for g, (drawn, rows, share) in enumerate(
            zip(self._draws, self._rows, self._shares, strict=True)
        ):
            mine = group == g
            out[mine] = rows[drawn(period[mine] * share + self._turn[place[mine]])]
        return out
