"""The model folder: round trip, errors, and files beside it that must not be removed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small_models import CONFIG, LABELS, VARIABLES, reseal, small_model

from asjax import predict
from asjax.config import AsjaxError
from asjax.store import files, model_dir, swap

NAMES = ("card.json", "config.json", "labels.csv", "model.safetensors")


def flip(path: Path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


FAULTS = {
    "flipped": flip,
    "truncated": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2] or b"?"),
    "zeroed": lambda p: p.write_bytes(b"\0" * max(1, p.stat().st_size)),
    "deleted": lambda p: p.unlink(),
}


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)


def all_files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_model_directory_comes_back_from_its_path_and_from_its_workdir(tmp_path):
    from safetensors.numpy import load_file

    small_model(tmp_path / "model")
    assert all_files(tmp_path) == [f"model/{name}" for name in NAMES]
    assert "params/conv/kernel" in load_file(tmp_path / "model" / "model.safetensors")
    for path in (tmp_path, tmp_path / "model", str(tmp_path)):
        config, labels, variables, card = model_dir.load_model(path)
        assert config == CONFIG
        assert (labels.ids, labels.names, labels.name) == (LABELS.ids, LABELS.names, "three")
        assert same(variables, VARIABLES)
        assert variables["batch_stats"]["bn"]["mean"].shape == ()
        assert (card["hlp"], card["beta"], card["seed"]) == (True, 0.5, 7)
        assert card["label_hash"] == LABELS.hash
        assert card["sha256"]["labels.csv"] == files.digest(tmp_path / "model" / "labels.csv")


# ------------------------------------------------------------------------------- replacement


def test_an_older_model_is_replaced_and_the_neighbours_stay(tmp_path):
    """A case that users reported: NAME.old and NAME.tmp beside a model were removed."""
    small_model(tmp_path / "model")
    neighbours = ["model.old", "model.tmp", ".model.0123456789abcdef.old", ".model.old.new"]
    for name in neighbours:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years of work")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    small_model(tmp_path / "model", seed=8)
    assert model_dir.load_model(tmp_path)[3]["seed"] == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["model", *neighbours])
    for name in neighbours:
        assert (tmp_path / name / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    assert all_files(tmp_path / "model") == sorted([*NAMES, "notes.txt"])


def test_a_folder_of_other_things_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(AsjaxError, match="thesis is a folder with other contents"):
        small_model(tmp_path / "thesis")
    (tmp_path / "file").write_text("x")
    with pytest.raises(AsjaxError, match="file must be a folder"):
        small_model(tmp_path / "file")
    assert all_files(tmp_path) == ["file", "thesis/chapter1.tex"]
    (tmp_path / "empty").mkdir()
    small_model(tmp_path / "empty")
    assert model_dir.load_model(tmp_path / "empty")[3]["seed"] == 7


def test_a_folder_that_is_a_link_stays_one(tmp_path):
    small_model(tmp_path / "disk" / "m")
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "m")
    small_model(tmp_path / "model", seed=8)
    assert (tmp_path / "model").is_symlink()
    assert model_dir.load_model(tmp_path / "disk" / "m")[3]["seed"] == 8


KILLED = """
import os, sys
from pathlib import Path
from small_models import small_model
at, count, rename = int(sys.argv[2]), 0, Path.rename
def killed(self, target):
    global count
    count += 1
    if count == at:
        os._exit(9)
    return rename(self, target)
Path.rename = killed
small_model(Path(sys.argv[1]) / "model", seed=8)
"""


@pytest.mark.parametrize(("at", "seed"), [(1, 7), (2, 7), (3, 8)])
def test_a_replacement_that_is_killed_leaves_a_model_and_is_finished_by_the_next(
    at, seed, tmp_path
):
    """Killed before the first rename, between the two, and while the user's file is moved."""
    small_model(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(at)]
    here = f"{Path(__file__).parent.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": here}, timeout=600)
    assert done.returncode == 9
    assert len(list(tmp_path.iterdir())) > 1
    for path in (tmp_path, tmp_path / "model"):
        assert model_dir.load_model(path)[3]["seed"] == seed
    small_model(tmp_path / "model", seed=9)
    assert model_dir.load_model(tmp_path)[3]["seed"] == 9
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert all_files(tmp_path / "model") == sorted([*NAMES, "notes.txt"])


