"""scores.npz: round trip, and sizes that are checked before memory is allocated."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from small_models import LABELS

from asjax import hlp
from asjax.config import AsjaxError
from asjax.store import npz, scores


def save(path, label_set=LABELS, extra=None):
    scores.save_scores(
        path,
        ids=["one", "two"],
        scores=np.arange(6, dtype=np.float32).reshape(2, 3),
        targets=np.eye(2, 3),
        label_set=label_set,
        extra=extra,
    )
    return path


def changed(path, **arrays):
    """The file with other arrays; bytes replace a whole member, None removes it."""
    with np.load(save(path)) as file:
        held = {name: file[name] for name in file.files} | arrays
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in held.items():
            if array is None:
                continue
            raw = io.BytesIO()
            raw.write(array) if isinstance(array, bytes) else np.save(raw, array)
            archive.writestr(f"{name}.npy", raw.getvalue())
    return path


def claiming(shape: str, descr: str = "<f4", data: int = 24) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(data)


def about(**more):
    fields = {"label_set": "three", "label_hash": LABELS.hash, "extra": None}
    return np.array(json.dumps({**fields, **more}))


@pytest.mark.parametrize("packing", [np.savez, np.savez_compressed])
def test_what_is_saved_comes_back(tmp_path, packing):
    path = save(tmp_path / "s.npz", extra={"left_out": [["a", "b"]]})
    with np.load(path) as file:
        packing(tmp_path / "again.npz", **file)
    for place in (path, tmp_path / "again.npz"):
        got = scores.load_scores(place)
        np.testing.assert_array_equal(got["scores"], np.arange(6).reshape(2, 3))
        np.testing.assert_array_equal(got["targets"], np.eye(2, 3))
        assert got["scores"].flags.writeable
        assert (got["ids"], got["label_set"].names) == (["one", "two"], LABELS.names)
        assert got["extra"] == {"left_out": [["a", "b"]]}


def test_the_file_says_what_its_scores_are_and_an_older_one_has_logits(tmp_path):
    path, log_p = tmp_path / "s.npz", np.log(np.full((2, 3), 1 / 3, np.float32))
    fields = dict(ids=["one", "two"], targets=np.eye(2, 3), label_set=LABELS)
    assert scores.load_scores(save(path))["activation"] == "sigmoid"
    assert scores.load_scores(changed(path, about=about()))["activation"] == "sigmoid"
    scores.save_scores(path, scores=log_p, activation="softmax", **fields)
    got = scores.load_scores(path)
    assert got["activation"] == "softmax"
    np.testing.assert_array_equal(got["scores"], log_p)
    scores.save_scores(path, **got)  # what is loaded can be saved again
    with pytest.raises(
        AsjaxError, match="of a softmax must be log-probabilities, at most 0, got 2"
    ):
        scores.save_scores(path, scores=log_p + 3.1, activation="softmax", **fields)
    with pytest.raises(AsjaxError, match="activation of scores 'softmx' does not exist"):
        scores.save_scores(path, scores=log_p, activation="softmx", **fields)


def test_only_the_objective_classify_has_a_softmax():
    for cfg, want in [
        ({}, "sigmoid"),
        ({"objective": None}, "sigmoid"),
        ({"objective": {"name": "tagging"}}, "sigmoid"),
        ({"objective": {"name": "my.losses:classify"}}, "sigmoid"),
        ({"objective": {"name": "classify", "class_weights": [1, 2]}}, "softmax"),
        ({"objective": "classify(label_smoothing=0.1)"}, "softmax"),
    ]:
        assert scores.activation_of(cfg) == want


def test_the_numbers_of_other_machines_and_orders_are_the_same(tmp_path):
    want = np.arange(6, dtype=np.float32).reshape(2, 3)
    for array in (np.asfortranarray(want), want.astype(">f4"), want.astype(np.float64)):
        got = scores.load_scores(changed(tmp_path / "s.npz", scores=array))["scores"]
        np.testing.assert_array_equal(got, want)


def test_a_taxonomy_goes_with_the_scores(tmp_path):
    (tmp_path / "parents.csv").write_text("child,parent\nDog,Cat\n")
    path = save(tmp_path / "s.npz", LABELS.with_taxonomy(tmp_path / "parents.csv"))
    label_set = scores.load_scores(path)["label_set"]
    assert hlp.pairs(hlp.closure_if_known(label_set)).tolist() == [[0, 1]]
    assert hlp.closure_if_known(scores.load_scores(save(tmp_path / "n.npz"))["label_set"]) is None


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"scores": claiming("(1099511627776, 3)")}, "'scores' claims 13,194,139,533,312 bytes"),
        ({"scores": claiming("(2, 3)", data=20)}, "'scores' claims 24 bytes and has 20"),
        ({"ids": claiming("(1099511627776,)", "<U0", 0)}, "'ids' must not be <U0"),
        ({"scores": claiming("(-2, -3)")}, "scores"),
        ({"scores": claiming("(" * 90)}, "not a scores file"),
        ({"scores": b"nothing"}, "not a scores file"),
        ({"scores": np.array([["1.0"] * 3] * 2)}, "'scores' must not be <U3"),
        ({"scores": np.zeros((2, 3), object)}, "'scores' must not be object"),
        ({"scores": np.zeros((3, 3), "f4")}, r"is damaged: scores \(3, 3\) and targets \(2, 3\)"),
        ({"targets": np.full((2, 3), 7, "u1")}, "its targets must be 0 or 1"),
        ({"targets": np.zeros((2, 3), "f4")}, "'targets' must not be float32"),
        ({"ids": np.array("one")}, "'ids' must not be <U3 with 0 axes"),
        ({"ids": np.array([1, 2])}, "'ids' must not be int64"),
        ({"ids": None}, "it has no array 'ids'"),
        ({"label_ids": np.array(["a", "a", "b"])}, "every id must occur once"),
        ({"about": np.array(3)}, "'about' must not be int64"),
        ({"about": np.array("{")}, "not a scores file"),
        ({"about": np.array("[" * 200_000)}, "nested too deep"),
        ({"about": np.array("[]")}, "about: must be an object"),
        ({"about": np.array("{}")}, "about: needs the field 'label_set'"),
        ({"about": about(label_hash=3)}, "about: label_hash must be a SHA-256"),
        ({"about": about(extra=[])}, "about: extra must be an object"),
        ({"about": about(extra={"left_out": [1]})}, r"about: extra.left_out\[0\] must be a list"),
        ({"about": about(extra={"zero_shot": 1})}, "about: extra.zero_shot must be an object"),
        ({"about": about(parents={"a": ["x"]})}, "its taxonomy lacks"),
        ({"about": about(activation=3)}, "about: activation must be sigmoid or softmax"),
        ({"about": about(activation="tanh")}, "about: activation must be sigmoid or softmax"),
        ({"about": about(activation="softmax")}, "its scores of a softmax must be log-prob"),
        ({"about": about(label_hash="0" * 64)}, "label hash of the class list"),
    ],
)
def test_what_cannot_be_is_one_line_before_memory_is_taken(arrays, says, tmp_path):
    path = changed(tmp_path / "s.npz", **arrays)
    tracemalloc.start()
    with pytest.raises(AsjaxError, match=says) as caught:
        scores.load_scores(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_packed_members_may_not_claim_more_than_makes_sense(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MAX_COMPRESSED", 1000)
    with np.load(save(tmp_path / "s.npz")) as file:
        np.savez_compressed(tmp_path / "bomb.npz", **file)
    with pytest.raises(AsjaxError, match="its members claim .* bytes"):
        scores.load_scores(tmp_path / "bomb.npz")
    scores.load_scores(tmp_path / "s.npz")
