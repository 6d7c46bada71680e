"""The training program end to end: every config, exact resume, and errors."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asjax import build, labels, train
from asjax.__main__ import main
from asjax.data import prefetch

CONFIGS = sorted(p.name for p in (Path(__file__).parent.parent / "configs").glob("*.py"))
SMALL = [
    "--config.data.train.splits=('fold1',)",
    "--config.data.clip_s=1.0",
    "--config.eval.bootstrap=20",
    "--config.eval.max_share=1.0",
    "--config.log.every_steps=1",
]


def quick(workdir, *more, arg="tiny", steps=6):
    return main(
        [
            "train",
            f"--config=configs/quickstart.py:{arg}",
            f"--workdir={workdir}",
            *SMALL,
            f"--config.total_steps={steps}",
            "--config.eval.every_steps=2",
            "--config.log.save_steps=1",
            *more,
        ]
    )


@pytest.fixture(autouse=True)
def in_repo(monkeypatch, repo):
    monkeypatch.chdir(repo)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_runs_two_steps_and_leaves_a_model_and_a_report(name, tmp_path):
    code = main(["train", f"--config=configs/{name}:tiny", f"--workdir={tmp_path / 'run'}"])
    assert code == 0
    for file in ("eval/report.html", "eval/metrics.json", "eval/scores.npz", "train.jsonl"):
        assert (tmp_path / "run" / file).stat().st_size > 100
    card = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert card["step"] in (1, 2)
    resolved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert card["hlp"] is resolved["labels"]["hlp"]  # off in PANNs' recipe, on in the HLP paper's


def weights(workdir):
    from safetensors.numpy import load_file

    return load_file(workdir / "model" / "model.safetensors")


def losses(workdir):
    rows = map(json.loads, (workdir / "train.jsonl").read_text().splitlines())
    return {r["step"]: r["loss"] for r in rows if "loss" in r}


def stop_after(monkeypatch, n):
    """Send this process SIGTERM when the loop asks for batch n (counted from its start)."""
    original = prefetch.prefetch

    class Stopping:
        def __init__(self, *args, **kwargs):
            self.inner, self.seen = original(*args, **kwargs), 0

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __enter__(self):
            self.inner.__enter__()
            return self

        def __exit__(self, *exc):
            return self.inner.__exit__(*exc)

        def __iter__(self):
            return self

        def wait(self, stop):
            self.seen += 1
            if self.seen == n:
                os.kill(os.getpid(), signal.SIGTERM)
            return self.inner.get()

    only_training = SimpleNamespace(prefetch=Stopping, Stopped=prefetch.Stopped)
    monkeypatch.setattr(train, "prefetch", only_training)


def test_stop_and_resume_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, capsys):
    """SIGTERM within an epoch of 10 steps, with EMA; weights and losses are compared."""
    assert quick(tmp_path / "straight") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert quick(tmp_path / "stopped") == train.EXIT_STOPPED
    assert "stopped at step 3" in capsys.readouterr().out
    assert not (tmp_path / "stopped" / "model").exists()
    assert quick(tmp_path / "stopped") == 0
    assert "resuming at step 3 of 6" in capsys.readouterr().out
    assert losses(tmp_path / "straight") == losses(tmp_path / "stopped")
    one, two = weights(tmp_path / "straight"), weights(tmp_path / "stopped")
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)
    straight, stopped = (
        np.load(tmp_path / w / "eval" / "scores.npz")["scores"] for w in ("straight", "stopped")
    )
    np.testing.assert_array_equal(straight, stopped)


def test_a_finished_run_can_be_run_again_and_stays_as_it_is(tmp_path):
    assert quick(tmp_path / "w", steps=2) == 0
    before = weights(tmp_path / "w")
    assert quick(tmp_path / "w", steps=2) == 0
    after = weights(tmp_path / "w")
    assert all((before[k] == after[k]).all() for k in before)


def test_a_changed_config_is_refused_with_what_differs(tmp_path, capsys):
    assert quick(tmp_path / "w", steps=2) == 0
    capsys.readouterr()
    assert quick(tmp_path / "w", "--config.optim.lr=0.5", steps=2) == 2
    error = capsys.readouterr().err
    assert "optim.lr" in error
    assert "0.5" in error
    assert "--allow-config-change" in error


def test_a_diverging_run_stops_and_names_the_step(tmp_path, capsys, monkeypatch):
    assert quick(tmp_path / "w", "--config.optim.lr=1e18", steps=30) == 2
    error = capsys.readouterr().err
    assert "10 steps in a row" in error


def test_the_step_is_chosen_on_eval_and_reported_on_test(tmp_path, capsys):
    argv = ["--config.data.test=esc10(splits=['fold4'])", "--config.eval.select=last"]
    argv += ["--config.eval.metric=mean_ap"]
    assert quick(tmp_path / "w", *argv) == 0
    said = capsys.readouterr().out
    assert "step 6 is the result (the last one" in said
    card = json.loads((tmp_path / "w" / "model" / "card.json").read_text())
    assert card["evaluated_on"] == "test"
    assert card["chosen"]["rule"] == "last"
    assert card["chosen"]["step"] == card["step"] == card["chosen"]["last_step"] == 6
    fold4 = build.source("esc10(splits=['fold4'])", labels.get("audioset527"))
    ids = np.load(tmp_path / "w" / "eval" / "scores.npz")["ids"]
    assert sorted(ids) == sorted(fold4[i]["id"] for i in range(len(fold4)))
    assert card["test_data"]["clips"] == len(fold4)
    rows = [json.loads(line) for line in (tmp_path / "w" / "train.jsonl").open()]
    curve = [row["eval/mean_ap"] for row in rows if "eval/mean_ap" in row]
    assert card["chosen"]["last_value"] == pytest.approx(curve[-1])
    assert main(["eval", f"--model={tmp_path / 'w'}", "--bootstrap=0", f"--out={tmp_path}"]) == 0
    assert (np.load(tmp_path / "scores.npz")["ids"] == ids).all()


def test_epochs_replace_steps_and_patience_ends_a_run_and_a_resumed_one(tmp_path, capsys):
    argv = [
        "--config.total_epochs=1.5",
        "--config.eval.every_epochs=0.2",
        "--config.optim.lr=1e-30",
    ]
    argv += ["--config.eval.patience=3", "--config.data.draw=shuffle"]
    argv += ["--config.eval.select=best", "--config.eval.metric=mean_ap"]
    command = ["train", "--config=configs/quickstart.py:tiny", f"--workdir={tmp_path}", *SMALL]
    assert main([*command, *argv]) == 0  # 80 clips, 8 a batch: 15 steps, an evaluation every 2
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").open()]
    assert [row["step"] for row in rows if "eval/mean_ap" in row] == [2, 4, 6, 8]  # no weight moves
    said = capsys.readouterr().out
    assert "3 evaluations without a better metric" in said
    assert "step 2 is the result (highest mean_ap; 4 evaluations)" in said
    assert main([*command, *argv]) == 0
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").open()]
    assert max(row["step"] for row in rows) == 8


def test_a_wrong_test_set_is_one_line_before_anything_is_written(tmp_path, capsys):
    assert quick(tmp_path / "w", "--config.data.test=esc10(splits=['fold9'])") == 2
    error = capsys.readouterr().err
    assert "fold9" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_data_that_fail_in_an_evaluation_lose_no_step(tmp_path, monkeypatch, capsys):
    from asjax.config import AsjaxError
    from asjax.evaluation import infer

    original, seen = infer.scores, []

    def scores(*args, **kwargs):
        seen.append(1)
        if len(seen) == 2:
            raise AsjaxError("4 clips of the evaluation set cannot be decoded")
        return original(*args, **kwargs)

    monkeypatch.setattr(infer, "scores", scores)
    argv = ["--config.log.save_steps=100"]
    assert quick(tmp_path / "w", *argv) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be decoded. Step 4 is saved; the same command resumes the run" in error
    assert (tmp_path / "w" / "checkpoints" / "4").is_dir()
    assert quick(tmp_path / "w", *argv) == 0
    assert "resuming at step 4 of 6" in capsys.readouterr().out


def test_a_signal_during_the_report_lets_it_end(tmp_path, monkeypatch, capsys):
    from asjax.evaluation import evaluate

    original = evaluate.evaluate_scores

    def evaluate_scores(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        return original(*args, **kwargs)

    monkeypatch.setattr(evaluate, "evaluate_scores", evaluate_scores)
    assert quick(tmp_path / "w", steps=2) == 0
    assert "SIGTERM: the report must end first, then the run has ended" in capsys.readouterr().err
    assert (tmp_path / "w" / "model" / "card.json").is_file()


def stop_when(monkeypatch, call: int):
    """Send this process SIGTERM when the scoring of an evaluation set begins for that time."""
    from asjax.evaluation import infer

    original, seen = infer.scores, []

    def scores(*args, **kwargs):
        seen.append(1)
        if len(seen) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(infer, "scores", scores)


@pytest.mark.parametrize(("call", "step"), [(2, 4), (4, 6)], ids=["evaluation", "final scoring"])
def test_a_signal_during_scoring_ends_the_run_and_loses_nothing(call, step, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_when(patch, call)
        assert quick(tmp_path / "stopped") == train.EXIT_STOPPED
    rows = [json.loads(line) for line in (tmp_path / "stopped" / "train.jsonl").open()]
    assert max(row["step"] for row in rows) == step
    assert quick(tmp_path / "stopped") == 0
    rows = [json.loads(line) for line in (tmp_path / "stopped" / "train.jsonl").open()]
    evaluated = [row["step"] for row in rows if "eval/mean_ap" in row]
    assert evaluated == [2, 4, 6]  # the one that was interrupted was made up for


def test_a_signal_while_the_data_stall_ends_the_run_within_seconds(tmp_path, monkeypatch):
    """The third batch never comes. The two steps before it are saved."""
    from asjax.data import pipeline

    original = pipeline.Pipeline.iterate
    released = threading.Event()

    def iterate(self, start=0):
        for n, batch in enumerate(original(self, start)):
            if self.train and n == 2:
                released.wait(30)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Pipeline, "iterate", iterate)
        signaller = threading.Thread(target=terminate_after, args=(tmp_path / "train.jsonl", 1))
        signaller.start()
        assert quick(tmp_path, "--config.eval.every_steps=100") == train.EXIT_STOPPED
        stalled = not released.is_set()
        released.set()
        signaller.join()
    assert stalled
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def terminate_after(log, step):
    """SIGTERM as soon as a log has a row of that step; the next step may be running then."""
    end = time.time() + 120
    while time.time() < end and not (log.exists() and log.read_text().count("step") >= step):
        time.sleep(0.02)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def own_clips(folder, n=12):
    import soundfile as sf

    rng = np.random.default_rng(0)
    (folder / "clips").mkdir(parents=True)
    with open(folder / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "labels", "fold"])
        for k in range(n):
            tone = np.sin(2 * np.pi * (300 + 900 * (k % 2)) * np.arange(8000) / 8000)
            sf.write(folder / "clips" / f"{k}.wav", tone * 0.3 + rng.normal(size=8000) * 0.01, 8000)
            rows.writerow([f"{k}.wav", "high" if k % 2 else "low", 1 + k // (n - 4)])
    return folder


def folder_spec(folder, fold):
    return (
        f"dict(name='folder', csv={str(folder / 'labels.csv')!r}, "
        f"root={str(folder / 'clips')!r}, splits=('{fold}',))"
    )


def write_own_config(folder):
    path = folder / "own.py"
    path.write_text(
        "import importlib.util\n"
        "def get_config(arg=None):\n"
        "    spec = importlib.util.spec_from_file_location('q', 'configs/quickstart.py')\n"
        "    module = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(module)\n"
        "    c = module.get_config('tiny')\n"
        "    c.labels.name = 'own'\n"
        "    c.labels.hlp = False\n"
        f"    c.data.train = {folder_spec(folder, 1)}\n"
        f"    c.data.eval = {folder_spec(folder, 2)}\n"
        "    c.data.clip_s = 1.0\n"
        "    c.eval.mappings = []\n"
        "    c.eval.bootstrap = 20\n"
        "    return c\n"
    )
    return path


def test_people_train_on_their_own_folder_with_their_own_labels(tmp_path):
    config = write_own_config(own_clips(tmp_path / "mine"))
    assert main(["train", f"--config={config}", f"--workdir={tmp_path / 'run'}"]) == 0
    labels = (tmp_path / "run" / "model" / "labels.csv").read_text()
    assert "high" in labels
    assert "low" in labels


def one_label_run(tmp_path, *more, name="run"):
    """`asjax train` with objective auto on clips of two classes, one label each."""
    folder = tmp_path / "mine"
    config = write_own_config(folder if folder.exists() else own_clips(folder))
    argv = ["train", f"--config={config}", f"--workdir={tmp_path / name}"]
    return main([*argv, "--config.objective.name=auto", *more])


def test_clips_with_one_label_each_train_a_classifier_that_stays_one(tmp_path, capsys):
    assert one_label_run(tmp_path) == 0
    out = capsys.readouterr().out
    assert out.count("objective classify (softmax): every training clip has exactly one lab") == 1
    assert "accuracy [95% interval]" in out
    run = tmp_path / "run"
    for folder in (run, run / "model"):
        resolved = json.loads((folder / "config.json").read_text())
        assert resolved["objective"] == {"name": "classify", "label_smoothing": 0.0}
    logged = [json.loads(line) for line in (run / "train.jsonl").open()]
    last = [row for row in logged if "eval/accuracy" in row][-1]
    view = json.loads((run / "eval" / "metrics.json").read_text())["views"]["labels"]
    assert last["eval/accuracy"] == pytest.approx(view["accuracy"])
    with np.load(run / "eval" / "scores.npz") as file:
        scores, targets = file["scores"], file["targets"]
    assert last["eval/loss"] == pytest.approx(-scores[targets > 0].mean(), rel=1e-5)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-5)
    assert (run / "eval" / "confusion.csv").read_text().startswith("class,high,low\n")

    assert one_label_run(tmp_path) == 0  # the same command resumes
    capsys.readouterr()
    assert one_label_run(tmp_path, "--multilabel") == 2
    assert "objective.name: 'classify' -> 'tagging'" in capsys.readouterr().err
    assert main(["eval", f"--model={run}", "--bootstrap=0"]) == 0
    assert "accuracy" in capsys.readouterr().out
    argv = ["tag", str(tmp_path / "mine" / "clips" / "0.wav"), f"--model={run}", "--json"]
    assert main(argv) == 0
    tags = json.loads(capsys.readouterr().out)["tags"]
    assert sum(tag["probability"] for tag in tags) == pytest.approx(1, abs=1e-6)


def test_multilabel_trains_one_sigmoid_per_class_and_still_has_an_accuracy(tmp_path, capsys):
    assert one_label_run(tmp_path, "--multilabel") == 0
    out = capsys.readouterr().out
    assert "objective tagging (one sigmoid per class): --multilabel is given" in out
    assert "accuracy" in out
    resolved = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert resolved["objective"]["name"] == "tagging"


def test_one_label_per_clip_works_with_the_classes_of_esc10(tmp_path, capsys):
    more = ["--config.labels.name=esc10", "--config.labels.hlp=False", "--config.eval.mappings=()"]
    more += [f"--config.data.{part}.convert=True" for part in ("train", "eval")]
    more += ["--config.objective.name=auto", "--config.objective.class_weights=balanced"]
    assert quick(tmp_path / "w", *more, steps=2) == 0
    assert "objective classify" in capsys.readouterr().out
    table = (tmp_path / "w" / "eval" / "confusion.csv").read_text().splitlines()
    assert len(table) == 11
    assert sum(int(n) for row in table[1:] for n in row.split(",")[1:]) == 80


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ["--config.labels.hlp=False"],
            "16 of 79 training clips of esc10 have no label or several (first 1-",
        ),
        (["--config.labels.hlp=True"], "HLP gives a clip several; set --config.labels.hlp=False"),
        (["--multilabel"], "the config names classify; leave out --multilabel"),
    ],
)
def test_a_classifier_of_clips_with_several_labels_is_refused_at_the_start(
    more, says, tmp_path, capsys
):
    assert quick(tmp_path / "w", "--config.objective.name=classify", *more, steps=2) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_fine_tuning_takes_the_weights_that_fit_and_a_new_head(tmp_path, capsys):
    assert quick(tmp_path / "first", steps=2) == 0
    config = write_own_config(own_clips(tmp_path / "mine"))
    argv = ["train", f"--config={config}", f"--config.init_from={tmp_path / 'first'}"]
    # The learning rate is almost zero, so the weights must stay; a bias of 0 may move by the rate.
    argv += [f"--workdir={tmp_path / 'run'}", "--config.optim.lr=1e-30"]
    assert main(argv) == 0
    assert "new: head/bias, head/kernel" in capsys.readouterr().out
    before, after = weights(tmp_path / "first"), weights(tmp_path / "run")
    for key in before:
        if key.startswith("params/") and "head" not in key:
            np.testing.assert_allclose(after[key], before[key], rtol=0, atol=1e-29, err_msg=key)
    assert after["params/head/bias"].shape == (2,)


def test_broken_clips_are_quarantined_and_too_many_stop_the_run(tmp_path, capsys):
    folder = own_clips(tmp_path / "mine")
    (folder / "clips" / "0.wav").write_text("not audio")
    config = write_own_config(folder)
    argv = ["train", f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    assert main([*argv, "--config.data.max_bad=0.5"]) == 0
    rows = list(csv.DictReader((tmp_path / "run" / "quarantine.csv").open()))
    assert [r["id"] for r in rows] == ["0.wav"]
    assert int(rows[0]["count"]) >= 1
    argv[-1] = f"--workdir={tmp_path / 'strict'}"
    assert main([*argv, "--config.data.max_bad=0.01"]) == 2
    error = capsys.readouterr().err
    assert "0.wav" in error
    assert "max_bad" in error


OWN_OP = """
import numpy as np

