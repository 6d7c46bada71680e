"""Checkpoints under faults: kills, damage, full disks, renamed folders, several processes."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_models import small_model

from asjax import sharding
from asjax.config import AsjaxError
from asjax.store import choice, describe, files
from asjax.store.checkpoint import Checkpoints


def make_state(value=0.0):
    params = {"w": value + jnp.arange(128.0).reshape(8, 16), "half": jnp.ones(4, jnp.bfloat16)}
    return {
        "step": jnp.int32(value),
        "params": params,
        "opt": optax.adam(1e-3).init(params),
        "average": {},
        "rng": jax.random.key(int(value) + 1),
    }


SHAPES = jax.eval_shape(make_state)


def same(a, b):
    raw = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and np.array_equal(raw(x), raw(y)) for x, y in pairs)


def three(directory, **more):
    """A run with the saved steps 1, 2, 3."""
    kept = Checkpoints(directory, keep=3, **more)
    for step in (1, 2, 3):
        assert kept.save(step, make_state(float(step)), meta={"position": step * 10})
    assert kept.wait()
    return kept


def test_a_state_comes_back_bit_for_bit_with_typed_keys_and_meta(tmp_path):
    assert Checkpoints(tmp_path / "c").restore(SHAPES) is None
    three(tmp_path / "c")
    fresh = Checkpoints(tmp_path / "c")
    step, state, meta = fresh.restore(SHAPES)
    assert (step, meta, fresh.damaged) == (3, {"position": 30}, [])
    assert same(state, make_state(3.0))
    assert jnp.issubdtype(state["rng"].dtype, jax.dtypes.prng_key)
    assert type(state["opt"]) is type(make_state()["opt"])
    step, state, _ = fresh.restore(SHAPES, step=1)
    assert step == 1
    assert same(state, make_state(1.0))


def test_a_state_of_two_devices_comes_back_on_one_and_on_another_mesh(tmp_path):
    wide = sharding.make_mesh("data=1,fsdp=2")
    where = sharding.state_sharding(wide, SHAPES, min_size=1)
    state = jax.jit(lambda: make_state(5.0), out_shardings=where)()
    with Checkpoints(tmp_path) as kept:
        kept.save(5, state)
    for spec in ("data=1", "data=2", "data=1,fsdp=2"):
        mesh = sharding.make_mesh(spec)
        there = sharding.state_sharding(mesh, SHAPES, min_size=1)
        _, got, _ = Checkpoints(tmp_path).restore(sharding.with_sharding(SHAPES, there))
        assert same(got, make_state(5.0))
        assert got["params"]["w"].sharding == there["params"]["w"]


def test_orbax_own_manager_reads_the_same_folders(tmp_path):
    import orbax.checkpoint as ocp

    three(tmp_path)
    with ocp.CheckpointManager(tmp_path, item_names=("state",)) as manager:
        assert manager.latest_step() == 3
        args = ocp.args.Composite(state=ocp.args.StandardRestore(SHAPES))
        assert same(manager.restore(3, args=args)["state"], make_state(3.0))


# -------------------------------------------------------------------------- what is kept


def test_latest_best_centre_and_pending_centres_are_kept(tmp_path):
    """The best centre by a float64 moving average and the latest step are always on disk."""
    values = [0.1, 0.5, 0.9, 0.4, 0.8, 0.85, 0.8, 0.2, 0.1, 0.95, 0.1, 0.0]
    kept = Checkpoints(tmp_path, metric="d_prime", rule=choice.smooth(window=3), keep=2)
    for i, value in enumerate(values):
        assert kept.save(10 * (i + 1), make_state(i), metrics={"d_prime": value, "mean_ap": 0.1})
        means = [np.mean(np.float64(values[j - 1 : j + 2])) for j in range(1, i)]
        if means:
            best = 10 * (int(np.argmax(means)) + 2)
            assert kept.best_step() == best
            assert best in kept.steps()
        assert kept.latest_step() == 10 * (i + 1)
        assert len(kept.steps()) <= 2 + 1 + 1
    assert kept.steps() == [60, 110, 120]  # .8 .85 .8 has the highest mean, not the peak .95
    again = Checkpoints(tmp_path, metric="d_prime", rule=choice.smooth(window=3))
    assert again.best_step() == 60
    assert [s for s, _ in again.history] == [10 * (i + 1) for i in range(len(values))]


def test_the_published_rule_of_seven_points_never_loses_its_centre(tmp_path):
    from asjax.store.choice import moving_average_best

    values = np.random.default_rng(3).normal(size=14).tolist()
    kept = Checkpoints(tmp_path, metric="d_prime", rule=choice.smooth(), keep=1)
    for i, value in enumerate(values):
        kept.save(i, {"x": jnp.zeros(1)}, metrics={"d_prime": value})
        assert kept.best_step() == moving_average_best(values[: i + 1])


def test_saving_a_step_again_with_metrics_records_them_and_without_keeps_it(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save(4, make_state(4.0))
    assert kept.best_step() is None
    kept.save(4, make_state(4.0), metrics={"mean_ap": 1.5})
    kept.save(4, make_state(9.0))
    assert kept.history == [(4, 1.5)]
    assert same(Checkpoints(tmp_path).restore(SHAPES)[1], make_state(4.0))
    assert Checkpoints(tmp_path).best_step() == 4


def test_metrics_that_are_not_numbers_are_never_best(tmp_path):
    kept = Checkpoints(tmp_path, metric="d_prime", keep=5)
    for step, value in ((1, 0.5), (2, float("nan")), (3, 0.2)):
        kept.save(step, make_state(), metrics={"d_prime": value})
    assert kept.best_step() in (1, 3)


def test_a_damaged_best_is_replaced_by_the_nearest_sound_evaluated_step(tmp_path):
    kept = Checkpoints(tmp_path, metric="d_prime", keep=9)
    for step, value in ((10, 0.1), (20, 0.9), (24, 0.2), (60, 0.3)):
        kept.save(step, make_state(), metrics={"d_prime": value})
    (tmp_path / "20" / "run.json").unlink()
    assert kept.best_step() == 24
    assert kept.damaged == ["step 20: run.json: No such file or directory"]


# -------------------------------------------------------------------------------- faults


def all_files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def flip(path):
    raw = bytearray(path.read_bytes())
    if not raw:
        raw = bytearray(b"x")
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


FAULTS = {
    "flipped": flip,
    "truncated": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2] or b"?"),
    "zeroed": lambda p: p.write_bytes(b"\0" * max(1, p.stat().st_size)),
    "deleted": lambda p: p.unlink(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_any_file_is_named_and_the_step_before_is_used(fault, tmp_path):
    kept = three(tmp_path / "c")
    names = all_files(tmp_path / "c" / "3")
    assert len(names) > 8
    for name in names:
        path = tmp_path / "c" / "3" / name
        raw = path.read_bytes()
        FAULTS[fault](path)
        found = kept.problems(3)
        assert len(found) == 1
        assert found[0].startswith(name)
        path.write_bytes(raw)
        assert not kept.problems(3)
    FAULTS[fault](tmp_path / "c" / "3" / names[-1])
    kept = Checkpoints(tmp_path / "c")
    step, state, meta = kept.restore(SHAPES)
    assert (step, meta) == (2, {"position": 20})
    assert same(state, make_state(2.0))
    assert len(kept.damaged) == 1
    assert names[-1] in kept.damaged[0]
    assert kept.steps() == [1, 2]  # the damaged one was moved away, so that users can inspect it
    assert (tmp_path / "c" / "3.damaged").is_dir()
    assert kept.save(3, make_state(3.0))
    assert kept.wait()
    assert Checkpoints(tmp_path / "c").restore(SHAPES)[0] == 3


def test_orbax_alone_would_load_a_flipped_bit_silently(tmp_path):
    """The reason for hashes: without them the same bit flip restores wrong numbers."""
    import orbax.checkpoint as ocp

    state = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(256, 256)), jnp.float32)}
    with Checkpoints(tmp_path) as kept:
        kept.save(1, state)
    folder = tmp_path / "1" / "state"
    flip(max(folder.rglob("d/*"), key=lambda p: p.stat().st_size))
    orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())
    got = orbax.restore(folder, args=ocp.args.StandardRestore(jax.eval_shape(lambda: state)))
    assert not np.array_equal(got["w"], state["w"])
    with pytest.raises(AsjaxError, match="SHA-256"):
        Checkpoints(tmp_path).restore(jax.eval_shape(lambda: state))


def test_an_empty_newest_folder_is_passed_over_and_nothing_sound_is_an_error(tmp_path):
    three(tmp_path)
    (tmp_path / "4").mkdir()
    kept = Checkpoints(tmp_path)
    assert kept.latest_step() == 4
    assert kept.restore(SHAPES)[0] == 3
    assert kept.damaged == ["step 4: SHA256SUMS: No such file or directory"]
    for step in (1, 2, 3):
        flip(tmp_path / str(step) / "run.json")
    with pytest.raises(
        AsjaxError, match="no undamaged checkpoint.*step 1: run.json.*another --workdir"
    ):
        Checkpoints(tmp_path).restore(SHAPES)


def test_another_model_is_refused_by_key_and_not_taken_for_damage(tmp_path):
    three(tmp_path)
    other = jax.eval_shape(lambda: {**make_state(), "params": {"w": jnp.zeros((8, 17))}})
    kept = Checkpoints(tmp_path)
    with pytest.raises(AsjaxError, match=r"params/half is .* absent here; params/w is \(8, 16\)"):
        kept.restore(other)
    assert kept.steps() == [1, 2, 3]


def test_leftovers_of_a_killed_save_are_removed_and_an_interrupted_swap_is_undone(tmp_path):
    three(tmp_path)
    (tmp_path / "4.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (tmp_path / "1.deleted.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "3").rename(tmp_path / "3.old.orbax-checkpoint-tmp")
    kept = Checkpoints(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "3"]
    assert kept.restore(SHAPES)[0] == 3


WRITER = """
import sys
import jax.numpy as jnp
from asjax.store.checkpoint import Checkpoints
kept = Checkpoints(sys.argv[1])
start = kept.latest_step() or 0
print("ready", flush=True)
for step in range(start + 1, start + 1000):
    state = {"x": jnp.full((64, 512), float(step)), "step": jnp.int32(step)}
    assert kept.save(step, state, metrics={"mean_ap": 1.0})
    print("begun", flush=True)
    assert kept.wait()
    print(step, flush=True)
