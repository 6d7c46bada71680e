"""The report: self-contained, escaped, with correct pictures."""

import base64
import re
import time
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from asjax import hlp, labels
from asjax.evaluation import class_page, clip_page, decision_plots, evaluate, hierarchy
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
    about.setdefault("clips", [f"clip {i}.wav" for i in range(len(scores))])
    return report.render(summary=summary, results=results, found=found, closure=closure, **about)


def own(names, n=30, seed=0):
    label_set = labels.LabelSet("mine", tuple(f"i{k}" for k in range(len(names))), tuple(names))
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, len(names))) < np.linspace(0.1, 0.5, len(names))).astype(np.uint8)
    return label_set, rng.normal(-3, 1, targets.shape) + 2 * targets, targets


def images(html):
    """The pictures of a page, parsed."""
    found = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)
    return [ElementTree.fromstring(base64.b64decode(x)) for x in found]


def titles(html):
    return re.findall("<h2>([^<]*)</h2>", html)


HOSTILE = [
    "<script>alert(1)</script>", '$x$ \\frac & "q"', "犬の声", "long " * 30, "]]>--><",
    "'><img src=x onerror=alert(1)>",
]  # fmt: skip


def test_names_and_reasons_are_escaped_and_nothing_is_loaded_from_elsewhere():
    label_set, scores, targets = own(HOSTILE)
    scores[:5] *= -1
    html = render(
        label_set,
        scores,
        targets,
        record={
            "note": "<img src=x>", "run": "<script>run</script>", "model": "<b>",
            "baseline": {"text": "<i>", "accuracy": 0.5}, "eval_data": {"name": "<u>"},
            "chosen": {"step": 3, "rule": "<script>", "metric": "<em>", "value": 0.5},
        },
        history=HISTORY,
        clips=[f"<script>{name}\x1b[2J\n\0 \ud800</script>" for name in (HOSTILE * 5)[:30]],
        listen=lambda clip: (b"sound", 'audio/mpeg"><script>'),
    )  # fmt: skip
    page = Page(html)
    assert not {"script", "i", "u", "em"} & set(page.tags)
    assert page.tags.count("img") == len(images(html)) > 3
    assert all(re.match("data:(image/svg|audio/mpeg)", link) for link in page.links)
    assert "url(" not in html
    assert "@import" not in html
    text = "".join(page.text)
    assert "<script>alert(1)</script>" in text
    assert "<b>.wav: cut & short" in text
    assert "<img src=x>" in text
    for image in images(html):
        names = {element.tag.rpartition("}")[2] for element in image.iter()}
        assert not names & {"script", "img", "foreignObject", "a"}
        links = [v for e in image.iter() for k, v in e.attrib.items() if k.endswith("href")]
        assert all(link.startswith(("#", "data:image/png")) for link in links)
    assert "\x1b" not in html


def test_the_run_is_the_title_and_the_main_numbers_come_first_with_intervals():
    label_set, scores, targets = own(["a", "b", "c"], n=60)
    record = {
        "run": "my-run", "model": {"name": "cnn", "variant": "mini"}, "config_hash": "f" * 64,
        "train_data": {"name": "farm", "clips": 9}, "eval_data": {"name": "farm2", "clips": 60},
    }  # fmt: skip
    html = render(label_set, scores, targets, record=record)
    text = re.sub("<style>.*?</style>", "", html, flags=re.S)
    assert "<title>my-run: asjax evaluation</title>" in html
    assert "<h1>my-run</h1>" in html
    assert "cnn mini trained on farm, evaluated on 60 clips of farm2 with 3 classes" in html
    assert text.index("mean AP") < text.index("<img") < text.index("f" * 64)
    value = evaluate.summarise(evaluate.views(scores, targets, label_set), 5)["labels"]
    low, high = value["ci"]["mean_ap"]
    tile = f"<dd>{value['mean_ap']:.3f}<small>{low:.3f} to {high:.3f}</small></dd>"
    assert tile in html


def test_a_run_without_hlp_has_no_word_about_it_though_its_classes_have_an_ontology():
    label_set = labels.get("audioset527")
    rng = np.random.default_rng(0)
    targets = (rng.random((60, 527)) < 0.05).astype(np.uint8)
    scores = rng.normal(-4, 1, targets.shape) + 3 * targets
    about = {"closure": hlp.closure(label_set), "record": {"hlp": False}, "history": HISTORY}
    html = render(label_set, scores, targets, mappings=["esc10"], **about)
    assert "Parent and child classes" not in titles(html)
    assert "hlp" not in re.sub('<style>.*?</style>|base64,[^"]+', "", html, flags=re.S).lower()


