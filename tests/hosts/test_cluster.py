"""`--coordinator=auto`: environments as SLURM, Kubernetes and users set them."""

import pytest

from asjax import devices
from asjax.config import AsjaxError
from asjax.hosts import cluster

SLURM = {
    "SLURM_JOB_ID": "71", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": "1",
}  # fmt: skip


def test_own_variables_come_first_and_must_be_complete():
    env = {"ASJAX_COORDINATOR": "a:5", "ASJAX_NUM_PROCESSES": "4", "ASJAX_PROCESS_ID": "2"}
    place = cluster.find({**SLURM, **env})
    assert (place.coordinator, place.num_processes, place.process_id) == ("a:5", 4, 2)
    del env["ASJAX_NUM_PROCESSES"]
    with pytest.raises(AsjaxError, match="ASJAX_NUM_PROCESSES must be set too"):
        cluster.find(env)
    with pytest.raises(AsjaxError, match="ASJAX_PROCESS_ID must be a whole number, got 'x'"):
        cluster.find({**env, "ASJAX_NUM_PROCESSES": "4", "ASJAX_PROCESS_ID": "x"})


def test_kubernetes_gives_address_and_index_and_the_user_the_number():
    env = {"JAX_COORDINATOR_ADDRESS": "train-0.train", "JOB_COMPLETION_INDEX": "3"}
    with pytest.raises(AsjaxError, match="set ASJAX_NUM_PROCESSES"):
        cluster.find(env)
    place = cluster.find({**env, "ASJAX_NUM_PROCESSES": "8"})
    assert (place.coordinator, place.num_processes, place.process_id) == (
        "train-0.train:8476",
        8,
        3,
    )
    env |= {"JAX_NUM_PROCESSES": "4", "JAX_COORDINATOR_PORT": "99"}
    assert cluster.find(env).coordinator == "train-0.train:99"


def test_an_environment_that_names_others_is_not_left_unused():
    kubernetes = {"JAX_COORDINATOR_ADDRESS": "a:5", "JOB_COMPLETION_INDEX": "3"}
    for env in ({"ASJAX_COORDINATOR": "a:5"}, kubernetes):
        with pytest.raises(AsjaxError, match=f"{next(iter(env))} is set.*--coordinator=auto"):
            cluster.check_asked(None, env)
        cluster.check_asked("auto", env)
    cluster.check_asked(None, SLURM)  # tasks of a step may train apart, as in a sweep


@pytest.mark.parametrize(
    ("tasks", "local", "more", "ids"),
    [
        # one task on a node of eight GPUs takes all of them; jax alone takes one
        ("1(x2)", 0, {"SLURM_GPUS_ON_NODE": "8"}, range(8)),
        ("1(x2)", 0, {"SLURM_GPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, range(4)),
        ("8(x2)", 5, {"SLURM_GPUS_ON_NODE": "8"}, [5]),
        ("8(x2)", 5, {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, [5]),
        ("2(x2)", 1, {"SLURM_GPUS_ON_NODE": "8"}, [4, 5, 6, 7]),
        ("3(x2)", 1, {"SLURM_GPUS_ON_NODE": "8"}, [2, 3, 4]),
        ("4,2", 1, {"SLURM_GPUS_ON_NODE": "4"}, [2, 3]),  # node 1 has two tasks
        # --gpus-per-task shows each task only its own
        ("8(x2)", 5, {"SLURM_GPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "5"}, [0]),
        ("4(x2)", 3, {"SLURM_GPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "6,7"}, [0, 1]),
    ],
)
def test_slurm_tasks_share_the_gpus_of_their_node(tasks, local, more, ids):
    env = {**SLURM, "SLURM_LOCALID": str(local), "SLURM_STEP_TASKS_PER_NODE": tasks, **more}
    assert cluster.find(env).gpus.ids == tuple(ids)


def test_every_gpu_of_a_node_is_used_once():
    for tasks in range(1, 9):
        env = {**SLURM, "SLURM_STEP_TASKS_PER_NODE": f"{tasks}(x2)", "SLURM_GPUS_ON_NODE": "8"}
        used = [
            number
            for local in range(tasks)
            for number in cluster.find({**env, "SLURM_LOCALID": str(local)}).gpus.ids
        ]
        assert used == list(range(8))
    env["SLURM_STEP_TASKS_PER_NODE"] = "9(x2)"
    with pytest.raises(AsjaxError, match="9 tasks and 8 GPUs"):
        cluster.find(env)


def test_slurm_without_gpus_and_a_node_without_counts():
    assert cluster.find(SLURM).gpus is None
    env = {**SLURM, "SLURM_STEP_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    assert cluster.find(env).gpus == cluster.Gpus(tuple(range(8)), 8, 1)


def test_the_line_says_what_is_used_and_what_is_not():
    place = cluster.Place(gpus=cluster.Gpus((0,), 8, 1), found="SLURM")
    wanted = "2 processes, 2 devices of 16 visible (SLURM: one task on a node uses 1 of 8 GPUs)"
    assert devices.joined(place, 2, 2) == wanted
    place = cluster.Place(gpus=cluster.Gpus((4, 5, 6, 7), 8, 2), found="SLURM")
    assert devices.joined(place, 4, 16).startswith("4 processes, 16 devices of 16 visible (SLURM: ")
    assert devices.joined(cluster.Place(), 2, 8) == "2 processes, 8 devices"


def test_elsewhere_one_line_says_what_to_do(monkeypatch):
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AsjaxError, match="srun.*ASJAX_COORDINATOR.*give --coordinator=HOST:PORT"):
        raise cluster.elsewhere({})
    with pytest.raises(AsjaxError, match="start asjax with srun"):
        raise cluster.elsewhere({"SLURM_JOB_ID": "71"})
    with pytest.raises(AsjaxError, match="leave them out"):
        devices.setup(coordinator="auto", num_processes=2)
    with pytest.raises(AsjaxError, match="watchdog_s must be 0"):
        devices.setup(watchdog_s=-1.0)
