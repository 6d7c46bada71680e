"""Students: trained from stored logits and from models in the step, stopped and resumed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lookup import FrameLookup
from safetensors.numpy import load_file
from small_detectors import CLASSES, CLIP_S, FRAMES, RATE, make, wave_of, write_clips

import asjax
from asjax import build, objectives, sharding, step
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.store import logits_writer
from asjax.store.logits_writer import Form, Row
from asjax.teachers import online

CFG = {"data": {"sample_rate": RATE, "clip_s": CLIP_S}}
FRONTEND = {"name": "panns_logmel", "sample_rate": RATE, "n_mels": 16, "hop": RATE // 50,
            "n_fft": 512}  # fmt: skip


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("data") / "audio")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three detectors and a tagger: their folders and their functions."""
    folder = tmp_path_factory.mktemp("models")
    made = {f"d{key}": make(folder / f"d{key}", key=key) for key in range(3)}
    made["tags"] = make(folder / "tags", key=5, frames=0)
    return {name: (str(folder / name), run) for name, run in made.items()}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, audio):
    """A recipe for a student of the recordings: the path of its file."""
    folder = tmp_path_factory.mktemp("recipe")
    CLASSES.to_csv(folder / "labels.csv")
    data = {"name": "annotated", "events": str(audio / "events.tsv")}
    config = {
        "total_steps": 4,
        "batch_size": 4,
        "labels": {"name": str(folder / "labels.csv")},
        "data": {**CFG["data"], "train": data, "eval": data, "ops": "decode | crop | strong"},
        "frontend": FRONTEND,
        "model": {"name": "cnn", "variant": "mini", "n_mels": 16, "width": 4, "frames": FRAMES},
        "objective": {"name": "distillation", "base": "detection"},
        "optim": {"name": "adamw", "lr": 1e-2},
        "eval": {"batch_size": 4, "bootstrap": 0, "max_share": 1.0, "select": "last"},
        "log": {"every_steps": 1, "save_steps": 1},
    }
    config["data"]["ops"] = f"decode | crop | strong(frame_rate={FRAMES / CLIP_S})"
    path = folder / "student.py"
    path.write_text(
        "from asjax import config\n\n\ndef get_config(arg=None):\n"
        f"    c = config.new()\n    c.update({config!r})\n    return c\n"
    )
    return path


def train(recipe, workdir, *options):
    return main(["train", f"--config={recipe}", f"--workdir={workdir}", *options])


def weights(workdir):
    return load_file(workdir / "model" / "model.safetensors")


def log(workdir):
    rows = map(json.loads, (workdir / "train.jsonl").read_text().splitlines())
    return [row for row in rows if "loss" in row]


def with_teacher(folder, more=""):
    strong = f"strong(frame_rate={FRAMES / CLIP_S})"
    return f"--config.data.ops=decode | crop | {strong} | teacher(path={str(folder)!r}{more})"


@pytest.fixture(scope="module")
def stored(tmp_path_factory, audio, models):
    """Logits of one detector for all recordings but two."""
    folder = tmp_path_factory.mktemp("stored")
    rows = (audio / "events.tsv").read_text().splitlines()
    (audio / "some.tsv").write_text("\n".join(rows[:-2]) + "\n")
    command = ["logits", models["d0"][0], f"--data={audio / 'some.tsv'}", "--frames"]
    assert main([*command, f"--out={folder / 'x'}"]) == 0
    return folder / "x"


# -------------------------------------------------------------------------------- stored logits


def test_a_student_of_stored_logits_is_a_detector(tmp_path, recipe, stored, capsys):
    assert train(recipe, tmp_path / "w", with_teacher(stored, ", check=False")) == 0
    out = capsys.readouterr().out
    begin = f"teacher {stored}: logits of clips and frames for 9 of 11 training clips; 2 learn"
    assert begin in out
    assert out.index(begin) < out.index("parameters, 11 clips to train on")
    card = json.loads((tmp_path / "w" / "model" / "card.json").read_text())
    assert card["objective"] == "distillation"
    assert {"events", "decoding"} <= card.keys()
    rows = log(tmp_path / "w")
    assert len(rows) == 4
    for row in rows:
        losses = ("strong_loss", "weak_loss", "strong_teacher_loss", "weak_teacher_loss")
        assert all(row[name] > 0 for name in losses)
        want = sum(0.9 * row[f"{k}_teacher_loss"] + 0.1 * row[f"{k}_loss"]
                   for k in ("strong", "weak"))  # fmt: skip
        if row["with_teacher"] == 1:
            assert row["loss"] == pytest.approx(want, rel=1e-5)
    assert {row["with_teacher"] for row in rows} <= {0.5, 0.75, 1.0}
    assert sum(4 * row["with_teacher"] for row in rows[:2]) >= 6  # 8 draws of 11 clips
    tagger = asjax.load(tmp_path / "w")
    assert tagger.activation == "sigmoid"
    assert tagger.frame_count == FRAMES


