"""Median filter, thresholds and windows against outputs of scipy, PretrainedSED and HEAR."""

import numpy as np
import pytest
import rule

from asjax import decoding, events
from asjax.config import AsjaxError


def naive(scores, k, mode):
    """The k-th part of a sorted window, one window at a time."""
    how = "symmetric" if mode == "reflect" else "constant"
    padded = np.pad(scores, ((k // 2, k - 1 - k // 2), (0, 0)), mode=how)
    return np.stack([np.sort(padded[i : i + k], axis=0)[k // 2] for i in range(len(scores))])


def test_the_golden_windows_are_met_exactly(golden):
    manifest, wanted = golden("sed_median_filter")
    for name, out in wanted.items():
        frames, classes, k = (int(part[1:]) for part in name.split("_"))
        x = rule.array(f"med_{frames}_{classes}_{k}", [frames, classes], salt=manifest["salt"])
        np.testing.assert_array_equal(decoding.median_filter(x, k), out)


@pytest.mark.parametrize("mode", ["reflect", "zeros"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.float16])
def test_every_window_gives_the_upper_middle_value(mode, dtype):
    rng = np.random.default_rng(0)
    for frames in (1, 2, 7, 33):
        x = (8 * rng.standard_normal((frames, 3))).astype(dtype)
        for k in [*range(1, 20), 31, 32, 33, 47, 50]:
            answer = decoding.median_filter(x, k, mode=mode)
            np.testing.assert_array_equal(answer, naive(x, k, mode))
            assert answer.dtype == dtype


def test_the_filter_is_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    x = np.random.default_rng(1).standard_normal((300, 6)).astype(np.float32)
    for k in (4, 9, 12, 25, 40):
        wanted = ndimage.median_filter(x, (k, 1))
        np.testing.assert_array_equal(decoding.median_filter(x, k), wanted)
        wanted = ndimage.median_filter(x, (k, 1), mode="constant")
        np.testing.assert_array_equal(decoding.median_filter(x, k, mode="zeros"), wanted)


def test_windows_per_class_and_other_axes_and_blocks(monkeypatch):
    x = np.random.default_rng(2).standard_normal((4, 90, 5)).astype(np.float32)
    windows = np.array([1, 9, 4, 9, 25])
    wanted = np.stack(
        [
            np.concatenate([naive(s[:, [c]], k, "reflect") for c, k in enumerate(windows)], 1)
            for s in x
        ]
    )
    np.testing.assert_array_equal(decoding.median_filter(x, windows, axis=1), wanted)
    for block in (7, 64, 1000):
        monkeypatch.setattr(decoding, "_BLOCK", block)
        np.testing.assert_array_equal(decoding.median_filter(x, windows, axis=1), wanted)


def test_a_nan_is_not_lost():
    x = np.zeros((20, 2))
    x[10, 0] = np.nan
    answer = decoding.median_filter(x, 5)
    assert np.isnan(answer[8:13, 0]).all()
    assert not np.isnan(answer[:8]).any()
    assert not np.isnan(answer[:, 1]).any()


@pytest.mark.parametrize("bad", [0, -1, 2.5, [1, 2, 3], [0, 1]])
def test_bad_windows_are_refused(bad):
    with pytest.raises(AsjaxError, match="windows"):
        decoding.median_filter(np.zeros((5, 2)), bad)
    with pytest.raises(AsjaxError, match="reflect or zeros"):
        decoding.median_filter(np.zeros((5, 2)), 3, mode="wrap")


def test_seconds_become_frames_as_in_hear_and_the_seed_paper():
    assert decoding.window_frames([0.25, 0.15, 0.48, 0.36, 0.0], 25.0).tolist() == [6, 4, 12, 9, 1]


def test_hears_events_are_met(golden):
    manifest, _ = golden("sed_onset_f_cases")
    names = manifest["labels"]
    for case in manifest["decode"].values():
        shape = [case["frames"], len(names)]
        name = case["input"].split("'")[1]
        x = rule.array(name, shape, salt=manifest["salt"]).astype(np.float64)
        x = np.stack([np.convolve(c, np.ones(9) / 9, mode="same") for c in x.T], axis=1)
        answer = decoding.decode(
            x.astype(np.float32) * 3,
            threshold=case["threshold"],
            median=max(1, case["filter_frames"]),
            min_s=case["min_duration"] / 1e3,
            rule="centre",
        )
        got = sorted(
            (names[c], round(1e3 * a, 6), round(1e3 * b, 6)) for a, b, c in answer.tolist()
        )
        assert got == sorted(map(tuple, case["events"]))


def test_thresholds_of_all_kinds():
    scores = np.array([[0.1, 0.9], [0.5, 0.5], [0.6, 0.4], [0.2, 0.6]])
    np.testing.assert_array_equal(decoding.active(scores, 0.5), scores > 0.5)
    per_class = decoding.active(scores, [0.15, 0.55])
    np.testing.assert_array_equal(per_class, [[0, 1], [1, 0], [1, 0], [1, 1]])
    for bad in ([0.1, 0.2, 0.3], [[0.5]], np.nan):
        with pytest.raises(AsjaxError, match="threshold must be one number or 2"):
            decoding.active(scores, bad)


def test_hysteresis_keeps_a_low_stretch_that_is_high_somewhere():
    column = np.array([0.3, 0.6, 0.3, 0.1, 0.3, 0.4, 0.1, 0.7])
    scores = np.stack([column, column[::-1], np.full(8, 0.3), np.zeros(8)], axis=1)
    answer = decoding.active(scores, 0.5, low=0.2)
    wanted = np.array([1, 1, 1, 0, 0, 0, 0, 1], bool)
    np.testing.assert_array_equal(answer[:, 0], wanted)
    np.testing.assert_array_equal(answer[:, 1], wanted[::-1])
    assert not answer[:, 2:].any()
    with pytest.raises(AsjaxError, match="low must not be above"):
        decoding.active(scores, 0.5, low=0.6)


def test_padding_does_not_reach_into_the_last_frames():
    rng = np.random.default_rng(3)
    scores = rng.random((250, 3))
    alone = scores[:41].copy()
    answer = decoding.decode(scores, median=9, duration_s=1.62)
    np.testing.assert_array_equal(answer, decoding.decode(alone, median=9, duration_s=1.62))
    assert answer["offset_s"].max() <= 1.62
    assert decoding.frames_of([1.6, 1.62, 10.0, 0.04], 25.0).tolist() == [40, 41, 250, 1]


def test_gaps_close_before_short_events_go():
    active = np.zeros((20, 1))
    active[[2, 3, 5, 6, 12]] = 1
    answer = decoding.decode(active, min_s=0.1, gap_s=0.04)
    np.testing.assert_allclose(answer.tolist(), [(0.08, 0.28, 0)])


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("size", [250, 7, 10, 2])
def test_stitched_windows_are_the_recording(size, overlap):
    for frames in (1, size - 1, size, size + 1, 3 * size // 2, 4 * size + 3):
        plan = decoding.windows(frames, size, overlap=overlap)
        signal = np.arange(frames + size)[:, None]
        parts = np.stack([signal[s : s + size] for s in plan.starts])
        np.testing.assert_array_equal(decoding.stitch(parts, plan), signal[:frames])
        assert (plan.keep[1:, 0] == plan.keep[:-1, 1]).all()
        if overlap and frames >= size:
            assert plan.starts[-1] + size == frames
            for start, (first, end) in zip(plan.starts, plan.keep, strict=True):
                # a used frame is far from the window's edges, except at the ends of the recording
                assert start == 0 or first - start >= size // 4
                assert start + size == frames or start + size - end >= size // 4


def test_an_event_across_a_window_edge_is_one_event():
    frames = np.zeros((600, 1))
    frames[240:270] = 1
    plan = decoding.windows(600)
    parts = np.stack([frames[s : s + 250] for s in plan.starts])
    answer = decoding.decode(decoding.stitch(parts, plan))
    np.testing.assert_allclose(answer.tolist(), [(9.6, 10.8, 0)])
    with pytest.raises(AsjaxError, match="window scores must"):
        decoding.stitch(parts[:-1], plan)
    with pytest.raises(AsjaxError, match="windows need"):
        decoding.windows(0)


def test_events_and_decoding_agree_on_the_array_they_share():
    assert decoding.decode(np.ones((3, 2))).dtype == events.EVENT
