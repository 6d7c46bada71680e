"""Worker processes that die, hang or are paused: no clip is lost, and the end is quick."""

import io
import itertools
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
from test_pipeline import Memory, children, memory, piped, same, take

from asjax.config import AsjaxError
from asjax.data import patience, prefetch, workers
from asjax.data.shared import Block, attach

GATE = threading.Event()  # ends the stalls of this process after a test
LONG = {"decode_timeout_s": 600.0}


def kill(batches, number=0, sig=signal.SIGKILL):
    """Send a signal to a worker of a live pipeline; returns its pid."""
    worker = batches._held[0]._workers[number]
    os.kill(worker._process.pid, sig)
    return worker._process.pid


@pytest.mark.parametrize("count", [1, 2])
def test_killed_workers_are_replaced_and_the_batches_are_those_of_an_undisturbed_run(count, caplog):
    source = memory(broken=frozenset({2, 11}))
    want = take(piped(source), 14)
    with piped(source, workers=count, threads=1).iterate() as batches:
        got = [next(batches)]
        killed = []
        for number in (0, count - 1, 0):
            killed.append(kill(batches, number))
            got += [next(batches) for _ in range(3)]
        got += [next(batches) for _ in range(4)]
        now = children()
    same(want, got)
    assert not set(killed) & set(now)
    lines = [r.message for r in caplog.records if "died" in r.message]
    assert len(lines) == 3
    assert f"data worker 1 of {count} died, killed by SIGKILL (likely: memory ran out" in lines[0]
    assert "no clip is lost" in lines[0]
    assert not children()


def test_a_worker_killed_at_once_from_the_middle_of_a_run_changes_nothing():
    """Also before it has made its first batch, and with `start_step`."""
    want = take(piped(memory()), 9)
    with piped(memory(), workers=2, threads=0).iterate(3) as batches:
        kill(batches, 1)
        time.sleep(0.2)
        kill(batches, 0)
        same(want[3:], list(itertools.islice(batches, 6)))


def test_the_fourth_death_of_a_worker_ends_the_pipeline_with_one_line():
    with piped(memory(), workers=2, threads=1).iterate() as batches:
        got = [next(batches)]

        def kill_and_go_on():
            while len(got) < 60:
                kill(batches, 1)
                for _ in range(2):
                    got.append(next(batches))

        with pytest.raises(AsjaxError) as caught:
            kill_and_go_on()
        same(take(piped(memory()), len(got)), got)
        with pytest.raises(StopIteration):
            next(batches)
    text = str(caught.value)
    assert "data worker 2 of 2 died 4 times, the last time killed by SIGKILL" in text
    assert "memory ran out" in text
    assert "--config.data.workers=0" in text
    assert "\n" not in text
    assert not children()


def test_each_worker_has_its_own_count():
    with piped(memory(), workers=2, threads=1).iterate() as batches:
        got = []
        for _ in range(3):
            killed = {kill(batches, number) for number in (0, 1)}
            while killed & set(children()) or len(children()) < 2:
                got.append(next(batches))
    same(take(piped(memory()), len(got)), got)


def test_a_worker_of_an_evaluation_that_dies_between_two_passes_is_replaced():
    source = memory(21)
    want = take(piped(source, train=False), 3)
    with piped(source, train=False, workers=1) as pipe:
        with pipe.iterate() as batches:
            same(want, list(batches))
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        for _ in range(2):
            with pipe.iterate() as batches:
                same(want, list(batches))
    assert not children()


def test_a_paused_worker_is_replaced_after_the_limit_and_the_end_is_quick(monkeypatch, caplog):
    monkeypatch.setattr(workers, "STUCK_S", 1.0)
    with piped(memory(), workers=2, threads=1, decode_timeout_s=1.0).iterate() as batches:
        got = [next(batches) for _ in range(2)]
        kill(batches, 0, signal.SIGSTOP)
        got += [next(batches) for _ in range(6)]
        assert "because it hung for more than 1 s" in caplog.text
        kill(batches, 1, signal.SIGSTOP)
        begin = time.monotonic()
    assert time.monotonic() - begin < 10
    assert not children()
    same(take(piped(memory()), 8), got)


