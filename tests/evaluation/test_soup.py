"""`asjax soup`: the mean of the weights of models, as a model folder."""

import json
from functools import partial

import numpy as np
import pytest
import soundfile
from flax.traverse_util import flatten_dict
from small_detectors import CLASSES, CLIP_S, RATE, make, write_clips

import asjax
from asjax import build, labels
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.evaluation import soup
from asjax.store import model_dir


def flat(folder):
    return flatten_dict(model_dir.load_model(folder)[2], sep="/")


def changed(folder, out, change=lambda name, value: value, **cfg):
    """A copy of a model with other weights and other fields of its config."""
    old, label_set, variables, _ = model_dir.load_model(folder)
    values = {k: change(k, np.array(v)) for k, v in flatten_dict(variables, sep="/").items()}
    nested: dict = {}
    for name, value in values.items():
        at = nested
        *parents, leaf = name.split("/")
        for part in parents:
            at = at.setdefault(part, {})
        at[leaf] = value
    record = {"seed": 5, "step": 7, "scores": {"labels": {}}, "decoding": {"threshold": None}}
    record["hlp"] = False
    model_dir.save_model(
        out, config={**old, **cfg}, label_set=label_set, variables=nested, record=record
    )
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three models of one config with random statistics of the batch norms."""
    root = tmp_path_factory.mktemp("soup")
    write_clips(root / "audio")
    for key, name in enumerate("abc"):
        make(root / f"raw_{name}", key=key, frames=0)
        rng = np.random.default_rng(key)

        def moved(name, value, rng=rng):
            return value + rng.uniform(0, 0.1, value.shape).astype(value.dtype)

        changed(root / f"raw_{name}", root / name, moved, seed=key, init_from=f"/x/{key}")
    return root


def made(root, *words, out):
    return main(["soup", *map(str, words), f"--out={out}"])


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_the_soup_is_the_mean_in_float64_stored_as_float32(root, tmp_path, weights, capsys):
    more = [] if weights is None else ["--weights=1,2,.5"]
    names = [root / n for n in "abc"]
    assert made(root, *names, *more, out=tmp_path / "m") == 0
    got, every = flat(tmp_path / "m"), [flat(name) for name in names]
    assert got.keys() == every[0].keys()
    assert any("batch_stats" in name for name in got)
    for name, value in got.items():
        want = np.average(np.float64([one[name] for one in every]), axis=0, weights=weights)
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, want.astype(np.float32))
    out = capsys.readouterr().out
    assert "the mean weights of 3 models" in out
    assert "batch norms: mean of the models' statistics" in out
    cfg, label_set, _, card = model_dir.load_model(tmp_path / "m")
    assert (cfg["model"]["name"], label_set.hash) == ("cnn", CLASSES.hash)
    members = card["soup"]["members"]
    assert [m["path"] for m in members] == list(map(str, names))
    assert [m["weight"] for m in members] == (weights or [1.0] * 3)
    assert [m["seed"] for m in members] == [5, 5, 5]
    assert members[0]["sha256"] == model_dir.load_model(names[0])[3]["sha256"]["card.json"]
    assert not {"scores", "decoding", "step", "seed"} & card.keys()  # of one model, not of a mean
    assert card["hlp"] is False  # the same in all


def test_a_soup_of_one_model_and_of_a_model_with_itself_are_that_model(root, tmp_path, capsys):
    a = root / "a"
    for k, words in enumerate(([a], [a, a], [a, a, a, "--weights=1,3,.3"])):
        assert made(root, *words, out=tmp_path / str(k)) == 0
        want, got = flat(a), flat(tmp_path / str(k))
        for name, value in want.items():
            np.testing.assert_array_equal(got[name], value)
    assert "is given twice, so it counts twice" in capsys.readouterr().err


def test_the_soup_of_models_with_one_linear_part_is_the_ensemble(root, tmp_path):
    """Only the head differs, and it is linear: tags of the soup are those of the mean logits."""
    rng = np.random.default_rng(0)

    def head(name, value):
        return value + rng.normal(0, 1, value.shape).astype(np.float32) * ("head" in name)

    changed(root / "a", tmp_path / "h", head)
    assert made(root, root / "a", tmp_path / "h", "--weights=1,2", out=tmp_path / "m") == 0
    wave = rng.normal(0, 0.1, round(CLIP_S * RATE)).astype(np.float32)
    one = asjax.load(tmp_path / "m")((wave, RATE))
    mean = asjax.load([root / "a", tmp_path / "h"], weights=[1, 2])((wave, RATE))
    np.testing.assert_allclose(one.logits, mean.logits, rtol=1e-5, atol=1e-4)
    assert np.abs(one.logits - asjax.load(root / "a")((wave, RATE)).logits).max() > 0.1


def test_models_that_cannot_be_mixed_are_refused_in_one_line(root, tmp_path, capsys):
    a = root / "a"
    make(tmp_path / "classes", frames=0, classes=labels.LabelSet("o", ("x",), ("Fox",)))
    make(tmp_path / "model", frames=10)
    make(tmp_path / "rate", frames=0, rate=8000)
    changed(a, tmp_path / "soft", objective="classify")
    changed(a, tmp_path / "lr", optim={"name": "adamw", "lr": 0.5})
    changed(a, tmp_path / "shape", lambda n, v: v[..., :1] if n.endswith("head/kernel") else v)
    changed(a, tmp_path / "nan", lambda n, v: v * np.nan if n.endswith("head/bias") else v)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    audio = root / "audio"
    argv = ["logits", str(a), f"--data={audio / 'clips.csv'}", f"--out={tmp_path / 'logits'}"]
    assert main(argv) == 0
    changed(a, tmp_path / "there")
    good = [a, root / "b"]
    (tmp_path / "file").touch()
    for words, out, message in (
        ([a, tmp_path / "none"], "m", "none does not exist"),
        ([a, tmp_path / "logits"], "m", "holds stored logits, which have no weights"),
        ([a, tmp_path / "classes"], "m", "has 'Fox'"),
        ([a, tmp_path / "model"], "m", "another config than"),
        ([a, tmp_path / "model"], "m", "model.frames: '(absent)' -> 10; only models of one arch"),
        ([a, tmp_path / "rate"], "m", "sample_rate: 16000 -> 8000"),
        ([a, tmp_path / "soft"], "m", "another objective"),
        ([a, tmp_path / "lr"], "m", "optim.lr: '(absent)' -> 0.5; --any-training takes"),
        ([a, tmp_path / "shape"], "m", "head/kernel is (128, 3) in"),
        ([a, tmp_path / "nan"], "m", "params/head/bias of " + str(tmp_path / "nan")),
        ([*good, "--weights=1"], "m", "numbers above 0, one for each of 2 models, got 1"),
        ([*good, "--weights=1,inf"], "m", "numbers above 0"),
        ([*good, "--greedy"], "m", "--greedy needs --data"),
        ([*good, "--data=x.csv"], "m", "are of --greedy"),
        ([*good, "--greedy", "--data=x", "--weights=1,2"], "m", "takes no --weights"),
        ([*good, "--batch-size=0"], "m", "--batch-size must be 1 or more"),
        ([*good, "--statistics=none.csv"], "m", "none.csv"),
        (good, "other", "has other contents than a model"),
        (good, "there", "add --overwrite to replace it"),
        (good, root / "a", "is one of the models"),
        ([*good, "--overwrite"], root / "b", "is one of the models"),
        ([*good, "--greedy", "--data=none.csv"], "file/m", "the folder of --out"),
    ):
        capsys.readouterr()
        assert made(root, *words, out=tmp_path / out) == 2, message
        errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == 1
        assert message in errors[0]
        assert not (tmp_path / "m").exists()
    assert made(root, *good, "--overwrite", out=tmp_path / "there") == 0
    assert made(root, a, tmp_path / "lr", "--any-training", out=tmp_path / "mixed") == 0
    assert "the models differ in optim" in capsys.readouterr().out
    card = model_dir.load_model(tmp_path / "mixed")[3]
    assert "optim.lr: '(absent)' -> 0.5" in card["soup"]["trained_differently"]


def test_seeds_and_paths_do_not_count_and_different_starts_are_said(root, tmp_path, capsys):
    a = root / "a"
    data = {"sample_rate": RATE, "clip_s": CLIP_S, "workers": 3, "threads": 9}
    data["train"] = {"name": "folder", "csv": "/elsewhere/x.csv", "root": "/there"}
    changed(a, tmp_path / "x", seed=9, init_from="/x/0", data=data)
    data = {**data, "train": {"name": "folder", "csv": "here.csv", "root": "."}, "workers": 0}
    changed(a, tmp_path / "y", seed=3, init_from="/x/0", data=data)
    assert made(root, tmp_path / "x", tmp_path / "y", out=tmp_path / "m") == 0
    assert "did not start from one set of weights" not in capsys.readouterr().err
    assert made(root, a, root / "b", out=tmp_path / "n") == 0
    assert "did not start from one set of weights" in capsys.readouterr().err


# ---------------------------------------------------------------------------------- greedy


def test_the_greedy_soup_adds_what_raises_the_metric(root, tmp_path, capsys, monkeypatch):
    """A table of metrics stands for the scores of each mean, so the order is known by hand."""
    table = {"b": 0.5, "a": 0.4, "c": 0.3, "ba": 0.5, "bc": 0.6}

    def values(models, spec, variables, data_labels):
        got = flatten_dict(variables, sep="/")
        for names, value in table.items():
            want = [flat(root / n) for n in names]
            mean = {k: np.mean(np.float64([w[k] for w in want]), axis=0) for k in got}
            if all(np.array_equal(got[k], mean[k].astype(np.float32)) for k in got):
                return {"mean_ap": value}, {"name": "val", "clips": 3, "hash": "0"}
        raise AssertionError("a mean that the greedy soup must not try")

    monkeypatch.setattr(soup, "_values", values)
    argv = [root / n for n in "abc"] + ["--greedy", f"--data={root / 'audio' / 'clips.csv'}"]
    assert made(root, *argv, out=tmp_path / "m") == 0
    out = capsys.readouterr().out
    assert "left out     mean_ap 0.5000  " + str(root / "a") in out  # equal is no rise
    assert "added        mean_ap 0.6000  " + str(root / "c") in out
    assert "the mean weights of 2 models of 3, chosen on val" in out
    card = model_dir.load_model(tmp_path / "m")[3]["soup"]
    assert [m["path"] for m in card["members"]] == [str(root / "b"), str(root / "c")]
    assert card["greedy"]["data"]["name"] == "val"
    assert card["greedy"]["value"] == 0.6
    got = flat(tmp_path / "m")
    for name, value in got.items():
        want = np.mean(np.float64([flat(root / n)[name] for n in "bc"]), axis=0)
        np.testing.assert_array_equal(value, want.astype(np.float32))


def test_the_greedy_soup_scores_as_asjax_eval_does(root, tmp_path, capsys):
    data = f"--data={root / 'audio' / 'clips.csv'}"
    assert made(root, root / "a", root / "b", "--greedy", data, out=tmp_path / "m") == 0
    greedy = model_dir.load_model(tmp_path / "m")[3]["soup"]["greedy"]
    for folder, value in [*greedy["alone"].items(), (tmp_path / "m", greedy["value"])]:
        argv = [f"--model={folder}", data, f"--out={tmp_path / 'eval'}", "--bootstrap=0"]
        assert main(["eval", *argv]) == 0
        metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
        assert metrics["views"]["labels"]["mean_ap"] == pytest.approx(value, abs=1e-6)
    argv = [root / "a", "--greedy", data, "--metric=psds9"]
    assert made(root, *argv, out=tmp_path / "x") == 2
    assert "--metric 'psds9' does not exist" in capsys.readouterr().err


# ------------------------------------------------------------------------------ statistics


def test_estimated_statistics_are_those_of_the_data(root, tmp_path, capsys):
    """The first norm sees the output of the first convolution, which the test computes."""
    import jax

    data = f"--statistics={root / 'audio' / 'clips.csv'}"
    assert made(root, root / "a", root / "b", data, out=tmp_path / "m") == 0
    assert "batch norms: estimated on 11 clips of clips" in capsys.readouterr().out
    assert made(root, root / "a", root / "b", out=tmp_path / "plain") == 0
    got, plain = flat(tmp_path / "m"), flat(tmp_path / "plain")
    for name in got:
        if name.startswith("params"):
            np.testing.assert_array_equal(got[name], plain[name])
    cfg, _, variables, card = model_dir.load_model(tmp_path / "plain")
    assert model_dir.load_model(tmp_path / "m")[3]["soup"]["statistics"]["data"]["clips"] == 11
    frontend = build.make("frontend", cfg["frontend"])
    model = build.make("model", {**cfg["model"], "num_classes": 3})
    size, inside = round(CLIP_S * RATE), []
    waves = [soundfile.read(p, dtype="float32")[0] for p in sorted((root / "audio").glob("*.wav"))]
    waves = [np.pad(wave, (0, size - len(wave))) for wave in waves]

    def note(call, args, kwargs, context):
        if type(context.module).__name__ == "BatchNorm":
            inside.append(("/".join(context.module.path), np.float64(args[0])))
        return call(*args, **kwargs)

    from flax import linen as nn

    with nn.intercept_methods(note):  # in batches of 4, as the config says
        for start in range(0, 11, 4):
            feats = frontend(np.stack(waves[start : start + 4]))
            run = partial(model.apply, train=True, mutable=["batch_stats"])
            run(variables, feats, rngs={"dropout": jax.random.key(0)})
    first = inside[0][0]
    seen = [x.reshape(-1, x.shape[-1]) for name, x in inside if name == first]
    counts = [4, 4, 3]
    mean = np.average([x.mean(axis=0) for x in seen], axis=0, weights=counts)
    var = np.average([x.var(axis=0, ddof=1) for x in seen], axis=0, weights=counts)
    np.testing.assert_allclose(got[f"batch_stats/{first}/mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[f"batch_stats/{first}/var"], var, rtol=1e-4, atol=1e-5)
    assert (
        np.abs(got[f"batch_stats/{first}/mean"] - plain[f"batch_stats/{first}/mean"]).max() > 0.01
    )


def test_statistics_need_a_norm_and_two_clips(root):
    batches = [{"wave": np.zeros((2, 8000), np.float32), "mask": np.float32([1, 0])}]
    _, _, variables, _ = model_dir.load_model(root / "a")
    with pytest.raises(AsjaxError, match="a batch of two or more clips"):
        soup.estimate(None, None, variables, batches)
