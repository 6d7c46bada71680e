"""ConvNeXt: sizes and grids of every variant and stem, training behaviour, stochastic depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax import models
from asjax.config import AsjaxError
from asjax.models import convnext
from asjax.weights import port

# at 527 classes, with the 4x4 and the 18x4 stem
PARAMETERS = {
    "atto": (3_542_855, 3_545_095),
    "femto": (5_034_591, 5_037_279),
    "pico": (8_801_423, 8_805_007),
    "nano": (15_288_255, 15_292_735),
    "tiny": (28_222_767, 28_228_143),
}
# stem -> grid (time, frequency) after it for 1001 x 224, kernel elements
GRIDS = {
    "56": ((56, 56), 72),
    "112": ((112, 112), 18),
    "252x56": ((252, 56), 16),
    "504x28": ((504, 28), 32),
    "504x56": ((504, 56), 16),
}


@pytest.fixture(scope="module")
def small():
    """A tiny ConvNeXt with all parts that compiles quickly."""
    module = models.build(
        "convnext",
        variant="femto",
        depths=(1, 1, 2, 1),
        dims=(8, 8, 8, 8),
        num_classes=5,
        n_mels=32,
        layer_scale=0.5,
    )
    feats = jnp.float32(np.random.default_rng(0).normal(-30, 10, (4, 40, 32)))
    return module, _random(models.abstract(module)), feats


def _random(shapes):
    """Variables of the given shapes, without compiling an initialiser."""
    rng = np.random.default_rng(1)
    leaf = lambda s: np.float32(0.5 + 0.2 * rng.random(s.shape))  # noqa: E731
    return jax.tree.map(leaf, shapes)


@pytest.mark.parametrize("variant", PARAMETERS)
@pytest.mark.parametrize("stem", GRIDS)
def test_parameter_counts_of_every_variant_and_stem(variant, stem):
    module = models.build("convnext", variant=variant, stem=stem)
    width = module.dims[0]
    expected = PARAMETERS[variant][0] + width * (GRIDS[stem][1] - 16)
    assert models.parameters(module) == expected
    if stem == "56":
        assert expected == PARAMETERS[variant][1]


@pytest.mark.parametrize("stem", GRIDS)
def test_grids_after_the_stem_are_the_authors(stem):
    x = jax.ShapeDtypeStruct((1, 1001, 224, 1), jnp.float32)
    module = convnext.Stem(stem, 8)
    out, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)
    assert out.shape == (1, *GRIDS[stem][0], 8)


@pytest.mark.parametrize("stem", GRIDS)
def test_the_shortest_input_leaves_one_frame_and_needs_no_padding(stem):
    module = models.build("convnext", variant="atto", stem=stem)
    frames = []
    for extra in (0, -1):
        x = jax.ShapeDtypeStruct((1, module.min_frames + extra, 224), jnp.float32)
        text = str(jax.make_jaxpr(lambda x: module.init_with_output(jax.random.key(0), x)[0])(x))
        out, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)
        frames.append((out["frame_embedding"].shape[1], text.count("pad[")))
    (same, pads), (shorter, more_pads) = frames
    assert (same, shorter) == (1, 1)
    assert more_pads == pads + 1


def test_an_unknown_stem_and_too_few_bins_are_refused():
    with pytest.raises(AsjaxError, match="did you mean '504x28'"):
        models.build("convnext", variant="atto", stem="504x29")
    with pytest.raises(AsjaxError, match="n_mels must be at least 32"):
        models.parameters(models.build("convnext", variant="atto", n_mels=16))


def test_init_is_a_normal_of_two_hundredths():
    module = models.build("convnext", variant="atto", depths=(1, 1, 1, 1))
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 24, 224)))["params"]
    assert np.asarray(params["down3"]["conv"]["kernel"]).std() == pytest.approx(0.02, rel=0.02)
    assert np.unique(params["stage0_block0"]["gamma"]).tolist() == [np.float32(1e-6)]
    assert float(jnp.abs(params["head"]["bias"]).max()) == 0


def test_training_gives_finite_gradients_to_every_parameter(small):
    module, variables, feats = small

    def loss(params):
        out, _ = module.clone(drop_path_rate=0.2).apply(
            {**variables, "params": params},
            feats,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        return ((out["logits"] - 1) ** 2).mean()

    for path, g in jax.tree_util.tree_leaves_with_path(
        jax.jit(jax.grad(loss))(variables["params"])
    ):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 0, path


def test_drop_path_rises_linearly_over_all_blocks(small):
    module, variables, feats = small
    rates = []

    def spy(call, args, kwargs, context):
        if isinstance(context.module, convnext.layers.DropPath):
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with convnext.nn.intercept_methods(spy):
        jax.eval_shape(lambda x: module.clone(drop_path_rate=0.4).apply(variables, x), feats)
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])


def test_bfloat16_stays_near_float32_and_keeps_float32_at_the_edges(small):
    module, variables, feats = small
    a = jax.jit(module.apply)(variables, feats)
    b = jax.jit(module.clone(dtype="bfloat16").apply)(variables, feats)
    assert {v.dtype for v in b.values()} == {jnp.dtype("float32")}
    error = np.linalg.norm(a["embedding"] - b["embedding"]) / np.linalg.norm(a["embedding"])
    assert 0 < error < 0.05


def test_clips_of_a_batch_do_not_touch_each_other(small):
    module, variables, feats = small
    apply = jax.jit(module.apply)
    whole = apply(variables, feats)["logits"]
    alone = apply(variables, feats[2:3])["logits"]
    np.testing.assert_allclose(whole[2:3], alone, rtol=1e-5)


# ------------------------------------------------------------------------- the start from ImageNet


def imagenet(module, names="facebook", convolutions=False):
    """An ImageNet ConvNeXt of the module's sizes with Facebook's or timm's names; seed by position.

    `convolutions`: the linear layers of the blocks as 1x1 convolutions (timm's small variants).
    """
    timm = names == "timm"
    rng, out = np.random.default_rng(5), {}

    def layer(facebook, other, *shape):
        out[f"{other if timm else facebook}.weight"] = np.float32(rng.normal(size=shape))
        out[f"{other if timm else facebook}.bias"] = np.float32(rng.normal(size=shape[0]))

    one = (1, 1) if convolutions else ()
    for s, (depth, width) in enumerate(zip(module.depths, module.dims, strict=True)):
        before = module.dims[s - 1]
        if s == 0:
            layer("downsample_layers.0.0", "stem.0", width, 3, 4, 4)
            layer("downsample_layers.0.1", "stem.1", width)
        else:
            layer(f"downsample_layers.{s}.0", f"stages.{s}.downsample.0", before)
            layer(f"downsample_layers.{s}.1", f"stages.{s}.downsample.1", width, before, 2, 2)
        for b in range(depth):
            here, there = f"stages.{s}.{b}", f"stages.{s}.blocks.{b}"
            gamma = np.float32(rng.normal(size=width))
            out[f"{there if timm else here}.gamma"] = gamma
            layer(f"{here}.dwconv", f"{there}.conv_dw", width, 1, 7, 7)
            layer(f"{here}.norm", f"{there}.norm", width)
            layer(f"{here}.pwconv1", f"{there}.mlp.fc1", 4 * width, width, *one)
            layer(f"{here}.pwconv2", f"{there}.mlp.fc2", width, 4 * width, *one)
    layer("norm", "head.norm", module.dims[-1])
    layer("head", "head.fc", 1000, module.dims[-1])
    return out


@pytest.mark.parametrize(
    ("names", "convolutions"), [("facebook", False), ("timm", False), ("timm", True)]
)
@pytest.mark.parametrize("stem", ["252x56", "56", "504x56"])
def test_imagenet_fills_all_but_bn0_and_the_head(small, names, convolutions, stem):
    """The result equals a port of the same weights under the audio network's names."""
    module = small[0].clone(stem=stem)
    variables = _random(models.abstract(module))
    weights = imagenet(module, names, convolutions)
    started = convnext.init_from_imagenet(module, variables, weights)

    audio = port.to_torch("convnext", variables)
    mono = {k: v for k, v in imagenet(module).items() if not k.startswith("head.")}
    mono["downsample_layers.0.0.weight"] = mono["downsample_layers.0.0.weight"].sum(1)[:, None]
    if stem == "56":  # a kernel of 18 x 4: the convolution is not replaced, its norm is
        mono = {k: v for k, v in mono.items() if not k.startswith("downsample_layers.0.0")}
    fields = {k: getattr(module, k) for k in ("depths", "dims", "num_classes", "n_mels", "stem")}
    _, expected = port.from_torch("convnext", "femto", {**audio, **mono}, **fields)
    jax.tree.map(np.testing.assert_array_equal, started, expected)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), started, variables)["params"]
    bn0, head, conv = moved.pop("bn0"), moved.pop("head"), moved["stem"].pop("conv")
    assert not any(jax.tree.leaves([bn0, head]))
    assert all(jax.tree.leaves(moved))
    assert set(jax.tree.leaves(conv)) == {stem != "56"}


