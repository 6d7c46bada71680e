"""An ONNX file as a tagger: the results of the folder's tagger, without jax, and foreign files."""

import json
import subprocess
import sys

import numpy as np
import pytest
import small_programs
import small_tagger
from small_programs import small

import asjax
from asjax import models, predict
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.predict import loading, onnx_metadata, onnx_session, windows  # noqa: F401 (named here)
from asjax.store import model_dir

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
RATE = 16_000
DECODING = {"threshold": [0.4, 0.5, None], "median": [3, 5, 1], "frame_rate": 10.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(model folder, ONNX file) of a small detector with tuned decoding."""
    from asjax import export

    place = tmp_path_factory.mktemp("made")
    program = small("talnet", "crnn_mini", 10.0, classes=3)
    folder = model_dir.save_model(
        place / "m",
        config={
            "model": {"name": "talnet", "variant": "crnn_mini", "num_classes": 3},
            "frontend": dict(models.family("talnet").FRONTENDS["crnn_mini"]),
            "data": {"sample_rate": RATE, "clip_s": 10.0},
        },
        label_set=small_programs.label_set(3),
        variables=program.variables,
        record={"decoding": DECODING},
    )
    export.to_onnx(folder, place / "m.onnx")
    return folder, place / "m.onnx"


def recording(seconds=17.0):
    rng = np.random.default_rng(0)
    wave = 0.05 * rng.standard_normal(round(seconds * RATE))
    wave[3 * RATE : 6 * RATE] *= 10
    return wave.astype(np.float32)


def test_tags_frames_events_and_embeddings_are_those_of_the_folder(made):
    how = dict(overlap=0.5, window_embeddings=True, batch_size=2)
    folder, file = (asjax.load(path, **how) for path in made)
    assert isinstance(file, predict.OnnxTagger)
    assert not isinstance(folder, predict.OnnxTagger)
    waves = [(recording(), RATE), (recording(4.0), RATE)]
    for a, b in zip(folder(waves), file(waves), strict=True):
        np.testing.assert_allclose(b.clip, a.clip, atol=1e-5)
        np.testing.assert_allclose(b.windows, a.windows, atol=1e-5)
        np.testing.assert_allclose(b.frames, a.frames, atol=1e-5)
        np.testing.assert_allclose(b.embedding, a.embedding, atol=1e-4)
        np.testing.assert_allclose(b.window_embeddings, a.window_embeddings, atol=1e-4)
        np.testing.assert_array_equal(b.times, a.times)
        assert b.frame_rate == a.frame_rate
        assert b.labels == a.labels
        for x, y in zip(a.events(), b.events(), strict=True):  # tuned thresholds and medians
            assert (x.onset_s, x.offset_s, x.label) == (y.onset_s, y.offset_s, y.label)
    assert file.label_set.hash == folder.label_set.hash
    assert file.record["decoding"] == DECODING


WITHOUT_JAX = """
import sys
for name in ("jax", "jaxlib", "flax", "optax", "orbax", "onnx", "torch", "scipy"):
    sys.modules[name] = None
import numpy as np, asjax
from asjax.__main__ import main
wave = (0.1 * np.random.default_rng(0).standard_normal(16000 * 12)).astype(np.float32)
tags = asjax.load(sys.argv[1])((wave, 16000))
print(len(tags.windows), len(tags.frames), round(float(tags.clip[1]), 4))
print(main(["tag", sys.argv[2], "--model", sys.argv[1], "--json"]))
print(main(["tag", sys.argv[2], "--model", sys.argv[1], "--events"]))
print(main(["embed", sys.argv[2], "--model", sys.argv[1], "--to", sys.argv[3]]))
"""


def test_it_tags_without_jax(made, tmp_path):
    sound = small_tagger.write(tmp_path / "x.wav", recording(3.0), RATE)
    words = [str(made[1]), str(sound), str(tmp_path / "e.npz")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX, *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["2", "120"]
    assert [line for line in lines if line in ("0", "1", "2")] == ["0", "0", "0"], done.stderr
    assert any(json.loads(line).get("tags") for line in lines if line.startswith("{"))
    assert (tmp_path / "e.npz").is_file()


def test_an_ensemble_takes_files_and_folders(made):
    wave = (recording(10.0), RATE)
    one, both = asjax.load(made[0])(wave), asjax.load([made[0], made[1]])(wave)
    np.testing.assert_allclose(both.logits, one.logits, atol=1e-4)


# ------------------------------------------------------------------------------------ foreign files


def edited(path, to, **changes):
    """A copy of a file with other metadata; None removes an entry."""
    model = onnx.load(path)
    about = {p.key: p.value for p in model.metadata_props} | changes
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in about.items() if v is not None})
    to.write_bytes(model.SerializeToString())
    return to


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"asjax": None}, "no class names"),
        ({"labels": None}, "no labels"),
        ({"labels": "[1, 2, 3]"}, "no list of texts"),
        ({"labels": "["}, "damaged"),
        ({"labels": "[" * 100_000}, "damaged"),
        ({"label_ids": '["a", "b", "c"]'}, "label hash"),
        ({"sample_rate": "a"}, "damaged"),
        ({"sample_rate": "0"}, "sample_rate"),
        ({"clip_s": "nan"}, "clip_s"),
        ({"clip_s": "1e9"}, "clip_s"),
        ({"activation": "tanh"}, "activation"),
        ({"decoding": "3"}, "decoding"),
        ({"frames": "-1"}, "frames"),
    ],
)
def test_wrong_metadata_is_one_line(made, changes, why, tmp_path):
    path = edited(made[1], tmp_path / "x.onnx", **changes)
    with pytest.raises(AsjaxError, match=why) as error:
        asjax.load(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_frames_that_are_not_there_are_one_line(made, tmp_path):
    path = edited(made[1], tmp_path / "x.onnx", frames="7")
    with pytest.raises(AsjaxError, match="gives 100 frames and says 7"):
        asjax.load(path)((recording(10.0), RATE))


def test_a_file_cut_anywhere_is_one_line(made, tmp_path):
    content, path = made[1].read_bytes(), tmp_path / "x.onnx"
    for size in (0, 1, 2, 10, 1000, len(content) // 2, len(content) - 1000, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(AsjaxError, match="not an ONNX file of asjax"):
            asjax.load(path)


def test_noise_texts_and_huge_files_are_one_line(tmp_path):
    path = tmp_path / "x.onnx"
    for content in (b"\x00" * 100, b"PK\x03\x04", b"<html>", np.random.default_rng(0).bytes(5000)):
        path.write_bytes(content)
        with pytest.raises(AsjaxError, match="not an ONNX file of asjax"):
            asjax.load(path)
    with path.open("wb") as file:
        file.truncate(3 << 30)  # sparse: takes no space
    with pytest.raises(AsjaxError, match="at most 2 GB"):
        asjax.load(path)


def test_a_graph_that_is_damaged_is_one_line_and_exit_2(made, tmp_path, capsys):
    sound = small_tagger.write(tmp_path / "x.wav", recording(1.0), RATE)
    model = onnx.load(made[1])
    model.graph.node[5].op_type = "NoSuchOperator"
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    assert main(["tag", str(sound), "--model", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "onnxruntime" in said


def test_other_outputs_are_refused(made, tmp_path):
    model = onnx.load(made[1])
    for item in (*model.graph.output, *(n for n in model.graph.node if "embedding" in n.output)):
        if getattr(item, "name", "") == "embedding":
            item.name = "other"
        elif hasattr(item, "output"):
            item.output[0] = "other"
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(AsjaxError, match="outputs logits, embedding, frame_logits with 3 classes"):
        asjax.load(path)


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--model=FILE"],
        ["soup", "FILE", "FOLDER", "--out=OUT"],
        ["logits", "FILE", "--data=esc10", "--out=OUT"],
        ["export", "FILE", "--onnx=OUT.onnx"],
        ["push", "FILE", "org/x", "--license=mit", "--dry-run"],
        ["finetune", "--from=FILE", "--data=clips.csv", "--to=OUT"],
    ],
)
def test_verbs_that_need_the_folder_say_so_in_one_line(made, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"FOLDER": made[0], "FILE": made[1], "OUT": tmp_path / "out"}
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"{made[1]} is an ONNX file and no model folder" in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"clip_s": float("nan")}, "a window must be a number of seconds above 0, got nan"),
        ({"clip_s": "a"}, "a window must be a number"),
        ({"clip_s": 0.01}, "a window of 0.01 s was asked for"),
        ({"threads": -1}, "threads must be 0, for one per core, or a whole number above, got -1"),
        ({"threads": "2"}, "threads must be"),
    ],
)
def test_wrong_settings_are_said(made, settings, why):
    with pytest.raises(AsjaxError, match=why):
        asjax.load(made[1], **settings)


def test_a_file_of_one_length_says_which(made, tmp_path):
    from asjax import export

    export.to_onnx(made[0], tmp_path / "clip.onnx", length="clip")
    tagger = asjax.load(tmp_path / "clip.onnx")
    why = "takes waves of 10 s, and a window of 2 s was asked for; take such a window, or the"
    with pytest.raises(AsjaxError, match=why):
        tagger.windowed(2.0)
    assert asjax.load(made[1]).windowed(2.0).clip_s == 2.0


def test_other_files_are_not_said_to_be_missing(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"x")
    with pytest.raises(AsjaxError, match="m.safetensors is a file and no model folder"):
        asjax.load(tmp_path / "m.safetensors")


def test_a_collection_is_tagged_as_its_files_are(made, tmp_path, capsys):
    lake, out = tmp_path / "lake", tmp_path / "tags"
    lake.mkdir()
    sound = small_tagger.write(lake / "x.wav", recording(), RATE)
    model = f"--model={made[1]}"
    again = ["tag", "--from", str(lake), "--to", str(out), model]
    assert main(again) == 0
    capsys.readouterr()
    assert main(["tag", str(sound), "--tsv", model]) == 0
    want = capsys.readouterr().out.splitlines()
    found = (out / "tags-00000.tsv").read_text().splitlines()
    assert len(found) == len(want) > 1
    assert [line.split("\t")[1:] for line in found] == [line.split("\t")[1:] for line in want]
    before = (out / "tags-00000.tsv").stat().st_mtime_ns
    assert main(again) == 0, "the same file: nothing is made again"
    assert (out / "tags-00000.tsv").stat().st_mtime_ns == before
    other = tmp_path / "other.onnx"
    content = onnx.load(made[1])
    content.doc_string = "another file"
    onnx.save(content, other)
    assert main([*again[:-1], f"--model={other}"]) == 2, "results of another model are there"


def test_a_missing_file_is_one_line(tmp_path, capsys):
    sound = small_tagger.write(tmp_path / "x.wav", recording(1.0), RATE)
    assert main(["tag", str(sound), "--model", str(tmp_path / "no.onnx")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err
