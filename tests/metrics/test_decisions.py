"""Decisions against scikit-learn and naive code."""

import numpy as np
import pytest

from asjax import metrics
from asjax.config import AsjaxError

sk = pytest.importorskip("sklearn.metrics")


def made(n=300, c=6, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, c, n)
    scores = rng.normal(size=(n, c))
    scores[np.arange(n), true] += 1.0
    return (np.round(scores) if ties else scores), true


@pytest.mark.parametrize("ties", [False, True])
def test_one_class_per_clip_equals_scikit_learn(ties):
    scores, true = made(ties=ties)
    decided = scores.argmax(1)
    got = metrics.single_label(scores=scores, targets=true)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(true, decided), abs=1e-12)
    for average, key in (("macro", "macro_f1"), ("weighted", "weighted_f1")):
        want = sk.f1_score(true, decided, average=average)
        assert got[key] == pytest.approx(want, abs=1e-12)
    want = sk.precision_recall_fscore_support(true, decided)
    for key, values in zip(("precision", "recall", "f1", "n_positive"), want, strict=True):
        np.testing.assert_allclose(got[key], values, atol=1e-12)
    assert got["mean_recall"] == pytest.approx(sk.balanced_accuracy_score(true, decided), abs=1e-12)
    np.testing.assert_array_equal(got["confusion"], sk.confusion_matrix(true, decided))
    if not ties:  # scikit-learn orders ties the other way
        for k in (1, 3, 5):
            assert got["top"][k] == pytest.approx(sk.top_k_accuracy_score(true, scores, k=k))


def test_targets_may_be_one_hot_and_absent_classes_are_left_out_of_the_macro_mean():
    scores, true = made(c=4)
    wide = np.concatenate([scores, np.full((len(scores), 2), -9.0)], 1)  # never decided, never true
    one_hot = np.eye(6)[true]
    a = metrics.single_label(scores=scores, targets=true)
    b = metrics.single_label(scores=wide, targets=one_hot)
    assert b["macro_f1"] == pytest.approx(a["macro_f1"], abs=1e-12)
    assert np.isnan(b["f1"][4:]).all()
    assert b["top"].keys() == {1, 3, 5}
    assert a["top"].keys() == {1, 3}


def test_intervals_cover_the_estimate_and_groups_widen_them():
    scores, true = made(n=200)
    whole = metrics.bootstrap_single_label(scores=scores, targets=true, n=300)
    got = metrics.single_label(scores=scores, targets=true)
    assert whole.keys() == {"accuracy", "macro_f1", "weighted_f1", "mean_recall"}
    for key in whole:
        assert whole[key][0] < got[key] < whole[key][1]
    again = {"scores": np.tile(scores, (5, 1)), "targets": np.tile(true, 5)}
    groups = np.tile(np.arange(200), 5)  # five copies of a clip are one observation
    alone = metrics.bootstrap_single_label(**again, n=300)["accuracy"]
    together = metrics.bootstrap_single_label(**again, n=300, groups=groups)["accuracy"]
    assert together[1] - together[0] > 1.8 * (alone[1] - alone[0])
    width = whole["accuracy"][1] - whole["accuracy"][0]
    assert together[1] - together[0] == pytest.approx(width, rel=0.25)


def test_each_resample_equals_scikit_learn_on_the_drawn_clips():
    scores, true = made(n=60, c=4)
    got = metrics.resampled_single_label(scores=scores, targets=true, n=5, seed=2, top=2)
    draws = np.random.default_rng(2)
    for i in range(5):
        rows = draws.integers(0, 60, 60)
        y, decided = true[rows], scores[rows].argmax(1)
        f1 = lambda average, y=y, d=decided: sk.f1_score(y, d, average=average)  # noqa: E731
        want = {
            "accuracy": sk.accuracy_score(y, decided),
            "macro_f1": f1("macro"),
            "weighted_f1": f1("weighted"),
            "mean_recall": sk.balanced_accuracy_score(y, decided),
            "top_k": sk.top_k_accuracy_score(y, scores[rows], k=2, labels=range(4)),
        }
        assert {key: values[i] for key, values in got.items()} == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(
    ("targets", "single"),
    [
        (np.eye(3), True),
        (np.eye(3)[[0, 0, 2]], True),
        (np.ones((4, 1)), False),  # one class: there is nothing to decide
        (np.zeros((0, 3)), False),
        (np.array([[1, 1, 0], [0, 1, 0]]), False),
        (np.array([[0, 0, 0], [0, 1, 0]]), False),
    ],
)
def test_single_label_data_have_two_classes_and_one_label_for_each_clip(targets, single):
    assert metrics.is_single_label(targets) is single


