"""The recipes that come with asjax: listed, shown, copied and found by name."""

from pathlib import Path

import pytest

from asjax import build, recipes
from asjax.__main__ import main
from asjax.config import AsjaxError, to_json

CONFIGS = Path(__file__).parent.parent / "configs"


def test_list_has_one_line_for_each_recipe(capsys):
    assert main(["configs", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(p.stem for p in CONFIGS.glob("*.py"))
    quick = next(line for line in lines if line.startswith("quickstart"))
    assert "ESC-10 on a laptop" in quick
    assert "beta=0.5, hlp=True, fold=5, model='mini'" in quick
    assert "dtype=float32, remat=False, accumulate=1" in next(
        x for x in lines if x.startswith("cnn14")
    )


def test_show_and_copy_give_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (CONFIGS / "quickstart.py").read_text()
    assert main(["configs", "show", "quickstart"]) == 0
    assert capsys.readouterr().out == text
    assert main(["configs", "copy", "quickstart"]) == 0
    assert main(["configs", "copy", "configs/own.py", "--to", "deep/mine.py"]) == 0
    assert (tmp_path / "quickstart.py").read_text() == text
    assert (tmp_path / "deep" / "mine.py").read_text() == (CONFIGS / "own.py").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["copy", "quickstart", "--to", "there.py"], "exists already"),
        (["show", "quikstart"], "did you mean 'quickstart'"),
        (["show"], "needs a recipe's name"),
        (["list", "own"], "takes no name"),
        (["show", "own", "--to", "x.py"], "--to belongs to asjax configs copy"),
        (["show", "../setup"], "does not exist"),
        (["copy", "own", "--to", "no\x00name"], "null byte"),
    ],
)
def test_wrong_words(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").write_text("mine")
    assert main(["configs", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (tmp_path / "there.py").read_text() == "mine"


def test_a_name_means_the_recipe_unless_there_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "quickstart.py", "configs/quickstart.py"):
        found, note = recipes.resolve(f"{name}:tiny,seed=3")
        assert found == f"{recipes.folder() / 'quickstart.py'}:tiny,seed=3"
        assert note == f"config {name}: the recipe that comes with asjax"
    (tmp_path / "quickstart.py").write_text("mine")
    assert recipes.resolve("quickstart.py") == ("quickstart.py", "")
    for name in ("other/quickstart.py", "quickstart.txt", "", "nope.py"):
        with pytest.raises(AsjaxError, match="does not exist"):
            recipes.resolve(name)


def test_a_stored_config_is_a_config(tmp_path):
    cfg = build.load("quickstart:tiny")
    path = tmp_path / "config.json"
    path.write_text(to_json(cfg))
    again = build.load(str(path), {"optim.lr": "0.5"})
    assert again.optim.lr == 0.5
    assert to_json(build.load(str(path))) == to_json(cfg)


@pytest.mark.parametrize("text", ["null", "[]", "{}", "{", '{"model": {"name": "cnn"}}'])
def test_a_damaged_stored_config_is_one_line(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(AsjaxError) as error:
        build.load(str(path))
    assert "\n" not in str(error.value)


def test_a_stored_config_cannot_name_foreign_code(tmp_path):
    cfg = build.load("quickstart:tiny").unlock()
    cfg.model = dict(name="os.path:join")
    path = tmp_path / "config.json"
    path.write_text(to_json(cfg))
    with pytest.raises(AsjaxError, match="a stored file may not run such code"):
        build.make("model", build.load(str(path)).model, num_classes=2)