def strong(example, rng, *, frames: int, sample_rate: int):
    shape = np.zeros((frames, 2), np.float32)
    shape[: int(len(example["wave"]) / sample_rate * frames)] = example["target"]
    return {**example, "strong": shape, "place": np.int32(rng.integers(100))}
"""

OWN_OBJECTIVE = """
import jax.numpy as jnp
from asjax import objectives

def framewise(*, model, frontend, label_smoothing: float = 0.0):
    plain = objectives.tagging(model=model, frontend=frontend)

    def loss_fn(params, stats, batch, rng):
        loss, (scalars, stats) = plain(params, stats, batch, rng)
        frames = batch["strong"]
        scalars = {**scalars, "active": frames.mean(), "width": jnp.float32(frames.shape[1])}
        return loss, (scalars, stats)

    return loss_fn
"""


@pytest.mark.parametrize("objective", ["tagging", "mine_{n}.losses:framewise"])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_own_host_op_and_an_own_objective_train(tmp_path, monkeypatch, objective, workers):
    """New arrays of fixed shape are batched, placed and reach the objective unchanged."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "chain.py").write_text(OWN_OP)
    (tmp_path / name / "losses.py").write_text(OWN_OBJECTIVE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    config = write_own_config(own_clips(tmp_path / "mine"))
    objective = objective.replace("mine_{n}", name)
    argv = [
        "train",
        f"--config={config}",
        f"--workdir={tmp_path / 'run'}",
        "--config.total_steps=2",
    ]
    argv += [f"--config.data.ops=decode | crop | multihot | {name}.chain:strong(frames=8)"]
    argv += [f"--config.objective.name={objective}", f"--config.data.workers={workers}"]
    argv += ["--config.log.every_steps=1", "--config.augment.wave=", "--config.augment.feats="]
    argv += ["--config.augment.normed="]
    assert main(argv) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").open()]
    losses = [row for row in rows if "loss" in row]
    assert len(losses) == 2
    if objective != "tagging":
        # half of the clips are "high", half "low", all are one second long
        assert {row["active"] for row in losses} == {0.5}
        assert {row["width"] for row in losses} == {8}
    # The model folder refers only to our code, so `asjax eval` starts no foreign code.
    assert main(["eval", f"--model={tmp_path / 'run'}", "--bootstrap=0"]) == 0


def test_an_evaluation_batch_that_devices_cannot_share_is_refused_at_the_start(tmp_path, capsys):
    """The error comes at the start, not hours later at the first evaluation."""
    argv = ["--config.mesh=data=2", "--config.eval.batch_size=3"]
    assert quick(tmp_path / "w", *argv) == 2
    assert "eval.batch_size 3 must be a multiple of the 2 devices" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_parts_that_do_not_divide_a_batch_are_refused_at_the_start(tmp_path, capsys):
    argv = ["--config.mesh=data=2", "--config.optim.accumulate_steps=3"]
    assert quick(tmp_path / "w", *argv) == 2
    assert "must be a multiple of accumulate_steps=3 times the 2 devices" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_two_processes_train_exactly_as_one_with_as_many_devices(tmp_path):
    """The same draws, rows and random numbers give the same losses and weights."""
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "asjax", "train", "--config=configs/quickstart.py:tiny", *SMALL,
        "--config.total_steps=4", "--config.eval.every_steps=2", f"--workdir={tmp_path / 'two'}",
        "--cpu-devices=1", f"--coordinator=localhost:{port}", "--num-processes=2",
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k != "NPROC"}  # of conftest.py
    how = dict(stdout=subprocess.PIPE, stderr=-2, env=env)
    ranks = [subprocess.Popen([*command, f"--process-id={p}"], **how) for p in (0, 1)]
    said = [rank.communicate(timeout=600)[0].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert quick(tmp_path / "one", "--config.log.save_steps=50", steps=4) == 0
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    scores = [np.load(tmp_path / name / "eval" / "scores.npz") for name in ("one", "two")]
    for one, two in ((weights(tmp_path / "one"), weights(tmp_path / "two")), scores):
        assert [*one] == [*two]
        for key in one:
            np.testing.assert_array_equal(one[key], two[key], err_msg=key)


@pytest.mark.parametrize("moment", ["training", "saving"])
def test_kill_9_loses_at_most_one_save_interval(tmp_path, moment):
    """A process is killed without warning; the next start continues from a sound checkpoint."""
    workdir = tmp_path / "w"
    argv = [
        "train", "--config=configs/quickstart.py:tiny", f"--workdir={workdir}", *SMALL,
        "--config.eval.every_steps=100000", "--config.log.save_steps=5",
    ]  # fmt: skip
    command = [sys.executable, "-m", "asjax", *argv, "--config.total_steps=100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    steps = workdir / "checkpoints"
    deadline = time.time() + 120

    def saved():
        return [int(p.name) for p in steps.glob("*") if p.name.isdigit()]

    def saving():
        return list(steps.glob("*tmp*"))

    while time.time() < deadline and process.poll() is None:
        if saved() and max(saved()) >= 10 and (moment == "training" or saving()):
            break
        time.sleep(0.001 if saved() else 0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert saved(), process.stderr.read()
    newest = max(saved())
    more = [f"--config.total_steps={newest + 2}", "--allow-config-change"]
    assert main([*argv, *more]) == 0
    first = min(losses(workdir))
    assert first == 1
    rows = (workdir / "train.jsonl").read_text().splitlines()
    numbers = [json.loads(r)["step"] for r in rows if "loss" in json.loads(r)]
    assert numbers == sorted(set(numbers))  # no duplicates, in order
    assert max(numbers) == newest + 2
