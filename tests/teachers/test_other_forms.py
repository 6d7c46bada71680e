"""Files of others, made here in the forms that they write, come back as stored logits (take)."""

import json
import pickle
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from small_detectors import CLASSES, write_clips

from asjax.__main__ import main
from asjax.store import logits
from asjax.teachers import pretrainedsed

COUNT = 24
IDS = [f"Y{'abcdefghijk'[: 10 - len(str(i))]}{i}m" for i in range(COUNT)]  # end with m, like mp3's


def truth(name):
    return int("".join(c for c in name if c.isdigit()) or 0) % 3


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """Recordings whose names are the ids, each with one class; events over the first 0.3 s."""
    folder = write_clips(tmp_path_factory.mktemp("data") / "audio", count=COUNT)
    rows, events = ["filename,labels"], ["filename\tonset\toffset\tevent_label"]
    for i, name in enumerate(IDS):
        (folder / f"{i:02d}.wav").rename(folder / f"{name}.wav")
        rows.append(f"{name}.wav,{CLASSES.names[i % 3]}")
        events.append(f"{name}.wav\t0.0\t0.3\t{CLASSES.names[i % 3]}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    (folder / "events.tsv").write_text("\n".join(events) + "\n")
    CLASSES.to_csv(folder / "pets.csv")
    return folder


RNG = np.random.default_rng(0)
CLIP = (RNG.normal(size=(COUNT, 3)) + 6 * np.eye(3)[np.arange(COUNT) % 3]).astype(np.float16)
FRAMES = RNG.normal(size=(COUNT, 3, 40)).astype(np.float16)  # class axis before time: 4 a second
FRAMES[np.arange(COUNT), np.arange(COUNT) % 3, :2] += 6


def sed_file(path, names=IDS, scores=FRAMES, **options):
    with h5py.File(path, "w") as file:
        file["filenames"] = np.array([n.encode() for n in names], options.pop("dtype", "S"))
        file.create_dataset("strong_logits", data=scores, **options)
    return path


def run(*words):
    return main(["logits", *map(str, words)])


def labelled(audio):
    return [f"--labels={audio / 'pets.csv'}"]


# --------------------------------------------------------------------------------- PretrainedSED


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 3, 40)}, {"compression": "gzip"},
                                     {"dtype": h5py.string_dtype()}])  # fmt: skip
def test_pretrainedsed_with_the_ids_of_the_file(tmp_path, audio, options):
    file = sed_file(tmp_path / "x.hdf5", **options)
    assert (
        run("import", file, "--form=pretrainedsed", *labelled(audio), f"--out={tmp_path / 'x'}")
        == 0
    )
    found = logits.open(tmp_path / "x", CLASSES, verify=True)
    assert found.kinds == ("frames",)
    assert found.frame_rate == 4.0
    assert found.ids == IDS
    for i, name in enumerate(IDS):
        np.testing.assert_array_equal(found[name]["frames"], FRAMES[i].T)


def test_pretrainedsed_takes_the_ids_labels_and_events_of_the_data(tmp_path, audio, capsys):
    order = np.random.default_rng(1).permutation(COUNT)
    names = [IDS[i] for i in order]
    file = sed_file(tmp_path / "x.hdf5", [*names, "Ystranger___"], np.r_[FRAMES[order], FRAMES[:1]])
    words = ["import", file, "--form=pretrainedsed", *labelled(audio)]
    data = f"--data=annotated(events='{audio / 'events.tsv'}', piece_s=0)"
    assert run(*words, data, f"--out={tmp_path / 'x'}") == 0
    shown = capsys.readouterr()
    assert "1 row of the file without a clip in the data" in shown.err
    assert "mAP 1.000 of the stored logits of 24 clips by frames" in shown.out
    found = logits.open(tmp_path / "x")
    for i, name in enumerate(IDS):
        np.testing.assert_array_equal(found[f"{name}.wav"]["frames"], FRAMES[i].T)
    assert found.targets().argmax(axis=1).tolist() == [i % 3 for i in order]


