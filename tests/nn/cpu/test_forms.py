"""The forms for CPUs have the same values and gradients as the plain forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from asjax.nn import plain
from asjax.nn.cpu import convolution, norms, pools, products, shifts


def moved(text):
    """Collectives of a compiled program that move rows between devices."""
    return [w for w in ("all-gather", "all-to-all", "collective-permute") if w in text]


def pulled(function, *args, g):
    """(value, gradients of <value, g>)"""
    y, pull = jax.vjp(function, *args)
    return (y, *pull(g))


def depthwise_form(shape, size, strides, pads):
    form = dict(strides=strides, pads=pads)
    pair = (functools.partial(f, **form) for f in (shifts.depthwise, plain.depthwise))
    return (*pair, shape, (size, size, 1, shape[-1]))


FORMS = [
    depthwise_form((2, 9, 8, 3), 7, (1, 1), ((3, 3), (3, 3))),
    depthwise_form((2, 9, 8, 3), 3, (2, 1), ((1, 1), (1, 1))),
    depthwise_form((2, 10, 7, 3), 5, (2, 2), ((1, 2), (2, 2))),  # EfficientNet-B0's padding
    depthwise_form((2, 2, 11, 3), 3, (1, 3), ((1, 1), (0, 1))),
    depthwise_form((2, 1, 1, 3), 5, (2, 2), ((2, 2), (2, 2))),
    (convolution.conv, plain.conv, (2, 9, 8, 3), (5, 5, 3, 4)),
    (convolution.conv, plain.conv, (3, 70, 8, 2), (3, 3, 2, 4)),  # more than one step
    (convolution.conv, plain.conv, (2, 9, 8, 1), (5, 5, 1, 4)),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("ours", "library", "shape", "taps"), FORMS)
def test_cpu_convolutions_equal_the_library_with_their_gradients(ours, library, shape, taps, dtype):
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=shape), dtype)
    kernel = jnp.asarray(rng.normal(size=taps), dtype)
    g = jnp.asarray(rng.normal(size=jax.eval_shape(library, x, kernel).shape), dtype)
    with jax.default_matmul_precision("highest"):
        y, pull = jax.vjp(ours, x, kernel)
        found = (y, *pull(g))
        # the reference runs in float32 on the same (rounded) numbers
        y, pull = jax.vjp(library, x.astype("f4"), kernel.astype("f4"))
        expected = (y, *pull(g.astype("f4")))
    assert {r.dtype for r in found} == {jnp.dtype(dtype)}
    bound = 4e-6 if dtype == "float32" else 8e-3
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a.astype("f4") - b).max() <= bound * np.abs(b).max()


@pytest.mark.parametrize("form", [FORMS[0], FORMS[2], FORMS[-1]])
def test_cpu_convolutions_on_a_sharded_batch_move_no_activations(form):
    """Only the kernel's gradient may cross devices; the program must not gather the batch."""
    function, _, shape, taps = form
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.device_put(np.ones(shape, np.float32), rows)
    kernel = np.ones(taps, np.float32)
    loss = jax.jit(jax.grad(lambda k, x: (function(x, k) ** 2).sum(), (0, 1)))
    text = loss.lower(kernel, x).compile().as_text()
    assert "all-reduce" in text
    assert not moved(text)


@pytest.mark.parametrize("shape", [(5, 3), (2, 7, 3), (2, 3, 4, 3)])
def test_the_kernel_gradient_of_a_product_is_made_as_the_kernel_lies(shape):
    rng = np.random.default_rng(6)
    x, kernel, g = (rng.normal(size=s).astype("f4") for s in (shape, (3, 4), (*shape[:-1], 4)))
    with jax.default_matmul_precision("highest"):
        ours = pulled(products.product, x, kernel, g=g)
        text = jax.jit(functools.partial(pulled, products.product)).lower(x, kernel, g=g)
    flat, slope = x.reshape(-1, 3).astype("f8"), g.reshape(-1, 4).astype("f8")
    expected = x.astype("f8") @ kernel, g.astype("f8") @ kernel.T, flat.T @ slope
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert "transpose" not in text.as_text()


POOLS = [
    ((2, 2), (2, 2), ((0, 0), (0, 0)), (3, 8, 6, 4)),
    ((2, 2), (2, 2), ((0, 0), (0, 0)), (2, 9, 5, 3)),  # the last row and column fill no window
    ((3, 3), (2, 2), ((1, 1), (1, 1)), (2, 8, 7, 3)),  # ResNet's
    ((3, 3), (2, 2), ((1, 1), (1, 1)), (2, 1, 1, 3)),
    ((5, 3), (1, 2), ((2, 2), (0, 1)), (2, 6, 9, 2)),
    ((1, 2), (1, 2), ((0, 0), (0, 0)), (2, 5, 4, 3)),
    ((2, 2), (3, 3), ((0, 0), (0, 0)), (2, 8, 7, 2)),  # gaps between windows
]


