"""Stored models on data sets: `asjax eval` of one model, of ensembles, on other label sets."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_evaluate import own_set, saved

from asjax import build, labels
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.evaluation import averages, evaluate
from asjax.store import model_dir
from asjax.store.scores import save_scores

RATES = {"a": 16000, "b": 8000}  # two frontends, because members of an ensemble may differ


def make_model(folder, clips, *, rate=16000, classes=None, key=0, cnn="mini", objective=None):
    """Write a small untrained model to `folder`; returns `wave [B, S] -> logits`."""
    import jax

    label_set = classes or own_set(3)
    cfg = {
        "labels": {"name": label_set.name, "hlp": False, "strict": False},
        "data": {
            "eval": {"name": "folder", "csv": str(clips / "clips.csv"), "root": str(clips)},
            "sample_rate": rate,
            "clip_s": 0.5,
            "workers": 0,
            "threads": 1,
            "max_bad": 0.3,
        },
        "frontend": {"name": "panns_logmel", "sample_rate": rate, "n_mels": 16,
                     "hop": rate // 50, "n_fft": 512},
        "model": {"name": "cnn", "variant": cnn, "n_mels": 16},
        "eval": {"batch_size": 4},
    }  # fmt: skip
    if objective:
        cfg["objective"] = objective
    frontend = build.make("frontend", cfg["frontend"])
    model = build.make("model", cfg["model"], num_classes=len(label_set))
    wave = np.zeros((1, rate // 2), np.float32)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(key), frontend(wave))
    model_dir.save_model(
        folder, config=cfg, label_set=label_set, variables=variables, record={"hlp": bool(key)}
    )
    return lambda w: model.apply(variables, frontend(w), train=False)["logits"]


@pytest.fixture
def clips(tmp_path):
    """Five recordings of half a second and their labels."""
    import soundfile

    rng = np.random.default_rng(0)
    folder = tmp_path / "audio"
    folder.mkdir()
    rows = ["filename,labels"]
    for i in range(5):
        soundfile.write(folder / f"{i}.wav", rng.normal(0, 0.1, 4000).astype(np.float32), 8000)
        rows.append(f"{i}.wav,sound {i % 3}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


def logits_by_hand(expected, clips, rate):
    """Run the model on each clip alone, without `asjax eval`."""

    spec = {"name": "folder", "csv": str(clips / "clips.csv"), "root": str(clips)}
    stream = build.pipeline(
        build.source(spec, own_set(3)), batch_size=1, sample_rate=rate, clip_s=0.5,
        num_classes=3, train=False, max_bad=1.0,
    )  # fmt: skip
    with stream.iterate() as batches:
        return np.array([np.asarray(expected(b["wave"]))[0] for b in batches if b["mask"][0]])


@pytest.fixture
def model_folder(tmp_path, clips):
    """The folder of a run with its model, and the expected logits."""
    folder = tmp_path / "run" / "model"
    return folder, make_model(folder, clips)


def test_eval_of_a_model_scores_its_own_data_and_leaves_broken_clips_out(
    model_folder, clips, capsys
):
    folder, expected = model_folder
    run = folder.parent
    (clips / "3.wav").write_bytes(b"RIFF no audio")
    (run / "train.jsonl").write_text(
        '{"step": 1, "loss": 0.5}\nnot json\n{"step": 2, "loss": 0.4}\n'
    )
    assert main(["eval", f"--model={folder}", "--bootstrap=10"]) == 0
    out = capsys.readouterr().out
    assert "left out     1 clip that" in out
    got = evaluate.load_scores(run / "eval" / "scores.npz")
    assert len(got["ids"]) == 4
    assert got["targets"].argmax(axis=1).tolist() == [0, 1, 2, 1]

    want = logits_by_hand(expected, clips, 16000)
    np.testing.assert_allclose(got["scores"], want, atol=1e-5)
    page = (run / "eval" / "report.html").read_text()
    assert "training curves" in page
    assert "3.wav" in page  # clips left out, with reasons


def test_eval_of_a_model_with_a_taxonomy_of_its_own_propagates(tmp_path, clips, capsys):
    """From the model folder and from the scores alone; parents.csv is not read again."""
    parents = tmp_path / "parents.csv"
    parents.write_text("child,parent\nsound 0,group\ngroup,sound 2\n")
    label_set = own_set(3).with_taxonomy(parents)
    parents.unlink()
    make_model(tmp_path / "run" / "model", clips, classes=label_set)
    assert main(["eval", f"--model={tmp_path / 'run' / 'model'}", "--bootstrap=0"]) == 0
    text = capsys.readouterr().out
    assert "HLP on labels and scores" in text
    scores = tmp_path / "run" / "eval" / "scores.npz"
    summary = json.loads((scores.parent / "metrics.json").read_text())
    got = evaluate.load_scores(scores)
    from sklearn.metrics import average_precision_score

    implied = got["targets"].copy()
    implied[:, 2] |= implied[:, 0]
    best = got["scores"].copy()
    best[:, 2] = best[:, [0, 2]].max(axis=1)
    want = average_precision_score(implied, best, average="macro")
    assert summary["views"]["hlp_labels_scores"]["mean_ap"] == pytest.approx(want, abs=1e-12)
    again = ["eval", f"--scores={scores}", f"--out={tmp_path / 'again'}", "--bootstrap=0"]
    assert main(again) == 0
    assert "HLP on labels and scores" in capsys.readouterr().out


def test_eval_of_other_data_goes_to_its_own_folder(model_folder, clips, capsys):
    folder, _ = model_folder
    spec = f"folder(csv='{clips / 'clips.csv'}', root='{clips}')"
    assert main(["eval", f"--model={folder.parent}", f"--data={spec}", "--bootstrap=0"]) == 0
    assert (folder.parent / "eval-folder" / "report.html").is_file()
    assert not (folder.parent / "eval").exists()
    assert "[" not in capsys.readouterr().out  # without intervals


# -------------------------------------------------------------------------------- ensembles


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_averages_of_logits_and_of_probabilities_are_what_they_say():
    rng = np.random.default_rng(0)
    parts = rng.normal(-3, 3, (3, 20, 5)).astype(np.float32)
    np.testing.assert_allclose(averages.average_scores(parts), parts.mean(axis=0), rtol=1e-5)
    mean = sigmoid(parts).mean(axis=0)
    got = averages.average_scores(iter(parts), "probabilities")
    np.testing.assert_allclose(got, np.log(mean) - np.log1p(-mean), rtol=1e-5, atol=1e-6)
    assert got.dtype == np.float32
    same = averages.average_scores(parts[:1])  # one model gives its scores, bit for bit
    np.testing.assert_array_equal(same, parts[0])


def test_the_mean_of_extreme_probabilities_stays_finite_and_in_order():
    sure = np.array([[80.0, 90.0, -80.0, -np.inf]])
    got = averages.average_scores([sure, sure], "probabilities")
    np.testing.assert_allclose(got, sure, rtol=1e-6)
    half = averages.average_scores([[[400.0]], [[-400.0]]], "probabilities")
    np.testing.assert_allclose(half, 0.0, atol=1e-6)
    with pytest.raises(AsjaxError, match="average of scores 'mean' does not exist"):
        averages.average_scores([sure], "mean")


def test_averaged_weights_are_plain_means_and_counters_come_from_the_first():
    one = {"params": {"w": np.float32([1, 2])}, "stats": {"mean": np.float32(4), "n": np.int32(7)}}
    two = {"params": {"w": np.float32([3, 6])}, "stats": {"mean": np.float32(0), "n": np.int32(9)}}
    got = averages.average_weights([one, two])
    np.testing.assert_array_equal(got["params"]["w"], np.float32([2, 4]))
    assert got["params"]["w"].dtype == np.float32
    assert (got["stats"]["mean"], got["stats"]["n"]) == (2.0, 7)
    with pytest.raises(AsjaxError, match=r"params/w is \(2,\) in model 1 and \(3,\) in model 2"):
        averages.average_weights([one, {**two, "params": {"w": np.zeros(3, np.float32)}}])
    with pytest.raises(AsjaxError, match="stats/n is .* no such array in model 2"):
        averages.average_weights([one, {**two, "stats": {"mean": np.float32(0)}}])


@pytest.mark.parametrize("kind", [None, "probabilities"])
def test_an_ensemble_of_models_that_hear_different_rates(tmp_path, clips, capsys, kind):
    models = {n: make_model(tmp_path / n / "model", clips, rate=RATES[n], key=ord(n)) for n in "ab"}
    out = tmp_path / "out"
    argv = [f"--model={tmp_path / n}" for n in "ab"] + [f"--average={kind}"] * bool(kind)
    assert main(["eval", *argv, f"--out={out}", "--bootstrap=0"]) == 0
    parts = [logits_by_hand(models[n], clips, RATES[n]) for n in "ab"]
    got = evaluate.load_scores(out / "scores.npz")
    want = np.mean(parts, axis=0)
    if kind:
        p = sigmoid(parts).mean(axis=0)
        want = np.log(p) - np.log1p(-p)
    np.testing.assert_allclose(got["scores"], want, atol=2e-5)
    assert got["extra"]["ensemble"]["average"] == (kind or "logits")
    record = json.loads((out / "metrics.json").read_text())["record"]
    assert record["ensemble"]["2"] == str(tmp_path / "b")
    assert record["hlp"] is True  # the same in both records

    # the same from the finished scores of each, in another order of clips
    for n, part in zip("ab", parts, strict=True):
        order = np.arange(5) if n == "a" else np.arange(5)[::-1]
        save_scores(
            tmp_path / f"{n}.npz",
            ids=[got["ids"][i] for i in order],
            scores=part[order],
            targets=got["targets"][order],
            label_set=got["label_set"],
        )
    files = [f"--scores={tmp_path / n}.npz" for n in "ab"] + [f"--average={kind}"] * bool(kind)
    assert main(["eval", *files, "--bootstrap=0"]) == 0
    again = evaluate.load_scores(tmp_path / "ensemble" / "scores.npz")
    assert again["ids"] == got["ids"]
    np.testing.assert_allclose(again["scores"], want, atol=2e-5)


# ------------------------------------------------------------------------- one label per clip


def softmax(x):
    p = np.exp(np.asarray(x, np.float64))
    return p / p.sum(axis=-1, keepdims=True)


def test_averages_of_softmaxes_are_probabilities_again():
    parts = np.random.default_rng(0).normal(-3, 3, (3, 20, 5))
    scores = np.log(softmax(parts)).astype(np.float32)
    got = averages.average_scores(iter(scores), "logits", ["softmax"])
    np.testing.assert_allclose(np.exp(got), softmax(parts.mean(axis=0)), rtol=1e-4)
    got = averages.average_scores(iter(scores), "probabilities", ["softmax"] * 3)
    np.testing.assert_allclose(np.exp(got), softmax(parts).mean(axis=0), rtol=1e-4)
    # scores of some of the classes keep their sum, which is below 1
    got = averages.average_scores(scores[:, :, :2], "logits", ["softmax"])
    want = np.exp(scores[:, :, :2]).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(np.exp(got).sum(axis=1), want, rtol=1e-4)
    same = averages.average_scores(scores[:1], activations=["softmax"])
    np.testing.assert_array_equal(same, scores[0])


def test_a_softmax_and_a_sigmoid_can_only_be_joined_by_probabilities():
    logits = np.random.default_rng(0).normal(0, 2, (2, 20, 5))
    kinds = ["softmax", "sigmoid"]
    p = (softmax(logits[0]) + sigmoid(logits[1])) / 2
    parts = [np.log(softmax(logits[0])), logits[1]]
    got = averages.average_scores(parts, "probabilities", kinds)
    np.testing.assert_allclose(sigmoid(got), p, rtol=1e-5)
    assert averages.joined(kinds, "probabilities") == "sigmoid"
    for kind in ("logits", "weights"):
        with pytest.raises(
            AsjaxError, match="can only average their probabilities; give --average"
        ):
            averages.joined(kinds, kind)


def test_eval_of_classifiers_alone_and_in_ensembles(tmp_path, clips, capsys):
    classify = {"name": "classify"}
    kinds = {"a": classify, "b": "classify(label_smoothing=0.1)", "c": None}
    models = {
        n: make_model(tmp_path / n / "model", clips, key=ord(n), objective=kinds[n]) for n in "abc"
    }
    logits = {n: logits_by_hand(models[n], clips, 16000) for n in "abc"}
    assert main(["eval", f"--model={tmp_path / 'a'}", "--bootstrap=5"]) == 0
    assert "accuracy [95% interval]" in capsys.readouterr().out
    got = evaluate.load_scores(tmp_path / "a" / "eval" / "scores.npz")
    assert got["activation"] == "softmax"
    np.testing.assert_allclose(np.exp(got["scores"]), softmax(logits["a"]), atol=1e-5)

    def ensemble(names, *more):
        argv = [f"--model={tmp_path / n}" for n in names]
        return main(["eval", *argv, f"--out={tmp_path / 'out'}", "--bootstrap=0", *more])

    assert ensemble("ab", "--average=probabilities") == 0
    got = evaluate.load_scores(tmp_path / "out" / "scores.npz")
    want = (softmax(logits["a"]) + softmax(logits["b"])) / 2
    np.testing.assert_allclose(np.exp(got["scores"]), want, atol=1e-5)
    capsys.readouterr()
    assert ensemble("ac") == 2
    error = capsys.readouterr().err
    assert "can only average their probabilities; give --average=probabilities" in error
    assert error.count("\n") == 1
    assert ensemble("ac", "--average=probabilities") == 0
    got = evaluate.load_scores(tmp_path / "out" / "scores.npz")
    assert got["activation"] == "sigmoid"
    want = (softmax(logits["a"]) + sigmoid(logits["c"])) / 2
    np.testing.assert_allclose(sigmoid(got["scores"]), want, atol=1e-5)
    # the same from the finished scores
    assert main(["eval", f"--model={tmp_path / 'c'}", "--bootstrap=0"]) == 0
    files = [f"--scores={tmp_path / n / 'eval' / 'scores.npz'}" for n in "ac"]
    out = f"--out={tmp_path / 'files'}"
    assert main(["eval", *files, out, "--bootstrap=0", "--average=probabilities"]) == 0
    again = evaluate.load_scores(tmp_path / "files" / "scores.npz")
    np.testing.assert_allclose(again["scores"], got["scores"], atol=1e-4)
    assert main(["eval", *files, out, "--bootstrap=0"]) == 2


def test_averaged_weights_score_as_one_model_that_can_be_kept(tmp_path, clips, capsys):

    for n in "ab":
        make_model(tmp_path / n / "model", clips, key=ord(n))
    argv = [f"--model={tmp_path / n}" for n in "ab"]
    keep = tmp_path / "mean"
    assert main(["eval", *argv, "--average=weights", "--bootstrap=0"]) == 0
    assert main(["soup", str(tmp_path / "a"), str(tmp_path / "b"), f"--out={keep}"]) == 0
    one, two, mean = (model_dir.load_model(p)[2] for p in (tmp_path / "a", tmp_path / "b", keep))
    kernel = lambda v: v["params"]["head"]["kernel"]  # noqa: E731
    np.testing.assert_allclose(kernel(mean), (kernel(one) + kernel(two)) / 2, rtol=1e-6)
    assert main(["eval", f"--model={keep}", f"--out={tmp_path / 'out'}", "--bootstrap=0"]) == 0
    kept = evaluate.load_scores(tmp_path / "out" / "scores.npz")["scores"]
    ensemble = evaluate.load_scores(tmp_path / "a" / "eval-ensemble" / "scores.npz")["scores"]
    np.testing.assert_array_equal(kept, ensemble)


def test_models_that_cannot_be_joined_are_refused_in_one_line(tmp_path, clips, capsys):
    make_model(tmp_path / "a", clips)
    make_model(tmp_path / "rate", clips, rate=8000)
    make_model(tmp_path / "classes", clips, classes=own_set(4))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    make_model(tmp_path / "data", elsewhere)
    for other, more, message in (
        ("classes", [], "classes has other classes than"),
        ("rate", ["--average=weights"], "rate: 16000 -> 8000"),
        ("data", [], "evaluate on different data; give --data"),
    ):
        argv = [f"--model={tmp_path / n}" for n in ("a", other)]
        assert main(["eval", *argv, *more]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_scores_of_other_clips_or_labels_are_no_ensemble(tmp_path):
    ids, scores, targets = saved(tmp_path / "a.npz", own_set())
    write = partial(save_scores, label_set=own_set())
    write(tmp_path / "less.npz", ids=ids[1:], scores=scores[1:], targets=targets[1:])
    write(tmp_path / "labels.npz", ids=ids, scores=scores, targets=targets[::-1])
    with pytest.raises(
        AsjaxError, match="same clips: .* has 40, .* has 39; .* 'clip0' is in only one"
    ):
        averages.average_files([tmp_path / "a.npz", tmp_path / "less.npz"])
    with pytest.raises(AsjaxError, match="other labels"):
        averages.average_files([tmp_path / "a.npz", tmp_path / "labels.npz"])
    saved(tmp_path / "classes.npz", own_set(9))
    with pytest.raises(AsjaxError, match="label hash"):
        averages.average_files([tmp_path / "a.npz", tmp_path / "classes.npz"])


# -------------------------------------------------------------------------------- zero-shot


@pytest.fixture
def fsd50k_records(tmp_path, clips):
    """Five clips with FSD50K's labels: Bark; Crash_cymbal (not in AudioSet) and Speech; ..."""
    names = ["Bark", "Crash_cymbal;Speech", "Speech", "Crash_cymbal", "Bark;Speech"]
    rows = [f"{i}.wav,{text}" for i, text in enumerate(names)]
    (tmp_path / "fsd.csv").write_text("\n".join(["filename,labels", *rows]) + "\n")
    out = tmp_path / "fsd50k"
    code = main(
        ["prepare", "folder", f"--csv={tmp_path / 'fsd.csv'}", f"--audio={clips}", f"--out={out}",
         "--labels=fsd50k200"]
    )  # fmt: skip
    assert code == 0
    return out


