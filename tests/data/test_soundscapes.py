"""The embedded scenes: pure functions of folds, seed and number, with the stated statistics."""

import csv
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from test_pipeline import piped, take

from asjax import build, events, labels
from asjax.config import AsjaxError
from asjax.data import audio, soundscapes
from asjax.data.shared import Parcel

ESC10 = labels.get("esc10")
FEW = labels.LabelSet("few", ESC10.ids[2:], ESC10.names[2:])  # by name, without mids
MANIFEST = next(soundscapes.ESC10.glob("*/manifest.csv"))


def source(label_set=ESC10, **over):
    spec = {"name": "soundscapes", "splits": "fold5", "clips": 20} | over
    return build.source(spec, label_set)


@pytest.fixture(scope="module")
def scenes():
    return source(splits=["fold1", "fold2", "fold3", "fold4"], clips=2000)


def test_the_recordings_have_about_540_active_spans():
    """The prototype of the specification found 537 spans, with another order of joining."""
    folds = [f"fold{i}" for i in range(1, 6)]
    made, cells, _ = soundscapes.embedded(tuple(folds), 16_000)
    assert len(made.recordings) == 398
    assert 520 <= len(made.pieces) <= 550
    seconds = {}
    for piece in made.pieces:
        seconds.setdefault(cells[piece["recording"]][0], []).append(piece["length"] / 16_000)
    assert set(seconds) == set(ESC10.names)
    counts = {name: len(found) for name, found in seconds.items()}
    assert 115 <= counts.pop("dog") <= 130
    assert 65 <= counts.pop("crying_baby") <= 75
    assert 55 <= counts.pop("sneezing") <= 62
    assert 36 <= counts.pop("rooster") <= 40
    assert set(counts) == set(soundscapes.STEADY)
    assert all(40 <= n <= 42 for n in counts.values())
    assert np.median(seconds["dog"]) == pytest.approx(0.52, abs=0.05)
    assert np.median(seconds["rain"]) == pytest.approx(5, abs=0.1)


def test_the_scenes_have_the_statistics_of_the_rules(scenes):
    """Specification: 3.0 events a scene, 6.8 % of class-frames active."""
    found = [scenes.events[i] for i in range(2000)]
    assert 2.9 < np.mean([len(e) for e in found]) < 3.1
    active = [
        events.to_frames(e, frames=250, num_classes=10, rule="centre").mean() for e in found[:800]
    ]
    assert 0.062 < np.mean(active) < 0.074
    per_class = np.bincount(np.concatenate(found)["class"], minlength=10) / 6000
    assert per_class.min() > 0.085
    assert per_class.max() < 0.115
    snr = np.concatenate([scenes.audio.scene(i)["snr_db"] for i in range(2000)])
    assert snr.min() >= 6
    assert snr.max() <= 30
    assert abs(snr.mean() - 18) < 0.5
    counts = np.bincount([len(e) for e in found], minlength=6)
    assert counts[0] == 0
    assert counts[1:].min() > 330


def test_the_source_is_what_a_source_must_be(scenes):
    example = scenes[3]
    assert set(example) == {"id", "audio", "labels", "events"}
    assert example["id"] == "fold1+fold2+fold3+fold4-0-000003"
    assert len(set(scenes.ids)) == 2000
    assert set(scenes.split) == {"fold1+fold2+fold3+fold4"}
    assert example["labels"].dtype == np.int64
    assert example["events"].dtype == events.EVENT
    assert sorted(set(example["events"]["class"])) == example["labels"].tolist()
    assert (example["events"] == events.in_order(example["events"])).all()
    wave = audio.read(example["audio"], 16_000)
    assert np.array_equal(wave * 32768, scenes.audio.wave(3))
    assert len(wave) == 160_000
    assert scenes.pcm16(16_000)
    assert not scenes.pcm16(32_000)
    with pytest.raises(IndexError):
        scenes[2000]


def test_no_recording_of_a_training_fold_is_in_an_evaluation_scene(scenes):
    with open(MANIFEST, newline="") as f:
        fold = {row["id"]: row["split"] for row in csv.DictReader(f)}
    for them, folds in ((scenes, {"fold1", "fold2", "fold3", "fold4"}), (source(), {"fold5"})):
        names = [
            them.audio.bank.recordings[e["recording"]]
            for i in range(len(them))
            for e in them.audio.scene(i)
        ]
        assert {fold[name] for name in names} == folds
    rows = [row.tolist() for row in (scenes.audio.noise[:20], source().audio.noise)]
    assert not set(rows[0]) & set(rows[1])