def test_mangled_names_are_found_and_doubtful_ones_are_not_guessed(tmp_path, audio, capsys):
    mangled = [name.rstrip(".mp3") for name in IDS]
    mangled[0] = "Ysomething__"
    file = sed_file(tmp_path / "x.hdf5", mangled)
    words = ["import", file, "--form=pretrainedsed", *labelled(audio), f"--out={tmp_path / 'x'}"]
    assert run(*words, f"--data={audio / 'clips.csv'}", "--no-check") == 1
    assert "1 clip without logits, first" in capsys.readouterr().err
    found = logits.open(tmp_path / "x")
    assert [clip for clip, _, _ in found.missing()] == [f"{IDS[0]}.wav"]
    for i in range(1, COUNT):
        np.testing.assert_array_equal(found[f"{IDS[i]}.wav"]["frames"], FRAMES[i].T)


def test_a_wrong_order_of_the_names_is_refused(tmp_path, audio, capsys):
    file = sed_file(tmp_path / "x.hdf5", [*IDS[1:], IDS[0]])
    words = ["import", file, "--form=pretrainedsed", *labelled(audio), f"--out={tmp_path / 'x'}"]
    data = f"--data=annotated(events='{audio / 'events.tsv'}', piece_s=0)"
    assert run(*words, data) == 2
    err = capsys.readouterr().err
    assert "the logits do not belong to these clips; is the index file" in err
    assert not (tmp_path / "x").exists()
    assert run(*words, data, "--no-check") == 0
    assert "no better than chance" in capsys.readouterr().err
    assert run("check", tmp_path / "x") == 2
    assert run("check", tmp_path / "x", "--no-check") == 0


def test_export_writes_what_import_reads_and_what_their_code_reads(
    tmp_path, audio, capsys, monkeypatch
):
    file = sed_file(tmp_path / "x.hdf5")
    words = ["--form=pretrainedsed", *labelled(audio), f"--out={tmp_path / 'x'}"]
    assert run("import", file, *words) == 0
    again = tmp_path / "again.hdf5"
    assert run("export", tmp_path / "x", "--form=pretrainedsed", f"--out={again}") == 0
    with h5py.File(again) as f:  # PretrainedSED's AddPseudoLabelsTransform
        place = {name.decode("UTF-8"): i for i, name in enumerate(f["filenames"])}
        for i, name in enumerate(IDS):
            np.testing.assert_array_equal(f["strong_logits"][place[name]], FRAMES[i])
        assert f["strong_logits"].dtype == np.float16
    assert run("export", tmp_path / "x", "--form=pretrainedsed", f"--out={again}") == 2
    assert "exists; add --overwrite" in capsys.readouterr().err
    assert (
        run("export", tmp_path / "x", "--form=pretrainedsed", f"--out={again}", "--overwrite") == 0
    )
    nowhere = f"--out={tmp_path / 'no' / 'y.hdf5'}"
    assert run("export", tmp_path / "x", "--form=pretrainedsed", nowhere) == 2
    assert "does not exist" in capsys.readouterr().err
    usage = lambda _: SimpleNamespace(free=100)  # noqa: E731
    monkeypatch.setattr(pretrainedsed.shutil, "disk_usage", usage)
    full = tmp_path / "full.hdf5"
    assert run("export", tmp_path / "x", "--form=pretrainedsed", f"--out={full}") == 2
    assert f"the disk is full writing {full}" in capsys.readouterr().err
    assert not full.exists()
    folder = f"--out={tmp_path / 'x'}"
    assert run("export", tmp_path / "x", "--form=pretrainedsed", folder, "--overwrite") == 2
    assert "must be a file, it is a folder" in capsys.readouterr().err
    assert run("export", tmp_path / "x", "--form=ced", f"--out={tmp_path / 'y'}") == 2
    assert "writes --form pretrainedsed only" in capsys.readouterr().err


def bad_external(path):
    sed_file(path, scores=FRAMES)
    (path.parent / "secret").write_bytes(FRAMES.tobytes())
    with h5py.File(path, "a") as f:
        del f["strong_logits"]
        f.create_dataset(
            "strong_logits", FRAMES.shape, "f2", external=[("secret", 0, FRAMES.nbytes)]
        )


