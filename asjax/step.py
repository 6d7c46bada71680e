"""The training state and the two steps to jit. Needs only jax, flax, optax and numpy."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from asjax import hosts, models
from asjax.config import AsjaxError, blaming, unknown
from asjax.frontends import to_float
from asjax.hosts import watchdog
from asjax.nn import placement
from asjax.optim import guard


@struct.dataclass
class State:
    """Everything that a run needs to resume: one pytree, saved as a whole."""

    step: Any  # int32 [], steps taken, skipped ones included
    params: Any
    stats: Any  # every non-param collection, by name
    opt: Any
    average: Any  # {"params", "stats", "count"} or {}: EMA or SWA of the weights
    nonfinite: Any  # int32 [2]: skipped steps in total, and in a row
    rng: Any  # base key; step k uses fold_in(rng, k)


def init_state(key, *, model, frontend, tx, wave_shape, average: bool) -> State:
    """The initial state for waves of `wave_shape` [B, S]. Run it under jit with out_shardings."""
    init_key, rng = jax.random.split(key)
    with blaming(f"frontend {_named(frontend)}"):
        feats = frontend(jnp.zeros(wave_shape, jnp.float32))
    label = f"model {_named(model)}"
    with blaming(label):
        variables = dict(model.init(init_key, feats, train=False))
    if "params" not in variables:
        raise AsjaxError(f"{label} must have parameters, got {sorted(variables)}")
    params = variables.pop("params")
    with blaming("the optimiser"):
        opt = tx.init(params)
    # The average needs its own buffers, because both are donated to the train step.
    copy = jax.tree.map(jnp.copy, {"params": params, "stats": variables})
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        stats=variables,
        opt=opt,
        average={**copy, "count": jnp.zeros((), jnp.int32)} if average else {},
        nonfinite=jnp.zeros((2,), jnp.int32),
        rng=rng,
    )


def _named(part) -> str:
    return getattr(part, "__name__", type(part).__name__)


def make_train_step(*, objective, tx, average=None, lr=None, accumulate: int = 1):
    """`(state, batch, frozen=None) -> (state, scalars)`.

    If the loss or any gradient is NaN or infinite, the step is skipped: parameters, statistics,
    optimiser and average keep their values; only `step` and `nonfinite` change. The check is on
    global values, so all devices agree.

    Args:
      objective: `(params, stats, batch, rng) -> (loss, (scalars, new_stats))`. If the step gets
        `frozen`, such as the weights of a teacher, it is the objective's fifth argument.
      average: None or `(average, new {"params", "stats"}, step) -> average`.
      lr: learning rate as a function of the number of updates; adds this step's rate to the
        scalars. It is not a function of the number of steps, because skipped steps do not update.
      accumulate: number of parts of a batch, computed one after the other; see `accumulated`.
    """
    compute = accumulated(objective, accumulate)

    def train_step(state: State, batch, frozen=None):
        rng = jax.random.fold_in(state.rng, state.step)
        more = () if frozen is None else (frozen,)
        (loss, (scalars, stats)), grads = compute(state.params, state.stats, batch, rng, *more)
        ok = guard.all_finite((loss, grads))
        with blaming("the optimiser"):
            updates, opt = tx.update(grads, state.opt, state.params)
            params = optax.apply_updates(state.params, updates)
        new = {"params": params, "stats": {**state.stats, **stats}}
        with blaming("the average of the weights"):
            averaged = average(state.average, new, state.step) if average else state.average
        new = {**new, "opt": opt, "average": averaged}
        old = {name: getattr(state, name) for name in new}
        total, in_row = state.nonfinite[0], state.nonfinite[1]
        bad = 1 - ok.astype(jnp.int32)
        nonfinite = jnp.stack([total + bad, (in_row + 1) * bad])
        scalars = {
            **scalars,
            "grad_norm": optax.tree.norm(grads),
            "nonfinite_steps": nonfinite[0],
            "nonfinite_in_a_row": nonfinite[1],
            **({"lr": lr(_updates_made(state))} if lr else {}),
        }
        state = state.replace(
            step=state.step + 1, nonfinite=nonfinite, **guard.select(ok, new, old)
        )
        return state, scalars

    return train_step


def _updates_made(state: State):
    """The update count of the optimiser, or the number of steps not skipped if it has no count."""
    counts = optax.tree_utils.tree_get_all_with_path(state.opt, "count")
    return counts[-1][1] if counts else state.step - state.nonfinite[0]


def accumulated(objective, parts: int):
    """`(params, stats, batch, rng) -> ((loss, (scalars, new_stats)), grads)` over parts of a batch.

    More arguments go to the objective as they are.

    A step then needs the memory of one part. Batch size, schedule and averages do not change. Part
    j has the rows j, j + parts, j + 2 parts ..., so each device divides its own rows. Loss, scalars
    and gradients are means over the parts, weighted by their number of real rows (`mask`). If the
    loss is a mean over rows, they equal the values of the whole batch. A loss that is another mean
    has `objective.whole`: it is called with the whole batch and may add arrays for the parts.

    Each part is augmented and mixed separately, with its own key. Batch norm normalises each part
    by the part's statistics. The running statistics are updated once per part.

    Raises:
      AsjaxError: `parts` is not a whole number >= 1. When called: the rows of the batch, or of a
        device, cannot be divided into parts.
    """
    if not isinstance(parts, int) or isinstance(parts, bool) or parts < 1:
        raise AsjaxError(f"accumulate_steps must be a whole number >= 1, got {parts!r}")
    grad_fn = jax.value_and_grad(objective, has_aux=True)
    if parts == 1:
        return grad_fn

    whole = getattr(objective, "whole", lambda batch: batch)

    def compute(params, stats, batch, rng, *more):
        batch = whole(batch)
        split = {name: _parted(x, parts) for name, x in batch.items()}
        weights = split["mask"].sum(1) if "mask" in split else jnp.ones(parts)
        weights = weights / jnp.maximum(weights.sum(), 1e-9)

        def one(carried, part):
            stats, total = carried
            batch, weight, number = part
            key = jax.random.fold_in(rng, number)
            (loss, (scalars, new)), grads = grad_fn(params, stats, batch, key, *more)
            add = lambda a, b: a + weight * b.astype(jnp.float32)  # noqa: E731
            return ({**stats, **new}, jax.tree.map(add, total, (loss, scalars, grads))), None

        inputs = split, weights, jnp.arange(parts)
        first = jax.tree.map(lambda x: x[0], inputs)
        (loss, (scalars, _)), grads = jax.eval_shape(grad_fn, params, stats, first[0], rng, *more)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (loss, scalars, grads))
        # No loop on CPU: sums over devices inside a loop can deadlock (asjax/nn/cpu/README.md).
        unroll = parts if placement.on_cpu(batch["wave"]) else 1
        (stats, total), _ = jax.lax.scan(one, (stats, zero), inputs, unroll=unroll)
        loss, scalars, grads = total
        grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
        return (loss, (scalars, stats)), grads

    return compute


def check_parts(batch_size: int, parts: int, devices: int) -> None:
    """AsjaxError unless each device can divide its rows of a batch into so many equal parts."""
    if batch_size % (parts * devices):
        raise AsjaxError(
            f"batch_size {batch_size} must be a multiple of accumulate_steps={parts} times the "
            f"{devices} devices; change one of them"
        )


def _parted(x, parts: int):
    """[B, ...] -> [parts, B // parts, ...]: row i goes to part i % parts."""
    check_parts(x.shape[0], parts, placement.mesh(x).size or 1)
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def make_eval_step(*, model, frontend, outputs=("logits",)):
    """`(variables, wave [B, S]) -> {name: [B, ...]}`, floats as float32.

    Args:
      outputs: names of the wanted arrays among the model's outputs.

    Raises:
      AsjaxError: when traced, if the model has no output of that name.
    """

    def eval_step(variables, wave):
        out = models.apply(model, variables, frontend(to_float(wave)))
        for name in outputs:
            if out.get(name) is None:
                known = (key for key, value in out.items() if value is not None)
                raise unknown(f"{type(model).__name__} on this frontend: output", name, known)
        return {name: _as_float32(out[name]) for name in outputs}

    return eval_step


def _as_float32(array):
    return array.astype(jnp.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


def weights(state: State) -> dict:
    """The variables to evaluate and to save: the averaged ones if there are any, else the raw."""
    chosen = state.average or {"params": state.params, "stats": state.stats}
    return {"params": chosen["params"], **chosen["stats"]}


def ahead(train_step, *args):
    """`train_step` compiled for `args`, if several processes train; they all wait for the slowest.

    The reason: processes compile at different speeds, and the first collective of a group of
    devices has a time limit.
    """
    if not hosts.several():
        return train_step
    watchdog.beat(phase="compile")
    lowered = train_step.lower(*args)
    text = hashlib.sha256(lowered.as_text().encode()).hexdigest()[:12]
    advice = "own code that the config names must be the same on all hosts"
    hosts.check_same("program of a step", text, advice)
    compiled = lowered.compile()
    hosts.barrier("compiled")
    return compiled
