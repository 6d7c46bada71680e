"""Several processes: what they tell each other, and whole trainings with faults (slow)."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from asjax import hosts

GUARD_S = 600
HEARD_S = 10.0  # a busy machine; JAX needs about 1 s


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_the_code_of_a_process_has_versions_and_a_hash_of_the_sources(tmp_path, monkeypatch):
    import asjax

    before = hosts.code()
    assert before["asjax"] == asjax.__version__
    assert before["jax"] == jax.__version__
    shutil.copytree(Path(asjax.__file__).parent, tmp_path / "asjax")
    monkeypatch.setattr(asjax, "__file__", str(tmp_path / "asjax" / "__init__.py"))
    assert hosts.code() == before
    with (tmp_path / "asjax" / "models" / "cnn.py").open("a") as file:
        file.write("\n")
    assert hosts.code()["source"] != before["source"]


def test_alone_every_question_has_an_own_answer(tmp_path):
    assert not hosts.several()
    assert (hosts.index(), hosts.count()) == (0, 1)
    assert hosts.from_first(lambda: (1, 2)) == (1, 2)
    assert hosts.from_all("x") == ["x"]
    assert hosts.agree(True)
    assert not hosts.agree(False)
    hosts.barrier("here")
    hosts.meet(tmp_path / "none")


RANK = """
import sys
from pathlib import Path
from asjax import devices, hosts
from asjax.config import AsjaxError
rank, folder = int(sys.argv[2]), Path(sys.argv[3])
devices.setup(cpu_devices=1, coordinator="localhost:" + sys.argv[1], num_processes=2,
               process_id=rank)
hosts.meet(folder)
assert not list(folder.iterdir()), "the token is gone"
hosts._SHARED_S = 1.0
own = folder.with_name(f"own{rank}")
own.mkdir()
try:
    hosts.check_shared(own)
except AsjaxError as error:
    print("all say:", error)
hosts.check_same("code", {"asjax": "0.3.0", "source": "f00"}, "install it")
try:
    hosts.check_same("config", {"batch_size": 8, "lr": 0.1 * (1 + rank)}, "give the same")
except AsjaxError as error:
    print("all say too:", error)
"""


def test_a_workdir_that_is_not_shared_is_an_error_on_every_process(tmp_path):
    (tmp_path / "shared").mkdir()
    port = str(free_port())
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "ASJAX_CACHE": "off"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, port, str(rank), str(tmp_path / "shared")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [rank.communicate(timeout=GUARD_S)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    host = socket.gethostname()
    wanted = f"all say: process 1 on {host} does not see the workdir of process 0 on {host}: "
    for text in said:
        assert wanted in text, text
        assert f"{tmp_path / 'own0'} is not in its {tmp_path / 'own1'}" in text
        line = f"all say too: process 1 on {host} has another config than process 0 on {host} "
        assert f"{line}(lr: 0.1 -> 0.2); give the same" in text


# ------------------------------------------------------------------------------ whole trainings

FAULTS = """
import os, time
from asjax.config import AsjaxError
from asjax.hosts import watchdog

def noted(step=None, phase=None, beat=watchdog.beat):
    if phase == "step":
        with open(os.environ["STEPS"], "a") as file:
            print(step, time.time(), file=file)
    beat(step, phase)

watchdog.beat = noted

def strike(example, rng):
    if os.path.exists(os.environ.get("FLAG", "")):
        if os.environ["FAULT"] == "sleep":
            time.sleep(10_000)
        raise AsjaxError("the disk has run away")
    return example
