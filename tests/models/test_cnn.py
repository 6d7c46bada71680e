"""PANNs' CNNs and mini: published sizes, training behaviour of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import panns
from test_resnet import random

from asjax import frontends, models
from asjax.config import AsjaxError
from asjax.models import cnn
from asjax.weights import port

CNN14 = 80_753_615
PARAMETERS = {
    "cnn6": 4_837_455,
    "cnn10": 5_219_279,
    "cnn14": CNN14,
    "cnn14_16k": CNN14,
    "cnn14_8k": CNN14,
    "cnn14_mel32": CNN14 - 2 * 32,  # only bn0 depends on the bins
    "cnn14_mel128": CNN14 + 2 * 64,
    "cnn14_decision_max": CNN14,
    "cnn14_decision_avg": CNN14,
    "cnn14_decision_att": CNN14 + 527 * 2049,
}
FRONTENDS = {  # variant -> the authors' rate, FFT, hop, bins, highest frequency
    "cnn14": (32000, 1024, 320, 64, 14000),
    "cnn14_16k": (16000, 512, 160, 64, 8000),
    "cnn14_8k": (8000, 256, 80, 64, 4000),
    "cnn14_mel32": (32000, 1024, 320, 32, 14000),
    "cnn14_mel128": (32000, 1024, 320, 128, 14000),
    "cnn14_decision_att": (32000, 1024, 320, 64, 14000),
}


@pytest.fixture(scope="module")
def mini():
    module = models.build("cnn", variant="mini", num_classes=5)
    feats = jnp.float32(np.random.default_rng(0).normal(-30, 10, (4, 40, 64)))
    return module, jax.jit(module.init)(jax.random.key(0), feats), feats


def run(module, variables, feats, rng=None, **kwargs):
    """Outputs of one jitted call; training mode if a key is given."""

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
    """The authors apply dropout to the returned embedding, but the head reads it before dropout."""
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
    assert np.ptp(blank[1:], axis=0).max() < 1e-6  # all other clips were erased in the same way
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


@pytest.mark.parametrize(("variant", "expected"), FRONTENDS.items())
def test_frontends_of_the_variants_are_the_authors(variant, expected):
    made = frontends.build(**cnn.FRONTENDS[variant])
    assert (made.sample_rate, made.n_fft, made.hop, made.n_mels, made.fmax) == expected
    assert made.n_mels == models.build("cnn", variant=variant).n_mels


# ------------------------------------------------------------------------------ the decision level

DECISIONS = {"cnn14_decision_max": "max", "cnn14_decision_avg": "mean"} | {
    "cnn14_decision_att": "attention"
}
TINY = dict(channels=(4, 4, 4, 4, 4, 8), width=8, num_classes=5)


@pytest.mark.parametrize(("variant", "how"), DECISIONS.items())
@pytest.mark.parametrize("frames", [5, 200])
def test_decision_level_outputs_are_those_of_a_naive_network(variant, how, frames):
    """From the feature maps on (the cases of CNN14 test these); 5 frames give one map frame."""
    module = models.build("cnn", variant=variant, **TINY)
    variables = random(module)
    feats = np.float32(np.random.default_rng(1).normal(0, 2, (3, frames, 64)))
    with jax.default_matmul_precision("highest"):
        size = np.abs(run(module, variables, feats)["frame_embedding"]).max()
        variables["params"]["fc1"]["kernel"] /= size  # for logits of moderate size
        if how == "attention":
            variables["params"]["head"]["att"]["kernel"] *= 20  # so that some are clamped
        out = run(module, variables, feats)
    assert 0.3 < np.abs(out["frame_logits"]).mean() < 5
    state = port.to_torch("cnn", variables)
    prob, logits = panns.decide(state, np.float64(out["frame_embedding"]), how)
    assert out["frame_logits"].shape == (3, max(1, frames // 32), 5)
    np.testing.assert_allclose(out["frame_logits"], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-out["logits"])), prob, rtol=1e-5)
    assert out["embedding"].shape == (3, 8)


def test_the_attention_block_goes_to_torch_and_back_without_the_norm_nobody_calls():
    module = models.build("cnn", variant="cnn14_decision_att", **TINY)
    variables = random(module)
    state = port.to_torch("cnn", variables)
    assert state["att_block.att.weight"].shape == (5, 8, 1)
    assert cnn.torch_fields(state) == dict(n_mels=64, width=8, pooling="attention")
    unused = {f"att_block.bn_att.{k}": np.ones(5) for k in ("weight", "bias", "running_mean")}
    _, back = port.from_torch("cnn", "cnn14_decision_att", {**state, **unused}, **TINY)
    jax.tree.map(np.testing.assert_array_equal, variables, back)


def test_a_weighted_probability_keeps_its_logit_where_it_rounds_to_zero_or_one():
    logits = jnp.float32([[[-300.0], [-300.0]], [[200.0], [200.0]], [[-100.0], [30.0]]])
    got = np.asarray(cnn.weighted(jnp.zeros_like(logits), logits))[:, 0]
    np.testing.assert_allclose(got, [-300, 200, 0], atol=1e-4)  # the last: half of 0 and 1


def test_the_head_of_the_decision_level_reads_dropped_frames():
    """This differs from the clip-level head."""
    module = models.build("cnn", variant="cnn14_decision_max", **TINY, block_dropout=0.0)
    variables = random(module)
    feats = np.float32(np.random.default_rng(1).normal(0, 2, (2, 64, 64)))
    kernel = jnp.concatenate([jnp.eye(8), -jnp.eye(8)], 1)
    head = {"kernel": kernel, "bias": jnp.zeros(16)}
    params = {**variables["params"], "head": head}
    shown = run(
        module.clone(num_classes=16), {**variables, "params": params}, feats, jax.random.key(0)
    )
    seen = shown["frame_logits"][..., :8]
    whole = shown["embedding"]  # mean of the two frames before dropout
    assert (seen == 0).mean() > 0.3
    kept = (seen != 0).all(1)
    assert kept.any()
    np.testing.assert_allclose(seen.mean(1)[kept], 2 * whole[kept], rtol=1e-5)


def test_an_unknown_pooling_lists_the_known():
    with pytest.raises(AsjaxError, match="did you mean 'attention'.*clip, max, mean"):
        models.build("cnn", variant="cnn14", pooling="attentoin")
