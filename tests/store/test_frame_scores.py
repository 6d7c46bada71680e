"""Frame scores on disk are exact, read in slices and checked before use."""

import json

import numpy as np
import pytest

from asjax import events, labels, metrics
from asjax.config import AsjaxError
from asjax.store import files
from asjax.store.frame_scores import FrameScores, FrameScoresWriter, read_tsv, write_tsv

DESED = labels.get("desed10")


def logits(clips=13, frames=50, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(clips, frames, 10)).astype(dtype)


def written(path, *, dtype="float16", per_shard=4, clips=13, **options):
    """A set of shards of `per_shard` clips; the clips come in three portions."""
    scores = logits(clips)
    marks = [[(0.1, 0.1 * (2 + i % 5), i % 10), (0.3, 1 / 3, 3)] for i in range(clips)]
    marks[2] = None
    seconds = [2.0 - 0.07 * i for i in range(clips)]
    common = {"label_set": DESED, "frames": 50, "frame_rate": 25.0, "dtype": dtype}
    with FrameScoresWriter(path, **common, extra={"model": "x"}, **options) as out:
        out.per_shard = per_shard
        for a, b in ((0, 6), (6, 7), (7, clips)):
            ids = [f"clip,{i}" for i in range(a, b)]
            out.add(ids, scores[a:b], seconds[a:b], marks[a:b])
    return scores, marks, seconds


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("per_shard", [1, 4, 13, 100])
def test_everything_comes_back_whatever_the_shards(tmp_path, dtype, per_shard):
    scores, marks, seconds = written(tmp_path / "s", dtype=dtype, per_shard=per_shard)
    answer = FrameScores(tmp_path / "s", DESED, verify=True)
    stored = scores.astype(dtype)
    assert len(list((tmp_path / "s").glob("logits-*.npy"))) == -(-13 // per_shard)
    assert answer.scores.shape == (13, 50, 10)
    assert answer.scores.dtype == dtype
    for part in (
        slice(None),
        slice(3, 9),
        slice(4, 8),
        slice(12, 99),
        slice(5, 5),
        slice(0, 13, 3),
    ):
        np.testing.assert_array_equal(answer.scores[part], stored[part])
    np.testing.assert_array_equal(answer.scores[-1], stored[-1])
    with pytest.raises(IndexError):
        answer.scores[13]
    assert answer.ids == [f"clip,{i}" for i in range(13)]
    assert answer.durations_s.tolist() == seconds
    assert answer.lengths.tolist() == [int(np.ceil(25 * s - 1e-6)) for s in seconds]
    assert answer.extra == {"model": "x"}
    for got, wanted in zip(answer.events, marks, strict=True):
        if wanted is None:
            assert got is None
        else:
            np.testing.assert_array_equal(got, events.as_events(wanted))


def test_psds_reads_the_shards_as_it_reads_an_array(tmp_path):
    scores, marks, seconds = written(tmp_path / "s", clips=13)
    answer = FrameScores(tmp_path / "s")
    marks = [[] if m is None else [m[0]] for m in marks]
    options = {"durations_s": answer.durations_s, "lengths": answer.lengths, "events": marks}
    options |= {"label_set": answer.label_set, "frame_rate": answer.frame_rate, "median": 3}
    ours = metrics.psds(scores=answer.scores, **options, max_efpr=1e4)
    wanted = metrics.psds(scores=scores.astype(np.float16), **options, max_efpr=1e4)
    np.testing.assert_array_equal(ours["per_class"], wanted["per_class"])
    assert ours["macro"] > 0
    with pytest.raises(AsjaxError, match="clip 2 has no marked events"):
        metrics.psds(scores=answer.scores, **{**options, "events": answer.events})


def change_about(path, **values):
    about = json.loads((path / "about.json").read_text())
    about.update(values)
    (path / "about.json").write_text(json.dumps(about))
    (path / files.SUMS).unlink()
    files.write_sums(path)


def test_damage_is_named(tmp_path):
    path = tmp_path / "s"
    written(path)
    shard = path / "logits-00001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(AsjaxError, match="logits-00001.npy cannot be used: its size must be"):
        FrameScores(path)
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    FrameScores(path)  # the size is correct, so only the hash shows the damage
    with pytest.raises(AsjaxError, match="logits-00001.npy: its SHA-256"):
        FrameScores(path, verify=True)
    shard.unlink()
    with pytest.raises(AsjaxError, match="No such file"):
        FrameScores(path)
    shard.write_bytes(whole)
    rows = (path / "clips.csv").read_text()
    (path / "clips.csv").write_text(rows.replace("clip,3", "clip,x"))
    with pytest.raises(AsjaxError, match="clips.csv: its SHA-256"):
        FrameScores(path)
    with pytest.raises(AsjaxError, match="about.json is missing"):
        FrameScores(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 10**9}, "must hold float16"),
        ({"clips": 12}, "clips.csv is damaged: it must have 12 rows"),
        ({"dtype": "float64"}, "dtype must be one of"),
        ({"dtype": "object"}, "dtype must be one of"),
        ({"format": 1}, "format must be 2"),
        ({"label_hash": "0" * 64}, "label hash of the class list"),
        (
            {"shards": [{"clips": 1, "frames": {"file": "../x.npy", "bytes": 1}}]},
            "x.npy cannot be used",
        ),
        ({"shards": [{"clips": 13}]}, "about.json is damaged: a shard has no frames"),
        ({"shards": [{"file": "logits-00000.npy"}]}, "needs the field 'clips'"),
        ({"frames": "many"}, "about.json: frames must be an integer"),
    ],
)
def test_a_header_that_lies_allocates_nothing(tmp_path, change, message):
    path = tmp_path / "s"
    written(path)
    change_about(path, **change)
    with pytest.raises(AsjaxError, match=message):
        FrameScores(path)


