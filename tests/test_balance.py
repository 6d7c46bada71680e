"""Balancing against the papers' numbers and naive loops; also empty clips and classes."""

import time

import numpy as np
import pytest
from scipy import sparse

from asjax import balance
from asjax.config import AsjaxError

BETAS = ("0", "0.1", "0.2", "0.3", "0.5", "0.7", "1")


@pytest.fixture(scope="module")
def case(golden):
    manifest, arrays = golden("balance_cases")
    return manifest, arrays, np.unpackbits(arrays["labels"], axis=1, count=60).astype(bool)


def long_tailed(clips=300, classes=12, seed=0):
    """Dense labels with a long tail, some clips without labels and one class without clips."""
    rng = np.random.default_rng(seed)
    labels = rng.random((clips, classes)) < 0.5 / np.arange(1, classes + 1) ** 1.5
    labels[:, 7] = False
    return labels


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, sparse.csc_matrix])
def test_oversampling_matches_the_golden_cases(case, beta, form):
    manifest, arrays, dense = case
    labels, expected = form(dense.astype(np.int8)), manifest["by_beta"][beta]
    copies = balance.oversampling(labels, float(beta))
    assert copies.dtype == np.int64
    np.testing.assert_array_equal(copies, arrays[f"M_{beta}"])
    assert copies.sum() == expected["sum_M"]
    counts = balance.effective_counts(labels, copies)
    np.testing.assert_array_equal(counts, (dense * copies[:, None]).sum(axis=0))
    assert balance.imbalance_ratio(counts) == pytest.approx(expected["imbalance_ratio"], rel=1e-12)
    assert balance.gini(counts) == pytest.approx(expected["gini"], rel=1e-12)


def test_class_statistics_match_the_golden_cases(case):
    manifest, arrays, dense = case
    counts = balance.counts(dense)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, arrays["class_counts"])
    np.testing.assert_array_equal(balance.priors(dense), counts / 4000)
    assert balance.imbalance_ratio(counts) == manifest["imbalance_ratio"]
    assert balance.gini(balance.priors(dense)) == pytest.approx(
        manifest["gini_equation_3"], rel=1e-12
    )


@pytest.mark.parametrize("split", ["unbalanced_train", "balanced_train", "eval"])
def test_official_counts_give_the_published_imbalance(golden, split):
    expected = golden("audioset_counts")[0]["splits"][split]
    for when, suffix in (("counts", ""), ("counts_after", "_after")):
        counts = np.array(expected[when])
        rho = expected[f"imbalance_ratio{suffix}"]
        gini = expected["gini_after" if suffix else "gini_equation_3"]
        assert balance.imbalance_ratio(counts) == pytest.approx(rho, rel=1e-12)
        assert balance.gini(counts) == pytest.approx(gini, rel=1e-10)


def test_textbook_gini_is_the_mean_difference_and_one_over_c_larger():
    p = np.random.default_rng(0).random(40) ** 4
    differences = np.abs(p[:, None] - p[None, :]).mean() / (2 * p.mean())
    assert balance.gini(p, textbook=True) == pytest.approx(differences, rel=1e-12)
    assert balance.gini(p) == pytest.approx(differences - 1 / 40, rel=1e-12)
    assert balance.gini(np.full(527, 3), textbook=True) == pytest.approx(0.0, abs=1e-12)


def test_clip_factor_is_the_largest_inverse_prior_of_the_clip():
    labels = long_tailed()
    prior = labels.mean(axis=0)
    for beta in (0.0, 0.4, 1.0):
        naive = [max(((1 / p) ** beta for p in prior[row]), default=None) for row in labels]
        least = min(m for m in naive if m is not None)
        expected = [least if m is None else m for m in naive]
        np.testing.assert_allclose(balance.clip_factor(labels, beta), expected, rtol=1e-14)


def test_a_clip_without_a_label_is_drawn_once_and_changes_no_other():
    labels = long_tailed()
    empty = ~labels.any(axis=1)
    assert empty.sum() > 50
    copies = balance.oversampling(labels, 1.0)
    assert (copies[empty] == 1).all()
    assert copies.max() > 5
    np.testing.assert_array_equal(copies[~empty], balance.oversampling(labels[~empty], 1.0))
    assert (balance.passt_weights(labels)[empty] == 0).all()
    only_empty = np.zeros((4, 3), bool)
    assert balance.oversampling(only_empty, 1.0).tolist() == [1, 1, 1, 1]
    assert balance.clip_factor(sparse.csr_array(only_empty), 0.0).tolist() == [1, 1, 1, 1]
    assert balance.oversampling(np.zeros((0, 3)), 0.5).shape == (0,)


