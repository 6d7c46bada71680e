"""`asjax eval` of stored logits, alone and with models: as the models that made them."""

import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from small_detectors import CLASSES, make, write_clips

from asjax import labels
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.evaluation import scoring, stored_logits
from asjax.store import logits, logits_writer
from asjax.store.scores import load_scores


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Clips; two detectors a and b; their stored logits la and lb; the 2 highest of each, ltop."""
    root = tmp_path_factory.mktemp("stored")
    write_clips(root / "audio")
    for name in "ab":
        make(root / name, key=ord(name), eval={"batch_size": 4, "median_s": 0.1})
        argv = [f"--data={root / 'audio' / 'events.tsv'}", "--dtype=float32", "--frames"]
        assert main(["logits", str(root / name), *argv, f"--out={root / ('l' + name)}"]) == 0
    argv = [f"--data={root / 'audio' / 'clips.csv'}", "--dtype=float32", "--top=2"]
    assert main(["logits", str(root / "a"), *argv, f"--out={root / 'ltop'}"]) == 0
    return root


def scored(root, names, data, *options):
    """Exit code, scores and the folder of an evaluation."""
    members = [f"--model={root / name}" for name in names]
    out = root / "-".join(["out", *names])
    argv = [*members, f"--data={root / 'audio' / data}", f"--out={out}", "--bootstrap=0"]
    code = main(["eval", *argv, *options])
    return code, load_scores(out / "scores.npz") if code < 2 else None, out


@pytest.mark.parametrize("data", ["events.tsv", "clips.csv"])
@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_stored_logits_score_as_the_models(root, names, data):
    weights = ["--weights=1,3"] if len(names) > 1 else []
    code, want, folder = scored(root, names, data, *weights)
    assert code == 0
    for some in ([f"l{name}" for name in names], [f"l{names[0]}", *names[1:]]):
        code, got, out = scored(root, some, data, *weights)
        assert code == 0
        assert got["ids"] == want["ids"]
        np.testing.assert_allclose(got["scores"], want["scores"], atol=1e-5)
        np.testing.assert_array_equal(got["targets"], want["targets"])
        if data == "events.tsv":
            (one, two) = (logits.open(f / "frames") for f in (folder, out))
            assert one.row_ids == two.row_ids
            assert one.event_texts == two.event_texts
            np.testing.assert_allclose(one.durations_s, two.durations_s, atol=1e-9)
            for row in range(len(one.row_ids)):
                np.testing.assert_allclose(one.frames[row], two.frames[row], atol=4e-3)
            if some[1:] == ["b"]:  # logits alone do not know the model's median window
                assert one.extra["median_s"] == two.extra["median_s"] == 0.1


def test_the_mean_has_the_weights_of_the_members(root):
    parts = [scored(root, [f"l{n}"], "clips.csv")[1]["scores"] for n in "ab"]
    got = scored(root, ["la", "lb"], "clips.csv", "--weights=1,3")[1]["scores"]
    np.testing.assert_allclose(got, (parts[0] + 3.0 * parts[1]) / 4, atol=1e-5)
    got = scored(root, ["la", "lb"], "clips.csv", "--weights=1,3", "--average=probabilities")[1]
    p = 1 / (1 + np.exp(-np.float64(parts)))
    p = (p[0] + 3 * p[1]) / 4
    np.testing.assert_allclose(got["scores"], np.log(p) - np.log1p(-p), atol=1e-5)
    assert got["extra"]["ensemble"]["weights"] == [1, 3]
    files = [f"--scores={root / f'out-l{n}' / 'scores.npz'}" for n in "ab"]
    argv = [*files, "--weights=1,3", "--average=probabilities", f"--out={root / 'files'}"]
    assert main(["eval", *argv, "--bootstrap=0"]) == 0
    again = load_scores(root / "files" / "scores.npz")["scores"]
    np.testing.assert_allclose(again, got["scores"], atol=1e-5)


@pytest.mark.parametrize("names", [["la"], ["la", "b"]])
@pytest.mark.parametrize("data", ["more.csv", "more.tsv"])
def test_clips_without_logits_are_counted_and_named(root, names, data, capsys):
    audio = root / "audio"
    (audio / "new.wav").write_bytes((audio / "00.wav").read_bytes())
    (audio / "more.csv").write_text((audio / "clips.csv").read_text() + "new.wav,Cat\n")
    events = (audio / "events.tsv").read_text()
    (audio / "more.tsv").write_text(events + "new.wav\t0.1\t0.2\tCat\n")
    code, got, out = scored(root, names, data)
    assert code == 1
    said = capsys.readouterr().out
    assert f"no logits    1 of 12 clips, first new.wav: no logits in {root / 'la'}" in said
    assert "was stored from other clips, labels or audio" in said
    assert "new.wav" not in got["ids"]
    assert len(got["ids"]) == 11
    left_out = json.loads((out / "metrics.json").read_text())["left_out_clips"]
    assert left_out == [["new.wav", f"no logits in {root / 'la'}"]]


def test_the_rest_of_the_highest_logits(root, capsys):
    full = scored(root, ["la"], "clips.csv")[1]["scores"]
    zero = scored(root, ["ltop"], "clips.csv")[1]["scores"]
    lowest = full.argmin(axis=1)
    rows = np.arange(len(full))
    assert (zero[rows, lowest] == stored_logits.ABSENT).all()
    uniform = scored(root, ["ltop"], "clips.csv", "--rest=uniform")[1]["scores"]
    middle = np.sort(full, axis=1)[:, 1]  # one class is left, with the lowest stored probability
    np.testing.assert_allclose(uniform[rows, lowest], middle, atol=1e-5)
    for scores in (zero, uniform):
        keep = np.ones_like(full, bool)
        keep[rows, lowest] = False
        np.testing.assert_allclose(scores[keep], full[keep], atol=1e-5)
    got = scored(root, ["ltop", "a"], "clips.csv", "--rest=uniform")[1]["scores"]
    np.testing.assert_allclose(got, (uniform + full) / 2, atol=1e-5)
    got = scored(root, ["ltop", "a"], "clips.csv", "--average=probabilities")[1]["scores"]
    half = 1 / (1 + np.exp(-np.float64(full[rows, lowest]))) / 2  # the mean of it and 0
    np.testing.assert_allclose(got[rows, lowest], np.log(half / (1 - half)), atol=1e-4)


def test_the_member_without_evaluation_data_is_named():
    configs = [{"data": {"eval": "esc10()"}}, {"data": {}}]
    with pytest.raises(AsjaxError, match="config of b names no evaluation data"):
        scoring.Models.own_data(SimpleNamespace(paths=["a", "b"], _configs=configs))


def test_what_has_no_evaluation_is_refused_in_one_line(root, tmp_path, capsys):
    other = labels.LabelSet("o", ("/m/0bt9lr", "x", "y"), ("Dog", "Fox", "Hen"))
    make(tmp_path / "other", classes=other)
    form = logits_writer.Form(CLASSES, "float32", frames=10, frame_rate=20.0)
    row = [logits_writer.Row("00.wav", 0.5)]
    logits_writer.save(tmp_path / "frames", form, row, frames=np.zeros((1, 10, 3)))
    odd = logits_writer.Form(CLASSES, "float32", clip=True)
    logits_writer.save(tmp_path / "odd", odd, [logits_writer.Row("z", 1.0)], clip=np.zeros((1, 3)))
    views = logits_writer.Form(
        CLASSES, "float32", clip=True, views={"count": 2, "seed": 0, "ops": ""}
    )
    logits_writer.save(tmp_path / "views", views, row, clip=np.zeros((1, 3)))
    data = f"--data={root / 'audio' / 'clips.csv'}"
    la = f"--model={root / 'la'}"
    for argv, message in (
        ([la], "names no evaluation data; give --data"),
        ([la, f"--model={tmp_path / 'other'}", data], "other has 'Fox'"),
        ([f"--model={tmp_path / 'frames'}", data], "has logits of frames only"),
        ([f"--model={tmp_path / 'odd'}", data], "of none of the 11 clips of clips"),
        ([f"--model={tmp_path / 'views'}", data], "2 random views"),
        ([la, f"--model={root / 'a'}", data, "--average=weights"], "stored logits, not a model"),
        ([f"--model={root / 'ltop'}", la, data], "give --rest uniform"),
        ([la, data, f"--out={root / 'lb'}"], "holds stored logits; choose another"),
        ([la, f"--data={root / 'audio' / 'events.tsv'}", "--clip-s=3"], "--clip-s must be 0.5 s"),
        ([la, data, "--weights=0"], "--weights must be numbers above 0"),
    ):  # fmt: skip
        assert main(["eval", *argv]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert len([line for line in err.splitlines() if "error" in line]) == 1


def test_logits_that_are_not_finite_are_named(root, tmp_path):
    form = logits_writer.Form(CLASSES, "float32", clip=True)
    values = np.zeros((1, 3), np.float32)
    logits_writer.save(tmp_path / "l", form, [logits_writer.Row("00.wav", 0.5)], clip=values)
    (file,) = (tmp_path / "l").glob("clip-*.npy")
    np.save(file, np.full((1, 3), np.nan, np.float32))
    models = scoring.Models([tmp_path / "l"])
    data = dict(name="folder", csv=str(root / "audio" / "clips.csv"), root=str(root / "audio"))
    with pytest.raises(AsjaxError, match=r"clip 00.wav are not finite; store them again"):
        models.score(data, tmp_path / "out")


def test_some_clips_of_a_source_pass_on_the_rest_of_it():
    class Source:
        ids, labels, name, extra = ["a", "b", "c"], np.eye(3), "x", 7

        def __getitem__(self, i):
            return {"id": self.ids[i]}

    some = stored_logits.Some(Source(), [0, 2])
    assert (len(some), some.ids, some[1]["id"], some.extra) == (2, ["a", "c"], "c", 7)
    assert some.events is None
    with pytest.raises(AttributeError):
        functools.partial(getattr, some)("_nothing")
