"""One line about memory that is used up, with what a config can change (asjax train)."""

from __future__ import annotations

import contextlib

from asjax import build
from asjax.config import AsjaxError
from asjax.fit.program import out_of_memory


@contextlib.contextmanager
def on_full_memory(cfg):
    """Turn a full memory of a device or the host, also at compile time, into an AsjaxError."""
    try:
        yield
    except AsjaxError:
        raise
    except MemoryError as error:
        raise AsjaxError(
            f"the memory of this machine is used up ({' '.join(str(error).split())[:160]}); "
            f"{host_advice(cfg)}; checkpoints are intact"
        ) from error
    except Exception as error:
        text = " ".join(str(error).split())
        if not out_of_memory(text):
            raise
        raise AsjaxError(
            f"the memory of a device is used up ({text[:160]}); {advice(cfg)}. `asjax fit` with "
            "the same --config finds the largest batch; checkpoints are intact"
        ) from error


def advice(cfg) -> str:
    """What lowers the memory of a training with this config, the cheapest first."""
    known = build.fields("model", cfg.model.name)
    parts = build.read(cfg, "optim.accumulate_steps")
    ways = []
    if "dtype" in known and cfg.model.get("dtype") != "bfloat16":
        ways.append("--config.model.dtype=bfloat16")
    if cfg.batch_size % (2 * parts) == 0:
        ways.append(f"--config.optim.accumulate_steps={2 * parts}")
    if "remat" in known and not cfg.model.get("remat"):
        ways.append("--config.model.remat=True")
    ways.append(f"--config.batch_size={max(1, cfg.batch_size // 2)}")
    if cfg.eval.batch_size > cfg.batch_size // parts:
        ways.append(f"--config.eval.batch_size={max(1, cfg.batch_size // parts)}")
    return _try(ways)


def host_advice(cfg) -> str:
    """What lowers the memory that a training with this config needs beside the devices."""
    half = max(1, cfg.batch_size // 2)
    ways = [f"--config.batch_size={half}"]
    if cfg.eval.batch_size > half:
        ways.append(f"--config.eval.batch_size={half}")
    if cfg.data.cache:
        ways.append("--config.data.cache=False")
    if cfg.data.workers:
        ways.append(f"--config.data.workers={cfg.data.workers // 2}")
    return _try(ways)


def _try(ways: list[str]) -> str:
    return f"try {', '.join(ways[:-1])} or {ways[-1]}" if len(ways) > 1 else f"try {ways[0]}"
