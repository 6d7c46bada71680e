"""Start-up of jax: devices, processes, compilation cache."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from asjax import devices
from asjax.config import AsjaxError


def python(code, **env):
    full = {**os.environ, "JAX_PLATFORMS": "cpu", **{k: str(v) for k, v in env.items()}}
    full.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=full
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


def test_several_processes_have_as_many_threads_as_one_with_all_devices(monkeypatch):
    """XLA splits sums by the number of threads, so other threads give other roundings."""
    monkeypatch.delenv("NPROC")
    code = """
import os
from asjax import devices
try:
    devices.setup({})
except devices.AsjaxError as error:
    assert "process_id must be in" in str(error), error
print(os.environ["NPROC"])
"""
    several = "cpu_devices=1, coordinator='localhost:5', num_processes=64, process_id=64"
    assert python(code.format(several)) == python(code.format("cpu_devices=64")) == ["190"]


def test_the_second_run_finds_its_programs_though_a_partitioning_rule_is_in_them(tmp_path):
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


@pytest.mark.parametrize(
    ("cache", "xdg", "folder"),
    [
        ("/c", "/x", "/c"),
        ("", "/x", "/x/asjax"),
        (None, "/x", "/x/asjax"),
        ("off", "/x", "/x/asjax"),
        ("off", "", "~/.cache/asjax"),
        (None, None, "~/.cache/asjax"),
    ],
)
def test_the_cache_folder_is_the_asked_one_and_off_is_no_folder(
    cache, xdg, folder, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("ASJAX_CACHE", cache), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert devices.cache_folder() == Path(folder.replace("~", str(tmp_path)))


def test_usable_cores_are_those_of_the_affinity_and_of_the_quota(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    for text, cores in (("250000 100000", 3), ("max 100000", 12), ("5000 100000", 1)):
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert devices.usable_cores() == cores
