"""PANNs' ResNets: published sizes, a naive network, initialisation and training behaviour."""

import json

import jax
import numpy as np
import pytest
from conftest import GOLDEN
from reference import panns

from asjax import models
from asjax.config import AsjaxError
from asjax.models import resnet
from asjax.weights import port

PARAMETERS = {"resnet22": 63_675_087, "resnet38": 73_783_247, "resnet54": 104_318_159}
SMALL = dict(dims=(4, 6, 6, 8), last=8, width=8, num_classes=5)


def random(module, seed=1):
    """Variables with which every norm and every ReLU has an effect."""
    rng = np.random.default_rng(seed)
    leaf = lambda s: np.float32(rng.normal(0, 0.5, s.shape))  # noqa: E731
    variables = jax.tree.map(leaf, models.abstract(module))
    return jax.tree_util.tree_map_with_path(
        lambda path, x: abs(x) + 0.5 if path[-1].key in ("var", "scale") else x, variables
    )


@pytest.mark.parametrize(("variant", "count"), PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(variant, count):
    assert models.parameters(models.build("resnet", variant=variant)) == count


@pytest.mark.parametrize(
    ("variant", "depths"), [("resnet22", (2, 1, 1, 2)), ("resnet54", (2,) * 4)]
)
@pytest.mark.parametrize("train", [False, True])
def test_outputs_are_those_of_a_naive_network(variant, depths, train):
    """Also in training mode, with batch statistics but without dropout."""
    still = dict(block_dropout=0.0, residual_dropout=0.0, head_dropout=0.0)
    module = models.build("resnet", variant=variant, depths=depths, **SMALL, **still)
    variables = random(module)
    feats = np.float32(np.random.default_rng(2).normal(0, 2, (3, 77, 64)))
    with jax.default_matmul_precision("highest"):
        run = jax.jit(lambda v, x: module.apply(v, x, train=train, mutable=["batch_stats"])[0])
        out = run(variables, feats)
    logits, embedding = panns.resnet(port.to_torch("resnet", variables), feats, depths, train)
    assert np.linalg.norm(out["logits"] - logits) < 1e-5 * np.linalg.norm(logits)
    assert np.linalg.norm(out["embedding"] - embedding) < 1e-5 * np.linalg.norm(embedding)
    assert out["frame_embedding"].shape == (3, 77 // 32, 8)


@pytest.mark.parametrize("variant", ["resnet22", "resnet38"])
def test_names_and_shapes_are_those_of_the_authors(variant):
    shapes = models.abstract(models.build("resnet", variant=variant))
    zeros = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes)
    ours = {k: list(v.shape) for k, v in port.to_torch("resnet", zeros).items()}
    manifest = json.loads((GOLDEN / f"{variant}_mel.json").read_text())
    theirs = {k: s for k, s, kind in manifest["state_dict"] if "int" not in kind}
    assert ours == theirs


def test_a_bottleneck_network_goes_to_torch_and_back_bit_for_bit():
    fields = dict(SMALL, depths=(1, 1, 1, 1))
    variables = random(models.build("resnet", variant="resnet54", **fields))
    state = port.to_torch("resnet", variables)
    assert state["resnet.layer1.0.downsample.0.weight"].shape == (16, 4, 1, 1)
    assert state["resnet.layer2.0.downsample.1.weight"].shape == (24, 16, 1, 1)
    _, back = port.from_torch("resnet", "resnet54", state, **fields)
    jax.tree.map(np.testing.assert_array_equal, variables, back)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_residual_block_starts_as_its_shortcut_with_xavier_kernels(bottleneck):
    block = resnet.Residual(16, False, bottleneck)
    x = np.float32(np.random.default_rng(0).normal(size=(1, 4, 4, 64 if bottleneck else 16)))
    out, variables = jax.jit(lambda k: block.init_with_output(k, x, False))(jax.random.key(0))
    np.testing.assert_array_equal(out, np.maximum(x, 0))
    kernel = np.asarray(variables["params"]["conv2"]["kernel"])
    bound = np.sqrt(6 / (9 * 16 + 9 * 16))
    assert 0.9 * bound < np.abs(kernel).max() <= bound


def test_training_gives_gradients_to_every_parameter_and_new_statistics():
    module = models.build("resnet", variant="resnet22", depths=(1, 1, 1, 1), **SMALL)
    variables = random(module)
    feats = np.float32(np.random.default_rng(3).normal(0, 2, (4, 64, 64)))

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
    old = variables["batch_stats"]["bn0"]["mean"]
    expected = 0.9 * old + 0.1 * feats.mean((0, 1))
    np.testing.assert_allclose(state["batch_stats"]["bn0"]["mean"], expected, atol=1e-6)


def test_short_input_equals_input_padded_with_the_mean_frame():
    module = models.build("resnet", variant="resnet22", depths=(1, 1, 1, 1), **SMALL)
    variables = random(module)
    feats = np.float32(np.random.default_rng(4).normal(0, 2, (2, 9, 64)))
    norm = variables["params"]["bn0"], variables["batch_stats"]["bn0"]
    zero = norm[1]["mean"] - norm[0]["bias"] / norm[0]["scale"] * np.sqrt(norm[1]["var"] + 1e-5)
    long = np.concatenate([feats, np.broadcast_to(zero, (2, 23, 64))], 1)
    apply = jax.jit(module.apply)
    np.testing.assert_allclose(
        apply(variables, feats)["logits"], apply(variables, long)["logits"], rtol=2e-4, atol=2e-4
    )


def test_too_few_bins_are_refused():
    with pytest.raises(AsjaxError, match="n_mels must be at least 32 for these pools, got 16"):
        models.parameters(models.build("resnet", variant="resnet22", n_mels=16))
