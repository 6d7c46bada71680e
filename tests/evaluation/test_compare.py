"""`asjax compare` against naive resampling, and its errors (also `compare_events`)."""

import csv
import dataclasses

import numpy as np
import pytest
import small_detections

from asjax import events, metrics
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.evaluation import compare, detection
from asjax.labels import LabelSet
from asjax.store import scores as score_files
from asjax.store.scores import save_scores

sk = pytest.importorskip("sklearn.metrics")
SET = LabelSet("own", ("a", "b", "c"), ("A", "B", "C"))


def evaluation(path, ids, quality, single=True, label_set=SET):
    """Scores of made-up clips; the same id has the same label and noise in every evaluation."""
    rows, targets = [], []
    for clip in ids:
        rng = np.random.default_rng(int(clip[1:]))
        true = np.eye(3)[rng.integers(3)]
        if not single:
            true = np.maximum(true, rng.random(3) < 0.3)
        targets.append(true)
        rows.append(true * quality + rng.normal(size=3))
    save_scores(path / "eval" / "scores.npz", ids=ids, scores=np.array(rows),
                targets=np.array(targets), label_set=label_set)  # fmt: skip
    return str(path)


@pytest.fixture
def pair(tmp_path):
    ids = [f"x{i}" for i in range(80)]
    first = evaluation(tmp_path / "one", ids[5:], 0.5)
    second = evaluation(tmp_path / "two", ids[:75][::-1], 2.0)  # other order, other clips
    return first, second


def test_differences_are_paired_by_clip_and_equal_naive_resampling(pair):
    got = compare.compare(*pair, n=20, seed=3)
    assert got["clips"] == 70
    assert got["left_out"] == (5, 5)
    ids = sorted(f"x{i}" for i in range(5, 75))
    tables = []
    for path in pair:
        loaded = compare.score_files.load_scores(compare.scores_of(path))
        rows = [loaded["ids"].index(i) for i in ids]
        tables.append((loaded["scores"][rows], loaded["targets"][rows]))
    draws, changes = np.random.default_rng(3), []
    for _ in range(20):
        rows = draws.integers(0, 70, 70)
        a, b = (sk.average_precision_score(t[rows], s[rows], average=None) for s, t in tables)
        changes.append(b - a)
    changes = np.array(changes)
    a, b = (sk.average_precision_score(t, s, average=None) for s, t in tables)
    first, second, difference, low, high, share = got["metrics"]["mean AP"]
    assert (first, second) == pytest.approx((a.mean(), b.mean()))
    means = changes.mean(axis=1)
    want = np.quantile(means, [0.025, 0.975]) + difference - means.mean()
    assert (low, high) == pytest.approx(tuple(want))
    assert share == 1.0
    for j in range(3):
        want = np.quantile(changes[:, j], [0.025, 0.975]) + (b - a)[j] - changes[:, j].mean()
        assert (got["classes"]["low"][j], got["classes"]["high"][j]) == pytest.approx(tuple(want))
    accuracy = got["metrics"]["accuracy"]
    for value, (s, t) in zip(accuracy[:2], tables, strict=True):
        assert value == pytest.approx(sk.accuracy_score(t.argmax(1), s.argmax(1)))


def test_a_run_against_itself_differs_by_nothing(pair):
    got = compare.compare(pair[0], pair[0], n=50)
    for first, second, difference, low, high, share in got["metrics"].values():
        assert (first, difference, low, high, share) == (second, 0.0, 0.0, 0.0, 0.5)


