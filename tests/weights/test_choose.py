"""The model in files in users' formats. Cases that users reported, 25 November 2026 (CC0)."""

import functools

import numpy as np
import pytest
from checkpoints import weights

from asjax.config import AsjaxError
from asjax.weights import choose


@functools.cache
def cnn(classes=12, seed=0):
    found = weights("cnn", "mini", num_classes=classes)
    return {k: v + seed for k, v in found.items()}


@functools.cache
def mn01():
    return {k: v.astype(np.float16) for k, v in weights("mobilenet", "mn01", num_classes=5).items()}


def under(prefix, arrays):
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def chosen(value, **more):
    """`choose` with given family and variant, because finding these takes seconds."""
    return choose.choose(value, family="cnn", variant="mini", **more)


OPTIMIZER = {
    "state": {i: {"step": np.float32(3), "exp_avg": np.ones(4), "exp_avg_sq": np.ones(4)}
              for i in range(60)},
    "param_groups": [{"lr": 1e-3, "params": list(range(60))}],
}  # fmt: skip


# --------------------------------------------------------------------------------- the cases


@pytest.mark.parametrize(
    ("wrap", "prefix", "others", "outside"),
    [
        (lambda w: under("_orig_mod", w), "", [], set()),
        (
            lambda w: {
                "epoch": 4,
                "pytorch-lightning_version": "1.3.1",
                "callbacks": {},
                "optimizer_states": [OPTIMIZER],
                "state_dict": {
                    **under("net", w), **under("net_swa", w), "mel.window": np.ones(8, np.float32)
                },
            },
            "state_dict.net", ["state_dict.net_swa"], {"state_dict.mel.window"},
        ),
        (
            lambda w: {"epoch": 3, "model_state_dict": w, "optimizer_state_dict": OPTIMIZER,
                       "loss": np.float64(0.3)},
            "model_state_dict", [], {"loss"},
        ),
    ],
    ids=["compiled.pt", "lightning_net_and_swa.ckpt", "model_state_dict.pt"],
)  # fmt: skip
def test_cases_of_the_field_are_mobilenet_mn01_of_five_classes(wrap, prefix, others, outside):
    done = choose.choose(wrap(mn01()))
    assert str(done.found) == "mobilenet mn01 (num_classes=5)"
    assert done.part.prefix == prefix
    assert [part.prefix for part in done.others] == others
    assert outside <= set(done.outside)
    assert done.weights.keys() == mn01().keys()
    assert all(done.weights[name] is array for name, array in mn01().items())


def transfer(classes=10, **more):
    rng = np.random.default_rng(0)
    layer = {
        "fc_transfer.weight": rng.normal(size=(classes, 128)).astype("f4"),
        "fc_transfer.bias": rng.normal(size=classes).astype("f4"),
    }
    return {**under("base", cnn()), **layer, **more}


def test_panns_transfer_takes_the_layer_of_the_new_classes():
    done = choose.choose({"iteration": 2000, "model": transfer()})
    assert str(done.found) == "cnn mini (num_classes=10)"
    assert done.head == ("model.fc_transfer", "fc_audioset")
    np.testing.assert_array_equal(
        done.weights["fc_audioset.weight"], transfer()["fc_transfer.weight"]
    )
    assert done.weights["fc1.weight"] is cnn()["fc1.weight"]
    assert done.outside == {}


# ------------------------------------------------------------------------- others of the kind


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("state_dict", {"state_dict_ema": 1}), ("net", {"ema": 1}), ("params", {"params_ema": 1}),
        ("weights", {"optimizer": OPTIMIZER}), ("model", {"model_ema": 1}),
        ("module", {"ds_config": {}, "ema": 1, "optimizer": None}),
    ],
)  # fmt: skip
def test_wrappers_by_any_name_and_averages_beside_them(key, more):
    averages = {k: cnn(seed=1) if v == 1 else v for k, v in more.items()}
    for value in ({key: cnn(), **averages}, {**averages, key: cnn()}):
        done = chosen(value)
        assert done.part.prefix == key
        assert done.weights["fc1.bias"] is cnn()["fc1.bias"]
        assert [p.prefix for p in done.others] == [k for k, v in more.items() if v == 1]
    for name in (k for k, v in more.items() if v == 1):
        done = chosen(value, prefix=name)
        assert done.part.prefix == name
        assert done.weights["fc1.bias"] is cnn(seed=1)["fc1.bias"]


def test_an_average_alone_is_taken():
    assert chosen({"ema": cnn()}).part.prefix == "ema"
    assert chosen({"n_averaged": np.array(5), **under("module", cnn())}).part.prefix == ""


