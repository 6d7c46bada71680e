"""The causal CRNN: against naive numpy, in pieces, and blind to what comes later."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asjax import frontends, models
from asjax.config import AsjaxError
from asjax.frontends import stft

KEYS = jax.random.split(jax.random.key(7), 3)
CLASSES = 5


@functools.partial(jax.jit, static_argnums=0)
def apply(module, variables, x, state=None):
    return module.apply(variables, x, state=state)


@pytest.fixture(scope="module", name="model")
def causal_model():
    module = models.build(
        "talnet", "crnn_causal", num_classes=CLASSES, width=32, n_mels=32, dropout=0.1
    )
    x = jax.random.normal(KEYS[0], (2, 48, 32))
    variables = module.init(KEYS[1], x)
    noise = lambda a: 0.05 * jax.random.normal(KEYS[2], a.shape)  # noqa: E731
    variables = {
        "params": jax.tree.map(lambda a: a + noise(a), variables["params"]),
        "batch_stats": jax.tree.map(lambda a: a + jnp.abs(noise(a)), variables["batch_stats"]),
    }
    variables["params"]["head"]["fc_prob"]["kernel"] *= 20.0
    out = apply(module, variables, x)["frame_logits"]
    assert float(out.std(axis=1).min()) > 0.01  # it hears something
    return module, variables, x


def naive(module, variables, feats):
    """frame_logits [T // 4, C] of one clip [T, F], in float64, loop by loop."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
    params, stats = p["params"], p["batch_stats"]
    x = np.asarray(feats, np.float64)[..., None]
    for i, (width, (pt, pf)) in enumerate(module.stack()):
        weights, moments = params[f"block{i}"], stats[f"block{i}"]["bn"]
        t, f, _ = x.shape
        y = np.zeros((t, f, width))
        for now in range(t):
            for back in range(3):  # kernel row 2 is the frame itself, row 0 two frames before
                if now - back < 0:
                    continue
                for place in range(f):
                    for side in (-1, 0, 1):
                        if 0 <= place + side < f:
                            kernel = weights["conv"]["kernel"][2 - back, side + 1]
                            y[now, place] += x[now - back, place + side] @ kernel
        y += weights["conv"]["bias"]
        scale = weights["bn"]["scale"] / np.sqrt(moments["var"] + 1e-5)
        y = np.maximum(0, (y - moments["mean"]) * scale + weights["bn"]["bias"])
        t, f = t // pt, f // pf
        x = y[: t * pt, : f * pf].reshape(t, pt, f, pf, width).max(axis=(1, 3))
    t, f, c = x.shape
    x = x.swapaxes(1, 2).reshape(t, c * f)
    gru, h, rows = params["gru"], np.zeros(module.width), []
    for row in x:
        xr, xz, xn = np.split(row @ gru["weight_ih_l0"] + gru["bias_ih_l0"], 3)
        hr, hz, hn = np.split(h @ gru["weight_hh_l0"] + gru["bias_hh_l0"], 3)
        r, z = 1 / (1 + np.exp(-xr - hr)), 1 / (1 + np.exp(-xz - hz))
        h = (1 - z) * np.tanh(xn + r * hn) + z * h
        rows.append(h)
    head = params["head"]["fc_prob"]
    return np.stack(rows) @ head["kernel"] + head["bias"]


def test_frame_logits_equal_naive_loops(model):
    module, variables, x = model
    out = apply(module, variables, x[:1, :24])
    wanted = naive(module, variables, x[0, :24])
    np.testing.assert_allclose(out["frame_logits"][0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [[4] * 12, [8, 4, 24, 12], [44, 4], [48]])
def test_pieces_with_a_carried_state_are_the_whole(model, parts):
    module, variables, x = model
    whole = apply(module, variables, x)["frame_logits"]
    state, found, at = module.init_state(len(x)), [], 0
    for size in parts:
        out = apply(module, variables, x[:, at : at + size], state)
        state, at = out["state"], at + size
        found.append(out["frame_logits"])
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole, atol=1e-5, rtol=1e-5)


def test_nothing_looks_ahead(model):
    module, variables, x = model
    other = x.at[:, 24:].set(9.0)
    a, b = (apply(module, variables, y)["frame_logits"] for y in (x, other))
    np.testing.assert_array_equal(a[:, :6], b[:, :6])
    assert np.abs(a[:, 6] - b[:, 6]).max() > 1e-3


def test_it_learns_in_both_parts(model):
    """Gradients reach every parameter through the causal form."""
    module, variables, x = model

    def loss(params):
        out = module.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"],
            rngs={"dropout": KEYS[0]},
        )[0]  # fmt: skip
        return out["logits"].sum()

    grads = jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"]))
    assert all(np.isfinite(g).all() for g in grads)
    assert sum(np.abs(g).max() > 0 for g in grads) > 15


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (dict(context="transformer"), "context='transformer'"),
        (dict(frames=250), "frames=250"),
        (dict(pooling="tal_attention"), "pooling='tal_attention'"),
        (dict(positions=True), "positions=True"),
    ],
)
def test_a_part_that_looks_ahead_is_one_line(fields, text):
    with pytest.raises(AsjaxError, match="causal TALNet needs") as caught:
        models.build("talnet", "crnn_causal", **fields)
    assert text in str(caught.value)


def test_a_piece_of_a_wrong_size_and_a_model_without_state_are_one_line(model):
    module, variables, x = model
    with pytest.raises(AsjaxError, match="multiples of 4, got 6"):
        module.apply(variables, x[:, :6], state=module.init_state(2))
    with pytest.raises(AsjaxError, match="only a causal TALNet"):
        models.build("talnet", "crnn_mini").init_state(1)


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 32), (64, 48), (64, 64), (64, 80)])
def test_trailing_frames_equal_naive_ones_and_end_with_their_hop(n_fft, hop):
    wave = np.random.default_rng(0).normal(size=(2, 407)).astype(np.float32)
    window = stft.hann(n_fft)
    found = stft.power(stft.trailing(wave, window, hop), len(window))
    assert found.shape == (2, 407 // hop, n_fft // 2 + 1)
    padded = np.concatenate([np.zeros((2, n_fft)), wave], axis=1).astype(np.float64)
    for t in range(found.shape[1]):
        end = n_fft + (t + 1) * hop
        wanted = np.abs(np.fft.rfft(padded[:, end - n_fft : end] * window)) ** 2
        np.testing.assert_allclose(found[:, t], wanted, rtol=1e-4, atol=1e-5)


def test_a_log_mel_that_is_not_centred_is_that_of_a_centred_one_half_a_window_later():
    wave = np.random.default_rng(1).normal(size=(1, 16_000)).astype(np.float32)
    make = lambda **kw: frontends.build(  # noqa: E731
        "panns_logmel", sample_rate=16_000, n_mels=32, n_fft=512, hop=256, **kw
    )
    ahead, trailing = make()(wave), make(centred=False)(wave)
    # frame t covers up to (t + 1) 256, a centred one up to 256 t + 256: the same samples
    np.testing.assert_allclose(trailing[:, 1:], ahead[:, 1 : trailing.shape[1]], atol=1e-3)
