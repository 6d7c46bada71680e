"""Mesh and placement on two CPU devices, and on two processes."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from asjax import sharding
from asjax.config import AsjaxError


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh()


def batch(rows=4, start=0):
    wave = np.arange(start, start + rows * 3, dtype=np.float32).reshape(rows, 3)
    return {"wave": wave, "mask": np.ones(rows, np.float32), "id": list("abcd")[:rows], "bad": []}


def test_the_default_mesh_has_all_devices_on_data_with_auto_axes(mesh):
    assert dict(mesh.shape) == {"data": 2}
    assert mesh.axis_types == (AxisType.Auto,)


def test_mesh_specs_as_text_and_dict_agree():
    for spec in ("data=1,fsdp=2", {"data": 1, "fsdp": 2}, "data=1, fsdp=-1"):
        assert dict(sharding.make_mesh(spec).shape) == {"data": 1, "fsdp": 2}
    assert sharding.make_mesh("data=1").size == 1


def test_the_default_mesh_shrinks_to_devices_that_divide_the_batches():
    assert sharding.make_mesh(batch_sizes=(3, 6)).size == 1
    assert sharding.make_mesh(batch_sizes=(4, 6)).size == 2


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("data=3", "needs 3 devices, there are 2"),
        ("dta=2", "did you mean 'data'"),
        ("data=0", "size >= 1"),
        ("data=x", "size >= 1"),
        ("data=-1,fsdp=-1", "only one"),
    ],
)
def test_wrong_meshes_are_one_clear_error(spec, words):
    with pytest.raises(AsjaxError, match=words):
        sharding.make_mesh(spec)


def test_placed_rows_are_split_over_devices_and_gather_back_unchanged(mesh):
    raw = np.zeros(4 * 3 * 4 + 64, np.uint8)  # aligned to 64 bytes, so jax needs no copy
    aligned = raw[-raw.ctypes.data % 64 :][:48].view(np.float32).reshape(4, 3)
    aligned[:] = batch()["wave"]
    given = {**batch(), "wave": aligned}
    placed = sharding.place(mesh, given)
    assert placed.keys() == {"wave", "mask"}
    assert [s.data.shape for s in placed["wave"].addressable_shards] == [(2, 3), (2, 3)]
    wanted = given["wave"].copy()
    jax.block_until_ready(placed)
    given["wave"][:] = -1  # a reused buffer of the pipeline must not change the batch
    assert np.array_equal(sharding.gather(placed["wave"]), wanted)
    gathered = sharding.gather({"a": placed["mask"], "b": [np.float32(3)]})
    assert isinstance(gathered["a"], np.ndarray)
    assert gathered["b"] == [3]


def test_owned_arrays_are_taken_over_and_integers_must_fit_the_device(mesh):
    raw = np.zeros(2 * 16 * 4 + 64, np.uint8)
    aligned = raw[-raw.ctypes.data % 64 :][:128].view(np.float32).reshape(2, 16)
    for owned in (True, False):
        (shard, _) = sharding.place(mesh, {"x": aligned}, owned=owned)["x"].addressable_shards
        taken = shard.data.unsafe_buffer_pointer() == aligned.ctypes.data
        assert taken is owned  # no copy on CPU, or a copy of its own
    small = {"n": np.array([2**31 - 1, -(2**31)])}
    assert sharding.gather(sharding.place(mesh, small))["n"].tolist() == small["n"].tolist()
    with pytest.raises(
        AsjaxError, match="n must fit into 32 bits on the device, got 0 to 2147483648"
    ):
        sharding.place(mesh, {"n": np.array([0, 2**31])})


def test_local_rows_are_those_of_this_process_and_come_back_as_they_went(mesh):
    assert sharding.local_rows(mesh, 6).tolist() == list(range(6))
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert np.array_equal(sharding.local(sharding.place(mesh, {"x": rows}))["x"], rows)
    with pytest.raises(AsjaxError, match="eval.batch_size 3 must be a multiple of the 2 devices"):
        sharding.local_rows(mesh, 3, "eval.batch_size")
    assert sharding.make_mesh("data=1", local=True).size == 1


def test_rows_that_devices_do_not_divide_are_refused_by_name(mesh):
    with pytest.raises(AsjaxError, match="batch size 3 must be a multiple of the 2 devices"):
        sharding.place(mesh, batch(3))
    with pytest.raises(AsjaxError, match="same number of rows"):
        sharding.place(mesh, {"a": np.zeros((2, 1)), "b": np.zeros(4)})


def test_state_is_sharded_by_size_on_fsdp_only():
    shapes = {
        "big": jax.ShapeDtypeStruct((3, 512, 1024), jnp.float32),
        "odd": jax.ShapeDtypeStruct((1023, 1025), jnp.float32),
        "small": jax.ShapeDtypeStruct((64, 64), jnp.float32),
        "key": jax.eval_shape(lambda: jax.random.key(0)),
    }
    plain = sharding.state_sharding(sharding.make_mesh(), shapes)
    assert all(s.spec == PartitionSpec() for s in jax.tree.leaves(plain))
    split = sharding.state_sharding(sharding.make_mesh("data=1,fsdp=2"), shapes)
    assert split["big"].spec == PartitionSpec(None, None, "fsdp")
    for name in ("odd", "small", "key"):
        assert split[name].spec == PartitionSpec()
    known = sharding.with_sharding(shapes, split)
    assert known["big"].sharding == split["big"]
    assert known["key"].dtype == shapes["key"].dtype


def test_one_step_on_fsdp_equals_one_step_on_one_device():
    params = {"w": np.random.default_rng(0).normal(size=(256, 1024)).astype(np.float32)}
    x = np.random.default_rng(1).normal(size=(4, 256)).astype(np.float32)

    def step(params, x):
        grad = jax.grad(lambda p: jnp.mean(jnp.tanh(x @ p["w"]) ** 2))(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grad)

    results = []
    for spec in ("data=1", "data=2", "fsdp=2"):
        mesh = sharding.make_mesh(spec)
        where = sharding.state_sharding(mesh, jax.eval_shape(lambda: params), min_size=1000)
        placed = sharding.place(mesh, {"x": x})["x"]
        shardings = (where, sharding.batch_sharding(mesh))
        run = jax.jit(step, in_shardings=shardings, out_shardings=where)
        results.append(sharding.gather(run(jax.device_put(params, where), placed))["w"])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(results[2], results[0], rtol=1e-6, atol=1e-7)


class Device(SimpleNamespace):
    platform = "gpu"


def faked(processes, each, spec, hosts):
    """A mesh over faked devices: `each` devices of each process."""
    devices = [Device(id=i, process_index=i // each) for i in range(processes * each)]
    sizes = sharding._mesh_sizes(spec, len(devices))
    mesh = SimpleNamespace(
        devices=np.array(devices).reshape(tuple(sizes.values())),
        shape=sizes, axis_names=tuple(sizes), size=len(devices),
    )  # fmt: skip
    sharding._check_inside(mesh, hosts)
    return mesh


def test_fsdp_stays_inside_a_host_though_the_host_has_several_processes():
    hosts = ["a"] * 4 + ["b"] * 4  # a process for each pair of devices
    mesh = faked(8, 2, "data=2,fsdp=8", hosts)
    wanted = "mesh data=2 across hosts, fsdp=8 inside hosts; devices by host: a 8, b 8"
    assert sharding.described(mesh, hosts) == wanted
    assert faked(8, 2, "data=1,fsdp=16", hosts).size == 16  # one group of all devices
    assert faked(2, 4, "data=1,fsdp=-1", ["a", "b"]).size == 8
    with pytest.raises(AsjaxError, match="divisor of the 2 devices of a host, or the number.*, 8"):
        faked(4, 2, "data=2,fsdp=4", list("abcd"))
    with pytest.raises(AsjaxError, match="make fsdp a divisor of the 3 devices of a host"):
        faked(4, 3, "data=2,fsdp=6", list("abcd"))
    tpus = [Device(id=i, process_index=i // 4, slice_index=0) for i in range(16)]
    for device in tpus:
        device.platform = "tpu"  # the hosts of a slice are joined by its own network
    assert len({sharding._place_of(d, list("abcd")) for d in tpus}) == 1


def test_fsdp_is_the_inner_axis_in_any_order_of_the_text():
    assert sharding.make_mesh("fsdp=2,data=1").axis_names == ("data", "fsdp")


RANK = """
import sys
import numpy as np
from asjax import devices, sharding
from asjax.data import prefetch
devices.setup(cpu_devices=1, coordinator="localhost:" + sys.argv[1], num_processes=2,
               process_id=int(sys.argv[2]))
import jax
mesh = sharding.make_mesh()
rank = jax.process_index()
local = {"x": np.arange(4, dtype=np.float32).reshape(2, 2) + 10 * rank, "id": ["a", "b"]}
with prefetch.prefetch([local], lambda b: sharding.place(mesh, b)) as batches:
    placed, host = next(batches)
total = jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(mesh))(placed["x"])
assert sharding.gather(placed["x"]).tolist() == [[0, 1], [2, 3], [10, 11], [12, 13]]
assert float(total) == 52 and host == {"id": ["a", "b"]}
try:
    sharding.make_mesh("data=1")
except ValueError as error:
    assert "needs 1 devices, there are 2" in str(error)
print("rank", rank, "fine")
"""


def test_two_processes_place_their_halves_and_gather_the_whole():
    import socket

    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "ASJAX_CACHE": "off"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(port), str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
        )
        for i in range(2)
    ]
    try:
        out = [r.communicate(timeout=600)[0] for r in ranks]
    finally:
        for r in ranks:
            r.kill()
    for i in range(2):
        assert f"rank {i} fine" in out[i], out[i]
