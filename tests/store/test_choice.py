"""Rules that choose one evaluated step, against naive code."""

import math

import numpy as np
import pytest

from asjax import build
from asjax.config import AsjaxError
from asjax.store import choice

INF, NAN = math.inf, math.nan


def rule(text):
    return build.make("choice", text)


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([1, INF], 1),
        ([1, 2, INF], 2),
        ([1, INF, 2], 1),
        ([NAN, 0.2, NAN], 1),
        ([0.5, 0.5], 0),  # the earliest of equal ones
        ([-INF, NAN], 0),
        ([NAN], None),
        ([], None),
    ],
)
def test_best_takes_the_highest_value_and_infinity_is_a_value(values, best):
    assert rule("best").choose(values) == best


@pytest.mark.parametrize("n", [1, 2, 4, 6, 7, 8, 12])
def test_a_rising_curve_ships_its_end_except_by_the_papers_rule(n):
    assert rule("best").choose(range(n)) == n - 1
    assert rule("last").choose([NAN] * n) == n - 1
    width = min(7, n - 1 + n % 2)
    assert rule("smooth(window=7)").choose(range(n)) == n - 1 - width // 2


def test_rules_agree_with_naive_code_on_random_values():
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.integers(0, 6, size=rng.integers(1, 12)).tolist()
        assert rule("best").choose(values) == values.index(max(values))
        if len(values) >= 3:
            means = [sum(values[i : i + 3]) for i in range(len(values) - 2)]
            assert rule("smooth(window=3)").choose(values) == means.index(max(means)) + 1


def test_stale_counts_evaluations_since_the_best_one():
    rng = np.random.default_rng(1)
    for _ in range(300):
        values = rng.choice([0.1, 0.2, 0.3, NAN, INF], size=rng.integers(0, 9)).tolist()
        patience = int(rng.integers(0, 5))
        best, since = -INF, 0
        for i, value in enumerate(values):
            better = i == 0 or (not math.isnan(value) and value > best)
            since = 0 if better else since + 1
            best = value if better and not math.isnan(value) else best
        assert choice.stale(values, patience) == (0 < patience <= since), (values, patience)


@pytest.mark.parametrize("text", ["smooth(window=4)", "smooth(window=0)", "smooth(window=True)"])
def test_a_window_without_a_centre_is_refused(text):
    with pytest.raises(AsjaxError, match="odd whole number"):
        rule(text)


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(AsjaxError, match="'bets'.*best"):
        rule("bets")
