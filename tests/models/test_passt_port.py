"""PaSST from and to the authors' files."""

import jax
import numpy as np
import parity_table
import pytest
import rule

from asjax import models
from asjax.models import passt
from asjax.weights import port

SMALL = dict(stride=16, width=32, depth=2, heads=2, num_classes=5, frames=80)


def small(**fields):
    return models.build("passt", "passt_s", **{**SMALL, **fields})


@pytest.fixture(scope="module")
def nodist():
    manifest, _ = parity_table.load("passt_small_nodist_mel")
    return manifest, rule.state_dict(manifest)


def torch_weights(module, salt="s"):
    """A state dict of the authors' network for `module`, from the rule."""
    d, (rows, columns) = module.width, module.grid
    shapes = {
        "cls_token": (1, 1, d), "dist_token": (1, 1, d), "new_pos_embed": (1, 2, d),
        "freq_new_pos_embed": (1, d, rows, 1), "time_new_pos_embed": (1, d, 1, columns),
        "patch_embed.proj.weight": (d, 1, 16, 16), "patch_embed.proj.bias": (d,),
        "norm.weight": (d,), "norm.bias": (d,), "head.0.weight": (d,), "head.0.bias": (d,),
        "head.1.weight": (module.num_classes, d), "head.1.bias": (module.num_classes,),
        "head_dist.weight": (module.num_classes, d), "head_dist.bias": (module.num_classes,),
    }  # fmt: skip
    layer = {"norm1": (d,), "norm2": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d)}
    layer |= {"mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
    for i in range(module.depth):
        for name, shape in layer.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    return {k: rule.param(k, v, "float32", salt=salt) for k, v in shapes.items()}


def test_a_state_dict_comes_back_bit_for_bit(nodist):
    _, weights = nodist
    _, variant, fields = parity_table.spec("passt_small_nodist_mel")
    _, variables = port.from_torch("passt", variant, weights, **fields)
    back = port.to_torch("passt", variables)
    assert set(back) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(back[name], array)


def test_both_tokens_come_back_without_the_head_that_nothing_reads():
    weights = torch_weights(small(stride=(12, 14), frames=150))
    fields = {**SMALL, "stride": (12, 14), "frames": 150}
    _, variables = port.from_torch("passt", "passt_s", weights, **fields)
    back = port.to_torch("passt", variables)
    assert set(weights) - set(back) == {"head_dist.weight", "head_dist.bias"}
    for name, array in back.items():
        np.testing.assert_array_equal(array, weights[name])


def test_stride_14_and_100_classes_load_from_the_authors_wrapper_too():
    fields = dict(num_classes=100, stride=14, depth=1)
    weights = torch_weights(models.build("passt", "passt_s", **fields))
    module, variables = port.from_torch("passt", "passt_s", weights, **fields)
    assert module.grid == (9, 71)
    wrapped = {f"net.{k}": v for k, v in weights.items()}
    _, same = port.from_torch("passt", "passt_s", wrapped, **fields)
    jax.tree.map(np.testing.assert_array_equal, variables, same)


@pytest.mark.parametrize(
    ("variant", "stride"),
    [
        *[("passt_s", stride) for stride in (10, 12, 14, 16)],
        ("passt_s_20s", 10),
        ("passt_s_30s", 10),
        ("passt_s_hop100", 10),
        ("passt_l", 10),
    ],
)
def test_fields_are_read_from_the_shapes_of_the_published_grids(variant, stride):
    module = models.build("passt", variant, stride=stride)
    rows, columns = module.grid
    shapes = {
        "freq_new_pos_embed": np.zeros((1, 8, rows, 1)),
        "time_new_pos_embed": np.zeros((1, 8, 1, columns)),
        "cls_token": np.zeros((1, 1, 768)),
        "dist_token": np.zeros((1, 1, 768)),
        **{f"blocks.{i}.norm1.weight": np.zeros(768) for i in range(module.depth)},
    }
    assert passt.torch_fields(shapes) == dict(stride=stride, frames=module.frames)


def test_weights_of_another_network_tell_nothing():
    assert passt.torch_fields({"cls_token": np.zeros((1, 1, 8)), "bn0.weight": np.ones(64)}) == {}


def test_fields_of_another_size_build_a_module_that_takes_the_weights(nodist):
    manifest, weights = nodist
    fields = passt.torch_fields(weights)
    want = dict(stride=16, frames=400, width=384, heads=6, distilled=False, depth=4)
    assert fields == want
    port.from_torch("passt", "passt_s", weights, **fields, num_classes=200)
