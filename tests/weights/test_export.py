"""asjax export: back to the authors' code, bit for bit."""

import json
import shlex

import numpy as np
import parity_table
import pytest
import rule
import safetensors.numpy
import torch_writer
from checkpoints import RNG, weights, with_tables

from asjax import frontends, labels, models
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.store import model_dir
from asjax.weights import convert, export, port


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(path, state dict) of a small PANNs-like checkpoint of 527 classes."""
    found = with_tables(weights("cnn", "mini", num_classes=527))
    path = tmp_path_factory.mktemp("checkpoints") / "mini.pth"
    torch_writer.save(found, path)
    return path, found


@pytest.fixture(scope="module")
def ported(checkpoint, tmp_path_factory):
    to = tmp_path_factory.mktemp("ported") / "mini"
    return convert.convert(checkpoint[0], to)


def test_port_and_export_give_every_bit_back(checkpoint, ported, tmp_path):
    out = tmp_path / "back.safetensors"
    assert main(["export", str(ported["path"]), "--safetensors", str(out)]) == 0
    found = safetensors.numpy.load_file(out)
    assert found.keys() == checkpoint[1].keys()
    for name, array in checkpoint[1].items():
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes(), name
    with safetensors.safe_open(out, "np") as file:
        about = file.metadata()
    assert about["format"] == "pt"
    assert (about["family"], about["variant"]) == ("cnn", "mini")
    assert json.loads(about["fields"]) == {"num_classes": 527}
    assert about["label_hash"] == labels.get("audioset527").hash


@pytest.mark.parametrize("case", ["cnn6_mel", "convnext_femto_mel", "passt_small_nodist_mel"])
def test_reference_weights_come_back_bit_for_bit(case, tmp_path):
    manifest, _ = parity_table.load(case)
    state = rule.state_dict(manifest)
    torch_writer.save({k: np.asarray(v) for k, v in state.items()}, tmp_path / "x.pth")
    adapter, variant, fields = parity_table.spec(case)
    convert.convert(
        tmp_path / "x.pth", tmp_path / "m", family=adapter.FAMILY, variant=variant, fields=fields
    )
    found = export.export(tmp_path / "m", tmp_path / "x.safetensors")["arrays"]
    assert found.keys() == state.keys()
    assert all(found[k].tobytes() == np.ascontiguousarray(v).tobytes() for k, v in state.items())


def test_a_model_trained_here_gets_what_its_authors_code_wants(tmp_path):
    found = weights("cnn", "mini", num_classes=10)
    module, variables = port.from_torch("cnn", "mini", found, num_classes=10)
    frontend = dict(models.family("cnn").FRONTENDS["mini"])
    model_dir.save_model(
        tmp_path / "m",
        config={
            "model": {"name": "cnn", "variant": "mini", "num_classes": 10},
            "frontend": frontend,
            "data": {"sample_rate": 16_000, "clip_s": 5.0},
        },
        label_set=labels.get("esc10"),
        variables=variables,
        record={"seed": 1},
    )
    out = export.export(tmp_path / "m", tmp_path / "x.safetensors")["arrays"]
    assert all(out[k].tobytes() == v.tobytes() for k, v in found.items())
    counters = {k: v for k, v in out.items() if k.endswith("num_batches_tracked")}
    assert len(counters) == 5
    assert all(v.dtype == np.int64 and v.shape == () and v == 0 for v in counters.values())
    # the tables as in torchlibrosa: convolution with the windowed DFT, mel matrix
    built = frontends.build(**frontend)
    wave = RNG.standard_normal((1, 4 * built.n_fft)).astype(np.float32)
    padded = np.pad(wave[0], built.n_fft // 2, mode="reflect").astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, built.n_fft)[:: built.hop]
    real, imag = (
        frames @ out[f"spectrogram_extractor.stft.conv_{part}.weight"][:, 0].T.astype(np.float64)
        for part in ("real", "imag")
    )
    mel = (real**2 + imag**2) @ out["logmel_extractor.melW"]
    want = np.asarray(built(wave))[0]
    np.testing.assert_allclose(10 * np.log10(mel), want[: len(mel)], atol=2e-4)


def test_export_does_not_write_over_a_file(ported, tmp_path):
    out = tmp_path / "x.safetensors"
    out.write_text("mine")
    with pytest.raises(AsjaxError, match="add --overwrite"):
        export.export(ported["path"], out)
    assert out.read_text() == "mine"
    export.export(ported["path"], out, overwrite=True)
    assert out.stat().st_size > 100_000


def test_a_changed_extra_file_is_noticed(checkpoint, tmp_path):
    convert.convert(checkpoint[0], tmp_path / "m")
    path = tmp_path / "m" / model_dir.EXTRA
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(AsjaxError, match=r"torch_extra.safetensors was changed"):
        export.export(tmp_path / "m", tmp_path / "x.safetensors")


def test_a_model_of_the_users_own_has_no_torch_code(tmp_path, capsys):
    model_dir.save_model(
        tmp_path / "m",
        config={
            "model": {"name": "mine.parts:model"},
            "frontend": {"name": "panns_logmel"},
            "data": {"sample_rate": 16_000, "clip_s": 1.0},
        },
        label_set=labels.get("audioset527"),
        variables={"params": {"w": np.zeros(3, np.float32)}},
        record={},
    )
    words = ["export", str(tmp_path / "m"), "--safetensors", str(tmp_path / "x.safetensors")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "mine.parts:model is code of yours, and no authors' torch code loads it" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x.safetensors").exists()


def test_export_says_how_port_restores_what_weights_cannot_carry(ported, tmp_path, capsys):
    assert main(["export", str(ported["path"]), "--safetensors", str(tmp_path / "a")]) == 0
    assert "not in it" not in capsys.readouterr().out  # the variant's own values
    found = weights("cnn", "mini", num_classes=10)
    _, variables = port.from_torch("cnn", "mini", found, num_classes=10)
    config = {
        "model": {"name": "cnn", "variant": "mini", "num_classes": 10},
        "frontend": {**models.family("cnn").FRONTENDS["mini"], "hop": 123},
        "data": {"sample_rate": 16_000, "clip_s": 2.5},
        "objective": {"name": "classify"},
    }
    names = labels.get("esc10")
    model_dir.save_model(
        tmp_path / "my m", config=config, label_set=names, variables=variables, record={"seed": 1}
    )
    out = tmp_path / "x y.safetensors"
    assert main(["export", str(tmp_path / "my m"), "--safetensors", str(out)]) == 0
    said = capsys.readouterr().out
    assert "not in it frontend, clip length of 2.5 s, class names, softmax" in said
    assert "a sigmoid per class, so keep the model folder" in said
    (line,) = [line for line in said.splitlines() if line.startswith("restore ")]
    words = shlex.split(line)[2:]
    assert main([*words[:-1], str(tmp_path / "again")]) == 0
    cfg, again, _, _ = model_dir.load_model(tmp_path / "again")
    assert frontends.build(**cfg["frontend"]) == frontends.build(**config["frontend"])
    assert cfg["frontend"]["hop"] == 123
    assert cfg["data"]["clip_s"] == 2.5
    assert again.hash == names.hash
