"""`asjax report atdr`: AudioTagging Done Right from finished runs, against plain sums."""

import csv
import json
import re
import struct
from html.parser import HTMLParser

import numpy as np
import pytest

from asjax import build, config, labels, metrics
from asjax.__main__ import main
from asjax.config import AsjaxError, fingerprint
from asjax.evaluation import evaluate
from asjax.papers import atdr as papers_atdr
from asjax.papers import atdr_runs as papers_atdr_runs
from asjax.papers import printed
from asjax.papers.runs import read_run
from asjax.store.scores import save_scores

AUDIOSET = labels.get("audioset527")
CLIPS = 60


def finished_run(
    path, arg, repo, *, skill=2.0, seed=0, label_set=AUDIOSET, clips=CLIPS, rare=0, **fields
):
    """A workdir like that of asjax train with configs/atdr.py, and made-up scores.

    The last `rare` classes have no positive.
    """
    cfg = config.to_plain(build.load(f"{repo}/configs/atdr.py:{arg}")) | fields
    path.mkdir(parents=True)
    (path / "run.json").write_text("{}")
    (path / "config.json").write_text(json.dumps(cfg))
    rng = np.random.default_rng(0)
    targets = (rng.random((clips, len(label_set))) < 0.02).astype(np.uint8)
    every = np.arange(len(label_set))
    targets[every % clips, every] = 1
    targets[:, len(label_set) - rare :] = 0
    noise = np.random.default_rng(seed + 1).normal(-4, 1, targets.shape)
    save_scores(
        path / "eval" / "scores.npz", ids=[f"clip{i}" for i in range(clips)],
        scores=(noise + skill * targets).astype(np.float32), targets=targets, label_set=label_set,
    )  # fmt: skip
    record = {"draw": cfg["data"]["draw"], "config_hash": fingerprint(cfg), "parameters": 7_654_321}
    (path / "eval" / "metrics.json").write_text(json.dumps({"record": record}))
    return path


def report(*argv):
    return main(["report", "atdr", *map(str, argv)])


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores_of(run):
    found = evaluate.load_scores(run / "eval" / "scores.npz")
    order = np.argsort(np.array(found["ids"]), kind="stable")
    return dict(scores=found["scores"][order], targets=found["targets"][order])


def mean_ap(run, mask=None):
    return metrics.tagging(**scores_of(run), class_mask=mask)["mean_ap"]


def page_text(html):
    """The text of a page; its tags must be balanced."""
    opened, text = [], []

    class Page(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "link", "br"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

        def handle_data(self, data):
            text.append(data)

    Page().feed(html)
    assert opened == []
    return "".join(text)


def is_picture(stem):
    width, height = struct.unpack(">II", stem.with_suffix(".png").read_bytes()[16:24])
    svg = stem.with_suffix(".svg").read_text().rstrip()
    return 900 < width < 1300 and 250 < height < 2000 and svg.endswith("</svg>")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repo):
    root = tmp_path_factory.mktemp("atdr")
    for name, arg, skill in (
        ("ast_A1", "model=ast,procedure=A1,init=deit.pth", 2.4),
        ("ast_A3_s4", "model=ast,procedure=A3,init=deit.pth,stride=4", 2.3),
        ("ast_A3_s8", "model=ast,procedure=A3,init=deit.pth", 2.2),
        ("crnn_A2", "model=crnn,procedure=A2", 2.3),
        ("crnn_A4", "model=crnn,procedure=A4", 2.1),
        ("crnn_A4_seed1", "model=crnn,procedure=A4,seed=1", 2.2),
        ("crnn_A4_bal", "model=crnn,procedure=A4,balanced=False", 1.9),
        ("crnn_A4_mixup", "model=crnn,procedure=A4,mixup=0.0", 2.0),
        ("crnn_A4_specaug", "model=crnn,procedure=A4,specaug=False", 2.0),
        ("crnn_A4_norm", "model=crnn,procedure=A4,normalise=False", 1.0),
        ("trans_A4", "model=transformer,procedure=A4", 1.6),
        ("trans_A4_bal", "model=transformer,procedure=A4,balanced=False", 1.0),
    ):
        finished_run(root / name, arg, repo, skill=skill, seed=len(list(root.iterdir())))
    return root


@pytest.fixture(scope="module")
def made(runs):
    """The report on all of `runs`."""
    out = runs.parent / "out"
    assert report(*sorted(runs.iterdir()), "--out", out, "--bootstrap=40") == 0
    return out


