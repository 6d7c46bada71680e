"""Averages of weights against float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from asjax import build
from asjax.optim import averages


def test_ema_equals_float64():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 4)).astype(np.float32)
    ema, naive = {"params": {"w": values[0], "n": jnp.int32(0)}, "count": 0}, np.float64(values[0])
    run = averages.ema(decay=0.95)
    for step, value in enumerate(values):
        ema = run(ema, {"params": {"w": value, "n": jnp.int32(step)}}, step)
        d = min(0.95, (1 + step) / (10 + step))
        naive = d * naive + (1 - d) * np.float64(value)
    np.testing.assert_allclose(ema["params"]["w"], naive, rtol=1e-5, atol=1e-6)
    assert ema["params"]["n"] == 199
    assert ema["count"] == 200


def test_swa_equals_the_float64_mean():
    values = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    average = {"params": np.full(6, np.float32(1e3)), "count": jnp.int32(0)}
    for step, value in enumerate(values):
        average = averages.swa()(average, {"params": value}, jnp.int32(step))
    np.testing.assert_allclose(average["params"], np.float64(values).mean(0), rtol=1e-4, atol=1e-5)


def test_swa_is_the_equal_mean_of_the_weights_from_its_start():
    average = build.make("average", dict(name="swa", start_step=2, every_steps=2))
    state = {"params": jnp.zeros(2), "stats": {}, "count": jnp.zeros((), jnp.int32)}
    seen = []
    for k in range(7):
        value = np.array([k * k, -k], np.float64)
        new = {"params": jnp.asarray(value, jnp.float32), "stats": {}}
        state = average(state, new, jnp.int32(k))
        if k >= 2 and k % 2 == 0:
            seen.append(value)
        expected = np.mean(seen, 0) if seen else value
        np.testing.assert_allclose(state["params"], expected, rtol=1e-6)


def test_an_unknown_average_lists_the_known_ones():
    with pytest.raises(ValueError, match="ema, swa"):
        build.make("average", "polyak")
    with pytest.raises(ValueError, match="did you mean 'decay'"):
        build.make("average", dict(name="ema", decai=0.9))
