"""AST's positions on other grids, and starting weights from ImageNet and AudioSet."""

import jax
import numpy as np
import pytest
import rule
from reference import ast_states as states

from asjax import models
from asjax.config import AsjaxError
from asjax.models import ast
from asjax.weights import port

SMALL = dict(width=64, heads=2, depth=2, n_mels=48, frames=90, stride=(12, 20), num_classes=5)
GRID = (3, 4)


@pytest.fixture(scope="module")
def small():
    module = models.build("ast", variant="tiny224", **SMALL)
    weights = states.weights(module)
    _, variables = port.from_torch("ast", "tiny224", weights, **SMALL)
    return module, variables, weights


@pytest.mark.parametrize("case", ["pos_embed_deit24", "pos_embed_audioset_12x101"])
def test_positions_are_adapted_as_the_constructor_does(case, golden):
    manifest, want = golden(case)
    places = rule.array("pos_embed", manifest["input"]["shape"], salt=manifest["salt"])
    old = (24, 24) if "deit" in case else (12, 101)
    for name, array in want.items():
        new = tuple(map(int, name.removeprefix("grid_").split("x")))
        found = ast.adapt_positions(places, old, new)[0, :, ::48]
        error = np.linalg.norm(found - array) / np.linalg.norm(array)
        assert error < max(20 * manifest["float32_error"][name], 1e-7), name


def _torch_positions(places, old, new):
    """The steps of AST's constructor."""
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(places[:, 2:]).transpose(1, 2).reshape(1, -1, *old)
    if new[1] <= old[1]:
        x = x[..., old[1] // 2 - new[1] // 2 :][..., : new[1]]
    else:
        x = torch.nn.functional.interpolate(x, size=(old[0], new[1]), mode="bilinear")
    if new[0] <= old[0]:
        x = x[:, :, old[0] // 2 - new[0] // 2 :][:, :, : new[0]]
    else:
        x = torch.nn.functional.interpolate(x, size=new, mode="bilinear")
    return np.concatenate([places[:, :2], x.flatten(2).transpose(1, 2).numpy()], 1)


@pytest.mark.parametrize("new", [(12, 101), (3, 4), (30, 7), (29, 253), (14, 14), (1, 1)])
@pytest.mark.parametrize("old", [(14, 14), (12, 101)])
def test_positions_equal_torchs_interpolation(old, new):
    places = rule.array("places", (1, 2 + old[0] * old[1], 6), salt="ast")
    want = _torch_positions(places, old, new)
    np.testing.assert_allclose(ast.adapt_positions(places, old, new), want, atol=2e-5)


@pytest.mark.parametrize("side", [24, 14, 2])
def test_imagenet_fills_all_but_the_head(small, side):
    module, variables, _ = small
    deit = states.deit(module, side)
    started = ast.init_from_imagenet(module, variables, {"model": deit})
    jax.tree.map(
        np.testing.assert_array_equal, started["params"]["head"], variables["params"]["head"]
    )
    back = port.to_torch("ast", started)
    for name, value in states.weights(module).items():
        if name.startswith("mlp_head"):
            np.testing.assert_array_equal(back[name], value)
    for name, value in deit.items():
        if name.startswith("head"):
            continue
        if name == "patch_embed.proj.weight":
            value = value.sum(1, keepdims=True)
        if name == "pos_embed":
            value = _torch_positions(value, (side, side), GRID)
        np.testing.assert_allclose(back[f"v.{name}"], value, atol=2e-6, err_msg=name)


def test_audioset_with_other_classes_and_another_grid(small):
    module, variables, _ = small
    given = states.weights(module.clone(num_classes=7), places=1212, seed="as")
    given |= {"v.head.weight": np.ones((9, 64)), "v.head_dist.bias": np.ones(9)}
    wrapped = {f"module.{k}": v for k, v in given.items()}
    started = port.to_torch("ast", ast.init_from_audioset(module, variables, wrapped))
    for name, value in states.weights(module).items():
        if name.startswith("mlp_head"):
            np.testing.assert_array_equal(started[name], value)
        elif name == "v.pos_embed":
            want = _torch_positions(given[name], (12, 101), GRID)
            np.testing.assert_array_equal(started[name], want)
        else:
            np.testing.assert_array_equal(started[name], given[name])


def test_audioset_with_the_same_classes_keeps_its_head(small):
    module, variables, _ = small
    given = states.weights(module, places=20, seed="as")
    named = states.hugging_face(given, 4)
    started = port.to_torch("ast", ast.init_from_audioset(module, variables, named, grid=(4, 5)))
    np.testing.assert_array_equal(started["mlp_head.1.weight"], given["mlp_head.1.weight"])
    want = _torch_positions(given["v.pos_embed"], (4, 5), GRID)
    np.testing.assert_array_equal(started["v.pos_embed"], want)
    same = states.weights(module, seed="as")
    started = port.to_torch("ast", ast.init_from_audioset(module, variables, same))
    for name, value in same.items():
        np.testing.assert_array_equal(started[name], value)


def test_a_start_that_does_not_fit_lists_all_and_changes_nothing(small):
    module, variables, weights = small
    deit = states.deit(module)
    del deit["dist_token"]
    deit |= {
        "fc_norm.weight": np.ones(4),
        "norm.weight": np.ones(3),
        "pos_embed": np.ones((1, 9, 64)),
    }
    deit["blocks.1.mlp.fc1.weight"] = np.array("x", object)
    with pytest.raises(AsjaxError) as caught:
        ast.init_from_imagenet(module, variables, deit)
    for piece in (
        "AST from ImageNet: 5 entries do not fit",
        "missing: dist_token (1, 1, 64)",
        "left over: fc_norm.weight (4,)",
        "misshapen: norm.weight (3,) should be (64,)",
        "misshapen: pos_embed: positions of shape (1, 9, 64)",
        "misshapen: blocks.1.mlp.fc1.weight holds no numbers",
    ):
        assert piece in str(caught.value), piece
    assert "\n" not in str(caught.value)
    with pytest.raises(AsjaxError, match="positions of shape .* grid of 3x4 patches"):
        ast.init_from_audioset(module, variables, states.weights(module, places=13))
    jax.tree.map(
        np.testing.assert_array_equal,
        port.from_torch("ast", "tiny224", weights, **SMALL)[1],
        variables,
    )
