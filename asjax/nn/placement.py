"""Where an operation will run, asked while it is traced: on which platform, over which mesh.

Some operations have one form for CPUs and one for accelerators (ops.py, frontends/stft.py). The
first of these that is known decides:

1. the context `forms`, which an export or a compilation for another platform sets;
2. the mesh on which the operand lies (jax notes it in the operand's type);
3. the mesh of `jax.set_mesh`;
4. `jax.default_device`;
5. the backend that jax uses by default.

All five belong to the key of jit's cache, so that no program of the wrong form is found there.
"""

from __future__ import annotations

import contextlib

import jax
from jax.sharding import AxisType

from asjax.config import unknown

KINDS = ("cpu", "accelerator", "tpu", "gpu")
_chosen = jax.make_user_context("")


@contextlib.contextmanager
def forms(kind: str):
    """Trace in the forms for `kind`: "cpu", "accelerator", or of these "tpu" or "gpu".

    "accelerator" takes forms that every accelerator runs; "tpu" and "gpu" also those of one kind.

        with asjax.nn.forms("accelerator"):
            exported = jax.export.export(jax.jit(f), platforms=("cuda", "tpu"))(x)
    """
    if kind not in KINDS:
        raise unknown("forms", kind, KINDS)
    with _chosen(kind):
        yield


def platform(x=None) -> str:
    """Where an operation on `x` will run: "cpu", "tpu", "gpu", or "accelerator" for any of these.

    Asked while tracing, because `jax.lax.platform_dependent` leaves a conditional around every form
    in the backward pass. XLA neither fuses nor joins collectives through a conditional.
    """
    if _chosen.value:
        return _chosen.value
    device = mesh(x).abstract_device or jax.config.jax_default_device
    return getattr(device, "platform", device) or jax.default_backend()


def on_cpu(x=None) -> bool:
    """Whether an operation on `x` is traced in its form for CPUs."""
    return platform(x) == "cpu"


def mesh(x=None) -> jax.sharding.AbstractMesh:
    """The mesh on which `x` lies, else that of `jax.set_mesh`; empty where neither is known."""
    of_x = jax.sharding.get_abstract_mesh() if x is None else jax.typeof(x).sharding.mesh
    return jax.sharding.get_abstract_mesh() if of_x.empty else of_x


def splits(rows: int, x=None) -> int:
    """Into how many equal parts the devices split the `rows` rows of x (sharding.batch_sharding).

    Where the mesh is not known these are all devices. One device holds several parts then, which
    costs little; too few parts would leave a collective in a loop.
    """
    where = mesh(x)
    if AxisType.Manual in where.axis_types:  # inside jax.shard_map: x is what one device holds
        return 1
    devices = where.size or jax.device_count()
    return devices if rows % devices == 0 else 1
