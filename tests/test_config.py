"""Specs, arguments and overrides: accepted values, and the error of each mistake."""

import json
import warnings
from pathlib import Path

import pytest

from asjax import build, config
from asjax.config import AsjaxError


def test_a_call_is_parsed_into_name_and_keywords():
    assert config.parse_call("mixup(alpha=1.5, style='panns')") == (
        "mixup",
        {"alpha": 1.5, "style": "panns"},
    )
    assert config.parse_call(" roll ") == ("roll", {})


@pytest.mark.parametrize(
    "text",
    [
        "f(__import__('os').system('true'))",
        "f(x=__import__('os').system('true'))",
        "f(x=open('a'))",
        "f(**{'a': 1})",
        "f(1)",
        "a.b(x=1)",
        "f(x=)",
        "lambda: 1",
        "",
    ],
)
def test_anything_but_keyword_literals_is_refused(text):
    with pytest.raises(AsjaxError, match="spec"):
        config.parse_call(text)


def test_a_chain_splits_on_pipes_outside_brackets_and_quotes():
    assert config.chain("a(x='p|q') | b(y=(1, 2)) | c") == [
        ("a", {"x": "p|q"}),
        ("b", {"y": (1, 2)}),
        ("c", {}),
    ]
    assert config.chain("") == config.chain(None) == []
    for text in ('it\'s "x" | , \\', '"', "a\\'b'"):
        for written in (repr(text), json.dumps(text)):
            assert config.chain(f"a(x={written}) | b") == [("a", {"x": text}), ("b", {})]


def test_arguments_take_the_type_of_their_default():
    arg = config.parse_arg("beta=1,tiny,model=cnn6", beta=0.5, tiny=False, model="mini")
    assert (arg.beta, arg.tiny, arg.model) == (1.0, True, "cnn6")
    assert isinstance(arg.beta, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("betta=1", "did you mean 'beta'"),
        ("beta=high", "beta must be float"),
        ("steps=1.5", "steps must be int"),
        ("steps", "steps must be int"),
    ],
)
def test_a_wrong_argument_says_what_is_known(text, message):
    with pytest.raises(AsjaxError, match=message):
        config.parse_arg(text, beta=0.5, steps=3)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(
        "from asjax import config\n"
        "def get_config(arg=None):\n"
        "    arg = config.parse_arg(arg, lr=0.1)\n"
        "    c = config.new()\n"
        "    c.optim = dict(name='adam', lr=arg.lr)\n"
        "    c.total_steps = 3\n"
        "    c.batch_size = 2\n"
        "    c.data = dict(train='esc10', eval=dict(name='esc10'), sample_rate=8000, clip_s=1.0)\n"
        "    c.model = dict(name='cnn', variant='mini')\n"
        "    c.frontend = dict(name='panns_logmel64')\n"
        "    return c\n"
    )
    return path


def test_overrides_reach_nested_fields_and_keep_types(config_file):
    cfg = build.load(f"{config_file}:lr=0.2", {"optim.lr": "1", "mesh": "7", "total_steps": "5"})
    assert (cfg.optim.lr, cfg.mesh, cfg.total_steps) == (1.0, "7", 5)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optim.lrr", "1", "did you mean 'optim.lr'"),
        ("optim.lr.x", "1", "does not exist"),
        ("nothing", "1", "does not exist"),
        ("total_steps", "many", "total_steps must be int"),
        ("optim", "3", "optim must be"),
        ("optim", "dict(name='adam', lr=1.0)", r"must be a call; write it as adam\(lr=1.0\)"),
    ],
)
def test_a_wrong_override_is_one_clear_error(config_file, key, value, message):
    with pytest.raises(AsjaxError, match=message) as error:
        build.load(str(config_file), {key: value})
    assert "\n" not in str(error.value)


def test_files_that_are_not_configs_are_named(tmp_path):
    with pytest.raises(AsjaxError, match="does not exist"):
        build.load("nowhere.py")
    (tmp_path / "bad.py").write_text("def (")
    with pytest.raises(AsjaxError, match="not valid Python"):
        build.load(str(tmp_path / "bad.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(AsjaxError, match="get_config"):
        build.load(str(tmp_path / "empty.py"))


def test_fingerprints_ignore_order_and_see_every_value():
    assert config.fingerprint({"a": 1, "b": (1, 2)}) == config.fingerprint({"b": [1, 2], "a": 1})
    assert config.fingerprint({"a": 1}) != config.fingerprint({"a": 2})


def test_differences_name_the_field_and_both_values():
    assert config.differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "d": 4}) == [
        "a.b: 1 -> 3",
        "c: 2 -> '(absent)'",
        "d: '(absent)' -> 4",
    ]


def test_unknown_things_list_the_known_ones():
    with pytest.raises(AsjaxError, match="Known: .*panns_logmel"):
        build.make("frontend", "panns_logmell")
    with pytest.raises(AsjaxError, match="adam"):
        build.make("optim", dict(name="adamm", lr=1.0), total_steps=1)
    with pytest.raises(AsjaxError, match="field 'lrr'"):
        build.make("optim", dict(name="adam", lrr=1.0), total_steps=1)


