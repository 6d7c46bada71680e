"""Which processes train together: options, environment variables, SLURM, Kubernetes, TPU pods."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

from asjax.config import AsjaxError

OWN = ("ASJAX_COORDINATOR", "ASJAX_NUM_PROCESSES", "ASJAX_PROCESS_ID")
_SLURM = (  # what jax needs for its own detection of SLURM
    "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID",
)  # fmt: skip
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
SILENT_S = 60.0  # default limit of the watchdog
_PORT = "8476"  # for an address without a port


def add_arguments(parser) -> None:
    parser.add_argument("--cpu-devices", type=int, help="devices on CPU (default: one per core)")
    parser.add_argument(
        "--coordinator",
        help="host:port of process 0, for several processes; auto under SLURM, Kubernetes, Open "
        "MPI and on TPU pods (docs/launch.md)",
    )
    parser.add_argument("--num-processes", type=int, help="how many processes train together")
    parser.add_argument("--process-id", type=int, help="number of this process, from 0")
    parser.add_argument(
        "--watchdog-s",
        type=float,
        help="seconds after which a step, its data or a silent process counts as hung, and all "
        "processes end with exit code 76 (default: 60, or 10 of the slowest steps; 0: never)",
    )


class Gpus(NamedTuple):
    """The GPUs of a node, and which of them this task uses."""

    ids: tuple[int, ...]  # for jax: places in the list of the visible GPUs
    visible: int  # to this task
    tasks: int  # of this job step on this node


@dataclass(frozen=True)
class Place:
    """How this process joins the others. A value None is left to jax's own detection."""

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    gpus: Gpus | None = None
    found: str = "jax's own detection"


def find(env=os.environ) -> Place:
    """What `--coordinator=auto` means here.

    In this order: ASJAX_COORDINATOR with ASJAX_NUM_PROCESSES and ASJAX_PROCESS_ID;
    JAX_COORDINATOR_ADDRESS with JOB_COMPLETION_INDEX (Kubernetes) and ASJAX_NUM_PROCESSES or
    JAX_NUM_PROCESSES; SLURM; else what jax finds (Open MPI, TPU pods).

    Raises:
      AsjaxError: a variable is missing or no number, or a node has more tasks than GPUs.
    """
    if env.get("ASJAX_COORDINATOR") or env.get("ASJAX_PROCESS_ID"):
        if missing := [name for name in OWN if not env.get(name)]:
            raise AsjaxError(f"--coordinator=auto: {', '.join(missing)} must be set too")
        return Place(
            _with_port(env[OWN[0]], env), _whole(env, OWN[1]), _whole(env, OWN[2]), found="ASJAX_*"
        )
    if env.get("JAX_COORDINATOR_ADDRESS") and env.get("JOB_COMPLETION_INDEX"):
        names = [n for n in ("ASJAX_NUM_PROCESSES", "JAX_NUM_PROCESSES") if env.get(n)]
        if not names:
            raise AsjaxError(
                "--coordinator=auto: JAX_COORDINATOR_ADDRESS and JOB_COMPLETION_INDEX are set, but "
                "not how many processes there are; set ASJAX_NUM_PROCESSES (launch/jobset.yaml)"
            )
        address = _with_port(env["JAX_COORDINATOR_ADDRESS"], env)
        index = _whole(env, "JOB_COMPLETION_INDEX")
        return Place(address, _whole(env, names[0]), index, found="Kubernetes")
    if all(name in env for name in _SLURM):
        return Place(gpus=_slurm_gpus(env), found="SLURM")
    return Place()


def check_asked(coordinator: str | None, env=os.environ) -> None:
    """AsjaxError: the environment names a coordinator, but the command does not say to use it.

    The reason: each of the processes would train alone, in one workdir.
    """
    kubernetes = env.get("JAX_COORDINATOR_ADDRESS") and env.get("JOB_COMPLETION_INDEX")
    if coordinator is None and (env.get("ASJAX_COORDINATOR") or kubernetes):
        name = "JAX_COORDINATOR_ADDRESS" if kubernetes else "ASJAX_COORDINATOR"
        raise AsjaxError(
            f"{name} is set, but no --coordinator; give --coordinator=auto to train with the other "
            f"processes, or unset {name} to train alone"
        )


def elsewhere(env=os.environ) -> AsjaxError:
    """The error for a place where jax's detection found no other processes."""
    if "SLURM_JOB_ID" in env:
        return AsjaxError(
            "--coordinator=auto: this is a SLURM job, but no task of a job step; start asjax with "
            "srun (launch/slurm.sh)"
        )
    return AsjaxError(
        "--coordinator=auto finds the processes of SLURM (inside srun), Kubernetes "
        "(JAX_COORDINATOR_ADDRESS and JOB_COMPLETION_INDEX), Open MPI and TPU pods, or "
        f"{', '.join(OWN)}; none of them is here. One machine needs no --coordinator; "
        "else give --coordinator=HOST:PORT --num-processes=N --process-id=I"
    )


def _slurm_gpus(env) -> Gpus | None:
    """A task's share of its node's GPUs; None if the node has none.

    jax itself takes one GPU for each task, the one with the number of the task. That leaves GPUs
    unused if there are fewer tasks than GPUs. It fails if SLURM shows each task only its own GPU.
    """
    total = int(env.get("SLURM_GPUS_ON_NODE") or 0)
    visible = next((len(env[n].split(",")) for n in _VISIBLE if env.get(n)), total)
    tasks, local = _tasks_here(env), _whole(env, "SLURM_LOCALID")
    if not visible:
        return None
    if visible * tasks <= total:  # SLURM shows each task its own GPUs
        return Gpus(tuple(range(visible)), visible, tasks)
    if tasks > visible:
        raise AsjaxError(
            f"this node has {tasks} tasks and {visible} GPUs; give at most one task per GPU "
            "(--ntasks-per-node)"
        )
    first, last = local * visible // tasks, (local + 1) * visible // tasks
    return Gpus(tuple(range(first, last)), visible, tasks)


def _tasks_here(env) -> int:
    """Tasks of the job step on this node, from a text such as 4(x2),3 with a part per node."""
    text = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE") or ""
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    node = int(env.get("SLURM_NODEID") or 0)
    if node < len(counts):
        return counts[node]
    nodes = int(env.get("SLURM_STEP_NUM_NODES") or env.get("SLURM_NNODES") or 1)
    return -(-_whole(env, "SLURM_NTASKS") // nodes)


def _with_port(address: str, env) -> str:
    if re.search(r":\d+$", address):
        return address
    return f"{address}:{env.get('JAX_COORDINATOR_PORT') or _PORT}"


def _whole(env, name: str) -> int:
    if not env[name].strip().isdecimal():
        raise AsjaxError(f"{name} must be a whole number, got {env[name]!r}")
    return int(env[name])