# -------------------------------------------------------------------------------- what a run is


@pytest.mark.parametrize("model", ["ast", "crnn", "cnn_transformer", "resnet50", "transformer"])
@pytest.mark.parametrize("procedure", ["A1", "A2", "A3", "A4"])
def test_procedure_and_architecture_follow_from_the_recipe(model, procedure, tmp_path, repo):
    init = procedure in ("A1", "A3")
    run = finished_run(
        tmp_path / "run", f"model={model},procedure={procedure}", repo, clips=2,
        **({"init_from": "imagenet:file.pth"} if init else {}),
    )  # fmt: skip
    got = papers_atdr_runs.trained(read_run(str(run)))
    names = {"ast": "AST", "crnn": "CRNN", "cnn_transformer": "CNN+Transformer"}
    names |= {"resnet50": "ResNet50", "transformer": "Transformer"}
    assert (got.model, got.procedure, got.off) == (names[model], procedure, frozenset())
    assert got.stride == ({"A3": (8, 8)}.get(procedure, (10, 10)) if model == "ast" else None)
    assert got.parameters == 7_654_321
    said = papers_atdr_runs.trained(read_run(f"{run}:procedure=A2,ablation=mixup,model=Conformer"))
    assert (said.model, said.procedure, said.off) == ("Conformer", "A2", {"mixup"})


@pytest.mark.parametrize(
    ("arg", "off"),
    [
        ("balanced=False", {"balancing"}),
        ("mixup=0.0", {"mixup"}),
        ("specaug=False", {"specaug"}),
        ("time_mask=0,freq_mask=0", {"specaug"}),
        ("time_mask=0", set()),
        ("normalise=False", {"normalise"}),
        ("balanced=False,normalise=False", {"balancing", "normalise"}),
        ("source=runs,seed=3,batch=100,schedule=one_cycle,average=True", set()),
    ],
)
def test_the_ablation_follows_from_what_the_config_lacks(arg, off, tmp_path, repo):
    for procedure in ("A1", "A4"):
        run = finished_run(
            tmp_path / procedure, f"model=crnn,procedure={procedure},{arg}", repo, clips=2
        )
        assert papers_atdr_runs.trained(read_run(str(run))).off == off


def test_a_model_of_another_size_keeps_its_own_name():
    assert papers_atdr_runs.paper_name("ast tiny224") == "ast tiny224"
    assert papers_atdr_runs.paper_name("talnet crnn_mini") == "talnet crnn_mini"
    assert papers_atdr_runs.paper_name("cnn_transformer_big") == "CNN+Transformer"
    assert papers_atdr_runs.paper_name("resnet_att resnet50_scrambled") == "ResNet50"
    assert papers_atdr_runs.paper_name("resnet_att resnet34_asdr") == "ResNet34"


# --------------------------------------------------------------------------------------- quality


def test_quality_of_classes_is_googles_file_in_the_order_of_the_classes(shared_dir):
    path = shared_dir / "data" / "metadata" / "audioset" / "qa_true_counts.csv"
    asset = labels.ASSETS.parent / "audioset" / "qa_true_counts.csv"
    assert asset.read_bytes() == path.read_bytes()


def test_subsets_are_nested_and_unrated_classes_are_in_the_last_only():
    quality, rated = papers_atdr_runs.label_quality()
    masks = papers_atdr_runs.subsets()
    named = {name: i for i, name in enumerate(AUDIOSET.names)}
    assert quality[named["Speech"]] == 1.0
    assert quality[named["Speech synthesizer"]] == 0.2
    assert quality[named["Male speech, man speaking"]] == 0.9
    for mid in ("/m/02bk07", "/m/01c194"):  # 0 of 0
        i = AUDIOSET.ids.index(mid)
        assert np.isnan(quality[i])
        assert [masks[key][i] for key in ("67", "50", "all")] == [False, False, True]
    assert [int(masks[key].sum()) for key in ("67", "50", "all")] == [288, 343, 527]
    assert not (masks["67"] & ~masks["50"]).any()
    assert (rated == 0).sum() == np.isnan(quality).sum() == 70
    half = np.flatnonzero(quality == 0.5)
    assert len(half) == 376 - 343
    assert not masks["50"][half].any()  # more than one half


# --------------------------------------------------------------------------------------- Table 2


