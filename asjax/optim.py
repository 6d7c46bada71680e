"""Optimisers and learning-rate schedules from a spec, averages of weights, guards against NaN.

`config.build("optim", dict(name="adam", lr=1e-3, schedule="cosine(warmup_steps=500)"),
total_steps=N, steps_per_epoch=M)` calls the function of that name below and returns
`(tx, lr_fn)`: an optax transformation and a function step -> learning rate. Updates equal
torch's Adam, amsgrad and AdamW (optax's amsgrad takes its maximum after bias correction,
torch before: they differ).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from asjax.config import AsjaxError, parse_call, unknown


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
    """Adam with L2 regularisation in the gradient, as torch.optim.Adam.

    `clip_norm` > 0 clips the global gradient norm first. Returns `(tx, lr_fn)`.
    """
    run = _Run(lr, b1, total_steps, steps_per_epoch)
    return _adam(run, b2, eps, amsgrad, schedule, clip_norm, weight_decay, decoupled=False)


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
    """Adam with decoupled weight decay, as torch.optim.AdamW. Returns `(tx, lr_fn)`.

    `decay_1d=False` spares vectors and biases (ConvNeXt audio); True decays everything (PaSST).
    """
    run = _Run(lr, b1, total_steps, steps_per_epoch)
    mask = None if decay_1d else _is_matrix
    return _adam(run, b2, eps, amsgrad, schedule, clip_norm, weight_decay, True, mask)


class _Run(NamedTuple):
    lr: float
    b1: float
    total_steps: int | None
    steps_per_epoch: int | None

    def need(self, field: str, schedule: str) -> int:
        value = getattr(self, field)
        if not value or value < 1:
            raise AsjaxError(f"schedule {schedule} needs {field} >= 1, got {value}")
        return int(value)


class _AdamState(NamedTuple):
    count: jax.Array  # int32: updates made (skipped steps do not count)
    mu: Any
    nu: Any
    nu_max: Any  # () unless amsgrad


def _is_matrix(path, param) -> bool:
    """False for vectors and biases, which the ConvNeXt recipe does not decay, stacked or not."""
    name = getattr(path[-1], "key", getattr(path[-1], "name", "")) if path else ""
    return param.ndim > 1 and name not in ("bias", "scale")


def _adam(run, b2, eps, amsgrad, schedule, clip_norm, weight_decay, decoupled, mask=None):
    if not run.lr > 0:
        raise AsjaxError(f"optim lr must be > 0, got {run.lr!r}")
    for name, value in (("b1", run.b1), ("b2", b2)):
        if not 0 <= value < 1:
            raise AsjaxError(f"optim {name} must be in [0, 1), got {value!r}")
    for name, value in (("clip_norm", clip_norm), ("weight_decay", weight_decay), ("eps", eps)):
        if not value >= 0:
            raise AsjaxError(f"optim {name} must be >= 0, got {value!r}")
    lr_fn, forget_fn = _make_schedule(schedule, run)
    tx = _torch_adam(lr_fn, forget_fn, b2, eps, amsgrad, weight_decay, decoupled, mask)
    return (optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm else tx), lr_fn


def _torch_adam(lr_fn, forget_fn, b2, eps, amsgrad, weight_decay, decoupled, mask):
    """`forget_fn(step)` is 1 - beta1: as a difference, 1 - 0.95 would lose digits in float32."""

    def init(params):
        zeros = lambda: jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)  # noqa: E731
        return _AdamState(jnp.int32(0), zeros(), zeros(), zeros() if amsgrad else ())

    def decay(params):
        keep = mask or (lambda path, p: True)
        return jax.tree_util.tree_map_with_path(
            lambda path, p: weight_decay * p if keep(path, p) else jnp.zeros_like(p), params
        )

    def update(grads, state, params=None):
        if weight_decay and params is None:
            raise ValueError("update needs params for weight decay")
        count = state.count + 1
        lr, forget = lr_fn(state.count), forget_fn(state.count)
        if weight_decay and not decoupled:
            grads = jax.tree.map(jnp.add, grads, decay(params))
        mu = jax.tree.map(lambda m, g: m + forget * (g - m), state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        top = jax.tree.map(jnp.maximum, state.nu_max, nu) if amsgrad else ()
        # 1 - beta**t through expm1: the plain form loses 4 digits at t = 1 and beta2 = 0.999.
        c1 = -jnp.expm1(count * jnp.log1p(-forget))
        c2 = -jnp.expm1(count * math.log(b2)) if b2 else 1.0
        scale, root = lr / c1, jnp.sqrt(c2)
        step = jax.tree.map(
            lambda m, v: -scale * m / (jnp.sqrt(v) / root + eps), mu, top if amsgrad else nu
        )
        if weight_decay and decoupled:
            step = jax.tree.map(lambda u, d: u - lr * d, step, decay(params))
        return step, _AdamState(count, mu, nu, top)

    return optax.GradientTransformation(init, update)


# -------------------------------------------------------------------------------- schedules
# Each takes the run and its own keywords and returns (lr_fn, forget_fn), forget = 1 - beta1.


def _with_fixed_b1(run: _Run, factor: Callable):
    # Strictly positive so that log1p(-forget) stays finite when beta1 is 0.
    forget = min(1 - run.b1, 1 - 1e-7)
    return (lambda step: run.lr * factor(_float(step))), (lambda step: jnp.float32(forget))


def _float(step):
    return jnp.asarray(step, jnp.float32)


def _constant(run):
    return _with_fixed_b1(run, lambda step: jnp.ones_like(step))


def _warmup(run, *, steps: int = 1000):
    """Linear from 0 over `steps`, then constant."""
    return _with_fixed_b1(run, lambda step: jnp.minimum(step / max(steps, 1), 1.0))


def _step(run, *, every_steps: int, factor: float = 0.1):
    """Multiplied by `factor` every `every_steps` steps."""
    return _with_fixed_b1(run, lambda step: factor ** jnp.floor(step / every_steps))


def _warmup_step(
    run,
    *,
    warmup_steps: int = 1000,
    stair_steps: int = 50,
    milestones: tuple[int, ...] = (2, 3, 4, 5),
    factor: float = 0.5,
    epoch_steps: int | None = None,
):
    """AST's and ATDR's schedule: warm-up in stairs, then `factor` at the end of given epochs.

    The stair written last overwrites any epoch decay before it (the training code's behaviour:
    a milestone reached during the warm-up is lost with the next stair). `epoch_steps` is the
    length of an epoch here; None takes that of the data.
    """
    per_epoch = epoch_steps or run.need("steps_per_epoch", "warmup_step")
    ends = [epoch * per_epoch for epoch in milestones]
    last = warmup_steps // stair_steps * stair_steps

    def lr_factor(step):
        stair = jnp.floor(jnp.minimum(step, last) / stair_steps) * stair_steps
        drops = sum(((stair < end) & (end <= step)).astype(jnp.float32) for end in ends)
        return stair / warmup_steps * factor**drops

    return _with_fixed_b1(run, lr_factor)


def _cosine(run, *, warmup_steps: int = 0, end: float = 0.0):
    """Linear from 0 over `warmup_steps`, then a half cosine to `end` x lr at the last step."""
    total = run.need("total_steps", "cosine")
    if not 0 <= warmup_steps < total:
        raise AsjaxError(f"warmup_steps must be in [0, total_steps={total}), got {warmup_steps}")

    def factor(step):
        left = jnp.clip((total - step) / (total - warmup_steps), 0.0, 1.0)
        down = end + (1 - end) * jnp.sin(jnp.pi / 2 * left) ** 2
        return jnp.where(step < warmup_steps, step / max(warmup_steps, 1), down)

    return _with_fixed_b1(run, factor)


def _one_cycle(
    run,
    *,
    pct_start: float = 0.3,
    div: float = 25.0,
    final_div: float = 1e4,
    low_b1: float = 0.85,
    high_b1: float = 0.95,
    cycle_b1: bool = True,
):
    """torch's OneCycleLR: cosine lr/div -> lr -> lr/div/final_div, beta1 high -> low -> high."""
    total = run.need("total_steps", "one_cycle")
    peak = pct_start * total - 1
    if not 0 < peak < total - 1:
        raise AsjaxError(
            f"one_cycle: pct_start x total_steps must be in (1, {total}), got {peak + 1}"
        )

    def between(step, start, top, end):
        step = jnp.minimum(step, total - 1)
        # (1 + cos x) / 2 as sin^2 of what is left: no cancellation where the rate is tiny.
        up = jnp.sin(jnp.pi / 2 * ((peak - step) / peak)) ** 2
        down = jnp.sin(jnp.pi / 2 * ((total - 1 - step) / (total - 1 - peak))) ** 2
        return jnp.where(step <= peak, top + (start - top) * up, end + (top - end) * down)

    fixed, forget = _with_fixed_b1(run, lambda s: between(s, 1 / div, 1.0, 1 / div / final_div))
    if cycle_b1:
        ends = (1 - high_b1, 1 - low_b1, 1 - high_b1)
        return fixed, lambda step: between(_float(step), *ends)
    return fixed, forget


