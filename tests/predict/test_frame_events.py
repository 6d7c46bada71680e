"""Frame scores and events of recordings against naive windows of a detector that is a formula."""

import pickle
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_detector as small
import small_tagger
import soundfile
from small_detector import CLIP_S, FRAMES, RATE, SIZE, expected, sounds, tagger
from small_tagger import LABELS

from asjax import build, change_points, decoding, frontends, predict
from asjax.config import AsjaxError
from asjax.labels import LabelSet
from asjax.predict import recording, tags  # noqa: F401 (named here)
from asjax.predict.frames import medians_s, thresholds
from asjax.store import model_dir

RNG = np.random.default_rng(4)
LENGTHS = [0.001, 0.05, 0.1, 1.95, 2.0, 2.001, 2.999, 3.0, 3.1, 4.0, 7.77, 23.4]


def noise(seconds):
    """Noise that is louder and quieter in turn."""
    n = round(seconds * RATE)
    levels = np.repeat(RNG.choice([0.05, 0.15, 0.3, 0.6, 0.9], n // 130 + 1), 130)[:n]
    return (levels * RNG.choice([-1, 1], n)).astype(np.float32)


# ------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize("frames", [FRAMES, 7, 33])
def test_frames_are_those_of_naive_windows(frames, chunks):
    used = tagger(frames_of_window=frames, chunks=chunks)
    waves = [noise(seconds) for seconds in LENGTHS]
    for wave, found in zip(waves, used([(wave, RATE) for wave in waves]), strict=True):
        wanted = expected(wave, frames, chunks=chunks)
        assert found.frames.dtype == np.float32
        np.testing.assert_allclose(found.frames, wanted, atol=2e-5)
        assert found.frame_rate == pytest.approx(frames / CLIP_S)
        times = found.frame_times
        assert times.shape == (len(wanted), 2)
        np.testing.assert_allclose(times[:, 0], np.arange(len(wanted)) * CLIP_S / frames)
        np.testing.assert_array_equal(times[1:, 0], times[:-1, 1])
        assert times[-1, 1] == found.duration_s == len(wave) / RATE


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_tags_and_embedding_are_the_same_with_and_without_frames(overlap, reduce):
    sources = [(noise(seconds), RATE) for seconds in LENGTHS]
    how = dict(overlap=overlap, reduce=reduce, window_embeddings=True)
    with_frames, without = tagger(**how)(sources), tagger(frames=False, **how)(sources)
    for a, b in zip(with_frames, without, strict=True):
        for name in ("clip", "logits", "embedding", "windows", "times", "window_embeddings"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-6, err_msg=name)
        assert a.duration_s == b.duration_s


def test_a_recording_in_any_batch_has_the_frames_that_it_has_alone(tmp_path):
    waves = [noise(seconds) for seconds in (0.3, 5.5, 2.0, 0.01, 9.1)]
    files = []
    for i, wave in enumerate(waves):
        files.append(tmp_path / f"{i}.wav")
        soundfile.write(files[-1], wave, RATE, subtype="FLOAT")
    for batch_size in (1, 3, 16):
        together = tagger(batch_size=batch_size)(files)
        for path, found in zip(files, together, strict=True):
            alone = tagger()(path)
            np.testing.assert_allclose(found.frames, alone.frames, atol=1e-6)
            assert [e[:4] for e in found.events()] == [e[:4] for e in alone.events()]


def test_kinds_of_input_give_the_same_frames():
    wave = sounds(5, (0.5, 1.5, 0.5), (3.3, 4.9, 0.9))
    want = tagger()((wave, RATE)).events()
    assert len(want) == 2 * 3 + 1
    whole = np.round(wave * 32_767).astype(np.int16)
    stereo = np.stack([wave, wave], axis=1)
    for given in (whole, stereo, wave.astype(np.float64), wave.tolist()):
        found = tagger()((given, RATE)).events()
        assert [e[:4] for e in found] == [e[:4] for e in want]
    # at another rate, a low tone in place of a tone at half the rate
    t = np.arange(5 * 44_100) / 44_100
    tone = np.sin(2 * np.pi * 100 * t) * np.sqrt(2)
    gate = np.where((t > 0.5) & (t < 1.5), 0.5, np.where((t > 3.3) & (t < 4.9), 0.9, 0))
    found = tagger()(((tone * gate).astype(np.float32), 44_100)).events(threshold=0.4)
    assert {e.label for e in found} == {e.label for e in want}
    for event in want:
        near = [
            e for e in found if e.label == event.label and abs(e.onset_s - event.onset_s) < 0.15
        ]
        assert len(near) == 1
        assert abs(near[0].offset_s - event.offset_s) < 0.15


def test_a_detector_that_classifies_has_a_softmax_in_each_frame():
    wave = noise(5)
    found = tagger(activation="softmax")((wave, RATE))
    p = expected(wave)
    logits = np.log(p) - np.log1p(-p)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.frames, wanted, atol=1e-4)


# ------------------------------------------------------------------------------------- events


def spans_of(events, label):
    return [(e.onset_s, e.offset_s) for e in events if e.label == label]


def test_an_event_across_the_edge_of_a_window_is_one_event():
    wave = sounds(11, (1.0, 3.2, 0.3), (3.5, 8.5, 0.3))
    want = [(1.0, 3.2), (3.5, 8.5)]
    found = tagger()((wave, RATE)).events(median=0)
    np.testing.assert_allclose(spans_of(found, "Rain"), want)
    cut = tagger(chunks=True)((wave, RATE)).events(median=0)
    assert len(spans_of(cut, "Rain")) > 2
    assert spans_of(tagger(chunks=True, edge=0.0)((wave, RATE)).events(median=0), "Rain") == want


def test_events_end_with_the_recording_and_padding_has_no_effect():
    for seconds in (0.05, 1.234, 2.0, 2.001, 4.56):
        wave = sounds(seconds, (0, seconds, 0.3))
        for how in ({}, {"chunks": True}):
            used = tagger(edge=0.0, **how)((wave, RATE))
            (event,) = used.events(classes="Rain", threshold=0.3, median=0.7)
            assert event[:4] == (0.0, pytest.approx(seconds, abs=1e-9), "Rain", "/m/a")


def test_events_are_in_time_order_and_have_the_mean_probability_of_their_frames():
    found = tagger()((noise(14), RATE))
    events = found.events(median=0)
    assert len(events) > 10
    assert [e[:2] for e in events] == sorted(e[:2] for e in events)
    for event in events:
        a, b = round(event.onset_s * 10), int(np.ceil(event.offset_s * 10 - 1e-6))
        column = found.frames[a:b, LABELS.index(event.label)]
        assert (column > 0.5).all()
        assert event.probability == pytest.approx(column.mean(), abs=1e-6)
        assert (event.id, event.label) in zip(LABELS.ids, LABELS.names, strict=True)


def test_options_mean_what_decode_and_naive_loops_say():
    found = tagger()((noise(20), RATE))
    p = found.frames
    for threshold, median, min_s, gap_s in [(0.3, 0.3, 0.0, 0.0), (0.8, 0.5, 0.35, 0.25)]:
        events = found.events(threshold, median, min_s, gap_s, classes=["Dog", "/m/a"])
        wanted = []
        for c in (0, 2):
            padded = np.pad(p[:, c], round(median * 10) // 2, mode="symmetric")
            window = round(median * 10)
            smooth = [np.median(padded[i : i + window]) for i in range(len(p))]
            runs = []
            for i, value in enumerate(smooth):
                if value <= threshold:
                    continue
                if runs and i / 10 - runs[-1][1] <= gap_s + 1e-9:
                    runs[-1][1] = (i + 1) / 10
                else:
                    runs.append([i / 10, (i + 1) / 10])
            wanted += [(a, b, LABELS.names[c]) for a, b in runs if b - a >= min_s - 1e-9]
        assert [e.label for e in events] == [label for _, _, label in sorted(wanted)]
        times = [row[:2] for row in sorted(wanted)]
        np.testing.assert_allclose([e[:2] for e in events], times, atol=1e-9)
    each = found.events(threshold=[0.2, 0.9, 0.5, 0.1], median=[0, 0.3, 0.5, 0.1])
    for c, (threshold, median) in enumerate([(0.2, 0), (0.9, 0.3), (0.5, 0.5), (0.1, 0.1)]):
        alone = found.events(threshold, median, classes=c)
        assert [e for e in each if e.label == LABELS.names[c]] == alone


def test_the_threshold_is_not_reached_by_itself():
    found = tagger()((noise(4), RATE))
    top = float(found.frames.max())
    assert found.events(threshold=1.0) == []
    assert found.events(threshold=top, median=0) == []
    assert found.events(threshold=np.nextafter(np.float32(top), 0), median=0) != []


def test_boxes_are_events_between_change_points():
    wave = sounds(6.35, (1.0, 3.2, 0.3), (5.0, 6.35, 0.9))
    found = tagger()((wave, RATE))
    wanted = change_points.boxes(found.frames, frame_rate=10)
    wanted = change_points.above(wanted, 0.4)
    wanted["offset_s"] = np.minimum(wanted["offset_s"], 6.35)
    got = {(e.onset_s, e.offset_s, LABELS.index(e.label)) for e in found.events(0.4, boxes=True)}
    assert got == set(wanted.tolist())
    assert (1.0, 3.2, 0) in {tuple(np.round(row, 9)) for row in got}
    with pytest.raises(AsjaxError, match="boxes need no median filter"):
        found.events(boxes=True, median=0.3)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"threshold": 1.01}, "threshold must be a probability from 0 to 1, or 4 of them, one per"),
        ({"threshold": float("nan")}, "got nan"),
        ({"threshold": "high"}, "got 'high'"),
        ({"threshold": True}, "got True"),
        ({"threshold": [0.5, 0.5]}, "one per class, got"),
        ({"median": -0.1}, "median must be seconds from 0 to 60"),
        ({"median": 61}, "got 61"),
        ({"min_duration": -1}, "min_duration must be a number of seconds, 0 or more, got -1"),
        ({"min_duration": "x"}, "got 'x'"),
        ({"gap": float("inf")}, "gap must be a number of seconds, 0 or more, got inf"),
        ({"gap": [1, 2]}, "gap must be"),
        ({"classes": "Doge"}, "'Doge' is not a class of four"),
        ({"classes": [9]}, "from 0 to 3"),
        ({"classes": 1.5}, "classes must be a list of names"),
    ],
)
def test_options_out_of_range_are_one_line(how, match):
    found = tagger()((noise(0.5), RATE))
    with pytest.raises(AsjaxError, match=match) as caught:
        found.events(**how)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------- tuned thresholds and windows