def bad_link(path):
    sed_file(path.with_name("other.hdf5"))
    with h5py.File(path, "w") as f:
        f["filenames"] = np.array([n.encode() for n in IDS])
        f["strong_logits"] = h5py.ExternalLink("other.hdf5", "/strong_logits")


def bad_virtual(path):
    sed_file(path.with_name("other.hdf5"))
    layout = h5py.VirtualLayout(FRAMES.shape, "f2")
    layout[...] = h5py.VirtualSource(path.with_name("other.hdf5"), "strong_logits", FRAMES.shape)
    with h5py.File(path, "w") as f:
        f["filenames"] = np.array([n.encode() for n in IDS])
        f.create_virtual_dataset("strong_logits", layout)


def bad_size(path):
    with h5py.File(path, "w") as f:
        f["filenames"] = np.array([b"a"])
        f.create_dataset("strong_logits", (10**9, 3, 250), "f2", chunks=(1, 3, 250))


def bad_bomb(path):
    with h5py.File(path, "w") as f:
        f["filenames"] = np.array([b"a"])
        f.create_dataset("strong_logits", data=np.zeros((4000, 3, 250), "f2"), compression="gzip")


def bad_cut(path):
    sed_file(path)
    path.write_bytes(path.read_bytes()[:-3000])


def bad_group(path):
    with h5py.File(path, "w") as f:
        f["filenames"] = np.array([b"a"])
        f.create_group("strong_logits")


