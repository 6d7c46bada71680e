"""Sound files as streams: non-finite values, names in messages, rare containers."""

import io

import numpy as np
import pytest
import sounds

from asjax.data import audio, sound
from asjax.data.audio import AudioError

RATE = 8000


def with_nan(share, size=10_000):
    wave = sounds.noise(1, rate=size, seed=3)
    wave[: round(share * size)] = np.nan
    return sounds.encode(wave, RATE, "WAV", "FLOAT")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_few_values_that_are_not_finite_are_counted(bad):
    wave = sounds.noise(1, rate=RATE)
    wave[[5, 70, 71]] = bad
    data = sounds.encode(wave, RATE, "WAV", "FLOAT")
    for use in (
        lambda note: audio.read(data, RATE, note=note),
        lambda note: list(audio.blocks(data, RATE, 0.1, note=note)),
    ):
        notes = []
        use(notes.append)
        assert notes == [
            f"audio of {len(data)} bytes: 3 of its 8000 samples are not finite (NaN or infinite); "
            "they count as 0"
        ]


@pytest.mark.parametrize("share", [0.011, 0.5, 1.0])
def test_many_values_that_are_not_finite_are_an_error(share):
    data = with_nan(share)
    for use in (lambda: audio.read(data, RATE), lambda: list(audio.blocks(data, RATE, 0.1))):
        with pytest.raises(AudioError, match=r"\d+ of its 10000 samples are not finite.*1%"):
            use()
    notes = []
    if share == 1:
        with pytest.raises(AudioError, match="none of its 10000 samples is finite"):
            audio.read(data, RATE, note=notes.append, most_not_finite=1.0)
        return
    audio.read(data, RATE, note=notes.append, most_not_finite=1.0)
    assert f"{round(share * 10_000)} of its 10000" in notes[0]


def test_a_wave_in_memory_that_is_not_finite_is_noted():
    notes = []
    audio.from_array(np.float32([0, np.nan, 1]), RATE, RATE, note=notes.append)
    assert notes == [
        "wave: 1 of 3 values are not finite (NaN or infinite); they count as 0"
    ]  # fmt: skip


def test_notes_are_warnings_by_default():
    with pytest.warns(UserWarning, match="never finished"):
        audio.read(sounds.wav(b"").replace(b"data\0\0\0\0", b"data\0\0\0\0" + bytes(99)), 16_000)


def test_names_are_made_harmless_and_short(tmp_path):
    path = tmp_path / f"\x1b[31m{'long' * 50}\u202e.wav"
    path.write_text("no sound")
    with pytest.raises(AudioError) as caught:
        audio.read(path, RATE)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    assert "..." in message


@pytest.mark.parametrize("form", ["VOC", "PAF", "SVX", "MAT5", "AVR", "IRCAM", "XI"])
def test_containers_that_do_not_tell_a_cut_are_refused(form):
    """libsndfile reads a truncated file of these formats as a shorter one without any error."""
    data = sounds.encode(sounds.tone(0.2, rate=44_100), 44_100, form)
    with pytest.raises(AudioError, match="is not audio that libsndfile can read"):
        audio.read(data, RATE)


def test_many_streams_do_not_stay_open():
    one = sounds.encode(sounds.tone(0.1, rate=RATE), RATE, "OGG", "VORBIS")
    closed = []
    with sound.opened(one * 50, None, closed.append) as found:
        assert found.frames == 50 * 800
        assert len(np.concatenate(list(found.mono(0, found.frames, 1000)))) == 50 * 800
        assert [stream._file for stream in found._streams] == [None] * 50


def test_a_file_object_is_read_from_where_it_stands():
    data = sounds.encode(sounds.tone(1, rate=RATE), RATE)
    file = io.BytesIO(b"something else" + data)
    file.seek(14)
    np.testing.assert_array_equal(audio.read(file, RATE), audio.read(data, RATE))
