"""Distillation against PretrainedSED's loss lines and against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule
from lookup import FrameLookup, Lookup
from scipy import special

from asjax import build, hlp, objectives, step
from asjax.config import AsjaxError

B, T, C = 8, 5, 3
STRONG = np.array([1, 1, 0, 0, 0, 1, 1, 0], np.float32)
WEAK = np.array([1, 0, 1, 1, 0, 0, 1, 0], np.float32)
TAUGHT = np.array([1, 1, 1, 0, 1, 1, 0, 0], np.float32)
MASK = np.array([1, 1, 1, 1, 1, 0, 1, 1], np.float32)
CLOSURE = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 1]], bool)  # class 0 is a child of 1 and of 2
BIAS = np.array([0.3, -0.2, 0.1])


def made(base="detection", seed=0):
    """Clips with labels, a teacher, both and none, and one row of padding."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32) * 2  # noqa: E731
    batch = {
        "wave": normal(B, T * C),
        "target": (rng.random((B, C)) < 0.5).astype(np.float32),
        "clip_teacher": normal(B, C) * TAUGHT[:, None],
        "has_teacher": TAUGHT,
        "has_weak": WEAK,
        "mask": MASK,
    }
    if base == "detection":
        batch["frame_target"] = (rng.random((B, T, C)) < 0.3).astype(np.float32)
        batch["frame_target"] *= STRONG[:, None, None]
        batch["teacher"] = normal(B, T, C) * TAUGHT[:, None, None]
        batch["has_strong"] = STRONG
    return batch


def objective(base, model=None, **fields):
    frames = T if base == "detection" else 1
    frontend = lambda wave: wave.reshape(wave.shape[0], frames, -1)[:, :, :C]  # noqa: E731
    model = model or (FrameLookup if base == "detection" else Lookup)
    return objectives.distillation(model=model(), frontend=frontend, base=base, **fields)


def run(base, batch, parts=1, key=3, **fields):
    params = {"bias": jnp.asarray(BIAS, jnp.float32)}
    batch = {k: jnp.asarray(v) for k, v in batch.items()}
    compute = jax.jit(step.accumulated(objective(base, **fields), parts))
    (loss, (scalars, _)), grads = compute(params, {}, batch, jax.random.key(key))
    return float(loss), {k: float(v) for k, v in scalars.items()}, np.asarray(grads["bias"])


def cross(x, y):
    return np.logaddexp(0, x) - x * y


def naive(base, batch, share=0.9, temperature=1.0, on="probabilities", scale=(1.0, 1.0), bias=BIAS):
    """Loss and scalars by loops over the clips, in float64."""
    wave = batch["wave"].astype(np.float64)
    frames = wave.reshape(len(wave), T, C) + bias
    clip = frames.sum(1) / 2 if base == "detection" else wave[:, :C] + bias
    kinds = [("label", clip, "target", "clip_teacher", "has_weak", 1.0)]
    if base == "detection":
        kinds = [
            ("strong", frames, "frame_target", "teacher", "has_strong", scale[0]),
            ("weak", clip, "target", "clip_teacher", "has_weak", scale[1]),
        ]
    total, scalars = 0.0, {}
    for name, logits, label, key, flag, factor in kinds:
        losses, plain, far = [], [], []
        for i in np.flatnonzero(batch["mask"]):
            known, taught = batch[flag][i] > 0, batch["has_teacher"][i] > 0 and key in batch
            if known:
                plain.append(cross(logits[i], batch[label][i]).mean())
            if taught:
                z = batch[key][i].astype(np.float64)
                if on == "probabilities":
                    soft = 1 / (1 + np.exp(-z / temperature))
                    far.append(temperature**2 * cross(logits[i] / temperature, soft).mean())
                else:
                    far.append(np.square(logits[i] - np.clip(z, -10, 10)).mean())
            if known and taught:
                losses.append((1 - share) * plain[-1] + share * far[-1])
            elif known or taught:
                losses.append((plain if known else far)[-1])
        mean = lambda values: np.mean(values) if values else 0.0  # noqa: E731
        total += factor * mean(losses)
        scalars[f"{name}_loss"] = mean(plain)
        if key in batch:
            scalars["teacher_loss" if name == "label" else f"{name}_teacher_loss"] = mean(far)
    taught = batch["has_teacher"][batch["mask"] > 0].mean()
    flags = np.max([batch[flag] for *_, flag, _ in kinds], axis=0)
    counts = {"with_teacher": taught, "with_labels": flags[batch["mask"] > 0].mean()}
    return total, {"loss": total, **scalars, **counts}


