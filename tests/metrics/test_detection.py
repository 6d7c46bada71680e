"""PSDS (`metrics.detection`, `truths`), against sed_scores_eval, psds_eval and the definition."""

import numpy as np
import pytest
from reference import psds as slow

from asjax import metrics
from asjax.config import AsjaxError
from asjax.labels import LabelSet
from asjax.metrics import criteria, piecewise, resampling, roc, tally, thresholds

CLOSE = {"rtol": 0, "atol": 1e-12}
SETTINGS = [{}, {"dtc": 0.5, "gtc": 0.3, "alpha_st": 0.5}, metrics.PSDS2]


def listed(case):
    names, clips = case["classes"], list(case["durations"])
    events = [
        [(a, b, names.index(label)) for a, b, label in case["ground_truth"][clip]] for clip in clips
    ]
    scores = [np.array(case["scores"][clip]) for clip in clips]
    durations = [case["durations"][clip] for clip in clips]
    return {
        "scores": scores,
        "events": events,
        "durations_s": durations,
        "frame_rate": 1 / case["hop"],
    }


def random_set(seed, *, clips=8, classes=4, rate=25.0, levels=0, dtype=np.float64, long=50):
    """Random scores of clips of several lengths, with ties if `levels`, and events."""
    rng = np.random.default_rng(seed)
    scores, events, durations = [], [], []
    for _ in range(clips):
        frames = int(rng.integers(2, long))
        end = frames / rate
        noise = rng.standard_normal(frames * classes)
        x = np.convolve(noise, np.ones(4) / 3, "same").reshape(classes, frames).T.copy()
        answer = []
        for c in range(classes):
            at = 0.0
            while rng.random() < 0.6:
                onset = round(at + rng.uniform(0.01, end / 2), 3)
                offset = round(onset + rng.uniform(0.01, end / 2), 3)
                if offset > end or onset == offset:
                    break
                answer.append((onset, offset, c))
                x[int(onset * rate) : int(offset * rate) + 1, c] += rng.uniform(0, 2)
                at = offset
        x = np.round(x * levels) / levels if levels else x
        scores.append(x.astype(dtype))
        events.append(answer)
        durations.append(end)
    events[0] = [(0.0, durations[0], c) for c in range(classes)]
    return {
        "scores": scores,
        "events": events,
        "durations_s": durations,
        "frame_rate": rate,
    }


# ------------------------------------------------------------------------------- the references


def test_the_cases_of_sed_scores_eval_are_met_to_twelve_digits(golden):
    manifest, _ = golden("sed_psds_cases")
    assert len(manifest["cases"]) == 6
    for case in manifest["cases"].values():
        given = listed(case)
        for name, rules in (
            ("psds1", {"alpha_st": 0.0}),
            ("psds1_alpha_st1", metrics.PSDS1),
            ("psds2", metrics.PSDS2),
        ):
            wanted = case["result"][name]
            answer = metrics.psds(**given, **rules, curves=True)
            np.testing.assert_allclose(answer["psds"], wanted["value"], **CLOSE)
            macro = wanted["macro_mean_of_per_class"]
            np.testing.assert_allclose(answer["macro"], macro, **CLOSE)
            per_class = [wanted["per_class"][label] for label in case["classes"]]
            np.testing.assert_allclose(answer["per_class"], per_class, **CLOSE)
            if name != "psds2":  # equal rates may differ by 1e-16, because they are sums of weights
                efpr, etpr, _ = answer["curve"]
                np.testing.assert_allclose(efpr, wanted["roc_efpr"][:-1], **CLOSE)
                np.testing.assert_allclose(etpr, wanted["roc_etpr"][:-1], **CLOSE)


def test_the_pipeline_of_pretrained_sed_is_met_to_twelve_digits(golden):
    """Median filter, selection of classes and clips, mean over classes."""
    manifest, logits = golden("sed_psds_pipeline")
    names, clips = manifest["classes"], list(manifest["durations"])
    events = [
        [(a, b, names.index(c)) for a, b, c in manifest["ground_truth"][clip] if c in names]
        for clip in clips
    ]
    answer = metrics.psds(
        scores=np.stack([logits[clip].T for clip in clips]),
        events=events,
        durations_s=[manifest["durations"][clip] for clip in clips],
        class_mask=[name in manifest["evaluated_classes"] for name in names],
        only_with_events=True,
        median=manifest["median"],
    )
    wanted = manifest["result"]
    np.testing.assert_allclose(answer["psds"], wanted["psds1"], **CLOSE)
    np.testing.assert_allclose(answer["macro"], wanted["psds1_macro_averaged"], **CLOSE)
    per_class = [wanted["per_class"].get(name, np.nan) for name in names]
    np.testing.assert_allclose(answer["per_class"], per_class, **CLOSE)
    assert answer["n_clips"] == len(manifest["kept_clips"])
    assert answer["n_classes"] == 3


