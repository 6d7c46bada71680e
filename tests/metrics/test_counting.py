"""Counts per clip and the intervals of F1, against the metrics of lists on resampled lists."""

import numpy as np
import pytest

from asjax import events, metrics
from asjax.config import AsjaxError
from asjax.metrics import counting, ranking

C = 3


def made(seed, clips=12):
    """Reference and detections: moved, missing and additional events; the last class has none."""
    rng = np.random.default_rng(seed)
    reference, estimated = [], []
    for _ in range(clips):
        marks = [(s, s + rng.uniform(0.3, 3), int(rng.integers(2))) for s in rng.uniform(0, 7, 4)]
        reference.append(events.merge(events.as_events(marks)))
        moved = [(a + rng.normal(0, 0.2), b, c) for a, b, c in marks if rng.random() < 0.8]
        more = [(s, s + 0.5, int(rng.integers(C))) for s in rng.uniform(0, 9, 2)]
        moved = [(max(0, min(a, b)), b, c) for a, b, c in moved] + more
        estimated.append(events.merge(events.as_events(moved)))
    return reference, estimated


METRICS = {"event": metrics.event_f1, "segment": metrics.segment_f1}


@pytest.mark.parametrize("by", ["event", "segment"])
@pytest.mark.parametrize("cells", [1 << 18, 7])
def test_counts_of_a_clip_are_those_of_the_clip_alone(by, cells, monkeypatch):
    monkeypatch.setattr(counting, "_CELLS", cells)
    reference, estimated = made(0)
    durations = np.full(len(reference), 10.0)
    more = {"durations_s": durations} if by == "segment" else {"onset_collar": 0.1}
    got = metrics.clip_counts(
        by=by, reference=reference, estimated=estimated, num_classes=C, **more
    )
    for i in range(len(reference)):
        one = {k: v[i : i + 1] if k == "durations_s" else v for k, v in more.items()}
        pair = {"reference": reference[i : i + 1], "estimated": estimated[i : i + 1]}
        want = METRICS[by](**pair, num_classes=C, **one)["per_class"]
        for k, key in enumerate(("n_ref", "n_sys", "n_true")):
            np.testing.assert_array_equal(got[k, i], want[key])
    whole = METRICS[by](reference=reference, estimated=estimated, num_classes=C, **more)
    f1 = metrics.f1_of_counts(got)
    np.testing.assert_allclose(f1["per_class"], whole["per_class"]["f1"], atol=1e-12)
    assert f1["macro"] == pytest.approx(whole["macro"]["f1"], abs=1e-12)
    assert f1["micro"] == pytest.approx(whole["micro"]["f1"], abs=1e-12)


def test_intervals_are_those_of_the_metric_on_drawn_lists():
    reference, estimated = made(1)
    counts = metrics.clip_counts(
        by="event", reference=reference, estimated=estimated, num_classes=C
    )
    got = metrics.f1_bootstrap(counts, n=40, seed=3)
    values = {"macro": [], "micro": [], "per_class": []}
    for drawn in ranking.resample_counts(len(reference), 40, 3):
        rows = np.repeat(np.arange(len(reference)), drawn)
        pair = {
            "reference": [reference[i] for i in rows],
            "estimated": [estimated[i] for i in rows],
        }
        one = metrics.event_f1(**pair, num_classes=C)
        for key in ("macro", "micro", "per_class"):
            values[key].append(one[key]["f1"])
    exact = metrics.event_f1(reference=reference, estimated=estimated, num_classes=C)
    for key in ("macro", "micro"):
        want = metrics.interval(values[key], exact[key]["f1"])
        np.testing.assert_allclose(got[key], np.clip(want, 0, 1), atol=1e-12)
    for c in range(2):
        want = metrics.interval(np.array(values["per_class"])[:, c], exact["per_class"]["f1"][c])
        np.testing.assert_allclose(got["per_class"][c], np.clip(want, 0, 1), atol=1e-12)
    assert np.isnan(got["per_class"][2]).all()  # no event of this class


def test_wrong_inputs():
    reference, estimated = made(2, clips=2)
    both = {"reference": reference, "estimated": estimated}
    with pytest.raises(AsjaxError, match="event, segment"):
        metrics.clip_counts(by="events", **both, num_classes=C)
    with pytest.raises(AsjaxError, match="2 lists"):
        metrics.clip_counts(by="event", reference=reference, estimated=[], num_classes=C)
    with pytest.raises(AsjaxError, match="below 1"):
        metrics.clip_counts(by="event", **both, num_classes=1)
    with pytest.raises(AsjaxError, match="n >= 2"):
        metrics.f1_bootstrap(np.zeros((3, 2, C)), n=1)
    nothing = metrics.f1_of_counts(np.zeros((3, 2, C)))
    assert np.isnan(nothing["macro"])
    assert np.isnan(nothing["micro"])
