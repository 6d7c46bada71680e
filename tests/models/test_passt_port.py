"""PaSST from and to the authors' files, and its start from an ImageNet DeiT."""

import jax
import jax.numpy as jnp
import numpy as np
import parity_table
import pytest
import rule

from asjax import models
from asjax.config import AsjaxError
from asjax.models import passt
from asjax.models._passt_imagenet import bicubic
from asjax.weights import port

SMALL = dict(stride=16, width=32, depth=2, heads=2, num_classes=5, frames=80)


def _small(**fields):
    return models.build("passt", "passt_s", **{**SMALL, **fields})


@pytest.fixture(scope="module")
def nodist():
    manifest, _ = parity_table.load("passt_small_nodist_mel")
    return manifest, rule.state_dict(manifest)


def _torch_weights(module, salt="s"):
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
    weights = _torch_weights(_small(stride=(12, 14), frames=150))
    fields = {**SMALL, "stride": (12, 14), "frames": 150}
    _, variables = port.from_torch("passt", "passt_s", weights, **fields)
    back = port.to_torch("passt", variables)
    assert set(weights) - set(back) == {"head_dist.weight", "head_dist.bias"}
    for name, array in back.items():
        np.testing.assert_array_equal(array, weights[name])


def test_stride_14_and_100_classes_load_from_the_authors_wrapper_too():
    fields = dict(num_classes=100, stride=14, depth=1)
    weights = _torch_weights(models.build("passt", "passt_s", **fields))
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


# ----------------------------------------------------------------------------- ImageNet start


def _variables(module):
    return jax.tree.map(lambda x: jnp.full(x.shape, 7.0), models.abstract(module))


def _deit(width=32, depth=2, side=6, tokens=2):
    module = models.build("passt", "passt_s", **{**SMALL, "width": width, "depth": depth})
    weights = _torch_weights(module, "deit")
    gone = ("new_pos", "freq_", "time_", "head") + (("dist",) if tokens == 1 else ())
    weights = {k: v for k, v in weights.items() if not k.startswith(gone)}
    draw = lambda name, *shape: rule.array(name, shape, salt="deit")  # noqa: E731
    weights["patch_embed.proj.weight"] = draw("patch", width, 3, 16, 16)
    weights["pos_embed"] = draw("pos", 1, tokens + side**2, width)
    weights["head.weight"], weights["head.bias"] = draw("h", 1000, width), draw("hb", 1000)
    return weights


@pytest.mark.parametrize(("old", "new"), [(24, 99), (24, 12), (24, 8), (6, 1), (1, 5), (14, 14)])
def test_bicubic_resizes_as_torch_does(old, new):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(old + new).standard_normal((2, 3, old, old))
    got = bicubic(old, new) @ x @ bicubic(old, 7).T
    want = torch.nn.functional.interpolate(
        torch.from_numpy(x), size=(new, 7), mode="bicubic", align_corners=False
    )
    np.testing.assert_allclose(got, want.numpy(), atol=1e-12)


@pytest.mark.parametrize("tokens", [2, 1])
def test_the_start_from_deit_is_the_authors(tokens):
    torch = pytest.importorskip("torch")
    module = _small(stride=(12, 10), frames=300, distilled=tokens == 2)
    old = _variables(module)
    deit = _deit(tokens=tokens)
    new = passt.init_from_imagenet(module, old, deit)
    back = port.to_torch("passt", new)
    grid = torch.from_numpy(deit["pos_embed"][:, tokens:].reshape(1, 6, 6, 32)).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(
        grid, size=(10, 30), mode="bicubic", align_corners=False
    ).numpy()
    want = {
        **{k: v for k, v in deit.items() if k.startswith(("blocks", "cls", "dist", "norm"))},
        "patch_embed.proj.bias": deit["patch_embed.proj.bias"],
        "patch_embed.proj.weight": deit["patch_embed.proj.weight"].sum(1, keepdims=True),
        "new_pos_embed": deit["pos_embed"][:, :tokens],
        "freq_new_pos_embed": grid.mean(3, keepdims=True),
        "time_new_pos_embed": grid.mean(2, keepdims=True),
    }
    for name, array in want.items():
        np.testing.assert_allclose(back[name], array, atol=2e-6, err_msg=name)
    assert set(back) - set(want) == {f"head.{i}.{k}" for i in (0, 1) for k in ("weight", "bias")}
    for name in ("head", "head_norm"):
        jax.tree.map(np.testing.assert_array_equal, new["params"][name], old["params"][name])
    assert jax.tree.structure(new) == jax.tree.structure(old)


def test_the_start_from_deit_is_whole_or_refused():
    module, deit = _small(), _deit(depth=3)
    del deit["blocks.1.attn.qkv.bias"], deit["norm.weight"]
    deit["pos_embed"] = deit["pos_embed"][:, :-1]
    deit["patch_embed.proj.bias"] = deit["patch_embed.proj.bias"][:5]
    with pytest.raises(AsjaxError) as caught:
        passt.init_from_imagenet(module, _variables(module), deit)
    text = str(caught.value)
    for piece in (
        "missing: blocks.1.attn.qkv.bias (96,)",
        "missing: norm.weight (32,)",
        "misshapen: pos_embed (1, 37, 32)",
        "misshapen: patch_embed.proj.bias (5,) should be (32,)",
        "left over: blocks.2.mlp.fc2.weight (32, 128)",
    ):
        assert piece in text, piece
    assert "\n" not in text
    assert text.startswith("PaSST from ImageNet: 16 entries do not fit")
