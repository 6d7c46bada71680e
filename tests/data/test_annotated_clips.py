"""Human annotations of 13 real recordings, from the list to the metrics.

tests/golden/annotated_clips.csv has the annotations and .json their licences and the lengths of the
recordings. Noise of the same lengths takes the place of the sounds, which are not in the tree. Set
ASJAX_SHARED to run the same with the recordings.
"""

import csv
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import soundfile
from reference import psds as reference

from asjax import labels, metrics
from asjax.__main__ import main as asjax_main
from asjax.data import ops, sources
from asjax.events import EVENT

# recording -> events, events of the classes of AudioSet Strong by mid, seconds (to milliseconds)
RECORDINGS = {
    "strong/spinetail.flac": (18, 10, 19.542),
    "strong/count.flac": (10, 10, 5.868),
    "strong/count2.flac": (10, 10, 10.546),
    "strong/musanmix.flac": (6, 4, 74.523),
    "audioset_clips/8XpFjwhNYUE_170.flac": (22, 22, 10.000),
    "audioset_clips/9MWHXCLAX8I_30.flac": (6, 6, 10.0),
    "audioset_clips/3ptxRyVuU0w_520.flac": (1, 1, 10.0),
    "audioset_clips/4PPmyY_-YrA_30.flac": (2, 2, 10.0),
    "audioset_clips/LvNUyQ3xuAQ_0.flac": (1, 1, 10.0),
    "audioset_clips/NQNTnl0zaqU_70.flac": (11, 11, 10.0),
    "audioset_clips/O35jXasNYxc_30.flac": (14, 14, 10.0),
    "audioset_clips/XMl9lI7mKsM_50.flac": (5, 5, 10.0),
    "audioset_clips/b0RFKhbpFJA_30.flac": (5, 5, 10.0),
}
SECONDS = 80.0  # longer than every recording


@pytest.fixture(scope="module")
def golden_list(request):
    folder = request.config.rootpath / "tests" / "golden"
    with (folder / "annotated_clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    return (
        folder / "annotated_clips.csv",
        rows,
        json.loads((folder / "annotated_clips.json").read_text()),
    )


@pytest.fixture(scope="module")
def audio(tmp_path_factory, golden_list):
    """A folder with noise of the recordings' lengths and rates."""
    folder, rng = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    for name, (samples, rate) in golden_list[2]["recordings"].items():
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, rng.uniform(-0.1, 0.1, samples), rate)
    return folder


def prepared(audio, path, to, capsys, *more):
    """(exit code, what `asjax prepare strong` said)."""
    command = [
        "prepare",
        "strong",
        "--events",
        f"eval={path}",
        "--audio",
        audio,
        "--out",
        to,
        *more,
    ]
    code = asjax_main([str(word) for word in command])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_list_has_these_numbers(golden_list):
    _, rows, about = golden_list
    assert len(rows) == 111
    assert Counter(r["filename"] for r in rows) == {k: n for k, (n, *_) in RECORDINGS.items()}
    assert len({r["event_label"] for r in rows}) == 29
    assert len({r["mid"] for r in rows} - {""}) == 25
    people = [r for r in rows if "not human" not in r["annotation"]]
    assert len(people) == 105
    assert len({r["filename"] for r in people}) == 12
    for name, (samples, rate) in about["recordings"].items():
        assert round(samples / rate, 3) == pytest.approx(RECORDINGS[name][2], abs=0.0011)
        assert all(float(r["offset"]) <= samples / rate for r in rows if r["filename"] == name)


def test_classes_are_taken_by_mid_and_every_repair_is_said(golden_list, audio, tmp_path, capsys):
    path, rows, _ = golden_list
    code, said = prepared(audio, path, tmp_path / "out", capsys, "--label-column", "mid")
    assert code == 0
    for line in (
        "annotated_clips.csv: 111 lines, 13 recordings, 101 events",
        "repaired: 8 overlaps of one class (joined): annotated_clips.csv line 4 (strong/spinetail",
        "repaired: 2 events without a class (left out): annotated_clips.csv line 41 (strong/mus",
        "kept 13 clips (eval 13)",
        "left out 0",
        "101 events, 0 of them cut at the end of the decoded audio",
    ):
        assert line in said
    label_set = labels.get("audioset_strong456")
    source = sources.records(label_set, path=tmp_path / "out", splits=("eval",))
    assert sorted(source.ids) == sorted(RECORDINGS)
    for i, name in enumerate(source.ids):
        mine = [r for r in rows if r["filename"] == name and r["mid"]]
        want = naive_union((float(r["onset"]), float(r["offset"]), r["mid"]) for r in mine)
        found = source[i]["events"]
        assert len(found) == RECORDINGS[name][1]
        assert sorted((a, b, label_set.ids[c]) for a, b, c in found.tolist()) == want
        assert set(found["class"]) == set(source.labels[[i]].indices)


def naive_union(marks) -> list:
    """Events in time order; those of one class that overlap are one event."""
    out = []
    for onset, offset, label in sorted(marks):
        last = next((k for k in range(len(out)) if out[k][2] == label and onset < out[k][1]), None)
        if last is None:
            out.append((onset, offset, label))
        else:
            out[last] = (out[last][0], max(out[last][1], offset), label)
    return sorted(out)


