"""PSLA's label enhancement against the authors' results and naive code, up to training labels."""

import csv

import numpy as np
import pytest
import rule

from asjax import build, hlp, labels, metrics
from asjax.__main__ import main as asjax_main
from asjax.config import AsjaxError
from asjax.data import enhance, lists
from asjax.store.scores import save_scores

AUDIOSET = labels.get("audioset527")
ESC10 = {"name": "esc10"}


def unpacked(bits):
    return np.unpackbits(bits, axis=1)[:, :527]


@pytest.fixture(scope="module")
def case(golden):
    """Probabilities, labels, and the outputs of the authors' scripts for them."""
    manifest, arrays = golden("psla_label_enhancement")
    before = unpacked(arrays["labels"])
    logits = rule.array("pred", before.shape, salt=manifest["salt"]).astype(np.float64) + before
    return 1 / (1 + np.exp(-logits)), before, arrays


def test_relations_are_the_authors(case):
    related = enhance.relations("audioset527")
    np.testing.assert_array_equal(related[1], unpacked(case[2]["direct_children"]))
    np.testing.assert_array_equal(related[2], unpacked(case[2]["ancestors"]))
    assert (related[1].sum(), related[2].sum()) == (378, 767)


@pytest.mark.parametrize("kind", enhance.THRESHOLDS)
def test_every_threshold_and_type_gives_the_authors_labels(case, kind):
    probabilities, before, arrays = case
    related = enhance.relations("audioset527")
    limits = enhance.thresholds(probabilities, before, kind)
    np.testing.assert_allclose(limits, arrays[f"threshold_{kind}"], rtol=1e-13)
    for name, allowed in (
        ("type1", related[1]),
        ("type2", related[2]),
        ("type12", related[1] | related[2]),
    ):
        found = enhance.enhance(probabilities, before, allowed, limits)
        np.testing.assert_array_equal(found, unpacked(arrays[f"{name}_{kind}"]))


def test_a_class_that_no_clip_has_is_never_added_and_additions_suggest_nothing():
    """Four classes, 0 above 1 above 2 above 3; no clip has class 3, and all scores are high."""
    below = np.eye(4, k=1, dtype=bool)  # [parent, child]
    before = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0]], np.uint8)
    probabilities = np.array([[0.2] * 4, [0.9] * 4, [0.5] * 4, [0.9] * 4])
    limits = enhance.thresholds(probabilities, before, "median")
    np.testing.assert_array_equal(limits, [0.55, 0.9, 0.5, np.nan])
    found = enhance.enhance(probabilities, before, below, limits)
    # 2 is added under 1 in clips 2 and 4; a score equal to the threshold adds nothing
    np.testing.assert_array_equal(found - before, [[0] * 4, [0, 0, 1, 0], [0] * 4, [0, 0, 1, 0]])


def test_wrong_input_is_one_line():
    with pytest.raises(AsjaxError, match="'mode' does not exist"):
        enhance.thresholds(np.zeros((1, 2)), np.ones((1, 2)), "mode")
    with pytest.raises(AsjaxError, match=r"got \(1, 2\) and \(2, 2\)"):
        enhance.thresholds(np.zeros((1, 2)), np.ones((2, 2)))
    with pytest.raises(AsjaxError, match="esc10 has no ontology"):
        enhance.relations("esc10")


# ------------------------------------------------------------------- from scores to a data source


@pytest.fixture
def scored(tmp_path):
    """Scores of the first fold of the embedded recordings in the format of `asjax eval`.

    Every third clip also has the ancestors of its labels, so that these classes have thresholds.
    """
    source = build.source({**ESC10, "splits": ["fold1"]}, AUDIOSET)
    targets = source.labels.toarray()
    targets[::3] = hlp.propagate_labels(targets[::3], hlp.closure(AUDIOSET))
    logits = rule.array("scores", targets.shape, salt="enhance", scale=3.0) + 2 * targets
    path = tmp_path / "scores.npz"
    save_scores(path, ids=source.ids, scores=logits, targets=targets, label_set=AUDIOSET)
    return source, logits, targets, path


def naive(logits, before, kinds, percentile):
    """The same, clip by clip and label by label, from the parent table."""
    parents, abstract = labels.parents(), labels.restrictions()
    with_edges = {
        n: [p for p in above if abstract[p] != ("abstract",)] for n, above in parents.items()
    }
    at = {mid: k for k, mid in enumerate(AUDIOSET.ids)}
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))

    def ancestors(node):
        return {a for p in with_edges[node] for a in {p, *ancestors(p)}}

    after = before.copy()
    for i, row in enumerate(before):
        for k in np.flatnonzero(row):
            mid = AUDIOSET.ids[k]
            more = set()
            if 1 in kinds:
                more |= {n for n, above in with_edges.items() if mid in above}
            if 2 in kinds:
                more |= ancestors(mid)
            for j in (at[n] for n in more if n in at):
                having = probability[before[:, j] > 0, j]
                if len(having) and probability[i, j] > np.percentile(having, percentile):
                    after[i, j] = 1
    return after


