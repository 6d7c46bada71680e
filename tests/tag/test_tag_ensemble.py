"""`asjax tag` and `asjax embed` with several models and with stored logits."""

import json

import numpy as np
import pytest
import soundfile
from small_detectors import CLASSES, CLIP_S, RATE, make, wave_of, write_clips

from asjax.__main__ import main


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Clips; two detectors a and b, and a tagger with longer windows; the logits of a."""
    root = tmp_path_factory.mktemp("ensemble")
    write_clips(root / "audio", count=4)
    functions = {name: make(root / name, key=ord(name)) for name in "ab"}
    make(root / "long", key=3, data={"sample_rate": RATE, "clip_s": 2 * CLIP_S})
    make(root / "plain", key=4, frames=0)
    argv = [f"--data={root / 'audio' / 'clips.csv'}", "--dtype=float32", "--frames"]
    assert main(["logits", str(root / "a"), *argv, f"--out={root / 'la'}"]) == 0
    return root, functions


@pytest.fixture
def tag(root, capsys):
    folder, _ = root

    def run(names, *words, verb="tag"):
        models = [f"--model={folder / name}" for name in names]
        code = main([verb, *map(str, words), *models])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


@pytest.mark.parametrize("names", [["a", "b"], ["la", "b"]])
def test_tags_are_of_the_weighted_mean_logits(root, tag, names):
    folder, functions = root
    files = sorted((folder / "audio").glob("*.wav"))
    code, out, _ = tag(names, *files, "--weights=1,3", "--json", "--top=3")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == list(map(str, files))
    for line, file in zip(lines, files, strict=True):
        one, two = (functions[n](wave_of(file)[None])["logits"][0] for n in "ab")
        want = sigmoid((np.float64(one) + 3 * np.float64(two)) / 4)
        for found in line["tags"]:
            index = CLASSES.names.index(found["label"])
            assert found["probability"] == pytest.approx(want[index], abs=1e-5)


@pytest.mark.parametrize("names", [["a", "b"], ["la", "b"]])
def test_events_and_frames_are_of_the_mean_frame_logits(root, tag, names, tmp_path):
    folder, functions = root
    file = folder / "audio" / "00.wav"
    how = ["--events", "--threshold=0.5", "--median=0", "--json", f"--frames={tmp_path / 'f'}"]
    code, out, _ = tag(names, file, *how)
    assert code == 0
    every = [functions[n](wave_of(file)[None])["frame_logits"][0] for n in "ab"]
    seconds = soundfile.info(file).duration
    count = int(np.ceil(seconds * 20 - 1e-6))
    want = sigmoid(np.mean(np.float64(every), axis=0))[:count]
    (written,) = (tmp_path / "f").iterdir()
    got = np.loadtxt(written, delimiter="\t", skiprows=1)[:, 2:]
    np.testing.assert_allclose(got, want, atol=1e-5)
    found = json.loads(out)["events"]
    runs = []  # naive runs of frames above the threshold
    for c, name in enumerate(CLASSES.names):
        above = [False, *(want[:, c] > 0.5), False]
        edges = [i for i in range(1, len(above)) if above[i] != above[i - 1]]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        runs += [((i - 1) / 20, min((j - 1) / 20, seconds), name) for i, j in pairs]
    got = sorted((e["onset_s"], e["offset_s"], e["label"]) for e in found)
    assert [g[2] for g in got] == [r[2] for r in sorted(runs)]
    np.testing.assert_allclose(
        np.array([g[:2] for g in got]), np.array([r[:2] for r in sorted(runs)]), atol=1e-6
    )


def test_files_without_stored_logits_are_counted(root, tag, tmp_path):
    folder, _ = root
    soundfile.write(tmp_path / "new.wav", np.zeros(4000), RATE)
    code, out, err = tag(["la"], folder / "audio" / "00.wav", tmp_path / "new.wav", "--json")
    assert code == 1
    assert len(out.splitlines()) == 1
    assert f"{tmp_path / 'new.wav'}: {folder / 'la'} has no logits of it" in err
    assert "1 of 2 files could not be tagged" in err
    soundfile.write(tmp_path / "01.wav", np.zeros(RATE), RATE)  # twice as long as is heard
    code, _, err = tag(["la"], tmp_path / "01.wav", "--json")
    assert code == 0
    assert "has logits of the beginning of 1 file," in err


def test_members_that_do_not_fit_are_one_line(root, tag, tmp_path):
    folder, _ = root
    file = folder / "audio" / "00.wav"
    for names, words, message in (
        (["a", "none"], [file], "none does not exist"),
        (["a", "plain"], [file, "--events"], "plain: Cnn gives scores of clips and not of frames"),
        (["a"], [folder / "b", file], "b is a model, not a recording; write --model"),
        (["a"], [file, folder / "la"], "la is a model, not a recording"),
        (["a", "b"], [file, "--weights=1"], "numbers above 0, one for each of 2 models"),
        (["a"], [file, "--weights=1,2"], "one for each of 1 models"),
        (["a", "b"], [file, "--weights=1;2"], "--weights must be numbers such as 1,2,1"),
        (["a", "long"], [file, "--per=window"], "--per needs windows"),
        (["a", "long"], [file, "--windows"], "--windows needs windows"),
        (["a", "long"], [file, f"--raven={tmp_path / 'r'}"], "--raven needs windows"),
        (["la"], [file, f"--out={folder / 'la' / 'clips.csv'}"], "one of the files to read"),
        (["a", "b"], [file, f"--out={folder / 'b' / 'card.json'}"], "one of the files to read"),
    ):
        code, out, err = tag(names, *words)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1
    for names, message in ((["a", "b"], "takes one --model, got 2"), (["la"], "no embeddings")):
        code, out, err = tag(names, file, f"--to={tmp_path / 'e.npz'}", verb="embed")
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err


def test_a_model_given_twice_is_said(root, tag):
    folder, _ = root
    file = folder / "audio" / "00.wav"
    code, twice, err = tag(["a", "a"], file, "--json")
    assert code == 0
    assert "is given twice, so it counts twice" in err
    _, once, _ = tag(["a"], file, "--json")
    for one, two in zip(json.loads(once)["tags"], json.loads(twice)["tags"], strict=True):
        assert one["probability"] == pytest.approx(two["probability"], abs=1e-6)
