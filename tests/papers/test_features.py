"""`asjax stats --features` against float64 numpy on the batches of training; one-line errors."""

import json
import shlex

import jax
import numpy as np
import pytest

from asjax import build, config, labels
from asjax.__main__ import main as asjax_main
from asjax.config import AsjaxError
from asjax.frontends import stft
from asjax.papers import features as stats_features

BASE = """
from asjax import config

def get_config(arg=None):
    c = config.new()
    c.seed, c.batch_size, c.mesh, c.total_steps = 3, 6, "", 10
    c.labels = dict(name="audioset527", hlp=False, strict=False)
    c.data = dict(
        train=dict(name="esc10", splits=["fold1"]),
        eval=dict(name="esc10", splits=["fold2"]), sample_rate=8000, clip_s=0.5, draw="shuffle",
        workers=0, threads=2, cache=True, max_bad=0.05,
    )
    c.frontend = dict(
        name="atdr_logmel64", sample_rate=8000, n_fft=1024, window=400, hop=200, n_mels=32,
        frames=30, mean=-20.0, std=30.0,
    )
    c.augment = dict(wave="", feats="", normed="")
    c.model = dict(name="cnn", variant="mini")
    c.optim = dict(name="adam", lr=1e-3)
    return c
"""
WAVE = "mixup(alpha=10.0, rate=0.5, style='plain', remove_mean=True)"
# -mean / (2 std) = 1 / 3: raw zero
FEATS = (
    "specaug(time_width=12, time_stripes=1, freq_width=8, freq_stripes=1, law='torchaudio', "
    "fill=0.33333333)"
)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(BASE)
    return path


def load(recipe, **overrides):
    return build.load(str(recipe), overrides)


def raw_batches(cfg, count):
    """The frontend's output before normalisation, padded with zeros: [B, T, F] per batch."""
    label_set = labels.get("audioset527")
    data = {k: cfg.data[k] for k in ("sample_rate", "clip_s", "threads", "draw")}
    stream = build.pipeline(
        build.source(cfg.data.train, label_set),
        batch_size=cfg.batch_size,
        seed=cfg.seed,
        num_classes=527,
        **data,
    )
    frontend = build.make("frontend", cfg.frontend)
    wave_chain = build.augment(cfg.augment.wave)
    # the same masks on unnormalised features, filled with raw zero
    feats_chain = build.augment(cfg.augment.feats.replace("0.33333333", "0.0"))
    base = jax.random.split(jax.random.key(cfg.seed))[1]
    with stream.iterate() as batches:
        for step in range(count):
            keys = jax.random.split(jax.random.fold_in(base, step), 4)
            wave = wave_chain(keys[0], {"wave": next(batches)["wave"]})["wave"]
            raw = np.asarray(stft.fit_frames(frontend.logmel(wave), cfg.frontend.frames))
            yield np.asarray(feats_chain(keys[1], {"feats": raw})["feats"], np.float64)


@pytest.mark.parametrize(
    ("wave", "feats"),
    [("", ""), (WAVE, FEATS), ("mixup(alpha=0.4, style='panns')", "")],
    ids=["plain", "augmented", "neighbours"],  # "neighbours" halves batches
)
def test_an_epoch_is_what_numpy_finds_on_the_raw_features(recipe, wave, feats):
    cfg = load(recipe, **{"augment.wave": wave, "augment.feats": feats})
    found = stats_features.measure(cfg, progress=False)
    raw = list(raw_batches(cfg, 14))
    assert found["clips"] == 79  # 13 batches of 6 and the last clip of the epoch
    assert found["batches"] == 14
    raw[-1] = raw[-1][:1]
    assert len(raw[0]) == (3 if "panns" in wave else 6)
    assert found["shape"] == raw[0].shape[1:] == (30, 32)
    assert (raw[0][:, 21:] == 0).all()  # padding counts
    means, stds = [x.mean() for x in raw], [x.std(ddof=1) for x in raw]
    np.testing.assert_allclose(found["recipe"]["mean"], np.mean(means), rtol=2e-6)
    np.testing.assert_allclose(found["recipe"]["std"], np.mean(stds), rtol=2e-6)
    every = np.concatenate([x.ravel() for x in raw])
    np.testing.assert_allclose(found["exact"]["mean"], every.mean(), rtol=2e-6)
    np.testing.assert_allclose(found["exact"]["std"], every.std(ddof=1), rtol=2e-6)
    assert abs(found["recipe"]["std"] - found["exact"]["std"]) > 1e-3  # the two differ


