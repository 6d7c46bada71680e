"""`asjax prepare soundscapes`: scenes of own clips and of the embedded ones, lists, page, reasons.

Covers scene_sets, scene_texts, own_clips and listening.
"""

import csv
import json
import re

import numpy as np
import pytest
import soundfile

from asjax import build, events, labels
from asjax.__main__ import main
from asjax.data import audio, bank, listening, own_clips, strong

RATE = 16_000


def tone(seconds, hz, rate=RATE):
    return 0.4 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def quiet(seconds):
    return np.zeros(round(seconds * RATE))


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder with clips.csv: 10 usable clips of 3 classes, and 8 that cannot be used."""
    folder = tmp_path_factory.mktemp("mine")
    rows = []
    for i in range(9):
        seconds, hz = ((0.4, 2000), (3.0, 300), (0.15, 5000))[i % 3]
        wave = np.concatenate([quiet(0.2), tone(seconds, hz + 10 * i), quiet(0.5)])
        soundfile.write(folder / f"c{i}.wav", wave, RATE)
        rows.append((f"c{i}.wav", ("beep", "hum", "click")[i % 3], f"fold{i // 3}"))
    soundfile.write(folder / "two.flac", tone(1, 900, 44_100), 44_100)
    rows.append(("two.flac", "beep;hum", "fold0"))
    odd = {
        "silent.wav": quiet(1),
        "hiss.wav": 1e-4 * np.random.default_rng(0).standard_normal(RATE),
        "short.wav": tone(0.05, 500),
        "blip.wav": np.concatenate([quiet(0.5), tone(0.05, 500), quiet(0.5)]),
        "unnamed.wav": tone(1, 700),
    }
    for name, wave in odd.items():
        soundfile.write(folder / name, wave, RATE, subtype="FLOAT")
        rows.append((name, "" if name == "unnamed.wav" else "beep", "fold0"))
    (folder / "broken.wav").write_bytes(b"RIFFnonsense")
    (folder / "empty.wav").write_bytes(b"")
    rows += [(name, "hum", "fold1") for name in ("broken.wav", "empty.wav", "gone.wav")]
    with (folder / "clips.csv").open("w", newline="") as f:
        csv.writer(f).writerows([("filename", "labels", "part"), *rows])
    with (folder / "plain.csv").open("w", newline="") as f:
        csv.writer(f).writerows([("filename", "labels"), *(row[:2] for row in rows)])
    return folder


@pytest.fixture
def run(capsys):
    def go(*words):
        code = main(["prepare", "soundscapes", *map(str, words)])
        done = capsys.readouterr()
        return code, done.out, done.err

    return go


REASONS = {
    "silent.wav": "its loudest 10 ms are zeros",
    "hiss.wav": "at -79 dBFS, must be above -60",
    "short.wav": "too short: 0.050 s",
    "blip.wav": "no sound in it lasts 0.08 s",
    "unnamed.wav": "no label",
    "broken.wav": "not audio",
    "empty.wav": "is empty",
    "gone.wav": "does not exist",
}


@pytest.fixture(scope="module")
def written(mine, tmp_path_factory):
    """Scenes of the clips with their splits, once for several tests."""
    out = tmp_path_factory.mktemp("out") / "scenes"
    words = ["--clips", mine / "clips.csv", "--split-column", "part", "--out", out]
    words += ["--splits", "train=fold0+fold1", "eval=fold2", "--scenes", "train=12", "eval=5"]
    words += ["--seconds", "4", "--files", out.parent / "files", "--format", "wav"]
    words += ["--listen", "1", "--licence", "CC0"]
    assert main(["prepare", "soundscapes", *map(str, words)]) == 0
    return out


def test_records_lists_and_files_agree(written):
    own = labels.LabelSet.from_csv(written / "labels.csv", "own")
    source = build.source({"name": "records", "path": str(written)}, own)
    assert own.names == ("beep", "click", "hum")
    assert sorted(set(source.split)) == ["eval", "train"]
    assert len(source) == 17
    rows = [*strong.read(written / "events_train.tsv"), *strong.read(written / "events_eval.tsv")]
    listed = strong.tidy(rows, own)
    assert not listed.counts
    for i, name in enumerate(source.ids):
        marks = source.events[i]
        theirs = listed.events[f"{name}.wav"]
        assert (theirs["class"] == marks["class"]).all()
        for key in ("onset_s", "offset_s"):
            assert np.abs(theirs[key] - marks[key]).max() < 1e-6
        assert sorted(set(marks["class"])) == source.labels[i].indices.tolist()
        assert marks["offset_s"].max() <= 4
        file, rate = soundfile.read(written.parent / "files" / f"{name}.wav", dtype="int16")
        assert rate == RATE
        assert np.array_equal(audio.read(source[i]["audio"], RATE) * 32768, file)


def test_the_splits_share_no_clip(written):
    heard = {}
    for split in ("train", "eval"):
        with (written / f"events_{split}.tsv").open(newline="") as f:
            heard[split] = {row["clip"] for row in csv.DictReader(f, delimiter="\t")}
    assert heard["eval"] <= {"c6.wav", "c7.wav", "c8.wav"}
    assert heard["train"] <= {*(f"c{i}.wav" for i in range(6)), "two.flac"}


def test_a_clip_with_two_labels_gives_two_events(written):
    with (written / "events_train.tsv").open(newline="") as f:
        rows = [r for r in csv.DictReader(f, delimiter="\t") if r["clip"] == "two.flac"]
    assert rows
    assert len(rows) % 2 == 0
    for a, b in zip(rows[::2], rows[1::2], strict=True):
        assert (a["onset"], a["offset"]) == (b["onset"], b["offset"])
        assert {a["event_label"], b["event_label"]} == {"beep", "hum"}


def test_unusable_clips_are_named_with_reasons(mine, run, tmp_path):
    words = ["--clips", mine / "plain.csv", "--out", tmp_path / "o", "--scenes", "2"]
    code, out, _ = run(*words, "--seconds", "2", "--listen", "0")
    assert code == 0
    assert "unusable recordings: 8:" in out
    notes = json.loads((tmp_path / "o" / "manifest.json").read_text())["notes"]
    reasons = {row["id"]: row["reason"] for row in notes["unusable clips"]}
    assert reasons.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert reason in reasons[name]
        assert f"  {name}: " in out
    assert "no splits, so 1 in 5 recordings is for eval" in out
    assert "split eval has no usable clip of" in out


def test_the_page_has_players_pictures_and_the_licence(written):
    page = (written / "scenes.html").read_text()
    assert page.count("<audio") == 2
    assert page.count("data:audio/mpeg;base64,") == 2
    assert page.count("data:image/svg+xml") == 2
    assert "Licence of the clips: CC0" in page
    assert "8 recordings could not be used" in page
    assert not re.search(r"(src|href)=.?https?:", page)


def test_the_embedded_scenes_are_those_of_the_source_and_carry_their_credits(run, tmp_path):
    out = tmp_path / "embedded"
    code, text, _ = run("--scenes", "3", "--out", out, "--listen", "1")
    assert code == 0
    assert "train: recordings 318" in text
    esc10 = labels.get("esc10")
    made = build.source({"name": "records", "path": str(out), "splits": "eval"}, esc10)
    source = build.source({"name": "soundscapes", "splits": "fold5", "clips": 3}, esc10)
    for i in range(3):
        want = audio.read(source[i]["audio"], RATE)
        assert np.array_equal(audio.read(made[i]["audio"], RATE), want)
        assert (made.events[i] == source.events[i]).all()
    with (out / "ATTRIBUTION.csv").open(newline="") as f:
        credits = {row["id"]: row for row in csv.DictReader(f)}
    assert len(credits) == 6
    assert all("ESC-10 (K. J. Piczak)" in row["attribution"] for row in credits.values())
    assert {row["licence"] for row in credits.values()} <= {
        "CC0", "CC-BY-3.0", "CC0 and CC-BY-3.0", "CC-BY-3.0 and CC0"
    }  # fmt: skip
    page = (out / "scenes.html").read_text()
    assert "freesound.org" in page
    assert "ESC-10 (K. J. Piczak)" in page


def test_the_same_command_makes_the_same_scenes_and_overwrites_only_on_request(run, tmp_path):
    words = ["--scenes", "2", "--listen", "0", "--out", tmp_path / "o"]
    assert run(*words)[0] == 0
    first = (tmp_path / "o" / "manifest.csv").read_bytes()
    (tmp_path / "o" / "mine.txt").write_text("keep")
    code, _, err = run(*words)
    assert code == 2
    assert "--overwrite" in err
    assert run(*words, "--overwrite", "--threads", "1")[0] == 0
    assert (tmp_path / "o" / "manifest.csv").read_bytes() == first
    assert run(*words, "--overwrite", "--splits", "all_folds=fold1")[0] == 0
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert "events_all_folds.tsv" in names
    assert not {"events_train.tsv", "events_eval.tsv"} & names
    assert (tmp_path / "o" / "mine.txt").read_text() == "keep"


def test_background_recordings_are_divided_among_the_splits(mine, run, tmp_path):
    folder = tmp_path / "street"
    folder.mkdir()
    soundfile.write(folder / "a.wav", tone(3, 100), RATE)
    soundfile.write(folder / "b.wav", tone(3, 150), RATE)
    soundfile.write(folder / "nothing.wav", quiet(3), RATE)
    soundfile.write(folder / "brief.wav", tone(0.5, 100), RATE)
    words = ["--clips", mine / "plain.csv", "--scenes", "4", "--listen", "0"]
    words += ["--background", folder, "--out", tmp_path / "o", "--snr", "-30", "-30"]
    code, out, _ = run(*words)
    assert code == 0
    assert "background nothing.wav: silent" in out
    assert "background brief.wav: too short: 0.500 s, must be at least 1 s" in out
    own = labels.LabelSet.from_csv(tmp_path / "o" / "labels.csv", "own")
    for split, other in (("train", "eval"), ("eval", "train")):
        source = build.source(
            {"name": "records", "path": str(tmp_path / "o"), "splits": split}, own
        )
        peaks = set()
        for i in range(4):
            power = np.abs(np.fft.rfft(audio.read(source[i]["audio"], RATE)))
            peaks.add(round(np.argmax(power) * RATE / (10 * RATE), -1))
        assert len(peaks) == 1, (split, other, peaks)
    (folder / "b.wav").unlink()
    code, _, err = run(*words, "--overwrite")
    assert code == 2
    assert "split eval has no usable recording" in err or "split train" in err


def test_background_folders_by_split(tmp_path):
    for split, hz in (("train", 100), ("eval", 200), ("other", 300)):
        (tmp_path / split).mkdir()
        soundfile.write(tmp_path / split / "x.wav", tone(2, hz), RATE)
    left_out = []
    made = own_clips.grounds(tmp_path, RATE, {"train": 1, "eval": 1}, 1, left_out)
    assert {split: list(one.recordings) for split, one in made.items()} == {
        "train": ["train/x.wav"], "eval": ["eval/x.wav"]
    }  # fmt: skip
    assert left_out == [("background other/x.wav", "not below a folder of a split")]


def test_a_folder_per_class(run, tmp_path):
    for label in ("dog", "cat"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for i in range(3):
            soundfile.write(tmp_path / "clips" / label / f"{i}.wav", tone(0.5, 500 + i), RATE)
    words = ["--clips", tmp_path / "clips", "--out", tmp_path / "o", "--scenes", "3"]
    assert run(*words, "--listen", "0")[0] == 0
    own = labels.LabelSet.from_csv(tmp_path / "o" / "labels.csv", "own")
    assert own.ids == ("cat", "dog")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clips", "gone.csv"], "gone.csv does not exist"),
        (["--scenes", "0"], "--scenes must be a number from 1"),
        (["--scenes", "foo=3"], "split 'foo' does not exist"),
        (["--splits", "train"], "--splits must look like"),
        (["--splits", "a=fold1", "b=fold1"], "--splits uses fold1 twice"),
        (["--splits", "a=fold9"], "split 'fold9' does not exist"),
        (["--splits", "all=fold1"], "--splits must look like"),
        (["--snr", "30", "6"], "snr_db must be two numbers"),
        (["--events", "0", "0"], "largest number of events must be"),
        (["--threads", "0"], "threads must be"),
        (["--labels", "desed10"], "no class for"),
        (["--background", "gone"], "--background must be a folder"),
        (["--steady", "dog"], "--steady belongs to --clips"),
        (["--format", "wav"], "--format belongs to --files"),
        (["--join", "nan"], "join must be"),
    ],
)
def test_wrong_options_are_one_line(run, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("--out", "o", *words)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "o").exists()


def test_wrong_options_of_own_clips(mine, run, tmp_path):
    common = ["--out", tmp_path / "o", "--clips", mine / "clips.csv", "--split-column", "part"]
    code, _, err = run(*common, "--steady", "rain")
    assert (code, "label 'rain' is not a class" in err) == (2, True)
    with (tmp_path / "bad.csv").open("w", newline="") as f:
        csv.writer(f).writerows([("filename", "labels"), ("silent.wav", "x"), ("gone.wav", "x")])
    code, _, err = run(*common[:2], "--clips", tmp_path / "bad.csv", "--audio", mine)
    assert code == 2
    assert "split train has no usable clip, so there is nothing to mix" in err
    assert "silent.wav: silent" in err


def test_the_mel_picture_shows_a_tone_at_its_height():
    low, high = (listening.log_mel(tone(1, hz).astype(np.float32), RATE) for hz in (200, 4000))
    assert low.shape == high.shape == (64, 26)
    assert (low[:, 2:-2].argmax(0) < 8).all()
    assert (high[:, 2:-2].argmax(0) > 40).all()
    scene = np.zeros(1, listening_event())
    scene[0] = (0.2, 0.6, 1, 12.0, 0, 0.0)
    svg = listening.picture(tone(1, 300), RATE, scene, ["a", "b & c"]).decode()
    assert "b &amp; c" in svg
    assert "12 dB" in svg
    empty = listening.picture(tone(1, 300), RATE, scene[:0], ["a"])
    assert empty.startswith(b"<svg")


def listening_event():
    from asjax.data import scenes

    return scenes.EVENT


def test_a_part_of_a_bank_has_the_pieces_of_its_recordings_only():
    span = np.array([[0, 100]])
    piece = bank.cut(np.ones(100, np.float32), span)
    rows = [(name, [i], False, span, piece) for i, name in enumerate("abc")]
    part = bank.build(rows, RATE).part(["c", "a"])
    assert part.used() == [0, 2]
    assert part.used_classes() == [0, 2]
    assert part.by_class() == [[[0]], [[1]]]


def test_events_list_of_a_scene_without_events(run, tmp_path):
    words = ["--scenes", "8", "--events", "0", "1", "--seconds", "2", "--listen", "1"]
    assert run(*words, "--out", tmp_path / "o")[0] == 0
    rows = strong.read(tmp_path / "o" / "events_eval.tsv")
    assert len({row.recording for row in rows}) == 8
    assert any(row.label is None for row in rows)
    esc10 = labels.get("esc10")
    source = build.source({"name": "records", "path": str(tmp_path / "o")}, esc10)
    assert {len(marks) for marks in source.events} == {0, 1}
    assert all(marks.dtype == events.EVENT for marks in source.events)
