"""The pictures of the HLP and balancing papers show our numbers and the papers'."""

from types import SimpleNamespace

import numpy as np
import pytest
from drawn import bars, capture, points
from scipy.stats import linregress, t

from asjax.papers import plots, printed

CLASSES = 527


def result(value, interval=None, classes=CLASSES):
    return SimpleNamespace(value=value, interval=interval, classes=classes)


def test_table_iii_has_our_points_with_intervals_and_the_paper_s_where_they_compare(monkeypatch):
    figures = capture(monkeypatch, plots)
    column = next(iter(printed.HLP_COLUMNS))
    model = next(iter(printed.HLP_TABLE3))
    rows = {
        (model, False): {column: result(0.25, (0.2, 0.32))},
        (model, True): {column: result(0.27, classes=12)},
        ("mine", True): {column: result(0.3)},
    }
    plots.hlp_table({"rows": rows}, "unused")
    axes = figures[0].axes[0]
    np.testing.assert_allclose([x for x, _ in points(axes)], [25, 27, 30])
    assert bars(axes) == [[(pytest.approx(20), pytest.approx(-0.17)), (pytest.approx(32), -0.17)]]
    # 12 classes are not comparable, and the paper has no model with the name "mine"
    paper = printed.hlp_value(model, False, column)
    assert points(axes, filled=False) == [(pytest.approx(paper), pytest.approx(-0.17))]
    assert [label.get_text() for label in axes.get_yticklabels()] == [model, "mine"]


def entry(zero_shot=None):
    rows = {
        beta: {
            "mean_ap": 0.3 + beta / 10, "d_prime": 2 + beta,
            "intervals": {"mean_ap": (0.29, 0.5)} if beta else {},
        }
        for beta in (0.0, 0.5, 1.0)
    }  # fmt: skip
    return {"rows": rows, "classes": CLASSES, "zero_shot": zero_shot, "title": "A", "clips": 1234}


def test_curves_over_beta_are_the_means_and_the_paper_s_stay_away_from_other_classes(monkeypatch):
    figures = capture(monkeypatch, plots)
    paper = printed.BALANCE_RESULTS
    sets = [entry(), entry(zero_shot={"shared": 3})]
    plots.beta_curves({"sets": sets}, paper, "unused")
    first, second = figures[0].axes[0], figures[0].axes[2]
    for axes in (first, second):
        assert {(0.0, 0.3), (0.5, 0.35), (1.0, 0.4)} <= set(points(axes))
        assert "1,234 clips" in axes.get_title(loc="left") + axes.get_title()
    theirs = sorted((b, v[0]) for rows in paper.values() for b, v in rows.items())
    assert points(first, filled=False) == [pytest.approx(p) for p in theirs]
    assert points(second, filled=False) == []
    ends = [tuple(y for _, y in bar) for bar in bars(first)]
    assert ends == [(pytest.approx(0.29), pytest.approx(0.5))] * 2


@pytest.mark.parametrize("count", [12, 60])
def test_the_line_and_its_band_are_those_of_least_squares(count, monkeypatch):
    """The ends of the band against the textbook formula, the line against scipy."""
    figures = capture(monkeypatch, plots)
    rng = np.random.default_rng(0)
    prior = 10 ** rng.uniform(-4, -1, count)
    change = -0.02 * np.log10(prior) + rng.normal(size=count) * 0.05
    prior[0], change[1] = 0.0, np.nan  # neither can be drawn
    x, y = np.log10(prior[2:]), change[2:]
    fit = linregress(x, y)
    line = {"slope": fit.slope, "intercept": fit.intercept, "p": fit.pvalue}
    made = {"change": change, "prior": prior, "line": line, "mean_ap": 0.1, "where": "training"}
    plots.change_on_prior((0.0, 1.0), [{"compared": made, "title": "A"}], "unused")
    (axes,) = figures[0].axes
    drawn = points(axes)
    assert len(drawn) == count - 2
    np.testing.assert_allclose([p for p, _ in drawn], np.sort(prior[2:]))
    at = np.array([x.min(), x.max()])
    straight = next(li for li in axes.lines if len(li.get_xdata()) == 100)
    np.testing.assert_allclose(straight.get_ydata()[[0, -1]], fit.intercept + fit.slope * at)
    n = len(x)
    error = np.sqrt(((y - fit.intercept - fit.slope * x) ** 2).sum() / (n - 2))
    spread = np.sqrt(1 / n + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    half = t.ppf(0.975, n - 2) * error * spread
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(
        [band.min() <= fit.intercept + fit.slope * at[0] - half[0], band.max()],
        [True, (fit.intercept + fit.slope * at + half).max()],
    )
    rings = points(axes, filled=False)
    assert len(rings) == (10 if n >= 30 else 0)
    if rings:
        parts = np.array_split(y[np.argsort(x)], 10)
        np.testing.assert_allclose([v for _, v in rings], [part.mean() for part in parts])


def test_bars_are_lengths_and_absent_for_what_is_not_a_number():
    np.testing.assert_allclose(plots._bars(0.5, (0.4, 0.7)), [[0.1], [0.2]])
    np.testing.assert_allclose(plots._bars(0.5, (0.6, 0.7)), [[0], [0.2]])  # never below zero
    for value, interval in ((0.5, None), (np.nan, (0, 1)), (0.5, (np.nan, 1)), (0.5, (0, np.inf))):
        assert plots._bars(value, interval) is None
