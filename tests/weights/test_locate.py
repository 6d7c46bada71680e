"""Locations of checkpoints: files, folders with several files, names, the Hub."""

import json
import sys
import types

import numpy as np
import pytest
import torch_writer
from small_models import small_model

from asjax.config import AsjaxError
from asjax.store import files
from asjax.weights import locate, published


def test_the_file_s_published_name_tells_what_its_shapes_cannot(tmp_path):
    """CNN14 at 16 kHz has the shapes of CNN14."""
    row = published.find("cnn14_16k")
    path = tmp_path / row.file
    path.touch()
    assert locate.locate(path)[:2] == (path, row)


# --------------------------------------------------------------------------------------- hub


def hub(monkeypatch, download):
    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_a_hub_id_is_read_from_what_the_library_gives(tmp_path, monkeypatch):
    asked = []

    def download(repo, name, revision=None):
        asked.append((repo, name, revision))
        if name != "pytorch_model.bin":
            raise FileNotFoundError(f"no {name}")
        path = tmp_path / name
        torch_writer.save({"w": np.ones(3, np.float32)}, path)
        return str(path)

    hub(monkeypatch, download)
    assert locate.read_weights("owner/name@v2")["w"].tolist() == [1, 1, 1]
    names = ("model.safetensors", "pytorch_model.bin", "config.json", "preprocessor_config.json")
    assert asked == [("owner/name", name, "v2") for name in names]
    place = locate.locate("MIT/ast-finetuned-audioset-16-16-0.442")
    assert (place.row.variant, place.row.fields["stride"]) == ("base384_hf", 16)
    assert place.notes == (
        "config.json: FileNotFoundError: no config.json",
        "preprocessor_config.json: FileNotFoundError: no preprocessor_config.json",
    )


def test_a_repository_of_asjax_is_not_converted(tmp_path, monkeypatch):
    model = small_model(tmp_path / "m")
    hub(monkeypatch, lambda repo, name, revision=None: str(model / name))
    with pytest.raises(AsjaxError, match="is already an asjax model; use it: --model=owner/name"):
        locate.locate("owner/name")


def test_a_hub_that_gives_nothing_is_one_line(monkeypatch):
    def download(repo, name, revision=None):
        raise OSError("Cannot find the requested files in the disk cache\nand more")

    hub(monkeypatch, download)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(AsjaxError, match="only its cache was searched.*disk cache") as caught:
        locate.read_weights("owner/name")
    assert "\n" not in str(caught.value)


def test_without_the_library_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(AsjaxError, match=r"pip install 'asjax\[hub\]'"):
        locate.read_weights("owner/name")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/file.pth", "does not exist"),
        ("nothing.pt", "does not exist"),
        ("cnn66", "mean 'cnn6"),
    ],
)
def test_what_is_nowhere_is_one_line(name, message):
    with pytest.raises(AsjaxError, match=message):
        locate.read_weights(name)


def test_folders_hold_a_checkpoint_or_are_refused(tmp_path):
    with pytest.raises(AsjaxError, match="holds no model.safetensors"):
        locate.read_weights(tmp_path)
    files.write_safetensors(tmp_path / "model.safetensors", {"w": np.ones(2)}, {})
    assert locate.read_weights(tmp_path)["w"].tolist() == [1, 1]
    with pytest.raises(AsjaxError, match="is already an asjax model"):
        locate.read_weights(small_model(tmp_path / "m"))


def test_damaged_safetensors_files_are_errors_of_ours(tmp_path):
    path, rng = tmp_path / "x.safetensors", np.random.default_rng(0)
    files.write_safetensors(path, {"w": np.ones((3, 4), np.float32), "n": np.arange(5)}, {})
    good, failed = path.read_bytes(), 0
    for _ in range(300):
        raw = bytearray(good)
        for at in rng.integers(min(80, len(raw)), size=3):
            if rng.random() < 0.5:
                raw[at] = int(rng.integers(256))
            else:
                del raw[at : at + int(rng.integers(1, 20))]
        path.write_bytes(raw)
        try:
            locate.read_weights(path)
        except AsjaxError:
            failed += 1
    assert failed > 250


# ----------------------------------------------------------------------------- in several files


def shards(folder, ending="safetensors", **more):
    """A folder with the arrays of a model in two files, and their index."""
    folder.mkdir()
    arrays = {"a.weight": np.ones((2, 2), np.float32), "b.weight": np.zeros(3, np.float32)}
    names = [f"model-0000{i}-of-00002.{ending}" for i in (1, 2)]
    for name, (key, array) in zip(names, arrays.items(), strict=True):
        if ending == "bin":
            torch_writer.save({key: array}, folder / name)
        else:
            files.write_safetensors(folder / name, {key: array}, {})
    index = {"metadata": {}, "weight_map": dict(zip(arrays, names, strict=True)) | more}
    stem = "pytorch_model" if ending == "bin" else "model"
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    return names


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_folder_with_its_arrays_in_several_files_is_read_whole(tmp_path, ending):
    names = shards(tmp_path / "m", ending)
    checkpoint = locate.read(tmp_path / "m")
    assert checkpoint.value.keys() == {"a.weight", "b.weight"}
    assert checkpoint.sha256 == {name: files.digest(tmp_path / "m" / name) for name in names}
    assert locate.read_weights(tmp_path / "m")["b.weight"].tolist() == [0, 0, 0]


def test_pieces_that_lack_or_lead_elsewhere_are_one_line(tmp_path):
    names = shards(tmp_path / "a", c=f"../a/{'x' * 300}")
    with pytest.raises(AsjaxError, match="weight_map.c must be the name of a file"):
        locate.read(tmp_path / "a")
    shards(tmp_path / "b", c=names[0])
    with pytest.raises(AsjaxError, match="no file holds 1 of its arrays, first 'c'"):
        locate.read(tmp_path / "b")
    shards(tmp_path / "c")
    (tmp_path / "c" / names[1]).unlink()
    with pytest.raises(AsjaxError, match=f"its file {names[1]} does not exist"):
        locate.read(tmp_path / "c")
    shards(tmp_path / "d")
    files.write_safetensors(
        tmp_path / "d" / names[1], {"a.weight": np.ones(2), "b.weight": np.ones(2)}, {}
    )
    with pytest.raises(AsjaxError, match="'a.weight' is in .* and in another file"):
        locate.read(tmp_path / "d")
    (tmp_path / "d" / "model.safetensors.index.json").write_text("[" * 200_000)
    with pytest.raises(AsjaxError, match="nested too deep"):
        locate.read(tmp_path / "d")


def test_a_family_chooses_among_several_weights(tmp_path):
    names = {f"conv_block{i}.conv1.weight": np.ones((2, 2, 3, 3), np.float32) for i in range(1, 5)}
    value = {f"head.{i}.weight": np.ones(2, np.float32) for i in range(9)}
    value |= {f"net.{name}": array for name, array in names.items()}
    torch_writer.save(value, tmp_path / "x.pth")
    assert locate.read_weights(tmp_path / "x.pth", "cnn").keys() == names.keys()
    assert locate.read_weights(tmp_path / "x.pth").keys() == value.keys()
