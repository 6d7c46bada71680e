"""The parity table: it reads other sizes, and a case that cannot be compared gives a row."""

import contextlib
import io
import json
import re

import jax
import numpy as np
import parity_table
import pytest
from scipy.special import expit

from asjax import models
from asjax.weights import port

CLASS = "src/models/Net_mModal_mgpu.py:TALNet"
SIZES = dict(width=64, convs=5, n_mels=32, num_classes=7, pooling="linear_softmax")
ARGS = dict(n_mels=32, embedding_size=64, n_conv_layers=5, n_pool_layers=5, pooling="lin")


@pytest.fixture(scope="module")
def whole():
    """A small TALNet without attention, 7 classes: (manifest, the model's own outputs)."""
    module = models.build("talnet", "crnn", **SIZES)
    shapes = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), models.abstract(module))
    state = [[k, list(v.shape), "float32"] for k, v in port.to_torch("talnet", shapes).items()]
    manifest = {
        "reference": {"cls": CLASS, "args": ARGS},
        "salt": "small",
        "state_dict": state,
        "input": {"kind": "array", "name": "input", "shape": [2, 24, 32], "scale": 0.5},
        "outputs": {"prob": {"shape": [2, 7]}, "frame_logits": {"shape": [2, 6, 7]}},
    }
    weights = parity_table.rule.state_dict(manifest)
    module, variables = port.from_torch("talnet", "crnn", weights, **SIZES)
    x = parity_table.rule.array("input", (2, 24, 32), salt="small", scale=0.5)
    out = jax.jit(module.apply)(variables, x)
    logits = np.asarray(out["logits"], np.float64)
    return manifest, {"prob": expit(logits), "frame_logits": np.asarray(out["frame_logits"])}


def without(name):
    return lambda manifest, outputs: manifest["state_dict"].remove(
        next(e for e in manifest["state_dict"] if e[0] == name)
    )


def bare(manifest, outputs):
    """Width, blocks and pooling follow from shapes, the classes from the authors' argument."""
    manifest["reference"]["args"] = {"classes_num": 7}


FAULTS = {
    "classes": (
        lambda m, o: m["reference"]["args"].update(num_classes=9),
        "talnet crnn: 2 entries do not fit: misshapen: fc_prob",
    ),
    "width": (
        lambda m, o: m["reference"]["args"].update(embedding_size=128),
        "entries do not fit: misshapen: conv.0",
    ),
    "bins": (lambda m, o: m["input"].update(shape=[2, 24, 33]), "TALNet"),
    "weight": (without("gru.weight_hh_l0"), "missing: gru.weight_hh_l0"),
    "pooling": (lambda m, o: m["reference"]["args"].update(pooling="new"), "KeyError: 'new'"),
    "salt": (lambda m, o: m.pop("salt"), "KeyError: 'salt'"),
    "absent": (lambda m, o: o.pop("prob"), "absent.npz lacks prob"),
    "shape": (lambda m, o: o.update(prob=np.zeros((2, 5))), "prob is .2, 7. here, .2, 5. in the"),
    "unknown": (lambda m, o: o.update(block9=np.zeros(3)), "gives no block9"),
    "nan": (lambda m, o: o.update(prob=np.full((2, 7), np.nan)), "NO: prob"),
    "value": (lambda m, o: o.update(prob=o["prob"] + 1e-4), "NO: prob"),
    "cut_npz": (lambda m, o: None, "BadZipFile|ValueError|EOFError"),
    "cut_json": (lambda m, o: None, "JSONDecodeError"),
    "gone_npz": (lambda m, o: None, "FileNotFoundError"),
}


@pytest.fixture(scope="module")
def table(whole, tmp_path_factory):
    """One run over a valid case and altered copies of it: (exit code, {case: cells}, text)."""
    folder = tmp_path_factory.mktemp("cases")
    other = lambda m, o: m.update(reference="somebody's network")  # noqa: E731
    changes = {"good": lambda m, o: None, "bare": bare, "other": other}
    for name, change in {**changes, **{k: v for k, (v, _) in FAULTS.items()}}.items():
        manifest, outputs = json.loads(json.dumps(whole[0])), dict(whole[1])
        change(manifest, outputs)
        (folder / f"{name}.json").write_text(json.dumps(manifest))
        np.savez(folder / f"{name}.npz", **outputs)
    for name in ("cut_npz", "cut_json"):
        path = folder / f"{name}.{name[4:]}"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / "gone_npz.npz").unlink()
    (folder / "list.json").write_text("[1, 2]")  # not a case
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = parity_table.main([str(folder)])
    rows = [line for line in text.getvalue().splitlines() if line.startswith("| ")][1:]
    cells = [row.removeprefix("| ").removesuffix(" |").split(" | ") for row in rows]
    return code, {row[0]: row for row in cells}, text.getvalue()


def test_width_classes_and_pooling_come_from_the_arguments_or_the_shapes(table, whole):
    _, cells, _ = table
    learnt = [np.prod(s) for k, s, _ in whole[0]["state_dict"] if "running" not in k]
    for name in ("good", "bare"):
        _, model, count, _, _, _, within = cells[name]
        assert (model, count, within) == ("talnet crnn", f"{sum(learnt):,}", "yes")


@pytest.mark.parametrize("name", FAULTS)
def test_a_misfit_is_a_row_and_the_other_cases_are_compared(name, table):
    _, cells, _ = table
    assert len(cells[name]) == 7
    assert cells[name][-1].startswith("NO: ")
    assert re.search(FAULTS[name][1], cells[name][-1]), cells[name]


def test_a_misfit_fails_the_run_and_what_no_family_knows_is_named(table):
    code, cells, text = table
    assert code == 1
    assert set(cells) == {"good", "bare", *FAULTS}
    assert text.endswith("\nof no model family here: other\n")


def test_a_folder_without_cases_is_a_failure(tmp_path, capsys):
    assert parity_table.main([str(tmp_path)]) == 1
    assert "no case to compare" in capsys.readouterr().err
