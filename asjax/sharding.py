"""Devices: start-up, mesh, where state and batches live, batches placed ahead of use.

One program for one core or many hosts: arrays are global, `jax.jit` splits the work over a named
mesh. Axis "data" splits the batch; "fsdp" splits the batch and the big parameters.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import platform
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asjax.config import AsjaxError, parse_value, unknown

AXES = ("data", "fsdp")
MAX_DEFAULT_CPU_DEVICES = 8  # every device holds a copy of replicated state
_log = logging.getLogger("asjax")


# --------------------------------------------------------------------------------- start-up


def setup(
    cpu_devices: int | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Prepare jax; call it before anything else uses a device.

    Args:
      cpu_devices: devices to make of this machine's CPU; default one per usable core, at most 8
        (XLA:CPU runs a convolution on one core, so this is what makes training use them all).
      coordinator: "host:port" of process 0, or "auto" under SLURM, Open MPI or on a TPU pod.
      num_processes, process_id: how many processes train together and which one this is.
    """
    if cpu_devices is not None and cpu_devices < 1:
        raise AsjaxError(f"cpu devices must be >= 1, got {cpu_devices}")
    _set_cpu_devices(cpu_devices, coordinator, num_processes)
    if coordinator == "auto":
        _initialize()
    elif coordinator is not None or num_processes is not None or process_id is not None:
        if coordinator is None or num_processes is None or process_id is None:
            raise AsjaxError("several processes need coordinator, num_processes and process_id")
        if not 0 <= process_id < num_processes:
            raise AsjaxError(f"process_id must be in 0..{num_processes - 1}, got {process_id}")
        _initialize(coordinator, num_processes, process_id)
    _set_compilation_cache()


def usable_cores() -> int:
    """Cores this process may use: its affinity, and the container's quota where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        pass
    return max(1, cores or 1)


def _set_cpu_devices(wanted: int | None, coordinator: str | None, num_processes: int | None):
    chosen_elsewhere = (
        jax.config.jax_num_cpu_devices > 0
        or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    )
    if wanted is None and chosen_elsewhere:
        return
    count = wanted or min(usable_cores(), MAX_DEFAULT_CPU_DEVICES)
    local = (coordinator or "").rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]")
    if wanted is None and local and num_processes:  # the processes share this machine
        count = max(1, count // num_processes)
    # XLA:CPU runs everything, collectives too, on the threads of one pool, NPROC of them (default:
    # one per core), and a collective keeps its thread until all devices have come to it. A device
    # has at most three under way (sums of a batch norm, kernel gradients): when those of the others
    # fill the pool, the last device never arrives, a deadlock that ends the process after 40 s.
    # More threads than that slow the cores down: at 16 on 2 cores CNN6's step takes 8 % longer.
    # (None are enough where a loop holds a collective: see models/kernels.device_groups.)
    os.environ.setdefault("NPROC", str(max(usable_cores(), 3 * (count - 1) + 1)))
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # a backend is up already: keep it unless the user asked for a number
        if wanted is not None and len(jax.devices("cpu")) != wanted:
            raise AsjaxError(
                f"cpu devices must be chosen before jax is used; this process has "
                f"{len(jax.devices('cpu'))}, not {wanted}"
            ) from None


def _initialize(*args):
    try:
        jax.distributed.initialize(*args)
    except (RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise AsjaxError(f"the processes could not be joined: {line}") from None


def _set_compilation_cache() -> None:
    """Keep compiled programs between runs, so that the second one starts sooner.

    In $ASJAX_CACHE ("off" turns it off), else $XDG_CACHE_HOME or ~/.cache; one folder per kind
    of CPU, because programs compiled for one may not run on another that shares the home folder.
    """
    place = os.environ.get("ASJAX_CACHE")
    if place == "off" or jax.config.jax_compilation_cache_dir:
        return
    try:
        root = Path(place) if place else _cache_home() / "asjax"
        folder = root / "xla" / _machine()
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except (OSError, RuntimeError) as error:
        _log.info("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    # A custom partitioning rule (frontends/stft.py has one) stands in the program as the address of
    # a Python object, new in every process: with it in the key no program would be found again.
    # Leaving it out is safe as long as the rule is the same, which the folder's name ensures.
    if hasattr(jax.config, "jax_remove_custom_partitioning_ptr_from_cache_key"):
        jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)


def _cache_home() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return Path(given) if given else Path.home() / ".cache"


def _machine() -> str:
    """Short hash of the kind of CPU, of jax's version and of our partitioning rules."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    rules = hashlib.sha256(
        (Path(__file__).parent / "frontends" / "stft.py").read_bytes()
    ).hexdigest()
    text = f"{platform.machine()} {platform.processor()} {flags} {jax.__version__} {rules}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# ------------------------------------------------------------------------------------- mesh


