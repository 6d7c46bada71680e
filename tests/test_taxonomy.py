"""A user's own ontology: HLP for any classes."""

import numpy as np
import pytest

from asjax import build, hlp, labels, taxonomy
from asjax.config import AsjaxError
from asjax.labels import LabelSet

PETS = LabelSet("own", ("d", "c", "b", "x"), ("Dog", "Cat", "Bird", "Car"))
MIXED = """child,parent
Dog,mammal
c,Mammal
mammal,animal
Bird,animal
x,
"""


def table(tmp_path, text, label_set=PETS):
    path = tmp_path / "parents.csv"
    path.write_text(text, encoding="utf-8")
    return label_set.with_taxonomy(path)


def test_rows_are_by_name_or_id_in_any_case(tmp_path):
    found = table(tmp_path, MIXED).taxonomy
    assert found == {
        "d": ["mammal"],
        "c": ["mammal"],
        "b": ["animal"],
        "x": [],
        "mammal": ["animal"],
        "animal": [],
    }
    assert list(found)[:4] == list(PETS.ids)


def test_the_closure_is_that_of_the_links_between_classes(tmp_path):
    """Against a manual walk: go up as long as there is one nearest class."""
    label_set = LabelSet(
        "own", ("puppy", "dog", "animal", "car"), ("Puppy", "Dog", "Animal", "Car")
    )
    text = "child,parent\npuppy,Dog\ndog,Pets\nPets,Animal\nCar,Vehicle\n"
    implies = hlp.closure(table(tmp_path, text, label_set))
    want = np.eye(4, dtype=bool)
    want[0, [1, 2]] = want[1, 2] = True
    np.testing.assert_array_equal(implies, want)
    np.testing.assert_array_equal(hlp.closure_if_known(table(tmp_path, text, label_set)), want)
    targets = np.array([[1, 0, 0, 0], [0, 0, 0, 1]], np.int8)
    assert hlp.propagate_labels(targets, implies).tolist() == [[1, 1, 1, 0], [0, 0, 0, 1]]


def test_a_class_with_several_parents_stops_there(tmp_path):
    label_set = LabelSet("own", ("a", "b", "c"), ("A", "B", "C"))
    implies = hlp.closure(table(tmp_path, "child,parent\na,b\na,c\n", label_set))
    np.testing.assert_array_equal(implies, np.eye(3, dtype=bool))


def test_audiosets_ontology_gives_way_to_ones_own(tmp_path):
    audioset = labels.get("audioset527")
    own = table(tmp_path, "child,parent\nSpeech,Music\n", audioset)
    assert hlp.pairs(hlp.closure(own)).tolist() == [
        [audioset.index("Speech"), audioset.index("Music")]
    ]
    assert len(hlp.pairs(hlp.closure(audioset))) == 731
    assert own.hash == audioset.hash


def test_without_one_there_is_no_hlp_and_the_error_says_how(tmp_path):
    assert hlp.closure_if_known(PETS) is None
    with pytest.raises(AsjaxError, match="labels.parents='parents.csv'"):
        hlp.closure(PETS)


def test_what_is_written_reads_the_same(tmp_path):
    found = table(tmp_path, MIXED)
    taxonomy.write(tmp_path / "again.csv", found.taxonomy)
    assert taxonomy.read(tmp_path / "again.csv", PETS) == found.taxonomy


def test_composed_and_decomposed_letters_are_one_node(tmp_path):
    label_set = LabelSet("own", ("a", "b"), ("V\u00f6gel", "Tier"))
    found = table(tmp_path, "child,parent\nVo\u0308gel,Tier\n", label_set)
    assert found.taxonomy == {"a": ["b"], "b": []}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("child,parent\nDog,Cat\nCat,Bird\nBird,Dog\n", "cycle .*Dog.*lines"),
        ("child,parent\nDog,Dog\n", "'Dog' -> 'Dog'; see lines 2"),
        (
            "child,parent\nDog,p\np,q\nq,p\n",
            "cycle .*'[pq]' -> '[pq]' -> '[pq]'; see lines 3, 4|4, 3",
        ),
        ("child,parent\nDog,animal\nDogg,animal\n", "line 3 'Dogg' is no class.*mean 'Dog'"),
        ("child,parent\nDog,animal\nwhale,animal\n", "line 3 'whale' is no class of own"),
        ("child,parent\n,animal\n", "line 2 has no child"),
        ("child,parent\nDog\n", "line 2 must have the columns child,parent"),
        ("child,parent\nDog,animal,x\n", "line 2 must have the columns"),
        ("kind,of\nDog,animal\n", "must have the columns child,parent"),
        ("child;parent\nDog;animal\n", "must have the columns child,parent"),
        ("", "must have the columns child,parent"),
        ("child,parent\n" + "9" * 5000 + ",animal\n", "line 2 '9+'?... is no class"),
        ('child,parent\nDog,"' + "x" * 200_000 + '"\n', "cannot be read as CSV"),
    ],
)
def test_what_cannot_be_is_named_with_its_lines(text, says, tmp_path):
    with pytest.raises(AsjaxError, match=says) as caught:
        table(tmp_path, text)
    assert "parents.csv" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_files_that_are_not_there_or_no_text(tmp_path):
    with pytest.raises(AsjaxError, match="taxonomy: no file"):
        PETS.with_taxonomy(tmp_path / "gone.csv")
    (tmp_path / "x.csv").write_bytes(b"child,parent\n\xff\xfe,b\n")
    with pytest.raises(AsjaxError, match="cannot be read as CSV"):
        PETS.with_taxonomy(tmp_path / "x.csv")


def test_a_config_names_it(tmp_path):
    (tmp_path / "clips.csv").write_text("filename,labels\na.wav,Dog\nb.wav,Animal\n")
    (tmp_path / "parents.csv").write_text("child,parent\nDog,Animal\n")
    cfg = {
        "labels": {"name": "own", "parents": str(tmp_path / "parents.csv")},
        "data": {"train": {"name": "folder", "csv": str(tmp_path / "clips.csv")}},
    }
    label_set = build.label_set(cfg)
    assert label_set.ids == ("Animal", "Dog")
    assert hlp.pairs(hlp.closure(label_set)).tolist() == [[1, 0]]
    cfg["labels"]["parents"] = ""
    assert build.label_set(cfg).taxonomy is None
