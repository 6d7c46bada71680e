"""`asjax eval` on data with events: detectors, ensembles, other classes, long recordings."""

import json
from functools import partial

import numpy as np
import pytest
import soundfile

from asjax import build, decoding, labels, metrics
from asjax.__main__ import main
from asjax.evaluation import data_specs
from asjax.store import model_dir
from asjax.store.frame_scores import FrameScores
from asjax.store.scores import load_scores

RATE, CLIP_S, FRAMES = 16_000, 0.5, 10
DOG, CAT, OWL = "/m/0bt9lr", "/m/01yrx", "/m/09d5_"
CLASSES = labels.LabelSet("pets", (DOG, CAT, OWL), ("Dog", "Cat", "Owl"))
LENGTHS = {"a.wav": 0.5, "b.wav": 0.3, "c.wav": 1.7, "d.wav": 0.5, "e.wav": 0.504}
MARKS = [
    ("a.wav", 0.1, 0.4, "Dog"), ("b.wav", 0.0, 0.2, "Cat"), ("c.wav", 0.2, 0.7, "Dog"),
    ("c.wav", 1.2, 1.65, "Cat"), ("d.wav", 0.1, 0.2, "Dog"), ("e.wav", 0.3, 0.5, "Cat"),
]  # fmt: skip


def make(folder, audio, key=0, classes=CLASSES, frames=FRAMES, record=None, objective=None):
    """Write an untrained model; returns wave [B, S] -> outputs."""
    import jax

    cfg = {
        "labels": {"name": classes.name, "hlp": False, "strict": False},
        "data": {
            "eval": {"name": "annotated", "events": str(audio / "events.tsv")},
            "sample_rate": RATE, "clip_s": CLIP_S, "workers": 0, "threads": 1, "max_bad": 0.5,
        },
        "frontend": {"name": "panns_logmel", "sample_rate": RATE, "n_mels": 16, "hop": 320,
                     "n_fft": 512},
        "model": {"name": "cnn", "variant": "mini", "n_mels": 16, "frames": frames},
        "eval": {"batch_size": 4},
    }  # fmt: skip
    if objective:
        cfg["objective"] = objective
    frontend = build.make("frontend", cfg["frontend"])
    model = build.make("model", cfg["model"], num_classes=len(classes))
    wave = np.zeros((1, int(RATE * CLIP_S)), np.float32)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(key), frontend(wave))
    model_dir.save_model(
        folder, config=cfg, label_set=classes, variables=variables, record=record or {}
    )
    return jax.jit(lambda w: model.apply(variables, frontend(w), train=False))


def write_list(path, rows):
    text = "\n".join("\t".join(map(str, row)) for row in rows)
    path.write_text(f"filename\tonset\toffset\tevent_label\n{text}\n")


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for name, seconds in LENGTHS.items():
        wave = rng.normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
        soundfile.write(folder / name, wave, RATE)
    write_list(folder / "events.tsv", MARKS)
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory, audio):
    folder = tmp_path_factory.mktemp("run") / "model"
    return folder, make(folder, audio)


@pytest.fixture(scope="module")
def evaluated(detector):
    """The results of `asjax eval` of the detector on its own data."""
    assert main(["eval", f"--model={detector[0]}", "--bootstrap=10"]) == 0
    return detector[0].parent / "eval"


def wave_of(audio, name):
    return soundfile.read(audio / name, dtype="float32")[0]


def by_hand(run, wave):
    """Frame logits of a recording of any length: every window alone, its middle kept."""
    seconds, rate = len(wave) / RATE, FRAMES / CLIP_S
    if seconds <= CLIP_S * 1.01:
        plan = decoding.windows(FRAMES, FRAMES)
    else:
        plan = decoding.windows(int(decoding.frames_of(seconds, rate)), FRAMES)
    parts = []
    for start in plan.starts:
        at = round(start / rate * RATE)
        part = wave[at : at + int(RATE * CLIP_S)]
        part = np.pad(part, (0, int(RATE * CLIP_S) - len(part)))
        parts.append(np.asarray(run(part[None])["frame_logits"][0]))
    return decoding.stitch(np.array(parts), plan)


