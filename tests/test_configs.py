"""Recipes: the resolved fields of every config are stored as text, so a change shows as a diff.

`tests/golden/configs/NAME[.ARGUMENTS].txt` has sorted lines `key = value`. After an intended
change, write the files again with `python tests/test_configs.py` and review the diff.
"""

import ast
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asjax import build, config, events
from asjax.__main__ import main

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "configs"
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("*.py"))
BETAS = ("0", "0.1", "0.2", "0.3", "0.5", "0.7", "1")
# The arguments that make another recipe; the defaults of each config are stored too.
MAIN = {
    "atst_c2f": ("teacher=logits", "teacher=none", "tiny"),
    "ast": ("balanced", "tiny"),
    "balancing_ast": ("beta=0", "beta=1", "tiny"),
    "ced": ("size=base,teacher=logits", "teacher=none", "tiny"),
    "cnn14": ("hlp,beta=0.5", "tiny"),
    "convnext_tiny": ("speed,gain,roll", "weight_decay=0.05,drop_path=0.1", "tiny"),
    "efficientat_kd": ("teacher=logits", "teacher=none", "tiny"),
    "hlp_cnn6": ("hlp=False", "tiny"),
    "hlp_convnext": ("hlp=False", "stem=56", "variant=nano", "tiny"),
    "hlp_passt": (
        "hlp=False",
        "stride=16,imagenet=False",
        "u_patchout=400,s_patchout_t=0,s_patchout_f=0",
        "tiny",
    ),
}
SED = {  # recipes for AudioSet Strong
    "sed_strong": ("model=atst_frame", "step=weak", "step=weak,tiny", "tiny"),
    "sed_teacher": ("model=fpasst", "tiny"),
}
TASKS = {  # recipes for other tasks, which start from the models of SED
    "sed_dcase16": ("mode=frozen", "tiny"),
    "sed_desed": ("mode=frozen", "tiny"),
    "sed_maestro": ("fold=4", "mode=frozen", "tiny"),
}
MAIN |= SED | TASKS
MAIN["sed_pipeline"] = ("stage=teacher,start=ssl", "teacher=logits", "teacher=none", "tiny")
STUDENTS = ("atst_c2f", "ced", "efficientat_kd", "sed_pipeline")  # they must have a teacher
SMALL = {"quickstart": ("crop=2",), "quickstart_sed": ("causal",)}  # on the embedded recordings
CASES = [(name, arg) for name in NAMES for arg in ("", *(MAIN | SMALL).get(name, ()))]
CASES = [(name, arg) for name, arg in CASES if arg or name not in STUDENTS]
ATDR = [
    "ast",
    "transformer",
    "cnn_transformer",
    "conformer",
    "resnet50",
    "resnet34",
    "crnn",
    "effnet_b2",
]
OURS = sorted(MAIN.keys() - SED - TASKS.keys() - {"sed_pipeline"})  # with hlp, beta and seed


def load(name, arg=""):
    """A recipe with its defaults; here, one for students has no teacher if none is given."""
    if name in STUDENTS and not re.search(r"\b(teacher=|stage=|tiny\b)", arg):
        arg = ",".join(filter(None, [arg, "teacher=none"]))
    return build.load(f"{ROOT / 'configs' / name}.py:{arg}")


def golden_file(name, arg):
    return GOLDEN / f"{name}{'.' if arg else ''}{arg}.txt"


def resolved(name, arg):
    flat = config.flatten(load(name, arg))
    return "".join(f"{key} = {flat[key]!r}\n" for key in sorted(flat))


@pytest.fixture(autouse=True)
def default_places(monkeypatch):
    monkeypatch.delenv("ASJAX_DATA", raising=False)


@pytest.mark.parametrize(("name", "arg"), CASES)
def test_a_recipe_resolves_to_its_golden_text(name, arg):
    file = golden_file(name, arg)
    again = "if this is intended, write it again with `python tests/test_configs.py` and review it"
    assert file.exists(), f"{file} is missing; {again}"
    assert resolved(name, arg) == file.read_text(), f"configs/{name}.py:{arg} changed; {again}"


