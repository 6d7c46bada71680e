"""Cells, rows and files of `asjax report atdr`."""

import csv

import numpy as np
import pytest

from asjax import pages
from asjax.papers import atdr_page, printed
from asjax.papers.atdr_runs import PROCEDURES, SUBSETS, Result

ALL = list(SUBSETS)


def result(value, half=None, parameters=(12_345_678,)):
    values = {key: value for key in ALL}
    drawn = (
        None if half is None else {k: np.linspace(value - half, value + half, 2001) for k in ALL}
    )
    classes = dict.fromkeys(ALL, 527)
    return Result(values, drawn, "key", 10, classes, ("r",), parameters)


def test_a_cell_is_in_percent_with_its_interval():
    assert atdr_page._cell(None) == "-"
    assert atdr_page._cell(result(np.nan)) == "-"
    assert atdr_page._cell(result(0.42949)) == "42.9"
    cell = atdr_page._cell(result(0.43, half=0.1))
    low, high = map(float, cell.removeprefix("43.0 [").removesuffix("]").split(", "))
    assert (low, high) == pytest.approx((33.5, 52.5), abs=0.2)  # the middle 95 %
    assert atdr_page._cell(result(-0.01), signed=True) == "-1.0"
    assert atdr_page._plus_minus(0.0123, 0.004, scale=100, signed=True) == "+1.2 ± 0.4"
    assert atdr_page._plus_minus(3.0, None) == "3.0"


def test_table_2_has_the_paper_s_row_below_ours_and_the_page_in_the_same_cells():
    model = next(iter(printed.ATDR_TABLE2))
    found = {"table2": {model: {"A1": result(0.4)}, "mine": {"A2": result(0.3, parameters=())}}}
    _, header, rows = atdr_page.table2(found)
    assert header == ["model", "", "parameters", *PROCEDURES]
    size, theirs = printed.ATDR_TABLE2[model]
    assert rows[0] == [model, "ours", "12.3 M", "40.0", "-", "-", "-"]
    assert rows[1][:3] == ["", "paper", f"{size} M"]
    assert rows[1][3:] == [f"{theirs[p]:.1f}" if p in theirs else "-" for p in PROCEDURES]
    assert rows[2] == ["mine", "ours", "-", "-", "30.0", "-", "-"]
    _, merged_header, merged = atdr_page._merged(*atdr_page.table2(found))
    assert merged_header == ["model", "parameters", *PROCEDURES]
    assert len(merged) == 2
    assert merged[0][1] == f"12.3 M\npaper {size} M"


def test_csv_rows_are_fractions_with_every_digit(tmp_path):
    model = next(iter(printed.ATDR_TABLE2))
    found = {"table2": {model: {"A1": result(0.123456789)}}}
    pages.write_csv(tmp_path / "t.csv", *atdr_page._rows2(found))
    (row,) = csv.DictReader((tmp_path / "t.csv").open())
    assert float(row["map"]) == pytest.approx(0.123456789, rel=1e-5)
    assert (row["parameters"], row["low"], row["high"]) == ("12345678", "", "")
    assert float(row["paper_map"]) == pytest.approx(printed.ATDR_TABLE2[model][1]["A1"] / 100)


def test_patches_that_the_paper_miscounts_are_marked():
    """16 x 16 patches of 128 x 1024 with stride 10: 12 x 101."""
    features = next(name for name in printed.ATDR_PATCHES if "128" in name)
    counted, shown = atdr_page._counts(features, (10, 10))
    assert counted == "12 x 101 = 1212"
    theirs = printed.ATDR_PATCHES[features][10]
    assert shown == f"{theirs}{'' if theirs == 1212 else ' *'}"
    assert atdr_page._counts(features, (10, 12))[1] == "-"


def test_points_lost_are_listed_by_model_and_as_their_mean():
    part = next(iter(printed.ATDR_ABLATIONS))
    found = {
        "table4": {"A4": {"ast": {part: result(0.02)}, "crnn": {part: result(0.05)}}},
        "lost": {"A4": {part: (0.035, 0.015, 2)}},
    }
    _, _, rows = atdr_page.table4(found)[0]
    assert [row[0] for row in rows] == ["ast", "crnn", "mean ± deviation", "paper (A4)"]
    assert [row[1] for row in rows[:3]] == ["2.0", "5.0", "3.5 ± 1.5"]
    header, listed = atdr_page._rows4(found)
    mean = dict(zip(header, listed[-1], strict=True))
    assert (mean["model"], mean["models"], mean["lost"], mean["deviation"]) == (
        "mean",
        2,
        0.035,
        0.015,
    )
    assert mean["paper_lost"] == printed.ATDR_ABLATIONS[part][1][0] / 100
