"""Training steps on many simulated devices: what they exchange does not grow with their number."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
CODE = """if True:
    import json, os, sys
    config, rows, used = sys.argv[1], int(sys.argv[2]), list(map(int, sys.argv[3:]))
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=16 --xla_backend_optimization_level=0"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path.insert(0, "benchmarks")
    import hlo, jax
    from asjax import build, sharding
    from asjax.fit import program
    for n in used:
        cfg = build.load(config, {"batch_size": str(n * rows)})
        mesh = sharding.make_mesh(devices=jax.devices()[:n])
        run, args = program.train_step(cfg, mesh)
        with program.forms(mesh):
            text = run.lower(*args).compile().as_text()
        kinds = hlo.collectives(text)
        assert not any("unknown_loops" in kind for kind in kinds.values()), kinds
        print(json.dumps([kinds, hlo.in_loops(text)]), flush=True)
"""


def compiled(config, rows, *used):
    """(collectives by kind, those in loops) of the step on the first of 16 devices, per count."""
    command = [sys.executable, "-c", CODE, f"configs/{config}", *map(str, (rows, *used))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(map(json.loads, done.stdout.splitlines()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", ["atdr.py:tiny,model=crnn", "atdr.py:tiny,model=resnet50", "hlp_cnn6.py:tiny"]
)
def test_no_collective_stands_in_a_loop_even_if_some_devices_are_idle(config):
    """Batch 12 on 6 of 16 devices. On CPU a collective in a loop can stop all devices for ever."""
    ((kinds, loops),) = compiled(config, 2, 6)
    assert kinds
    assert not loops


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_device_exchanges_as_many_bytes_with_16_devices_as_with_8(recipe):
    """Eight rows on each device. No collective stands in a loop, and no kind of them grows."""
    few, many = compiled(f"{recipe}:tiny", 8, 8, 16)
    for kinds, loops in (few, many):
        assert kinds["all-reduce"]["bytes"] > 0  # the gradients
        assert not loops
    print(recipe, *(f"{kind} {c['count']}, {c['bytes']} B" for kind, c in many[0].items()))
    for kind, c in many[0].items():
        assert c["bytes"] <= 1.01 * few[0].get(kind, {"bytes": 0})["bytes"], kind
