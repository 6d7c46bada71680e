"""The objective for one label per clip, and the choice between it and tagging."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lookup import Lookup
from scipy import sparse

from asjax import build, objectives, step
from asjax.config import AsjaxError
from asjax.objectives import checks, losses

sk = pytest.importorskip("sklearn.metrics")
ROWS, CLASSES = 8, 3
TRUE = np.array([0, 1, 2, 2, 2, 1, 0, 2])


def clips(targets, classes=CLASSES):
    """Training clips with these targets: class numbers, or a table of 0 and 1."""
    table = np.eye(classes, dtype=np.int8)[targets] if np.ndim(targets) == 1 else targets
    ids = [f"clip{i}.wav" for i in range(len(table))]
    return SimpleNamespace(name="mine", ids=ids, labels=sparse.csr_matrix(np.int8(table)))


def made(scale=3.0, mask=None):
    wave = np.random.default_rng(0).normal(size=(ROWS, CLASSES)).astype(np.float32) * scale
    return {
        "wave": wave,
        "target": np.eye(CLASSES, dtype=np.float32)[TRUE],
        "mask": np.ones(ROWS, np.float32) if mask is None else np.float32(mask),
    }


def objective(**fields):
    return objectives.classify(model=Lookup(), frontend=lambda wave: wave[:, None, :], **fields)


def run(batch, **fields):
    params = {"bias": jnp.zeros(batch["wave"].shape[-1])}
    return objective(**fields)(params, {}, batch, jax.random.key(3))[0]


def log_p(logits):
    wide = np.asarray(logits, np.float64)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


# -------------------------------------------------------------------------------------- the loss


def test_the_loss_is_scikit_learns_log_loss_of_the_real_rows():
    mask = [1, 1, 0, 1, 1, 1, 1, 0]
    batch = made(mask=mask)
    batch["target"][2] = 0  # padding has no label
    real = np.flatnonzero(mask)
    want = sk.log_loss(TRUE[real], np.exp(log_p(batch["wave"]))[real], labels=[0, 1, 2])
    assert float(run(batch)) == pytest.approx(want, rel=1e-6)
    assert float(run({**batch, "mask": np.zeros(ROWS, np.float32)})) == 0


@pytest.mark.parametrize("weights", ["balanced", [0.5, 2, 7]])
def test_weights_are_scikit_learns_and_the_loss_is_a_mean_over_rows(weights):
    from sklearn.utils.class_weight import compute_sample_weight

    batch, source = made(), clips(TRUE)
    given = weights if weights == "balanced" else dict(enumerate(weights))
    each = compute_sample_weight(given, TRUE)
    want = -(each * log_p(batch["wave"])[np.arange(ROWS), TRUE]).sum() / ROWS
    assert float(run(batch, class_weights=weights, source=source)) == pytest.approx(want, rel=1e-6)


def test_a_class_without_clips_changes_no_balanced_weight():
    got = checks.as_class_weights("balanced", np.array([3, 0, 1]))
    np.testing.assert_allclose(got, [4 / 6, 0, 4 / 2])


@pytest.mark.parametrize("place", ["wave", "normed"])
def test_mixed_targets_are_soft_and_smoothing_comes_after(place):
    batch = made()
    mix = build.augment("mixup(alpha=1.0, style='plain')")
    key = jax.random.split(jax.random.key(3), 4)[0 if place == "wave" else 2]
    mixed = {k: np.asarray(v, np.float64) for k, v in mix(key, batch).items()}
    assert not np.allclose(mixed["target"], np.round(mixed["target"]))
    soft = mixed["target"] * 0.8 + 0.2 / CLASSES
    want = -(soft * log_p(mixed["wave"])).sum(axis=1).mean()
    got = run(batch, augment={place: mix}, label_smoothing=0.2)
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_the_gradient_is_p_minus_y():
    batch = made()
    loss = objective()
    value = {"bias": jnp.zeros(CLASSES)}
    grad = jax.grad(lambda p: loss(p, {}, batch, jax.random.key(0))[0])(value)["bias"]
    want = (np.exp(log_p(batch["wave"])) - batch["target"]).mean(axis=0)
    np.testing.assert_allclose(grad, want, atol=1e-6)


def test_logits_of_half_precision_and_of_any_size_give_a_float32_loss():
    logits = jnp.asarray(made()["wave"], jnp.bfloat16)
    target = made()["target"]
    got = losses.cross_entropy(logits, target)
    want = -(target * log_p(np.asarray(logits, np.float64))).sum(axis=1).mean()
    assert got.dtype == jnp.float32
    assert float(got) == pytest.approx(want, rel=1e-6)
    batch = made(scale=1e4)
    want = -(batch["target"] * (batch["wave"] - batch["wave"].max(1, keepdims=True))).sum() / ROWS
    assert float(run(batch)) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("weights", [None, [0.5, 2, 7]])
def test_parts_of_a_batch_add_up_with_masks_and_weights(weights):
    batch = {k: jnp.asarray(v) for k, v in made(mask=[1, 0, 1, 1, 1, 0, 1, 0]).items()}
    params = {"bias": jnp.asarray([0.3, -0.2, 0.0])}
    loss = objective(class_weights=weights, label_smoothing=0.1)
    whole, parts = (
        jax.jit(step.accumulated(loss, n))(params, {}, batch, jax.random.key(0)) for n in (1, 2)
    )
    assert float(parts[0][0]) == pytest.approx(float(whole[0][0]), rel=1e-6)
    np.testing.assert_allclose(parts[1]["bias"], whole[1]["bias"], rtol=1e-5, atol=1e-7)


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"closure": np.eye(3, dtype=bool)}, "HLP gives a clip several; set --config.labels.hlp="),
        ({"class_weights": "equal"}, "must be None, 'balanced' or a list, got 'equal'"),
        ({"class_weights": "balanced"}, "needs the training clips"),
        ({"class_weights": [1, -1, 1]}, "at least 0"),
        ({"class_weights": [0, 0, 0]}, "not all 0"),
        ({"class_weights": [1, float("nan"), 1]}, "at least 0"),
        ({"class_weights": [[1, 2, 3]]}, "one number of at least 0 for each class"),
        ({"class_weights": ["a", 1, 2]}, "one number of at least 0"),
        ({"class_weights": {"a": 1}}, "one number of at least 0"),
        ({"class_weights": 3}, "one number of at least 0"),
        ({"class_weights": [1, 2], "source": clips(TRUE)}, "each of 3 classes, got 2"),
        ({"label_smoothing": 1.5}, "label_smoothing must be a number from 0 to 1"),
        ({"label_smoothing": float("nan")}, "label_smoothing must be a number from 0 to 1"),
        ({"label_smoothing": "0.1"}, "label_smoothing must be a number from 0 to 1"),
        ({"source": clips(np.zeros(4, int), classes=1)}, "two or more classes, got 1"),
    ],
)
def test_what_does_not_fit_is_one_line(fields, says):
    with pytest.raises(AsjaxError) as error:
        objective(**fields)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("row", "has"), [([1, 1, 0], "2 labels"), ([0, 0, 0], "no labels")])
def test_a_clip_with_no_label_or_several_is_named_with_what_to_do(row, has):
    table = np.eye(3, dtype=np.int8)[TRUE]
    table[4] = row
    says = rf"but 1 of 8 training clips of mine .* \(first clip4.wav: {has}\); give each clip one"
    with pytest.raises(AsjaxError, match=says):
        objective(source=clips(table))
    batch = made()
    batch["target"][4] = row
    with pytest.raises(AsjaxError, match="exactly one label for each clip, but row 4 of the batch"):
        run(batch)


def test_weights_of_another_number_of_classes_are_refused_when_traced():
    with pytest.raises(AsjaxError, match="one number for each of 3 classes, got 2"):
        run(made(), class_weights=[1, 2])


# ---------------------------------------------------------------------------------- the choice

SEVERAL = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("source", "options", "name", "says"),
    [
        (clips(TRUE), {}, "classify", "every training clip has exactly one label"),
        (clips(TRUE), {"multilabel": True}, "tagging", "--multilabel is given"),
        (clips(TRUE), {"hlp": True}, "tagging", "labels.hlp gives a clip several labels"),
        (clips(SEVERAL), {}, "tagging", "2 of 3 training clips have no label or several"),
        (clips(np.zeros(4, int), 1), {}, "tagging", "there is only one class"),
    ],
)
@pytest.mark.parametrize("spec", [dict(name="auto", label_smoothing=0.1), "auto"])
def test_auto_is_classify_if_every_clip_has_one_label(source, options, name, says, spec):
    got, why = objectives.choose(spec, source, **options)
    assert got == (
        {"name": name, "label_smoothing": 0.1} if isinstance(spec, dict) else {"name": name}
    )
    assert says in why
    assert "\n" not in why


def test_a_named_objective_stays_and_contradictions_are_errors():
    for spec in (dict(name="tagging"), "tagging", dict(name="classify", class_weights="balanced")):
        assert objectives.choose(spec, clips(TRUE)) == (spec, "")
    assert objectives.choose("tagging", clips(TRUE), multilabel=True) == ("tagging", "")
    with pytest.raises(AsjaxError, match="--multilabel trains with objective tagging"):
        objectives.choose("classify", clips(TRUE), multilabel=True)
    weighted = dict(name="auto", class_weights="balanced")
    assert objectives.choose(weighted, clips(TRUE))[0] == {**weighted, "name": "classify"}
    with pytest.raises(AsjaxError, match="class_weights needs objective classify, but 2 of 3"):
        objectives.choose(weighted, clips(SEVERAL))
    plain = dict(name="auto", class_weights=None)
    assert objectives.choose(plain, clips(SEVERAL))[0] == {"name": "tagging"}
    with pytest.raises(AsjaxError, match="auto stands for classify or tagging"):
        build.make("objective", dict(name="auto"), model=None, frontend=None)
