"""Optimisers against torch 2.13, schedules against torch and the references' formulas.

`tests/golden/optim_updates.npz` and `optim_schedules.npz` hold torch's numbers; they are written
again by `python tests/test_optim.py` (needs torch). `lr_schedule_*` are the float64 rates of
YuanGongND/ast's training loop replayed with torch's MultiStepLR.
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
from asjax.optim import averages, guard, schedules

GOLDEN = Path(__file__).parent / "golden"
STEPS = 20
RUNS = {  # name -> (spec for asjax, torch class, torch keywords)
    "adam": (dict(name="adam", lr=1e-3), "Adam", {}),
    "adam_wd": (dict(name="adam", lr=1e-3, weight_decay=0.1), "Adam", {"weight_decay": 0.1}),
    "amsgrad": (dict(name="adam", lr=1e-3, amsgrad=True), "Adam", {"amsgrad": True}),
    "ast": (
        dict(name="adam", lr=1e-4, b1=0.95, weight_decay=5e-7),
        "Adam",
        {"betas": (0.95, 0.999), "weight_decay": 5e-7},
    ),
    "adamw": (
        dict(name="adamw", lr=2e-3, weight_decay=0.1, decay_1d=True),
        "AdamW",
        {"weight_decay": 0.1},
    ),
    "adamw_no_1d": (
        dict(name="adamw", lr=2e-3, weight_decay=0.1, decay_1d=False, amsgrad=True),
        "AdamW",
        {"weight_decay": 0.1, "amsgrad": True},
    ),
    "one_cycle": (dict(name="adam", lr=1e-2, schedule="one_cycle"), "Adam", {}),
}


def inputs():
    rng = np.random.default_rng(7)
    params = {"kernel": rng.normal(size=(3, 5)), "bias": rng.normal(size=(5,))}
    # Sizes shrink and jump: amsgrad's maximum then differs before and after bias correction.
    sizes = 10.0 ** rng.uniform(-3, 1, size=(STEPS, 1))
    grads = [{k: rng.normal(size=v.shape) * s for k, v in params.items()} for s in sizes[:, 0]]
    as32 = lambda tree: {k: v.astype(np.float32) for k, v in tree.items()}  # noqa: E731
    return as32(params), [as32(g) for g in grads]


def made(spec, **extra):
    return build.make("optim", spec, **{"total_steps": STEPS, "steps_per_epoch": 5, **extra})


@pytest.mark.parametrize("name", RUNS)
def test_twenty_updates_equal_torch(name):
    wanted = np.load(GOLDEN / "optim_updates.npz")
    params, grads = inputs()
    tx, _ = made(RUNS[name][0])
    state, start = tx.init(params), params

    @jax.jit
    def update(params, state, grad):
        step, state = tx.update(grad, state, params)
        return optax.apply_updates(params, step), state

    for t, grad in enumerate(grads):
        params, state = update(params, state, grad)
        for key, value in params.items():
            reference = wanted[f"{name}/{key}"][t]
            assert np.linalg.norm(value - reference) < 1e-6 * np.linalg.norm(reference)
            # optax takes 1 - beta2^t in float32, where t = 1 loses four digits
            np.testing.assert_allclose(value, reference, rtol=1e-6, atol=3e-8)
            assert np.abs(reference - start[key]).max() > 5e-5  # torch did move


def test_optax_amsgrad_would_not_equal_torch():
    params, grads = inputs()
    tx, state = optax.amsgrad(1e-3), optax.amsgrad(1e-3).init(params)
    for grad in grads:
        step, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, step)
    wanted = np.load(GOLDEN / "optim_updates.npz")["amsgrad/kernel"][-1]
    assert np.abs(params["kernel"] - wanted).max() > 1e-5


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
    """The length of an epoch comes from the data, or from the schedule whatever the data's is."""
    manifest, arrays = golden(name)
    given, wanted = manifest["input"], arrays["lr"]
    assert len(wanted) == given["steps_per_epoch"] * given["epochs"]
    fields = f"milestones={given['milestones']}, factor={given['gamma']}"
    if own_epoch:
        fields += f", epoch_steps={given['steps_per_epoch']}"
    spec = dict(name="adam", lr=given["base_lr"], schedule=f"warmup_step({fields})")
    _, lr = made(spec, steps_per_epoch=77 if own_epoch else given["steps_per_epoch"])
    np.testing.assert_allclose(jax.vmap(lr)(jnp.arange(len(wanted))), wanted, rtol=1e-6)


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


