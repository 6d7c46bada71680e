"""PSLA's EfficientNets: other sizes, heads, lengths against torch; padding, training, ImageNet."""

import jax
import jax.numpy as jnp
import numpy as np
import parity_table
import pytest
from test_mobilenet import variables_of

from asjax import frontends, models
from asjax.config import AsjaxError
from asjax.models import efficientnet
from asjax.weights import port

SMALL = dict(width=0.25, depth=0.3, num_classes=7)  # one block per stage
FORMS = {  # fields, frames
    "mean": (dict(heads=0, image=260), 64),
    "single": (dict(heads=1, image=224), 96),
    "three": (dict(heads=3, image=240, depth=0.6), 70),
    "more bins than are read": (dict(heads=2, image=260, n_mels=200), 40),
}
PARAMETERS = {  # (variant, heads) -> parameters of the authors' code
    ("effnet_b2", 4): 13_640_766,
    ("effnet_b2", 1): 9_185_504,
    ("effnet_b2", 0): 8_442_961,
    ("effnet_b0", 4): 9_407_672,
}


def build(variant="effnet_b0", **fields):
    return models.build("efficientnet", variant, **{**SMALL, **fields})


def torch_net(weights, train=False):
    torch = pytest.importorskip("torch")
    from reference import mbconv

    return torch, mbconv.EfficientNet({k: torch.tensor(v) for k, v in weights.items()}, train)


def run_torch(module, variables, x):
    torch, net = torch_net(port.to_torch("efficientnet", variables))
    strides = [fields[1] for fields in module._blocks()]
    return net(torch.tensor(x).transpose(1, 2)[:, None], strides, module.image).numpy()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_torchs_network_and_goes_to_torch_and_back(form):
    """With an augmentation before it."""
    fields, frames = FORMS[form]
    module = build(**fields)
    variables = variables_of(module)
    weights = port.to_torch("efficientnet", variables)
    fields = {**SMALL, **fields, **efficientnet.torch_fields(weights)}
    again, back = port.from_torch("efficientnet", "effnet_b0", weights, **fields)
    assert again == module
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    x = np.random.default_rng(1).normal(size=(2, frames, module.n_mels)).astype("f4")
    want = run_torch(module, variables, x)
    with jax.default_matmul_precision("highest"):
        out = jax.jit(lambda v, x: module.apply(v, x, augment=lambda f: f / 2))(variables, x * 2)
    assert np.linalg.norm(out["prob"] - want) <= 1e-5 * np.linalg.norm(want)
    inside = np.clip(want, 1e-7, 1 - 1e-7)
    np.testing.assert_allclose(jax.nn.sigmoid(out["logits"]), inside, rtol=1e-5)
    assert out["frame_logits"].shape == (*out["frame_embedding"].shape[:2], 7)


@pytest.mark.parametrize(("variant", "heads"), PARAMETERS)
def test_parameters_are_those_of_the_authors_code(variant, heads):
    module = models.build("efficientnet", variant, heads=heads)
    assert models.parameters(module) == PARAMETERS[variant, heads]


@pytest.mark.parametrize("variant", efficientnet.VARIANTS)
def test_ten_seconds_leave_33_frames(variant):
    module = models.build("efficientnet", variant)
    x = jax.ShapeDtypeStruct((2, 1056, 128), jnp.float32)
    out, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)
    shapes = {k: v.shape for k, v in out.items()}
    width = shapes["embedding"][1]
    assert shapes["logits"] == shapes["prob"] == (2, 527)
    assert shapes["frame_embedding"] == (2, 33, width)
    assert shapes["frame_logits"] == (2, 33, 527)
    assert width == {"effnet_b0": 1280, "effnet_b1": 1280, "effnet_b2": 1408}[variant]


def test_padding_is_the_reference_list_for_b2_and_uneven_for_b0():
    manifest, _ = parity_table.load("psla_effnet_b2_h4_128x1056")
    listed = manifest["static_padding"]
    blocks = list(models.build("efficientnet", "effnet_b2")._blocks())
    assert len(blocks) == 23
    for i, (*_, pad) in enumerate(blocks):
        assert listed[f"effnet._blocks.{i}._depthwise_conv"] == [*pad, *pad]
    assert listed["effnet._conv_stem"] == [*efficientnet.same_padding(260, 3, 2)] * 2
    b0 = [b[4] for b in models.build("efficientnet", "effnet_b0")._blocks() if b[1] == 2]
    assert b0 == [(0, 1), (1, 2), (0, 1), (1, 2)]


@pytest.mark.parametrize("image", [224, 240, 260])
def test_short_input_is_padded_with_zeros_up_to_one_frame(image):
    module = build(image=image, heads=1)
    shortest = module.min_frames

    def shape(frames):
        x = jax.ShapeDtypeStruct((1, frames, 128), jnp.float32)
        out, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)
        return out["frame_embedding"].shape[1]

    assert shape(1) == shape(shortest) == 1
    assert module._left(shortest - 1) == 0
    assert [module._left(n) for n in (100, 500, 1056)] == [shape(n) for n in (100, 500, 1056)]


