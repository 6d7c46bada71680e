"""The train step: skipped steps, equal results on all devices, averages."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from asjax import build, objectives, sharding, step
from asjax import nn as asjax_nn
from asjax.config import AsjaxError


class Net(nn.Module):
    @nn.compact
    def __call__(self, feats, *, train=False, augment=None):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(feats.mean(1))
        return {"logits": nn.Dense(3)(x)}


def frontend(wave):
    return wave.reshape(wave.shape[0], 4, -1)


@pytest.fixture
def parts():
    model, tx = Net(), optax.adam(1e-2)
    create = partial(
        step.init_state, model=model, frontend=frontend, tx=tx, wave_shape=(8, 40), average=True
    )
    objective = objectives.tagging(model=model, frontend=frontend)
    average = build.make("average", dict(name="ema", decay=0.5))
    return create, step.make_train_step(objective=objective, tx=tx, average=average)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "wave": rng.normal(size=(8, 40)).astype(np.float32),
        "target": (rng.uniform(size=(8, 3)) > 0.5).astype(np.float32),
        "mask": np.ones(8, np.float32),
    }


def plain(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def arrays(tree):
    return [plain(x) for x in jax.tree.leaves(tree)]


def test_a_non_finite_step_changes_only_the_counters_on_every_device(parts):
    create, train_step = parts
    mesh = sharding.make_mesh(dict(data=2))
    state = jax.jit(create, out_shardings=sharding.replicated(mesh))(jax.random.key(0))
    run = jax.jit(train_step, out_shardings=(sharding.replicated(mesh), sharding.replicated(mesh)))
    state, _ = run(state, sharding.place(mesh, batch()))
    bad = batch(1)
    bad["wave"][7, 3] = np.nan  # the second device's half
    after, scalars = run(state, sharding.place(mesh, bad))
    for name in ("params", "stats", "opt", "average", "rng"):
        for a, b in zip(arrays(getattr(state, name)), arrays(getattr(after, name)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert int(after.step) == 2
    assert [int(n) for n in after.nonfinite] == [1, 1]
    assert int(scalars["nonfinite_in_a_row"]) == 1
    good, _ = run(after, sharding.place(mesh, batch(2)))
    assert [int(n) for n in good.nonfinite] == [1, 0]
    moved = zip(arrays(good.params), arrays(after.params), strict=True)
    assert any((a != b).any() for a, b in moved)


def test_one_and_two_devices_take_the_same_step(parts):
    create, train_step = parts
    results = []
    for n in (1, 2):
        mesh = sharding.make_mesh(dict(data=n))
        state = jax.jit(create, out_shardings=sharding.replicated(mesh))(jax.random.key(0))
        run = jax.jit(train_step)
        for k in range(3):
            state, scalars = run(state, sharding.place(mesh, batch(k)))
        results.append((float(scalars["loss"]), arrays(state.params)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_step_k_does_not_depend_on_how_the_run_got_there(parts):
    """The random key depends only on (seed, step), so a restored state continues bit for bit."""
    create, train_step = parts
    run = jax.jit(train_step)
    straight = create(jax.random.key(0))
    for k in range(4):
        straight, _ = run(straight, batch(k))
        if k == 1:
            resumed = straight  # nothing is donated here, so it is not changed
    for k in (2, 3):
        resumed, _ = run(resumed, batch(k))
    for a, b in zip(arrays(straight), arrays(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_rate_among_the_scalars_is_the_one_that_moved_the_weights():
    """Plain gradient descent moves by rate x gradient; skipped steps do not advance the rate."""
    rate = lambda updates: 0.4 / (1 + updates)  # noqa: E731
    model, tx = Net(), optax.sgd(rate)
    create = partial(
        step.init_state, model=model, frontend=frontend, tx=tx, wave_shape=(8, 40), average=False
    )
    objective = objectives.tagging(model=model, frontend=frontend)
    run = jax.jit(step.make_train_step(objective=objective, tx=tx, lr=rate))
    state, rates = create(jax.random.key(0)), []
    for k, fine in enumerate([True, False, False, True, False, True]):
        given = batch(k)
        if not fine:
            given["wave"][0, 0] = np.inf
        new, scalars = run(state, given)
        moved = jax.tree.map(lambda a, b: a - b, new.params, state.params)
        used = optax.tree.norm(moved) / scalars["grad_norm"]
        if fine:
            assert float(scalars["lr"]) == pytest.approx(float(used), rel=1e-4)
        rates.append(float(scalars["lr"]))
        state = new
    np.testing.assert_allclose(rates, [0.4, 0.2, 0.2, 0.2, 0.4 / 3, 0.4 / 3], rtol=1e-6)


# ----------------------------------------------------------------------- a batch in parts


class Plain(nn.Module):
    """A model without batch norm, so that rows do not affect each other."""

    @nn.compact
    def __call__(self, feats, *, train=False, augment=None):
        return {"logits": nn.Dense(3)(nn.tanh(nn.Dense(8)(feats.reshape(feats.shape[0], -1))))}


def stepped(model, accumulate, devices, batches, form="cpu", **options):
    """(scalars of each step, final state)"""
    tx = optax.adam(1e-2)
    create = partial(
        step.init_state, model=model, frontend=frontend, tx=tx, wave_shape=(8, 40), average=True
    )
    objective = objectives.tagging(model=model, frontend=frontend, **options)
    train_step = step.make_train_step(
        objective=objective,
        tx=tx,
        average=build.make("average", dict(name="ema", decay=0.5)),
        accumulate=accumulate,
    )
    mesh, seen = sharding.make_mesh(dict(data=devices)), []
    state = jax.jit(create, out_shardings=sharding.replicated(mesh))(jax.random.key(0))
    with asjax_nn.forms(form):
        run = jax.jit(train_step)
        for given in batches:
            state, scalars = run(state, sharding.place(mesh, given))
            seen.append({name: float(x) for name, x in scalars.items()})
    return seen, state


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("form", ["cpu", "accelerator"])
@pytest.mark.parametrize(("accumulate", "devices"), [(8, 1), (2, 2), (4, 2)])
def test_a_step_in_parts_equals_the_whole_step(accumulate, devices, form, masked):
    batches = [batch(k) for k in range(3)]
    if masked:  # parts with different numbers of real rows, one without any
        for given in batches:
            given["mask"][[0, 4, 5]] = 0
    whole, expected = stepped(Plain(), 1, 1, batches)
    parts, found = stepped(Plain(), accumulate, devices, batches, form)
    for a, b in zip(whole, parts, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=1e-5), name
    for a, b in zip(arrays(expected), arrays(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_running_statistics_move_once_for_every_part():
    """Flax's momentum 0.9 twice: weights 0.81 (old), 0.09 (first part), 0.1 (second part)."""
    given = batch()
    _, state = stepped(Net(), 2, 1, [given])
    means = [given["wave"][j::2].reshape(4, 4, 10).mean((0, 1)) for j in range(2)]
    found = state.stats["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(found, 0.09 * means[0] + 0.1 * means[1], atol=1e-6)


def test_every_part_draws_from_a_key_of_its_own():
    keys = []

    def objective(params, stats, batch, rng):
        keys.append(jax.random.key_data(rng))
        return params["w"] * jax.random.normal(rng), ({}, {})

    compute = step.accumulated(objective, 2)
    given = {"wave": jnp.zeros((4, 1)), "mask": jnp.ones(4)}
    key = jax.random.key(3)
    _, grads = compute({"w": jnp.ones(())}, {}, given, key)
    drawn = [jax.random.normal(jax.random.fold_in(key, j)) for j in range(2)]
    np.testing.assert_allclose(grads["w"], np.mean(drawn), rtol=1e-6)


def test_a_non_finite_part_skips_the_whole_step():
    bad = batch()
    bad["wave"][5, 3] = np.inf
    (scalars,), state = stepped(Plain(), 4, 1, [bad])
    assert scalars["nonfinite_in_a_row"] == 1
    _, fresh = stepped(Plain(), 4, 1, [])
    for a, b in zip(arrays(state.params), arrays(fresh.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("accumulate", "devices", "words"),
    [
        (3, 1, "batch_size 8 must be a multiple of accumulate_steps=3 times the 1 devices"),
        (8, 2, "batch_size 8 must be a multiple of accumulate_steps=8 times the 2 devices"),
        (0, 1, "accumulate_steps must be a whole number >= 1, got 0"),
        (2.0, 1, "accumulate_steps must be a whole number >= 1, got 2.0"),
    ],
)
def test_rows_that_cannot_be_divided_are_one_clear_error(accumulate, devices, words):
    with pytest.raises(AsjaxError, match=words):
        stepped(Plain(), accumulate, devices, [batch()])


def test_on_cpus_parts_are_no_loop_and_on_accelerators_they_are():
    mesh = sharding.make_mesh("data=2")
    objective = objectives.tagging(model=Plain(), frontend=frontend)
    tx = optax.sgd(1e-2)
    run = jax.jit(step.make_train_step(objective=objective, tx=tx, accumulate=4))
    create = partial(
        step.init_state, model=Plain(), frontend=frontend, tx=tx, wave_shape=(8, 40), average=False
    )
    state = jax.jit(create, out_shardings=sharding.replicated(mesh))(jax.random.key(0))
    args = state, sharding.place(mesh, batch())
    text = run.lower(*args).compile().as_text()
    before, entry = text.split("\nENTRY ")
    assert "all-reduce" in entry
    assert " all-reduce(" not in before
    assert "stablehlo.while" not in run.lower(*args).as_text()
    with asjax_nn.forms("accelerator"):
        assert run.lower(*args).as_text().count("stablehlo.while") == 1