def test_a_stopped_student_goes_on_bit_for_bit_with_workers(tmp_path, recipe, stored):
    """Two steps, then four, with two workers, is four steps in one go without workers."""
    teacher = with_teacher(stored, ", check=False")
    mix = "--config.augment.feats=mixup(alpha=1.0, style='plain')"
    assert train(recipe, tmp_path / "one", teacher, mix) == 0
    workers = [teacher, mix, "--config.data.workers=2", "--config.data.threads=1"]
    assert train(recipe, tmp_path / "two", *workers, "--config.total_steps=2") == 0
    more = ["--config.total_steps=4", "--allow-config-change"]
    assert train(recipe, tmp_path / "two", *workers, *more) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)
    assert [r["loss"] for r in log(tmp_path / "one")] == [r["loss"] for r in log(tmp_path / "two")]


def test_other_logits_are_other_data_for_a_resume(tmp_path, recipe, stored, audio, models, capsys):
    teacher = [with_teacher(tmp_path / "x", ", check=False"), "--config.total_steps=1"]
    (tmp_path / "x").symlink_to(stored)
    assert train(recipe, tmp_path / "w", *teacher) == 0
    (tmp_path / "x").unlink()
    command = ["logits", models["d1"][0], f"--data={audio / 'some.tsv'}", "--frames"]
    assert main([*command, f"--out={tmp_path / 'x'}"]) == 0
    capsys.readouterr()
    assert train(recipe, tmp_path / "w", *teacher) == 2
    assert "holds a run on other data" in capsys.readouterr().err


# ------------------------------------------------------------------------------ models in the step


def loaded(models, *names, cfg=CFG, label_set=CLASSES):
    return online.load([models[name][0] for name in names], cfg=cfg, label_set=label_set)


def waves(audio, count=4):
    return np.stack([wave_of(audio / f"{i:02d}.wav") for i in range(count)])


def test_the_logits_are_those_of_the_models_and_their_mean(audio, models):
    wave = waves(audio)
    for names in (["d0"], ["d0", "d1", "d2"]):
        found = loaded(models, *names)
        out = found.apply(found.variables, jnp.asarray(wave))
        for output in ("logits", "frame_logits"):
            want = np.mean([np.asarray(models[n][1](wave)[output], np.float64) for n in names], 0)
            np.testing.assert_allclose(out[output], want, atol=1e-5)
    assert loaded(models, "d0", "tags").outputs == ("logits",)
    assert loaded(models, "d0").identity != loaded(models, "d1").identity


def test_teachers_of_clips_may_have_any_frame_rates(tmp_path, audio, models):
    calls = {"slow": make(tmp_path / "slow", frames=5), "d0": models["d0"][1]}
    paths = {"slow": str(tmp_path / "slow"), "d0": models["d0"][0]}
    found = online.load(list(paths.values()), {"logits"}, cfg=CFG, label_set=CLASSES)
    assert found.outputs == ("logits",)
    wave = waves(audio)
    out = found.apply(found.variables, jnp.asarray(wave))
    want = np.mean([np.asarray(calls[name](wave)["logits"], np.float64) for name in paths], 0)
    assert set(out) == {"logits"}
    np.testing.assert_allclose(out["logits"], want, atol=1e-5)


def student(load, **fields):
    """A student whose frame logits are the first samples of the wave, and its loss."""
    frontend = lambda wave: wave[:, : 3 * FRAMES].reshape(len(wave), FRAMES, 3)  # noqa: E731
    known = dict(model=FrameLookup(), frontend=frontend, load=load, base="detection", **fields)
    return frontend, objectives.distillation(**known)


PARAMS = {"bias": jnp.zeros(3)}


