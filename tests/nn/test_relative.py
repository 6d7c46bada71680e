"""Gated relative attention: the authors' buckets, both forms, their gradients, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax.nn import relative

KEYS = jax.random.split(jax.random.key(0), 8)


def test_every_distance_has_the_authors_bucket(golden):
    manifest, _ = golden("sed_beats_buckets")
    np.testing.assert_array_equal(relative.buckets(1001, 320, 800), manifest["buckets"])


def test_each_query_and_key_gets_the_row_of_their_distance():
    table = np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32)
    by_distance = relative.buckets(20, 32, 80)
    bias = np.asarray(relative.position_bias(jnp.asarray(table), 20, 80))
    assert bias.shape == (3, 20, 20)
    for q in range(20):
        for k in range(20):
            np.testing.assert_array_equal(bias[:, q, k], table[by_distance[k - q + 19]])
    assert relative.position_bias(jnp.asarray(table), 1, 80).shape == (3, 1, 1)


def _inputs(tokens=11, heads=3):
    q, k, v = (jax.random.normal(key, (2, tokens, heads, 4)) for key in KEYS[:3])
    gate = 1 + jax.random.uniform(KEYS[3], (2, tokens, heads))
    return q, k, v, gate, jax.random.normal(KEYS[4], (heads, tokens, tokens))


def _naive(q, k, v, gate, position):
    q, k, v, gate, position = (np.asarray(x, np.float64) for x in (q, k, v, gate, position))
    scores = np.einsum("bqnd,bknd->bnqk", q, k) / np.sqrt(q.shape[-1])
    scores = scores + gate.transpose(0, 2, 1)[..., None] * position
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    return np.einsum("bnqk,bknd->bqnd", weights, v)


@pytest.mark.parametrize("limit", [2**25, 0])
def test_both_forms_equal_float64_numpy_and_have_one_gradient(limit, monkeypatch):
    inputs = _inputs()
    loss = lambda *x: jnp.sin(relative.attend(*x)).sum()  # noqa: E731
    want = jax.grad(loss, range(5))(*inputs)  # small enough for one call
    monkeypatch.setattr(relative, "AT_ONCE", limit)
    np.testing.assert_allclose(relative.attend(*inputs), _naive(*inputs), atol=2e-6)
    for got, expected in zip(jax.jit(jax.grad(loss, range(5)))(*inputs), want, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_head_by_head_no_array_holds_all_scores(monkeypatch):
    """Neither forward nor backward make an array with the scores of all 24 heads."""
    monkeypatch.setattr(relative, "AT_ONCE", 0)
    inputs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in _inputs(tokens=64, heads=24)]
    loss = lambda *x: jnp.sin(relative.attend(*x)).sum()  # noqa: E731
    compiled = jax.jit(jax.grad(loss, range(5))).lower(*inputs).compile()
    scores = 2 * 24 * 64 * 64 * 4  # bytes
    position = 24 * 64 * 64 * 4  # read, and its gradient written
    assert compiled.memory_analysis().temp_size_in_bytes < scores + position


@pytest.mark.parametrize("limit", [2**25, 0])
def test_dropout_draws_and_keeps_the_mean(limit, monkeypatch):
    monkeypatch.setattr(relative, "AT_ONCE", limit)
    inputs = _inputs()
    drop = jax.jit(lambda key: relative.attend(*inputs, dropout=0.3, rng=key))
    a, b = drop(KEYS[5]), drop(KEYS[6])
    assert not np.allclose(a, b)
    np.testing.assert_array_equal(a, drop(KEYS[5]))
    mean = np.mean([drop(key) for key in jax.random.split(KEYS[7], 400)], 0)
    np.testing.assert_allclose(mean, _naive(*inputs), atol=0.25)
    weak = relative.attend(*inputs, dropout=1e-7, rng=KEYS[5])
    np.testing.assert_allclose(weak, _naive(*inputs), atol=1e-5)
