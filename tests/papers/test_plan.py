"""`asjax plan sed`: its scripts run with a program that only writes down its arguments."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys

import pytest

from asjax import config
from asjax.__main__ import VERBS, main, parser_for
from asjax.papers.sed_runs import FAMILIES

ODD = "it's $HOME; \"x` \\ #(é😀"
# A program that adds its arguments to a file and makes the file that shows that it has finished.
FAKE = """#!{python}
import json, os, sys
if sys.argv[1] == "train":
    out = next(w[10:] for w in sys.argv if w.startswith("--workdir=")) + "/model/card.json"
else:
    out = sys.argv[sys.argv.index("--out") + 1] + "/about.json"
if sys.argv[1] == "logits":
    assert all(map(os.path.exists, sys.argv[2 : sys.argv.index("--data")]))
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([os.environ["ASJAX_DATA"], *sys.argv[1:]]) + "\\n")
if os.environ.get("FAIL") and os.environ["FAIL"] in " ".join(sys.argv):
    sys.exit(75)
os.makedirs(os.path.dirname(out), exist_ok=True)
open(out, "w").close()
"""
SBATCH = """#!{python}
import json, os, subprocess, sys
text = sys.stdin.read()
with open(os.environ["BATCHES"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
first, last = next(w for w in sys.argv if w.startswith("--array="))[8:].split("-")
for i in range(int(first), int(last) + 1):
    env = dict(os.environ, SLURM_ARRAY_TASK_ID=str(i))
    subprocess.run(["sh"], input=text, text=True, check=True, env=env)
print(len(open(os.environ["BATCHES"]).readlines()), end=";cluster\\n")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with fake programs in front of the others; the working folder of the scripts."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("asjax", FAKE), ("sbatch", SBATCH)):
        (tools / name).write_text(text.format(python=sys.executable))
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("BATCHES", str(tmp_path / "batches"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def plan(capsys, *argv):
    assert main(["plan", "sed", *map(str, argv)]) == 0
    return capsys.readouterr().out


def calls(place):
    return [json.loads(line) for line in (place / "calls").read_text().splitlines()]


def recipe(call):
    word = next(word for word in call if word.startswith("--config=sed_pipeline:"))
    defaults = dict(stage="", model="", seed=0, start="", sequence="", teacher="", tiny=False)
    return config.parse_arg(word.partition(":")[2], **defaults)


def test_the_default_plan_is_the_papers_pipeline(place, capsys):
    script = plan(capsys, "--tiny")
    subprocess.run(["sh"], input=script, text=True, check=True)
    done = calls(place)
    verbs = [(call[1], recipe(call).stage if call[1] == "train" else "") for call in done]
    assert verbs == (
        [("train", "weak")] * 5 + [("train", "teacher")] * 15 + [("logits", "")]
        + [("train", "student")] * 5 + [("report", "")]
    )  # fmt: skip
    teachers = [(recipe(call).model, recipe(call).seed) for call in done[5:20]]
    assert sorted(teachers) == sorted((m, s) for m in FAMILIES for s in range(3))
    assert done[20][2:17] == [f"runs/sed/teachers-full/{m}-{s}/model" for m, s in teachers]
    for call in done[5:20] + done[21:26]:
        assert f"--config.init_from=runs/sed/step2/{recipe(call).model}-0" in call
    assert {recipe(call).teacher for call in done[21:26]} == {"runs/sed/logits-full"}
    assert len(done[26][3:-2]) == 20


@pytest.mark.parametrize("form", ["sh", "slurm", "make"])
def test_odd_names_arrive_unchanged_in_every_form(place, capsys, form):
    data, out = f"{ODD} data", f"{ODD}, out"
    names = [f"{data}/weights/{file}_ssl.pt" for file in ("BEATs", "M2D")]
    argv = ["--data", data, "--out", out, "--models", "beats,m2d", "--seeds", 2, "--students", 2]
    rows = "full,no_kd,no_rnn,no_step2"
    script = plan(capsys, *argv, "--rows", rows, "--form", form, "--config.mesh=data=2")
    if form == "make":
        if not shutil.which("make"):
            pytest.skip("needs make")
        (place / "work" / "Makefile").write_text(script)
        command = ["make", "-j", "4"]
        subprocess.run([*command, "-n"], check=True, capture_output=True)
    else:
        (place / "work" / "script").write_text(script)
        command = ["sh", "script"]
        for shell in ("sh", "bash"):
            subprocess.run([shell, "-n", "script"], check=True)
    stopped = subprocess.run(command, capture_output=True, text=True)
    assert stopped.returncode != 0
    assert "BEATs_ssl.pt" in stopped.stderr  # the files of step 1 are not there
    assert not (place / "calls").exists()
    os.makedirs(f"{data}/weights")
    for name in names:
        open(name, "w").close()
    subprocess.run(command, check=True, capture_output=True)
    done = calls(place)
    assert {call[0] for call in done} == {data}
    trained = [recipe(call) for call in done if call[1] == "train"]
    assert len(trained) == 2 + 3 * 4 + 4 * 4
    assert sum("--config.mesh=data=2" in call for call in done) == len(trained)
    assert {r.teacher for r in trained} - {"", "none"} == {
        f"{out}/logits-{row}" for row in ("full", "no_rnn", "no_step2")
    }
    assert sum(r.teacher == "none" for r in trained) == 4  # the row no_kd
    assert {r.start for r in trained if "no_step2" in r.teacher} == {"ssl"}
    logits = [call for call in done if call[1] == "logits"]
    assert len(logits) == 3
    name, fields = config.parse_call(logits[0][logits[0].index("--data") + 1])
    assert (name, fields["path"]) == ("records", f"{data}/audioset_strong")
    again = subprocess.run(command, check=True, capture_output=True)
    assert again.returncode == 0
    assert [call[1] for call in calls(place)[len(done) :]] == ["report"]
    if form == "slurm":
        batches = [json.loads(line) for line in (place / "batches").read_text().splitlines()]
        waits = {b[1]: [w for w in b if w.startswith("--dependency")] for b in batches[1:12]}
        assert waits["--job-name=teachers-full"] == ["--dependency=afterok:3"]
        assert waits["--job-name=students-full"] == ["--dependency=afterok:3:5"]


def test_a_stopped_command_ends_the_script_and_a_second_run_goes_on(place, capsys, monkeypatch):
    script = plan(capsys, "--tiny", "--models", "beats", "--step2", "files", "--seeds", 2)
    monkeypatch.setenv("FAIL", "teachers-full/beats-1")
    assert subprocess.run(["sh"], input=script, text=True).returncode == 75
    assert len(calls(place)) == 2
    monkeypatch.delenv("FAIL")
    subprocess.run(["sh"], input=script, text=True, check=True)
    assert [call[1] for call in calls(place)] == ["train"] * 3 + ["logits", "train", "report"]


def test_the_commands_of_the_document_have_options_that_exist(repo):
    text = (repo / "docs" / "sed_pipeline.md").read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].partition(" >")[0] for line in "".join(blocks).splitlines()]
    commands = [shlex.split(line) for line in lines if line.strip().startswith("asjax ")]
    assert {words[1] for words in commands} == {"prepare", "plan", "train", "logits", "report"}
    for _, verb, *words in commands:
        if verb in VERBS:  # logits comes with the stored teachers
            parser_for(verb).parse_args(w for w in words if not w.startswith("--config."))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--models", "beets"], "--models 'beets'"),
        (["--models", "beats,beats"], "--models names one twice"),
        (["--rows", ""], "--rows"),
        (["--seeds", "0"], "--seeds must be 1 to 1000, got 0"),
        (["--students", "-1"], "--students must be 1 to 1000, got -1"),
        (["--out", "a\nb"], "--out must be a folder's name without control"),
        (["--out=-a"], "--out must be a folder's name"),
        (["--data", " "], "--data must be a folder's name"),
        (["--config.a\nb=1"], "config.'a"),
        (["--config.mesh=a\nb"], "must not hold control characters"),
        (["--config.typo=1"], "config field 'typo' does not exist"),
        (["--config.model.wdth=1"], "did you mean 'model.width'"),
        (["--config.optim.accumulate_steps=0"], "accumulate_steps must be a whole number"),
    ],
)
def test_wrong_input_is_one_line(argv, says, capsys):
    assert main(["plan", "sed", *argv]) == 2
    out, error = capsys.readouterr()
    assert says in error
    assert error.count("\n") == 1
    assert out == ""
