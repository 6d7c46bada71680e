"""The step that a run ends with, and the words about it."""

import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from asjax.store import choice, result
from asjax.store.checkpoint import Checkpoints

INF = float("inf")


class Steps(Checkpoints):
    """Checkpoints of a tree that is a dict."""

    def restore(self, abstract, step=None):
        step, tree, meta = super().restore({"step": jax.ShapeDtypeStruct((), jnp.int32)}, step)
        return step, SimpleNamespace(step=tree["step"]), meta


def run(folder, values, rule):
    with Steps(folder, rule=rule, keep=9) as kept:
        for i, value in enumerate(values, 1):
            kept.save(i, {"step": jnp.int32(i)}, metrics={"mean_ap": value})
    return kept


@pytest.mark.parametrize(
    ("rule", "step", "words"),
    [
        (choice.best(), 2, "step 2 is the result (highest mean_ap; 3 evaluations): mean_ap inf; "),
        (choice.last(), 3, "step 3 is the result (the last one, as eval.select='last' says; "),
    ],
)
def test_the_chosen_step_is_restored_and_described(rule, step, words, tmp_path):
    said = []
    last = SimpleNamespace(step=3)
    got, record = result.chosen(run(tmp_path, [0.5, INF, 0.25], rule), last, None, said.append)
    assert int(got.step) == step
    assert said[0].startswith(words)
    assert said[0].endswith("the last evaluated step, 3, has 0.25")
    about = record["chosen"]
    assert (about["step"], about["wanted_step"], about["last_step"]) == (step, step, 3)
    assert about["value"] == {2: "inf", 3: 0.25}[step]  # JSON has no infinity


def test_a_chosen_step_that_is_gone_is_said_and_recorded(tmp_path):
    kept, said = run(tmp_path, [0.5, 0.9, 0.25], choice.best()), []
    shutil.rmtree(tmp_path / "2")
    got, record = result.chosen(kept, SimpleNamespace(step=3), None, said.append)
    assert int(got.step) in (1, 3)
    assert "step 2 cannot be read or was not kept" in said[0]
    assert record["chosen"]["wanted_step"] == 2


def test_a_metric_that_was_never_a_number_gives_the_last_state(tmp_path):
    said, last = [], SimpleNamespace(step=2)
    kept = run(tmp_path, [float("nan")] * 2, choice.best())
    assert result.chosen(kept, last, None, said.append) == (last, {})
    assert "never a number" in said[0]


def test_the_last_lines_name_the_files_and_the_quarantine(tmp_path):
    bad = SimpleNamespace(count=2, listed=tmp_path / "quarantine.csv")
    lines = result.where(tmp_path, bad, "per_class.csv")
    assert f"{tmp_path / 'eval' / 'report.html'}" in lines
    assert "quarantine.csv (2 clips)" in lines
    assert "quarantine" not in result.where(tmp_path, SimpleNamespace(count=0), "per_class.csv")