def test_a_folder_that_another_process_is_writing_is_left_alone(tmp_path):
    with swap.folder(tmp_path / "model", what="model", ours=lambda folder: None) as new:
        small_model(tmp_path / "model")
        assert new.is_dir()
        (new / "card.json").write_text("{}")
        (tmp_path / "model").rename(tmp_path / "away")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["away", "model"]


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_in_any_model_file_is_refused_by_name(fault, name, tmp_path):
    small_model(tmp_path / "model")
    FAULTS[fault](tmp_path / "model" / name)
    with pytest.raises(AsjaxError, match=name):
        model_dir.load_model(tmp_path / "model")


def test_an_edited_record_or_other_labels_are_refused(tmp_path):
    small_model(tmp_path / "model")
    path = tmp_path / "model" / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "beta": 0.7}))
    with pytest.raises(AsjaxError, match=r"card\.json was changed"):
        model_dir.load_model(tmp_path)
    with pytest.raises(AsjaxError, match="does not exist; give a workdir"):
        model_dir.load_model(tmp_path / "nothing")
    with pytest.raises(AsjaxError, match=r"has no card\.json"):
        model_dir.load_model(Path(__file__).parent)


def with_header(header):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"short",
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        with_header({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        with_header({"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}),
        with_header({"w": {"dtype": "F32"}}),
    ],
    ids=["empty", "short", "header_bomb", "no_dict", "outside", "shape", "no_offsets"],
)
def test_a_malformed_safetensors_file_is_refused_before_memory_is_taken(raw, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)
    with pytest.raises(AsjaxError, match="not a sound safetensors file"):
        files.read_safetensors(path)


# ---------------------------------------------------------- damaged, with hashes that are right


def changed(folder, config=None, **card):
    small_model(folder)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / "config.json").write_text(text)
    reseal(folder, **card)
    return folder


def nested(**changes):
    return {part: {**CONFIG[part], **changes.get(part, {})} for part in CONFIG}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("null", "must be an object"),
        ("[]", "must be an object"),
        ("{", "cannot be read"),
        ("[" * 200_000, "nested too deep"),
        ('{"model": ' + "9" * 5000 + "}", "cannot be read"),
        ({k: v for k, v in CONFIG.items() if k != "model"}, "needs the field 'model'"),
        ({k: v for k, v in CONFIG.items() if k != "frontend"}, "needs the field 'frontend'"),
        ({k: v for k, v in CONFIG.items() if k != "data"}, "needs the field 'data'"),
        ({**CONFIG, "data": {"sample_rate": 16_000}}, "data needs the field 'clip_s'"),
        ({**CONFIG, "model": None}, "model must be an object"),
        ({**CONFIG, "model": {"variant": "mini"}}, "model needs the field 'name'"),
        ({**CONFIG, "model": {"name": 3}}, "model.name must be a name"),
        (nested(data={"clip_s": float("nan")}), "data.clip_s must be a number above 0"),
        ({**CONFIG, "objective": 3}, "objective must be an object"),
        ({**CONFIG, "objective": {"name": ["classify"]}}, "objective.name must be a name"),
        ({**CONFIG, "objective": {}}, "objective needs the field 'name'"),
        (nested(data={"clip_s": 0}), "data.clip_s must be a number above 0"),
        (nested(data={"clip_s": -1}), "data.clip_s must be a number above 0"),
        (nested(data={"clip_s": 1e9}), "data.clip_s must be a number above 0 and up to 3600"),
        (nested(data={"clip_s": "1"}), "data.clip_s must be a number"),
        (nested(data={"sample_rate": 16_000.5}), "data.sample_rate must be an integer"),
        (nested(data={"sample_rate": 10**9}), "data.sample_rate must be an integer from 1"),
        (nested(data={"workers": -1}), "data.workers must be an integer from 0"),
        (nested(model={"num_classes": "3"}), "model.num_classes must be an integer"),
        (nested(model={"num_classes": True}), "model.num_classes must be an integer"),
        (nested(model={"num_classes": 3.0}), "model.num_classes must be an integer"),
        (nested(model={"num_classes": 4}), "num_classes is 4, labels.csv has 3 classes"),
        (nested(model={"width": 10**9}), "model.width must be a number of at most"),
        (nested(model={"channels": [1] * 5000}), "model.channels must be of at most 1,000 items"),
        (nested(frontend={"n_mels": 10**6}), "frontend.n_mels must be an integer from 1 to 1,024"),
        (nested(frontend={"fmin": float("inf")}), "frontend.fmin must be finite"),
        ({**CONFIG, "eval": {"batch_size": 0}}, "eval.batch_size must be an integer from 1"),
        ({**CONFIG, "labels": "x"}, "labels must be an object"),
    ],
)
def test_a_config_that_cannot_be_is_one_line(config, says, tmp_path):
    with pytest.raises(AsjaxError, match=says) as caught:
        predict.load(changed(tmp_path / "m", config))
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({"sha256": []}, "sha256 must be an object"),
        ({"sha256": {}}, "sha256 needs the field 'card.json'|was changed"),
        ({"label_hash": 7}, "label_hash must be a SHA-256"),
        ({"label_set": None}, "label_set must be the name"),
        ({"hlp": "yes"}, "hlp must be true or false"),
        ({"train_data": []}, "train_data must be an object"),
        ({"train_data": {"clips": -1}}, "train_data.clips must be an integer"),
        ({"parameters": 10**5000}, "parameters must be an integer|cannot be read"),
        ({"deep": json.loads("[" * 50 + "]" * 50)}, "deep is nested too deep"),
    ],
)
def test_a_card_that_cannot_be_is_one_line(card, says, tmp_path):
    sys.set_int_max_str_digits(10_000)
    try:
        folder = changed(tmp_path / "m", **card)
    finally:
        sys.set_int_max_str_digits(4300)
    with pytest.raises(AsjaxError, match=says) as caught:
        model_dir.load_model(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_cell_of_5000_digits_in_labels_csv_is_one_short_line(tmp_path):
    folder = tmp_path / "m"
    small_model(folder)
    digits = "9" * 5000
    for text, says in [
        (f"index,mid,display_name\n{digits},a,Dog\n", "indices must run 0, 1, 2"),
        (f"index,mid,display_name\n0,{digits},Dog\n", "label hash"),
    ]:
        (folder / "labels.csv").write_text(text)
        reseal(folder)
        with pytest.raises(AsjaxError, match=says) as caught:
            model_dir.load_model(folder)
        assert len(str(caught.value)) < 500
    with pytest.raises(AsjaxError, match="is not a class") as caught:
        LABELS.index(digits)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("part", ["model", "frontend"])
@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "asjax.config:trust"])
def test_a_stored_config_cannot_start_code(part, name, tmp_path):
    folder = changed(tmp_path / "m", {**CONFIG, part: {"name": name, "command": "touch ran"}})
    with pytest.raises(AsjaxError, match=f"{name}.* is code outside of asjax"):
        predict.load(folder)