def test_the_models_tuned_decoding_is_the_default():
    tuned = {"threshold": [0.2, None, 0.9, 0.4], "median": [1, 3, 5, 7], "frame_rate": 10.0}
    wave = noise(12)
    found = tagger(record={"decoding": tuned})((wave, RATE))
    wanted = found.events([0.2, 0.5, 0.9, 0.4], [0.1, 0.3, 0.5, 0.7])
    assert found.events() == wanted
    assert found.events(0.5, 0.36) == tagger()((wave, RATE)).events()
    assert decoding.window_frames(0.36, 10) == 4
    nulls = {"threshold": None, "median": [4] * 4, "frame_rate": 10.0}
    assert tagger(record={"decoding": nulls})((wave, RATE)).events() == found.events(0.5, 0.4)
    for stored in ({}, None, {"threshold": None}, {"median": [None] * 4, "frame_rate": 7.0}):
        assert thresholds(stored, 4).tolist() == [0.5] * 4
        assert medians_s(stored, 4).tolist() == [0.36] * 4


def test_median_windows_that_were_tuned_at_another_frame_rate_stay_as_long():
    tuned = {"median": [10] * 4, "frame_rate": 20.0}  # half a second
    wave = noise(12)
    assert tagger(record={"decoding": tuned})((wave, RATE)).events() == (
        tagger()((wave, RATE)).events(median=0.5)
    )


