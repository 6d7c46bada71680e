"""The host op `teacher` against naive reading by id, with workers, views, and wrong folders."""

import numpy as np
import pytest
from scipy.special import expit
from test_pipeline import CLASSES, CLIP_S, RATE, memory, piped, same, take

from asjax import build, labels
from asjax.config import AsjaxError
from asjax.data import draw
from asjax.store import files, logits, logits_writer
from asjax.store.logits_writer import Form, Row

NAMES = labels.LabelSet("own", tuple("abcd"), tuple("ABCD"))
FRAMES = 5
KINDS = {"clip": ["clip_teacher"], "frames": ["teacher"], "both": ["clip_teacher", "teacher"]}


def save(path, ids, *, kind="both", seed=0, rows=None, good=False, **form):
    """Random logits of these clips, or good ones: high where the clip has the class."""
    rng = np.random.default_rng(seed)
    rows = rows or [Row(clip, 0.2) for clip in ids]
    clip = rng.normal(size=(len(rows), CLASSES)).astype(np.float32)
    if good:
        source = memory(100)
        clip += 9 * source.dense[[int(row.id.removeprefix("clip")) for row in rows]]
    frames = rng.normal(size=(len(rows), FRAMES, CLASSES)).astype(np.float32)
    form = {"clip": kind != "frames", **form}
    if kind != "clip":
        form |= {"frames": FRAMES, "frame_rate": FRAMES / CLIP_S}
    arrays = {"clip": clip if form["clip"] else None, "frames": frames if kind != "clip" else None}
    logits_writer.save(path, Form(NAMES, **form), rows, **arrays)
    return logits.open(path, NAMES)


def ops(path, more="", before="decode | crop | multihot"):
    return f"{before} | teacher(path={str(path)!r}{more})"


def taught(path, n=23, *, source=None, more="", **kwargs):
    source = source or memory(n)
    source.name = "memory"
    fields = {"label_set": NAMES, "ops": ops(path, more), "draw": "shuffle", **kwargs}
    return piped(source, **fields)


# ------------------------------------------------------------------------------------- content


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_clip_gets_its_own_logits_and_the_others_zeros(tmp_path, kind, dtype):
    found = save(tmp_path / "x", [f"clip{i}" for i in range(0, 23, 2)], kind=kind, dtype=dtype)
    for batch in take(taught(tmp_path / "x"), 4):
        assert [k for k in batch if "teacher" in k and k != "has_teacher"] == KINDS[kind]
        for row, clip in enumerate(batch["id"]):
            has = int(clip.removeprefix("clip")) % 2 == 0
            assert batch["has_teacher"][row] == has
            for key in KINDS[kind]:
                stored = found[clip]["clip" if key == "clip_teacher" else "frames"] if has else 0.0
                np.testing.assert_array_equal(
                    batch[key][row], np.full_like(batch[key][row], stored)
                )
        if kind != "clip":
            assert batch["teacher"].dtype == dtype
    assert batch["has_teacher"].dtype == np.float32


def test_workers_and_restarts_give_the_same_batches(tmp_path):
    save(tmp_path / "x", [f"clip{i}" for i in range(3, 20)], dtype="float16")
    wanted = take(taught(tmp_path / "x"), 6)
    same(take(taught(tmp_path / "x", workers=2, threads=1), 6), wanted)
    same(take(taught(tmp_path / "x"), 2, start=4), wanted[4:])


def test_only_the_kind_that_the_op_names(tmp_path):
    save(tmp_path / "x", ["clip0"])
    batch = take(taught(tmp_path / "x", more=", kinds='clip'"), 1)[0]
    assert "teacher" not in batch
    batch = take(taught(tmp_path / "x", more=", kinds='frames'"), 1)[0]
    assert "clip_teacher" not in batch


@pytest.mark.parametrize("rest", ["zero", "uniform"])
def test_classes_outside_of_the_top(tmp_path, rest):
    found = save(tmp_path / "x", [f"clip{i}" for i in range(23)], kind="clip", top=2)
    stored = logits.open(tmp_path / "x")
    for batch in take(taught(tmp_path / "x", more=f", check=False, rest={rest!r}"), 3):
        for row, clip in enumerate(batch["id"]):
            kept = np.sort(found[clip]["clip"].astype(np.float64))[-2:]
            scores = expit(batch["clip_teacher"][row].astype(np.float64))
            each = 0.0 if rest == "zero" else expit(kept[0]) / (CLASSES - 2)
            best = np.argsort(-stored[clip]["clip"])[:2]
            np.testing.assert_allclose(scores[best], expit(kept[::-1]), rtol=1e-6)
            others = np.setdiff1d(np.arange(CLASSES), best)
            np.testing.assert_allclose(scores[others], each, rtol=1e-5)


