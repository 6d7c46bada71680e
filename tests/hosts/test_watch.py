"""Stop signals and the share of time of evaluations."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from asjax.hosts import watch


def wait_for(condition):
    end = time.time() + 60
    while not condition() and time.time() < end:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_answered_at_once(number):
    said = []
    with watch.StopSignal(said.append) as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        wait_for(lambda: said)
        assert stop.requested
    assert len(said) == 1
    assert "exit code 75" in said[0]
    assert {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}[number] in said[0]


def test_the_line_comes_while_the_main_thread_is_busy_in_c_code_and_names_the_work():
    """The main thread gets no signal and waits, so its Python handler cannot run meanwhile."""
    said, lock = [], threading.Lock()
    lock.acquire()

    def release_after_the_line():
        wait_for(lambda: said)
        lock.release()

    with watch.StopSignal(said.append) as stop, stop.during("the compilation"):
        threading.Thread(target=release_after_the_line, daemon=True).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            assert lock.acquire(timeout=600)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    assert "the compilation must end first" in said[0]


def interrupted_twice():
    with watch.StopSignal(lambda line: None) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: stop.requested)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


def test_a_second_ctrl_c_interrupts_and_the_old_handlers_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_outside_the_main_thread_it_does_nothing():
    def run():
        with watch.StopSignal() as stop:
            done.append(stop.requested)

    done = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [False]


def test_evaluations_take_no_more_than_their_share_of_the_time():
    clock = [0.0]
    pace = watch.Pace(0.1, now=lambda: clock[0])
    spent = []
    for step in range(400):
        clock[0] += 1.0  # a step
        if pace.allows():
            with pace.measure():
                clock[0] += 100.0 if not spent else 5.0  # the first one compiles
            spent.append(step)
    used = 5.0 * (len(spent) - 1)
    assert used <= 0.1 * (400 + used)
    assert used + 5.0 > 0.1 * (400 + used) - 5.0  # and it is used
    full = watch.Pace(1, now=lambda: clock[0])
    with full.measure():
        clock[0] += 1e6
    assert full.allows()


RANK = """
import sys, time
from asjax import devices, hosts
from asjax.hosts import watch
devices.setup(cpu_devices=1, coordinator="localhost:" + sys.argv[1], num_processes=2,
               process_id=int(sys.argv[2]))
with watch.StopSignal() as stop:
    for step in range(1, 10**6):
        hosts.barrier("step")  # in place of a collective
        if step == 5:
            print("running", flush=True)
        if stop.asked():
            print("stopped", step)
            break
        time.sleep(0.01)
hosts.barrier("end")
"""


@pytest.mark.parametrize(("number", "rank"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(number, rank):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "ASJAX_CACHE": "off"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, port, str(i)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        for each in ranks:
            assert "running\n" in iter(each.stdout.readline, "")
        ranks[rank].send_signal(number)
        said = [each.communicate(timeout=600) for each in ranks]
    finally:
        for each in ranks:
            each.kill()
    (one, errors), (two, _) = said
    assert one == two, said
    assert int(one.removeprefix("stopped ")) >= 5
    assert ("Ctrl-C: The last finished step is saved" in errors) == (number == signal.SIGINT)