@pytest.mark.parametrize("types", ["1", "2", "1,2"])
def test_the_csv_of_a_run_becomes_the_labels_of_the_source(scored, tmp_path, types, capsys):
    source, logits, before, path = scored
    out = tmp_path / "sub" / "enhanced.csv"
    words = ["prepare", "enhance", f"--scores={path}", "--threshold=5", f"--types={types}"]
    assert asjax_main([*words, f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    after = naive(logits, before, [int(t) for t in types.split(",")], 5)
    assert f"labels {before.sum()} -> {after.sum()}," in printed
    assert after.sum() > before.sum()

    grown = build.source({**ESC10, "labels_csv": str(out)}, AUDIOSET)
    plain = build.source(ESC10, AUDIOSET)
    fold1 = np.array([split == "fold1" for split in plain.split])
    np.testing.assert_array_equal(grown.labels.toarray()[fold1], after)
    np.testing.assert_array_equal(grown.labels.toarray()[~fold1], plain.labels.toarray()[~fold1])
    assert grown.labels.dtype == np.int8
    assert grown.ids == plain.ids
    part = build.source({**ESC10, "splits": ["fold1"], "labels_csv": str(out)}, AUDIOSET)
    np.testing.assert_array_equal(part.labels.toarray(), after)
    assert np.array_equal(part[3]["labels"], after[3].nonzero()[0])
    assert len({grown.hash, plain.hash, part.hash, source.hash}) == 4


def test_the_scores_of_a_softmax_are_log_probabilities(scored, tmp_path, capsys):
    source, logits, before, path = scored
    log_p = metrics.as_scores(logits, "softmax")
    fields = dict(ids=source.ids, targets=before, label_set=AUDIOSET, activation="softmax")
    save_scores(path, scores=log_p, **fields)
    words = ["prepare", "enhance", f"--scores={path}", "--threshold=5", "--types=2"]
    assert asjax_main([*words, f"--out={tmp_path / 'enhanced.csv'}"]) == 0
    p = np.exp(log_p.astype(np.float64))
    after = naive(np.log(p / (1 - p)), before, [2], 5)
    assert f"labels {before.sum()} -> {after.sum()}," in capsys.readouterr().out
    assert after.sum() != naive(logits, before, [2], 5).sum()


def relabel(tmp_path, text):
    path = tmp_path / "new.csv"
    path.write_text(text)
    return build.source({**ESC10, "labels_csv": str(path)}, AUDIOSET)


def test_the_hash_follows_the_new_labels_and_not_the_order_or_spelling(tmp_path):
    first, second = build.source(ESC10, AUDIOSET).ids[:2]
    one = relabel(tmp_path, f"filename,labels\n{first},Speech\n{second},Music;Bell\n")
    other = relabel(tmp_path, f"labels,filename\n/m/0395lw;music,{second}\n/m/09x0r,{first}\n")
    assert one.hash == other.hash
    np.testing.assert_array_equal(one[0]["labels"], [AUDIOSET.index("Speech")])
    assert relabel(tmp_path, f"filename,labels\n{first},Speech\n").hash != one.hash
    empty = build.source({**ESC10, "labels_csv": ""}, AUDIOSET)
    assert empty.hash == build.source(ESC10, AUDIOSET).hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,labels\nnobody,Speech\n", "1 ids that are not in esc10: line 2 'nobody'"),
        ("filename,labels\n{id},Speach\n", "1 unknown labels: line 2 'Speach'"),
        ("filename,labels\n{id},Speech\n{id},Music\n", "duplicate rows"),
        ("id,labels\n{id},Speech\n", "missing: filename"),
    ],
)
def test_a_wrong_label_list_is_one_line(tmp_path, text, message):
    clip = build.source(ESC10, AUDIOSET).ids[0]
    with pytest.raises(AsjaxError, match=message) as error:
        relabel(tmp_path, text.replace("{id}", clip))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--types=3"], "--types must be 1, 2 or 1,2, got '3'"),
        (["--scores=nowhere.npz"], "no file nowhere.npz"),
    ],
)
def test_wrong_words_are_one_line(scored, tmp_path, words, message, capsys):
    if not words[0].startswith("--scores"):
        words = [f"--scores={scored[-1]}", *words]
    assert asjax_main(["prepare", "enhance", f"--out={tmp_path / 'x.csv'}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_scores_that_are_not_finite_are_refused(tmp_path, capsys):
    path = tmp_path / "scores.npz"
    scores = np.zeros((1, 527))
    scores[0, 3] = np.nan
    save_scores(path, ids=["a"], scores=scores, targets=scores > 0, label_set=AUDIOSET)
    words = ["prepare", "enhance", f"--scores={path}", f"--out={tmp_path / 'x.csv'}"]
    assert asjax_main(words) == 2
    assert "must be finite" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_help_shows_the_whole_way(capsys):
    with pytest.raises(SystemExit):
        asjax_main(["prepare", "enhance", "--help"])
    text = capsys.readouterr().out
    assert "example:" in text
    assert "--config.data.train.labels_csv=enhanced.csv" in text


def test_the_list_is_also_one_that_asjax_prepare_folder_takes(scored, tmp_path):
    out = tmp_path / "enhanced.csv"
    assert asjax_main(["prepare", "enhance", f"--scores={scored[-1]}", f"--out={out}"]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filename"] for row in rows] == scored[0].ids
    found = lists.read_folder(out, tmp_path, AUDIOSET, missing_ok=True)
    assert [f.row.filename for f in found] == scored[0].ids