def test_no_golden_text_is_left_over():
    assert {p.name for p in GOLDEN.iterdir()} == {golden_file(*case).name for case in CASES}


# -------------------------------------------------------------------------------------- dials


def changed(name, arg, base=""):
    """Fields of a config that an argument changes."""
    return {line.split(":")[0] for line in config.differences(load(name, base), load(name, arg))}


@pytest.mark.parametrize("name", OURS)
def test_each_dial_changes_its_field_alone(name):
    assert changed(name, "hlp=False", "hlp=True") == {"labels.hlp"}
    assert changed(name, "seed=3") == {"seed"}
    assert changed(name, "beta=0.3", "beta=0.7") == {"data.draw"}
    assert load(name, "beta=0.3").data.draw == "oversample(beta=0.3)"
    assert changed(name, "beta=0.3") <= {"data.draw"}


@pytest.mark.parametrize("name", [*OURS, *SED, *TASKS, "atdr"])
def test_memory_is_saved_by_three_arguments_that_change_their_fields_alone(name):
    assert changed(name, "dtype=bfloat16,remat=True,accumulate=4") == {
        "model.dtype",
        "model.remat",
        "optim.accumulate_steps",
    }
    c = load(name, "tiny,dtype=bfloat16,remat=True,accumulate=2")
    assert (c.model.dtype, c.model.remat, c.optim.accumulate_steps) == ("bfloat16", True, 2)
    module = build.make("model", c.model, num_classes=5)
    assert (module.dtype, module.remat) == ("bfloat16", True)