def test_the_page_says_when_the_wanted_step_is_gone_and_the_baseline_once():
    chosen = {"step": 135, "wanted_step": 112, "rule": "best", "metric": "accuracy", "value": 0.5}
    text = "a linear model on log-mel statistics reaches 0.688 accuracy"
    baseline = {"name": "log-mel statistics", "accuracy": 0.688, "text": text}
    html = render(*own(["a", "b"]), record={"chosen": chosen, "baseline": baseline})
    assert "of step 135, because step 112, which the rule best chose by accuracy, was not" in html
    assert "has the best" not in html
    assert f"For comparison: {text}." in html


def test_without_an_ontology_nothing_is_said_about_hlp():
    html = render(*own(["a", "b", "c"]), record={"hlp": False}, history=HISTORY)
    assert "HLP" not in html
    assert "hlp" not in html


def test_values_of_another_worker_are_shown_if_they_are_there():
    label_set, scores, _ = own(["a", "b", "c"])
    found = evaluate.views(scores, np.eye(3, dtype=np.uint8)[np.arange(30) % 3], label_set)
    results = evaluate.summarise(found, n_bootstrap=0)
    more = {"accuracy": 0.123, "f1_macro": 0.234, "f1_weighted": 0.345, "top_k": 0.456, "k": 2}
    results["labels"] |= more
    results["labels"]["ci"] = {"accuracy": (0.1, 0.2)}
    summary = {
        "label_set": {"name": "x", "hash": "h", "classes": 3}, "left_out_clips": [],
        "bootstrap": {"n": 0, "level": 0.95, "seed": 0}, "record": {}, "views": results,
    }  # fmt: skip
    html = report.render(summary=summary, results=results, found=found)
    for value in ("0.123", "0.234", "0.345", "0.456", "0.100 to 0.200", "2 highest scores"):
        assert value in html


CHOSEN = dict(step=20, rule="best", metric="mean_ap", value=0.4, last_step=30, last_value=0.35)


@pytest.mark.parametrize(
    ("chosen", "on", "there", "absent"),
    [
        ({}, "eval", "step 20, because it has the best mean AP (0.4; the last step, 30, has 0.35)",
         "<script"),
        ({}, "eval", "The step was chosen on the same clips that are reported here", "no part"),
        ({}, "test", "The clips of this report had no part in the choice", "same clips that"),
        ({}, "other", "because it has the best", "same clips that"),
        ({"rule": "last"}, "eval", "those of the last step, 20", "same clips that"),
        ({"rule": "smooth(window=7)"}, "eval", "chosen by the rule smooth(window=7)", "no part"),
        ({"step": "x"}, "eval", "Training", "The weights are"),
        ({"value": None, "last_value": [1]}, "eval", "the best mean AP. The step", "(None"),
    ],
)  # fmt: skip
def test_the_page_says_how_the_step_was_chosen(chosen, on, there, absent):
    record = {"chosen": CHOSEN | chosen, "evaluated_on": on}
    html = render(*own(["a", "b"]), record=record, history=HISTORY)
    assert there in html
    assert absent not in html


@pytest.mark.parametrize(
    "record",
    [
        {"chosen": 3, "baseline": [1], "model": 7, "run": {}, "train_data": "x", "eval_data": 1},
        {"baseline": {"accuracy": "0.5"}, "train_data": {"clips": "many"}, "step": True},
        {"baseline": {"mean_ap": float("nan")}, "model": {"name": None}, "hlp": "yes", "step": -1},
        {"step": 10**400, "seed": 10**5000, "chosen": {**CHOSEN, "value": 10**400}},
        {"chosen": {**CHOSEN, "step": 10**5000}, "baseline": {"accuracy": 10**400}},
        {"evaluated_on": ["eval"], "chosen": {**CHOSEN, "rule": None, "metric": None}},
    ],
)
def test_a_card_of_any_shape_gives_a_page(record):
    Page(render(*own(["a", "b"]), record=record, history=HISTORY, train_counts=np.array([1, 2])))


