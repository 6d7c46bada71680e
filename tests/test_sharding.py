"""Mesh, placement and prefetching on two CPU devices, and on two processes."""

import gc
import os
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from asjax import devices, sharding
from asjax.config import AsjaxError
from asjax.data import prefetch


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
    raw = np.zeros(4 * 3 * 4 + 64, np.uint8)  # aligned to 64 bytes, which jax would take over
    aligned = raw[-raw.ctypes.data % 64 :][:48].view(np.float32).reshape(4, 3)
    aligned[:] = batch()["wave"]
    given = {**batch(), "wave": aligned}
    placed = sharding.place(mesh, given)
    assert placed.keys() == {"wave", "mask"}
    assert [s.data.shape for s in placed["wave"].addressable_shards] == [(2, 3), (2, 3)]
    wanted = given["wave"].copy()
    jax.block_until_ready(placed)
    given["wave"][:] = -1  # a buffer that the pipeline uses again must not change the batch
    assert np.array_equal(sharding.gather(placed["wave"]), wanted)
    gathered = sharding.gather({"a": placed["mask"], "b": [np.float32(3)]})
    assert isinstance(gathered["a"], np.ndarray)
    assert gathered["b"] == [3]


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


# --------------------------------------------------------------------------------- prefetch


def live():
    return [t for t in threading.enumerate() if t.name == "asjax-prefetch"]


class Source:
    """Endless or finite batches that remember how far they were asked and whether closed."""

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
    batches.close()  # again is fine


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


# --------------------------------------------------------------------------------- start-up


def python(code, **env):
    full = {**os.environ, "JAX_PLATFORMS": "cpu", **{k: str(v) for k, v in env.items()}}
    full.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=full
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_setup_makes_one_device_per_core_and_a_compile_cache(tmp_path):
    code = """
from asjax import devices, sharding
devices.setup()
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.tanh(x) @ x)(jnp.ones((64, 64))).block_until_ready()
print(len(jax.devices()), min(devices.usable_cores(), 8), jax.config.jax_compilation_cache_dir)
"""
    made, cores, folder = python(code, ASJAX_CACHE=tmp_path / "cache")
    assert made == cores
    assert folder.startswith(str(tmp_path))
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_the_second_run_finds_the_programs_of_the_first(tmp_path):
    code = """
from asjax import devices, sharding
devices.setup(cpu_devices=2)
import jax, jax.numpy as jnp
from asjax import frontends
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
frontend = frontends.build("panns_logmel", sample_rate=16000, n_mels=64, n_fft=512, hop=320)
mesh = sharding.make_mesh()
wave = jax.device_put(jnp.ones((2, 3200)), sharding.batch_sharding(mesh))
print(float(jax.jit(lambda w: frontend(w).sum())(wave)))
"""
    first = python(code, ASJAX_CACHE=tmp_path)
    programs = sorted(p.name for p in tmp_path.rglob("*-cache"))
    assert any("lambda" in name for name in programs)
    assert python(code, ASJAX_CACHE=tmp_path) == first
    assert sorted(p.name for p in tmp_path.rglob("*-cache")) == programs


def test_setup_goes_on_without_a_writable_cache_and_takes_the_number_given(tmp_path):
    (tmp_path / "file").touch()
    code = """
from asjax import devices, sharding
devices.setup(cpu_devices=3)
import jax
print(len(jax.devices()), jax.config.jax_compilation_cache_dir)
"""
    assert python(code, ASJAX_CACHE=tmp_path / "file" / "x") == ["3", "None"]


def test_setup_after_jax_is_in_use_is_harmless_unless_a_number_was_asked_for():
    jax.devices()
    before = jax.config.jax_compilation_cache_dir
    try:
        os.environ["ASJAX_CACHE"] = "off"
        devices.setup()
        devices.setup(cpu_devices=2)
        with pytest.raises(AsjaxError, match="before jax is used"):
            devices.setup(cpu_devices=5)
    finally:
        del os.environ["ASJAX_CACHE"]
    assert jax.config.jax_compilation_cache_dir == before


def test_incomplete_process_settings_are_refused():
    with pytest.raises(AsjaxError, match="need coordinator"):
        devices.setup(num_processes=2)
    with pytest.raises(AsjaxError, match="process_id must be in 0..1"):
        devices.setup(coordinator="localhost:1", num_processes=2, process_id=2)


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
        out = [r.communicate(timeout=60)[0] for r in ranks]
    finally:
        for r in ranks:
            r.kill()
    for i in range(2):
        assert f"rank {i} fine" in out[i], out[i]
