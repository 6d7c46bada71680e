"""CNN6, CNN10, CNN14 and mini: sizes as published, training behaviour as the authors wrote it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax import models

PARAMETERS = {"cnn6": 4_837_455, "cnn10": 5_219_279, "cnn14": 80_753_615}


@pytest.fixture(scope="module")
def mini():
    module = models.build("cnn", variant="mini", num_classes=5)
    feats = jnp.float32(np.random.default_rng(0).normal(-30, 10, (4, 40, 64)))
    return module, jax.jit(module.init)(jax.random.key(0), feats), feats


def run(module, variables, feats, rng=None, **kwargs):
    """Outputs of one jitted call (training mode when given a key)."""

    def call(variables, feats):
        if rng is None:
            return module.apply(variables, feats, **kwargs)
        rngs = {"dropout": rng}
        return module.apply(variables, feats, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    return jax.tree.map(np.asarray, jax.jit(call)(variables, feats))


@pytest.mark.parametrize(("variant", "count"), PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(variant, count):
    assert models.parameters(models.build("cnn", variant=variant)) == count


def test_mini_stays_near_a_hundred_thousand_parameters():
    assert 80_000 < models.parameters(models.build("cnn", variant="mini", num_classes=10)) < 120_000


def test_init_is_xavier_uniform_and_plain_batch_norms(mini):
    _, variables, _ = mini
    params = variables["params"]
    kernel = np.asarray(params["block4"]["conv1"]["kernel"])
    bound = np.sqrt(6 / (9 * 64 + 9 * 128))
    assert np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert float(params["bn0"]["scale"].min()) == 1
    assert float(params["head"]["bias"].max()) == 0


def test_training_gives_finite_gradients_to_every_parameter_and_new_statistics(mini):
    module, variables, feats = mini

    def loss(params):
        out, state = module.apply(
            {**variables, "params": params},
            feats,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        return (out["logits"] ** 2).mean(), state

    grads, state = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 0, path
    moved = np.asarray(state["batch_stats"]["bn0"]["mean"])
    np.testing.assert_allclose(moved, 0.1 * np.asarray(feats).mean((0, 1)), rtol=1e-4)


def test_embedding_dropout_does_not_reach_the_head(mini):
    """The authors drop the returned embedding, while their head reads the undropped one."""
    module, variables, feats = mini
    clean = module.clone(block_dropout=0.0, head_dropout=0.0)
    rng = jax.random.key(2)
    out = run(clean, variables, feats, rng)
    dropped = module.clone(block_dropout=0.0)
    head = jax.tree.map(np.asarray, variables["params"]["head"])
    got = run(dropped, variables, feats, rng)
    assert not np.allclose(got["embedding"] @ head["kernel"], got["logits"], atol=1e-3)
    np.testing.assert_allclose(
        out["embedding"] @ head["kernel"] + head["bias"].reshape(1, -1), out["logits"], atol=1e-5
    )


def test_augment_acts_on_the_output_of_bn0(mini):
    module, variables, feats = mini

    def erase_then_show(x):
        return jnp.zeros_like(x).at[0].set(x[0])

    blank = run(module, variables, feats, augment=erase_then_show)["logits"]
    whole = run(module, variables, feats)["logits"]
    np.testing.assert_allclose(blank[0], whole[0], atol=1e-5)
    assert np.ptp(blank[1:], axis=0).max() < 1e-6  # every other clip was erased alike
    zeros = jnp.zeros_like(feats)  # the running mean of a fresh model: bn0 gives zero for it
    np.testing.assert_allclose(blank[1:], run(module, variables, zeros)["logits"][1:], atol=1e-6)


def test_short_input_equals_input_padded_with_the_mean_frame(mini):
    module, variables, feats = mini
    short = feats[:, :3]
    mean = jnp.zeros((4, 13, 64))  # running mean of a fresh model
    a = run(module, variables, short)["logits"]
    b = run(module, variables, jnp.concatenate([short, mean], 1))["logits"]
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_bfloat16_stays_near_float32_and_keeps_float32_at_the_edges(mini):
    module, variables, feats = mini
    half = module.clone(dtype="bfloat16")
    a, b = run(module, variables, feats), run(half, variables, feats)
    assert {v.dtype for v in b.values()} == {jnp.dtype("float32")}
    scale = np.abs(a["logits"]).max()
    assert 0 < np.abs(a["logits"] - b["logits"]).max() < 0.05 * scale