def batch_of(audio, count=4):
    rng = np.random.default_rng(0)
    ones = np.ones(count, np.float32)
    return {
        "wave": waves(audio, count),
        "target": (rng.random((count, 3)) < 0.5).astype(np.float32),
        "frame_target": (rng.random((count, FRAMES, 3)) < 0.5).astype(np.float32),
        "has_strong": ones, "has_weak": ones, "mask": ones,
    }  # fmt: skip


def load_of(models):
    by_name = {name: path for name, (path, _) in models.items()}
    return lambda paths, wanted: online.load(
        [by_name[p] for p in paths], wanted, cfg=CFG, label_set=CLASSES
    )


def test_a_teacher_in_the_step_is_the_loss_of_its_stored_logits(audio, models):
    batch = batch_of(audio)
    out = [models[name][1](batch["wave"]) for name in ("d0", "d1")]
    mean = {key: (out[0][key] + out[1][key]) / 2 for key in ("logits", "frame_logits")}
    given = {"teacher": mean["frame_logits"], "clip_teacher": mean["logits"]}
    results = []
    for teacher, more in ((None, given), (["d0", "d1"], {})):
        _, loss_fn = student(load_of(models), teacher=teacher)
        run = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
        results.append(run(PARAMS, {}, {**batch, **more}, jax.random.key(0), loss_fn.frozen))
    ((one, (scalars, _)), grads), ((two, (others, _)), same) = results
    assert float(one) == pytest.approx(float(two), rel=1e-6)
    assert {k: float(v) for k, v in others.items()} == pytest.approx(
        {k: float(v) for k, v in scalars.items()}, rel=1e-5
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), grads, same)


def test_the_teacher_hears_the_augmented_wave(audio, models):
    heard = []

    class Ear:
        variables, outputs, notes, identity = {}, ("logits", "frame_logits"), (), ""

        def apply(self, variables, wave):
            heard.append(np.asarray(wave))
            zeros = jnp.zeros((len(wave), FRAMES, 3))
            return {"logits": zeros[:, 0], "frame_logits": zeros}

    roll = build.augment("roll")
    _, loss_fn = student(lambda paths, outputs: Ear(), teacher="x", augment={"wave": roll})
    batch = {k: jnp.asarray(v) for k, v in batch_of(audio).items()}
    key = jax.random.key(7)
    loss_fn(PARAMS, {}, batch, key, {})
    want = roll(jax.random.split(key, 4)[0], batch)["wave"]
    np.testing.assert_array_equal(heard[0], want)
    assert (heard[0] != batch["wave"]).any()


def test_the_weights_are_an_argument_and_neither_constants_nor_state(audio, models):
    frontend, loss_fn = student(load_of(models), teacher="d0")
    tx, _ = build.make("optim", {"name": "adamw", "lr": 1e-2}, total_steps=4, steps_per_epoch=2)
    batch = {k: jnp.asarray(v) for k, v in batch_of(audio).items()}
    state = step.init_state(
        jax.random.key(0), model=FrameLookup(), frontend=frontend, tx=tx,
        wave_shape=batch["wave"].shape, average=False,
    )  # fmt: skip
    mesh = sharding.make_mesh("data=2")
    replicated = sharding.replicated(mesh)
    frozen = jax.device_put(loss_fn.frozen, replicated)
    for parts in (1, 2):
        run = step.make_train_step(objective=loss_fn, tx=tx, accumulate=parts)
        run = jax.jit(run, in_shardings=(replicated, sharding.batch_sharding(mesh), replicated),
                      donate_argnums=0)  # fmt: skip
        placed = jax.device_put(jax.tree.map(jnp.copy, state), replicated)
        rows = sharding.place(mesh, {k: np.asarray(v) for k, v in batch.items()})
        lowered = run.lower(placed, rows, frozen)
        largest = max(x.size for x in jax.tree.leaves(loss_fn.frozen))
        constants = [
            len(line) for line in lowered.as_text().splitlines() if "constant dense" in line
        ]
        assert max(constants) < largest  # a constant is written with two or more letters a number
        new, scalars = run(placed, rows, frozen)
        assert scalars["with_teacher"] == 1
        assert jax.tree.structure(new) == jax.tree.structure(state)
    again = jax.tree.map(np.asarray, frozen)  # not donated
    jax.tree.map(np.testing.assert_array_equal, again, dict(loss_fn.frozen))