def test_ties_round_half_to_even():
    labels = np.zeros((17, 3), int)  # counts 10, 4 and 3: 10/4 = 2.5 rounds to 2, 10/3 to 3
    labels[:10, 0] = labels[10:14, 1] = labels[14:, 2] = 1
    assert balance.oversampling(labels, 1.0)[[0, 10, 14]].tolist() == [1, 2, 3]
    labels = np.zeros((9, 2), int)  # 7/2 = 3.5 rounds to 4
    labels[:7, 0] = labels[7:, 1] = 1
    assert balance.oversampling(labels, 1.0)[[0, 7]].tolist() == [1, 4]


def test_absent_classes_leave_rho_finite_and_count_in_gini():
    assert balance.imbalance_ratio([0, 2, 8]) == 4.0
    assert np.isnan(balance.imbalance_ratio([0, 0]))
    assert balance.gini([0, 5]) == pytest.approx(1 - 2 * 5 / (2 * 5))
    assert np.isnan(balance.gini([0, 0]))
    counts = balance.effective_counts(long_tailed(), np.full(300, 2))
    assert counts[7] == 0
    assert np.isfinite(balance.panns_weights(long_tailed())).all()


def test_sampling_weights_equal_the_published_formulas():
    labels = long_tailed()
    counts = labels.sum(axis=0)
    for weights, term in (
        (balance.passt_weights, lambda n: 1000 / (n + 100)),
        (balance.ast_weights, lambda n: 1000 / (n + 0.01)),
        (balance.panns_weights, lambda n: 1 / n),
    ):
        naive = [sum(term(counts[k]) for k in np.flatnonzero(row)) for row in labels]
        np.testing.assert_allclose(weights(labels), naive, rtol=1e-13)
        np.testing.assert_array_equal(weights(sparse.csr_array(labels)), weights(labels))
    # One draw per class and cycle, so the expected draws add up to the number of present classes.
    assert balance.panns_weights(labels).sum() == pytest.approx((counts > 0).sum())


def test_explicit_zeros_and_repeats_in_sparse_labels_do_not_count():
    messy = sparse.csr_array(
        (np.array([1, 1, 0, 1], np.int8), np.array([0, 0, 1, 1]), np.array([0, 3, 4])), shape=(2, 2)
    )
    assert balance.counts(messy).tolist() == [1, 1]
    assert messy.nnz == 4  # the caller's array is not changed


def test_weights_give_expected_counts_in_float():
    labels = long_tailed()
    weights = balance.clip_factor(labels, 0.5)
    np.testing.assert_allclose(
        balance.effective_counts(labels, weights), (labels * weights[:, None]).sum(axis=0)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balance.oversampling(np.eye(2), -0.1), "beta must be a finite number"),
        (lambda: balance.oversampling(np.eye(2), float("nan")), "beta must be a finite number"),
        (lambda: balance.clip_factor(np.eye(2), "1"), "beta must be a finite number"),
        (lambda: balance.counts(np.ones(3)), "must be .N, C., got shape"),
        (lambda: balance.priors(np.zeros((0, 3))), "at least one clip"),
        (lambda: balance.effective_counts(np.eye(2), [1]), r"one per clip \(2\)"),
        (lambda: balance.gini([1, -1]), "non-negative"),
        (lambda: balance.gini([]), "non-negative"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(AsjaxError, match=message):
        call()


def test_two_million_clips_take_a_moment():
    rng = np.random.default_rng(0)
    clips, labels = 2_063_949, 4_073_094
    prior = 1.0 / np.arange(1, 528) ** 1.2
    classes = rng.choice(527, labels, p=prior / prior.sum()).astype(np.int32)
    rows = np.sort(rng.integers(0, clips, labels, dtype=np.int32))
    table = sparse.csr_array(
        sparse.coo_array((np.ones(labels, np.int8), (rows, classes)), shape=(clips, 527))
    )
    start = time.perf_counter()
    copies = balance.oversampling(table, 1.0)
    assert time.perf_counter() - start < 5.0  # 0.3 s on an idle core
    assert copies.shape == (clips,)
    assert copies.min() == 1
