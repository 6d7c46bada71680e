"""Files of frame models as their authors write them, read by `asjax port` and as a start.

Each form has small weights under the authors' names, next to what their training code saves with
them: options, optimiser, heads of the pre-training. asjax/models/README.md names the forms.
"""

import jax
import numpy as np
import pytest
import torch_writer
from checkpoints import weights
from torch_writer import Namespace

from asjax import __main__, models
from asjax.store import files, model_dir
from asjax.weights import locate, port

FAMILIES = {
    "atst_frame": dict(width=32, heads=2, depth=2),
    "beats": dict(
        width=32, heads=2, depth=2, patch_width=16, position_taps=8, position_groups=2, buckets=16,
    ),
    "fpasst": dict(width=32, heads=2, depth=2),
    "m2d": dict(width=32, heads=2, depth=2),
    "asit": dict(width=32, heads=2, depth=2),
    "frame_mn": dict(width=0.1),
}  # fmt: skip
VARIANT = {name: f"{name}_base" for name in FAMILIES} | {"frame_mn": "frame_mn06"}
# prefix in PretrainedSED's module, prefix in its published files
PREFIXES = {
    "atst_frame": ("model.atst.", "model.atst."),
    "beats": ("model.beats.", "model.model."),
    "fpasst": ("model.fpasst.", "model."),
    "m2d": ("model.m2d.", "model."),
    "asit": ("model.asit.", "model."),
    "frame_mn": ("model.frame_mn.", "model.frame_mn."),
}
every = pytest.mark.parametrize("family", FAMILIES)


def under(names: dict, old: str, new: str) -> dict:
    """Replace the prefix `old` of names by `new`; other names stay."""
    return {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in names.items()}


def options(family: str) -> list[str]:
    """The options of `asjax port` that tell the small sizes."""
    given = [f"--field={k}={v}" for k, v in FAMILIES[family].items()]
    return [f"--family={family}", f"--variant={VARIANT[family]}", *given]


def old_norm(names: dict) -> dict:
    """Torch's older names of weight normalisation."""
    old = {"original0": "weight_g", "original1": "weight_v"}
    for new, word in old.items():
        names = {k.replace(f"parametrizations.weight.{new}", word): v for k, v in names.items()}
    return names


@every
def test_a_trained_detector_is_ported_and_exported_without_a_changed_number(
    family, tmp_path, capsys
):
    fields = dict(sequence="gru", sequence_width=8, num_classes=447)
    names = weights(family, VARIANT[family], **FAMILIES[family], **fields)
    on_disk = under(names, *PREFIXES[family])
    if family == "beats":
        assert old_norm(on_disk) != on_disk
        on_disk = old_norm(on_disk)
    if family == "m2d":  # its files have the buffers of the features
        on_disk["model.to_spec.mel_basis"] = np.zeros((80, 201), np.float32)
    torch_writer.save(on_disk, tmp_path / "x.pt")
    to = tmp_path / "model"
    assert __main__.main(["port", str(tmp_path / "x.pt"), f"--to={to}", *options(family)]) == 0
    assert "447 classes" in capsys.readouterr().out
    cfg, label_set, variables, _ = model_dir.load_model(to)
    assert label_set.name == "audioset_strong447"
    assert {k: cfg["model"][k] for k in fields} == fields
    back = port.to_torch(family, variables)
    assert set(back) == set(names)
    for name, array in names.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
    assert __main__.main(["export", str(to), f"--safetensors={tmp_path / 'x.safetensors'}"]) == 0
    again = files.read_safetensors(tmp_path / "x.safetensors")
    for name, array in names.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"frame_mn"}))
def test_the_teachers_of_the_paper_load_at_full_size_by_one_call(family):
    """specs: `from_torch(family, variant, state_dict, num_classes=447, sequence="gru", ...)`."""
    fields = dict(
        num_classes=447, sequence="gru", sequence_width=1024 if family == "fpasst" else 2048
    )
    shapes = models.abstract(models.build(family, VARIANT[family], **fields))
    zeros = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes)
    names = under(port.to_torch(family, zeros), *PREFIXES[family])
    match = port.match(family, VARIANT[family], names, **fields)
    assert len(match.matched) == len(names) - (11 if family == "beats" else 0)  # tied tables
    assert not match.skipped
    assert {k: tuple(v.shape) for k, v in match.arrays.items()} == {
        "/".join(str(p.key) for p in path): s.shape
        for path, s in jax.tree_util.tree_leaves_with_path(shapes)
    }


# ------------------------------------------------------------------------------------ originals


def lightning(names: dict) -> dict:
    """What Lightning saves around a state dict."""
    states = {0: {"step": 3, "exp_avg": np.ones(2, np.float32)}}
    return {
        "epoch": 4, "global_step": 100, "pytorch-lightning_version": "1.7.7", "state_dict": names,
        "callbacks": {}, "optimizer_states": [{"state": states, "param_groups": [{"lr": 1}]}],
        "lr_schedulers": [], "hyper_parameters": {"arch": "base", "n_mels": 64, "spec_h": None},
    }  # fmt: skip