def test_a_pickle_in_a_shard_is_never_loaded(tmp_path):
    path = tmp_path / "s"
    written(path, per_shard=100)
    shard = path / "logits-00000.npy"
    np.save(shard, np.array([{"a": 1}], object), allow_pickle=True)
    about = json.loads((path / "about.json").read_text())
    about["shards"][0]["frames"]["bytes"] = shard.stat().st_size
    change_about(path, shards=about["shards"])
    with pytest.raises(AsjaxError, match="must hold float16"):
        FrameScores(path)


def test_other_classes_are_refused(tmp_path):
    written(tmp_path / "s")
    with pytest.raises(AsjaxError, match="s has other classes than label set esc10: 10"):
        FrameScores(tmp_path / "s", labels.get("esc10"))


def test_what_cannot_be_stored_is_refused_and_nothing_appears(tmp_path):
    path = tmp_path / "s"
    common = {"label_set": DESED, "frames": 50, "frame_rate": 25.0}

    def add(*args, **options):
        with FrameScoresWriter(path, **common, **options) as out:
            out.add(*args)

    good = logits(1)
    for bad, message in (
        ((["a"], np.full((1, 50, 10), 7e4), [1.0]), "clip 'a' are not finite as float16"),
        ((["a"], np.full((1, 50, 10), np.nan), [1.0]), "not finite as float16"),
        ((["a"], good[:, :49], [1.0]), "logits must be \\(1, 50, 10\\)"),
        ((["a"], good, []), "need as many durations"),
        ((["a"], good, [0.0]), "must occur once and have a duration"),
        ((["a", "a"], logits(2), [1.0, 1.0]), "must occur once"),
    ):
        with pytest.raises(AsjaxError, match=message):
            add(*bad)
        assert not list(tmp_path.iterdir())
    with pytest.raises(AsjaxError, match="float16 or float32"):
        FrameScoresWriter(path, **common, dtype="int8")
    add(["a"], np.full((1, 50, 10), 7e4), [1.0], dtype="float32")
    with pytest.raises(AsjaxError, match="exists; add --overwrite, or choose another folder"):
        add(["a"], good, [1.0])
    add(["b"], good, [1.0], overwrite=True)
    assert FrameScores(path).ids == ["b"]
    (path / "notes.txt").write_text("mine")
    with pytest.raises(AsjaxError, match="or has other files too; choose another folder"):
        add(["c"], good, [1.0], overwrite=True)
    assert (path / "notes.txt").read_text() == "mine"


def test_score_files_of_sed_scores_eval(golden, tmp_path):
    case = golden("sed_events_formats")[0]["sed_scores_tsv"]
    (tmp_path / "a.tsv").write_text(case["text"])
    edges, names, scores = read_tsv(tmp_path / "a.tsv")
    np.testing.assert_allclose(edges, np.arange(7) * 0.04)
    assert names == ["alarm", "bark", "cough", "speech"]
    np.testing.assert_array_equal(scores, np.array(case["scores"]) / 1e4)
    write_tsv(tmp_path / "b.tsv", scores, names)
    assert (tmp_path / "b.tsv").read_text() == case["text"]
    for text in ("", "onset\toffset\tx\n", "a\tb\n1\t2\n", "onset\toffset\tx\n0\t1\t2\n3\t4\t5\n"):
        (tmp_path / "bad.tsv").write_text(text)
        with pytest.raises(AsjaxError, match="score file .* cannot be read"):
            read_tsv(tmp_path / "bad.tsv")
    with pytest.raises(AsjaxError, match="scores must be"):
        write_tsv(tmp_path / "c.tsv", scores, names[:2])
