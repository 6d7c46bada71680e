"""The objective of detectors (detection, forward) against float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lookup import FrameLookup, Lookup

from asjax import build, events, hlp, objectives, step
from asjax.config import AsjaxError
from asjax.objectives import losses

B, T, C = 8, 5, 3
STRONG = np.array([1, 1, 0, 0, 0, 1, 1, 0], np.float32)
WEAK = np.array([1, 0, 1, 1, 1, 0, 1, 0], np.float32)
MASK = np.array([1, 1, 1, 1, 1, 0, 1, 1], np.float32)
CLOSURE = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 1]], bool)  # class 0 is a child of 1 and of 2


def frontend(wave):
    return wave.reshape(wave.shape[0], T, -1)


def made(seed=0):
    """Strong clips, weak clips, clips with both and with none, and one row of padding."""
    rng = np.random.default_rng(seed)
    frames = (rng.random((B, T, C)) < 0.3).astype(np.float32) * STRONG[:, None, None]
    weak = (rng.random((B, C)) < 0.5).astype(np.float32)
    return {
        "wave": rng.normal(size=(B, T * C)).astype(np.float32) * 2,
        "frame_target": frames,
        "target": np.where(STRONG[:, None] > 0, frames.max(1), weak),
        "has_strong": STRONG,
        "has_weak": WEAK,
        "mask": MASK,
    }


def objective(model=FrameLookup, **fields):
    return objectives.detection(model=model(), frontend=frontend, **fields)


def run(batch, parts=1, key=3, **fields):
    params = {"bias": jnp.asarray([0.3, -0.2, 0.1])}
    batch = {k: jnp.asarray(v) for k, v in batch.items()}
    compute = jax.jit(step.accumulated(objective(**fields), parts))
    (loss, (scalars, _)), grads = compute(params, {}, batch, jax.random.key(key))
    return float(loss), {k: float(v) for k, v in scalars.items()}, np.asarray(grads["bias"])


def naive(batch, strong_weight=1.0, weak_weight=1.0, classes=range(C), bias=(0.3, -0.2, 0.1)):
    """The loss by loops in float64."""
    frames = batch["wave"].astype(np.float64).reshape(len(batch["wave"]), T, C) + np.array(bias)
    cross = lambda x, y: np.logaddexp(0, x) - x * y  # noqa: E731
    strong, weak = [], []
    for i, real in enumerate(batch["mask"]):
        if real and batch["has_strong"][i]:
            for t in range(T):
                strong += [cross(frames[i, t, c], batch["frame_target"][i, t, c]) for c in classes]
        if real and batch["has_weak"][i]:
            clip = frames[i].sum(0) / 2
            weak += [cross(clip[c], batch["target"][i, c]) for c in classes]
    mean = lambda values: np.mean(values) if values else 0.0  # noqa: E731
    return strong_weight * mean(strong) + weak_weight * mean(weak), mean(strong), mean(weak)


@pytest.mark.parametrize(
    ("fields", "classes"),
    [
        ({}, range(C)),
        ({"strong_weight": 0.5, "weak_weight": 2}, range(C)),
        ({"weak_weight": 0}, range(C)),
        ({"class_mask": np.array([1, 0, 1])}, (0, 2)),
    ],
)
def test_each_loss_is_the_mean_over_the_clips_with_its_labels(fields, classes):
    loss, scalars, _ = run(made(), **fields)
    weights = {k: v for k, v in fields.items() if k != "class_mask"}
    want, strong, weak = naive(made(), classes=classes, **weights)
    assert loss == pytest.approx(want, rel=1e-6)
    assert scalars["strong_loss"] == pytest.approx(strong, rel=1e-6)
    assert scalars["weak_loss"] == pytest.approx(weak, rel=1e-6)


@pytest.mark.parametrize("kind", ["has_strong", "has_weak", "mask"])
def test_a_batch_without_labels_of_a_kind_has_no_loss_of_this_kind(kind):
    batch = made() | {kind: np.zeros(B, np.float32)}
    loss, _, gradient = run(batch)
    assert loss == pytest.approx(naive(batch)[0], rel=1e-6)
    assert np.isfinite(gradient).all()


def test_the_gradient_is_that_of_finite_differences_in_float64():
    _, _, gradient = run(made())
    for c in range(C):
        small = np.eye(C)[c] * 1e-5
        up, down = (naive(made(), bias=np.array([0.3, -0.2, 0.1]) + s * small) for s in (1, -1))
        assert gradient[c] == pytest.approx((up[0] - down[0]) / 2e-5, rel=1e-4)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_of_a_batch_add_up_though_their_clips_have_other_labels(parts):
    """With 8 parts, one part has no real row, and others have labels of one kind or none."""
    whole, found = run(made()), run(made(), parts)
    assert found[0] == pytest.approx(whole[0], rel=1e-6)
    assert found[1] == pytest.approx(whole[1], rel=1e-6)
    np.testing.assert_allclose(found[2], whole[2], rtol=1e-5, atol=1e-7)


def test_parts_add_up_behind_the_checks_of_a_config_too():
    parts = {"model": FrameLookup(), "frontend": frontend}
    checked = build.make("objective", "detection", **parts)
    batch, params = made(), {"bias": jnp.asarray([0.3, -0.2, 0.1])}
    (loss, _), _ = step.accumulated(checked, 4)(params, {}, batch, jax.random.key(0))
    assert float(loss) == pytest.approx(naive(batch)[0], rel=1e-6)


# ----------------------------------------------------------------------------------------- HLP


def test_labels_go_up_the_ontology_in_every_frame_and_in_the_clip():
    batch = made()
    up = {**batch, "frame_target": batch["frame_target"].copy(), "target": batch["target"].copy()}
    for i, child, parent in ((i, c, p) for i in range(B) for c in range(C) for p in range(C)):
        if CLOSURE[child, parent]:
            for t in range(T):
                if batch["frame_target"][i, t, child]:
                    up["frame_target"][i, t, parent] = 1
            if batch["target"][i, child]:
                up["target"][i, parent] = 1
    assert (up["frame_target"] != batch["frame_target"]).any()
    loss, _, _ = run(batch, closure=CLOSURE)
    assert loss == pytest.approx(naive(up)[0], rel=1e-6)


def test_the_clip_still_has_the_maximum_of_its_frames_after_propagation():
    """DESED's, AudioSet's and any other ontology: a maximum over time and an OR up commute."""
    closure = hlp.closure("audioset527")
    rng = np.random.default_rng(0)
    frames = (rng.random((4, 20, len(closure))) < 0.01).astype(np.float32)
    propagated = hlp.propagate_labels(frames, closure)
    assert propagated.sum() > frames.sum()
    np.testing.assert_array_equal(propagated.max(1), hlp.propagate_labels(frames.max(1), closure))


# ------------------------------------------------------------------------------- augmentation


def test_frames_and_clips_are_mixed_with_the_draws_that_mix_the_features():
    mix = build.augment("mixup(alpha=1.0, style='plain')")
    batch = made() | {"mask": np.ones(B, np.float32)}
    key = jax.random.split(jax.random.key(3), 4)[1]  # of the place feats
    item = {k: jnp.asarray(v) for k, v in batch.items() if k != "wave"}
    mixed = mix(key, {**item, "feats": frontend(jnp.asarray(batch["wave"]))})
    mixed = {k: np.asarray(v) for k, v in mixed.items()}
    mixed["wave"] = mixed.pop("feats").reshape(B, T * C)
    assert not np.allclose(mixed["frame_target"], np.round(mixed["frame_target"]))
    for augment in ({"feats": mix}, {"normed": lambda rng, batch: mix(key, batch)}):
        loss, _, _ = run(batch, augment=augment)
        assert loss == pytest.approx(naive(mixed)[0], rel=1e-5), augment


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"strong_weight": -1}, "objective.strong_weight must be a number of at least 0, got -1"),
        ({"weak_weight": "1"}, "objective.weak_weight must be a number of at least 0, got '1'"),
        ({"weak_weight": True}, "weak_weight must be a number of at least 0, got True"),
        ({"weak_weight": float("inf")}, "weak_weight must be a number of at least 0, got inf"),
        ({"strong_weight": float("nan")}, "strong_weight must be a number of at least 0, got nan"),
        ({"strong_weight": 0, "weak_weight": 0}, "must not both be 0"),
    ],
)
def test_wrong_weights_are_one_line(fields, says):
    with pytest.raises(AsjaxError, match=says):
        objective(**fields)


def test_a_batch_without_frames_and_a_model_without_frames_say_what_to_do():
    batch = made()
    with pytest.raises(AsjaxError, match="needs frame_target from the host op strong; set"):
        run({k: v for k, v in batch.items() if k != "frame_target"})
    with pytest.raises(AsjaxError, match=r"must return frame_logits \[8, 5, 3\].*, got none"):
        run(batch, model=Lookup)
    batch["frame_target"] = np.zeros((B, T + 1, C), np.float32)
    with pytest.raises(AsjaxError, match=r"frame_logits \[8, 6, 3\].*, got \[8, 5, 3\]; frames is"):
        run(batch)


# ---------------------------------------------------------------------------- the loss function


@pytest.mark.parametrize("shape", [(4, 3), (4, 6, 3)])
def test_bce_is_a_float32_mean_without_masked_rows_and_classes(shape):
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=shape) * 30, jnp.bfloat16)
    target = (rng.random(shape) < 0.5).astype(np.float32)
    mask, classes = np.array([1, 0, 1, 1], np.float32), np.array([1, 0, 1], np.float32)
    x = np.asarray(logits, np.float64)
    each = (np.logaddexp(0, x) - x * target)[mask > 0][..., classes > 0]
    got = losses.bce(logits, target, mask, classes)
    assert got.dtype == jnp.float32
    assert float(got) == pytest.approx(each.mean(), rel=1e-6)
    assert float(losses.bce(logits, target, mask, classes, rows=6.0)) == pytest.approx(
        each.mean() / 2, rel=1e-6
    )
    assert float(losses.bce(logits, target, mask * 0)) == 0


def test_events_become_the_targets_that_the_objective_takes():
    """A strong clip from its events: the clip's labels are the maximum over its frames."""
    marks = events.as_events([(0.0, 0.05, 0), (0.1, 0.2, 2)])
    frames = events.to_frames(marks, frames=T, num_classes=C)
    batch = made()
    batch["frame_target"][0], batch["target"][0] = frames, events.weak(marks, C)
    np.testing.assert_array_equal(frames.max(0), batch["target"][0])
    assert run(batch)[0] == pytest.approx(naive(batch)[0], rel=1e-6)