@pytest.mark.parametrize("names", [["d0"], ["d0", "tags"]])
def test_a_student_of_models_in_the_step(tmp_path, recipe, models, names, capsys):
    paths = [models[name][0] for name in names]
    given = f"--config.objective.teacher={paths[0] if len(paths) == 1 else tuple(paths)!r}"
    assert train(recipe, tmp_path / "w", given, "--config.total_steps=2") == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith(f"teacher {paths[0]}: "))
    frames = f" and frames ({FRAMES} per clip)" if names == ["d0"] else ""
    assert line.endswith(f"logits of clips{frames}")
    assert ("mean of the logits of 2 models" in out) == (len(names) == 2)
    rows = log(tmp_path / "w")
    assert [row["with_teacher"] for row in rows] == [1, 1]
    assert ("strong_teacher_loss" in rows[0]) == (names == ["d0"])  # the tagger has no frames
    assert "weak_teacher_loss" in rows[0]
    state = json.loads((tmp_path / "w" / "config.json").read_text())["objective"]
    assert state["teacher"] == (paths[0] if len(paths) == 1 else paths)
    assert asjax.load(tmp_path / "w").frame_count == FRAMES


# ------------------------------------------------------------------------------------- refusals


def test_models_that_do_not_fit_are_one_line(tmp_path, models, audio):
    other = {"data": {"sample_rate": 32_000, "clip_s": CLIP_S}}
    with pytest.raises(AsjaxError, match=r"needs data.sample_rate=16000, and the student's is 320"):
        loaded(models, "d0", cfg=other)
    other = {"data": {"sample_rate": RATE, "clip_s": 1.0}}
    with pytest.raises(AsjaxError, match="needs data.clip_s=0.5, and the student's is 1"):
        loaded(models, "d0", cfg=other)
    less = asjax.labels.LabelSet("less", CLASSES.ids[:2], CLASSES.names[:2])
    with pytest.raises(AsjaxError, match="d0 has other classes than the student: 3, not 2"):
        loaded(models, "d0", label_set=less)
    make(tmp_path / "soft", objective={"name": "classify"})
    with pytest.raises(AsjaxError, match="has one softmax over the classes"):
        online.load([str(tmp_path / "soft")], cfg=CFG, label_set=CLASSES)
    form = Form(CLASSES, clip=True)
    logits_writer.save(tmp_path / "logits", form, [Row("a", 1.0)], clip=np.zeros((1, 3)))
    with pytest.raises(AsjaxError, match="holds stored logits; leave out objective.teacher"):
        online.load([str(tmp_path / "logits")], cfg=CFG, label_set=CLASSES)
    make(tmp_path / "slow", frames=5)
    paths = [models["d0"][0], str(tmp_path / "slow")]
    with pytest.raises(AsjaxError, match="same frame rate: .*d0 has 10 frames .*slow 5"):
        online.load(paths, cfg=CFG, label_set=CLASSES)
    with pytest.raises(AsjaxError, match="none does not exist"):
        online.load([str(tmp_path / "none")], cfg=CFG, label_set=CLASSES)
    _, loss_fn = student(lambda _, outputs: online.load(paths[1:], cfg=CFG, label_set=CLASSES),
                            teacher="slow")  # fmt: skip
    batch = {k: jnp.asarray(v) for k, v in batch_of(audio).items()}
    with pytest.raises(AsjaxError, match=r"teacher must have the shape of frame_target.*\[4, 5, 3"):
        loss_fn({}, {}, batch, jax.random.key(0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "objective distillation needs a teacher"),
        (["--config.objective.teacher=nowhere"], "model nowhere does not exist"),
        (["--config.objective.base=tag"], "objective.base 'tag'"),
        (["--config.objective.load=1"], "objective.load"),
        (["--config.objective.weight=2"], "objective.weight must be a number from 0 to 1"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, recipe, capsys, options, says):
    assert train(recipe, tmp_path / "w", *options) == 2
    error = capsys.readouterr().err.strip()
    assert says in error.splitlines()[-1]
    assert "Traceback" not in error


def test_stored_logits_and_models_at_once_are_refused(tmp_path, recipe, stored, models, capsys):
    both = [with_teacher(stored, ", check=False"), f"--config.objective.teacher={models['d0'][0]}"]
    assert train(recipe, tmp_path / "w", *both) == 2
    assert "has two teachers" in capsys.readouterr().err
