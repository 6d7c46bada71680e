"""Published detectors: rows, and files with their names and shapes in torch's format."""

import numpy as np
import pytest
import soundfile
import torch_writer
from checkpoints import RNG, shaped, weights

from asjax import labels, models, predict
from asjax.config import AsjaxError
from asjax.weights import (
    convert,
    detect,
    locate,
    port,
    published,
    published_detectors,
    published_row,
)

ROWS = {row.name: row for row in (*published.ROWS, *published.STARTS)}
SED = [row for row in ROWS.values() if "PretrainedSED" in "".join(row.urls)]
# prefix in PretrainedSED's module, and prefix in its files for the rows' `keys`
MODULES = {
    "atst_frame": "model.atst.", "beats": "model.beats.", "fpasst": "model.fpasst.",
    "m2d": "model.m2d.", "asit": "model.asit.", "frame_mn": "model.frame_mn.",
}  # fmt: skip


def on_disk(row, names):
    """The names of the module as in the file."""
    first = MODULES[row.family]
    return {row.keys + k.removeprefix(first) if k.startswith(first) else k: v
            for k, v in names.items()}  # fmt: skip


def test_the_specifications_rows_are_there():
    for name in ("ATST-F", "BEATs", "fpasst", "M2D", "ASIT"):
        for stage in ("ssl", "weak", "strong_1"):
            row = ROWS[f"{name}_{stage}"]
            assert row.file == f"{name}_{stage}.pt"
            assert row.urls[0].endswith(f"/PretrainedSED/releases/download/v0.0.1/{row.file}")
            assert row.variant in models.family(row.family).VARIANTS
    scores = {name: ROWS[f"{name}_strong_1"].score for name in ("ATST-F", "BEATs", "frame_mn10")}
    assert scores == {"ATST-F": "PSDS1 .458", "BEATs": "PSDS1 .465", "frame_mn10": "PSDS1 .4326"}
    assert len(SED) == 17
    assert {"beats_iter3_plus_as2m", "atstframe_base", "asit_as2m"} <= set(ROWS)
    assert {row.family for row in published_detectors.BACKBONES} == set(MODULES) - {"frame_mn"}
    assert all(type(row) is published_row.Row for row in published_detectors.DETECTORS)


@pytest.mark.parametrize("row", SED, ids=[row.name for row in SED])
def test_a_file_of_these_names_and_shapes_is_found_and_fits(row):
    strong = "strong" in row.name
    names = on_disk(row, shaped(row.family, row.variant, num_classes=447 if strong else 0))
    if row.family == "m2d":  # buffers in its files
        names["model.to_spec.mel_basis"] = np.zeros((80, 201), np.float32)
    assert row.keys == MODULES[row.family] or not set(names) & set(
        shaped(row.family, row.variant, num_classes=0)
    )
    found = detect.detect(names)
    assert (found.family, found.variant) == (row.family, row.variant)
    assert found.fields == dict(num_classes=447 if strong else 0)
    match = port.match(row.family, row.variant, names, **found.fields)
    assert len(match.matched) + len(match.skipped) >= len(names) - 11  # BEATs' tied tables


def test_a_detectors_file_becomes_a_model_and_tags(tmp_path):
    row = ROWS["frame_mn06_strong_1"]
    names = weights(row.family, row.variant, num_classes=447)
    torch_writer.save(on_disk(row, names), tmp_path / row.file)
    done = convert.convert(tmp_path / row.file, tmp_path / "model")
    assert done["row"] is row
    assert len(done["label_set"]) == 447
    assert done["clip_s"] == 10
    assert done["frontend"] == {"name": "frame_mn_mel128"}
    wave = RNG.standard_normal(8_000).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "x.wav", wave, 16_000, subtype="FLOAT")
    tags = predict.load(tmp_path / "model")(str(tmp_path / "x.wav"))
    assert tags.clip.shape == (447,)
    assert np.isfinite(tags.logits).all()


def _beats_file(path, depth=1):
    """The authors' fine-tuned checkpoint {cfg, model, label_dict}, and the order of classes."""
    P = torch_writer.P
    fields = dict(num_classes=527, head="mean", frames=None, depth=depth, width=48, heads=4,
                  patch_width=32, position_taps=16, position_groups=4)  # fmt: skip
    names = weights("beats", "beats_base", **fields)
    bare = {
        k.removeprefix("model.beats.").replace("weak_head.", "predictor."): np.ascontiguousarray(v)
        for k, v in names.items()
    }
    mids = labels.get("audioset527").ids
    order = [mids[i] for i in np.random.default_rng(1).permutation(527)]
    entries = {k: torch_writer.entry(str(i), v) for i, (k, v) in enumerate(bare.items())}
    pairs = b"".join(P.number(i) + P.text(mid) for i, mid in enumerate(order))
    cfg = P.dict({"encoder_layers": P.number(depth), "finetuned_model": P.true})
    whole = {
        "cfg": cfg,
        "model": P.dict(entries),
        "label_dict": P.dict_ + P.mark + pairs + P.setitems,
    }
    storages = {str(i): v.tobytes() for i, v in enumerate(bare.values())}
    members = torch_writer.torch_members(P.whole(P.dict(whole)), storages)
    path.write_bytes(torch_writer.archive(members))
    return fields, bare, order


def test_beats_own_file_is_a_tagger_whose_classes_have_their_names(tmp_path):
    fields, bare, order = _beats_file(tmp_path / "beats.pt")
    done = convert.convert(
        tmp_path / "beats.pt", tmp_path / "model", family="beats", variant="beats_base",
        fields={k: v for k, v in fields.items() if k not in ("head", "frames", "num_classes")},
    )  # fmt: skip
    assert done["label_set"].name == "audioset527"
    fields = done["chosen"].found.fields
    assert (fields["head"], fields["frames"]) == ("mean", None)
    tagger = predict.load(tmp_path / "model")
    bias = np.asarray(tagger.variables["params"]["detector"]["weak_head"]["bias"])
    for i in (0, 100, 526):
        assert bias[tagger.label_set.index(order[i])] == bare["predictor.bias"][i]


def test_a_backbone_is_no_tagger_and_the_line_says_what_it_is_for(tmp_path):
    names = weights("frame_mn", "frame_mn06", num_classes=0)
    torch_writer.save(names, tmp_path / "x.pt")
    with pytest.raises(AsjaxError, match=r"without a head, .* init_from='backbone:.*x.pt'"):
        convert.convert(tmp_path / "x.pt", tmp_path / "m")
    torch_writer.save(names, tmp_path / "M2D_ssl.pt")
    with pytest.raises(AsjaxError, match="M2D_ssl is a backbone, .* init_from='backbone:M2D_ssl'"):
        convert.convert(tmp_path / "M2D_ssl.pt", tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("beats_iter3", "https://github.com/microsoft/unilm/tree/master/beats"),
        ("m2d_vit_base-80x200p16x4-230529", r"\.zip \(unpack it"),
    ],
)
def test_what_must_be_fetched_by_hand_says_where(name, place):
    with pytest.raises(AsjaxError, match=f"{name} must be fetched by hand from .*{place}"):
        locate.locate(name)