def _read(packed, order):
    """The audio of scenes in another process."""
    them = pickle.loads(packed)
    return [them[i]["audio"] for i in order]


def test_a_scene_is_the_same_in_any_thread_process_and_order():
    them = source()
    want, order = [them[i]["audio"] for i in range(20)], [13, 2, 19, 2, 0]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: them[i]["audio"], reversed(range(20)))) == want[::-1]
    parcel = Parcel(them)  # as for workers of the pipeline
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for packed in (pickle.dumps(them), pickle.dumps(parcel)):
            assert pool.submit(_read, packed, order).result(60) == [want[i] for i in order]
    again = source(clips=25)
    assert [again[i]["audio"] for i in range(20)] == want
    assert all(source(seed=1)[i]["audio"] != want[i] for i in range(20))


def test_workers_make_the_batches_of_this_process():
    fields = {"sample_rate": 16_000, "clip_s": 10.0, "num_classes": 10, "batch_size": 4}
    want = take(piped(source(), **fields), 3)
    got = take(piped(source(), workers=2, threads=2, **fields), 3)
    for mine, theirs in zip(got, want, strict=True):
        assert all(np.array_equal(mine[key], theirs[key]) for key in ("wave", "target", "id"))


def test_scenes_train_a_detector_through_the_pipeline():
    made = build.pipeline(
        source(clips=4),
        num_classes=10,
        batch_size=4,
        sample_rate=16_000,
        clip_s=10.0,
        train=False,
        ops="decode | crop | strong",
    )
    with made.iterate() as batches:
        batch = next(batches)
    assert batch["wave"].dtype == np.int16
    assert batch["frame_target"].shape == (4, 250, 10)
    for i in range(4):
        found = source(clips=4).events[i]
        assert (batch["events"][i] == found).all()
        assert batch["has_strong"][i] == 1
        naive = np.zeros((250, 10))
        for onset, offset, label in found:
            naive[int(onset * 25) : int(np.ceil(offset * 25)), label] = 1
        assert np.array_equal(batch["frame_target"][i], naive)


def test_another_label_set_hears_the_same_scenes():
    many = source(labels.get("audioset527"))
    for i in range(20):
        assert many[i]["audio"] == source()[i]["audio"]
    assert many.hash != source().hash
    table = labels.mapping("esc10", "audioset527")
    for mine, theirs in zip(source().events, many.events, strict=True):
        assert (events.relabelled(mine, table) == theirs).all()


def test_folds_by_number_and_all_folds():
    assert source(splits=5).hash == source(splits=["fold5"]).hash == source().hash
    assert source(splits=None, clips=2).split[0] == "fold1+fold2+fold3+fold4+fold5"
    assert source(splits=["fold2", "fold1"]).hash == source(splits=["fold1", "2"]).hash


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"splits": "fold6"}, "split 'fold6' does not exist"),
        ({"splits": []}, "must name at least one"),
        ({"clips": 0}, "clips must be a whole number from 1"),
        ({"clips": 1e4}, "clips must be a whole number"),
        ({"seed": -1}, "seed must be"),
        ({"polyphony": 0}, "polyphony must be"),
        ({"sample_rate": 0}, "sample_rate must be"),
        ({"snrdb": 3}, "snr_db"),
        (
            {"label_set": labels.LabelSet("few", ESC10.ids[2:], ESC10.names[2:])},
            "for dog, rooster;",
        ),
    ],
)
def test_wrong_options_are_errors_of_one_line(wrong, message):
    with pytest.raises(AsjaxError, match=message) as caught:
        source(wrong.pop("label_set", ESC10), **wrong)
    assert "\n" not in str(caught.value)


def test_hash_and_options():
    hashes = {
        source(**over).hash
        for over in ({}, {"seed": 1}, {"clips": 21}, {"snr_db": (0, 30)}, {"splits": "fold4"})
    }
    assert len(hashes) == 5
    assert source(snr_db=[6, 30]).hash == source().hash
