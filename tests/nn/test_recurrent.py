"""GRU against torch's, forward and backward; padding; the rules that carry weights over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax.nn import recurrent

KEYS = jax.random.split(jax.random.key(0), 6)


def _random(module, x):
    """Variables of `module` with biases that are not zero."""
    variables = module.init(KEYS[1], x)
    return jax.tree.map(lambda a: 0.3 * jax.random.normal(KEYS[2], a.shape), variables)


def _naive(params, x, layers=1):
    """float64, one clip [T, I], one step at a time."""
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    for layer in range(layers):
        outs = []
        for end, order in (("", 1), ("_reverse", -1)):
            get = lambda n: np.asarray(params[f"{n}_l{layer}{end}"], np.float64)  # noqa: B023, E731
            h, found = np.zeros(get("weight_hh").shape[0]), []
            for frame in x[::order]:
                xr, xz, xn = np.split(frame @ get("weight_ih") + get("bias_ih"), 3)
                hr, hz, hn = np.split(h @ get("weight_hh") + get("bias_hh"), 3)
                r, z = sigmoid(xr + hr), sigmoid(xz + hz)
                h = (1 - z) * np.tanh(xn + r * hn) + z * h
                found.append(h)
            outs.append(np.stack(found)[::order])
        x = np.concatenate(outs, -1)
    return x


@pytest.mark.parametrize("layers", [1, 2])
def test_states_equal_naive_float64(layers):
    x = jax.random.normal(KEYS[0], (2, 7, 3))
    gru = recurrent.Gru(4, layers)
    variables = _random(gru, x)
    got = gru.apply(variables, x)
    assert got.shape == (2, 7, 8)
    for clip, want in zip(x, got, strict=True):
        found = _naive(variables["params"], np.asarray(clip, np.float64), layers)
        np.testing.assert_allclose(want, found, atol=1e-6)


def test_a_padded_batch_equals_single_clips_and_padding_gets_no_gradient():
    x = jax.random.normal(KEYS[0], (2, 9, 3))
    mask = jnp.arange(9)[None] < jnp.array([[9], [5]])
    gru = recurrent.Gru(4, 2)
    variables = _random(gru, x)
    got = gru.apply(variables, x, mask)
    alone = gru.apply(variables, x[1:, :5])
    np.testing.assert_allclose(got[1, :5], alone[0], atol=1e-6)
    np.testing.assert_allclose(got[0], gru.apply(variables, x[:1])[0], atol=1e-6)
    grad = jax.grad(lambda x: jnp.square(gru.apply(variables, x, mask)[1, :5]).sum())(x)
    assert not np.asarray(grad[1, 5:]).any()
    assert np.asarray(grad[1, :5]).all()


def test_the_written_gradient_equals_finite_differences():
    x = jax.random.normal(KEYS[0], (2, 5, 3))
    mask = jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    gru = recurrent.Gru(3)
    variables = _random(gru, x)
    loss = lambda v, x: jnp.sin(gru.apply(v, x, mask) * 3).sum()  # noqa: E731
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


def test_states_and_gradients_equal_torch():
    torch = pytest.importorskip("torch")
    x = np.asarray(jax.random.normal(KEYS[0], (2, 6, 3)))
    gru = recurrent.Gru(4, 2)
    variables = _random(gru, x)
    theirs = torch.nn.GRU(3, 4, 2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            weight.copy_(torch.from_numpy(np.array(variables["params"][name]).T.copy()))
    out, _ = theirs(torch.from_numpy(x.copy()))
    np.testing.assert_allclose(gru.apply(variables, x), out.detach(), atol=1e-6)
    out.square().sum().backward()
    grads = jax.grad(lambda v: jnp.square(gru.apply(v, x)).sum())(variables)["params"]
    for name, weight in theirs.named_parameters():
        np.testing.assert_allclose(grads[name], weight.grad.numpy().T, atol=2e-5, err_msg=name)