def nan(path):
    scores = FRAMES.copy()
    scores[5, 1, 1] = np.nan
    sed_file(path, scores=scores)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (bad_external, "has its numbers in another file"),
        (bad_link, "points to another place"),
        (bad_virtual, "has its numbers in another file"),
        (bad_size, "claims"),
        (bad_bomb, "claims"),
        (bad_cut, "is not a sound HDF5 file"),
        (bad_group, "it is a group"),
        (nan, "are not finite as float16"),
        (lambda path: path.write_bytes(b"no hdf5"), "is not a sound HDF5 file"),
        (lambda path: sed_file(path, names=[*IDS[:-1], IDS[0]]), "occurs twice"),
        (lambda path: sed_file(path, names=["", *IDS[1:]]), "must not be empty"),
        (lambda path: sed_file(path, names=IDS[1:]), "has 24 clips, and filenames has 23"),
        (
            lambda path: sed_file(path, scores=FRAMES.transpose(0, 2, 1)),
            "axes are swapped",
        ),
        (lambda path: sed_file(path, scores=FRAMES[:, :2]), "has 2 classes, and pets has 3"),
        (lambda path: sed_file(path, scores=FRAMES[:, 0]), "must have 3 axes"),
        (lambda path: sed_file(path, scores=FRAMES.astype(int)), "a type of 'f'"),
        (lambda path: h5py.File(path, "w").close(), "is missing; the file has nothing"),
        (lambda path: None, "no file"),
    ],
)
def test_hostile_hdf5_files_are_one_line(tmp_path, audio, capsys, write, message):
    write(tmp_path / "x.hdf5")
    words = ["--form=pretrainedsed", *labelled(audio), f"--out={tmp_path / 'out'}"]
    assert run("import", tmp_path / "x.hdf5", *words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_h5py_the_error_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    sed = tmp_path / "x.hdf5"
    sed.write_bytes(b"x")
    assert run("import", sed, "--form=pretrainedsed", f"--out={tmp_path / 'x'}") == 2
    assert "pip install 'asjax[hdf5]'" in capsys.readouterr().err


# --------------------------------------------------------------------------------- EfficientAT


def effat_files(folder, table, scores=CLIP, form="pkl"):
    np.save(folder / "logits.npy", scores)
    index = folder / f"index.{form}"
    if form == "pkl":
        index.write_bytes(pickle.dumps(table))
    elif form == "json":
        index.write_text(json.dumps(table))
    else:
        index.write_text("filename,index\n" + "".join(f"{n},{i}\n" for n, i in table.items()))
    return folder / "logits.npy", index


@pytest.mark.parametrize("form", ["pkl", "json", "csv", "numpy"])
def test_efficientat_by_its_index(tmp_path, audio, capsys, form):
    order = np.random.default_rng(2).permutation(COUNT)
    table = {IDS[i][1:]: int(np.flatnonzero(order == i)[0]) for i in range(COUNT)}  # without the Y
    if form == "numpy":
        table = {name: np.int64(row) for name, row in table.items()}
    scores = np.r_[CLIP[order], CLIP[:1]]
    files = effat_files(tmp_path, table, scores, form if form != "numpy" else "pkl")
    words = ["import", *files, "--form=efficientat", *labelled(audio), f"--out={tmp_path / 'x'}"]
    assert run(*words, f"--data={audio / 'clips.csv'}") == 0
    shown = capsys.readouterr()
    assert "1 row of" in shown.err
    assert "check        mAP" in shown.out
    found = logits.open(tmp_path / "x", CLASSES)
    for i, name in enumerate(IDS):
        np.testing.assert_array_equal(found[f"{name}.wav"]["clip"], CLIP[i])


def test_the_first_wrong_index_of_efficientat_shows_at_once(tmp_path, audio, capsys):
    files = effat_files(tmp_path, {name[1:]: i for i, name in enumerate(IDS[::-1])})
    words = ["import", *files, "--form=efficientat", *labelled(audio), f"--out={tmp_path / 'x'}"]
    assert run(*words, f"--data={audio / 'clips.csv'}") == 2
    assert "is the index file or the label set wrong?" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert run(*words) == 0  # without data there is nothing to compare with
    assert "none: the logits were stored without labels" in capsys.readouterr().out
    assert run("check", tmp_path / "x", f"--data={audio / 'clips.csv'}") == 1  # other ids


class Bomb:
    def __reduce__(self):
        return (__import__("os").system, ("touch /tmp/asjax-was-here",))


GOOD = {name: i for i, name in enumerate(IDS)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Bomb(), "asks for"),
        ({"a": Bomb()}, "asks for"),
        (["a"], "must hold a dict"),
        ({}, "must hold a dict"),
        ({"a": "b"}, "must map names to rows, got 'a': 'b'"),
        ({"a": 1.5}, "must map names to rows"),
        ({1: 1}, "must map names to rows"),
        ({"a": True}, "must map names to rows"),
        ({**GOOD, "a": 24}, "'a' has row 24, and"),
        ({**GOOD, "a": -1}, "'a' has row -1, and"),
        ({**GOOD, "a": 3}, "have the same row 3"),
    ],
)
def test_wrong_indexes_are_one_line_and_nothing_of_them_runs(
    tmp_path, audio, capsys, table, message
):
    files = effat_files(tmp_path, table)
    words = ["import", *files, "--form=efficientat", *labelled(audio), f"--out={tmp_path / 'out'}"]
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_twice_in_a_json_index_is_refused(tmp_path, audio, capsys):
    array, index = effat_files(tmp_path, GOOD, form="json")
    index.write_text(f'{{"{IDS[0]}": 1, {index.read_text()[1:]}')
    words = ["import", array, index, "--form=efficientat", *labelled(audio)]
    assert run(*words, f"--out={tmp_path / 'x'}") == 2
    assert f"its field '{IDS[0]}' occurs twice" in capsys.readouterr().err


def test_wrong_files_of_efficientat_are_one_line(tmp_path, audio, capsys):
    array, index = effat_files(tmp_path, GOOD)
    out = [*labelled(audio), "--form=efficientat", f"--out={tmp_path / 'out'}"]
    whole = array.read_bytes()

    def refused(message, *files):
        capsys.readouterr()
        assert run("import", *files, *out) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1

    refused("takes two files", array)
    refused("takes two files", array, array)
    refused("no file", array, tmp_path / "no.pkl")
    array.write_bytes(whole[:-10])
    refused("is not a sound .npy file", array, index)
    array.write_bytes(b"x")
    refused("is not a sound .npy file", array, index)
    np.save(array, np.array([{"a": 1}], object), allow_pickle=True)
    refused("is not a sound .npy file", array, index)
    np.save(array, CLIP[:, :2])
    refused("has 2 classes, and pets has 3", array, index)
    np.save(array, CLIP.astype(int))
    refused("must be floats [clips, classes]", array, index)
    np.save(array, np.where(CLIP[3, 1] == CLIP, np.nan, CLIP))
    refused("are not finite", array, index)
    array.write_bytes(whole)
    index.write_bytes(index.read_bytes()[:-20])
    refused("is not a sound index file", array, index)
    array, index = effat_files(tmp_path, GOOD)
    out = ["--form=efficientat", f"--out={tmp_path / 'out'}"]
    refused("has 3 classes, and audioset527 has 527; --labels names", array, index)