def test_table_2_has_our_numbers_with_the_papers_beside(runs, made):
    rows = {(r["model"], r["procedure"]): r for r in read_csv(made / "table2.csv")}
    assert set(rows) == {
        ("AST", "A1"), ("AST", "A3"), ("CRNN", "A2"), ("CRNN", "A4"), ("Transformer", "A4"),
    }  # fmt: skip
    for key, name in ((("AST", "A1"), "ast_A1"), (("CRNN", "A2"), "crnn_A2")):
        value = mean_ap(runs / name)
        assert float(rows[key]["map"]) == pytest.approx(value, rel=1e-5)
        assert float(rows[key]["low"]) < value < float(rows[key]["high"])
    both = np.mean([mean_ap(runs / name) for name in ("crnn_A4", "crnn_A4_seed1")])
    assert float(rows["CRNN", "A4"]["map"]) == pytest.approx(both, rel=1e-5)
    assert rows["CRNN", "A4"]["runs"] == "2"  # without the ablations
    eight = mean_ap(runs / "ast_A3_s8")  # the paper's stride
    assert float(rows["AST", "A3"]["map"]) == pytest.approx(eight, rel=1e-5)
    theirs = [rows[key]["paper_map"] for key in (("AST", "A3"), ("CRNN", "A2"))]
    assert theirs == ["0.41", "0.429"]
    assert rows["CRNN", "A2"]["parameters"] == "7654321"
    assert is_picture(made / "table2")


def test_intervals_are_those_of_the_runs_resampled_together(runs, made):
    drawn = []
    for name in ("crnn_A4", "crnn_A4_seed1"):
        drawn.append(metrics.resampled(**scores_of(runs / name), n=40)["mean_ap"])
    value = np.mean([mean_ap(runs / name) for name in ("crnn_A4", "crnn_A4_seed1")])
    want = metrics.interval(np.mean(drawn, axis=0), value, 0.95)
    row = next(
        r for r in read_csv(made / "table2.csv") if (r["model"], r["procedure"]) == ("CRNN", "A4")
    )
    np.testing.assert_allclose([float(row["low"]), float(row["high"])], want, rtol=1e-5)


# --------------------------------------------------------------------------------------- Table 3


def test_patches_are_counted_and_the_papers_counts_marked(made, capsys):
    naive = {
        (f, stride): len(range(0, shape[0] - 15, stride)) * len(range(0, shape[1] - 15, stride))
        for f, shape in papers_atdr_runs.SHAPES.items()
        for stride in papers_atdr_runs.STRIDES
    }
    rows = read_csv(made / "table3.csv")
    assert {(r["procedure"], r["stride"]) for r in rows} == {
        *(("A1", s) for s in ("10", "12", "16")),
        *(("A3", s) for s in ("4", "6", "8", "10", "12", "16")),
    }
    for row in rows:
        assert int(row["patches"]) == naive[row["features"], int(row["stride"])]
    found = {(r["procedure"], r["stride"]): r for r in rows}
    assert found["A3", "4"]["paper_patches"] == "1485"
    assert found["A3", "4"]["patches"] == "1261"
    assert found["A1", "12"]["map"] == ""
    assert found["A1", "12"]["paper_map"] == "0.429"
    wrong = {
        (f, stride)
        for f, row in printed.ATDR_PATCHES.items()
        for stride, printed in row.items()
        if printed != naive[f, stride]
    }
    assert papers_atdr.printed_wrong() == (len(wrong), 12) == (8, 12)
    text = page_text((made / "report.html").read_text())
    for counts in (
        "29 x 253 = 73378192 *",
        "12 x 101 = 12121212",
        "9 x 73 = 657-",
        "4 x 25 = 10072 *",
    ):
        assert counts in text
    assert is_picture(made / "table3")


def test_every_stride_has_its_own_number(runs, made):
    found = {(r["procedure"], r["stride"]): r for r in read_csv(made / "table3.csv")}
    for name, key in (
        ("ast_A3_s4", ("A3", "4")),
        ("ast_A3_s8", ("A3", "8")),
        ("ast_A1", ("A1", "10")),
    ):
        assert float(found[key]["map"]) == pytest.approx(mean_ap(runs / name), rel=1e-5)