@pytest.mark.parametrize("model", ATDR)
def test_memory_is_saved_in_every_architecture_of_atdr(model):
    c = load("atdr", f"model={model},procedure=A2,dtype=bfloat16,remat=True")
    module = build.make("model", c.model, num_classes=5)
    assert (module.dtype, module.remat) == ("bfloat16", True)


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("dtype=bfloat61", "dtype must be float32, bfloat16 or float16, got 'bfloat61'"),
        ("dtype=int8", "dtype must be float32, bfloat16 or float16, got 'int8'"),
        ("remat=1", "remat must be bool, got 1"),
        ("remat=yes", "remat must be bool, got 'yes'"),
        ("accumulate=0", "optim.accumulate_steps must be a whole number >= 1, got 0"),
        ("accumulate=2.5", "accumulate must be int, got 2.5"),
        ("accumulate", "accumulate must be int, got True"),
        ("remats=True", "config argument 'remats' does not exist; did you mean 'remat'?"),
    ],
)
@pytest.mark.parametrize("name", ["hlp_cnn6", "balancing_ast"])
def test_a_wrong_argument_for_memory_is_one_line(name, arg, message):
    with pytest.raises(config.AsjaxError) as error:
        build.make("model", load(name, f"tiny,{arg}").model, num_classes=5)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_without_a_field_for_memory_says_which_it_has(tmp_path, monkeypatch):
    """Every family of asjax has the fields; a user's own model may not."""
    (tmp_path / "bare_family.py").write_text("def model(num_classes, variant, dtype): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = tmp_path / "own.py"
    text = (ROOT / "configs" / "hlp_cnn6.py").read_text()
    own.write_text(
        text.replace('name="cnn", variant="cnn6"', 'name="bare_family:model", variant="x"')
    )
    c = build.load(f"{own}:remat=True")
    with pytest.raises(config.AsjaxError, match="field 'remat' does not exist. Known: .*dtype"):
        build.make("model", c.model, num_classes=5)


def test_the_grid_of_the_balancing_paper_is_seven_draws():
    draws = [load("balancing_ast", f"beta={beta}").data.draw for beta in BETAS]
    assert draws == [f"oversample(beta={float(beta)})" for beta in BETAS]


@pytest.mark.parametrize("name", OURS)
def test_tiny_needs_no_file(name):
    c = load(name, "tiny")
    assert c.init_from == ""
    assert c.data.train.name == c.data.eval.name == "esc10"
    assert (c.total_steps, c.batch_size) == (2, 4)


def test_lengths_and_averages_are_those_of_the_authors():
    passt, ast_full, ast_20k = load("hlp_passt"), load("ast"), load("ast", "balanced")
    # PaSST: 8,334 batches an epoch; averaged at the starts of epochs 49, 54, ..., 129
    ends = np.arange(passt.average.start_step, passt.total_steps, passt.average.every_steps) + 1
    assert (ends / 8334).tolist() == list(range(49, 130, 5))
    assert passt.total_steps == 130 * 8334
    # AST: the mean over the ends of epochs 1-5 of 168,393 batches, and 6-25 of 1,810
    for c, epoch, epochs in ((ast_full, 168_393, range(1, 6)), (ast_20k, 1_810, range(6, 26))):
        ends = np.arange(c.average.start_step, c.total_steps, c.average.every_steps) + 1
        assert (ends / epoch).tolist() == list(epochs)
    assert load("ast", "clips=120000").total_steps == 5 * 10_000


def test_ast_rates_are_those_of_its_log():
    """The rates of the epochs in the released log: 1e-5, 1e-5, 5e-6, 2.5e-6, 1.25e-6."""
    c = load("ast")
    _, lr = build.make("optim", c.optim, total_steps=c.total_steps, steps_per_epoch=7)
    middles = [float(lr((e + 0.5) * 168_393)) for e in range(5)]
    np.testing.assert_allclose(middles, [1e-5, 1e-5, 5e-6, 2.5e-6, 1.25e-6], rtol=1e-6)


def test_pretrained_seds_lengths_and_rates_are_those_of_the_paper(golden):
    cases = golden("sed_optim")[0]["cosine_schedule"]["cases"]
    for name, number in (("sed_teacher", 0), ("sed_strong", 1)):
        c, case = load(name), cases[number]
        assert (c.total_steps, c.batch_size) == (case["total"], 256)
        _, lr = build.make("optim", c.optim, total_steps=c.total_steps, steps_per_epoch=391)
        for step, factor in case["points"]:
            assert float(lr(step)) == pytest.approx(c.optim.lr * factor, rel=1e-6, abs=1e-16)
    assert load("sed_strong", "step=weak").total_steps == cases[0]["total"]


@pytest.mark.parametrize("name", SED)
def test_the_arguments_of_pretrained_seds_recipes(name, monkeypatch):
    monkeypatch.setenv("ASJAX_DATA", "/data")
    for model, file in (("atst_frame", "ATST-F"), ("fpasst", "fpasst"), ("asit", "ASIT")):
        c = load(name, f"model={model}")
        assert c.init_from == os.path.join("backbone:/data", "weights", f"{file}_weak.pt")
        assert (c.model.name, c.model.variant) == (model, f"{model}_base")
    assert changed(name, "seed=3") == {"seed"}
    assert changed(name, "start=False") == {"init_from"}
    assert changed(name, "lr=0.001") == {"optim.lr"}
    assert changed(name, "weak=1.0") == {"objective.weak_weight"}
    assert changed(name, "sequence=lstm") == {"model.sequence"}
    assert load(name, "sequence=none").model.sequence is None
    for arg, says in (
        ("model=beets", "model 'beets' does not exist; did you mean 'beats'"),
        ("step=week", "argument 'step'" if name == "sed_teacher" else "step 'week' does not exist"),
        ("lr=fast", "lr must be float, got 'fast'"),
    ):
        with pytest.raises(config.AsjaxError, match=says):
            load(name, arg)
    with pytest.raises(config.AsjaxError, match="sequence 'rnn' does not exist"):
        build.make("model", load(name, "sequence=rnn").model, num_classes=447)
    assert load("sed_strong", "step=weak").init_from.endswith("BEATs_ssl.pt")


@pytest.mark.parametrize("more", ["", ",tiny", ",model=fpasst,seed=2,lr=0.001", ",sequence=lstm"])
@pytest.mark.parametrize(
    ("stage", "recipe", "arg"),
    [
        ("weak", "sed_strong", "step=weak"),
        ("teacher", "sed_teacher", ""),
        ("student,teacher=none", "sed_strong", ""),
    ],
)
def test_the_stages_of_the_pipeline_are_the_two_recipes(stage, recipe, arg, more):
    ours, theirs = load("sed_pipeline", f"stage={stage}{more}"), load(recipe, f"{arg}{more}")
    ours, theirs = config.flatten(ours), config.flatten(theirs)
    if recipe == "sed_strong":  # it has no width of an RNN, so its RNN has the default
        assert ours.pop("model.sequence_width", None) in (None, 4, 1024, 2048)
        theirs.pop("model.sequence_width", None)
    assert ours == theirs


def test_the_arguments_of_the_pipeline(monkeypatch):
    monkeypatch.setenv("ASJAX_DATA", "/data")
    assert load("sed_pipeline", "start=ssl").init_from == "backbone:/data/weights/BEATs_ssl.pt"
    assert load("sed_pipeline", "stage=teacher,start=none").init_from == ""
    for arg, says in (
        ("stage=three", "stage 'three' does not exist"),
        ("start=strong", "start 'strong' does not exist"),
        ("stage=weak,teacher=x", "teacher belongs to stage=student, and the stage is weak"),
    ):
        with pytest.raises(config.AsjaxError, match=says):
            load("sed_pipeline", arg)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_recipe_for_students_needs_a_teacher_or_says_that_it_has_none(name, tmp_path, capsys):
    path = ROOT / "configs" / f"{name}.py"
    assert main(["train", f"--config={path}", f"--workdir={tmp_path / 'w'}"]) == 2
    err = capsys.readouterr().err
    assert "needs a teacher, teacher=FOLDER, which asjax logits " in err
    assert "teacher=none trains on the labels alone" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "w").exists()
    assert load(name, "teacher=none").objective.name in ("tagging", "detection")
    assert load(name, "teacher=x").objective.name == "distillation"
    assert "teacher(path='x')" in load(name, "teacher=x").data.ops.replace('"', "'")
    if name == "ced":
        ops = load(name, "teacher=x,replay=False").data.ops
        assert ops.endswith(' | teacher(path="x", replay=False)')


