"""`asjax report`: tables and figures of the papers from finished runs, against plain sums."""

import csv
import json
import re
import struct
import types
from html.parser import HTMLParser

import numpy as np
import pytest
import rule
import soundfile as sf
from scipy.stats import linregress, norm

from asjax import balance, build, hlp, labels, metrics
from asjax.__main__ import main
from asjax.config import AsjaxError, fingerprint
from asjax.evaluation import evaluate
from asjax.papers import balance as papers_balance
from asjax.papers import hlp as papers_hlp
from asjax.papers import runs as papers
from asjax.papers.printed import HLP_COLUMNS
from asjax.store import choice
from asjax.store.scores import save_scores

AUDIOSET, FSD50K = labels.get("audioset527"), labels.get("fsd50k200")
SHARED = labels.LabelSet(
    "fsd50k200_shared192",
    *zip(
        *((i, n) for i, n in zip(FSD50K.ids, FSD50K.names, strict=True) if i in AUDIOSET.ids),
        strict=True,
    ),
)
ZERO_SHOT = {"label_set": "fsd50k200", "label_hash": FSD50K.hash, "shared": 192, "of": 200}


def made_up(label_set, skill, *, clips=60, seed=0, dense=0.02):
    """Targets that depend only on `seed`, and scores that are better for a larger `skill` [C]."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((clips, len(label_set))) < dense).astype(np.uint8)
    every = np.arange(len(label_set))
    targets[every % clips, every] = 1  # no class without a positive
    noise = np.random.default_rng(seed + 1).normal(-4, 1, targets.shape)
    return (noise + skill * targets).astype(np.float32), targets


def finished_run(
    path,
    *,
    model=("cnn", "cnn6"),
    with_hlp=False,
    draw="shuffle",
    lr=1e-3,
    skill=2.0,
    label_set=AUDIOSET,
    clips=60,
    fsd50k=False,
    trace=(),
    train_counts=None,
    cut=None,
    data="audioset eval",
    config=None,
    record=None,
):
    """A workdir like that of asjax train, with made-up scores."""
    cfg = {
        "model": {"name": model[0], "variant": model[1]},
        "labels": {"name": label_set.name, "hlp": with_hlp, "strict": False},
        "data": {"draw": draw, "train": {"name": "esc10", "splits": ["fold1"]}},
        "optim": {"name": "adam", "lr": lr},
        **(config or {}),
    }
    path.mkdir(parents=True)
    (path / "run.json").write_text("{}")
    (path / "config.json").write_text(json.dumps(cfg))
    if trace:
        rows = [{"step": 10 * (i + 1), "eval/d_prime": d} for i, d in enumerate(trace)]
        (path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    record = {
        "hlp": with_hlp,
        "draw": draw,
        "config_hash": fingerprint(cfg),
        "train_data": {"name": "made up", "clips": 1000},
        "eval_data": {"name": data, "clips": clips},
        **(record or {}),
    }
    parts = [("eval", label_set, {})]
    if fsd50k:
        parts.append(("eval-fsd50k", SHARED, {"zero_shot": ZERO_SHOT}))
    for folder, classes, extra in parts:
        level = np.resize(np.asarray(skill, float), len(classes))
        scores, targets = made_up(classes, level, clips=clips)
        save_scores(
            path / folder / "scores.npz",
            ids=[f"clip{i}" for i in range(clips)][:cut],
            scores=scores[:cut],
            targets=targets[:cut],
            label_set=classes,
            extra=extra,
        )
        (path / folder / "metrics.json").write_text(json.dumps({"record": record}))
        if train_counts is not None and folder == "eval":
            rows = [f"{m},{n}" for m, n in zip(classes.ids, train_counts, strict=True)]
            (path / folder / "per_class.csv").write_text("\n".join(["mid,n_train", *rows]))
    return path


def report(*argv):
    return main(["report", *map(str, argv)])


class Page(HTMLParser):
    """Checks that tags are balanced; collects the text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text = [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------- the balancing paper's rules


def test_metrics_regression_and_smoothing_equal_the_golden_case(golden):
    manifest, want = golden("paper002_evaluation")
    targets = np.unpackbits(want["labels"], axis=1)[:, :40]
    for k, name in enumerate("ab"):
        scores = rule.array(f"score_{name}", (500, 40), salt=manifest["salt"]).astype(np.float64)
        scores += (1.2, 1.3)[k] * targets
        scores = np.round(scores, 1) if name == "a" else scores  # ties on purpose
        got = metrics.tagging(scores=scores, targets=targets)
        np.testing.assert_allclose(got["per_class_ap"], want[f"ap_{name}"], rtol=1e-12)
        np.testing.assert_allclose(got["per_class_auc"], want[f"auc_{name}"], rtol=1e-12)
        assert got["mean_ap"] == pytest.approx(want["mAP"][k], rel=1e-12)
        assert got["d_prime"] == pytest.approx(want["d_prime_of_macro_auc"][k], rel=1e-12)
        assert got["mean_of_d_prime"] == pytest.approx(want["mean_of_class_d_prime"][k], rel=1e-12)
    np.testing.assert_allclose(got["prior"], want["prior"], rtol=1e-12)
    line = metrics.regress(x=np.log10(want["prior"]), y=want["ap_b"] - want["ap_a"])
    found = [line[key] for key in ("slope", "intercept", "r", "p", "stderr")]
    np.testing.assert_allclose(found, want["regression"], rtol=1e-9)
    smooth = choice.moving_average(want["trace"], 7)
    np.testing.assert_allclose(smooth, want["smoothed_valid"], rtol=1e-9)
    best = int(want["best_center"][0])
    assert choice.moving_average_best(want["trace"]) == best
    assert choice.smoothed_best(want["trace"])[1] == smooth.max() == smooth[best - 3]


def test_a_regression_leaves_undefined_classes_out_and_needs_three_points():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30))
    holes_x, holes_y = np.append(x, [-np.inf, 1.0]), np.append(y, [0.0, np.nan])
    got = metrics.regress(x=holes_x, y=holes_y)
    want = linregress(x, y)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    assert got["slope"] == pytest.approx(slope, rel=1e-12)
    assert (got["p"], got["n"]) == (pytest.approx(want.pvalue, rel=1e-12), 30)
    for bad in ([1.0, 2.0], [1.0, 1.0, 1.0]):
        with pytest.raises(AsjaxError, match="three points that differ"):
            metrics.regress(x=bad, y=bad)


