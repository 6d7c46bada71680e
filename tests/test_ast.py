"""AST: sizes and grids, a plain torch forward pass, other names, starts from other models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule

from asjax import models, port
from asjax.config import AsjaxError
from asjax.models import ast

SMALL = dict(width=64, heads=2, depth=2, n_mels=48, frames=90, stride=(12, 20), num_classes=5)
GRID = (3, 4)


def _weights(module, *, colours=1, places=None, seed="a", heads=True):
    """A state dict for `module` under the authors' names, as rule.py fills it."""
    d, hidden = module.width, int(module.width * module.mlp_ratio)
    places = int(np.prod(module.grid)) if places is None else places
    shapes = {
        "v.cls_token": (1, 1, d),
        "v.dist_token": (1, 1, d),
        "v.pos_embed": (1, 2 + places, d),
        "v.patch_embed.proj.weight": (d, colours, 16, 16),
        "v.patch_embed.proj.bias": (d,),
        "v.norm.weight": (d,),
        "v.norm.bias": (d,),
        "mlp_head.0.weight": (d,),
        "mlp_head.0.bias": (d,),
        "mlp_head.1.weight": (module.num_classes, d),
        "mlp_head.1.bias": (module.num_classes,),
    }
    for i in range(module.depth):
        for name, shape in {
            "norm1": (d,),
            "attn.qkv": (3 * d, d),
            "attn.proj": (d, d),
            "norm2": (d,),
            "mlp.fc1": (hidden, d),
            "mlp.fc2": (d, hidden),
        }.items():
            shapes[f"v.blocks.{i}.{name}.weight"] = shape
            shapes[f"v.blocks.{i}.{name}.bias"] = shape[:1]
    out = {k: rule.param(k, s, "float32", salt=seed) for k, s in shapes.items()}
    return out if heads else {k: v for k, v in out.items() if not k.startswith("mlp_head")}


def _deit(module, side=24):
    """Fake ImageNet weights of the module's width and depth."""
    given = _weights(module, colours=3, places=side**2, seed="deit", heads=False)
    given = {k.removeprefix("v."): v for k, v in given.items()}
    heads = {
        f"{h}.{leaf}": np.ones(3) for h in ("head", "head_dist") for leaf in ("weight", "bias")
    }
    return {**given, **heads}


def _feats(module, clips=2, frames=None, seed=0):
    shape = (clips, frames or module.frames, module.n_mels)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    module = models.build("ast", variant="tiny224", **SMALL)
    weights = _weights(module)
    _, variables = port.from_torch("ast", "tiny224", weights, **SMALL)
    return module, variables, weights


# ---------------------------------------------------------------------------------- the module


@pytest.mark.parametrize(
    ("variant", "fields", "count"),
    [
        ("base384", {}, 86_594_063),
        ("base224", {}, 86_594_063),
        ("base384_hf", dict(frames=256), 85_893_647),
        ("base384", dict(stride=12), 87_854_047 - 1_538_000),
        ("base384", dict(n_mels=64, frames=400, stride=8), 85_926_671),
        ("tiny224", dict(frames=512, stride=16, num_classes=50), 5_448_050),
    ],
)
def test_parameters_are_as_many_as_the_references(variant, fields, count):
    assert models.parameters(models.build("ast", variant=variant, **fields)) == count


@pytest.mark.parametrize("variant", list(ast.VARIANTS))
def test_every_variant_has_the_arrays_of_its_size(variant):
    module = models.build("ast", variant=variant)
    expected = {k: v.shape for k, v in _weights(module.clone(depth=1)).items()}
    assert module.heads == {192: 3, 384: 6, 768: 12}[module.width]
    shapes = models.abstract(module)["params"]
    assert shapes["encoder"]["blocks"]["attn"]["qkv"]["bias"].shape == (12, 3 * module.width)
    count = sum(np.prod(v) for k, v in expected.items() if "blocks" in k) * 12
    count += sum(np.prod(v) for k, v in expected.items() if "blocks" not in k)
    assert models.parameters(module) == count


