"""`asjax finetune` end to end on a few made-up clips, from a model that two steps trained."""

import json

import numpy as np
import pytest
import soundfile as sf
from safetensors.numpy import load_file

from asjax import build, finetune, train
from asjax.__main__ import main
from asjax.own import data
from asjax.store.scores import load_scores

QUICK = ["--steps=2", "--config.eval.bootstrap=20", "--config.batch_size=8"]


@pytest.fixture(scope="module")
def model(tmp_path_factory, repo):
    place = tmp_path_factory.mktemp("model") / "run"
    config = f"--config={repo / 'configs' / 'quickstart.py'}:tiny"
    small = ["--config.data.clip_s=1.0", "--config.eval.bootstrap=20"]
    assert main(["train", config, f"--workdir={place}", *small]) == 0
    return place


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for i in range(16):
        path = folder / ("Dog", "whistle")[i % 2] / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        sf.write(path, 0.1 * rng.normal(size=12_000), 12_000)
    return folder


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_freeze_all_trains_only_the_head_and_train_goes_on(model, clips, tmp_path, capsys):
    to = tmp_path / "to"
    words = [f"--from={model}", f"--data={clips}", f"--to={to}", "--freeze=all", *QUICK]
    assert main(["finetune", *words, "--config.average=None"]) == 0
    before, after = weights(model), weights(to)
    changed = {
        k for k in before if before[k].shape != after[k].shape or (before[k] != after[k]).any()
    }
    assert changed == {"params/head/kernel", "params/head/bias"}
    assert after["params/head/bias"].shape == (2,)
    cfg = json.loads((to / "config.json").read_text())
    theirs = json.loads((model / "model" / "config.json").read_text())
    for key in ("sample_rate", "clip_s"):
        assert cfg["data"][key] == theirs["data"][key]
    assert cfg["frontend"] == theirs["frontend"]
    assert cfg["model"] == {k: v for k, v in theirs["model"].items() if k != "num_classes"}
    assert cfg["optim"]["freeze"] == "all"
    capsys.readouterr()
    # the same run, by its config.json and by the same command
    assert main(["train", f"--config={to / 'config.json'}", f"--workdir={to}"]) == 0
    assert "resuming at step 2 of 2" in capsys.readouterr().out
    assert main(["finetune", *words, "--config.average=None"]) == 0
    assert "resuming at step 2 of 2" in capsys.readouterr().out


def test_folds_score_every_clip_once(model, clips, tmp_path, capsys):
    to = tmp_path / "to"
    words = [f"--from={model}", f"--data={clips}", f"--to={to}", "--folds=2", *QUICK]
    assert main(["finetune", *words]) == 0
    pooled = load_scores(to / "eval" / "scores.npz")
    assert sorted(pooled["ids"]) == sorted(str(p.relative_to(clips)) for p in clips.rglob("*.wav"))
    parts = [load_scores(to / f"fold{k}" / "eval" / "scores.npz") for k in (1, 2)]
    np.testing.assert_array_equal(pooled["scores"], np.concatenate([p["scores"] for p in parts]))
    for k in (1, 2):
        cfg = json.loads((to / f"fold{k}" / "config.json").read_text())
        held = set(build.source(cfg["data"]["eval"], pooled["label_set"]).ids)
        seen = set(build.source(cfg["data"]["train"], pooled["label_set"]).ids)
        assert held == set(parts[k - 1]["ids"])
        assert not held & seen
        assert len(held) + len(seen) == 16
        rows = map(json.loads, (to / f"fold{k}" / "train.jsonl").read_text().splitlines())
        assert [r["step"] for r in rows if "eval/mean_ap" in r] == [2]  # nothing to choose from
    out = capsys.readouterr().out
    assert "all 16 clips, each scored by the model that was trained without it" in out
    assert "95% interval" in out


def test_folds_of_the_data_are_used_as_they_are():
    own = data.read("esc10")
    made = finetune.fold_specs(own, 5)
    assert [one["eval"]["splits"] for one in made] == [[f"fold{i}"] for i in range(1, 6)]
    assert "folds" not in made[0]["train"]
    new = finetune.fold_specs(own, 3)
    assert new[0]["train"]["folds"] == 3
    sizes = [len(build.source(one["eval"], own.label_set)) for one in new]
    assert sum(sizes) == 398
    assert max(sizes) - min(sizes) <= 30


def test_a_test_split_is_in_no_fold(tmp_path):
    rows = ["filename,labels,split"]
    for i in range(20):
        sf.write(tmp_path / f"{i}.wav", np.zeros(800), 8_000)
        rows.append(f"{i}.wav,{'ab'[i % 2]},{('train', 'dev', 'test', 'train')[i // 2 % 4]}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    own = data.read(str(tmp_path / "clips.csv"))
    tested = set(build.source(own.specs["test"], own.label_set).ids)
    for one in finetune.fold_specs(own, 3):
        held, seen = (set(build.source(one[r], own.label_set).ids) for r in ("eval", "train"))
        assert not tested & (held | seen)
        assert len(held | seen) == 20 - len(tested)


def test_freeze_head_needs_all_classes(model, clips, tmp_path, capsys):
    words = ["finetune", f"--from={model}", f"--data={clips}", "--freeze=head", *QUICK]
    assert main([*words, f"--to={tmp_path / 'a'}"]) == 2
    error = capsys.readouterr().err
    assert "lacks 2 of 2, such as 'Dog'" in error
    assert not (tmp_path / "a").exists()
    known = tmp_path / "known"
    for i in range(8):
        path = known / ("Dog", "Rain")[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(clips / ("Dog", "whistle")[i % 2] / f"{i}.wav")
    words[2] = f"--data={known}"
    to = tmp_path / "b"
    assert main([*words, f"--to={to}", "--labels=audioset527", "--config.average=None"]) == 0
    before, after = weights(model), weights(to)
    kept = {k for k in before if k.startswith("params") and (before[k] == after[k]).all()}
    assert kept == {"params/head/kernel", "params/head/bias"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from=nothing"], "model nothing does not exist"),
        (["--layer-decay=2"], "optim.layer_decay must be above 0"),
        (["--folds=1"], "--folds must be at least 2"),
        (["--folds=99"], "folds must be at most the 16 groups"),
        (["--data=nothing"], "there is no such file or folder"),
        (["--epochs=-1"], "--epochs must be a number above 0"),
        (["--config.modle=x"], "did you mean 'model'"),
    ],
)
def test_wrong_options_are_one_line(words, message, model, clips, tmp_path, capsys):
    base = {"--from": str(model), "--data": str(clips), "--to": str(tmp_path / "to")}
    base |= dict(word.split("=", 1) for word in words)
    assert main(["finetune", *(f"{k}={v}" for k, v in base.items())]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "to").exists()


def test_a_stopped_run_says_how_to_go_on(model, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "run", lambda cfg, args: train.EXIT_STOPPED)
    words = [f"--from={model}", f"--data={clips}", f"--to={tmp_path / 'to'}"]
    assert main(["finetune", *words]) == train.EXIT_STOPPED
    assert "config.json" in capsys.readouterr().out
