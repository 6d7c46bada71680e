"""Optimisers with torch's numbers; their schedules and averages of weights are in submodules.

    tx, lr = adam(1e-3, schedule="cosine(warmup_steps=500)", total_steps=10_000)

An optimiser returns `(tx, lr)`: an optax transformation, and the learning rate as a function of the
number of updates so far. We use optax where it equals torch. It differs for amsgrad: optax takes
the maximum after the bias correction, torch before.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asjax.config import AsjaxError
from asjax.optim import schedules

__all__ = ["adam", "adamw", "sgd"]


def adam(
    lr: float,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    amsgrad: bool = False,
    schedule: str = "constant",
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
):
    """Adam with L2 regularisation in the gradient, like torch.optim.Adam; returns `(tx, lr)`.

    Args:
      lr: the peak learning rate.
      schedule: a spec of asjax.optim.schedules.
      clip_norm: maximum global norm of the gradients; 0 does not clip.
      total_steps, steps_per_epoch: of the run, for schedules that need them.
    """
    run = dict(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    lr_fn, b1_fn = _rates(lr, b1, b2, eps, clip_norm, weight_decay, schedule, run)
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return _chain(clip_norm, *decay, _scale(b1_fn, b2, eps, amsgrad), lr=lr_fn), lr_fn


def adamw(
    lr: float,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    amsgrad: bool = False,
    schedule: str = "constant",
    clip_norm: float = 0.0,
    weight_decay: float = 1e-2,
    decay_1d: bool = False,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
):
    """Adam with decoupled weight decay, like torch.optim.AdamW; returns `(tx, lr)`.

    Args:
      decay_1d: False does not decay vectors and biases (ConvNeXt audio), True decays all (PaSST).
      The other arguments are those of `adam`.
    """
    run = dict(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    lr_fn, b1_fn = _rates(lr, b1, b2, eps, clip_norm, weight_decay, schedule, run)
    mask = None if decay_1d else _matrices
    decay = [optax.add_decayed_weights(weight_decay, mask)] if weight_decay else []
    return _chain(clip_norm, _scale(b1_fn, b2, eps, amsgrad), *decay, lr=lr_fn), lr_fn


def sgd(
    lr: float,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    schedule: str = "constant",
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
):
    """Gradient descent with momentum, like torch.optim.SGD; returns `(tx, lr)`.

    Args:
      weight_decay: L2 regularisation in the gradient. The other arguments are those of `adam`.
    """
    run = dict(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    lr_fn, _ = _rates(lr, momentum, 0.0, 0.0, clip_norm, weight_decay, schedule, run)
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    moved = [optax.trace(momentum, nesterov)] if momentum else []
    return _chain(clip_norm, *decay, *moved, lr=lr_fn), lr_fn


def _rates(lr, b1, b2, eps, clip_norm, weight_decay, schedule, run):
    """`(lr_fn, b1)`; b1 is a number, or a function of the step if the schedule changes it."""
    if not isinstance(lr, (int, float)) or isinstance(lr, bool) or not 0 < lr < math.inf:
        raise AsjaxError(f"optim lr must be a number > 0, got {lr!r}")
    for name, value in (("b1", b1), ("b2", b2)):
        if not 0 <= value < 1:
            raise AsjaxError(f"optim {name} must be in [0, 1), got {value!r}")
    for name, value in (("clip_norm", clip_norm), ("weight_decay", weight_decay), ("eps", eps)):
        if not value >= 0:
            raise AsjaxError(f"optim {name} must be >= 0, got {value!r}")
    factor, moved = schedules.build(schedule, **run)
    return (lambda step: lr * factor(jnp.asarray(step, jnp.float32))), moved or b1


def _matrices(params):
    """Tree of bools: False for vectors, biases and scales, which ConvNeXt's recipe does not decay.

    We check the name as well as the rank, because biases of stacked layers have rank 2.
    """

    def is_matrix(path, param) -> bool:
        name = getattr(path[-1], "key", getattr(path[-1], "name", "")) if path else ""
        return param.ndim > 1 and name not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def _chain(clip_norm: float, *parts, lr):
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(*clip, *parts, optax.scale_by_learning_rate(lr))


def _scale(b1, b2: float, eps: float, amsgrad: bool):
    if amsgrad or callable(b1):
        return _scale_by_torch_adam(b1, b2, eps, amsgrad)
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps)


class _AdamState(NamedTuple):
    count: jax.Array  # int32: number of updates, without skipped steps
    mu: Any
    nu: Any
    nu_max: Any  # () unless amsgrad


def _scale_by_torch_adam(b1, b2: float, eps: float, amsgrad: bool):
    """torch's Adam without its learning rate, for amsgrad and a changing beta1; optax lacks both.

    `b1` is a number, or a function step -> 1 - beta1. The function returns 1 - beta1 because this
    difference would lose digits in float32.
    """
    # Strictly below 1, so that log1p(-forget) stays finite if beta1 is 0.
    fixed = None if callable(b1) else jnp.float32(min(1 - b1, 1 - 1e-7))

    def init(params):
        zeros = lambda: jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)  # noqa: E731
        return _AdamState(jnp.int32(0), zeros(), zeros(), zeros() if amsgrad else ())

    def update(grads, state, params=None):
        count = state.count + 1
        forget = b1(state.count.astype(jnp.float32)) if fixed is None else fixed
        mu = jax.tree.map(lambda m, g: m + forget * (g - m), state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        top = jax.tree.map(jnp.maximum, state.nu_max, nu) if amsgrad else ()
        # 1 - beta**t by expm1: the plain form loses 4 digits at t = 1 and beta2 = 0.999.
        c1 = -jnp.expm1(count * jnp.log1p(-forget))
        root = jnp.sqrt(-jnp.expm1(count * math.log(b2))) if b2 else 1.0
        step = jax.tree.map(
            lambda m, v: m / c1 / (jnp.sqrt(v) / root + eps), mu, top if amsgrad else nu
        )
        return step, _AdamState(count, mu, nu, top)

    return optax.GradientTransformation(init, update)
