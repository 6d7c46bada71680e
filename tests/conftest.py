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


# Cases that show for one more family or size what a quicker case shows. They are slow tests too;
# `pytest -m ""` runs them. A key is the beginning of a test's name; parameters of it may follow.
LONG = {
    "export/test_onnx_file.py": {
        "test_a_file_gives_what_jax_gives": (
            "ast",
            "cnn6",
            "femto",
            "mn04",
            "ced",
            "atst_frame",
            "beats",
            "m2d",
            "gru",
        ),
    },
    "models/test_conformer.py": {"test_scan_and_remat": ()},
    "models/test_detectors.py": {
        "test_weights_go_out": ("atst_frame", "fpasst", "asit", "frame_mn"),
        "test_a_clip_in_a_batch": ("atst_frame", "beats", "m2d", "asit"),
        "test_every_form_of_the_names": ("frame_mn",),
        "test_every_parameter_learns": ("beats",),
    },
    "models/test_efficientnet.py": {"test_training_drops_paths": ()},
    "models/test_resnet_att.py": {"test_any_length": ("1",)},
    "models/test_talnet.py": {
        "test_a_padded_batch": ("5-crnn", "5-cnn_transformer", "5-transformer"),
        "test_dropout_acts": ("cnn_transformer",),
    },
    "nn/test_frames.py": {"test_a_talnet_with_a_detector": ()},
    "nn/test_rotary.py": {"test_a_padded_batch": ("8", "64")},
    "nn/test_vit.py": {"test_scan_and_remat": ()},
    "papers/test_atdr.py": {"test_a_real_training_run_is_read": ()},
    "weights/test_init_from.py": {"test_a_detector_starts": ("5-None-True",)},
    "test_train.py": {
        "test_every_config": (
            "convnext_tiny.py",
            "cnn14.py",
            "esc10_architectures.py",
            "efficientat_kd.py",
        ),
        "test_kill_9": ("training",),
    },
}


def pytest_collection_modifyitems(items):
    """Mark the cases of LONG as slow. An entry that fits no case of its file is an error."""
    wanted = {
        (file, test, case) for file, tests in LONG.items() for test in tests for case in tests[test]
    } | {(file, test, "") for file, tests in LONG.items() for test in tests if not tests[test]}
    seen, whole = set(), {file: set() for file, _, _ in wanted}
    for item in items:
        file = item.path.relative_to(HERE).as_posix() if item.path.is_relative_to(HERE) else ""
        name, _, case = item.name.partition("[")
        for entry in wanted if file in LONG else ():
            of_file, test, wanted_case = entry
            if file == of_file and name.startswith(test) and wanted_case in ("", case[:-1]):
                item.add_marker(pytest.mark.slow)
                seen.add(entry)
        whole.setdefault(file, set()).add(name)
    lost = [entry for entry in wanted - seen if len(whole[entry[0]]) > 3]
    if lost:
        raise pytest.UsageError(f"tests/conftest.py: LONG names no case: {sorted(lost)}")


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