@pytest.mark.parametrize(
    "tuned",
    [
        {"threshold": [0.5]},
        {"threshold": 0.5},
        {"threshold": [0.5, 0.5, 0.5, 1.5]},
        {"threshold": [0.5, 0.5, 0.5, "0.5"]},
        {"threshold": [0.5, 0.5, 0.5, True]},
        {"threshold": [0.5, 0.5, 0.5, float("nan")]},
        {"median": [1, 2]},
        {"median": [1, 2, 3, 0]},
        {"median": [1, 2, 3, 1e12]},
        {"median": [1, 2, 3, 4], "frame_rate": -25},
        {"median": [1, 2, 3, 4], "frame_rate": "25"},
    ],
)
def test_a_damaged_decoding_is_one_line_where_it_is_needed(tuned):
    found = tagger(record={"decoding": tuned})((noise(3), RATE))
    with pytest.raises(
        AsjaxError, match="the model's card: decoding.*must have a number"
    ) as caught:
        found.events()
    assert "\n" not in str(caught.value)
    assert isinstance(found.events(threshold=0.5, median=0.3), list)


# ----------------------------------------------------------------------------- without frames


def test_a_model_without_frames_says_which_models_have_them():
    found = small_tagger.tagger()((small_tagger.steps(0.3), small_tagger.RATE))
    for ask in (lambda: found.frames, lambda: found.frame_times, found.events):
        with pytest.raises(AsjaxError, match="of clips and not of frames: it has no events") as e:
            ask()
        assert "asjax models --published" in str(e.value)
        assert "\n" not in str(e.value)
    assert found.frame_rate is None
    with pytest.raises(AsjaxError, match="not of frames"):
        small_tagger.tagger(frames=True)
    off = tagger(frames=False)((noise(1), RATE))
    with pytest.raises(AsjaxError, match="made with frames=False"):
        off.events()


