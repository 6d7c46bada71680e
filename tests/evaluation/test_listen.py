"""Sounds for the players of a report: what is heard, how large it is, what cannot be read."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asjax.data.sound import AudioError
from asjax.evaluation import listen


def source(clips: dict):
    class Source(SimpleNamespace):
        def __getitem__(self, i):
            return {"audio": list(clips.values())[i]}

    return Source(ids=list(clips))


def wav(wave, rate):
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format="WAV")
    return out.getvalue()


def test_the_first_seconds_are_heard_as_mono(tmp_path):
    rate = 44_100
    seconds = np.arange(15 * rate) / rate
    tone = np.sin(2 * np.pi * 440 * seconds)
    path = tmp_path / "b.wav"
    path.write_bytes(wav(np.stack([tone, tone], 1) * 0.5, rate))
    play = listen.listener(source({"a": wav(tone[:rate] * 0.5, rate), "b": str(path)}))
    assert play("nobody") is None
    for clip, length in (("a", 1.0), ("b", 10.0)):
        sound, mime = play(clip)
        assert mime == "audio/mpeg"
        heard, hz = soundfile.read(io.BytesIO(sound))
        assert (hz, heard.ndim) == (16_000, 1)
        assert len(heard) / hz == pytest.approx(length, abs=0.15)  # MP3 pads its ends
        spectrum = np.abs(np.fft.rfft(heard))
        assert np.argmax(spectrum) * hz / len(heard) == pytest.approx(440, abs=2)


def test_ten_seconds_of_noise_are_small():
    noise = np.random.default_rng(0).normal(0, 2, 160_000)  # louder than full scale
    assert len(listen.encoded(noise)[0]) < 45_000


def test_a_clip_that_cannot_be_decoded_is_an_error():
    with pytest.raises(AudioError):
        listen.listener(source({"a": b"no audio"}))("a")
