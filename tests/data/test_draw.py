"""Draws against materialised lists and exact distributions."""

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from reference import draw as naive
from scipy import sparse, stats

from asjax import balance, build
from asjax.config import AsjaxError
from asjax.data import draw

SPECS = [
    "sequential",
    "shuffle",
    "oversample(beta=0.7)",
    "expected(beta=0.7)",
    "expected(beta=0.7, draws=97)",
    "weighted(scheme='passt')",
    "weighted(scheme='ast', draws=53)",
    "weighted(scheme='passt', replacement=False, draws=40)",
    "class_queue",
]


def long_tailed(n=200, classes=12, seed=0):
    """Dense 0/1 [n, classes], priors up to 1/2; every row has a label, one class is empty."""
    rng = np.random.default_rng(seed)
    dense = rng.random((n, classes)) < 0.5 ** np.arange(1, classes + 1)
    dense[:, -1] = False
    dense[~dense.any(axis=1), 0] = True
    dense[:3, -2] = True
    return dense.astype(np.int8)


DENSE = long_tailed()
LABELS = sparse.csr_matrix(DENSE)


def make_draw(spec, labels, seed):
    return build.make("draw", spec, labels=labels, seed=seed)


def epoch(d, e=0):
    start = e * d.draws_per_epoch
    return d(np.arange(start, start + d.draws_per_epoch))


def p_value(found, expected):
    """p-value of Pearson's chi-square test of counts against expected counts."""
    return stats.chisquare(found, expected * (found.sum() / expected.sum())).pvalue


# -------------------------------------------------------------------------------- permutations


@pytest.mark.parametrize("size", [1, 2, 3, 10, 4096, 4097, 5000, 65537, 100_000])
def test_permute_is_a_permutation_and_scalar_equals_array(size):
    found = draw.permute(np.arange(size), size, 42)
    assert np.array_equal(np.sort(found), np.arange(size))
    some = np.unique(np.linspace(0, size - 1, 50).astype(int))
    assert [draw.permute(int(i), size, 42) for i in some] == found[some].tolist()


def test_small_permutations_are_uniform_over_all_orders():
    orders = {p: i for i, p in enumerate(itertools.permutations(range(4)))}
    found = np.zeros(24)
    for key in range(6000):
        bits = draw.random_bits(key, 9)
        found[orders[tuple(draw.permute(i, 4, bits) for i in range(4))]] += 1
    assert p_value(found, np.ones(24)) > 1e-4


@pytest.mark.parametrize("size", [4500, 437_491_263])
def test_large_permutations_put_pairs_of_neighbours_uniformly(size):
    """The positions of i and i + 1, in 8 x 8 cells, are independent over many keys."""
    found = np.zeros((8, 8))
    for key in range(300):
        bits = draw.random_bits(key, 1)
        start = key * 7
        at = draw.permute(np.arange(start, start + 200), size, bits) * 8 // size
        np.add.at(found, (at[:-1:2], at[1::2]), 1)
    assert p_value(found.ravel(), np.ones(64)) > 1e-4


