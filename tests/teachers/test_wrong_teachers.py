"""Wrong teachers, each at the start of a training and in `asjax logits check, merge, import`.

Another label set, another frame rate, missing and duplicated ids, cut files, NaN, a wrong index;
and files that would run code or fill the memory. Each is one line and exit code 2, before anything
is written. Ids without logits are counted and named, and the clips learn from their labels.
"""

import json
import pickle
import struct

import numpy as np
import pytest
from small_detectors import CLASSES, CLIP_S, FRAMES, RATE, write_clips

from asjax import labels
from asjax.__main__ import main
from asjax.store import files, logits, logits_writer
from asjax.store.logits_writer import Form, Row

COUNT, STRONG = 24, FRAMES / CLIP_S
IDS = [f"{i:02d}.wav" for i in range(COUNT)]
CLIP = np.random.default_rng(0).normal(-3, 0.5, (COUNT, 3)).astype(np.float16)
CLIP[np.arange(COUNT), np.arange(COUNT) % 3] += 6
SWAPPED = labels.LabelSet("swapped", CLASSES.ids[::-1], CLASSES.names[::-1])


def frames_of(count=FRAMES):
    return np.repeat(CLIP[:, None], count, axis=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Recordings with labels and events, and a recipe of a student."""
    root = tmp_path_factory.mktemp("data")
    write_clips(root / "audio", count=COUNT)
    marks = [f"{clip}\t0.1\t0.3\t{CLASSES.names[i % 3]}\n" for i, clip in enumerate(IDS)]
    table = "filename\tonset\toffset\tevent_label\n" + "".join(marks)
    (root / "audio" / "events.tsv").write_text(table)
    CLASSES.to_csv(root / "pets.csv")
    data = {"name": "annotated", "events": str(root / "audio" / "events.tsv")}
    cfg = {
        "total_steps": 1,
        "batch_size": 4,
        "labels": {"name": str(root / "pets.csv")},
        "data": {"sample_rate": RATE, "clip_s": CLIP_S, "train": data, "eval": data},
        "frontend": {"name": "panns_logmel", "sample_rate": RATE, "n_mels": 16,
                     "hop": RATE // 50, "n_fft": 512},
        "model": {"name": "cnn", "variant": "mini", "n_mels": 16, "width": 4, "frames": FRAMES},
        "objective": {"name": "distillation", "base": "detection"},
        "optim": {"name": "adamw", "lr": 1e-3},
        "eval": {"batch_size": 4, "bootstrap": 0, "max_share": 1.0, "select": "last"},
        "log": {"every_steps": 1, "save_steps": 1},
    }  # fmt: skip
    (root / "student.py").write_text(
        "from asjax import config\n\n\ndef get_config(arg=None):\n"
        f"    c = config.new()\n    c.update({cfg!r})\n    return c\n"
    )
    return root


def save(path, rows=slice(None), *, ids=IDS, label_set=CLASSES, frames=FRAMES):
    """A sound set of logits of some of the clips."""
    form = Form(label_set, clip=True, frames=frames, frame_rate=frames / CLIP_S)
    known = [Row(clip, CLIP_S, labels=CLASSES.ids[i % 3]) for i, clip in enumerate(ids)]
    logits_writer.save(path, form, known[rows], clip=CLIP[rows], frames=frames_of(frames)[rows])
    return path


def run(*words):
    return main(["logits", *map(str, words)])


def train(place, teacher, workdir, more=""):
    op = f"strong(frame_rate={STRONG}) | teacher(path={str(teacher)!r}{more})"
    ops = f"--config.data.ops=decode | crop | {op}"
    return main(["train", f"--config={place / 'student.py'}", f"--workdir={workdir}", ops])


def refused(capsys, code, says, why=""):
    """Assert one line that says it, and exit code 2."""
    err = capsys.readouterr().err
    assert code == 2, why
    assert says in err, why
    assert err.count("\n") == 1, err


def summed(folder):
    """Write the list of hashes again: the damage came before it."""
    files.write_sums(folder, only=files.read_sums(folder))


# --------------------------------------------------------------------------------- our own folder


def twice(folder):
    table = folder / "clips.csv"
    table.write_text(table.read_text().replace(IDS[1], IDS[0]))
    summed(folder)


def cut(folder):
    file = folder / "logits-00000.npy"
    file.write_bytes(file.read_bytes()[:-10])


def cut_and_summed(folder):
    cut(folder)
    summed(folder)


def nan(folder, name="clip-00000.npy"):
    array = np.load(folder / name)
    array[5].flat[1] = np.nan
    np.save(folder / name, array)
    summed(folder)


def nan_of_frames(folder):
    nan(folder, "logits-00000.npy")


def shifted(folder):
    table = folder / "clips.csv"
    header, *rows = table.read_text().splitlines()
    rows = [
        f"{clip},{row.partition(',')[2]}" for clip, row in zip(IDS[1:] + IDS[:1], rows, strict=True)
    ]
    table.write_text("\n".join([header, *rows]) + "\n")
    summed(folder)


def about(folder, **fields):
    path = folder / "about.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    summed(folder)


def huge_frames(folder):
    about(folder, frames=2**31)


def huge_count(folder):
    about(folder, clips=2**47, shards=[{"clips": 2**47}])


def huge_shard(folder):
    path = folder / "about.json"
    content = json.loads(path.read_text())
    content["shards"][0]["clip"]["bytes"] = 2**47
    about(folder, shards=content["shards"])


def huge_header(folder):
    """An .npy file of the right size whose header claims terabytes."""
    file = folder / "clip-00000.npy"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"(24, 3), }" + b" " * 12, b"(1000000000000, 3), }" + b" "))
    assert b"1000000000000" in file.read_bytes()
    summed(folder)


@pytest.mark.parametrize(
    ("damage", "training", "check", "merge"),
    [
        (twice, "clip '00.wav' occurs twice", "occurs twice", "occurs twice"),
        (cut, "must be", "logits-00000.npy", "logits-00000.npy"),
        (cut_and_summed, "must be", "must be", "must be"),
        (nan, "not finite", "not finite", "not finite"),
        (nan_of_frames, "not finite", "not finite", "not finite"),
        (shifted, "do not belong to these clips", "do not belong to these clips", None),
        (huge_frames, "", "", ""),
        (huge_count, "", "", ""),
        (huge_shard, "", "", ""),
        (huge_header, "", "", ""),
    ],
)
def test_a_damaged_folder_is_one_line(place, tmp_path, capsys, damage, training, check, merge):
    whole, half = save(tmp_path / "whole"), save(tmp_path / "half", slice(0, 12))
    rest = save(tmp_path / "rest", slice(12, None))
    damage(whole)
    refused(capsys, train(place, whole, tmp_path / "w"), training, "training")
    assert not (tmp_path / "w").exists()
    data = f"--data={place / 'audio' / 'clips.csv'}"
    refused(capsys, run("check", whole, data), check, "check")
    if merge is not None:
        other = half if damage is huge_header else rest
        if damage is huge_header:
            words = (whole, save(tmp_path / "new", ids=[f"x{i}" for i in range(COUNT)]))
        else:
            damage(other)
            words = (half if other is rest else rest, other)
        if damage is twice:  # the ids of `rest` are others
            words = (half, save(tmp_path / "again", slice(6, None)))
            merge = "clip '06.wav' is in"
        refused(capsys, run("merge", *words, f"--out={tmp_path / 'out'}"), merge, "merge")
        assert not (tmp_path / "out").exists()


def test_another_label_set_is_one_line(place, tmp_path, capsys):
    other, half = save(tmp_path / "x", label_set=SWAPPED), save(tmp_path / "half", slice(0, 12))
    refused(capsys, train(place, other, tmp_path / "w"), "their order differs, first at index 0")
    words = [f"--data={place / 'audio' / 'clips.csv'}", f"--labels={place / 'pets.csv'}"]
    refused(capsys, run("check", other, *words), "their order differs, first at index 0")
    rest = save(tmp_path / "rest", slice(12, None), label_set=SWAPPED)
    says = "must have the same label_hash"
    refused(capsys, run("merge", half, rest, f"--out={tmp_path / 'out'}"), says)


def test_another_frame_rate_is_one_line(place, tmp_path, capsys):
    other, half = save(tmp_path / "x", frames=5), save(tmp_path / "half", slice(0, 12))
    says = "has 5 frames per clip (10 per second), and the op strong makes 10"
    refused(capsys, train(place, other, tmp_path / "w"), says)
    rest = save(tmp_path / "rest", slice(12, None), frames=5)
    says = "must have the same frames"
    refused(capsys, run("merge", half, rest, f"--out={tmp_path / 'out'}"), says)


def test_missing_ids_are_counted_and_named_and_learn_from_labels(place, tmp_path, capsys):
    half = save(tmp_path / "half", slice(2, 24))
    assert train(place, half, tmp_path / "w") == 0
    out = capsys.readouterr().out
    assert "for 22 of 24 training clips; 2 learn from their labels alone, first 00.wav" in out
    assert run("check", half, f"--data={place / 'audio' / 'clips.csv'}") == 1
    out = capsys.readouterr().out
    assert "logits for 22 of 24 clips of clips; first without: 00.wav" in out
    far = save(tmp_path / "far", ids=[f"far{i}" for i in range(COUNT)])
    says = "logits of none of the 24 training clips of events (first clip 00.wav"
    refused(capsys, train(place, far, tmp_path / "v"), says)


# ----------------------------------------------------------------------------------- HDF5


def sed(path, ids=IDS, scores=None, **more):
    h5py = pytest.importorskip("h5py")
    scores = frames_of().transpose(0, 2, 1) if scores is None else scores
    with h5py.File(path, "w") as file:
        file["filenames"] = np.array([clip.removesuffix(".wav").encode() for clip in ids])
        file.create_dataset("strong_logits", data=scores, **more)
    return [path]


def npy(path, ids=IDS, scores=CLIP, rows=None):
    table = dict(zip(ids, rows or range(len(ids)), strict=True))
    np.save(path.with_suffix(".npy"), scores)
    path.with_suffix(".pkl").write_bytes(pickle.dumps(table))
    return [path.with_suffix(".npy"), path.with_suffix(".pkl")]


FORMS = {"pretrainedsed": sed, "efficientat": npy}


def bring(place, form, paths, out, *more):
    words = [f"--form={form}", f"--labels={place / 'pets.csv'}", f"--out={out}", *more]
    return run("import", *paths, f"--data={place / 'audio' / 'clips.csv'}", *words)


def sound(form):
    return frames_of().transpose(0, 2, 1) if form == "pretrainedsed" else CLIP


@pytest.mark.parametrize("form", FORMS)
def test_sound_files_of_others_teach(place, tmp_path, capsys, form):
    assert bring(place, form, FORMS[form](tmp_path / "x.hdf5"), tmp_path / "out") == 0
    assert train(place, tmp_path / "out", tmp_path / "w") == (2 if form == "pretrainedsed" else 0)
    if form == "pretrainedsed":  # its clips have 10 s, so 10 frames are another rate
        assert "frame logits of 10 s, and data.clip_s is 0.5 s" in capsys.readouterr().err


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("width", "has 2 classes, and pets has 3"),
        ("twice", "occurs twice"),
        ("cut", "is not a sound"),
        ("nan", "are not finite as float16"),
        ("inf", "are not finite as float16"),
        ("order", "is the index file or the label set wrong?"),
        ("none", "no clip of the data is in the file"),
        ("rows", ""),
    ],
)
def test_wrong_files_of_others_are_one_line(place, tmp_path, capsys, form, wrong, says):
    make, scores, ids = FORMS[form], sound(form).copy(), IDS
    if wrong == "width":
        scores = scores[:, :2]
    elif wrong in ("nan", "inf"):
        scores[3].flat[1] = float(wrong)
    elif wrong == "order":
        ids = IDS[1:] + IDS[:1]
    elif wrong == "none":
        ids = [f"far{i}" for i in range(COUNT)]
    elif wrong == "rows":  # shapes or rows that disagree
        scores = scores[:-1]
    elif wrong == "twice" and form == "pretrainedsed":
        ids = [*IDS[:-1], IDS[0]]
    paths = make(tmp_path / "x.hdf5", ids, scores)
    if wrong == "twice" and form == "efficientat":  # two names of one row, a name of two rows
        paths = npy(tmp_path / "x", rows=[0, 0, *range(2, COUNT)])
        says = "have the same row 0"
    if wrong == "cut":
        paths[0].write_bytes(paths[0].read_bytes()[:-40])
    refused(capsys, bring(place, form, paths, tmp_path / "out"), says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMS)
def test_ids_that_a_file_lacks_are_counted_and_named(place, tmp_path, capsys, form):
    paths = FORMS[form](tmp_path / "x.hdf5", IDS[1:], sound(form)[1:])
    assert bring(place, form, paths, tmp_path / "out") == 1
    assert "1 clip without logits, first 00.wav: no logits in the file" in capsys.readouterr().err
    assert logits.open(tmp_path / "out").missing() == [("00.wav", 0, "no logits in the file")]


def test_classes_in_another_order_do_not_fit_the_labels(place, tmp_path, capsys):
    paths = npy(tmp_path / "x", scores=np.roll(CLIP, 1, axis=1))
    says = "is the index file or the label set wrong?"
    refused(capsys, bring(place, "efficientat", paths, tmp_path / "out"), says)


# ------------------------------------------------------------------------------ hostile files

PWNED = "pwned"


class Reduce:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize(
    "kind", ["reduce", "value", "global", "inst", "stack", "build", "persistent", "huge", "deep"]
)
def test_an_index_pickle_runs_nothing(place, tmp_path, capsys, kind):
    array, index = npy(tmp_path / "x")
    target = tmp_path / PWNED
    line = f"open({str(target)!r}, 'w')".encode()
    text = struct.pack("<I", len(line)) + line
    content = {
        "reduce": pickle.dumps(Reduce(target)),
        "value": pickle.dumps({"00.wav": Reduce(target)}),
        "global": b"cbuiltins\neval\n(X" + text + b"tR.",
        "inst": b"(X" + text + b"ibuiltins\neval\n.",
        "stack": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93(X" + text + b"tR.",
        "build": b"ccollections\nOrderedDict\n(tR}X\x01\x00\x00\x00aK\x01sb.",
        "persistent": b"Pbuiltins.eval\n.",
        "huge": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 42) + b"x.",
        "deep": b"(" * 100_000 + b"l" * 100_000 + b".",
    }[kind]
    index.write_bytes(content)
    refused(capsys, bring(place, "efficientat", [array, index], tmp_path / "out"), "index", kind)
    assert not target.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", ["(1000000000000, 3)", "(24, 1000000000000)", "(-1, 3)"])
def test_an_array_that_claims_terabytes_is_one_line(place, tmp_path, capsys, shape):
    array, index = npy(tmp_path / "x")
    head = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (117 - len(head)) + b"\n"
    array.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"\0" * 144)
    refused(capsys, bring(place, "efficientat", [array, index], tmp_path / "out"), "x.npy")


@pytest.mark.parametrize("shape", [(10**12, 3, 250), (24, 3, 10**11), (24, 10**11, 250)])
def test_an_hdf5_file_that_claims_terabytes_is_one_line(place, tmp_path, capsys, shape):
    h5py = pytest.importorskip("h5py")
    paths = sed(tmp_path / "x.hdf5")
    with h5py.File(paths[0], "a") as file:
        del file["strong_logits"]
        file.create_dataset("strong_logits", shape, "f2", chunks=(1, 3, 250))
    refused(capsys, bring(place, "pretrainedsed", paths, tmp_path / "out"), "x.hdf5")


def test_hdf5_shapes_that_disagree_are_one_line(place, tmp_path, capsys):
    paths = sed(tmp_path / "x.hdf5", ids=IDS[1:])
    says = "has 24 clips, and filenames has 23"
    refused(capsys, bring(place, "pretrainedsed", paths, tmp_path / "out"), says)
    h5py = pytest.importorskip("h5py")
    (tmp_path / "c").mkdir()
    for count, says in ((23, "do not fit together"), (24, "")):
        with h5py.File(tmp_path / "c" / "logits_ep1_0.h5", "w") as file:
            file["topk_values"] = np.full((24, 2), 0.5, np.float16)
            file["topk_indexes"] = np.zeros((24, 3 if count == 24 else 2), np.int16)
            file["seeds"] = np.arange(count, dtype=np.int32)
        rows = "".join(f"{clip},0,10\n" for clip in IDS)
        (tmp_path / "c" / "logits_ep1_0.csv").write_text(f"filename,start,end\n{rows}")
        refused(capsys, bring(place, "ced", [tmp_path / "c"], tmp_path / "out"), says)
