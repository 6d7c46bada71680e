"""`asjax fit`: bytes of a compiled step against sizes that are counted by hand."""

import importlib.util
import subprocess
import sys

import jax
import numpy as np
import pytest

from asjax import __main__, build, sharding
from asjax.fit import program, topology, verb

TINY = "configs/quickstart.py:tiny"


@pytest.fixture(scope="module")
def cfg():
    return build.load(TINY)


@pytest.fixture(scope="module")
def two(cfg):
    mesh = sharding.make_mesh(devices=jax.devices()[:2])
    return program.measure(cfg, mesh)


def sizes(cfg):
    model = build.make("model", cfg.model, num_classes=527)
    frontend = build.make("frontend", cfg.frontend)
    wave = jax.ShapeDtypeStruct((1, round(cfg.data.clip_s * cfg.data.sample_rate)), np.float32)
    feats = jax.eval_shape(frontend, wave)
    made = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), feats)
    count = lambda tree: 4 * sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    return count(made["params"]), count({k: v for k, v in made.items() if k != "params"})


def test_bytes_of_the_arguments_are_those_of_the_shapes(cfg, two):
    params, stats = sizes(cfg)
    assert two.parts["parameters"] == params
    assert two.parts["statistics"] == stats
    assert 2 * params <= two.parts["optimiser"] < 2 * params + 1000  # Adam's two, and counters
    assert params + stats <= two.parts["weight average"] < params + stats + 100
    rows = cfg.batch_size // 2
    samples = round(cfg.data.clip_s * cfg.data.sample_rate)
    assert two.parts["batch"] == 4 * rows * (samples + 527 + 1)
    assert two.temporaries > 4 * rows * samples  # the features alone need more
    assert two.total == sum(two.parts.values()) + two.temporaries + two.outputs
    assert two.fits(two.total)
    assert not two.fits(two.total - 1)


def test_a_program_that_the_compiler_refuses_does_not_fit():
    refused = program.Memory({"parameters": 2**20}, None, refused=20 * 2**30)
    assert not refused.fits(None)
    shown = verb._table(refused, 16 * 2**30)
    assert "refused by the compiler" in shown
    assert "DOES NOT FIT (125% of the memory)" in shown
    assert verb._gib(refused) == ">20.00 GiB"


def test_fsdp_halves_what_it_splits(cfg, two):
    big = build.load(TINY, {"mesh": "data=1,fsdp=2"})
    mesh = sharding.make_mesh(big.mesh, devices=jax.devices()[:2])
    shapes = program.train_step(big, mesh)[1][0].params
    split = [x for x in jax.tree.leaves(shapes) if x.size >= 2**18]
    lost = sum(4 * x.size for x in split) // 2
    assert program._bytes(shapes) == two.parts["parameters"] - lost


def test_the_verb_prints_the_parts_and_whether_it_fits(capsys):
    assert __main__.main(["fit", f"--config={TINY}", "--quick", "--memory", "0.001"]) == 1
    shown = capsys.readouterr().out
    for word in ("parameters", "optimiser", "batch", "activations and workspace", "DOES NOT FIT"):
        assert word in shown


@pytest.mark.slow
def test_the_verb_finds_the_largest_batch_and_a_remedy(capsys, two):
    """Six compilations. The remedy fits where the asked batch does not."""
    gib = 0.7 * two.total / 2**30
    assert __main__.main(["fit", f"--config={TINY}", "--memory", f"{gib:.4f}"]) == 1
    shown = capsys.readouterr().out
    assert "largest batch that fits" in shown
    assert "cheapest way to fit batch 8: --config." in shown or "nothing here makes" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "-1"], "--memory must be GiB above 0"),
        (["--topology", "cpu:x"], "topology must be cpu:N"),
        (["--topology", "h100"], "there is no topology 'h100'; they are such as v5e:2x4"),
        (["--topology", "h100:2x"], "there is no topology 'h100:2x'"),
        (["--topology", "v5e"], "there is no topology 'v5e'"),
        (["--topology", "a100:2x2"], "there is no topology 'a100:2x2'"),
        (["--topology="], "there is no topology ''"),
        (["--config.batch_sise=4"], "batch_size"),
        (["--config.batch_size=0"], "batch_size must be a whole number >= 1, got 0"),
        (["--config.mesh=data=3"], "mesh data=3 needs 3 devices, there are 2"),
        (["--config.mesh=model=2"], "mesh axis 'model' does not exist"),
        (["--config.optim.accumulate_steps=3"], "multiple of accumulate_steps=3 times the 2"),
        (["--memory", "0"], "--memory must be GiB above 0, got 0"),
    ],
)
def test_a_wrong_option_is_one_line(capsys, options, message):
    code = __main__.main(["fit", f"--config={TINY}", "--quick", *options])
    text = capsys.readouterr().err
    assert code == 2
    assert message in text
    assert "Traceback" not in text


def test_an_unknown_recipe_is_one_line(capsys):
    assert __main__.main(["fit", "--config=nope"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "config nope does not exist" in line
    assert "quickstart" in line


@pytest.mark.skipif(bool(importlib.util.find_spec("libtpu")), reason="libtpu is installed")
def test_a_topology_without_its_package_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-m", "asjax", "fit", f"--config={TINY}", "--topology", "v5e:2x4"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2
    assert "pip install 'libtpu" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "gib"),
    [("TPU v5 lite", 16), ("TPU v6 lite", 32), ("NVIDIA H100 80GB HBM3", 80), ("cpu", None)],
)
def test_the_memory_of_known_devices(kind, gib):
    class Device:
        device_kind = kind

        def memory_stats(self):
            raise RuntimeError("only described")

    assert topology.memory(Device()) == (gib and gib * 2**30)


def test_a_device_that_knows_its_memory_is_asked():
    class Device:
        device_kind = "NVIDIA H100"

        def memory_stats(self):
            return {"bytes_limit": 1000}

    assert topology.memory(Device()) == 1000


@pytest.mark.parametrize(
    ("text", "yes", "bytes_"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.",
            True,
            int(20.5 * 2**30),
        ),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1234 bytes.", True, 0),
        ("INVALID_ARGUMENT: shapes differ", False, 0),
    ],
)
def test_words_of_compilers_about_memory(text, yes, bytes_):
    assert program.out_of_memory(text) is yes
    assert program._asked(text) == bytes_
