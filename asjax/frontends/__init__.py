"""Waveform [B, S] -> features [B, T, F]: pure, jit-able, float32 whatever the input dtype.

A frontend is a frozen dataclass, so it hashes, prints its fields and may be a static argument of
`jax.jit`; equal frontends share one compiled program. `build(name, **fields)` makes one by name:

    frontend = build("panns_logmel", sample_rate=16000, hop=320)
    feats = frontend(wave)                      # [B, 1 + S // hop, n_mels], dB
    feats = frontend(wave, rng=key)             # only where frontend.draws_in_training
    frontend.sample_rate, frontend.n_mels, frontend.hop

One file per kind of frontend; a file's `VARIANTS` (name -> maker, its fields) are found here.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from asjax import config
from asjax.frontends.stft import (  # noqa: F401 (part of the public face)
    to_float,
)


def _found() -> dict:
    names = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        names.update(getattr(import_module(f"{__name__}.{path.stem}"), "VARIANTS", {}))
    return names


VARIANTS = _found()


def build(name: str, **fields):
    """The frontend called `name`, its fields overridden by `fields` (see its maker).

    Raises:
      AsjaxError: unknown name or field (the known ones are listed), or a value out of range.
    """
    if name not in VARIANTS:
        raise config.unknown("frontend", name, VARIANTS)
    maker, defaults = VARIANTS[name]
    return config.call(maker, f"frontend {name}", **{**defaults, **fields})
