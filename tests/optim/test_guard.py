"""The guard against non-finite steps."""

import jax
import jax.numpy as jnp
import numpy as np

from asjax.optim import guard


def test_a_non_finite_leaf_is_seen_and_the_old_tree_is_kept_bit_for_bit():
    old = {"w": jnp.arange(3.0), "key": jax.random.key(1), "n": jnp.int32(4)}
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        new = {"w": jnp.array([0.0, bad, 1.0]), "key": jax.random.key(2), "n": jnp.int32(5)}
        kept = jax.jit(lambda n: guard.select(guard.all_finite(n), n, old))(new)
        assert np.array_equal(kept["w"], old["w"])
        assert kept["n"] == 4
        assert np.array_equal(jax.random.key_data(kept["key"]), jax.random.key_data(old["key"]))
    assert guard.all_finite(old)
    assert guard.all_finite({"n": jnp.int32(1)})
    taken = guard.select(guard.all_finite(old), {**old, "n": jnp.int32(9)}, old)
    assert taken["n"] == 9


def test_integers_and_keys_are_never_taken_for_numbers_that_are_not_finite():
    assert guard.all_finite({"n": jnp.int32(2**31 - 1), "key": jax.random.key(0)})
    assert guard.floating(jnp.bfloat16(1))
    assert guard.floating(1.5)
    assert not guard.floating(jnp.int8(1))
    assert not guard.floating(3)
