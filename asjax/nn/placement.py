"""Find out during tracing where an operation will run: on which platform, over which mesh.

Some operations have one form for CPUs and one for accelerators (ops.py, frontends/stft.py). The
first of these that is set decides:

1. the context `forms`, for an export or a compilation for another platform;
2. the mesh of the operand, which jax stores in the operand's type;
3. the mesh of `jax.set_mesh`;
4. `jax.default_device`;
5. jax's default backend.

All five are part of the key of jit's cache, so jit never reuses a program of the wrong form.
"""

from __future__ import annotations

import contextlib

import jax
from jax.sharding import AxisType

from asjax.config import unknown

KINDS = ("cpu", "accelerator", "tpu", "gpu", "graph")
_chosen = jax.make_user_context("")


@contextlib.contextmanager
def forms(kind: str):
    """Trace the operations in the form for `kind`: "cpu", "accelerator", "tpu", "gpu" or "graph".

    "accelerator" uses only code that runs on every accelerator; "tpu" and "gpu" may use more.
    "graph" has no loops and no FFT, for a file of operations (`asjax.nn.graph`).

        with asjax.nn.forms("accelerator"):
            exported = jax.export.export(jax.jit(f), platforms=("cuda", "tpu"))(x)
    """
    if kind not in KINDS:
        raise unknown("forms", kind, KINDS)
    with _chosen(kind):
        yield


def platform(x=None) -> str:
    """Where an operation on `x` will run: "cpu", "tpu", "gpu", "graph" for a file of operations, or
    "accelerator" for any but "cpu".

    We decide during tracing. `jax.lax.platform_dependent` would leave a conditional around every
    form in the backward pass, and XLA neither fuses nor joins collectives through a conditional.
    """
    if _chosen.value:
        return _chosen.value
    device = mesh(x).abstract_device or jax.config.jax_default_device
    return getattr(device, "platform", device) or jax.default_backend()


def on_cpu(x=None) -> bool:
    """True if an operation on `x` is traced in its form for CPUs."""
    return platform(x) == "cpu"


def in_graph() -> bool:
    """True if operations are traced for a file of operations."""
    return _chosen.value == "graph"


def mesh(x=None) -> jax.sharding.AbstractMesh:
    """The mesh of `x`, else the mesh of `jax.set_mesh`; empty if there is none."""
    of_x = jax.sharding.get_abstract_mesh() if x is None else jax.typeof(x).sharding.mesh
    return jax.sharding.get_abstract_mesh() if of_x.empty else of_x


def splits(rows: int, x=None) -> int:
    """Number of equal parts into which the devices split the `rows` rows of x.

    See sharding.batch_sharding. If the mesh is not known, we count all devices. A device may then
    have several parts, which costs little; too few parts would put a collective into a loop.
    """
    where = mesh(x)
    if AxisType.Manual in where.axis_types:  # inside jax.shard_map: x is what one device holds
        return 1
    devices = where.size or jax.device_count()
    return devices if rows % devices == 0 else 1