def test_the_baseline_is_a_sentence_and_a_line_in_the_curves():
    baseline = dict(name="linear", mean_ap=0.2134, text="a linear model on log-mel statistics")
    html = render(*own(["a", "b"]), record={"baseline": baseline}, history=HISTORY)
    assert "a linear model on log-mel statistics reaches mean AP 0.213" in html
    curves = [image for image in images(html) if "learning rate" in "".join(image.itertext())]
    assert "a linear model on log-mel statistics" in "".join(curves[0].itertext())


def test_evaluation_loss_is_drawn_beside_training_loss():
    rows = [*HISTORY, {"step": 20, "eval/loss": 0.3}, {"step": 30, "eval/loss": 0.2}]
    one, both = ("".join(ElementTree.fromstring(report_plots.training_curves(r)).itertext())
                 for r in (HISTORY, rows))  # fmt: skip
    assert "training" not in one  # a legend only if there are two curves
    assert "training" in both
    assert "evaluation" in both


def single(c=4, n=80, seed=0):
    rng = np.random.default_rng(seed)
    names = tuple(f"class {i}" for i in range(c))
    label_set = labels.LabelSet("mine", tuple(f"i{i}" for i in range(c)), names)
    true = rng.integers(0, c, n)
    targets = np.eye(c, dtype=np.uint8)[true]
    return label_set, rng.normal(-2, 1, (n, c)) + 1.5 * targets, targets


def test_the_confusion_matrix_has_the_counts_of_naive_code():
    label_set, scores, targets = single()
    html = render(label_set, scores, targets)
    decided, true = scores.argmax(1), targets.argmax(1)
    counts = {}
    for i, j in zip(true.tolist(), decided.tolist(), strict=True):
        counts[i, j] = counts.get((i, j), 0) + 1
    picture = next(i for i in images(html) if "true class" in "".join(i.itertext()))
    numbers = [t.text for t in picture.iter() if t.tag.endswith("text") and t.text.isdigit()]
    assert sorted(map(int, numbers)) == sorted(counts.values())
    (i, j), most = max(((k, v) for k, v in counts.items() if k[0] != k[1]), key=lambda x: x[1])
    assert f'<td>class {i}</td><td>class {j}</td><td class="n">{most}</td>' in html
    assert f"{(decided == true).sum()} of 80 clips are right" in html
    assert "Confusion" not in render(*own(["a", "b", "c"]))


def test_many_classes_give_a_matrix_without_names_and_a_table_of_pairs():
    label_set, scores, targets = single(60, 600)
    text = "".join(ElementTree.fromstring(
        decision_plots.confusion(label_set.names, targets.T @ targets)
    ).itertext())  # fmt: skip
    assert "class 7" not in text
    assert "The 10 most frequent mistakes" in render(label_set, scores, targets)


def test_wrong_clips_have_a_player_up_to_a_largest_size(monkeypatch):
    label_set, scores, targets = single(n=200)
    asked = []

    def listen(clip):
        asked.append(clip)
        if len(asked) == 1:
            raise OSError("no <disk>")
        if len(asked) == 2:
            return None
        if len(asked) == 3:
            return "folder/a b.wav", "audio/wav"
        return b"x" * 30_000, "audio/mpeg"

    monkeypatch.setattr(clip_page, "SOUND_BYTES", 100_000)
    html = render(label_set, scores, targets, listen=listen)
    Page(html)
    assert html.count("<audio") == 2  # 40,000 bytes each as base64
    assert "cannot be played: no &lt;disk&gt;" in html
    assert "folder/a%20b.wav" in html
    assert "clips have no player" in html
    decided, p = scores.argmax(1), scores.max(1)
    wrong = np.flatnonzero(decided != targets.argmax(1))
    assert asked[0] == f"clip {wrong[np.argmax(p[wrong])]}.wav"
    assert "<audio" not in render(label_set, scores, targets)
    assert "No clip is wrong" in render(label_set, targets * 9.0 - 4, targets)


def test_thresholds_say_that_they_are_optimistic():
    label_set, scores, targets = own(["a", "b", "c"], n=200)
    html = render(label_set, scores, targets)
    assert "optimistic" in html
    assert titles(html)[-4:-1] == ["Calibration", "Average precision against class prior",
                                   "Every class"]  # fmt: skip
    f1 = re.findall(r"Mean F1: ([\d.]+) as in the table, ([\d.]+) if", html)[0]
    assert float(f1[0]) > float(f1[1])


