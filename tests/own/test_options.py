"""From options to a config: the same fields as by the recipe; wrong options are one line."""

import argparse

import numpy as np
import pytest
import soundfile as sf

from asjax import build
from asjax.__main__ import main, parser_for
from asjax.config import AsjaxError, to_plain
from asjax.own import options, parts


@pytest.fixture
def clips(tmp_path):
    for i in range(12):
        path = tmp_path / "clips" / "ab"[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.random.default_rng(i).normal(size=8_000) * 0.1, 8_000)
    return tmp_path / "clips"


def parsed(*words) -> argparse.Namespace:
    args = parser_for("train").parse_args([*words, "--workdir=w"])
    args.overrides = {}
    return args


@pytest.mark.parametrize("name", ["passt_s", "atst_clip_base", "base384", "ast/base384"])
def test_a_model_whose_frames_are_those_of_its_input_is_no_detector(name):
    with pytest.raises(AsjaxError, match="gives no scores per frame"):
        parts.detector(name, 5.0)
    assert parts.frames_of(parts.model_and_frontend(name)[0]) is None


def test_detectors_have_25_frames_per_second():
    for name in ("mini", "conformer_mini", "cnn6", "frame_mn06"):
        model, _ = parts.detector(name, 5.0)
        assert model["frames"] == parts.frames_of(model) == 125


def test_data_and_the_recipe_give_the_same_config(clips):
    said = []
    args = parsed("--data", str(clips), "--epochs", "3", "--lr", "0.01", "--seed", "4")
    args.overrides = {"optim.clip_norm": "2.5"}
    cfg = options.load(args, said.append)
    same = build.load(
        f"own:data={str(clips)!r},epochs=3,lr=0.01,seed=4", {"optim.clip_norm": "2.5"}
    )
    assert to_plain(cfg) == to_plain(same)
    assert (cfg.seed, cfg.optim.lr, cfg.optim.clip_norm, cfg.data.clip_s) == (4, 0.01, 2.5, 1.0)
    assert any("2 classes (own), one label per clip: a, b" in line for line in said)


def test_steps_in_place_of_epochs(clips):
    cfg = options.load(parsed("--data", str(clips), "--steps", "7"), lambda line: None)
    assert cfg.total_steps == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --config=FILE, or --data"),
        (("--config=own", "--data=esc10"), "not both"),
        (("--config=own", "--epochs=3"), "--epochs belongs to --data"),
        (("--config=own", "--label-separator=,"), "--label-separator belongs to --data"),
        (("--data=esc10", "--epochs=0"), "--epochs must be a number above 0"),
        (("--data=esc10", "--epochs=nan"), "--epochs must be a number above 0"),
        (("--data=esc10", "--epochs=2", "--steps=3"), "either --epochs or --steps"),
        (("--data=esc10", "--steps=0"), "--steps must be 1 or more"),
        (("--data=esc10", "--batch-size=-1"), "--batch-size must be"),
        (("--data=esc10", "--model=cnn13"), "did you mean 'cnn1"),
        (("--data=esc10", "--model=passt"), "is a family; give one of its variants"),
        (("--config=quickstrat",), "did you mean 'quickstart'"),
    ],
)
def test_wrong_options(words, message):
    with pytest.raises(AsjaxError, match=message) as error:
        options.load(parsed(*words))
    assert "\n" not in str(error.value)


def test_fields_need_a_config_or_data(capsys):
    assert main(["tag", "x.wav", "--config.seed=1", "--model=m"]) == 2
    assert "needs --config=FILE" in capsys.readouterr().err


def test_models_bring_their_features():
    model, frontend = parts.model_and_frontend("cnn14_16k")
    assert (model, frontend) == (
        dict(name="cnn", variant="cnn14_16k"),
        dict(name="panns_logmel64_16k"),
    )
    assert parts.sample_rate(frontend) == 16_000
    assert parts.sample_rate(parts.model_and_frontend("passt_s")[1]) == 32_000


def test_masks_go_after_the_input_norm_and_keep_their_share():
    model, frontend = parts.model_and_frontend("mini")
    masks = parts.masks(model, frontend, 16_000, 5.0)
    frames = 5 * 16_000 // 512 + 1
    assert masks["normed"].startswith(f"specaug(time_width={frames // 10}, freq_width=4)")
    assert masks["feats"] == ""


def test_defaults_by_size():
    """Larger models get smaller rates, larger sets fewer epochs."""
    rates = [parts.learning_rate(parts.model_and_frontend(n)[0]) for n in ("mini", "cnn6", "cnn14")]
    assert rates == [5e-3, 1e-3, 2e-4]
    tuned = [
        parts.learning_rate(parts.model_and_frontend(n)[0], pretrained=True)
        for n in ("mini", "cnn6", "cnn14")
    ]
    assert all(b < a for a, b in zip(rates, tuned, strict=True))
    assert [parts.epochs(n) for n in (10, 400, 1000, 10**6)] == [100, 100, 40, 10]
    assert [parts.epochs(n, pretrained=True) for n in (10, 1000, 10**6)] == [50, 20, 10]