def test_messages_cannot_steer_a_terminal_nor_grow_without_end():
    hostile = "\x1b]0;owned\x07\n\u202etxt\udcff"
    assert config.printable(hostile) == "?]0;owned???txt?"
    assert config.printable("hünd 犬 e\u0301") == "hünd 犬 e\u0301"
    assert str(AsjaxError(f"no {hostile}")).isprintable()
    assert config.shown(Path("a") / "b.wav") == "a/b.wav"
    assert config.shown("x" * 50 + "y" * 5000 + ".wav", 100).endswith("y.wav")
    assert len(config.shown("x" * 5000, 100)) == 100
    assert len(config.shown("x" * 5000, 33)) == 33


def test_warnings_become_lines_of_the_program(capsys):
    with config.warnings_as_lines("asjax x"):
        for _ in range(2):
            config.warn("a\x1b is odd")
        warnings.warn("somebody else's", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err.splitlines()[0] == "asjax x: a? is odd"
    with pytest.warns(config.AsjaxWarning, match="odd"):
        config.warn("odd")


def test_parts_of_a_batch_are_set_with_the_optimiser_and_not_given_to_it(repo, monkeypatch):
    monkeypatch.chdir(repo)
    field = "optim.accumulate_steps"
    for recipe in ("quickstart.py:tiny", "ast.py:tiny"):
        assert build.read(build.load(f"configs/{recipe}"), field) == 1
        cfg = build.load(f"configs/{recipe}", {field: "4"})
        assert build.read(cfg, field) == 4
        build.make("optim", cfg.optim, total_steps=10, steps_per_epoch=5)


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("optim.accumulate_steps", "0", 1),
        ("log.every_steps", "0", 1),
        ("log.save_steps", "-5", 1),
        ("eval.every_steps", "0", 1),
        ("eval.batch_size", "0", 1),
        ("eval.bootstrap", "-1", 0),
        ("batch_size", "0", 1),
        ("total_steps", "-1", 0),
        ("eval.every_steps", "None", 1),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_starts(
    key, value, least, repo, monkeypatch
):
    monkeypatch.chdir(repo)
    with pytest.raises(AsjaxError, match=f"{key} must be a whole number >= {least}, got {value}"):
        build.load("configs/quickstart.py:tiny", {key: value})


@pytest.mark.parametrize("value", ["1e999", "-1e999"])
def test_a_config_holds_finite_numbers_only(value, repo, monkeypatch):
    """JSON has no infinity, so run.json could not be read again."""
    monkeypatch.chdir(repo)
    with pytest.raises(AsjaxError, match=r"optim\.lr: must be finite, got -?inf"):
        build.load("configs/quickstart.py:tiny", {"optim.lr": value})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return None", "get_config must return a config.*got None"),
        ("    return 3", "got 3"),
        ("    return 1 / 0", "line 3: ZeroDivisionError: division by zero"),
        ("    import no_such_module_of_mine", "line 3: ModuleNotFoundError"),
        (
            "    c = config.new()\n    c.batch_size = 2\n    c.data = 3\n    return c",
            "data must be a dict, got 3",
        ),
        ("    c = config.new()\n    c.data = 3\n    return c.data.train", "line 5: AttributeError"),
    ],
)
def test_a_config_that_fails_or_returns_junk_names_the_file_and_the_line(body, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"from asjax import config\ndef get_config(arg=None):\n{body}\n")
    for overrides in ({}, {"data.sample_rate": "8000"}):
        with pytest.raises(AsjaxError, match=message) as error:
            build.load(str(path), overrides)
        assert "\n" not in str(error.value)


def test_a_config_that_is_no_python_file_is_one_line(tmp_path):
    for name in ("dog.wav", "config.yaml", "noending"):
        (tmp_path / name).write_bytes(b"RIFF\0")
        with pytest.raises(AsjaxError, match="must be a Python file"):
            build.load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c.optim = dict(lr=1)", "optim must be a call or a dict with a 'name', got {'lr': 1}"),
        ("c.data.eval = dict(splits=['a'])", "data.eval must be a call or a dict with a 'name'"),
        ("c.frontend = 3", "frontend must be"),
        ("c.model = ''", "model must be"),
        ("c.augment = dict(wave=['roll'])", "augment.wave must be a chain"),
    ],
)
def test_a_part_without_a_name_says_which_field(line, message, repo, tmp_path):
    text = (repo / "configs" / "quickstart.py").read_text()
    line = f"    c.unlock()\n    with c.ignore_type():\n        {line}\n    return c\n"
    (tmp_path / "x.py").write_text(text.replace("    return c\n", line))
    with pytest.raises(AsjaxError) as error:
        build.load(str(tmp_path / "x.py"))
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["roll|", "|roll", "roll||gain", "|", " | "])
def test_an_empty_link_of_a_chain_is_an_error(text):
    with pytest.raises(AsjaxError, match="empty link"):
        config.chain(text)


@pytest.mark.parametrize("decay", [2, 1, 1.0, -0.1, float("nan"), True, "x"])
def test_an_average_has_a_decay_below_one(decay):
    with pytest.raises(AsjaxError, match="average.decay must be a number >= 0 and < 1"):
        build.make("average", dict(name="ema", decay=decay))


def test_an_error_of_a_part_names_it_and_keeps_its_cause():
    def part(x=1):
        return {}["nothing"]

    with pytest.raises(AsjaxError, match="thing mine: KeyError: 'nothing'") as error:
        config.call(part, "thing mine", x=2)
    assert isinstance(error.value.__cause__, KeyError)
