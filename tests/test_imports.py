"""Who may import whom, what stays importable on a bare machine, what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "asjax"
FACTS = {
    "balance", "config", "download", "enhance", "files", "hlp", "labels", "metrics", "model_dir",
    "published", "scores", "torch_file", "torch_names", "torch_pickle", "torch_values", "torch_zip",
}  # fmt: skip
ARRAYS = {"frontends", "augment", "objectives"}
SYSTEMS = {"checkpoint", "optim", "sharding", "log", "port", "segments", "step", "workdir"}
PROGRAMS = {
    "__main__", "convert", "detect", "evaluate", "export", "init_from", "papers", "papers_atdr",
    "papers_atdr_page", "papers_atdr_plots", "papers_atdr_runs", "papers_balance",
    "papers_balance_page", "papers_hlp", "papers_plots", "predict", "prepare", "report",
    "report_plots", "scoring", "stats", "stats_features", "stats_plots", "tag", "train", "zoo",
}  # fmt: skip
BARE = {"jax", "flax", "optax", "numpy", "orbax", "asjax", "__future__"}


def layer(module: str) -> int:
    """0 facts, 1 arrays, 2 systems, 3 programs."""
    top, _, rest = module.partition(".")
    for depth, names in enumerate((FACTS, ARRAYS | {"models"}, SYSTEMS | {"data"}, PROGRAMS)):
        if top in names:
            return depth
    raise AssertionError(f"asjax/{module} belongs to no layer: add it to tests/test_imports.py")


def files():
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module != "__init__" and module.removesuffix(".__init__") != "data":
            yield module.removesuffix(".__init__"), path


FILES = list(files())


def imported(tree):
    """(module, at import time?) for every import in the file."""
    inner = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef))
        for n in ast.walk(f)
    }
    for node in ast.walk(tree):
        top = id(node) not in inner
        if isinstance(node, ast.Import):
            yield from ((a.name, top) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module, top
            if node.module in ("asjax", "asjax.data", "asjax.frontends", "asjax.models"):
                yield from ((f"{node.module}.{a.name}", top) for a in node.names)


def ours(name: str) -> str | None:
    """`asjax.data.ops` -> `data.ops`, for names that are modules of ours."""
    if not name.startswith("asjax."):
        return None
    name = name.removeprefix("asjax.")
    path = ROOT / Path(*name.split("."))
    return name if path.with_suffix(".py").exists() or path.is_dir() else None


@pytest.mark.parametrize(("module", "path"), FILES, ids=[m for m, _ in FILES])
def test_imports_only_go_down(module, path):
    """A layer imports layers below; systems import each other only inside data/."""
    depth = layer(module)
    for name, _ in imported(ast.parse(path.read_text())):
        target = ours(name)
        if target is None or target in ("config", "data", "models") or target == module:
            continue
        allowed = layer(target) < depth or (
            layer(target) == depth
            and (depth != 2 or (module.startswith("data.") and target.startswith("data.")))
        )
        if module == "step":  # the state and its update join arrays and optimiser
            allowed = allowed or target == "optim"
        assert allowed, f"asjax/{module} must not import asjax/{target}"


@pytest.mark.parametrize(("module", "path"), FILES, ids=[m for m, _ in FILES])
def test_facts_arrays_and_the_step_need_only_jax_flax_optax_orbax_numpy(module, path):
    if layer(module) >= 2 and module not in {"checkpoint", "optim", "sharding", "port", "step"}:
        return
    for name, at_import in imported(ast.parse(path.read_text())):
        root = name.split(".")[0]
        if at_import and root not in sys.stdlib_module_names:
            assert root in BARE, f"asjax/{module} imports {root} at import time"


def run(code: str):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_training_parts_import_with_everything_else_blocked():
    blocked = [
        "grain", "clu", "ml_collections", "librosa", "tensorflow_datasets", "soundfile", "soxr",
        "matplotlib", "safetensors", "tqdm", "tensorflow", "torch", "sklearn", "array_record",
    ]  # fmt: skip
    code = f"""
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import jax, jax.numpy as jnp
from asjax import (augment, config, frontends, hlp, models, objectives, optim, port,
                   sharding, step)
from asjax.store import checkpoint
frontend = frontends.build("panns_logmel", sample_rate=16000, n_mels=64, n_fft=512, hop=320)
model = models.build("cnn", variant="mini", num_classes=5)
tx, _ = config.build("optim", dict(name="adamw", lr=1e-3), total_steps=10)
objective = objectives.tagging(model=model, frontend=frontend)
state = step.init_state(jax.random.key(0), model=model, frontend=frontend, tx=tx,
                        wave_shape=(2, 16000), average=False)
batch = dict(wave=jnp.ones((2, 16000)), target=jnp.ones((2, 5)), mask=jnp.ones(2))
state, scalars = jax.jit(step.make_train_step(objective=objective, tx=tx))(state, batch)
print(float(scalars["loss"]))
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 10


def test_importing_asjax_and_showing_help_load_nothing_heavy():
    code = """
import sys
import asjax
from asjax.__main__ import main
main(["--help"])
heavy = {"jax", "numpy", "flax", "librosa", "matplotlib", "scipy", "grain"} & set(sys.modules)
print("HEAVY", sorted(heavy))
"""
    assert "HEAVY []" in run(code).stdout
