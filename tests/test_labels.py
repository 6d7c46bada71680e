"""Label sets: contents, hashes, look-ups and mappings."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from asjax import labels
from asjax.config import AsjaxError

ESC10 = (
    "dog rooster rain sea_waves crackling_fire crying_baby sneezing clock_tick helicopter chainsaw"
)


def test_audioset_has_the_published_classes_in_order(golden):
    manifest, _ = golden("hlp_table")
    found = labels.get("audioset527")
    assert [[i, m, n] for i, (m, n) in enumerate(zip(found.ids, found.names, strict=True))] == (
        manifest["classes"]
    )


def test_hash_is_sha256_over_index_and_id_and_sees_a_swap():
    found = labels.get("audioset527")
    text = "\n".join(f"{i},{mid}" for i, mid in enumerate(found.ids))
    assert found.hash == hashlib.sha256(text.encode()).hexdigest()
    swapped = (found.ids[1], found.ids[0], *found.ids[2:])
    assert labels.LabelSet("x", swapped, found.names).hash != found.hash
    renamed = labels.LabelSet("x", found.ids, tuple(f"c{i}" for i in range(527)))
    assert renamed.hash == found.hash


def test_hashes_of_packaged_sets_are_pinned():
    assert {name: labels.get(name).hash[:12] for name in labels.KNOWN} == {
        "audioset527": "72093dbb4222",
        # the columns of PretrainedSED's strong_head (train) and its evaluation list, by mid
        "audioset_strong447": "5b862755fc7c",
        "audioset_strong416": "7be2b0122628",
        "audioset_strong407": "58f920924eb1",
        "audioset_strong456": "75cc60f24f7f",
        "desed10": "f71cd92d8aab",
        "fsd50k200": "13e5fc09fd5c",
        "esc50": "06a48f37f55b",
        "esc10": "42cba966ee87",
    }


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("/m/09x0r", 0),
        ("Speech", 0),
        ("speech ", 0),
        ("/t/dd00088", None),
        ("/g/122z_qxw", None),
        ("male speech, MAN speaking", 1),
        ("12", 12),
        (12, 12),
        (np.int64(526), 526),
    ],
)
def test_index_takes_mids_of_every_kind_names_and_indices(label, index):
    found = labels.get("audioset527")
    if index is None:  # mids that a parser of /m/ only would drop
        index = found.ids.index(label)
    assert found.index(label) == index


@pytest.mark.parametrize("bad", ["Speach", "", 527, -1, "527", True, 1.0, None, "/m/0bm0k"])
def test_a_label_that_is_no_class_is_refused(bad):
    with pytest.raises(AsjaxError, match="audioset527"):
        labels.get("audioset527").index(bad)


def test_the_error_for_a_misspelt_name_offers_the_nearest():
    with pytest.raises(AsjaxError, match="did you mean 'Speech'"):
        labels.get("audioset527").index("Speach")
    with pytest.raises(AsjaxError, match="Dog"):
        labels.get("audioset527").index("dogg")
    with pytest.raises(AsjaxError, match="they are dog, rooster, rain"):
        labels.get("esc10").index("cat")


def test_encode_sorts_and_drops_repeats():
    found = labels.get("esc10")
    assert found.encode(["rain", "dog", 2, "/m/05tny_"]).tolist() == [0, 2]
    assert found.encode([]).shape == (0,)
    with pytest.raises(AsjaxError, match="must be a list"):
        found.encode("rain")


def test_esc10_is_in_target_order_and_means_the_embedded_mids():
    found = labels.get("esc10")
    assert found.names == tuple(ESC10.split())
    assert found.meanings(0) == ("/m/05tny_",)
    assert found.encode(["/m/02_41", "/m/07pzfmf"]).tolist() == [4]  # Fire and Crackle
    esc50 = labels.get("esc50")
    assert len(esc50) == 50
    assert [esc50.index(name) for name in found.names] == [0, 1, 10, 11, 12, 20, 21, 38, 40, 41]


def test_a_mid_of_several_classes_is_refused():
    two = labels.LabelSet("two", ("a", "b"), ("a", "b"), (("/m/x",), ("/m/x", "/m/y")))
    assert two.index("/m/y") == 1
    with pytest.raises(AsjaxError, match="several classes of two: a, b"):
        two.index("/m/x")


def test_csv_round_trip_keeps_everything(tmp_path):
    for name in labels.KNOWN:
        found = labels.get(name)
        found.to_csv(tmp_path / f"{name}.csv")
        assert labels.get(tmp_path / f"{name}.csv") == found
        assert (tmp_path / f"{name}.csv").read_text() == (labels.ASSETS / f"{name}.csv").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,mid,display_name\n1,/m/a,A\n", "in order, got '1' instead of 0"),
        ("index,mid,display_name\n0,/m/a,A\n1,/m/a,B\n", "every id"),
        ("index,mid,display_name\n0,/m/a,A\n1,/m/b,a\n", "every display name"),
        ("index,mid,display_name\n0,/m/a,\n", "every display name"),
        ("mid,name\n/m/a,A\n", "columns index,mid,display_name"),
        ("", "columns index,mid,display_name"),
    ],
)
def test_a_broken_label_csv_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(AsjaxError, match=message):
        labels.get(path)


def test_unknown_sets_and_files_are_named():
    with pytest.raises(AsjaxError, match="did you mean 'audioset527'"):
        labels.get("audioset52")
    with pytest.raises(AsjaxError, match="no file nowhere.csv"):
        labels.get("nowhere.csv")


def test_parents_is_the_whole_ontology_and_refuses_sets_of_own_ids():
    table = labels.parents("audioset527")
    assert len(table) == 632
    assert sum(not above for above in table.values()) == 7
    assert set(labels.get("audioset527").ids) < set(table)
    table["/m/09x0r"].append("changed")
    assert "changed" not in labels.parents()["/m/09x0r"]
    with pytest.raises(AsjaxError, match="esc10 has no ontology"):
        labels.parents("esc10")


def test_mapping_puts_esc10_on_its_audioset_classes():
    table, target = labels.mapping("esc10", "audioset527"), labels.get("audioset527")
    assert table.shape == (10, 527)
    names = [[target.names[j] for j in np.flatnonzero(row)] for row in table]
    assert names[0] == ["Bark"]
    assert sorted(names[4]) == ["Crackle", "Fire"]
    assert sorted(names[7]) == ["Clock", "Tick"]
    np.testing.assert_array_equal(labels.mapping("audioset527", "esc10"), table.T)
    np.testing.assert_array_equal(labels.mapping("esc10", "esc10"), np.eye(10, dtype=bool))


def test_fsd50k_shares_192_classes_with_audioset_and_names_the_rest():
    shared, left_out = labels.overlap("fsd50k200", "audioset527")
    assert shared.shape == (192, 2)
    a, b = labels.get("fsd50k200"), labels.get("audioset527")
    assert all(a.ids[i] == b.ids[j] for i, j in shared)
    assert left_out == (
        "Crash_cymbal",
        "Domestic_sounds_and_home_sounds",
        "Gull_and_seagull",
        "Human_group_actions",
        "Human_voice",
        "Packing_tape_and_duct_tape",
        "Respiratory_sounds",
        "Screech",
    )


def test_audioset_strongs_sets_are_in_the_order_of_their_names_and_one_in_another():
    every = {n: labels.get(f"audioset_strong{n}") for n in (407, 416, 447, 456)}
    for count, found in every.items():
        assert len(found) == count
        assert list(found.names) == sorted(found.names)
    train, test = set(every[447].ids), set(every[416].ids)
    assert set(every[407].ids) == train & test
    assert set(every[456].ids) == train | test
    assert {"Silence", "Studio recording"} <= {every[416].names[i] for i in range(416)}
    assert every[447].index("Alert") == every[447].index("/t/dd00144")
    with pytest.raises(AsjaxError, match="not a class of audioset_strong416"):
        every[416].index("Alert")


def test_the_columns_of_the_published_detectors_are_their_authors(golden):
    classes, _ = golden("sed_classes")
    for count, key in ((447, "train_447"), (416, "eval_416")):
        found = labels.get(f"audioset_strong{count}")
        assert [list(pair) for pair in zip(found.names, found.ids, strict=True)] == classes[key]
    assert len(labels.get("audioset_strong407")) == classes["n_intersection"]
    assert len(labels.get("audioset_strong456")) == classes["n_id_map"]


# classes of the row's set that the column's set has
SHARED = {
    "audioset_strong407": (407, 407, 407, 407, 375, 11),
    "audioset_strong416": (407, 416, 407, 416, 381, 11),
    "audioset_strong447": (407, 407, 447, 447, 376, 11),
    "audioset_strong456": (407, 416, 447, 456, 382, 11),
    "audioset527": (375, 381, 376, 382, 527, 11),
    "desed10": (10, 10, 10, 10, 10, 10),
}


@pytest.mark.parametrize("source", SHARED)
def test_every_set_of_events_maps_to_every_other_by_mid(source):
    counts = []
    for target in SHARED:
        table = labels.mapping(source, target)
        mine, theirs = ([set(x.meanings(i)) for i in range(len(x))]
                        for x in (labels.get(source), labels.get(target)))  # fmt: skip
        assert table.tolist() == [[not a.isdisjoint(b) for b in theirs] for a in mine]
        counts.append(int(table.any(axis=1).sum()))
    assert tuple(counts) == SHARED[source]


def test_strong_classes_meet_the_527_by_mid_and_stand_alone_where_no_ontology_has_them():
    shared, left_out = labels.overlap("audioset_strong456", "audioset527")
    assert len(shared) == 382
    assert len(left_out) == 74
    table = labels.parents("audioset_strong456")
    alone = [mid for mid in table if mid not in labels.parents("audioset527")]
    assert len(alone) == 32
    assert not any(table[mid] for mid in alone)
    assert len(labels.parents("audioset527")) == 632


def test_desed_means_audiosets_classes():
    table, target = labels.mapping("desed10", "audioset527"), labels.get("audioset527")
    names = [[target.names[j] for j in np.flatnonzero(row)] for row in table]
    assert names[0] == ["Alarm"]
    assert names[5] == ["Electric toothbrush", "Electric shaver, electric razor"]
    assert [len(n) for n in names] == [1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


def test_check_hash_names_both_hashes():
    labels.check_hash("aa", "aa", "checkpoint x")
    with pytest.raises(AsjaxError, match="checkpoint x must be aa, got bb"):
        labels.check_hash("aa", "bb", "checkpoint x")


def test_assets_are_what_the_builder_makes_of_the_official_files(shared_dir, tmp_path, capsys):
    path = Path(__file__).parent.parent / "data_prep" / "labels.py"
    spec = importlib.util.spec_from_file_location("data_prep_labels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main([str(shared_dir / "data" / "metadata"), "--out", str(tmp_path)]) == 0
    assert "192" in capsys.readouterr().out
    for asset in labels.ASSETS.glob("*.csv"):
        assert (tmp_path / asset.name).read_bytes() == asset.read_bytes()
