"""Recurrent layers with PyTorch's (and cuDNN's) parametrisation: one scan for both directions.

Gates r, z, n; `n = tanh(W_in x + b_in + r * (W_hn h + b_hn))`, `h' = (1 - z) n + z h`, so both bias
vectors count. The backward pass is written out: the scan that XLA derives adds to the gradient of
the recurrent matrix in every step, here it is one product after the loop.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def rules(name: str) -> tuple:
    """Port rules of a torch recurrent layer called `name`, held under the same name here; they go
    into a family's TORCH. torch holds [3H, I], we [I, 3H]."""
    turned = (lambda x: np.swapaxes(x, -1, -2),) * 2
    escaped = name.replace(".", r"\.")
    ours = name.replace(".", "/")
    found = []
    for end in ("", "_reverse"):
        weight, bias = rf"{escaped}\.weight_([ih]+)_l(\d)", rf"{escaped}\.bias_([ih]+)_l(\d)"
        found.append((weight + end, rf"{ours}/weight_\1_l\2{end}", turned))
        found.append((bias + end, rf"{ours}/bias_\1_l\2{end}", "param"))
    return tuple(found)


class Gru(nn.Module):
    """GRU over [B, T, I] -> [B, T, H], or [B, T, 2H] (forward, backward) when bidirectional.

    `mask` [B, T] marks frames (1) and padding at the end (0): padding leaves the state as it is, so
    that a clip in a padded batch equals the clip alone, in both directions.
    """

    hidden: int
    layers: int = 1
    bidirectional: bool = True
    kernel_init: Callable = nn.initializers.orthogonal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        mask = jnp.ones(x.shape[:2], bool) if mask is None else mask > 0
        ends = ("", "_reverse") if self.bidirectional else ("",)
        for layer in range(self.layers):
            weights = [self._weights(f"l{layer}{end}", x.shape[-1]) for end in ends]
            w_ih, w_hh, b_ih, b_hh = (jnp.stack(group) for group in zip(*weights, strict=True))
            both = jnp.stack([x, x[:, ::-1]][: len(ends)])  # [D, B, T, I]
            valid = jnp.stack([mask, mask[:, ::-1]][: len(ends)])
            gates = jnp.einsum("dbti,dik->tdbk", both, w_ih) + b_ih[None, :, None]
            states = _recur(gates, w_hh, b_hh, valid.transpose(2, 0, 1)[..., None])
            x = states[:, 0].swapaxes(0, 1)
            if self.bidirectional:
                x = jnp.concatenate([x, states[::-1, 1].swapaxes(0, 1)], -1)
        return x

    def _weights(self, end: str, width: int):
        """(input matrix [I, 3H], recurrent matrix [H, 3H], their biases [3H])."""
        h = self.hidden
        return (
            self.param(f"weight_ih_{end}", self.kernel_init, (width, 3 * h)),
            self.param(f"weight_hh_{end}", self.kernel_init, (h, 3 * h)),
            self.param(f"bias_ih_{end}", self.bias_init, (3 * h,)),
            self.param(f"bias_hh_{end}", self.bias_init, (3 * h,)),
        )


@jax.custom_vjp
def _recur(gates: Array, w_hh: Array, b_hh: Array, valid: Array) -> Array:
    """Input gates [T, D, B, 3H], recurrent weights [D, H, 3H] and [D, 3H], valid [T, D, B, 1]
    -> states [T, D, B, H], from a state of zeros."""
    return _recur_forward(gates, w_hh, b_hh, valid)[0]


def _recur_forward(gates, w_hh, b_hh, valid):
    def step(h, now):
        x, on = now
        xr, xz, xn = jnp.split(x, 3, -1)
        hr, hz, hn = jnp.split(jnp.einsum("dbh,dhk->dbk", h, w_hh) + b_hh[:, None], 3, -1)
        r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        n = jnp.tanh(xn + r * hn)
        new = jnp.where(on, (1 - z) * n + z * h, h)
        return new, (new, h, r, z, n, hn)

    start = jnp.zeros((*gates.shape[1:3], gates.shape[3] // 3), gates.dtype)
    _, (states, *kept) = jax.lax.scan(step, start, (gates, valid))
    return states, (w_hh, valid, *kept)


def _recur_backward(saved, grad):
    w_hh, valid, *kept = saved
    turned = w_hh.swapaxes(1, 2)  # once: products of few rows are quicker with rows in order

    def step(carried, now):
        g, on, h, r, z, n, hn = now
        g = g + carried
        new, old = jnp.where(on, g, 0), jnp.where(on, 0, g)
        dn = new * (1 - z) * (1 - n * n)
        dz = new * (h - n) * z * (1 - z)
        dr = dn * hn * r * (1 - r)
        dx = jnp.concatenate([dr, dz, dn], -1)
        dh = jnp.concatenate([dr, dz, dn * r], -1)
        return old + new * z + jnp.einsum("dbk,dkh->dbh", dh, turned), (dx, dh)

    zero = jnp.zeros(grad.shape[1:], grad.dtype)
    _, (dx, dh) = jax.lax.scan(step, zero, (grad, valid, *kept), reverse=True)
    before = kept[0]
    return dx, jnp.einsum("tdbh,tdbk->dhk", before, dh), dh.sum((0, 2)), None


_recur.defvjp(_recur_forward, _recur_backward)
