"""The output of `asjax report balance`: text, tables and page have the same numbers."""

import csv
import re
from types import SimpleNamespace

import numpy as np
import pytest

from asjax.labels import LabelSet
from asjax.papers import balance_page, printed

LABELS = LabelSet("three", ("/a", "/b", "/c"), ("Dog", "Cat, tame", "<Rain>"))


def point(ap, d_prime, interval=None):
    ends = {} if interval is None else {"mean_ap": interval}
    per_class = np.array([ap, ap + 0.1, np.nan])
    return {
        "mean_ap": ap, "d_prime": d_prime, "intervals": ends, "runs": 1, "per_class_ap": per_class
    }  # fmt: skip


def found():
    rows = {1.0: point(0.4, 2.5), 0.0: point(0.31234567, np.inf, (0.3, 0.32))}
    compared = {
        "change": np.array([0.08765433, 0.08765433, np.nan]), "prior": np.array([0.5, 0.01, 0.0]),
        "mean_ap": 0.08765433, "d_prime": -0.5, "intervals": {"mean_ap": (0.05, 0.12)},
        "where": "training", "line": None,
    }  # fmt: skip
    entry = {
        "title": "A & B", "clips": 20371, "classes": 3, "zero_shot": None, "rows": rows,
        "compared": compared, "label_set": LABELS,
    }  # fmt: skip
    run = SimpleNamespace(path="runs/<x>")
    chosen = {
        beta: {"runs": [run], "lr": 1e-4, "smoothed": 2.25, "steps": [12000]} for beta in (0.0, 1.0)
    }
    sampler = {0.0: (9876543.2, 0.9123456), 1.0: None}
    return {
        "sets": [entry], "betas": [0.0, 1.0], "chosen": chosen, "sampler": sampler,
        "compare": (0.0, 1.0), "notes": ["a <note>"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "ends", "signed", "text"),
    [
        (0.12345, None, False, "0.123"),
        (0.12345, (0.1, 0.2), False, "0.123 [0.100, 0.200]"),
        (0.5, (-0.1, 0.2), True, "+0.500 [-0.100, +0.200]"),
        (-0.5, None, True, "-0.500"),
        (0.5, (np.nan, 0.2), False, "0.500"),
        (np.nan, (0.1, 0.2), False, "-"),
        (np.inf, None, False, "inf"),
    ],
)
def test_a_number_with_its_interval(value, ends, signed, text):
    made = {"x": value, "intervals": {} if ends is None else {"x": ends}}
    assert balance_page._value(made, "x", signed=signed) == text


def test_text_tables_hold_ours_and_the_paper_s_in_the_order_of_beta():
    (title, header, rows), (_, _, training) = balance_page.tables(found())
    assert title == "A & B: 20,371 clips, 3 classes"
    assert [row[:4] for row in rows] == [
        ["0", "1", "0.3123 [0.3000, 0.3200]", "inf"],
        ["1", "1", "0.4000", "2.500"],
    ]
    for beta, row in zip((0.0, 1.0), rows, strict=True):
        for column, theirs in zip(header[4:], row[4:], strict=True):
            name = re.fullmatch("paper, (.*): mAP / d'", column)[1]
            ap, d_prime = printed.BALANCE_RESULTS[name][beta]
            assert theirs == f"{ap:.4f} / {d_prime:.3f}"
    assert training[0][2:7] == ["0.0001", "2.250", "12,000", "9,876,543.2", "0.9123"]
    assert training[1][5:7] == ["-", "-"]


def test_files_hold_every_digit_and_the_page_escapes_what_people_wrote(tmp_path):
    written = balance_page.write(found(), tmp_path)
    assert sorted(written) == sorted(p.name for p in tmp_path.iterdir())
    curves = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert [float(row["beta"]) for row in curves] == [0, 1]
    assert [float(row["map"]) for row in curves] == pytest.approx([0.31234567, 0.4], rel=1e-5)
    assert (curves[0]["d_prime"], curves[1]["map_low"]) == ("", "")
    assert curves[0]["clips"] == "20371"
    change = list(csv.DictReader((tmp_path / "change_per_class.csv").open()))
    assert [row["name"] for row in change] == list(LABELS.names)
    assert float(change[1]["change"]) == pytest.approx(0.08765433, rel=1e-5)
    assert change[2]["change"] == ""
    page = (tmp_path / "report.html").read_text()
    for text in ("a &lt;note&gt;", "runs/&lt;x&gt;", "A &amp; B"):
        assert text in page
    assert "<note>" not in page


def test_the_lines_on_figure_3_say_slope_and_doubt_or_why_there_is_none():
    made = found()
    assert (
        "no regression, because the priors are too similar"
        in balance_page.regression_lines(made)[0]
    )
    line = {"slope": -0.0123, "stderr": 0.004, "p": 0.00456, "n": 500}
    made["sets"][0]["compared"]["line"] = line
    text = balance_page.regression_lines(made)[0]
    assert "slope -0.0123 ± 0.0040 per decade, two-sided p = 0.00456, 500 classes" in text
    assert "mean change of AP +0.0877 [+0.0500, +0.1200], of d' -0.500" in text
    made["sets"][0]["compared"] = None
    assert "not evaluated at both beta=0 and 1" in balance_page.regression_lines(made)[0]
