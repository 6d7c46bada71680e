"""Folders written by Hugging Face's save_pretrained. A case that users reported (CC0)."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from asjax import labels, predict
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.weights import convert, hub_config

D, LAYERS = 32, 2
BODY = "audio_spectrogram_transformer."
WORDS = [f"word {i}" for i in range(35)]


def weights(classes, patches):
    """A small AST with Hugging Face's names in half precision."""
    random = np.random.default_rng(0)
    draw = lambda *shape: (random.normal(size=shape) * 0.02).astype("f2")  # noqa: E731
    linear = lambda name, out, into: {f"{name}.weight": draw(out, into), f"{name}.bias": draw(out)}  # noqa: E731
    norm = lambda name: {f"{name}.weight": np.ones(D, "f2"), f"{name}.bias": draw(D)}  # noqa: E731
    table = {
        f"{BODY}embeddings.cls_token": draw(1, 1, D),
        f"{BODY}embeddings.distillation_token": draw(1, 1, D),
        f"{BODY}embeddings.position_embeddings": draw(1, patches + 2, D),
        f"{BODY}embeddings.patch_embeddings.projection.weight": draw(D, 1, 16, 16),
        f"{BODY}embeddings.patch_embeddings.projection.bias": draw(D),
    }
    for i in range(LAYERS):
        layer = f"{BODY}encoder.layer.{i}."
        for name in ("query", "key", "value"):
            table |= linear(f"{layer}attention.attention.{name}", D, D)
        table |= linear(f"{layer}attention.output.dense", D, D)
        table |= linear(f"{layer}intermediate.dense", 4 * D, D)
        table |= linear(f"{layer}output.dense", D, 4 * D)
        table |= norm(f"{layer}layernorm_before") | norm(f"{layer}layernorm_after")
    table |= norm(f"{BODY}layernorm") | norm("classifier.layernorm")
    return table | linear("classifier.dense", classes, D)


def folder(out, names=WORDS, frames=128, config=None, extractor=None, patches=None):
    out.mkdir(parents=True, exist_ok=True)
    patches = patches or 12 * ((frames - 16) // 10 + 1)
    save_file(weights(len(names), patches), out / "model.safetensors")
    config = {
        "architectures": ["ASTForAudioClassification"],
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": D,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 4 * D,
        "max_length": frames,
        "num_mel_bins": 128,
        "frequency_stride": 10,
        "time_stride": 10,
        "id2label": {str(i): name for i, name in enumerate(names)},
        **(config or {}),
    }
    extractor = {
        "feature_extractor_type": "ASTFeatureExtractor",
        "do_normalize": True,
        "max_length": frames,
        "mean": -6.845978,
        "std": 5.5654526,
        "num_mel_bins": 128,
        "padding_value": 0.0,
        "sampling_rate": 16000,
        **(extractor or {}),
    }
    (out / "config.json").write_text(json.dumps(config))
    (out / "preprocessor_config.json").write_text(json.dumps(extractor))
    return out


def ported(out, to, **more):
    return convert.convert(out, to, family="ast", variant="base384_hf", **more)


def test_the_case_of_the_field_takes_names_mean_std_and_length(tmp_path, capsys):
    hub = folder(tmp_path / "speech-commands")
    assert main(["port", str(hub), f"--to={tmp_path / 'm'}"]) == 0
    text = capsys.readouterr().out
    assert "model        ast base384_hf (" in text
    assert "labels       speech-commands, 35 classes" in text
    assert "frontend     kaldi_fbank128_hf(frames=128, mean=-6.845978, std=5.5654526), 1 s" in text
    assert "not taken" not in text
    tagger = predict.load(tmp_path / "m")
    assert tagger.label_set.names == tuple(WORDS)
    assert (tagger.frontend.mean, tagger.frontend.std) == (-6.845978, 5.5654526)
    assert (tagger.model.heads, tagger.model.depth, tagger.model.frames) == (2, LAYERS, 128)
    assert (tagger.sample_rate, tagger.clip_s) == (16_000, 1.0)


def test_the_features_are_those_of_the_extractor(tmp_path):
    """(log mel - mean) / (2 std) computed directly, against the input of the model."""
    hub = folder(tmp_path / "hub", extractor={"mean": 1.5, "std": 2.0})
    tagger = predict.load(ported(hub, tmp_path / "m")["path"])
    wave = np.random.default_rng(0).normal(size=(1, 16_000)).astype("f4") * 0.1
    off = folder(tmp_path / "off", extractor={"do_normalize": False})
    plain = predict.load(ported(off, tmp_path / "p")["path"])
    want = (np.asarray(plain.frontend(wave)) - 1.5) / (2 * 2.0)
    np.testing.assert_allclose(tagger.frontend(wave), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "ids", "mids"),
    [
        (["Speech", "Dog", "Music"], ("/m/09x0r", "/m/0bt9lr", "/m/04rlf"), ()),
        (["dog", "my own"], ("dog", "my own"), (("/m/0bt9lr",), ())),
        (["/m/0bt9lr", "/m/09x0r"], ("/m/0bt9lr", "/m/09x0r"), ()),
        (["x", "y"], ("x", "y"), ()),
    ],
)
def test_classes_in_another_order_keep_their_names(names, ids, mids, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"id2label": {str(i): n for i, n in enumerate(names)}}))
    found = hub_config.read({"config.json": path}, "mine").label_set
    assert (found.name, found.names, found.ids, found.mids) == ("mine", tuple(names), ids, mids)