@pytest.mark.parametrize(
    ("n_mels", "frames", "patches"),
    [
        (128, 1024, {4: 7337, 6: 3211, 8: 1905, 10: 1212, 12: 850, 14: 657, 16: 512}),
        (64, 400, {4: 1261, 6: 585, 8: 343, 10: 195, 12: 165, 14: 112, 16: 100}),
    ],
)
def test_the_grid_has_the_exact_patch_counts(n_mels, frames, patches):
    for stride, count in patches.items():
        module = models.build("ast", variant="tiny224", n_mels=n_mels, frames=frames, stride=stride)
        assert np.prod(module.grid) == count
        assert models.abstract(module)["params"]["pos_embed"].shape[1] == 2 + count


def test_the_output_equals_a_plain_torch_forward_pass(small):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    module, variables, weights = small
    w = {k: torch.from_numpy(v).double() for k, v in weights.items()}
    feats = _feats(module)

    def norm(x, name, eps):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = torch.from_numpy(feats).double()[:, None].transpose(2, 3)  # (B, 1, F, T)
    x = F.conv2d(x, w["v.patch_embed.proj.weight"], w["v.patch_embed.proj.bias"], stride=(12, 20))
    assert x.shape[2:] == GRID
    x = x.flatten(2).transpose(1, 2)
    tokens = [w["v.cls_token"].expand(2, -1, -1), w["v.dist_token"].expand(2, -1, -1)]
    x = torch.cat([*tokens, x], 1) + w["v.pos_embed"]
    for i in range(2):
        p = f"v.blocks.{i}"
        y = linear(norm(x, f"{p}.norm1", 1e-6), f"{p}.attn.qkv").reshape(2, -1, 3, 2, 32)
        q, k, v = y.permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-1, -2)) * 32**-0.5).softmax(-1) @ v
        x = x + linear(y.transpose(1, 2).flatten(2), f"{p}.attn.proj")
        y = F.gelu(linear(norm(x, f"{p}.norm2", 1e-6), f"{p}.mlp.fc1"))
        x = x + linear(y, f"{p}.mlp.fc2")
    x = norm(x, "v.norm", 1e-6)
    embedding = (x[:, 0] + x[:, 1]) / 2
    expected = {
        "logits": linear(norm(embedding, "mlp_head.0", 1e-5), "mlp_head.1"),
        "embedding": embedding,
        "frame_embedding": x[:, 2:].reshape(2, *GRID, 64).mean(1),
    }
    with jax.default_matmul_precision("highest"):
        out = jax.jit(module.apply)(variables, feats)
    for name, want in expected.items():
        error = np.linalg.norm(out[name] - want.numpy()) / np.linalg.norm(want)
        assert error < 2e-6, name


def test_short_input_is_padded_with_zeros_and_long_input_cut(small):
    module, variables, _ = small
    feats = _feats(module, frames=120)
    apply = jax.jit(module.apply)
    for frames in (1, 40, 90, 120):
        same = np.zeros((2, 90, 48), np.float32)
        same[:, : min(frames, 90)] = feats[:, : min(frames, 90)]
        np.testing.assert_array_equal(
            apply(variables, feats[:, :frames])["logits"], apply(variables, same)["logits"]
        )


def test_augment_sees_the_features_as_given(small):
    module, variables, _ = small
    feats = _feats(module, frames=70)
    seen = []

    def double(x):
        seen.append(x.shape)
        return 2 * x

    out = module.apply(variables, feats, augment=double)["logits"]
    assert seen == [(2, 70, 48)]
    np.testing.assert_array_equal(out, module.apply(variables, 2 * feats)["logits"])


def test_training_draws_dropout_and_reaches_every_parameter(small):
    module, variables, _ = small
    feats = _feats(module)
    strong = module.clone(dropout=0.2, drop_path=0.3)

    def loss(params, key):
        out = strong.apply({"params": params}, feats, train=True, rngs={"dropout": key})
        return ((out["logits"] - 1) ** 2).mean()

    step = jax.jit(jax.value_and_grad(loss))
    (first, grads), (second, _) = (step(variables["params"], jax.random.key(i)) for i in (1, 2))
    assert float(first) != float(second)
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 0, path
    calm, trained = (jax.jit(lambda x, t=t: module.apply(variables, x, train=t)) for t in (0, 1))
    np.testing.assert_array_equal(calm(feats)["logits"], trained(feats)["logits"])