def test_random_bits_are_balanced_and_uncorrelated():
    bits = draw._hash(3, np.arange(1 << 16, dtype=np.uint64))
    each = (bits[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(each.mean(axis=0) - 0.5).max() < 5 * 0.5 / 2**8
    together = np.corrcoef(each[:, ::4].T) - np.eye(16)
    assert np.abs(together).max() < 6 / 2**8


# --------------------------------------------------------------------------------- every draw


@pytest.mark.parametrize("spec", SPECS)
def test_random_access_threads_and_pickling_change_nothing(spec):
    d = make_draw(spec, LABELS, seed=5)
    n = np.arange(3 * d.draws_per_epoch)
    at_once = d(n)
    assert at_once.dtype == np.int64
    assert 0 <= at_once.min() <= at_once.max() < 200
    assert [d(int(i)) for i in n[::-1]] == at_once[::-1].tolist()
    copy = pickle.loads(pickle.dumps(d))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(copy, n.tolist())) == at_once.tolist()


@pytest.mark.parametrize("spec", SPECS)
def test_processes_together_draw_the_single_process_order(spec):
    one = make_draw(spec, LABELS, seed=5)
    n = np.arange(300)
    two = [make_draw(spec, LABELS, seed=5)(n[p::2]) for p in range(2)]
    joined = np.empty(300, np.int64)
    joined[0::2], joined[1::2] = two
    assert np.array_equal(joined, one(n))


@pytest.mark.parametrize("spec", SPECS[1:])
def test_epochs_and_seeds_differ(spec):
    d = make_draw(spec, LABELS, seed=5)
    assert not np.array_equal(epoch(d, 0), epoch(d, 1))
    assert not np.array_equal(epoch(d, 0), epoch(make_draw(spec, LABELS, seed=6), 0))


# ------------------------------------------------------------------------------- each by its law


def test_sequential_is_the_order_of_the_source():
    assert epoch(make_draw("sequential", LABELS, 0), 3).tolist() == list(range(200))


def test_shuffle_has_every_record_once_per_epoch():
    d = make_draw("shuffle", LABELS, 1)
    assert all(np.array_equal(np.sort(epoch(d, e)), np.arange(200)) for e in range(3))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_oversample_repeats_each_record_exactly_m_j_times(beta):
    d = make_draw(f"oversample(beta={beta})", LABELS, 1)
    expected = naive.oversampled_list(DENSE, beta)
    assert d.draws_per_epoch == len(expected)
    for e in range(2):
        assert sorted(epoch(d, e).tolist()) == expected


def test_oversample_holds_only_n_numbers_at_beta_1():
    """100,000 records; 20 of them are the only ones of their class: 1e5 * 5000 virtual entries."""
    n = 100_000
    column = np.r_[np.zeros(n - 20, np.int64), np.ones(20, np.int64)]
    labels = sparse.csr_matrix((np.ones(n), (np.arange(n), column)), shape=(n, 2))
    d = make_draw("oversample(beta=1.0)", labels, 0)
    assert d.draws_per_epoch == n - 20 + 20 * round((n - 20) / 20)
    assert sum(v.nbytes for v in vars(d).values() if isinstance(v, np.ndarray)) == 8 * n
    found = d(np.arange(d.draws_per_epoch))
    assert np.array_equal(np.bincount(found)[-20:], np.full(20, round((n - 20) / 20)))


def test_expected_counts_are_within_one_of_expectation_and_right_on_average():
    d = make_draw("expected(beta=0.5)", LABELS, 3)
    expected = naive.expected_share(DENSE, 0.5) * 200
    counts = np.array([np.bincount(epoch(d, e), minlength=200) for e in range(400)])
    assert np.abs(counts - expected).max() < 1
    # A count is floor or ceil of its expectation, so it is a Bernoulli variable of known variance.
    part = expected % 1
    sigma = np.sqrt(part * (1 - part) / 400) + 1e-9
    assert (np.abs(counts.mean(axis=0) - expected) / sigma).max() < 5


@pytest.mark.parametrize(("scheme", "offset"), [("passt", 100), ("ast", 0.01)])
def test_weighted_with_replacement_follows_the_weights(scheme, offset):
    d = make_draw(f"weighted(scheme='{scheme}', draws=20000)", LABELS, 3)
    assert p_value(np.bincount(epoch(d, 0), minlength=200), naive.weights(DENSE, offset)) > 1e-4
    first = epoch(d, 1)
    pairs = np.zeros((2, 2))
    np.add.at(pairs, (first[:-1:2] % 2, first[1::2] % 2), 1)
    assert stats.chi2_contingency(pairs).pvalue > 1e-4


def test_ast_draws_follow_the_weights_of_its_authors_script(golden):
    """The weights of gen_weight_file.py, and N draws with replacement like torch's sampler."""
    arrays = golden("sampler_cases")[1]
    labels, weights = sparse.csr_matrix(arrays["labels"]), arrays["ast_sample_weight"]
    np.testing.assert_allclose(balance.ast_weights(labels), weights, rtol=1e-13)
    assert make_draw("weighted(scheme='ast')", labels, 3).draws_per_epoch == len(weights) == 400
    d = make_draw("weighted(scheme='ast', draws=50000)", labels, 3)
    assert p_value(np.bincount(epoch(d), minlength=400), weights) > 1e-4


@pytest.mark.parametrize("beta", ["0", "0.1", "0.2", "0.3", "0.5", "0.7", "1"])
def test_oversample_equals_the_balancing_papers_equations(golden, beta):
    arrays = golden("sampler_cases")[1]
    d = make_draw(f"oversample(beta={beta})", sparse.csr_matrix(arrays["labels"]), 3)
    copies, tie = arrays[f"M_half_even_beta{beta}"], arrays[f"near_tie_beta{beta}"]
    assert d.draws_per_epoch == copies.sum() or tie.any()
    found = np.bincount(epoch(d), minlength=400)
    np.testing.assert_array_equal(found[~tie], copies[~tie])
    if beta == "1":  # 22 true ties, rounded half to even as in numpy and TensorFlow
        assert tie.sum() == 22
        np.testing.assert_array_equal(found, copies)
        assert (found != arrays["M_half_up_beta1"]).any()


def test_passt_draws_100_000_distinct_clips_by_default():
    """An epoch of PaSST is as long as in its code if there are enough clips."""
    labels = sparse.csr_matrix((np.ones(120_000), (np.arange(120_000), np.arange(120_000) % 3)))
    d = make_draw("weighted(scheme='passt', replacement=False)", labels, 0)
    assert d.draws_per_epoch == 100_000
    assert len(np.unique(epoch(d, 1))) == 100_000
    np.testing.assert_allclose(d._weights, 1000 / (40_000 + 100), rtol=1e-13)


def test_weighted_without_replacement_is_distinct_and_follows_the_sequential_law():
    few = DENSE[np.r_[0, 5, 20:26]]
    weights = naive.weights(few, 0.01)
    spec = "weighted(scheme='ast', replacement=False, draws=4)"
    d = make_draw(spec, sparse.csr_matrix(few), 3)
    lists = np.array([epoch(d, e) for e in range(4000)])
    assert (np.diff(np.sort(lists, axis=1), axis=1) > 0).all()
    first = np.bincount(lists[:, 0], minlength=8)
    second = np.bincount(lists[:, 1], minlength=8)
    assert p_value(first, weights) > 1e-4
    assert p_value(second, naive.second_draw(weights)) > 1e-4


def test_threads_on_both_sides_of_an_epochs_end_make_each_list_once(monkeypatch):
    """The list of an epoch that is used again later is computed again and is the same."""
    d = make_draw("weighted(scheme='passt', replacement=False, draws=40)", LABELS, 3)
    made, original = [], d._without_replacement
    monkeypatch.setattr(d, "_without_replacement", lambda e: made.append(e) or original(e))
    expected = [epoch(d, 0), epoch(d, 1)]
    assert made == [0, 1]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(d, [n + 40 * (k % 2) for n in range(40) for k in range(8)]))
    assert found[::8] == expected[0].tolist()
    assert found[1::8] == expected[1].tolist()
    assert made == [0, 1]
    epoch(d, 2)
    assert np.array_equal(epoch(d, 0), expected[0])
    assert len(d._kept) == 2