@pytest.mark.parametrize(("window", "strides", "pads", "shape"), POOLS)
@pytest.mark.parametrize("tied", [False, True])
def test_max_pooling_by_places_equals_the_library(window, strides, pads, shape, tied):
    rng = np.random.default_rng(7)
    x = rng.normal(size=shape).astype("f4")
    if tied:  # the first of equal maxima gets the gradient
        x = np.maximum(x, 0)
    ours, library = (
        lambda x, f=f: f(x, window, strides, pads) for f in (pools.max_pool, plain.max_pool)
    )
    g = rng.normal(size=jax.eval_shape(library, x).shape).astype("f4")
    for a, b in zip(pulled(ours, x, g=g), pulled(library, x, g=g), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_a_nan_goes_through_max_pooling():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1].set(jnp.nan).at[0, 1, 0].set(5.0)
    form = (2, 2), (2, 2), ((0, 0), (0, 0))
    y, _ = jax.vjp(lambda x: pools.max_pool(x, *form), x)
    assert np.isnan(y).sum() == 1
    np.testing.assert_array_equal(y, plain.max_pool(x, *form))


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 7, 5), (3, 1, 4), (2, 2, 5, 3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_norm_in_halves_equals_the_plain_one_and_hands_on_the_stream(shape, dtype):
    rng = np.random.default_rng(8)
    x, stream = (jnp.asarray(rng.normal(2, 3, shape), dtype) for _ in range(2))
    flat = (1,) * (len(shape) - 1) + shape[-1:]
    scale, bias = (rng.normal(size=flat).astype("f4") for _ in range(2))
    g = stream, rng.normal(size=shape).astype("f4")
    (ours, *slopes), (theirs, *expected) = (
        pulled(lambda *args, f=f: f(*args, 1e-6), x, scale, bias, g=g)
        for f in (norms.fork, plain.fork)
    )
    np.testing.assert_array_equal(ours[0], x)
    assert slopes[0].dtype == x.dtype
    bound = 1e-5 if dtype == "float32" else 2e-2
    pairs = zip((ours[1], *slopes), (theirs[1], *expected), strict=True)
    for a, b in pairs:
        a, b = np.asarray(a, "f4"), np.asarray(b, "f4")
        assert np.abs(a - b).max() <= bound * np.abs(b).max()


def test_a_norm_of_a_sharded_batch_moves_no_activations():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.device_put(np.ones((4, 7, 6), np.float32), rows)
    scale = np.ones((1, 1, 6), np.float32)
    loss = lambda x, scale: sum((y**3).sum() for y in norms.fork(x, scale, scale, 1e-6))  # noqa: E731
    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, scale).compile().as_text()
    assert "all-reduce" in text
    assert not moved(text)


def plain_gelu_product(x, kernel):
    return plain.product(plain.gelu(x), kernel)


@pytest.mark.parametrize("width", [5, 6])
@pytest.mark.parametrize("form", [plain_gelu_product, products.gelu_product])
def test_a_product_of_gelu_equals_the_normal_distribution_in_value_and_slope(form, width):
    rng = np.random.default_rng(5)
    x, kernel, g = rng.normal(0, 3, (2, 3, width)), np.eye(width), rng.normal(size=(2, 3, width))
    x[0, 0, :3] = -9, 0, 9
    kernel[0, 1] = 2
    value, slope = x * norm.cdf(x), norm.cdf(x) + x * norm.pdf(x)
    args = (jnp.asarray(a, jnp.float32) for a in (x, kernel))
    with jax.default_matmul_precision("highest"):
        found = pulled(form, *args, g=jnp.float32(g))
    expected = (
        value @ kernel,
        g @ kernel.T * slope,
        np.einsum("bsi,bso->io", value, g),
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6 * np.abs(b).max())


def test_gelu_is_computed_again_in_the_backward_pass():
    """XLA may merge equal work of both passes and then store the result."""
    up, down = jnp.ones((16, 512)), jnp.ones((512, 16))

    def peak(form):
        def loss(x, down):
            for _ in range(4):
                x = form(x @ up, down)
            return (x**2).sum()

        compiled = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.ones((2, 256, 16)), down).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert peak(products.gelu_product) < 0.55 * peak(plain_gelu_product)
