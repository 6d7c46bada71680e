"""`asjax logits MODEL...` (verb, run, members): what models say is stored, every clip once."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from small_detectors import CLASSES, CLIP_S, FRAMES, RATE, make, wave_of, write_clips

from asjax import events
from asjax.__main__ import main
from asjax.evaluation import mean
from asjax.store import files, logits
from asjax.teachers import run


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("data") / "audio")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two detectors: their folders and their functions."""
    folder = tmp_path_factory.mktemp("models")
    return [(folder / str(key), make(folder / str(key), key=key)) for key in (0, 1)]


def alone(model, audio, names):
    """Outputs of a model for each clip alone: clip [N, C], frames [N, T', C]."""
    outs = [model(wave_of(audio / name)[None]) for name in names]
    return (
        np.array([np.asarray(out["logits"][0]) for out in outs]),
        np.array([np.asarray(out["frame_logits"][0]) for out in outs]),
    )


def stored(found, names):
    ones = [found[name] for name in names]
    return np.array([o["clip"] for o in ones]), np.array([o["frames"] for o in ones])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, audio, models):
    """One run over all clips with events."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(command(models, audio, out)) == 0
    return out


def command(models, audio, out, *options, data="events.tsv"):
    paths = [str(folder) for folder, _ in models]
    data = f"--data={audio / data}" if data else ""
    return ["logits", *paths[:1], *filter(None, [data]), f"--out={out}", "--frames",
            "--dtype=float32", *options]  # fmt: skip


def test_the_logits_of_a_model_by_clip_with_labels_and_events(whole, audio, models):
    found = logits.open(whole, CLASSES, verify=True)
    names = [f"{i:02d}.wav" for i in range(11)]
    assert found.ids == names
    assert found.frame_rate == FRAMES / CLIP_S
    clip, frames = stored(found, names)
    want_clip, want_frames = alone(models[0][1], audio, names)
    np.testing.assert_allclose(clip, want_clip, atol=1e-5)
    np.testing.assert_allclose(frames, want_frames, atol=1e-5)
    np.testing.assert_array_equal(found.targets(), np.eye(3)[np.arange(11) % 3])
    np.testing.assert_allclose(found.durations_s, [0.5 if i % 3 else 0.4 for i in range(11)])
    want = events.as_events([(0.02, 0.31, 1)])
    np.testing.assert_array_equal(found.events[1], want)
    assert found.extra["models"][0]["path"] == str(models[0][0])
    card = json.loads((models[0][0] / "card.json").read_text())
    assert found.extra["models"][0]["sha256"] == card["sha256"]["card.json"]
    assert found.extra["data"]["clips"] == 11
    assert not list(whole.parent.glob("*.parts"))
    assert {p.name for p in whole.iterdir()} == set(files.read_sums(whole)) | {files.SUMS}


def test_an_ensemble_is_the_weighted_mean_of_logits(tmp_path, audio, models, capsys):
    paths = [str(folder) for folder, _ in models]
    data = f"--data={audio / 'events.tsv'}"
    common = [data, "--frames", "--dtype=float32"]
    names = [f"{i:02d}.wav" for i in range(11)]
    each = [alone(model, audio, names) for _, model in models]
    for options, weights in (([], (0.5, 0.5)), (["--weights=1,3"], (0.25, 0.75))):
        out = tmp_path / f"out{len(options)}"
        assert main(["logits", *paths, *common, *options, f"--out={out}"]) == 0
        for mine, a, b in zip(stored(logits.open(out), names), *each, strict=True):
            np.testing.assert_allclose(mine, weights[0] * a + weights[1] * b, atol=1e-5)
    for weights in ("1", "1,0", "1,nan", "1,x", "1,-2", "1,inf"):
        out = tmp_path / "bad"
        assert main(["logits", *paths, *common, f"--weights={weights}", f"--out={out}"]) == 2
        assert "--weights must be" in capsys.readouterr().err
        assert not out.exists()


def test_models_of_two_sample_rates_hear_the_same_clips(tmp_path, models):
    audio = write_clips(tmp_path / "audio", rate=8000, count=5)
    slow = make(tmp_path / "slow", rate=8000, key=3)
    paths = [str(models[0][0]), str(tmp_path / "slow")]
    data = f"--data={audio / 'clips.csv'}"
    assert main(["logits", *paths, data, "--dtype=float32", f"--out={tmp_path / 'two'}"]) == 0
    assert main(["logits", paths[0], data, "--dtype=float32", f"--out={tmp_path / 'one'}"]) == 0
    both, one = logits.open(tmp_path / "two"), logits.open(tmp_path / "one")
    for name in one.ids:
        wave = np.pad(soundfile.read(audio / name, dtype="float32")[0], (0, 4000))[:4000]
        want = (one[name]["clip"] + np.asarray(slow(wave[None])["logits"][0])) / 2
        np.testing.assert_allclose(both[name]["clip"], want, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shards_joined_are_one_run_bit_for_bit(tmp_path, audio, models, whole, count, capsys):
    shards = [tmp_path / f"{i}" for i in range(1, count + 1)]
    for i, out in enumerate(shards, 1):
        assert main(command(models, audio, out, f"--shard={i}/{count}")) == 0
    said = capsys.readouterr().err.count("has no clip: the data have 3 batches; the part is empty")
    assert said == max(0, count - 3)
    out = tmp_path / "all"
    assert main(["logits", "merge", *map(str, reversed(shards)), f"--out={out}"]) == 0
    assert_same(out, whole)
    assert main(command(models, audio, out)) == 0  # the merged set is the one of the whole run
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main(["logits", "merge", *map(str, shards), f"--out={out}"]) == 0  # the same again
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    other = tmp_path / "other"
    assert main([*command(models[1:], audio, other, "--shard=1/1"), "--overwrite"]) == 0
    capsys.readouterr()
    assert main(["logits", "merge", *map(str, shards), f"--out={other}"]) == 2
    assert "exists; add --overwrite" in capsys.readouterr().err


def assert_same(a, b):
    """Two sets of logits are equal bit for bit."""
    assert (a / "clips.csv").read_bytes() == (b / "clips.csv").read_bytes()
    first, second = logits.open(a, verify=True), logits.open(b, verify=True)
    for name in ("clip", "frames"):
        mine, theirs = getattr(first, name)[:], getattr(second, name)[:]
        assert mine.dtype == theirs.dtype
        assert mine.tobytes() == theirs.tobytes()
    keys = ("models", "data", "draws", "settings")
    assert {k: first.extra[k] for k in keys} == {k: second.extra[k] for k in keys}


def test_merge_refuses_what_does_not_fit(tmp_path, audio, models, whole, capsys):
    one, two = tmp_path / "1", tmp_path / "2"
    for i, out in ((1, one), (2, two)):
        assert main(command(models, audio, out, f"--shard={i}/3")) == 0
    other = tmp_path / "3"
    assert main(command(models[1:], audio, other, "--shard=3/3")) == 0
    half = tmp_path / "half"
    assert main([*command(models, audio, half, "--shard=3/3")[:-2], "--shard=3/3"]) == 0
    out = tmp_path / "out"
    for folders, message in (
        ((one, two), "needs each of the 3 shards once; missing: 3/3"),
        ((one, two, two), "missing: 3/3"),
        ((one, two, other), "are shards of different runs: other models"),
        ((one, two, half), "must have the same dtype"),
        ((whole, whole), "every id must occur once"),
        ((whole,), "needs several folders, got 1"),
        ((whole, tmp_path), "is not a folder of logits"),
    ):
        capsys.readouterr()
        assert main(["logits", "merge", *map(str, folders), f"--out={out}"]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()
    before = {path.name: path.read_bytes() for path in one.iterdir()}
    argv = ["logits", "merge", str(one), str(two), f"--out={one}", "--overwrite"]
    assert main(argv) == 2
    assert f"--out {one} is one of the folders to join" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in one.iterdir()}
    damaged = tmp_path / "damaged"
    shutil.copytree(one, damaged)
    shard = next(damaged.glob("clip-*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert main(["logits", "merge", str(damaged), str(two), f"--out={out}"]) == 2
    assert "its SHA-256 is not the one recorded" in capsys.readouterr().err


def test_undecodable_clips_are_named_and_the_exit_code_is_1(tmp_path, models, capsys):
    audio = write_clips(tmp_path / "audio")
    nothing = np.full(8000, np.nan, np.float32)  # its header is sound, its samples are not
    soundfile.write(audio / "03.wav", nothing, RATE, subtype="FLOAT")
    soundfile.write(audio / "10.wav", nothing, RATE, subtype="FLOAT")
    for data in ("clips.csv", "events.tsv"):
        out = tmp_path / data
        assert main(command(models, audio, out, data=data)) == 1
        shown = capsys.readouterr()
        assert "2 clips without logits, first 03.wav" in shown.err
        found = logits.open(out)
        assert [(clip, view) for clip, view, _ in found.missing()] == [("03.wav", 0), ("10.wav", 0)]
        assert len(found) == 9
        assert "03.wav" not in found
        assert main(command(models, audio, out, data=data)) == 1  # the same answer again
        assert "already there" in capsys.readouterr().out
    for path in audio.glob("*.wav"):
        soundfile.write(path, nothing, RATE, subtype="FLOAT")
    assert main(command(models, audio, tmp_path / "none")) == 2
    assert "no clip of" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_top_and_float16(tmp_path, audio, models, whole):
    options = [f"--data={audio / 'events.tsv'}", "--top=2", f"--out={tmp_path / 'x'}"]
    assert main(["logits", str(models[0][0]), *options]) == 0
    found, full = logits.open(tmp_path / "x"), logits.open(whole)
    assert found.kinds == ("clip",)
    for name in full.ids:
        mine, want = found[name]["clip"], full[name]["clip"].astype(np.float16)
        best = np.argsort(-want)[:2]
        np.testing.assert_array_equal(mine[best], want[best])
        assert np.isneginf(np.delete(mine, best)).all()


def test_views_can_be_replayed(tmp_path, models):
    """A student makes a view again from the seed and the draw number in the folder."""
    from asjax import build
    from asjax.data import draw

    audio = write_clips(tmp_path / "audio", count=3, seconds=1.5)
    options = ["--views=3", "--seed=3", f"--out={tmp_path / 'x'}"]
    base = ["logits", str(models[0][0]), f"--data={audio / 'clips.csv'}", "--dtype=float32"]
    assert main([*base, *options]) == 0
    found = logits.open(tmp_path / "x")
    assert found.views == {"count": 3, "seed": 3, "ops": "decode | crop | listed"}
    assert found.ids == ["00.wav", "01.wav", "02.wav"]
    known = dict(sample_rate=RATE, clip_s=CLIP_S, num_classes=3, train=True, pcm16=False)
    ops = build.chain("op", found.views["ops"], **known, decode_timeout_s=10.0)
    for i, name in enumerate(found.ids):
        for view in range(3):
            number = found.draw((name, view))
            assert number == view * 3 + i
            rng = draw.generator(3, number)
            example = {"id": name, "audio": str(audio / name), "labels": [0], "events": None}
            for _, op in ops:
                example = op(example, rng)
            want = np.asarray(models[0][1](example["wave"][None])["logits"][0])
            np.testing.assert_allclose(found[name, view]["clip"], want, atol=1e-5)
    assert len({found["00.wav", v]["clip"].tobytes() for v in range(3)}) == 3


def test_recordings_that_are_cut_are_counted(tmp_path, models, capsys):
    audio = write_clips(tmp_path / "audio", count=4, seconds=0.6)  # two of 0.48 s, two of 0.6 s
    for i, options in enumerate((["--shard=1/2"], ["--shard=2/2"])):
        data = f"--data={audio / 'clips.csv'}"
        words = ["logits", str(models[0][0]), data, "--batch-size=2", *options]
        assert main([*words, f"--out={tmp_path / str(i)}"]) == 0
        assert "1 recording is longer than the models hear" in capsys.readouterr().err
    merged = ["logits", "merge", str(tmp_path / "0"), str(tmp_path / "1")]
    assert main([*merged, f"--out={tmp_path / 'x'}"]) == 0
    assert "2 recordings are longer than the models hear" in capsys.readouterr().err


def test_softmax_models_store_log_probabilities(tmp_path, audio, models, capsys):
    for key in (0, 1):
        make(tmp_path / f"m{key}", key=key, frames=None, objective={"name": "classify"})
    paths = [str(tmp_path / f"m{key}") for key in (0, 1)]
    data = f"--data={audio / 'clips.csv'}"
    for k, some in enumerate((paths[:1], paths[1:], paths)):
        out = f"--out={tmp_path / f'x{k}'}"
        assert main(["logits", *some, data, "--dtype=float32", out]) == 0
    a, b, both = (logits.open(tmp_path / f"x{k}") for k in range(3))
    assert both.activation == "softmax"
    for name in both.ids:
        mean = (a[name]["clip"].astype(float) + b[name]["clip"]) / 2
        want = mean - np.log(np.exp(mean).sum())
        np.testing.assert_allclose(both[name]["clip"], want, atol=1e-5)
        np.testing.assert_allclose(np.exp(both[name]["clip"]).sum(), 1, atol=1e-5)
    mixed = ["logits", paths[0], str(models[0][0]), data, f"--out={tmp_path / 'mixed'}"]
    assert main(mixed) == 2
    assert "have no common logits" in capsys.readouterr().err


def test_other_classes_of_the_data_are_not_stored_as_labels(tmp_path, audio, models, capsys):
    (tmp_path / "two.csv").write_text("index,mid,display_name\n0,x,Dog\n1,y,Cat\n")
    rows = (audio / "clips.csv").read_text().replace("Owl", "Cat")
    (audio / "other.csv").write_text(rows)
    options = [f"--labels={tmp_path / 'two.csv'}", f"--out={tmp_path / 'x'}"]
    data = f"--data=folder(csv='{audio / 'other.csv'}', root='{audio}')"
    assert main(["logits", str(models[0][0]), data, *options]) == 0
    said = capsys.readouterr()
    assert "stored without labels" in said.out
    assert "the data are not those of pets, so no labels are stored" in said.err
    assert logits.open(tmp_path / "x").targets() is None
    rows = (audio / "events.tsv").read_text()
    for name in CLASSES.names:
        rows = rows.replace(name, f"my {name}")
    (audio / "other.tsv").write_text(rows)
    words = ["logits", str(models[0][0]), f"--data={audio / 'other.tsv'}"]
    assert main([*words, f"--out={tmp_path / 'y'}"]) == 0
    assert "so no labels are stored" in capsys.readouterr().err
    assert logits.open(tmp_path / "y").targets() is None
    some = (audio / "events.tsv").read_text().replace("Owl", "my owl")
    (audio / "some.tsv").write_text(some)
    words[-1] = f"--data={audio / 'some.tsv'}"
    assert main([*words, f"--out={tmp_path / 'z'}"]) == 0
    assert "1 label is no class of pets, and not stored: 'my owl'" in capsys.readouterr().err
    assert logits.open(tmp_path / "z").targets().any(axis=0).tolist() == [True, True, False]


@pytest.mark.parametrize("words", ["m --data=x", "merge a b", "import x --form=ced"])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys, words):
    monkeypatch.setattr(files.Path, "write_bytes", full)
    assert main(["logits", *words.split(), f"--out={tmp_path / 'x'}"]) == 2
    err = capsys.readouterr().err
    assert "the folder of --out" in err
    assert "cannot be written: No space left on device" in err


def full(*args):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard=0/4"], "--shard must be i/N"),
        (["--shard=5/4"], "--shard must be i/N"),
        (["--shard=2"], "--shard must be i/N"),
        (["--top=4"], "top must be 1 to 3"),
        (["--top=0"], "top must be 1 to 3"),
        (["--views=0"], "--views must be 1 to"),
        (["--seed=3"], "--seed belongs to --views"),
        (["--views=2", "--seed=-3"], "seed must be 0 to"),
        (["--batch-size=0"], "--batch-size must be 1 or more"),
        (["--form=ced"], "--form does not belong to asjax logits"),
        (["--no-check"], "--no-check does not belong to asjax logits"),
        (["--ops=decode | nothing"], "host op 'nothing'"),
        (["--ops=multihot"], "wave"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, audio, models, capsys, options, message):
    base = [o for o in command(models, audio, tmp_path / "x") if o != "--frames"]
    assert main([*base, *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_wrong_models_and_data_are_one_line(tmp_path, audio, models, capsys):
    tagger, other, fast = tmp_path / "tagger", tmp_path / "other", tmp_path / "fast"
    make(tagger, frames=None)
    make(other, classes=_four())
    make(fast, frames=20)
    first, data = str(models[0][0]), f"--data={audio / 'clips.csv'}"
    out = tmp_path / "x"
    for words, message in (
        ([str(tagger), data, "--frames"], "gives no frame logits; leave out --frames"),
        ([first, str(other), data], "has other classes than"),
        ([first, str(fast), data, "--frames"], "must have the same frame rate"),
        ([str(tmp_path / "no"), data], "is no model folder, nor one of merge"),
        ([str(tmp_path), data], "model "),
        ([first], "asjax logits needs --data"),
        ([first, "--data=nothing.csv"], "there is no such file or folder"),
        (["merge"], "asjax logits merge needs a path"),
    ):
        capsys.readouterr()
        assert main(["logits", *words, f"--out={out}"]) == 2, words
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert main(["logits", first, data]) == 2
    assert "asjax logits needs --out" in capsys.readouterr().err
    assert main(["logits", first, data, f"--out={tmp_path / 'no' / 'x'}"]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not out.exists()


def _four():
    from asjax import labels

    return labels.LabelSet("four", tuple("abcd"), tuple("ABCD"))


def test_foreign_folders_are_left_alone(tmp_path, audio, models, capsys):
    out = tmp_path / "x"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for options in ([], ["--overwrite"]):
        assert main(command(models, audio, out, *options)) == 2
        assert "asjax logits did not make it" in capsys.readouterr().err
    assert (out / "thesis.txt").read_text() == "mine"
    (out / "thesis.txt").rename(tmp_path / "thesis.txt")
    out.rmdir()
    assert main(command(models, audio, out)) == 0
    assert main(command(models[1:], audio, out)) == 2
    assert "another value of models" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("x")] == ["x"]
    before = logits.open(out)["00.wav"]["clip"]
    assert main(command(models[1:], audio, out, "--overwrite")) == 0
    assert not np.array_equal(before, logits.open(out)["00.wav"]["clip"])
    (out / "notes.txt").write_text("mine")
    assert main(command(models, audio, out, "--overwrite")) == 2
    assert "such as notes.txt" in capsys.readouterr().err


def test_weights_and_chains():
    assert run.host_chain("decode | crop | multihot") == "decode | crop | listed"
    chain = "decode | crop | a.b:gain(db=(-3, 3)) | strong(frames=10)"
    assert run.host_chain(chain) == "decode | crop | a.b:gain(db=(-3, 3)) | listed"
    assert [run.shard_of(10, (i, 3)) for i in (1, 2, 3)] == [(0, 3), (3, 6), (6, 10)]
    assert mean.weights(None, 2) == [1.0, 1.0]
