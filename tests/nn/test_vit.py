"""The shared encoder: stacked layers, stochastic depth, patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.nn import vit

KEYS = jax.random.split(jax.random.key(0), 8)


def _close(a, b, tolerance=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=1e-4), a, b)


def test_scan_and_remat_change_no_number_and_no_parameter():
    x = jax.random.normal(KEYS[0], (2, 6, 16))
    results, trees = [], []
    for scan in (True, False):
        for remat in (True, False):
            encoder = vit.Encoder(
                3, 2, 32, drop_path=0.3, dropout=0.1, scan_layers=scan, remat=remat
            )
            variables = encoder.init(KEYS[1], x)
            trees.append(jax.tree.map(jnp.shape, variables))

            def loss(variables, encoder=encoder):
                out = encoder.apply(variables, x, train=True, rngs={"dropout": KEYS[2]})
                return (out * jnp.cos(out)).sum()

            results.append(jax.value_and_grad(loss)(variables))
    assert all(tree == trees[0] for tree in trees)
    for result in results[1:]:
        _close(results[0], result, 1e-5)


def test_collect_gives_every_block_and_they_are_chained():
    x = jax.random.normal(KEYS[0], (1, 4, 8))
    encoder = vit.Encoder(3, 2, 16)
    variables = encoder.init(KEYS[1], x)
    out, every = encoder.apply(variables, x, collect=True)
    np.testing.assert_array_equal(out, every[-1])
    one = vit.Encoder(1, 2, 16)
    slice_of = lambda i: jax.tree.map(lambda a: a[i : i + 1], variables)  # noqa: E731
    for i in range(3):
        _close(one.apply(slice_of(i), x if i == 0 else every[i - 1]), every[i])


def test_stochastic_depth_drops_whole_branches_at_its_rate():
    x = jnp.ones((4000, 1, 4))
    block = vit.Block(1, 4, stochastic_depth=True, train=True)
    rate = jnp.float32(0.25)
    variables = block.init({"params": KEYS[0], "dropout": KEYS[1]}, x, rate)
    # biases are one and weights zero: each branch adds exactly 1, or 1 / 0.75 if it is kept
    variables = jax.tree.map(jnp.zeros_like, variables)
    variables["params"]["attn"]["proj"]["bias"] += 1
    variables["params"]["mlp"]["fc2"]["bias"] += 1
    y, _ = block.apply(variables, x, rate, rngs={"dropout": KEYS[2]})
    added = np.asarray((y - x)[:, 0, 0] * 0.75)
    assert set(np.round(added, 4)) == {0.0, 1.0, 2.0}
    assert abs(added.mean() / 2 - 0.75) < 0.02


@pytest.mark.parametrize(("stride", "size"), [((16, 16), (40, 50)), ((10, 7), (33, 64))])
def test_patches_equal_a_convolution(stride, size):
    x = jax.random.normal(KEYS[0], (2, *size))
    patches = vit.Patches(8, (16, 16), stride)
    variables = patches.init(KEYS[1], x)
    want = jax.lax.conv_general_dilated(
        x[..., None],
        variables["params"]["kernel"],
        stride,
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    bias = variables["params"]["bias"]
    _close(patches.apply(variables, x), want + bias[None, None, None], 1e-5)


def test_a_width_that_the_heads_do_not_divide_is_one_line():
    with pytest.raises(AsjaxError, match="width 10 must be a multiple of heads=3"):
        vit.Attention(3).init(KEYS[0], jnp.zeros((1, 2, 10)))