def test_a_moving_average_has_full_windows_only_and_leaves_holes_out():
    values = np.array([1.0, np.nan, 3.0, 5.0, np.nan])
    np.testing.assert_array_equal(choice.moving_average(values, 3), [np.nan, 4.0, 4.0])
    for window in (2, 7):
        with pytest.raises(AsjaxError, match="window"):
            choice.moving_average(values, window)


# ------------------------------------------------------------------------------------- HLP report


@pytest.fixture(scope="module")
def hlp_runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("hlp")
    skill = np.linspace(1.0, 3.0, 527)
    passt = ("passt", "passt_s_swa_p16_128_ap476")
    finished_run(root / "cnn6", skill=skill, fsd50k=True)
    finished_run(root / "cnn6_hlp", skill=skill + 0.3, with_hlp=True, fsd50k=True)
    finished_run(root / "passt", skill=skill + 1, model=passt)
    finished_run(root / "mine", skill=skill, model=("mine", "v2"), with_hlp=True)
    return root


def mean_ap(folder, *, labels_hlp=False, scores_hlp=False):
    """Mean AP of a scores file, computed directly."""
    found = evaluate.load_scores(folder / "scores.npz")
    scores, targets = found["scores"], found["targets"]
    closure = hlp.closure(found["label_set"])
    targets = hlp.propagate_labels(targets, closure) if labels_hlp else targets
    scores = hlp.propagate_scores(scores, closure) if scores_hlp else scores
    return metrics.tagging(scores=scores, targets=targets)["mean_ap"]


