"""Clips without labels (`unlabelled`), sources in one (`joined`), and what becomes of them."""

import pickle

import numpy as np
import pytest
from small_detectors import CLASSES, CLIP_S, RATE, write_clips

from asjax import build
from asjax.config import AsjaxError
from asjax.data import unlabelled

FIELDS = dict(num_classes=3, sample_rate=RATE, clip_s=CLIP_S, threads=1)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """`labelled/` with lists, and `more/`, audio in three depths, with lists of its files."""
    root = tmp_path_factory.mktemp("data")
    write_clips(root / "labelled", count=5)
    write_clips(root / "all", count=9)
    names = ["0.wav", "deep/1.wav", "deep/er/2.wav", "é x.wav"]
    for i, name in enumerate(names):
        place = root / "more" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (root / "all" / f"{5 + i:02d}.wav").rename(place)
    (root / "more" / ".hidden").mkdir()
    (root / "more" / ".hidden" / "3.wav").write_bytes(b"no audio")
    (root / "more" / "notes.md").write_text("no audio")
    (root / "plain.txt").write_text("".join(f"more/{name}\n" for name in names))
    (root / "one.csv").write_text("filename\n" + "".join(f"more/{n}\n" for n in names))
    table = "".join(f"sunny\tmore/{name}\t3\n" for name in names)
    (root / "table.tsv").write_text("\ufeffweather\tPath\tkm\n\n" + table)
    return root, names


def source(spec):
    return build.source(spec, CLASSES)


def bare(path, **fields):
    return source(dict(name="unlabelled", path=str(path), **fields))


def both(root):
    spec = {"name": "folder", "csv": str(root / "labelled" / "clips.csv")}
    more = f"unlabelled(path={str(root / 'more')!r})"
    return source({"name": "joined", "of": [spec, more]})


def test_audio_below_a_folder_has_its_path_as_id(places):
    root, names = places
    found = bare(root / "more")
    assert found.ids == sorted(names)
    assert [found[i]["audio"] for i in range(4)] == [str(root / "more" / n) for n in sorted(names)]
    assert found.labels.shape == (4, 3)
    assert found.labels.nnz == 0
    assert not found.labelled.any()
    assert found[0]["labelled"] == 0.0


@pytest.mark.parametrize("name", ["plain.txt", "one.csv", "table.tsv"])
def test_lists_of_files_keep_their_names_and_order(places, name):
    root, names = places
    found = bare(root / name)
    assert found.ids == [f"more/{name}" for name in names]
    assert found[1]["audio"] == str(root / "more/deep/1.wav")
    short = root / "more" / "short.txt"
    short.write_text("\n".join(names))
    try:
        assert bare(short).ids == names
        moved = bare(root / "plain.txt", root=str(root))
        assert moved.ids == found.ids
    finally:
        short.unlink()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("filename\n", "has no rows"),
        ("hello\n", "must have a column such as filename, or one path in each line, got 'hello'"),
        ("more/0.wav\nmore/x.wav\n", "1 missing files: line 2 'more/x.wav'"),
        ("more/0.wav\n./more/0.wav\n", r"1 duplicate rows: line 2 './more/0.wav' \(also line 1\)"),
        ("path,km\n,3\nmore/0.wav,2\n", "1 rows without filename: line 2"),
        ("km,path\n3\n", "1 rows without filename: line 2"),
        (f"km,path\n3,{'a' * 200_000}\n", "cannot be read as CSV: field larger"),
        ("a" * 200_000, "cannot be read as CSV|must have a column"),
    ],
)
def test_wrong_lists_are_one_line(places, text, message):
    path = places[0] / "wrong.csv"
    path.write_text(text)
    with pytest.raises(AsjaxError, match=message):
        bare(path)


def test_wrong_arguments_are_one_line(places, tmp_path):
    root, _ = places
    for fields, message in (
        ({}, "needs path, or of"),
        ({"path": "x", "of": "esc10"}, "needs path, or of"),
        ({"path": str(root / "more"), "root": "x"}, "root belongs to a list of files, not"),
        ({"of": f"unlabelled(path={str(root / 'more')!r})", "root": "x"}, "root belongs to a list"),
        ({"path": str(tmp_path)}, "holds no audio"),
        ({"path": str(tmp_path / "none.txt")}, "does not exist"),
    ):
        with pytest.raises(AsjaxError, match=message):
            source({"name": "unlabelled", **fields})
    for of, message in (
        ([], "two or more"),
        ("esc10", "two or more"),
        ([f"unlabelled(path={str(root / 'more')!r})"] * 2, "every id must occur once"),
        (["nothing(x=1)", "esc10"], "nothing"),
    ):
        with pytest.raises(AsjaxError, match=message):
            source({"name": "joined", "of": of})


def test_labels_and_events_of_another_source_are_taken_away(places):
    root, _ = places
    marked = {"name": "annotated", "events": str(root / "labelled" / "events.tsv")}
    found, first = source({"name": "unlabelled", "of": marked}), source(marked)
    assert first.labels.nnz == 5
    assert found.ids == first.ids
    assert found.events is None
    assert found.labels.nnz == 0
    assert found.hash != first.hash
    assert "part" in found[0]