def test_clipping_equals_scaling_by_the_global_norm():
    params, grads = inputs()
    norm = math.sqrt(sum(np.sum(np.float64(g) ** 2) for g in grads[0].values()))
    small = {k: np.float32(g * (0.5 * norm) / norm) for k, g in grads[0].items()}
    clipped, _ = made(dict(name="adam", lr=1e-3, eps=1.0, clip_norm=0.5 * norm))
    plain, _ = made(dict(name="adam", lr=1e-3, eps=1.0))
    got, _ = clipped.update(grads[0], clipped.init(params), params)
    want, _ = plain.update(small, plain.init(params), params)
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-5)


def test_bad_specs_are_one_clear_error_naming_what_exists():
    for spec, words in [
        (dict(name="adamx", lr=1e-3), "adamw"),
        (dict(name="adam", lr=1e-3, momentum=0.9), "momentum"),
        (dict(name="adam", lr=0.0), "lr must be a number > 0"),
        (dict(name="adam", lr=1e-3, b1=1.0), "b1"),
        (dict(name="adam", lr=1e-3, schedule="cosin"), "did you mean 'cosine'"),
        (dict(name="adam", lr=1e-3, schedule="cosine(warmup=3)"), "warmup_steps"),
        (dict(name="adam", lr=1e-3, schedule="cosine(warmup_steps=20)"), "total_steps=20"),
        (dict(name="adam", lr=1e-3, schedule="step"), "every_steps"),
        (dict(name="adam", lr=1e-3, schedule="step(every_steps=0)"), "every_steps must be >= 1"),
        (dict(name="adam", lr=1e-3, schedule="passt(epoch_steps=0)"), "epoch_steps must be >= 1"),
    ]:
        with pytest.raises(AsjaxError, match=words):
            made(spec)
    with pytest.raises(AsjaxError, match="steps_per_epoch"):
        build.make("optim", dict(name="adam", lr=1e-3, schedule="passt"))


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


def write_golden():
    """Torch's numbers for the tests above."""
    import json

    import torch

    start, grads = inputs()
    updates, schedules = {}, {}
    for name, (spec, cls, keywords) in RUNS.items():
        params = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in start.items()}
        groups = [{"params": [params["kernel"]]}, {"params": [params["bias"]]}]
        if spec.get("decay_1d") is False:
            groups[1]["weight_decay"] = 0.0
        tx = getattr(torch.optim, cls)(groups, lr=spec["lr"], foreach=False, **keywords)
        cycle = None
        if name == "one_cycle":
            cycle = torch.optim.lr_scheduler.OneCycleLR(tx, spec["lr"], total_steps=STEPS)
        rows = {k: [] for k in params}
        for grad in grads:
            for k, p in params.items():
                p.grad = torch.tensor(grad[k])
            tx.step()
            if cycle is not None and cycle.last_epoch < STEPS - 1:
                cycle.step()
            for k, p in params.items():
                rows[k].append(p.detach().numpy().copy())
        updates |= {f"{name}/{k}": np.stack(v) for k, v in rows.items()}
    for total in (20, 1000):
        tx = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        cycle = torch.optim.lr_scheduler.OneCycleLR(tx, 1e-3, total_steps=total)
        lr, b1 = [], []
        for t in range(total):
            lr.append(tx.param_groups[0]["lr"])
            b1.append(tx.param_groups[0]["betas"][0])
            tx.step()
            if t < total - 1:
                cycle.step()
        schedules |= {f"one_cycle_lr_{total}": np.array(lr), f"one_cycle_b1_{total}": np.array(b1)}
    np.savez_compressed(GOLDEN / "optim_updates.npz", **updates)
    np.savez_compressed(GOLDEN / "optim_schedules.npz", **schedules)
    print(json.dumps({"torch": torch.__version__, "arrays": len(updates) + len(schedules)}))


if __name__ == "__main__":
    write_golden()
