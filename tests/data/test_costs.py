"""Which part of the input is the ceiling, with a source and ops that take known times."""

import time

import numpy as np
import pytest

from asjax.data import batch, costs, prefetch, workers
from asjax.store.log import StepClock, _waits


class Source:
    name, ids = "slow", [f"c{i}" for i in range(8)]

    def __init__(self, read_s):
        self.read_s = read_s

    def __len__(self):
        return 8

    def __getitem__(self, i):
        time.sleep(self.read_s)
        return {"id": self.ids[i], "wave": np.zeros(4, np.float32)}


class Draw:
    seed, draws_per_epoch = 0, 8

    def __call__(self, n):
        return n % 8


class Slow:
    """A host op that takes `seconds`."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, example, rng):
        time.sleep(self.seconds)
        return example


def steps(read_s, op_s):
    made = batch.Examples(
        Source(read_s), Draw(), ops=[("slow", Slow(op_s))], train=True, cache=batch.Cache(0)
    )
    return batch.Steps(made, 2, [0, 1], 0)


def shares(read_s, op_s, copy_s, processes=0):
    """Shares of the time of each part while batches are taken as fast as they come."""

    def place(found):
        time.sleep(copy_s)
        return {"wave": found["wave"]}

    whole = steps(read_s, op_s)
    if processes:
        source = workers.Crew(whole, 0, workers=processes, threads=1, silent_s=60)
    else:
        source = workers.batches_of(whole[0:], 1)
    with prefetch.prefetch(source, place) as batches:
        for _ in range(3):  # start-up
            next(batches)
        clock = StepClock()
        clock.tick(0, batches.waited_s, costs.busy(max(1, processes)))
        for _ in range(24):
            next(batches)
            clock.tick(1, batches.waited_s, costs.busy(max(1, processes)))
        time.sleep(0.25 if processes else 0)  # workers publish their totals every 0.2 s
        clock.tick(0, batches.waited_s, costs.busy(max(1, processes)))
        return clock.rates()


@pytest.mark.parametrize(
    ("times", "ceiling"),
    [((0.02, 0.002, 0.0), "read"), ((0.002, 0.02, 0.0), "decode"), ((0.0, 0.0, 0.04), "copy")],
)
def test_the_busiest_part_is_named(times, ceiling):
    rates = shares(*times)
    assert rates["data_wait"] > 0.5
    assert f"({ceiling} " in _waits(rates)
    assert rates[f"data_{ceiling}"] == max(rates[f"data_{kind}"] for kind in costs.KINDS)


def test_worker_processes_publish_their_times():
    rates = shares(0.002, 0.03, 0.0, processes=2)
    assert "(decode " in _waits(rates)
    assert rates["data_decode"] > 0.4


def test_a_worker_that_ends_keeps_its_seconds():
    before = costs.busy(1)
    shared = [1.0, 2.0, 0.5]
    costs.join(shared)
    costs.leave(shared)
    costs.leave(shared)  # a second call counts nothing
    after = costs.busy(1)
    assert [after[k] - before[k] for k in costs.KINDS] == pytest.approx([1.0, 2.0, 0.5])


def test_no_part_is_named_while_the_training_does_not_wait():
    assert _waits({"data_wait": 0.05, "data_read": 0.9, "data_copy": 0.1}) == "data 5%"
    assert _waits({"data_wait": 0.5}) == "data 50%"
