"""Linear fits against scikit-learn's."""

import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.evaluation import linear

LogisticRegression = pytest.importorskip("sklearn.linear_model").LogisticRegression


def made(n=150, d=8, c=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * 10 ** rng.uniform(-2, 2, d) + rng.normal(size=d)
    true = ((x - x.mean(0)) / x.std(0)) @ rng.normal(size=(d, c)) + rng.normal(size=(n, c))
    return x, true


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_softmax_equals_scikit_learn(penalty):
    x, true = made()
    y = true.argmax(1)
    got = linear.fit(x, np.eye(3)[y], single_label=True, penalty=penalty)
    standard = (x - x.mean(0)) / x.std(0)
    want = LogisticRegression(C=1 / (penalty * len(x)), max_iter=5000, tol=1e-10).fit(standard, y)
    ours = got(x) - got(x).mean(1, keepdims=True)  # softmax does not determine a constant per clip
    theirs = want.decision_function(standard)
    np.testing.assert_allclose(ours, theirs - theirs.mean(1, keepdims=True), rtol=2e-3, atol=2e-3)


def test_sigmoids_equal_one_regression_per_class():
    x, true = made()
    y = (true > 1).astype(int)
    got = linear.fit(x, y, single_label=False, penalty=0.05)
    standard = (x - x.mean(0)) / x.std(0)
    for j in range(3):
        fit = LogisticRegression(C=1 / (0.05 * len(x)), max_iter=5000, tol=1e-10)
        want = fit.fit(standard, y[:, j]).decision_function(standard)
        np.testing.assert_allclose(got(x)[:, j], want, rtol=2e-3, atol=2e-3)


def test_a_constant_feature_and_separable_classes_are_no_trouble():
    x, true = made(n=40)
    x[:, 0] = 7.0
    y = np.eye(2)[(x[:, 1] > np.median(x[:, 1])).astype(int)]
    got = linear.fit(x, y, single_label=True, penalty=1e-4)
    assert np.isfinite(got(x)).all()
    assert (got(x).argmax(1) == y.argmax(1)).all()


def test_the_penalty_is_chosen_by_folds_that_keep_groups_together():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(30), 4)  # four clips of a recording share features, not its label
    x = rng.normal(size=(30, 60))[groups] + 0.01 * rng.normal(size=(120, 60))
    y = np.eye(2)[rng.integers(0, 2, 30)[groups]]
    accuracy = lambda s, t: float((s.argmax(1) == t.argmax(1)).mean())  # noqa: E731
    options = dict(single_label=True, score=accuracy)
    _, _, leaky = linear.fit_best(x, y, **options)
    _, penalty, honest = linear.fit_best(x, y, groups=groups, **options)
    assert leaky > 0.95  # the recording is recognised
    assert honest < 0.75  # labels are random, so there is nothing to learn
    assert penalty in linear.PENALTIES


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(AsjaxError, match="finite features"):
        linear.fit(np.full((3, 2), np.nan), np.eye(3), single_label=True)
    with pytest.raises(AsjaxError, match="needs x"):
        linear.fit(np.zeros((3, 2)), np.eye(2), single_label=True)
