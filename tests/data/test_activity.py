"""Active frames of clips, and the draw by them, against loops and PretrainedSED's weights."""

import pickle
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse, stats

from asjax import balance, build, events, labels
from asjax.config import AsjaxError, AsjaxWarning
from asjax.data import activity, strong


def clips(events_of, classes, weak=()):
    """A source of clips with these events; clip i is not annotated if it is in `weak` (a dict)."""
    weak = dict(weak)
    table = np.zeros((len(events_of), classes), np.int8)
    for i, marks in enumerate(events_of):
        table[i, weak[i] if i in weak else marks["class"]] = 1
    given = [None if i in weak else marks for i, marks in enumerate(events_of)]
    ids = [f"clip{i}" for i in range(len(given))]
    return SimpleNamespace(name="mine", ids=ids, events=given, labels=sparse.csr_matrix(table))


EMPTY = np.zeros(0, events.EVENT)


def scenes(n=30, classes=6, seed=0):
    """Events that overlap, touch, share frames, and are empty in some clips."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        marks = np.zeros(rng.integers(0, 9), events.EVENT)
        marks["onset_s"] = np.round(rng.random(len(marks)) * 9, rng.integers(1, 4))
        marks["offset_s"] = marks["onset_s"] + rng.random(len(marks)) * 3 + 0.001
        marks["class"] = rng.integers(0, classes - 1, len(marks))
        out.append(events.in_order(marks))
    return out


@pytest.mark.parametrize("frames", [None, 250, 100])
@pytest.mark.parametrize("rate", [25.0, 7.3])
def test_active_frames_are_those_of_the_targets(frames, rate):
    source = clips(scenes(), 6)
    found = activity.active_frames(source, frame_rate=rate, frames=frames)
    for i, marks in enumerate(source.events):
        kind = dict(frames=frames or 400, num_classes=6, frame_rate=rate)
        want = events.to_frames(marks, **kind).sum(0)
        np.testing.assert_array_equal(found[[i]].toarray()[0], want)
    assert (found.data > 0).all()


def test_clips_with_labels_only_have_the_averages_of_the_annotated_clips():
    marks = [events.as_events([(0, 0.4, 0), (1, 1.2, 1)]), events.as_events([(0, 0.8, 0)])]
    source = clips([*marks, EMPTY, EMPTY, EMPTY], 3, {3: [0, 2], 4: []})
    found = activity.active_frames(source).toarray()
    assert found[:3].tolist() == [[10, 5, 0], [20, 0, 0], [0, 0, 0]]
    assert found[3].tolist() == [15, 0, pytest.approx(35 / 3)]  # class 2: the average of all
    assert found[4].tolist() == [0, 0, 0]


def test_weights_are_pretrained_seds(golden):
    manifest, _ = golden("sed_sampler_weights")
    frames = np.array(manifest["event_count_frames"])
    for given in (frames, sparse.csr_array(frames)):  # the reference divides in float32
        np.testing.assert_allclose(
            balance.importance_weights(given), manifest["weights"], rtol=2e-7
        )
    naive = [sum(n * 1000 / (30 + frames[:, c].sum()) for c, n in enumerate(row)) for row in frames]
    np.testing.assert_allclose(balance.importance_weights(frames), naive, rtol=1e-14)


def made(source, spec="importance", seed=0):
    return build.make("draw", spec, labels=source.labels, seed=seed, source=source)


@pytest.mark.filterwarnings("ignore:importance")
def test_the_draw_has_the_sequential_law_of_its_weights():
    source = clips(scenes(8, seed=3), 6)
    weights = balance.importance_weights(activity.active_frames(source))
    drawable = np.flatnonzero(weights)
    assert 3 < len(drawable) < 8
    draw = made(source, "importance(draws=3)")
    assert draw.draws_per_epoch == 3
    lists = draw(np.arange(3 * 4000)).reshape(4000, 3)
    assert (np.diff(np.sort(lists, axis=1), axis=1) > 0).all()
    found = np.bincount(lists[:, 0], minlength=8)
    assert set(np.flatnonzero(found)) == set(drawable)
    expected = (weights / weights.sum() * 4000)[drawable]
    assert stats.chisquare(found[drawable], expected).pvalue > 1e-4
    copy = pickle.loads(pickle.dumps(draw))
    np.testing.assert_array_equal(copy(np.arange(60)), draw(np.arange(60)))


def test_an_epoch_has_all_clips_with_events_if_they_are_fewer_than_asked():
    source = clips(scenes(), 6)
    drawable = [i for i, marks in enumerate(source.events) if len(marks)]
    with pytest.warns(AsjaxWarning) as seen:
        draw = made(source)
    said = " ".join(str(w.message) for w in seen)
    assert f"{30 - len(drawable)} clips without events are never drawn" in said
    assert f"an epoch has {len(drawable)} clips, all with events, not 100,000" in said
    assert sorted(draw(np.arange(len(drawable))).tolist()) == drawable
    with warnings.catch_warnings(action="error"):
        made(clips([m for m in scenes() if len(m)], 6), "importance(draws=5)")


def test_a_hundred_thousand_clips_take_seconds():
    """As many as AudioSet Strong has, from the texts of records."""
    label_set, rng = labels.get("audioset_strong447"), np.random.default_rng(0)
    cells = []
    for i in range(2000):
        onset = np.round(np.sort(rng.random(9)) * 8, 3).tolist()
        marks = [(a, a + 1.3, label_set.ids[rng.integers(447)]) for a in onset]
        cells.append(events.to_text(marks if i % 7 else None))
    n = 100_000
    marked = strong.Marked(cells * 50, label_set)
    table = sparse.csr_matrix((np.ones(n, np.int8), (np.arange(n), np.arange(n) % 447)), (n, 447))
    source = SimpleNamespace(name="x", ids=range(n), events=marked, labels=table)
    start = time.process_time()
    draw = made(source)
    assert draw.draws_per_epoch == 100_000
    assert len(np.unique(draw(np.arange(1000)))) == 1000
    assert time.process_time() - start < 60  # 4 s on an idle core


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("importance(draws=0)", "draws must be an int of at least 1, got 0"),
        ("importance(offset=0)", "importance draw: offset must be a number above 0, got 0"),
        ("importance(frame_rate='x')", "frame_rate must be a number above 0, got 'x'"),
        ("importance(frames=2.5)", "frames must be an int or None, got 2.5"),
        ("importance(source=1)", "source is set by the program; remove it"),
    ],
)
@pytest.mark.filterwarnings("ignore:importance")
def test_wrong_fields_are_one_line(spec, says):
    with pytest.raises(AsjaxError, match=says):
        made(clips(scenes(), 6), spec)


def test_a_source_without_events_is_one_line():
    source = clips(scenes(), 6)
    source.events = None
    with pytest.raises(AsjaxError, match="needs events in time, and mine has only labels"):
        made(source)
    with pytest.raises(AsjaxError, match="needs events in time, and no clip of mine has one"):
        made(clips([EMPTY] * 3, 6))