def make_mesh(spec=None, *, batch_sizes: Sequence[int] = ()) -> Mesh:
    """A mesh over the devices.

    Args:
      spec: None or "" puts all devices on "data"; else `"data=2,fsdp=4"` or a dict, where one size
        may be -1 for "the rest". Fewer devices than there are is fine in a single process.
      batch_sizes: with no spec, on CPU in a single process, only as many devices are taken as
        divide all of these, so that a batch of 2 runs on an 8-core machine.
    """
    devices = jax.devices()
    sizes = _mesh_sizes(spec, len(devices))
    if not sizes:
        count = len(devices)
        if devices[0].platform == "cpu" and jax.process_count() == 1 and batch_sizes:
            common = math.gcd(*batch_sizes)
            count = max(n for n in range(1, count + 1) if common % n == 0)
        sizes = {"data": count}
    needed = math.prod(sizes.values())
    if needed > len(devices) or (needed < len(devices) and jax.process_count() > 1):
        raise AsjaxError(
            f"mesh {_show(sizes)} needs {needed} devices, there are {len(devices)}; "
            "change the mesh, or --cpu-devices on CPU"
        )
    # Auto must be said: make_mesh would choose explicit axes, which refuse fsdp (specs, section 2).
    auto = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(
        tuple(sizes.values()), tuple(sizes), axis_types=auto, devices=devices[:needed]
    )


def _mesh_sizes(spec, n_devices: int) -> dict[str, int]:
    if isinstance(spec, str):
        pairs = [item.partition("=") for item in spec.split(",") if item.strip()]
        spec = {name.strip(): parse_value(text) for name, _, text in pairs}
    sizes = dict(spec or {})
    for name, size in sizes.items():
        if name not in AXES:
            raise unknown("mesh axis", name, AXES)
        if isinstance(size, bool) or not isinstance(size, int) or (size < 1 and size != -1):
            raise AsjaxError(f"mesh axis {name} must be a size >= 1, or -1 for the rest: {size!r}")
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
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over all devices, whatever axes the mesh has."""
    return NamedSharding(mesh, PartitionSpec(tuple(mesh.axis_names)))


def state_sharding(mesh: Mesh, abstract_state, min_size: int = 2**18):
    """A sharding per leaf of a tree of shapes.

    Leaves under `min_size` elements, and all of them without an "fsdp" axis, are replicated; else
    the largest dimension that the axis divides is split (none: replicated).
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
    """Shapes that know where they live, as a restore needs them."""
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract_state, shardings
    )


# ------------------------------------------------------------------------- batches, results


def place(mesh: Mesh, batch: dict) -> dict[str, jax.Array]:
    """This process's rows of a batch -> global arrays; entries that are no arrays are left out.

    Raises:
      AsjaxError: rows that the devices do not divide, or entries with different numbers of rows.
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
    where = batch_sharding(mesh)
    # Copied, because jax takes over a buffer on CPU when it happens to be aligned: a pipeline that
    # writes to it again would change the batch in use.
    return {k: jax.make_array_from_process_local_data(where, v.copy()) for k, v in arrays.items()}


def _is_rows(value) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind in "biufcV"


def gather(tree):
    """Global arrays of a tree -> whole numpy arrays on every host; all processes must call it."""
    if all(getattr(x, "is_fully_addressable", True) for x in jax.tree.leaves(tree)):
        return jax.tree.map(np.asarray, jax.device_get(tree))
    from jax.experimental import multihost_utils

    def fetch(x):
        if getattr(x, "is_fully_addressable", True):
            return np.asarray(x)
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(fetch, tree)


# --------------------------------------------------------------------------------- prefetch


def prefetch(batches: Iterable[dict], place: Callable[[dict], dict], depth: int = 2) -> Prefetch:
    """Place up to `depth` batches ahead in a thread; iterates `(device_batch, rest_on_host)`."""
    return Prefetch(batches, place, depth)


class Prefetch:
    """What `prefetch` returns: an iterator and context manager.

    Attributes:
      waited_s: seconds that the consumer has waited for data so far.
    """

    def __init__(self, batches, place, depth: int = 2):
        self.waited_s = 0.0
        self._ready: queue.Queue = queue.Queue(maxsize=max(1, depth))
        self._stop = threading.Event()
        self._ended = False
        # The thread holds no reference to self: an abandoned iterator is collected and stops it.
        self._thread = threading.Thread(
            target=_fill,
            args=(batches, place, self._ready, self._stop),
            name="asjax-prefetch",
            daemon=True,
        )
        weakref.finalize(self, self._stop.set)
        self._thread.start()

    def __iter__(self):
        return self

    def __next__(self):
        if self._ended:
            raise StopIteration
        start = time.perf_counter()
        item, error = self._ready.get()
        self.waited_s += time.perf_counter() - start
        if item is not None:
            return item
        self.close()
        if error is not None:
            raise error
        raise StopIteration

    def close(self, timeout_s: float = 30.0) -> None:
        """Stop the thread, close the source and drop what is ready; may be called again."""
        self._ended = True
        self._stop.set()
        while True:
            try:
                self._ready.get_nowait()
            except queue.Empty:
                break
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.warning("the data pipeline did not stop within %g s", timeout_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _fill(batches, place, ready: queue.Queue, stop: threading.Event) -> None:
    def put(item) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    error = None
    iterator = None
    try:
        iterator = iter(batches)
        while not stop.is_set():
            batch = next(iterator, None)
            if batch is None:
                break
            placed = place(batch)
            put(((placed, {k: v for k, v in batch.items() if k not in placed}), None))
            del batch, placed  # else one more batch would stay alive while this one waits
    except BaseException as caught:  # handed to the consumer, who raises it
        error = caught
    try:  # closed by the thread that ran it: a generator refuses to be closed by another
        close = getattr(iterator if hasattr(iterator, "close") else batches, "close", None)
        if close is not None:
            close()
    except Exception as caught:
        error = error or caught
    put((None, error))
