"""EfficientAT's MobileNets: other widths, strides, heads and lengths against torch; training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax import models
from asjax.config import AsjaxError
from asjax.models import mobilenet
from asjax.weights import port

# EfficientAT's table has 0.983, 1.43, 4.88, 17.91, 39.09 and 68.43 million
PARAMETERS = {
    "mn01": 123_783,
    "mn02": 324_695,
    "mn04": 983_599,
    "mn05": 1_431_239,
    "mn10": 4_876_831,
    "mn20": 17_909_287,
    "mn30": 39_086_367,
    "mn40": 68_427_303,
}
FRAME_STRIDES = tuple(  # Frame-MobileNet's (frequency, time)
    zip((1, 2, 2, 1, 1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 2), (1, 2) + (1,) * 13, strict=True)
)
FORMS = {  # fields, frames
    "tiny": (dict(width=0.1), 37),
    "one frame": (dict(width=0.1), 1),
    "convolution": (dict(width=0.1, head="convolution", strides=(2, 2, 2, 1)), 50),
    "attention": (dict(width=0.1, head="attention", heads=2, strides=[2, 2, 1, 1]), 40),
    "wide": (dict(width=0.3, n_mels=40, reduced_tail=True, num_classes=7), 20),
    "frames": (dict(width=0.1, strides=FRAME_STRIDES), 24),
}


def variables_of(module, seed=0):
    """Random variables that keep every activation at a moderate size."""
    rng = np.random.default_rng(seed)

    def leaf(path, x):
        name = path[-1].key
        if name in ("scale", "var"):
            return np.float32(rng.uniform(0.5, 1.5, x.shape))
        fan_in = max(1, int(np.prod(x.shape[:-1]))) if name == "kernel" else 100
        return np.float32(rng.normal(size=x.shape) / fan_in**0.5)

    return jax.tree_util.tree_map_with_path(leaf, models.abstract(module))


def torch_strides(module):
    return [fields[-1] for fields in module._blocks()]


def torch_net(weights, train=False):
    torch = pytest.importorskip("torch")
    from reference import mbconv

    tensors = {k: torch.tensor(np.array(v)) for k, v in weights.items()}
    return torch, mbconv.MobileNet(tensors, train)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_torchs_network_and_goes_to_torch_and_back(form):
    """With an augmentation before it."""
    fields, frames = FORMS[form]
    module = models.build("mobilenet", "mn10", **{"num_classes": 11, **fields})
    variables = variables_of(module)
    weights = port.to_torch("mobilenet", variables)
    again, back = port.from_torch("mobilenet", "mn10", weights, **{"num_classes": 11, **fields})
    assert again == module
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    x = np.random.default_rng(1).normal(size=(2, frames, module.n_mels)).astype("f4")
    torch, net = torch_net(weights)
    want, pooled = net(torch.tensor(x).transpose(1, 2)[:, None], torch_strides(module))
    with jax.default_matmul_precision("highest"):
        out = jax.jit(lambda v, x: module.apply(v, x, augment=lambda f: f / 2))(variables, x * 2)
    for found, expected in ((out["logits"], want), (out["embedding"], pooled)):
        expected = expected.numpy()
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    assert (
        out["frame_embedding"].shape[1] == out.get("frame_logits", out["frame_embedding"]).shape[1]
    )
    if form == "frames":
        assert out["frame_embedding"].shape[1] == frames // 4


def test_training_has_torchs_gradients_and_running_statistics():
    module = models.build("mobilenet", "mn10", width=0.1, num_classes=11, dropout=0.0)
    variables = variables_of(module)
    x = np.random.default_rng(1).normal(size=(3, 40, 128)).astype("f4")
    torch, net = torch_net(port.to_torch("mobilenet", variables), train=True)
    for name, tensor in net.w.items():
        tensor.requires_grad_("running" not in name)
    logits, _ = net(torch.tensor(x).transpose(1, 2)[:, None], torch_strides(module))
    (logits**2).mean().backward()

    def loss(params):
        given = {**variables, "params": params}
        out, state = module.apply(given, x, train=True, mutable=["batch_stats"])
        return (out["logits"] ** 2).mean(), state

    with jax.default_matmul_precision("highest"):
        grads, state = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    found = port.to_torch("mobilenet", {"params": grads, **state})
    scale = max(float(t.grad.norm()) for t in net.w.values() if t.grad is not None)
    for name, tensor in net.w.items():
        want = (tensor if "running" in name else tensor.grad).detach().numpy()
        floor = 0 if "running" in name else 1e-4 * scale
        assert np.linalg.norm(found[name] - want) <= 1e-4 * np.linalg.norm(want) + floor, name


def test_dropout_draws_in_training_only():
    module = models.build("mobilenet", "mn10", width=0.1, num_classes=11, dropout=0.5)
    variables = variables_of(module)
    x = jnp.ones((2, 16, 128))

    @jax.jit
    def train(key):
        return module.apply(
            variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )[0]["logits"]

    a, b = train(jax.random.key(0)), train(jax.random.key(1))
    assert np.abs(a - b).max() > 1e-3
    np.testing.assert_array_equal(a, train(jax.random.key(0)))


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameters_are_those_of_the_authors_table(variant):
    module = models.build("mobilenet", variant)
    assert models.parameters(module) == PARAMETERS[variant]
    x = jax.ShapeDtypeStruct((2, 1000, 128), jnp.float32)
    out, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)
    assert out["logits"].shape == (2, 527)
    assert out["frame_embedding"].shape == (2, 32, out["embedding"].shape[1])


def test_an_imagenet_file_fills_all_but_the_layers_that_do_not_fit():
    module = models.build("mobilenet", "mn10", width=0.1, num_classes=11)
    fresh, other = variables_of(module, 0), variables_of(module, 1)
    own = port.to_torch("mobilenet", fresh)
    imagenet = port.to_torch("mobilenet", other)
    imagenet["classifier.5.weight"] = np.ones((1000, 128), "f4")
    imagenet["classifier.5.bias"] = np.ones(1000, "f4")
    start = mobilenet.rename_from_imagenet(own, imagenet)
    _, found = port.from_torch("mobilenet", "mn10", start, width=0.1, num_classes=11)
    want = {**other, "params": {**other["params"], "head": fresh["params"]["head"]}}
    jax.tree.map(np.testing.assert_array_equal, found, want)
    imagenet["features.0.0.weight"] = np.ones((8, 3, 3, 3), "f4")
    with pytest.raises(AsjaxError, match="misshapen: features.0.0.weight"):
        port.from_torch(
            "mobilenet",
            "mn10",
            mobilenet.rename_from_imagenet(own, imagenet),
            width=0.1,
            num_classes=11,
        )


@pytest.mark.parametrize("head", mobilenet.HEADS)
def test_the_head_of_a_checkpoint_is_told_by_its_names(head):
    module = models.build("mobilenet", "mn10", width=0.1, head=head, heads=3, num_classes=5)
    weights = port.to_torch("mobilenet", variables_of(module))
    fields = mobilenet.torch_fields(weights)
    again, _ = port.from_torch("mobilenet", "mn10", weights, width=0.1, num_classes=5, **fields)
    assert again.head == head
    assert head != "attention" or again.heads == 3


def test_bfloat16_stays_near_float32_and_keeps_float32_at_the_edges():
    module = models.build("mobilenet", "mn10", width=0.1, num_classes=5)
    variables = variables_of(module)
    x = np.random.default_rng(1).normal(size=(2, 30, 128)).astype("f4")
    torch, net = torch_net(port.to_torch("mobilenet", variables))
    want = net(torch.tensor(x).transpose(1, 2)[:, None], torch_strides(module))[1].numpy()
    out = jax.jit(module.clone(dtype="bfloat16").apply)(variables, x)
    assert {v.dtype for v in out.values()} == {jnp.dtype("float32")}
    assert 1e-5 < np.linalg.norm(out["embedding"] - want) / np.linalg.norm(want) < 0.05


def test_what_does_not_fit_is_named_in_one_line():
    with pytest.raises(AsjaxError, match="MobileNet head 'mpl'.*did you mean 'mlp'"):
        models.build("mobilenet", "mn10", head="mpl")
    with pytest.raises(AsjaxError, match="128 mel bins, got 64"):
        jax.eval_shape(models.build("mobilenet", "mn10").apply, {}, jnp.ones((1, 9, 64)))
    for strides in ((2, 2), ((2, 2, 2),) * 4, (0, 2, 2, 2)):
        with pytest.raises(AsjaxError, match="MobileNet strides must be 4 numbers or 15 pairs"):
            models.parameters(models.build("mobilenet", "mn10", strides=strides))
