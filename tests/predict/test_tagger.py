"""The tagger and `asjax tag` against naive windows computed one at a time."""

import contextlib
import csv
import functools
import gc
import io
import json
import pickle
import subprocess
import sys
import tracemalloc
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_tagger
import soundfile
import sounds
import soxr

from asjax import build, frontends, predict
from asjax.__main__ import main
from asjax.config import AsjaxError, AsjaxWarning
from asjax.data import ffmpeg
from asjax.data.audio import AudioError
from asjax.labels import LabelSet
from asjax.predict.recording import Recording
from asjax.store import model_dir

RATE, CLIP_S, CLASSES = 8000, 0.5, 7
SIZE = int(RATE * CLIP_S)
RNG = np.random.default_rng(3)
LABELS = LabelSet(
    "test7", tuple(f"/m/{i}" for i in range(CLASSES)), tuple(f"Sound, {c}" for c in "abcdefg")
)
FRONTEND = frontends.build("panns_logmel", sample_rate=RATE, n_mels=16)


class Tiny(nn.Module):
    """Statistics of the log-mel over time, one layer."""

    @nn.compact
    def __call__(self, feats, train: bool):
        assert not train
        embedding = jnp.concatenate([feats.mean(1), feats.std(1)], axis=-1) / 20
        return {"logits": nn.Dense(CLASSES)(embedding), "embedding": embedding}


MODEL = Tiny()
VARIABLES = MODEL.init(jax.random.key(0), FRONTEND(jnp.zeros((1, SIZE))), train=False)


@functools.cache  # compiled once
def tagger(**kw):
    kw = {"batch_size": 4, **kw}
    return predict.Tagger(MODEL, VARIABLES, FRONTEND, LABELS, sample_rate=RATE, clip_s=CLIP_S, **kw)


def noise(seconds, rate=RATE, channels=1):
    """Noise with changing loudness, so that windows differ."""
    x = RNG.standard_normal((max(1, round(seconds * rate)), channels)) * 0.1
    x *= 1 + np.sin(np.arange(len(x)) / rate * 2)[:, None]
    return x.astype(np.float32)


def write(path, wave, rate=RATE, **kw):
    soundfile.write(
        path, wave, rate, **({"subtype": "FLOAT"} if path.suffix == ".wav" else {}), **kw
    )
    return path


def naive(wave, reduce="mean", activation="sigmoid"):
    """(clip probabilities, window probabilities, times, embedding), one window per forward pass."""
    n, starts = len(wave), [0]
    if n > SIZE:
        starts = list(range(0, n - SIZE + 1, SIZE))
        starts += [n - SIZE] if n % SIZE else []
    logits, embeddings = [], []
    for start in starts:
        window = wave[start : start + SIZE]
        window = np.pad(window, (0, SIZE - len(window)))
        out = MODEL.apply(VARIABLES, FRONTEND(jnp.asarray(window)[None]), train=False)
        logits.append(np.asarray(out["logits"][0], np.float64))
        embeddings.append(np.asarray(out["embedding"][0]))
    p = np.exp(np.array(logits))
    p = p / p.sum(axis=1, keepdims=True) if activation == "softmax" else p / (1 + p)
    times = [(s / RATE, min(s + SIZE, n) / RATE) for s in starts]
    return getattr(p, reduce)(axis=0), p, np.array(times), np.mean(embeddings, axis=0)