def test_the_constants_it_gives_normalise_and_keep_the_masks_raw_zero(recipe):
    """Measuring again with the printed overrides gives the same numbers before normalisation."""
    asked = {"augment.wave": WAVE, "augment.feats": FEATS}
    found = stats_features.measure(load(recipe, **asked), 4, progress=False)
    new = {key: str(value) for key, value in found["overrides"].items()}
    assert set(new) == {"frontend.mean", "frontend.std", "augment.feats"}
    again = stats_features.measure(load(recipe, **{**asked, **new}), 4, progress=False)
    for key in ("recipe", "exact"):
        np.testing.assert_allclose(again[key]["mean"], found[key]["mean"], rtol=1e-5)
        np.testing.assert_allclose(again[key]["std"], found[key]["std"], rtol=1e-5)
    fill = config.chain(new["augment.feats"])[0][1]["fill"]
    mean, std = found["overrides"]["frontend.mean"], found["overrides"]["frontend.std"]
    assert fill == pytest.approx(-mean / (2 * std), abs=2e-7)


def test_energy_mixup_keeps_its_scale_in_nepers_and_a_fill_of_0_stays_the_mean(recipe):
    chain = "specaug(time_width=4) | mixup(alpha=10, style='plain', domain='ln_energy', scale=0.01)"
    cfg = load(recipe, **{"augment.feats": chain})
    found = stats_features.measure(cfg, 1, progress=False)
    ops = dict(config.chain(found["overrides"]["augment.feats"]))
    assert "fill" not in ops["specaug"]
    ratio = 30.0 / found["overrides"]["frontend.std"]
    assert ops["mixup"]["scale"] == pytest.approx(0.01 * ratio, rel=1e-6)


