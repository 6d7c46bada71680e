"""The mesh: how state and batches are divided over devices and gathered again.

The same program runs on one core or on many hosts: arrays are global, and `jax.jit` splits the work
over a named mesh. Axis "data" splits the batch. Axis "fsdp" splits the batch and the big
parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asjax.config import AsjaxError, parse_value, unknown

AXES = ("data", "fsdp")


# ------------------------------------------------------------------------------------- mesh


def make_mesh(
    spec=None,
    *,
    batch_sizes: Sequence[int] = (),
    local: bool = False,
    hosts: Sequence[str] = (),
    devices=None,
) -> Mesh:
    """A mesh over the devices.

    Args:
      spec: None or "" puts all devices on "data". Else `"data=2,fsdp=4"` or a dict; one size may
        be -1, which means all other devices. A single process may use fewer devices than it has.
      batch_sizes: if there is no spec, a single process on CPU uses the largest number of devices
        that divides all of these. So a batch of 2 runs on an 8-core machine.
      local: use only the devices of this process, for work that it does alone.
      devices: these in place of jax's own, for a compilation.
      hosts: the host of each process. "fsdp" is the inner axis: its groups must lie inside hosts,
        unless there is only one group. Else every block of a model crosses the network.
    """
    alone = local or devices is not None or jax.process_count() == 1
    if devices is None:
        devices = jax.local_devices() if local else jax.devices()
    sizes = _mesh_sizes(spec, len(devices))
    if not sizes:
        count = len(devices)
        if devices[0].platform == "cpu" and alone and batch_sizes:
            common = math.gcd(*batch_sizes)
            count = max(n for n in range(1, count + 1) if common % n == 0)
        sizes = {"data": count}
    needed = math.prod(sizes.values())
    if needed > len(devices) or (needed < len(devices) and not alone):
        raise AsjaxError(
            f"mesh {_show(sizes)} needs {needed} devices, there are {len(devices)}; "
            "change the mesh, or --cpu-devices on CPU"
        )
    sizes = {name: sizes[name] for name in AXES if name in sizes}
    # The default of make_mesh is explicit axes, and jax does not allow our fsdp split with those.
    auto = (AxisType.Auto,) * len(sizes)
    mesh = jax.make_mesh(
        tuple(sizes.values()), tuple(sizes), axis_types=auto, devices=devices[:needed]
    )
    if not local and hosts:
        _check_inside(mesh, hosts)
    return mesh


def _place_of(device, hosts: Sequence[str]):
    """Devices of one place exchange data fast: the host, or a TPU's slice, which may span hosts."""
    slice_index = getattr(device, "slice_index", None) if device.platform == "tpu" else None
    return hosts[device.process_index] if slice_index is None else slice_index


def _check_inside(mesh: Mesh, hosts: Sequence[str]) -> None:
    ways = mesh.shape.get("fsdp", 1)
    for group in mesh.devices.reshape(-1, ways) if 1 < ways < mesh.size else ():
        if len({_place_of(device, hosts) for device in group}) > 1:
            there = sum(hosts[d.process_index] == hosts[0] for d in mesh.devices.flat)
            raise AsjaxError(
                f"mesh {_show(mesh.shape)}: {ways} devices on fsdp would lie on several hosts, so "
                "every block of the model would cross the network; make fsdp a divisor of the "
                f"{there} devices of a host, or the number of all devices, {mesh.size}"
            )


def described(mesh: Mesh, hosts: Sequence[str]) -> str:
    """The mesh by axis and host, such as "mesh data=2 across hosts, fsdp=4 inside hosts; ..."."""
    axes = []
    for axis, name in enumerate(mesh.axis_names):
        lines = np.moveaxis(mesh.devices, axis, -1).reshape(-1, mesh.devices.shape[axis])
        across = any(len({hosts[d.process_index] for d in line}) > 1 for line in lines)
        axes.append(f"{name}={mesh.shape[name]} {'across hosts' if across else 'inside hosts'}")
    counts: dict[str, int] = {}
    for device in mesh.devices.flat:
        host = hosts[device.process_index]
        counts[host] = counts.get(host, 0) + 1
    listed = [f"{host} {count}" for host, count in counts.items()]
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return f"mesh {', '.join(axes)}; devices by host: {', '.join(listed[:8])}{more}"