def test_strides_may_be_said_and_need_not_be_square(runs, tmp_path, repo, capsys):
    wide = finished_run(tmp_path / "wide", "model=ast,procedure=A2", repo)
    cfg = json.loads((wide / "config.json").read_text())
    cfg["model"]["stride"] = [16, 12]
    (wide / "config.json").write_text(json.dumps(cfg))
    bare = f"{runs / 'ast_A1' / 'eval'}:stride=12"
    assert report(wide, bare, "--out", tmp_path / "out", "--bootstrap=0") == 0
    rows = {(r["procedure"], r["stride"]): r for r in read_csv(tmp_path / "out" / "table3.csv")}
    assert rows["A2", "16x12"]["patches"] == str(8 * 85)
    assert rows["A2", "16x12"]["paper_patches"] == ""
    assert float(rows["A1", "12"]["map"]) == pytest.approx(mean_ap(runs / "ast_A1"), rel=1e-5)


# --------------------------------------------------------------------------------------- Table 4


def test_table_4_is_full_minus_without_over_the_models(runs, made, capsys):
    full = np.mean([mean_ap(runs / name) for name in ("crnn_A4", "crnn_A4_seed1")])
    crnn = {
        key: full - mean_ap(runs / f"crnn_A4_{name}")
        for key, name in (
            ("balancing", "bal"), ("mixup", "mixup"), ("specaug", "specaug"), ("normalise", "norm")
        )
    }  # fmt: skip
    trans = mean_ap(runs / "trans_A4") - mean_ap(runs / "trans_A4_bal")
    rows = {(r["without"], r["model"]): r for r in read_csv(made / "table4.csv")}
    assert {r["procedure"] for r in rows.values()} == {"A4"}
    for key, value in crnn.items():
        assert float(rows[key, "CRNN"]["lost"]) == pytest.approx(value, rel=1e-4)
    row = rows["balancing", "mean"]
    both = [crnn["balancing"], trans]
    assert float(row["lost"]) == pytest.approx(np.mean(both), rel=1e-4)
    assert float(row["deviation"]) == pytest.approx(abs(both[0] - both[1]) / np.sqrt(2), rel=1e-4)
    assert [row["models"], row["paper_lost"], row["paper_deviation"]] == ["2", "0.039", "0.02"]
    assert [rows["mixup", "mean"][key] for key in ("models", "deviation")] == ["1", ""]
    assert ("mixup", "Transformer") not in rows
    assert is_picture(made / "table4")


def test_the_loss_is_paired_by_clip(runs, made):
    some = [scores_of(runs / name) for name in ("trans_A4", "trans_A4_bal")]
    a, b = (metrics.resampled(**s, n=40)["mean_ap"] for s in some)
    value = mean_ap(runs / "trans_A4") - mean_ap(runs / "trans_A4_bal")
    want = metrics.interval(a - b, value, 0.95)
    row = next(r for r in read_csv(made / "table4.csv") if r["model"] == "Transformer")
    np.testing.assert_allclose([float(row["low"]), float(row["high"])], want, rtol=1e-4)


def test_pairs_differ_in_that_only(runs, tmp_path, repo, capsys):
    arg = "model=crnn,procedure=A4,specaug=False"
    other = finished_run(tmp_path / "lr", f"{arg},lr=0.001", repo)
    seed = finished_run(tmp_path / "seed", f"{arg},seed=7", repo)
    two = finished_run(tmp_path / "two", f"{arg},mixup=0.0", repo)
    alone = finished_run(tmp_path / "alone", "model=crnn,procedure=A2,balanced=False", repo)
    both = [runs / "crnn_A4", other, seed, two, alone]
    assert report(*both, "--out", tmp_path / "out", "--bootstrap=0") == 0
    printed = capsys.readouterr().out
    lost = mean_ap(runs / "crnn_A4") - mean_ap(seed)
    rows = read_csv(tmp_path / "out" / "table4.csv")
    assert float(rows[0]["lost"]) == pytest.approx(lost, rel=1e-4)
    assert len(rows) == 2
    assert re.search(
        r"lr, CRNN A4 without SpecAugment: the nearest .* also differs in optim\.lr\.", printed
    )
    assert "two, CRNN A4 without mixup, SpecAugment: more than one component" in printed
    assert "alone, CRNN A2 without balanced sampler: there is no run with the full" in printed