def test_the_verb_writes_a_page_tables_and_a_picture(pair, tmp_path, capsys):
    groups = tmp_path / "groups.csv"
    groups.write_text("".join(f"x{i},g{i // 4}\n" for i in range(80)))
    out = tmp_path / "out"
    argv = ["compare", *pair, "--out", str(out), "--bootstrap=50", f"--groups={groups}"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "70 common clips in 18 groups; 5 only in A and 5 only in B are left out" in printed
    assert "accuracy" in printed
    with (out / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["A", "B", "C"]
    assert sum(int(row["n_positive"]) for row in rows) == 70
    assert (out / "classes.png").read_bytes()[:4] == b"\x89PNG"
    assert "<img" in (out / "report.html").read_text()


def test_clips_with_several_labels_have_no_accuracy(tmp_path):
    ids = [f"x{i}" for i in range(40)]
    first = evaluation(tmp_path / "one", ids, 0.5, single=False)
    second = evaluation(tmp_path / "two", ids, 2.0, single=False)
    assert set(compare.compare(first, second, n=5)["metrics"]) == {"mean AP", "mean AUC"}


def test_a_softmax_and_a_sigmoid_are_compared_by_accuracy(tmp_path):
    ids = [f"x{i}" for i in range(40)]
    first = evaluation(tmp_path / "one", ids, 0.5)
    loaded = score_files.load_scores(tmp_path / "one" / "eval" / "scores.npz")
    loaded["scores"] = metrics.as_scores(loaded["scores"], "softmax")
    loaded["activation"] = "softmax"
    save_scores(tmp_path / "two" / "scores.npz", **loaded)
    got = compare.compare(first, str(tmp_path / "two"), n=5)["metrics"]
    want = sk.accuracy_score(loaded["targets"].argmax(1), loaded["scores"].argmax(1))
    assert got["accuracy"][:3] == pytest.approx((want, want, 0))


def test_what_cannot_be_compared_is_one_line(pair, tmp_path, capsys):
    other = LabelSet("other", ("a", "b", "d"), ("A", "B", "D"))
    foreign = evaluation(tmp_path / "three", ["x1", "x2"], 1.0, label_set=other)
    apart = evaluation(tmp_path / "four", ["x900"], 1.0)
    short = tmp_path / "short.csv"
    short.write_text("x1,g\n")
    for argv, message in [
        ([pair[0], foreign], "label hash"),
        ([pair[0], apart], "no clip in common"),
        ([pair[0], str(tmp_path)], "holds no scores.npz"),
        ([*pair, f"--groups={short}"], "--groups lacks 70 of 70 clips"),
        ([*pair, "--groups=nowhere.csv"], "nowhere.csv cannot be read"),
        ([*pair, "--bootstrap=0"], "--bootstrap must be 1 or more"),
    ]:
        assert main(["compare", *argv, "--out", str(tmp_path / "o")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    short.write_text("x1,g\nx2,g\nx1,h\n")
    with pytest.raises(AsjaxError, match="line 3 puts x1 into a second group"):
        compare.read_groups(short)
    short.write_text("x1,g\nx2\n")
    with pytest.raises(AsjaxError, match="line 2 must be id,group"):
        compare.read_groups(short)


def with_frames(folder, found):
    """A run with scores of clips and of frames."""
    label_set = small_detections.classes()
    detection.evaluate(found, folder / "eval", label_set=label_set, n_bootstrap=0)
    save_scores(folder / "eval" / "scores.npz", ids=found.ids, scores=found.logits,
                targets=found.targets, label_set=label_set)  # fmt: skip
    return folder


def test_detectors_are_compared_by_psds1(tmp_path):
    first = small_detections.made(clips=16)
    noise = np.random.default_rng(5).normal(0, 2, first.frames.shape)
    order = np.arange(15)[::-1]  # other order, one clip less
    second = dataclasses.replace(
        first,
        ids=[first.ids[i] for i in order],
        frames=(first.frames + noise).astype(np.float16)[order],
        logits=first.logits[order],
        targets=first.targets[order],
        durations_s=first.durations_s[order],
        events=[first.events[i] for i in order],
    )
    pair = with_frames(tmp_path / "one", first), with_frames(tmp_path / "two", second)
    got = compare.compare(*pair, n=12, seed=2)
    names = sorted(second.ids)
    want, drawn = [], []
    for found in (first, second):
        rows = [found.ids.index(name) for name in names]
        given = {
            "durations_s": found.durations_s[rows],
            "lengths": found.lengths()[rows],
            "frame_rate": 10.0,
            "median": 4,
            **metrics.PSDS1,
        }
        scores = [np.asarray(found.frames[i], np.float64) for i in rows]
        marks = [found.events[i] for i in rows]
        want.append(metrics.psds(scores=scores, events=marks, **given)["macro"])
        values = []
        for times in metrics.resample_counts(15, 12, 2):
            again = np.repeat(np.arange(15), times)
            part = {k: v[again] for k, v in given.items() if k in ("durations_s", "lengths")}
            part = {**given, **part, "scores": [scores[i] for i in again]}
            values.append(metrics.psds(**part, events=[marks[i] for i in again])["macro"])
        drawn.append(np.array(values))
    a, b, difference, low, high, _ = got["metrics"]["PSDS1"]
    assert (a, b) == pytest.approx(want, abs=1e-12)
    ends = metrics.interval(drawn[1] - drawn[0], want[1] - want[0])
    assert (low, high) == pytest.approx(ends, abs=1e-9)
    assert difference == pytest.approx(want[1] - want[0], abs=1e-12)
    assert "PSDS1" in compare.text(got)
    groups = {name: name for name in first.ids}
    assert "PSDS1" not in compare.compare(*pair, n=2, groups=groups)["metrics"]
    moved = dataclasses.replace(second, events=[events.as_events([(0, 1, 0)])] * 15)
    other = with_frames(tmp_path / "moved", moved)
    with pytest.raises(AsjaxError, match="different events for clip 'clip 0'"):
        compare.compare(pair[0], other, n=2)


def test_runs_without_frames_or_without_events_have_no_psds1(tmp_path, pair):
    assert "PSDS1" not in compare.compare(*pair, n=2)["metrics"]
    found = small_detections.made(clips=4)
    found = dataclasses.replace(found, events=[np.zeros(0, events.EVENT)] * 4)
    folder = with_frames(tmp_path / "none", found)
    assert "PSDS1" not in compare.compare(folder, folder, n=2)["metrics"]