def test_an_evaluation_needs_no_teacher():
    """The config of a student names its teacher, and its folder may be gone."""
    with piped(memory(9), ops=ops("gone"), train=False).iterate() as batches:
        for batch in batches:
            assert not {"has_teacher", "teacher_row"} & batch.keys()


# ---------------------------------------------------------------------- what the teacher heard


def test_frame_logits_are_of_the_beginning_of_every_recording(tmp_path):
    source = memory(12)  # many recordings are longer than a clip
    save(tmp_path / "x", source.ids)
    moved = {kind: False for kind in ("frames", "clip")}
    for kind in moved:
        for batch in take(taught(tmp_path / "x", 12, more=f", kinds={kind!r}"), 4):
            for wave, clip in zip(batch["wave"], batch["id"], strict=True):
                start = wave[0] - int(clip.removeprefix("clip"))
                moved[kind] |= bool(start > 0)
    assert moved == {"frames": False, "clip": True}


def views(path, ids, count, seed=11, chain="decode | crop | listed"):
    rows = [Row(c, 0.2, view=v, draw=v * len(ids) + i) for v in range(count)
            for i, c in enumerate(ids) if (i + v) % 4]  # fmt: skip
    about = {"count": count, "seed": seed, "ops": chain}
    return save(path, ids, rows=rows, views=about)


def test_a_student_hears_the_views_that_its_teacher_heard(tmp_path):
    source = memory(12)
    found = views(tmp_path / "x", source.ids, 3)
    known = dict(sample_rate=RATE, clip_s=CLIP_S, num_classes=CLASSES, train=True, pcm16=False)
    links = build.chain("op", "decode | crop", **known, decode_timeout_s=10.0)
    heard = set()
    for batch in take(taught(tmp_path / "x", source=source, more=", check=False"), 6):
        for row, clip in enumerate(batch["id"]):
            there = [v for v in range(3) if (clip, v) in found]
            assert batch["has_teacher"][row] == bool(there)
            same_logits = [v for v in there if np.array_equal(
                found[clip, v]["frames"], batch["teacher"][row])]  # fmt: skip
            assert len(same_logits) == bool(there)
            for view in same_logits:
                rng = draw.generator(11, found.draw((clip, view)))
                example = source[source.ids.index(clip)]
                for _, op in links:
                    example = op(example, rng)
                np.testing.assert_array_equal(batch["wave"][row], example["wave"])
                heard.add((clip, view))
    assert len(heard) > 15  # of 27
    same(take(taught(tmp_path / "x", source=source, more=", check=False", workers=2, threads=1), 3),
         take(taught(tmp_path / "x", source=source, more=", check=False"), 3))  # fmt: skip


def test_views_of_other_host_ops_are_refused(tmp_path):
    views(tmp_path / "x", memory(12).ids, 2, chain="decode | listed")
    with pytest.raises(AsjaxError, match=r"views of the host ops 'decode \| listed', and data.ops"):
        taught(tmp_path / "x", 12)
    with pytest.raises(AsjaxError, match="frame logits of views, which need replay=True"):
        taught(tmp_path / "x", 12, more=", replay=False")


def test_without_replay_a_draw_takes_the_logits_of_a_random_view(tmp_path):
    source = memory(12)
    found = views(tmp_path / "x", source.ids, 3, chain="CED")
    more = ", kinds='clip', replay=False, check=False"
    seen = set()
    for batch in take(taught(tmp_path / "x", 12, more=more), 20):
        for row, clip in enumerate(batch["id"]):
            there = [v for v in range(3) if (clip, v) in found]
            value = batch["clip_teacher"][row]
            seen |= {(clip, v) for v in there if np.array_equal(found[clip, v]["clip"], value)}
    assert len(seen) == 27


# ----------------------------------------------------------------------- lines, and the identity


def test_it_says_how_many_clips_have_a_teacher_and_how_good_it_is(tmp_path):
    save(tmp_path / "x", [f"clip{i}" for i in range(20)] + ["clip77"], good=True, kind="clip")
    lines = taught(tmp_path / "x").notes
    assert lines[0] == (
        f"teacher {tmp_path / 'x'}: logits of clips for 20 of 23 training clips; 3 learn from "
        "their labels alone, first clip20"
    )
    assert lines[1].startswith(f"teacher {tmp_path / 'x'}: mAP 1.000 of the stored logits of 20")
    assert piped(memory(9)).notes == ()


def test_the_logits_are_part_of_the_identity_of_the_data(tmp_path):
    prints = set()
    for seed in (0, 1):
        folder = tmp_path / str(seed) / "x"
        folder.parent.mkdir()
        save(folder, ["clip1"], seed=seed)
        (tmp_path / "x").unlink(missing_ok=True)
        (tmp_path / "x").symlink_to(folder)
        prints.add(taught(tmp_path / "x").fingerprint)
    assert len(prints) == 2


