"""Audio reading against soundfile, soxr and hand-made bad files."""

import io
import os
import struct
import threading
import time
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr

from asjax.data import audio
from asjax.data.audio import AudioError

RNG = np.random.default_rng(7)


def noise(*shape):
    return (RNG.standard_normal(shape) * 0.1).astype(np.float32)


def encode(wave, rate=16000, kind="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    return file.getvalue()


def with_flac_total(data, total):
    """The FLAC with another 36-bit sample count in its STREAMINFO block (RFC 9639, 8.2)."""
    data = bytearray(data)
    data[21] = data[21] & 0xF0 | total >> 32
    data[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


def wav_header(rate, channels, frames=10):
    data = np.zeros(frames * channels, np.int16).tobytes()
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


# ------------------------------------------------------------------------------- good files


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "OGG", "MP3"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_container_gives_what_soundfile_decodes_averaged_over_channels(kind, channels):
    if kind == "MP3":
        channels = min(channels, 2)
    data = encode(noise(8000, channels), 16000, kind)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
    wave = audio.read(data, 16000)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    np.testing.assert_allclose(wave, expected.mean(1), atol=1e-7)


@pytest.mark.parametrize("rate", [100, 8000, 22050, 44100, 48000, 1_000_000])
def test_resampling_equals_soxr_high_quality_on_the_channel_mean(rate):
    x = noise(30011, 2)
    data = encode(x, rate, "WAV", "FLOAT")
    expected = soxr.resample(x.astype(np.float64).mean(1), rate, 16000, quality="HQ")
    wave = audio.read(data, 16000)
    assert len(wave) == round(30011 * 16000 / rate)
    np.testing.assert_allclose(wave, expected, atol=2e-6)


def test_a_tone_stays_a_tone_of_the_same_height_and_pitch():
    seconds = np.arange(44100) / 44100
    data = encode(0.5 * np.sin(2 * np.pi * 1000 * seconds), 44100, "WAV", "FLOAT")
    wave = audio.read(data, 16000)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    np.testing.assert_allclose(wave[500:-500], expected[500:-500], atol=1e-4)


def test_path_string_bytes_and_file_object_are_the_same_source(tmp_path):
    path = tmp_path / "hünd 犬 🐕.flac"
    path.write_bytes(encode(noise(4000), 8000, "FLAC"))
    waves = [audio.read(path, 8000), audio.read(str(path), 8000)]
    waves.append(audio.read(path.read_bytes(), 8000))
    with path.open("rb") as file:
        waves.append(audio.read(file, 8000))
    for wave in waves[1:]:
        np.testing.assert_array_equal(wave, waves[0])


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_a_file_name_that_is_no_valid_text_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\xfe.wav")
    path.write_bytes(encode(noise(100)))
    assert len(audio.read(path, 16000)) == 100


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_part_is_the_same_samples_as_a_slice_of_the_whole(kind):
    data = encode(noise(48000), 16000, kind)
    whole = audio.read(data, 16000)
    part = audio.read(data, 16000, start_s=0.5, duration_s=1.25)
    np.testing.assert_allclose(part, whole[8000:28000], atol=2e-4 if kind == "MP3" else 1e-6)
    np.testing.assert_array_equal(len(audio.read(data, 16000, start_s=2.9, duration_s=9)), 1600)


def test_info_reads_rate_channels_and_frames_from_the_header():
    rate, channels, frames = audio.info(encode(noise(1234, 3), 22050))
    assert (rate, channels, frames) == (22050, 3, 1234)


def test_a_flac_stream_of_unknown_length_is_read_to_its_end():
    x = noise(50000)
    data = with_flac_total(encode(x, 16000, "FLAC"), 0)
    assert audio.info(data).frames == 50000
    np.testing.assert_allclose(audio.read(data, 16000), x, atol=2e-5)
    with pytest.raises(AudioError, match="max_s"):
        audio.read(data, 16000, max_s=3)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 1_000_000])
def test_one_sample_is_enough(rate):
    data = encode(np.float32([0.25]), rate)
    assert len(audio.read(data, 16000)) >= 1
    streamed = np.concatenate(list(audio.blocks(data, 16000, 1.0)))
    np.testing.assert_array_equal(streamed, audio.read(data, 16000))