# ---------------------------------------------------------------------------------------- CED


def ced_file(folder, epoch, rank, names, values, indexes, seeds, starts=None, parquet=True):
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / f"logits_ep{epoch}_{rank}.h5", "w") as f:
        for name, data, kind, axes in (
            ("topk_values", values, "f2", (None, 2)),
            ("topk_indexes", indexes, "i2", (None, 2)),
            ("seeds", seeds, "i4", (None,)),
        ):
            f.create_dataset(name, data=np.asarray(data, kind), maxshape=axes)
    starts = [0.0] * len(names) if starts is None else starts
    if parquet:
        import pyarrow as pa
        from pyarrow import parquet as pq

        columns = {"filename": names, "start": pa.array(starts, pa.float32()),
                   "end": pa.array([s + 10 for s in starts], pa.float32())}  # fmt: skip
        pq.write_table(
            pa.table(columns), folder / f"logits_ep{epoch}_{rank}.parquet", compression="brotli"
        )
    else:
        rows = "".join(f"{n},{s},{s + 10}\n" for n, s in zip(names, starts, strict=True))
        (folder / f"logits_ep{epoch}_{rank}.csv").write_text(f"filename,start,end\n{rows}")


@pytest.mark.parametrize("parquet", [True, False])
def test_ced_by_view_with_its_seeds(tmp_path, audio, parquet):
    rng, folder, want = np.random.default_rng(3), tmp_path / "chunk_10", {}
    names = [f"{name}.wav" for name in IDS]
    for epoch in (1, 2, 10):
        for rank, part in enumerate((names[:10], names[10:])):
            indexes = [[truth(n), (truth(n) + 1) % 3] for n in part]
            values = np.c_[rng.uniform(0.6, 1, len(part)), rng.uniform(0, 0.5, len(part))]
            values[0, 0] = 1.0
            seeds = rng.integers(0, 2**31, len(part))
            ced_file(folder, epoch, rank, part, values, indexes, seeds, parquet=parquet)
            for n, v, c, s in zip(part, values, indexes, seeds, strict=True):
                want[n, epoch] = (np.float16(v), c, s)
    words = ["import", folder, "--form=ced", *labelled(audio), f"--out={tmp_path / 'x'}"]
    assert run(*words, f"--data={audio / 'clips.csv'}") == 0
    found = logits.open(tmp_path / "x", CLASSES, verify=True)
    assert found.views == {"count": 3, "seed": 0, "ops": "CED"}
    assert found.top == 2
    assert len(found) == COUNT
    for (name, epoch), (values, classes, seed) in want.items():
        view = (1, 2, 10).index(epoch)
        got = found[name, view]["clip"]
        assert found.draw((name, view)) == seed
        np.testing.assert_allclose(
            1 / (1 + np.exp(-got[classes])), values, atol=2.0**-12, rtol=1e-6
        )
        assert np.isneginf(np.delete(got, classes)).all()


