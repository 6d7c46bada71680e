"""Logits of audio without labels, and students that hear labelled and unlabelled clips."""

import json
import shutil

import numpy as np
import pytest
from small_detectors import CLASSES, CLIP_S, FRAMES, RATE, make, wave_of, write_clips

from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.store import logits
from asjax.teachers import data

STRONG = f"strong(frame_rate={FRAMES / CLIP_S})"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`audio/` with 4 labelled clips, `more/` with 4 others in two depths, a detector `teacher`."""
    root = tmp_path_factory.mktemp("data")
    write_clips(root / "audio", count=8)
    (root / "more" / "deep").mkdir(parents=True)
    for i in range(4, 8):
        name = f"{i:02d}.wav"
        shutil.move(root / "audio" / name, root / "more" / ("deep" if i % 2 else "") / name)
    for file in ("events.tsv", "clips.csv"):
        lines = (root / "audio" / file).read_text().splitlines()
        (root / "audio" / file).write_text("\n".join(lines[:5]) + "\n")
    (root / "list.txt").write_text("more/04.wav\nmore/deep/05.wav\n")
    (root / "list.csv").write_text("weather,path\nsunny,more/04.wav\nrain,more/deep/05.wav\n")
    CLASSES.to_csv(root / "labels.csv")
    run = make(root / "teacher", key=0)
    return root, run


def store(root, spec, out):
    command = ["logits", str(root / "teacher"), f"--data={spec}", "--frames", "--dtype=float32"]
    return main([*command, f"--out={out}"])


@pytest.mark.parametrize(
    ("spec", "ids", "says"),
    [
        ("more", ["04.wav", "06.wav", "deep/05.wav", "deep/07.wav"], "4 clips without labels"),
        ("list.txt", ["more/04.wav", "more/deep/05.wav"], "list.txt has no column of labels"),
        ("list.csv", ["more/04.wav", "more/deep/05.wav"], "2 clips without labels: "),
        ("more/deep", ["05.wav", "07.wav"], "2 clips without labels: folder"),
    ],
)
def test_logits_of_audio_without_labels(place, tmp_path, capsys, spec, ids, says):
    root, run = place
    assert store(root, root / spec, tmp_path / "x") == 0
    out, err = capsys.readouterr()
    assert says in err
    assert "stored without labels" in out
    found = logits.open(tmp_path / "x", CLASSES, verify=True)
    assert found.ids == ids
    assert found.targets() is None
    assert set(found.event_texts) == {"-"}
    base = root / spec if (root / spec).is_dir() else root
    for clip in ids:
        want = run(wave_of(base / clip)[None])
        np.testing.assert_allclose(found[clip]["clip"], want["logits"][0], atol=1e-5)
        np.testing.assert_allclose(found[clip]["frames"], want["frame_logits"][0], atol=1e-5)
    assert main(["logits", "check", str(tmp_path / "x"), f"--data={root / spec}"]) == 0
    assert f"{len(ids)} of {len(ids)} clips" in capsys.readouterr().out


def test_folders_that_are_classes_keep_their_labels(place, tmp_path):
    root, _ = place
    for name, file in (("Dog", "04.wav"), ("Cat", "06.wav")):
        (tmp_path / "a" / name).mkdir(parents=True)
        shutil.copy(root / "more" / file, tmp_path / "a" / name)
    assert store(root, tmp_path / "a", tmp_path / "x") == 0
    found = logits.open(tmp_path / "x")
    assert found.ids == ["Cat/06.wav", "Dog/04.wav"]
    np.testing.assert_array_equal(found.targets(), [[0, 1, 0], [1, 0, 0]])
    (tmp_path / "a" / "Stone").mkdir()
    shutil.copy(root / "more" / "04.wav", tmp_path / "a" / "Stone")
    with pytest.raises(AsjaxError, match="unknown labels"):
        data.source_of(data.spec_of(str(tmp_path / "a"), CLASSES)[0], None, CLASSES)


def test_a_list_of_events_with_only_names_has_clips_without_events(place, tmp_path):
    root, _ = place
    path = root / "audio" / "quiet.tsv"
    path.write_text("filename\tonset\toffset\tevent_label\n00.wav\t\t\t\n01.wav\t\t\t\n")
    try:
        assert store(root, path, tmp_path / "x") == 0
    finally:
        path.unlink()
    found = logits.open(tmp_path / "x")
    assert found.ids == ["00.wav", "01.wav"]
    assert [len(marks) for marks in found.events] == [0, 0]


def test_neither_audio_nor_a_list_is_one_line(place, tmp_path, capsys):
    root, _ = place
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("hello\n")
    for spec, says in (
        ("empty", "holds no audio"),
        ("x.txt", "must have a column such as filename, or one path in each line"),
        ("none", "there is no such file or folder"),
    ):
        assert store(root, tmp_path / spec, tmp_path / "out") == 2
        err = capsys.readouterr().err
        assert says in err or "there is no such file or folder" in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------ students


def bare_of(root) -> str:
    return f"unlabelled(path={str(root / 'more')!r})"


def config_of(root, **objective):
    labelled = {"name": "annotated", "events": str(root / "audio" / "events.tsv")}
    joined = {"name": "joined", "of": [labelled, bare_of(root)]}
    cfg = {
        "total_steps": 2,
        "batch_size": 4,
        "labels": {"name": str(root / "labels.csv")},
        "data": {
            "sample_rate": RATE, "clip_s": CLIP_S, "train": joined, "eval": labelled,
            "draw": "sequential", "ops": f"decode | crop | {STRONG}",
        },
        "frontend": {"name": "panns_logmel", "sample_rate": RATE, "n_mels": 16,
                     "hop": RATE // 50, "n_fft": 512},
        "model": {"name": "cnn", "variant": "mini", "n_mels": 16, "width": 4, "frames": FRAMES},
        "objective": objective or {"name": "distillation", "base": "detection"},
        "optim": {"name": "adamw", "lr": 1e-3},
        "eval": {"batch_size": 4, "bootstrap": 0, "max_share": 1.0, "select": "last"},
        "log": {"every_steps": 1, "save_steps": 2},
    }  # fmt: skip
    path = root / "student.py"
    path.write_text(
        "from asjax import config\n\n\ndef get_config(arg=None):\n"
        f"    c = config.new()\n    c.update({cfg!r})\n    return c\n"
    )
    return path


def log(workdir):
    rows = map(json.loads, (workdir / "train.jsonl").read_text().splitlines())
    return [row for row in rows if "loss" in row]


def test_a_student_learns_unlabelled_clips_from_its_teacher_alone(place, tmp_path, capsys):
    root, _ = place
    events = f"annotated(events={str(root / 'audio' / 'events.tsv')!r})"
    joined = f"joined(of={[events, bare_of(root)]!r})"
    assert store(root, joined, tmp_path / "x") == 0
    found = logits.open(tmp_path / "x")
    assert found.label_texts[4:] == ["-"] * 4
    assert "-" not in found.label_texts[:4]
    teacher = f"--config.data.ops=decode | crop | {STRONG} | teacher(path={str(tmp_path / 'x')!r})"
    command = ["train", f"--config={config_of(root)}", f"--workdir={tmp_path / 'w'}"]
    capsys.readouterr()
    assert main([*command, teacher]) == 0
    out = capsys.readouterr().out
    assert "data: 4 of 8 training clips have no labels and learn from the teacher alone" in out
    labelled, bare = log(tmp_path / "w")
    assert (labelled["with_labels"], bare["with_labels"]) == (1, 0)
    assert (labelled["with_teacher"], bare["with_teacher"]) == (1, 1)
    alone = bare["strong_teacher_loss"] + bare["weak_teacher_loss"]
    assert bare["loss"] == pytest.approx(alone, rel=1e-6)
    assert bare["strong_loss"] == bare["weak_loss"] == 0
    mixed = sum(
        0.9 * labelled[f"{k}_teacher_loss"] + 0.1 * labelled[f"{k}_loss"]
        for k in ("strong", "weak")
    )
    assert labelled["loss"] == pytest.approx(mixed, rel=1e-5)


def test_an_online_teacher_and_a_tagger_take_unlabelled_clips_too(place, tmp_path):
    root, _ = place
    command = ["train", f"--config={config_of(root)}", f"--workdir={tmp_path / 'w'}"]
    tags = ["--config.data.ops=decode | crop | multihot", "--config.objective.base=tagging"]
    labelled = f"folder(csv={str(root / 'audio' / 'clips.csv')!r})"
    of = f"--config.data.train.of={[labelled, bare_of(root)]!r}"
    teacher = f"--config.objective.teacher={root / 'teacher'}"
    assert main([*command, *tags, of, f"--config.data.eval={labelled}", teacher]) == 0
    first, second = log(tmp_path / "w")
    assert (first["with_labels"], second["with_labels"]) == (1, 0)
    assert second["loss"] == pytest.approx(second["teacher_loss"], rel=1e-6)
    want = 0.9 * first["teacher_loss"] + 0.1 * first["label_loss"]
    assert first["loss"] == pytest.approx(want, rel=1e-5)


def test_clips_with_neither_labels_nor_logits_are_counted(place, tmp_path, capsys):
    root, _ = place
    events = root / "audio" / "events.tsv"
    assert store(root, events, tmp_path / "x") == 0
    teacher = f"teacher(path={str(tmp_path / 'x')!r}, check=False)"
    ops = f"--config.data.ops=decode | crop | {STRONG} | {teacher}"
    command = ["train", f"--config={config_of(root)}", f"--workdir={tmp_path / 'w'}", ops]
    capsys.readouterr()
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "for 4 of 8 training clips; 4 have neither logits nor labels and teach nothing" in out
    assert "first 04.wav" in out
    assert log(tmp_path / "w")[1]["loss"] == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "objective detection learns from labels alone"),
        (["--config.data.draw=weighted"], "the draw weighted would never draw them"),
    ],
)
def test_other_objectives_and_draws_refuse_them(place, tmp_path, capsys, options, says):
    root, _ = place
    path = config_of(root, **({} if options else {"name": "detection"}))
    command = ["train", f"--config={path}", f"--workdir={tmp_path / 'w'}"]
    assert main([*command, *options]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