def test_table_iii_has_our_numbers_with_the_papers_beside(hlp_runs, tmp_path, capsys):
    out = tmp_path / "out"
    names = ("cnn6", "cnn6_hlp", "passt", "mine")
    assert report("hlp", *(hlp_runs / n for n in names), "--out", out, "--bootstrap=40") == 0
    printed = capsys.readouterr().out
    rows = {
        (r["model"], r["trained_with_hlp"], r["column"]): r for r in read_csv(out / "table.csv")
    }
    for name, key in (("cnn6", "False"), ("cnn6_hlp", "True")):
        views = [{}, dict(labels_hlp=True), dict(labels_hlp=True, scores_hlp=True)]
        want = [mean_ap(hlp_runs / name / "eval", **view) for view in views]
        want.append(mean_ap(hlp_runs / name / "eval-fsd50k"))
        for column, value in zip(HLP_COLUMNS, want, strict=True):
            row = rows["CNN6", key, column]
            assert float(row["map"]) == pytest.approx(value, rel=1e-5)
            assert float(row["low"]) < value < float(row["high"])
    assert rows["CNN6", "True", "fsd50k"]["paper_map"] == "0.343"
    assert rows["CNN6", "False", "labels"]["classes"] == "527"
    assert rows["CNN6", "False", "fsd50k"]["classes"] == "192"
    assert rows["PaSST-B", "False", "hlp_labels"]["paper_map"] == "0.475"
    assert rows["mine v2", "True", "labels"]["paper_map"] == ""
    assert ("PaSST-B", "False", "fsd50k") not in rows
    assert re.search(r"PaSST-B, labels as they are +ours +[^\n]* +-\n", printed)  # not evaluated
    assert re.search(r"\n +paper +30\.6 +31\.1 +32\.8 +31\.3\n", printed)
    page = "".join(Page((out / "report.html").read_text()).text)
    assert "paper 51.0" in page
    assert "paper +3.0" in page  # 34.3 - 31.3, FSD50K
    width, height = struct.unpack(">II", (out / "table.png").read_bytes()[16:24])
    assert 900 < width < 1300
    assert 300 < height < 1500
    assert (out / "table.svg").read_text().rstrip().endswith("</svg>")


def test_the_difference_is_paired_by_clip_whatever_their_order(hlp_runs, tmp_path):
    found = evaluate.load_scores(hlp_runs / "cnn6_hlp" / "eval" / "scores.npz")
    order = np.random.default_rng(0).permutation(60)
    save_scores(
        tmp_path / "mixed" / "scores.npz",
        ids=[found["ids"][i] for i in order],
        scores=found["scores"][order],
        targets=found["targets"][order],
        label_set=AUDIOSET,
    )
    rows = []
    for k, other in enumerate((hlp_runs / "cnn6_hlp" / "eval", tmp_path / "mixed")):
        run = f"{other}:hlp=True,model=cnn6"
        out = tmp_path / f"out{k}"
        argv = ("hlp", hlp_runs / "cnn6" / "eval", run, "--out", out, "--bootstrap=40")
        assert report(*argv) == 0
        rows.append([r for r in read_csv(out / "table.csv")])
    assert rows[0] == rows[1]
    row = next(r for r in rows[0] if r["trained_with_hlp"] == "difference")
    base = evaluate.load_scores(hlp_runs / "cnn6" / "eval" / "scores.npz")
    by_id = np.argsort(np.array(base["ids"]))
    drawn, value = [], []
    for part in (found, base):
        ordered = dict(scores=part["scores"][by_id], targets=part["targets"][by_id])
        drawn.append(metrics.resampled(n=40, **ordered)["mean_ap"])
        value.append(metrics.tagging(**ordered)["mean_ap"])
    paired = drawn[0] - drawn[1]
    low, high = np.quantile(paired, [0.025, 0.975]) - paired.mean() + value[0] - value[1]
    got = [float(row[key]) for key in ("map", "low", "high")]
    np.testing.assert_allclose(got, [value[0] - value[1], low, high], rtol=1e-4)
    assert high - low < 0.7 * (np.ptp(np.quantile(drawn[0], [0.025, 0.975])))  # due to pairing


