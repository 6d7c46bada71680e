"""Shared blocks: remat, plain forms, batch norm's gradient, the post-norm layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from asjax import models
from asjax.nn import norms, panns, plain, postnorm

SMALL = {  # a family's smallest network for this test
    "ast": dict(variant="tiny224", depth=2, width=16, heads=2, frames=32),
    "atst_clip": dict(variant="atst_clip_small", depth=2, blocks_used=1, width=16, heads=2),
    "ced": dict(variant="ced_tiny", depth=2, width=16, heads=2),
    "cnn": dict(variant="mini", channels=(4, 4, 4, 4), width=8),
    "conformer": dict(variant="conformer_mini", depth=1),
    "convnext": dict(variant="atto", dims=(4, 8, 8, 8), depths=(1, 1, 1, 1)),
    "efficientnet": dict(variant="effnet_b0", width=0.1, depth=0.3),
    "mobilenet": dict(variant="mn04", width=0.1),
    "passt": dict(variant="passt_s", depth=2, width=16, heads=2),
    "resnet": dict(variant="resnet22", dims=(4, 4, 4, 4), last=8, width=8),
    "resnet_att": dict(variant="resnet_mini"),
    "talnet": dict(variant="cnn_transformer_mini"),
    "transformer": dict(variant="transformer_mini"),
    **{
        family: dict(variant=f"{family}_base", width=16, heads=2, depth=2)
        for family in ("asit", "atst_frame", "fpasst", "m2d")
    },
    "beats": dict(
        variant="beats_base", width=16, heads=2, depth=2, patch_width=8, position_taps=8,
        position_groups=2, buckets=16, farthest=40,
    ),
    "frame_mn": dict(variant="frame_mn06", width=0.1),
    "wavegram": dict(variant="wavegram_logmel_cnn14", channels=(4, 4, 8, 8, 8, 8), width=8),
}  # fmt: skip


def gradient(module, x):
    """variables -> (loss, gradient with respect to the parameters), in training mode."""

    def loss(params, stats):
        out, _ = module.apply(
            {"params": params, **stats},
            x,
            train=True,
            mutable=list(stats),
            rngs={"dropout": jax.random.key(2)},
        )
        return (out["logits"] ** 2).sum()

    return lambda variables: jax.value_and_grad(loss)(
        variables["params"], {k: v for k, v in variables.items() if k != "params"}
    )


def primitives(jaxpr):
    """Names of all operations, including nested ones."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        inner = jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns"))
        for value in inner:
            value = getattr(value, "jaxpr", value)
            if hasattr(value, "eqns"):
                yield from primitives(value)


@pytest.mark.parametrize("family", models.families())
def test_every_family_takes_remat_and_dtype_and_they_change_no_parameter(family):
    shapes = []
    for over in ({}, dict(remat=True, dtype="bfloat16")):
        module = models.build(family, num_classes=5, **SMALL.get(family, {}), **over)
        x = jnp.zeros((2, *module.example_shape))
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        shapes.append(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables))
    assert shapes[0] == shapes[1]
    assert "remat2" in set(primitives(jax.make_jaxpr(gradient(module, x))(variables).jaxpr))


def test_remat_changes_no_gradient_and_no_statistic_of_a_network_with_dropout():
    results, fields = [], dict(variant="mini", channels=(2, 2), pools=(2, 2), width=4, n_mels=8)
    for remat in (False, True):
        module = models.build("cnn", num_classes=5, remat=remat, **fields)
        x = jax.random.normal(jax.random.key(1), (2, 8, 8))
        variables = jax.jit(module.init)(jax.random.key(0), x)
        results.append(jax.jit(gradient(module, x))(variables))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_block_of_panns_halves_what_its_pool_says():
    block = panns.Block(6, pool=(2, 1))
    y, _ = block.init_with_output(jax.random.key(0), jnp.ones((2, 9, 4, 3)), False)
    assert y.shape == (2, 4, 4, 6)


def test_gelu_and_the_forked_norm_equal_float64():
    x = np.random.default_rng(0).normal(3, 2, (2, 5, 7))
    np.testing.assert_allclose(plain.gelu(jnp.float32(x)), x * norm.cdf(x), rtol=1e-5, atol=1e-6)
    scale, bias = np.random.default_rng(1).normal(size=(2, 1, 1, 7))
    stream, y = plain.fork(jnp.float32(x), jnp.float32(scale), jnp.float32(bias), 1e-6)
    np.testing.assert_array_equal(stream, np.float32(x))
    want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(y, want * scale + bias, rtol=1e-4, atol=1e-5)


def test_batch_norms_written_gradient_is_that_of_its_definition():
    rng = np.random.default_rng(2)
    x, g = (jnp.float32(rng.normal(size=(3, 4, 5))) for _ in range(2))
    scale, bias = (jnp.float32(rng.normal(size=5)) for _ in range(2))

    def definition(x, scale, bias):
        hat = (x - x.mean((0, 1), keepdims=True)) / jnp.sqrt(x.var((0, 1), keepdims=True) + 1e-5)
        return hat * scale.reshape(1, 1, 5) + bias.reshape(1, 1, 5)

    ours = jax.vjp(lambda *a: norms.batch_norm(*a, 1e-5)[0], x, scale, bias)[1](g)
    theirs = jax.vjp(definition, x, scale, bias)[1](g)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_post_norm_layer_takes_its_softmax_in_float32():
    """Scores near 300, where bfloat16 rounds by up to one."""
    q = jnp.bfloat16(np.random.default_rng(3).normal(size=(1, 4, 1, 4)) * 16)
    v = jnp.eye(4, dtype=jnp.bfloat16)[None, :, None]
    layer = postnorm.EncoderLayer(8, 1, dtype="bfloat16")
    found = layer._attend_dropping(q, q, v, None, lambda x: x)
    scores = np.einsum("bqnd,bknd->bnqk", *[np.asarray(q, np.float64)] * 2) / 2
    want = softmax(scores, -1)[0, 0]
    np.testing.assert_allclose(np.asarray(found[0, :, 0], np.float64), want, atol=4e-3)
