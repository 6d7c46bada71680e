"""Mixed scenes: what the plan says is what the sound has."""

import warnings

import numpy as np
import pytest
from scipy import signal

from asjax.config import AsjaxError, AsjaxWarning
from asjax.data import bank, mixing, scenes

RATE = 8000


def small_bank(lengths=(0.3, 0.8, 2.0, 7.0), steady=(2,)):
    """A recording of noise per length in seconds; recording i has class i."""
    rng, rows = np.random.default_rng(0), []
    for i, seconds in enumerate(lengths):
        wave = rng.standard_normal(round(seconds * RATE)).astype(np.float32)
        span = np.array([[0, len(wave)]])
        rows.append((f"r{i}", [i], i in steady, span, bank.cut(wave, span)))
    return bank.build(rows, RATE)


def rules(**over):
    return mixing.Rules(**{"clip_s": 6.0, "sample_rate": RATE} | over)


def made(count=40, the_bank=None, key=7, **over):
    return scenes.Scenes(the_bank or small_bank(), rules(**over), key, count)


def without_events(them, i):
    """The noise of scene i alone, in full scale 1."""
    return mixing.background(them.rules, mixing._rng(them.key, i, 1), them.noise[i].item())


def test_the_snr_over_each_event_is_that_of_the_plan():
    them = made(30, snr_db=(-5, 40), polyphony=1, level_db=(-45, -40))
    errors, checked = [], 0
    for i in range(len(them)):
        noise, scene = without_events(them, i), them.wave(i) / 32768
        scale = 32767 / 32768 * min(1.0, scaled(them, i))
        for event in them.scene(i):
            at = slice(round(event["onset_s"] * RATE), round(event["offset_s"] * RATE))
            sound = scene[at] - scale * noise[at]
            snr = 10 * np.log10(np.mean(sound**2) / np.mean((scale * noise[at]) ** 2))
            errors.append(abs(snr - event["snr_db"]))
            checked += 1
    assert checked > 60
    assert max(errors) < 0.05


def scaled(them, i):
    """By how much a scene was made quieter, from its samples outside of events."""
    noise, scene = without_events(them, i), them.wave(i) / 32767
    free = np.ones(len(scene), bool)
    for event in them.scene(i):
        free[round(event["onset_s"] * RATE) : round(event["offset_s"] * RATE)] = False
    return float(scene[free] @ noise[free] / (noise[free] @ noise[free]))


def test_loud_scenes_keep_their_snr_and_do_not_clip():
    them = made(20, snr_db=(35, 40), level_db=(-20, -15), polyphony=1)
    for i in range(len(them)):
        peak = np.abs(them.wave(i).astype(int)).max()
        assert abs(peak - round(0.99 * 32767)) <= 1
        assert scaled(them, i) < 0.9


def test_the_noise_has_the_level_of_the_plan():
    them = made(20, level_db=(-50, -30))
    for i in range(len(them)):
        level = 10 * np.log10(np.mean(np.square(without_events(them, i), dtype=np.float64)))
        assert level == pytest.approx(them.noise["level_db"][i], abs=1e-3)
        assert -50 <= level <= -30
    assert np.ptp(them.noise["level_db"]) > 12


