"""Thresholds, calibration and the clearest mistakes, against naive code."""

import numpy as np
import pytest

from asjax import labels, metrics
from asjax.evaluation import decide, views

sk = pytest.importorskip("sklearn.metrics")


def made(n=120, c=4, seed=0):
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, c)) < 0.3).astype(np.uint8)
    return rng.normal(-1, 1, (n, c)) + 2 * targets, targets


def one_hot(true, c):
    return np.eye(c, dtype=np.uint8)[true]


def naive_best(p, y):
    """(F1, threshold) over all thresholds at a score; the highest one of equal F1."""
    found = [(sk.f1_score(y, p >= t), t) for t in np.unique(p)]
    best = max(f for f, _ in found)
    return best, max(t for f, t in found if f == best)


def test_thresholds_equal_a_search_over_all_scores():
    scores, targets = made()
    targets[:, 3] = 0
    p = metrics.probabilities(scores)
    got = decide.thresholds(p, targets)
    for j in range(3):
        f1, lowest = naive_best(p[:, j], targets[:, j])
        assert got["f1"][j] == pytest.approx(f1, abs=1e-12)
        decided = p[:, j] >= got["threshold"][j]
        np.testing.assert_array_equal(decided, p[:, j] >= lowest)
        assert got["precision"][j] == pytest.approx(sk.precision_score(targets[:, j], decided))
        assert got["recall"][j] == pytest.approx(sk.recall_score(targets[:, j], decided))
    assert np.isnan(got["threshold"][3])
    f1, lowest = naive_best(p.ravel(), targets.ravel())
    assert got["one"]["f1"] == pytest.approx(f1, abs=1e-12)
    np.testing.assert_array_equal(p >= got["one"]["threshold"], p >= lowest)
    assert got["macro_f1"] == pytest.approx(got["f1"][:3].mean())
    at_half = [sk.f1_score(targets[:, j], p[:, j] >= 0.5) for j in range(3)]
    assert got["macro_f1_at_half"] == pytest.approx(np.mean(at_half))


def test_thresholds_of_the_other_half_are_worse_on_noise():
    """Without any signal, the best F1 on the same clips is far above that on other clips."""
    rng = np.random.default_rng(0)
    targets = (rng.random((60, 40)) < 0.1).astype(np.uint8)
    targets[:2] = 1
    got = decide.thresholds(rng.random(targets.shape), targets)
    assert got["macro_f1"] > got["macro_f1_other_half"] + 0.05


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (2, 1)])
def test_tiny_sets_have_thresholds_too(shape):
    targets = np.ones(shape, np.uint8)
    got = decide.thresholds(np.full(shape, 0.5, np.float32), targets)
    assert len(got["threshold"]) == shape[1]
    assert np.isnan(got["macro_f1"]) == (shape[0] == 0)
    decide.calibration(np.full(shape, 0.5), targets)
    assert decide.mistakes(np.full(shape, 0.5), targets, np.full(shape[1], 0.5)) == {
        "confident": [],
        "missed": [],
    }


def test_calibration_of_decisions_and_of_pairs_equals_naive_sums():
    scores, targets = made(200, 5)
    p = metrics.probabilities(scores)
    got = decide.calibration(p, targets, bins=10)
    assert got["of"] == "pairs"
    bins = np.clip(np.ceil(p.astype(float) * 10).astype(int) - 1, 0, 9)
    want = sum(
        abs(targets[bins == b].mean() - p[bins == b].mean(dtype=float)) * (bins == b).sum()
        for b in np.unique(bins)
    )
    assert got["ece"] == pytest.approx(want / p.size, abs=1e-9)
    assert got["mean_predicted"] == pytest.approx(p.sum(axis=1).mean(), rel=1e-6)
    assert got["mean_true"] == pytest.approx(targets.sum(axis=1).mean())

    true = np.random.default_rng(1).integers(0, 5, 200)
    soft = metrics.probabilities(metrics.as_scores(scores, "softmax"), "softmax")
    got = decide.calibration(soft, one_hot(true, 5), bins=10)
    assert got["of"] == "decisions"
    assert got["count"].sum() == 200
    assert got["mean_true"] == pytest.approx((soft.argmax(1) == true).mean())
    assert got["mean_predicted"] == pytest.approx(soft.max(1).mean(), rel=1e-6)


def test_mistakes_of_single_label_clips_are_sorted_by_confidence():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3], [0.5, 0.5]])
    got = decide.mistakes(p, one_hot([1, 1, 0, 1, 1], 2), most=2)
    assert got["confident"] == [(0, 0), (3, 0)]  # 0.9, then 0.7
    assert got["missed"] == [(2, 0), (4, 1)]  # of the other wrong clips: 0.4, then 0.5
    right = decide.mistakes(p, one_hot([0, 1, 1, 0, 0], 2))
    assert right == {"confident": [], "missed": []}


def test_mistakes_of_multi_label_clips_equal_a_naive_walk():
    scores, targets = made(400, 6, seed=3)
    p, limit = metrics.probabilities(scores), np.array([0.3, 0.5, 0.2, 0.6, 0.5, np.nan])
    got = decide.mistakes(p, targets, limit, most=7)
    for key, sign in (("confident", -1), ("missed", 1)):
        pairs = sorted((sign * p[i, j], i, j) for i in range(400) for j in range(6))
        want, rows, columns = [], set(), []
        for _, i, j in pairs:
            above = bool(p[i, j] >= limit[j])
            wrong = (
                not targets[i, j] and above
                if key == "confident"
                else (targets[i, j] and not above and j < 5)
            )
            if wrong and i not in rows and columns.count(j) < 2 and len(want) < 7:
                want.append((i, j))
                rows.add(i)
                columns.append(j)
        assert got[key] == want


def test_confused_pairs_are_the_largest_cells_off_the_diagonal():
    table = np.array([[9, 2, 0], [5, 1, 2], [0, 0, 7]])
    assert decide.confused_pairs(table, 2) == [(1, 0, 5), (0, 1, 2)]
    assert decide.confused_pairs(np.eye(3)) == []
    assert table[0, 0] == 9  # not changed


def test_decisions_use_hlp_labels_for_a_model_that_was_trained_with_them():
    label_set = labels.LabelSet("x", ("a", "b"), ("A", "B"))
    scores, targets = np.zeros((3, 2)), np.array([[1, 0], [0, 1], [1, 0]])
    closure = np.array([[1, 1], [0, 1]], bool)
    found = views.views(scores, targets, label_set, closure)
    plain, trained = (decide.decisions(found, {"hlp": hlp}) for hlp in (False, True))
    assert (plain["view"], trained["view"]) == ("labels", "hlp_labels")
    assert trained["targets"].tolist() == [[1, 1], [0, 1], [1, 1]]
    head = decide.headline(trained, label_set.ids)
    assert head["thresholds"]["by_class"].keys() == {"a", "b"}
    assert head["thresholds"]["unit"] == "sigmoid"
    assert decide.columns(trained).keys() == {
        "threshold", "threshold_precision", "threshold_recall", "threshold_f1"
    }  # fmt: skip
