"""`asjax sweep`: which trainings run, which rate is chosen, and the table."""

import csv
import json
import math
import shlex
from pathlib import Path

import pytest

from asjax import sweep, train
from asjax.__main__ import main
from asjax.config import AsjaxError, to_plain
from asjax.store.log import Diverged

RECIPE = "configs/sed_maestro.py:tiny"
SCORE = {  # fold, lr -> score on the evaluation data; best on the test data is another rate
    (0, 0.1): 0.3, (0, 0.2): 0.5, (0, 0.4): math.nan, (1, 0.1): 0.6, (1, 0.2): 0.2, (1, 0.4): 0.1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_repo(monkeypatch, repo):
    monkeypatch.chdir(repo)


@pytest.fixture
def trained(monkeypatch):
    """The configs that were trained, by a training program that only writes a card."""
    done = []

    def run(cfg, args):
        fold = int(cfg.data.test.splits[0].removeprefix("fold"))
        key, path = (fold, cfg.optim.lr), Path(args.workdir)
        done.append((*key, cfg.seed))
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(to_plain(cfg)))
        value = SCORE.get(key, 0.5)
        if math.isnan(value):
            raise Diverged("the loss is not finite")
        (path / "model").mkdir()
        test = (1 - value) + cfg.seed / 100
        card = {
            "chosen": {"step": 1, "rule": "best", "metric": "m", "value": value},
            "events": {"onset_f1_50ms": test},
        }
        card |= {"sha256": {"card.json": "0" * 64}, "label_hash": "0" * 64, "label_set": "x"}
        (path / "model" / "card.json").write_text(json.dumps(card))
        return 0

    monkeypatch.setattr(train, "run", run)
    return done


def swept(out, *more, seeds="0,1,2", lr="0.1,0.2,0.4", folds="0,1"):
    command = ["sweep", f"--config={RECIPE}", "--out", str(out), "--seeds", seeds]
    return main(
        [*command, *(["--lr", lr] if lr else []), *(["--folds", folds] if folds else []), *more]
    )


def test_rates_are_chosen_per_fold_on_evaluation_data_and_then_the_other_seeds_run(
    trained, tmp_path, capsys
):
    assert swept(tmp_path) == 0
    grid = [(f, lr, 0) for f in (0, 1) for lr in (0.1, 0.2, 0.4)]
    assert sorted(trained) == sorted([*grid, (0, 0.2, 1), (0, 0.2, 2), (1, 0.1, 1), (1, 0.1, 2)])
    text = capsys.readouterr().out
    assert "fold 0: 0.2, fold 1: 0.1" in text
    assert "fold0-lr0.4-seed0 has diverged" in text
    summary = json.loads((tmp_path / "summary.json").read_text())
    by_seed = [((1 - 0.5) + (1 - 0.6)) / 2 + s / 100 for s in range(3)]
    number = summary["numbers"]["onset_f1_50ms"]
    assert number["values"] == pytest.approx(by_seed)
    assert number["mean"] == pytest.approx(0.46)
    assert number["deviation"] == pytest.approx(0.01)
    assert "onset F1, 50 ms  0.460      0.010  0.450 to 0.470" in text
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    counted = [Path(line).name for line in (tmp_path / "chosen.txt").read_text().split()]
    assert [r["run"] for r in rows if r["counted"] == "True"] == counted
    trained.clear()
    assert swept(tmp_path) == 0  # everything is there
    assert trained == []
    assert swept(tmp_path, seeds="0,1,2,3") == 0
    assert sorted(trained) == [(0, 0.2, 3), (1, 0.1, 3)]


def test_printed_commands_are_those_that_can_run_now(trained, tmp_path, capsys):
    more = "--config.eval.bootstrap=5"
    assert swept(tmp_path, "--print", more, folds="1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert trained == []
    assert [shlex.split(line)[2] for line in lines] == [
        f"--config={RECIPE},fold=1,lr={lr},seed=0" for lr in (0.1, 0.2, 0.4)
    ]
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["asjax", "train"]
        assert words[4:] == [more]
        assert main(words[1:]) == 0 if "lr=0.4" not in line else True
    assert swept(tmp_path, "--print", more, folds="1", lr="0.1,0.2") == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.rpartition("seed=")[2][0] for line in lines] == ["1", "2"]
    assert all("lr=0.1" in line for line in lines)