def test_constants_may_change_with_what_is_measured_under_it(tmp_path, repo):
    """Mean and deviation are measured with mixup and masks, so they depend on these."""
    full = finished_run(tmp_path / "full", "model=crnn,procedure=A4,mixup=0.5", repo)
    arg = "model=crnn,procedure=A4"
    same = finished_run(tmp_path / "mixup", f"{arg},mixup=0.0", repo)
    odd = finished_run(tmp_path / "balance", f"{arg},balanced=False", repo)
    a, b, c = (papers_atdr_runs.trained(read_run(str(p))) for p in (full, same, odd))
    assert papers_atdr_runs.differing(a, b) == ["mixup", "normalise"]
    assert papers_atdr._others(a, b) == []
    assert papers_atdr._others(a, c) == ["mixup", "normalise"]


def test_runs_without_a_config_say_their_part(runs, tmp_path, capsys):
    bare = tmp_path / "old"
    bare.mkdir()
    for name in ("crnn_A4", "crnn_A4_mixup"):
        (bare / name).mkdir()
        data = (runs / name / "eval" / "scores.npz").read_bytes()
        (bare / name / "scores.npz").write_bytes(data)
    full, without = (f"{bare / n}:model=crnn,procedure=A4" for n in ("crnn_A4", "crnn_A4_mixup"))
    out = tmp_path / "out"
    assert report(full, f"{without},ablation=mixup", "--out", out, "--bootstrap=0") == 0
    assert f"there is no config: {bare / 'crnn_A4'} (otherwise write" in capsys.readouterr().out
    lost = mean_ap(runs / "crnn_A4") - mean_ap(runs / "crnn_A4_mixup")
    assert float(read_csv(out / "table4.csv")[0]["lost"]) == pytest.approx(lost, rel=1e-4)


# -------------------------------------------------------------------------------------- Figure 2


def test_figure_2_is_the_mean_over_classes_of_a_quality(runs, made, capsys):
    masks = papers_atdr_runs.subsets()
    rows = {(r["model"], r["procedure"], r["quality"]): r for r in read_csv(made / "figure2.csv")}
    for key, name in papers_atdr_runs.SUBSETS.items():
        got = rows["CRNN", "A2", name]
        large = mean_ap(runs / "crnn_A2", masks[key])
        small = [mean_ap(runs / n, masks[key]) for n in ("crnn_A4", "crnn_A4_seed1")]
        assert float(got["map"]) == pytest.approx(large, rel=1e-5)
        assert got["classes"] == got["counted"] == str(masks[key].sum())
        want = large - np.mean(small)
        assert float(rows["CRNN", "A2-A4", name]["map"]) == pytest.approx(want, rel=1e-4)
        drawn = metrics.resampled(**scores_of(runs / "crnn_A2"), n=40, class_mask=masks[key])
        ends = metrics.interval(drawn["mean_ap"], large, 0.95)
        np.testing.assert_allclose([float(got["low"]), float(got["high"])], ends, rtol=1e-5)
    text = page_text((made / "report.html").read_text())
    assert "> 67 %: 288 classes; > 50 %: 343; ≥ 0 %: all 527. Of these, 70 classes" in text
    assert "(2 pairs of procedures), paper +2.0 ± 0.1." in text
    svg = (made / "figure2.svg").read_text()
    assert "70 classes have no rated example" in svg
    assert is_picture(made / "figure2")


def test_classes_that_a_resample_leaves_without_a_positive_are_not_counted_in_it(tmp_path, repo):
    """Rings of classes are weighted by their number of classes with a positive."""
    run = read_run(str(finished_run(tmp_path / "run", "model=crnn", repo, clips=30, rare=100)))

    class Args:
        bootstrap, seed = 15, 3

    got = papers_atdr_runs.measure(run, Args)
    for key, mask in papers_atdr_runs.subsets().items():
        plain = metrics.resampled(**scores_of(tmp_path / "run"), n=15, seed=3, class_mask=mask)
        np.testing.assert_allclose(got.drawn[key], plain["mean_ap"], rtol=1e-12)
    assert got.classes["all"] == 427


# ------------------------------------------------------------------------------------ left out


def test_sections_that_no_run_serves_are_left_out_and_said_so(tmp_path, repo, capsys):
    esc = labels.get("esc10")
    run = finished_run(tmp_path / "crnn", "model=crnn,procedure=A2", repo, label_set=esc)
    assert report(run, "--out", tmp_path / "out", "--bootstrap=0") == 0
    printed = capsys.readouterr().out
    assert "Left out. Table 3: no run of AST with the full recipe." in printed
    assert "Left out. Table 4: no run lacks a component of the recipe." in printed
    assert "Left out. Figure 2: the scores are not of AudioSet's 527 classes." in printed
    assert "too few classes for a comparison" in printed
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "table2.csv", "table2.png", "table2.svg"}


