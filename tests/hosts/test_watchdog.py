"""The watchdog: one process with faked beats, and two real processes with a fault in one."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from asjax.data import patience
from asjax.hosts import watchdog


@pytest.fixture
def ended(monkeypatch):
    """Lines of the ends that a watchdog in this process asks for; ticks are short."""
    lines = []

    def go(code, line, record, culprit):
        lines.append((code, line))
        if watchdog._current:
            watchdog._current._over.set()

    monkeypatch.setattr(watchdog, "_go", go)
    monkeypatch.setattr(watchdog, "TICK_S", 0.02)
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback", lambda **_: None)
    return lines


def wait_for(condition, seconds=60):
    end = time.time() + seconds
    while not condition() and time.time() < end:
        time.sleep(0.01)
    assert condition()


def begun(dog, steps=3):
    """Beats of complete steps, after which the limit of a step holds."""
    for step in range(1, steps + 1):
        dog.beat(step, "data")
        dog.beat(step, "step")


def test_data_that_hang_end_the_program_with_the_clips_under_decode(ended):
    def doing():
        with patience.making("clip dog.wav"):
            return patience.described()

    with watchdog.Watchdog(0.3, doing=doing) as dog:
        begun(dog)
        dog.beat(4, "data")
        wait_for(lambda: ended)
    ((code, line),) = ended
    assert code == 76
    assert line.startswith("data of step 4 for 0 s: clip dog.wav for 0 s; the same command goes on")
    assert patience.described() == ""


def test_a_loop_that_beats_lives_though_it_takes_longer_than_its_limit(ended):
    with watchdog.Watchdog(0.3) as dog:
        begun(dog)
        dog.beat(4, "eval")  # the limit of a step does not hold here
        time.sleep(0.6)
        for step in range(4, 24):
            dog.beat(step, "data")
            time.sleep(0.05)
        assert not ended
    wait_for(lambda: not [t for t in watchdog.threading.enumerate() if t.name == "asjax-watchdog"])
    assert watchdog._current is None
    watchdog.beat(1, "data")  # without a watchdog nothing happens
    assert not ended


def test_limits_follow_the_slowest_step_and_the_phase(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: clock[0])
    dog = watchdog.Watchdog(decode_timeout_s=700.0)
    for step, took in ((1, 900.0), (2, 500.0), (3, 1.0), (4, 70.0), (5, 2.0)):
        dog.beat(step, "data")
        dog.beat(step, "step")
        if step <= 2:
            assert dog.limit() == 1800  # the first two steps compile
        clock[0] += took
    dog.beat(6, "data")
    assert dog.limit() == 715  # longer than the decoder's own limit
    dog.beat(6, "step")
    assert dog.limit() == 700  # ten times the slowest step, 4
    dog.beat(6, "save")
    assert dog.limit() == 1800
    clock[0] += 5000.0  # a save is no part of a step
    dog.beat(7, "data")
    dog.beat(7, "step")
    assert dog.limit() == 700
    dog.beat(phase="report")
    assert dog.limit() == float("inf")
    asked = watchdog.Watchdog(9.0)
    begun(asked, 4)
    assert asked.limit() == 9


def test_a_process_that_ends_with_its_own_line_does_not_follow_itself(ended, monkeypatch):
    """Process 0 reads its own end from the store while it waits for the others."""
    stacks = []
    monkeypatch.setattr(watchdog, "_show_stacks", lambda: stacks.append("shown"))
    failed = {0: {"code": 2, "line": "process 0: no such moon", "culprit": 0}}
    dog = watchdog.Watchdog(9.0)
    dog._follow(failed)
    assert stacks == ["shown"]  # another process has named this one
    with watchdog._leaving:
        dog._follow(failed)
    assert stacks == ["shown"]
    assert ended == [(2, "process 0: no such moon")]


def test_no_watchdog_starts_with_a_limit_of_0(ended):
    with watchdog.Watchdog(0.0):
        assert watchdog._current is None


RANK = """
import os, sys, time
from asjax import devices, hosts, __main__
from asjax.hosts import watchdog
from asjax.config import AsjaxError
from asjax.data import patience
from types import SimpleNamespace

