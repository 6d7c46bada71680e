"""The augmentations in slow, plain float64 numpy: clip by clip, stripe by stripe."""

import numpy as np


def mixtures(mixed_eye, style):
    """(a, b, lam) of every mixture, from a mixed identity target [N, B]."""
    found = []
    for i, row in enumerate(np.asarray(mixed_eye, np.float64)):
        first = 2 * i if style == "panns" else i
        others = [j for j in np.flatnonzero(row) if j != first]
        assert len(others) <= 1
        second = others[0] if others else (first + 1 if style == "panns" else first)
        lam = row[first] if others else 1.0
        assert abs(row.sum() - 1) < 1e-6
        found.append((first, second, lam))
    return found


def mix(array, found, domain="linear", remove_mean=False):
    """Mix the rows of `array` by the (a, b, lam) of `mixtures`."""
    out = []
    for first, second, lam in found:
        a, b = array[first].astype(np.float64), array[second].astype(np.float64)
        if lam == 1:
            out.append(a)
        elif domain == "db_energy":
            out.append(10 * np.log10(lam * 10 ** (a / 10) + (1 - lam) * 10 ** (b / 10)))
        elif domain == "ln_energy":
            out.append(np.log(lam * np.exp(a) + (1 - lam) * np.exp(b)))
        elif remove_mean:
            x = lam * (a - a.mean()) + (1 - lam) * (b - b.mean())
            out.append(x - x.mean())
        else:
            out.append(lam * a + (1 - lam) * b)
    return np.stack(out)


def stripes(generator, total, width, count):
    """PANNs' masks for one clip and one axis: boolean [total], True inside a stripe."""
    hidden = np.zeros(total, bool)
    for _ in range(count):
        wide = generator.integers(0, width)
        start = generator.integers(0, total - wide)
        for t in range(start, start + wide):
            hidden[t] = True
    return hidden


def stripe_chances(total, width, law):
    """Probabilities [width, total] of a stripe's (width, start), by a grid; start 0 at width 0.

    "panns": start U{0..total-w-1}. "torchaudio": with v = width U[0, 1), w = floor(v) and start =
    floor(U[0, 1) (total - v)), the length of [start, start + 1) inside [0, total - v).
    """
    chances = np.zeros((width, total))
    steps = 500
    for v in (np.arange(width * steps) + 0.5) / steps:
        wide = int(v)
        room = total - wide if law == "panns" else total - v
        for start in range(total):
            share = min(max(room - start, 0.0), 1.0) / room
            chances[wide, start if wide else 0] += share / (width * steps)
    return chances


def stretch_of(row, length, low, high):
    """(factor, start) with which nearest-neighbour stretching of 1..length gives `row`, or None.

    Factors on a fine grid are tried. A negative start is the number of leading zeros, a positive
    one the number of samples cut off.
    """
    row = np.asarray(row, np.int64)
    there = np.flatnonzero(row)
    first, last = there[0], there[-1]
    assert (row[first : last + 1] > 0).all()
    for factor in np.linspace(low, high, 1 if low == high else 1001):
        drawn = int(np.ceil(length * factor))
        if drawn <= length and last - first + 1 != drawn:
            continue
        whole = np.minimum(np.rint(np.arange(drawn) / factor), length - 1) + 1
        begins = [0] if drawn <= length else np.flatnonzero(np.abs(whole - row[0]) <= 1)
        for start in begins:
            part = whole[start : start + last - first + 1]
            if len(part) == last - first + 1 and np.abs(part - row[first : last + 1]).max() <= 1:
                return factor, -first if drawn <= length else start
    return None