def test_arrays_under_the_name_of_a_group_are_refused(tmp_path):
    small_model(tmp_path / "m")
    arrays = {"params/a": np.ones(2, np.float32), "params/a/b": np.ones(2, np.float32)}
    for names in (sorted(arrays), sorted(arrays, reverse=True)):
        with pytest.raises(AsjaxError, match="is both an array and a group"):
            model_dir._nested({name: arrays[name] for name in names}, tmp_path)


def test_a_taxonomy_of_ones_own_comes_back(tmp_path):
    (tmp_path / "parents.csv").write_text("child,parent\nDog,Pet\nCat,pet\n")
    label_set = LABELS.with_taxonomy(tmp_path / "parents.csv")
    small_model(tmp_path / "m", label_set=label_set)
    loaded = model_dir.load_model(tmp_path / "m")[1]
    assert loaded.taxonomy == label_set.taxonomy == {"a": ["Pet"], "b": ["Pet"], "c": [], "Pet": []}
    (tmp_path / "m" / "parents.csv").write_text("child,parent\nDog,Cat\n")
    with pytest.raises(AsjaxError, match="parents.csv was changed"):
        model_dir.load_model(tmp_path / "m")
    small_model(tmp_path / "m")
    assert not (tmp_path / "m" / "parents.csv").exists()