def test_unrolled_layers_and_bfloat16_change_little(small):
    module, variables, _ = small
    feats = _feats(module)
    want = np.asarray(jax.jit(module.apply)(variables, feats)["logits"])
    unrolled = module.clone(scan_layers=False, remat=True)
    np.testing.assert_allclose(
        jax.jit(unrolled.apply)(variables, feats)["logits"], want, rtol=1e-4, atol=1e-5
    )
    low = jax.jit(module.clone(dtype="bfloat16").apply)(variables, feats)
    assert {v.dtype for v in low.values()} == {jnp.dtype("float32")}
    assert 0 < np.linalg.norm(low["logits"] - want) / np.linalg.norm(want) < 0.05


def test_the_start_is_the_authors():
    module = models.build("ast", variant="tiny224", depth=1, stride=16, head_bias=-4.0)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1024, 128)))["params"]
    assert np.std(params["pos_embed"]) == pytest.approx(0.02, rel=0.02)
    assert np.std(params["encoder"]["blocks"]["attn"]["qkv"]["kernel"]) == pytest.approx(
        0.02, rel=0.02
    )
    for kernel, bias, fan_in in (
        (params["patches"]["kernel"], params["patches"]["bias"], 256),
        (params["head"]["kernel"], params["head"]["bias"] + 4, 192),
    ):
        bound = fan_in**-0.5
        assert 0.95 * bound < np.abs(kernel).max() <= bound
        assert 0.9 * bound < np.abs(bias).max() <= bound + 1e-6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(stride=0), "stride must be a positive integer or a pair"),
        (dict(stride=(10, 10, 10)), "stride must be a positive integer or a pair"),
        (dict(stride="10"), "stride must be a positive integer or a pair"),
        (dict(frames=15), "at least 16 mel bins and frames"),
        (dict(n_mels=8), "at least 16 mel bins and frames"),
        (dict(strides=10), "did you mean 'stride'"),
    ],
)
def test_a_wrong_field_is_one_clear_error(fields, message):
    with pytest.raises(AsjaxError, match=message):
        models.build("ast", variant="base384", **fields)


# --------------------------------------------------------------------------------- checkpoints


def _hugging_face(weights, version):
    """The authors' names -> Hugging Face's, by the table of the specification."""
    width = weights["v.cls_token"].shape[-1]
    layer, (fc1, fc2), proj, qkv = {
        4: (
            "encoder.layer.",
            ("intermediate.dense", "output.dense"),
            "attention.output.dense",
            [f"attention.attention.{n}" for n in ("query", "key", "value")],
        ),
        5: (
            "layers.",
            ("mlp.fc1", "mlp.fc2"),
            "attention.o_proj",
            [f"attention.{n}_proj" for n in "qkv"],
        ),
    }[version]
    out = {}
    for name, value in weights.items():
        if ".attn.qkv." in name:
            i, leaf = name.split(".")[2], name.split(".")[-1]
            for n, part in enumerate(qkv):
                key = f"audio_spectrogram_transformer.{layer}{i}.{part}.{leaf}"
                out[key] = value[n * width : (n + 1) * width]
            continue
        for old, new in (
            ("v.pos_embed", "v.embeddings.position_embeddings"),
            ("v.cls_token", "v.embeddings.cls_token"),
            ("v.dist_token", "v.embeddings.distillation_token"),
            ("v.patch_embed.proj", "v.embeddings.patch_embeddings.projection"),
            ("v.norm", "v.layernorm"),
            ("v.blocks.", "v." + layer),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("attn.proj", proj),
            ("mlp.fc1", fc1),
            ("mlp.fc2", fc2),
            ("mlp_head.0", "classifier.layernorm"),
            ("mlp_head.1", "classifier.dense"),
        ):
            name = name.replace(old, new)
        out[name.replace("v.", "audio_spectrogram_transformer.", name.startswith("v."))] = value
    return out


@pytest.mark.parametrize("version", [4, 5])
def test_hugging_faces_names_fill_the_same_arrays_and_the_authors_come_back(small, version):
    _, variables, weights = small
    named = _hugging_face(weights, version)
    assert not set(named) & set(weights)
    module, found = port.from_torch("ast", "base384_hf", named, **SMALL)
    assert (module.epsilon, module.head_epsilon) == (1e-12, 1e-12)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    back = port.to_torch("ast", found)
    assert set(back) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_names_of_the_golden_cases_are_those_of_the_rules(golden):
    for case in ("ast_tiny224_128x512_s16", "hf_ast_base_128x256"):
        manifest, _ = golden(case)
        given = {name: np.zeros(shape, np.float32) for name, shape, _ in manifest["state_dict"]}
        names = {k for k in ast.from_other_names(given) if not k.startswith("v.head")}
        assert names == set(_weights(models.build("ast", variant="tiny224")))


