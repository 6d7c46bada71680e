"""Import rules between modules, imports without optional packages, and the cost of imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "asjax"
# From bottom to top: a module may only import from earlier layers. A folder is one layer.
LAYERS = (
    ("config",),
    (
        "labels",
        "hlp",
        "balance",
        "taxonomy",
        "events",
        "decoding",
        "change_points",
        "recipes",
        "fields",
        "checks",
    ),
    ("metrics",),
    ("nn",),
    ("frontends",),
    ("models",),
    ("hosts",),
    ("sharding", "devices", "optim"),
    ("augment", "objectives", "step"),
    ("store",),
    ("pages",),
    ("data",),
    ("build",),
    ("own",),
    ("weights",),
    ("evaluation",),
    ("papers", "predict", "fit"),
    ("export",),
    ("tag", "teachers", "adapters", "serve"),
    ("stream",),
    ("train",),
    ("finetune", "sweep"),
    ("__main__", "__init__"),
)
DEPTH = {name: depth for depth, names in enumerate(LAYERS) for name in names}
BARE = {"jax", "flax", "optax", "numpy", "orbax", "asjax", "__future__"}
BARE_ROOMS = {
    "config", "labels", "hlp", "balance", "taxonomy", "events", "decoding", "change_points",
    "metrics", "frontends", "nn", "models", "sharding", "devices", "optim", "augment", "hosts",
    "objectives", "step", "fields", "checks", "build",
}  # fmt: skip
BARE_FILES = {"store.checkpoint", "store.files", "store.model_dir", "store.choice", "weights.port"}


def modules() -> dict[str, Path]:
    """Dotted name below asjax -> file; a package has the name of its folder."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    return module.partition(".")[0]


def imported(tree):
    """(dotted name, at import time?) of every import, and of every string that names a module.

    A string counts if it is a dotted name, as in `import_module("asjax.hlp")` or a table of
    modules. The beginning of an f-string also counts, as in `f"asjax.models.{name}"`.
    """
    inner = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for n in ast.walk(f)
    }
    for node in ast.walk(tree):
        top = id(node) not in inner
        if isinstance(node, ast.Import):
            yield from ((a.name, top) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full: from asjax.x import y"
            yield node.module, top
            yield from ((f"{node.module}.{a.name}", top) for a in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.fullmatch(r"(asjax(?:\.\w+)+)\.?(?::\w+)?", node.value)
            yield named[1] if named else "", False


def ours(name: str) -> str | None:
    """Our module that contains a dotted name: `asjax.data.ops.crop` -> `data.ops`."""
    parts = name.split(".")[1:] if name.startswith("asjax.") else []
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or None


def arrows() -> dict[str, set[str]]:
    """module -> our modules that it imports anywhere in the file."""
    graph = {}
    for module, path in MODULES.items():
        names = {ours(name) for name, _ in imported(ast.parse(path.read_text()))}
        graph[module] = names - {None, module}
    return graph


ARROWS = arrows()


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module):
    assert room(module) in DEPTH, f"asjax/{room(module)} has no layer in tests/test_imports.py"
    for target in ARROWS[module] - {"__init__"}:
        below = DEPTH[room(target)] < DEPTH[room(module)]
        beside = DEPTH[room(target)] == DEPTH[room(module)] and (
            room(target) == room(module) or "." not in module + target
        )
        assert below or beside, f"asjax/{module} must not import asjax/{target}"


def test_there_is_no_circle():
    """No files import each other, directly or indirectly; an __init__ counts as a file."""
    left = {m: {t for t in targets if t != "__init__"} for m, targets in ARROWS.items()}
    while free := [m for m, targets in left.items() if not targets & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"circle among {sorted(left)}"


def test_no_model_family_imports_another():
    for module, targets in ARROWS.items():
        if module.startswith("models.") and not module.startswith("models._"):
            others = {
                t for t in targets if t.startswith("models.") and not t.startswith("models._")
            }
            assert not others, (
                f"asjax/{module} must not import {others}: move what they share to nn/"
            )


@pytest.mark.parametrize("module", MODULES)
def test_what_trains_needs_only_jax_flax_optax_orbax_numpy(module):
    if room(module) not in BARE_ROOMS and module not in BARE_FILES:
        return
    for name, at_import in imported(ast.parse(MODULES[module].read_text())):
        root = name.split(".")[0]
        if at_import and root not in sys.stdlib_module_names:
            assert root in BARE, f"asjax/{module} imports {root} at import time"


def test_files_of_tests_have_different_names():
    """pytest imports them by name, so two with one name stop the run."""
    names = sorted(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name in set(names) if names.count(name) > 1] == []


def test_every_module_is_tested():
    """Each module has a test file with its name in the same folder, or is named in a test there."""
    tests = Path(__file__).parent
    missing = []
    for module, path in MODULES.items():
        if path.name in ("__init__.py", "__main__.py"):
            continue
        folder = tests / path.parent.relative_to(ROOT)
        named = "\n".join(p.read_text() for p in sorted(folder.glob("test_*.py")))
        name = module.rpartition(".")[2]
        name = name.lstrip("_")
        own = (folder / f"test_{name}.py").exists()
        if not own and not re.search(rf"\b{re.escape(name)}\b", named):
            missing.append(module)
    assert not missing, f"no test in tests/ of the same folder names {missing}"


def test_every_folder_says_in_one_sentence_what_it_is():
    for path in sorted(ROOT.rglob("__init__.py")):
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
        assert first.endswith("."), f"{path.relative_to(ROOT)} must begin with its one sentence"


def run(code: str):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


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
from asjax import (augment, build, config, frontends, hlp, models, objectives, optim, port,
                   sharding, step)
from asjax.store import checkpoint
frontend = frontends.build("panns_logmel", sample_rate=16000, n_mels=64, n_fft=512, hop=320)
model = models.build("cnn", variant="mini", num_classes=5)
tx, _ = build.make("optim", dict(name="adamw", lr=1e-3), total_steps=10)
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
