"""PSDS and intersection counts by definition: each threshold of each class separately."""

import numpy as np


def detections(row, edges, threshold):
    """Maximal stretches with scores >= threshold as (onset, offset)."""
    step = np.diff(np.r_[0, (row >= threshold).astype(int), 0])
    pairs = zip(np.flatnonzero(step == 1), np.flatnonzero(step == -1), strict=True)
    return [(edges[a], edges[b]) for a, b in pairs]


def common(a, b):
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


def at_least(x, y):
    return round(x, 6) >= round(y, 6)


def counts(rows, truths, others, edges, threshold, dtc, gtc, cttc, truth_s):
    """(true, false, weight) of one class over clips; others: per clip {class: events}."""
    true, false, weight = 0, 0, 0.0
    for row, truth, other, edge in zip(rows, truths, others, edges, strict=True):
        spans = detections(row, edge, threshold)
        good = [d for d in spans if at_least(sum(common(d, t) for t in truth), dtc * (d[1] - d[0]))]
        if not truth:
            good = []
        true += sum(at_least(sum(common(d, t) for d in good), gtc * (t[1] - t[0])) for t in truth)
        false += len(spans) - len(good)
        if cttc is None:
            continue
        for d in spans:
            if d in good:
                continue
            for label, events in other.items():
                if at_least(sum(common(d, t) for t in events), cttc * (d[1] - d[0])):
                    weight += 1.0 / truth_s[label]
    return true, false, weight


def staircase(points, max_x):
    """{x: best y at or before x} of points up to max_x, as two sorted lists."""
    best, xs, ys = -1.0, [], []
    for x, y in sorted(points):
        if x > max_x:
            break
        best = max(best, y)
        if xs and xs[-1] == x:
            ys[-1] = best
        else:
            xs.append(x)
            ys.append(best)
    return xs, ys


def height(xs, ys, x):
    place = np.searchsorted(xs, x, side="right") - 1
    return ys[place] if place >= 0 else 0.0


def area(xs, ys, max_x):
    return sum(y * (b - a) for a, b, y in zip(xs, [*xs[1:], max_x], ys, strict=True)) / max_x


def psds(
    scores,
    events,
    durations,
    *,
    rate,
    dtc=0.7,
    gtc=0.7,
    cttc=None,
    alpha_ct=0.0,
    alpha_st=1.0,
    max_efpr=100.0,
):
    """(psds, macro, per class) of scores [T_i, C] per clip and events (onset, offset, class)."""
    classes = scores[0].shape[1]
    edges = [np.arange(len(s) + 1) / rate for s in scores]
    truth = [[[e[:2] for e in clip if e[2] == c] for clip in events] for c in range(classes)]
    number = [sum(map(len, t)) for t in truth]
    truth_s = [sum(b - a for clip in t for a, b in clip) for t in truth]
    counted = [c for c in range(classes) if number[c]]
    curves = {}
    for c in counted:
        rows = [s[:, c] for s in scores]
        others = [
            {k: truth[k][i] for k in counted if k != c and truth[k][i]} for i in range(len(rows))
        ]
        points = [(0.0, 0.0)]
        for t in np.unique(np.concatenate(rows)):
            true, false, weight = counts(rows, truth[c], others, edges, t, dtc, gtc, cttc, truth_s)
            rate_ = false / sum(durations) + alpha_ct * weight / max(1, len(counted) - 1)
            points.append((rate_ * 3600, true / number[c]))
        curves[c] = staircase(points, max_efpr)
    grid = sorted({x for xs, _ in curves.values() for x in xs})
    table = np.array([[height(*curves[c], x) for x in grid] for c in counted])
    low = np.maximum(table.mean(axis=0) - alpha_st * table.std(axis=0), 0)
    per_class = np.full(classes, np.nan)
    for c in counted:
        per_class[c] = area(*curves[c], max_efpr)
    return area(grid, low.tolist(), max_efpr), float(np.nanmean(per_class)), per_class