def test_a_projection_without_its_sisters_is_named(small):
    named = _hugging_face(small[2], 4)
    lone = "audio_spectrogram_transformer.encoder.layer.1.attention.attention.key.weight"
    del named[lone]
    with pytest.raises(AsjaxError) as caught:
        port.from_torch("ast", "base384_hf", named, **SMALL)
    assert f"unmatched: {lone.replace('key', 'query')} (64, 64)" in str(caught.value)
    assert "missing: v.blocks.1.attn.qkv.weight" in str(caught.value)
    named[lone] = np.zeros((3, 64), np.float32)
    with pytest.raises(
        AsjaxError, match=r"unmatched: .*layer.1.attention.attention.key.weight \(3"
    ):
        port.from_torch("ast", "base384_hf", named, **SMALL)


@pytest.mark.parametrize(
    ("patches", "fields"),
    [
        (1212, dict(stride=10, n_mels=128, frames=1024)),
        (512, dict(stride=16, n_mels=128, frames=1024)),
        (343, dict(stride=8, n_mels=64, frames=400)),
        (600, dict(stride=10, n_mels=128, frames=512)),
        (144, dict(stride=10, n_mels=128, frames=128)),
        (100, {}),  # 64x400 by 16 or 128x128 by 12
        (300, {}),  # no published input
    ],
)
def test_the_number_of_positions_tells_the_input_where_it_can(patches, fields):
    for name in ("v.pos_embed", "audio_spectrogram_transformer.embeddings.position_embeddings"):
        assert ast.torch_fields({name: np.zeros((1, 2 + patches, 8))}) == fields
    if fields:
        assert np.prod(models.build("ast", variant="tiny224", **fields).grid) == patches


# -------------------------------------------------------------------------------------- starts


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
    """AST's constructor, step by step."""
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
    deit = _deit(module, side)
    started = ast.init_from_imagenet(module, variables, {"model": deit})
    jax.tree.map(
        np.testing.assert_array_equal, started["params"]["head"], variables["params"]["head"]
    )
    back = port.to_torch("ast", started)
    for name, value in _weights(module).items():
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
    given = _weights(module.clone(num_classes=7), places=1212, seed="as")
    given |= {"v.head.weight": np.ones((9, 64)), "v.head_dist.bias": np.ones(9)}
    wrapped = {f"module.{k}": v for k, v in given.items()}
    started = port.to_torch("ast", ast.init_from_audioset(module, variables, wrapped))
    for name, value in _weights(module).items():
        if name.startswith("mlp_head"):
            np.testing.assert_array_equal(started[name], value)
        elif name == "v.pos_embed":
            want = _torch_positions(given[name], (12, 101), GRID)
            np.testing.assert_array_equal(started[name], want)
        else:
            np.testing.assert_array_equal(started[name], given[name])


def test_audioset_with_the_same_classes_keeps_its_head(small):
    module, variables, _ = small
    given = _weights(module, places=20, seed="as")
    named = _hugging_face(given, 4)
    started = port.to_torch("ast", ast.init_from_audioset(module, variables, named, grid=(4, 5)))
    np.testing.assert_array_equal(started["mlp_head.1.weight"], given["mlp_head.1.weight"])
    want = _torch_positions(given["v.pos_embed"], (4, 5), GRID)
    np.testing.assert_array_equal(started["v.pos_embed"], want)
    same = _weights(module, seed="as")
    started = port.to_torch("ast", ast.init_from_audioset(module, variables, same))
    for name, value in same.items():
        np.testing.assert_array_equal(started[name], value)


def test_a_start_that_does_not_fit_lists_all_and_changes_nothing(small):
    module, variables, weights = small
    deit = _deit(module)
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
        ast.init_from_audioset(module, variables, _weights(module, places=13))
    jax.tree.map(
        np.testing.assert_array_equal,
        port.from_torch("ast", "tiny224", weights, **SMALL)[1],
        variables,
    )