def test_the_frames_are_those_of_the_model_also_of_long_and_short_recordings(
    detector, evaluated, audio
):
    stored = FrameScores(evaluated / "frames", CLASSES)
    assert stored.ids == list(LENGTHS)
    assert stored.frame_rate == FRAMES / CLIP_S
    assert stored.lengths.tolist() == [10, 6, 34, 10, 10]
    for i, name in enumerate(stored.ids):
        want = by_hand(detector[1], wave_of(audio, name))
        np.testing.assert_allclose(stored.scores[i][: len(want)], want, atol=2e-3)  # float16
    assert stored.durations_s.tolist() == [0.5, 0.3, 1.7, 0.5, 0.5]
    marks = [[tuple(e) for e in stored.events[i].tolist()] for i in (2, 4)]
    assert marks == [[(0.2, 0.7, 0), (1.2, 1.65, 1)], [(0.3, 0.5, 1)]]


def test_the_numbers_are_those_of_the_frames(evaluated):
    stored = FrameScores(evaluated / "frames", CLASSES)
    got = json.loads((evaluated / "events.json").read_text())
    given = {
        "scores": [np.asarray(s, np.float64) for s in stored.scores],
        "events": stored.events,
        "durations_s": stored.durations_s,
        "lengths": stored.lengths,
        "frame_rate": 20.0,
        "median": 7,
    }
    want = metrics.psds(**given, **metrics.PSDS1)
    assert got["events"]["psds1"] == pytest.approx(want["macro"], abs=1e-12)
    assert got["events"]["left_out"] == ["Owl"]
    assert got["events"]["hours"] == pytest.approx(3.5 / 3600)
    assert got["notes"][0] == "In half-overlapping windows: 1 recording longer than 0.5 s."
    assert (evaluated / "metrics.json").is_file()  # the tags


def test_stored_frames_give_the_same_again(evaluated, tmp_path, capsys):
    argv = ["eval", f"--frames={evaluated / 'frames'}", f"--out={tmp_path}", "--bootstrap=10"]
    assert main(argv) == 0
    assert "PSDS1" in capsys.readouterr().out
    first, again = (json.loads((p / "events.json").read_text()) for p in (evaluated, tmp_path))
    assert first["events"] == again["events"]
    assert first["decoding"]["threshold"] == again["decoding"]["threshold"]
    assert not (tmp_path / "frames").exists()
    page = (evaluated / "events.html").read_bytes()
    assert main(argv[:2] + argv[3:]) == 0  # without --out, the run's own page stays
    assert (evaluated / "events.html").read_bytes() == page
    assert (evaluated.parent / f"{evaluated.name}-frames" / "events.html").is_file()


def test_an_ensemble_is_the_mean_of_the_logits(detector, audio, evaluated, tmp_path, capsys):
    other = make(tmp_path / "other", audio, key=1)
    out = tmp_path / "both"
    models = [f"--model={detector[0]}", f"--model={tmp_path / 'other'}"]
    assert main(["eval", *models, f"--out={out}", "--bootstrap=0"]) == 0
    stored = FrameScores(out / "frames", CLASSES)
    for i, name in enumerate(stored.ids):
        wave = wave_of(audio, name)
        want = (by_hand(detector[1], wave) + by_hand(other, wave)) / 2
        np.testing.assert_allclose(stored.scores[i][: len(want)], want, atol=4e-3)
    alone = tmp_path / "alone"
    assert main(["eval", models[1], f"--out={alone}", "--bootstrap=0"]) == 0
    frames = [f"--frames={p / 'frames'}" for p in (evaluated, alone)]
    assert main(["eval", *frames, f"--out={tmp_path / 'joined'}", "--bootstrap=0"]) == 0
    joined = FrameScores(tmp_path / "joined" / "frames", CLASSES)
    np.testing.assert_allclose(joined.scores[:], stored.scores[:], atol=4e-3)
    make(tmp_path / "finer", audio, frames=20)
    capsys.readouterr()
    argv = ["eval", models[0], f"--model={tmp_path / 'finer'}", f"--out={out}"]
    assert main(argv) == 2
    assert "must have the same frames a second, got 20 and 40" in capsys.readouterr().err


