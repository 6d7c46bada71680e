"""Every verb refuses an output such as gs://bucket/run in one line and writes nothing."""

import argparse

import pytest

from asjax import __main__ as program

QUICK = ["--config=configs/quickstart.py:tiny"]
COMMANDS = [  # an output takes the place of the last word's value
    ["train", *QUICK, "--workdir"],
    ["finetune", "--from=m", "--data=a.csv", "--to"],
    ["sweep", *QUICK, "--out"],
    ["probe", "--data=a.csv", "--out"],
    ["configs", "copy", "quickstart", "--to"],
    ["eval", "--model=m", "--out"],
    ["soup", "a", "b", "--out"],
    ["compare", "a", "b", "--out"],
    ["tag", "a.wav", "--model=m", "--out"],
    ["tag", "--from=lake", "--model=m", "--to"],
    *(["tag", "a.wav", "--model=m", option] for option in ("--frames", "--picture", "--audacity")),
    ["tag", "a.wav", "--model=m", "--raven"],
    ["embed", "a.wav", "--model=m", "--to"],
    ["logits", "a", "--data=a.csv", "--out"],
    ["logits", "merge", "a", "b", "--out"],
    ["prepare", "folder", "--csv=a.csv", "--audio=b", "--out"],
    ["prepare", "audioset", "--from=tar=b", "--lists=b", "--out"],
    ["prepare", "merge", "a", "b", "--out"],
    *(["prepare", name, "--source=b", "--out"] for name in ("esc50", "fsd50k", "urbansound8k")),
    ["report", "hlp", "a", "--out"],
    ["plan", "sed", "--out"],
    ["port", "a.pth", "--to"],
    *(["export", "m", option] for option in ("--safetensors", "--onnx", "--stablehlo")),
    ["demo", "m", "--to"],
    ["stats", "a.csv", "--out"],
]


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket/run", "hdfs:/run"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_address_as_output_is_one_line_and_nothing_is_written(
    command, url, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    *words, option = command
    assert program.main([*words, f"{option}={url}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    scheme = url.split(":")[0]
    line = line.replace("://", ":/")  # a Path has one slash
    shown = url.replace("://", ":/")
    assert line.startswith(f"asjax {command[0]}: error: {option} {shown} is on {scheme}, and"), line
    assert not list(tmp_path.iterdir())


def outputs(parser):
    """(subcommand, option) of a parser and its subparsers, of the options that name an output."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from ((name, option) for _, option in outputs(sub))
        for option in action.option_strings:
            if option in ("--workdir", "--out", "--to", "--safetensors", "--onnx", "--stablehlo"):
                yield "", option


def test_every_verb_with_an_output_is_in_the_table():
    known = {(words[0], words[-1]) for words in COMMANDS}
    for verb in program.VERBS:
        for _, option in outputs(program.parser_for(verb)):
            assert (verb, option) in known