def test_classes_by_name_and_what_has_none(golden_list, audio, tmp_path, capsys):
    path, *_ = golden_list
    code, said = prepared(audio, path, tmp_path / "out", capsys)
    assert code == 0
    assert "111 lines, 13 recordings, 90 events" in said
    assert "21 unknown classes" in said
    assert "the unknown classes are: 'SP' 14, 'CRER' 4, 'male' 3" in said
    code, said = prepared(audio, path, tmp_path / "no", capsys, "--faults", "refuse")
    assert code == 2
    assert said.count("\n") == 1
    assert not (tmp_path / "no").exists()


def test_two_spellings_of_a_class_are_told_and_one_spelling_is_taken(
    golden_list, audio, tmp_path, capsys
):
    path, rows, _ = golden_list
    code, said = prepared(audio, path, tmp_path / "no", capsys, "--labels", "own")
    assert code == 2
    assert "'Music', 'music'; names that differ only in case or spaces are one name" in said
    mended = tmp_path / "mended.csv"
    mended.write_text(path.read_text().replace(",music,", ",Music,"))
    code, said = prepared(audio, mended, tmp_path / "out", capsys, "--labels", "own")
    assert code == 0
    assert "mended.csv: 111 lines, 13 recordings, 111 events" in said
    assert "repaired" not in said
    own = labels.get(tmp_path / "out" / "labels.csv")
    assert len(own) == 28
    assert set(own.names) == {r["event_label"] for r in rows} - {"music"}
    code, said = prepared(
        audio, path, tmp_path / "by_mid", capsys, "--labels", "own", "--label-column", "mid"
    )
    assert code == 0
    assert len(labels.get(tmp_path / "by_mid" / "labels.csv")) == 25


def test_from_the_records_to_the_metrics(golden_list, audio, tmp_path, capsys):
    path, *_ = golden_list
    prepared(audio, path, tmp_path / "out", capsys, "--label-column", "mid")
    label_set = labels.get("audioset_strong456")
    source = sources.records(label_set, path=tmp_path / "out", splits=("eval",))
    common = dict(clip_s=SECONDS, train=False)
    clips, seconds = [], []
    for i in range(len(source)):
        clip = ops.decode(source[i], None, sample_rate=16_000, **common)
        clip = ops.crop(clip, None, sample_rate=16_000, **common)
        clips.append(ops.strong(clip, None, num_classes=456, **common))
        seconds.append(clip["length"] / 16_000)
    np.testing.assert_allclose(
        sorted(seconds), sorted(s for *_, s in RECORDINGS.values()), atol=2e-3
    )
    assert sum(len(clip["events"]) for clip in clips) == 101
    truth = [clip["events"].tolist() for clip in clips]
    for clip, marks in zip(clips, truth, strict=True):  # 40 ms that an event touches
        want = np.zeros((2000, 456), bool)
        for onset, offset, label in marks:
            starts = np.arange(2000) / 25
            want[(starts < offset - 1e-9) & (starts + 0.04 > onset + 1e-9), label] = True
        np.testing.assert_array_equal(clip["frame_target"] > 0, want)
    lengths = np.ceil(np.array(seconds) * 25 - 1e-6).astype(int)
    active = sorted({c for marks in truth for *_, c in marks})
    assert len(active) == 25
    rng = np.random.default_rng(0)
    scores = [
        np.round(2 * clip["frame_target"][:n] + rng.normal(0, 0.5, (n, 456)))[:, active]
        for clip, n in zip(clips, lengths, strict=True)
    ]
    listed = [[(a, b, active.index(c)) for a, b, c in marks] for marks in truth]
    given = dict(scores=scores, events=listed, durations_s=np.array(seconds))
    found = metrics.psds(**given, **metrics.PSDS1)
    want = reference.psds(scores, listed, seconds, rate=25.0)
    assert found["psds"] == pytest.approx(want[0], abs=1e-12)
    assert found["macro"] == pytest.approx(want[1], abs=1e-12)
    assert (found["n_clips"], found["n_classes"], found["n_events"].sum()) == (13, 25, 101)
    perfect = metrics.event_f1(reference=listed, estimated=listed, num_classes=25)
    assert perfect["micro"]["f1"] == 1
    assert perfect["per_class"]["n_ref"].sum() == 101


def test_the_recordings_themselves_give_the_same(golden_list, shared_dir, tmp_path, capsys):
    path, _, about = golden_list
    folder = shared_dir / "data" / "audio"
    assert path.read_bytes() == (folder / "strong_labels.csv").read_bytes()
    for name in RECORDINGS:
        (tmp_path / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, tmp_path / "audio" / name)
        info = soundfile.info(tmp_path / "audio" / name)
        assert [info.frames, info.samplerate] == about["recordings"][name]
    code, said = prepared(
        tmp_path / "audio", path, tmp_path / "out", capsys, "--label-column", "mid"
    )
    assert code == 0
    assert "111 lines, 13 recordings, 101 events" in said
    assert "kept 13 clips (eval 13)" in said
    source = sources.records(
        labels.get("audioset_strong456"), path=tmp_path / "out", splits=("eval",)
    )
    assert sum(len(source[i]["events"]) for i in range(13)) == 101
    assert source[0]["events"].dtype == EVENT
    count = Counter(int(c) for i in range(13) for c in source[i]["events"]["class"])
    label_set = labels.get("audioset_strong456")
    tick, rooster = (label_set.index(name) for name in ("Tick", "Chicken, rooster"))
    assert (count[tick], count[rooster]) == (8, 14)
    shared = labels.mapping("audioset_strong456", "esc10").any(axis=1)
    assert [c for c in count if shared[c]] == [tick]  # ESC-10's rooster is a class below: crowing
    assert label_set.ids[rooster] in labels.parents()[labels.get("esc10").mids[1][0]]
