"""Torch checkpoints: parity with every reference output, and one error that lists all misfits."""

import numpy as np
import parity_table
import pytest
import rule

from asjax.config import AsjaxError
from asjax.weights import port


@pytest.fixture(scope="module")
def weights():
    manifest, _ = parity_table.load("cnn6_mel")
    return rule.state_dict(manifest)


# Cases that take 8 s and more; a smaller case of the same family runs every time.
SLOW = {
    "ast_base384_128x1024_s10", "convnext_femto_stem56_mel", "convnext_nano_mel",
    "convnext_tiny_mel", "convnext_tiny_wave", "passt_s_s10_mel", "passt_s_s10_patchout_structured",
    "passt_s_s10_short_mel", "passt_s_s12_mel", "passt_s_s16_mel",
    "resnet50_att_128x1024", "sed_atst_clip_base", "sed_ced_base", "sed_effat_mn10",
    "sed_effat_mn40", "cnn14_wave", "resnet38_mel",
}  # fmt: skip
CASES = [
    pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else [])
    for case in parity_table.cases()
]


@pytest.mark.parametrize("case", CASES)
def test_every_output_equals_the_reference(case):
    errors = parity_table.errors(case)
    assert errors
    over = {k: v for k, v in errors.items() if not v <= parity_table.allowed(case, k)}
    assert not over, errors


def test_the_golden_folder_has_the_cases_of_this_issue():
    assert {"cnn6_mel", "convnext_femto_mel", "convnext_femto_stem56_mel"} <= set(
        parity_table.cases()
    )
    assert set(parity_table.cases()) >= SLOW


def test_wrappers_prefixes_and_frozen_tables_are_understood(weights):
    wrapped = {
        "iteration": 7,
        "model": {
            **{f"module.{k}": v for k, v in weights.items()},
            "module.spectrogram_extractor.stft.conv_real.weight": np.zeros((513, 1, 1024)),
            "module.logmel_extractor.melW": np.zeros((513, 64)),
        },
    }
    _, variables = port.from_torch("cnn", "cnn6", wrapped)
    kernel = variables["params"]["block1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(
        kernel[..., 0, :], weights["conv_block1.conv1.weight"][:, 0].transpose(1, 2, 0)
    )
    np.testing.assert_array_equal(
        variables["batch_stats"]["bn0"]["var"], weights["bn0.running_var"]
    )


def test_the_variables_do_not_share_memory_with_the_state_dict(weights):
    mine = {k: v.copy() for k, v in weights.items()}
    _, variables = port.from_torch("cnn", "cnn6", mine)
    mine["fc1.bias"][:] = 99
    assert float(variables["params"]["fc1"]["bias"].max()) < 1


def test_a_match_copies_nothing_and_accounts_for_every_entry(weights):
    state = {**weights, "bn0.num_batches_tracked": np.array(3), "logmel_extractor.melW": np.ones(2)}
    match = port.match("cnn", "cnn6", state)
    assert match.matched.keys() | match.skipped.keys() == state.keys()
    assert {why for _, why in match.skipped.values()} == {"counts batches", "not part of the model"}
    kernel = match.arrays["params/block1/conv1/kernel"]
    assert np.shares_memory(np.asarray(kernel), state["conv_block1.conv1.weight"])
    assert kernel.shape == np.asarray(kernel).shape
    _, variables = port.from_torch("cnn", "cnn6", weights)
    for path, leaf in match.arrays.items():
        at = variables
        for part in path.split("/"):
            at = at[part]
        np.testing.assert_array_equal(np.asarray(leaf), at)


def test_complex_numbers_are_no_weights(weights):
    with pytest.raises(AsjaxError, match="misshapen: fc1.bias .* holds no numbers"):
        port.from_torch("cnn", "cnn6", {**weights, "fc1.bias": np.zeros(512, np.complex64)})


def test_all_misfits_come_in_one_error(weights):
    broken = {
        **weights,
        "fc1.weight": np.zeros((512, 3), np.float32),
        "bn0.weight": np.array(["x"] * 64, object),
        "conv_block9.conv1.weight": np.zeros((3, 1, 5, 5)),
        "conv_block3.conv1.weight": np.zeros(3),
        "classifier": np.zeros(2),
        "conv_block1.conv2.weight": np.zeros((64, 64, 5, 5)),
    }
    del broken["conv_block2.conv1.weight"], broken["bn0.running_mean"]
    with pytest.raises(AsjaxError) as caught:
        port.from_torch("cnn", "cnn6", broken)
    text = str(caught.value)
    for piece in (
        "misshapen: fc1.weight (512, 3)",
        "misshapen: bn0.weight (64,) holds no numbers",
        "misshapen: conv_block3.conv1.weight (3,)",
        "unmatched: conv_block9.conv1.weight",
        "unmatched: classifier (2,)",
        "unmatched: conv_block1.conv2.weight",
        "missing: conv_block2.conv1.weight",
        "missing: bn0.running_mean",
    ):
        assert piece in text, piece
    assert "\n" not in text
    assert text.startswith("cnn cnn6: 10 entries do not fit")


def test_missing_entries_are_named_as_torch_names_them():
    manifest, _ = parity_table.load("convnext_femto_mel")
    names = [n for n, _, _ in manifest["state_dict"] if "num_batches" not in n]
    with pytest.raises(AsjaxError) as caught:
        port.from_torch("convnext", "femto", {"bn0.weight": np.ones(224)})
    for name in names[1:]:
        assert f"missing: {name} " in str(caught.value)


def test_a_checkpoint_of_other_classes_says_so(weights):
    with pytest.raises(AsjaxError, match="give num_classes"):
        port.from_torch("cnn", "cnn6", weights, num_classes=200)


@pytest.mark.parametrize("state", [None, {}, [1], {"model": {}}])
def test_what_is_no_state_dict_is_refused(state):
    with pytest.raises(AsjaxError, match="must map names to arrays"):
        port.from_torch("cnn", "cnn6", state)


def test_unknown_family_variant_and_field_list_the_known(weights):
    with pytest.raises(AsjaxError, match="did you mean .cnn.*Known: .*convnext"):
        port.from_torch("cnm", "cnn6", weights)
    with pytest.raises(AsjaxError, match="cnn6"):
        port.from_torch("cnn", "cnn7", weights)
    with pytest.raises(AsjaxError, match="num_classes"):
        port.from_torch("cnn", "cnn6", weights, classes=3)
