"""`asjax report sed`: Tables I and II from made-up runs, against plain sums."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from asjax import metrics
from asjax.__main__ import main
from asjax.config import AsjaxError, fingerprint
from asjax.papers import printed, sed, sed_page, sed_runs
from asjax.papers.runs import read_runs

MODELS = ("atst_frame", "beats", "fpasst", "m2d", "asit")


def made_up(path, *, model="beats", value=0.4, seed=0, sequence=None, start="BEATs_weak.pt",
            teacher=None, labels="audioset_strong447", freeze="none", classes=407,
            data="eval", clips=20, key="psds1", lr=1e-4, objective="detection"):  # fmt: skip
    """A workdir like that of asjax train, with made-up numbers."""
    ops = "decode | crop | strong(frames=250)"
    if teacher is not None:
        ops, objective = f"{ops} | teacher(path={str(teacher)!r})", "distillation"
    cfg = {
        "seed": seed,
        "labels": {"name": labels, "hlp": False, "strict": False},
        "data": {"ops": ops, "train": {"name": "records", "path": "x"}},
        "model": {"name": model, "variant": f"{model}_base", "sequence": sequence},
        "objective": {"name": objective},
        "optim": {"name": "adam", "lr": lr, "freeze": freeze},
        "init_from": str(start) if start.__class__ is not str or "/" in start else
        (f"backbone:weights/{start}" if start else ""),
    }  # fmt: skip
    out = path / "eval"
    out.mkdir(parents=True)
    (path / "run.json").write_text("{}")
    (path / "config.json").write_text(json.dumps(cfg))
    (out / "scores.npz").write_bytes(b"")
    record = {"seed": seed, "config_hash": fingerprint(cfg),
              "eval_data": {"name": data, "clips": clips, "hash": data * 4}}  # fmt: skip
    (out / "metrics.json").write_text(json.dumps({"record": record}))
    ci = {key: [value - 0.01, value + 0.02]}
    events = {key: value, "n_clips": clips, "n_classes": classes, "ci": ci}
    about = {"label_set": {"name": labels}, "events": events}
    (out / "events.json").write_text(json.dumps(about))
    return path


def ensemble(path, teachers, merged=False):
    """A folder as asjax logits writes it, as far as the report reads it."""
    path.mkdir(parents=True)
    extra = {"models": [{"path": str(one)} for one in teachers]}
    extra = {"merged": [extra, extra]} if merged else extra
    (path / "about.json").write_text(json.dumps({"extra": extra}))
    return path


def report(*argv):
    return main(["report", "sed", *map(str, argv)])


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All rows of Table I for five models with three seeds, and Table II for two tasks."""
    at = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    rnn = made_up(at / "t", sequence="gru", value=0.44)
    plain = made_up(at / "t_plain")
    early = made_up(at / "t_early", sequence="gru", start="BEATs_ssl.pt")
    full = ensemble(at / "logits", [rnn, rnn / "model"])
    (rnn / "model").mkdir()
    (rnn / "model" / "config.json").write_text((rnn / "config.json").read_text())
    no_rnn = ensemble(at / "l1", [plain], merged=True)
    no_step2 = ensemble(at / "l2", [early])
    rows = {
        "full": dict(teacher=full),
        "no_kd": {},
        "no_rnn": dict(teacher=no_rnn),
        "no_step2": dict(teacher=no_step2, start="X_ssl.pt"),
    }
    found = [rnn]
    for model in MODELS:
        for row, fields in rows.items():
            level = printed.sed_value(row, sed_runs.FAMILIES[model]) / 100
            for seed in range(3):
                value = level + 0.001 * rng.normal()
                path = at / f"{model}-{row}-{seed}"
                found.append(made_up(path, model=model, seed=seed, value=value, **fields))
    return found


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Runs of Table II: two models from step 2 and step 3, frozen and fine-tuned."""
    at = tmp_path_factory.mktemp("others")
    strong = made_up(at / "strong")
    weak = made_up(at / "weak", objective="tagging", labels="audioset527")
    cfg = json.loads((weak / "config.json").read_text())
    cfg["data"]["ops"] = "decode | crop | multihot"
    (weak / "config.json").write_text(json.dumps(cfg))
    found = []
    for start, path in (("strong", strong), ("weak", weak)):
        for freeze in ("none", "all"):
            for seed in range(4):
                value = 0.5 + 0.1 * (start == "strong") - 0.05 * (freeze == "all") + 0.001 * seed
                name = at / f"{start}-{freeze}-{seed}"
                found.append(made_up(name, start=path, freeze=freeze, seed=seed, value=value,
                                     labels="desed10", key="psds1_penalised"))  # fmt: skip
    return found


def test_tables_are_means_over_seeds_with_intervals_and_aso(runs, others, tmp_path, capsys):
    assert report(*runs, *others, "--out", tmp_path / "out", "--bootstrap", 200) == 0
    printed_text = capsys.readouterr().out
    rows = {(r["table"], r["model"], r["row"], r["task"], r["mode"]): r
            for r in read_csv(tmp_path / "out" / "tables.csv")}  # fmt: skip
    one = {(r["model"], r["row"]): [] for r in read_csv(tmp_path / "out" / "runs.csv")}
    for r in read_csv(tmp_path / "out" / "runs.csv"):
        one[r["model"], r["row"]].append(float(r["value"]))
    for family, model in sed_runs.FAMILIES.items():
        for row in sed_runs.ROWS:
            got = rows["I", model, row, "", ""]
            values = [
                json.loads((p / "eval" / "events.json").read_text())["events"]["psds1"]
                for p in runs if p.name.startswith(f"{family}-{row}-")
            ]  # fmt: skip
            assert float(got["mean"]) == pytest.approx(np.mean(values), abs=1e-6)
            assert one[model, row] == pytest.approx(values, abs=1e-6)
            low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
            assert (float(got["low"]), float(got["high"])) == pytest.approx((low, high), abs=1e-6)
            assert float(got["paper"]) == pytest.approx(printed.sed_value(row, model) / 100)
            if row == "full":
                full = values
                assert got["eps_deepsig_this_better"] == ""
            else:
                for correction in ("deepsig", "bonferroni"):
                    for way, pair in (("first", (full, values)), ("this", (values, full))):
                        eps = metrics.aso(*pair, comparisons=5, correction=correction, n=200)
                        got_eps = float(got[f"eps_{correction}_{way}_better"])
                        assert got_eps == pytest.approx(eps, abs=1e-5)
    assert rows["teachers", "BEATs", "teacher", "", ""]["seeds"] == "1"
    assert float(rows["II", "BEATs", "weak", "desed", "frozen"]["mean"]) == pytest.approx(0.4515)
    assert float(rows["II", "BEATs", "strong", "desed", "finetune"]["seeds"]) == 4
    assert rows["II", "BEATs", "weak", "desed", "frozen"]["paper"] == ""
    assert rows["II", "BEATs", "weak", "desed", "frozen"]["eps_bonferroni_first_better"] == "0"
    html = (tmp_path / "out" / "report.html").read_text()
    for text in ("paper 45.8", "ASO: worse", "Table II has no numbers of the paper", "Li et al."):
        assert text in html
        assert text in printed_text
    assert "cannot be compared" not in html  # 407 classes


def cell(*paths):
    return sed.collect(read_runs([str(p) for p in paths]), Args)["cells"]


class Args:
    bootstrap, seed = 100, 0


def test_folds_of_maestro_are_averaged_for_each_seed(tmp_path):
    paths = {}
    for seed in range(3):
        for fold in range(2):
            fields = dict(labels="maestro-v3.0.0-5h", key="onset_f1_50ms", data=f"m{fold}")
            value = 0.1 * seed + 0.01 * fold
            path = made_up(tmp_path / f"{seed}{fold}", seed=seed, value=value, **fields)
            cfg = json.loads((path / "config.json").read_text())
            for part, k in (("test", 0), ("eval", 1), ("train", 2)):
                cfg["data"][part] = {"name": "hear", "path": "x", "splits": [f"fold0{fold + k}"]}
            (path / "config.json").write_text(json.dumps(cfg))
            paths[seed, fold] = path
    (key, found), = cell(*paths.values()).items()  # fmt: skip
    assert key == ("II", ("BEATs", "weak"), ("maestro", "finetune"))
    assert found.values == pytest.approx([0.005, 0.105, 0.205])
    assert found.folds == 2
    notes = sed.collect(read_runs([str(p) for p in paths.values()]), Args)["notes"]
    assert "MAESTRO: mean over 2 folds; the task has 5." in notes
    one = [str(paths[seed, 0]) for seed in range(3)]
    notes = sed.collect(read_runs(one), Args)["notes"]
    assert "MAESTRO: mean over 1 fold; the task has 5." in notes
    del paths[1, 1]
    with pytest.raises(AsjaxError, match="every seed needs a run of every fold"):
        cell(*paths.values())
    cfg["data"]["test"]["splits"], cfg["optim"]["lr"] = ["fold04"], 3.0
    (path / "config.json").write_text(json.dumps(cfg))
    with pytest.raises(AsjaxError, match="but they differ in .*optim.lr"):
        cell(paths[0, 0], path)


def test_models_that_taught_in_the_step_are_recognised(tmp_path):
    rnn = made_up(tmp_path / "t", sequence="gru")
    student = made_up(tmp_path / "s")
    cfg = json.loads((student / "config.json").read_text())
    cfg["objective"] = {"name": "distillation", "base": "detection", "teacher": [str(rnn)]}
    (student / "config.json").write_text(json.dumps(cfg))
    assert list(cell(student)) == [("I", "full", "BEATs")]
    cfg["objective"]["teacher"] = str(tmp_path / "gone")
    (student / "config.json").write_text(json.dumps(cfg))
    with pytest.raises(AsjaxError, match="its teacher .*gone is not there"):
        cell(student)


def test_a_single_run_has_no_interval_and_other_data_are_said(tmp_path):
    path = made_up(tmp_path / "a", classes=10)
    (key, found), = cell(path).items()  # fmt: skip
    assert key == ("I", "no_kd", "BEATs")
    assert found.ends is None
    assert found.mean == 0.4
    by_data = made_up(tmp_path / "b", data="desed", key="psds1_penalised", start="B_ssl.pt")
    assert list(cell(by_data))[0][2] == ("desed", "finetune")
    notes = sed.collect(read_runs([str(path)]), Args)["notes"]
    assert any("cannot be compared" in note for note in notes)


def test_settings_after_the_colon_replace_what_is_not_recorded(tmp_path):
    lost = made_up(tmp_path / "a", teacher=tmp_path / "gone")
    with pytest.raises(AsjaxError, match="taught by the logits in .*gone.*row=full"):
        cell(lost)
    assert list(cell(f"{lost}:row=no_rnn")) == [("I", "no_rnn", "BEATs")]
    task = made_up(tmp_path / "b", labels="desed10", start=tmp_path / "x", key="psds1_penalised")
    with pytest.raises(AsjaxError, match=r"the start .*x of it .* not there.*start=weak"):
        cell(task)
    settings = f"{task}:start=ssl,mode=frozen,model=M2D"
    assert list(cell(settings)) == [("II", ("M2D", "ssl"), ("desed", "frozen"))]


def test_settings_that_would_have_no_effect_are_refused(tmp_path):
    plain = made_up(tmp_path / "p")
    task = made_up(tmp_path / "b", labels="desed10", key="psds1_penalised")
    for text, says in (
        (f"{plain}:row=full,start=weak", "where start=weak has no effect: row names the row"),
        (f"{plain}:row=full,mode=frozen", "where mode=frozen has no effect: row names the row"),
        (f"{plain}:mode=frozen", "where mode=frozen has no effect: Table I has no modes"),
        (f"{task}:row=full,start=weak", "Table II .*, where row=full has no effect"),
    ):
        with pytest.raises(AsjaxError, match=says):
            cell(text)
    early = made_up(tmp_path / "e", start=tmp_path / "gone")  # start alone decides the row
    assert list(cell(f"{early}:start=weak")) == [("I", "no_kd", "BEATs")]


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ({}, dict(seed=1, lr=3e-4), "differ in optim.lr"),
        ({}, dict(seed=0), "have the seed 0; a repeat needs another seed"),
        ({}, dict(seed=1, clips=19, data="test"), "evaluated on other clips"),
    ],
)
def test_runs_that_are_no_repeats_are_refused(tmp_path, a, b, says):
    with pytest.raises(AsjaxError, match=says) as error:
        cell(made_up(tmp_path / "a", **a), made_up(tmp_path / "b", **b))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(start=""), "no row of Table I: it has no RNN, starts from random weights"),
        (dict(start="BEATs_strong_1.pt"), "starts from step 3 and is taught by nobody"),
        (dict(sequence="gru", teacher="x"), "it has an RNN, starts from step 2 and is taught by"),
        (dict(value=None), "has no number psds1"),
        (dict(key="other"), "has no number psds1"),
    ],
)
def test_runs_of_no_cell_are_one_line(tmp_path, fields, says, capsys):
    value = fields.pop("value", 0.4)
    path = made_up(tmp_path / "a", **fields)
    if value is None:
        text = (path / "eval" / "events.json").read_text().replace('"psds1": 0.4', '"psds1": null')
        (path / "eval" / "events.json").write_text(text)
    assert report(path, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_mixed_teachers_and_unknown_words_are_refused(tmp_path):
    rnn, plain = made_up(tmp_path / "t", sequence="gru"), made_up(tmp_path / "p")
    mixed = made_up(tmp_path / "a", teacher=ensemble(tmp_path / "l", [rnn, plain]))
    with pytest.raises(AsjaxError, match="RNN, from step 2 and with no RNN, from step 2"):
        cell(mixed)
    with pytest.raises(AsjaxError, match="row must be one of full, no_kd, .*, got 'best'"):
        cell(f"{plain}:row=best")
    nobody = made_up(tmp_path / "n", teacher=ensemble(tmp_path / "l2", []))
    with pytest.raises(AsjaxError, match="does not name the teachers"):
        cell(nobody)
    (nobody.parent / "l2" / "about.json").write_text('{"extra": {"models": [3]}}')
    with pytest.raises(AsjaxError, match=r"about.json: extra.models\[0\] must be an object"):
        cell(nobody)
    tagger = made_up(tmp_path / "tagger")
    (tagger / "eval" / "events.json").unlink()
    with pytest.raises(AsjaxError, match="so it is no detector"):
        cell(tagger)
    for text, says in (
        ('{"events": 3}', "events must be an object"),
        ('{"events": {"ci": {"psds1": 3}}}', "events.ci.psds1 must be a list"),
        ('{"events": {"ci": {"psds1": ["a", 1]}}}', "events.ci.psds1.0. must be a number"),
        ('{"events": {"n_clips": "q"}}', "events.n_clips must be an integer"),
        ('{"events": {}, "label_set": 3}', "label_set must be an object"),
        ("{", "cannot be read"),
    ):
        (tagger / "eval" / "events.json").write_text(text)
        with pytest.raises(AsjaxError, match=says):
            cell(tagger)


def test_another_model_is_one_more_column_without_numbers_of_the_paper(tmp_path):
    paths = [made_up(tmp_path / str(seed), model="<crnn>", seed=seed) for seed in range(2)]
    found = sed.collect(read_runs([str(p) for p in paths]), Args)
    (_, _, header, body), = sed_page.tables(found)  # fmt: skip
    assert header == ["", *printed.SED_MODELS, "<crnn>_base"]
    assert {len(cells) for _, cells in body} == {6}
    cells = dict(body)
    assert cells["without distillation"][5] == ["40.0 [40.0, 40.0]", "", ""]
    assert cells["without distillation"][1] == ["-", "", "paper 44.1"]
    assert cells["Li et al., before the paper"][1:] == [["-", "paper 36.5"], ["-", "paper 38.7"],
        ["-", "paper 36.9"], ["-", "paper 37.0"], ["-"]]  # fmt: skip
    sed_page.write(found, tmp_path)
    assert "&lt;crnn&gt;" in (tmp_path / "report.html").read_text()