@pytest.mark.parametrize("name", TASKS)
def test_the_arguments_of_the_recipes_for_other_tasks(name, monkeypatch):
    monkeypatch.setenv("ASJAX_DATA", "/data")
    for start, file in (
        ("strong", "fpasst_strong_1"),
        ("weak", "fpasst_weak"),
        ("ssl", "fpasst_ssl"),
    ):
        c = load(name, f"model=fpasst,start={start}")
        assert c.init_from == os.path.join("backbone:/data", "weights", f"{file}.pt")
    assert load(name, "start=none").init_from == load(name, "tiny").init_from == ""
    assert changed(name, "seed=3") == {"seed"}
    frozen, tuned = load(name, "mode=frozen"), load(name)
    assert build.read(frozen, "optim.freeze") == "all"
    assert build.read(frozen, "optim.layer_decay") == 1
    assert build.read(tuned, "optim.layer_decay") == (0.5 if name == "sed_desed" else 0.95)
    assert load(name, "lr=0.01").optim.lr == 0.01
    for arg, says in (
        ("model=beets", "model 'beets' does not exist; did you mean 'beats'"),
        ("mode=freeze", "mode 'freeze' does not exist"),
        ("start=step3", "start 'step3' does not exist"),
        ("lr=fast", "lr must be float, got 'fast'"),
    ):
        with pytest.raises(config.AsjaxError, match=says):
            load(name, arg)


def test_the_folds_of_maestro_are_hears():
    for fold in range(5):
        c = load("sed_maestro", f"fold={fold}")
        assert c.data.test.splits == [f"fold{fold:02d}"]
        assert c.data.eval.splits == [f"fold{(fold + 1) % 5:02d}"]
        assert len({*c.data.train.splits, *c.data.eval.splits, *c.data.test.splits}) == 5
        assert len(c.data.train.splits) == 3
    for fold in ("5", "-1"):
        with pytest.raises(config.AsjaxError, match="fold must be 0 to 4"):
            load("sed_maestro", f"fold={fold}")


