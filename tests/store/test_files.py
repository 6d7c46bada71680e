"""Hashes, locks, replaced files and JSON, which all stored files use."""

import hashlib
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.store import files


@pytest.mark.parametrize("size", [0, 1, 100_000])
@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_the_hash_of_a_file_is_that_of_its_bytes(size, kind, tmp_path):
    raw = np.random.default_rng(size).bytes(size)
    (tmp_path / "f").write_bytes(raw)
    assert files.digest(tmp_path / "f", kind) == hashlib.new(kind, raw).hexdigest()


def test_a_list_of_hashes_is_read_by_sha256sum_and_names_what_changed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/b/c", "d", "e f"):
        (tmp_path / name).write_text(name)
    files.write_sums(tmp_path)
    assert files.check_sums(tmp_path) == []
    try:
        done = subprocess.run(["sha256sum", "--quiet", "-c", files.SUMS], cwd=tmp_path)
        assert done.returncode == 0
    except FileNotFoundError:
        pass
    (tmp_path / "d").write_text("other")
    (tmp_path / "e f").unlink()
    assert files.check_sums(tmp_path) == [
        "d: its SHA-256 is not the one recorded",
        "e f: No such file or directory",
    ]
    assert files.check_sums(tmp_path, only="a/b/c") == []


def test_a_file_is_replaced_at_once_or_stays(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path  # another disk could not replace it atomically
    assert path.read_text() == "new"

    def write_half():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_half()
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    files.write_atomic(path, "ä")
    assert path.read_bytes() == "ä".encode()


def test_a_lock_keeps_another_process_out_until_its_holder_ends(tmp_path):
    pytest.importorskip("fcntl")
    code = f"""
import sys
from asjax.store import files
file = open({str(tmp_path / "lock")!r}, "a")
print(files.lock(file), flush=True)
sys.stdin.read()
"""
    start = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    first = start()
    assert first.stdout.readline() == "True\n"
    with open(tmp_path / "lock", "a") as file:
        assert files.lock(file) is False
        first.kill()
        first.wait()
        assert files.lock(file) is True


def test_without_locks_work_goes_on(tmp_path, monkeypatch):
    with open(tmp_path / "a", "a") as one, open(tmp_path / "a", "a") as two:
        monkeypatch.setattr(files, "fcntl", None)  # Windows
        assert files.lock(one)
        assert files.lock(two)

    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        def flock(self, *args):
            raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files, "fcntl", NoLocks())  # a network disk
    with open(tmp_path / "a", "a") as file:
        assert files.lock(file)


def test_what_needs_locks_can_be_imported_on_windows():
    code = """
import sys
sys.modules["fcntl"] = None
from asjax.store import workdir
from asjax.weights import convert, download, start
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "fine\n", done.stderr


def refuse(text):
    raise AssertionError(f"{text} is no JSON")


def test_json_is_strict_and_null_stands_for_what_json_cannot_say():
    value = {
        "d_prime": math.inf,
        "ci": [-math.inf, (math.nan, 1.5)],
        "deep": {"x": {"y": [math.nan]}},
        "n": 2**70,
        "fine": [True, None, "NaN", 0.1],
    }
    text = files.to_strict_json(value)
    got = json.loads(text, parse_constant=refuse)
    assert got == {
        "d_prime": None,
        "ci": [None, [None, 1.5]],
        "deep": {"x": {"y": [None]}},
        "n": 2**70,
        "fine": [True, None, "NaN", 0.1],
    }
    assert got["fine"][3] == 0.1
    with pytest.raises(AsjaxError, match="plain JSON values"):
        files.to_strict_json({"x": object()})


def test_a_model_with_a_perfect_score_has_a_card_that_others_can_read(tmp_path):
    """d' of a perfect AUC is infinite; the hash of the card is computed from what a reader gets."""
    from asjax.labels import LabelSet
    from asjax.store import model_dir

    model_dir.save_model(
        tmp_path / "model",
        config={
            "model": {"name": "cnn", "num_classes": 1},
            "frontend": {"name": "panns_logmel"},
            "data": {"sample_rate": 8000, "clip_s": 1.0},
        },
        label_set=LabelSet("one", ("/a",), ("Dog",)),
        variables={"params": {"w": np.zeros(3, np.float32)}},
        record={"scores": {"d_prime": math.inf, "mean_ap": math.nan}},
    )
    text = (tmp_path / "model" / "card.json").read_text()
    card = json.loads(text, parse_constant=refuse)
    assert card["scores"] == {"d_prime": None, "mean_ap": None}
    assert model_dir.load_model(tmp_path)[3]["scores"] == card["scores"]


def test_a_perfect_score_is_still_the_best_after_a_resume(tmp_path):
    import jax
    import jax.numpy as jnp

    from asjax.store.checkpoint import Checkpoints

    values = {1: 2.0, 2: math.inf, 3: math.nan, 4: 3.0}
    with Checkpoints(tmp_path, metric="d_prime", keep=9) as kept:
        for step, value in values.items():
            kept.save(step, {"x": jnp.zeros(1)}, metrics={"d_prime": value})
    for step in values:
        json.loads((tmp_path / str(step) / "run.json").read_text(), parse_constant=refuse)
    again = Checkpoints(tmp_path, metric="d_prime")
    again.restore(jax.eval_shape(lambda: {"x": jnp.zeros(1)}))
    assert dict(again.history)[2] == math.inf
    assert math.isnan(dict(again.history)[3])
    assert kept._chosen(kept.history) == again._chosen(again.history)


def test_a_safetensors_file_is_what_the_library_reads(tmp_path):
    from safetensors.numpy import load_file

    rng = np.random.default_rng(0)
    arrays = {
        "a/b": rng.normal(size=(3, 5)).astype(np.float32),
        "c": rng.integers(0, 9, 7).astype(np.int8),
        "scalar": np.float64(2.5),
        "none": np.zeros((0, 4), np.int16),
        "turned": rng.normal(size=(4, 6)).T,
    }
    files.write_safetensors(tmp_path / "x", arrays, {"format": "asjax"})
    for got in (load_file(tmp_path / "x"), files.read_safetensors(tmp_path / "x")):
        assert got.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(got[name], array)
            assert got[name].dtype == array.dtype
    with pytest.raises(AsjaxError, match="array x of complex64 cannot be written"):
        files.write_safetensors(tmp_path / "y", {"x": np.zeros(2, np.complex64)}, {})
    assert not os.path.exists(tmp_path / "y")
