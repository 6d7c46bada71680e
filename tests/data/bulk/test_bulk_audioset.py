"""`asjax prepare audioset` on a small copy of every form, with bad clips among them."""

import collections
import csv

import numpy as np
import pytest
import small_audioset

from asjax import build, labels
from asjax.__main__ import main
from asjax.data import audio, records
from asjax.data.bulk import listed


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
    for clip, split, cell, *_ in records.Dataset(prepared, verify=True).rows():
        assert set(cell.split(";")) == set(wanted[clip][4])
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


def test_flac_and_pcm16_records_are_the_same_samples_in_a_pipeline(made, prepared, tmp_path):
    """Also where the source is FLAC already, and is stored as it is."""
    words = ("--encode", "flac", "--sample-rate", str(small_audioset.RATE), "--workers", "1")
    assert main(made.command(tmp_path / "flac", *words)) == 0
    batches = []
    for path in (prepared, tmp_path / "flac"):
        spec = {"name": "records", "path": str(path), "splits": ["eval"]}
        source = build.source(spec, labels.get("audioset527"))
        assert source.pcm16(small_audioset.RATE)
        stream = build.pipeline(
            source, batch_size=8, sample_rate=small_audioset.RATE, clip_s=1.0, num_classes=527,
            train=False,
        )  # fmt: skip
        with stream.iterate() as found:
            batches.append([(b["id"], np.asarray(b["wave"]), b["target"]) for b in found])
    for one, two in zip(*batches, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)
    assert sum(len(ids) for ids, *_ in batches[0]) >= 90
    assert max(np.abs(wave).max() for _, wave, _ in batches[0]) > 0.3


def test_the_official_eval_list_is_accounted_for(made, tmp_path, shared_dir):
    """A handful of clips against all 20,371 lines: the rest is missing, and the sum is the list."""
    words = made.command(tmp_path / "out", "--splits", "eval", "--workers", "1")
    words[words.index("--lists") + 1] = str(shared_dir / "data/metadata/audioset")
    assert main(words) == 0
    states = records.Dataset(tmp_path / "out").manifest["states"]["eval"]
    mine = [row for row in made.listed if row[0] == "eval"]
    kept = sum(made.states.get(row[1]) == "kept" for row in mine)
    assert sum(states.values()) == 20_371
    assert states["kept"] == kept
    assert len(report(tmp_path / "out")) == 20_371


@pytest.mark.slow
def test_the_official_lists_name_every_clip_once(shared_dir):
    found = listed.of_audioset(
        shared_dir / "data/metadata/audioset", "train,eval", labels.get("audioset527")
    )
    counts = collections.Counter(found.lists)
    assert counts == {"balanced": 22_160, "unbalanced": 2_041_789, "eval": 20_371}
    assert not found.twice
    assert len(found.row) == 2_084_320
