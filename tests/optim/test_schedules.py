"""Schedules against torch and the references' formulas.

The goldens `lr_schedule_*` are the float64 rates of YuanGongND/ast's training loop, replayed with
torch's MultiStepLR. test_optim.py writes `optim_schedules.npz`.
"""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from asjax import build
from asjax.config import AsjaxError
from asjax.optim import schedules

GOLDEN = Path(__file__).parent.parent / "golden"


def made(spec, **extra):
    return build.make("optim", spec, **{"total_steps": 20, "steps_per_epoch": 5, **extra})


def test_one_cycle_rate_equals_torch():
    wanted = np.load(GOLDEN / "optim_schedules.npz")
    for total in (20, 1000):
        _, lr = made(dict(name="adam", lr=1e-3, schedule="one_cycle"), total_steps=total)
        got = jax.vmap(lr)(jnp.arange(total))
        np.testing.assert_allclose(got, wanted[f"one_cycle_lr_{total}"], rtol=5e-6)
        _, beta = schedules.build("one_cycle", total_steps=total)
        forget = jax.vmap(beta)(jnp.arange(total, dtype=jnp.float32))
        np.testing.assert_allclose(1 - forget, wanted[f"one_cycle_b1_{total}"], rtol=1e-6)
    assert wanted["one_cycle_b1_1000"].min() < 0.8501
    assert wanted["one_cycle_b1_1000"][-1] == pytest.approx(0.95)


@pytest.mark.parametrize("name", ["lr_schedule_full", "lr_schedule_short_epochs"])
@pytest.mark.parametrize("own_epoch", [False, True])
def test_warmup_step_equals_the_loop_of_ast(golden, name, own_epoch):
    """The length of an epoch comes from the data, or from the schedule if it gives one."""
    manifest, arrays = golden(name)
    given, wanted = manifest["input"], arrays["lr"]
    assert len(wanted) == given["steps_per_epoch"] * given["epochs"]
    fields = f"milestones={given['milestones']}, factor={given['gamma']}"
    if own_epoch:
        fields += f", epoch_steps={given['steps_per_epoch']}"
    spec = dict(name="adam", lr=given["base_lr"], schedule=f"warmup_step({fields})")
    _, lr = made(spec, steps_per_epoch=77 if own_epoch else given["steps_per_epoch"])
    np.testing.assert_allclose(jax.vmap(lr)(jnp.arange(len(wanted))), wanted, rtol=1e-6)


@pytest.mark.parametrize("case", range(4))
def test_cosine_is_pretrained_seds(golden, case):
    """A warm-up longer than the run, a bug of the authors' script, is a `warmup` alone."""
    given = golden("sed_optim")[0]["cosine_schedule"]["cases"][case]
    spec = dict(name="adam", lr=1.0, schedule=f"cosine(warmup_steps={given['warmup']})")
    if given["warmup"] > given["total"]:
        with pytest.raises(AsjaxError, match="warmup_steps must be in"):
            made(spec, total_steps=given["total"])
        spec["schedule"] = f"warmup(steps={given['warmup']})"
    _, lr = made(spec, total_steps=given["total"])
    for step, want in given["points"]:
        # float64 1 + cos loses digits near the end; sin^2 does not
        assert float(lr(step)) == pytest.approx(want, rel=1e-6, abs=1e-16)


def naive_passt(epoch):
    if epoch < 5:
        return math.exp(-5 * (1 - max(epoch, 0.5) / 5) ** 2)
    return 1 - 0.99 * min(max(epoch - 50, 0) / 50, 1)


def naive_cosine(step):
    if step < 5:
        return step / 5
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 5) / 15))


@pytest.mark.parametrize(
    ("schedule", "naive", "steps"),
    [
        ("constant", lambda s: 1.0, 30),
        ("warmup(steps=8)", lambda s: min(s / 8, 1), 30),
        ("step(every_steps=7, factor=0.3)", lambda s: 0.3 ** (s // 7), 30),
        ("cosine(warmup_steps=5, end=0.1)", naive_cosine, 21),
        ("passt", lambda s: naive_passt(s // 5), 5 * 110),
        ("passt(epoch_steps=3)", lambda s: naive_passt(s // 3), 3 * 110),
    ],
)
def test_schedules_equal_the_naive_formula_in_float64(schedule, naive, steps):
    _, lr = made(dict(name="adam", lr=2e-3, schedule=schedule))
    got = jax.vmap(lr)(jnp.arange(steps))
    np.testing.assert_allclose(got, [2e-3 * naive(s) for s in range(steps)], rtol=1e-5, atol=1e-12)
    assert float(lr(3)) == pytest.approx(2e-3 * naive(3), rel=1e-5)


def test_tiny_rates_keep_their_digits_which_optax_s_lose():
    """Against float64 over 10,000 steps; optax's own schedules are less precise."""
    n = np.arange(10_000)
    warm = np.minimum(n / 1000, 1.0)
    # (1 + cos x) / 2 written as a square, which is precise in float64 also at the end
    half = np.where(n < 500, n / 500, np.sin(np.pi / 2 * (10_000 - n) / 9500) ** 2)
    pairs = [
        (schedules.warmup(steps=1000), optax.linear_schedule(0.0, 1.0, 1000), warm),
        (
            schedules.cosine(warmup_steps=500, total_steps=10_000),
            optax.warmup_cosine_decay_schedule(0.0, 1.0, 500, 10_000, 0.0),
            half,
        ),
    ]
    for ours, theirs, wanted in pairs:
        some = wanted > 0
        off = lambda f, x: np.abs(np.asarray(jax.vmap(f)(x), float) / wanted - 1)[some].max()  # noqa: B023, E731
        with np.errstate(invalid="ignore", divide="ignore"):
            assert off(ours, jnp.arange(10_000, dtype=jnp.float32)) < 5e-7
            assert off(theirs, jnp.arange(10_000)) > 5e-6


@pytest.mark.parametrize("name", schedules.__all__)
def test_every_schedule_is_a_finite_share_of_the_peak_and_never_above_it(name):
    fields = {"step": "(every_steps=7)", "warmup_step": "(warmup_steps=20, stair_steps=5)"}
    factor, _ = schedules.build(name + fields.get(name, ""), total_steps=50, steps_per_epoch=5)
    rates = np.asarray(jax.vmap(factor)(jnp.arange(200, dtype=jnp.float32)))
    assert np.isfinite(rates).all()
    assert 0 <= rates.min() < rates.max() <= 1 + 1e-6 or name == "constant"