def test_weighted_never_draws_a_clip_without_labels():
    dense = DENSE.copy()
    dense[[0, 77, 199]] = 0
    labels = sparse.csr_matrix(dense)
    d = make_draw("weighted(scheme='ast', draws=20000)", labels, 3)
    assert not set(epoch(d).tolist()) & {0, 77, 199}
    d = make_draw("weighted(scheme='ast', replacement=False)", labels, 3)
    assert sorted(epoch(d).tolist()) == sorted(set(range(200)) - {0, 77, 199})


def test_class_queue_equals_the_loop_with_state():
    d = make_draw("class_queue", LABELS, 3)

    def permutation(kind, k, turn, size):
        key = draw.random_bits(3, turn) if kind == "classes" else draw.random_bits(3, turn, k + 1)
        return [draw.permute(i, size, key) for i in range(size)]

    queue = naive.Queue(DENSE, permutation)
    assert [queue.draw() for _ in range(3000)] == d(np.arange(3000)).tolist()
    assert make_draw("class_queue", sparse.csc_matrix(DENSE), 3)(2999) == d(2999)


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("shufle", "did you mean 'shuffle'"),
        ("oversample(bta=1)", "'bta' does not exist"),
        ("oversample(beta=-1)", "beta must be"),
        ("weighted(scheme='psla')", "scheme 'psla' does not exist"),
        ("weighted(draws=0)", "draws must be an int of at least 1"),
        ("weighted(replacement=False, draws=201)", "at most 200, the number of clips"),
        ("expected(draws=0.5)", "draws must be an int"),
        ("shuffle(seed=3)", "seed is set by the program; remove it from the config"),
    ],
)
def test_unusable_specs_are_named(spec, says):
    with pytest.raises(AsjaxError, match=says):
        make_draw(spec, LABELS, 0)


