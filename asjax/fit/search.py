"""The largest batch that fits, and what makes a batch fit."""

from __future__ import annotations

from collections.abc import Callable

CLOSE = 0.05  # the search ends when the unknown part is at most this share of the batch


def largest(
    total: Callable[[int], int | None], limit: int, *, unit: int, known: dict[int, int]
) -> int:
    """The largest multiple of `unit` whose total is within `limit`, to within `CLOSE`; 0: none.

    The result is a batch that was measured. A line through two totals says where to look next,
    because the memory of a step grows nearly linearly with its batch; each wrong guess halves the
    rest.

    Args:
      total: batch -> bytes, None if the compiler refused.
      known: totals that are known, at least one.
    """
    fits = {0: 0} | {b: t for b, t in known.items() if t <= limit}
    low, high = max(fits), min((b for b, t in known.items() if t > limit), default=0)
    while True:
        width = max(unit, int(low * CLOSE) // unit * unit)
        if high and high - low <= width:
            return low
        guess = _on_line(known, limit, unit)
        if not low < guess or (high and guess >= high):
            guess = (low + high) // 2 // unit * unit if high else low + width if low else unit
        guess = max(low + unit, guess)
        if high:
            guess = min(guess, high - unit)
        bytes_ = total(guess)
        if bytes_ is not None:
            known[guess] = bytes_
        if bytes_ is not None and bytes_ <= limit:
            low = guess
        else:
            high = guess


def _on_line(known: dict[int, int], limit: int, unit: int) -> int:
    """The batch at which a line through the two largest known totals meets the limit; 0: none."""
    if len(known) < 2:
        return 0
    (b0, t0), (b1, t1) = sorted(known.items())[-2:]
    if t1 <= t0:
        return 0
    return int(b0 + (limit - t0) * (b1 - b0) / (t1 - t0)) // unit * unit


def remedies(cfg_of: Callable[[dict], object], batch: int, devices: int):
    """Yield (fields, cost in words), the cheapest first, that lower the memory of a config.

    Args:
      cfg_of: fields -> config; it raises AsjaxError where the recipe has no such field.
    """
    from asjax import build
    from asjax.config import AsjaxError

    plain = cfg_of({})
    accumulate = build.read(plain, "optim.accumulate_steps")
    half = {"model.dtype": "bfloat16"} if plain.model.get("dtype") != "bfloat16" else {}
    again = {} if plain.model.get("remat") else {"model.remat": "True"}
    shards = {}
    if devices > 1 and "fsdp" not in str(plain.mesh or ""):
        shards = {"mesh": f"data=1,fsdp={devices}"}
    parts = [
        {"optim.accumulate_steps": str(k)}
        for k in (2, 4, 8, 16, 32)
        if k > accumulate and batch % (k * devices) == 0
    ]
    tried = [(half, "half of the activations, faster on accelerators")]
    tried += [(shards, "parameters and optimiser are gathered block by block")]
    tried += [({**half, **shards}, "both")] if half and shards else []
    tried += [({**half, **part}, "the parts of a batch one after the other") for part in parts[:1]]
    tried += [({**half, **again}, "activations are computed twice: a third more work")]
    tried += [({**half, **again, **part}, "both") for part in parts]
    if shards:
        tried += [({**half, **again, **shards, **part}, "all of these") for part in [{}, *parts]]
    seen = []
    for fields, cost in tried:
        if not fields or fields in seen:
            continue
        seen.append(fields)
        try:
            cfg_of(fields)
        except AsjaxError:  # the model has no such field
            continue
        yield fields, cost
