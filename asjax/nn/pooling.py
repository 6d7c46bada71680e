"""Pooling from frames to clips: functions of the published architectures, and layers with them.

    clip, weights = pool("tal_attention")(logits, attention_logits, mask=mask)
    out = FramePool(527, "linear_softmax")(frames)  # [B, T, D]; out.prob, out.frame_logits

Every function takes frame logits [B, T, C] (before the sigmoid). It returns clip probabilities
[B, C] and weights [B, T, C], with clip = sum over t of weights * p. `mask` [B, T] is true for
frames of the clip; padding has weight 0. All numbers are float32.

Below, "p" is sigmoid(logits) clipped to [1e-7, 1 - 1e-7]. For the loss, `logit` converts a clip
probability to a logit with the same bounds, because the authors clamp before the cross entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from asjax.config import AsjaxError, unknown
from asjax.nn import layers

Array = jax.Array

EPSILON = 1e-7


def clamp(p: Array) -> Array:
    """p clipped to [1e-7, 1 - 1e-7], in float32."""
    return jnp.clip(jnp.asarray(p, jnp.float32), EPSILON, 1 - EPSILON)


def logit(p: Array) -> Array:
    """The inverse sigmoid, log p - log(1 - p), of p clipped to [1e-7, 1 - 1e-7]."""
    p = clamp(p)
    return jnp.log(p) - jnp.log1p(-p)


def frame_probability(logits: Array) -> Array:
    """sigmoid, clipped to [1e-7, 1 - 1e-7]."""
    return clamp(jax.nn.sigmoid(logits.astype(jnp.float32)))


# ------------------------------------------------------------- functions of the frame logits alone


def max_pool(logits: Array, *, mask: Array | None = None) -> tuple[Array, Array]:
    """max over t of p; the first of equal frames has the weight."""
    p = frame_probability(logits)
    hidden = p if mask is None else jnp.where(mask[..., None], p, -1.0)
    weights = jax.nn.one_hot(hidden.argmax(1), p.shape[1], axis=1)
    return (weights * p).sum(1), weights


def mean_pool(logits: Array, *, mask: Array | None = None) -> tuple[Array, Array]:
    """mean over t of p."""
    p = frame_probability(logits)
    return _weigh(p, jnp.ones_like(p), mask)


def linear_softmax(logits: Array, *, mask: Array | None = None) -> tuple[Array, Array]:
    """sum of p^2 / sum of p (Wang, Li & Metze 2019)."""
    p = frame_probability(logits)
    return _weigh(p, p, mask)


def exp_softmax(logits: Array, *, mask: Array | None = None) -> tuple[Array, Array]:
    """sum of p e^p / sum of e^p."""
    p = frame_probability(logits)
    return _weigh(p, jnp.exp(p), mask)


def psla_mean(logits: Array, *, mask: Array | None = None) -> tuple[Array, Array]:
    """mean over t of sigmoid(logits), not clamped (PSLA without attention heads)."""
    p = jax.nn.sigmoid(logits.astype(jnp.float32))
    return _weigh(p, jnp.ones_like(p), mask)


# ------------------------------------------------------------------------- functions with attention


def tal_attention(logits: Array, attention: Array, *, mask: Array | None = None):
    """sum of p * softmax over t of `attention`, per class (TALNet, Wang, Li & Metze 2019)."""
    attention = attention.astype(jnp.float32)
    if mask is not None:
        attention = jnp.where(mask[..., None], attention, -1e30)
    weights = jax.nn.softmax(attention, axis=1)
    return (weights * frame_probability(logits)).sum(1), weights


def psla_attention(
    logits: Array,
    attention: Array,
    *,
    mask: Array | None = None,
    activation: str = "sigmoid",
    logit_activation: str | None = None,
):
    """sum of c * a / sum of a; c and a are the activated `logits` and `attention` (PANNs, PSLA).

    Only a is clipped to [1e-7, 1 - 1e-7]. Activations are sigmoid, relu, linear, and softmax over
    the classes as in the authors' code. `logit_activation` is for c, by default `activation`.
    """
    c = _activate(logits, logit_activation or activation)
    return _weigh(c, clamp(_activate(attention, activation)), mask)


def asdr_attention(logits: Array, attention: Array, *, mask: Array | None = None):
    """sum of p * a / sum of a; p and a are clipped sigmoids (ResNets of AudioSetDoneRight)."""
    return _weigh(frame_probability(logits), frame_probability(attention), mask)


def multi_head_attention(
    logits: Array,
    attention: Array,
    head_weight: Array,
    *,
    mask: Array | None = None,
    activation: str = "sigmoid",
    logit_activation: str | None = None,
):
    """sum over h of head_weight[h] * `psla_attention` of head h (PSLA, Gong et al. 2021).

    logits, attention and the returned weights are [B, T, H, C], head_weight is [H]. The head
    weights are not constrained, so the result may lie outside [0, 1].
    """
    activations = dict(activation=activation, logit_activation=logit_activation)
    one = lambda c, a: psla_attention(c, a, mask=mask, **activations)  # noqa: E731
    clips, weights = jax.vmap(one, 2, (1, 2))(logits, attention)  # [B, H, C], [B, T, H, C]
    return jnp.einsum("bhc,h->bc", clips, head_weight.astype(jnp.float32)), weights


def _weigh(p, a, mask):
    """(sum over t of p * a / sum of a, a / sum of a), over the valid frames."""
    if mask is not None:
        a = jnp.where(mask[..., None], a, 0.0)
    total = a.sum(1, keepdims=True)
    weights = a / jnp.where(total == 0, 1.0, total)
    return (weights * p).sum(1), weights


_ACTIVATIONS: dict[str, Callable] = {
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,  # over the classes
    "relu": jax.nn.relu,
    "linear": lambda x: x,
}


def _activate(x, name):
    if name not in _ACTIVATIONS:
        raise unknown("pooling activation", name, _ACTIVATIONS)
    return _ACTIVATIONS[name](x.astype(jnp.float32))


# ------------------------------------------------------------------------------------------ by name

_PLAIN = {
    "max": max_pool,
    "mean": mean_pool,
    "linear_softmax": linear_softmax,
    "exp_softmax": exp_softmax,
    "psla_mean": psla_mean,
}
_ATTENTION = {
    "tal_attention": tal_attention,
    "psla_attention": psla_attention,
    "asdr_attention": asdr_attention,
}
POOLS = {**_PLAIN, **_ATTENTION, "multi_head_attention": multi_head_attention}


def pool(name: str) -> Callable:
    """The pooling function called `name`; AsjaxError lists the known ones."""
    if name not in POOLS:
        raise unknown("pooling", name, POOLS)
    return POOLS[name]


def needs_attention(name: str) -> bool:
    """True if the function takes attention logits in addition to frame logits."""
    pool(name)
    return name not in _PLAIN


# ------------------------------------------------------------------------------------------- layers


class Pooled(NamedTuple):
    """prob [B, C], the authors' clip probability; frame_logits [B, T, C]; weights per frame."""

    prob: Array
    frame_logits: Array
    weights: Array


