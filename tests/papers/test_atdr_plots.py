"""The pictures of AudioTagging Done Right show our results, and the paper's if comparable."""

import numpy as np
import pytest
from drawn import bars, capture, points

from asjax.papers import atdr_plots, printed
from asjax.papers.atdr_runs import SUBSETS, Result

OFFSET = {key: 0 if key == "all" else i + 1 for i, key in enumerate(SUBSETS)}


def result(value, classes=527, half=None):
    values = {key: value + 0.01 * more for key, more in OFFSET.items()}
    drawn = None
    if half is not None:
        drawn = {key: np.linspace(v - half, v + half, 1001) for key, v in values.items()}
    return Result(values, drawn, "key", 10, dict.fromkeys(SUBSETS, classes), runs=("r",))


def test_table_2_has_a_panel_per_procedure_with_ours_and_theirs(monkeypatch):
    figures = capture(monkeypatch, atdr_plots)
    model = next(iter(printed.ATDR_TABLE2))
    table = {model: {"A1": result(0.4, half=0.02), "A3": result(0.3, classes=9)}, "mine": {}}
    atdr_plots.procedures({"table2": table}, "unused")
    panels = [axes for axes in figures[0].axes if axes.get_visible()]
    assert len(panels) == 2
    assert points(panels[0]) == [(pytest.approx(40), 0)]
    assert points(panels[1]) == [(pytest.approx(30), 0)]
    ((low, high),) = bars(panels[0])
    assert 37.9 < low[0] < 38.3 < 41.7 < high[0] < 42.1
    theirs = printed.ATDR_TABLE2[model][1]["A1"]
    assert points(panels[0], filled=False) == [(pytest.approx(theirs), 0)]
    assert points(panels[1], filled=False) == []  # other classes, so not comparable
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [model, "mine"]


def test_strides_stand_at_their_size(monkeypatch):
    figures = capture(monkeypatch, atdr_plots)
    features = next(iter(printed.ATDR_PATCHES))
    row = {(10, 10): result(0.45), (16, 16): result(0.4), (10, 14): result(0.41)}
    atdr_plots.strides({"table3": {features: {"A1": row}}}, "unused")
    (axes,) = figures[0].axes
    assert {(10.0, 45.0), (16.0, 40.0), (12.0, 41.0)} <= {(x, round(y, 6)) for x, y in points(axes)}
    theirs = sorted((float(s), v) for s, v in printed.ATDR_STRIDES.get("A1", {}).items())
    assert points(axes, filled=False) == [pytest.approx(p) for p in theirs]


def test_points_lost_are_the_models_and_their_mean(monkeypatch):
    figures = capture(monkeypatch, atdr_plots)
    part, (_, paper) = next(iter(printed.ATDR_ABLATIONS.items()))
    models = {"ast": {part: result(0.02)}, "crnn": {part: result(0.05)}}
    lost = {"A4": {part: (0.035, 0.015, 2)}}
    atdr_plots.ablations({"table4": {"A4": models}, "lost": lost}, "unused")
    (axes,) = figures[0].axes
    assert [x for x, _ in points(axes)] == pytest.approx([2, 3.5, 5])
    assert points(axes, filled=False) == [(pytest.approx(paper[0]), pytest.approx(-0.22))]
    spans = sorted(tuple(x for x, _ in bar) for bar in bars(axes))
    wanted = sorted([(2.0, 5.0), (paper[0] - paper[1], paper[0] + paper[1])])
    np.testing.assert_allclose(spans, wanted)


def test_quality_has_a_panel_per_subset_with_that_subset_s_value(monkeypatch):
    figures = capture(monkeypatch, atdr_plots)
    table = {"ast": {"A1": result(0.4), "A4": result(0.3)}}
    won = dict.fromkeys(SUBSETS, (0.1, None, 1))
    atdr_plots.quality({"figure2": table, "large_wins": {}, "won": won}, "unused")
    for axes, more in zip(figures[0].axes, OFFSET.values(), strict=True):
        assert [x for x, _ in points(axes)] == pytest.approx([30 + more, 40 + more])