def test_ten_operating_points_give_the_known_answer_of_psds_eval(golden):
    from asjax import events

    manifest, packed = golden("psds_eval_dcase2019")
    clips, classes = len(packed["durations_s"]), len(manifest["classes"])
    times = packed["time_s"][packed["times"]]
    lists = []
    for number in range(11):
        mine = packed["list"] == number
        rows = [[] for _ in range(clips)]
        for clip, label, (onset, offset) in zip(
            packed["clip"][mine], packed["label"][mine], times[mine], strict=True
        ):
            rows[clip].append((onset, offset, int(label)))
        lists.append(rows)
    given = {
        "points": lists[1:],
        "durations_s": packed["durations_s"],
        "num_classes": classes,
        **manifest["settings"],
    }
    answer = metrics.psds_of_points(**given, reference=lists[0])
    assert round(answer["psds"], 5) == manifest["psds"]
    merged = [events.merge(events.as_events(rows)) for rows in lists[0]]
    for name, wanted in manifest["merged"].items():
        alpha_ct, alpha_st = (float(part[-1]) for part in name.replace("alpha_", "").split("_"))
        rules = {"alpha_ct": alpha_ct, "cttc": 0.3 if alpha_ct else None, "alpha_st": alpha_st}
        answer = metrics.psds_of_points(**given, **rules, reference=merged)
        np.testing.assert_allclose(answer["psds"], wanted, **CLOSE)


def test_medians_and_cross_triggers_as_sed_scores_eval_has_them(golden):
    from asjax import decoding

    manifest, arrays = golden("sed_events_scores")
    names, case = manifest["classes"], manifest["cases"]["s12"]
    clips = list(case["ground_truth"])
    scores = np.stack([arrays[f"s12/{clip}"] for clip in clips]) / 1e4
    events = [[(a, b, names.index(c)) for a, b, c in case["ground_truth"][clip]] for clip in clips]
    given = {"events": events, "durations_s": [10.0] * len(clips)}
    windows = [manifest["settings"]["classwise_median_frames"][name] for name in names]

    def zeros(k):
        return decoding.median_filter(scores, k, mode="zeros", axis=1)

    for name, rules in {
        "psds1": {"scores": scores, "alpha_st": 0.0},
        "psds2": {"scores": scores, **metrics.PSDS2},
        "psds2_macro_ct1": {"scores": scores, **metrics.PSDS2, "alpha_ct": 1.0, "alpha_st": 0.0},
        "psds1_median_0.36s": {"scores": zeros(9), "alpha_st": 0.0},
        "psds1_median_classwise_reflect": {"scores": scores, "median": windows, "alpha_st": 0.0},
        "psds1_median_classwise_zeros": {"scores": zeros(windows), "alpha_st": 0.0},
        "psds2_median_classwise_reflect": {"scores": scores, "median": windows, **metrics.PSDS2},
    }.items():
        answer, wanted = metrics.psds(**given, **rules), case["result"][name]
        np.testing.assert_allclose(answer["psds"], wanted["value"], **CLOSE)
        per_class = [wanted["per_class"][label] for label in names]
        np.testing.assert_allclose(answer["per_class"], per_class, **CLOSE)
    frames = decoding.window_frames(manifest["settings"]["median_independent_lengths_s"], 25.0)
    several = [metrics.psds(**given, scores=zeros(int(k)), curves=True) for k in frames]
    answer = metrics.psds_best_of(several, alpha_st=0.0)
    wanted = case["result"]["psds1_median_independent"]["value"]
    np.testing.assert_allclose(answer["psds"], wanted, **CLOSE)


# ------------------------------------------------------------------------------- the definition