def _passt(
    run,
    *,
    warmup_epochs: int = 5,
    start_epoch: int = 50,
    ramp_epochs: int = 50,
    end: float = 0.01,
    epoch_steps: int | None = None,
):
    """PaSST, per epoch: exp(-5 (1 - e/5)^2), flat to epoch 50, linear to 0.01 over 50, flat.

    `epoch_steps` is the length of an epoch here; None takes that of the data.
    """
    per_epoch = epoch_steps or run.need("steps_per_epoch", "passt")

    def factor(step):
        epoch = jnp.floor(step / per_epoch)
        phase = 1 - jnp.clip(epoch, 0.5, warmup_epochs) / warmup_epochs
        down = jnp.clip((epoch - start_epoch) / ramp_epochs, 0.0, 1.0)
        return jnp.exp(-5 * phase**2) * (1 - (1 - end) * down)

    return _with_fixed_b1(run, factor)


SCHEDULES = {
    "constant": _constant,
    "warmup": _warmup,
    "warmup_step": _warmup_step,
    "step": _step,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "passt": _passt,
}


def _make_schedule(spec: str, run: _Run):
    """`"cosine(warmup_steps=500)"` -> `(lr_fn, forget_fn)`; unknown names and fields are errors."""
    name, fields = parse_call(spec)
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    parameters = inspect.signature(SCHEDULES[name]).parameters.values()
    known = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    for key in fields:
        if key not in known:
            raise unknown(f"schedule {name}: field", key, known)
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in fields:
            raise AsjaxError(f"schedule {name} needs {key}, as {name}({key}=...)")
    for key, value in fields.items():
        if key.endswith("_steps") and key != "warmup_steps" and not (value and value >= 1):
            raise AsjaxError(f"schedule {name}: {key} must be >= 1, got {value!r}")
    return SCHEDULES[name](run, **fields)