def test_an_audioset_model_is_scored_zero_shot_on_fsd50k_records(
    tmp_path, clips, fsd50k_records, capsys
):
    ours, theirs = labels.get("audioset527"), labels.get("fsd50k200")
    make_model(tmp_path / "run" / "model", clips, classes=ours)
    assert main(["eval", f"--model={tmp_path / 'run'}", f"--data={fsd50k_records}"]) == 0
    out = capsys.readouterr().out
    assert "zero-shot    192 of 200 classes of fsd50k200; not in the model: Crash_cymbal" in out
    got = evaluate.load_scores(tmp_path / "run" / "eval-fsd50k" / "scores.npz")
    assert got["scores"].shape == (5, 192)
    assert set(got["label_set"].ids) == set(theirs.ids) & set(ours.ids)
    bark, speech = (got["label_set"].index(n) for n in ("Bark", "Speech"))
    assert got["targets"][:, bark].tolist() == [1, 0, 0, 0, 1]
    assert got["targets"][:, speech].tolist() == [0, 1, 1, 0, 1]
    assert got["targets"].sum() == 5  # without the class that AudioSet does not have

    # the columns are those of the model, for any order of the classes
    spec = f"folder(csv='{tmp_path / 'all.csv'}', root='{clips}')"
    rows = [f"{i}.wav,Speech" for i in range(5)]
    (tmp_path / "all.csv").write_text("\n".join(["filename,labels", *rows]) + "\n")
    assert main(["eval", f"--model={tmp_path / 'run'}", f"--data={spec}", "--bootstrap=0"]) == 0
    own = evaluate.load_scores(tmp_path / "run" / "eval-folder" / "scores.npz")
    columns = [ours.index(label) for label in got["label_set"].ids]
    np.testing.assert_allclose(got["scores"], own["scores"][:, columns], atol=1e-5)
    summary = json.loads((tmp_path / "run" / "eval-fsd50k" / "metrics.json").read_text())
    assert list(summary["views"]) == ["labels"]  # without HLP, as in the paper
    assert len(summary["record"]["eval_data"]["zero_shot"]["left_out"]) == 8