# ------------------------------------------------------------------------------------ tagger


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("seconds", [0.01, 0.3, 0.5, 0.75, 1.0, 3.2])
def test_tags_equal_naive_windows(tmp_path, seconds, reduce):
    x = noise(seconds)
    tags = tagger(reduce=reduce)(write(tmp_path / "a.wav", x))
    clip, windows, times, embedding = naive(x[:, 0], reduce)
    np.testing.assert_allclose(tags.clip, clip, atol=1e-5)
    np.testing.assert_allclose(tags.windows, windows, atol=1e-5)
    np.testing.assert_allclose(tags.times, times, atol=1e-9)
    np.testing.assert_allclose(tags.embedding, embedding, atol=1e-4)
    np.testing.assert_allclose(1 / (1 + np.exp(-tags.logits)), tags.clip, atol=1e-6)
    assert tags.clip.dtype == tags.logits.dtype == tags.embedding.dtype == np.float32
    assert tags.duration_s == pytest.approx(len(x) / RATE)


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("seconds", [0.5, 3.2])
def test_a_classifiers_tags_are_probabilities_of_a_softmax(seconds, reduce):
    x = noise(seconds)[:, 0]
    tags = tagger(reduce=reduce, activation="softmax")((x, RATE))
    clip, windows, _, _ = naive(x, reduce, "softmax")
    np.testing.assert_allclose(tags.clip, clip, atol=1e-5)
    np.testing.assert_allclose(tags.windows, windows, atol=1e-5)
    np.testing.assert_allclose(tags.windows.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.exp(tags.logits), tags.clip, atol=1e-6)
    assert tags.clip.dtype == tags.logits.dtype == np.float32
    assert tags.order(1)[0] == clip.argmax()
    if reduce == "mean":
        assert tags.clip.sum() == pytest.approx(1, abs=1e-5)


def test_a_classifier_stays_one_when_pickled_and_its_activation_must_exist():
    softmax = tagger(activation="softmax")
    assert "softmax)" in repr(softmax)
    assert pickle.loads(pickle.dumps(softmax)).activation == "softmax"
    with pytest.raises(AsjaxError, match="activation 'sofmax' does not exist; did you mean"):
        tagger(activation="sofmax")


def test_a_single_window_keeps_the_models_own_logits():
    x = noise(0.5)[:, 0]
    out = MODEL.apply(VARIABLES, FRONTEND(jnp.asarray(x)[None]), train=False)
    np.testing.assert_allclose(tagger()((x, RATE)).logits, out["logits"][0], atol=1e-5)


def test_a_batch_of_mixed_lengths_equals_one_at_a_time(tmp_path):
    waves = [noise(s) for s in (0.2, 2.6, 0.5, 0.01, 1.1, 0.5, 4.0, 0.7)]
    files = [write(tmp_path / f"{i}.wav", x) for i, x in enumerate(waves)]
    for batch_size in (1, 3, 16):
        together = tagger(batch_size=batch_size)(files)
        for path, tags, x in zip(files, together, waves, strict=True):
            alone = tagger()(path)
            assert tags.file == alone.file == str(path)
            np.testing.assert_allclose(tags.clip, alone.clip, atol=1e-5)
            np.testing.assert_allclose(tags.clip, naive(x[:, 0])[0], atol=1e-5)
            np.testing.assert_allclose(tags.embedding, alone.embedding, atol=1e-5)


def test_path_bytes_file_and_wave_give_the_same_tags(tmp_path):
    x = noise(1.3, 44100, channels=2)
    path = write(tmp_path / "a.wav", x, 44100)
    with path.open("rb") as file:
        found = tagger()([path, str(path), path.read_bytes(), file, (x, 44100), (x.T, 44100)])
    expected = naive(soxr.resample(x.mean(1), 44100, RATE, quality="HQ"))[0]
    for tags in found:
        np.testing.assert_allclose(tags.clip, expected, atol=1e-4)
    assert [t.file for t in found[:2]] == [str(path)] * 2
    assert found[4].file == "recording 4"


def test_top_lists_display_names_by_falling_probability_and_labels_are_looked_up():
    tags = tagger()((noise(2)[:, 0], RATE))
    best = sorted(range(CLASSES), key=lambda i: -tags.clip[i])
    assert tags.top(3) == [(LABELS.names[i], float(tags.clip[i])) for i in best[:3]]
    assert len(tags.top(99)) == CLASSES
    assert tags["sound, B"] == tags["/m/1"] == tags[1] == float(tags.clip[1])
    assert tags.labels == LABELS.names
    assert tags.ids == LABELS.ids
    assert LABELS.names[best[0]] in repr(tags)
    with pytest.raises(AsjaxError, match="not a class"):
        tags["Whale"]


