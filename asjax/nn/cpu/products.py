"""Matrix products, also of GELU(x), with hand-written gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from asjax.nn import plain

Array = jax.Array


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """[..., I] @ [I, O] -> [..., O]; the gradient of the kernel is computed as [I, O].

    jax computes [O, I] and transposes it. Then each pass of the optimiser reads it column by column
    (1024 x 1024: 90 ms).
    """
    return plain.product(x, kernel)


def _product_forward(x, kernel):
    return plain.product(x, kernel), (x, kernel)


def _product_backward(saved, g):
    x, kernel = saved
    return _input_gradient(kernel, g), _upright_gradient(x, g)


def _input_gradient(kernel, g):
    return jax.lax.dot_general(g, kernel, (((g.ndim - 1,), (1,)), ((), ())))


def _upright_gradient(x, g):
    rows = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(x, g, ((rows, rows), ((), ())))


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def gelu_product(x: Array, kernel: Array) -> Array:
    """[..., I], [I, O] -> [..., O]: GELU(x) @ kernel.

    GELU runs alone in a loop, and the backward pass recomputes it (README.md, 1 and 2).
    """
    return plain.product(_by_halves(plain.gelu, x), kernel)


def _gelu_product_forward(x, kernel):
    return gelu_product(x, kernel), (x, kernel)


def _gelu_product_backward(saved, g):
    x, kernel = saved

    def pull(dy, x):
        x = x.astype(jnp.float32)
        slope = plain.normal_cdf(x) + x * jnp.exp(-0.5 * x * x) * (0.5 / jnp.pi) ** 0.5
        return (dy.astype(jnp.float32) * slope).astype(dy.dtype)

    dx = _by_halves(pull, _input_gradient(kernel, g), x)
    # GELU also reads dx. Otherwise XLA would compute it in the forward pass and store it.
    y = _by_halves(lambda x, dx: jnp.where(jnp.isnan(dx), dx, plain.gelu(x)), x, dx)
    return dx, _upright_gradient(y, g)


gelu_product.defvjp(_gelu_product_forward, _gelu_product_backward)


def _by_halves(function, first, *others):
    """Apply an elementwise function in a loop over two halves of the last axis.

    The result overwrites `first`.
    """
    width = first.shape[-1]
    if width % 2:
        return function(first, *others)
    half = width // 2

    def step(out, part):
        cut = [
            jax.lax.dynamic_slice_in_dim(x, part * half, half, x.ndim - 1) for x in (out, *others)
        ]
        done = function(*cut)
        return jax.lax.dynamic_update_slice_in_dim(out, done, part * half, out.ndim - 1), None

    return jax.lax.scan(step, first, jnp.arange(2))[0]
