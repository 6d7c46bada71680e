"""Recurrent layers with PyTorch's (and cuDNN's) parameters; one scan runs both directions.

GRU: gates r, z, n; `n = tanh(W_in x + b_in + r * (W_hn h + b_hn))`, `h' = (1 - z) n + z h`, so both
bias vectors matter. LSTM: gates i, f, g, o; `c' = f c + i g`, `h' = o tanh(c')`. The backward
passes are hand-written: jax's own adds to the gradient of the recurrent matrix in every step, here
it is one product after the loop.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def rules(name: str, ours: str | None = None) -> tuple:
    """Port rules of a torch recurrent layer called `name`, for a family's TORCH.

    `ours` is our path, by default the same name. torch stores [G H, I], we store [I, G H].
    """
    turned = (lambda x: np.swapaxes(x, -1, -2),) * 2
    escaped = name.replace(".", r"\.")
    ours = ours or name.replace(".", "/")
    found = []
    for end in ("", "_reverse"):
        weight, bias = rf"{escaped}\.weight_([ih]+)_l(\d)", rf"{escaped}\.bias_([ih]+)_l(\d)"
        found.append((weight + end, rf"{ours}/weight_\1_l\2{end}", turned))
        found.append((bias + end, rf"{ours}/bias_\1_l\2{end}", "param"))
    return tuple(found)


class Gru(nn.Module):
    """GRU over [B, T, I] -> [B, T, H], or [B, T, 2H] (forward, backward) when bidirectional.

    `mask` [B, T] is 1 for frames and 0 for padding at the end. Padding does not change the state,
    so a clip in a padded batch has the same outputs as alone, in both directions.

    With `start` [layers, B, H], the states before the first frame, the result is (outputs, states
    after the last frame). It is for one direction and for inference.
    """

    hidden: int
    layers: int = 1
    bidirectional: bool = True
    kernel_init: Callable = nn.initializers.orthogonal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, start: Array | None = None):
        if start is None:
            return _run(self, x, mask, 3, _gru)
        last = []

        def carried(inputs, w_hh, b_hh, valid):
            states, _ = _gru_forward(inputs, w_hh, b_hh, valid, start[len(last)][None])
            last.append(states[-1, 0])
            return states

        return _run(self, x, mask, 3, carried), jnp.stack(last)


class Lstm(nn.Module):
    """LSTM over [B, T, I]; fields, `mask` and output as in `Gru`."""

    hidden: int
    layers: int = 1
    bidirectional: bool = True
    kernel_init: Callable = nn.initializers.orthogonal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        return _run(self, x, mask, 4, _lstm)


def _run(module, x: Array, mask: Array | None, gates: int, recur: Callable) -> Array:
    """Run all layers and directions of `module`; `recur` is its cell with `gates` gates."""
    mask = jnp.ones(x.shape[:2], bool) if mask is None else mask > 0
    ends = ("", "_reverse") if module.bidirectional else ("",)
    for layer in range(module.layers):
        weights = [_weights(module, f"l{layer}{end}", x.shape[-1], gates) for end in ends]
        w_ih, w_hh, b_ih, b_hh = (jnp.stack(group) for group in zip(*weights, strict=True))
        both = jnp.stack([x, x[:, ::-1]][: len(ends)])  # [D, B, T, I]
        valid = jnp.stack([mask, mask[:, ::-1]][: len(ends)])
        inputs = jnp.einsum("dbti,dik->tdbk", both, w_ih) + b_ih[None, :, None]
        states = recur(inputs, w_hh, b_hh, valid.transpose(2, 0, 1)[..., None])
        x = states[:, 0].swapaxes(0, 1)
        if module.bidirectional:
            x = jnp.concatenate([x, states[::-1, 1].swapaxes(0, 1)], -1)
    return x


def _weights(module, end: str, width: int, gates: int):
    """(input matrix [I, G H], recurrent matrix [H, G H], their biases [G H])."""
    h = module.hidden
    return (
        module.param(f"weight_ih_{end}", module.kernel_init, (width, gates * h)),
        module.param(f"weight_hh_{end}", module.kernel_init, (h, gates * h)),
        module.param(f"bias_ih_{end}", module.bias_init, (gates * h,)),
        module.param(f"bias_hh_{end}", module.bias_init, (gates * h,)),
    )


# ----------------------------------------------------------------------------------------- cells


@jax.custom_vjp
def _gru(gates: Array, w_hh: Array, b_hh: Array, valid: Array) -> Array:
    """Input gates [T, D, B, 3H], recurrent weights [D, H, 3H] and [D, 3H], valid [T, D, B, 1]
    -> states [T, D, B, H]; the first state is zero."""
    return _gru_forward(gates, w_hh, b_hh, valid)[0]


def _gru_forward(gates, w_hh, b_hh, valid, start=None):
    def step(h, now):
        x, on = now
        xr, xz, xn = jnp.split(x, 3, -1)
        hr, hz, hn = jnp.split(jnp.einsum("dbh,dhk->dbk", h, w_hh) + b_hh[:, None], 3, -1)
        r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        n = jnp.tanh(xn + r * hn)
        new = jnp.where(on, (1 - z) * n + z * h, h)
        return new, (new, h, r, z, n, hn)

    if start is None:
        start = jnp.zeros((*gates.shape[1:3], gates.shape[3] // 3), gates.dtype)
    _, (states, *steps) = jax.lax.scan(step, start, (gates, valid))
    return states, (w_hh, valid, *steps)


def _gru_backward(saved, grad):
    w_hh, valid, *steps = saved
    turned = w_hh.swapaxes(1, 2)  # transpose once: products of few rows need contiguous rows

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
    _, (dx, dh) = jax.lax.scan(step, zero, (grad, valid, *steps), reverse=True)
    before = steps[0]
    return dx, jnp.einsum("tdbh,tdbk->dhk", before, dh), dh.sum((0, 2)), None


_gru.defvjp(_gru_forward, _gru_backward)


@jax.custom_vjp
def _lstm(gates: Array, w_hh: Array, b_hh: Array, valid: Array) -> Array:
    """Like `_gru`, for an LSTM: gates [T, D, B, 4H], recurrent weights [D, H, 4H] and [D, 4H]."""
    return _lstm_forward(gates, w_hh, b_hh, valid)[0]


def _lstm_forward(gates, w_hh, b_hh, valid):
    def step(carried, now):
        (h, c), (x, on) = carried, now
        y = x + jnp.einsum("dbh,dhk->dbk", h, w_hh) + b_hh[:, None]
        i, f, g, o = jnp.split(y, 4, -1)
        i, f, o = (jax.nn.sigmoid(gate) for gate in (i, f, o))
        g, cell = jnp.tanh(g), f * c + i * jnp.tanh(g)
        new = jnp.where(on, o * jnp.tanh(cell), h), jnp.where(on, cell, c)
        return new, (new[0], h, c, cell, i, f, g, o)

    start = jnp.zeros((*gates.shape[1:3], gates.shape[3] // 4), gates.dtype)
    _, (states, *steps) = jax.lax.scan(step, (start, start), (gates, valid))
    return states, (w_hh, valid, *steps)


def _lstm_backward(saved, grad):
    w_hh, valid, *steps = saved
    turned = w_hh.swapaxes(1, 2)

    def step(carried, now):
        (dh, dc), (from_above, on, _, c, cell, i, f, g, o) = carried, now
        dh = dh + from_above
        new, old = jnp.where(on, dh, 0), jnp.where(on, 0, dh)
        past = jnp.tanh(cell)
        inside = jnp.where(on, dc, 0) + new * o * (1 - past * past)
        parts = inside * g * i * (1 - i), inside * c * f * (1 - f), inside * i * (1 - g * g)
        dx = jnp.concatenate([*parts, new * past * o * (1 - o)], -1)
        before = old + jnp.einsum("dbk,dkh->dbh", dx, turned)
        return (before, inside * f + jnp.where(on, 0, dc)), dx

    zero = jnp.zeros(grad.shape[1:], grad.dtype)
    _, dx = jax.lax.scan(step, (zero, zero), (grad, valid, *steps), reverse=True)
    before = steps[0]
    return dx, jnp.einsum("tdbh,tdbk->dhk", before, dx), dx.sum((0, 2)), None


_lstm.defvjp(_lstm_forward, _lstm_backward)