@pytest.mark.parametrize(
    ("base", "arg", "field"),
    [
        ("crnn_A2", "model=crnn,procedure=A2,lr=0.001", "CRNN A2, but they differ in optim.lr"),
        ("ast_A3_s4", "model=ast,procedure=A3,init=deit.pth,stride=4,lr=0.001", "optim.lr"),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(
    base, arg, field, runs, tmp_path, repo, capsys
):
    other = finished_run(tmp_path / "other", arg, repo)
    argv = (runs / base, other, runs / "ast_A3_s8", "--out", tmp_path / "out", "--bootstrap=0")
    assert report(*argv) == 2
    err = capsys.readouterr().err
    assert field in err
    assert "only runs that are equal but for the seed are averaged" in err
    assert len(err.strip().splitlines()) == 1
    named = f"{other}:model=CRNN-lr"
    if base == "crnn_A2":
        assert report(runs / base, named, "--out", tmp_path / "out", "--bootstrap=0") == 0
        printed = capsys.readouterr().out
        assert "CRNN-lr" in printed
        assert "Our data: eval: 60 clips, 527 classes" in printed  # the folder; no name is recorded


# ---------------------------------------------------------------------------------------- mistakes


@pytest.fixture(scope="module")
def odd_runs(tmp_path_factory, repo):
    root = tmp_path_factory.mktemp("odd")
    arg = "model=crnn,procedure=A4"
    finished_run(root / "tiny", f"{arg},tiny", repo, clips=4)
    finished_run(root / "audioset", arg, repo, clips=4, init_from="audioset:x.pth")
    finished_run(root / "panns", arg, repo, clips=4, frontend={"name": "panns_logmel"})
    finished_run(root / "less", arg, repo, clips=50)
    finished_run(root / "full", arg, repo)
    finished_run(root / "nomix", f"{arg},mixup=0.0", repo, clips=50)
    bare = root / "bare"
    bare.mkdir()
    (bare / "scores.npz").write_bytes((root / "full" / "eval" / "scores.npz").read_bytes())
    return root


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("nowhere", "run nowhere does not exist"),
        ("bare", "run bare has no config, so its procedure is unknown; write bare:procedure=A2"),
        ("bare:procedure=A5", "procedure must be one of A1, A2, A3, A4, got 'A5'"),
        ("full:ablation=dropout", "ablation must be one of full, balancing, mixup, specaug"),
        ("full:model=AST,stride=0", "stride must be a positive integer, got 0"),
        ("full:strides=4", "did you mean 'stride'"),
        ("tiny", "features atdr_logmel64 with 40 frames, which no procedure uses"),
        ("panns", "features panns_logmel, which no procedure uses"),
        ("audioset", "starts from audioset:x.pth, but a procedure starts from"),
        ("full less", "belong to one cell but were evaluated on different clips (60 and 50)"),
        ("full nomix", "belong to one ablation but were evaluated on different clips"),
        ("nomix", "nothing to show: run nomix was trained without mixup and no run has the full"),
    ],
)
def test_a_mistake_is_one_line(argv, message, odd_runs, monkeypatch, capsys):
    monkeypatch.chdir(odd_runs)
    assert report(*argv.split(), "--bootstrap=0") == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (odd_runs / "report-atdr").exists()


def test_a_real_training_run_is_read(tmp_path, repo, monkeypatch, capsys):
    monkeypatch.chdir(repo)
    run = tmp_path / "run"
    argv = ["train", "--config=configs/atdr.py:tiny,model=crnn,procedure=A4", f"--workdir={run}"]
    assert main([*argv, "--config.eval.bootstrap=0"]) == 0
    assert report(run, "--out", tmp_path / "a") == 2  # 40 frames
    with pytest.raises(AsjaxError, match="40 frames"):
        papers_atdr_runs.trained(read_run(str(run)))
    said = f"{run}:procedure=A4"
    assert report(said, "--out", tmp_path / "out", "--bootstrap=5") == 0
    row = read_csv(tmp_path / "out" / "table2.csv")[0]
    assert (row["model"], row["procedure"], row["paper_map"]) == ("talnet crnn_mini", "A4", "")
    assert int(row["parameters"]) > 1000
    assert float(row["map"]) == pytest.approx(mean_ap(run), rel=1e-5)