"""


def test_kill_9_at_any_time_loses_at_most_the_save_in_progress(tmp_path):
    """After kills, every step that was reported as saved exists and is sound.

    The child is killed at a random time after the start of a save: while the finisher writes,
    hashes, renames or deletes. Two kills by default, more with $ASJAX_TEST_KILLS.
    """
    shapes = jax.eval_shape(lambda: {"x": jnp.zeros((64, 512)), "step": jnp.int32(0)})
    rng = np.random.default_rng(0)
    for _ in range(int(os.environ.get("ASJAX_TEST_KILLS", "2"))):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        first = []
        while not (first and first[-1].isdecimal()):  # at least one step
            first.append(child.stdout.readline().strip())
        while first[-1] != "begun":
            first.append(child.stdout.readline().strip())
        time.sleep(rng.uniform(0, 0.25))
        child.send_signal(signal.SIGKILL)
        lines = [*first, *map(str.strip, child.stdout.readlines())]
        reported = [int(x) for x in lines if x.isdecimal()]
        child.wait()
        kept = Checkpoints(tmp_path)
        step, state, _ = kept.restore(shapes)
        assert step >= max(reported)
        assert kept.damaged == []
        assert int(state["step"]) == step
        assert float(state["x"].min()) == float(state["x"].max()) == step


@pytest.mark.parametrize("where", ["copy", "write", "sums"])
def test_a_full_disk_fails_the_save_only(where, tmp_path, monkeypatch, caplog):
    """The save raises errors before the copy; `wait` and the next save raise later ones."""
    kept = three(tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "asjax"):
        orbax = kept._orbax
        at, name = dict(
            copy=(orbax, "save"), write=(orbax.handler, "finalize"), sums=(files, "write_sums")
        )[where]
        patch.setattr(at, name, full)
        assert kept.save(4, make_state(4.0), metrics={"mean_ap": 0.5}) is (where != "copy")
        assert kept.wait() is False
    assert kept.last_error == "No space left on device"
    assert "step 4 NOT saved: No space left on device" in caplog.text
    assert len(caplog.records) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "3"]
    assert kept.history == []
    assert kept.save(5, make_state(5.0)) is True
    assert kept.wait() is True
    assert kept.last_error is None
    assert Checkpoints(tmp_path).restore(SHAPES)[0] == 5


class Held:
    """Lets the finisher write and hash, then blocks it until `go` is called."""

    def __init__(self, monkeypatch):
        original, go, reached = files.write_sums, threading.Event(), threading.Event()

        def write_sums(folder):
            original(folder)
            reached.set()
            assert go.wait(120)

        self.go, self.reached = go.set, lambda: reached.wait(120)
        monkeypatch.setattr(files, "write_sums", write_sums)


def test_training_goes_on_while_the_finisher_writes(tmp_path, monkeypatch):
    kept, held = Checkpoints(tmp_path), Held(monkeypatch)
    assert kept.save(1, make_state(1.0))  # returns although the finisher is blocked
    assert not (tmp_path / "1").exists()
    assert int(jax.jit(lambda x: x + 1)(jnp.int32(1))) == 2
    held.go()
    assert kept.steps() == [1]  # listing the steps waits for the current save
    assert not kept.problems(1)


def test_a_save_goes_on_while_the_program_does(tmp_path):
    """A save that is not asynchronous would block for nearly all of its time."""
    noise = np.random.default_rng(0).normal(size=(32, 2**18))  # float32: 32 MiB that compress badly
    state = {f"w{i}": jnp.asarray(row, jnp.float32) for i, row in enumerate(noise)}
    kept, shares = Checkpoints(tmp_path), []
    for step in range(4):  # the first warms up; the best of the others is least disturbed
        start = time.perf_counter()
        assert kept.save(step, state)
        blocked = time.perf_counter() - start
        assert kept.wait()
        shares.append(blocked / (time.perf_counter() - start))
    assert min(shares[1:]) < 0.5, shares


def test_a_state_may_be_donated_as_soon_as_it_is_saved(tmp_path):
    """On two devices, the next steps overwrite the state in place while it is being written."""
    mesh = sharding.make_mesh("data=2")
    there = {"w": sharding.batch_sharding(mesh), "b": sharding.replicated(mesh)}
    make = lambda: {"w": jnp.ones((2, 2**21)), "b": jnp.ones(2**21)}  # noqa: E731
    state = jax.jit(make, out_shardings=there)()
    twice = jax.jit(lambda s: jax.tree.map(lambda x: 2 * x, s), donate_argnums=0)
    kept = Checkpoints(tmp_path)
    assert kept.save(1, state)
    for _ in range(20):
        state = twice(state)
    jax.block_until_ready(state)
    assert float(state["w"].min()) == 2.0**20
    _, got, _ = kept.restore(sharding.with_sharding(jax.eval_shape(make), there))
    assert all(float(x.min()) == float(x.max()) == 1.0 for x in jax.tree.leaves(got))


def test_a_step_is_hashed_once_when_it_is_saved(tmp_path, monkeypatch):
    three(tmp_path)
    hashed, digest = [], files.digest
    monkeypatch.setattr(files, "digest", lambda path: hashed.append(path) or digest(path))
    with Checkpoints(tmp_path, keep=9) as kept:
        kept.restore(SHAPES)
        before = len(hashed)
        kept.save(3, make_state(3.0))  # already saved and sound, because it was just restored
        assert kept.wait()
        assert len(hashed) == before
        kept.save(4, make_state(4.0), metrics={"mean_ap": 1.0})
        kept.save(4, make_state(4.0))
        kept.save(5, make_state(5.0))
    files_of_4 = [path for path in hashed[before:] if "4.orbax" in str(path)]
    assert len(hashed) - before == len(set(hashed[before:])) > len(files_of_4) > 8


TWO = """
import sys
import jax, jax.numpy as jnp
jax.distributed.initialize(f"localhost:{sys.argv[2]}", 2, int(sys.argv[3]))
from asjax import sharding
from asjax.store import checkpoint, files
mesh = sharding.make_mesh("data=2")
make = lambda: {"w": jnp.arange(8.0)}
there = {"w": sharding.batch_sharding(mesh)}
write_sums = files.write_sums
def full(folder):
    if folder.name.startswith("2."):
        raise OSError(28, "No space left on device")
    write_sums(folder)
