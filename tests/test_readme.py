"""The code of README and docs/ runs as it is written, offline, on a few made-up clips.

Training is shortened in ways that the documents name: recipes get the argument `tiny`
(configs/README.md), `--data` gets `--steps 2`. A command that cannot run here is in LEFT_OUT with
the reason. A new one must run or be listed.
"""

import argparse
import re
import shlex

import numpy as np
import pytest
import soundfile as sf

from asjax import build, config
from asjax.__main__ import main, parser_for

# The pages in the order of their commands, because later commands use the runs of earlier ones.
PAGES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "tag",
            "train",
            "teachers",
            "own_clips",
            "checkpoints",
            "serve",
            "extend",
            "papers",
        )  # fmt: skip
    ),
)
NEEDS_NETWORK = "downloads a published checkpoint"
NEEDS_AUDIOSET = "needs AudioSet, or finished runs on it"
NEEDS_FILE = "needs a file of a published checkpoint"
LEFT_OUT = {  # beginning of a command -> why
    "pip install": "the gate runs these two commands as they are",
    "asjax port passt_s_swa_p16_128_ap476": NEEDS_NETWORK,
    "asjax port Cnn14_mAP=0.431.pth": NEEDS_FILE,
    "asjax port MIT/ast-finetuned-audioset-10-10-0.4593": NEEDS_NETWORK,
    "asjax tag dog.wav --model=models/passt": NEEDS_NETWORK,
    "asjax tag dog.wav --model=cnn14": NEEDS_NETWORK,
    "asjax tag dog.wav --model=org/name": "tests/weights/test_hub.py loads from a small hub",
    "asjax logits import": NEEDS_FILE,
    "asjax report": NEEDS_AUDIOSET,
    "asjax plan": "tests/papers/test_plan.py runs its scripts",
    "asjax eval --model runs/passt_hlp": NEEDS_AUDIOSET,
    "asjax eval --model runs/a --model runs/b": "needs two finished runs, see tests/evaluation",
    "asjax stats": NEEDS_AUDIOSET,
    "asjax serve": "does not end; tests/serve/test_serve.py runs it",
    "curl": "it needs the service; tests/serve/test_service.py posts the same",
    "asjax demo": "downloads onnxruntime-web; tests/serve/test_web_page.py runs it",
    "python -m http.server": "does not end",
    "asjax train --config=configs/hlp_passt.py": "a full model; tests/test_train.py runs it tiny",
    "asjax train --config=configs/balancing_ast.py": "as above",
    "asjax train --config=configs/atdr.py": "as above",
}


def text_of(repo):
    return "\n".join((repo / page).read_text() for page in PAGES)


def blocks(text):
    """(language, code) of every fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text):
    lines = [line for kind, code in blocks(text) if kind == "bash" for line in code.splitlines()]
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


def left_out(command):
    return next((why for start, why in LEFT_OUT.items() if command.startswith(start)), None)


def short(words):
    """The words of a command, with a short training."""
    if words[1] not in ("train", "finetune"):
        return words
    place = next((i for i, word in enumerate(words) if word.startswith("--config=")), None)
    if place is None:
        for i in [i for i, word in enumerate(words) if word == "--epochs"]:
            words = words[:i] + words[i + 2 :]
        return [*words, "--steps", "2", "--config.eval.bootstrap=20"]
    if words[place].endswith(".json"):
        return words
    tiny = ",tiny" if ":" in words[place] else ":tiny"
    return [*words[:place], words[place] + tiny, *words[place + 1 :], "--config.eval.bootstrap=20"]


@pytest.fixture(scope="module")
def home(tmp_path_factory, repo):
    """A folder as the README has it: clips.csv with its files, clips/, dog.wav, recordings/."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "configs").symlink_to(repo / "configs")
    rng, rows = np.random.default_rng(0), ["filename,labels,split"]

    def sound(name, pitch):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = np.sin(np.arange(8_000) * pitch / 8_000 * 2 * np.pi)
        sf.write(path, 0.1 * tone + 0.01 * rng.normal(size=8_000), 8_000)

    for number in range(12):
        label, split = (
            ("dishes", "car")[number % 2],
            ("train", "train", "dev", "test")[number // 2 % 4],
        )
        sound(f"kitchen/{number:03}.wav", 300 + 600 * (number % 2))
        rows.append(f"kitchen/{number:03}.wav,{label},{split}")
        sound(f"clips/{label}/{number}.wav", 300 + 600 * (number % 2))
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    sound("dog.wav", 440)
    sound("recordings/one.wav", 880)
    classes = {"dishes": "dog", "car": "rain"}  # that the detector knows
    events = [f"{p.relative_to(folder / 'clips')}\t0.1\t0.6\t{classes[p.parent.name]}"
              for p in sorted((folder / "clips").rglob("*.wav"))]  # fmt: skip
    header = "filename\tonset\toffset\tevent_label"
    (folder / "events.tsv").write_text("\n".join([header, *events]) + "\n")
    return folder


def quickstart():
    """The first of the README's two commands, shortened."""
    train = ["train", "--config=configs/quickstart.py:tiny", "--workdir=runs/quickstart"]
    assert main(train) == 0


def detector():
    """The run of a detector that the README names, shortened; it is made once."""
    train = ["train", "--config=configs/quickstart_sed.py:tiny", "--workdir=runs/sed"]
    assert main([*train, "--config.eval.bootstrap=20"]) == 0


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))