def test_desed_keeps_clips_of_evaluation_apart():
    c = load("sed_desed")
    assert not {*c.data.train.splits} & {*c.data.eval.splits}
    assert c.data.train.of == c.data.eval.of == ["weak"]
    assert c.batch_size == 256
    assert "strong=128, weak=128" in c.data.draw
    _, lr = build.make("optim", c.optim, total_steps=c.total_steps, steps_per_epoch=11)
    rates = [float(lr(step)) for step in (0, 55, c.total_steps)]
    np.testing.assert_allclose(rates, [0, 0.1, 1e-6], rtol=1e-5)


# ---------------------------------------------------------------------------------- documents


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_says_what_it_is_and_how_it_fared(name):
    text = ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text()))
    assert "asjax train --config=configs/" in text
    assert "Result: " in text
    if name in (*OURS, *SED, *TASKS):
        for word in ("Data: ", "Recipe: ", "Arguments: ", "Paper (not ours)"):
            assert word in text, word
    if name in (*OURS, *SED, *TASKS, "atdr"):
        assert "Memory: dtype, remat and accumulate" in text
    table = (ROOT / "configs" / "README.md").read_text()
    assert f"| `{name}.py` |" in table


# ---------------------------------------------------------------------------------- full size


SOME = events.as_events([(0.0, 1.0, 3)])


@pytest.mark.filterwarnings("ignore:importance")
@pytest.mark.parametrize(
    ("name", "arg"),
    [*((name, "") for name in OURS), ("convnext_tiny", "speed,gain,roll"), ("ast", "balanced")]
    + [("hlp_passt", "u_patchout=400,s_patchout_t=0,s_patchout_f=0")]
    + [("sed_teacher", f"model={model}") for model in ("atst_frame", "beats", "fpasst")]
    + [("sed_strong", f"model={model}") for model in ("m2d", "asit")]
    + [("sed_strong", "step=weak")]
    + [("sed_dcase16", ""), ("sed_desed", "model=atst_frame"), ("sed_maestro", "mode=frozen")],
)
def test_a_recipe_builds_at_full_size_and_its_step_has_shapes(name, arg):
    """Builds every spec of a config and traces one training step on 10 s clips."""
    import jax
    import jax.numpy as jnp
    from scipy import sparse

    from asjax import step

    c = load(name, arg)
    frontend = build.make("frontend", c.frontend)
    model = build.make("model", c.model, num_classes=527)
    objective = build.make(
        "objective",
        c.objective,
        model=model,
        frontend=frontend,
        augment={place: build.augment(spec) for place, spec in c.augment.items()},
    )
    labels = sparse.eye_array(527, format="csr")
    events = [SOME] * 300 + [None if name == "sed_desed" else SOME] * 227
    source = SimpleNamespace(name="x", ids=range(527), labels=labels, events=events)
    drawn = build.make("draw", c.data.draw, labels=labels, seed=c.seed, source=source)
    tx, _ = build.make(
        "optim", c.optim, total_steps=c.total_steps or 1000, steps_per_epoch=drawn.draws_per_epoch
    )
    average = build.make("average", c.average) if c.average else None
    wave = (4, round(c.data.clip_s * c.data.sample_rate))

    def create(key):
        return step.init_state(
            key, model=model, frontend=frontend, tx=tx, wave_shape=wave, average=bool(average)
        )

    state = jax.eval_shape(create, jax.random.key(0))
    batch = {"wave": wave, "target": (4, 527), "mask": (4,)}
    if c.objective.name == "detection":
        batch |= {"frame_target": (4, 250, 527), "has_strong": (4,), "has_weak": (4,)}
    batch = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in batch.items()}
    train_step = step.make_train_step(objective=objective, tx=tx, average=average)
    after, scalars = jax.eval_shape(train_step, state, batch)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    assert scalars["loss"].shape == ()


def write_golden():
    os.environ.pop("ASJAX_DATA", None)
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.iterdir():
        old.unlink()
    for name, arg in CASES:
        golden_file(name, arg).write_text(resolved(name, arg))
    print(f"{len(CASES)} texts in {GOLDEN}")


if __name__ == "__main__":
    write_golden()