def test_runs_of_one_row_are_averaged_and_must_have_the_same_clips(hlp_runs, tmp_path, capsys):
    more = finished_run(tmp_path / "seed1", skill=1.5)
    assert report("hlp", hlp_runs / "cnn6", more, "--out", tmp_path / "out", "--bootstrap=0") == 0
    row = read_csv(tmp_path / "out" / "table.csv")[0]
    both = (mean_ap(hlp_runs / "cnn6" / "eval") + mean_ap(more / "eval")) / 2
    assert (row["runs"], row["low"]) == ("2", "")
    assert float(row["map"]) == pytest.approx(both, rel=1e-5)
    assert "Means over runs, CNN6 (labels as they are): 2" in capsys.readouterr().out
    less = finished_run(tmp_path / "less", cut=50)
    assert report("hlp", hlp_runs / "cnn6", less, "--out", tmp_path / "out") == 2
    assert "different clips (60 and 50)" in capsys.readouterr().err
    hlp_less = finished_run(tmp_path / "hlp_less", cut=50, with_hlp=True)
    assert report("hlp", more, hlp_less, "--out", tmp_path / "out", "--bootstrap=10") == 0
    assert "their difference has no paired interval" in capsys.readouterr().out


UNLIKE = [
    ({"config": {"total_steps": 7}}, "-> 7; only runs that are equal"),
    ({"config": {"augment": {"feats": "mixup(alpha=1)"}}}, "augment.feats: '' -> 'mixup(alpha=1)'"),
    ({"lr": 0.1}, "optim.lr: 0.001 -> 0.1"),
    ({"config": {"eval": {"select": "last"}}}, "eval.select: 'best' -> 'last'"),
    (
        {"record": {"train_data": {"name": "other", "clips": 9, "hash": "b"}}},
        "the training data (made up, other)",
    ),
]


@pytest.mark.parametrize(("change", "says"), UNLIKE)
def test_only_runs_equal_but_for_the_seed_are_repeats(change, says, tmp_path, capsys):
    known = {"train_data": {"name": "made up", "clips": 1000, "hash": "a"}}
    finished_run(tmp_path / "a", record=known)
    finished_run(tmp_path / "b", **{"record": known, **change})
    runs = [tmp_path / "a", tmp_path / "b"]
    assert report("hlp", *runs, "--out", tmp_path / "out", "--bootstrap=0") == 2
    err = capsys.readouterr().err
    assert says in err
    assert "both belong to CNN6, trained on labels as they are" in err
    assert f"or call it {tmp_path / 'b'}:model=NAME" in err
    assert len(err.strip().splitlines()) == 1
    runs[1] = f"{runs[1]}:model=mine"
    assert report("hlp", *runs, "--out", tmp_path / "out", "--bootstrap=0") == 0
    assert "Means over runs" not in capsys.readouterr().out


def test_repeats_may_differ_in_seed_machine_and_unnamed_defaults(tmp_path, capsys):
    finished_run(tmp_path / "a", config={"seed": 0})
    cfg = {"seed": 1, "mesh": "data=2", "log": {"every_steps": 3}, "augment": {"wave": ""}}
    finished_run(tmp_path / "b", config=cfg)
    runs = [tmp_path / "a", tmp_path / "b"]
    assert report("hlp", *runs, "--out", tmp_path / "out", "--bootstrap=0") == 0
    assert "Means over runs, CNN6 (labels as they are): 2" in capsys.readouterr().out


def test_the_page_names_the_data_that_was_used(tmp_path, capsys):
    finished_run(tmp_path / "a", data="my birds")
    assert report("hlp", tmp_path / "a", "--out", tmp_path / "out", "--bootstrap=0") == 0
    said = "AS is my birds: 60 clips, 527 classes"
    assert said in capsys.readouterr().out
    assert said in "".join(Page((tmp_path / "out" / "report.html").read_text()).text)
    for beta in (0, 1):
        beta_run(tmp_path / f"b{beta}", beta, data="my birds")
    runs = [tmp_path / "b0", tmp_path / "b1"]
    assert report("balance", *runs, "--out", tmp_path / "out2", "--bootstrap=0") == 0
    assert "my birds: 60 clips, 527 classes" in capsys.readouterr().out


# ---------------------------------------------------------------------------------- balance report


def beta_run(path, beta, **more):
    return finished_run(
        path, model=("ast", "base384"), draw=f"oversample(beta={beta})", skill=1.5 + beta, **more
    )