def test_every_command_left_out_is_in_the_readme(repo):
    """A line of LEFT_OUT that fits no command is old."""
    found = commands(text_of(repo))
    for start in LEFT_OUT:
        assert any(command.startswith(start) for command in found), start


def to_run(repo):
    for command in commands(text_of(repo)):
        if not left_out(command):
            words = shlex.split(command)
            assert words[0] == "asjax", f"{command!r} is no command of asjax: run or list it"
            yield command, words


def test_every_command_has_options_that_exist(repo):
    """Quick, for each run of the tests; the next test is slow."""
    for _, words in to_run(repo):
        parser_for(words[1]).parse_args(w for w in words[2:] if not w.startswith("--config."))


def options_of(parser):
    """All options of a verb, those of its words included."""
    found = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*(options_of(inner) for inner in action.choices.values()))
    return found


def test_commands_within_the_text_have_options_that_exist(repo):
    """Those in tables and sentences, in all pages; they may leave out what stands for itself."""
    found = set()
    for page in ["README.md", *sorted(p.relative_to(repo) for p in (repo / "docs").glob("*.md"))]:
        text = re.sub(
            r"^```.*?^```$", "", (repo / page).read_text(), flags=re.MULTILINE | re.DOTALL
        )
        for command in re.findall(r"`asjax ([^`]+)`", text):
            verb, *words = shlex.split(command)
            known = options_of(parser_for(verb))
            names = {w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)}
            assert not {n for n in names - known if not n.startswith("--config.")}, (page, command)
            found.add(verb)
    assert len(found) >= 10


def test_links_and_pictures_exist(repo):
    for page in [repo / "README.md", *sorted((repo / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target} is not there"


@pytest.mark.slow
def test_every_command_runs(repo, home, capsys):
    quickstart()
    detector()
    failed = []
    for command, words in to_run(repo):
        capsys.readouterr()
        if code := main(short(words)[1:]):
            failed.append(f"{command}: exit {code}: {capsys.readouterr().err}")
    assert not failed, "\n".join(failed)


def test_python_blocks_run(repo, home):
    """Blocks that change a config get one; a block that begins with a file name is that file."""
    ran = 0
    for kind, code in blocks(text_of(repo)):
        if kind != "python":
            continue
        name = re.match(r"# (\S+\.py)\n", code)
        if name:
            path = home / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
        elif re.search(r"^c\.", code, re.MULTILINE):
            c = build.load("configs/quickstart.py:tiny").unlock()
            exec(code, {"c": c})
            config.trust(c)
            build.make("model", c.model, num_classes=3)
            build.chain("op", c.data.ops)
            build.augment(c.augment.wave)
        else:
            quickstart()
            if "runs/sed" in code:
                detector()
            exec(code, {})
        ran += 1
    assert ran >= 3
