"""Scores files, views, summaries, and `asjax eval` of finished scores."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from asjax import hlp, labels, metrics
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.evaluation import evaluate, verb
from asjax.store.scores import save_scores


def own_set(n=10):
    names = [f"sound {i}" for i in range(n)]
    return labels.LabelSet("mine", tuple(f"id{i}" for i in range(n)), tuple(names))


def made_up(label_set, n=40, seed=0):
    """Scores and targets: clip i has class i mod C, whose logit is a little higher."""
    rng = np.random.default_rng(seed)
    c = len(label_set)
    targets = (np.arange(n)[:, None] % c == np.arange(c)).astype(np.uint8)
    return (rng.normal(-3, 1, (n, c)) + 2 * targets).astype(np.float32), targets


def saved(path, label_set, n=40, **extra):
    scores, targets = made_up(label_set, n)
    ids = [f"clip{i}" for i in range(n)]
    save_scores(path, ids=ids, scores=scores, targets=targets, label_set=label_set, **extra)
    return ids, scores, targets


# -------------------------------------------------------------------------------- prediction


def test_the_training_trace_is_the_plain_metric():
    scores, targets = made_up(own_set())
    want = metrics.tagging(scores=scores, targets=targets)
    got = evaluate.trace(scores, targets)
    assert got.pop("accuracy") == (scores.argmax(1) == targets.argmax(1)).mean()
    p = 1 / (1 + np.exp(-np.float64(scores)))
    bce = -np.where(targets, np.log(p), np.log1p(-p)).mean()
    assert got.pop("loss") == pytest.approx(bce, rel=1e-6)
    assert got == {key: want[key] for key in ("mean_ap", "mean_auc", "d_prime")}


def test_the_trace_of_a_softmax_and_of_clips_with_several_labels():
    scores, targets = made_up(own_set())
    log_p = metrics.as_scores(scores, "softmax")
    got = evaluate.trace(log_p, targets, "softmax")
    assert got["loss"] == pytest.approx(-log_p[targets > 0].mean(), rel=1e-6)
    diverged = evaluate.trace(log_p * np.nan, targets, "softmax")
    assert diverged.keys() == got.keys()
    assert np.isnan(list(diverged.values())).all()
    targets[0, :2] = 1
    assert "accuracy" not in evaluate.trace(scores, targets)


# ------------------------------------------------------------------------------- scores file


def test_a_scores_file_comes_back_as_it_was_written(tmp_path):
    ids, scores, targets = saved(tmp_path / "sub" / "s.npz", own_set(), extra={"left_out": [["x"]]})
    got = evaluate.load_scores(tmp_path / "sub" / "s.npz")
    assert got["ids"] == ids
    np.testing.assert_array_equal(got["scores"], scores)
    np.testing.assert_array_equal(got["targets"], targets)
    assert got["label_set"].hash == own_set().hash
    assert got["label_set"].names == own_set().names
    assert got["extra"] == {"left_out": [["x"]]}
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["s.npz"]  # no partial file


def test_scores_of_other_classes_are_refused_with_both_hashes(tmp_path):
    saved(tmp_path / "s.npz", own_set())
    other = own_set(9)
    with pytest.raises(AsjaxError) as error:
        evaluate.load_scores(tmp_path / "s.npz", other)
    assert other.hash in str(error.value)
    assert own_set().hash in str(error.value)


def test_a_file_that_is_no_scores_file_is_one_clear_error(tmp_path):
    with pytest.raises(AsjaxError, match="no file"):
        evaluate.load_scores(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", about=np.array({"a": 1}, object))
    saved(tmp_path / "cut.npz", own_set())
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "other", "pickle", "cut"):
        with pytest.raises(AsjaxError, match="is not a scores file"):
            evaluate.load_scores(tmp_path / f"{name}.npz")


def test_scores_of_another_shape_are_not_saved(tmp_path):
    scores, targets = made_up(own_set())
    with pytest.raises(AsjaxError, match=r"\[3 ids, 10 classes\]"):
        save_scores(
            tmp_path / "s.npz",
            ids=["a", "b", "c"],
            scores=scores,
            targets=targets,
            label_set=own_set(),
        )


# ------------------------------------------------------------------------------------- views


def test_hlp_views_are_propagated_labels_and_scores_and_an_identity_closure_gives_none():
    label_set = own_set(4)
    scores, targets = made_up(label_set, 12)
    implies = np.eye(4, dtype=bool)
    assert list(evaluate.views(scores, targets, label_set, implies)) == ["labels"]
    assert list(evaluate.views(scores, targets, label_set)) == ["labels"]
    implies[0, 1] = True
    found = evaluate.views(scores, targets, label_set, implies)
    assert list(found) == ["labels", "hlp_labels", "hlp_labels_scores"]
    both = found["hlp_labels_scores"]
    np.testing.assert_array_equal(both.targets[:, 1], targets[:, 0] | targets[:, 1])
    np.testing.assert_array_equal(both.scores[:, 1], np.maximum(scores[:, 0], scores[:, 1]))
    np.testing.assert_array_equal(found["hlp_labels"].scores, scores)


def test_the_esc10_view_takes_the_best_of_a_classs_mids_and_needs_all_of_them():
    label_set, esc10 = labels.get("audioset527"), labels.get("esc10")
    table = labels.mapping("esc10", "audioset527")
    fire = esc10.ids.index("crackling_fire")
    both = np.flatnonzero(table[fire])
    assert len(both) == 2
    targets = np.zeros((2, 527), np.uint8)
    targets[0, both] = 1
    targets[1, both[0]] = 1  # only one of its two mids: another sound
    scores = np.full((2, 527), -9.0, np.float32)
    scores[0, both[1]] = 3.0
    view = evaluate.views(scores, targets, label_set, mappings=["esc10"])["esc10"]
    assert view.names == esc10.names
    assert view.targets[:, fire].tolist() == [1, 0]
    assert view.scores[:, fire].tolist() == [3.0, -9.0]


def test_the_fsd50k_view_has_the_192_shared_classes_and_foreign_mappings_are_left_out():
    label_set = labels.get("audioset527")
    scores = np.zeros((2, 527), np.float32)
    view = evaluate.views(scores, scores.astype(int), label_set, mappings=["fsd50k200"])
    assert view["fsd50k200"].scores.shape == (2, 192)
    own = own_set()
    assert list(evaluate.views(*made_up(own), own, mappings=["esc10"])) == ["labels"]


def test_all_views_share_one_bootstrap_and_equal_the_plain_metric():
    label_set = own_set(4)
    scores, targets = made_up(label_set, 30)
    results = evaluate.summarise(evaluate.views(scores, targets, label_set), n_bootstrap=20)
    want = metrics.bootstrap(scores=scores, targets=targets, n=20)
    single = {"accuracy", "f1_macro", "f1_weighted", "mean_recall", "top_k"}
    assert results["labels"]["ci"].keys() == want.keys() | single
    assert {key: results["labels"]["ci"][key] for key in want} == want
    plain = metrics.tagging(scores=scores, targets=targets)
    assert results["labels"]["mean_ap"] == plain["mean_ap"]
    assert evaluate.summarise({}, 20) == {}
    none = evaluate.summarise(evaluate.views(scores, targets, label_set), n_bootstrap=0)
    assert none["labels"]["ci"] == {}


# ----------------------------------------------------------------------------------- writing


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_counts_are_written_in_full(tmp_path):
    """AudioSet's Speech has more than a million clips; six digits would round it."""
    own = labels.LabelSet("own", ("a", "b"), ("a", "b"))
    targets = np.array([[1, 0], [0, 1], [1, 0]], np.uint8)
    save_scores(
        tmp_path / "scores.npz", ids=list("xyz"), scores=targets / 3, targets=targets, label_set=own
    )
    counts = np.array([[1_011_949, 12_345_678_901]])
    evaluate.evaluate_scores(
        tmp_path / "scores.npz", tmp_path / "out", n_bootstrap=0, train_counts=counts
    )
    rows = read_csv(tmp_path / "out" / "per_class.csv")
    assert [row["n_train"] for row in rows] == ["1011949", "12345678901"]
    assert [row["n_positive"] for row in rows] == ["2", "1"]
    assert rows[0]["prior"] == "0.666667"


