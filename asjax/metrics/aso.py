"""Almost stochastic order: are the scores of one model over seeds better than those of another?

del Barrio et al. 2018 and Dror et al. 2019 ("Deep Dominance"). The numbers equal those of the
package deepsig 1.2.8, which the paper on pre-training for sound event detection uses.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from asjax.config import AsjaxError

THRESHOLD = 0.2  # of eps_min, in the paper: below it, a is better than b
CORRECTIONS = ("bonferroni", "deepsig")


def aso(
    a,
    b,
    *,
    level: float = 0.95,
    comparisons: int = 1,
    correction: str = "bonferroni",
    n: int = 1000,
    seed: int = 0,
    dt: float = 0.005,
) -> float:
    """eps_min: an upper bound of `violation_ratio(a, b)`. Below 0.5, a is better; 0: in every part.

    Args:
      a, b: scores of two models, one per seed, larger is better. At least two of each.
      level: confidence of the bound. comparisons: how many of them are made together.
      correction: the level for k comparisons. "bonferroni": 1 - (1 - level) / k, which is 0.99 for
        5. "deepsig": level + (1 - level) / k, which is 0.96 for 5; the package calls it Bonferroni,
        and the paper's decisions are made with it. One comparison keeps the level in both.
      n, seed: bootstrap resamples. dt: step of the integral over quantiles.

    Returns: a number in [0, 1].

    Raises:
      AsjaxError: fewer than two scores, a score that is not finite, or an option out of its range.
    """
    a, b = _checked("a", a), _checked("b", b)
    confidence = corrected(level, comparisons, correction)
    for name, value in (("n", n), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int) or value < (name == "n"):
            least = "above 0" if name == "n" else "of at least 0"
            raise AsjaxError(f"aso: {name} must be a whole number {least}, got {value!r}")
    ratio = _ratios(a[None], b[None], dt)[0]
    places = ([], [])
    for i in range(n):
        rng = np.random.RandomState((seed + 1 + i) % 2**32)  # one stream per resample, as there
        places[0].append(rng.uniform(0, 1, len(a)))
        places[1].append(rng.uniform(0, 1, len(b)))
    drawn = _ratios(*(_quantiles(x, np.array(p)) for x, p in zip((a, b), places, strict=True)), dt)
    bound = ratio - np.std(drawn - ratio) * NormalDist().inv_cdf(1 - confidence)
    return float(np.clip(bound, 0, 1))


def violation_ratio(a, b, *, dt: float = 0.005) -> float:
    """The share of the squared distance of the quantiles where b is better than a: 0 to 1.

    Args: as `aso`. Two equal sets of scores have 0.5.

    Raises:
      AsjaxError: as `aso`.
    """
    return float(_ratios(_checked("a", a)[None], _checked("b", b)[None], dt)[0])


def corrected(level: float, comparisons: int, correction: str) -> float:
    """The confidence of each of `comparisons` decisions; see `aso`. AsjaxError: out of range."""
    if not isinstance(level, float) or not 0.5 <= level < 1:
        raise AsjaxError(f"aso: level must be at least 0.5 and below 1, got {level!r}")
    if isinstance(comparisons, bool) or not isinstance(comparisons, int) or comparisons < 1:
        raise AsjaxError(f"aso: comparisons must be a whole number above 0, got {comparisons!r}")
    if correction not in CORRECTIONS:
        raise AsjaxError(
            f"aso: correction must be one of {', '.join(CORRECTIONS)}, got {correction!r}"
        )
    if comparisons == 1:
        return level
    rest = (1 - level) / comparisons
    return level + rest if correction == "deepsig" else 1 - rest


def _checked(name: str, values) -> np.ndarray:
    try:
        out = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        out = np.empty(0)
    if out.ndim != 1 or len(out) < 2 or not np.isfinite(out).all():
        raise AsjaxError(
            f"aso: {name} must be two or more finite scores of one model over seeds, got {values!r}"
        )
    return out


def _quantiles(x, p) -> np.ndarray:
    """Quantiles p of the rows of x [..., n], without interpolation: the ceil(n p)-th smallest."""
    n = x.shape[-1]
    place = np.clip(np.ceil(n * p).astype(int), 1, n) - 1
    return np.sort(x, axis=-1)[..., place]


def _ratios(a, b, dt) -> np.ndarray:
    """Violation ratios of rows of scores, a [R, n] and b [R, m]."""
    if not isinstance(dt, float) or not 0 < dt <= 0.1:
        raise AsjaxError(f"aso: dt must be above 0 and at most 0.1, got {dt!r}")
    p = np.arange(dt, 1, dt)
    difference = _quantiles(b, p) - _quantiles(a, p)
    square = difference**2
    worse = np.where(difference > 0, square, 0)[:, 1:].sum(axis=1)  # deepsig leaves the first out
    total = square.sum(axis=1)
    return np.where(total > 0, worse / np.where(total > 0, total, 1), 0.5)
