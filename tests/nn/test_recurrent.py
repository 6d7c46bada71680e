"""GRU and LSTM against torch's, forward and backward; padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax.nn import recurrent

KEYS = jax.random.split(jax.random.key(0), 6)


def _random(module, x):
    """Variables of `module` with non-zero biases."""
    variables = module.init(KEYS[1], x)
    return jax.tree.map(lambda a: 0.3 * jax.random.normal(KEYS[2], a.shape), variables)


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


def _module_step(x, h, c):
    (xr, xz, xn), (hr, hz, hn) = np.split(x, 3), np.split(h[1], 3)
    r, z = _sigmoid(xr + hr), _sigmoid(xz + hz)
    return (1 - z) * np.tanh(xn + r * hn) + z * h[0], c


def _lstm_step(x, h, c):
    i, f, g, o = np.split(x + h[1], 4)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


CELLS = [(recurrent.Gru, _module_step), (recurrent.Lstm, _lstm_step)]
cells = pytest.mark.parametrize("cell", [recurrent.Gru, recurrent.Lstm])


def _naive(params, x, step, layers=1):
    """The layer in float64 for one clip [T, I], step by step."""
    for layer in range(layers):
        outs = []
        for end, order in (("", 1), ("_reverse", -1)):
            get = lambda n: np.asarray(params[f"{n}_l{layer}{end}"], np.float64)  # noqa: B023, E731
            h, c, found = *np.zeros((2, get("weight_hh").shape[0])), []
            for frame in x[::order]:
                inner = h @ get("weight_hh") + get("bias_hh")
                h, c = step(frame @ get("weight_ih") + get("bias_ih"), (h, inner), c)
                found.append(h)
            outs.append(np.stack(found)[::order])
        x = np.concatenate(outs, -1)
    return x


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("cell", "step"), CELLS)
def test_states_equal_naive_float64(cell, step, layers):
    x = jax.random.normal(KEYS[0], (2, 7, 3))
    module = cell(4, layers)
    variables = _random(module, x)
    got = module.apply(variables, x)
    assert got.shape == (2, 7, 8)
    for clip, want in zip(x, got, strict=True):
        found = _naive(variables["params"], np.asarray(clip, np.float64), step, layers)
        np.testing.assert_allclose(want, found, atol=1e-6)


@cells
def test_a_padded_batch_equals_single_clips_and_padding_gets_no_gradient(cell):
    x = jax.random.normal(KEYS[0], (2, 9, 3))
    mask = jnp.arange(9)[None] < jnp.array([[9], [5]])
    module = cell(4, 2)
    variables = _random(module, x)
    got = module.apply(variables, x, mask)
    alone = module.apply(variables, x[1:, :5])
    np.testing.assert_allclose(got[1, :5], alone[0], atol=1e-6)
    np.testing.assert_allclose(got[0], module.apply(variables, x[:1])[0], atol=1e-6)
    grad = jax.grad(lambda x: jnp.square(module.apply(variables, x, mask)[1, :5]).sum())(x)
    assert not np.asarray(grad[1, 5:]).any()
    assert np.asarray(grad[1, :5]).all()


@cells
def test_the_written_gradient_equals_finite_differences(cell):
    x = jax.random.normal(KEYS[0], (2, 5, 3))
    mask = jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    module = cell(3)
    variables = _random(module, x)
    loss = lambda v, x: jnp.sin(module.apply(v, x, mask) * 3).sum()  # noqa: E731
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), (variables, x))
        grads = jax.grad(loss, (0, 1))(*wide)
        for seed in range(3):
            way = jax.tree.map(
                lambda a, seed=seed: jnp.asarray(np.random.default_rng(seed).normal(size=a.shape)),
                wide,
            )
            move = lambda s: jax.tree.map(lambda a, w: a + s * 1e-6 * w, wide, way)  # noqa: B023, E731
            slope = (loss(*move(1)) - loss(*move(-1))) / 2e-6
            dot = sum(
                jnp.vdot(g, w) for g, w in zip(*map(jax.tree.leaves, (grads, way)), strict=True)
            )
            np.testing.assert_allclose(slope, dot, rtol=1e-6)


@cells
def test_states_and_gradients_equal_torch(cell):
    torch = pytest.importorskip("torch")
    x = np.asarray(jax.random.normal(KEYS[0], (2, 6, 3)))
    module = cell(4, 2)
    variables = _random(module, x)
    kind = getattr(torch.nn, cell.__name__.upper())
    theirs = kind(3, 4, 2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            weight.copy_(torch.from_numpy(np.array(variables["params"][name]).T.copy()))
    out, _ = theirs(torch.from_numpy(x.copy()))
    np.testing.assert_allclose(module.apply(variables, x), out.detach(), atol=1e-6)
    out.square().sum().backward()
    grads = jax.grad(lambda v: jnp.square(module.apply(v, x)).sum())(variables)["params"]
    for name, weight in theirs.named_parameters():
        np.testing.assert_allclose(grads[name], weight.grad.numpy().T, atol=2e-5, err_msg=name)