@pytest.mark.parametrize("strict", [False, True, None])
def test_scores_are_evaluated_with_the_rule_of_their_model(strict, tmp_path):
    label_set = labels.get("audioset527")
    rng = np.random.default_rng(0)
    targets = (rng.random((50, 527)) < 0.02).astype(np.uint8)
    scores = rng.normal(-4, 1, targets.shape).astype(np.float32)
    rules = {rule: hlp.closure(label_set, strict=rule) for rule in (False, True)}
    assert not np.array_equal(rules[False], rules[True])
    save_scores(
        tmp_path / "scores.npz", ids=[str(i) for i in range(50)], scores=scores, targets=targets,
        label_set=label_set, extra={} if strict is None else {"strict": strict},
    )  # fmt: skip
    argv = ["eval", f"--scores={tmp_path / 'scores.npz'}", "--bootstrap=0"]
    assert main([*argv, f"--out={tmp_path / 'out'}"]) == 0
    got = json.loads((tmp_path / "out" / "metrics.json").read_text())["views"]["hlp_labels"]
    want = metrics.tagging(
        scores=scores, targets=hlp.propagate_labels(targets, rules[bool(strict)])
    )
    assert got["mean_ap"] == pytest.approx(want["mean_ap"], rel=1e-9)


def test_evaluating_esc10_scores_writes_metrics_per_class_and_a_report(tmp_path):
    label_set = labels.get("audioset527")
    table = labels.mapping("esc10", "audioset527")
    targets = table[np.arange(40) % 10].astype(np.uint8)
    rng = np.random.default_rng(0)
    scores = (rng.normal(-6, 1, targets.shape) + 4 * targets).astype(np.float32)
    path = tmp_path / "scores.npz"
    save_scores(
        path,
        ids=[str(i) for i in range(40)],
        scores=scores,
        targets=targets,
        label_set=label_set,
        extra={"left_out": [["bad.wav", "not audio"]]},
    )
    summary = evaluate.evaluate_scores(
        path,
        tmp_path / "out",
        mappings=["esc10"],
        n_bootstrap=30,
        train_counts=targets.sum(axis=0, keepdims=True),  # [1, C], like sums of scipy.sparse
        record={"hlp": True, "train_data": {"clips": 40}},
    )
    assert list(summary["views"]) == ["labels", "hlp_labels", "hlp_labels_scores", "esc10"]
    stored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert stored["views"]["labels"]["mean_ap"] == summary["views"]["labels"]["mean_ap"]
    assert stored["views"]["labels"]["n_classes"] == 12
    assert len(stored["views"]["labels"]["left_out"]) == 515
    assert stored["left_out_clips"] == [["bad.wav", "not audio"]]
    assert stored["label_set"]["hash"] == label_set.hash

    rows = read_csv(tmp_path / "out" / "per_class.csv")
    assert [row["mid"] for row in rows] == list(label_set.ids)
    want = metrics.tagging(
        scores=hlp.propagate_scores(scores, hlp.closure(label_set)),
        targets=hlp.propagate_labels(targets, hlp.closure(label_set)),
    )["per_class_ap"]
    got = [float(row["ap_hlp_labels_scores"] or "nan") for row in rows]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    bark = rows[label_set.index("Bark")]
    assert (bark["n_positive"], bark["prior"], bark["n_train"]) == ("4", "0.1", "4")
    assert rows[0]["ap_labels"] == ""
    assert len(read_csv(tmp_path / "out" / "per_class_esc10.csv")) == 10
    assert "Bark" in (tmp_path / "out" / "report.html").read_text()
    text = evaluate.table(summary)
    assert "10 classes of esc10" in text
    assert f"{summary['views']['labels']['mean_ap']:.3f} [" in text
    assert set(evaluate.headline(summary)["labels"]["ci"]) == {"mean_ap", "mean_auc", "d_prime"}
    # Fire and Crackle make one class of ESC-10, so only this view has one label for each clip.
    assert "accuracy" not in summary["views"]["labels"]
    esc10 = evaluate.headline(summary)["esc10"]
    assert esc10["ci"]["accuracy"][0] <= esc10["accuracy"] <= esc10["ci"]["accuracy"][1]
    assert (tmp_path / "out" / "confusion_esc10.csv").is_file()
    assert not (tmp_path / "out" / "confusion.csv").exists()


