"""Attention: values and written-out gradients against float64, memory, which form is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax import nn
from asjax.config import AsjaxError
from asjax.nn import attention

KEYS = jax.random.split(jax.random.key(0), 8)


def naive(q, k, v, bias=None, mask=None):
    """Plain attention with the scores of all heads, in the dtype of its inputs."""
    scores = jnp.einsum("bqnd,bknd->bnqk", q, k) / q.shape[-1] ** 0.5
    scores = scores if bias is None else scores + bias
    scores = scores if mask is None else jnp.where(mask, scores, -1e30)
    return jnp.einsum("bnqk,bknd->bqnd", jax.nn.softmax(scores), v)


def value_and_gradients(function, inputs, mask, weight):
    def loss(inputs):
        out = function(**inputs, mask=mask)
        return (out * weight).sum(), out

    gradients, out = jax.jit(jax.grad(loss, has_aux=True))(inputs)
    return out, gradients


def in_float64(inputs, mask, weight):
    with jax.enable_x64(True):
        exact = {name: np.asarray(x, np.float64) for name, x in inputs.items()}
        return value_and_gradients(naive, exact, mask, np.asarray(weight, np.float64))


def distance(a, b) -> float:
    """Relative L2."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


CASES = [  # shapes of bias and mask
    (None, None),
    ((1, 3, 37, 41), None),
    ((2, 3, 37, 41), (2, 1, 1, 41)),
    ((1, 1, 37, 41), (2, 3, 37, 41)),
    ((2, 1, 1, 41), (1, 1, 37, 41)),
    ((1, 3, 1, 1), None),
]


@pytest.mark.parametrize(("biased", "masked"), CASES)
def test_values_and_gradients_are_those_of_plain_attention_in_float64(biased, masked):
    """37 queries and 41 keys: no number that a block or a tile divides."""
    rng = np.random.default_rng(1)
    shapes = {"q": (2, 37, 3, 8), "k": (2, 41, 3, 8), "v": (2, 41, 3, 8)}
    shapes |= {"bias": biased} if biased else {}
    inputs = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weight = rng.normal(size=shapes["q"]).astype(np.float32)
    mask = None
    if masked:
        mask = rng.random(masked) < 0.7
        mask[..., 0] = True
    got = value_and_gradients(attention.attend, inputs, mask, weight)
    want = in_float64(inputs, mask, weight)
    if biased == (1, 3, 1, 1):  # the softmax does not see what is the same for all keys
        assert np.abs(got[1].pop("bias")).max() < 1e-4
        want[1].pop("bias")
    distances = jax.tree.map(distance, got, want)
    assert max(jax.tree.leaves(distances)) < 1e-6, distances


def test_bfloat16_is_as_near_to_float64_as_jax_itself():
    rng = np.random.default_rng(2)
    inputs = {name: jnp.asarray(rng.normal(size=(2, 37, 3, 16)), jnp.bfloat16) for name in "qkv"}
    weight = jnp.asarray(rng.normal(size=(2, 37, 3, 16)), jnp.bfloat16)
    functions = attention.attend, lambda q, k, v, mask: jax.nn.dot_product_attention(q, k, v)
    ours, plain = (value_and_gradients(f, inputs, None, weight) for f in functions)
    want = in_float64(inputs, None, weight)
    for a, b, exact in zip(*map(jax.tree.leaves, (ours, plain, want)), strict=True):
        assert distance(a, exact) < 1.5 * distance(b, exact)


def test_scores_of_all_heads_are_never_kept():
    """Neither forward nor for the gradient: 8 heads of 2 x 256 x 256 are 4 MiB."""
    q = jnp.zeros((2, 256, 8, 8))

    def temporaries(backend):
        loss = jax.grad(lambda q: attention.attend(q, q, q, backend=backend).sum())
        return jax.jit(loss).lower(q).compile().memory_analysis().temp_size_in_bytes

    assert temporaries("auto") < 8 * 2 * 256 * 256 * 4 < temporaries("xla")


def test_the_kernel_of_nvidia_is_chosen_only_where_it_can_run(monkeypatch):
    calls = []

    def stand_in(q, k, v, *, bias, mask, implementation):
        calls.append(implementation)
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)

    def chosen(platform="gpu", dtype="bfloat16", width=64, backend="auto", **extras):
        calls.clear()
        q = jnp.zeros((1, 4, 2, width), dtype)
        with nn.forms(platform):
            jax.eval_shape(lambda: attention.attend(q, q, q, backend=backend, **extras))
        return calls[0] if calls else "heads"

    assert chosen() == "heads"  # no NVIDIA GPU here
    monkeypatch.setattr(attention, "_has_cudnn", lambda: True)
    assert chosen() == chosen(dtype="float16") == chosen(width=128) == "cudnn"
    assert chosen(backend="cudnn") == "cudnn"
    cannot = [
        dict(dtype="float32"),
        dict(width=4),
        dict(width=136),
        dict(bias=jnp.zeros((1, 2, 4, 4))),
        dict(mask=jnp.ones((1, 1, 1, 4), bool)),
    ]
    for case in cannot:
        assert chosen(**case) == "heads"
        with pytest.raises(AsjaxError, match="attention 'cudnn' must run .* got .*; use 'auto'"):
            chosen(backend="cudnn", **case)
    for platform in ("tpu", "cpu", "accelerator"):
        assert chosen(platform) == "heads"


def test_wrong_backends_are_one_line():
    q = jnp.zeros((1, 2, 2, 8), jnp.bfloat16)
    with pytest.raises(AsjaxError, match="attention 'flash' does not.*auto, cudnn, heads, xla"):
        attention.attend(q, q, q, backend="flash")
    with pytest.raises(AsjaxError, match="NVIDIA GPU.*got bfloat16 heads of 8; use 'auto'"):
        attention.attend(q, q, q, backend="cudnn")


def test_no_sum_over_devices_is_inside_the_loop_over_heads():
    """Two devices may then wait for each other for ever."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    q = jax.device_put(np.ones((2, 9, 3, 8), np.float32), rows)
    loss = jax.jit(jax.grad(lambda bias, q: attention.attend(q, q, q, bias=bias).sum()))
    for shape in ((1, 3, 9, 9), (1, 1, 9, 9)):
        text = loss.lower(np.ones(shape, np.float32), q).compile().as_text()
        before, entry = text.split("\nENTRY ")
        assert "all-reduce" in entry
        assert " all-reduce(" not in before


def test_a_fully_hidden_key_changes_nothing():
    q, k, v = (jax.random.normal(key, (1, 5, 2, 4)) for key in KEYS[:3])
    mask = jnp.array([True, True, True, False, True])[None, None, None]
    before = attention.attend(q, k, v, mask=mask)
    after = attention.attend(q, k.at[:, 3].set(99.0), v.at[:, 3].set(-99.0), mask=mask)
    np.testing.assert_array_equal(before, after)
