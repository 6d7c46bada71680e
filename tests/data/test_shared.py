"""Data for worker processes: small pickles, shared arrays, no leftovers."""

import os
import pickle
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest
from scipy import sparse

from asjax import build, labels
from asjax.data import records, sources
from asjax.data.shared import Parcel, Strings

TEXTS = ["", "a", "ü 音", "x" * 1000, "\udcff broken \ud800", "a\nb"]


def test_strings_are_the_list_they_were_made_of():
    strings = Strings(TEXTS)
    assert list(strings) == TEXTS
    assert len(strings) == 6
    assert strings[-1] == TEXTS[-1]
    assert "ü 音" in strings
    assert len(Strings([])) == 0
    for beyond in (6, -7):
        with pytest.raises(IndexError):
            strings[beyond]


def test_strings_from_arrow_equal_those_from_a_list_and_take_gives_any_of_them():
    import pyarrow as pa

    texts = [text for text in TEXTS if text.isprintable() or text == "a\nb"] * 3000
    arrays = [pa.array(texts[:7]), pa.array([], pa.string()), pa.array(["no", *texts[7:]])[1:]]
    joined = Strings.joined(arrays)
    assert list(joined) == texts == list(Strings(texts))
    which = np.random.default_rng(0).integers(0, len(texts), 500)
    assert list(joined.take(which)) == [texts[i] for i in which]
    assert joined.take(np.arange(len(texts))) == Strings(texts)
    assert joined != Strings(texts[:-1])
    assert joined == texts == joined
    assert joined != texts[:-1]
    assert joined[3:9:2] == texts[3:9:2]
    assert joined[:0] == []
    assert joined != [*texts[:-1], "another"]
    assert joined != "text"
    assert len(Strings.joined([])) == len(joined.take([])) == 0


def test_a_parcel_gives_the_object_with_arrays_that_are_mapped_and_read_only():
    rng = np.random.default_rng(0)
    big, odd = rng.normal(size=(1000, 100)), rng.normal(size=(50, 40))[:, ::3]
    value = {"big": big, "odd": odd, "none": np.zeros((0, 3), np.int8), "text": "x", "of": [big]}
    parcel = Parcel(value)
    data = pickle.dumps(parcel)
    assert len(data) < 1000
    again = pickle.loads(data)
    np.testing.assert_array_equal(again["big"], big)
    np.testing.assert_array_equal(again["odd"], odd)
    assert again["none"].shape == (0, 3)
    assert again["big"] is again["of"][0]
    assert not again["big"].flags.writeable
    assert again["big"].ctypes.data % 64 == 0
    path = parcel.path
    del parcel
    np.testing.assert_array_equal(again["big"], big)  # an open block stays valid
    with pytest.raises((FileNotFoundError, pickle.UnpicklingError, ValueError, EOFError)):
        pickle.loads(data)
    assert not os.path.exists(path)


def test_another_process_opens_a_parcel(tmp_path):
    parcel = Parcel({"x": np.arange(1000), "ids": Strings(TEXTS[:4])})
    (tmp_path / "p").write_bytes(pickle.dumps(parcel))
    code = (
        "import pickle, sys\n"
        "v = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(v['x'].sum(), ascii(v['ids'][2]))"
    )
    out = subprocess.check_output([sys.executable, "-c", code, tmp_path / "p"], text=True)
    assert out == f"{999 * 500} {ascii(TEXTS[2])}\n"


def test_without_memory_files_a_temporary_file_does_it(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    parcel = Parcel(np.arange(5))
    path = parcel.path
    assert os.path.isfile(path)
    assert pickle.loads(pickle.dumps(parcel)).tolist() == [0, 1, 2, 3, 4]
    del parcel
    assert not os.path.exists(path)


def many_clips(n=200_000):
    """A source of non-existing records with ids, splits and labels as in AudioSet."""
    rng = np.random.default_rng(0)
    columns = np.sort(rng.integers(0, 527, (n, 2)), axis=1).ravel()
    ends = np.arange(0, 2 * n + 1, 2)
    matrix = sparse.csr_matrix((np.ones(2 * n, np.int8), columns, ends), (n, 527))
    ids = [f"{i:011d}_{i % 600}" for i in range(n)]
    reader = records.Reader([(f"shard{k}", n // 100) for k in range(100)])
    return sources.Source("many", ids, ["train"] * n, matrix, "hash", reader, np.arange(n))


@pytest.mark.parametrize("spec", ["shuffle", "oversample(beta=0.5)", "class_queue"])
def test_what_a_worker_is_sent_does_not_grow_with_the_source(spec):
    """Ids, splits, labels and draws are in shared memory, not in the pickle of each worker."""
    source = many_clips()
    pipe = build.pipeline(
        source, batch_size=4, sample_rate=100, clip_s=1.0, num_classes=527, draw=spec
    )
    sent = [cloudpickle.dumps(pipe.steps[k:]) for k in (0, 1)]
    assert max(map(len, sent)) < 20_000
    steps = cloudpickle.loads(sent[0])
    theirs = steps.parents[0]._examples._source
    for i in (0, 7, 199_999):
        assert theirs.ids[i] == source.ids[i]
        assert theirs.split[i] == "train"
        assert np.array_equal(theirs.labels[i].indices, source.labels[i].indices)
    draw, ours = steps.parents[0]._examples._draw, pipe.steps._examples._draw
    assert [draw(n) for n in range(99)] == [ours(n) for n in range(99)]


def test_a_folder_source_travels_with_its_paths(tmp_path):
    for name in ("a ü.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "l.csv").write_text("filename,labels\na ü.wav,x\nb.wav,x\n", encoding="utf-8")
    own = labels.LabelSet("own", ("x",), ("x",))
    source = build.source({"name": "folder", "csv": str(tmp_path / "l.csv")}, own)
    parcel = Parcel(source)
    again = pickle.loads(pickle.dumps(parcel))
    assert [again[i]["audio"] for i in (0, 1)] == [source[i]["audio"] for i in (0, 1)]
    assert list(again.ids) == source.ids