@pytest.mark.parametrize("case", ["no positives", "one class", "perfect", "no clips"])
def test_awkward_sets_are_evaluated_and_their_json_is_strict(tmp_path, case):
    label_set = own_set(1 if case == "one class" else 3)
    scores, targets = made_up(label_set, 0 if case == "no clips" else 12)
    if case == "no positives":
        targets[:] = 0
    if case == "one class":
        targets[::2] = 0
    if case == "perfect":
        scores = scores * 0 + targets
    save_scores(
        tmp_path / "s.npz",
        ids=[str(i) for i in range(len(scores))],
        scores=scores,
        targets=targets,
        label_set=label_set,
    )
    summary = evaluate.evaluate_scores(tmp_path / "s.npz", tmp_path, n_bootstrap=5)

    def refuse(word):
        raise AssertionError(f"metrics.json holds {word}")

    stored = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    view = stored["views"]["labels"]
    assert evaluate.table(summary)
    if case in ("no positives", "no clips"):
        assert view["mean_ap"] is None
        assert view["left_out"] == list(label_set.names)
        assert "No class has a positive clip" in (tmp_path / "report.html").read_text()
    if case == "perfect":
        assert view["d_prime"] is None
        assert summary["views"]["labels"]["d_prime"] == np.inf
        assert "inf" in evaluate.table(summary)