def test_mean_ap_resampled_by_groups_equals_naive_repetition():
    rng = np.random.default_rng(1)
    scores, targets = rng.normal(size=(40, 3)), (rng.random((40, 3)) < 0.4).astype(int)
    groups = np.repeat(np.arange(10), 4)
    got = metrics.resampled(scores=scores, targets=targets, n=5, seed=2, groups=groups)["mean_ap"]
    draws = np.random.default_rng(2)
    for value in got:
        rows = np.concatenate([np.flatnonzero(groups == g) for g in draws.integers(0, 10, 10)])
        kept = [j for j in range(3) if targets[rows, j].any()]
        want = np.mean(
            [sk.average_precision_score(targets[rows, j], scores[rows, j]) for j in kept]
        )
        assert value == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_equals_trying_all_of_them(seed):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=(60, 4)), 1)  # with ties
    targets = rng.random((60, 4)) < 0.3
    targets[:, 3] = False
    got = metrics.best_thresholds(scores=scores, targets=targets)
    for j in range(3):
        f1 = [sk.f1_score(targets[:, j], scores[:, j] >= t) for t in np.unique(scores[:, j])]
        assert got["f1"][j] == pytest.approx(max(f1), abs=1e-12)
        at = sk.precision_recall_fscore_support(
            targets[:, j], scores[:, j] >= got["threshold"][j], average="binary"
        )
        assert (got["precision"][j], got["recall"][j], got["f1"][j]) == pytest.approx(at[:3])
    assert np.isnan([got[k][3] for k in got]).all()
    again = metrics.at_thresholds(
        scores=scores[:, :3], targets=targets[:, :3], thresholds=got["threshold"][:3]
    )
    for key, values in again.items():
        np.testing.assert_allclose(values, got[key][:3])


def test_calibration_of_true_probabilities_is_near_zero_and_bins_equal_naive_code():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    y = rng.random(200_000) < p
    assert metrics.calibration(probabilities=p, targets=y)["ece"] < 0.005
    got = metrics.calibration(probabilities=p**2, targets=y, bins=10)
    want, total = 0.0, len(p)
    for i in range(10):
        inside = (p**2 > i / 10) & (p**2 <= (i + 1) / 10) | ((p == 0) & (i == 0))
        assert got["count"][i] == inside.sum()
        want += inside.sum() / total * abs(y[inside].mean() - (p**2)[inside].mean())
    assert got["ece"] == pytest.approx(want, abs=1e-9)
    assert got["ece"] > 0.1


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(AsjaxError, match="exactly one class"):
        metrics.single_label(scores=np.zeros((2, 3)), targets=np.array([[1, 1, 0], [0, 0, 1]]))
    with pytest.raises(AsjaxError, match="targets must be 0 to 2"):
        metrics.single_label(scores=np.zeros((2, 3)), targets=[0, 3])
    with pytest.raises(AsjaxError, match="NaN"):
        metrics.single_label(scores=np.full((1, 3), np.nan), targets=[0])
    with pytest.raises(AsjaxError, match=r"in \[0, 1\]"):
        metrics.calibration(probabilities=[1.2], targets=[1])
    with pytest.raises(AsjaxError, match="one group for each of 4"):
        list(metrics.resample_counts(4, 1, 0, ["a"]))