def test_logits_of_a_wrong_index_are_refused(tmp_path):
    ids = [f"clip{i}" for i in range(60)]
    shifted = [Row(f"clip{(i + 1) % 60}", 0.2) for i in range(60)]
    save(tmp_path / "good", ids, good=True)
    found = logits.open(tmp_path / "good")
    clip = np.stack([found[c]["clip"] for c in ids])
    logits_writer.save(tmp_path / "bad", Form(NAMES, clip=True), shifted, clip=clip)
    taught(tmp_path / "good", 60)
    with pytest.raises(AsjaxError, match=r"do not belong to these clips.*teacher\(check=False\)"):
        taught(tmp_path / "bad", 60)
    taught(tmp_path / "bad", 60, more=", check=False")


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (", kinds='clips'", "host op teacher: kinds 'clips'.*clip"),
        (", rest='uniforms'", "host op teacher: rest 'uniforms'.*uniform"),
        (", check=1", "check must be True or False, got 1"),
        (", replay=1", "replay must be True or False, got 1"),
        (", chek=True", "host op teacher: field 'chek'.*check"),
        (", stored_logits=1", "host op teacher: field 'stored_logits'"),
        (") | teacher(path='x'", "must have the op teacher once"),
    ],
)
def test_wrong_fields_are_one_line(tmp_path, more, says):
    save(tmp_path / "x", ["clip0"])
    with pytest.raises(AsjaxError, match=says):
        taught(tmp_path / "x", more=more)


def test_wrong_folders_are_one_line(tmp_path):
    with pytest.raises(AsjaxError, match="path must be a folder of asjax logits, got None"):
        piped(memory(3), ops="decode | crop | multihot | teacher")
    with pytest.raises(AsjaxError, match="is not a folder of logits: about.json is missing"):
        taught(tmp_path / "none")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "card.json").touch()
    for model in (tmp_path, tmp_path / "model"):
        with pytest.raises(AsjaxError, match="is not a folder of logits: it is a model"):
            taught(model)
    save(tmp_path / "x", ["clip0"], kind="clip")
    with pytest.raises(AsjaxError, match="has no logits of kind frames, only clip"):
        taught(tmp_path / "x", more=", kinds='frames'")
    other = labels.LabelSet("own", tuple("abdc"), tuple("ABDC"))
    with pytest.raises(AsjaxError, match="their order differs, first at index 2"):
        taught(tmp_path / "x", label_set=other)
    with pytest.raises(AsjaxError, match="must have 5 classes, got 4"):
        taught(tmp_path / "x", label_set=None, num_classes=5)
    save(tmp_path / "far", ["clip77"])
    with pytest.raises(AsjaxError, match="logits of none of the 23 training clips.*first logits"):
        taught(tmp_path / "far")
    save(tmp_path / "soft", ["clip0"], activation="softmax")
    with pytest.raises(AsjaxError, match="its logits are of a softmax"):
        taught(tmp_path / "soft")
    file = next((tmp_path / "far").glob("logits-*.npy"))
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(AsjaxError, match="size must be .* bytes"):
        taught(tmp_path / "far")


def test_another_frame_rate_or_length_is_one_line(tmp_path):
    save(tmp_path / "x", ["clip0"])
    with pytest.raises(AsjaxError, match=r"frame logits of 0.2 s, and data.clip_s is 0.4 s"):
        taught(tmp_path / "x", clip_s=0.4)
    strong = "decode | crop | strong(frame_rate=50.0)"
    with pytest.raises(AsjaxError, match=r"has 5 frames per clip \(25 per second\), and the op "
                       "strong makes 10"):  # fmt: skip
        piped(memory(23), label_set=NAMES, ops=ops(tmp_path / "x", before=strong))
    fits = "decode | crop | strong"
    batch = take(piped(memory(23), label_set=NAMES, ops=ops(tmp_path / "x", before=fits)), 1)[0]
    assert batch["teacher"].shape == batch["frame_target"].shape


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["clip", "frames"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_name_their_row(tmp_path, dtype, kind, value):
    save(tmp_path / "x", [f"clip{i}" for i in range(23)], kind=kind, dtype=dtype)
    name = "clip-00000.npy" if kind == "clip" else "logits-00000.npy"
    array = np.load(tmp_path / "x" / name)
    array[7].flat[-1] = value
    np.save(tmp_path / "x" / name, array)
    with pytest.raises(AsjaxError, match=r"the logits in row 8 of clips.csv are not finite"):
        take(taught(tmp_path / "x", more=", check=False"), 9)


def test_duplicated_ids_are_refused(tmp_path):
    save(tmp_path / "x", ["clip0", "clip1"], kind="clip")
    table = tmp_path / "x" / "clips.csv"
    table.write_text(table.read_text().replace("clip1", "clip0"))
    files.write_sums(tmp_path / "x", only=files.read_sums(tmp_path / "x"))
    with pytest.raises(AsjaxError, match="clip 'clip0' occurs twice"):
        taught(tmp_path / "x")