def same(found, wanted):
    loss, scalars, _ = found
    assert loss == pytest.approx(wanted[0], rel=2e-6)
    assert scalars == pytest.approx(wanted[1], rel=2e-6)


# ------------------------------------------------------------------------------ PretrainedSED


@pytest.mark.parametrize("scale", ["1.0", "8.0"])
@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9, 1.0])
def test_the_loss_and_its_gradient_are_pretrained_seds(golden, scale, weight):
    manifest, stored = golden("sed_kd_loss")
    shape, salt = manifest["shape"], manifest["salt"]
    time_first = lambda x: jnp.asarray(np.swapaxes(x, 1, 2))  # noqa: E731
    student = rule.array(f"student_{scale}", shape, salt=salt, scale=float(scale))
    teacher = rule.array(f"teacher_{scale}", shape, salt=salt, scale=float(scale))
    normal = rule.array(f"labels_{scale}", shape, salt=salt)
    labels = special.ndtr(normal.astype(np.float64)) > 0.98
    clips, classes, frames = shape
    batch = {
        "wave": time_first(student).reshape(clips, -1),
        "frame_target": time_first(labels.astype(np.float32)),
        "teacher": time_first(teacher.astype(np.float16)),
        "target": jnp.zeros((clips, classes)),
        **dict.fromkeys(("has_teacher", "has_strong", "has_weak", "mask"), jnp.ones(clips)),
    }
    loss_fn = objectives.distillation(
        model=FrameLookup(),
        frontend=lambda wave: wave.reshape(clips, frames, classes),
        base="detection",
        weight=weight,
        weak_weight=0,
    )
    of_wave = lambda wave: loss_fn(  # noqa: E731
        {"bias": jnp.zeros(classes)}, {}, {**batch, "wave": wave}, jax.random.key(0)
    )
    (loss, (scalars, _)), grad = jax.jit(jax.value_and_grad(of_wave, has_aux=True))(batch["wave"])
    name = f"scale{scale}_lambda{weight}"
    values = manifest["values"][name]
    assert float(loss) == pytest.approx(values["total64"], rel=2e-7)
    assert float(scalars["strong_loss"]) == pytest.approx(values["supervised64"], rel=2e-7)
    assert float(scalars["strong_teacher_loss"]) == pytest.approx(values["distill64"], rel=2e-7)
    grad = np.swapaxes(np.asarray(grad).reshape(clips, frames, classes), 1, 2)[:, ::37, ::11]
    wanted = stored[f"{name}_grad"]
    np.testing.assert_allclose(grad, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


# ------------------------------------------------------------------------------------ every base


@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({}, {}),
        ({"weight": 0.25}, {"share": 0.25}),
        ({"weight": 0.1, "weight_of": "labels"}, {"share": 0.9}),
        ({"weight": 1}, {"share": 1.0}),
        ({"temperature": 3.0}, {"temperature": 3.0}),
        ({"on": "logits", "weight": 0.5}, {"on": "logits", "share": 0.5}),
    ],
)
@pytest.mark.parametrize("base", ["tagging", "detection"])
def test_each_clip_learns_from_its_labels_its_teacher_or_both(base, fields, how):
    same(run(base, made(base), **fields), naive(base, made(base), **how))


def test_the_two_losses_of_a_detector_have_weights():
    fields = {"strong_weight": 0.5, "weak_weight": 2}
    same(run("detection", made(), **fields), naive("detection", made(), scale=(0.5, 2)))


@pytest.mark.parametrize("gone", ["teacher", "clip_teacher"])
def test_a_loss_without_its_teacher_is_that_of_the_labels(gone):
    batch = {k: v for k, v in made().items() if k != gone}
    same(run("detection", batch), naive("detection", batch))


@pytest.mark.parametrize("base", ["tagging", "detection"])
def test_clips_that_all_lack_the_teacher_are_the_base_objective(base):
    batch = made(base) | {"has_teacher": np.zeros(B, np.float32), "has_weak": np.ones(B, "f4")}
    loss, scalars, gradient = run(base, batch)
    batch = {k: v for k, v in batch.items() if "teacher" not in k}
    plain = getattr(objectives, base)
    kept = objectives.distillation
    try:
        objectives.distillation = lambda base, **fields: plain(**fields)
        wanted = run(base, batch)
    finally:
        objectives.distillation = kept
    assert loss == pytest.approx(wanted[0], rel=1e-6)
    np.testing.assert_allclose(gradient, wanted[2], rtol=1e-5)
    assert scalars["with_teacher"] == 0