@pytest.mark.parametrize("rules", SETTINGS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_it_is_the_definition_whatever_the_type_and_the_ties(dtype, rules):
    for seed in range(4):
        given = random_set(
            seed, levels=(0, 2, 8, 1)[seed], dtype=dtype, rate=(25.0, 2.0, 10.0, 1.0)[seed]
        )
        wanted = slow.psds(
            given["scores"],
            given["events"],
            given["durations_s"],
            rate=given["frame_rate"],
            **rules,
        )
        answer = metrics.psds(**given, **rules)
        np.testing.assert_allclose(answer["psds"], wanted[0], **CLOSE)
        np.testing.assert_allclose(answer["macro"], wanted[1], **CLOSE)
        np.testing.assert_allclose(answer["per_class"], wanted[2], **CLOSE)


def long_set(seed=0, clips=120):
    """Enough clips of 20 s that false positives reach the limit and the cut is used."""
    given = random_set(seed, clips=clips, classes=3, rate=1.0, levels=40, long=20)
    size = max(map(len, given["scores"]))
    table = np.full((clips, size, 3), 99.0, np.float16)
    for row, part in zip(table, given["scores"], strict=True):
        row[: len(part)] = part
    lengths = np.array([len(s) for s in given["scores"]])
    return {**given, "scores": table, "lengths": lengths}


@pytest.mark.parametrize("rules", SETTINGS)
def test_the_cut_shards_and_threads_change_nothing(rules, monkeypatch):
    given = long_set()
    limit = 20 / (sum(given["durations_s"]) / 3600)  # 20 false positives in all
    whole = metrics.psds(**given, **rules, max_efpr=limit, threads=1)
    monkeypatch.setattr(tally, "_cut", lambda *_: None)
    uncut = metrics.psds(**given, **rules, max_efpr=limit)
    monkeypatch.undo()
    monkeypatch.setattr(piecewise, "_BATCH_BYTES", 2000)
    monkeypatch.setattr(piecewise, "_NODE_BLOCK", 100)
    monkeypatch.setattr(criteria, "_ROWS", 7)
    small = metrics.psds(**given, **rules, max_efpr=limit, threads=3)
    monkeypatch.setattr(thresholds, "_COMPACT", 10)
    sparse = {**given, "scores": given["scores"].astype(np.float32)}
    other = metrics.psds(**sparse, **rules, max_efpr=limit)
    parts = [s[:n] for s, n in zip(given["scores"], given["lengths"], strict=True)]
    rest = {k: v for k, v in given.items() if k not in ("scores", "lengths")}
    apart = metrics.psds(scores=parts, **rest, **rules, max_efpr=limit)
    for answer in (uncut, small, other, apart):
        np.testing.assert_allclose(answer["psds"], whole["psds"], **CLOSE)
        np.testing.assert_allclose(answer["per_class"], whole["per_class"], **CLOSE)
    assert 0 < whole["macro"] < 1


def test_the_cut_leaves_out_only_what_lies_beyond_the_limit():
    given = long_set(1)
    data, truth = tally.inputs(**given)
    rules = criteria.Intersection(0.7, 0.7)
    table, none = tally.tally(data, truth, rules)
    short, cut = tally.tally(data, truth, rules, allowed=10)
    assert none is None
    for c in range(3):
        key, false, true, _ = table.of_class(c)
        left = short.of_class(c, cut[c])
        assert false[key <= cut[c]].min(initial=99) > 10
        above = key > cut[c]
        assert 0 < above.sum() < len(key)
        for whole, part in zip((key, false, true), left, strict=False):
            np.testing.assert_array_equal(whole[above], part)


def test_a_median_per_clip_is_that_of_the_clip():
    given = random_set(5, clips=6, long=40)
    windows = np.random.default_rng(0).integers(1, 9, (6, 4))
    from asjax.decoding import median_filter

    parts = [median_filter(s, w) for s, w in zip(given["scores"], windows, strict=True)]
    answer = metrics.psds(**given, median=windows)
    wanted = metrics.psds(**{**given, "scores": parts})
    np.testing.assert_array_equal(answer["per_class"], wanted["per_class"])
    with pytest.raises(AsjaxError, match="median must be one window, 4, or \\[6, 4\\]"):
        metrics.psds(**given, median=[1, 2, 3])


@pytest.mark.parametrize("rules", SETTINGS)
def test_a_resample_is_the_score_of_the_clips_that_were_drawn(rules):
    given = random_set(7, clips=30, rate=1.0, long=30)
    answer = metrics.psds_bootstrap(**given, **rules, n=6, seed=3)
    for r, counts in enumerate(metrics.resample_counts(30, 6, 3)):
        chosen = np.repeat(np.arange(30), counts)
        drawn = {
            key: [given[key][i] for i in chosen] for key in ("scores", "events", "durations_s")
        }
        try:
            wanted = metrics.psds(**drawn, **rules, frame_rate=1.0)
        except AsjaxError:
            continue
        for key in ("psds", "macro"):
            np.testing.assert_allclose(answer["values"][key][r], wanted[key], rtol=0, atol=1e-10)
    exact = metrics.psds(**given, **rules)
    for key in ("psds", "macro"):
        low, high = answer[key]
        assert 0 <= low <= exact[key] <= high <= 1


def test_a_resample_without_any_event_is_left_out():
    given = {
        "scores": [np.ones((5, 1)), np.zeros((5, 1))],
        "events": [[(0.0, 0.2, 0)], []],
        "durations_s": [0.2, 0.2],
    }
    answer = metrics.psds_bootstrap(**given, n=20)
    missing = np.isnan(answer["values"]["macro"])
    drawn = [counts[0] == 0 for counts in metrics.resample_counts(2, 20)]
    assert missing.tolist() == drawn
    assert missing.any()
    assert answer["macro"] == (1.0, 1.0)


def test_a_resample_is_right_below_the_cut_of_the_whole_set(monkeypatch):
    """The cut is lower for resamples, because a resample may have fewer false positives."""
    given = long_set(2, clips=400)
    limit = 15 / (sum(given["durations_s"]) / 3600)
    cuts = []
    real = tally._cut
    monkeypatch.setattr(tally, "_cut", lambda *a: cuts.append(a[3]) or real(*a))
    answer = metrics.psds_bootstrap(**given, max_efpr=limit, n=20, seed=1)
    assert cuts[0] > cuts[1]  # for the resamples, and for the set
    monkeypatch.setattr(tally, "_cut", lambda *_: None)
    uncut = metrics.psds_bootstrap(**given, max_efpr=limit, n=20, seed=1)
    for key in ("psds", "macro"):
        np.testing.assert_allclose(answer["values"][key], uncut["values"][key], **CLOSE)


# -------------------------------------------------------------------------------------- parts


def test_keys_keep_the_order_of_every_half_float():
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = values[~np.isnan(values)]
    keys = piecewise.keys_of(values)
    order = np.argsort(values.astype(np.float64), kind="stable")
    assert (np.diff(keys[order].astype(int)) >= 0).all()
    assert len(np.unique(keys)) == len(np.unique(values))  # -0 equals 0
    np.testing.assert_array_equal(piecewise.scores_of(keys), values.astype(np.float64))
    assert keys.min() > piecewise.none_of(keys.dtype)
    for kind in (np.float16, np.float32, np.float64):
        for bad in (np.nan, -np.nan):
            with pytest.raises(AsjaxError, match="got NaN"):
                piecewise.keys_of(np.array([0, bad], kind))


def test_nodes_are_all_detections_that_any_threshold_makes():
    rng = np.random.default_rng(0)
    for steps, spread in ((1, 3), (2, 2), (9, 2), (40, 3), (65, 100)):
        rows = rng.integers(-spread, spread, (steps, 7)).astype(np.int16)
        rows[steps // 2 :, 0] = piecewise.none_of(rows.dtype)
        answer = piecewise.nodes(rows)
        for r in range(7):
            mine = answer.select(answer.row == r)
            spans = list(zip(mine.first, mine.end, strict=True))
            assert len(spans) == len(set(spans))
            for t in np.unique(rows[:, r]):
                if t == piecewise.none_of(rows.dtype):
                    continue
                there = (mine.low < t) & (t <= mine.high)
                step = np.diff(np.r_[0, (rows[:, r] >= t).astype(int), 0])
                wanted = zip(np.flatnonzero(step == 1), np.flatnonzero(step == -1), strict=True)
                assert {s for s, x in zip(spans, there, strict=True) if x} == set(wanted)


def test_a_staircase_and_its_area_by_hand():
    x, y = np.array([0.0, 2.0, 2.0, 5.0, 1.0]), np.array([0.1, 0.4, 0.6, 0.5, 0.3])
    which = roc.envelope(x, y, 10.0)
    assert [x[which].tolist(), y[which].tolist()] == [[0, 1, 2], [0.1, 0.3, 0.6]]
    assert roc.area(x[which], y[which], 10.0) == pytest.approx((0.1 + 0.3 + 8 * 0.6) / 10)
    grid, mean, low = roc.mean_curve(
        [(np.array([0.0, 1.0]), np.array([0.5, 1.0])), (np.array([2.0]), np.array([0.4]))],
        alpha_st=1.0,
        max_x=10.0,
    )
    assert grid.tolist() == [0, 1, 2]
    np.testing.assert_allclose(mean, [0.25, 0.5, 0.7])
    np.testing.assert_allclose(low, [0, 0, 0.4])


def test_long_curves_are_averaged_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    curves = [
        (np.sort(rng.integers(0, 50, 20)).astype(float), np.sort(rng.random(20))) for _ in range(5)
    ]
    curves = [(x[i], y[i]) for x, y in curves for i in [roc.envelope(x, y)]]
    whole = roc.mean_curve(curves, alpha_st=1.0, max_x=60.0)
    monkeypatch.setattr(roc, "_GRID", 15)
    for a, b in zip(whole, roc.mean_curve(curves, alpha_st=1.0, max_x=60.0), strict=True):
        np.testing.assert_array_equal(a, b)
    for x, mean in zip(whole[0], whole[1], strict=True):
        values = [slow.height(cx.tolist(), cy.tolist(), x) for cx, cy in curves]
        assert mean == pytest.approx(np.mean(values))


# --------------------------------------------------------------------------------------- faults


def test_classes_without_events_are_left_out_and_said():
    names = LabelSet("four", tuple("abcd"), tuple("abcd"))
    given = random_set(3)
    given["events"] = [[e for e in rows if e[2] in (0, 2)] for rows in given["events"]]
    answer = metrics.psds(**given, label_set=names)
    assert answer["left_out"] == ["b", "d"]
    assert np.isnan(answer["per_class"][[1, 3]]).all()
    mask = [True, False, True, False]
    chosen = metrics.psds(**given, class_mask=mask)
    assert chosen["psds"] == answer["psds"]
    named = {**given, "events": [[(a, b, "abcd"[c]) for a, b, c in r] for r in given["events"]]}
    assert metrics.psds(**named, label_set=names)["psds"] == answer["psds"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"durations_s": [1.0]}, "durations_s must be 8"),
        ({"durations_s": [0.0] * 8}, "durations_s must be 8"),
        ({"events": [[]] * 7}, "events must be 8 lists"),
        ({"events": [[]] * 8}, "there is no event"),
        ({"events": [None] * 8}, "clip 0 has no marked events"),
        ({"events": [[(0, 1, 9)]] + [[]] * 7}, "classes of events must be 0 to 3"),
        ({"events": [[(0.1, 0.3, 0), (0.2, 0.4, 0)]] + [[]] * 7}, "overlap at 0.2 s"),
        ({"events": [[(0.1, 0.1, 0)]] + [[]] * 7}, "an event without length"),
        ({"class_mask": [True]}, "class_mask must be 4"),
        ({"class_mask": [False] * 4}, "class_mask must be 4"),
        ({"alpha_ct": 0.5}, "both cttc and alpha_ct or none"),
        ({"cttc": 0.5}, "both cttc and alpha_ct or none"),
        ({"scores": None}, "give either frame scores or boxes"),
        ({"scores": [np.zeros((3, 2))] * 7 + [np.zeros((3, 4))]}, "must be \\[clips, frames"),
        ({"scores": [np.full((3, 4), np.nan)] * 8}, "got NaN"),
        ({"lengths": [99] * 8}, "lengths must be 8 numbers from 0"),
        ({"num_classes": 5}, "must have 5 classes"),
    ],
)
def test_what_does_not_fit_is_told(change, message):
    with pytest.raises(AsjaxError, match=message):
        metrics.psds(**{**random_set(0), **change})


def test_boxes_and_resamples_refuse_what_they_cannot_use():
    from asjax.change_points import BOX

    given = {k: v for k, v in random_set(0).items() if k != "scores"}
    boxes = [np.zeros(0, BOX)] * 8
    with pytest.raises(AsjaxError, match="boxes need num_classes"):
        metrics.psds(**given, boxes=boxes)
    bad = [np.array([(0, 0.1, 0, -1.0)], BOX)] + boxes[1:]
    with pytest.raises(AsjaxError, match="must be probabilities"):
        metrics.psds(**given, boxes=bad, num_classes=4)
    assert metrics.psds(**given, boxes=boxes, num_classes=4)["macro"] >= 0
    with pytest.raises(AsjaxError, match="bootstrap needs"):
        resampling.psds_bootstrap(**random_set(0), n=1)
    results = [
        metrics.psds(**random_set(s), curves=True, class_mask=m)
        for s, m in ((0, None), (0, [1, 1, 0, 0]))
    ]
    with pytest.raises(AsjaxError, match="same classes"):
        metrics.psds_best_of(results)
