"""Waveform [B, S] -> features [B, T, F]: pure, jit-able, float32 for every input dtype.

A frontend is a frozen dataclass, so it is hashable, prints its fields and may be a static argument
of `jax.jit`. Equal frontends share one compiled program. `build(name, **fields)` makes one by name:

    frontend = build("panns_logmel", sample_rate=16000, hop=320)
    feats = frontend(wave)                      # [B, 1 + S // hop, n_mels], dB
    feats = frontend(wave, rng=key)             # only if frontend.draws_in_training
    frontend.sample_rate, frontend.n_mels, frontend.hop

There is one file per kind of frontend. Each name in its `VARIANTS` (name -> maker, keywords) is a
function of this package: `frontends.panns_logmel64(hop=160)`.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path

from asjax import config
from asjax.frontends.stft import to_float  # noqa: F401 (part of the public face)


def _makers() -> dict:
    makers = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        variants = getattr(import_module(f"asjax.frontends.{path.stem}"), "VARIANTS", {})
        makers.update({name: partial(maker, **given) for name, (maker, given) in variants.items()})
    return makers


_MAKERS = _makers()
__all__ = list(_MAKERS)
globals().update(_MAKERS)


def build(name: str, **fields):
    """Make the frontend called `name`; `fields` override its defaults (see its maker).

    Raises:
      AsjaxError: unknown name or field (the error lists the known ones), or a value out of range.
    """
    maker = config.find("frontend", "asjax.frontends:{name}", name)
    return config.call(maker, f"frontend {name}", **fields)