def test_ctrl_z_pauses_the_program_with_its_workers(monkeypatch):
    """The time in which the program itself does not run is not the workers' fault."""
    monkeypatch.setattr(workers, "STUCK_S", 1.0)
    with piped(memory(), workers=1, threads=1, decode_timeout_s=1.0).iterate() as batches:
        got = [next(batches)]
        pid = kill(batches, 0, signal.SIGSTOP)
        time.sleep(1.5)  # nobody waits for the worker
        os.kill(pid, signal.SIGCONT)
        got += [next(batches) for _ in range(6)]
        assert children() == [pid]
    same(take(piped(memory()), 7), got)


def test_signals_to_the_whole_group_do_not_end_workers():
    with piped(memory(), workers=1).iterate() as batches:
        got = [next(batches)]
        for sig in (signal.SIGINT, signal.SIGTERM):
            pid = kill(batches, 0, sig)
        got += [next(batches) for _ in range(8)]
        assert children() == [pid]
    same(take(piped(memory()), 9), got)


def test_the_error_of_the_last_death_arrives_through_a_prefetch_after_the_finished_batches():
    plain = take(piped(memory()), 30)
    source = piped(memory(), workers=1, threads=1).iterate()
    with prefetch.prefetch(source, lambda batch: batch) as batches:
        got = [next(batches)[0]]

        def kill_and_go_on():
            while len(got) < 30:
                kill(source)
                got.append(batches.get(timeout_s=60)[0])

        with pytest.raises(AsjaxError, match="data worker 1 of 1 died 4 times"):
            kill_and_go_on()
    same(plain[: len(got)], got)
    assert not children()


# -------------------------------------------------------------------------------------- stalls


@pytest.fixture(autouse=True)
def release():
    GATE.clear()
    yield
    GATE.set()
    deadline = time.monotonic() + 30
    while patience._stalled and time.monotonic() < deadline:
        time.sleep(0.01)


class Endless(io.BytesIO):
    """Audio whose read never ends, in any process."""

    def __init__(self):
        super().__init__(bytes(1000))

    def read(self, *_):
        GATE.wait(3600)

    readinto = read


class Stalling(Memory):
    """A source whose clip 3 never ends: at the read of the record, or in the decoder."""

    where = "decode"

    def __getitem__(self, i):
        if i != 3:
            return super().__getitem__(i)
        if self.where == "read":
            GATE.wait(3600)
        return {"id": self.ids[i], "audio": Endless(), "labels": np.flatnonzero(self.dense[i])}


KINDS = [(0, 0), (0, 4), (2, 1)]


def stalling(where, n=8):
    source = Stalling([150] * n)
    source.where = where
    return source


@pytest.mark.parametrize(("count", "threads"), KINDS)
@pytest.mark.parametrize("where", ["read", "decode"])
def test_a_clip_that_stalls_is_left_out_whatever_decodes(count, threads, where):
    fields = {"workers": count, "threads": threads, "decode_timeout_s": 0.3, "max_bad": 0.5}
    source = stalling(where)
    with piped(source, train=False, **fields) as pipe, pipe.iterate() as batches:
        (batch,) = batches
    assert [clip for clip, _ in batch["bad"]] == ["clip3"]
    assert "could not be read within 0.3 s" in batch["bad"][0][1]
    assert batch["mask"].tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    assert np.array_equal(batch["target"], source.dense)
    want = take(piped(Memory([150] * 8), train=False), 1)[0]
    kept = batch["mask"] > 0
    assert np.array_equal(batch["wave"][kept], want["wave"][kept])
    with piped(source, **fields).iterate() as batches:
        got = [next(batches) for _ in range(2)]
    assert {clip for b in got for clip, _ in b["bad"]} == {"clip3"}
    assert all(b["mask"].all() for b in got)