def test_nan_and_inf_become_zero_and_absurd_values_are_clipped():
    x = noise(1000, 2)
    x[10, 0], x[20, 1], x[30], x[40, 0] = np.nan, np.inf, -np.inf, 1e30
    clean = x.astype(np.float64)
    clean[~np.isfinite(clean)] = 0
    expected = np.clip(clean, -audio.LIMIT, audio.LIMIT).mean(1)
    wave = audio.read(encode(x, 16000, "WAV", "FLOAT"), 16000)
    np.testing.assert_allclose(wave, expected, rtol=1e-6, atol=1e-8)
    assert np.isfinite(np.square(wave).sum())


@pytest.mark.parametrize("layout", ["[S]", "[S, ch]", "[ch, S]", "int16", "float64"])
def test_a_wave_in_memory_is_what_its_file_would_give(layout):
    x = noise(5000, 1 if layout == "[S]" else 2)
    data = encode(x, 44100, "WAV", "PCM_16" if layout == "int16" else "FLOAT")
    wave = x[:, 0] if layout == "[S]" else x.T if layout == "[ch, S]" else x
    if layout == "int16":
        wave, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    if layout == "float64":
        wave = wave.astype(np.float64)
    found = audio.from_array(wave, 44100, 16000)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, audio.read(data, 16000), atol=1e-6)


def test_a_wave_in_memory_is_sanitised():
    wave = np.array([0.5, np.nan, np.inf, 1e300, -1e9])
    found = audio.from_array(wave, 16000, 16000)
    np.testing.assert_array_equal(found, np.float32([0.5, 0, 0, 0, -audio.LIMIT]))


@pytest.mark.parametrize(
    ("wave", "rate", "match"),
    [
        (np.zeros(0), 16000, "S > 0"),
        (np.zeros((2, 3, 4)), 16000, r"float64 \[2, 3, 4\]"),
        (np.zeros(4, np.uint8), 16000, "uint8"),
        (np.zeros(4, complex), 16000, "complex"),
        (np.array(["a"]), 16000, "signed integer"),
        (np.zeros((65, 99)), 16000, "channels"),
        (np.zeros(4), 0, "rate"),
        (np.zeros(4), "16k", "rate"),
        (np.zeros(4), float("nan"), "rate"),
    ],
)
def test_a_wave_of_another_kind_is_refused(wave, rate, match):
    with pytest.raises(AudioError, match=match):
        audio.from_array(wave, rate, 16000)


# -------------------------------------------------------------------------------- streaming


@pytest.mark.parametrize(("rate", "sample_rate"), [(16000, 16000), (44100, 16000), (8000, 32000)])
@pytest.mark.parametrize("block_s", [0.03, 1.0, 100.0])
def test_blocks_joined_equal_the_one_shot_read(rate, sample_rate, block_s, monkeypatch):
    monkeypatch.setattr(audio, "_BLOCK", 3001)  # several decoder blocks within a short file
    data = encode(noise(3 * rate + 17, 2), rate, "FLAC")
    pieces = list(audio.blocks(data, sample_rate, block_s))
    assert {len(p) for p in pieces[:-1]} <= {round(block_s * sample_rate)}
    assert 0 < len(pieces[-1]) <= round(block_s * sample_rate)
    np.testing.assert_allclose(np.concatenate(pieces), audio.read(data, sample_rate), atol=1e-6)


