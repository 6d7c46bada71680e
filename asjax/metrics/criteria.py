"""Criteria for correct detections: how counts change with the threshold, for the rows of a batch.

The intersection criteria are from Bilen et al. (ICASSP 2020), the collars from Mesaros et al.
(Applied Sciences 2016). Times are compared after rounding to 6 decimals, as sed_scores_eval does,
so that rounding errors of sums do not decide a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asjax.metrics.matching import largest_matching
from asjax.metrics.piecewise import Batch, Nodes, nodes, onsets
from asjax.metrics.thresholds import Changes
from asjax.metrics.truths import DECIMALS, Truth, spread

_ROWS = 1024  # rows that are processed at once


@dataclass(frozen=True)
class Intersection:
    """A detection is correct if true events of its class cover at least the share `dtc` of it.

    A true event is detected if correct detections cover at least `gtc` of it. With `cttc`, a false
    detection is a cross trigger if the events of another class cover at least `cttc` of it.
    """

    dtc: float
    gtc: float
    cttc: float | None = None

    def changes(self, batch: Batch, truth: Truth, above=None, each=False) -> list[Changes]:
        out = [_detections(batch, above)]
        start, end = truth.of_rows(batch.clip, batch.label)
        if self.cttc is not None:  # any event of the clip matters
            start, end = np.searchsorted(truth.clip, [batch.clip, batch.clip + 1])
        rows = np.flatnonzero(end > start)
        for at in range(0, len(rows), _ROWS):
            these = rows[at : at + _ROWS]
            low = None if above is None else above[these]
            out += self._of_rows(batch.select(these), truth, low, each)
        return out

    def _of_rows(self, part: Batch, truth: Truth, above, each) -> list[Changes]:
        first, end = truth.of_rows(part.clip, part.label)
        spans = nodes(part.rows, above)
        length = part.edge(spans.end, spans.row) - part.edge(spans.first, spans.row)
        right = (end > first)[spans.row]
        some = np.flatnonzero(right)
        covered = _covered(part, truth, first, end, spans.select(some))
        right[some] = np.round(covered, DECIMALS) >= np.round(self.dtc * length[some], DECIMALS)
        good = spans.select(right)
        out = _both_ends(good, part, false=-1)
        out += self._found_events(part, truth, good, first, end)
        if self.cttc is not None:
            needed = np.round(self.cttc * length[~right], DECIMALS)
            out += _cross_triggers(part, truth, spans.select(~right), needed, each)
        return out

    def _found_events(self, part, truth, good, first, end) -> list[Changes]:
        """+1 where correct detections begin to cover enough of a true event, -1 where they stop."""
        which, number = spread((end - first)[good.row])
        event, row = first[good.row][which] + number, good.row[which]
        onset = part.edge(good.first[which], row)
        offset = part.edge(good.end[which], row)
        common = np.minimum(offset, truth.offset[event]) - np.maximum(onset, truth.onset[event])
        some = common > 0
        event, which, row, common = event[some], which[some], row[some], common[some]
        key = np.concatenate([good.high[which], good.low[which]])
        event, value = np.concatenate([event, event]), np.concatenate([common, -common])
        order = np.lexsort((~key, event))  # from the highest key down
        event, key, value = event[order], key[order], value[order]
        if not len(event):
            return []
        last = np.ones(len(event), bool)  # of the changes of one event at one key
        last[:-1] = (event[1:] != event[:-1]) | (key[1:] != key[:-1])
        new = np.ones(len(event), bool)
        new[1:] = event[1:] != event[:-1]
        total = _sums_within(value, new)[last]
        event, key = event[last], key[last]
        needed = self.gtc * (truth.offset - truth.onset)[event]
        enough = np.round(total, DECIMALS) >= np.round(needed, DECIMALS)
        before = np.r_[False, enough[:-1] & (event[1:] == event[:-1])]
        flip = enough != before
        event, key, sign = event[flip], key[flip], np.where(enough[flip], 1, -1)
        return [Changes(truth.label[event], key, truth.clip[event], true=sign)]


def _cross_triggers(part: Batch, truth: Truth, wrong: Nodes, needed, each) -> list[Changes]:
    """Changes by false detections that events of other classes cover enough.

    With `each`, there is one change per detection and other class. Otherwise the weights are
    summed.
    """
    clip, label, first, end = truth.groups
    start, stop = np.searchsorted(clip, [part.clip, part.clip + 1])
    out, total = [], np.zeros(len(wrong))
    for number in range(int((stop - start).max(initial=0))):
        group = np.minimum(start + number, len(label) - 1)
        asked = (start + number < stop) & (label[group] != part.label)
        which = np.flatnonzero(asked[wrong.row])
        some = wrong.select(which)
        covered = _covered(part, truth, first[group], end[group], some)
        due = np.flatnonzero(np.round(covered, DECIMALS) >= needed[which])
        other = label[group][some.row[due]]
        weight = 1.0 / truth.seconds[other]
        if each:
            out += _both_ends(some.select(due), part, other=other, weight=weight)
        else:
            total[which[due]] += weight
    some = np.flatnonzero(total)
    return out + _both_ends(wrong.select(some), part, weight=total[some])


@dataclass(frozen=True)
class Collar:
    """A detection is correct if its onset and offset are close to those of a true event.

    The onset may deviate by `onset_s`, the offset by the larger of `offset_s` and `offset_rate` x
    the event's length. None skips the check. Each event and each detection is in at most one pair.
    """

    onset_s: float | None
    offset_s: float | None
    offset_rate: float = 0.0

    def hits(self, onset, offset, true_onset, true_offset, decimals=DECIMALS) -> np.ndarray:
        """Whether pairs of detection and event match, bool; no rounding if `decimals` is None."""
        good = np.ones(np.shape(onset), bool)
        if self.onset_s is not None:
            good &= _within(onset, true_onset, self.onset_s, decimals)
        if self.offset_s is not None:
            collar = np.maximum(self.offset_s, self.offset_rate * (true_offset - true_onset))
            good &= _within(offset, true_offset, collar, decimals)
        return good

    def changes(self, batch: Batch, truth: Truth, above=None, each=False) -> list[Changes]:
        out = [_detections(batch, above)]
        first, end = truth.of_rows(batch.clip, batch.label)
        rows = np.flatnonzero(end > first)
        for at in range(0, len(rows), _ROWS):
            these = rows[at : at + _ROWS]
            low = None if above is None else above[these]
            out += self._of_rows(batch.select(these), truth, first[these], end[these], low)
        return out

    def _of_rows(self, part: Batch, truth: Truth, first, end, above) -> list[Changes]:
        spans = nodes(part.rows, above)
        which, number = spread((end - first)[spans.row])
        event, row = first[spans.row][which] + number, spans.row[which]
        onset = part.edge(spans.first[which], row)
        offset = part.edge(spans.end[which], row)
        hit = self.hits(onset, offset, truth.onset[event], truth.offset[event])
        which, event = which[hit], event[hit]
        simple = _without_rivals(spans, which, event)
        good = spans.select(which[simple])
        out = _both_ends(good, part, true=1, false=-1)
        return out + _contested(spans, part, which[~simple], event[~simple])


def _detections(batch: Batch, above) -> Changes:
    row, key, change = onsets(batch.rows, above)
    return Changes(batch.label[row], key, batch.clip[row], false=change)


def _both_ends(spans: Nodes, part: Batch, *, false=0, true=0, other=None, weight=0.0):
    """A change where each node appears, and the opposite change where it disappears."""
    label, clip = part.label[spans.row], part.clip[spans.row]
    out = []
    for key, sign in ((spans.high, 1), (spans.low, -1)):
        values = {"false": false, "true": true, "weight": weight}
        values = {k: sign * np.broadcast_to(v, key.shape) for k, v in values.items() if np.any(v)}
        if "weight" in values and other is not None:
            values["other"] = other
        out.append(Changes(label, key, clip, **values))
    return out


def _covered(part: Batch, truth: Truth, first, end, spans: Nodes) -> np.ndarray:
    """Seconds of each node that its events first[row] to end[row] cover, summed over the events.

    The covered time up to every edge is computed once for all rows with the same events and edges.
    The covered time of a node is the difference of two such sums.
    """
    if not len(spans):
        return np.zeros(0)
    used = np.zeros(len(first), bool)
    used[spans.row] = True
    rows = np.flatnonzero(used)
    own_edges = part.edges.ndim == 2
    place = np.zeros(len(first), np.int64)
    if own_edges:
        place[rows] = np.arange(len(rows))
    else:  # one row represents all rows with the same events
        _, chosen, place[rows] = np.unique(first[rows], return_index=True, return_inverse=True)
        rows = rows[chosen]
    which, number = spread(end[rows] - first[rows])
    event = first[rows][which] + number
    edges = part.edges.T[rows][which] if own_edges else part.edges
    length = truth.offset[event] - truth.onset[event]
    under = np.clip(edges - truth.onset[event][:, None], 0, length[:, None])
    total = np.add.reduceat(under, np.searchsorted(which, np.arange(len(rows))), axis=0)
    flat, base = total.reshape(-1), place[spans.row] * total.shape[1]
    return flat[base + spans.end] - flat[base + spans.first]


def _sums_within(value, new) -> np.ndarray:
    """Running sums that restart where `new` is True."""
    total = np.cumsum(value)
    before = np.r_[0.0, total[:-1]][new]
    return total - np.repeat(before, np.diff(np.append(np.flatnonzero(new), len(value))))


def _within(a, b, collar, decimals) -> np.ndarray:
    if decimals is None:
        return np.abs(a - b) <= collar
    return np.round(np.abs(a - b) - collar, decimals) <= 0


# ------------------------------------------------------------------------------------- matching


def _without_rivals(spans: Nodes, which, event) -> np.ndarray:
    """Whether each pair (node, event) has no rival, bool.

    A pair has no rival if the node hits no other event and no other node hits the event at the same
    threshold. One pair with a rival makes all pairs of its row contested.
    """
    row = spans.row[which]
    hits = np.bincount(which, minlength=len(spans))[which]
    order = np.lexsort((~spans.high[which], event))
    same = event[order][1:] == event[order][:-1]
    together = same & (spans.high[which][order][1:] > spans.low[which][order][:-1])
    bad = hits > 1
    bad[order[1:][together]] = True
    contested = np.zeros(int(row.max(initial=-1)) + 1, bool)
    contested[row[bad]] = True
    return ~contested[row]


def _contested(spans: Nodes, part: Batch, which, event) -> list[Changes]:
    """True positives of rows with contested pairs, by one matching per threshold."""
    row = spans.row[which]
    rows, keys, signs = [], [], []
    for r in np.unique(row):
        mine = row == r
        node, of_event = which[mine], event[mine]
        high, low = spans.high[node], spans.low[node]
        before = 0
        for key in np.unique(np.concatenate([high, low]))[::-1]:
            present = (low < key) & (key <= high)
            pairs = {}
            for n, e in zip(node[present].tolist(), of_event[present].tolist(), strict=True):
                pairs.setdefault(n, []).append(e)
            size = len(largest_matching(pairs))
            if size != before:
                rows.append(r)
                keys.append(key)
                signs.append(size - before)
            before = size
    if not rows:
        return []
    key, rows, sign = np.array(keys, spans.high.dtype), np.array(rows), np.array(signs)
    return [Changes(part.label[rows], key, part.clip[rows], true=sign, false=-sign)]