def test_a_folder_with_another_label_set_needs_its_name(tmp_path, clips, capsys):
    make_model(tmp_path / "run" / "model", clips, classes=labels.get("audioset527"))
    (tmp_path / "e.csv").write_text("filename,labels\n0.wav,dog\n1.wav,rooster\n")
    argv = ["eval", f"--model={tmp_path / 'run'}", "--bootstrap=0",
            f"--data=folder(csv='{tmp_path / 'e.csv'}', root='{clips}')"]  # fmt: skip
    assert main([*argv, "--labels=esc50"]) == 0
    got = evaluate.load_scores(tmp_path / "run" / "eval-folder" / "scores.npz")
    assert got["label_set"].names[got["targets"][0].argmax()].lower() == "dog"
    assert main([*argv, "--labels=" + str(tmp_path / "none.csv")]) == 2
    own_set(3).to_csv(tmp_path / "mine.csv")
    capsys.readouterr()
    assert main([*argv, f"--labels={tmp_path / 'mine.csv'}"]) == 2
    assert "share no AudioSet mid" in capsys.readouterr().err
    assert main(["eval", f"--model={tmp_path / 'run'}", "--data=no-such-folder"]) == 2
    assert "there is no such file or folder, and it is no source" in capsys.readouterr().err


@pytest.mark.parametrize("objective", [None, "classify"])
def test_eval_takes_a_csv_or_class_folders_as_train_does(tmp_path, clips, capsys, objective):
    expected = make_model(tmp_path / "run" / "model", clips, objective=objective)
    tree = tmp_path / "tree"
    for i in range(5):
        (tree / f"sound {i % 3}").mkdir(parents=True, exist_ok=True)
        (tree / f"sound {i % 3}" / f"{i}.wav").write_bytes((clips / f"{i}.wav").read_bytes())
    want = logits_by_hand(expected, clips, 16000)
    for data, out in (
        (clips / "clips.csv", "eval-clips"),
        (clips, "eval-audio"),
        (tree, "eval-tree"),
    ):
        argv = ["eval", f"--model={tmp_path / 'run'}", "--bootstrap=0", f"--data={data}"]
        assert main(argv) == 0
        got = evaluate.load_scores(tmp_path / "run" / out / "scores.npz")
        numbers = [int(Path(name).stem) for name in got["ids"]]
        np.testing.assert_array_equal(got["targets"].argmax(1), [i % 3 for i in numbers])
        scores = got["scores"]
        if not objective:
            np.testing.assert_allclose(scores, np.asarray(want)[numbers], atol=1e-4)


def test_a_missing_relative_path_says_what_it_is_relative_to(tmp_path, clips, monkeypatch, capsys):
    make_model(tmp_path / "run" / "model", clips)
    monkeypatch.chdir(tmp_path)
    for data in ("folder(root='esc')", "folder(csv='esc.csv', root='audio')", "records(path='r')"):
        assert main(["eval", f"--model={tmp_path / 'run'}", f"--data={data}"]) == 2
        err = capsys.readouterr().err
        assert "relative to the folder where" in err
    gone = tmp_path / "gone"
    assert main(["eval", f"--model={tmp_path / 'run'}", f"--data=folder(root='{gone}')"]) == 2
    assert "this path is relative" not in capsys.readouterr().err
