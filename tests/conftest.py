"""Shared fixtures: two CPU devices, golden cases, the optional official lists."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", "4")  # the value of asjax.devices.setup for two devices

import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
sys.path.insert(0, str(GOLDEN))
sys.path.insert(0, str(HERE))


def golden(name):
    """A parity case: `(manifest, {output: array})`; `rule` makes its weights and inputs."""
    manifest = json.loads((GOLDEN / f"{name}.json").read_text())
    npz = GOLDEN / f"{name}.npz"
    arrays = dict(np.load(npz)) if npz.exists() else {}
    return manifest, arrays


@pytest.fixture(scope="session", name="golden")
def golden_fixture():
    return golden


@pytest.fixture(scope="session")
def shared_dir():
    """The folder with the official lists, if there is one beside this checkout."""
    path = Path(os.environ.get("ASJAX_SHARED", HERE.parent.parent / "shared"))
    if not (path / "data" / "metadata" / "audioset").is_dir():
        pytest.skip("needs the official AudioSet lists: set ASJAX_SHARED to a folder that has them")
    return path


@pytest.fixture(scope="session")
def repo():
    """The root of the checkout, which contains configs/."""
    return HERE.parent