def test_the_mean_keeps_log_odds_where_probabilities_saturate():
    one = Recording((noise(1), RATE), 0, tagger())
    next(one.windows(contextlib.nullcontext))
    next(one.windows(contextlib.nullcontext))
    for logits in ([40.0, -60.0], [50.0, -70.0]):
        one.add(np.float32(logits), np.zeros(1))
    tags = one.result().tags(tagger())
    p_not, p = np.exp([-40.0, -50.0]).mean(), np.exp([-60.0, -70.0]).mean()
    np.testing.assert_allclose(tags.logits, [-np.log(p_not), np.log(p)], rtol=1e-6)


@pytest.mark.parametrize(
    "x",
    [np.zeros(9000, np.float32), np.float32([0.5]), np.float32([0.5, *[np.nan] * 8999])],
    ids=["silence", "one sample", "nearly all NaN"],
)
def test_odd_waves_get_finite_tags(tmp_path, x):
    tags = tagger()(write(tmp_path / "ü 音.wav", x))
    assert np.isfinite(tags.clip).all()
    np.testing.assert_allclose(tags.clip, naive(np.nan_to_num(x))[0], atol=1e-5)


def test_an_error_stands_where_its_file_was_and_the_rest_is_done(tmp_path):
    good = [write(tmp_path / f"{i}.wav", noise(0.8)) for i in range(3)]
    cut = tmp_path / "cut.flac"
    data = write(tmp_path / "whole.flac", noise(60)).read_bytes()
    cut.write_bytes(data[: len(data) // 2])  # many good windows before the damage
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    sources = [good[0], cut, good[1], text, tmp_path / "missing.wav", good[2]]
    found = list(tagger().stream(sources))
    assert [isinstance(f, AudioError) for f in found] == [False, True, False, True, True, False]
    for tags, path in zip([found[0], found[2], found[5]], good, strict=True):
        np.testing.assert_allclose(tags.clip, tagger()(path).clip, atol=1e-5)
    assert "cut.flac" in str(found[1])
    with pytest.raises(AudioError, match="cut.flac"):
        tagger()(sources)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (np.zeros(8000), r"\(wave, sample_rate\), got ndarray"),
        ((np.zeros(8000), RATE, 1), r"\(wave, sample_rate\)"),
        ((RATE, np.zeros(8000)), r"\(wave, sample_rate\)"),
        ((np.zeros(0), RATE), "S > 0"),
        ((np.zeros(10), -1), "rate"),
        (7, "got int"),
        (b"", "0 bytes"),
    ],
)
def test_sources_of_another_kind_are_refused(source, match):
    with pytest.raises(AsjaxError, match=match):
        tagger()(source)


