"""The report: self-contained, escaped, with correct pictures."""

import base64
import re
import struct
import time
from html.parser import HTMLParser

import numpy as np

from asjax import hlp, labels
from asjax.evaluation import evaluate
from asjax.evaluation import page as report
from asjax.evaluation import plots as report_plots

HISTORY = [
    {"step": 10, "loss": 0.5, "lr": 1e-3},
    {"step": 20, "loss": float("nan"), "lr": 5e-4},
    {"step": 20, "eval/mean_ap": 0.4, "eval/mean_auc": 0.7, "eval/d_prime": 0.74},
    {"step": 30, "loss": 0.1, "lr": 1e-4, "note": "x"},
    {"loss": 3.0},
]


class Page(HTMLParser):
    """Checks that tags are balanced; collects tags, links and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def render(label_set, scores, targets, *, closure=None, mappings=None, record=None, **about):
    found = evaluate.views(scores, targets, label_set, closure, mappings)
    results = evaluate.summarise(found, n_bootstrap=5)
    summary = {
        "label_set": {"name": label_set.name, "hash": label_set.hash, "classes": len(label_set)},
        "left_out_clips": [["<b>.wav", "cut & short"]],
        "bootstrap": {"n": 5, "level": 0.95, "seed": 0},
        "record": record or {},
        "views": results,
    }
    return report.render(summary=summary, results=results, found=found, closure=closure, **about)


def own(names, n=30, seed=0):
    label_set = labels.LabelSet("mine", tuple(f"i{k}" for k in range(len(names))), tuple(names))
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, len(names))) < np.linspace(0.1, 0.5, len(names))).astype(np.uint8)
    return label_set, rng.normal(-3, 1, targets.shape) + 2 * targets, targets


def images(html):
    return [base64.b64decode(x) for x in re.findall(r"data:image/png;base64,([^\"]+)", html)]


def test_names_and_reasons_are_escaped_and_nothing_is_loaded_from_elsewhere():
    names = ["<script>alert(1)</script>", '$x$ \\frac & "q"', "犬の声", "long " * 30, "e"]
    html = render(*own(names), record={"hlp": False, "note": "<img src=x>"}, history=HISTORY)
    page = Page(html)
    assert "script" not in page.tags
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "url(" not in html
    assert "@import" not in html
    text = "".join(page.text)
    assert "<script>alert(1)</script>" in text
    assert "<b>.wav: cut & short" in text
    assert "<img src=x>" in text
    assert "Trained without HLP" in text


def test_an_audioset_report_has_every_section_and_is_quick():
    label_set = labels.get("audioset527")
    closure = hlp.closure(label_set)
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 527)) < np.geomspace(0.005, 0.2, 527)).astype(np.uint8)
    scores = rng.normal(-4, 1, targets.shape) + 3 * targets
    start = time.perf_counter()
    html = render(
        label_set,
        scores,
        targets,
        closure=closure,
        mappings=["esc10"],
        history=HISTORY,
        record={"step": 20, "train_data": {"clips": 1000}},
        train_counts=targets.sum(axis=0),
    )
    assert time.perf_counter() - start < 60  # 3 s on a quiet core
    titles = re.findall("<h2>([^<]*)</h2>", html)
    assert titles == [
        "Results",
        "What was evaluated",
        "Average precision: 10 classes of esc10",
        "Average precision by class",
        "Average precision against class prior",
        "Training",
        "Parent and child classes",
        "Every class",
    ]
    assert "share of training clips" in html
    assert len(images(html)) == 5
    for image in images(html):
        width, height = struct.unpack(">II", image[16:24])
        assert 900 < width < 1300
        assert 300 < height < 2600
    Page(html)
    assert len(html) < 3e6


def test_without_history_ontology_or_positives_the_sections_are_absent_not_empty():
    label_set, scores, targets = own(["a", "b", "c"])
    html = render(label_set, scores, targets)
    assert "<h2>Training" not in html
    assert "<h2>Parent" not in html
    assert len(images(html)) == 2
    empty = render(label_set, scores, targets * 0, history=[{"step": 1}])
    assert images(empty) == []
    assert "No class has a positive clip" in empty
    assert "3 classes without a positive clip are left out" in empty
    one = render(*own(["only"]))
    assert "about the same share" in one
    Page(empty)


def test_direct_parents_are_the_380_edges_of_audioset():
    closure = hlp.closure("audioset527")
    pairs = report.direct_parents(closure)
    assert len(pairs) == 380  # specs: single-parent edges that generate the 731 pairs
    rebuilt = np.eye(527, dtype=bool)
    rebuilt[tuple(pairs.T)] = True
    for _ in range(5):
        rebuilt = rebuilt @ rebuilt
    np.testing.assert_array_equal(rebuilt, closure)


def test_parent_child_rows_count_what_they_say():
    closure = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1]], bool)  # a -> b -> c
    scores = np.array([[2.0, 1.0, 5.0], [0.0, 3.0, 1.0], [-np.inf, -np.inf, 0.0]])
    targets = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1]])
    first, second = report.parent_child_rows(scores, targets, closure, "abc")
    assert first == {"child": "a", "parent": "b", "clips": 3, "above": 1 / 3, "gap": -1.0}
    assert (second["child"], second["parent"], second["above"]) == ("b", "c", 1 / 3)
    assert second["gap"] == -1.0  # (1 - 5 + 3 - 1) / 2, without the undefined difference
    assert report.parent_child_rows(scores, targets * 0, closure, "abc") == []
    raised = hlp.propagate_scores(scores, closure)
    assert all(r["above"] == 0 for r in report.parent_child_rows(raised, targets, closure, "abc"))


def test_curves_keep_finite_points_in_order_and_need_at_least_one():
    steps, loss = report_plots._series([*HISTORY[::-1]], "loss")
    assert (steps.tolist(), loss.tolist()) == ([10.0, 30.0], [0.5, 0.1])
    assert report_plots.training_curves([{"step": 1}, {"step": 2, "loss": None}]) is None
    assert report_plots.training_curves(HISTORY, 20)[:8] == b"\x89PNG\r\n\x1a\n"


def test_numbers_that_are_undefined_or_infinite_have_a_sign_of_their_own():
    assert [report.number(x) for x in (None, np.nan, np.inf, 0.12345)] == ["–", "–", "∞", "0.123"]
