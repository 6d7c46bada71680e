"""Operations as nodes of a file of operations (ONNX), for the form "graph" of `placement.forms`.

Each function is jitted, so that it keeps its name while a model is traced. `asjax.export` writes
one node, or a fixed group of nodes, for each of them.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

Array = jax.Array


@jax.jit
def graph_softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    return jax.nn.softmax(x, axis=-1)


@jax.jit
def graph_gelu(x: Array) -> Array:
    """x * Phi(x) by erf."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


@functools.partial(jax.jit, static_argnums=3)
def graph_layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """LayerNorm over the last axis; `scale` and `bias` have the rank of x, [1, ..., 1, D]."""
    mean = x.mean(-1, keepdims=True)
    rstd = jax.lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + epsilon)
    return (x - mean) * rstd * scale + bias


def attend(q: Array, k: Array, v: Array, bias=None, mask=None) -> Array:
    """Attention of all heads as two products; arguments as in `asjax.nn.attention.attend`."""
    scores = jnp.einsum("bqnd,bknd->bnqk", q * q.shape[-1] ** -0.5, k)
    scores = scores if bias is None else scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("bnqk,bknd->bqnd", graph_softmax(scores), v)
