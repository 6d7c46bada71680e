"""The command line: help, overrides, and one line for every mistake."""

import subprocess
import sys

import pytest

from asjax.__main__ import VERBS, main


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "example:" in out
    assert f"asjax {verb}" in out


def test_no_verb_shows_the_overview_and_fails(capsys):
    assert main([]) == 2
    assert "verbs:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tran"], "did you mean 'train'"),
        (["train", "--config=nowhere.py", "--workdir=w"], "nowhere.py does not exist"),
        (["train", "--config=configs/quickstart.py:betta=1", "--workdir=w"], "mean 'beta'"),
        (
            ["train", "--config=configs/quickstart.py", "--workdir=w", "--config.optim.lrr=1"],
            "did you mean 'optim.lr'",
        ),
        (["tag", "nowhere.wav", "--model=configs"], "nowhere.wav"),
        (["tag", "README.md", "--model=nowhere"], "nowhere"),
        (["eval", "--model=nowhere"], "nowhere"),
        (["stats", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_2(argv, message, capsys, monkeypatch, repo):
    monkeypatch.chdir(repo)
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "asjax", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("asjax ")