def test_a_batch_of_waves_is_one_recording_or_many_as_is_chosen():
    batch = np.stack([noise(0.8)[:, 0], noise(0.8)[:, 0]])
    with pytest.warns(AsjaxWarning, match="one recording of 2 channels"):
        averaged = tagger()((batch, RATE))
    np.testing.assert_allclose(averaged.clip, naive(batch.mean(0))[0], atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(tagger()((batch, RATE), batch=False).clip, averaged.clip)
        found = tagger()((batch, RATE), batch=True)
    assert len(found) == 2
    for tags, wave in zip(found, batch, strict=True):
        np.testing.assert_allclose(tags.clip, naive(wave)[0], atol=1e-5)


def test_numbers_of_another_range_are_tagged_with_a_warning():
    with pytest.warns(AsjaxWarning, match="but the full scale is 1"):
        tagger()((noise(0.5)[:, 0] * 32_768, RATE))


def test_a_used_tagger_pickles_and_says_what_it_is():
    x = noise(0.8)[:, 0]
    used = tagger.__wrapped__(reduce="max", batch_size=2, record={"seed": 3})
    before = used((x, RATE))
    again = pickle.loads(pickle.dumps(used))
    np.testing.assert_array_equal(again((x, RATE)).clip, before.clip)
    assert (again.reduce, again.batch_size, again.record) == ("max", 2, {"seed": 3})
    text = repr(again)
    for piece in ("Tiny", "7 classes of test7", "8000 Hz", "0.5 s", "reduce='max'"):
        assert piece in text, piece


def test_windows_may_overlap_and_their_embeddings_may_be_kept():
    x = noise(1.2)[:, 0]
    used = tagger(overlap=0.5, window_embeddings=True)
    starts = [*range(0, len(x) - SIZE + 1, SIZE // 2), len(x) - SIZE]
    for one in (used, pickle.loads(pickle.dumps(used))):
        tags = one((x, RATE))
        np.testing.assert_allclose(tags.times[:, 0], np.array(starts) / RATE)
        for start, row, embedding in zip(starts, tags.windows, tags.window_embeddings, strict=True):
            p, _, _, wanted = naive(x[start : start + SIZE])
            np.testing.assert_allclose(row, p, atol=1e-5)
            np.testing.assert_allclose(embedding, wanted, atol=1e-4)
        np.testing.assert_allclose(tags.embedding, tags.window_embeddings.mean(0), atol=1e-5)
    assert tagger()((x, RATE)).window_embeddings is None
    assert "windows of 0.5 s, overlap 0.5," in repr(used)
    for overlap in (1, -0.1, float("nan")):
        with pytest.raises(AsjaxError, match="overlap must be 0 or more and less than 1"):
            tagger.__wrapped__(overlap=overlap)


def test_weights_of_another_model_are_one_line():
    wide = {"params": {"Dense_0": {"kernel": np.ones((3, CLASSES)), "bias": np.ones(CLASSES)}}}
    few = {"params": {"Dense_0": {"kernel": np.ones((32, 2)), "bias": np.ones(2)}}}
    for variables in ({}, {"params": {}}, wide, few):
        one = predict.Tagger(MODEL, variables, FRONTEND, LABELS, sample_rate=RATE, clip_s=CLIP_S)
        with pytest.raises(AsjaxError, match="Tiny does not fit its weights") as caught:
            one((noise(0.5), RATE))
        assert "\n" not in str(caught.value)


def test_a_model_of_other_classes_is_one_line():
    label_set = LabelSet("two", ("a", "b"), ("a", "b"))
    one = predict.Tagger(MODEL, VARIABLES, FRONTEND, label_set, sample_rate=RATE, clip_s=CLIP_S)
    with pytest.raises(AsjaxError, match=r"must return logits \[B, 2 classes\], got \[1, 7\]"):
        one((noise(0.5), RATE))


def test_settings_and_broken_weights_are_refused():
    with pytest.raises(AsjaxError, match="median.*Known: max, mean"):
        tagger(reduce="median")
    with pytest.raises(AsjaxError, match="batch_size"):
        tagger(batch_size=0)
    broken = tagger.__wrapped__()
    broken.variables = jax.tree.map(lambda v: v * jnp.nan, VARIABLES)
    with pytest.raises(AsjaxError, match="not finite"):
        broken((noise(1), RATE))


class Wide(nn.Module):
    """A tagger with one large array that is easy to find in device memory."""

    @nn.compact
    def __call__(self, feats, train: bool):
        embedding = nn.Dense(60_000, name="wide")(feats.mean(1))
        return {"logits": nn.Dense(CLASSES)(embedding[:, :9]), "embedding": embedding[:, :9]}


def test_calls_of_any_size_share_one_copy_of_the_weights_and_few_programs():
    """At most one copy on each device, for any number of recordings per call."""
    model = Wide()
    variables = model.init(jax.random.key(0), FRONTEND(jnp.zeros((1, SIZE))), train=False)
    variables = jax.tree.map(np.asarray, variables)  # as loaded from a model folder
    kernel = variables["params"]["wide"]["kernel"]
    run = predict.Tagger(model, variables, FRONTEND, LABELS, sample_rate=RATE, clip_s=CLIP_S)
    x = noise(0.5)[:, 0]
    want = None
    traced, original = [], Wide.__call__

    def counting(self, feats, train):
        traced.append(feats.shape)
        return original(self, feats, train)

    Wide.__call__ = counting
    try:
        for n in (1, 2, 4, 8, 16, 3, 1, 5, 40, 1):
            tags = run([(x, RATE)] * n)
            want = tags[0].logits if want is None else want
            for each in tags:
                np.testing.assert_allclose(each.logits, want, atol=1e-5)
            gc.collect()
            places = {
                (shard.device, shard.data.unsafe_buffer_pointer())
                for array in jax.live_arrays()
                if array.shape == kernel.shape
                for shard in array.addressable_shards
            }
            assert len(places) == len({device for device, _ in places}) <= jax.device_count()
    finally:
        Wide.__call__ = original
    assert len(traced) == 4  # to see whether there are frames; then 1, 4 and 16 rows
    assert [len(w.sharding.device_set) for w in jax.tree.leaves(run.variables)] == [2] * 4


def test_a_single_window_stays_on_one_device():
    run = tagger.__wrapped__()
    run((noise(0.5), RATE))
    assert {len(w.sharding.device_set) for w in jax.tree.leaves(run.variables)} == {1}


def test_half_an_hour_needs_memory_for_batches_only(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        second = noise(1)
        for _ in range(1800):
            file.write(second)
    run = tagger()
    run((noise(2), RATE))  # compile first
    tracemalloc.start()
    tags = run(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tags.windows.shape == (3600, CLASSES)
    assert peak < 25e6  # the wave alone has 58 MB
    second, _ = soundfile.read(path, frames=SIZE * 2, dtype="float32")
    np.testing.assert_allclose(tags.windows[:2], naive(second)[1], atol=1e-5)


# --------------------------------------------------------------------------------- asjax tag


@pytest.fixture
def model(monkeypatch, tmp_path_factory):
    """A model folder that loads as the small tagger."""
    folder = tmp_path_factory.mktemp("model")
    monkeypatch.setattr(predict, "load", lambda path, **kw: tagger(**kw))
    return str(folder)


def run(capsys, *words):
    code = main(["tag", *map(str, words)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_table_names_files_classes_and_probabilities(tmp_path, capsys, model):
    path = write(tmp_path / "a.wav", noise(1.2))
    code, out, err = run(capsys, path, "--model", model, "--top", 2, "--windows")
    tags = tagger()(path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{path}  1.20 s"
    for line, (name, p) in zip(lines[1:3], tags.top(2), strict=True):
        assert line.split()[0] == f"{p:.3f}"
        assert line.endswith(name)
    for line, times, row in zip(lines[3:6], tags.times, tags.windows, strict=True):
        assert line.startswith(f"  {times[0]:9.2f} - {times[1]:9.2f} s  ")
        assert line.count(f"{row.max():.2f}") >= 1
    assert lines[6:] == [""]


def test_json_lines_hold_what_python_gives(tmp_path, capsys, model):
    (tmp_path / "sub").mkdir()
    paths = [
        write(tmp_path / "sub" / "b 音.flac", noise(0.4)),
        write(tmp_path / "a.WAV", noise(2.2)),
    ]
    (tmp_path / "notes.txt").write_text("not audio, not looked at")
    code, out, _ = run(capsys, tmp_path, "--model", model, "--json", "--windows", "--reduce", "max")
    items = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [item["file"] for item in items] == sorted(map(str, paths))
    for item in items:
        tags = tagger(reduce="max")(item["file"])
        got = [(t["label"], t["probability"]) for t in item["tags"]]
        assert [n for n, _ in got] == [n for n, _ in tags.top(5)]
        np.testing.assert_allclose([p for _, p in got], [p for _, p in tags.top(5)], atol=1e-5)
        assert item["duration_s"] == pytest.approx(tags.duration_s, abs=1e-5)
        assert len(item["windows"]) == len(tags.windows)
        last = item["windows"][-1]
        assert (last["start_s"], last["end_s"]) == pytest.approx(tuple(tags.times[-1]), abs=1e-5)
        assert last["tags"][0]["probability"] == pytest.approx(tags.windows[-1].max(), abs=1e-5)


def test_tsv_has_one_row_per_tag_and_goes_to_a_file(tmp_path, capsys, model):
    path = write(tmp_path / "tab\there.wav", noise(1))
    out = tmp_path / "out.tsv"
    code, printed, _ = run(capsys, path, "--model", model, "--tsv", "--top", 3, "--out", out)
    assert (code, printed) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out.read_text()), dialect="excel-tab"))
    tags = tagger()(path)
    assert [r["file"] for r in rows] == [str(path)] * 3
    assert [r["rank"] for r in rows] == ["1", "2", "3"]
    assert [r["label"] for r in rows] == [name for name, _ in tags.top(3)]
    assert [r["id"] for r in rows] == [LABELS.ids[i] for i in tags.order(3)]
    found = [float(r["probability"]) for r in rows]
    np.testing.assert_allclose(found, np.sort(tags.clip)[:-4:-1], atol=1e-5)


def test_bad_files_are_named_the_rest_is_done_and_the_exit_code_is_1(tmp_path, capsys, model):
    write(tmp_path / "a.wav", noise(0.5))
    (tmp_path / "b\x1b[31m.wav").write_text("no sound")
    (tmp_path / "c.mp3").write_bytes(b"\xff\xfb\x90\x00" * 50)
    write(tmp_path / "d.wav", noise(0.5))
    code, out, err = run(capsys, tmp_path, "--model", model, "--json")
    assert code == 1
    assert [json.loads(line)["file"][-5:] for line in out.splitlines()] == ["a.wav", "d.wav"]
    lines = err.splitlines()
    assert len(lines) == 3
    assert "b?[31m.wav" in lines[0]
    assert "c.mp3" in lines[1]
    assert lines[2] == "asjax tag: 2 of 4 files could not be tagged"


def test_a_folder_from_a_mac_is_done_and_what_was_passed_over_is_said(
    tmp_path, capsys, model, monkeypatch
):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    folder = tmp_path / "from_a_mac"
    (folder / "__MACOSX").mkdir(parents=True)
    write(folder / "a.wav", noise(0.5))
    for name in ("._a.wav", "__MACOSX/._a.wav"):
        (folder / name).write_bytes(sounds.APPLE_DOUBLE)
    (folder / "voice memo.m4a").write_bytes(sounds.MP4)
    code, out, err = run(capsys, folder, "--model", model, "--json")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert err.startswith("asjax tag: skipped 1 files of kinds that libsndfile does not read")
    assert len(err.splitlines()) == 1


def test_what_is_odd_of_a_file_is_said_beside_its_tags(tmp_path, capsys, model):
    wave = noise(0.5)
    wave[:7] = np.nan
    write(tmp_path / "a\x1b[2J.wav", wave)
    code, out, err = run(capsys, tmp_path, "--model", model)
    assert code == 0
    assert "7 of its" in err
    for text in (out, err):
        assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("gone.wav --model MODEL", "no such file or folder: gone.wav"),
        ("EMPTY --model MODEL", "holds no audio"),
        ("WAV --model gone", "asjax train --config=configs/quickstart.py"),
        ("WAV --model EMPTY", "is empty; train one"),
        ("WAV --model MODEL --top 0", "--top must be 1 or more"),
        ("WAV --model MODEL --batch-size 0", "batch_size must be 1 or more"),
        ("WAV --model MODEL --out WAV", "is one of the files to read"),
        ("WAV --model MODEL --out EMPTY/no/x", "no does not exist; make it first"),
        ("WAV --model Cnn41", "did you mean the published checkpoint 'cnn14'? Or train one with"),
        ("WAV --model=", "a model must be a path or a name, got an empty one"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(tmp_path, capsys, words, match, request):
    places = {"WAV": write(tmp_path / "a.wav", noise(0.5)), "EMPTY": tmp_path / "empty"}
    places["EMPTY"].mkdir()
    if "MODEL" in words:
        places["MODEL"] = request.getfixturevalue("model")
    for key, place in places.items():
        words = words.replace(key, str(place))
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert match in err
    assert err.count("\n") == 1
    assert soundfile.info(places["WAV"]).frames == SIZE  # untouched


def test_a_run_that_has_not_finished_is_not_a_model(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(AsjaxError, match="has not finished"):
        predict.load(tmp_path)


def test_a_reader_that_stops_early_is_no_error(tmp_path, monkeypatch, model, capfd):
    class Closed(io.StringIO):
        def flush(self):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    paths = [write(tmp_path / f"{i}.wav", noise(0.5)) for i in range(3)]
    assert main(["tag", *map(str, paths), "--model", model]) == 0
    assert capfd.readouterr().err == ""


def test_help_shows_an_example_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom asjax.__main__ import main\n"
        "try: main(['tag', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'jax', 'flax', 'soundfile', 'scipy', 'tqdm'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "asjax tag dog.wav" in out.stdout
    assert out.stdout.endswith("[]\n")


def test_a_saved_model_is_loaded_from_its_folder_and_from_its_workdir(tmp_path):

    frontend = dict(name="panns_logmel", sample_rate=RATE, n_mels=64)
    model = dict(name="cnn", variant="mini", num_classes=CLASSES)
    module = build.make("model", model)
    features = build.make("frontend", frontend)
    variables = module.init(jax.random.key(1), features(jnp.zeros((1, SIZE))), train=False)
    saved = dict(data=dict(sample_rate=RATE, clip_s=CLIP_S), frontend=frontend, model=model)
    model_dir.save_model(
        tmp_path / "model", config=saved, label_set=LABELS, variables=dict(variables), record={}
    )
    x = noise(0.5)[:, 0]
    out = module.apply(variables, features(jnp.asarray(x)[None]), train=False)
    for folder in (tmp_path, tmp_path / "model"):
        tags = predict.load(folder, batch_size=2)((x, RATE))
        np.testing.assert_allclose(tags.logits, out["logits"][0], atol=1e-4)
        np.testing.assert_allclose(tags.embedding, out["embedding"][0], atol=1e-4)
        assert tags.ids == LABELS.ids


@pytest.mark.parametrize("k", [-1, "3", 1.5, True, [2]])
def test_top_takes_a_number_of_classes(k):
    tags = small_tagger.tagger()((small_tagger.steps(0.3), small_tagger.RATE))
    assert [name for name, _ in tags.top(2)] == [name for name, _ in tags.top()][:2]
    assert tags.top(0) == []
    with pytest.raises(AsjaxError, match="k must be a number of classes, 0 or more, got"):
        tags.top(k)


def test_text_files_are_no_recordings(tmp_path):
    (tmp_path / "a.wav").write_text("no sound")
    with (tmp_path / "a.wav").open() as file:
        for source in (file, io.StringIO(), io.StringIO("abc")):
            with pytest.raises(AsjaxError, match="is open as text; open it as binary"):
                small_tagger.tagger()(source)


@pytest.mark.parametrize("path", [None, 5, b"model", {"model"}, ["model", None]])
def test_a_model_folder_must_be_a_path(path):
    with pytest.raises(AsjaxError, match="the model folder must be a path, got"):
        predict.load(path)


def test_a_batch_size_is_a_whole_number(tmp_path):
    for size in (1.5, "4", None, True, 0):
        for make in (small_tagger.tagger, functools.partial(predict.load, tmp_path)):
            with pytest.raises(AsjaxError, match="batch_size must be 1 or more"):
                make(batch_size=size)
    with pytest.raises(AsjaxError, match="overlap must be 0 or more"):
        small_tagger.tagger(overlap="x")
