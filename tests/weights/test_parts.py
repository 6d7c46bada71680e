"""Which arrays of a file belong together: wrappers, prefixes, averages, tables."""

import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.weights import parts
from asjax.weights.torch_values import Inert

ARRAYS = {
    "a.weight": np.ones((2, 3)),
    "a.bias": np.zeros(2),
    "b.weight": np.ones(3),
    "b.bias": np.zeros(3),
}
MOMENTS = {"state": {0: {"exp_avg": 1, "exp_avg_sq": 2}}}
MANY = {f"optimizer.{i}": {f"m{j}": j for j in range(9)} for i in range(9)}


def knows(weights):
    """A family with the names above."""
    return [name for name in weights if name not in ARRAYS]


def under(prefix, arrays=ARRAYS):
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        (ARRAYS, ""),
        (under("module"), ""),
        (under("_orig_mod"), ""),
        (under("_orig_mod.module"), ""),
        (under("module._orig_mod.module"), ""),
        (under("net"), "net"),
        (under("net._orig_mod"), "net"),
        (under("my_own.attribute.of.mine"), "my_own.attribute.of.mine"),
        ({"a._orig_mod.weight": 1, "a.module.bias": 2, "b.weight": 3, "b.bias": 4}, ""),
        ({"state_dict": under("model"), "epoch": 3}, "state_dict.model"),
        ({"model_state_dict": ARRAYS, "loss": np.float64(0.5)}, "model_state_dict"),
        ({"module": ARRAYS, "ds_version": "0.9"}, ""),
        ({"n_averaged": np.array(7), **under("module")}, ""),
        ({"a": {"b": {"c": under("d")}}}, "a.b.c.d"),
        ({"model": {"a": {"weight": 1, "bias": 2}, "b": {"weight": 3, "bias": 4}}}, "model"),
        ([{"x": 1}, ARRAYS], "1"),
        ({"weights": ARRAYS, "optimizer": MOMENTS}, "weights"),
        ({"net": ARRAYS, **MANY}, "net"),
    ],
)  # fmt: skip
def test_the_part_whose_names_are_known_is_first(value, prefix):
    value = filled(value)
    best = parts.ranked(parts.flat(value), {"x": knows})[0]
    assert best.prefix == prefix
    assert set(best.places) == set(ARRAYS)
    assert best.strangers == []
    assert best.family == "x"
    arrays = parts.flat(value)
    assert all(place in arrays for place in best.places.values())


def filled(value):
    """Numbers as arrays."""
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item) for item in value]
    return np.full(2, value) if isinstance(value, int) else value


def test_equal_parts_are_both_there_and_a_stranger_counts_against_one():
    value = {"model": ARRAYS, "ema": ARRAYS, "odd": {**ARRAYS, "c.weight": np.ones(2)}}
    ranked = parts.ranked(parts.flat({k: dict(v) for k, v in value.items()}), {"x": knows})
    assert [part.prefix for part in ranked[:3]] == ["model", "ema", "odd"]
    assert ranked[2].strangers == ["c.weight"]


@pytest.mark.parametrize(
    "name",
    [
        "mel.window", "mel.mel_basis", "mel_transform.spectrogram.window", "melspec.mel_scale.fb",
        "spectrogram_extractor.stft.conv_real.weight", "n_averaged", "bn0.num_batches_tracked",
        "net.mel.preemphasis_coefficient", "feature_extractor.window",
    ],
)  # fmt: skip
def test_tables_beside_the_weights_do_not_confuse(name):
    assert parts.table(name)
    best = parts.ranked(parts.flat({**ARRAYS, name: np.ones(9)}), {"x": knows})[0]
    assert (best.prefix, best.strangers, set(best.places)) == ("", [], set(ARRAYS))


@pytest.mark.parametrize(
    "name", ["mel_proj.weight", "head.weight", "conv.bias", "fbank_net.0.bias"]
)
def test_layers_are_no_tables(name):
    assert not parts.table(name)


@pytest.mark.parametrize("word", ["net_swa", "model_ema", "ema", "state_dict_ema", "teacher.net",
                                  "averaged_model", "shadow", "target_encoder"])  # fmt: skip
def test_averages_are_told_by_their_names(word):
    assert parts.averaged(word)
    assert not parts.averaged("state_dict.net.emasculate.swan")


def test_a_prefix_may_be_given_whole_or_by_its_end():
    arrays = parts.flat({"state_dict": {**under("net"), **under("net_swa")}, "ema": under("net")})
    assert parts.named(arrays, "net_swa") == "state_dict.net_swa"
    assert parts.named(arrays, "state_dict.net.") == "state_dict.net"
    assert parts.named(arrays, "ema") == "ema"
    with pytest.raises(AsjaxError, match="prefix net may be state_dict.net or ema.net"):
        parts.named(arrays, "net")
    with pytest.raises(AsjaxError, match="prefix 'ne' does not exist.*Known: ema, "):
        parts.named(arrays, "ne")


@pytest.mark.parametrize(
    "value", [None, 3, "text", [1], {}, {"epoch": 1}, {"model": {}}, {"x": "text"}, Inert("a.B")]
)
def test_what_holds_no_arrays_is_an_error(value):
    for read in (parts.flat, parts.plain):
        with pytest.raises(AsjaxError, match="must map names to arrays"):
            read(value)


def test_maps_that_hold_themselves_or_are_deep_end():
    value = {"model": dict(ARRAYS)}
    value["model"]["again"] = value
    deep = at = {}
    for _ in range(1000):
        at["x"] = {}
        at = at["x"]
    value["deep"] = deep
    assert set(parts.plain(value)) == set(ARRAYS)
    assert set(parts.flat(value)) == {f"model.{name}" for name in ARRAYS}


def test_two_arrays_of_one_name_are_an_error():
    with pytest.raises(AsjaxError, match="two arrays of the checkpoint are called a.b.c"):
        parts.flat({"a": {"b.c": np.ones(2)}, "a.b": {"c": np.ones(2)}})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"model": w, "iteration": 5},
        lambda w: {"state_dict": w, "hyper_parameters": {"lr": 1.0}, "epoch": 3},
        lambda w: {"epoch": 1, "model": {"state_dict": w}},
        lambda w: {f"module.{k}": v for k, v in w.items()},
        lambda w: {"model": {f"module.module.{k}": v for k, v in w.items()}},
        lambda w: {**w, "version": "1", "note": None},
        lambda w: {"optimizer": {i: {"m": 1.0, "v": np.ones(3)} for i in range(50)}, "net": w},
        lambda w: {"ema": dict(w), "model": w},
    ],
)
def test_without_a_family_the_largest_map_is_taken(wrap):
    """Image models for a start: no family has their names."""
    value = wrap({k: v.copy() for k, v in ARRAYS.items()})
    assert parts.plain(value).keys() == ARRAYS.keys()
    if "model" in value and "ema" in value:
        assert parts.plain(value)["a.weight"] is value["model"]["a.weight"]
