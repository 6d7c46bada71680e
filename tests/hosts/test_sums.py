"""Why four processes differ from one: the same numbers, added in another order (slow)."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

GUARD_S = 600
SIZES = (1, 7, 1000, 65_536)
ADD = """
import sys
import numpy as np
from asjax import devices
rank, count, port, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if rank < 0:
    devices.setup(cpu_devices=count)
else:
    devices.setup(cpu_devices=1, coordinator="localhost:" + port, num_processes=count,
                  process_id=rank)
import jax
from jax.sharding import NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((count,), ("data",))
add = jax.shard_map(lambda x: jax.lax.psum(x, "data"), mesh=mesh, in_specs=P("data"), out_specs=P())
sums = {}
for size in map(int, sys.argv[5:]):
    x = np.random.default_rng(size).normal(size=(count, size)).astype(np.float32)
    placed = jax.make_array_from_callback(x.shape, NamedSharding(mesh, P("data")), lambda i: x[i])
    sums[str(size)] = np.asarray(jax.jit(add)(placed).addressable_shards[0].data)[0]
if rank <= 0:
    np.savez(out, **sums)
"""


def sums(tmp_path, count, processes):
    """size -> the sum over `count` devices, of one process or of as many as devices."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    out = tmp_path / f"{count}-{processes}.npz"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    ranks = [-1] if processes == 1 else range(count)
    rest = [str(count), port, str(out), *map(str, SIZES)]
    started = [
        subprocess.Popen([sys.executable, "-c", ADD, str(rank), *rest], env=env) for rank in ranks
    ]
    try:
        assert [child.wait(GUARD_S) for child in started] == [0] * len(started)
    finally:
        for child in started:
            child.kill()
    return np.load(out)


@pytest.mark.slow
def test_processes_add_around_a_ring_and_one_process_adds_in_order(tmp_path):
    """Each element is one of the sums that numpy makes in such an order, bit for bit."""
    two, alone_two = sums(tmp_path, 2, 2), sums(tmp_path, 2, 1)
    four, alone = sums(tmp_path, 4, 4), sums(tmp_path, 4, 1)
    for size in SIZES:
        key = str(size)
        np.testing.assert_array_equal(two[key], alone_two[key])
        x = np.random.default_rng(size).normal(size=(4, size)).astype(np.float32)
        np.testing.assert_array_equal(alone[key], ((x[0] + x[1]) + x[2]) + x[3])
        rings = [((x[i] + x[i - 1]) + x[i - 2]) + x[i - 3] for i in range(4)]
        assert np.any([four[key] == ring for ring in rings], axis=0).all()
        # the bound of the rounding of three additions
        bound = 2 * 3 * np.finfo(np.float32).eps * np.abs(x).sum(axis=0)
        assert (np.abs(four[key] - x.astype(np.float64).sum(axis=0)) <= bound).all()
    assert (four[str(SIZES[-1])] != alone[str(SIZES[-1])]).any()