def test_thresholds_and_calibration_are_in_the_files_and_decide_as_they_say(tmp_path):
    from sklearn.metrics import f1_score

    label_set = own_set(4)
    scores, targets = made_up(label_set, 60)
    scores = (scores * 3).astype(np.float32)
    targets[:, 2] = 0
    path = tmp_path / "scores.npz"
    ids = [str(i) for i in range(60)]
    save_scores(path, ids=ids, scores=scores, targets=targets, label_set=label_set)
    evaluate.evaluate_scores(path, tmp_path, n_bootstrap=20, closure=None)
    stored = json.loads((tmp_path / "metrics.json").read_text())
    rows = read_csv(tmp_path / "per_class.csv")
    p = 1 / (1 + np.exp(-scores.astype(np.float64)))
    by_class = stored["thresholds"]["by_class"]
    assert list(by_class) == list(label_set.ids)
    assert by_class[label_set.ids[2]] is None
    assert rows[2]["threshold"] == rows[2]["ap_labels_low"] == ""
    f1 = []
    for j in (0, 1, 3):
        assert float(rows[j]["threshold"]) == by_class[label_set.ids[j]]
        f1.append(f1_score(targets[:, j], p[:, j] >= float(rows[j]["threshold"])))
        assert float(rows[j]["threshold_f1"]) == pytest.approx(f1[-1], rel=1e-5)
        low, value, high = (float(rows[j][f"ap_labels{x}"]) for x in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1
    assert stored["thresholds"]["macro_f1"] == pytest.approx(np.mean(f1))
    assert stored["calibration"]["of"] == "pairs"
    assert sum(stored["calibration"]["count"]) == 240


# ---------------------------------------------------------------------------------- the verb


def test_the_record_says_which_part_the_data_had_in_the_training():
    spec = {"name": "folder", "csv": "a.csv"}
    models = SimpleNamespace(
        cfg={"data": {"eval": spec, "test": {**spec, "csv": "b.csv"}}},
        record={"eval_data": {"hash": "1"}, "test_data": {"hash": "2"}, "baseline": {"mean_ap": 1}},
    )
    cases = [
        ({}, "1", "eval", False),
        ({"csv": "b.csv"}, "2", "test", True),
        ({"x": 1}, "3", "other", False),
    ]
    for change, digest, role, measured in cases:
        got = verb._about_model(models, {**spec, **change}, {"name": "n", "hash": digest})
        assert got["evaluated_on"] == role
        assert got["eval_data"]["name"] == "n"
        assert ("baseline" in got) == measured
        assert "test_data" not in got
    assert "test_data" in models.record  # not changed


def test_eval_of_a_scores_file_prints_a_table_and_where_the_report_is(tmp_path, capsys):
    saved(tmp_path / "scores.npz", own_set())
    code = main(
        ["eval", f"--scores={tmp_path / 'scores.npz'}", "--bootstrap=10", "--mapping=esc10"]
    )
    out = capsys.readouterr().out
    assert code == 0
    assert "labels as they are" in out
    assert str(tmp_path / "report.html") in out
    assert "esc10: the model has none of its classes" in out
    assert (tmp_path / "per_class.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --model=DIR or --scores=FILE"),
        (["--scores=none.npz"], "no file none.npz"),
        (["--scores=a.npz", "--model=m"], "either"),
        (["--scores=a.npz", "--data=esc10"], "--data, --labels and --clip-s need --model"),
        (["--scores=a.npz", "--average=logits"], "needs several"),
        (["--scores=a.npz", "--scores=b.npz", "--average=weights"], "needs several --model"),
        (["--model=m", "--weights=1,x"], "--weights must be numbers such as 1,2,1"),
        (["--model=m", "--weights=1,2"], "--weights must be numbers above 0, one for each of 1"),
        (["--model=m", "--average=logits"], "needs several models, got 1"),
        (["--model=m", "--clip-s=0"], "above 0"),
        (["--model=nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
