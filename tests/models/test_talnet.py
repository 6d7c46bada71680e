"""TALNet, CNN + Transformer and Transformer: sizes, padding, lengths, dropout, errors.

Their parity cases run in test_port.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax import models
from asjax.config import AsjaxError
from asjax.models import talnet
from asjax.weights import port

KEYS = jax.random.split(jax.random.key(0), 4)
MINI = {
    "crnn": ("talnet", "crnn_mini", {}),
    "cnn_transformer": ("talnet", "cnn_transformer_mini", {}),
    "transformer": ("transformer", "transformer_mini", {}),
}


def build(name, frames=26, **fields):
    family, variant, given = MINI[name]
    module = models.build(family, variant, num_classes=5, **given, **fields)
    x = jax.random.normal(KEYS[0], (2, frames, 64))
    variables = module.init(KEYS[1], x)
    noise = lambda a: a + 0.05 * jax.random.normal(KEYS[2], a.shape)  # noqa: E731
    return module, jax.tree.map(noise, variables), x


@pytest.mark.parametrize(
    ("family", "variant", "count"),
    [
        ("talnet", "crnn", 10_520_702),  # the paper's 10.5 M
        ("talnet", "crnn_big", 25_761_918),
        ("talnet", "cnn_transformer", 12_097_662),  # the paper's 12.1 M
        ("talnet", "cnn_transformer_big", 32_061_566),
        ("transformer", "transformer", 29_284_126),  # 28,473,600 (28.5 M) without the classifier
        ("transformer", "transformer_64x400", 17_397_278),
    ],
)
def test_parameters_are_those_of_the_authors_code(family, variant, count):
    assert models.parameters(models.build(family, variant)) == count


def test_the_printed_28_5_million_leave_out_the_classifier():
    params = models.abstract(models.build("transformer", "transformer"))["params"]
    body = {k: v for k, v in params.items() if k != "head"}
    assert sum(np.prod(x.shape) for x in jax.tree.leaves(body)) == 28_473_600


def test_sinusoidal_positions_equal_the_reference(golden):
    manifest, want = golden("sinusoidal_pe")
    np.testing.assert_allclose(talnet.positions(400, 64)[::9], want["pe_400x64"], atol=1e-7)
    np.testing.assert_allclose(talnet.positions(1024, 128)[::9], want["pe_1024x128"], atol=1e-7)


@pytest.mark.parametrize("name", MINI)
@pytest.mark.parametrize("length", [5, 13, 18])
def test_a_padded_batch_equals_single_clips(name, length):
    module, variables, x = build(name)
    mask = jnp.arange(26)[None] < jnp.array([[26], [length]])
    got = module.apply(variables, x.at[1, length:].set(99.0), mask=mask)
    alone = module.apply(variables, x[1:, :length])
    frames = alone["frame_logits"].shape[1]
    assert frames == length // 4
    for key in ("logits", "embedding"):
        np.testing.assert_allclose(got[key][1], alone[key][0], atol=1e-5, err_msg=key)
    np.testing.assert_allclose(got["frame_logits"][1, :frames], alone["frame_logits"][0], atol=1e-5)


@pytest.mark.parametrize("name", MINI)
def test_one_frame_is_enough(name):
    module, variables, x = build(name)
    out = module.apply(variables, x[:, :1])
    assert out["logits"].shape == (2, 5)
    assert np.isfinite(out["logits"]).all()


@pytest.mark.parametrize("name", ["cnn_transformer", "transformer"])
def test_dropout_acts_in_training_only(name):
    field = "transformer_dropout" if name == "cnn_transformer" else "dropout"
    module, variables, x = build(name, **{field: 0.5})
    run = lambda key: module.apply(  # noqa: E731
        variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
    )[0]["logits"]
    assert not np.allclose(run(KEYS[0]), run(KEYS[1]))
    still, variables, _ = build(name, **{field: 0.0})
    one = still.apply(variables, x, train=False)["logits"]
    np.testing.assert_array_equal(one, module.apply(variables, x, train=False)["logits"])


def test_dropped_attention_without_dropout_is_plain_attention():
    """The path with attention dropout at rate 0 equals `vit.attend`."""
    from asjax.nn.postnorm import EncoderLayer

    x = jax.random.normal(KEYS[0], (2, 6, 16))
    mask = jnp.arange(6)[None] < jnp.array([[6], [4]])
    plain = EncoderLayer(16)
    variables = plain.init(KEYS[1], x)
    dropping = EncoderLayer(16, dropout=1e-7, train=True)
    want = plain.apply(variables, x, mask)[0]
    got = dropping.apply(variables, x, mask, rngs={"dropout": KEYS[2]})[0]
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("name", MINI)
def test_weights_go_out_as_they_came_in(name):
    family, variant, _ = MINI[name]
    _, variables, _ = build(name)
    names = port.to_torch(family, variables)
    _, back = port.from_torch(family, variant, names, num_classes=5)
    jax.tree.map(np.testing.assert_array_equal, variables, back)


def test_the_authors_second_names_of_the_blocks_are_understood():
    _, variables, _ = build("crnn")
    names = port.to_torch("talnet", variables)
    doubled = {**names, "conv1.conv.weight": names["conv.0.conv.weight"]}
    port.from_torch("talnet", "crnn_mini", doubled, num_classes=5)
    renamed = dict(names)
    renamed["conv3.conv.weight"] = renamed.pop("conv.2.conv.weight")
    port.from_torch("talnet", "crnn_mini", renamed, num_classes=5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(convs=7), "convs=7 must be a multiple of pools=5"),
        (dict(n_mels=40), "n_mels=40 must be a multiple of 32"),
        (dict(context="lstm"), "TALNet context 'lstm'"),
        (dict(sequence="lstm"), "sequence='lstm' needs a detector; give frames"),
        (dict(pooling="attention"), "pooling 'attention'"),
    ],
)
def test_what_cannot_be_built_is_one_line(fields, message):
    with pytest.raises(AsjaxError, match=message):
        models.abstract(models.build("talnet", "crnn_mini", **fields))
