"""The parts of PANNs' networks against naive numpy in float64."""

import jax
import numpy as np
import pytest
from reference import panns as naive

from asjax.config import AsjaxError
from asjax.nn import panns
from asjax.weights import port


def drawn(module, *args):
    """Variables of a module, all random, variances above 0."""
    rng = np.random.default_rng(0)
    variables = module.init(jax.random.key(0), *args)

    def draw(path, x):
        noise = rng.normal(size=x.shape).astype(np.float32) * 0.3
        return abs(noise) + 0.5 if path[-1].key == "var" else noise

    return jax.tree_util.tree_map_with_path(draw, variables)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("frames", "bins", "pool"), [(8, 6, (2, 2)), (7, 5, (2, 2)), (9, 4, (1, 3))]
)
def test_a_block_is_conv_norm_relu_twice_and_a_mean_over_whole_windows(frames, bins, pool, train):
    block = panns.Block(5, pool=pool)
    x = np.random.default_rng(1).normal(size=(2, frames, bins, 3)).astype(np.float32)
    variables = drawn(block, x, False)
    nested = {c: {"block1": v} for c, v in variables.items()}
    state = port.to_torch("cnn", nested)
    state = {k.removeprefix("conv_block1."): v for k, v in state.items()}
    with jax.default_matmul_precision("highest"):
        got, _ = block.apply(variables, x, train, mutable=["batch_stats"])
    named = {f"b.{k}": v for k, v in state.items()}
    want = naive.block(named, "b", np.float64(x).transpose(0, 3, 1, 2), pool, train)
    np.testing.assert_allclose(got, want.transpose(0, 2, 3, 1), rtol=2e-5, atol=2e-5)


def test_fields_are_told_by_shapes_and_by_the_attention_block():
    weights = {"bn0.weight": np.zeros(64), "fc1.weight": np.zeros((512, 7))}
    assert panns.torch_fields(weights) == {"n_mels": 64, "width": 512}
    weights["att_block.cla.weight"] = np.zeros((5, 2, 1))
    assert panns.torch_fields(weights)["pooling"] == "attention"
    assert panns.torch_fields({"x": np.zeros(3)}) == {}


def test_bins_that_the_pools_would_use_up_are_refused():
    panns.check_bins(32, 32)
    with pytest.raises(AsjaxError, match="n_mels must be at least 32 for these pools, got 31"):
        panns.check_bins(31, 32)
