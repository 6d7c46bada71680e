"""HLP: the closure against the published table, propagation against loops."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule
from reference import hlp as slow
from scipy import sparse

from asjax import hlp, labels
from asjax.config import AsjaxError

SALT = "asjax-parity-1"


@pytest.fixture(scope="module")
def audioset():
    return hlp.closure("audioset527")


def random_table(seed, nodes=40):
    """A random ontology with shuffled node numbers, so a parent may come after its child."""
    rng = np.random.default_rng(seed)
    name = rng.permutation(nodes).tolist()
    table = {}
    for i in rng.permutation(nodes).tolist():
        count = rng.choice(4, p=[0.15, 0.5, 0.25, 0.1])
        table[name[i]] = [name[j] for j in set(rng.integers(0, max(i, 1), count).tolist()) if i]
    targets = [n for n in range(nodes) if rng.random() < 0.7]
    return table, targets


def test_audioset_closure_is_the_published_table(golden, audioset):
    manifest, _ = golden("hlp_table")
    assert sorted(map(tuple, hlp.pairs(audioset))) == sorted(map(tuple, manifest["pairs"]))
    assert audioset.dtype == bool
    assert audioset.diagonal().all()
    off = audioset & ~np.eye(527, dtype=bool)
    assert np.flatnonzero(off.any(axis=0)).tolist() == manifest["gaining_classes"]
    assert [off.sum(), off.any(axis=0).sum(), off.any(axis=1).sum()] == [731, 109, 380]


def test_strict_rule_gives_the_pairs_of_single_parents_only(audioset):
    strict = hlp.closure("audioset527", strict=True)
    pairs = hlp.pairs(strict)
    assert [len(pairs), len(set(pairs[:, 1]))] == [697, 106]
    assert not (strict & ~audioset).any()
    found = labels.get("audioset527")
    bell, instrument = found.index("Bell"), found.index("Musical instrument")
    assert audioset[bell, instrument]
    assert not strict[bell, instrument]


def test_small_dags_follow_the_rule(golden):
    for dag in golden("hlp_small_dags")[0]["dags"]:
        parents = {int(node): above for node, above in dag["parents"].items()}
        found = hlp.closure(parents, targets=dag["targets"])
        pairs = [[dag["targets"][i], dag["targets"][j]] for i, j in hlp.pairs(found)]
        assert sorted(pairs) == sorted(dag["pairs"])


@pytest.mark.parametrize("seed", range(20))
def test_closure_equals_the_step_by_step_rule_in_any_node_order(seed):
    table, targets = random_table(seed)
    for strict, rule_of in ((False, slow.ancestors), (True, slow.strict_ancestors)):
        expected = np.eye(len(targets), dtype=bool)
        for i, target in enumerate(targets):
            for ancestor in rule_of(target, table, set(targets)):
                expected[i, targets.index(ancestor)] = True
        np.testing.assert_array_equal(hlp.closure(table, strict, targets), expected)


def test_ontology_json_gives_the_same_closure_from_path_and_list(tmp_path, audioset):
    parents = labels.parents()
    children = {node: [] for node in parents}
    for node, above in parents.items():
        for parent in above:
            children[parent].append(node)
    nodes = [{"id": node, "child_ids": below} for node, below in children.items()]
    path = tmp_path / "ontology.json"
    path.write_text(json.dumps(nodes))
    np.testing.assert_array_equal(hlp.closure(path, targets="audioset527"), audioset)
    ids = labels.get("audioset527").ids
    np.testing.assert_array_equal(hlp.closure(nodes, targets=ids), audioset)
    path.write_text(json.dumps(parents))
    np.testing.assert_array_equal(hlp.closure(str(path), targets=ids), audioset)
    assert hlp.closure(nodes).shape == (632, 632)


def test_closure_takes_fsd50k_and_a_users_csv_of_mids(tmp_path, audioset):
    assert hlp.closure("fsd50k200").shape == (200, 200)
    found = labels.get("audioset527")
    labels.LabelSet("mine", found.ids, tuple(f"c{i}" for i in range(527))).to_csv(
        tmp_path / "mine.csv"
    )
    np.testing.assert_array_equal(hlp.closure(tmp_path / "mine.csv"), audioset)


@pytest.mark.parametrize(
    ("spec", "targets", "message"),
    [
        ({"a": ["b"], "b": ["c"], "c": ["a"]}, None, r"cycle \(child -> parent\): . -> . -> . -> "),
        ({"a": ["a"]}, None, "cycle"),
        ({"a": [], "b": ["a"]}, ["a", "x"], r"1 targets are not in the ontology: \['x'\]"),
        ({"a": [], "b": ["a"]}, ["a", "a"], "must not repeat"),
        ({"b": ["a"]}, None, "parent 'a' of 'b' is not a node"),
        ({"b": "a"}, None, "parents of 'b' must be a list"),
        ([{"id": "a", "child_ids": ["x"]}], None, "child 'x' of 'a' is not a node"),
        ([{"id": "a", "child_ids": []}] * 2, None, "every id must occur once"),
        ([{"id": "a"}], None, "ontology must be a list of"),
        ("nowhere.json", None, "no file nowhere.json"),
        ("esc10", None, "esc10 has no ontology"),
        ("audioset527", ["/m/09x0r"], "targets go with an ontology"),
    ],
)
def test_broken_ontologies_are_refused(spec, targets, message):
    with pytest.raises(AsjaxError, match=message):
        hlp.closure(spec, targets=targets)


def golden_inputs():
    noise = rule.array("hlp/labels", (256, 527), salt=SALT)
    limit = np.where(np.arange(256)[:, None] % 4 == 3, 1.0, 2.4)
    logits = rule.array("hlp/logits", (40, 527), salt=SALT, scale=3.0) - np.float32(2.0)
    return noise > limit, logits


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int32, np.float32])
def test_labels_match_the_reference_package_in_numpy_and_under_jit(golden, audioset, dtype):
    hard, _ = golden_inputs()
    packed = golden("hlp_cases")[1]["labels"]
    expected = np.unpackbits(packed, axis=1, count=527).astype(bool)
    got = hlp.propagate_labels(hard.astype(dtype), audioset)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(bool), expected)
    traced = jax.jit(lambda y: hlp.propagate_labels(y, audioset))(hard.astype(dtype))
    assert traced.dtype == dtype
    np.testing.assert_array_equal(traced, got)


def test_labels_take_sparse_rows_and_any_leading_axes(audioset):
    hard, _ = golden_inputs()
    expected = hlp.propagate_labels(hard, audioset)
    rows = sparse.csr_array(hard.astype(np.int8))
    got = hlp.propagate_labels(rows, audioset)
    assert got.dtype == np.int8
    np.testing.assert_array_equal(got.toarray(), expected)
    for shape in ((527,), (4, 8, 8, 527)):
        y = hard[0] if len(shape) == 1 else hard.reshape(shape)
        out = expected[0] if len(shape) == 1 else expected.reshape(shape)
        np.testing.assert_array_equal(hlp.propagate_labels(y, audioset), out)
        np.testing.assert_array_equal(hlp.propagate_labels(jnp.asarray(y), audioset), out)


def test_label_propagation_is_one_matrix_product(audioset):
    program = jax.make_jaxpr(lambda y: hlp.propagate_labels(y, audioset))(jnp.zeros((4, 527)))
    names = [eqn.primitive.name for eqn in program.eqns]
    assert names.count("dot_general") == 1
    assert len(names) < 8


def test_soft_labels_are_refused(audioset):
    with pytest.raises(AsjaxError, match="before mixup and smoothing"):
        hlp.propagate_labels(np.full((2, 527), 0.1, np.float32), audioset)
    with pytest.raises(AsjaxError, match="must be 0 or 1"):
        hlp.propagate_labels(sparse.csr_array(np.full((2, 527), 2)), audioset)


def test_scores_match_the_correct_reference_and_not_its_clamped_one(golden, audioset):
    _, logits = golden_inputs()
    cases = golden("hlp_cases")[1]
    got = hlp.propagate_scores(logits, audioset)
    np.testing.assert_array_equal(got, cases["logits"])
    np.testing.assert_array_equal(np.maximum(got, 0), cases["logits_reference_package"])
    assert (got != cases["logits_reference_package"]).mean() > 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float16, "bfloat16"])
def test_scores_agree_bit_for_bit_in_numpy_and_under_jit(audioset, dtype):
    dtype = jnp.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    rng = np.random.default_rng(0)
    s = rng.choice([-np.inf, -7.0, -0.0, 0.0, 1.5, np.nan, np.inf], (64, 527)).astype(dtype)
    s[32:] = rng.standard_normal((32, 527)) - 20
    fast = hlp.propagate_scores(s, audioset)
    traced = np.asarray(jax.jit(lambda x: hlp.propagate_scores(x, audioset))(s))
    assert fast.dtype == traced.dtype == dtype
    assert fast.tobytes() == traced.tobytes()


def test_scores_equal_the_loops_with_nan_and_minus_infinity():
    table, targets = random_table(3)
    implies = hlp.closure(table, targets=targets)
    rng = np.random.default_rng(1)
    s = rng.standard_normal((30, len(targets))) - 5
    s[rng.random(s.shape) < 0.03] = np.nan
    s[rng.random(s.shape) < 0.1] = -np.inf
    s[0] = -np.inf
    np.testing.assert_array_equal(hlp.propagate_scores(s, implies), slow.propagate(s, implies))
    assert np.isneginf(hlp.propagate_scores(s[:1], implies)).all()


def test_a_nan_reaches_exactly_the_ancestors(audioset):
    found = labels.get("audioset527")
    s = np.full((1, 527), -3.0, np.float32)
    s[0, found.index("Bark")] = np.nan
    expected = np.flatnonzero(audioset[found.index("Bark")])
    assert np.flatnonzero(np.isnan(hlp.propagate_scores(s, audioset))).tolist() == expected.tolist()
    assert [found.names[i] for i in expected] == [
        "Animal",
        "Domestic animals, pets",
        "Dog",
        "Bark",
    ]


def test_scores_keep_leading_axes_and_commute_with_the_sigmoid(audioset):
    _, logits = golden_inputs()
    out = hlp.propagate_scores(logits, audioset)
    np.testing.assert_array_equal(hlp.propagate_scores(logits[0], audioset), out[0])
    clips = jax.jit(lambda s: hlp.propagate_scores(s, audioset))(logits.reshape(4, 10, 527))
    np.testing.assert_array_equal(clips, out.reshape(4, 10, 527))
    np.testing.assert_array_equal(hlp.propagate_scores(out, audioset), out)  # idempotent
    chance = np.asarray(jax.nn.sigmoid(logits))
    np.testing.assert_array_equal(
        hlp.propagate_scores(chance, audioset), np.asarray(jax.nn.sigmoid(out))
    )
    assert hlp.propagate_scores(logits[:0], audioset).shape == (0, 527)


def test_gradient_goes_to_the_winning_descendant_alone():
    implies = hlp.closure({"top": [], "a": ["top"], "b": ["top"]}, targets=["top", "a", "b"])
    grad = jax.grad(lambda s: hlp.propagate_scores(s, implies)[0])(jnp.array([-4.0, -3.0, -5.0]))
    assert grad.tolist() == [0.0, 1.0, 0.0]


def test_scores_need_memory_for_the_pairs_only(audioset):
    batch = 512
    rows = jax.ShapeDtypeStruct((batch, 527), jnp.float32)
    program = jax.jit(lambda s: hlp.propagate_scores(s, audioset)).lower(rows).compile()
    used = program.memory_analysis().temp_size_in_bytes
    pairs = 731 + 527
    assert used < 2 * batch * pairs * 4  # an array of batch x 527 x 527 would be 569 MB


@pytest.mark.parametrize(
    ("closure", "message"),
    [
        (np.ones((3, 4), bool), "must be square"),
        (np.eye(4, dtype=bool), "have 3 classes, the closure has 4"),
        ([[True]], "must be a numpy array"),
    ],
)
def test_a_closure_that_does_not_fit_is_refused(closure, message):
    for propagate in (hlp.propagate_labels, hlp.propagate_scores):
        with pytest.raises(AsjaxError, match=message):
            propagate(np.zeros((2, 3)), closure)