# --------------------------------------------------------------------------- averages, guards


def _floating(x) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def ema_update(ema, params, decay: float, step):
    """Exponential moving average of a tree: `ema + (1 - d) (params - ema)`.

    d = min(decay, (1 + step) / (10 + step)), so that early averages are not the initialisation.
    Leaves that are not floating point are taken from `params`.
    """
    keep = jnp.maximum(1 - decay, 9 / (10 + _float(step)))
    return jax.tree.map(
        lambda e, p: e + keep.astype(e.dtype) * (p - e) if _floating(e) else p, ema, params
    )


def swa_update(average, params, count):
    """Equal mean of `count` + 1 trees, from the mean of `count` of them and the next one."""
    weight = 1 / (_float(count) + 1)
    return jax.tree.map(
        lambda a, p: a + weight.astype(a.dtype) * (p - a) if _floating(a) else p, average, params
    )


def all_finite(tree):
    """Scalar bool: no NaN and no infinity in any floating leaf (the same on every device)."""
    checks = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if _floating(x)]
    return jnp.stack(checks).all() if checks else jnp.bool_(True)


def select(pred, new, old):
    """The tree `new` where the scalar `pred` is true, else `old`; typed keys included."""
    return jax.tree.map(lambda a, b: jax.lax.select(pred, a, b), new, old)