def test_lightning_with_an_attribute_of_its_own_and_metrics():
    state = {
        **under("tagger.backbone", cnn()),
        "val_map.preds": np.ones(3),
        "loss.pos_weight": np.ones(12),
    }
    done = chosen({"state_dict": state})
    assert done.part.prefix == "state_dict.tagger.backbone"
    assert set(done.outside) == {"state_dict.val_map.preds", "state_dict.loss.pos_weight"}


def test_two_models_that_are_no_averages_must_be_chosen_from():
    value = {"state_dict": cnn(), "best_state_dict": cnn(seed=1)}
    with pytest.raises(AsjaxError, match="several models: state_dict .*best_state_dict .*--prefix"):
        chosen(value)
    assert chosen(value, prefix="best_state_dict").part.prefix == "best_state_dict"


def test_a_teacher_of_another_family_is_named_and_not_taken():
    value = {**under("student", mn01()), **under("teacher", cnn())}
    done = choose.choose(value)
    assert done.part.prefix == "student"
    assert [p.prefix for p in done.others] == ["teacher"]
    assert choose.choose(value, prefix="teacher", variant="mini").found.family == "cnn"


# ------------------------------------------------------------------------------------ heads


def test_a_backbone_whose_own_head_is_gone_takes_the_one_beside_it():
    value = transfer(7)
    value = {k: v for k, v in value.items() if "fc_audioset" not in k}
    done = chosen(value)
    assert done.found.fields == {"num_classes": 7}
    assert done.head == ("fc_transfer", "fc_audioset")


def test_a_head_without_a_bias_has_zeros_there():
    value = {k: v for k, v in transfer().items() if k != "fc_transfer.bias"}
    assert not np.any(chosen(value).weights["fc_audioset.bias"])


def test_the_models_own_head_can_be_kept():
    done = chosen(transfer(), head="own")
    assert done.head is None
    assert done.found.fields == {"num_classes": 12}
    assert set(done.outside) == {"fc_transfer.weight", "fc_transfer.bias"}


def test_a_head_may_lie_in_a_map_of_its_own_and_be_called_anything():
    layer = {"weight": np.ones((4, 128), np.float32), "bias": np.ones(4, np.float32)}
    assert chosen({"backbone": cnn(), "classifier": layer}).found.fields == {"num_classes": 4}
    value = {"backbone": cnn(), "zebra": layer}
    assert chosen(value).head is None
    assert chosen(value, head="zebra").head == ("zebra", "fc_audioset")
    with pytest.raises(AsjaxError, match="head 'zibra' does not exist; did you mean 'zebra'"):
        chosen(value, head="zibra")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"classifier.weight": np.ones((3, 128))},
            "2 layers outside the cnn model could be its head",
        ),
        ({"proj.0.weight": np.ones((64, 128))}, "layers that this model does not know: proj.0"),
        ({"conv.weight": np.ones((3, 128, 3))}, "layers that this model does not know: conv"),
    ],
)
def test_layers_beside_the_model_are_not_lost_in_silence(more, says):
    with pytest.raises(AsjaxError, match=says) as caught:
        chosen(transfer(**more))
    assert "--head=own" in str(caught.value)
    assert chosen(transfer(**more), head="own").head is None
    assert chosen(transfer(**more), head="fc_transfer").head if "classifier" in says else True


def test_a_head_of_several_layers_is_an_error():
    rng = np.random.default_rng(0)
    head = {f"head.{i}.weight": rng.normal(size=s) for i, s in ((0, (64, 128)), (2, (5, 64)))}
    with pytest.raises(AsjaxError, match="does not know: head.0 .*, head.2 "):
        chosen({**under("net", cnn()), **head})


# ----------------------------------------------------------------------------------- errors


def test_what_fits_nothing_says_where_it_looked():
    with pytest.raises(AsjaxError, match=r"no model family knows these names \(x.0"):
        choose.choose({"optimizer": OPTIMIZER, "sd": {f"x.{i}": np.ones(2) for i in range(200)}})
    odd = {**cnn(), "fc2.weight": np.ones(3)}
    with pytest.raises(AsjaxError, match="state_dict.net: .*nearest family is cnn.* fc2"):
        choose.choose({"state_dict": under("net", odd)})
    with pytest.raises(AsjaxError, match="did you mean 'cnn'"):
        choose.choose(cnn(), family="cnm")


def test_hints_hold_unless_the_weights_say_otherwise():
    done = chosen(cnn(), hints={"n_mels": 64, "layers": 5, "head_bias": 0.5})
    assert done.found.fields == {"num_classes": 12, "head_bias": 0.5}
    assert done.hints == {}
    done = chosen(cnn(), hints={"n_mels": 128})
    assert done.hints == {"n_mels": 128}
    assert done.found.fields == {"num_classes": 12}


def test_the_part_of_a_family_is_found_by_names_alone():
    value = {"model": under("net", cnn()), "optimizer": OPTIMIZER}
    assert choose.by_names(value, "cnn").keys() == cnn().keys()
