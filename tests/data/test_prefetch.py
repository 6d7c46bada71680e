"""Batches placed ahead in a thread: order, early ends, errors, waiting."""

import gc
import threading
import time

import numpy as np
import pytest

from asjax import sharding
from asjax.config import AsjaxError
from asjax.data import prefetch


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh()


def batch(rows=4, start=0):
    wave = np.arange(start, start + rows * 3, dtype=np.float32).reshape(rows, 3)
    return {"wave": wave, "mask": np.ones(rows, np.float32), "id": list("abcd")[:rows], "bad": []}


def live():
    return [t for t in threading.enumerate() if t.name == "asjax-prefetch"]


class Source:
    """Endless or finite batches that record the number of requests and whether they were closed."""

    def __init__(self, n=None, fail_at=None):
        self.n, self.fail_at, self.asked, self.closed = n, fail_at, 0, False

    def __iter__(self):
        try:
            while self.n is None or self.asked < self.n:
                if self.asked == self.fail_at:
                    raise OSError("clip 7 has gone")
                self.asked += 1
                yield batch(start=self.asked)
        finally:
            self.closed = True


def test_prefetched_batches_are_the_same_in_the_same_order(mesh):
    source = Source(5)
    with prefetch.prefetch(source, lambda b: sharding.place(mesh, b)) as batches:
        got = list(batches)
        assert next(batches, "ended") == "ended"
    assert [float(b["wave"][0, 0]) for b, _ in got] == [1, 2, 3, 4, 5]
    assert got[0][1] == {"id": list("abcd"), "bad": []}
    assert source.closed
    assert not live()


def test_an_early_exit_leaves_no_thread_and_at_most_depth_batches_ahead(mesh):
    source = Source()
    with prefetch.prefetch(source, lambda b: sharding.place(mesh, b), depth=2) as batches:
        next(batches)
        time.sleep(0.3)
        assert source.asked <= 1 + 2 + 1
    assert not live()
    assert source.closed
    batches.close()  # closing twice is allowed


def test_an_abandoned_prefetch_stops_by_itself(mesh):
    batches = prefetch.prefetch(Source(), lambda b: sharding.place(mesh, b))
    next(batches)
    del batches
    gc.collect()
    deadline = time.time() + 5
    while live() and time.time() < deadline:
        time.sleep(0.02)
    assert not live()


def test_errors_of_the_source_and_of_placing_reach_the_consumer(mesh):
    batches = prefetch.prefetch(Source(fail_at=2), lambda b: sharding.place(mesh, b))
    next(batches), next(batches)
    with pytest.raises(OSError, match="clip 7 has gone"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)
    with pytest.raises(AsjaxError, match="batch size 3"):
        next(prefetch.prefetch([batch(3)], lambda b: sharding.place(mesh, b)))
    assert not live()


def test_waiting_for_data_is_measured(mesh):
    def slow():
        for i in range(4):
            time.sleep(0.1)
            yield batch(start=i)

    with prefetch.prefetch(slow(), lambda b: sharding.place(mesh, b)) as batches:
        assert len(list(batches)) == 4
        assert 0.3 < batches.waited_s < 2
    with prefetch.prefetch(Source(4), lambda b: sharding.place(mesh, b), depth=8) as batches:
        time.sleep(0.3)
        assert len(list(batches)) == 4
        assert batches.waited_s < 0.1


def test_get_returns_none_in_time_and_loses_no_batch(mesh):
    gate = threading.Event()

    def stalled():
        yield batch(start=1)
        gate.wait(60)
        yield batch(start=2)

    with prefetch.prefetch(stalled(), lambda b: sharding.place(mesh, b)) as batches:
        assert float(batches.get(60)[0]["wave"][0, 0]) == 1
        begin = time.monotonic()
        assert batches.get(timeout_s=0.2) is None
        assert batches.get(timeout_s=0) is None
        assert 0.2 <= time.monotonic() - begin < 30
        assert batches.waited_s >= 0.2
        gate.set()
        assert float(batches.get(60)[0]["wave"][0, 0]) == 2
        with pytest.raises(StopIteration):
            batches.get(60)


def test_get_raises_what_the_source_raises(mesh):
    with prefetch.prefetch(Source(fail_at=0), lambda b: sharding.place(mesh, b)) as batches:
        with pytest.raises(OSError, match="clip 7 has gone"):
            batches.get(60)
        with pytest.raises(StopIteration):
            batches.get(0.1)
