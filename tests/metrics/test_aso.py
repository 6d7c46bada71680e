"""Almost stochastic order against deepsig 1.2.8 (tests/golden/sed_aso.json) and exact integrals."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm

from asjax import metrics
from asjax.config import AsjaxError
from asjax.metrics.aso import CORRECTIONS, corrected


@pytest.fixture(scope="module")
def cases(golden):
    return golden("sed_aso")[0]["cases"]


def test_numbers_equal_those_of_deepsig(cases):
    assert len(cases) == 8
    for case in cases:
        a, b = case["a"], case["b"]
        ratio = metrics.violation_ratio(a, b)
        assert ratio == pytest.approx(case["violation_ratio_dt0p005"], abs=1e-12)
        for comparisons, wanted in case["eps_min_seeds_1_2_3"].items():
            for seed, eps in zip((1, 2, 3), wanted, strict=True):
                options = dict(comparisons=int(comparisons), correction="deepsig", n=500, seed=seed)
                assert metrics.aso(a, b, **options) == pytest.approx(eps, abs=1e-12)


def test_the_two_corrections(cases):
    assert corrected(0.95, 5, "deepsig") == pytest.approx(0.96)
    assert corrected(0.95, 5, "bonferroni") == pytest.approx(0.99)
    for correction in CORRECTIONS:
        assert corrected(0.95, 1, correction) == 0.95
    case = cases[1]  # the bound is ratio + sigma z, so its z alone depends on the correction
    eps = [metrics.aso(case["a"], case["b"], comparisons=1, n=500)]
    eps += [metrics.aso(case["a"], case["b"], comparisons=5, correction=c, n=500)
            for c in ("deepsig", "bonferroni")]  # fmt: skip
    z = norm.ppf([0.95, 0.96, 0.99])
    assert case["violation_ratio_dt0p005"] == 0
    np.testing.assert_allclose(eps / z, np.full(3, eps[0] / z[0]), rtol=1e-9)


def exact_ratio(a, b):
    """Integral of the squared differences of the quantile functions, which are steps."""
    a, b = sorted(map(Fraction, a)), sorted(map(Fraction, b))
    edges = sorted({Fraction(i, len(x)) for x in (a, b) for i in range(len(x) + 1)})
    worse = every = Fraction(0)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        middle = (low + high) / 2
        difference = b[int(middle * len(b))] - a[int(middle * len(a))]
        every += difference**2 * (high - low)
        worse += difference**2 * (high - low) if difference > 0 else 0
    return float(worse / every) if every else 0.5


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (3, 4), (5, 2), (7, 4)])
def test_ratio_equals_the_exact_integral(sizes):
    rng = np.random.default_rng(sum(sizes))
    for _ in range(10):
        a, b = (np.round(rng.normal(size=n), 2) for n in sizes)
        exact = exact_ratio(a, b)
        assert metrics.violation_ratio(a, b, dt=1e-5) == pytest.approx(exact, abs=3e-3)
        both = metrics.violation_ratio(a, b, dt=1e-5) + metrics.violation_ratio(b, a, dt=1e-5)
        assert both == pytest.approx(1, abs=1e-3)


def test_equal_scores_are_undecided_and_order_of_seeds_does_not_count():
    assert metrics.violation_ratio([1, 2, 3], [3, 2, 1]) == 0.5
    assert metrics.aso([1, 1, 1], [1, 1, 1]) == 0.5
    assert metrics.aso([2, 2], [1, 1]) == 0
    assert metrics.aso([1, 1], [2, 2]) == pytest.approx(1, abs=0.02)
    a, b = [46.5, 46.4, 46.7], [46.3, 46.6, 46.2]
    assert metrics.aso(a, b, n=200) == metrics.aso(a[::-1], b, n=200)
    assert metrics.aso(a, b, n=200) != metrics.aso(a, b, n=200, seed=9)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (dict(a=[1.0]), "two or more finite scores"),
        (dict(a=[1.0, float("nan")]), "two or more finite scores"),
        (dict(b=[[1.0, 2.0]]), "aso: b must be"),
        (dict(b="ab"), "aso: b must be"),
        (dict(level=95), "level must be at least 0.5 and below 1, got 95"),
        (dict(level=1.0), "level must be"),
        (dict(comparisons=0), "comparisons must be a whole number above 0, got 0"),
        (dict(comparisons=True), "comparisons must be"),
        (dict(correction="holm"), "one of bonferroni, deepsig, got 'holm'"),
        (dict(n=0), "n must be a whole number above 0, got 0"),
        (dict(seed=-1), "seed must be a whole number of at least 0, got -1"),
        (dict(dt=0.0), "dt must be above 0"),
    ],
)
def test_wrong_input_is_one_line(changed, says):
    with pytest.raises(AsjaxError, match=says) as error:
        metrics.aso(**{"a": [1.0, 2.0], "b": [1.0, 3.0], **changed})
    assert "\n" not in str(error.value)