def _mesh_sizes(spec, n_devices: int) -> dict[str, int]:
    if isinstance(spec, str):
        pairs = [item.partition("=") for item in spec.split(",") if item.strip()]
        spec = {name.strip(): parse_value(text) for name, _, text in pairs}
    sizes = dict(spec or {})
    for name, size in sizes.items():
        if name not in AXES:
            raise unknown("mesh axis", name, AXES)
        if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1):
            raise AsjaxError(
                f"mesh axis {name} must be a size >= 1, or -1 for the rest, got {size!r}"
            )
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise AsjaxError("mesh: only one axis may be -1")
    if free:
        fixed = math.prod(size for size in sizes.values() if size != -1)
        sizes[free[0]] = max(1, n_devices // fixed)
    return sizes


def _show(sizes) -> str:
    return ",".join(f"{name}={size}" for name, size in sizes.items())


# -------------------------------------------------------------------------------- shardings


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding with a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding with rows split over all devices, over all axes of the mesh."""
    return NamedSharding(mesh, PartitionSpec(tuple(mesh.axis_names)))


def state_sharding(mesh: Mesh, abstract_state, min_size: int = 2**18):
    """A sharding per leaf of a tree of shapes.

    A leaf of at least `min_size` elements is split over "fsdp", along its largest dimension that
    this axis divides. All other leaves are replicated.
    """
    ways = mesh.shape.get("fsdp", 1)

    def rule(leaf) -> NamedSharding:
        dims = [d for d in range(len(leaf.shape)) if leaf.shape[d] % ways == 0]
        if ways == 1 or not dims or math.prod(leaf.shape) < min_size:
            return replicated(mesh)
        largest = max(dims, key=lambda d: leaf.shape[d])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))

    return jax.tree.map(rule, abstract_state)


def with_sharding(abstract_state, shardings):
    """Add shardings to a tree of shapes; the restore of a checkpoint needs both."""
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract_state, shardings
    )


# ------------------------------------------------------------------------- batches, results


def local_rows(mesh: Mesh, batch_size: int, name: str = "batch size") -> np.ndarray:
    """Numbers of the rows of a global batch on this process's devices, ascending.

    The rows of a process may have gaps, because a mesh may mix the devices of several processes
    (`jax.make_mesh` does so on TPU pods).

    Raises:
      AsjaxError: the devices do not divide the batch. `name` is the name of the size in messages.
    """
    if batch_size % mesh.size:
        raise AsjaxError(
            f"{name} {batch_size} must be a multiple of the {mesh.size} devices; change it, or "
            "--cpu-devices on CPU"
        )
    parts = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.array(sorted({row for (part,) in parts for row in range(batch_size)[part]}))


def place(mesh: Mesh, batch: dict, *, owned: bool = False) -> dict[str, jax.Array]:
    """This process's rows of a batch (see `local_rows`) -> global arrays.

    Entries that are not arrays are left out.

    Args:
      owned: True promises that nobody writes to these arrays again, as for batches of a pipeline.
        False copies them. The reason: on CPU, jax uses an aligned buffer without a copy, so a later
        write to it would change the batch in use.

    Raises:
      AsjaxError: the devices do not divide the rows, entries have different numbers of rows, or
        integers need more than 32 bits, which jax would cut off.
    """
    arrays = {k: v for k, v in batch.items() if _is_rows(v)}
    counts = {len(v) for v in arrays.values()}
    if len(counts) > 1:
        shapes = ", ".join(f"{k} {v.shape}" for k, v in arrays.items())
        raise AsjaxError(f"all arrays of a batch must have the same number of rows, got {shapes}")
    n_local = len(mesh.local_devices)
    if counts and (rows := counts.pop()) % n_local:
        raise AsjaxError(
            f"batch size {rows * jax.process_count()} must be a multiple of the {mesh.size} "
            f"devices; change the batch size, or --cpu-devices on CPU"
        )
    for key, value in arrays.items():
        _check_32_bits(key, value)
    where = batch_sharding(mesh)
    rows = {k: v if owned else v.copy() for k, v in arrays.items()}
    # jax documents that a process's rows fill its places in the global array in ascending order.
    return {k: jax.make_array_from_process_local_data(where, v) for k, v in rows.items()}


def _check_32_bits(key: str, value: np.ndarray) -> None:
    if value.dtype.kind not in "iu" or value.dtype.itemsize < 8 or not value.size:
        return
    low, high = int(value.min()), int(value.max())
    fits = np.iinfo(np.uint32 if value.dtype.kind == "u" else np.int32)
    if not jax.config.jax_enable_x64 and (low < fits.min or high > fits.max):
        raise AsjaxError(
            f"{key} must fit into 32 bits on the device, got {low} to {high}; make it float32, or "
            "two numbers"
        )


def local(tree):
    """This process's rows of every global array of a tree, ascending, as numpy: undoes `place`."""

    def fetch(x):
        if x.is_fully_addressable:
            return np.asarray(x)
        parts = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
        return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

    return jax.tree.map(fetch, tree)


def _is_rows(value) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind in "biufcV"


def gather(tree):
    """Global arrays of a tree -> full numpy arrays on every host. All processes must call it."""
    if all(getattr(x, "is_fully_addressable", True) for x in jax.tree.leaves(tree)):
        return jax.tree.map(np.asarray, jax.device_get(tree))
    from jax.experimental import multihost_utils

    def fetch(x):
        if getattr(x, "is_fully_addressable", True):
            return np.asarray(x)
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(fetch, tree)
