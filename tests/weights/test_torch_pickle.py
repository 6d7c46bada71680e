"""The pickle machine against Python's unpickler on plain values, and its errors."""

import collections
import pickle
import random

import pytest

from asjax.config import AsjaxError
from asjax.weights import torch_pickle
from asjax.weights.torch_values import Inert


def load(raw, **kwargs):
    return torch_pickle.load(memoryview(raw), {}, "f.pt", **kwargs)


def value(rng, depth=4):
    """A random nested value of types that occur in settings."""
    kinds = ["int", "float", "str", "bytes", "none", "bool"]
    kind = rng.choice(kinds + (["list", "tuple", "dict"] * 2 if depth else []))
    some = range(rng.choice([0, 1, 2, 3, 5]))
    if kind in ("list", "tuple"):
        items = [value(rng, depth - 1) for _ in some]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {
            rng.choice([f"k{i}", i, f"\u00e4{i}".encode()]): value(rng, depth - 1) for i in some
        }
    return {
        "int": rng.choice([0, -1, 255, 256, 2**31, -(2**40), 2**62, 10**300]),
        "float": rng.uniform(-1e9, 1e9),
        "str": rng.choice(["", "a", "\u00e4\u2192", "x" * 300, "\ud800"]),
        "bytes": rng.randbytes(rng.choice([0, 3, 300])),
        "none": None,
        "bool": rng.random() < 0.5,
    }[kind]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_are_those_of_pickle(protocol):
    rng = random.Random(protocol)
    for _ in range(200):
        raw = pickle.dumps(value(rng), protocol)
        if protocol == 2 and (b"_codecs" in raw or b"__builtin__" in raw):  # bytes as a call
            continue
        got, claims, end = load(raw + b"rest")
        assert got == pickle.loads(raw)
        assert (claims, end) == ({}, len(raw))


def test_shared_and_cyclic_values_keep_their_shape():
    shared = [1]
    raw = pickle.dumps({"a": shared, "b": shared, "c": collections.OrderedDict(x=shared)}, 2)
    got = load(raw)[0]
    assert got["a"] is got["b"] is got["c"]["x"]
    cyclic = []
    cyclic.append(cyclic)
    got = load(pickle.dumps(cyclic, 2))[0]
    assert got[0] is got


class Call:
    """An object that is pickled as a function call."""

    def __init__(self, function, *args):
        self.how = (function, args)

    def __reduce__(self):
        return self.how


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_name_that_is_not_known_is_refused_by_name_and_never_called(protocol, tmp_path):
    import os

    target = tmp_path / "made"
    for call, name in (
        (Call(os.mkdir, str(target)), "mkdir"),
        (Call(eval, f"__import__('os').mkdir({str(target)!r})"), "eval"),
        (Call(__import__, "antigravity"), "__import__"),
    ):
        with pytest.raises(
            AsjaxError, match=f"asks for .*{name}; it was refused and nothing was run"
        ):
            load(pickle.dumps({"state": [call]}, protocol))
    assert not target.exists()


def test_a_harmless_name_becomes_a_thing_that_does_nothing():
    import datetime
    import pathlib

    got = load(
        pickle.dumps({"at": datetime.date(2020, 1, 2), "to": pathlib.PurePosixPath("x")}, 4)
    )[0]
    assert type(got["at"]) is type(got["to"]) is Inert
    assert got["at"].name == "datetime.date"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "its pickle has no end"),
        (b"\x80\x02]", "its pickle has no end"),
        (b"\x80\x02.", "damaged pickle"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "claims more bytes than the file has"),
        (b"\x80\x02\x8b\xff\xff\x00\x00.", "an integer of 65535 bytes"),
        (b"\x80\x02h\x07.", "a value that does not exist"),
        (b"\x80\x02\x82\x01.", "torch never writes pickle opcode 0x82"),
        (b"\x80\x02c" + b"x" * 400, "a name in its pickle has no end"),
        (b"\x80\x02K\x01K\x02a.", "its pickle appends items to a int"),
        (b"\x80\x02K\x01K\x02K\x03s.", "its pickle sets entries in a int"),
        (b"\x80\x02K\x01)R.", "a call of a int"),
    ],
)
def test_damage_is_one_line(raw, message):
    with pytest.raises(AsjaxError, match=message) as caught:
        load(raw)
    assert str(caught.value).startswith("f.pt ")
    assert "\n" not in str(caught.value)


def test_work_is_bounded():
    raw = pickle.dumps(list(range(1000)), 2)
    load(raw, steps=5000)
    with pytest.raises(AsjaxError, match="more steps than any checkpoint needs"):
        load(raw, steps=500)