def test_padded_input_gives_what_its_zeros_give():
    module = build(image=224, heads=1)
    variables = variables_of(module)
    x = np.random.default_rng(2).normal(size=(1, 3, 128)).astype("f4")
    longer = np.pad(x, ((0, 0), (0, module.min_frames - 3), (0, 0)))
    a, b = (jax.jit(module.apply)(variables, v)["logits"] for v in (x, longer))
    np.testing.assert_array_equal(a, b)


def test_training_drops_paths_moves_statistics_and_reaches_every_parameter():
    module = build(image=260, depth=0.6, heads=2, drop_path_rate=0.5)
    variables = variables_of(module)
    x = np.random.default_rng(1).normal(size=(4, 64, 128)).astype("f4")

    @jax.jit
    def step(params, key):
        def loss(params):
            out, state = module.apply(
                {**variables, "params": params},
                x,
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            return ((out["prob"] - 3) ** 2).mean(), state

        return jax.value_and_grad(loss, has_aux=True)(params)

    (a, state), grads = step(variables["params"], jax.random.key(0))
    (b, _), _ = step(variables["params"], jax.random.key(1))
    assert a != b
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 0, path
    before = variables["batch_stats"]["stem_bn"]["mean"]
    found = state["batch_stats"]["stem_bn"]["mean"]
    assert 0 < np.abs(found - before).max() < 0.1 * np.abs(before).max()  # momentum 0.99


def test_drop_path_rises_from_zero_to_almost_its_rate():
    module = models.build("efficientnet", "effnet_b2")
    rates = []

    def spy(call, args, kwargs, context):
        if isinstance(context.module, efficientnet.MBConv) and context.method_name == "__call__":
            rates.append(context.module.drop_path)
        return call(*args, **kwargs)

    with efficientnet.nn.intercept_methods(spy):
        models.abstract(module)
    np.testing.assert_allclose(rates, 0.2 * np.arange(23) / 23)


def test_published_files_carry_prefixes_and_an_unused_classifier():
    module = build(image=260, heads=3)
    variables = variables_of(module)
    weights = {f"module.{k}": v for k, v in port.to_torch("efficientnet", variables).items()}
    weights["module.effnet._fc.weight"] = np.zeros((1000, 320), "f4")
    weights["module.effnet._bn0.num_batches_tracked"] = np.zeros(())
    fields = {**SMALL, "image": 260, "heads": 3}
    _, found = port.from_torch("efficientnet", "effnet_b0", weights, **fields)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    weights["module.attention.cla.1.weight"] = np.zeros((7, 320), "f4")
    with pytest.raises(AsjaxError, match="misshapen: attention.cla.1.weight"):
        port.from_torch("efficientnet", "effnet_b0", weights, **fields)


def test_imagenet_fills_all_but_the_stem_and_the_pooling():
    module = build(image=260, heads=1)
    fresh, other = variables_of(module, 0), variables_of(module, 1)
    own = port.to_torch("efficientnet", fresh)
    theirs = port.to_torch("efficientnet", other)
    imagenet = {
        k.removeprefix("effnet."): v for k, v in theirs.items() if not k.startswith("attention")
    }
    imagenet["_conv_stem.weight"] = np.ones((8, 3, 3, 3), "f4")
    imagenet |= {"_fc.weight": np.ones((1000, 320), "f4"), "_fc.bias": np.ones(1000, "f4")}
    start = efficientnet.rename_from_imagenet(own, imagenet)
    fields = {**SMALL, "image": 260, "heads": 1}
    _, found = port.from_torch("efficientnet", "effnet_b0", start, **fields)
    kept = {k: fresh["params"][k] for k in ("stem", "attention")}
    want = {**other, "params": {**other["params"], **kept}}
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_the_frontend_is_pslas():
    spec = efficientnet.FRONTENDS["effnet_b2"]
    frontend = frontends.build(**spec)
    feats = frontend(np.zeros((1, 16000), "f4"))
    assert feats.shape == (1, 1056, 128)
    # beyond the clip: zeros in the log domain, before (x - mean) / std
    np.testing.assert_allclose(feats[0, -1], 4.6476 / 4.5699, rtol=1e-5)


def test_what_does_not_fit_is_named_in_one_line():
    with pytest.raises(AsjaxError, match="'effnet_b9' does not exist.*effnet_b2"):
        models.build("efficientnet", "effnet_b9")
    with pytest.raises(AsjaxError, match="128 mel bins, got 64"):
        jax.eval_shape(models.build("efficientnet", "effnet_b0").apply, {}, jnp.ones((1, 99, 64)))
    with pytest.raises(AsjaxError, match="n_mels must be at least 32"):
        models.parameters(models.build("efficientnet", "effnet_b0", n_mels=20))
    for heads in (-1, 2.5):
        with pytest.raises(AsjaxError, match="EfficientNet heads must be 0"):
            models.build("efficientnet", "effnet_b0", heads=heads)
