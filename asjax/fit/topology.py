"""Devices for a compilation: those of this machine, or a description of others."""

from __future__ import annotations

import os
import re
from pathlib import Path

from asjax.config import AsjaxError

GIB = 2**30
# GiB of memory of one device, from the makers' data sheets, by the beginning of jax's device kind.
MEMORY = {
    "TPU v4": 32,
    "TPU v5 lite": 16,
    "TPU v5e": 16,
    "TPU v5p": 95,
    "TPU v5": 95,
    "TPU v6": 32,
    "NVIDIA H100": 80,
    "NVIDIA H200": 141,
    "NVIDIA A100-SXM4-80GB": 80,
    "NVIDIA A100": 40,
}
_TARGETS = {"h100": Path(__file__).parent / "h100.txtpb"}
_GRID = r"[1-9]\d*(x[1-9]\d*){1,2}"
_NEEDS = {
    "tpu": "pip install 'libtpu==0.0.42.*' (what jax[tpu] of jax 0.10.2 names)",
    "cuda": "pip install --no-deps jax-cuda13-plugin==0.10.2 jax-cuda13-pjrt==0.10.2 "
    "nvidia-cuda-nvcc nvidia-nvvm",
}


def devices(topology: str) -> list:
    """Devices that are not there: TPUs "v5e:2x4", NVIDIA GPUs "h100:8", or CPUs "cpu:8".

    Call it before anything else uses jax.

    Raises:
      AsjaxError: an unknown topology, or the package that describes it is missing.
    """
    kind, _, shape = topology.partition(":")
    flags = os.environ.get("XLA_FLAGS", "")
    if kind == "cpu":
        if not shape.isdigit() or not 0 < int(shape) <= 4096:
            raise AsjaxError(f"topology must be cpu:N with N from 1 to 4096, got {topology!r}")
        flags += f" --xla_force_host_platform_device_count={int(shape)}"
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0"
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax

        return jax.devices()
    known = kind in _TARGETS or re.fullmatch(r"v[2-9][a-z]*", kind)
    if not known or not re.fullmatch(r"[1-9]\d*" if kind in _TARGETS else _GRID, shape):
        raise AsjaxError(
            f"there is no topology {topology!r}; they are such as v5e:2x4, v5p:2x2x1 (TPUs in a "
            "grid), h100:8 (so many GPUs of a machine) and cpu:8"
        )
    # Nothing here uses a chip, so several processes may load libtpu.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    # libtpu asks for the machine's metadata unless these say that there is none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0"  # no GPU to try kernels on
    from jax.experimental import topologies

    try:
        if kind not in _TARGETS:
            return list(topologies.get_topology_desc(topology, "tpu").devices)
        described = _TARGETS[kind].read_text()
        whole = {"topology": f"1x1x{shape}", "target_config": described}
        return list(topologies.get_topology_desc("", "cuda", **whole).devices)
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        need = _NEEDS["cuda" if kind in _TARGETS else "tpu"]
        raise AsjaxError(
            f"no topology {topology!r}: {reason}; topologies are such as v5e:2x4, v5p:2x2x1, "
            f"h100:8 and cpu:8, and this one needs {need}"
        ) from None


def memory(device) -> int | None:
    """Bytes of memory of a device; None if they are not known (CPUs)."""
    try:
        stats = device.memory_stats() or {}
    except Exception:  # a device that is only described has none
        stats = {}
    if limit := stats.get("bytes_limit"):
        return int(limit)
    kind = str(getattr(device, "device_kind", ""))
    known = [size for name, size in MEMORY.items() if kind.startswith(name)]
    return known[0] * GIB if known else None