def test_audioset_in_its_own_order_is_audioset(tmp_path):
    path = tmp_path / "config.json"
    audioset = labels.get("audioset527")
    for names, name in ((audioset.names, "audioset527"), (audioset.names[::-1], "mine")):
        path.write_text(json.dumps({"id2label": {str(i): n for i, n in enumerate(names)}}))
        found = hub_config.read({"config.json": path}, "mine").label_set
        assert found.name == name
        assert found.names == tuple(names)
        assert (found.hash == audioset.hash) == (name == "audioset527")


def test_what_is_not_taken_is_said(tmp_path, capsys):
    hub = folder(
        tmp_path / "hub",
        config={"hidden_act": "relu", "id2label": {"0": "a", "1": "b"}, "num_attention_heads": 4},
        extractor={"n_fft": 400, "chunk_length_s": 30, "padding_value": -80},
    )
    command = ["--family=ast", "--variant=base384_hf", "--field=heads=2"]
    assert main(["port", str(hub), f"--to={tmp_path / 'm'}", *command]) == 0
    lines = [
        line[13:] for line in capsys.readouterr().out.splitlines() if line.startswith("not taken")
    ]
    assert "hidden_act='relu': asjax uses gelu" in lines
    assert "id2label of 2 classes: the weights have 35" in lines
    assert "n_fft=400: kaldi_fbank128_hf has no such field" in lines
    assert "chunk_length_s=30: no frontend has such a field" in lines
    assert "padding_value=-80: no frontend has such a field" in lines
    assert len(lines) == 5
    card = json.loads((tmp_path / "m" / "card.json").read_text())
    assert card["ported_from"]["not_taken"] == lines


def test_what_is_given_wins_and_the_rest_is_said(tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("index,mid,display_name\n" + "".join(f"{i},c{i},C {i}\n" for i in range(35)))
    hub = folder(tmp_path / "hub")
    done = ported(hub, tmp_path / "m", label_set=own, frontend="kaldi_fbank128(frames=128)")
    assert done["label_set"].ids[3] == "c3"
    assert done["frontend"] == {"name": "kaldi_fbank128", "frames": 128}
    assert "id2label of 35 classes: --labels was given" in done["not_taken"]
    assert "mean=-6.845978: --frontend was given" in done["not_taken"]


@pytest.mark.parametrize("frames", [100, 256, 298, 512])
def test_other_lengths_are_told_by_the_shapes_alone(frames, tmp_path):
    """Without config.json, like a plain file; only the grid matters."""
    hub = folder(tmp_path / "hub", frames=frames)
    (hub / "preprocessor_config.json").unlink()
    (hub / "config.json").unlink()
    fields = dict(width=D, depth=LAYERS, heads=2)
    done = ported(hub, tmp_path / "m", fields=fields)
    module = predict.load(done["path"]).model
    assert module.grid == (12, (frames - 16) // 10 + 1)
    assert abs(module.frames - frames) < 10
    assert done["clip_s"] == max(1, round(frames / 100))


def test_a_length_that_two_strides_explain_says_so(tmp_path, capsys):
    hub = folder(tmp_path / "hub", frames=512)
    for path in hub.glob("*.json"):
        path.unlink()
    fields = ["--field=width=32", "--field=depth=2", "--field=heads=2", "--variant=base384_hf"]
    assert main(["port", str(hub), f"--to={tmp_path / 'm'}", "--family=ast", *fields]) == 0
    text = capsys.readouterr().out
    assert "frames=512" in text
    assert "also fit --field=stride=16 --field=n_mels=128 --field=frames=1200" in text
    more = ["--field=stride=16", "--field=n_mels=128", "--field=frames=1200"]
    assert main(["port", str(hub), f"--to={tmp_path / 'n'}", "--family=ast", *fields, *more]) == 0
    assert predict.load(tmp_path / "n").model.grid == (8, 75)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("config.json", "null", "must be an object"),
        ("config.json", "[" * 200_000, "nested too deep"),
        ("config.json", '{"id2label": []}', "id2label must be an object"),
        ("config.json", '{"id2label": {"0": 3}}', "id2label.0 must be a text"),
        ("config.json", '{"id2label": {"0": "a", "2": "b"}}', "must number its 2 classes from 0"),
        ("config.json", '{"id2label": {"0": "a", "1": "A"}}', "got twice or empty"),
        ("config.json", '{"max_length": 1e9}', "max_length must be an integer"),
        ("config.json", '{"num_mel_bins": 0}', "num_mel_bins must be an integer"),
        ("preprocessor_config.json", '{"mean": NaN}', "mean must be finite"),
        ("preprocessor_config.json", '{"mean": "x"}', "mean"),
        ("preprocessor_config.json", '{"std": 0}', "std"),
        ("preprocessor_config.json", '{"sampling_rate": -5}', "sample_rate"),
        ("preprocessor_config.json", '{"do_normalize": 1}', "do_normalize must be true or false"),
        ("preprocessor_config.json", "", "cannot be read"),
    ],
)
def test_damaged_small_files_are_one_line(file, text, says, tmp_path):
    hub = folder(tmp_path / "hub")
    (hub / file).write_text(text)
    with pytest.raises(AsjaxError, match=says) as caught:
        ported(hub, tmp_path / "m", fields=dict(width=D, depth=LAYERS, heads=2))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()
