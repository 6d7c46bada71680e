"""Training steps on many simulated devices: what they exchange does not grow with their number."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CODE = """if True:
    import json, os, sys
    devices, used, rows = map(int, sys.argv[1:4])
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path.insert(0, "benchmarks")
    import hlo, jax
    from asjax import build, sharding
    from asjax.fit import program
    for config in sys.argv[4:]:
        cfg = build.load(config, {"batch_size": str(used * rows)})
        run, args = program.train_step(cfg, sharding.make_mesh(devices=jax.devices()[:used]))
        text = run.lower(*args).compile().as_text()
        kinds = hlo.collectives(text)
        assert not any("unknown_loops" in kind for kind in kinds.values()), kinds
        print(json.dumps([config, kinds, hlo.in_loops(text)]), flush=True)
"""


def compiled(devices, used, rows, *configs):
    command = [sys.executable, "-c", CODE, *map(str, (devices, used, rows)), *configs]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    return {
        config: (kinds, loops) for config, kinds, loops in map(json.loads, done.stdout.splitlines())
    }


@pytest.mark.slow
def test_no_collective_stands_in_a_loop_even_if_some_devices_are_idle():
    """Batch 12 on 6 of 8 devices. On CPU a collective in a loop can stop all devices for ever."""
    configs = [
        f"configs/{name}"
        for name in ("atdr.py:tiny,model=crnn", "atdr.py:tiny,model=resnet50", "hlp_cnn6.py:tiny")
    ]
    for config, (_, loops) in compiled(8, 6, 2, *configs).items():
        assert not loops, config


@pytest.mark.slow
def test_a_device_exchanges_as_many_bytes_with_16_devices_as_with_8():
    """At equal rows per device, in recipes that mix waves, features and statistics."""
    configs = [f"configs/{name}.py:tiny" for name in ("quickstart", "ast", "sed_teacher")]
    few, many = (compiled(n, n, 8, *configs) for n in (8, 16))
    total = lambda found: sum(kind["bytes"] for kind in found[0].values())  # noqa: E731
    for config in configs:
        assert total(few[config]) > 0
        assert total(many[config]) <= 1.01 * total(few[config]), config
