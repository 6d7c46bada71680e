"""Metrics against scikit-learn, the golden case, and naive code on repeated rows."""

import time
from functools import partial

import numpy as np
import pytest
from reference import metrics as slow
from rule import array

from asjax import metrics
from asjax.config import AsjaxError
from asjax.store import choice


def small(seed=0, n=60, c=6, ties=True):
    """Scores with ties, targets with one class without and one with only positives."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n, c)) < np.linspace(0.05, 0.5, c)
    targets[0] = True
    targets[:, 1] = False
    targets[:, 2] = True
    scores = (rng.standard_normal((n, c)) + targets).astype(np.float32)
    return (np.round(scores * 4) / 4 if ties else scores), targets


def golden_case(golden):
    manifest, want = golden("metrics_cases")
    n, k = manifest["input"]["labels"]["shape"]
    fill = partial(array, salt=manifest["salt"])
    prior = fill("metrics/prior", (k,))
    labels = fill("metrics/labels", (n, k)) > np.float32(1.2) + np.float32(0.7) * prior
    labels[:, k - 1], labels[:, k - 2], labels[:, k - 3] = False, True, False
    labels[0, k - 3] = True
    noise, skill = fill("metrics/noise", (n, k)), np.abs(fill("metrics/skill", (k,)))
    scores = noise + np.float32(1.5) * skill * labels.astype(np.float32)
    tied = np.arange(k) % 3 == 1
    scores[:, tied] = np.round(scores[:, tied] * 4) / 4
    scores[:, 5] = 0.5
    np.testing.assert_array_equal(np.packbits(labels, axis=1), want["labels"])
    np.testing.assert_allclose(scores.astype(np.float64).sum(0), want["score_sum_per_class"])
    return scores, labels, want


def test_the_golden_case_is_met_to_twelve_digits(golden):
    scores, labels, want = golden_case(golden)
    got = metrics.tagging(scores=scores, targets=labels)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(got["per_class_ap"], want["ap"], **close)
    np.testing.assert_allclose(got["per_class_auc"], want["auc"], **close)
    np.testing.assert_allclose(got["mean_ap"], want["macro_ap"], **close)
    np.testing.assert_allclose(got["mean_auc"], want["macro_auc"], **close)
    np.testing.assert_allclose(got["d_prime"], want["d_prime_of_macro_auc"], **close)
    np.testing.assert_allclose(got["mean_of_d_prime"], want["mean_of_d_prime"], **close)
    np.testing.assert_allclose(got["micro_ap"], want["micro_ap"], **close)
    np.testing.assert_allclose(got["lrap"], want["lrap"], **close)
    assert got["left_out"] == [59]
    assert got["n_classes"] == 59


def test_per_class_values_equal_scikit_learn_with_ties_and_infinite_logits():
    scores, targets = small()
    scores[3], scores[4] = -np.inf, np.inf
    got = metrics.tagging(scores=scores, targets=targets, names=list("abcdef"))
    finite = np.clip(scores, -99, 99)  # scikit-learn refuses infinities; the order is the same
    ap, auc = slow.per_class(finite, targets)
    np.testing.assert_allclose(got["per_class_ap"], ap, rtol=1e-12)
    np.testing.assert_allclose(got["per_class_auc"], auc, rtol=1e-12)
    np.testing.assert_allclose(
        got["per_class_ap"][5], slow.hand_ap(finite[:, 5], targets[:, 5]), rtol=1e-12
    )
    assert got["left_out"] == ["b"]
    assert np.isnan(got["per_class_auc"][2])
    assert got["per_class_ap"][2] == 1.0


def test_a_class_mask_takes_classes_out_of_every_mean():
    scores, targets = small(c=8)
    mask = np.arange(8) >= 4
    got = metrics.tagging(scores=scores, targets=targets, class_mask=mask)
    alone = metrics.tagging(scores=scores[:, mask], targets=targets[:, mask])
    for key in ("mean_ap", "mean_auc", "d_prime", "mean_of_d_prime", "micro_ap", "lrap"):
        assert got[key] == pytest.approx(alone[key], rel=1e-12), key
    assert np.isnan(got["per_class_ap"][:4]).all()
    assert got["n_classes"] == 4
    assert got["left_out"] == []


def test_no_positive_no_clip_and_all_masked_give_nan_and_say_what_is_left_out():
    scores = np.zeros((4, 2), np.float32)
    empty = metrics.tagging(scores=scores, targets=scores, names=["x", "y"])
    assert np.isnan(empty["mean_ap"])
    assert empty["left_out"] == ["x", "y"]
    assert empty["n_classes"] == 0
    masked = metrics.tagging(scores=scores, targets=scores + 1, class_mask=[False, False])
    assert np.isnan(masked["d_prime"])
    nothing = metrics.tagging(scores=scores[:0], targets=scores[:0])
    assert np.isnan(nothing["lrap"])
    for case in (scores, scores[:0]):
        assert np.isnan(metrics.bootstrap(scores=case, targets=case, n=5)["mean_ap"]).all()


def test_intervals_per_class_equal_naive_repetition_and_need_five_clips():
    from sklearn.metrics import average_precision_score

    scores, targets = small(n=40)
    targets[:, 3] = np.arange(40) < 4
    given = dict(scores=scores, targets=targets, n=30, seed=4)
    got = metrics.bootstrap(**given, level=0.8, per_class=True)
    plain = metrics.bootstrap(**given, level=0.8)
    assert {k: got[k] for k in plain} == plain
    draws = np.random.default_rng(4)
    rows = [draws.integers(0, 40, 40) for _ in range(30)]
    for j in range(6):
        y, x = targets[:, j], scores[:, j]
        if y.sum() < metrics.FEW:
            assert np.isnan(got["per_class_ap"][j]).all()
            continue
        drawn = np.array([average_precision_score(y[r], x[r]) for r in rows if y[r].any()])
        ends = np.quantile(drawn, [0.1, 0.9]) + average_precision_score(y, x) - drawn.mean()
        np.testing.assert_allclose(got["per_class_ap"][j], np.clip(ends, 0, 1), atol=1e-12)
    assert np.isnan(got["per_class_ap"][[1, 3]]).all()


def test_one_class_tied_everywhere_has_ap_equal_to_its_prior_and_auc_one_half():
    targets = np.array([[1], [0], [0], [0]])
    got = metrics.tagging(scores=np.full((4, 1), -7.0), targets=targets)
    assert got["mean_ap"] == 0.25
    assert got["mean_auc"] == 0.5
    assert got["d_prime"] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, t: (s[:, :3], t), "one shape"),
        (lambda s, t: (np.where(np.arange(6) >= 4, np.nan, s), t), "120 places, first in class 4"),
        (lambda s, t: (s, t * 0.5), "0 or 1"),
    ],
)
def test_wrong_inputs_are_one_clear_error(change, message):
    scores, targets = change(*small())
    with pytest.raises(AsjaxError, match=message):
        metrics.tagging(scores=scores, targets=targets)


def test_nan_is_reported_with_the_name_of_the_first_class():
    scores, targets = small()
    scores[7, 3] = np.nan
    with pytest.raises(AsjaxError, match=r"1 places, first in class 3 \(d\)"):
        metrics.tagging(scores=scores, targets=targets, names=list("abcdef"))


@pytest.mark.parametrize("block", [10**9, 4 * 60 * 7])
def test_every_resample_equals_scikit_learn_on_repeated_rows(monkeypatch, block):
    scores, targets = small(n=60)
    targets[:, 0] = False
    targets[5, 0] = True  # one positive: a third of the resamples do not have it
    monkeypatch.setattr(metrics.ranking, "_BLOCK_BYTES", block)
    monkeypatch.setattr(metrics.ranking, "_COLUMNS", 3)
    got = metrics.resampled(scores=scores, targets=targets, n=25, seed=3)
    draws = list(metrics.resample_counts(60, 25, seed=3))
    assert {int(d[5] > 0) for d in draws} == {0, 1}
    want = np.array([slow.resampled(scores, targets, d) for d in draws])
    np.testing.assert_allclose(got["mean_ap"], want[:, 0], rtol=1e-12)
    np.testing.assert_allclose(got["mean_auc"], want[:, 1], rtol=1e-12)


def test_weights_of_one_are_the_plain_metric_and_counts_sum_to_the_clips():
    for draw in metrics.resample_counts(17, 3):
        assert draw.sum() == 17
    scores, targets = small()
    once = [np.ones((60, 2), np.int16)]
    ap, auc = metrics.ranking._ap_auc(scores[:, 4], targets[:, 4], once)
    want = metrics.tagging(scores=scores, targets=targets)
    np.testing.assert_allclose(ap, want["per_class_ap"][4], rtol=1e-14)
    np.testing.assert_allclose(auc, want["per_class_auc"][4], rtol=1e-14)


def test_the_interval_holds_the_estimate_and_covers_the_mean_of_new_test_sets():
    rng = np.random.default_rng(0)
    prior = np.geomspace(0.005, 0.05, 12)

    def fresh():
        targets = rng.random((500, 12)) < prior
        return (rng.standard_normal((500, 12)) + 2 * targets).astype(np.float32), targets

    estimates, intervals = [], []
    for seed in range(60):
        scores, targets = fresh()
        estimates.append(metrics.tagging(scores=scores, targets=targets)["mean_ap"])
        intervals.append(
            metrics.bootstrap(scores=scores, targets=targets, n=100, seed=seed)["mean_ap"]
        )
    low, high = np.array(intervals).T
    truth = np.mean(estimates)
    covered = np.mean((low <= truth) & (truth <= high))
    assert 0.85 <= covered <= 1.0, covered  # 95 % within three standard errors for 60 trials
    assert np.all((low <= estimates) & (estimates <= high))


def test_the_bootstrap_is_the_same_for_the_same_seed_and_perfect_scores_give_infinite_d_prime():
    scores, targets = small()
    one, two = (metrics.bootstrap(scores=scores, targets=targets, n=20, seed=1) for _ in range(2))
    assert one == two
    assert one != metrics.bootstrap(scores=scores, targets=targets, n=20, seed=2)
    perfect = metrics.bootstrap(scores=targets * 1.0, targets=targets, n=10)
    assert perfect["mean_ap"] == (1.0, 1.0)
    assert perfect["d_prime"] == (np.inf, np.inf)
    with pytest.raises(AsjaxError, match="level"):
        metrics.bootstrap(scores=scores, targets=targets, level=95)


def test_d_prime_is_the_published_conversion():
    auc = np.array([0.5, 0.75, 0.973, 1.0, np.nan])
    np.testing.assert_allclose(metrics.d_prime(auc), slow.d_prime(auc), rtol=1e-12)
    assert metrics.d_prime(0.973) == pytest.approx(2.725, abs=5e-4)  # PANNs' convention


def test_the_moving_average_chooses_the_centre_of_the_best_window():
    values = np.random.default_rng(0).random(40)
    assert choice.moving_average_best(values) == slow.moving_average_best(values, 7)
    assert choice.moving_average_best([1, 9, 1, 1, 5, 6, 5, 1, 1], window=3) == 5  # not the spike
    assert choice.moving_average_best([0.1, 0.4, 0.3, 0.6]) == 2  # width 3
    assert choice.moving_average_best([0.1, 0.4]) == 1  # width 1
    assert choice.moving_average_best([0.5]) == 0
    assert choice.moving_average_best([np.nan, 0.2, np.nan, 0.4]) == 1  # only centre with a value
    assert choice.moving_average_best([0.3, np.nan, 0.4]) == 2
    assert choice.moving_average_best([1.0, np.inf, 2.0, np.inf], window=1) == 1  # perfect d'
    for wrong in ([], [np.nan]):
        with pytest.raises(AsjaxError, match="at least one number"):
            choice.moving_average_best(wrong)


def test_audioset_sized_metrics_take_seconds():
    rng = np.random.default_rng(0)
    targets = rng.random((20371, 40)) < np.geomspace(3e-3, 0.3, 40)
    scores = (rng.standard_normal(targets.shape) + targets).astype(np.float32)
    start = time.perf_counter()
    metrics.bootstrap(scores=scores, targets=targets, n=100)
    assert time.perf_counter() - start < 20  # 0.1 s alone; 1,000 over 527 classes: 4 s


def test_only_what_is_asked_for_is_returned_and_computed(monkeypatch):
    """The trace of a training needs three means; it must not compute micro AP and LRAP."""
    scores, targets = small()
    whole = metrics.tagging(scores=scores, targets=targets)
    for key, value in whole.items():
        (found,) = metrics.tagging(scores=scores, targets=targets, only=[key]).items()
        assert found[0] == key
        np.testing.assert_array_equal(found[1], value)
    for name in ("_micro_ap", "_lrap"):
        monkeypatch.setattr(f"asjax.metrics.ranking.{name}", None)  # calling it would raise
    three = metrics.tagging(scores=scores, targets=targets, only=("d_prime", "mean_ap"))
    assert three == {key: whole[key] for key in ("mean_ap", "d_prime")}
    monkeypatch.setattr("asjax.metrics.ranking._per_class", None)
    assert metrics.tagging(scores=scores, targets=targets, only=("n_clips",)) == {"n_clips": 60}
    assert metrics.tagging(scores=scores, targets=targets, only=()) == {}
    with pytest.raises(AsjaxError, match="metric 'map' does not exist"):
        metrics.tagging(scores=scores, targets=targets, only=("map",))