@pytest.mark.parametrize("slope", [-2.0, -1.0, 0.0])
def test_the_power_of_the_noise_falls_with_its_slope(slope):
    them = made(1, slope=(slope, slope), modulated=0.0, clip_s=30.0)
    f, power = signal.welch(without_events(them, 0), RATE, nperseg=4096)
    band = (f > 60) & (f < 3500)
    fitted = np.polyfit(np.log(f[band]), np.log(power[band]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.06)
    f, power = signal.periodogram(without_events(them, 0), RATE)
    assert power[f < 19.9].max() < 1e-6 * power[(f > 20) & (f < 40)].mean()


def test_the_stated_share_of_scenes_has_modulated_noise():
    them = made(1000, modulated=0.3)
    depth, rate_hz = them.noise["depth"], them.noise["rate_hz"]
    assert 0.26 < np.mean(depth > 0) < 0.34
    assert depth[depth > 0].min() >= 0.3
    assert depth.max() <= 0.9
    assert rate_hz.min() >= 0.1
    assert rate_hz.max() <= 2.0
    assert not made(50, modulated=0.0).noise["depth"].any()


@pytest.mark.parametrize("polyphony", [1, 2, 3])
def test_crowded_scenes_keep_the_rules(polyphony):
    them = made(60, events=(10, 10), polyphony=polyphony, apart_s=0.1)
    assert them.missing > 0  # so the rules had work to do
    at_most = 0
    for i in range(len(them)):
        scene = them.scene(i)
        active = np.zeros((them.rules.samples, 4), int)
        for event in scene:
            a, b = round(event["onset_s"] * RATE), round(event["offset_s"] * RATE)
            assert 0 <= a < b <= them.rules.samples
            active[a:b, event["class"]] += 1
        at_most = max(at_most, active.sum(axis=1).max())
        for label in range(4):
            mine = np.sort(scene[scene["class"] == label], order="onset_s")
            gaps = mine["onset_s"][1:] - mine["offset_s"][:-1]
            assert (gaps >= 0.1 - 1e-9).all()
    assert at_most == polyphony


def test_steady_and_very_long_pieces_are_cut_and_others_are_whole():
    them = made(400, events=(1, 1), steady_s=(0.5, 5.0))
    length = {i: [] for i in range(4)}
    for i in range(len(them)):
        event = them.scene(i)[0]
        length[event["class"]].append(event["offset_s"] - event["onset_s"])
    assert set(np.round(length[0], 6)) == {0.3}
    assert set(np.round(length[1], 6)) == {0.8}
    assert min(length[2]) >= 0.5
    assert max(length[2]) == pytest.approx(2.0)
    assert 0.25 < np.mean(np.array(length[2]) < 1.999) < 0.45
    assert 0.5 <= min(length[3]) < 0.8  # longer than any cut, so it is always cut
    assert 4.7 < max(length[3]) <= 5.0


def test_a_piece_longer_than_the_scene_fits():
    them = made(30, clip_s=1.0, events=(1, 1), steady_s=(0.5, 30.0))
    assert max(them.scene(i)["offset_s"][0] for i in range(30)) <= 1.0


def test_a_cut_piece_comes_from_the_stated_place_and_fades_in_and_out():
    the_bank = small_bank()
    them = made(20, the_bank, events=(1, 1), snr_db=(50, 50), level_db=(-70, -70))
    for i in range(len(them)):
        event = them.scene(i)[0]
        a, b = round(event["onset_s"] * RATE), round(event["offset_s"] * RATE)
        sound = them.wave(i)[a:b].astype(np.float64)
        piece = the_bank.pieces[event["class"]]
        first = piece["start"] + round(event["at_s"] * RATE)
        original = the_bank.samples[first : first + b - a].astype(np.float64)
        middle = slice(80, -80)
        ratio = sound[middle] @ original[middle] / (original[middle] @ original[middle])
        rest = sound - ratio * original
        assert np.std(rest[middle]) < 0.01 * np.std(sound)
        for edge in (slice(0, 80), slice(-80, None)):
            assert np.std(sound[edge]) < 0.8 * ratio * np.std(original[edge])
        assert abs(sound[0]) < 0.05 * ratio * 32767
        assert abs(sound[-1]) < 0.05 * ratio * 32767


def test_a_scene_depends_on_the_key_and_its_number_only():
    few, many, other = made(5), made(50), made(5, key=8)
    assert all(few[i] == many[i] for i in range(5))
    assert many[40] == made(41)[40]
    assert all(few[i] != other[i] for i in range(5))
    assert len({many[i] for i in range(50)}) == 50
    with pytest.raises(IndexError):
        many[50]


def test_labels_are_the_classes_of_the_events():
    span = np.array([[0, RATE]])
    wave = bank.cut(np.ones(RATE, np.float32), span)
    two = bank.build([("a", [1, 4], False, span, wave), ("b", [0], False, span, wave)], RATE)
    them = made(50, two, events=(0, 4))
    table = them.labels(5)
    assert table.dtype == np.int8
    assert table.shape == (50, 5)
    assert set(table.data) <= {1}
    empty = 0
    for i in range(50):
        assert table[i].indices.tolist() == sorted(set(them.scene(i)["class"].tolist()))
        empty += not len(them.scene(i))
    assert empty
    assert set(np.unique(table.indices)) == {0, 1, 4}


def test_scenes_without_any_event():
    them = made(3, events=(0, 1), key=1)
    none = scenes.Scenes(small_bank(), rules(events=(0, 1)), 1, 0)
    assert len(none) == 0
    assert none.labels(4).shape == (0, 4)
    events = scenes.SceneEvents(them, np.arange(3))
    assert [len(e) for e in events] == [len(them.scene(i)) for i in range(3)]
    assert len(events.select([2, 0])[1]) == len(them.scene(0))


def test_events_without_a_place_are_reported():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(20, events=(1, 2)).say_missing("x")
    them = made(20, events=(20, 20), polyphony=1)
    with pytest.warns(AsjaxWarning, match=f"{them.missing} of 400 drawn events found no place"):
        them.say_missing("x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip_s": 0.5},
        {"clip_s": float("nan")},
        {"clip_s": "10"},
        {"sample_rate": 16000.5},
        {"events": (0, 0)},
        {"events": 3},
        {"events": (3, 1)},
        {"events": (1.5, 2)},
        {"events": (1, 100_000)},
        {"polyphony": 0},
        {"polyphony": True},
        {"snr_db": (6,)},
        {"snr_db": (6, float("inf"))},
        {"level_db": (-50, 0)},
        {"slope": "flat"},
        {"modulated": 1.5},
        {"apart_s": -1},
        {"steady_s": (0, 5)},
    ],
)
def test_values_out_of_range_are_errors(wrong):
    with pytest.raises(AsjaxError, match=r"^scenes: .* must be .*, got "):
        rules(**wrong)