"""
FIELDS = [
    "--config=configs/quickstart.py:tiny", "--config.data.train.splits=('fold1',)",
    "--config.data.clip_s=1.0", "--config.eval.bootstrap=20", "--config.log.every_steps=1000",
]  # fmt: skip


def processes(repo, folder, count, *more, fault="", cheap=True):
    """Start `count` processes of one training; process 1 has the fault in its host op."""
    (folder / "faults.py").write_text(FAULTS)
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "FAULT": fault}
    env.pop("NPROC", None)  # of conftest.py
    env["PYTHONPATH"] = os.pathsep.join([str(folder), *sys.path])
    if cheap:  # compiles in a fifth of the time
        env["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    command = [
        sys.executable, "-m", "asjax", "train", *FIELDS, "--cpu-devices=1",
        f"--coordinator=localhost:{free_port()}", f"--num-processes={count}", *more,
    ]  # fmt: skip
    started = []
    for rank in range(count):
        mine = {**env, "STEPS": str(folder / f"steps{rank}")}
        mine |= {"FLAG": str(folder / "flag")} if rank == 1 else {}
        with (folder / f"said{rank}").open("w") as said:
            started.append(
                subprocess.Popen(
                    [*command, f"--process-id={rank}"], stdout=said, stderr=-2, env=mine, cwd=repo
                )
            )
    return started


def wait_for(condition, ranks):
    end = time.time() + GUARD_S
    while not condition() and time.time() < end:
        assert all(rank.poll() is None for rank in ranks), [rank.poll() for rank in ranks]
        time.sleep(0.1)
    assert condition()


def newest(workdir):
    return max((int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit()), default=0)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [["--watchdog-s=10"], []], ids=["10 s", "default"])
@pytest.mark.parametrize("fault", ["kill 1", "stop 1", "kill 0", "stop 0", "sleep", "error"])
def test_a_training_with_a_fault_ends_everywhere_and_the_same_command_goes_on(
    tmp_path, repo, fault, limit
):
    """Then SIGTERM to one process stops both after the same step, though nothing is logged.

    `pytest -m slow -s` prints the seconds (acceptance: 15 with the limit of 10 s, 90 without).
    """
    workdir, ranks = tmp_path / "w", []
    more = [
        f"--workdir={workdir}", "--config.total_steps=100000", "--config.eval.every_steps=100000",
        "--config.log.save_steps=5", *limit,
        "--config.data.ops=decode | crop | multihot | faults:strike",
    ]  # fmt: skip
    name, _, number = fault.partition(" ")
    cause = int(number or 1)
    code = 2 if fault == "error" else 76
    try:
        ranks = processes(repo, tmp_path, 2, *more, fault=fault)
        wait_for(lambda: newest(workdir) >= 5, ranks)
        begin = time.time()
        if number:
            how = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[name]
            ranks[cause].send_signal(how)
        else:
            (tmp_path / "flag").touch()
        assert ranks[1 - cause].wait(GUARD_S) == code
        print(f"{fault}, limit {limit or 'default'}: ended after {time.time() - begin:.1f} s")
        said = (tmp_path / f"said{1 - cause}").read_text()
        assert f"process {cause}" in said, said
        assert "should not happen" not in said
        if name == "stop":
            ranks[cause].send_signal(signal.SIGCONT)
        assert ranks[cause].wait(GUARD_S) == (-signal.SIGKILL if name == "kill" else code)

        (tmp_path / "flag").unlink(missing_ok=True)
        before = newest(workdir)
        ranks = processes(repo, tmp_path, 2, *more)
        wait_for(lambda: newest(workdir) >= before + 5, ranks)
        begin, last = time.time(), newest(workdir)
        ranks[1].send_signal(signal.SIGTERM)
        assert [rank.wait(GUARD_S) for rank in ranks] == [75, 75]
        print(f"SIGTERM: ended after {time.time() - begin:.1f} s")
        for rank in range(2):  # all stop after the same step, the one of the last checkpoint
            rows = [row.split() for row in (tmp_path / f"steps{rank}").read_text().splitlines()]
            assert int(rows[-1][0]) == newest(workdir)
            # JAX looks for the signal once a second. Without that, two more steps may begin.
            after = [float(time_) - begin for _, time_ in rows if float(time_) > begin]
            within = max(after, default=0.0)
            print(f"process {rank}: {len(after)} steps begun after it, within {within:.1f} s")
            assert sum(seconds > HEARD_S for seconds in after) <= 2
        said = (tmp_path / "said0").read_text()
        assert f"resuming at step {before} of" in said
        assert f"stopped at step {newest(workdir)}, everything is saved" in said
        assert newest(workdir) > last
    finally:
        for rank in ranks:
            rank.kill()


def weights(workdir):
    from safetensors.numpy import load_file

    return load_file(workdir / "model" / "model.safetensors")


@pytest.mark.slow
def test_checkpoints_of_two_processes_go_on_with_one_and_with_four(tmp_path, repo, monkeypatch):
    """As many devices give the same numbers, with any number of processes."""
    monkeypatch.chdir(repo)

    def train(name, count, steps, *fields):
        more = [
            f"--workdir={tmp_path / name}", f"--config.total_steps={steps}",
            "--config.eval.every_steps=4", "--allow-config-change", *fields,
        ]  # fmt: skip
        ranks = processes(repo, tmp_path, count, *more, cheap=False)
        try:
            codes = [rank.wait(GUARD_S) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        assert codes == [0] * count, (tmp_path / "said0").read_text()
        return (tmp_path / "said0").read_text()

    def alone(name, devices, steps, *fields):
        command = [
            sys.executable, "-m", "asjax", "train", *FIELDS, f"--workdir={tmp_path / name}",
            f"--config.total_steps={steps}", "--config.eval.every_steps=4",
            "--allow-config-change", f"--cpu-devices={devices}", *fields,
        ]  # fmt: skip
        env = {k: v for k, v in os.environ.items() if k != "NPROC"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GUARD_S, cwd=repo, env=env
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    train("two", 2, 4)
    for name in ("four", "one of two", "one of four"):
        shutil.copytree(tmp_path / "two", tmp_path / name)
    for said in (
        train("two", 2, 8),
        train("four", 4, 8),
        alone("one of two", 2, 8),
        alone("one of four", 4, 8),
    ):
        assert "resuming at step 4 of 8" in said, said
    ours, theirs = weights(tmp_path / "two"), weights(tmp_path / "one of two")
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    # gloo adds four numbers in another order than one process does (test_sums.py). Adam enlarges
    # the rounding of gradients near zero, because it divides a gradient by its size. SGD does not.
    sgd = "--config.optim.name=sgd", "--config.optim.lr=0.05"
    train("sgd of four", 4, 4, *sgd)
    alone("sgd of one", 4, 4, *sgd)
    ours, theirs = weights(tmp_path / "sgd of four"), weights(tmp_path / "sgd of one")
    for key in ours:  # statistics are as large as the features, so 1e-6 is a share there
        atol = 1e-6 if key.startswith("params") else 1e-6 * np.abs(theirs[key]).max()
        np.testing.assert_allclose(ours[key], theirs[key], rtol=0, atol=atol, err_msg=key)
    paths = [tmp_path / name / "eval" / "scores.npz" for name in ("four", "one of four")]
    ours, theirs = (np.load(path)["scores"] for path in paths)
    print(f"scores of four processes and of one differ by {np.abs(ours - theirs).max():.1e}")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)  # logits up to 8
