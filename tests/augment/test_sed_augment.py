"""Augmentations of detectors: PretrainedSED's cases, and labels that move with the sound.

The arithmetic of the modules shifts, masks, mixing and frequency takes the draws of the case
sed_augment. Its arrays are [B, 1, F, T] and [B, C, T'].
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule
from scipy import special, stats

from asjax.augment import checks, frequency, masks, mixing, shifts
from asjax.build import augment as chain
from asjax.config import AsjaxError

KEY = jax.random.key(5)
SALT = "sed-main"
# op -> arguments with which it always acts
OPS = {
    "frame_shift": "range=0.3",
    "time_mask": "shortest=0.2, longest=0.6",
    "freq_mixstyle": "rate=1.0",
    "filter_augment": "rate=1.0",
    "freq_warp": "rate=1.0",
    "wavmix": "rate=1.0",
    "mixup": "alpha=0.2, style='passt', per_batch=True",
    "roll": "fraction=1.0",
    "roll_frames": "frames=30",
}


def batch(clips=6, frames=200, labels=50, seed=0):
    rng = np.random.default_rng(seed)
    full = {
        "wave": rng.normal(size=(clips, labels * 40)) + 0.5,
        "feats": rng.normal(size=(clips, frames, 64)),
        "frame_target": rng.random((clips, labels, 7)) < 0.2,
        "teacher": rng.random((clips, labels, 7)),
        "mask": np.ones(clips),
        "has_strong": np.ones(clips),
        "has_weak": np.ones(clips),
    }
    full["target"] = full["frame_target"].any(1)
    return {k: jnp.asarray(v, jnp.float32) for k, v in full.items()}


def wanted(op, full):
    """The arrays that a batch has where a config may name this op."""
    gone = "feats" if op in ("wavmix", "roll") else "wave"
    return {k: v for k, v in full.items() if k != gone}


# ----------------------------------------------------------------------------- PretrainedSED


@pytest.fixture(scope="module")
def case(golden):
    manifest, stored = golden("sed_augment")
    return manifest["cases"], stored


def given():
    mel = rule.array("aug_mel", [4, 1, 64, 200], salt=SALT)
    labels = special.ndtr(rule.array("aug_lab", [4, 7, 50], salt=SALT).astype(np.float64)) > 0.8
    pseudo = special.ndtr(rule.array("aug_pse", [4, 7, 50], salt=SALT).astype(np.float64))
    time_first = lambda x: jnp.asarray(np.swapaxes(x, 1, 2), jnp.float32)  # noqa: E731
    return {
        "feats": time_first(mel[:, 0]),
        "frame_target": time_first(labels),
        "teacher": time_first(pseudo),
    }


def close(found, stored, bins=1, frames=1):
    """Relative L2 of features, or of labels where `bins` is 0."""
    found = np.swapaxes(np.asarray(found, np.float64), 1, 2)
    found = found[:, None, ::bins, ::frames] if bins else found
    error = np.linalg.norm(found - stored) / np.linalg.norm(stored)
    assert found.shape == stored.shape
    assert error <= 3e-7, error


def test_mixup_is_pretrained_seds(case):
    draws = case[0]["mixup"]["draws"]
    lam = np.float32(np.maximum(draws["beta"], 1 - np.array(draws["beta"])))
    out = mixing.mixed(given(), np.array(draws["perm"]), jnp.asarray(lam))
    close(out["feats"], case[1]["mixup_mel"], 4, 4)
    close(out["frame_target"], case[1]["mixup_labels"], 0)
    close(out["teacher"], case[1]["mixup_pseudo"], 0)


def test_freq_mixstyle_is_pretrained_seds(case):
    draws = case[0]["mixstyle"]["draws"]
    lam = np.float32(np.maximum(draws["lam"], 1 - np.array(draws["lam"])))
    out = frequency.restyled(given()["feats"], np.array(draws["perm"]), jnp.asarray(lam))
    close(out, case[1]["mixstyle_mel"], 2, 4)


@pytest.mark.parametrize("name", ["filter_a", "filter_b", "filter_c"])
def test_filter_augmentation_is_pretrained_seds(case, name):
    draws = case[0][name]["draws"]
    edges = np.r_[draws["boundaries"], [64] * (4 - len(draws["boundaries"]))]
    db = np.full((4, 6), 99.0)  # gains of bands that this draw does not have
    db[:, : draws["n_bands"] + 1] = np.array(draws["band_uniforms"]) * 12 - 6
    gain = frequency.curve(jnp.asarray(edges), jnp.asarray(db, jnp.float32), 64)
    close(given()["feats"] * gain[:, None], case[1][f"{name}_mel"], 1, 8)


@pytest.mark.parametrize("name", ["freqwarp_a", "freqwarp_b", "freqwarp_c", "freqwarp_d"])
def test_frequency_warping_is_pretrained_seds(case, name):
    draws = case[0][name]["draws"]
    found = frequency.stretched(given()["feats"], float(draws["i"]), float(draws["h"]))
    stored = np.asarray(case[1][f"{name}_mel"], np.float64)
    found = np.swapaxes(np.asarray(found, np.float64), 1, 2)[:, None, :, ::8]
    # The reference's own float32 differs from float64 by about 1.6e-6 (float32_error).
    assert np.linalg.norm(found - stored) <= 3e-6 * np.linalg.norm(stored)


def test_frame_shift_is_pretrained_seds(case):
    draws = case[0]["frame_shift"]["draws"]
    assert np.trunc(draws["gauss"]).tolist() == draws["mel_shift"]
    out = shifts.shifted(given(), "feats", jnp.asarray(draws["mel_shift"])[:, None])
    close(out["feats"], case[1]["shift_mel"], 8)
    close(out["frame_target"], case[1]["shift_labels"], 0)
    close(out["teacher"], case[1]["shift_pseudo"], 0)


def test_time_mask_is_pretrained_seds_but_masks_the_teacher_too(case):
    draws = case[0]["time_mask"]["draws"]
    out = masks.silenced(given(), draws["low"], draws["width"], 4)
    close(out["feats"], case[1]["timemask_mel"], 8)
    close(out["frame_target"], case[1]["timemask_labels"], 0)
    theirs = np.swapaxes(case[1]["timemask_pseudo"], 1, 2).copy()
    theirs[:, draws["low"] : draws["low"] + draws["width"]] = 0  # what the authors' code forgets
    np.testing.assert_allclose(out["teacher"], theirs, rtol=1e-6)


def test_wavmix_is_pretrained_seds(case):
    waves = [
        rule.waveform(name, 0.1, 16_000, salt=SALT) + np.float32(level)
        for name, level in (("wm1", 0.1), ("wm2", -0.05))
    ]
    item = {**{k: v[:2] for k, v in given().items() if k != "feats"}, "wave": jnp.stack(waves)}
    lam = jnp.full(2, case[0]["wavmix"]["draws"]["coef"], jnp.float32)
    out = mixing.mixed(item, np.array([1, 0]), lam, remove_mean=True)
    stored = {
        k: np.asarray(case[1][f"wavmix_{k}"], np.float64) for k in ("audio", "strong", "pseudo")
    }
    for key, name in (("wave", "audio"), ("frame_target", "strong"), ("teacher", "pseudo")):
        found = np.asarray(out[key][0], np.float64)
        found = found if key == "wave" else found.T
        stored = np.asarray(case[1][f"wavmix_{name}"], np.float64)
        assert np.linalg.norm(found - stored) <= 1e-6 * np.linalg.norm(stored), key


# ------------------------------------------------------------------------ promises of every op


@pytest.mark.parametrize("op", OPS)
def test_an_op_follows_its_key_whatever_else_the_batch_has(op):
    run, full = jax.jit(chain(f"{op}({OPS[op]})")), wanted(op, batch())
    out = run(KEY, full)
    for key, value in full.items():
        assert out[key].shape == value.shape
        assert out[key].dtype == value.dtype
        assert np.isfinite(out[key]).all()
    sound = "wave" if "wave" in full else "feats"
    assert (np.asarray(out[sound]) != np.asarray(full[sound])).any()
    again, alone = run(KEY, full), run(KEY, {sound: full[sound]})
    np.testing.assert_array_equal(again[sound], out[sound])
    np.testing.assert_allclose(alone[sound], out[sound], rtol=1e-6, atol=1e-6)
    other = run(jax.random.key(6), full)
    assert (np.asarray(other[sound]) != np.asarray(out[sound])).any()
    if op in ("mixup", "wavmix"):  # features and labels may be mixed in two calls
        labels = run(KEY, {k: v for k, v in full.items() if k != sound})
        for key, value in labels.items():
            np.testing.assert_allclose(value, out[key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "nothing"),
    [
        ("frame_shift", "range=0.0"),
        ("frame_shift", "range=0.004"),
        ("time_mask", "longest=0"),
        ("time_mask", "shortest=0, longest=0.02"),
        ("freq_mixstyle", "rate=0.0"),
        ("filter_augment", "rate=0.0"),
        ("filter_augment", "max_db=0, rate=1.0"),
        ("freq_warp", "rate=0.0"),
        ("freq_warp", "low=1.0, rate=1.0"),
        ("wavmix", "rate=0.0"),
        ("mixup", "rate=0.0, per_batch=True, style='passt'"),
        ("roll", "samples=0"),
        ("roll_frames", "frames=0"),
    ],
)
def test_an_op_of_no_strength_changes_nothing(op, nothing):
    full = wanted(op, batch())
    out = jax.jit(chain(f"{op}({nothing})"))(KEY, full)
    for key, value in full.items():
        np.testing.assert_array_equal(out[key], value, err_msg=key)


# -------------------------------------------------------------------------- time and its labels


def marked(clips, frames, step, extra=0):
    """Features that are 1 in one label frame of each clip, and labels that say which."""
    at = np.random.default_rng(1).integers(frames, size=clips)
    labels = np.zeros((clips, frames, 2), np.float32)
    labels[np.arange(clips), at, 1] = 1
    feats = np.repeat(labels[:, :, 1:], step, axis=1)
    feats = np.pad(feats, ((0, 0), (0, extra), (0, 0)))
    item = {"frame_target": labels, "teacher": labels / 2, "target": labels.max(1)}
    return {k: jnp.asarray(v) for k, v in item.items()}, jnp.asarray(feats)


def centres(x):
    """The middle of the active stretch of each row [B, T], circular."""
    x = np.asarray(x, np.float64)
    turn = np.exp(2j * np.pi * (np.arange(x.shape[1]) + 0.5) / x.shape[1])
    return np.angle((x * turn).sum(1)) / (2 * np.pi) * x.shape[1]


@pytest.mark.parametrize("op", ["frame_shift(range=0.4)", "roll_frames(frames=50)", "roll"])
@pytest.mark.parametrize("step", [2, 4, 7])
def test_labels_stay_with_the_sound_that_moves(op, step):
    item, sound = marked(64, 50, step)
    key = "wave" if op == "roll" else "feats"
    out = jax.jit(chain(op))(KEY, {**item, key: sound[:, :, 0] if key == "wave" else sound})
    moved = out[key] if key == "wave" else out[key][:, :, 0]
    apart = (centres(out["frame_target"][:, :, 1]) - centres(moved) / step + 25) % 50 - 25
    assert np.abs(apart).max() <= 0.5 + 1e-5
    assert len(np.unique(np.asarray(moved), axis=0)) > 10
    np.testing.assert_array_equal(out["teacher"], out["frame_target"] / 2)
    np.testing.assert_array_equal(out["target"], item["target"])


@pytest.mark.parametrize(
    ("length", "frames", "step"),
    [(1001, 250, 4), (998, 250, 4), (1000, 250, 4), (501, 250, 2), (1000, 156, 1000 / 156)],
)
def test_a_few_frames_more_or_less_do_not_change_the_step(length, frames, step):
    assert checks.per_label(length, frames) == step
    item, _ = marked(5, frames, 1)
    shift = jnp.asarray([[2], [6], [-6], [-10], [0]])
    out = shifts.shifted({**item, "feats": jnp.zeros((5, length, 3))}, "feats", shift)
    for row, k in enumerate(np.asarray(shift)[:, 0]):
        want = np.roll(item["frame_target"][row], round(float(k) / step), axis=0)
        np.testing.assert_array_equal(out["frame_target"][row], want)


def test_a_time_mask_silences_sound_labels_and_teacher_alike():
    full = wanted("time_mask", batch(clips=3, frames=201))
    full = {**full, "feats": full["feats"] + 100, "teacher": full["teacher"] + 0.1}
    seen = set()
    for seed in range(40):
        out = chain("time_mask(shortest=0.1, longest=0.4)")(jax.random.key(seed), full)
        silent = ~np.asarray(out["feats"]).any(2)
        where = np.flatnonzero(silent[0])
        assert (silent == silent[:1]).all()
        assert (np.diff(where) == 1).all()
        assert where[0] % 4 == 0
        assert len(where) in {4 * n for n in range(5, 20)}
        labels = np.arange(where[0] // 4, (where[-1] + 1) // 4)
        kept = np.setdiff1d(np.arange(50), labels)
        for key in ("frame_target", "teacher"):
            assert not np.asarray(out[key])[:, labels].any()
            np.testing.assert_array_equal(out[key][:, kept], full[key][:, kept])
        np.testing.assert_array_equal(out["target"], np.asarray(out["frame_target"]).max(1))
        seen.add(len(where) // 4)
    assert seen <= set(range(5, 20))
    assert len(seen) > 8


def test_labels_of_the_clip_that_are_not_of_its_frames_stay_under_a_mask():
    full = wanted("time_mask", batch(clips=2))
    full = {**full, "frame_target": full["frame_target"] * 0}  # weak clips
    out = chain("time_mask(shortest=0.9, longest=1)")(KEY, full)
    np.testing.assert_array_equal(out["target"], full["target"])


def test_a_time_mask_takes_from_the_teacher_of_the_clip_what_its_frames_lose():
    full = wanted("time_mask", batch(clips=3))
    full["clip_teacher"] = full["teacher"].mean(1)
    draws = {"first": 10, "width": 25, "step": 4}
    out = masks.silenced(full, **draws)
    frames = np.asarray(full["teacher"], np.float64)
    left = np.delete(frames, np.arange(10, 35), axis=1).max(1) / frames.max(1)
    assert (left < 1).any()
    np.testing.assert_allclose(out["clip_teacher"], full["clip_teacher"] * left, rtol=1e-5)
    tags = {k: v for k, v in full.items() if k != "teacher"}
    out = masks.silenced(tags, **draws)
    gone = np.asarray(full["target"]) > np.asarray(out["target"])
    np.testing.assert_array_equal(out["clip_teacher"], np.where(gone, 0, full["clip_teacher"]))
    nothing = {**full, "teacher": full["teacher"] * 0}
    out = masks.silenced(nothing, **draws)
    assert np.isfinite(out["clip_teacher"]).all()


def test_a_mixture_has_labels_of_a_kind_only_if_both_clips_have_them():
    full = batch(clips=40)
    flags = {"has_strong": jnp.arange(40) % 2 * 1.0, "has_weak": (jnp.arange(40) % 3 > 0) * 1.0}
    flags["has_teacher"] = (jnp.arange(40) % 5 > 1) * 1.0
    full["clip_teacher"] = full["teacher"].mean(1)
    eye = {**full, **flags, "target": jnp.eye(40)}
    for spec in ("mixup(rate=0.7)", "mixup(style='passt', rate=0.7)", "wavmix"):
        given = {k: v for k, v in eye.items() if spec != "wavmix" or k != "feats"}
        out = {k: np.asarray(v) for k, v in chain(spec)(KEY, given).items()}
        for row, share in enumerate(out["target"]):
            parts = np.flatnonzero(share)
            for key in flags:
                assert out[key][row] == np.asarray(flags[key])[parts].min()
            for key in ("frame_target", "teacher", "clip_teacher"):
                want = np.tensordot(share, np.asarray(full[key], np.float64), 1)
                np.testing.assert_allclose(out[key][row], want, rtol=1e-5, atol=1e-6)
        assert {len(np.flatnonzero(share)) for share in out["target"]} == {1, 2}


# ----------------------------------------------------------------------------------- the draws


def test_frame_shift_draws_a_normal_number_cut_to_whole_frames():
    feats = jnp.tile(jnp.arange(400.0)[None, :, None], (4000, 1, 1))
    out = np.asarray(jax.jit(chain("frame_shift(range=0.05)"))(KEY, {"feats": feats})["feats"])
    shift = (-out[:, 0, 0] + 200) % 400 - 200
    at = np.arange(-75, 76)
    law = stats.norm(0, 20)
    chance = np.where(at > 0, law.cdf(at + 1) - law.cdf(at), law.cdf(at) - law.cdf(at - 1))
    chance[at == 0] = law.cdf(1) - law.cdf(-1)
    frequent = chance * 4000 > 8
    counts = np.array([(shift == k).sum() for k in at])[frequent]
    expected = chance[frequent] / chance[frequent].sum() * counts.sum()
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("spec", "rate"),
    [
        ("freq_mixstyle", 0.3),
        ("filter_augment", 0.8),
        ("freq_warp", 0.8),
        ("mixup(rate=0.3, per_batch=True, style='passt')", 0.3),
    ],
)
def test_a_rate_is_the_share_of_batches(spec, rate):
    feats = batch(clips=3, frames=8)["feats"]
    op = chain(spec)
    run = jax.jit(jax.vmap(lambda key: (op(key, {"feats": feats})["feats"] != feats).any((1, 2))))
    changed = np.asarray(run(jax.random.split(KEY, 600)))
    count = int(changed.any(1).sum())
    own = 1 / 6 if "mix" in spec else 0  # a permutation that moves no clip
    assert stats.binomtest(count, 600, rate * (1 - own)).pvalue > 1e-3


def test_freq_mixstyle_moves_statistics_by_lambda():
    """Clips 0 and 1 differ only in mean and spread, so a result shows its lambda."""
    rng = np.random.default_rng(2)
    one = rng.normal(size=(1, 50, 1))
    feats = jnp.asarray(np.concatenate([one, one * 3 + 8] * 500), jnp.float32)
    out = np.asarray(jax.jit(chain("freq_mixstyle(rate=1.0)"))(KEY, {"feats": feats})["feats"])
    mean = out.mean(1)[:, 0]
    low, high = one.mean(), (one * 3 + 8).mean()
    towards = (mean[::2] - low) / (high - low)  # 1 - lam of clips mixed with the other kind
    spread = out.std(1)[::2, 0] / one.std()
    np.testing.assert_allclose(spread, 1 + 2 * towards, rtol=2e-3)
    towards = towards[towards > 1e-6]
    law = stats.beta(0.4, 0.4)
    assert 0.3 * 500 < len(towards) < 0.7 * 500
    assert stats.kstest(1 - towards, lambda x: 2 * law.cdf(x) - 1).pvalue > 1e-3


def test_filter_augment_draws_bands_and_decibels():
    op = jax.jit(chain("filter_augment(rate=1.0)"))
    feats, counts, ends = jnp.ones((40, 1, 64)), [], []
    for seed in range(150):
        gain = np.asarray(op(jax.random.key(seed), {"feats": feats})["feats"])[:, 0]
        db = 20 * np.log10(gain.astype(np.float64))
        bend = np.abs(np.diff(db, 2)).max(0) > 1e-3  # the same bins in all clips of the batch
        edges = np.flatnonzero(bend)
        edges = edges[np.r_[True, np.diff(edges) > 1]] + 2 if len(edges) else edges
        counts.append(len(edges) + 1)
        widths = np.diff([0, *edges, 64])
        assert widths.min() >= 6
        ends += [db[0, 0], db[1, -1]]
    values, found = np.unique(counts, return_counts=True)
    assert values.tolist() == [3, 4, 5]
    assert stats.chisquare(found).pvalue > 1e-3
    assert stats.kstest((np.array(ends) + 6) / 12, "uniform").pvalue > 1e-3


def test_freq_warp_takes_a_run_of_bins_from_anywhere():
    op = jax.jit(chain("freq_warp(rate=1.0)"))
    feats = jnp.broadcast_to(jnp.arange(100.0), (2, 3, 100))
    rows, firsts = [], []
    for seed in range(400):
        out = np.asarray(op(jax.random.key(seed), {"feats": feats})["feats"])
        assert (out == out[:1, :1]).all()
        first, last = out[0, 0, 0], out[0, 0, -1]
        rows.append(round(last - first) + 1)
        firsts.append((first + 0.5) / (100 - rows[-1] + 1))
    assert min(rows) >= 60
    assert max(rows) <= 99
    noise = np.random.default_rng(0).random((2, 400))
    assert stats.kstest((np.array(rows) - 60 + noise[0]) / 40, "uniform").pvalue > 1e-3
    assert stats.kstest(np.array(firsts), "uniform").statistic < 0.1


def test_wavmix_has_the_louder_half_of_a_beta_law():
    eye = {"wave": jnp.ones((2000, 3)), "target": jnp.eye(2000)}
    lam = np.asarray(chain("wavmix(rate=1.0)")(KEY, eye)["target"]).max(1)
    law = stats.beta(2, 2)
    assert stats.kstest(lam[lam < 1], lambda x: 2 * law.cdf(x) - 1).pvalue > 1e-3


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("op", ["frame_shift", "time_mask", "roll_frames", "roll(samples=5)"])
def test_labels_without_their_sound_are_refused_in_one_line(op):
    sound = "wave" if "samples" in op else "feats"
    full = {k: v for k, v in batch().items() if k not in ("wave", "feats")}
    words = f"must move frame_target and teacher together with {sound}.*take it to augment.{sound}"
    with pytest.raises(AsjaxError, match=words):
        chain(op)(KEY, full)
    tags = {k: v for k, v in full.items() if k not in ("frame_target", "teacher")}
    tags["teacher"] = jnp.ones((6, 7))  # of the clip, which has no time
    out = chain(op)(KEY, tags)
    for key, value in tags.items():
        np.testing.assert_array_equal(out[key], value)


def test_speed_refuses_labels_of_frames():
    with pytest.raises(AsjaxError, match="speed changes when events occur, and cannot move"):
        chain("speed(rate=0.5)")(KEY, batch())
    full = batch()
    np.testing.assert_array_equal(chain("speed(rate=0)")(KEY, full)["wave"], full["wave"])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("frame_shift(range=-1)", "frame_shift range must be in 0..1, got -1"),
        ("frame_shift(range='x')", "frame_shift range must be a number, got 'x'"),
        ("time_mask(longest=2)", "time_mask longest must be in 0..1, got 2"),
        ("time_mask(shortest=0.3)", "longest must be 0 or at least shortest=0.3"),
        ("time_mask(step=0)", "time_mask step must be in 1.."),
        ("time_mask(step=2.0)", "time_mask step must be an integer, got 2.0"),
        ("freq_mixstyle(alpha=0)", "freq_mixstyle alpha must be in 0.001"),
        ("freq_mixstyle(rate=1.1)", "freq_mixstyle rate must be in 0..1"),
        ("filter_augment(max_db=-6)", "filter_augment max_db must be in 0..100"),
        ("filter_augment(bands=3)", "bands must be .fewest, most., got 3"),
        ("filter_augment(bands=(5, 3))", "filter_augment bands must be in 5..64, got 3"),
        ("filter_augment(bands=(3.5, 4))", "filter_augment bands must be an integer"),
        ("filter_augment(min_width=1)", "filter_augment min_width must be in 2"),
        ("freq_warp(low=0)", "freq_warp low must be in 0.01..1"),
        ("freq_warp(high=1)", "field 'high' does not exist"),
        ("wavmix(rate=-0.1)", "wavmix rate must be in 0..1"),
        ("mixup(per_batch=1)", "mixup per_batch must be True or False, got 1"),
    ],
)
def test_a_wrong_field_is_one_line_at_build_time(spec, words):
    with pytest.raises(AsjaxError, match=words):
        chain(spec)


def test_a_batch_that_does_not_fit_is_one_line():
    full = wanted("time_mask", batch())
    with pytest.raises(AsjaxError, match="time_mask step must be .* frame_target, 200 / 50, got 2"):
        chain("time_mask(step=2)")(KEY, full)
    with pytest.raises(AsjaxError, match="needs 5 bands x 6 bins = 30 bins, and the features have"):
        chain("filter_augment")(KEY, {"feats": jnp.ones((2, 5, 29))})
    with pytest.raises(AsjaxError, match="wavmix mixes waves, and the batch has features; take it"):
        chain("wavmix")(KEY, full)
    with pytest.raises(AsjaxError, match="frame_target must be float here, got uint8"):
        chain("mixup")(KEY, {**full, "frame_target": full["frame_target"].astype(jnp.uint8)})
    with pytest.raises(AsjaxError, match="must agree in their first axis"):
        chain("mixup")(KEY, {**full, "has_strong": jnp.ones(3)})