def test_frames_of_other_classes_are_no_frames():
    used = tagger(classes=3)
    assert used((noise(1), RATE)).clip.shape == (4,)
    with pytest.raises(AsjaxError, match=r"frame_logits \[B, 2 or more frames, 4 classes\]"):
        _ = used((noise(1), RATE)).frames


def test_frame_scores_that_are_not_finite_are_an_error():
    with pytest.raises(AsjaxError, match="not finite"):
        tagger(edge=np.nan)((noise(1), RATE))


def test_the_settings_of_a_detector_are_pickled():
    used = tagger(chunks=True, record={})
    used.model, used.frontend = "model", "frontend"
    again = pickle.loads(pickle.dumps(used))
    assert (again.chunks, again.frames) == (True, None)


def test_a_floor_below_the_loudest_clip_of_a_batch_becomes_one_of_each_clip():
    frontend = frontends.build("atst_frame_logmel64", top_db_scope="batch")
    used = predict.Tagger(
        SimpleNamespace(apply=None), {}, frontend, LABELS, sample_rate=16_000, clip_s=1.0
    )
    assert used.frontend.top_db_scope == "clip"
    assert used.frontend.top_db == frontend.top_db


# ---------------------------------------------------------------------------------- a real model


def test_a_saved_detector_is_loaded_and_its_frames_are_those_of_its_module(tmp_path):
    frontend = dict(name="panns_logmel", sample_rate=8000, n_mels=64)
    model = dict(name="cnn", variant="mini", num_classes=3, frames=20)
    module, features = build.make("model", model), build.make("frontend", frontend)
    variables = module.init(jax.random.key(1), features(jnp.zeros((1, 16_000))), train=False)
    labels = LabelSet("three", ("a", "b", "c"), ("A", "B", "C"))
    tuned = {"threshold": [0.3, 0.5, None], "median": [1, 1, 3], "frame_rate": 10.0}
    model_dir.save_model(
        tmp_path / "model",
        config=dict(data=dict(sample_rate=8000, clip_s=2.0), frontend=frontend, model=model),
        label_set=labels,
        variables=dict(variables),
        record={"decoding": tuned},
    )
    used = predict.load(tmp_path, frames=True)
    wave = (0.1 * RNG.standard_normal(16_000 * 2 + 5000)).astype(np.float32)
    found = used((wave, 8000))
    total = decoding.frames_of(len(wave) / 8000, 10)
    plan = decoding.windows(int(total), 20)
    parts = []
    for start in plan.starts:
        window = wave[start * 800 : start * 800 + 16_000]
        window = np.pad(window, (0, 16_000 - len(window)))
        out = module.apply(variables, features(jnp.asarray(window)[None]), train=False)
        parts.append(np.asarray(out["frame_logits"][0], np.float64))
    wanted = 1 / (1 + np.exp(-decoding.stitch(np.stack(parts), plan)))
    np.testing.assert_allclose(found.frames, wanted, atol=2e-5)
    assert found.events() == found.events([0.3, 0.5, 0.5], [0.1, 0.1, 0.3])


def test_a_window_has_the_samples_of_its_frames():
    assert SIZE == FRAMES * 100
    assert small.starts(45) == [0, 10, 20, 25]
