"""Splits by name, against a table written by hand."""

import pytest

from asjax.config import AsjaxError
from asjax.own import splits


def roles(*names, **more):
    fields, _ = splits.divide(dict.fromkeys(names, 10), **more)
    return {role: one["splits"] for role, one in fields.items()}


@pytest.mark.parametrize(
    ("names", "train", "choose", "test"),
    [
        (("train", "dev", "test"), "train", "dev", "test"),
        (("train", "val"), "train", "val", None),
        (("Train", "Valid", "Test"), "Train", "Valid", "Test"),
        (("training", "validation", "testing"), "training", "validation", "testing"),
        (("train", "eval"), "train", "eval", None),
        (("train", "val", "eval"), "train", "val", "eval"),  # FSD50K after its own split
        (("train", "eval", "test"), "train", "eval", "test"),
        (("fold1", "fold2"), "fold1", "fold2", None),
        (("fold3", "fold1", "fold2"), "fold1", "fold2", "fold3"),
        (("train", "dev", "test", "unlabelled"), "train", "dev", "test"),
    ],
)
def test_usual_names(names, train, choose, test):
    want = {"train": [train], "eval": [choose], **({"test": [test]} if test else {})}
    assert roles(*names) == want


def test_ten_folds_are_ordered_by_number():
    got = roles(*(f"fold{i}" for i in range(10, 0, -1)))
    assert got["train"] == [f"fold{i}" for i in range(1, 9)]
    assert (got["eval"], got["test"]) == (["fold9"], ["fold10"])


@pytest.mark.parametrize(
    ("names", "of", "test"),
    [
        (("train",), None, None),
        (("train", "test"), ["train"], "test"),
        (("dev", "eval"), ["dev"], "eval"),
    ],
)
def test_a_fifth_of_the_training_split_is_held_out(names, of, test):
    fields, why = splits.divide(dict.fromkeys(names, 100))
    word = "part" if of else "fold"
    again = {"folds": 5, **({"of": of} if of else {})}
    assert fields["train"] == {**again, "splits": [f"{word}{i}" for i in (1, 2, 3, 4)]}
    assert fields["eval"] == {**again, "splits": [f"{word}5"]}
    assert fields.get("test") == ({"splits": [test]} if test else None)
    assert "1 in 5" in why


def test_few_recordings_and_the_users_own_splits():
    assert splits.divide({"train": 3})[0]["eval"] == {"folds": 3, "splits": ["fold3"]}
    assert splits.divide({"a": 9}, within=["a"])[0]["eval"]["of"] == ["a"]
    with pytest.raises(AsjaxError, match="single recording"):
        splits.divide({"train": 1})


@pytest.mark.parametrize(
    "names", [("a", "b"), ("train", "b"), ("val", "x"), ("dev", "val", "train")]
)
def test_unknown_names_ask_for_splits(names):
    with pytest.raises(AsjaxError, match="--splits train=NAME"):
        roles(*names)


def test_the_user_overrules():
    assert roles("a", "b", "c", wanted=splits.parse("train=a+b, eval=c")) == {
        "train": ["a", "b"],
        "eval": ["c"],
    }
    for text in ("eval=c", "train", "train=", "tain=a", "train=a,eval"):
        with pytest.raises(AsjaxError, match="--splits"):
            splits.parse(text)