@pytest.mark.parametrize(("count", "threads"), KINDS)
@pytest.mark.parametrize("where", ["read", "decode"])
def test_the_end_is_quick_while_a_read_hangs(count, threads, where):
    """The limit of a read is ten minutes, but nobody waits for it at the end."""
    source = stalling(where)
    pipe = piped(source, workers=count, threads=threads, **LONG)
    with prefetch.prefetch(pipe.iterate(), lambda batch: batch) as batches:
        assert batches.get(timeout_s=0.5) is None
        begin = time.monotonic()
    assert time.monotonic() - begin < 8
    assert not children()
    assert "asjax-prefetch" not in [t.name for t in threading.enumerate()]
    with pytest.raises(StopIteration):
        batches.get(1)
    deadline = time.monotonic() + 20  # threads of a pool would delay the end of the program
    while busy() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not busy()


def busy():
    return [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize(("count", "threads"), KINDS)
def test_a_fifo_in_a_list_is_left_out(count, threads, tmp_path):
    class Paths(Memory):
        def __getitem__(self, i):
            item = super().__getitem__(i)
            return {**item, "audio": str(tmp_path / "pipe.wav")} if i == 3 else item

    os.mkfifo(tmp_path / "pipe.wav")
    fields = {"train": False, "workers": count, "threads": threads, "max_bad": 0.5}
    with piped(Paths([150] * 8), **fields) as pipe, pipe.iterate() as batches:
        (batch,) = batches
    assert [clip for clip, _ in batch["bad"]] == ["clip3"]
    assert "FIFO" in batch["bad"][0][1]


def test_a_disk_that_stops_at_open_is_left_out(tmp_path, monkeypatch):
    source = memory(8)
    (tmp_path / "far.wav").write_bytes(source[3]["audio"])

    class Paths(Memory):
        def __getitem__(self, i):
            item = super().__getitem__(i)
            return {**item, "audio": str(tmp_path / "far.wav")} if i == 3 else item

    gate, real = threading.Event(), os.open

    def stalls(path, *args, **kwargs):
        if str(path).endswith("far.wav"):
            gate.wait(120)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", stalls)
    try:
        pipe = piped(Paths(source.lengths), train=False, max_bad=0.5, decode_timeout_s=0.3)
        with pipe.iterate() as batches:
            (batch,) = batches
    finally:
        gate.set()
    assert [clip for clip, _ in batch["bad"]] == ["clip3"]
    assert "could not be read within 0.3 s" in batch["bad"][0][1]


# -------------------------------------------------------------------------------------- contents


class Strange(Memory):
    """Clips whose chain raises an error that cannot be pickled."""

    def __getitem__(self, i):
        class Local(Exception):
            pass

        raise Local("odd clip")


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_a_worker_arrives_even_if_it_cannot_be_pickled(count):
    batches = piped(Strange([150] * 8), workers=count).iterate()
    with pytest.raises(AsjaxError, match="data source .*: Local: odd clip"):
        next(batches)
    assert not children()


def test_a_worker_that_cannot_start_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(workers, "_serve", int)  # int(...) with such arguments is a TypeError
    begin = time.monotonic()
    batches = piped(memory(), workers=1).iterate()
    with pytest.raises(AsjaxError, match="could not start .with exit code 1.*__main__"):
        next(batches)
    assert time.monotonic() - begin < 60
    assert not children()


def test_memory_of_another_object_is_mapped_until_it_is_dropped():
    block = Block(1000)
    block.view[10:13] = b"abc"
    view = attach(block.path)
    assert bytes(view[10:13]) == b"abc"
    block.view[10:13] = b"xyz"
    assert bytes(view[10:13]) == b"xyz"
    with pytest.raises(TypeError):
        view[0] = 1
    path = block.path
    del block
    assert bytes(view[10:13]) == b"xyz"
    with pytest.raises(FileNotFoundError):
        attach(path)


def test_batches_belong_to_the_caller_and_grow_with_their_contents():
    """The memory of a worker is used again, but not that of a batch that was handed out."""
    rng = np.random.default_rng(0)
    source = Memory([150] * 30)
    source.ids = ["x" * int(n) for n in rng.integers(1, 20_000, 30)]
    want = take(piped(source), 12)
    with piped(source, workers=1, threads=1).iterate() as batches:
        got = list(itertools.islice(batches, 12))
    same(want, got)
    assert all(b["wave"].flags.writeable and b["wave"].ctypes.data % 64 == 0 for b in got)
