"""`asjax probe` against scikit-learn on features computed in numpy."""

import json

import numpy as np
import pytest
import soundfile as sf

from asjax.__main__ import main
from asjax.evaluation import probe
from asjax.store.scores import load_scores

sklearn = pytest.importorskip("sklearn.linear_model")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two kinds of noise with splits: the deviation over time tells them apart."""
    folder = tmp_path_factory.mktemp("probe")
    rng, rows = np.random.default_rng(0), ["filename,labels,split,group"]
    for i in range(60):
        steady = i % 2
        wave = rng.normal(size=16_000) * 0.1
        if not steady:
            wave *= np.repeat(rng.uniform(0.01, 1, 20), 800)
        wave *= rng.uniform(0.3, 3)
        sf.write(folder / f"{i}.wav", wave.astype(np.float32), 16_000, subtype="FLOAT")
        split = ("train", "train", "train", "dev", "test")[i // 2 % 5]
        rows.append(f"{i}.wav,{('pulsing', 'steady')[steady]},{split},r{i // 2}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_the_test_split_is_scored_and_the_baseline_is_written(clips, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["probe", f"--data={clips / 'clips.csv'}", f"--out={out}", "--bootstrap=50"]) == 0
    text = capsys.readouterr().out
    loaded = load_scores(out / "scores.npz")
    assert len(loaded["ids"]) == 12  # the clips of test
    right = loaded["scores"].argmax(1) == loaded["targets"].argmax(1)
    known = json.loads((out / "baseline.json").read_text())
    assert known["accuracy"] == right.mean() >= 0.9
    assert (
        known["text"] == f"a linear model on log-mel statistics reaches {right.mean():.3f} accuracy"
    )
    assert known["text"] in text
    np.testing.assert_allclose(np.exp(loaded["scores"]).sum(1), 1, rtol=1e-5)
    record = json.loads((out / "metrics.json").read_text())["record"]
    assert record["baseline"] == known
    assert (out / "report.html").stat().st_size > 1000


def test_features_are_the_mean_and_deviation_of_each_bin():
    """Silence at the end, such as padding, is left out."""
    feats = np.random.default_rng(0).normal(size=(2, 30, 4)).astype(np.float32) - 40
    feats[:, 20:] = -100
    feats[1] = -100
    got = probe.statistics().apply({}, feats, train=False)["embedding"]
    want = np.concatenate([feats[0, :20].mean(0), feats[0, :20].std(0)])
    np.testing.assert_allclose(got[0], want, rtol=1e-5, atol=1e-5)
    assert np.isfinite(got).all()
    assert not got[1].any()


def test_silence_of_the_frontend_is_the_value_that_is_left_out():
    from asjax import build

    feats = build.make("frontend", probe.LOGMEL)(np.zeros((1, 16_000), np.float32))
    assert float(feats.max()) <= -99.0


def test_scores_equal_scikit_learn_with_the_chosen_penalty(clips):
    from asjax.own import data

    own = data.read(str(clips / "clips.csv"))
    from asjax import build

    sources = [build.source(own.specs[role], own.label_set) for role in ("train", "test")]
    features = probe.Features(clip_s=1.0)
    result = probe.fitted(features, *sources, 2)
    _, x, y, _ = features(sources[0], 2)
    _, z, *_ = features(sources[1], 2)
    scale = lambda a: (a - x.mean(0)) / x.std(0)  # noqa: E731
    want = sklearn.LogisticRegression(
        C=1 / (result["penalty"] * len(x)), max_iter=10_000, tol=1e-10
    ).fit(scale(x), y.argmax(1))
    # Two softmax columns share the penalty of one: their difference is the decision function.
    ours = result["scores"][:, 1] - result["scores"][:, 0]
    theirs = want.decision_function(scale(z))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999
    assert ((ours > 0) == (theirs > 0)).mean() > 0.9


def test_a_class_without_training_clips_is_said(tmp_path, clips, capsys):
    lines = (clips / "clips.csv").read_text().splitlines()
    tests = [i for i, line in enumerate(lines) if ",test," in line]
    lines[tests[0]] = lines[tests[0]].replace("pulsing", "rare").replace("steady", "rare")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    words = [f"--data={tmp_path / 'clips.csv'}", f"--audio={clips}", f"--out={tmp_path / 'o'}"]
    assert main(["probe", *words, "--bootstrap=0"]) == 0
    assert capsys.readouterr().err.count("no training clip has the classes rare,") == 1


def test_several_labels_give_mean_ap(tmp_path, capsys):
    rng, rows = np.random.default_rng(1), ["filename,labels"]
    for i in range(30):
        low, high = rng.integers(0, 2, 2)
        t = np.arange(8_000) / 8_000
        wave = 0.3 * low * np.sin(2 * np.pi * 300 * t) + 0.3 * high * np.sin(2 * np.pi * 2500 * t)
        sf.write(tmp_path / f"{i}.wav", wave + 0.01 * rng.normal(size=8_000), 8_000)
        rows.append(f"{i}.wav,{';'.join(['low'] * low + ['high'] * high)}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    assert main(["probe", f"--data={tmp_path / 'clips.csv'}", f"--out={out}", "--bootstrap=0"]) == 0
    known = json.loads((out / "baseline.json").read_text())
    assert known["mean_ap"] > 0.9
    assert "mean AP" in capsys.readouterr().out


def test_the_regularisation_is_chosen_within_the_training_clips(clips, monkeypatch):
    """fit_best sees only training clips, with one group per recording."""
    from asjax import build
    from asjax.evaluation import linear
    from asjax.own import data

    seen = {}
    real = linear.fit_best

    def spy(x, targets, **options):
        seen.update(rows=len(x), groups=options["groups"])
        return real(x, targets, **options)

    monkeypatch.setattr(linear, "fit_best", spy)
    own = data.read(str(clips / "clips.csv"))
    train, final = (build.source(own.specs[r], own.label_set) for r in ("train", "test"))
    probe.fitted(probe.Features(clip_s=1.0), train, final, 2)
    assert seen["rows"] == len(train) == 36
    assert sorted(seen["groups"]) == sorted(train.group)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data=nothing"], "there is no such file or folder"),
        (["--data=esc10", "--clip-s=0"], "--clip-s must be"),
        (["--data=esc10", "--bootstrap=-1"], "--bootstrap must be"),
        (["--data=esc10", "--model=nothing"], "does not exist"),
    ],
)
def test_wrong_options_are_one_line(words, message, capsys):
    assert main(["probe", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
