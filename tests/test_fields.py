"""Durations in steps or epochs, and the choice of a step, in configs."""

import pytest

from asjax import build
from asjax.__main__ import main
from asjax.config import AsjaxError, AsjaxWarning


def load(repo, **overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return build.load(f"{repo}/configs/quickstart.py", overrides)


def test_a_length_of_the_command_line_replaces_the_recipe_s_in_any_unit(repo):
    cfg = load(repo, total_epochs="2.5")
    assert (cfg.total_steps, cfg.total_epochs) == (0, 2.5)
    cfg = load(repo, total_epochs="3", total_steps="0", eval__every_epochs="0.5")
    assert (cfg.total_epochs, cfg.eval.every_epochs) == (3.0, 0.5)
    cfg = load(repo, total_steps="7", eval__every_steps="3")
    assert (cfg.total_steps, cfg.total_epochs, cfg.eval.every_epochs) == (7, 0.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (dict(total_steps="0"), "must set total_steps or total_epochs"),
        (dict(total_steps="2", total_epochs="1"), "both are given"),
        (dict(total_epochs="nan"), "total_epochs must be"),
        (dict(total_epochs="-1"), "total_epochs must be a number from 0"),
        (dict(eval__every_epochs="-1"), "eval.every_epochs must be a number from 0"),
        (dict(eval__max_share="0"), "eval.max_share must be above 0"),
        (dict(eval__max_share="2"), "eval.max_share must be a number from 0 to 1"),
        (dict(eval__metric="map"), "mean_ap"),
        (dict(eval__select="smooth(window=2)"), "odd whole number"),
        (dict(eval__select="first"), "best"),
        (dict(eval__patience="-1"), "eval.patience must be a whole number >= 0"),
    ],
)
def test_wrong_lengths_and_choices_are_one_line(fields, line, repo):
    with pytest.raises(AsjaxError, match=r"\A[^\n]+\Z") as error:
        load(repo, **fields)
    assert line in str(error.value)


def test_every_field_of_an_average_and_of_a_test_set_can_be_overridden(repo):
    assert load(repo, average__decay="0.9").average.decay == 0.9
    with pytest.warns(AsjaxWarning, match="decay of ema is left out"):
        cfg = load(repo, average__name="swa", average__start_step="3")
    assert cfg.average.to_dict() == {"name": "swa", "start_step": 3}
    cfg = load(repo, data__test__name="esc10", data__test__splits="('fold4',)")
    assert cfg.data.test.to_dict() == {"name": "esc10", "splits": ("fold4",)}
    cfg = load(repo, average="", average__decay="0.5", average__name="ema")
    assert cfg.average.to_dict() == {"name": "ema", "decay": 0.5}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (dict(average="", average__decay="0.5"), "names no average; set average.name"),
        (dict(average__decai="0.5"), "did you mean 'average.decay'"),
        (dict(data__test__splits="('fold4',)"), "names no source; set data.test.name"),
        (dict(average__name="3"), "average.name must be a name, got 3"),
        (dict(data__tess__name="esc10"), "data.test"),
    ],
)
def test_a_wrong_field_of_an_absent_part_is_one_line(fields, line, repo):
    with pytest.raises(AsjaxError, match=r"\A[^\n]+\Z") as error:
        load(repo, **fields)
    assert line in str(error.value)


@pytest.mark.parametrize("field", ["frontend.sample_rate=32000", "data.sample_rate=8000"])
def test_a_frontend_for_another_sample_rate_is_refused_before_anything(field, repo, tmp_path):
    argv = ["train", f"--config={repo}/configs/quickstart.py:tiny", f"--config.{field}"]
    assert main([*argv, f"--workdir={tmp_path / 'run'}"]) == 2
    assert not (tmp_path / "run").exists()
