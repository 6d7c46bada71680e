"""PaSST's start from an ImageNet DeiT, against torch's interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule
from test_passt_port import SMALL, small, torch_weights

from asjax import models
from asjax.config import AsjaxError
from asjax.models import passt
from asjax.models._passt_imagenet import bicubic
from asjax.weights import port


def _variables(module):
    return jax.tree.map(lambda x: jnp.full(x.shape, 7.0), models.abstract(module))


def _deit(width=32, depth=2, side=6, tokens=2):
    module = models.build("passt", "passt_s", **{**SMALL, "width": width, "depth": depth})
    weights = torch_weights(module, "deit")
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
    module = small(stride=(12, 10), frames=300, distilled=tokens == 2)
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
    module, deit = small(), _deit(depth=3)
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