def test_imagenet_weights_of_timm_fit_the_published_sizes():
    """Names and shapes of `convnext_nano` (1x1 convolutions), without any computation."""
    module = models.build("convnext", variant="nano")
    variables = jax.tree.map(
        lambda s: np.broadcast_to(np.float32(0), s.shape), models.abstract(module)
    )
    weights = imagenet(module, "timm", convolutions=True)
    colours, bn0 = 2 * 80 * 16, 2 * 224
    assert sum(v.size for v in weights.values()) - colours + bn0 == 15_591_448
    convnext.init_from_imagenet(module, variables, weights)


def test_half_a_start_is_refused_and_everything_listed(small):
    module, variables, _ = small
    weights = imagenet(module, "timm")
    del weights["stages.2.blocks.1.gamma"], weights["head.norm.bias"]
    weights["stages.1.blocks.0.mlp.fc1.weight"] = np.zeros((32, 9))
    weights["stages.3.blocks.0.conv_dw.bias"] = "words"
    weights["stages.3.blocks.7.gamma"] = np.zeros(8)
    weights["stem.0.weight"] = np.zeros((8, 5, 4, 4))
    weights["stages.0.blocks.0.grn.weight"] = np.zeros(8)
    with pytest.raises(AsjaxError) as caught:
        convnext.init_from_imagenet(module, variables, weights)
    text = str(caught.value)
    for piece in (
        "ConvNeXt from ImageNet: 7 entries do not fit",
        "missing: the entry for stage2_block1/gamma (8,)",
        "missing: the entry for norm/bias (8,)",
        "misshapen: stages.1.blocks.0.mlp.fc1.weight (32, 9)",
        "misshapen: stages.3.blocks.0.conv_dw.bias ()",
        "misshapen: stem.0.weight (8, 5, 4, 4)",
        "left over: stages.3.blocks.7.gamma (8,)",
        "left over: stages.0.blocks.0.grn.weight (8,)",
    ):
        assert piece in text, piece
    assert "\n" not in text


def test_fields_are_read_off_a_checkpoint(small):
    for stem in ("56", "112", "504x28", "252x56"):
        module = models.build("convnext", variant="femto", stem=stem, n_mels=64)
        shapes = port.to_torch("convnext", _random(models.abstract(module)))
        femto = convnext.VARIANTS["femto"]
        assert convnext.torch_fields(shapes) == dict(femto, stem=stem, n_mels=64)
    assert convnext.torch_fields({}) == {}
