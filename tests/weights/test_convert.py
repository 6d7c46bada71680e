"""asjax port: from a checkpoint to a model folder and to tags."""

import jax
import numpy as np
import pytest
import safetensors.numpy
import soundfile
import torch_writer
from checkpoints import RNG, weights, with_tables

from asjax import frontends, labels, models, predict
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.store import files, model_dir
from asjax.weights import convert, port, published


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(path, state dict) of a small PANNs-like checkpoint of 527 classes."""
    found = with_tables(weights("cnn", "mini", num_classes=527))
    path = tmp_path_factory.mktemp("checkpoints") / "mini.pth"
    torch_writer.save(found, path)
    return path, found


@pytest.fixture(scope="module")
def ported(checkpoint, tmp_path_factory):
    to = tmp_path_factory.mktemp("ported") / "mini"
    return convert.convert(checkpoint[0], to)


# ------------------------------------------------------------------------------------- port


def test_the_tags_are_those_of_the_weights(checkpoint, ported, tmp_path):
    rate = 16_000
    wave = RNG.standard_normal(10 * rate).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "x.wav", wave, rate, subtype="FLOAT")
    tags = predict.load(ported["path"])(str(tmp_path / "x.wav"))
    module, variables = port.from_torch("cnn", "mini", checkpoint[1])
    frontend = frontends.build(**models.family("cnn").FRONTENDS["mini"])
    want = module.apply(variables, frontend(wave[None]), train=False)["logits"][0]
    np.testing.assert_allclose(tags.logits, want, rtol=1e-5, atol=1e-5)
    assert tags.label_set.name == "audioset527"
    assert main(["tag", str(tmp_path / "x.wav"), f"--model={ported['path']}", "--top=1"]) == 0


def test_the_directory_says_where_it_came_from(checkpoint, ported):
    cfg, label_set, variables, card = model_dir.load_model(ported["path"])
    assert cfg["model"] == {"name": "cnn", "variant": "mini", "num_classes": 527}
    assert cfg["data"] == {"sample_rate": 16_000, "clip_s": 10.0}
    assert card["ported_from"]["file"] == "mini.pth"
    assert card["ported_from"]["sha256"] == files.digest(checkpoint[0])
    assert card["ported_from"]["skipped"]["logmel_extractor.melW"] == "not part of the model"
    assert card["parameters"] == sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert card["sha256"]["model.safetensors"] == ported["fingerprint"]
    assert label_set.hash == labels.get("audioset527").hash


def test_the_report_counts_every_entry(checkpoint, tmp_path, capsys):
    assert main(["port", str(checkpoint[0]), f"--to={tmp_path / 'm'}"]) == 0
    text = capsys.readouterr().out
    found = checkpoint[1]
    skipped = [k for k in found if "num_batches" in k or "extractor" in k]
    numbers = sum(v.size for k, v in found.items() if k not in skipped)
    assert f"matched      {len(found) - len(skipped)} arrays, {numbers:,} numbers" in text
    assert "skipped      5 (counts batches): " in text
    assert "skipped      2 (not part of the model)" in text
    assert "model        cnn mini, " in text
    digest = files.digest(tmp_path / "m" / "model.safetensors")
    assert f"fingerprint  {digest}" in text


def test_one_checkpoint_has_one_fingerprint(checkpoint, ported, tmp_path):
    """With any wrapper and any format."""
    wrapped = tmp_path / "wrapped.safetensors"
    safetensors.numpy.save_file({f"module.{k}": v for k, v in checkpoint[1].items()}, wrapped)
    again = convert.convert(wrapped, tmp_path / "again")
    assert again["fingerprint"] == ported["fingerprint"]


def test_all_misfits_come_in_one_error_and_nothing_is_written(checkpoint, tmp_path):
    broken = dict(checkpoint[1])
    del broken["fc1.bias"]
    broken |= {"fc1.weight": np.zeros((3, 3), np.float32), "extra": np.zeros(2, np.float32)}
    torch_writer.save(broken, tmp_path / "broken.pth")
    with pytest.raises(AsjaxError) as caught:
        convert.convert(tmp_path / "broken.pth", tmp_path / "m", family="cnn", variant="mini")
    for piece in (
        "3 entries do not fit",
        "missing: fc1.bias",
        "misshapen: fc1.w",
        "unmatched: ext",
    ):
        assert piece in str(caught.value), piece
    assert [p.name for p in tmp_path.iterdir()] == ["broken.pth"]


def test_a_write_that_fails_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def full(path, arrays, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_safetensors", full)
    with pytest.raises(AsjaxError, match="could not be written: No space left"):
        convert.convert(checkpoint[0], tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_unless_told(checkpoint, tmp_path):
    to = tmp_path / "m"
    to.mkdir()
    (to / "thesis.tex").write_text("years of work")
    with pytest.raises(AsjaxError, match="holds files that are no model"):
        convert.convert(checkpoint[0], to, overwrite=True)
    assert (to / "thesis.tex").read_text() == "years of work"
    model = tmp_path / "model"
    convert.convert(checkpoint[0], model)
    with pytest.raises(AsjaxError, match="add --overwrite"):
        convert.convert(checkpoint[0], model)
    convert.convert(checkpoint[0], model, overwrite=True)
    assert predict.load(model).label_set.name == "audioset527"


def test_classes_other_than_audioset_s(tmp_path):
    torch_writer.save(weights("cnn", "mini", num_classes=12), tmp_path / "x.pth")
    done = convert.convert(tmp_path / "x.pth", tmp_path / "numbered")
    assert done["label_set"].name == "numbered12"
    assert predict.load(tmp_path / "numbered").label_set.names[11] == "class 11"
    csv = tmp_path / "own.csv"
    rows = [f"{i},c{i},Sound {i}" for i in range(12)]
    csv.write_text("\n".join(["index,mid,display_name", *rows]))
    convert.convert(tmp_path / "x.pth", tmp_path / "own", label_set=csv)
    assert predict.load(tmp_path / "own").label_set.names[11] == "Sound 11"
    with pytest.raises(AsjaxError, match="esc10 has 10 classes, the model has 12"):
        convert.convert(tmp_path / "x.pth", tmp_path / "wrong", label_set="esc10")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--field=classes=3"], "classes"),
        (["--field=kernel"], "--field kernel must be NAME=VALUE"),
        (["--clip-s=0"], "between 0 and 3600"),
        (["--family=cnm"], "did you mean 'cnn'"),
        (["--family=cnn", "--variant=cnn7"], "cnn6"),
        (["--family=cnn", "--variant=cnn6"], "misshapen: fc1.weight"),
        (["--labels=nothing"], "label set 'nothing' does not exist"),
    ],
)
def test_wrong_arguments_are_one_line(checkpoint, tmp_path, capsys, more, message):
    assert main(["port", str(checkpoint[0]), f"--to={tmp_path / 'm'}", *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("family", "variant", "fields", "seconds"),
    [
        ("cnn", "cnn14", {}, 10),
        ("passt", "passt_s", {}, 10),
        ("passt", "passt_s_20s", {}, 20),
        ("passt", "passt_s_30s", {}, 30),
        ("passt", "passt_s_hop100", {}, 10),
        ("ast", "base384", {}, 10),
        ("ast", "base384", {"frames": 128}, 1),
    ],
)
def test_clips_are_as_long_as_the_model_is_made_for(family, variant, fields, seconds):
    file = models.family(family)
    module = file.model(variant, **fields)
    frontend = frontends.build(**convert.frontend_spec(file.FRONTENDS[variant], module, None)[0])
    assert convert.clip_seconds(module, frontend) == seconds


def test_the_frontend_follows_the_model_s_size():
    file = models.family("ast")
    module = file.model("tiny224", n_mels=64, frames=400)
    spec, left = convert.frontend_spec(file.FRONTENDS["tiny224"], module, None)
    assert left == []
    assert spec == {"name": "kaldi_fbank128", "n_mels": 64, "frames": 400}
    given = convert._given("atdr_logmel64(frames=400)")
    assert convert.frontend_spec({}, module, given)[0] == {"name": "atdr_logmel64", "frames": 400}


def test_a_file_that_only_has_a_published_name_is_called_so(
    checkpoint, tmp_path, monkeypatch, capsys
):
    row = published.ROWS[0]._replace(variant="mini", file="mini.pth", sha256="0" * 64)
    monkeypatch.setattr(published, "ROWS", (row,))
    assert main(["port", str(checkpoint[0]), f"--to={tmp_path / 'm'}"]) == 0
    text = capsys.readouterr().out
    assert "published    mAP .343 on AudioSet eval (PANNs copy)" in text
    assert "WARNING: this is another file" in text


def test_an_image_model_is_no_tagger(tmp_path):
    row = published.find("deit_tiny_distilled_patch16_224")
    path = tmp_path / row.file
    torch_writer.save({"cls_token": np.zeros((1, 1, 192), np.float32)}, path)
    with pytest.raises(AsjaxError, match="init_from='imagenet:deit_tiny"):
        convert.convert(path, tmp_path / "m")
