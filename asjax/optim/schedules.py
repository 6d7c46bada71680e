"""Learning-rate schedules: they map the number of updates so far to a fraction of the peak rate.

A spec names a function of this file, or a user's function: `"my_package.my_file:name(key=value)"`.
It takes keywords only. The program passes `total_steps` and `steps_per_epoch` to functions with
these parameters. It returns `factor`, a function of a float32 step, or `(factor, forget)`, where
`forget(step)` is 1 - beta1 of Adam. We do not use optax's schedules: they compute a small rate as
the difference of large numbers, so a cosine's last rates are off by 9 % and a warm-up's first rate
by 1e-5.
"""

from __future__ import annotations

import jax.numpy as jnp

from asjax import config
from asjax.config import AsjaxError

__all__ = ["constant", "cosine", "one_cycle", "passt", "step", "warmup", "warmup_step"]
PLACE = "asjax.optim.schedules:{name}"


def build(spec: str, **run):
    """`"cosine(warmup_steps=500)"` -> `(factor, forget or None)`.

    Args:
      run: total_steps and steps_per_epoch; None if not known.

    Raises:
      AsjaxError: unknown name or field, or a missing or impossible value.
    """
    name, fields = config.split_spec(spec)
    function = config.find("schedule", PLACE, name)
    for key, value in fields.items():
        if key.endswith("_steps") and key != "warmup_steps" and not (value and value >= 1):
            raise AsjaxError(f"schedule {name}: {key} must be >= 1, got {value!r}")
    result = config.call(function, f"schedule {name}", offered=run, **fields)
    return result if isinstance(result, tuple) else (result, None)


def constant():
    """Always the peak rate."""
    return jnp.ones_like


def warmup(*, steps: int = 1000):
    """Linear from 0 over `steps`, then constant."""
    return lambda step: jnp.minimum(step / max(steps, 1), 1.0)


def step(*, every_steps: int, factor: float = 0.1):
    """Multiply the rate by `factor` every `every_steps` steps."""
    return lambda step: factor ** jnp.floor(step / every_steps)


def warmup_step(
    *,
    warmup_steps: int = 1000,
    stair_steps: int = 50,
    milestones: tuple[int, ...] = (2, 3, 4, 5),
    factor: float = 0.5,
    epoch_steps: int | None = None,
    steps_per_epoch: int | None = None,
):
    """AST's and ATDR's schedule: warm-up in stairs, then times `factor` after each milestone epoch.

    Each stair overwrites earlier decays, as in the authors' training code. So a milestone during
    the warm-up has no effect.

    Args:
      epoch_steps: steps per epoch for this schedule; None takes those of the data.
    """
    per_epoch = epoch_steps or _need("warmup_step", steps_per_epoch=steps_per_epoch)
    ends = [epoch * per_epoch for epoch in milestones]
    last = warmup_steps // stair_steps * stair_steps

    def lr_factor(step):
        stair = jnp.floor(jnp.minimum(step, last) / stair_steps) * stair_steps
        drops = sum(((stair < end) & (end <= step)).astype(jnp.float32) for end in ends)
        return stair / warmup_steps * factor**drops

    return lr_factor


def cosine(*, warmup_steps: int = 0, end: float = 0.0, total_steps: int | None = None):
    """Linear from 0 over `warmup_steps`, then a half cosine to `end` x lr at the last step."""
    total = _need("cosine", total_steps=total_steps)
    if not 0 <= warmup_steps < total:
        raise AsjaxError(f"warmup_steps must be in [0, total_steps={total}), got {warmup_steps}")

    def lr_factor(step):
        left = jnp.clip((total - step) / (total - warmup_steps), 0.0, 1.0)
        # (1 + cos x) / 2 as sin^2 of the remaining angle: no cancellation for a tiny rate.
        down = end + (1 - end) * jnp.sin(jnp.pi / 2 * left) ** 2
        return jnp.where(step < warmup_steps, step / max(warmup_steps, 1), down)

    return lr_factor


def one_cycle(
    *,
    pct_start: float = 0.3,
    div: float = 25.0,
    final_div: float = 1e4,
    low_b1: float = 0.85,
    high_b1: float = 0.95,
    cycle_b1: bool = True,
    total_steps: int | None = None,
):
    """torch's OneCycleLR: cosine lr/div -> lr -> lr/div/final_div, beta1 high -> low -> high.

    optax's one-cycle differs by up to 3e-3 of the peak, because its phases end one step later.
    """
    total = _need("one_cycle", total_steps=total_steps)
    peak = pct_start * total - 1
    if not 0 < peak < total - 1:
        raise AsjaxError(
            f"one_cycle: pct_start x total_steps must be in (1, {total}), got {peak + 1}"
        )

    def between(step, start, top, end):
        step = jnp.minimum(step, total - 1)
        up = jnp.sin(jnp.pi / 2 * ((peak - step) / peak)) ** 2
        down = jnp.sin(jnp.pi / 2 * ((total - 1 - step) / (total - 1 - peak))) ** 2
        return jnp.where(step <= peak, top + (start - top) * up, end + (top - end) * down)

    factor = lambda step: between(step, 1 / div, 1.0, 1 / div / final_div)  # noqa: E731
    if not cycle_b1:
        return factor
    return factor, lambda step: between(step, 1 - high_b1, 1 - low_b1, 1 - high_b1)


def passt(
    *,
    warmup_epochs: int = 5,
    start_epoch: int = 50,
    ramp_epochs: int = 50,
    end: float = 0.01,
    epoch_steps: int | None = None,
    steps_per_epoch: int | None = None,
):
    """PaSST's schedule, constant within an epoch.

    The factor is exp(-5 (1 - e/5)^2) up to epoch 5, then 1 until epoch 50, then falls linearly to
    0.01 over 50 epochs, then stays there.

    Args:
      epoch_steps: steps per epoch for this schedule; None takes those of the data.
    """
    per_epoch = epoch_steps or _need("passt", steps_per_epoch=steps_per_epoch)

    def lr_factor(step):
        epoch = jnp.floor(step / per_epoch)
        phase = 1 - jnp.clip(epoch, 0.5, warmup_epochs) / warmup_epochs
        down = jnp.clip((epoch - start_epoch) / ramp_epochs, 0.0, 1.0)
        return jnp.exp(-5 * phase**2) * (1 - (1 - end) * down)

    return lr_factor


def _need(schedule: str, **given) -> int:
    ((field, value),) = given.items()
    if not value or value < 1:
        raise AsjaxError(f"schedule {schedule} needs {field} >= 1, got {value}")
    return int(value)
