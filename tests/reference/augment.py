"""The augmentations in slow, plain float64 numpy: one clip, one stripe, one sample at a time."""

import numpy as np


def mixtures(mixed_eye, style):
    """Read (a, b, lam) of every mixture off a mixed identity target [N, B]."""
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
    """PANNs' law for one clip and one axis: boolean [total], True where a stripe lies."""
    hidden = np.zeros(total, bool)
    for _ in range(count):
        wide = generator.integers(0, width)
        start = generator.integers(0, total - wide)
        for t in range(start, start + wide):
            hidden[t] = True
    return hidden