def test_data_with_other_classes_are_scored_on_the_shared_ones(detector, audio, tmp_path, capsys):
    """The score of a class is the highest of the model's classes with its mid."""
    theirs = labels.LabelSet(
        "farm", ("cat", "cow", "dog"), ("A cat", "A cow", "A dog"), ((CAT,), ("/m/cow",), (DOG,))
    )
    theirs.to_csv(tmp_path / "farm.csv")
    rows = [("a.wav", 0.1, 0.4, "dog"), ("b.wav", 0, 0.2, "cow"), ("c.wav", 0, 0.3, "cat")]
    write_list(tmp_path / "farm.tsv", rows)
    spec = f"--data=annotated(events='{tmp_path / 'farm.tsv'}', root='{audio}')"
    argv = ["eval", f"--model={detector[0]}", spec, f"--labels={tmp_path / 'farm.csv'}"]
    assert main([*argv, f"--out={tmp_path / 'out'}", "--bootstrap=0"]) == 0
    assert "2 of 3 classes of farm; not in the model: A cow" in capsys.readouterr().out
    stored = FrameScores(tmp_path / "out" / "frames")
    assert stored.label_set.ids == ("cat", "dog")
    run = detector[1]
    for i, name in enumerate(stored.ids):
        want = by_hand(run, wave_of(audio, name))[:, [1, 0]]
        np.testing.assert_allclose(stored.scores[i][: len(want)], want, atol=2e-3)
    assert [e.tolist() for e in stored.events] == [[(0.1, 0.4, 1)], [], [(0.0, 0.3, 0)]]
    found = json.loads((tmp_path / "out" / "events.json").read_text())
    assert found["zero_shot"]["left_out"] == ["A cow"]
    assert "A cow" in (tmp_path / "out" / "events.html").read_text()
    strange = labels.LabelSet("birds", ("hen",), ("Hen",), (("/m/hen",),))
    strange.to_csv(tmp_path / "birds.csv")
    write_list(tmp_path / "birds.tsv", [("a.wav", 0.1, 0.4, "hen")])
    spec = f"--data=annotated(events='{tmp_path / 'birds.tsv'}', root='{audio}')"
    argv = ["eval", f"--model={detector[0]}", spec, f"--labels={tmp_path / 'birds.csv'}"]
    assert main([*argv, f"--out={tmp_path / 'out2'}"]) == 2
    assert "share no AudioSet mid" in capsys.readouterr().err


def test_classes_of_a_list_that_the_model_does_not_have_are_left_out(
    detector, audio, tmp_path, capsys
):
    """Names, in any case, and ids of the model's classes are known."""
    rows = [("a.wav", 0.1, 0.4, "dog"), ("a.wav", 0, 0.2, "Tram"), ("b.wav", 0, 0.3, CAT)]
    write_list(tmp_path / "x.tsv", [*rows, ("b.wav", 0, 0.3, "tram")])
    spec = f"--data=annotated(events='{tmp_path / 'x.tsv'}', root='{audio}')"
    argv = ["eval", f"--model={detector[0]}", spec, f"--out={tmp_path}", "--bootstrap=0"]
    assert main(argv) == 0
    assert "2 of 4 classes of x.tsv; not in the model: Tram, tram" in capsys.readouterr().out
    stored = FrameScores(tmp_path / "frames", CLASSES)
    assert [e.tolist() for e in stored.events] == [[(0.1, 0.4, 0)], [(0.0, 0.3, 1)]]
    want = by_hand(detector[1], wave_of(audio, "a.wav"))
    np.testing.assert_allclose(stored.scores[0], want, atol=2e-3)


def test_a_model_without_frames_says_so_and_scores_tags(audio, tmp_path, capsys):
    make(tmp_path / "tagger", audio, frames=None)
    assert main(["eval", f"--model={tmp_path / 'tagger'}", "--bootstrap=0"]) == 0
    out = capsys.readouterr().out
    assert "no events    the model has no frame scores, so only tags are evaluated" in out
    ids = load_scores(tmp_path / "eval" / "scores.npz")["ids"]
    assert [name for name in ids if name[0] == "c"] == [f"c.wav@{s:g}s" for s in (0, 0.5, 1, 1.5)]
    assert not (tmp_path / "eval" / "events.json").exists()
    assert (tmp_path / "eval" / "metrics.json").is_file()