def _dense(module, name):
    return layers.Dense(
        module.num_classes, kernel_init=module.kernel_init, bias_init=module.bias_init, name=name
    )


def relu_uniform(key, shape, dtype=jnp.float32) -> Array:
    """U(+-sqrt(6 / fan in)), the initial kernel of PANNs' and PSLA's single-head attention."""
    bound = (6 / shape[-2]) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class FramePool(nn.Module):
    """Frame classifiers and one pooling function without heads: [B, T, D] -> `Pooled`.

    Attributes:
      pooling: a name of `pool`, not multi_head_attention.
      logits, attention: names of the two linear layers, such as "fc_prob" and "fc_att", so that a
        family can use its authors' names. The second layer exists only if the function needs it.
      options: more keywords of the function, as pairs: (("activation", "softmax"),).
    """

    num_classes: int
    pooling: str = "psla_attention"
    logits: str = "cla"
    attention: str = "att"
    options: tuple = ()
    kernel_init: Callable = relu_uniform
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Pooled:
        function = pool(self.pooling)
        if function is multi_head_attention:
            raise AsjaxError("pooling multi_head_attention needs the layer MultiHeadPool")
        x = x.astype(jnp.float32)
        logits = _dense(self, self.logits)(x)
        extra = (_dense(self, self.attention)(x),) if needs_attention(self.pooling) else ()
        prob, weights = function(logits, *extra, mask=mask, **dict(self.options))
        return Pooled(prob, logits, weights)


class MultiHeadPool(nn.Module):
    """`multi_head_attention` with linear layers stacked over heads: [B, T, D] -> `Pooled`.

    The parameters cla_heads and att_heads have kernel [H, D, C] and bias [H, C]; `torch_pointwise`
    with a path "cla_heads[\\1]" fills them. head_weight [H] starts at 1/H. A frame's score is the
    sum over h of head_weight[h] * c_h, the clip's score if the clip had only this frame.
    frame_logits are the logits of these scores, or the scores for `logit_activation="linear"`.
    """

    num_classes: int
    heads: int = 4
    activation: str = "sigmoid"
    logit_activation: str | None = None
    logits: str = "cla_heads"
    attention: str = "att_heads"

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Pooled:
        x = x.astype(jnp.float32)
        logits, attention = (
            _Heads(self.heads, self.num_classes, name=name)(x)
            for name in (self.logits, self.attention)
        )
        start = nn.initializers.constant(1 / self.heads)
        head_weight = self.param("head_weight", start, (self.heads,))
        act = dict(activation=self.activation, logit_activation=self.logit_activation)
        prob, weights = multi_head_attention(logits, attention, head_weight, mask=mask, **act)
        name = self.logit_activation or self.activation
        frames = jnp.einsum("bthc,h->btc", _activate(logits, name), head_weight)
        return Pooled(prob, frames if name == "linear" else logit(frames), weights)


class _Heads(nn.Module):
    """[B, T, D] -> [B, T, H, C]: one linear layer per head, with torch's initial weights."""

    heads: int
    width: int

    @nn.compact
    def __call__(self, x):
        bound = x.shape[-1] ** -0.5
        start = lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)  # noqa: E731
        kernel = self.param("kernel", start, (self.heads, x.shape[-1], self.width))
        bias = self.param("bias", start, (self.heads, self.width))
        return jnp.einsum("btd,hdc->bthc", x, kernel) + bias[None, None]


# --------------------------------------------------------------- torch 1x1 convolutions as linear


def torch_pointwise(key: str, path: str) -> tuple:
    """Port rules for a torch 1x1 convolution with bias, weight (O, I, 1, 1), as our linear layer.

    `key` is a pattern, `path` is our path:
    `torch_pointwise(r"attention\\.(att|cla)", r"attention/\\1")`.
    """
    read = lambda x: np.squeeze(x, (2, 3)).T  # noqa: E731 (ValueError for another rank)
    write = lambda x: x.T[:, :, None, None]  # noqa: E731
    return (
        (key + r"\.weight", path + "/kernel", (read, write)),
        (key + r"\.bias", path + "/bias", "param"),
    )
