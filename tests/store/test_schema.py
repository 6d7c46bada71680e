"""Checks of small files: types, ranges, messages (schema, formats)."""

import math

import pytest

from asjax.config import AsjaxError
from asjax.store import formats, schema

CHECK = schema.mapping(
    {"name": schema.text(r"\w+", 10, "a word")},
    {
        "n": schema.integer(1, 10),
        "s": schema.number(0, 2.5),
        "on": schema.boolean,
        "rows": schema.list_of(schema.optional(schema.integer(0, 9)), 3),
        "more": schema.mapping({}, {"deep": schema.integer(0, 1)}),
    },
)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, None),
        ({"n": 1, "s": 2.5, "on": False, "rows": [1, None], "other": [{"x": 1.5}]}, None),
        ({"name": 3}, "name must be a word, got 3"),
        ({"name": "two words"}, "name must be a word, got 'two words'"),
        ({"name": "x" * 11}, "name must be a word"),
        ({"n": 0}, "n must be an integer from 1 to 10, got 0"),
        ({"n": True}, "n must be an integer from 1 to 10, got True"),
        ({"n": 1.0}, "n must be an integer from 1 to 10, got 1.0"),
        ({"n": 10**400}, "got a huge integer"),
        ({"s": 0}, "s must be a number above 0 and up to 2.5, got 0"),
        ({"s": math.nan}, "s must be a number above 0 and up to 2.5, got nan"),
        ({"s": math.inf}, "s must be a number"),
        ({"on": 1}, "on must be true or false, got 1"),
        ({"rows": [1, 2, 3, 4]}, "rows must be a list of at most 3"),
        ({"rows": [1, "x"]}, r"rows[1] must be an integer from 0 to 9, got 'x'"),
        ({"rows": {}}, "rows must be a list"),
        ({"more": {"deep": 5}}, "more.deep must be an integer from 0 to 1, got 5"),
        ({"a\x1b[31m\n": {"x": math.nan}}, "'a\\x1b[31m\\n' must be finite, got nan"),
        ({"other": 2**70}, "other must be a number of at most 9,223,372,036,854,775,808"),
        ({"other": "x" * 10_000}, None),
    ],
)
def test_the_first_trouble_is_named_by_its_place(more, says):
    trouble = CHECK({"name": "x", **more})
    if says is None:
        assert trouble is None
    else:
        assert says in str(trouble)
        assert len(str(trouble)) < 300


def test_other_things_than_objects_and_missing_fields():
    assert str(CHECK([])) == "must be an object {...}, got []"
    assert str(CHECK({})) == "needs the field 'name'"
    assert str(schema.mapping({"a": CHECK})({"a": {}})) == "a needs the field 'name'"


def test_depth_is_bounded_whatever_checks_it():
    value = 0
    for _ in range(900):
        value = {"x": value}
    for check in (schema.plain, schema.loose, schema.sized(5)):
        assert "nested too deep" in str(check(value))
    assert schema.loose({"x": [math.nan, math.inf]}) is None
    assert str(schema.sized(5)([6])) == "must be a number of at most 5, got 6"
    assert "1,000 items" in str(schema.sized(5)([0] * 1001))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "cannot be read: Expecting value"),
        (b"{", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[" * 200_000, "nested too deep"),
        (b"9" * 5000, "cannot be read: Exceeds the limit"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "its field 'c' occurs twice"),
        (b'"' + b"x" * 200 + b'"', "it has 202 bytes, the limit is 100"),
    ],
)
def test_a_file_that_is_no_json_is_one_line(raw, says, tmp_path):
    (tmp_path / "x.json").write_bytes(raw)
    with pytest.raises(AsjaxError, match=says) as caught:
        schema.read_json(tmp_path / "x.json", 100 if b"x" in raw else schema.MAX_BYTES)
    assert "\n" not in str(caught.value)
    with pytest.raises(AsjaxError, match="No such file"):
        schema.read_json(tmp_path / "gone.json")


def test_configs_of_a_hub_and_of_newer_versions_pass():
    """Unknown fields are ignored."""
    cfg = {
        "model": {"name": "cnn", "variant": "mini", "num_classes": 3, "new": [1, "x", None]},
        "frontend": "panns_logmel64",
        "data": {"sample_rate": 32_000, "clip_s": 10, "train": None, "eval": {"name": "esc10"}},
        "optim": {"name": "adam", "clip_norm": math.inf},
        "model_type": "asjax",
        "id2label": {"0": "x"},
    }
    assert formats.CONFIG(cfg) is None
