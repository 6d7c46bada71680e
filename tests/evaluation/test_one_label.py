"""Evaluation of data with one label per clip (`evaluation.one_label`), against scikit-learn."""

import csv
import json

import numpy as np
import pytest
from test_evaluate import made_up, own_set, read_csv

from asjax import hlp, labels, metrics
from asjax.evaluation import evaluate
from asjax.store.scores import save_scores

sk = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("activation", metrics.ACTIVATIONS)
def test_single_label_scores_get_accuracy_f1_and_a_confusion_table(tmp_path, activation):
    label_set = own_set(4)
    scores, targets = made_up(label_set)
    scores = metrics.as_scores(scores, activation)
    true, decided = targets.argmax(1), scores.argmax(1)
    assert 0 < (true == decided).mean() < 1
    ids = [str(i) for i in range(40)]
    path = tmp_path / "s.npz"
    fields = dict(ids=ids, scores=scores, targets=targets, label_set=label_set)
    save_scores(path, **fields, activation=activation)
    summary = evaluate.evaluate_scores(path, tmp_path, n_bootstrap=100)
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["activation"] == activation
    view = stored["views"]["labels"]
    want = {
        "accuracy": sk.accuracy_score(true, decided),
        "f1_macro": sk.f1_score(true, decided, average="macro"),
        "f1_weighted": sk.f1_score(true, decided, average="weighted"),
        "mean_recall": sk.balanced_accuracy_score(true, decided),
        "top_k": sk.top_k_accuracy_score(true, scores, k=3),
    }
    assert {key: view[key] for key in want} == pytest.approx(want, abs=1e-12)
    assert view["k"] == 3  # below the number of classes, because top-4 of 4 classes is always 1
    for key, value in want.items():
        assert view["ci"][key][0] < value < view["ci"][key][1]
        assert evaluate.headline(summary)["labels"][key] == pytest.approx(value)
    assert f"{want['accuracy']:.3f} [" in evaluate.table(summary)

    rows = read_csv(tmp_path / "per_class.csv")
    columns = sk.precision_recall_fscore_support(true, decided, zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1"), columns, strict=False):
        got = [float(row[f"{name}_labels"] or "nan") for row in rows]
        np.testing.assert_allclose(got, values, rtol=1e-5)
    with (tmp_path / "confusion.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["class", *label_set.names]
    assert [row[0] for row in rows] == list(label_set.names)
    table = sk.confusion_matrix(true, decided)
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], int), table)


def test_a_softmax_has_no_hlp_views_and_its_probabilities_sum_to_one(tmp_path):
    label_set = labels.get("audioset527")
    scores, targets = made_up(label_set, 20)
    log_p = metrics.as_scores(scores, "softmax")
    fields = dict(ids=[str(i) for i in range(20)], targets=targets, label_set=label_set)
    save_scores(tmp_path / "s.npz", scores=log_p, activation="softmax", **fields)
    closure = hlp.closure(label_set)
    for given in ("auto", closure):
        summary = evaluate.evaluate_scores(
            tmp_path / "s.npz", tmp_path, closure=given, mappings=["esc10"], n_bootstrap=0
        )
        assert list(summary["views"]) == ["labels", "esc10"]
    found = evaluate.views(log_p, targets, label_set, closure, ["esc10"], "softmax")
    np.testing.assert_allclose(found["labels"].probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (found["esc10"].probabilities.sum(axis=1) < 1).all()
    several = np.maximum(targets, targets[::-1])
    fields["targets"] = several
    save_scores(tmp_path / "s.npz", scores=log_p, activation="softmax", **fields)
    summary = evaluate.evaluate_scores(tmp_path / "s.npz", tmp_path / "several", n_bootstrap=0)
    assert "no accuracy: some clips have no label or several" in evaluate.table(summary)
    assert not (tmp_path / "several" / "confusion.csv").exists()
