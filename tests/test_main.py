"""The command line: help, overrides, and a one-line error for every mistake."""

import subprocess
import sys
import tempfile

import pytest

import asjax
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
        (["tag", "README.md", "--model=a", "--model", "b"], "model folder a does not exist"),
        (["tag", "README.md", "--top=1", "--top", "2"], "--top is given twice"),
        (["tag", "README.md", "--thr=1", "--threshold", "2"], "--threshold is given twice"),
        (["prepare", "esc50", "--source=a", "--out=b", "--out=c"], "--out is given twice"),
        (["report", "hlp", "a", "--seed=1", "--seed=2"], "--seed is given twice"),
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


def test_a_command_of_a_notebook_raises_where_the_program_would_exit(capsys):
    asjax.run("models passt --json")
    assert "passt_s" in capsys.readouterr().out
    asjax.run("asjax models passt --json")  # as it is written for a shell
    assert "passt_s" in capsys.readouterr().out
    asjax.run(["models", "passt", "--json"])
    assert "passt_s" in capsys.readouterr().out
    for command in ("models nowhere", "models --bogus", "", ["models", "no where"]):
        text = command if isinstance(command, str) else "models 'no where'"
        with pytest.raises(asjax.AsjaxError, match=f"^asjax {text}: exit code 2$"):
            asjax.run(command)
    with pytest.raises(asjax.AsjaxError, match="No closing quotation"):
        asjax.run("models 'passt")


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "asjax", "--version"], capture_output=True, text=True, timeout=600
    )
    assert done.stdout.startswith("asjax ")


# --------------------------------------------------------------------------- unexpected errors


def raises(error):
    def main(args):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero; "),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum"),
        (MemoryError(), "the memory is used up"),
        (KeyError("a\nb\x1b[31m"), "KeyError: "),
        (RuntimeError("first line\nsecond line"), "RuntimeError: first line; "),
        (AttributeError(), "AttributeError; "),
    ],
)
def test_an_unexpected_error_is_one_line_and_a_file(error, says, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("asjax.weights.zoo.main", raises(error))
    monkeypatch.delenv("ASJAX_DEBUG", raising=False)
    assert main(["models"]) == 70
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"asjax models: error: {says}")
    (file,) = tmp_path.iterdir()
    assert err.strip().endswith(f"the traceback is in {file}")
    text = file.read_text()
    assert "Traceback (most recent call last)" in text
    assert type(error).__name__ in text
    assert "['models']" in text


def test_a_really_endless_recursion_and_a_full_disk_too(capsys, monkeypatch, tmp_path):
    def endless(args):
        return endless(args)

    monkeypatch.setattr("asjax.weights.zoo.main", endless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert main(["models"]) == 70
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "could not be saved" in err
    assert "ASJAX_DEBUG=1" in err


def test_the_traceback_is_shown_to_those_who_ask(monkeypatch):
    monkeypatch.setattr("asjax.weights.zoo.main", raises(ZeroDivisionError("x")))
    monkeypatch.setenv("ASJAX_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["models"])


def test_errors_of_ours_stay_one_line_whatever_a_name_holds(capsys):
    assert main(["tag", "a\nb.wav", "--model=nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
