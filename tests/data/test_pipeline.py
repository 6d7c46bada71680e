"""The pipeline: same numbers whatever the threads, workers, cache, processes and restarts."""

import contextlib
import csv
import hashlib
import io
import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
from scipy import sparse

from asjax import build, config, frontends, labels
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.data import pipeline
from asjax.data.quarantine import Quarantine

RATE, CLIP_S, CLASSES = 1000, 0.2, 4


@dataclass
class Memory:
    """A source in memory: clip i is a ramp that starts at i, in float WAV; `broken` are garbage."""

    lengths: list
    broken: frozenset = frozenset()

    def __post_init__(self):
        self.ids = [f"clip{i}" for i in range(len(self.lengths))]
        rows = [[i % CLASSES] if i % 5 else [0, 3] for i in range(len(self.lengths))]
        self.dense = np.zeros((len(rows), CLASSES), np.int8)
        for i, row in enumerate(rows):
            self.dense[i, row] = 1
        self.labels = sparse.csr_matrix(self.dense)
        self.hash = hashlib.sha256(repr(self.lengths).encode()).hexdigest()
        self.reads = 0

    def __len__(self):
        return len(self.lengths)

    def wave(self, i):
        return (i + np.arange(self.lengths[i]) / 1024).astype(np.float32)

    def __getitem__(self, i):
        self.reads += 1
        file = io.BytesIO()
        soundfile.write(file, self.wave(i), RATE, format="WAV", subtype="FLOAT")
        audio = b"RIFFgarbage" if i in self.broken else file.getvalue()
        return {"id": self.ids[i], "audio": audio, "labels": np.flatnonzero(self.dense[i])}


def memory(n=23, **kwargs):
    return Memory([50 + 37 * i % 700 for i in range(n)], **kwargs)


def piped(source, **kwargs):
    fields = {"batch_size": 8, "sample_rate": RATE, "clip_s": CLIP_S, "num_classes": CLASSES}
    return build.pipeline(source, **{**fields, "seed": 3, **kwargs})


def take(pipe, n, start=0):
    with pipe.iterate(start) as batches:
        return [next(batches) for _ in range(n)]


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            if isinstance(x[key], np.ndarray):
                assert x[key].dtype == y[key].dtype
                assert np.array_equal(x[key], y[key]), key
            else:
                assert x[key] == y[key], key


# ------------------------------------------------------------------------------------- content


def test_a_training_batch_is_the_drawn_clips_cropped_and_padded():
    source = memory()
    pipe = piped(source, draw="oversample(beta=1.0)")
    order = build.make("draw", "oversample(beta=1.0)", labels=source.labels, seed=3)
    for step, batch in enumerate(take(pipe, 4)):
        assert batch["wave"].shape == (8, 200)
        assert batch["wave"].dtype == batch["target"].dtype == batch["mask"].dtype == np.float32
        assert batch["mask"].tolist() == [1.0] * 8
        assert batch["bad"] == []
        for j in range(8):
            i = order(8 * step + j)
            assert batch["id"][j] == f"clip{i}"
            assert np.array_equal(batch["target"][j], source.dense[i])
            length, wave = min(200, source.lengths[i]), batch["wave"][j]
            start = round(float(wave[0] - i) * 1024)
            assert np.array_equal(wave[:length], source.wave(i)[start : start + length])
            assert not wave[length:].any()


def test_crops_of_one_clip_differ_from_epoch_to_epoch():
    pipe = piped(Memory([700]), batch_size=1, cache=True)
    firsts = {float(b["wave"][0, 0]) for b in take(pipe, 30)}
    assert len(firsts) > 20


