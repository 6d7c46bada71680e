"""The post-norm encoder layer against naive numpy in float64, and its classifier of frames."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy.special import expit, softmax

from asjax.config import AsjaxError
from asjax.nn import postnorm

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 8)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)


def norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def naive(p, x, heads, mask):
    """y = norm(x + attention(x)); norm(y + fc2(relu(fc1(y)))), head by head."""
    dense = lambda name, y: y @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    q, k, v = (dense(f"w_{n}", x) for n in "qkv")
    size, parts = x.shape[-1] // heads, []
    for h in range(heads):
        at = slice(h * size, (h + 1) * size)
        scores = q[..., at] @ k[..., at].swapaxes(1, 2) / np.sqrt(size)
        scores = np.where(mask[:, None, :], scores, -np.inf)
        parts.append(softmax(scores, -1) @ v[..., at])
    y = norm(x + dense("proj", np.concatenate(parts, -1)), p["norm1"])
    return norm(y + dense("fc2", np.maximum(dense("fc1", y), 0)), p["norm2"])


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_the_layer_is_the_formula(heads, masked):
    layer = postnorm.EncoderLayer(mlp=12, heads=heads)
    variables = layer.init(jax.random.key(0), X)
    variables = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32) / 2, variables)
    mask = MASK if masked else None
    with jax.default_matmul_precision("highest"):
        got, carried = layer.apply(variables, X, mask)
    exact = jax.tree.map(np.float64, variables["params"])
    want = naive(exact, np.float64(X), heads, MASK if masked else np.ones_like(MASK))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert carried is None


def test_heads_must_divide_the_width():
    with pytest.raises(AsjaxError, match="width 8 must be a multiple of heads=3"):
        postnorm.EncoderLayer(mlp=4, heads=3).init(jax.random.key(0), X)


class Head(nn.Module):
    pooling: str
    num_classes: int = 4
    head_bias: float = -1.5

    @nn.compact
    def __call__(self, frames, mask):
        return postnorm.frame_head(self, frames, mask)


def test_the_classifier_pools_the_frames_of_the_clip_only():
    """With mean pooling, the clip's probability is the mean of the frames' probabilities."""
    head = Head("mean")
    variables = head.init(jax.random.key(1), X, MASK)
    assert (variables["params"]["head"]["fc_prob"]["bias"] == -1.5).all()
    out = head.apply(variables, X, MASK)
    for clip, mask in enumerate(MASK):
        p = expit(np.float64(out["frame_logits"][clip][mask])).mean(0)
        np.testing.assert_allclose(expit(np.float64(out["logits"][clip])), p, rtol=1e-5)
        np.testing.assert_allclose(out["embedding"][clip], X[clip][mask].mean(0), rtol=1e-5)
    assert "fc_att" not in variables["params"]["head"]
    attention = Head("tal_attention")
    assert "fc_att" in attention.init(jax.random.key(1), X, None)["params"]["head"]