def test_another_file_is_another_hash(places, tmp_path):
    write_clips(tmp_path / "a", count=3)
    before = bare(tmp_path / "a").hash
    assert bare(tmp_path / "a").hash == before
    write_clips(tmp_path / "a", count=3, rate=8000)
    assert bare(tmp_path / "a").hash != before


def test_joined_sources_are_one_after_the_other(places):
    root, names = places
    found = pickle.loads(pickle.dumps(both(root)))
    assert list(found.ids) == [f"{i:02d}.wav" for i in range(5)] + sorted(names)
    np.testing.assert_array_equal(found.labelled, [True] * 5 + [False] * 4)
    want = np.zeros((9, 3))
    want[np.arange(5), np.arange(5) % 3] = 1
    np.testing.assert_array_equal(found.labels.toarray(), want)
    assert [found[i]["id"] for i in range(9)] == list(found.ids)
    assert [found[i]["labelled"] for i in range(9)] == [1.0] * 5 + [0.0] * 4
    for i in (-1, 9):
        with pytest.raises(IndexError):
            found[i]


def batches(found, ops, count=3, **more):
    fields = {"ops": ops, "draw": "sequential", "batch_size": 3, **FIELDS, **more}
    with build.pipeline(found, **fields) as made, made.iterate() as stream:
        return [next(stream) for _ in range(count)]


def test_the_host_ops_say_which_clips_have_labels(places):
    root, _ = places
    for ops in ("decode | crop | multihot", "decode | crop | strong(frame_rate=20.0)"):
        found = batches(both(root), ops)
        flags = np.concatenate([batch["has_weak"] for batch in found])
        np.testing.assert_array_equal(flags, [1] * 5 + [0] * 4)
        assert not any("labelled" in batch for batch in found)
        targets = np.concatenate([batch["target"] for batch in found])
        np.testing.assert_array_equal(targets, both(root).labels.toarray())
        workers = batches(both(root), ops, workers=1)
        np.testing.assert_array_equal(workers[1]["has_weak"], found[1]["has_weak"])
        np.testing.assert_array_equal(workers[2]["wave"], found[2]["wave"])
    labelled = source({"name": "folder", "csv": str(root / "labelled" / "clips.csv")})
    assert "has_weak" not in batches(labelled, "decode | crop | multihot")[0]


def test_events_and_labels_and_neither_in_one_batch(places):
    root, _ = places
    marked = {"name": "annotated", "events": str(root / "labelled" / "events.tsv")}
    more = {"name": "unlabelled", "path": str(root / "more")}
    found = source({"name": "joined", "of": [marked, more]})
    batch = batches(found, "decode | crop | strong(frame_rate=20.0)", 1, batch_size=9)[0]
    np.testing.assert_array_equal(batch["has_strong"], [1] * 5 + [0] * 4)
    np.testing.assert_array_equal(batch["has_weak"], [1] * 5 + [0] * 4)


def test_a_draw_with_shares_of_labelled_and_unlabelled_clips(places):
    found = both(places[0])
    draw = "strong_weak(strong=0, weak=2, unlabelled=1)"
    drawn = build.make("draw", draw, labels=found.labels, seed=1, source=found)
    got = found.labelled[drawn(np.arange(60))].reshape(20, 3)
    assert (got.sum(axis=1) == 2).all()
    for text, message in (
        ("strong_weak(weak=1, unlabelled=1)", "has no clips with events"),
        ("strong_weak(strong=0, weak=1)", "has 4 clips without labels, which would never be drawn"),
    ):
        with pytest.raises(AsjaxError, match=message):
            build.make("draw", text, labels=found.labels, seed=1, source=found)


def test_clips_without_labels_are_no_negatives(places):
    found = both(places[0])
    for fields, message in (
        ({"train": True, "objective": "tagging"}, "4 clips of .* objective tagging learns"),
        ({"train": True, "draw": "weighted"}, "the draw weighted would never draw them"),
        ({"train": False, "ops": ("decode", "multihot")}, "cannot be scored"),
    ):
        with pytest.raises(AsjaxError, match=message):
            unlabelled.check(found, **fields)
    unlabelled.check(found, train=False, ops=("decode", "listed"))
    unlabelled.check(found, train=True, objective="distillation", draw="shuffle")
    with pytest.raises(AsjaxError, match="cannot be scored"):
        batches(found, "decode | crop | multihot", train=False)
    line = "data: 4 of 9 training clips have no labels and learn from the teacher alone"
    assert unlabelled.notes(found) == [line]


def test_a_damaged_clip_without_labels_stays_one(places, tmp_path):
    write_clips(tmp_path / "a", count=2)
    (tmp_path / "a" / "00.wav").write_bytes(b"RIFF nothing")
    batch = batches(bare(tmp_path / "a"), "decode | crop | listed", 1, train=False, max_bad=1.0)[0]
    np.testing.assert_array_equal(batch["mask"], [0, 1, 0])
    np.testing.assert_array_equal(batch["labelled"], [0, 0, 0])