def test_tables_have_captions_and_pictures_a_text():
    html = render(*single(), history=HISTORY)
    assert html.count("<table") == html.count("<caption")
    assert all(alt.strip() for alt in re.findall(r'<img alt="([^"]*)"', html))
    assert html.count("<h1") == 1
    assert "prefers-color-scheme:dark" in html
    for image in images(html):
        assert "prefers-color-scheme:dark" in ElementTree.tostring(image, "unicode")


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
        record={"step": 20, "hlp": True, "train_data": {"name": "x", "clips": 1000}},
        train_counts=targets.sum(axis=0),
    )
    assert time.perf_counter() - start < 60  # 4 s on a quiet core
    assert titles(html) == [
        "Results",
        "Average precision: 10 classes of esc10",
        "Average precision by class",
        "Training",
        "Wrong clips",
        "Thresholds",
        "Calibration",
        "Average precision against class prior",
        "Parent and child classes",
        "Every class",
        "What was evaluated",
    ]
    assert "trained on x with HLP" in html
    assert "Labels: HLP labels" in html
    assert "share of training clips" in html
    assert len(images(html)) == 6
    Page(html)
    assert len(html) < 3e6


def test_without_history_ontology_or_positives_the_sections_are_absent_not_empty():
    label_set, scores, targets = own(["a", "b", "c"])
    html = render(label_set, scores, targets)
    assert "<h2>Training" not in html
    assert "<h2>Parent" not in html
    empty = render(label_set, scores, targets * 0, history=[{"step": 1}])
    assert titles(empty) == ["Results", "Average precision", "Calibration", "What was evaluated"]
    assert "No class has a positive clip" in empty
    assert "3 classes without a positive clip are left out" in empty
    nothing = render(label_set, scores[:0], targets[:0])
    assert titles(nothing) == ["Results", "Average precision", "What was evaluated"]
    one = render(*own(["only"]))
    assert "about the same share" in one
    for html in (empty, nothing, one):
        Page(html)


def test_direct_parents_are_the_380_edges_of_audioset():
    closure = hlp.closure("audioset527")
    pairs = hierarchy.direct_parents(closure)
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
    first, second = hierarchy.parent_child_rows(scores, targets, closure, "abc")
    assert first == {"child": "a", "parent": "b", "clips": 3, "above": 1 / 3, "gap": -1.0}
    assert (second["child"], second["parent"], second["above"]) == ("b", "c", 1 / 3)
    assert second["gap"] == -1.0  # (1 - 5 + 3 - 1) / 2, without the undefined difference
    assert hierarchy.parent_child_rows(scores, targets * 0, closure, "abc") == []
    raised = hlp.propagate_scores(scores, closure)
    assert all(
        r["above"] == 0 for r in hierarchy.parent_child_rows(raised, targets, closure, "abc")
    )


def test_curves_keep_finite_points_in_order_and_need_at_least_one():
    steps, loss = report_plots._series([*HISTORY[::-1]], "loss")
    assert (steps.tolist(), loss.tolist()) == ([10.0, 30.0], [0.5, 0.1])
    assert report_plots.training_curves([{"step": 1}, {"step": 2, "loss": None}]) is None
    assert report_plots.training_curves(HISTORY, 20)[:4] == b"<svg"


def test_few_positive_clips_give_no_interval():
    label_set, scores, targets = own(["a", "b"], n=40)
    targets[:, 0] = np.arange(40) < 4
    targets[:, 1] = np.arange(40) < 5
    found = evaluate.views(scores, targets, label_set)
    ends = evaluate.summarise(found, n_bootstrap=30)["labels"]["per_class_ap_ci"]
    assert np.isnan(ends[0]).all()
    assert 0 <= ends[1, 0] < ends[1, 1] <= 1
    html = class_page.every_class(evaluate.summarise(found, n_bootstrap=30), found)
    assert html.count("<small>") == 1
    assert "<small>" not in class_page.every_class(evaluate.summarise(found, 0), found)


def test_numbers_that_are_undefined_or_infinite_have_a_sign_of_their_own():
    assert [report.number(x) for x in (None, np.nan, np.inf, 0.12345)] == ["–", "–", "∞", "0.123"]
