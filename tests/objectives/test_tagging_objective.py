"""The tagging objective against float64 numpy, and the order of operations on targets."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lookup import Lookup

from asjax import build, objectives
from asjax.config import AsjaxError


def bce64(logits, target, weight):
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    loss = -(target * np.log(p) + (1 - target) * np.log1p(-p))
    return (loss * weight).sum() / weight.sum()


def run(batch, **fields):
    loss_fn = objectives.tagging(model=Lookup(), frontend=lambda wave: wave[:, None, :], **fields)
    params = {"bias": jnp.zeros(batch["wave"].shape[-1])}
    return loss_fn(params, {}, batch, jax.random.key(3))[0]


class Bare(nn.Module):
    """Somebody's model that knows nothing of augmentation."""

    @nn.compact
    def __call__(self, feats, train=False):
        return {"logits": nn.Dense(3)(feats[:, 0])}


def test_a_model_without_augment_trains_unless_the_config_augments_inside_it(batch):
    frontend = lambda wave: wave[:, None, :]  # noqa: E731
    params = Bare().init(jax.random.key(0), jnp.ones((1, 1, 3)))["params"]
    for normed in ({}, {"normed": build.augment("")}):
        loss_fn = objectives.tagging(model=Bare(), frontend=frontend, augment=normed)
        assert np.isfinite(loss_fn(params, {}, batch, jax.random.key(3))[0])
    augment = {"normed": build.augment("mixup(alpha=1.0)")}
    with pytest.raises(AsjaxError, match="augment.normed needs a model whose __call__ takes aug"):
        objectives.tagging(model=Bare(), frontend=frontend, augment=augment)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "wave": rng.normal(size=(4, 3)).astype(np.float32),
        "target": (rng.uniform(size=(4, 3)) > 0.5).astype(np.float32),
        "mask": np.ones(4, np.float32),
    }


CLOSURE = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], bool)  # class 0 is a child of class 1


def test_loss_is_mean_bce_over_real_rows_and_counted_classes(batch):
    batch["mask"] = np.array([1, 1, 1, 0], np.float32)
    weight = np.outer(batch["mask"], [1, 0, 1])
    loss = run(batch, class_mask=np.array([1, 0, 1]))
    assert loss == pytest.approx(bce64(batch["wave"], batch["target"], weight), rel=1e-6)


def test_extreme_logits_stay_finite(batch):
    batch["wave"] = np.full((4, 3), 1e4, np.float32) * np.where(batch["target"] > 0, -1, 1)
    assert float(run(batch)) == pytest.approx(1e4, rel=1e-6)


def test_targets_go_through_hlp_then_mixup_then_smoothing(batch):
    """Mixing rows (0,1) and (2,3): max of a mix differs from mix of a max, so the order matters."""
    batch["target"] = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1]], np.float32)
    mix = build.augment("mixup(alpha=1.0, style='panns')")
    key = jax.random.split(jax.random.key(3), 4)[2]
    hard = np.minimum(batch["target"] @ CLOSURE, 1)
    mixed = np.asarray(mix(key, {"target": jnp.asarray(hard)})["target"])
    logits = np.asarray(mix(key, {"feats": jnp.asarray(batch["wave"])[:, None]})["feats"])[:, 0]
    assert mixed.shape == (2, 3)
    assert not np.allclose(mixed, np.round(mixed))  # mixup took place
    expected = bce64(logits, mixed * 0.8 + 0.1, np.ones((2, 3)))
    loss = run(batch, closure=CLOSURE, augment={"normed": mix}, label_smoothing=0.2)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_without_closure_labels_stay_as_they_are(batch):
    assert run(batch) == pytest.approx(
        bce64(batch["wave"], batch["target"], np.ones((4, 3))), rel=1e-6
    )


def test_the_gradient_is_that_of_float64_finite_differences(batch):
    loss_fn = objectives.tagging(model=Lookup(), frontend=lambda w: w[:, None, :])
    value = {"bias": jnp.zeros(3)}
    grad = jax.grad(lambda p: loss_fn(p, {}, batch, jax.random.key(0))[0])(value)["bias"]
    for k in range(3):
        step = np.eye(3)[k] * 1e-5
        up = bce64(batch["wave"] + step, batch["target"], np.ones((4, 3)))
        down = bce64(batch["wave"] - step, batch["target"], np.ones((4, 3)))
        assert grad[k] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-7)


def test_int16_waves_and_arrays_of_other_tasks_change_nothing(batch):
    """Strong labels or teacher logits in a batch do not change the training of a tagger."""
    wave = np.random.default_rng(1).integers(-32768, 32768, (4, 3)).astype(np.int16)
    chains = {
        "wave": build.augment("roll(samples=1) | gain | mixup(alpha=1.0)"),
        "normed": build.augment("mixup(alpha=1.0, style='plain')"),
    }
    fields = {"augment": chains, "closure": CLOSURE, "label_smoothing": 0.1}
    plain = run({**batch, "wave": wave.astype(np.float32) / 32768}, **fields)
    others = {
        "strong": np.ones((4, 5, 3), np.uint8),
        "number": np.arange(4),
        "flag": np.ones(4, bool),
        "teacher": np.ones((4, 7), np.float16),
    }
    assert run({**batch, "wave": wave, **others}, **fields) == plain
