"""The check of stored logits: a wrong order of the clips is found, a right one is not refused."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import average_precision_score

from asjax import events, labels
from asjax.config import AsjaxError
from asjax.store import logits, logits_check, logits_writer
from asjax.store.logits_writer import Form, Row

DESED = labels.get("desed10")


def stored(
    path, *, clips=60, strength=2.0, order=None, kind="clip", labelled=True, top=None, seed=0
):
    """Logits that know the class i % 10 of clip i; `order` gives them to other clips."""
    rng = np.random.default_rng(seed)
    order = np.arange(clips) if order is None else order
    truth = np.eye(10)[np.arange(clips) % 10]
    rows, form = [], Form(DESED, "float32", clip=kind == "clip", top=top)
    arrays = {"clip": (rng.normal(size=(clips, 10)) + strength * truth)[order]}
    if kind == "frames":
        form = form._replace(frames=50, frame_rate=5.0)
        active = np.zeros((clips, 50, 1))
        active[:, 10:20] = 1
        noise = rng.normal(size=(clips, 50, 10))
        arrays = {"frames": (noise + strength * truth[:, None] * active)[order]}
    for i in range(clips):
        mark = events.to_text([(2.0, 4.0, DESED.ids[i % 10])]) if kind == "frames" else "-"
        rows.append(Row(f"c{i}", 10.0, *((mark, DESED.ids[i % 10]) if labelled else ())))
    logits_writer.save(path, form, rows, **arrays)
    return logits.open(path), arrays


def test_mean_ap_of_clips_is_scikit_learns(tmp_path):
    found, arrays = stored(tmp_path / "x")
    check = logits_check.own(found)
    truth = np.eye(10)[np.arange(60) % 10]
    want = [average_precision_score(truth[:, c], arrays["clip"][:, c]) for c in range(10)]
    assert check.mean_ap == pytest.approx(np.mean(want), abs=1e-6)
    assert (check.what, check.clips) == ("clips", 60)
    assert 0.1 < check.chance < check.floor < check.mean_ap
    assert check.good


def test_mean_ap_of_frames_is_scikit_learns(tmp_path):
    found, arrays = stored(tmp_path / "x", kind="frames")
    check = logits_check.own(found)
    truth = np.zeros((60, 50, 10))
    for i in range(60):
        truth[i, 10:20, i % 10] = 1
    flat = arrays["frames"].reshape(-1, 10)
    want = [average_precision_score(truth.reshape(-1, 10)[:, c], flat[:, c]) for c in range(10)]
    assert check.mean_ap == pytest.approx(np.mean(want), abs=1e-6)
    assert check.what == "clips by frames"
    assert check.good


@pytest.mark.parametrize("kind", ["clip", "frames"])
@pytest.mark.parametrize("wrong", ["shifted", "reversed", "shuffled"])
def test_a_wrong_order_is_refused(tmp_path, kind, wrong):
    order = {
        "shifted": np.roll(np.arange(60), 1),
        "reversed": np.arange(60)[::-1],
        "shuffled": np.random.default_rng(5).permutation(60),
    }[wrong]
    check = logits_check.own(stored(tmp_path / "x", kind=kind, order=order)[0])
    assert not check.good
    with pytest.raises(AsjaxError, match="teacher: mAP 0.* do not belong to these clips"):
        check.require("teacher")


@pytest.mark.parametrize("top", [None, 3])
def test_against_the_labels_of_data(tmp_path, top):
    found, _ = stored(tmp_path / "x", labelled=False, top=top)
    assert logits_check.own(found) is None
    ids = [f"c{i}" for i in range(10, 60)] + ["stranger"]
    table = sparse.csr_matrix(np.eye(10, dtype=np.int8)[np.arange(10, 61) % 10])
    check = logits_check.against(found, ids, table)
    assert check.clips == 50
    assert check.good
    wrong = logits_check.against(found, ids, table[::-1])
    assert not wrong.good
    assert logits_check.against(found, ["stranger"], table[:1]) is None
    assert logits_check.against(found, ids) is None
    marks = [events.as_events([(2.0, 4.0, i % 10)]) for i in range(60)]
    framed, _ = stored(tmp_path / "y", kind="frames", labelled=False)
    check = logits_check.against(framed, [f"c{i}" for i in range(60)], None, marks)
    assert check.good
    assert not logits_check.against(framed, [f"c{i}" for i in range(60)], None, marks[::-1]).good


def test_frames_without_events_are_checked_by_their_maximum(tmp_path):
    found, arrays = stored(tmp_path / "x", kind="frames", labelled=False, strength=9.0)
    table = sparse.csr_matrix(np.eye(10, dtype=np.int8)[np.arange(60) % 10])
    check = logits_check.against(found, found.ids, table)
    assert check.what == "clips"
    assert check.mean_ap == pytest.approx(1.0)


def test_few_clips_prove_nothing(tmp_path):
    found, _ = stored(tmp_path / "x", clips=10, order=np.arange(10)[::-1])
    assert logits_check.own(found).good


def test_untrained_models_are_seldom_refused_nor_random_ones_taken(tmp_path):
    """A weak teacher is taken; pure noise is not."""
    weak = [stored(tmp_path / f"w{k}", strength=1.0, clips=200, seed=k)[0] for k in range(5)]
    noise = [stored(tmp_path / f"n{k}", strength=0.0, clips=200, seed=k)[0] for k in range(5)]
    assert all(logits_check.own(one).good for one in weak)
    assert not any(logits_check.own(one).good for one in noise)


def test_large_sets_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(logits_check, "MOST_CLIPS", 30)
    monkeypatch.setattr(logits_check, "MOST_SCORES", 50 * 10 * 25)
    assert logits_check.own(stored(tmp_path / "x")[0]).clips == 30
    assert logits_check.own(stored(tmp_path / "y", kind="frames")[0]).clips == 25


def test_few_clips_have_no_floor(tmp_path):
    few, _ = stored(tmp_path / "few", clips=logits_check.FEW - 1)
    assert str(logits_check.own(few)).endswith("; fewer than 20 clips prove nothing)")
    enough, _ = stored(tmp_path / "enough", clips=logits_check.FEW)
    assert "must be at least 0." in str(logits_check.own(enough))