def test_a_recipe_without_folds_and_rates(trained, tmp_path, capsys):
    assert swept(tmp_path, lr="", folds="", seeds="4") == 0
    assert trained == [(0, 1.06e-4, 4)]  # the recipe's own fold and rate
    text = capsys.readouterr().out
    assert "\n1 seed\n" in text
    assert "learning rate" not in text
    assert (
        json.loads((tmp_path / "summary.json").read_text())["numbers"]["onset_f1_50ms"]["deviation"]
        is None
    )


def test_a_stopped_training_stops_the_sweep(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "run", lambda cfg, args: train.EXIT_STOPPED)
    assert swept(tmp_path) == train.EXIT_STOPPED


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lr", "0.1,fast"], "--lr must be different numbers above 0 such as"),
        (["--lr", "0.1,0.1"], "--lr must be different"),
        (["--lr", "0"], "--lr must be different numbers above 0"),
        (["--folds", "5"], "fold must be 0 to 4, got 5"),
        (["--folds", "0.5"], "--folds must be different whole numbers"),
        (["--seeds", ","], "--seeds must name at least one"),
        (["--config.optim.lrr=1"], "lrr"),
    ],
)
def test_wrong_options_are_one_line(trained, tmp_path, capsys, words, message):
    assert main(["sweep", f"--config={RECIPE}", "--out", str(tmp_path / "x"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert trained == []


def test_a_recipe_without_the_argument_and_a_stored_config_are_refused(tmp_path, capsys):
    for recipe, message in (
        ("configs/sed_desed.py:tiny", "config argument 'fold' does not exist"),
        ("x/config.json", "--config must be a recipe"),
        ("nothing", "does not exist; give a file"),
    ):
        assert main(["sweep", f"--config={recipe}", "--out", str(tmp_path), "--folds", "0"]) == 2
        assert message in capsys.readouterr().err


def test_a_recipe_without_lr_gets_the_field_and_a_line_says_so(monkeypatch, tmp_path, capsys):
    done = []
    monkeypatch.setattr(train, "run", lambda cfg, args: done.append(cfg) or train.EXIT_STOPPED)
    command = ["sweep", "--config=configs/quickstart.py:tiny", "--out", str(tmp_path)]
    assert main([*command, "--lr", "0.1,0.2", "--seeds", "3"]) == train.EXIT_STOPPED
    assert "the recipe has no argument lr; --config.optim.lr is set" in capsys.readouterr().err
    assert (done[0].optim.lr, done[0].seed) == (0.1, 3)
    assert main([*command, "--lr", "0.1,0.2", "--seeds", "3", "--print"]) == 0
    first, second = (shlex.split(line) for line in capsys.readouterr().out.splitlines())
    assert first[2:] == [
        "--config=configs/quickstart.py:tiny,seed=3", f"--workdir={tmp_path}/lr0.1-seed3",
        "--config.optim.lr=0.1",
    ]  # fmt: skip
    assert second[4] == "--config.optim.lr=0.2"
    bare = tmp_path / "bare.py"
    text = Path("configs/quickstart.py").read_text()
    bare.write_text(text.replace("seed=0, ", "").replace("arg.seed", "0"))
    command[1] = f"--config={bare}:tiny"
    assert main([*command, "--seeds", "5"]) == train.EXIT_STOPPED
    assert "no argument seed; --config.seed is set" in capsys.readouterr().err
    assert done[-1].seed == 5
    for more in (["--lr", "1", "--config.optim.lr=1"], ["--config.seed=1"]):
        assert main([*command, *more]) == 2
        assert "set the same field; leave one out" in capsys.readouterr().err


def test_runs_of_another_config_and_rates_that_all_diverge_are_refused(trained, tmp_path):
    args = dict(config=RECIPE, out=str(tmp_path), lr="0.1", folds="0", seeds="0", overrides={})
    args = type("Args", (), {**args, "print": False, "cpu_devices": None})
    plan = sweep.Plan(args)
    assert plan.train(plan.due()[0]) == 0
    args.overrides = {"eval.bootstrap": "7"}
    with pytest.raises(
        AsjaxError, match="is finished with another config: eval.bootstrap: 20 -> 7"
    ):
        sweep.Plan(args).check()
    args.overrides, args.lr = {}, "0.4"
    plan = sweep.Plan(args)
    plan.train(plan.due()[0])
    with pytest.raises(AsjaxError, match="every learning rate of fold 0 has diverged"):
        plan.due()
