"""Scores as probabilities, against scikit-learn, scipy and naive float64."""

import numpy as np
import pytest
from scipy import special

from asjax import metrics

sk = pytest.importorskip("sklearn.metrics")


def logits(n=50, c=4, scale=3.0):
    return (np.random.default_rng(0).normal(size=(n, c)) * scale).astype(np.float32)


def test_a_softmax_is_kept_as_log_probabilities_and_a_sigmoid_as_logits():
    x = logits()
    assert metrics.as_scores(x) is x
    got = metrics.as_scores(x, "softmax")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.log(special.softmax(np.float64(x), axis=1)), rtol=1e-5)
    np.testing.assert_allclose(metrics.as_scores(got, "softmax"), got, rtol=1e-5, atol=1e-6)
    # a constant for each clip does not change a softmax, so it must not change its scores
    shifted = x + np.arange(50, dtype=np.float32)[:, None]
    np.testing.assert_allclose(metrics.as_scores(shifted, "softmax"), got, atol=1e-4)
    np.testing.assert_allclose(metrics.probabilities(got, "softmax").sum(axis=1), 1, rtol=1e-5)
    want = special.expit(np.float64(x))
    np.testing.assert_allclose(metrics.probabilities(x), want, rtol=3e-7)  # 2 steps of float32


def test_confident_clips_stay_apart_and_what_is_not_finite_stays_so():
    x = np.array([[60.0, 0, 0], [50.0, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0]], np.float32)
    got = metrics.as_scores(x, "softmax")
    assert got[0, 0] > got[1, 0]
    assert np.isfinite(got[:2]).all()
    assert not np.isfinite(got[2:]).all(axis=1).any()


@pytest.mark.parametrize("activation", metrics.ACTIVATIONS)
def test_log_both_is_exact_where_a_probability_rounds_to_one(activation):
    scores = metrics.as_scores(logits(), activation)
    p = metrics.probabilities(np.float64(scores), activation)
    for got, want in zip(metrics.log_both(scores, activation), (p, 1 - p), strict=True):
        np.testing.assert_allclose(got, np.log(want), rtol=1e-9)
    sure = {"sigmoid": 80.0, "softmax": -np.exp(-80.0)}[activation]
    low, high = metrics.log_both([[sure]], activation)
    assert (low[0, 0], high[0, 0]) == pytest.approx((-np.exp(-80.0), -80.0), rel=1e-9)
    assert np.isfinite(metrics.log_both([[0.0]], "softmax")).all()


def test_the_loss_of_each_activation_is_scikit_learns():
    x = logits()
    true = np.arange(50) % 4
    one_hot = np.eye(4)[true]
    got = metrics.log_loss(
        scores=metrics.as_scores(x, "softmax"), targets=one_hot, activation="softmax"
    )
    want = sk.log_loss(true, special.softmax(np.float64(x), axis=1))
    assert got == pytest.approx(want, rel=1e-6)
    several = np.random.default_rng(1).random((50, 4)) < 0.4
    got = metrics.log_loss(scores=x, targets=several)
    want = np.mean(
        [sk.log_loss(several[:, j], special.expit(np.float64(x[:, j]))) for j in range(4)]
    )
    assert got == pytest.approx(want, rel=1e-6)


def test_the_softmax_loss_of_clips_with_no_label_or_several_is_over_their_labels():
    scores = np.log(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))
    targets = np.array([[1, 0, 1], [0, 0, 0]])
    got = metrics.log_loss(scores=scores, targets=targets, activation="softmax")
    assert got == pytest.approx(-(np.log(0.5) + np.log(0.2)) / 2)
    assert np.isnan(metrics.log_loss(scores=scores, targets=0 * targets, activation="softmax"))