def other(names: dict) -> dict:
    """Other numbers under the same names: a student's."""
    return {k: v + 1 for k, v in names.items()}


def _atst_pretraining(x):
    linear = {"projector.mlp.0.weight": np.ones((4, 32)), "projector.mlp.0.bias": np.ones(4)}
    student = {f"model.student.encoder.{k}": v for k, v in other(x).items()}
    student |= {f"model.student.{k}": v for k, v in linear.items()}
    student["model.student.predictor.mlp.0.weight"] = np.ones((4, 4))
    teacher = {f"model.teacher.encoder.{k}": v for k, v in x.items()}
    return lightning(student | teacher | {f"model.teacher.{k}": v for k, v in linear.items()})


def _atst_finetuned(x):
    names = {f"encoder.encoder.{k}": v for k, v in x.items()}
    return lightning(
        names | {"head.linear.weight": np.ones((407, 32)), "head.linear.bias": np.ones(407)}
    )


def _beats(x):
    return {"cfg": {"encoder_layers": 2, "layer_norm_first": False}, "model": old_norm(x)}


def _without_stats(x):
    return {k: v for k, v in x.items() if k != "norm_stats"}


def _m2d_evar(x):
    names = {f"module.ar.runtime.backbone.{k}": v for k, v in x.items()}
    return names | {
        "module.head.mlp.0.weight": np.ones((527, 160)),
        "module.head.mlp.0.bias": np.ones(527),
    }


def _m2d_clap(x):
    extra = {"audio_proj.0.weight": np.ones((2, 32)), "logit_scale": np.ones(()),
             "decoder_embed.weight": np.ones((2, 32))}  # fmt: skip
    return {"model": x | extra, "epoch": 300, "args": Namespace(input_size=[80, 1001])}


def _asit(x):
    heads = {"head_cls.mlp.0.weight": np.ones((2, 32)), "head_recons.convTrans.bias": np.ones(1)}
    student = {f"module.backbone.{k}": v for k, v in other(x).items()}
    student |= {f"module.{k}": v for k, v in heads.items()}
    return {
        "student": student, "teacher": {f"backbone.{k}": v for k, v in x.items()} | heads,
        "optimizer": {"state": {}, "param_groups": []}, "epoch": 3, "args": Namespace(lr=1),
        "fp16_scaler": None,
    }  # fmt: skip


ORIGINALS = {
    "ATST's Lightning file of the pre-training": ("atst_frame", "model.atst.", _atst_pretraining),
    "audiossl's fine-tuned ATST": ("atst_frame", "model.atst.", _atst_finetuned),
    "BEATs' own pre-trained file": ("beats", "model.beats.", _beats),
    "M2D, bare": ("m2d", "model.m2d.backbone.", dict),
    "M2D without norm_stats": ("m2d", "model.m2d.backbone.", _without_stats),
    "M2D with its decoder and CLAP": ("m2d", "model.m2d.backbone.", _m2d_clap),
    "M2D fine-tuned in EVAR": ("m2d", "model.m2d.backbone.", _m2d_evar),
    "ASiT's pre-training": ("asit", "model.asit.", _asit),
    "PretrainedSED's fPaSST alone": ("fpasst", "model.fpasst.", dict),
    "PretrainedSED's Frame-MobileNet alone": ("frame_mn", "model.frame_mn.", dict),
}


def original(form: str, path):
    """Write the file of a form; returns (family, names of PretrainedSED's backbone)."""
    family, prefix, wrapped = ORIGINALS[form]
    names = weights(family, VARIANT[family], **FAMILIES[family], num_classes=0)
    if family == "m2d":
        names[f"{prefix}norm_stats"] = np.array([-7.1, 4.2], np.float32)
    value = wrapped({k.removeprefix(prefix): v for k, v in names.items()})
    torch_writer.save_whole(value, path)
    return family, names


@pytest.mark.parametrize("form", ORIGINALS)
def test_the_bare_backbone_of_an_original_file_is_a_start(form, tmp_path):
    family, names = original(form, tmp_path / "x.pth")
    given = locate.read_weights(tmp_path / "x.pth", family)
    _, variables = port.from_torch(
        family, VARIANT[family], given, **FAMILIES[family], num_classes=0
    )
    back = port.to_torch(family, variables)
    assert set(back) == set(names)
    for name, array in names.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


@pytest.mark.parametrize("form", ORIGINALS)
def test_port_says_that_a_backbone_is_no_tagger(form, tmp_path, capsys):
    family, _ = original(form, tmp_path / "x.pth")
    command = ["port", str(tmp_path / "x.pth"), f"--to={tmp_path / 'm'}", *options(family)]
    assert __main__.main(command) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert f"{family} without a head, so not a tagger" in error or "--head=" in error, error
    assert not (tmp_path / "m").exists()
