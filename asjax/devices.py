"""Start-up of jax: CPU devices, several processes, the cache of compiled programs."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import platform
from pathlib import Path

import jax

from asjax.config import AsjaxError
from asjax.hosts import cluster, join, watchdog

_log = logging.getLogger("asjax")


def setup(
    cpu_devices: int | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    watchdog_s: float | None = None,
) -> None:
    """Prepare jax; call it before anything else uses a device.

    Args:
      cpu_devices: number of jax devices on this machine's CPU; default one per usable core, at most
        8. XLA on CPU runs a convolution on one core, so training needs a device per core.
      coordinator: "host:port" of process 0, or "auto" (cluster.find).
      num_processes, process_id: how many processes train together and which one this is.
      watchdog_s: the limit of the watchdog; jax gives up a silent process some time after that.
    """
    if cpu_devices is not None and cpu_devices < 1:
        raise AsjaxError(f"cpu devices must be >= 1, got {cpu_devices}")
    if watchdog_s is not None and not 0 <= watchdog_s < math.inf:
        raise AsjaxError(f"watchdog_s must be 0 (never) or more seconds, got {watchdog_s:g}")
    place = None
    if coordinator == "auto":
        if num_processes is not None or process_id is not None:
            raise AsjaxError("coordinator auto finds num_processes and process_id; leave them out")
        place = cluster.find()
    _set_cpu_devices(cpu_devices, coordinator, num_processes)
    if place is not None:
        _initialize(place, watchdog_s)
    elif coordinator is not None or num_processes is not None or process_id is not None:
        if coordinator is None or num_processes is None or process_id is None:
            raise AsjaxError("several processes need coordinator, num_processes and process_id")
        _initialize(cluster.Place(coordinator, num_processes, process_id), watchdog_s)
    _set_compilation_cache()


def usable_cores() -> int:
    """Cores that this process may use: the smaller of its affinity and the container's quota."""
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
    here = num_processes if local and num_processes else 1  # processes that share this machine
    if wanted is None:
        count = max(1, count // here)
    # XLA's CPU backend has one pool of NPROC threads (default: one per core). A collective blocks a
    # thread until every device joins. A device blocks at most three threads (sums of a batch norm,
    # kernel gradients). So with fewer than 3 * (devices - 1) + 1 threads all may be blocked
    # while the last device still needs one. XLA ends such a deadlock after 40 s. A bigger pool is
    # slower: with 16 threads on 2 cores CNN6's step takes 8 % longer. The bound does not hold for
    # collectives in a loop; nn/cpu/README.md says how those are avoided. XLA splits sums by the
    # number of threads. So the devices of all processes on this machine count: then several
    # processes have the weights of one with all devices, bit for bit.
    os.environ.setdefault("NPROC", str(max(usable_cores(), 3 * (here * count - 1) + 1)))
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # a backend runs already: use it, unless the user asked for a number
        if wanted is not None and len(jax.devices("cpu")) != wanted:
            raise AsjaxError(
                f"cpu devices must be chosen before jax is used; this process has "
                f"{len(jax.devices('cpu'))}, not {wanted}"
            ) from None


def _initialize(place: cluster.Place, watchdog_s: float | None) -> None:
    """Join the other processes.

    jax gives up a process that shows no sign of life, and aborts all. That must come later than
    the watchdog (asjax.hosts.watchdog), which names the cause. A limit of 30 s is too short: on a
    machine with ten times as many busy threads as cores, jax gave up a healthy process.
    """
    limit_s = cluster.SILENT_S if watchdog_s is None else watchdog_s
    complete = place.coordinator is not None
    if complete:
        join.meet(place.coordinator, place.num_processes, place.process_id)
    watchdog.end_aborts_with_a_line()
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process_id,
            local_device_ids=place.gpus and place.gpus.ids,
            # Else jax takes one GPU for each task if a SLURM job has started this process.
            cluster_detection_method="deactivate" if complete else None,
            heartbeat_timeout_seconds=round(max(90, 1.5 * limit_s)),
        )
    except (RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        if not complete and "must be defined" in line or "should be defined" in line:
            raise cluster.elsewhere() from None
        raise AsjaxError(f"the processes could not be joined: {line}") from None
    _say_joined(place)


def _say_joined(place: cluster.Place) -> None:
    """Say how many devices train, and how many of the visible ones are not used."""
    if jax.process_index() == 0:
        print(joined(place, jax.process_count(), jax.device_count()), flush=True)


def joined(place: cluster.Place, processes: int, count: int) -> str:
    """The line about the processes and devices that train together."""
    line = f"{processes} processes, {count} devices"
    if place.gpus is None:
        return line
    ids, visible, tasks = place.gpus
    line += f" of {max(count, visible * processes // tasks)} visible"
    who = f"each of {tasks} tasks" if tasks > 1 else "one task"
    return f"{line} ({place.found}: {who} on a node uses {len(ids)} of {visible} GPUs)"


def _set_compilation_cache() -> None:
    """Store compiled programs in the cache folder, so that the next run starts faster.

    ASJAX_CACHE="off" turns this off. Each kind of CPU has its own folder, because machines may
    share a home folder and a program for one CPU may not run on another.
    """
    if os.environ.get("ASJAX_CACHE") == "off" or jax.config.jax_compilation_cache_dir:
        return
    try:
        folder = cache_folder() / "xla" / _machine()
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise OSError(f"{folder} cannot be written")
    except (OSError, RuntimeError) as error:
        _log.info("compiled programs are not stored: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def cache_folder() -> Path:
    """The folder of compiled programs and downloaded checkpoints; it may be deleted at any time.

    $ASJAX_CACHE, else $XDG_CACHE_HOME/asjax, else ~/.cache/asjax. With ASJAX_CACHE="off" no
    compiled programs are stored, and checkpoints are in the default folder.
    """
    folder = os.environ.get("ASJAX_CACHE", "off")
    if folder not in ("", "off"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asjax"


def _machine() -> str:
    """Short hash of the CPU type and of jax's version."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    text = f"{platform.machine()} {platform.processor()} {flags} {jax.__version__}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


MAX_DEFAULT_CPU_DEVICES = 8  # a limit, because every device has a copy of replicated state
