"""The counter of FLOPs against counts by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from asjax.nn import flops


def test_products_and_convolutions_are_counted_as_by_hand():
    class Small(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):  # x [B, T, F]
            x = nn.Conv(8, (3, 5), strides=(2, 1))(x[..., None])  # [B, T/2, F, 8]
            x = nn.Conv(8, (3, 3), feature_group_count=4)(x)  # each output hears 2 channels
            return nn.Dense(7)(x.mean(axis=(1, 2)))

    module, feats = Small(), jax.ShapeDtypeStruct((1, 20, 16), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), feats)
    by_hand = 10 * 16 * 8 * (3 * 5) + 10 * 16 * 8 * (3 * 3 * 2) + 8 * 7
    assert flops.count(module.apply, variables, feats) == 2 * by_hand


def test_every_step_of_a_loop_is_counted():
    def loop(a, x):  # five products of [4, 4] and [4, 3], and one outside
        y, _ = jax.lax.scan(lambda y, _: (a @ y, None), x, None, length=5)
        return a @ y

    a, x = jnp.ones((4, 4)), jnp.ones((4, 3))
    assert flops.count(loop, a, x) == 6 * 2 * 4 * 4 * 3
