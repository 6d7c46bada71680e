"""What the parts of a config must be: the user's own functions may return anything."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from asjax import config
from asjax.config import AsjaxError

_NEEDS = {  # what the thing that a function makes must have
    "model": ("init", "apply"),
    "frontend": ("__call__",),
    "objective": ("__call__",),
    "optim": ("init", "update"),
    "average": ("__call__",),
    "source": ("name", "ids", "labels", "hash", "__getitem__", "__len__"),
    "draw": ("__call__", "draws_per_epoch", "seed"),
    "choice": ("choose", "window"),
}
_MUST = {  # the same in words
    "model": "a module of flax.linen",
    "frontend": "a function of waves",
    "objective": "a function (params, stats, batch, rng)",
    "optim": "a pair: a transformation of optax and the learning rate as a function of the step",
    "average": "a function (average, new, step)",
    "source": "a data source (asjax.data.sources)",
    "draw": "a draw (asjax.data.draw)",
    "choice": "a rule (asjax.store.choice)",
}


def made(kind: str, label: str, made):
    """What the function of a part returned, checked. An objective's results are checked too.

    Raises:
      AsjaxError: it is not what a part of this kind must be.
    """
    pair = isinstance(made, tuple) and len(made) == 2 and callable(made[1])
    if kind == "optim" and not pair:
        raise AsjaxError(f"{label} must return {_MUST[kind]}, got a {type(made).__name__}")
    part = made[0] if kind == "optim" else made
    if lacks := [need for need in _NEEDS.get(kind, ()) if not hasattr(part, need)]:
        raise AsjaxError(
            f"{label} must return {_MUST[kind]}, got a {type(part).__name__} without "
            f"{', '.join(lacks)}"
        )
    return _checked_objective(made, label) if kind == "objective" else made


def augmented(name: str, batch: dict, new) -> None:
    """AsjaxError unless an augmentation kept the entries of the batch."""
    if not isinstance(new, dict) or not batch.keys() <= new.keys():
        got = sorted(new) if isinstance(new, dict) else config.quoted(new)
        raise AsjaxError(
            f"augmentation {name} must return the batch with {', '.join(batch)}, got {got}"
        )


def _checked_objective(objective, label: str):
    """The same function. Its errors and wrong results are AsjaxErrors that name it."""

    @functools.wraps(objective)
    def run(*args, **kwargs):
        with config.blaming(label):
            result = objective(*args, **kwargs)
        fits = (
            isinstance(result, tuple) and len(result) == 2 and getattr(result[0], "shape", 1) == ()
        )
        fits = fits and isinstance(result[1], (tuple, list)) and len(result[1]) == 2
        if not fits or not all(isinstance(part, Mapping) for part in result[1]):
            raise AsjaxError(
                f"{label}: its function must return (loss, (scalars, new_stats)), with a scalar "
                f"array and two dicts, got {config.quoted(result)}"
            )
        return result

    return run


def spec(cfg, path: str, kind: str, where: str) -> None:
    """AsjaxError unless the field holds a spec, or a chain where chains belong."""
    for part in path.split("."):
        cfg = cfg[part]
    if kind in ("augment", "op"):
        if not isinstance(cfg, (str, type(None))):
            raise AsjaxError(f"{where}: {path} must be a chain 'a | b', got {config.quoted(cfg)}")
        return
    if not cfg and path in ("data.test", "average"):
        return
    named = isinstance(cfg, str) or (hasattr(cfg, "keys") and isinstance(cfg.get("name"), str))
    if not cfg or not named:
        got = config.quoted(config.to_plain(cfg))
        raise AsjaxError(f"{where}: {path} must be a call or a dict with a 'name', got {got}")


def rate(frontend, cfg) -> None:
    """AsjaxError if the frontend was made for another sample rate than that of the data."""
    ours, theirs = cfg["data"]["sample_rate"], getattr(frontend, "sample_rate", None)
    if theirs is not None and theirs != ours:
        raise AsjaxError(
            f"frontend.sample_rate must be that of the data, data.sample_rate={ours!r}, got "
            f"{theirs!r}; change one of them"
        )


def lengths(cfg, where: str) -> None:
    """AsjaxError: wrong durations in steps or epochs, or a wrong share of evaluations."""
    epochs = _real(where, "total_epochs", cfg["total_epochs"], 1e9)
    _real(where, "eval.every_epochs", cfg["eval"]["every_epochs"], 1e9)
    _real(where, "eval.median_s", cfg["eval"]["median_s"], 60)
    if not _real(where, "eval.max_share", cfg["eval"]["max_share"], 1):
        raise AsjaxError(f"{where}: eval.max_share must be above 0; 1 never leaves one out")
    if bool(cfg["total_steps"]) == bool(epochs):
        both = "both are given" if epochs else "none is given"
        raise AsjaxError(f"{where} must set total_steps or total_epochs to a number > 0, {both}")


def _real(where: str, key: str, value, most: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= most:
        raise AsjaxError(f"{where}: {key} must be a number from 0 to {most:g}, got {value!r}")
    return value
