"""ResNets with attention pooling: sizes, lengths, ImageNet weights. Parity: test_port.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax import models
from asjax.config import AsjaxError
from asjax.weights import port

KEYS = jax.random.split(jax.random.key(0), 3)


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("resnet50", 25_661_406),
        ("resnet50_scrambled", 24_379_742),
        ("resnet50_64x400", 25_661_406),
        ("resnet34_asdr", 21_819_102),
        ("resnet50_asdr", 25_661_406),
    ],
)
def test_parameters_are_those_of_the_authors_code(variant, count):
    assert models.parameters(models.build("resnet_att", variant)) == count


def _mini(**fields):
    module = models.build("resnet_att", "resnet_mini", num_classes=3, **fields)
    x = jax.random.normal(KEYS[0], (2, 70, 64))
    return module, module.init(KEYS[1], x), x


@pytest.mark.parametrize("frames", [1, 33, 70])
def test_any_length_gives_a_32nd_of_the_frames(frames):
    module, variables, x = _mini()
    out = module.apply(variables, x[:, :frames])
    assert out["frame_logits"].shape == (2, -(-frames // 32), 3)
    assert np.isfinite(out["logits"]).all()
    np.testing.assert_allclose(jax.nn.sigmoid(out["logits"]), out["prob"], atol=1e-6)


def test_the_asdr_form_keeps_twice_the_frames():
    module, variables, x = _mini(stem_stride=1, time_first=True, pooling="asdr_attention")
    assert module.apply(variables, x)["frame_logits"].shape == (2, -(-70 // 16), 3)


def test_scrambling_reads_the_map_as_the_published_code_does():
    module = models.build("resnet_att", "resnet_mini", num_classes=3, scrambled=True, width=32)
    x = jax.random.normal(KEYS[0], (1, 400, 64))
    variables = module.init(KEYS[1], x)
    out, state = module.apply(variables, x, capture_intermediates=True)
    last = np.asarray(state["intermediates"]["layer4_block0"]["__call__"][0])  # [1, 2, 13, 256]
    flat = last.transpose(0, 3, 1, 2).reshape(1, -1)
    want = flat.reshape(1, -1, 4, 16).mean(2).transpose(0, 2, 1)
    np.testing.assert_allclose(out["frame_embedding"], want, atol=1e-6)


def test_training_moves_the_statistics_and_gradients_reach_the_stem():
    module, variables, x = _mini()

    def loss(params):
        out, new = module.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return out["logits"].sum(), new

    grads, new = jax.grad(loss, has_aux=True)(variables["params"])
    assert float(jnp.abs(grads["stem"]["kernel"]).max()) > 0
    assert float(jnp.abs(new["batch_stats"]["stem_bn"]["mean"]).max()) > 0


def test_weights_go_out_as_they_came_in_and_imagenet_fills_all_but_stem_and_head():
    _, variables, _ = _mini()
    own = port.to_torch("resnet_att", variables)
    _, back = port.from_torch("resnet_att", "resnet_mini", own, num_classes=3)
    jax.tree.map(np.testing.assert_array_equal, variables, back)

    given = {k.removeprefix("model."): v + 1 for k, v in own.items() if k.startswith("model.")}
    given |= {"fc.weight": np.zeros((1000, 128)), "conv1.weight": np.zeros((16, 3, 7, 7))}
    start = models.family("resnet_att").rename_from_imagenet(own, given)
    _, found = port.from_torch("resnet_att", "resnet_mini", start, num_classes=3)
    for name in variables["params"]:
        move = 0 if name in ("head", "stem") else 1
        jax.tree.map(
            lambda a, b, move=move: np.testing.assert_array_equal(a + move, b),
            variables["params"][name],
            found["params"][name],
        )


def test_unknown_activation_is_one_line():
    with pytest.raises(AsjaxError, match="pooling activation 'tanh'"):
        models.abstract(models.build("resnet_att", "resnet_mini", activation="tanh"))
