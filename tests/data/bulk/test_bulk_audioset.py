"""`asjax prepare audioset` on a small copy of every form, with bad clips among them."""

import collections
import csv

import numpy as np
import pytest
import small_audioset

from asjax.__main__ import main
from asjax.data import audio, records


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_audioset.Made(tmp_path_factory.mktemp("audioset"))


@pytest.fixture(scope="module")
def prepared(made, tmp_path_factory):
    """pcm16 at 8 kHz, by one process."""
    out = tmp_path_factory.mktemp("out") / "audioset"
    words = ("--encode", "pcm16", "--sample-rate", str(small_audioset.RATE), "--workers", "1")
    assert main(made.command(out, *words)) == 0
    return out


def report(out):
    with (out / "report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_listed_clip_ends_in_the_state_that_was_made(made, prepared):
    found = {row["id"]: row["state"] for row in report(prepared)}
    wanted = {row[1]: made.states.get(row[1], "missing") for row in made.listed}
    assert {k: (found[k], v) for k, v in wanted.items() if found[k] != v} == {}
    assert len(report(prepared)) == len(made.listed) == 400


def test_the_states_of_a_list_sum_to_its_lines(made, prepared):
    manifest = records.Dataset(prepared).manifest
    lines = collections.Counter(row[0].removesuffix("_train") for row in made.listed)
    assert {name: sum(states.values()) for name, states in manifest["states"].items()} == lines
    assert manifest["clips"] == sum(state == "kept" for state in made.states.values())


def test_labels_and_splits_are_those_of_the_list(made, prepared):
    wanted = {row[1]: row for row in made.listed}
    for clip, split, labels, *_ in records.Dataset(prepared, verify=True).rows():
        assert set(labels.split(";")) == set(wanted[clip][4])
        assert split == ("eval" if wanted[clip][0] == "eval" else "train")


def test_the_sound_of_a_clip_is_its_own(made, prepared):
    """Against the sound that was made for this id, at its rate: int16 samples differ by rounding
    only."""
    dataset = records.Dataset(prepared)
    place = {row[0]: i for i, row in enumerate(dataset.rows())}
    assert dataset.manifest["encoding"] == "pcm16"
    for clip, seed in made.seeds.items():
        raw = np.frombuffer(dataset.reader.record(place[clip])["audio"][0], "<i2")
        wanted = np.clip(small_audioset.wave(seed), -1, 1)
        assert len(raw) == len(wanted)
        assert np.abs(raw / 32768 - wanted).max() < 1.1 / 32768, clip
        read = audio.read(dataset.reader[place[clip]], small_audioset.RATE)
        np.testing.assert_array_equal(read, raw / np.float32(32768))


def test_counts_per_class_and_the_picture(made, prepared):
    with (prepared / "classes.csv").open(newline="") as file:
        rows = {(row["list"], row["class"]): row for row in csv.DictReader(file)}
    listed = [row for row in made.listed if row[0] == "eval"]
    count = collections.Counter(mid for row in listed for mid in row[4])
    kept = collections.Counter(
        mid for row in listed if made.states.get(row[1]) == "kept" for mid in row[4]
    )
    assert {mid: int(rows["eval", mid]["listed"]) for mid in count} == count
    assert {mid: int(rows["eval", mid]["kept"]) for mid in count} == {m: kept[m] for m in count}
    assert (prepared / "classes.png").read_bytes()[:4] == b"\x89PNG"