def test_equal_rules_have_equal_values():
    assert rules(snr_db=[6, 30], events=[1, 5]) == rules(snr_db=(6.0, 30.0), events=(1, 5))


@pytest.mark.parametrize("seconds", [0.7, 2.5, 20.0])
def test_recorded_noise_is_cut_or_repeated_to_the_level_of_the_plan(seconds):
    tone = np.sin(np.arange(round(seconds * RATE)) * 0.3).astype(np.float32)
    span = np.array([[0, len(tone)]])
    grounds = bank.build([("room", [], False, span, bank.cut(tone, span))], RATE)
    them = scenes.Scenes(small_bank(), rules(events=(0, 1), snr_db=(6, 8)), 7, 6, grounds)
    again = scenes.Scenes(small_bank(), rules(events=(0, 1), snr_db=(6, 8)), 7, 3, grounds)
    assert again[2] == them[2]
    for i in range(6):
        noise = mixing.recorded(grounds, them.rules, mixing._rng(7, i, 1), them.noise[i].item())
        assert len(noise) == 6 * RATE
        level = 10 * np.log10(np.mean(np.square(noise, dtype=np.float64)))
        assert level == pytest.approx(them.noise["level_db"][i], abs=1e-3)
        f, power = signal.periodogram(noise, RATE)
        near = np.abs(f - 0.3 * RATE / 2 / np.pi) < 20
        assert power[near].sum() > 0.95 * power.sum()  # a tone, also across the joints
        if not len(them.scene(i)):
            assert np.abs(them.wave(i) / 32767 - noise).max() < 1e-4


def test_an_event_in_a_pause_of_the_noise_is_still_heard():
    wave = np.zeros(6 * RATE, np.float32)
    wave[:RATE] = 0.5
    span = np.array([[0, len(wave)]])
    grounds = bank.build([("room", [], False, span, bank.cut(wave, span))], RATE)
    them = scenes.Scenes(small_bank((0.3,)), rules(events=(1, 1)), 7, 20, grounds)
    for i in range(20):
        event = them.scene(i)[0]
        sound = them.wave(i)[round(event["onset_s"] * RATE) :][: round(0.3 * RATE)]
        assert np.std(sound.astype(float)) > 5
