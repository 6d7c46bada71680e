"""Optimisers against torch 2.13.

`tests/golden/optim_updates.npz` and `optim_schedules.npz` have torch's numbers. The command
`python tests/optim/test_optim.py` writes them again (needs torch).
"""

import math
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from asjax import build
from asjax.config import AsjaxError

GOLDEN = Path(__file__).parent.parent / "golden"
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
    "sgd": (dict(name="sgd", lr=1e-1, momentum=0.0), "SGD", {}),
    "momentum": (dict(name="sgd", lr=1e-2), "SGD", {"momentum": 0.9}),
    "nesterov": (
        dict(name="sgd", lr=1e-2, momentum=0.8, nesterov=True, weight_decay=0.1),
        "SGD",
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ),
}


def inputs():
    rng = np.random.default_rng(7)
    params = {"kernel": rng.normal(size=(3, 5)), "bias": rng.normal(size=(5,))}
    # Gradients shrink and jump, so amsgrad's maximum differs before and after bias correction.
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
            assert np.abs(reference - start[key]).max() > 5e-5  # torch's weights changed


def test_optax_amsgrad_would_not_equal_torch():
    params, grads = inputs()
    tx, state = optax.amsgrad(1e-3), optax.amsgrad(1e-3).init(params)
    for grad in grads:
        step, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, step)
    wanted = np.load(GOLDEN / "optim_updates.npz")["amsgrad/kernel"][-1]
    assert np.abs(params["kernel"] - wanted).max() > 1e-5


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


def write_golden():
    """Write torch's numbers for the tests above."""
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