rank = int(sys.argv[2])
fault, _, culprit = sys.argv[3].partition(" ")
watchdog.STANDING_S = 2.0
flag = sys.argv[4]

def main(args):
    devices.setup(cpu_devices=1, coordinator="localhost:" + sys.argv[1], num_processes=2,
                  process_id=rank, watchdog_s=4)
    with watchdog.Watchdog(4, doing=patience.described):
        assert hosts.from_all({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
        assert hosts.from_first(lambda: [rank, float("inf")]) == [0, float("inf")]
        assert not hosts.agree(rank == 0) and hosts.agree(True)
        for step in range(1, 10**6):
            watchdog.beat(step, "data")
            with patience.making("clip cat.wav"):
                if rank == int(culprit or 1) and os.path.exists(flag):
                    if fault == "sleep": time.sleep(1000)
                    if fault == "error": raise AsjaxError("no such moon")
                    if fault == "bug": raise ZeroDivisionError
            watchdog.beat(step, "step")
            hosts.barrier("step")  # in place of a collective
            if step == 5: print("running", flush=True)
    return 0

__main__.import_module = lambda name: SimpleNamespace(add_arguments=lambda p: None, main=main)
sys.exit(__main__.main(["train"]))
"""


def two(tmp_path, fault):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "ASJAX_CACHE": "off", "TMPDIR": str(tmp_path)}
    env.pop("XLA_FLAGS", None)
    return [
        subprocess.Popen(
            [sys.executable, "-c", RANK, port, str(rank), fault, str(tmp_path / "flag")],
            stdout=subprocess.PIPE, stderr=(tmp_path / f"err{rank}").open("w"), text=True, env=env,
        )
        for rank in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("sleep", 76, "process 1 on {host} pid {pid}: data of step"),
        ("error 1", 2, "process 1: no such moon"),
        ("error 0", 2, "process 0: no such moon"),  # it has the store, so it leaves last
        ("kill 0", 76, "process 0 on {host} pid {pid}, the coordinator, is dead"),
        pytest.param("bug", 76, "process 1: ZeroDivisionError", marks=pytest.mark.slow),
        pytest.param("kill 1", 76, "process 1 on {host} pid {pid}: silent", marks=pytest.mark.slow),
        pytest.param("stop 1", 76, "process 1 on {host} pid {pid}: silent", marks=pytest.mark.slow),
        pytest.param("stop 0", 76, "does not answer for", marks=pytest.mark.slow),
    ],
)
def test_a_fault_of_one_process_ends_both_with_a_line_that_names_it(tmp_path, fault, code, words):
    ranks = two(tmp_path, fault)
    try:
        for rank in ranks:
            assert "running\n" in iter(rank.stdout.readline, ""), (tmp_path / "err0").read_text()
        (tmp_path / "flag").touch()
        signals = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
        name, _, number = fault.partition(" ")
        cause = int(number or 1)
        if name in signals:
            ranks[cause].send_signal(signals[name])
        other = ranks[1 - cause]
        assert other.wait(timeout=600) == code
        if name == "stop":
            ranks[cause].send_signal(signal.SIGCONT)
        if name != "kill":
            assert ranks[cause].wait(timeout=600) == code
    finally:
        for rank in ranks:
            rank.kill()
            rank.stdout.close()
    said = (tmp_path / f"err{1 - cause}").read_text()
    wanted = words.format(host=socket.gethostname(), pid=ranks[cause].pid)
    assert wanted in said, said
    if fault == "sleep":  # the process that hangs tells where
        assert "clip cat.wav for" in said
        assert "in main" in (tmp_path / "err1").read_text()
    if name == "error":
        assert "Thread 0x" not in (tmp_path / f"err{cause}").read_text()
    if name in ("error", "bug"):
        line = wanted.removeprefix(f"process {cause}: ")
        assert f"asjax train: error: {line}" in (tmp_path / f"err{cause}").read_text()