def test_clips_of_a_tagger_without_has_weak_all_have_labels():
    batch = made("tagging")
    del batch["has_weak"]
    same(run("tagging", batch), naive("tagging", batch | {"has_weak": np.ones(B)}))


@pytest.mark.parametrize("on", ["probabilities", "logits"])
def test_the_gradient_is_that_of_finite_differences_in_float64(on):
    _, _, gradient = run("detection", made(), on=on)
    for c in range(C):
        small = np.eye(C)[c] * 1e-5
        up, down = (naive("detection", made(), on=on, bias=BIAS + s * small)[0] for s in (1, -1))
        assert gradient[c] == pytest.approx((up - down) / 2e-5, rel=1e-4)


@pytest.mark.parametrize("parts", [2, 4, 8])
@pytest.mark.parametrize("base", ["tagging", "detection"])
def test_parts_of_a_batch_add_up_though_their_clips_differ(base, parts):
    whole, found = run(base, made(base)), run(base, made(base), parts)
    assert found[1] == pytest.approx(whole[1], rel=1e-6)
    np.testing.assert_allclose(found[2], whole[2], rtol=1e-5, atol=1e-7)


def test_a_class_mask_leaves_a_class_out():
    batch = made()
    keep = [0, 2]
    few = {k: v[..., keep] if v.shape[-1:] == (C,) else v for k, v in batch.items()}
    few["wave"] = batch["wave"].reshape(B, T, C)[..., keep].reshape(B, -1)
    found = run("detection", batch, class_mask=np.array([1, 0, 1]))
    frontend = lambda wave: wave.reshape(B, T, 2)  # noqa: E731
    loss_fn = objectives.distillation(model=FrameLookup(), frontend=frontend, base="detection")
    few = {k: jnp.asarray(v) for k, v in few.items()}
    params = {"bias": jnp.asarray(BIAS[keep], jnp.float32)}
    loss, _ = loss_fn(params, {}, few, jax.random.key(0))
    assert found[0] == pytest.approx(float(loss), rel=1e-6)


def test_classes_outside_of_the_top_have_probability_0():
    batch = made("tagging")
    batch["clip_teacher"][0, 1] = -np.inf
    low = {**batch, "clip_teacher": np.maximum(batch["clip_teacher"], -80)}
    same(run("tagging", batch), naive("tagging", low))
    same(run("tagging", batch, on="logits"), naive("tagging", low, on="logits"))


# ----------------------------------------------------------------------------- HLP, augmentation


def test_labels_are_propagated_and_the_teacher_by_its_maximum():
    batch = made()
    up = {**batch}
    for label, key in (("target", "clip_teacher"), ("frame_target", "teacher")):
        up[label] = hlp.propagate_labels(batch[label], CLOSURE)
        best = batch[key].copy()
        for child, parent in np.argwhere(CLOSURE):
            best[..., parent] = np.maximum(best[..., parent], batch[key][..., child])
        up[key] = best
    assert (up["teacher"] != batch["teacher"]).any()
    same(run("detection", batch, closure=CLOSURE), naive("detection", up))
    kept = {**up, "teacher": batch["teacher"], "clip_teacher": batch["clip_teacher"]}
    found = run("detection", batch, closure=CLOSURE, propagate_teacher=False)
    same(found, naive("detection", kept))


def test_probabilities_of_the_teacher_are_mixed_and_not_its_logits():
    mix = build.augment("mixup(alpha=1.0, style='plain')")
    batch = made() | dict.fromkeys(("mask", "has_strong", "has_weak"), np.ones(B, np.float32))
    key = jax.random.split(jax.random.key(3), 4)[1]  # of the place feats
    item = {k: jnp.asarray(v) for k, v in batch.items() if k != "wave"}
    item |= {k: jax.nn.sigmoid(item[k]) for k in ("teacher", "clip_teacher")}
    item["feats"] = jnp.asarray(batch["wave"]).reshape(B, T, C)
    mixed = {k: np.asarray(v) for k, v in mix(key, item).items()}
    assert 0 < mixed["has_teacher"].sum() < TAUGHT.sum()  # products of two clips' flags
    mixed["wave"] = mixed.pop("feats").reshape(B, T * C)
    for name in ("teacher", "clip_teacher"):
        mixed[name] = special.logit(mixed[name].astype(np.float64))
    loss, wanted = run("detection", batch, augment={"feats": mix}), naive("detection", mixed)
    assert loss[0] == pytest.approx(wanted[0], rel=1e-5)
    assert loss[1]["with_teacher"] == pytest.approx(TAUGHT.mean())  # before clips were mixed