def test_an_evaluation_is_one_pass_in_order_and_pads_its_last_batch():
    source = memory(21)
    pipe = piped(source, train=False)
    with pipe.iterate() as batches:
        found = list(batches)
    assert len(found) == pipe.steps_per_epoch == 3
    ids = [i for b in found for i in b["id"]]
    assert ids == [*source.ids, "", "", ""]
    assert np.concatenate([b["mask"] for b in found]).tolist() == [1] * 21 + [0] * 3
    last = found[-1]
    assert not last["wave"][5:].any()
    assert not last["target"][5:].any()
    waves = np.concatenate([b["wave"] for b in found])
    for i in range(21):
        length = min(200, source.lengths[i])
        assert np.array_equal(waves[i, :length], source.wave(i)[:length])


def test_epoch_lengths_count_draws():
    source = memory(23)
    assert piped(source).draws_per_epoch == 23
    assert piped(source).steps_per_epoch == 3
    assert piped(source, draw="expected(draws=64)").steps_per_epoch == 8


# -------------------------------------------------------------------------------------- int16


def recordings(folder, n=9, rate=RATE, odd=None, **about):
    """A folder of files of 16-bit mono PCM, as a source; `odd` writes another kind of clip 3."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    rows = ["filename,labels"]
    for i in range(n):
        samples = rng.integers(-32768, 32768, 150 + 30 * i).astype(np.int16)
        samples[:3] = -32768, 32767, 0
        how = {"subtype": "PCM_16", **(odd if odd and i == 3 else {})}
        wave = np.stack([samples] * how.pop("channels", 1), axis=1)
        suffix = ".flac" if i % 2 and how["subtype"] == "PCM_16" else ".wav"
        soundfile.write(folder / f"{i}{suffix}", wave, how.pop("rate", rate), **how)
        rows.append(f"{i}{suffix},{'abcd'[i % 4]}")
    (folder / "clips.csv").write_text("\n".join(rows))
    own = labels.LabelSet("own", tuple("abcd"), tuple("abcd"))
    return build.source({"name": "folder", "csv": str(folder / "clips.csv"), **about}, own)


def as_float(batches):
    return [{**b, "wave": np.asarray(frontends.to_float(b["wave"]))} for b in batches]


class Unaware:
    """A source that does not say what its audio is."""

    def __init__(self, source):
        self._source = source
        self.ids, self.labels, self.hash = source.ids, source.labels, source.hash

    def __len__(self):
        return len(self._source)

    def __getitem__(self, i):
        return self._source[i]


@pytest.mark.parametrize("kind", ["folder", "records"])
def test_16_bit_recordings_at_the_models_rate_are_int16_and_the_same_numbers(tmp_path, kind):
    """P6: half the bytes; on the device int16 / 32768 is what float32 would have been."""
    source = recordings(tmp_path / "clips")
    if kind == "records":
        words = ["--csv", tmp_path / "clips" / "clips.csv", "--audio", tmp_path / "clips"]
        words += ["--labels", "own", "--out", tmp_path / "out"]
        assert main(["prepare", "folder", *map(str, words)]) == 0
        own = labels.LabelSet("own", tuple("abcd"), tuple("abcd"))
        source = build.source({"name": "records", "path": str(tmp_path / "out")}, own)
    for options in ({}, {"threads": 0, "cache": False}, {"train": False}):
        got = take(piped(source, **options), 2)
        want = take(piped(Unaware(source), **options), 2)
        assert {b["wave"].dtype for b in got} == {np.dtype(np.int16)}
        assert {b["wave"].dtype for b in want} == {np.dtype(np.float32)}
        assert min(b["wave"].min() for b in got) == -32768
        same(as_float(got), want)
    assert piped(source).fingerprint == piped(Unaware(source)).fingerprint
    one = take(piped(source, workers=1), 2)
    assert one[0]["wave"].dtype == np.int16
    same(as_float(one), take(piped(Unaware(source)), 2))


@pytest.mark.parametrize(
    "odd",
    [{"subtype": "FLOAT"}, {"subtype": "PCM_24"}, {"channels": 2}, {"rate": 2000}],
    ids=["float", "24 bits", "stereo", "another rate"],
)
def test_one_recording_of_another_kind_makes_all_waves_float(tmp_path, odd):
    source = recordings(tmp_path / "clips", odd=odd)
    assert take(piped(source), 1)[0]["wave"].dtype == np.float32
    assert not source.pcm16(RATE)
    whole = recordings(tmp_path / "clips")
    assert whole.pcm16(RATE)
    assert take(piped(whole, sample_rate=2 * RATE), 1)[0]["wave"].dtype == np.float32


def test_a_recording_that_changed_is_quarantined_and_never_rounded(tmp_path):
    source = recordings(tmp_path / "clips")
    pipe = piped(source, train=False, max_bad=0.5)
    soundfile.write(tmp_path / "clips" / "4.wav", np.full(300, 1 / 3), RATE, subtype="FLOAT")
    (batch,) = take(pipe, 1)
    assert batch["wave"].dtype == np.int16
    assert batch["mask"].tolist() == [1, 1, 1, 1, 0, 1, 1, 1]
    assert "4.wav must be 16-bit mono PCM at 1000 Hz" in batch["bad"][0][1]


def test_a_broken_recording_in_an_int16_evaluation_is_int16_silence(tmp_path):
    source = recordings(tmp_path / "clips")
    pipe = piped(source, train=False, max_bad=0.5, batch_size=3)
    (tmp_path / "clips" / "0.wav").write_text("no audio")
    found = take(pipe, 3)
    assert [b["wave"].dtype for b in found] == [np.dtype(np.int16)] * 3
    assert not found[0]["wave"][0].any()
    assert found[0]["wave"][1].any()


# -------------------------------------------------------------------------------- own host ops


def events(example, rng, *, frames: int, num_classes: int):
    """As strong labels and teacher logits will be: arrays of fixed shape, a number, a text."""
    strong = np.zeros((frames, num_classes), np.uint8)
    strong[: len(example["wave"]) % frames, np.flatnonzero(example["target"])] = 1
    number = int(example["id"].removeprefix("clip"))
    return {
        **example,
        "strong": strong,
        "number": number,
        "note": f"{number}",
        "gain": rng.random(),
    }


def int16_too(example, rng, *, pcm16: bool):
    return {**example, "kind": str(example["wave"].dtype), "pcm16": pcm16}


def half(example, rng):
    return {**example, "wave": example["wave"] * np.float32(0.5)}


def uneven(example, rng, *, what: str):
    number = int(example["id"].removeprefix("clip"))
    if what == "dtype":
        return {**example, "x": np.zeros(2, np.float32 if number % 2 else np.int16)}
    return {**example, "x": np.zeros(number)} if what == "shape" else {**example, f"x{number}": 1}


def test_an_own_op_adds_arrays_that_are_batched_and_padding_does_not_meet_it():
    ops = "decode | crop | multihot | test_pipeline:events(frames=7)"
    config.trust(ops)
    source = memory(13, broken=frozenset({2}))
    for workers in (0, 1):
        pipe = piped(source, ops=ops, train=False, max_bad=0.5, batch_size=8, workers=workers)
        first, second = take(pipe, 2)
        assert first["strong"].shape == (8, 7, CLASSES)
        assert (first["strong"].dtype, first["gain"].dtype) == (np.uint8, np.float32)
        assert first["number"].tolist() == list(range(8))
        assert first["note"] == [str(i) for i in range(8)]
        assert second["id"] == [f"clip{i}" for i in range(8, 13)] + [""] * 3
        assert second["note"] == [str(i) for i in range(8, 13)] + [""] * 3
        assert not second["strong"][5:].any()
        assert second["mask"].tolist() == [1] * 5 + [0] * 3
        alone = take(piped(source, ops=ops, train=False, rows=[6, 7]), 2)[1]  # padding alone
        for key in ("strong", "wave", "number", "mask"):
            assert np.array_equal(alone[key], second[key][6:])
        assert (alone["id"], alone["note"], alone["bad"]) == (["", ""], ["", ""], [])


def test_an_own_op_gets_float_waves_unless_it_asks_for_int16(tmp_path):
    source = recordings(tmp_path / "clips")
    config.trust(["test_pipeline:half", "test_pipeline:int16_too"])
    (batch,) = take(piped(source, ops="decode | crop | multihot | test_pipeline:half"), 1)
    assert batch["wave"].dtype == np.float32
    same_draws = take(piped(Unaware(source)), 1)[0]["wave"]
    assert np.array_equal(batch["wave"], same_draws / 2)
    (batch,) = take(piped(source, ops="decode | crop | multihot | test_pipeline:int16_too"), 1)
    assert set(batch["kind"]) == {"int16"}
    assert batch["pcm16"].all()
    mixed = "decode | crop | multihot | test_pipeline:int16_too | test_pipeline:half"
    (batch,) = take(piped(source, ops=mixed), 1)
    assert set(batch["kind"]) == {"float32"}
    assert not batch["pcm16"].any()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("dtype", "x of one shape and dtype"),
        ("shape", "x of one shape"),
        ("name", "some clips only"),
    ],
)
def test_an_op_whose_arrays_differ_from_clip_to_clip_is_named(what, says):
    ops = f"decode | crop | multihot | test_pipeline:uneven(what={what!r})"
    config.trust(ops)
    with pytest.raises(AsjaxError, match=says):
        take(piped(memory(), ops=ops), 1)


def test_an_op_before_decode_keeps_the_cache_from_freezing_its_choice():
    config.trust("test_pipeline:shuffled")
    ops = "test_pipeline:shuffled | decode | crop | multihot"
    pipe = piped(Memory([300] * 4), ops=ops, batch_size=4)
    same(take(piped(Memory([300] * 4), ops=ops, batch_size=4, cache=False), 6), take(pipe, 6))
    assert len({b["number"][0] for b in take(pipe, 6)}) > 1


def shuffled(example, rng):
    return {**example, "number": rng.random()}


def test_a_cache_is_shared_out_by_clips_and_never_more_than_a_gigabyte_in_all():
    assert pipeline.cache_shares(True, (300, 100)) == [3 << 28, 1 << 28]
    assert pipeline.cache_shares(False, (300, 100)) == [0, 0]
    assert sum(pipeline.cache_shares(1000, (7, 11, 13))) <= 1000


# --------------------------------------------------------------------------------- invariance


def test_threads_and_cache_change_nothing_and_the_cache_reads_each_clip_once():
    source = memory()
    plain = take(piped(source, threads=0, cache=False), 12)
    assert source.reads == 96
    source.reads = 0
    same(plain, take(piped(source, threads=1), 12))
    assert source.reads == 23
    same(plain, take(piped(source, threads=3), 12))
    # A cache of 2,000 bytes holds a few clips; the others are read each time.
    source.reads = 0
    same(plain, take(piped(source, threads=0, cache=2000), 12))
    assert 23 < source.reads < 96


def test_workers_change_nothing_even_from_the_middle_and_with_bad_clips():
    source = memory(broken=frozenset({2, 11}))
    for train in (True, False):
        options = {"train": train, "max_bad": 0.5}
        plain = take(piped(source, **options), 3)
        assert sum(len(b["bad"]) for b in plain)
        for workers in (1, 2) if train else (1,):
            same(plain[1:], take(piped(source, workers=workers, **options), 2, start=1))


def test_two_processes_share_the_rows_of_the_single_process_batch():
    source = memory(broken=frozenset({2}))
    for train in (True, False):
        options = {"train": train, "max_bad": 0.5}
        whole = take(piped(source, **options), 3)
        parts = [
            take(piped(source, process_index=p, process_count=2, **options), 3) for p in (0, 1)
        ]
        for step, batch in enumerate(whole):
            for key in ("wave", "target", "mask"):
                assert np.array_equal(np.concatenate([p[step][key] for p in parts]), batch[key])
            for key in ("id", "bad"):
                assert parts[0][step][key] + parts[1][step][key] == batch[key]


@pytest.mark.parametrize("spec", ["shuffle", "class_queue", "weighted(replacement=False)"])
def test_resuming_at_any_step_continues_the_uninterrupted_run(spec):
    pipe = piped(memory(), draw=spec)
    whole = take(pipe, 9)
    for start in (1, 3, 8):
        same(whole[start:], take(piped(memory(), draw=spec), 9 - start, start))


def test_rows_of_any_device_are_those_of_the_whole_batch():
    source = memory(broken=frozenset({2}))
    for train in (True, False):
        whole = take(piped(source, train=train, max_bad=0.5), 3)
        for rows in ([0, 1, 6, 7], [5], [3, 4]):
            part = take(piped(source, train=train, rows=rows), 3)
            for step, batch in enumerate(whole):
                for key in ("wave", "target", "mask"):
                    assert np.array_equal(part[step][key], batch[key][rows])
                assert part[step]["id"] == [batch["id"][i] for i in rows]


def test_the_fingerprint_knows_what_changes_numbers_and_only_that():
    source = memory()
    base = piped(source).fingerprint
    for same_numbers in ({"workers": 2}, {"threads": 0}, {"cache": False}, {"process_count": 2}):
        assert piped(source, **same_numbers).fingerprint == base
    changes = (
        {"seed": 4},
        {"draw": "class_queue"},
        {"batch_size": 4},
        {"clip_s": 0.1},
        {"sample_rate": 2000},
        {"train": False},
        {"num_classes": 5},
    )
    found = {piped(source, **change).fingerprint for change in changes}
    assert len(found | {base, piped(memory(22)).fingerprint}) == len(changes) + 2


def test_an_undecodable_training_clip_gives_way_to_another_and_is_reported():
    broken = frozenset({2, 5, 11})
    source = memory(broken=broken)
    whole, sound = take(piped(source), 6), take(piped(memory()), 6)
    order = build.make("draw", "shuffle", labels=source.labels, seed=3)
    reported = 0
    for step, (batch, without) in enumerate(zip(whole, sound, strict=True)):
        assert batch["mask"].all()
        for j in range(8):
            i = order(8 * step + j)
            if i not in broken:
                assert batch["id"][j] == f"clip{i}"
                assert np.array_equal(batch["wave"][j], without["wave"][j])
            else:
                k = int(batch["id"][j].removeprefix("clip"))
                assert k not in broken
                assert np.array_equal(batch["target"][j], source.dense[k])
                reported += 1
        for clip, reason in batch["bad"]:
            assert int(clip.removeprefix("clip")) in broken
            assert clip in reason
    assert sum(len(b["bad"]) for b in whole) >= reported > 3


def test_an_undecodable_evaluation_clip_is_masked_and_reported():
    pipe = piped(memory(21, broken=frozenset({4})), train=False)
    with pipe.iterate() as batches:
        first = next(batches)
    assert first["mask"].tolist() == [1, 1, 1, 1, 0, 1, 1, 1]
    assert not first["wave"][4].any()
    assert first["id"][4] == "clip4"
    assert [clip for clip, _ in first["bad"]] == ["clip4"]


def test_too_many_bad_clips_stop_an_evaluation_and_a_hopeless_training():
    source = memory(21, broken=frozenset(range(10)))
    with pytest.raises(AsjaxError, match="evaluation set cannot be decoded, more than max_bad"):
        take(piped(source, train=False), 1)
    hopeless = memory(3, broken=frozenset(range(3)))
    with pytest.raises(AsjaxError, match="100 draws in a row could not be decoded"):
        take(piped(hopeless), 1)
    with pytest.raises(AsjaxError, match="100 draws in a row could not be decoded"):
        take(piped(hopeless, workers=1), 1)


def test_quarantine_counts_sorts_and_goes_on_from_its_file(tmp_path):
    path = tmp_path / "run" / "quarantine.csv"
    quarantine = Quarantine(path, total=100)
    quarantine.add([])
    assert not path.exists()
    quarantine.add([("b", 'says "no", twice'), ("a", "empty"), ("b", "another reason")])
    lines = ["id,reason,count", "a,empty,1", 'b,"says ""no"", twice",2']
    assert path.read_text().splitlines() == lines
    again = Quarantine(path, total=100)
    again.add([("a", "empty")])
    assert again.count == 2
    assert path.read_text().splitlines()[1] == "a,empty,2"
    assert os.listdir(path.parent) == ["quarantine.csv"]


def test_quarantine_stops_above_its_rate_and_names_file_and_reasons(tmp_path):
    path = tmp_path / "quarantine.csv"
    quarantine = Quarantine(path, total=60, max_rate=0.05)
    quarantine.add([("a", "a is empty"), ("b", "b is damaged"), ("c", "c is text")] * 9)
    with pytest.raises(AsjaxError) as raised:
        quarantine.add([("d", "d is missing")])
    message = str(raised.value)
    assert "4 of 60 clips" in message
    assert str(path) in message
    assert "a is empty; b is damaged; c is text)" in message
    assert "max_bad" in message
    assert "d,d is missing,1" in path.read_text().splitlines()


def test_quarantine_refuses_files_of_others_and_full_disks(tmp_path):
    path = tmp_path / "quarantine.csv"
    path.write_text("filename,labels\nx,y\n")
    with pytest.raises(AsjaxError, match="move it away"):
        Quarantine(path, total=10)
    with pytest.raises(AsjaxError, match="max_bad must be 0 to 1"):
        Quarantine(tmp_path / "new.csv", total=10, max_rate=5)
    (tmp_path / "file").write_text("")
    with pytest.raises(AsjaxError, match="cannot be written"):
        Quarantine(tmp_path / "file" / "q.csv", total=10).add([("a", "b")])


def test_a_long_quarantine_grows_by_lines_and_is_tidied_when_closed(tmp_path):
    """P5: a clip costs the same however long the list is, and a kill loses nothing."""
    path = tmp_path / "quarantine.csv"
    many = [(f"clip{i:05d}", f"clip{i:05d} is, empty\nor so") for i in range(3000)]
    with Quarantine(path, total=10**6) as quarantine:
        quarantine.add(many)
        size, inode = path.stat().st_size, path.stat().st_ino
        for number in range(40):
            quarantine.add([("new", "new is empty"), many[number]])
            assert path.stat().st_ino == inode  # not written anew
        grown = path.stat().st_size - size
        assert 40 * len("new,new is empty,1") < grown < 40 * 100
        assert quarantine.count == 3001
        killed = tmp_path / "killed.csv"
        killed.write_bytes(path.read_bytes() + b"half,a li")
    rows = list(csv.reader(path.open(newline="")))
    assert rows[0] == ["id", "reason", "count"]
    assert rows[1:] == sorted(rows[1:])
    counts = {clip: int(count) for clip, _, count in rows[1:]}
    assert len(rows) == 1 + len(counts) == 3002
    assert counts["new"] == 40
    assert [counts[clip] for clip, _ in many] == [2] * 40 + [1] * 2960
    assert Quarantine(killed, total=10**6).count == 3001
    assert killed.read_bytes() == path.read_bytes()
    with Quarantine(killed, total=10**6) as quarantine:
        for _ in range(3):  # the list is tidied when it has doubled
            quarantine.add(many)
        assert len(killed.read_text().splitlines()) < 3 * 2 * 3002
    assert list(csv.reader(killed.open(newline="")))[1][2] == "5"


# --------------------------------------------------------------------------- errors, processes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 7, "process_count": 2}, "batch_size must be a multiple of the 2 processes"),
        ({"process_index": 1}, "process_index must be below 1"),
        ({"clip_s": 0.0}, "clip_s"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"max_bad": 2.0}, "max_bad must be 0 to 1"),
        ({"draw": "shuffel"}, "did you mean 'shuffle'"),
    ],
)
def test_unusable_settings_are_named(change, says):
    with pytest.raises(AsjaxError, match=says):
        piped(memory(), **change)


def test_an_empty_source_and_a_negative_step_are_refused():
    with pytest.raises(AsjaxError, match="at least one clip"):
        piped(Memory([]))
    with pytest.raises(AsjaxError, match="start_step"):
        piped(memory()).iterate(-1)


def children():
    return sorted(child.pid for child in multiprocessing.active_children())


def blocks(size):
    """Names of the blocks of shared memory of that many bytes."""
    found = pathlib.Path("/dev/shm").glob("psm_*")
    with contextlib.suppress(FileNotFoundError):  # one that has gone meanwhile
        return {path.name for path in found if path.stat().st_size == size}


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="looks shared memory up in /dev/shm")
def test_the_workers_of_an_evaluation_stay_for_its_next_pass_and_leave_nothing_behind():
    """P1: a pass after the first one starts no process; a pass that is given up ends them."""
    source = memory(21, broken=frozenset({4}))
    fields = {"train": False, "clip_s": 0.207}  # a length that no other test has
    plain = take(piped(source, **fields), 3)
    with piped(source, workers=2, **fields) as pipe:
        with pipe.iterate() as batches:
            same(plain, list(batches))
        workers = children()
        assert len(workers) == 2
        for _ in range(2):
            start = time.perf_counter()
            with pipe.iterate() as batches:
                first = next(batches)
                waited_s = time.perf_counter() - start
                same(plain, [first, *batches])
            assert waited_s < 1
            assert children() == workers
        with pipe.iterate() as batches:  # taken to the last batch, but not to its end
            same(plain, [next(batches) for _ in range(3)])
        assert children() == workers
        with pipe.iterate() as batches:  # given up
            same(plain[:1], [next(batches)])
        assert not children()
        with pipe.iterate() as batches:
            same(plain, list(batches))
        assert len(children()) == 2
        assert blocks(size=8 * 207 * 4) != set()  # of the pass that has begun
    assert not children()
    deadline = time.time() + 60
    while blocks(size=8 * 207 * 4) != set() and time.time() < deadline:
        time.sleep(0.1)  # grain frees blocks in a thread
    assert blocks(size=8 * 207 * 4) == set()


def test_ctrl_c_does_not_end_workers():
    """It goes to all processes of a terminal, and the program may want to save first."""
    with piped(memory(), workers=1).iterate() as batches:
        before = next(batches)
        for pid in children():
            os.kill(pid, signal.SIGINT)
        again = list(itertools.islice(batches, 8))
    same([before, *again], take(piped(memory()), 9))


def test_a_killed_worker_is_one_clear_error():
    with piped(memory(), workers=1).iterate() as batches:
        next(batches)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(AsjaxError, match="a data worker died .*exit code -9"):
            list(itertools.islice(batches, 50))


def test_a_program_with_workers_ends_silently_even_if_it_forgets_to_close(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            from test_pipeline import memory, piped

            if __name__ == "__main__":
                batches = piped(memory(), workers=2).iterate()
                kept = [next(batches)["wave"] for _ in range(3)]
                forgotten = piped(memory(), workers=0).iterate()
                next(forgotten)
                print(sum(w.shape[0] for w in kept))
            """
        )
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, program], env=env, capture_output=True, text=True, timeout=120
    )
    assert run.stdout == "24\n"
    assert run.stderr == ""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks processes up in /proc")
def test_workers_end_when_the_program_is_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import multiprocessing, os, signal
            from test_pipeline import memory, piped

            if __name__ == "__main__":
                batches = piped(memory(), workers=1).iterate()
                next(batches)
                print(multiprocessing.active_children()[0].pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            """
        )
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    options = {"env": env, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    run = subprocess.run([sys.executable, program], timeout=120, **options)
    assert run.returncode == -signal.SIGKILL
    status = pathlib.Path(f"/proc/{int(run.stdout)}/status")
    for _ in range(100):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    os.kill(int(run.stdout), signal.SIGKILL)
    pytest.fail("the worker lived on")
