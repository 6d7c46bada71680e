"""The meeting before jax: processes are threads here, and every fault has a line on all of them."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from asjax.config import AsjaxError
from asjax.hosts import join

GUARD_S = 600


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def started(port, index, count, limit_s=GUARD_S, host="localhost"):
    """A thread that joins; `said` gets what came of it."""
    said = []

    def work():
        try:
            join.meet(f"{host}:{port}", count, index, limit_s)
            said.append("all have come")
        except AsjaxError as error:
            said.append((error.code, str(error)))

    thread = threading.Thread(target=work, daemon=True)
    thread.said = said
    thread.start()
    return thread


def ended(*threads):
    for thread in threads:
        thread.join(GUARD_S)
    return [thread.said[0] for thread in threads]


def test_all_come_in_any_order_and_the_port_is_free_afterwards(port):
    late = started(port, 2, 3)
    time.sleep(0.2)
    threads = [late, started(port, 0, 3), started(port, 1, 3)]
    assert ended(*threads) == ["all have come"] * 3
    socket.create_server(("", port)).close()


@pytest.mark.parametrize("number", [0, 1])
def test_two_processes_with_one_number_end_all_also_those_that_come_later(port, number):
    threads = [started(port, 0, 3), started(port, 1, 3)]
    threads.append(started(port, number, 3))
    end = time.time() + GUARD_S
    while not any(thread.said for thread in threads) and time.time() < end:
        time.sleep(0.01)
    threads.append(started(port, 2, 3))
    for code, line in ended(*threads):
        assert code == 2
        assert f"two processes have the number {number}: on {socket.gethostname()} pid" in line
        assert "--process-id, from 0 to 2" in line


def test_another_count_ends_all(port):
    threads = [started(port, 0, 3), started(port, 1, 3), started(port, 2, 4)]
    for code, line in ended(*threads):
        assert code == 2
        assert "process 0 on" in line
        assert "--num-processes=3" in line
        assert "process 2 on" in line
        assert "with 4; give all processes the same number" in line


def test_a_missing_process_is_named_on_all_and_may_be_tried_again(port):
    threads = [started(port, number, 4, limit_s=3.0) for number in (0, 1, 3)]
    for code, line in ended(*threads):
        assert code == 76
        assert f"process 2 of 4 did not come to localhost:{port} within 3 s; there are 0 on" in line


def test_without_process_0_the_address_and_the_reason_are_told(port):
    ((code, line),) = ended(started(port, 1, 2, limit_s=1.0))
    assert code == 76
    assert f"did not find process 0 at localhost:{port} within 1 s (Connection refused)" in line
    ((code, line),) = ended(started(port, 1, 2, limit_s=1.0, host="no-such-host.invalid"))
    assert code == 76
    assert "at no-such-host.invalid:" in line


def test_a_process_that_has_died_while_it_waited_may_come_again(port):
    text = f"from asjax.hosts import join; join.meet('localhost:{port}', 3, 1)"
    first = started(port, 0, 3)
    child = subprocess.Popen(
        [sys.executable, "-c", text], env=os.environ | {"PYTHONPATH": ":".join(sys.path)}
    )
    try:
        time.sleep(3)
        child.kill()
        child.wait()
        threads = [first, started(port, 1, 3), started(port, 2, 3)]
        assert ended(*threads) == ["all have come"] * 3
    finally:
        child.kill()


def test_another_program_on_the_port_is_told(port, monkeypatch):
    monkeypatch.setattr(join, "_PORT_S", 0.5)

    def greets(server):
        while True:
            line, _ = server.accept()
            line.sendall(b"SSH-2.0-OpenSSH\n")
            line.close()

    with socket.create_server(("localhost", port)) as server:
        threading.Thread(target=greets, args=(server,), daemon=True).start()
        ((code, line),) = ended(started(port, 1, 2, limit_s=2.0))
        assert code == 76
        assert "is no process 0 of asjax" in line
        monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", f"127.0.0.1:{port}")
        ((code, line),) = ended(started(port, 0, 2))
        assert code == 2
        assert f"cannot listen on port {port}" in line


def test_strangers_at_the_port_of_process_0_are_sent_away(port):
    threads = [started(port, 0, 2)]
    time.sleep(0.3)
    half = [{"asjax": "x"}, {"asjax": 1, "of": 2}]  # without host and pid
    for said in (
        b"GET / HTTP/1.1\r\n\r\n\n",
        b"[]\n",
        *(json.dumps(h).encode() + b"\n" for h in half),
    ):
        with socket.create_connection(("localhost", port)) as line:
            line.sendall(said)
            assert line.recv(10) == b""
    threads.append(started(port, 1, 2))
    assert ended(*threads) == ["all have come"] * 2


@pytest.mark.parametrize(
    "text", ["localhost", "localhost:0", "localhost:99999", ":5", "a b:5", "http://a:5"]
)
def test_an_address_must_be_host_and_port(text):
    with pytest.raises(AsjaxError, match=r"must be HOST:PORT.*got"):
        join.meet(text, 2, 0)


def test_numbers_must_be_of_one_of_the_processes():
    assert join.address("[::1]:80") == ("::1", 80)
    for count, index, says in ((0, 0, "num_processes must be 1"), (2, 2, r"in 0\.\.1, got 2")):
        with pytest.raises(AsjaxError, match=says):
            join.meet("localhost:5", count, index)
