"""Torch files read without torch: against torch and hand-made files; hostile files."""

import argparse
import collections
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch_writer
from hostile import corpus
from torch_writer import P

from asjax.config import AsjaxError
from asjax.weights import torch_file

HERE = Path(__file__).parent.parent
RNG = np.random.default_rng(5)


def equal(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# --------------------------------------------------------------------------- made without torch


@pytest.mark.parametrize("root", ["archive", "Cnn6_mAP=0.343", "weights"])
def test_arrays_come_back_bit_for_bit(tmp_path, root):
    arrays = {
        code: RNG.integers(0, 100, (3, 4, 2)).astype(code) for code in torch_writer.STORAGE
    } | {"scalar": np.array(7, np.int64), "empty": np.zeros((0, 5), np.float32)}
    torch_writer.save(arrays, tmp_path / "x.pth", root)
    found = torch_file.read(tmp_path / "x.pth")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        want = array != 0 if name == "b1" else array
        assert equal(found[name], want), name


def test_views_share_the_file_and_cannot_be_written(tmp_path):
    torch_writer.save({"w": np.ones((64, 64), np.float32)}, tmp_path / "x.pth")
    array = torch_file.read(tmp_path / "x.pth")["w"]
    assert not array.flags.owndata
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 2


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (4, 6), (6, 1)),
        (0, (6, 4), (1, 6)),
        (5, (2, 3), (7, 2)),
        (3, (), ()),
        (2, (3, 2), (0, 1)),
    ],
)
def test_offsets_and_strides_mean_what_they_mean_in_torch(tmp_path, offset, shape, stride):
    numbers = RNG.standard_normal(24).astype(np.float32)
    pickle = P.whole(
        P.dict({"w": P.tensor(P.storage("0", "FloatStorage", 24), offset, shape, stride)})
    )
    (tmp_path / "x.pth").write_bytes(corpus.zipped(pickle, {"0": numbers.tobytes()}))
    found = torch_file.read(tmp_path / "x.pth")["w"]
    assert found.shape == shape
    for index in np.ndindex(*shape):
        assert found[index] == numbers[offset + sum(map(lambda i, s: i * s, index, stride))]


def test_numbers_of_a_big_endian_machine(tmp_path):
    pickle, _ = torch_writer.state_dict({"w": np.arange(6, dtype=np.float32)})
    members = torch_writer.torch_members(pickle, {"0": np.arange(6, dtype=">f4").tobytes()})
    (tmp_path / "x.pth").write_bytes(torch_writer.archive({**members, "archive/byteorder": b"big"}))
    found = torch_file.read(tmp_path / "x.pth")["w"]
    assert found.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.dtype.isnative


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([1.5, -2.0, 3.0e38, 0.0], np.float32)
    raw = (values.view(np.uint32) >> 16).astype(np.uint16)
    pickle = P.whole(P.dict({"w": P.tensor(P.storage("0", "BFloat16Storage", 4), 0, (4,), (1,))}))
    (tmp_path / "x.pth").write_bytes(corpus.zipped(pickle, {"0": raw.tobytes()}))
    found = torch_file.read(tmp_path / "x.pth")["w"]
    np.testing.assert_array_equal(found, (raw.astype(np.uint32) << 16).view(np.float32))


def test_a_checksum_that_is_no_checksum_does_not_matter(tmp_path):
    """torch has an option not to compute it."""
    pickle, storages = torch_writer.state_dict({"w": np.ones(3, np.float32)})
    members = torch_writer.torch_members(pickle, storages)
    (tmp_path / "x.pth").write_bytes(torch_writer.archive(members, crc=lambda raw: 1))
    assert torch_file.read(tmp_path / "x.pth")["w"].tolist() == [1, 1, 1]


def test_zip64_directories(tmp_path):
    pickle, storages = torch_writer.state_dict({"w": np.ones(3, np.float32)})
    raw = torch_writer.archive(torch_writer.torch_members(pickle, storages))
    end = raw.rindex(b"PK\x05\x06")
    count, size, begin = struct.unpack_from("<HII", raw, end + 10)
    record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 0, 0, 0, 0, count, count, size, begin)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1)
    tail = raw[end : end + 8] + b"\xff" * 12 + b"\x00\x00"
    (tmp_path / "x.pth").write_bytes(raw[:end] + record + locator + tail)
    assert torch_file.read(tmp_path / "x.pth")["w"].tolist() == [1, 1, 1]