def test_later_chunks_of_a_recording_have_their_start_in_the_id(tmp_path, audio):
    names, starts = ["a.wav", "a.wav", "b.wav"], [0.0, 10.0, 0.0]
    ced_file(tmp_path / "c", 1, 0, names, [[0.9, 0.1]] * 3, [[0, 1]] * 3, [1, 2, 3], starts)
    words = ["--form=ced", *labelled(audio), f"--out={tmp_path / 'x'}"]
    assert run("import", tmp_path / "c", *words) == 0
    found = logits.open(tmp_path / "x")
    assert found.ids == ["a.wav", "a.wav@10s", "b.wav"]
    assert found.views is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [[0.9, 1.2]] * 2}, "must be probabilities from 0 to 1"),
        ({"values": [[0.9, np.nan]] * 2}, "must be probabilities from 0 to 1"),
        ({"indexes": [[0, 0]] * 2}, "must be different numbers from 0 to 2"),
        ({"indexes": [[0, 3]] * 2}, "must be different numbers from 0 to 2"),
        ({"indexes": [[0, -1]] * 2}, "must be different numbers from 0 to 2"),
        ({"seeds": [1]}, "do not fit together"),
        ({"names": ["a.wav"], "starts": [0.0]}, "do not fit together"),
        ({"names": ["a.wav", "a.wav"]}, "'a.wav' occurs twice in the file"),
    ],
)
def test_wrong_files_of_ced_are_one_line(tmp_path, audio, capsys, change, message):
    given = {"names": ["a.wav", "b.wav"], "values": [[0.9, 0.1]] * 2, "indexes": [[0, 1]] * 2}
    ced_file(tmp_path / "c", 1, 0, **{**given, "seeds": [1, 2], **change})
    words = ["--form=ced", *labelled(audio), f"--out={tmp_path / 'x'}"]
    assert run("import", tmp_path / "c", *words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    (tmp_path / "c" / "logits_ep1_0.parquet").unlink()
    assert run("import", tmp_path / "c", *words) == 2
    assert "needs logits_ep1_0.parquet or .csv beside it" in capsys.readouterr().err
    assert run("import", tmp_path, *words) == 2
    assert "has no file logits_ep" in capsys.readouterr().err


def test_a_clip_that_is_twice_in_a_view_is_refused_with_data_too(tmp_path, audio, capsys):
    names, both = [f"{IDS[0]}.wav", f"{IDS[1]}.wav"], ([[0.9, 0.1]] * 2, [[0, 1]] * 2, [1, 2])
    ced_file(tmp_path / "c", 1, 0, names, *both)
    file = tmp_path / "c" / "logits_ep1_0.h5"
    words = ["--form=ced", *labelled(audio), f"--data={audio / 'clips.csv'}", "--no-check"]
    assert run("import", file, file, *words, f"--out={tmp_path / 'x'}") == 2
    assert f"'{names[0]}' occurs twice in the file" in capsys.readouterr().err
    assert run("import", file, *words, f"--out={tmp_path / 'x'}") == 1  # 22 others are missing
    capsys.readouterr()
    assert run("check", tmp_path / "x", f"--data={audio / 'clips.csv'}", "--no-check") == 1
    assert (
        f"logits for 2 of 24 clips of clips; first without: {IDS[2]}.wav" in capsys.readouterr().out
    )


def test_a_view_without_a_clip_is_named(tmp_path, audio, capsys):
    both = [[0.9, 0.1]] * 2, [[0, 1]] * 2, [1, 2]
    ced_file(tmp_path / "c", 1, 0, ["a.wav", "b.wav"], *both)
    ced_file(tmp_path / "c", 2, 0, ["a.wav"], *[one[:1] for one in both])
    words = ["--form=ced", *labelled(audio), f"--out={tmp_path / 'x'}"]
    assert run("import", tmp_path / "c", *words) == 1
    assert [row[:2] for row in logits.open(tmp_path / "x").missing()] == [("b.wav", 1)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", "x"], "asjax logits import needs --out"),
        (["import", "x", "--out=y"], "asjax logits import needs --form"),
        (["import", "x", "--out=y", "--form=ced", "--top=3"], "--top does not belong"),
        (["export", "x", "--form=pretrainedsed"], "asjax logits export needs --out"),
        (["export", "x", "--form=pretrainedsed", "--out=y"], "is not a folder of logits"),
        (["check", "x"], "is not a folder of logits"),
        (["check"], "asjax logits check needs a path"),
        (["import", "x", "--form=ced", "--out=no/y"], "--out no/y: the folder"),
        (["export", "x", "--form=pretrainedsed", "--out=no/y"], "--out no/y: the folder"),
        (["merge", "x", "y", "--out=no/y"], "--out no/y: the folder"),
    ],
)
def test_actions_name_what_they_need(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