def test_parts_and_checks_of_a_config_know_the_objective():
    spec = dict(name="distillation", base="detection", weight=0.5)
    parts = {"model": FrameLookup(), "frontend": lambda wave: wave.reshape(-1, T, C)}
    checked = build.make("objective", spec, **parts)
    batch = {k: jnp.asarray(v) for k, v in made().items()}
    params = {"bias": jnp.asarray(BIAS, jnp.float32)}
    (loss, _), _ = step.accumulated(checked, 4)(params, {}, batch, jax.random.key(0))
    assert float(loss) == pytest.approx(naive("detection", made(), share=0.5)[0], rel=1e-6)
    with pytest.raises(AsjaxError, match="load is set by the program"):
        build.make("objective", {**spec, "load": 1}, **parts, load=None)


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"base": "detect"}, "objective.base 'detect'.*detection"),
        ({"weight_of": "label"}, "objective.weight_of 'label'.*labels"),
        ({"on": "logit"}, "objective.on 'logit'.*logits"),
        ({"weight": 1.5}, "objective.weight must be a number from 0 to 1, got 1.5"),
        ({"weight": float("nan")}, "objective.weight must be a number from 0 to 1, got nan"),
        ({"temperature": 0}, "temperature must be a number from 0.01 to 100, got 0"),
        ({"temperature": "2"}, "temperature must be a number from 0.01 to 100, got '2'"),
        ({"temperature": 2, "on": "logits"}, "temperature has no meaning with on='logits'"),
        ({"propagate_teacher": 1}, "propagate_teacher must be True or False, got 1"),
        ({"strong_weight": -1}, "strong_weight must be a number of at least 0"),
        ({"teacher": ""}, "objective.teacher must be one or several model folders, got ''"),
        ({"teacher": []}, r"objective.teacher must be one or several model folders, got \[\]"),
        ({"teacher": 3}, "objective.teacher must be one or several model folders, got 3"),
        ({"teacher": "x"}, "needs load"),
    ],
)
def test_wrong_fields_are_one_line(fields, says):
    with pytest.raises(AsjaxError, match=says):
        objective(**{"base": "detection", **fields})


@pytest.mark.parametrize("name", ["tagging", "detection"])
def test_a_teacher_that_the_objective_would_not_use_is_refused(name):
    frontend = lambda wave: wave.reshape(B, T, C)  # noqa: E731
    loss_fn = getattr(objectives, name)(model=FrameLookup(), frontend=frontend)
    batch = {k: jnp.asarray(v) for k, v in made().items()}
    with pytest.raises(AsjaxError, match="has the op teacher, and this objective takes no teacher"):
        loss_fn({"bias": jnp.zeros(C)}, {}, batch, jax.random.key(0))


def test_a_batch_without_teacher_and_one_of_another_shape_say_what_to_do():
    batch = made()
    none = {k: v for k, v in batch.items() if "teacher" not in k}
    with pytest.raises(AsjaxError, match=r"needs a teacher: teacher or clip_teacher.*data\.ops"):
        run("detection", none)
    frames = {**made("tagging"), "teacher": batch["teacher"]}
    del frames["clip_teacher"]
    with pytest.raises(AsjaxError, match="needs a teacher: clip_teacher.*has frame logits only"):
        run("tagging", frames)
    with pytest.raises(AsjaxError, match="needs frame_target"):
        run("detection", {k: v for k, v in batch.items() if k != "frame_target"})
    other = {**batch, "teacher": np.zeros((B, T + 1, C), np.float16)}
    with pytest.raises(
        AsjaxError,
        match=r"teacher must have the shape of frame_target, \[8, 5, 3\]"
        r", got \[8, 6, 3\]",
    ):
        run("detection", other)
    with pytest.raises(AsjaxError, match=r"must return frame_logits \[8, 5, 3\]"):
        run("detection", batch, model=Lookup)
