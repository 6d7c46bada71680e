"""AST: sizes and grids, a plain torch forward pass, behaviour in training, other names."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import ast_states as states

from asjax import models
from asjax.config import AsjaxError
from asjax.models import ast
from asjax.weights import port

SMALL = dict(width=64, heads=2, depth=2, n_mels=48, frames=90, stride=(12, 20), num_classes=5)
GRID = (3, 4)


def _feats(module, clips=2, frames=None, seed=0):
    shape = (clips, frames or module.frames, module.n_mels)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    module = models.build("ast", variant="tiny224", **SMALL)
    weights = states.weights(module)
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
    expected = {k: v.shape for k, v in states.weights(module.clone(depth=1)).items()}
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


def test_training_on_longer_input_is_an_error(small):
    module, variables, _ = small
    train = partial(module.apply, train=True, rngs={"dropout": jax.random.key(0)})
    assert train(variables, _feats(module, frames=90))["logits"].shape[0] == 2
    with pytest.raises(AsjaxError, match=r"positions for 90 frames, and the features have 120"):
        train(variables, _feats(module, frames=120))


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


@pytest.mark.parametrize("version", [4, 5])
def test_hugging_faces_names_fill_the_same_arrays_and_the_authors_come_back(small, version):
    _, variables, weights = small
    named = states.hugging_face(weights, version)
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
        assert names == set(states.weights(models.build("ast", variant="tiny224")))


def test_a_projection_without_its_sisters_is_named(small):
    named = states.hugging_face(small[2], 4)
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
        (300, dict(stride=10, n_mels=128, frames=256)),  # from here on not a published input size
        (12 * 9, dict(stride=10, n_mels=128, frames=96)),
        (8 * 31, dict(stride=16, n_mels=128, frames=496)),
    ],
)
def test_the_number_of_positions_tells_the_input(patches, fields):
    for name in ("v.pos_embed", "audio_spectrogram_transformer.embeddings.position_embeddings"):
        readings = ast.torch_fields({name: np.zeros((1, 2 + patches, 8))})
        assert readings[0] == fields
        for one in readings:
            assert np.prod(models.build("ast", variant="tiny224", **one).grid) == patches


def test_two_published_inputs_with_as_many_positions_are_not_ranked():
    readings = ast.torch_fields({"v.pos_embed": np.zeros((1, 102, 8))})
    assert readings == (
        dict(stride=16, n_mels=64, frames=400),
        dict(stride=12, n_mels=128, frames=128),
    )
    assert ast.torch_fields({}) == []
