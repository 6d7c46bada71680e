"""Augmentations against plain numpy and published distributions; the same rng, the same choices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import augment as naive
from scipy import stats

from asjax import augment, build
from asjax.augment import mixing
from asjax.build import augment as chain
from asjax.config import AsjaxError

_pairs = jax.jit(mixing.pairs, static_argnums=(1, 4))  # (rng, clips, alpha, rate, style)

KEY = jax.random.key(7)
EVERY_OP = [
    "roll(fraction=0.5)",
    "roll(samples=50, per_batch=True)",
    "roll(samples=50, half_open=True)",
    "speed(rate=1.0)",
    "speed(per_batch=True, rate=1.0, low=0.9, high=1.1)",
    "gain",
    "gain(low_db=-3.5, high_db=2.5, integer=False)",
    "specaug(time_width=9, freq_width=4)",
    "specaug(per_batch=True, fill=-1.0)",
    "specaug(law='torchaudio', time_stripes=1, freq_stripes=1, fill=0.467)",
    "noise(amount=0.5)",
    "roll_frames(frames=10, half_open=True)",
    "mixup",
    "mixup(alpha=0.3, rate=0.5, style='passt')",
    "mixup(alpha=10, style='plain', domain='db_energy')",
    "mixup(alpha=2, rate=0.5, style='plain', domain='ln_energy', remove_mean=True)",
    "mixup(alpha=2, style='plain', domain='ln_energy', scale=0.1)",
    "mixup(alpha=2, style='plain', domain='ln_energy', block=8)",
]


COMBINED = [
    "roll | gain | specaug | mixup",
    "roll(samples=9) | gain(integer=False, per_batch=True) | specaug(per_batch=True)"
    " | mixup(alpha=0.3, rate=0.5, style='passt', domain='db_energy', remove_mean=True)",
]


@functools.cache
def _jitted(spec):
    """The compiled chain, shared by the tests because compilation takes most of their time."""
    return jax.jit(chain(spec))


def _batch(clips=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "wave": (0.1 + 0.3 * rng.standard_normal((clips, 300))).astype(np.float32),
        "feats": (-40 + 20 * rng.standard_normal((clips, 31, 12))).astype(np.float32),
        "target": (rng.random((clips, 5)) < 0.3).astype(np.float32),
        "mask": np.ones(clips, np.float32),
    }


def _on_device(batch, dtype=jnp.float32):
    return {k: jnp.asarray(v, dtype) for k, v in batch.items()}


def _assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(np.asarray(a[key]), np.asarray(b[key]), err_msg=key)


# ------------------------------------------------------------------------ promises of every op


def _check_kept(batch, out, rows):
    for key, value in batch.items():
        assert out[key].shape == (rows, *value.shape[1:])
        assert out[key].dtype == value.dtype
        assert np.isfinite(np.asarray(out[key], np.float32)).all()


@pytest.mark.parametrize("spec", EVERY_OP)
def test_every_op_keeps_shapes_and_follows_its_rng(spec):
    op, batch = _jitted(spec), _on_device(_batch())
    first = op(KEY, batch)
    _check_kept(batch, first, 4 if spec == "mixup" else 8)
    _assert_equal(first, op(KEY, batch))
    other = op(jax.random.key(8), batch)
    assert any((np.asarray(first[k]) != np.asarray(other[k])).any() for k in first)


def test_half_precision_is_kept():
    batch = _on_device(_batch(), jnp.bfloat16)
    _check_kept(batch, _jitted(COMBINED[0])(KEY, batch), 4)


@pytest.mark.parametrize("spec", COMBINED)
def test_each_key_alone_gets_what_it_gets_in_company(spec):
    op, batch = _jitted(spec), _on_device(_batch())
    together = op(KEY, batch)
    for keys in (["wave", "feats"], ["target", "mask"]):
        apart = op(KEY, {key: batch[key] for key in keys})
        for key in keys:
            np.testing.assert_allclose(apart[key], together[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        "roll(samples=0) | gain(low_db=0, high_db=0) | specaug(time_width=0, freq_stripes=0)",
        "specaug(time_width=1, freq_width=0) | mixup(rate=0, style='passt')",
        "mixup(rate=0, style='plain', domain='db_energy', remove_mean=True)",
        "speed(rate=0) | noise(amount=0) | roll_frames(frames=0)",
        "speed(rate=1, low=1, high=1) | roll(samples=0, half_open=True)",
        "specaug(law='torchaudio', time_width=1, freq_width=1)",
        "",
        None,
    ],
)
def test_zero_strength_is_the_identity(spec):
    batch = _on_device(_batch())
    _assert_equal(_jitted(spec)(KEY, batch), batch)


def test_unmixed_panns_pairs_keep_the_even_rows():
    batch = _on_device({**_batch(), "length": np.arange(8)})
    out = chain("mixup(rate=0)")(KEY, batch)
    _assert_equal(out, {key: value[0::2] for key, value in batch.items()})


def test_a_chain_gives_each_op_its_own_rng():
    batch = _on_device(_batch())
    twice = _jitted("roll | roll")(KEY, batch)["wave"]
    steps = [jax.random.fold_in(KEY, i) for i in range(2)]
    roll = jax.jit(augment.roll)
    by_hand = roll(steps[1], roll(steps[0], batch))["wave"]
    np.testing.assert_array_equal(twice, by_hand)
    assert chain("roll | mixup").names == ("roll", "mixup")
    assert build.augment("gain | mixup").names == ("gain", "mixup")


def test_two_calls_compile_once():
    traces = []
    op = chain("gain | mixup")
    step = jax.jit(lambda rng, batch: traces.append(1) or op(rng, batch))
    for seed in range(3):
        step(jax.random.key(seed), _on_device(_batch(seed=seed)))
    assert len(traces) == 1


# --------------------------------------------------------------------------------- waveform


def test_roll_is_a_circular_shift_within_its_bound():
    wave = np.tile(np.arange(1000, dtype=np.int16), (200, 1))
    out = np.asarray(_jitted("roll(samples=50)")(KEY, {"wave": jnp.asarray(wave)})["wave"])
    assert out.dtype == np.int16
    shift = (-out[:, 0].astype(int) + 500) % 1000 - 500
    for row, k in zip(out, shift, strict=True):
        np.testing.assert_array_equal(row, np.roll(wave[0], k))
    assert shift.min() >= -50
    assert shift.max() <= 50
    assert stats.kstest((shift + 50.5) / 101, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ("roll(samples=3, half_open=True)", "wave"),
        ("roll_frames(frames=3, half_open=True)", "feats"),
    ],
)
def test_a_half_open_roll_draws_each_shift_but_the_last_alike(spec, key):
    row = jnp.arange(31.0)
    batch = {"wave": jnp.tile(row, (3000, 1)), "feats": jnp.tile(row[None, :, None], (3000, 1, 2))}
    out = np.asarray(_jitted(spec)(KEY, batch)[key]).reshape(3000, 31, -1)
    shift = (-out[:, 0, 0].astype(int) + 15) % 31 - 15
    for frames, k in zip(out[:50], shift[:50], strict=True):
        for column in frames.T:
            np.testing.assert_array_equal(column, np.roll(row, k))
    values, counts = np.unique(shift, return_counts=True)
    assert values.tolist() == [-3, -2, -1, 0, 1, 2]
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (1.0, 1.5), (0.375, 0.375), (2.0, 2.0)])
def test_speed_takes_the_nearest_samples_of_a_stretched_wave(low, high):
    """The samples are 1, 2, 3, ..., so a result shows its factor, its position and its zeros."""
    length = 200
    wave = jnp.tile(jnp.arange(1, length + 1, dtype=jnp.int16), (150, 1))
    out = np.asarray(_jitted(f"speed(rate=1, low={low}, high={high})")(KEY, {"wave": wave})["wave"])
    assert out.dtype == np.int16
    starts, factors = [], []
    for row in out:
        found = naive.stretch_of(row, length, low, high)
        assert found is not None, row
        factors.append(found[0])
        starts.append(found[1])
    assert min(factors) >= low - 0.02
    assert max(factors) <= high + 0.02
    assert len(set(starts)) > 20
    if low != high:  # the error of a measured factor is about 1 / length
        assert stats.kstest((np.array(factors) - low) / (high - low), "uniform").statistic < 0.15


def test_speed_changes_its_share_of_the_waves():
    wave = jnp.tile(jnp.arange(1.0, 100), (2000, 1))
    out = _jitted("speed(rate=0.3, low=0.5, high=0.9)")(KEY, {"wave": wave})["wave"]
    changed = int((np.asarray(out) != np.asarray(wave)).any(1).sum())
    assert stats.binomtest(changed, 2000, 0.3).pvalue > 1e-3
    alike = np.asarray(_jitted("speed(rate=1, per_batch=True)")(KEY, {"wave": wave})["wave"])
    assert (alike == alike[:1]).all()


def test_roll_of_a_whole_clip_starts_anywhere():
    wave = jnp.broadcast_to(jnp.arange(1000), (500, 1000))
    start = np.asarray(_jitted("roll")(KEY, {"wave": wave})["wave"])[:, 0]
    assert stats.kstest((start + 0.5) / 1000, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("op", ["roll", "gain", "specaug"])
def test_per_batch_draws_once(op):
    batch = {"wave": jnp.ones((9, 40)) * jnp.arange(40)[None], "feats": jnp.ones((9, 60, 30))}
    out = _jitted(f"{op}(per_batch=True)")(KEY, batch)
    own = _jitted(op)(KEY, batch)
    key = "feats" if op == "specaug" else "wave"
    assert (np.asarray(out[key]) == np.asarray(out[key])[:1]).all()
    assert (np.asarray(own[key]) != np.asarray(own[key])[:1]).any()


def test_gain_draws_whole_decibels_evenly():
    out = np.asarray(_jitted("gain")(KEY, {"wave": jnp.ones((4000, 2))})["wave"], np.float64)
    db = 20 * np.log10(out[:, 0])
    np.testing.assert_allclose(db, np.round(db), atol=1e-5)
    values, counts = np.unique(np.round(db).astype(int), return_counts=True)
    assert values.tolist() == list(range(-7, 7))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_real_valued_gain_is_uniform_between_its_ends():
    op = _jitted("gain(low_db=-4, high_db=1, integer=False)")
    db = 20 * np.log10(np.asarray(op(KEY, {"wave": jnp.ones((2000, 1))})["wave"])[:, 0])
    assert stats.kstest((db + 4) / 5, "uniform").pvalue > 1e-3


# --------------------------------------------------------------------------------- specaug


def test_one_stripe_follows_the_published_law():
    op = _jitted("specaug(time_width=64, time_stripes=1, freq_stripes=0)")
    out = np.asarray(op(KEY, {"feats": jnp.ones((6000, 100, 1))})["feats"])[:, :, 0]
    width = (out == 0).sum(1)
    _, counts = np.unique(width, return_counts=True)
    assert (width.min(), width.max(), counts.size) == (0, 63, 64)
    assert stats.chisquare(counts).pvalue > 1e-3
    seen = width > 0
    start = (out[seen] == 0).argmax(1)
    runs = (np.diff(out[seen], axis=1) != 0).sum(1)
    assert runs.max() <= 2  # a stripe is contiguous
    last = 100 - width[seen] - 1  # start is U{0..last}, so its discrete quantile is uniform
    assert (start <= last).all()
    noise = np.random.default_rng(0).random(start.size)
    assert stats.kstest((start + noise) / (last + 1), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("axis", "total", "width"), [(1, 101, 64), (2, 64, 8), (2, 224, 28)])
def test_two_stripes_hide_as_much_as_plain_numpy(axis, total, width):
    name, other = ("time", "freq") if axis == 1 else ("freq", "time")
    shape = [2000, 1, 1]
    shape[axis] = total
    op = _jitted(f"specaug({name}_width={width}, {name}_stripes=2, {other}_stripes=0)")
    got = (np.asarray(op(KEY, {"feats": jnp.ones(shape)})["feats"]) == 0).sum((1, 2))
    generator = np.random.default_rng(0)
    want = [naive.stripes(generator, total, width, 2).sum() for _ in range(2000)]
    assert stats.ks_2samp(got, want).pvalue > 1e-3


@pytest.mark.parametrize("axis", ["time", "freq"])
def test_the_law_of_torchaudio_is_told_from_that_of_panns(axis):
    """Width and start of 40,000 stripes against the exact probabilities of both distributions."""
    total, width = 6, 4
    feats = jnp.ones((40_000, total, 1)).swapaxes(1, 1 if axis == "time" else 2)
    other = "freq" if axis == "time" else "time"
    for law, rival in (("torchaudio", "panns"), ("panns", "torchaudio")):
        spec = f"specaug({axis}_width={width}, {axis}_stripes=1, {other}_stripes=0, law='{law}')"
        hidden = np.asarray(_jitted(spec)(KEY, {"feats": feats})["feats"]).reshape(-1, total) == 0
        counts = np.zeros((width, total))
        wide = hidden.sum(1)
        np.add.at(counts, (wide, np.where(wide > 0, hidden.argmax(1), 0)), 1)
        p = {}
        for name in (law, rival):
            chance = naive.stripe_chances(total, width, name)
            seen = chance > 0
            assert name == rival or counts[~seen].sum() == 0
            expected = chance[seen] * counts.sum()
            p[name] = stats.chisquare(counts[seen], expected * counts[seen].sum() / counts.sum())
        assert p[law].pvalue > 1e-3
        assert p[rival].pvalue < 1e-9


def test_noise_has_a_level_per_clip_below_its_amount():
    batch = {"feats": jnp.zeros((3000, 7, 5))}
    out = np.asarray(_jitted("noise(amount=0.1)")(KEY, batch)["feats"], np.float64)
    assert out.min() >= 0
    level = out.max((1, 2)) / (35 / 36)  # the mean of the largest of 35 uniforms is 35 / 36
    assert stats.kstest(level / 0.1, "uniform").statistic < 0.05
    grain = out[out.max((1, 2)) > 0.05]
    flat = (grain / grain.max((1, 2), keepdims=True)).ravel()
    flat = flat[flat < 1]  # the others are uniform below the largest
    assert stats.kstest(flat[::7], "uniform").pvalue > 1e-3


def test_time_and_frequency_stripes_cross_and_leave_the_rest_alone():
    feats = _batch(clips=64)["feats"]
    op = _jitted("specaug(time_width=10, time_stripes=1, freq_width=5, freq_stripes=2, fill=3.5)")
    out = np.asarray(op(KEY, {"feats": jnp.asarray(feats)})["feats"])
    for before, after in zip(feats, out, strict=True):
        changed = after != before
        frames, bins = changed.all(1), changed.all(0)
        np.testing.assert_array_equal(changed, frames[:, None] | bins[None])
        assert (after[changed] == 3.5).all()
        assert frames.sum() <= 9
        assert bins.sum() <= 8


def test_features_shorter_than_a_stripe_keep_something():
    op = _jitted("specaug(time_width=192, time_stripes=1, freq_width=48, freq_stripes=1)")
    out = np.asarray(op(KEY, {"feats": jnp.ones((300, 3, 5))})["feats"])
    assert (out.max((1, 2)) == 1).all()
    assert (out == 0).any()
    one = _jitted("specaug")(KEY, {"feats": jnp.ones((4, 1, 1))})["feats"]
    np.testing.assert_array_equal(one, 1)


# ----------------------------------------------------------------------------------- mixup


@pytest.mark.parametrize(
    ("style", "rate", "domain", "remove_mean", "block"),
    [
        ("panns", 1.0, "linear", False, 0),
        ("panns", 0.5, "db_energy", True, 0),
        ("passt", 0.5, "linear", True, 0),
        ("plain", 1.0, "db_energy", False, 0),
        ("plain", 0.5, "ln_energy", True, 0),
        ("passt", 0.5, "linear", True, 8),
        ("plain", 1.0, "db_energy", False, 4),
    ],
)
def test_mixing_equals_plain_numpy(style, rate, domain, remove_mean, block):
    batch = _batch(clips=12)
    batch["target"] = np.concatenate([np.eye(12, dtype=np.float32), batch["target"]], axis=1)
    fields = f"alpha=2, rate={rate}, style={style!r}, domain={domain!r}, remove_mean={remove_mean}"
    fields += f", block={block}" if block else ""
    out = _jitted(f"mixup({fields})")(KEY, _on_device(batch))
    found = naive.mixtures(out["target"][:, :12], style)
    assert (rate == 1) or any(lam == 1 for *_, lam in found)
    assert any(lam < 1 for *_, lam in found)
    want = {
        "wave": naive.mix(batch["wave"], found, remove_mean=remove_mean),
        "feats": naive.mix(batch["feats"], found, domain=domain),
        "target": naive.mix(batch["target"], found),
    }
    for key, value in want.items():
        np.testing.assert_allclose(out[key], value, rtol=2e-5, atol=2e-6, err_msg=key)


@pytest.mark.parametrize(("domain", "unit"), [("ln_energy", 1.0), ("db_energy", 10 / np.log(10))])
def test_energies_are_mixed_through_the_frontends_normalisation(domain, unit):
    """(x - mean) / (2 std) with scale = 1 / (2 std) gives the same as x itself in float64."""
    mean, std = -4.2677393, 4.5689974
    raw = np.random.default_rng(0).uniform(-15.9, 8, (6, 20, 8)) * unit
    raw[:, 17:] = 0  # the zeros of padding
    feats = ((raw - mean) / (2 * std)).astype(np.float32)
    batch = {"feats": jnp.asarray(feats), "target": jnp.eye(6)}
    spec = f"mixup(alpha=10, style='plain', domain='{domain}', scale={1 / (2 * std)})"
    out = _jitted(spec)(KEY, batch)
    found = naive.mixtures(out["target"], "plain")
    assert sum(lam < 1 for *_, lam in found) > 2
    want = (naive.mix(raw, found, domain=domain) - mean) / (2 * std)
    np.testing.assert_allclose(out["feats"], want, rtol=1e-5, atol=2e-6)
    wrong = _jitted(f"mixup(alpha=10, style='plain', domain='{domain}')")(KEY, batch)
    assert np.abs(wrong["feats"] - want).max() > 0.05


@pytest.mark.parametrize(
    ("style", "alpha"),
    [
        ("panns", 1.0),
        ("panns", 10.0),
        ("plain", 0.3),
        ("plain", 0.5),
        ("plain", 2.5),
        ("plain", 10.0),
        ("passt", 2.0),
    ],
)
def test_lambda_follows_its_beta_law(style, alpha):
    clips = 4000
    partner, lam = _pairs(jax.random.key(3), clips, alpha, 1.0, style)
    assert lam.shape == (clips // 2 if style == "panns" else clips,)
    law = stats.beta(alpha, alpha)
    fold = (lambda x: 2 * law.cdf(x) - 1) if style == "passt" else law.cdf
    assert stats.kstest(np.asarray(lam, np.float64), fold).pvalue > 1e-3
    if style != "panns":
        assert sorted(np.asarray(partner).tolist()) == list(range(clips))


def test_rate_is_the_share_of_mixtures():
    _, lam = _pairs(KEY, 5000, 0.3, 0.3, "plain")
    assert stats.binomtest(int((lam < 1).sum()), 5000, 0.3).pvalue > 1e-3


def test_small_alpha_stays_finite():
    for alpha in (0.001, 0.05):
        _, lam = _pairs(KEY, 2000, alpha, 1.0, "plain")
        assert np.isfinite(lam).all()
        assert ((lam >= 0) & (lam <= 1)).all()


def test_energy_mixing_survives_extreme_decibels():
    feats = jnp.asarray([-1e6, 1e6, -100.0, -100.0])[:, None, None]
    out = _jitted("mixup(domain='db_energy')")(KEY, {"feats": feats, "target": jnp.eye(4)})
    lam = np.asarray(out["target"])[[0, 1], [0, 2]]
    want = [1e6 + 10 * np.log10(1 - lam[0]), -100]
    np.testing.assert_allclose(np.asarray(out["feats"])[:, 0, 0], want, rtol=1e-6)


def test_gradients_through_every_feature_op_are_finite():
    op = _jitted("specaug | mixup(rate=0.5, style='plain', domain='db_energy')")
    feats = jnp.asarray(_batch()["feats"])
    grad = jax.jit(jax.grad(lambda f: op(KEY, {"feats": f})["feats"].sum()))(feats)
    assert np.isfinite(grad).all()
    assert np.abs(grad).sum() > 0


@pytest.mark.parametrize("style", ["panns", "passt", "plain"])
def test_a_padding_row_never_enters_a_counted_row(style):
    batch = _batch(clips=10)
    batch["mask"][7:] = 0
    op = _jitted(f"mixup(style='{style}', rate=0.7)")
    for seed in range(4):
        rng = jax.random.key(seed)
        clean = op(rng, _on_device(batch))
        poisoned = {**batch, "feats": batch["feats"].copy()}
        poisoned["feats"][7:] = 1e30
        out = op(rng, _on_device(poisoned))
        real = np.asarray(out["mask"]) == 1
        np.testing.assert_array_equal(np.asarray(out["mask"]), np.asarray(clean["mask"]))
        np.testing.assert_array_equal(
            np.asarray(out["feats"])[real], np.asarray(clean["feats"])[real]
        )
        assert not (real & (np.abs(np.asarray(out["feats"])) > 1e20).any((1, 2))).any()


def test_blocks_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(AsjaxError, match="mixup block=3 needs a batch that shares a divisor"):
        chain("mixup(style='plain', block=3)")(KEY, _on_device(_batch(8)))


@pytest.mark.parametrize(("clips", "block", "rows"), [(4000, 8, 8), (120, 8, 8), (12, 8, 4)])
def test_partners_in_blocks_differ_from_the_row_and_each_place_is_as_likely(clips, block, rows):
    rng = jax.random.key(11)
    spec = f"mixup(alpha=1, style='plain', block={block})"
    eye = jnp.eye(clips)
    turns = []
    for key in jax.random.split(rng, 1 if clips > 1000 else 40):
        target = np.asarray(_jitted(spec)(key, {"target": eye})["target"])
        for first, second, lam in naive.mixtures(target, "plain"):
            assert first // rows == second // rows
            assert lam < 1
            assert first != second
            if first % rows == 0:
                turns.append(second % rows)
    counts = np.bincount(turns, minlength=rows)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    "spec",
    [
        COMBINED[0],
        "mixup(style='passt', remove_mean=True, block=8)",
        "wavmix(block=8) | freq_mixstyle(rate=1.0, block=8) | mixup(style='plain', block=8)",
    ],
)
def test_pairs_and_blocks_stay_on_their_device(spec):
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()[:2]), ("data",), axis_types=(AxisType.Auto,))
    op, batch = _jitted(spec), _on_device(_batch(16))
    if "wavmix" in spec:
        batch["frame_target"] = batch["feats"]
        batch = {key: batch[key] for key in ("wave", "target", "frame_target", "mask")}
    placed = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    text = op.lower(KEY, placed).compile().as_text()
    assert not any(kind in text for kind in ("all-", "collective", "reduce-scatter"))
    got = op(KEY, placed)
    for key, value in op(KEY, batch).items():
        np.testing.assert_allclose(got[key], value, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "mixpu",
            "did you mean 'mixup'.*freq_warp, gain, mixup, noise, roll, roll_frames, specaug",
        ),
        ("chain", "augmentation 'chain' does not exist"),
        ("mixup(alfa=1)", "field 'alfa' does not exist; did you mean 'alpha'.*rate.*style"),
        ("mixup(rng=1)", "field 'rng' does not exist"),
        ("mixup(alpha=0)", "mixup alpha must be in 0.001"),
        ("mixup(alpha='1')", "mixup alpha must be a number, got '1'"),
        ("mixup(rate=2)", "mixup rate must be in 0..1, got 2"),
        ("mixup(style='ast')", "mixup style 'ast' does not exist.*panns, passt, plain"),
        ("mixup(domain='db')", "mixup domain 'db' does not exist.*db_energy"),
        ("roll(fraction=1.5)", "roll fraction must be in 0..1"),
        ("roll(samples=2.5)", "roll samples must be an integer"),
        ("gain(low_db=3, high_db=1)", "gain high_db must be in 3..200"),
        ("gain(low_db=-2.5)", "gain low_db must be an integer"),
        ("specaug(time_width=-1)", "specaug time_width must be in 0"),
        ("specaug(fill=None)", "specaug fill must be a number"),
        ("specaug(law='kaldi')", "specaug law 'kaldi' does not exist.*panns, torchaudio"),
        ("speed(low=0)", "speed low must be in 0.01"),
        ("speed(low=1.2, high=1.1)", "speed high must be in 1.2"),
        ("noise(amount=-1)", "noise amount must be in 0"),
        ("roll_frames(frames=1.5)", "roll_frames frames must be an integer"),
        ("mixup(scale=0)", "mixup scale must be in 1e-06"),
        ("mixup(style='plain', block=1)", "mixup block must be 0, or 2 or more rows, got 1"),
        ("mixup(style='plain', block=True)", "mixup block must be 0, or 2 or more rows"),
        ("mixup(block=8)", "style 'panns' mixes neighbours and has no block"),
        ("mixup(1)", "every argument by keyword"),
    ],
)
def test_a_wrong_chain_is_one_clear_error_at_build_time(spec, message):
    with pytest.raises(AsjaxError, match=message):
        chain(spec)


@pytest.mark.parametrize(
    ("spec", "change", "message"),
    [
        ("mixup", {"feats": jnp.zeros((7, 3, 2)), "target": jnp.zeros((7, 2))}, "even, got 7"),
        ("mixup", {"feats": jnp.zeros((6, 3, 2))}, "must agree in their first axis"),
        ("mixup", {"target": jnp.zeros((8, 5), bool)}, "target must be float here, got bool"),
        ("gain", {"wave": jnp.zeros((8, 5), jnp.int16)}, "wave must be float here, got int16"),
    ],
)
def test_a_wrong_batch_is_one_clear_error(spec, change, message):
    batch = {"target": jnp.zeros((8, 5))} | change
    with pytest.raises(AsjaxError, match=message):
        chain(spec)(KEY, batch)
