"""Several models, or stored logits, as one tagger: naive means of what each model says alone."""

import functools
import io
import pickle

import numpy as np
import pytest
import soundfile
from small_detectors import CLASSES, CLIP_S, FRAMES, RATE, make, write_clips

import asjax
from asjax import labels
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.data import audio
from asjax.predict import ensemble, stored


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def logit(p):
    return np.log(np.asarray(p, np.float64)) - np.log1p(-np.asarray(p, np.float64))


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Name -> (folder, function): two detectors of one rate, one of another, and taggers."""
    root = tmp_path_factory.mktemp("models")
    kinds = {
        "a": dict(key=0),
        "b": dict(key=1),
        "low": dict(key=2, rate=8000),
        "fast": dict(key=3, frames=20),
        "plain": dict(key=4, frames=0),
        "soft": dict(key=5, frames=0, objective="classify"),
        "softer": dict(key=6, frames=0, objective="classify"),
        "long": dict(key=7, data={"sample_rate": RATE, "clip_s": 2 * CLIP_S}),
    }
    return {name: (root / name, make(root / name, **how)) for name, how in kinds.items()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = write_clips(tmp_path_factory.mktemp("clips") / "audio")
    rng = np.random.default_rng(1)
    soundfile.write(folder / "long.wav", rng.normal(0, 0.1, round(1.3 * RATE)), RATE)
    return folder


def paths(models, names):
    return [models[name][0] for name in names]


def windows(path, rate=RATE):
    """Consecutive windows of a recording; the last one ends with it."""
    wave, size = audio.read(path, rate), round(CLIP_S * rate)
    starts = list(range(0, max(1, len(wave) - size + 1), size))
    if len(wave) > starts[-1] + size:
        starts.append(len(wave) - size)
    cut = [wave[s : s + size] for s in starts]
    return np.stack([np.pad(one, (0, size - len(one))) for one in cut])


# ------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("weights", [None, [1, 3]])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "low")])
def test_windows_and_tags_are_of_the_mean_logits(models, clips, names, weights):
    tagger = asjax.load(paths(models, names), weights=weights, frames=False)
    for file in ("00.wav", "03.wav", "long.wav"):
        every = [
            np.asarray(models[n][1](windows(clips / file, {"low": 8000}.get(n, RATE)))["logits"])
            for n in names
        ]
        mean = np.average(np.float64(every), axis=0, weights=weights)
        tags = tagger(clips / file)
        np.testing.assert_allclose(tags.windows, sigmoid(mean), atol=2e-5)
        np.testing.assert_allclose(tags.clip, sigmoid(mean).mean(axis=0), atol=2e-5)
        wave, _ = soundfile.read(clips / file)
        assert tags.duration_s == pytest.approx(len(wave) / RATE)
    reduced = asjax.load(paths(models, names), weights=weights, frames=False, reduce="max")
    np.testing.assert_allclose(
        reduced(clips / "long.wav").clip, sigmoid(mean).max(axis=0), atol=2e-5
    )


@pytest.mark.parametrize("names", [("a", "b", "b"), ("a", "low")])
def test_frames_are_of_the_mean_frame_logits(models, clips, names):
    tagger = asjax.load(paths(models, names), frames=True)
    assert tagger.frame_rate == FRAMES / CLIP_S
    every = [asjax.load(models[name][0]) for name in names]
    for file in ("01.wav", "long.wav"):
        tags = tagger(clips / file)
        alone = np.stack([logit(one(clips / file).frames) for one in every])
        np.testing.assert_allclose(tags.frames, sigmoid(alone.mean(axis=0)), atol=2e-5)
        assert len(tags.frames) == np.ceil(tags.duration_s * tagger.frame_rate - 1e-6)
    assert tags.events(threshold=0.0, median=0)  # events come from these frames


def test_softmaxes_are_the_mean_of_log_probabilities(models, clips):
    names = ("soft", "softer")
    tags = asjax.load(paths(models, names))(clips / "03.wav")
    every = [models[n][1](windows(clips / "03.wav"))["logits"] for n in names]
    mean = log_softmax(np.mean([log_softmax(one) for one in every], axis=0))[0]
    np.testing.assert_allclose(tags.logits, mean, atol=2e-5)
    assert tags.clip.sum() == pytest.approx(1, abs=1e-5)


def test_members_with_other_clip_lengths_are_averaged_by_recording(models, clips):
    names = ("a", "long")
    tagger = asjax.load(paths(models, names), frames=False)
    every = [asjax.load(models[n][0], frames=False)(clips / "long.wav").logits for n in names]
    tags = tagger(clips / "long.wav")
    np.testing.assert_allclose(tags.logits, np.mean(np.float64(every), axis=0), atol=2e-5)
    assert not tagger.one_window
    assert tags.windows.shape == (1, 3)
    np.testing.assert_array_equal(tags.times, [[0, tags.duration_s]])


def test_one_model_as_an_ensemble_and_a_model_given_twice_are_that_model(models, clips):
    alone = asjax.load(models["a"][0])(clips / "long.wav")
    with pytest.warns(UserWarning, match="is given twice"):
        twice = asjax.load(paths(models, "aa"))
    for tagger in (asjax.load([models["a"][0]]), twice):
        tags = tagger(clips / "long.wav")
        np.testing.assert_allclose(tags.windows, alone.windows, atol=1e-6)
        np.testing.assert_allclose(tags.frames, alone.frames, atol=1e-6)


def test_any_kind_of_source_and_lists_and_pickles(models, clips):
    tagger = asjax.load(paths(models, ("a", "low")), frames=False)
    path = clips / "long.wav"
    want = tagger(path).clip
    wave, _ = soundfile.read(path, dtype="float32")
    file = io.BytesIO(path.read_bytes())
    file.name = "piped"
    found = [path.read_bytes(), file, (wave, RATE), str(path)]
    results = tagger(found)
    for tags in results:
        np.testing.assert_allclose(tags.clip, want, atol=1e-5)
    assert results[1].file == "piped"
    assert "2 members" in repr(tagger)
    again = pickle.loads(pickle.dumps(tagger))
    np.testing.assert_allclose(again(path).clip, want, atol=1e-5)
    with pytest.raises(AsjaxError, match="open as text"):
        tagger(io.StringIO("x"))
    (bad,) = tagger.stream([clips / "events.tsv"])
    assert isinstance(bad, AsjaxError)


def test_models_that_have_no_mean_are_refused(models, clips, tmp_path):
    make(tmp_path / "other", classes=labels.LabelSet("o", ("/m/0bt9lr", "x"), ("Dog", "Fox")))
    order = labels.LabelSet("r", CLASSES.ids[::-1], CLASSES.names[::-1])
    make(tmp_path / "order", classes=order)
    a = models["a"][0]
    fail = functools.partial(pytest.raises, AsjaxError)
    with fail(
        match=r"other has other classes than .*a: 2, not 3; only .*'Fox'; only .*a has 'Cat'"
    ):
        asjax.load([a, tmp_path / "other"])
    with fail(match="their order differs, first at index 0: 'Owl', not 'Dog'"):
        asjax.load([a, tmp_path / "order"])
    with fail(match="have no common logits"):
        asjax.load(paths(models, ("plain", "soft")))
    with fail(match="same frame rate: .*a has 20 and .*fast 40 frames"):
        asjax.load(paths(models, ("a", "fast")), frames=True)
    with fail(match="plain: Cnn gives scores of clips and not of frames"):
        asjax.load(paths(models, ("a", "plain")), frames=True)
    with fail(match="numbers above 0, one for each of 2 models, got 1"):
        asjax.load(paths(models, "ab"), weights=[1])
    with fail(match="numbers above 0"):
        asjax.load(paths(models, "ab"), weights=[1, float("nan")])
    with fail(match="at least one model"):
        asjax.load([])
    with fail(match="does not exist"):
        asjax.load([a, tmp_path / "none"])
    with fail(match="an embedding is of one model"):
        asjax.load(paths(models, "ab"), window_embeddings=True)
    mixed = asjax.load(paths(models, ("a", "plain")))  # without frames, tags are there
    tags = mixed(clips / "00.wav")
    with fail(match="plain: Cnn gives scores of clips"):
        _ = tags.frames
    with fail(match="an embedding is of one model"):
        _ = tags.embedding


# ------------------------------------------------------------------------------ stored logits


@pytest.fixture(scope="module")
def logits_of(models, clips, tmp_path_factory):
    """Name -> a folder of its logits, float32, with frames if it has them."""
    root = tmp_path_factory.mktemp("logits")

    @functools.cache
    def folder(name, *options):
        out = root / "-".join([name, *options]).replace("/", "_")
        data = f"--data={clips / 'clips.csv'}"
        frames = ["--frames"] if models[name][0].name in ("a", "b", "low") else []
        argv = ["logits", str(models[name][0]), data, f"--out={out}", "--dtype=float32"]
        assert main([*argv, *frames, *options]) == 0
        return out

    return folder


def test_stored_logits_tag_as_the_model_that_made_them(models, clips, logits_of):
    alone = asjax.load(models["a"][0])
    for tagger in (asjax.load(logits_of("a")), asjax.load([logits_of("a")])):
        for file in ("00.wav", "04.wav"):
            tags, want = tagger(clips / file), alone(clips / file)
            np.testing.assert_allclose(tags.clip, want.clip, atol=1e-6)
            np.testing.assert_allclose(tags.frames, want.frames, atol=1e-6)
            assert (tags.duration_s, tags.file) == (want.duration_s, want.file)
    mixed = asjax.load([logits_of("a"), models["b"][0]], weights=[1, 2])
    models_alone = asjax.load(paths(models, "ab"), weights=[1, 2])
    tags, want = mixed(clips / "04.wav"), models_alone(clips / "04.wav")
    np.testing.assert_allclose(tags.clip, want.clip, atol=1e-6)
    np.testing.assert_allclose(tags.frames, want.frames, atol=1e-6)


def test_a_file_without_its_logits_is_named(models, clips, logits_of, tmp_path):
    tagger = asjax.load(logits_of("a"))
    found = list(tagger.stream([clips / "long.wav", clips / "00.wav", (np.zeros(9), RATE)]))
    assert "has no logits of it; its clips are called as 00.wav" in str(found[0])
    assert found[1].file.endswith("00.wav")
    assert "found by the name of a file, and this has none" in str(found[2])
    elsewhere = tmp_path / "00.wav"
    soundfile.write(elsewhere, np.zeros(round(0.2 * RATE)), RATE)
    (other,) = tagger.stream([elsewhere])
    assert "0.20 s long" in str(other)
    assert "is this another file?" in str(other)
    (elsewhere).write_bytes((clips / "00.wav").read_bytes())
    fresh = asjax.load(logits_of("a"))
    one, two = fresh.stream([clips / "00.wav", elsewhere])
    assert not isinstance(one, Exception)
    assert "one clip 00.wav for it and for" in str(two)
    soundfile.write(tmp_path / "01.wav", np.zeros(RATE), RATE)  # longer than the models hear
    fresh = asjax.load(logits_of("a"))
    assert fresh(tmp_path / "01.wav").duration_s == CLIP_S
    assert "of the beginning of 1 file," in fresh.notes()[0]
    mixed = asjax.load([logits_of("a"), models["b"][0]])
    (error,) = mixed.stream([tmp_path / "01.wav"])
    assert "another member hears 1.00 s" in str(error)


def test_the_highest_logits_need_a_rule_for_the_rest(models, clips, logits_of):
    top = logits_of("plain", "--top=2")
    full = asjax.load(models["plain"][0])(clips / "00.wav").clip
    best = np.argsort(-full)[:2]
    zero = asjax.load(top)(clips / "00.wav").clip
    np.testing.assert_allclose(zero[best], full[best], atol=1e-6)
    assert np.delete(zero, best).tolist() == [0.0]
    uniform = asjax.load(top, rest="uniform")(clips / "00.wav").clip
    np.testing.assert_allclose(np.delete(uniform, best), full[best].min(), atol=1e-6)  # of 1 class
    with pytest.raises(AsjaxError, match="2 highest logits .* give --rest uniform"):
        asjax.load([top, models["a"][0]])
    mixed = asjax.load([top, models["plain"][0]], rest="uniform")(clips / "00.wav").clip
    np.testing.assert_allclose(mixed, sigmoid((logit(uniform) + logit(full)) / 2), atol=1e-5)
    with pytest.raises(AsjaxError, match="rest must be one of"):
        asjax.load(top, rest="none")
    with pytest.raises(AsjaxError, match="have no uniform rest"):
        asjax.load(logits_of("soft", "--top=2"), rest="uniform")


def test_logits_that_cannot_tag_are_refused(models, logits_of):
    with pytest.raises(AsjaxError, match="random views"):
        asjax.load(logits_of("plain", "--views=2"))
    with pytest.raises(AsjaxError, match="are of clips and not of frames"):
        asjax.load(logits_of("plain"), frames=True)
    with pytest.raises(AsjaxError, match="an embedding is of one model"):
        asjax.load(logits_of("plain"), window_embeddings=True)
    assert isinstance(asjax.load(logits_of("plain")), ensemble.Ensemble)
    assert stored.Stored(logits_of("a")).frame_rate == FRAMES / CLIP_S