def test_curves_and_regression_over_beta(tmp_path, capsys):
    counts = np.round(np.geomspace(1, 900, 527)).astype(int)
    skill = {0: 2.0, 1: 2.0 + 0.8 * np.log10(counts)}  # balancing helps the common classes
    for beta, level in skill.items():
        finished_run(
            tmp_path / f"b{beta}", draw=f"oversample(beta={beta})" if beta else "shuffle",
            skill=level, fsd50k=beta == 0, train_counts=counts, model=("ast", "base384"),
        )  # fmt: skip
    beta_run(tmp_path / "b05", 0.5)
    runs = [tmp_path / name for name in ("b1", "b0", "b05")]
    out = tmp_path / "out"
    assert report("balance", *runs, "--out", out, "--bootstrap=40") == 0
    printed = capsys.readouterr().out
    rows = read_csv(out / "curves.csv")
    assert [row["beta"] for row in rows] == ["0", "0.5", "1"]
    for row, run in zip(rows, ("b0", "b05", "b1"), strict=True):
        found = evaluate.load_scores(tmp_path / run / "eval" / "scores.npz")
        want = metrics.tagging(scores=found["scores"], targets=found["targets"])
        assert float(row["map"]) == pytest.approx(want["mean_ap"], rel=1e-5)
        d_prime = np.sqrt(2) * norm.ppf(want["mean_auc"])
        assert float(row["d_prime"]) == pytest.approx(d_prime, rel=1e-5)
        assert float(row["d_prime_low"]) < d_prime < float(row["d_prime_high"])
    assert rows[1]["paper_public_map"] == "0.4394"
    assert rows[2]["paper_rho"] == "143"
    change = read_csv(out / "change_per_class.csv")
    ap = [
        metrics.tagging(scores=f["scores"], targets=f["targets"])["per_class_ap"]
        for b in (0, 1)
        for f in [evaluate.load_scores(tmp_path / f"b{b}" / "eval" / "scores.npz")]
    ]
    got = np.array([float(row["change"]) for row in change])
    np.testing.assert_allclose(got, ap[1] - ap[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose([float(r["prior"]) for r in change], counts / 1000, rtol=1e-5)
    want = linregress(np.log10(counts / 1000), ap[1] - ap[0])
    assert f"slope {want.slope:+.4f} ± {want.stderr:.4f} per decade" in printed
    assert f"two-sided p = {want.pvalue:.3g}, 527 classes" in printed
    assert "the 1,000 training clips of made up" in printed
    assert "Left out, evaluated only at beta=0" in printed  # FSD50K, of one run
    assert "Paper (beta=1 minus beta=0): slope not significant" in printed
    page = "".join(Page((out / "report.html").read_text()).text)
    assert "paper, internal: mAP / d'" in page
    assert "0.4394 / 2.849" in page
    for name in ("curves", "change"):
        assert (out / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert (out / f"{name}.svg").read_text().rstrip().endswith("</svg>")


def test_two_sets_seeds_and_any_two_betas(tmp_path, capsys):
    for beta in (0.1, 0.3):
        beta_run(tmp_path / f"b{beta}", beta, fsd50k=True)
    ast = ("ast", "base384")
    finished_run(tmp_path / "seed", draw="oversample(beta=0.3)", skill=3.0, model=ast)
    runs = [tmp_path / name for name in ("b0.1", "b0.3", "seed")]
    argv = [*runs, "--out", tmp_path / "out", "--bootstrap=0", "--compare=0.3,0.1"]
    assert report("balance", *argv) == 0
    printed = capsys.readouterr().out
    assert "AP by class, beta=0.1 minus beta=0.3" in printed
    assert "Means over runs, beta=0.3: 2" in printed
    rows = read_csv(tmp_path / "out" / "curves.csv")
    assert [(r["classes"], r["beta"], r["runs"]) for r in rows] == [
        ("527", "0.1", "1"), ("527", "0.3", "2"), ("192", "0.1", "1"), ("192", "0.3", "1"),
    ]  # fmt: skip
    mean = np.mean([mean_ap(tmp_path / n / "eval") for n in ("b0.3", "seed")])
    assert float(rows[1]["map"]) == pytest.approx(mean, rel=1e-5)
    assert "[" not in printed.split("\n")[3]  # without intervals


def test_of_several_learning_rates_the_best_smoothed_validation_is_taken(tmp_path, capsys):
    beta_run(tmp_path / "b0", 0)
    spike = [0.1] * 9 + [3.0] + [0.1] * 9  # one lucky evaluation
    plateau = [0.2, 0.5, 1.0, 1.1, 1.2, 1.1, 1.0, 0.9, 0.8, 0.2, 0.1]
    beta_run(tmp_path / "lucky", 1, lr=1e-3, trace=spike)
    beta_run(tmp_path / "steady", 1, lr=1e-4, trace=plateau)
    runs = [tmp_path / name for name in ("b0", "lucky", "steady")]
    assert report("balance", *runs, "--out", tmp_path / "out", "--bootstrap=0") == 0
    printed = capsys.readouterr().out
    assert f"left out: {tmp_path / 'lucky'}" in printed
    best = np.mean(plateau[2:9])  # centre: the sixth evaluation
    assert re.search(rf"\n1 +1 +0\.0001 +{best:.3f} +60 ", printed)
    (tmp_path / "lucky" / "train.jsonl").unlink()
    assert report("balance", *runs, "--out", tmp_path / "out") == 2
    assert "has no train.jsonl" in capsys.readouterr().err


def test_sampler_statistics_come_from_the_data_or_from_asjax_stats(tmp_path, capsys):

    for beta in (0, 1):
        beta_run(tmp_path / f"b{beta}", beta)
    table = build.source("esc10(splits=['fold1'])", AUDIOSET).labels
    copies = balance.oversampling(table, 1.0)
    counts = balance.effective_counts(table, copies)
    runs = [tmp_path / "b0", tmp_path / "b1"]
    argv = ["balance", *runs, "--out", tmp_path / "out", "--bootstrap=0"]
    assert report(*argv) == 0
    row = read_csv(tmp_path / "out" / "curves.csv")[1]
    assert float(row["rho"]) == pytest.approx(balance.imbalance_ratio(counts), rel=1e-5)
    assert float(row["gini"]) == pytest.approx(balance.gini(counts), rel=1e-5)
    sweep = {"0": {"imbalance_ratio": 15009.1, "gini_equation_3": 0.8319}}
    (tmp_path / "stats.json").write_text(json.dumps({"oversampling": sweep}))
    assert report(*argv, f"--stats={tmp_path / 'stats.json'}") == 0
    rows = read_csv(tmp_path / "out" / "curves.csv")
    assert [(r["rho"], r["gini"]) for r in rows] == [("15009.1", "0.8319"), ("", "")]
    (tmp_path / "stats.json").write_text("{}")
    capsys.readouterr()
    assert report(*argv, f"--stats={tmp_path / 'stats.json'}") == 2
    assert "is not a stats.json of asjax stats" in capsys.readouterr().err


def test_sampler_statistics_of_a_list_with_its_own_labels(tmp_path):
    rows = ["filename,labels"]
    for name, label in zip("abcde", ["dog"] * 4 + ["cat"], strict=True):
        sf.write(tmp_path / f"{name}.wav", np.zeros(80), 8000)
        rows.append(f"{name}.wav,{label}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    train = {"name": "folder", "csv": str(tmp_path / "clips.csv")}
    cfg = {"labels": {"name": "own"}, "data": {"train": train}}
    for beta, rho in ((0, 4.0), (1, 1.0)):  # of the cat 4 ** beta copies are drawn
        run = types.SimpleNamespace(cfg=cfg, draw=f"oversample(beta={beta})")
        assert papers_balance._sampler_of(run, beta)[0] == rho


# ---------------------------------------------------------------------------------------- mistakes


@pytest.fixture(scope="module")
def folder_of_runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    beta_run(root / "b0", 0)
    beta_run(root / "b1", 1)
    beta_run(root / "few", 0.5, cut=50)
    finished_run(root / "queue", draw="class_queue")
    (root / "unfinished").mkdir()
    (root / "unfinished" / "run.json").write_text("{}")
    (root / "empty").mkdir()
    (root / "file").write_text("")
    (root / "bad" / "eval").mkdir(parents=True)
    (root / "bad" / "eval" / "scores.npz").write_text("no")
    scores, targets = made_up(AUDIOSET, 1.0)
    save_scores(
        root / "bare" / "scores.npz", ids=[f"clip{i}" for i in range(60)], scores=scores,
        targets=targets, label_set=AUDIOSET,
    )  # fmt: skip
    return root


@pytest.fixture
def some_runs(folder_of_runs, monkeypatch):
    monkeypatch.chdir(folder_of_runs)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("hlp nowhere", "run nowhere does not exist; give the workdir"),
        ("hlp file", "run file is a file"),
        ("hlp unfinished", "has not finished: it has no eval/scores.npz"),
        ("hlp empty", "holds no scores.npz"),
        ("hlp bad:hlp=True", "is not a scores file"),
        ("hlp bare", "bare has no record whether it was trained with HLP; write bare:hlp=True"),
        ("hlp bare:hlpp=True", "did you mean 'hlp'"),
        ("hlp bare:hlp=3", "hlp must be True or False, got 3"),
        ("hlp b0 b0/eval", "also belong to run b0"),
        ("hlp b0 --bootstrap=-1", "--bootstrap must be 0 or more"),
        ("hlp b0 --out=file", "--out file must be a writable folder"),
        ("balance b0", "at least two betas; all 1 runs have beta=0"),
        ("balance b0 bare", "run bare has no beta, its draw is not recorded; write bare:beta=0.5"),
        ("balance b0 queue", "its draw is 'class_queue'"),
        ("balance b0 bare:beta=x", "beta must be a number"),
        ("balance b0 few", "no common evaluation set (same clips, labels and classes)"),
        ("balance b0 b1 --compare=0,0.5", "two of the runs' betas (0, 1)"),
        ("balance b0 b1 --compare=0", "two betas such as 0,1"),
    ],
)
def test_a_mistake_is_one_line(argv, message, some_runs, capsys):
    assert report(*argv.split()) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_what_a_run_is_comes_from_its_record_and_can_be_said(some_runs):
    run = papers.read_run("b1")
    assert (run.model, run.hlp, run.beta, run.lr) == ("ast base384", False, 1.0, 1e-3)
    inside = papers.read_run("b1/eval")  # its config is found by its hash
    assert (inside.model, inside.lr) == (run.model, run.lr)
    said = papers.read_run("bare:model=passt_s,hlp=True,beta=0.5")
    assert (said.model, said.hlp, said.beta, said.lr) == ("passt_s", True, 0.5, None)
    assert papers_hlp.paper_name("passt_s_p16_s16_128_ap468") == "PaSST-B"
    assert papers_hlp.paper_name("ConvNeXt NANO") == "ConvNeXt nano"
    assert papers._beta("expected(beta=0.3)") == 0.3
    assert papers_balance.smoothed(run) is None


def test_real_training_runs_are_read(tmp_path, monkeypatch, repo, capsys):
    monkeypatch.chdir(repo)
    for name, arg in (("base", "beta=0.0,hlp=False"), ("hlp", "beta=0.5,hlp=True")):
        argv = ["train", f"--config=configs/quickstart.py:tiny,{arg}"]
        argv += [f"--workdir={tmp_path / name}", "--config.data.clip_s=1.0"]
        assert (
            main([*argv, "--config.eval.bootstrap=0", "--config.data.train.splits=('fold1',)"]) == 0
        )
    runs = [tmp_path / "base", tmp_path / "hlp"]
    assert report("hlp", *runs, "--out", tmp_path / "a", "--bootstrap=5") == 0
    assert report("balance", *runs, "--out", tmp_path / "b", "--bootstrap=5") == 0
    printed = capsys.readouterr().out
    assert "cnn mini, with HLP minus without" in printed
    assert re.search(r"\n0\.5 +1 +0\.005 ", printed)  # learning rate of the config
    # All ten classes have 9 to 10 %.
    assert "no regression, because the priors are too similar" in printed
