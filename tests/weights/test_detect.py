"""The model of a checkpoint is found from its names and shapes."""

import numpy as np
import parity_table
import pytest
from checkpoints import shaped

from asjax.config import AsjaxError
from asjax.weights import detect


@pytest.mark.parametrize(
    ("family", "variant", "fields"),
    [
        ("cnn", "cnn6", {}),
        ("cnn", "cnn14_mel32", {}),
        ("cnn", "cnn14_decision_att", {"num_classes": 50}),
        ("resnet", "resnet22", {}),
        ("wavegram", "wavegram_logmel_cnn14", {}),
        ("convnext", "femto", {"num_classes": 200}),
        ("convnext", "tiny", {"stem": "56"}),
        ("passt", "passt_s", {"stride": 16, "num_classes": 20}),
        ("passt", "passt_l", {}),
        ("passt", "passt_s_hop100", {}),
        ("ast", "tiny224", {"stride": 16}),
        ("ced", "ced_mini", {}),
        ("mobilenet", "mn04", {"num_classes": 3}),
        ("efficientnet", "effnet_b2", {}),
    ],
)
def test_family_variant_and_fields_are_found(family, variant, fields):
    found = detect.detect(shaped(family, variant, **fields))
    assert (found.family, found.variant, found.fields) == (family, variant, fields)


def test_hugging_face_s_names_tell_the_other_epsilon():
    manifest, _ = parity_table.load("hf_ast_base_128x256")
    state = {
        name: np.broadcast_to(np.float32(0), shape) for name, shape, *_ in manifest["state_dict"]
    }
    found = detect.detect(state, frames=256)
    assert found.variant == "base384_hf"


@pytest.mark.parametrize(
    ("family", "variant", "message"),
    [
        (
            "cnn",
            "cnn14",
            "fit several models: cnn cnn14; cnn cnn14_16k; .* choose one by --variant",
        ),
        ("passt", "passt_s_20s", "passt passt_s_20s; passt passt_s_hop160; choose"),
    ],
)
def test_what_shapes_cannot_tell_must_be_given(family, variant, message):
    state = shaped(family, variant)
    with pytest.raises(AsjaxError, match=message):
        detect.detect(state)
    assert detect.detect(state, family, variant).variant == variant


def test_variants_that_differ_in_training_only_are_one():
    assert detect.detect(shaped("passt", "passt_u")).variant == "passt_s"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"a.b": np.zeros(3)}, r"no model family knows these names \(a.b, ...\)"),
        (
            lambda s: {**s, "fc2.weight": np.zeros(3)},
            "nearest family is cnn, .* 1 of them: fc2",
        ),
        (
            lambda s: {**s, "fc1.bias": np.zeros(3)},
            "the names belong to cnn, but no variant has",
        ),
    ],
)
def test_what_fits_nothing_says_what_is_nearest(change, message):
    with pytest.raises(AsjaxError, match=message):
        detect.detect(change(shaped("cnn", "cnn6")))


@pytest.mark.parametrize(
    ("variant", "fields"),
    [
        ("crnn", {"width": 512}),
        ("crnn_mini", {"width": 96, "pooling": "linear_softmax", "num_classes": 10}),
        ("crnn_big", {"pooling": "linear_softmax"}),
        ("cnn_transformer", {"width": 256, "num_classes": 3}),
    ],
)
def test_talnet_s_width_blocks_and_absent_attention_are_found(variant, fields):
    found = detect.detect(shaped("talnet", variant, **fields))
    assert (found.family, found.variant, found.fields) == ("talnet", variant, fields)
