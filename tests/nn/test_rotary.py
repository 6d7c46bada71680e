"""Rotated queries and keys: only the distance matters, padding has no effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.nn import rotary

KEYS = jax.random.split(jax.random.key(0), 4)


def test_products_depend_on_the_distance_alone():
    q, k = jax.random.normal(KEYS[0], (2, 8))
    rows = lambda x: jnp.broadcast_to(x, (1, 30, 1, 8))  # noqa: E731
    products = jnp.einsum("bqnd,bknd->qk", rotary.rotate(rows(q)), rotary.rotate(rows(k)))
    for shift in range(-29, 30):
        line = np.diagonal(products, shift)
        np.testing.assert_allclose(line, line[0], atol=1e-5)
    np.testing.assert_allclose(products[3, 3], q @ k, rtol=1e-5)
    assert np.ptp(products[0]) > 0.1


def test_rotation_is_that_of_complex_numbers():
    x = jax.random.normal(KEYS[1], (1, 5, 2, 6))
    got = np.asarray(rotary.rotate(x))
    for s in range(5):
        turn = np.exp(1j * s * 10_000.0 ** (-np.arange(3) / 3))
        want = (np.asarray(x[0, s, :, :3]) + 1j * np.asarray(x[0, s, :, 3:])) * turn
        np.testing.assert_allclose(got[0, s, :, :3] + 1j * got[0, s, :, 3:], want, atol=1e-6)


@pytest.mark.parametrize("width", [8, 64, 192])
def test_a_padded_batch_equals_single_clips(width):
    x = jax.random.normal(KEYS[2], (2, 12, 16))
    mask = jnp.arange(12)[None] < jnp.array([[12], [7]])
    module = rotary.Encoder(width, depth=2)
    variables = module.init(KEYS[3], x)
    out = module.apply(variables, x, mask)
    assert out.shape == (2, 12, width)
    np.testing.assert_allclose(out[1, :7], module.apply(variables, x[1:, :7])[0], atol=1e-5)
    changed = module.apply(variables, x.at[1, 8].add(1), mask)
    np.testing.assert_allclose(changed[1, :7], out[1, :7], atol=1e-6)
    assert ("input" in variables["params"]) == (width != 16)


def test_odd_widths_are_refused():
    with pytest.raises(AsjaxError, match="above 64 a multiple of 64, got 101"):
        jax.eval_shape(lambda: rotary.Encoder(101).init(KEYS[0], jnp.zeros((1, 3, 4))))
