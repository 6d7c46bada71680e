"""The rule that fills a reference model's state dict and inputs, so no weights need storing.

Every parity case is a JSON manifest plus an .npz of the reference's outputs. The manifest lists the
reference's state-dict entries (name, shape, dtype); the values come from this file alone, so anyone
can rebuild the very same weights with numpy and compare outputs.

    weights = state_dict(manifest)            # {name: np.ndarray}
    x = array("input", manifest["input"]["shape"], salt=manifest["salt"])

Only numpy is needed.
"""

from __future__ import annotations

import zlib

import numpy as np


def _rng(name: str, salt: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{salt}/{name}".encode()))


def array(name: str, shape, *, salt: str, scale: float = 1.0) -> np.ndarray:
    """Standard-normal float32 array of `shape`, times `scale`; depends only on (name, salt)."""
    return (_rng(name, salt).standard_normal(tuple(shape)) * scale).astype(np.float32)


def waveform(name: str, seconds: float, sample_rate: int, *, salt: str) -> np.ndarray:
    """Float32 mono waveform in [-1, 1]: five gliding harmonics and soft noise. Shape (samples,)."""
    rng = _rng(name, salt)
    t = np.arange(int(round(seconds * sample_rate))) / sample_rate
    x = 0.02 * rng.standard_normal(t.size)
    for _ in range(5):
        f0, f1 = rng.uniform(60.0, 0.45 * sample_rate, 2)
        phase = 2 * np.pi * (f0 * t + 0.5 * (f1 - f0) * t**2 / max(seconds, 1e-9))
        x += rng.uniform(0.05, 0.2) * np.sin(phase + rng.uniform(0, 2 * np.pi))
    return np.clip(x, -1.0, 1.0).astype(np.float32)


def param(name: str, shape, dtype: str, *, salt: str) -> np.ndarray:
    """Value of one state-dict entry. Rules, first match wins:

    integer dtype                      -> zeros (counters such as num_batches_tracked)
    name ends 'running_var'            -> uniform in [0.5, 1.5)
    name ends 'running_mean'           -> 0.1 * normal
    0-d or 1-d and ends 'weight'       -> 1 + 0.1 * normal (norm scales)
    0-d or 1-d                         -> 0.02 * normal (biases, layer scales, tokens)
    otherwise                          -> normal / sqrt(fan_in), fan_in = prod(shape[1:])
    """
    shape = tuple(shape)
    if "int" in dtype:
        return np.zeros(shape, dtype)
    rng = _rng(name, salt)
    if name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) <= 1 and name.endswith("weight"):
        value = 1.0 + 0.1 * rng.standard_normal(shape)
    elif len(shape) <= 1:
        value = 0.02 * rng.standard_normal(shape)
    else:
        value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return np.asarray(value, np.float32)


def state_dict(manifest: dict) -> dict[str, np.ndarray]:
    """All entries of `manifest['state_dict']` ([[name, shape, dtype], ...]) that the rule fills.

    Entries listed in manifest['buffers'] (fixed tables such as mel filters) are left out: the
    reference kept its own values for them.
    """
    fixed = set(manifest.get("buffers", ()))
    return {
        name: param(name, shape, dtype, salt=manifest["salt"])
        for name, shape, dtype in manifest["state_dict"]
        if name not in fixed
    }