def test_no_clips_no_labels_and_bad_seeds_are_refused():
    with pytest.raises(AsjaxError, match="at least one clip, got none"):
        make_draw("shuffle", LABELS[:0], 0)
    for spec in ("class_queue", "weighted(scheme='passt')"):
        with pytest.raises(AsjaxError, match="must have a label"):
            make_draw(spec, sparse.csr_matrix((5, 3)), 0)
    with pytest.raises(AsjaxError, match="seed must be"):
        make_draw("shuffle", LABELS, -1)


# --------------------------------------------------------------------- groups in fixed shares


def two_kinds(strong=10, weak=7, seed=0):
    """A source with clips with events and with labels only, in random order; its labels."""
    known = np.zeros(strong + weak, bool)
    known[np.random.default_rng(seed).permutation(strong + weak)[:strong]] = True
    source = SimpleNamespace(name="two", events=[[] if k else None for k in known])
    labels = sparse.csr_matrix(np.ones((strong + weak, 1), np.int8))
    return source, labels, known


@pytest.mark.parametrize(("strong", "weak"), [(1, 1), (3, 2), (1, 4), (128, 128)])
def test_strong_weak_has_fixed_shares_in_every_batch_and_nearly_in_its_parts(strong, weak):
    source, labels, known = two_kinds(300, 200)
    spec = f"strong_weak(strong={strong}, weak={weak})"
    drawn = build.make("draw", spec, labels=labels, seed=3, source=source)
    period = strong + weak
    assert drawn.draws_per_epoch == min(300 // strong, 200 // weak) * period
    got = drawn(np.arange(20 * period))
    assert (known[got].reshape(20, period).sum(axis=1) == strong).all()
    halves = known[got].reshape(40, period // 2) if period % 2 == 0 else np.zeros((0, 1))
    assert (np.abs(halves.sum(axis=1) - strong / 2) <= 1).all()
    np.testing.assert_array_equal(got[:200], [drawn(n) for n in range(min(200, len(got)))])


def test_strong_weak_takes_every_clip_of_a_group_before_one_comes_again():
    source, labels, known = two_kinds()
    drawn = build.make("draw", "strong_weak(strong=2)", labels=labels, seed=1, source=source)
    got = drawn(np.arange(3 * 140))
    strong, weak = got[known[got]], got[~known[got]]
    for group, size in ((strong, 10), (weak, 7)):
        rounds = group[: len(group) // size * size].reshape(-1, size)
        assert len(rounds) > 10
        assert all(len(set(one)) == size for one in rounds.tolist())
        assert len({tuple(one) for one in rounds.tolist()}) > 5  # another order each time
    other = build.make("draw", "strong_weak(strong=2)", labels=labels, seed=2, source=source)
    assert (other(np.arange(100)) != got[:100]).any()
    again = pickle.loads(pickle.dumps(drawn))
    np.testing.assert_array_equal(again(np.arange(100)), got[:100])


def test_strong_weak_refuses_one_kind_of_clips_and_wrong_shares():
    source, labels, _ = two_kinds()
    for events in ([[]] * 17, [None] * 17, None):
        other = SimpleNamespace(name="one", events=events)
        with pytest.raises(AsjaxError, match="needs clips with events and clips with labels only"):
            build.make("draw", "strong_weak", labels=labels, seed=0, source=other)
    for text in ("strong=0", "weak=0"):
        with pytest.raises(AsjaxError, match="would never be drawn"):
            build.make("draw", f"strong_weak({text})", labels=labels, seed=0, source=source)
    for text in ("strong=-1", "weak=1.5", "weak=True"):
        with pytest.raises(AsjaxError, match="must be a whole number from 1"):
            build.make("draw", f"strong_weak({text})", labels=labels, seed=0, source=source)
    with pytest.warns(UserWarning, match="a group has fewer clips"):  # shares
        few = build.make("draw", "strong_weak(strong=20)", labels=labels, seed=0, source=source)
    assert few.draws_per_epoch == 21