# ------------------------------------------------------------------------------ made by torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_of_torch(torch, tmp_path, protocol, zipped):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = torch.optim.AdamW(net.parameters())
    net(torch.ones(2, 3, 5, 5)).sum().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=10)
    x = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "parameter": torch.nn.Parameter(x),
        "transposed": x.transpose(0, 2),
        "cut": x[:, 1:, ::2],
        "expanded": torch.ones(1).expand(5),
        "half": x.half(),
        "double": x.double(),
        "bfloat16": x.bfloat16(),
        "long": x.long(),
        "bool": x > 3,
        "complex": x.to(torch.complex64),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
    }
    if zipped:
        tensors["uint16"] = x.to(torch.uint16)
    given = {
        "model": net.state_dict(),
        "optimizer": optimiser.state_dict(),
        "scheduler": schedule.state_dict(),
        "args": argparse.Namespace(lr=1, x=x),
        "sampler": {"indexes": np.arange(6).reshape(2, 3), "best": np.float64(0.5)},
        "tensors": tensors,
        "pair": (x, "text"),
        "counts": collections.Counter("hello"),
        "size": x.shape,
        "dtype": torch.float32,
        "set": {1, 2},
        "text": "ä🎵",
        "big": 2**70,
    }
    path = tmp_path / "x.pth"
    torch.save(given, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = torch_file.read(path)
    for name, tensor in (*tensors.items(), *net.state_dict().items()):
        ours = found["tensors" if name in tensors else "model"][name]
        tensor = tensor.detach()
        want = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        assert equal(np.ascontiguousarray(ours), np.ascontiguousarray(want)), name
    assert found["text"] == given["text"]
    assert found["big"] == 2**70
    assert found["size"] == (2, 3, 4)
    assert found["optimizer"]["param_groups"][0]["lr"] == optimiser.param_groups[0]["lr"]
    np.testing.assert_array_equal(found["pair"][0], x.numpy())
    assert found["args"].name == "argparse.Namespace"
    assert found["args"].state["lr"] == 1
    if protocol == 2:
        np.testing.assert_array_equal(found["sampler"]["indexes"], given["sampler"]["indexes"])
        assert found["sampler"]["best"] == 0.5


def test_shared_storages_are_the_same_numbers(torch, tmp_path):
    whole = torch.arange(10.0)
    torch.save({"a": whole[:5], "b": whole[5:], "c": whole}, tmp_path / "x.pth")
    found = torch_file.read(tmp_path / "x.pth")
    assert found["a"].tolist() + found["b"].tolist() == found["c"].tolist() == whole.tolist()
    assert np.shares_memory(found["a"], found["c"])


def test_a_whole_module_is_refused_by_name(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(
        AsjaxError, match=r"asks for torch\.nn\.modules\.linear\.Linear; it was refused"
    ):
        torch_file.read(tmp_path / "x.pth")


# ----------------------------------------------------------------------------------- hostile


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """name -> result of reading the file in a process with 200 MB of free memory."""
    folder = tmp_path_factory.mktemp("hostile")
    done = subprocess.run(
        [sys.executable, HERE / "hostile" / "run.py", folder, "1000", "200"],
        capture_output=True, text=True, cwd=folder, timeout=300,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert not (folder / corpus.MARKER).exists()
    assert {path.name for path in folder.iterdir()} == {"file.pth"}
    assert len(rows) == 1000 + len(corpus.all_files())
    return {row["name"]: row for row in rows}


def test_no_file_runs_code_or_takes_long_or_much_or_raises_anything_else(outcomes):
    for name, row in outcomes.items():
        assert not row["text"].startswith("!"), (name, row["text"])
        assert row["events"] == [], (name, row["events"])
        assert row["s"] < 1, (name, row["s"])
        assert "\n" not in row["text"], name
        assert len(row["text"]) < 600, name


@pytest.mark.parametrize("name", corpus.all_files())
def test_every_hostile_file_is_an_error(outcomes, name):
    assert outcomes[name]["text"], name


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("os.system", "os.system"),
        ("legacy os.system", "os.system"),
        ("eval", "builtins.eval"),
        ("getattr chain", "builtins.__import__"),
        ("getattr of str", "getattr of a str"),
        ("subprocess.Popen, new", "subprocess.Popen"),
        ("partial", "os.system"),
        ("stack global", "posix.system"),
        ("torch.hub", "torch.hub.load"),
        ("build on a class", "setting attributes of argparse.Namespace"),
        ("build on a list", "setting attributes of a list"),
        ("method of an optimiser called", "a call of torch.optim.Adam"),
        ("rebuild by os.system", "os.system"),
    ],
)
def test_a_refusal_names_what_was_asked_for(outcomes, name, asked):
    assert f"asks for {asked}" in outcomes[f"code: {name}"]["text"]
    assert "refused and nothing was run" in outcomes[f"code: {name}"]["text"]


def test_most_mutants_are_found_out(outcomes):
    """Readable mutants differ only in numbers or padding, which nothing in a file protects."""
    read = [name for name, row in outcomes.items() if not row["text"]]
    assert all(name.startswith("mutant") for name in read)
    assert len(read) < 200
