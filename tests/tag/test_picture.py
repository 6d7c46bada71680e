"""Pictures of events: the spectrogram against a naive one, what is drawn, sizes of the files."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import small_detector as small
from matplotlib import image
from small_detector import RATE, sounds
from small_tagger import write

from asjax import predict
from asjax.__main__ import main
from asjax.labels import LabelSet
from asjax.tag import picture
from asjax.tag.events import Detected


def pixels(data: bytes) -> np.ndarray:
    return image.imread(io.BytesIO(data), format="png")


def found(duration_s, events, names=("A", "B")):
    ids = tuple(f"/m/{i}" for i in range(len(names)))
    labels = LabelSet("some", ids, tuple(names))
    tags = SimpleNamespace(file="dir/a.wav", duration_s=duration_s, labels=labels.names, ids=ids)
    rows = [predict.Event(a, b, names[i], ids[i], p) for a, b, i, p in events]
    return Detected(tags, rows, None)


@pytest.mark.parametrize("seconds", [0.001, 0.05, 1.0, 10.0, 33.3])
def test_the_spectrogram_is_loud_where_and_at_what_frequency_the_sound_is(tmp_path, seconds):
    rate = 8000
    n = max(1, round(seconds * rate))
    t = np.arange(n) / rate
    wave = 1e-4 * np.random.default_rng(0).standard_normal(n)
    middle = (t > seconds * 0.4) & (t < seconds * 0.6)
    wave += 0.5 * middle * np.sin(2 * np.pi * 1000 * t)
    path = write(tmp_path / "a.wav", wave.astype(np.float32), rate)
    levels, centres = picture.spectrogram(path, "a", rate, n)
    assert levels.shape[0] == len(centres) == picture.MELS
    assert levels.max() == 0
    assert levels.shape[1] <= picture.COLUMNS
    if seconds >= 1:
        columns = np.arange(levels.shape[1]) / levels.shape[1]
        loud = levels.max(axis=0) > -12
        assert loud[(columns > 0.45) & (columns < 0.55)].all()
        assert not loud[(columns < 0.33) | (columns > 0.67)].any()
        best = levels[:, loud].mean(axis=1).argmax()
        assert abs(centres[best] - 1000) < 80


def test_a_long_recording_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "_BLOCK_S", 0.3)
    wave = np.random.default_rng(1).standard_normal(20_000).astype(np.float32) * 0.1
    path = write(tmp_path / "a.wav", wave, 8000)
    blocks, _ = picture.spectrogram(path, "a", 8000, len(wave))
    monkeypatch.setattr(picture, "_BLOCK_S", 100.0)
    whole, _ = picture.spectrogram(path, "a", 8000, len(wave))
    np.testing.assert_allclose(blocks, whole, atol=1e-4)


def test_of_many_classes_the_longest_are_drawn_in_the_order_of_their_onsets():
    names = [f"c{i}" for i in range(40)]
    events = sorted((i / 10, i / 10 + 1 + (i % 7), i, 0.5) for i in range(40))
    rows, left_out = picture.rows_of(found(50.0, events, names))
    assert (len(rows), left_out) == (picture.ROWS, 10)
    assert rows == sorted(rows)
    assert all(i in rows for i in range(40) if i % 7 >= 3)


@pytest.mark.parametrize("count", [0, 1, 5, 40])
@pytest.mark.parametrize("seconds", [0.02, 5.0, 500.0, 9000.0])
def test_pictures_have_a_row_per_class_and_bars_at_their_times(
    tmp_path, monkeypatch, count, seconds
):
    names = [f"a class with a long name {'x' * 60} {i}" for i in range(max(count, 2))]
    events = [(seconds * 0.25, seconds * 0.5, i, 0.9) for i in range(count)]
    flat = np.full((picture.MELS, 10), -picture.RANGE_DB, np.float32)
    centres = np.linspace(30, 7000, picture.MELS)
    monkeypatch.setattr(picture, "spectrogram", lambda *_: (flat, centres))
    shown = pixels(picture.picture(found(seconds, events, names), None, 8000))
    blue = (shown[..., 2] - shown[..., 0] > 0.15).any(axis=0)
    assert blue.any() == bool(count)
    assert shown.shape[1] == 1080
    rows = shown.shape[0]
    assert rows == pytest.approx(150 * (2.8 + 0.21 * min(max(count, 2), picture.ROWS)), abs=2)
    if count:
        places = np.flatnonzero(blue)
        dark = (shown[..., :3].max(axis=-1) < 0.45).any(axis=1)
        assert dark.any()  # the names
        left = places[0]
        assert places[-1] - left == pytest.approx(len(places), abs=2)  # one stretch


def test_the_verb_writes_a_picture_of_each_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load", lambda path, **kw: small.tagger(**kw))
    a = write(tmp_path / "in" / "a.wav", sounds(5, (1, 2, 0.5)))
    write(tmp_path / "in" / "sub" / "b.wav", sounds(0.05))
    call = ["tag", "--events", "--model", str(tmp_path)]
    assert main([*call, str(tmp_path / "in"), "--picture", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"{tmp_path}/out/a.png  3 events",
        f"{tmp_path}/out/sub/b.png  0 events",
    ]
    one = tmp_path / "One.PNG"
    assert main([*call, str(a), "--picture", str(one)]) == 0
    assert one.read_bytes() == (tmp_path / "out" / "a.png").read_bytes()
    assert pixels(one.read_bytes()).shape[1] == 1080
    with a.open("rb") as file:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=file, isatty=lambda: False))
        assert main([*call, "-", "--picture", str(tmp_path / "piped.png")]) == 0
    assert (tmp_path / "piped.png").stat().st_size > 5000
    assert RATE == 1000