def test_a_frontend_without_constants_is_measured_as_it_is(recipe, tmp_path, capsys):
    text = BASE.replace('name="atdr_logmel64"', 'name="panns_logmel"')
    text = text.replace("        frames=30, mean=-20.0, std=30.0,\n", "").replace(
        "window=400, ", ""
    )
    recipe.write_text(text)
    out = tmp_path / "deep" / "f.json"
    words = ["stats", "--features", f"--config={recipe}", "--batches=2", "--config.seed=5"]
    assert asjax_main([*words, f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "the frontend does not normalise" in printed
    assert "--config.frontend" not in printed
    found = json.loads(out.read_text())
    cfg = load(recipe, seed="5")
    frontend = build.make("frontend", cfg.frontend)
    stream = build.pipeline(
        build.source(cfg.data.train, labels.get("audioset527")),
        batch_size=6, seed=5, num_classes=527, draw="shuffle", sample_rate=8000, clip_s=0.5,
    )  # fmt: skip
    with stream.iterate() as batches:
        raw = [np.asarray(frontend(next(batches)["wave"]), np.float64) for _ in range(2)]
    np.testing.assert_allclose(found["exact"]["mean"], np.mean(raw), rtol=2e-6)
    np.testing.assert_allclose(found["recipe"]["std"], np.mean([x.std(ddof=1) for x in raw]), 2e-6)
    assert found["config_overrides"] == {"seed": "5"}


def test_the_printed_lines_are_words_of_asjax_train(recipe, capsys):
    words = ["stats", "--features", f"--config={recipe}", "--batches=1"]
    assert asjax_main([*words, f"--config.augment.feats={FEATS}"]) == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("--config.")]
    pairs = [shlex.split(line)[0].removeprefix("--config.").split("=", 1) for line in lines]
    assert [key for key, _ in pairs] == ["frontend.mean", "frontend.std", "augment.feats"]
    cfg = load(recipe, **dict(pairs))
    assert cfg.frontend.mean == pytest.approx(float(pairs[0][1]))
    assert config.chain(cfg.augment.feats)[0][1]["law"] == "torchaudio"

    recipe.write_text(BASE.replace("mean=-20.0, std=30.0,", ""))  # no override can set these
    assert asjax_main(words) == 0
    assert "in the config's frontend: mean=" in capsys.readouterr().out


def test_moments_join_to_those_of_all_values():
    """Far from zero, where sums of squares would lose all precision."""
    rng = np.random.default_rng(0)
    parts = [1e6 + rng.standard_normal((n, 7)) * n for n in (1, 5, 2, 9)]
    joined = stats_features.Moments()
    for part in parts:
        mean = part.mean(1)
        squares = np.square(part - mean[:, None]).sum(1)
        joined += stats_features.Moments.of_parts(7, mean, squares)
    every = np.concatenate([part.ravel() for part in parts])
    assert joined.count == every.size
    assert joined.mean == pytest.approx(every.mean(), rel=1e-14)
    assert joined.std == pytest.approx(every.std(ddof=1), rel=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features"], "--features needs --config=FILE"),
        (["--features", "x.csv", "--config=CONFIG"], "takes no lists"),
        (["--features", "--config=nowhere.py"], "nowhere.py does not exist"),
        (["--features", "--config=CONFIG", "--batches=0"], "--batches must be at least 1"),
        (["--features", "--config=CONFIG", "--config.frontend.men=1"], "mean 'frontend.mean'"),
        (["--features", "--config=CONFIG", "--config.frontend.n_mels=0"], "n_mels"),
        (["--features", "--config=CONFIG", "--out=FOLDER"], "is a folder"),
        (["x.csv", "--config.seed=1"], "--config.field=value needs --config=FILE"),
        (["x.csv", "--config=CONFIG"], "--config and --batches belong to --features"),
    ],
)
def test_mistakes_are_one_line(recipe, tmp_path, words, message, capsys):
    words = [w.replace("CONFIG", str(recipe)).replace("FOLDER", str(tmp_path)) for w in words]
    assert asjax_main(["stats", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_features_that_are_all_equal_are_refused(recipe):
    silence = {"augment.wave": "gain(low_db=-200, high_db=-200)", "frontend.frames": "20"}
    with pytest.raises(AsjaxError, match="all features are -200; there is nothing to normalise"):
        stats_features.measure(load(recipe, **silence), 1, progress=False)


def test_features_that_are_not_finite_are_named_by_batch(recipe):
    loud = {"augment.wave": "gain(low_db=200, high_db=200) | gain(low_db=200, high_db=200)"}
    loud["augment.wave"] += " | gain(low_db=200, high_db=200) | gain(low_db=200, high_db=200)"
    with pytest.raises(AsjaxError, match="batch 1: features are not finite"):
        stats_features.measure(load(recipe, **loud), 1, progress=False)


@pytest.mark.parametrize("name", ["atdr_logmel64", "kaldi_fbank128", "panns_logmel64", "mn_mel128"])
def test_the_picture_shows_the_clip_and_the_filters_that_training_uses(name, recipe, monkeypatch):
    from asjax.papers import lists_plots

    text = BASE[: BASE.index("    c.frontend")] + f"    c.frontend = dict(name={name!r})\n"
    recipe.write_text(text + BASE[BASE.index("    c.augment") :])
    frontend = build.make("frontend", dict(name=name))
    cfg = load(recipe, **{"data.sample_rate": str(frontend.sample_rate)})
    shown = {}
    monkeypatch.setattr(
        lists_plots, "features", lambda path, feats, **how: shown.update(how, x=feats)
    )
    stats_features.picture(cfg, "unused.png")
    stream = build.pipeline(
        build.source(cfg.data.train, labels.get("audioset527")), batch_size=1, num_classes=527,
        train=False, sample_rate=frontend.sample_rate, clip_s=0.5,
    )  # fmt: skip
    with stream.iterate() as batches:
        batch = next(batches)
    np.testing.assert_allclose(shown["x"], np.asarray(frontend(batch["wave"]))[0], atol=1e-5)
    assert str(batch["id"][0]) in shown["title"]
    assert shown["filters"].shape[1] == shown["x"].shape[1]
    assert shown["hop"] == frontend.hop


def test_the_picture_stands_beside_the_json_and_shows_where_a_filter_is(recipe, tmp_path):
    """The column of the largest filter is bright at the peak of the frontend's filter."""
    from matplotlib.image import imread

    from asjax.papers import lists_plots

    out = tmp_path / "f.json"
    words = ["stats", "--features", f"--config={recipe}", "--batches=1", f"--out={out}"]
    assert asjax_main(words) == 0
    assert imread(tmp_path / "f.png").shape[:2] == (960, 1350)
    low, high = np.zeros((101, 4)), np.zeros((101, 4))
    low[10], high[90] = 1, 1
    pictures = []
    for bank in (low, high):
        lists_plots.features(
            tmp_path / "x.png", np.zeros((9, 4)), title="", sample_rate=8000, hop=80, filters=bank
        )
        pictures.append(imread(tmp_path / "x.png")[520:860, :, :3])
    columns = np.flatnonzero(np.abs(pictures[0] - pictures[1]).sum((0, 2)) > 50)
    middle = pictures[0].shape[1] / 2
    assert columns.min() < middle < columns.max()
