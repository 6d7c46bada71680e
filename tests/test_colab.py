"""The notebooks in colab/: clean files whose commands exist, and each runs in a kernel, offline.

ASJAX_TINY=1 makes the trainings short. The last cell of a notebook asserts a number of it. The two
quickest run in the gate, the others with the slow tests.
"""

import ast
import base64
import os
import re
import shlex
from pathlib import Path

import nbclient
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import asjax
from asjax import recipes
from asjax.__main__ import parser_for

COLAB = Path(__file__).parent.parent / "colab"
NAMES = ("quickstart", "hlp", "balancing", "atdr", "sed", "distillation", "finetune")
IN_THE_GATE = ("quickstart", "hlp")
BADGE = (
    "[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{owner}/asjax/blob/main/colab/{name}.ipynb)"
)
INSTALL = '%pip install -q "asjax @ git+https://github.com/{owner}/asjax@v{version}"'
OWNER = "OWNER"  # of the repository: in each badge and in each first cell

every = pytest.mark.parametrize("name", NAMES)


def read(name):
    return nbformat.read(COLAB / f"{name}.ipynb", as_version=4)


def sources(name, kind):
    return [cell.source for cell in read(name).cells if cell.cell_type == kind]


# --------------------------------------------------------------------------------------- files


def test_these_are_all_notebooks():
    assert {path.stem for path in COLAB.glob("*.ipynb")} == set(NAMES)


@every
def test_a_notebook_is_valid_and_without_outputs(name):
    book = read(name)
    nbformat.validate(book)
    assert set(book.metadata) == {"kernelspec", "language_info"}  # nothing of the last run
    assert [cell.id for cell in book.cells] == [f"{name}-{i:02d}" for i in range(len(book.cells))]
    for cell in book.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@every
def test_a_notebook_begins_with_its_badge_and_an_install_that_only_colab_runs(name):
    text, code = sources(name, "markdown"), sources(name, "code")
    title, _, badge, *_ = text[0].splitlines()
    assert title.startswith("# ")
    assert badge == BADGE.format(owner=OWNER, name=name)
    guard = 'if "google.colab" in sys.modules:\n    '
    assert guard + INSTALL.format(owner=OWNER, version=asjax.__version__) in code[0]
    assert "TINY" in code[0]
    assert "assert " in code[-1]


@every
def test_code_cells_parse_and_neither_shell_nor_drive_is_used(name):
    for number, source in enumerate(sources(name, "code")):
        ast.parse(TransformerManager().transform_cell(source))
        assert not re.search(r"^\s*!|wget|curl|drive\.mount|requests|urllib", source, re.MULTILINE)
        assert bool(re.search(r"^\s*%", source, re.MULTILINE)) == (number == 0)
        assert not re.search(r"^\s*(def|class|async)\b", source, re.MULTILINE)  # it is the library


def commands(name):
    """Every command in a text cell, without variables of the shell in front."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", "\n".join(sources(name, "markdown")), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    found = [re.search(r"\basjax .*", line.partition(" > ")[0]) for line in lines]
    return [shlex.split(match[0]) for match in found if match]


@every
def test_the_commands_of_the_full_recipe_exist(name):
    assert commands(name)
    for _, verb, *words in commands(name):
        args = parser_for(verb).parse_args(words)
        if recipe := getattr(args, "config", None):
            assert recipes.resolve(recipe)[0]
    for recipe in re.findall(r"--config=([\w.]+)", "\n".join(sources(name, "code"))):
        assert recipe.partition(".")[0] in recipes.names()


@every
def test_the_table_has_a_row_with_the_badge(name):
    text = (COLAB / "README.md").read_text()
    assert f"[{name}]({name}.ipynb)" in text
    assert BADGE.format(owner=OWNER, name=name) in text


# ----------------------------------------------------------------------------------- execution


@pytest.fixture(scope="module")
def kernel_env(tmp_path_factory):
    """The variables of a kernel: this copy of asjax, no network, one cache of compiled programs."""
    home = tmp_path_factory.mktemp("home")
    nowhere = "http://127.0.0.1:9"
    env = os.environ | {
        "ASJAX_TINY": "1",
        "ASJAX_CACHE": str(home / "cache"),
        "PYTHONPATH": str(Path(asjax.__file__).parent.parent),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "HF_HUB_OFFLINE": "1",
    }
    env.pop("MPLBACKEND", None)  # a kernel shows pictures in the notebook
    return env


def execute(book, folder, env):
    """Run a notebook in a folder. It fails at the first cell with an error."""
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(book, timeout=600, resources=where).execute(env=env)
    return book


@pytest.mark.parametrize(
    "name",
    [n if n in IN_THE_GATE else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def test_a_notebook_runs_and_its_number_holds(name, tmp_path, kernel_env):
    book = execute(read(name), tmp_path, kernel_env)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    shown = [item for output in outputs for item in output.get("data", {}).items()]
    pictures = [base64.b64decode(data) for kind, data in shown if kind == "image/png"]
    drawings = [data for kind, data in shown if kind == "image/svg+xml"]
    assert pictures + drawings
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert all(drawing.rstrip().endswith("</svg>") for drawing in drawings)


def test_decoding_processes_work_in_a_kernel(tmp_path, kernel_env):
    source = """
import os
import numpy as np
from asjax import build, labels

classes = labels.get("esc10")
clips = build.source({"name": "esc10", "splits": ["fold5"], "convert": True}, classes)
how = dict(num_classes=10, batch_size=8, sample_rate=8000, clip_s=1.0, train=False)
batches = {}
for workers in (0, 2):
    with build.pipeline(clips, workers=workers, threads=1, **how) as pipe:
        batches[workers] = list(pipe.iterate())
        children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    assert len(children) >= workers, children
for a, b in zip(batches[0], batches[2], strict=True):
    assert a["id"] == b["id"]
    assert np.array_equal(a["wave"], b["wave"])
print(len(batches[2]), "batches")
"""
    cells = [nbformat.v4.new_code_cell(source, id="workers")]
    book = execute(nbformat.v4.new_notebook(cells=cells), tmp_path, kernel_env)
    assert "10 batches" in "".join(o.get("text", "") for o in book.cells[0].outputs)


def test_a_wrong_number_fails(tmp_path, kernel_env):
    cells = [nbformat.v4.new_code_cell("assert 1 > 2", id="wrong")]
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        execute(nbformat.v4.new_notebook(cells=cells), tmp_path, kernel_env)