def test_thresholds_of_the_model_are_tried_unless_they_were_tuned_on_these_clips(
    detector, audio, evaluated, tmp_path
):
    chosen = json.loads((evaluated / "events.json").read_text())["decoding"]
    keys = {}
    for name, on in (("other", {"hash": "x"}), ("same", chosen["tuned_on"])):
        record = {"decoding": {**chosen, "tuned_on": on}}
        make(tmp_path / name / "model", audio, record=record)
        assert main(["eval", f"--model={tmp_path / name}", "--bootstrap=0"]) == 0
        keys[name] = json.loads((tmp_path / name / "eval" / "events.json").read_text())["events"]
    assert "event_f1_macro_of_model" in keys["other"]
    assert "event_f1_macro_of_model" not in keys["same"]


def test_a_broken_recording_is_left_out(detector, audio, tmp_path, capsys):
    for name in LENGTHS:
        (tmp_path / name).write_bytes((audio / name).read_bytes())
    (tmp_path / "b.wav").write_bytes(b"RIFF no audio")
    write_list(tmp_path / "events.tsv", MARKS)
    rows = [f"{name},Dog" for name in LENGTHS]
    (tmp_path / "clips.csv").write_text("\n".join(["filename,labels", *rows]) + "\n")
    files = f"csv='{tmp_path / 'clips.csv'}', events_csv='{tmp_path / 'events.tsv'}'"
    argv = ["eval", f"--model={detector[0]}", f"--data=folder({files})", "--bootstrap=0"]
    assert main([*argv, f"--out={tmp_path / 'out'}"]) == 0
    assert "left out     1 clip that" in capsys.readouterr().out
    assert FrameScores(tmp_path / "out" / "frames").ids == ["a.wav", "c.wav", "d.wav", "e.wav"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("x.wav", 0, 1, "Dog")], "1 of 1 recordings have no audio below"),
        ([("a.wav", 0.4, 0.1, "Dog")], "has no usable event"),
        ([("a.wav", 0.1, 0.4, "Tram")], "no class of the list is a class of pets"),
        ([("a.wav", "x", "y", "Dog")], "has no usable event"),
    ],
)
def test_wrong_lists_are_one_line(detector, audio, tmp_path, capsys, rows, words):
    write_list(tmp_path / "x.tsv", rows)
    spec = f"--data=annotated(events='{tmp_path / 'x.tsv'}', root='{audio}')"
    assert main(["eval", f"--model={detector[0]}", spec, f"--out={tmp_path / 'out'}"]) == 2
    text = capsys.readouterr().err
    assert words in text
    assert len(text.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--frames=DIR", "--model=x"], "either --model=DIR"),
        (["--frames=DIR", "--data=x"], "need --model, not --frames"),
        (["--frames=DIR", "--average=logits"], "needs several --model"),
        (["--frames=DIR", "--mapping=esc10"], "--mapping needs"),
        (["--frames=nothing"], "is not a folder of logits"),
        (["--frames=DIR", f"--out={__file__}"], "--out must be a folder"),
    ],
)
def test_wrong_options_are_one_line(evaluated, capsys, argv, words):
    argv = [a.replace("DIR", str(evaluated / "frames")) for a in argv]
    assert main(["eval", *argv]) == 2
    text = capsys.readouterr().err
    assert words in text
    assert len(text.strip().splitlines()) == 1


def test_results_do_not_go_into_a_model_folder(detector, capsys):
    argv = [f"--model={detector[0]}", f"--out={detector[0]}"]
    assert main(["eval", *argv]) == 2
    assert "is a model folder" in capsys.readouterr().err


def test_frames_without_annotation_are_one_line(evaluated, tmp_path, capsys):
    from asjax.store.frame_scores import FrameScoresWriter

    stored = FrameScores(evaluated / "frames")
    options = {"label_set": CLASSES, "frames": 34, "frame_rate": 20.0}
    with FrameScoresWriter(tmp_path / "frames", **options) as writer:
        writer.add(stored.ids, stored.scores[:], stored.durations_s)
    assert main(["eval", f"--frames={tmp_path / 'frames'}"]) == 2
    assert "no clip of the evaluation data has events in time" in capsys.readouterr().err


def test_data_of_a_list_of_events(audio, tmp_path):
    spec, name = data_specs.data_spec(str(audio / "events.tsv"))
    assert spec == {"name": "annotated", "events": str(audio / "events.tsv")}
    assert name == "events"
    (tmp_path / "clips.csv").write_text("filename,labels\na.wav,Dog\n")
    assert data_specs.data_spec(str(tmp_path / "clips.csv"))[0]["name"] == "folder"
