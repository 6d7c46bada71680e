"""Contents of a batch: int16 or float waves, arrays of user-defined host ops, padding."""

import numpy as np
import pytest
import soundfile
from test_pipeline import CLASSES, RATE, Memory, memory, piped, same, take

from asjax import build, config, frontends, labels
from asjax.__main__ import main
from asjax.config import AsjaxError
from asjax.data import pcm16
from asjax.data.audio import AudioError

# -------------------------------------------------------------------------------------- int16


def recordings(folder, n=9, rate=RATE, odd=None, **about):
    """A source of a folder with 16-bit mono PCM files; `odd` writes clip 3 in another format."""
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
    """A source without information about its audio format."""

    def __init__(self, source):
        self._source = source
        self.ids, self.labels, self.hash = source.ids, source.labels, source.hash

    def __len__(self):
        return len(self._source)

    def __getitem__(self, i):
        return self._source[i]


@pytest.mark.parametrize("kind", ["folder", "records"])
def test_16_bit_recordings_at_the_models_rate_are_int16_and_the_same_numbers(tmp_path, kind):
    """int16 has half the bytes, and int16 / 32768 on the device equals the float32 wave."""
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


def test_a_folder_of_too_many_files_is_not_looked_at(tmp_path, monkeypatch):
    source = recordings(tmp_path / "clips")
    monkeypatch.setattr(pcm16, "_PROBED", 8)
    assert not source.pcm16(RATE)
    monkeypatch.setattr(pcm16, "_PROBED", 9)
    assert source.pcm16(RATE)
    assert pcm16.rate_of(tmp_path / "gone.wav") == pcm16.rate_of(b"RIFF") == 0


def test_records_of_before_say_by_their_encoding_what_they_hold():
    flac = {"encoding": {"container": "flac", "sample_rate": 32000}}
    assert pcm16.rate_of_records(flac) == 32000
    assert pcm16.rate_of_records({**flac, "pcm16_hz": 0}) == 0
    for encoding in ({"container": "ogg", "sample_rate": 32000}, {"container": "flac"}, None):
        assert pcm16.rate_of_records({"encoding": encoding}) == 0
    assert pcm16.rate_of_all({8000}) == 8000
    assert pcm16.rate_of_all({8000, 0}) == pcm16.rate_of_all(set()) == 0


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
    """Like strong labels and teacher logits: arrays of fixed shape, a number, a text."""
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
    ops = "decode | crop | multihot | test_batch:events(frames=7)"
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
        alone = take(piped(source, ops=ops, train=False, rows=[6, 7]), 2)[1]  # only padding
        for key in ("strong", "wave", "number", "mask"):
            assert np.array_equal(alone[key], second[key][6:])
        assert (alone["id"], alone["note"], alone["bad"]) == (["", ""], ["", ""], [])


def test_an_own_op_gets_float_waves_unless_it_asks_for_int16(tmp_path):
    source = recordings(tmp_path / "clips")
    config.trust(["test_batch:half", "test_batch:int16_too"])
    (batch,) = take(piped(source, ops="decode | crop | multihot | test_batch:half"), 1)
    assert batch["wave"].dtype == np.float32
    same_draws = take(piped(Unaware(source)), 1)[0]["wave"]
    assert np.array_equal(batch["wave"], same_draws / 2)
    (batch,) = take(piped(source, ops="decode | crop | multihot | test_batch:int16_too"), 1)
    assert set(batch["kind"]) == {"int16"}
    assert batch["pcm16"].all()
    mixed = "decode | crop | multihot | test_batch:int16_too | test_batch:half"
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
    ops = f"decode | crop | multihot | test_batch:uneven(what={what!r})"
    config.trust(ops)
    with pytest.raises(AsjaxError, match=says):
        take(piped(memory(), ops=ops), 1)


def test_an_op_before_decode_keeps_the_cache_from_freezing_its_choice():
    config.trust("test_batch:shuffled")
    ops = "test_batch:shuffled | decode | crop | multihot"
    pipe = piped(Memory([300] * 4), ops=ops, batch_size=4)
    same(take(piped(Memory([300] * 4), ops=ops, batch_size=4, cache=False), 6), take(pipe, 6))
    assert len({b["number"][0] for b in take(pipe, 6)}) > 1


def shuffled(example, rng):
    return {**example, "number": rng.random()}


def test_a_clip_that_an_op_before_decode_refuses_is_masked():
    ops = "test_batch:picky | decode | crop | multihot"
    config.trust(ops)
    (batch,) = take(piped(memory(8), ops=ops, train=False, max_bad=0.5), 1)
    assert batch["mask"].tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    assert batch["bad"] == [("clip3", "clip3 is not wanted")]
    assert not batch["wave"][3].any()
    assert batch["target"][3].any()


def picky(example, rng):
    if example["id"] == "clip3":
        raise AudioError("clip3 is not wanted")
    return example


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