files.write_sums = full  # only process 0 comes here
results = []
with checkpoint.Checkpoints(sys.argv[1]) as kept:
    for step in (1, 2, 3):
        kept.save(step, jax.jit(make, out_shardings=there)(), metrics={"mean_ap": 1.0})
        results.append((kept.wait(), kept.last_error))
    state = kept.restore(sharding.with_sharding(jax.eval_shape(make), there))
    print(results, kept.steps(), kept.history, state[0])
"""


def test_two_processes_agree_about_a_save_that_one_of_them_could_not_finish(tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-c", TWO, str(tmp_path), str(port)]
    ranks = [
        subprocess.Popen([*command, str(p)], stdout=-1, stderr=-1, text=True, env=env)
        for p in (0, 1)
    ]
    output = [rank.communicate(timeout=600) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], output
    full = "No space left on device"
    for (out, err), reason in zip(output, (full, "another process failed"), strict=True):
        results = [(True, None), (False, reason), (True, None)]
        assert out.splitlines()[-1] == f"{results} [1, 3] [(1, 1.0), (3, 1.0)] 3"
        assert f"step 2 NOT saved: {reason}" in err
    shapes = jax.eval_shape(lambda: {"w": jnp.arange(8.0)})
    for spec in ("data=1", "data=2"):  # saved by two processes, restored by one
        there = {"w": sharding.batch_sharding(sharding.make_mesh(spec))}
        _, got, _ = Checkpoints(tmp_path).restore(sharding.with_sharding(shapes, there))
        np.testing.assert_array_equal(got["w"], np.arange(8.0))


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"needs the mount command: {error}")
    if done.returncode:
        pytest.skip(f"needs the right to mount a small tmpfs: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_really_full_disk_fails_the_save_only(small_disk, caplog):
    noise = np.random.default_rng(0)
    state = lambda: {"x": jnp.asarray(noise.normal(size=(290_000,)), jnp.float32)}  # noqa: E731
    shapes = jax.eval_shape(lambda: {"x": jnp.zeros(290_000)})
    kept = Checkpoints(small_disk / "c", keep=5)
    first = state()
    assert kept.save(1, first)
    assert kept.save(2, state())
    assert kept.wait()
    assert kept.save(3, state()) is False
    assert kept.last_error == "No space left on device"
    assert len(caplog.records) == 1  # one line, without orbax's tracebacks
    assert [p.name for p in sorted((small_disk / "c").iterdir())] == ["1", "2"]
    assert Checkpoints(small_disk / "c").restore(shapes)[0] == 2
    kept.keep = 1
    shutil.rmtree(small_disk / "c" / "2")
    assert kept.save(4, state())  # there is space again, and the same object continues
    assert kept.wait()
    with pytest.raises(AsjaxError, match="No space left"):
        small_model(small_disk / "m", {"params": {"x": np.zeros(3_000_000, np.float32)}})
    assert [p.name for p in small_disk.iterdir()] == ["c"]


def test_a_folder_that_cannot_be_written_fails_at_the_start_and_a_vanished_one_at_the_save(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    with pytest.raises(AsjaxError, match="cannot be written: Not a directory; choose a folder"):
        Checkpoints(tmp_path / "file" / "c")
    with monkeypatch.context() as patch:  # root may write anywhere, so the error is simulated

        def refuse(self, data):
            raise PermissionError(30, "Read-only file system")

        patch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(AsjaxError, match="Read-only file system"):
            Checkpoints(tmp_path / "c")
    kept = three(tmp_path / "c")
    shutil.rmtree(tmp_path / "c")
    assert kept.save(4, make_state()) is False
    assert "does not exist any more" in kept.last_error
    with monkeypatch.context() as patch:
        kept, held = three(tmp_path / "d"), Held(patch)
        assert kept.save(4, make_state()) is True
        assert held.reached()
        (tmp_path / "d").rename(tmp_path / "elsewhere")  # while it is being written
        held.go()
        assert kept.wait() is False
    assert "step 4 NOT saved: No such file or directory" in caplog.text
    kept = three(tmp_path / "e")
    with monkeypatch.context() as patch:
        save = kept._orbax.save

        def save_elsewhere(*args, **kwargs):
            (tmp_path / "e").rename(tmp_path / "far")
            save(*args, **kwargs)

        patch.setattr(kept._orbax, "save", save_elsewhere)
        assert kept.save(4, make_state()) is True
        assert kept.wait() is False  # although orbax wrote a state into a new folder
    assert not (tmp_path / "e" / "4").exists()


def test_a_missing_metric_and_meta_that_is_no_json_are_errors_of_the_caller(tmp_path):
    kept = Checkpoints(tmp_path)
    with pytest.raises(AsjaxError, match="mean_ap.*Known: d_prime"):
        kept.save(1, make_state(), metrics={"d_prime": 1.0})
    with pytest.raises(AsjaxError, match="JSON"):
        kept.save(1, make_state(), meta={"x": object()})
    assert kept.steps() == []


def test_the_history_keeps_all_metrics_so_that_another_one_can_choose(tmp_path):
    with Checkpoints(tmp_path, keep=9) as kept:
        for step, mean_ap, d_prime in ((1, 0.5, 1.0), (2, 0.4, float("inf")), (3, 0.3, 2.0)):
            kept.save(step, make_state(), metrics={"mean_ap": mean_ap, "d_prime": d_prime})
    assert Checkpoints(tmp_path).best_step() == 1
    assert Checkpoints(tmp_path, metric="d_prime").best_step() == 2
    assert Checkpoints(tmp_path, metric="d_prime").history[1] == (2, float("inf"))
    assert Checkpoints(tmp_path, rule=choice.last()).best_step() == 3
    assert Checkpoints(tmp_path, metric="loss").best_step() is None  # never measured


def test_a_history_of_asjax_0_3_is_read_as_d_prime():
    assert describe.from_json(1.5) == {"d_prime": 1.5}
    assert describe.from_json("inf") == {"d_prime": float("inf")}
    assert describe.from_json({"loss": "nan"})["loss"] != 0