def test_streaming_twenty_minutes_needs_memory_for_blocks_only(tmp_path):
    path = tmp_path / "long.wav"
    second = noise(8000, 2)
    with soundfile.SoundFile(path, "w", 8000, 2) as file:
        for _ in range(1200):
            file.write(second)
    tracemalloc.start()
    total = sum(len(p) for p in audio.blocks(path, 16000, 5.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 1200 * 16000  # 77 MB of float32
    assert peak < 25e6


def test_an_unfinished_stream_closes_its_file(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encode(noise(160000)))
    stream = audio.blocks(path, 16000, 1.0)
    next(stream)
    stream.close()
    path.unlink()
    with pytest.raises(StopIteration):
        next(stream)


def test_threads_read_the_same_as_one():
    data = [encode(noise(20000), 44100, "FLAC") for _ in range(4)]
    expected = [audio.read(d, 16000) for d in data]
    found = [None] * 4

    def work(i):
        for _ in range(5):
            found[i] = audio.read(data[i], 16000)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# -------------------------------------------------------------------------------- bad files


def refuse(source, match, **kw):
    """read, info and blocks refuse `source` quickly, in one line with its name."""
    start = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(AudioError, match=match) as caught:
        audio.read(source, 16000, **kw)
    with pytest.raises(AudioError, match=match):
        list(audio.blocks(source, 16000, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - start < 0.2
    assert peak < 10e6
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_a_folder_and_an_empty_file_are_named(tmp_path):
    assert "nothing.wav" in refuse(tmp_path / "nothing.wav", "does not exist")
    refuse(tmp_path, "must be an audio file")
    (tmp_path / "empty.wav").touch()
    assert "empty.wav" in refuse(tmp_path / "empty.wav", "0 bytes")
    refuse(b"", "0 bytes")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "raw", "vox", "gsm", "au", "ogg"])
def test_text_with_the_name_of_an_audio_file_is_not_audio(tmp_path, suffix, capfd):
    path = tmp_path / f"text.{suffix}"
    path.write_text("this is no sound\n" * 50)
    with audio.quiet_decoders():
        assert path.name in refuse(path, "is not audio that libsndfile can read")
    assert capfd.readouterr().err == ""


def test_a_container_that_libsndfile_lacks_says_how_to_convert(tmp_path):
    path = tmp_path / "phone.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    refuse(path, "convert it first")


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.1])
def test_a_flac_cut_anywhere_is_damaged(keep):
    data = encode(noise(100000), 16000, "FLAC")
    refuse(data[: int(len(data) * keep)], "damaged|cut short")


def test_a_flac_whose_last_frames_are_missing_is_cut_short():
    data = encode(noise(100000), 16000, "FLAC")
    refuse(with_flac_total(data, 100001), "cut short|damaged")


def test_a_flac_header_of_68_billion_samples_is_refused_at_once():
    data = with_flac_total(encode(noise(100), 16000, "FLAC"), 2**36 - 1)
    assert "clip-7" in refuse_info(data, "promises 68719476735 samples", name="clip-7")
    refuse(data, "promises 68719476735 samples")
    padded = data + bytes(9_000_000)  # enough bytes for a plausible header
    with pytest.raises(AudioError, match="max_s"):
        audio.read(padded, 16000)


def refuse_info(source, match, **kw):
    with pytest.raises(AudioError, match=match) as caught:
        audio.info(source, **kw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("rate", "channels", "match"),
    [(16000, 1024, "channels"), (16000, 65, "channels"), (1, 1, "rate"), (99, 1, "rate"),
     (1_000_001, 1, "rate"), (2**30, 1, "rate")],
)  # fmt: skip
def test_headers_beyond_the_limits_are_refused(rate, channels, match):
    refuse(wav_header(rate, channels), match)
    refuse_info(wav_header(rate, channels), match)


def test_the_limits_themselves_are_accepted():
    for rate, channels in [(100, 1), (1_000_000, 1), (16000, 64)]:
        assert len(audio.read(wav_header(rate, channels), 16000)) >= 1


def test_a_file_without_samples_is_refused():
    refuse(wav_header(16000, 1, frames=0), "holds no samples|not audio")


def test_a_wav_that_promises_too_much_is_read_as_far_as_it_goes():
    data = bytearray(encode(noise(1000)))
    data[40:44] = struct.pack("<I", 2**31)
    assert len(audio.read(bytes(data), 16000)) == 1000


def test_requests_that_make_no_sense_are_refused():
    data = encode(noise(16000))
    for kw, match in [
        (dict(start_s=1.0), "start_s"),
        (dict(start_s=-1), "start_s"),
        (dict(start_s=float("nan")), "start_s"),
        (dict(duration_s=0), "duration"),
        (dict(max_s=0.5), "lasts 1 s, more than max_s=0.5"),
    ]:
        with pytest.raises(AudioError, match=match):
            audio.read(data, 16000, **kw)
    with pytest.raises(AudioError, match="requested sample_rate"):
        audio.read(data, 0)


def test_quiet_decoders_hides_what_libmpg123_prints_and_puts_stderr_back(capfd):
    data = encode(noise(160000), 16000, "MP3")
    with audio.quiet_decoders():
        audio.read(data[: len(data) // 2], 16000)
    assert capfd.readouterr().err == ""
    with pytest.raises(KeyError), audio.quiet_decoders():
        raise KeyError
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"
