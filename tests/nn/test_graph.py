"""The forms for files of operations, against numpy and against the other forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from asjax import nn
from asjax.nn import attention, graph, layers, ops, overlap

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def test_gelu_softmax_and_norm_are_those_of_float64():
    x, scale, bias = draw(2, 3, 8), draw(1, 1, 8), draw(1, 1, 8)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(graph.graph_gelu(x), wide * ndtr(wide), atol=1e-6)
    e = np.exp(wide - wide.max(-1, keepdims=True))
    np.testing.assert_allclose(graph.graph_softmax(x), e / e.sum(-1, keepdims=True), atol=1e-6)
    normed = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-3)
    found = graph.graph_layer_norm(x, scale, bias, 1e-3)
    np.testing.assert_allclose(found, normed * scale + bias, atol=1e-5)


@pytest.mark.parametrize("more", [(), ("bias",), ("mask",), ("bias", "mask")])
def test_attention_is_that_of_the_loop_over_heads(more):
    q, k, v = draw(2, 5, 3, 4), draw(2, 6, 3, 4), draw(2, 6, 3, 4)
    extras = {"bias": draw(1, 3, 5, 6), "mask": RNG.uniform(size=(2, 1, 5, 6)) > 0.3}
    extras = {name: jnp.asarray(extras[name]) for name in more}
    expected = attention.attend(*map(jnp.asarray, (q, k, v)), **extras)
    with nn.forms("graph"):
        found = attention.attend(*map(jnp.asarray, (q, k, v)), **extras)
    np.testing.assert_allclose(found, expected, atol=1e-5)


CASES = {
    "pool": lambda x: layers.avg_pool(x, (2, 3)),
    "gelu product": lambda x: ops.product(x, jnp.ones((8, 2)), gelu=True),
    "patches": lambda x: layers.PatchConv(5, (2, 3)).apply({"params": PATCH}, x),
    "overlap": lambda x: overlap.correlate(x[:, :, 0], KERNEL, 2),
}
PATCH = {"kernel": draw(2, 3, 8, 5), "bias": draw(5)}
KERNEL = jnp.asarray(draw(4, 4, 6))


@pytest.mark.parametrize("case", CASES)
def test_a_layer_has_one_value_in_both_forms(case):
    x = jnp.asarray(draw(2, 9, 7, 8))
    expected = CASES[case](x)
    with nn.forms("graph"):
        found = CASES[case](x)
    np.testing.assert_allclose(found, expected, atol=2e-5)
