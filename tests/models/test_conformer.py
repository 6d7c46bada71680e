"""The Conformer: size, padding, errors. Its parity case runs in test_port.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax import models
from asjax.config import AsjaxError
from asjax.weights import port

KEYS = jax.random.split(jax.random.key(0), 4)


def test_parameters_are_those_of_the_reconstruction():
    assert models.parameters(models.build("conformer", "conformer")) == 88_114_703
    assert models.parameters(models.build("conformer", "conformer_encoder")) == 87_659_520
    attention = models.build("conformer", "conformer", pooling="tal_attention")
    assert models.parameters(attention) == 88_114_703 + 768 * 527 + 527


def _mini(**fields):
    module = models.build("conformer", "conformer_mini", n_mels=8, num_classes=5, **fields)
    x = jax.random.normal(KEYS[0], (2, 20, 8))
    variables = module.init(KEYS[1], x)
    return (
        module,
        jax.tree.map(lambda a: a + 0.1 * jax.random.normal(KEYS[2], a.shape), variables),
        x,
    )


@pytest.mark.parametrize("pooling", ["mean", "tal_attention", "linear_softmax"])
def test_a_padded_batch_equals_single_clips(pooling):
    module, variables, x = _mini(pooling=pooling)
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    mask = jnp.arange(20)[None] < jnp.array([[20], [13]])
    got = module.apply(variables, x.at[1, 13:].set(99.0), mask=mask)
    alone = module.apply(variables, x[1:, :13])
    np.testing.assert_allclose(got["logits"][1], alone["logits"][0], atol=1e-5)
    np.testing.assert_allclose(got["embedding"][1], alone["embedding"][0], atol=1e-5)
    np.testing.assert_allclose(got["frame_logits"][1, :13], alone["frame_logits"][0], atol=1e-5)


def test_torchaudios_convolutions_see_the_padding_its_attention_does_not():
    one = models.build(
        "conformer", "conformer_mini", n_mels=8, num_classes=5, depth=1, mask_convolution=False
    )
    x = jax.random.normal(KEYS[0], (2, 20, 8))
    mask = jnp.arange(20)[None] < jnp.array([[20], [13]])
    single = one.init(KEYS[1], x)
    frames = lambda x: one.apply(single, x, mask=mask)["frame_embedding"][1]  # noqa: E731
    moved = np.abs(frames(x) - frames(x.at[1, 19].set(9.0))).max(-1)
    assert moved[12] > 1e-5  # kernel 15 reaches 7 frames back from frame 19
    np.testing.assert_array_equal(moved[:12], 0)


def test_scan_and_remat_change_no_number():
    results = []
    for fields in ({}, dict(scan_layers=False), dict(remat=True)):
        module, variables, x = _mini(**fields)

        def loss(params, module=module, variables=variables, x=x):
            out, _ = module.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.square(out["logits"]).sum()

        results.append(jax.value_and_grad(loss)(variables["params"]))
    for result in results[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), results[0], result
        )


def test_weights_go_out_as_they_came_in():
    module, variables, _ = _mini()
    names = port.to_torch("conformer", variables)
    assert "conformer_layers.2.self_attn.in_proj_weight" in names
    _, back = port.from_torch("conformer", "conformer_mini", names, n_mels=8, num_classes=5)
    jax.tree.map(np.testing.assert_array_equal, variables, back)


def test_unknown_pooling_is_one_line():
    module = models.build("conformer", "conformer_mini", pooling="mead")
    with pytest.raises(AsjaxError, match="did you mean 'mean'"):
        models.abstract(module)


def test_bfloat16_computes_near_float32_and_keeps_its_outputs_float32():
    module, variables, x = _mini()
    half, _, _ = _mini(dtype="bfloat16")
    want, got = module.apply(variables, x), half.apply(variables, x)
    assert got["logits"].dtype == got["frame_embedding"].dtype == jnp.float32
    np.testing.assert_allclose(got["logits"], want["logits"], atol=0.1)
    assert not np.array_equal(got["logits"], want["logits"])
