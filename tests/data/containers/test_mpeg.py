"""MP3 by its frames: all are read, whatever the headers say and whatever is between them."""

import io
import struct

import numpy as np
import pytest
import sounds

from asjax.data import audio
from asjax.data.audio import AudioError
from asjax.data.containers import mpeg, tags
from asjax.data.containers.parts import Loss, Tape

FRAME_S = 1152 / sounds.RATE


def read(data, **options):
    """(seconds, notes)."""
    notes = []
    wave = audio.read(data, sounds.RATE, note=notes.append, **options)
    assert audio.info(data, note=lambda _: None).frames == len(wave)
    streamed = audio.blocks(data, sounds.RATE, 0.7, note=lambda _: None)
    np.testing.assert_array_equal(np.concatenate(list(streamed)), wave)
    return len(wave) / sounds.RATE, notes


VBR = sounds.mp3(sounds.quiet_middle())
CBR = sounds.mp3(sounds.tone(2), "CONSTANT")
STEREO = sounds.mp3(np.stack([sounds.tone(1), sounds.tone(1, 900)], axis=1), "CONSTANT", level=0.5)


def test_the_walk_counts_the_frames_that_the_encoder_counted():
    for data in (VBR, CBR, STEREO):
        at = max(data.find(b"Xing"), data.find(b"Info"))
        said = struct.unpack_from(">I", data, at + 8)[0]
        streams = []
        end = mpeg._read(Tape(io.BytesIO(data)), 0, streams)
        assert end == len(data)
        assert [(s.frames, s.promised) for s in streams] == [(said, said)]
        assert said == len(sounds.mpeg_frames(data)) - 1


def test_a_right_file_goes_to_libsndfile_as_it_is():
    for data in (VBR, CBR, STEREO, sounds.id3(3000) + CBR, CBR + b"TAG" + bytes(125)):
        layout = mpeg.layout(Tape(io.BytesIO(data)), mpeg.first_frame(Tape(io.BytesIO(data))))
        assert [part.whole for part in layout.parts] == [True]
        assert layout.notes == []
    assert read(VBR) == (6.0, [])


@pytest.mark.parametrize("count", [0, 1, 100, None])
def test_a_xing_header_that_says_too_little_is_not_believed(count):
    seconds, notes = read(sounds.with_frame_count(VBR, count))
    assert seconds == pytest.approx(6.0, abs=0.1)
    assert notes == []


def test_without_a_xing_header_the_frames_are_counted():
    bare = sounds.without_info(VBR)
    frames = len(sounds.mpeg_frames(bare))
    seconds, notes = read(bare)
    assert seconds == pytest.approx(frames * FRAME_S, abs=530 / sounds.RATE)
    assert notes == []
    full = audio.read(VBR, sounds.RATE)
    found = audio.read(bare, sounds.RATE)
    delay = 576  # of the encoder; LAME's tag removes it
    np.testing.assert_allclose(found[delay:][5000:200000], full[5000:200000], atol=1e-5)


@pytest.mark.parametrize("kind", ["as it is", "repaired", "joined"])
def test_a_part_is_a_slice_of_the_whole(kind):
    data = {"as it is": VBR, "repaired": sounds.without_info(VBR), "joined": VBR + CBR}[kind]
    whole = audio.read(data, sounds.RATE)
    for start_s in (0.01, 0.5, 1.0, 4.5, 5.5):
        part = audio.read(data, sounds.RATE, start_s=start_s, duration_s=0.4)
        start = round(start_s * sounds.RATE)
        np.testing.assert_allclose(part, whole[start : start + len(part)], atol=1e-5)


def test_joined_files_are_read_one_after_the_other():
    three = sounds.mp3(sounds.tone(3, 900))
    seconds, notes = read(VBR + three)
    assert (seconds, notes) == (9.0, [])
    found = audio.read(VBR + three, sounds.RATE)
    expected = [audio.read(VBR, sounds.RATE), audio.read(three, sounds.RATE)]
    np.testing.assert_array_equal(found, np.concatenate(expected))
    assert read(VBR + sounds.id3(5000) + three + b"TAG" + bytes(125)) == (9.0, [])
    assert read(CBR * 3) == (6.0, [])


def test_joined_files_without_xing_headers_are_read_through():
    bare = sounds.without_info(CBR)
    seconds, notes = read(bare + bare)
    assert seconds == pytest.approx(4.0, abs=0.1)
    assert notes == []


@pytest.mark.parametrize("strip", [False, True])
def test_mono_then_stereo_is_read_through(strip):
    first, second = (sounds.without_info(d) if strip else d for d in (CBR, STEREO))
    seconds, notes = read(first + second)
    assert seconds == pytest.approx(3.0, abs=0.1)
    assert notes == []
    found = audio.read(first + second, sounds.RATE)
    late = np.fft.rfft(found[-30000:-8000])
    loudest = np.argsort(np.abs(late))[-2:] * sounds.RATE / 22000
    # The second part is the mean of its channels.
    assert sorted(np.round(loudest, -1)) == [440, 900]


def test_another_rate_in_the_second_part_is_resampled_to_the_first():
    slow = sounds.mp3(sounds.tone(2, 300, 22_050), rate=22_050)
    seconds, notes = read(CBR + slow)
    assert seconds == pytest.approx(4.0, abs=0.1)
    assert notes == []
    found = audio.read(CBR + slow, sounds.RATE)[-60000:-16000]
    assert np.argmax(np.abs(np.fft.rfft(found))) == pytest.approx(300, abs=1)
    assert np.sqrt(np.mean(found**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)
    part = audio.read(CBR + slow, 16000, start_s=2.5, duration_s=1.0)
    assert len(part) == 16000
    assert np.argmax(np.abs(np.fft.rfft(part))) == 300


@pytest.mark.parametrize("tag", ["id3", "ape", "lyrics"])
def test_tags_anywhere_are_no_sound(tag):
    tag = {
        "id3": sounds.id3(4096),
        "ape": b"APETAGEX" + struct.pack("<IIII", 2000, 3000, 1, 0xA0000000) + bytes(8 + 3000),
        "lyrics": b"LYRICSBEGIN" + b"la " * 900 + b"000911LYRICS200",
    }[tag]
    assert tags.length(Tape(io.BytesIO(tag)), 0) == len(tag)
    middle = sounds.mpeg_frames(CBR)[40][0]
    assert read(CBR[:middle] + tag + CBR[middle:]) == (2.0, [])
    assert read(tag + CBR) == (2.0, [])
    assert read(CBR + tag) == (2.0, [])


@pytest.mark.parametrize("size", [1, 900, 2000, 100_000])
@pytest.mark.parametrize("what", ["zeros", "noise"])
def test_what_follows_the_last_frame_is_no_sound_and_noted(size, what):
    tail = bytes(size) if what == "zeros" else np.random.default_rng(size).bytes(size)
    seconds, notes = read(sounds.without_info(CBR) + tail)
    assert seconds == pytest.approx(2.0, abs=0.1)
    assert len(notes) == 1
    assert "cut short?" in notes[0]
    assert read(CBR + tail) == (2.0, [])  # the Info header proves that nothing is missing


@pytest.mark.parametrize("size", [1, 100, 5000, 70_000])
def test_garbage_between_frames_is_passed_over_or_the_file_refused(size):
    garbage = np.random.default_rng(size).bytes(size).replace(b"\xff", b"\0")
    middle = sounds.mpeg_frames(CBR)[40][0]
    assert read(CBR[:middle] + garbage + CBR[middle:]) == (2.0, [])  # all frames are there
    bare = sounds.without_info(CBR)
    middle = sounds.mpeg_frames(bare)[40][0]
    odd = bare[:middle] + garbage + bare[middle:]
    if size < 180:  # too short for a frame to be missing
        seconds, notes = read(odd)
        assert seconds == pytest.approx(2.0, abs=0.1)
        assert "is a part missing?" in notes[0]
    else:
        with pytest.raises(AudioError, match=f"{size} bytes at {middle}, between MPEG frames"):
            audio.read(odd, 16000)


def test_garbage_before_the_first_frame_is_passed_over():
    garbage = np.random.default_rng(1).bytes(3000).replace(b"\xff", b"\0")
    assert read(garbage + CBR) == (2.0, [])
    _, notes = read(garbage + sounds.without_info(CBR))
    assert "its first 3000 bytes are no MPEG frame" in notes[0]


def test_a_cut_file_is_read_as_far_as_it_goes_and_says_so():
    for data in (VBR, CBR):
        frames = sounds.mpeg_frames(data)
        cut = data[: frames[len(frames) // 2][0] + 10]
        seconds, notes = read(cut)
        there = len(frames) // 2 - 1
        assert seconds == pytest.approx(there * FRAME_S, abs=0.05)
        assert isinstance(notes[0], Loss)
        assert f"promises {len(frames) - 1} MPEG frames, {there} are there" in notes[0]
    _, notes = read(sounds.without_info(CBR)[:-50])
    assert "ends within an MPEG frame" in notes[0]


def test_lengths_of_frames_are_those_of_the_standard():
    """ISO/IEC 11172-3, 2.4.3.1: N = 12 bitrate / rate slots of 4 bytes (layer I), or 144."""
    lengths = mpeg._lengths()
    cases = {  # bytes 1 and 2 of a header: (bytes, samples)
        0xFB90: (144 * 128000 // 44100, 1152),  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz
        0xFB92: (144 * 128000 // 44100 + 1, 1152),  # padded
        0xFBE8: (144 * 320000 // 32000, 1152),
        0xFDC4: (144 * 256000 // 48000, 1152),  # layer II
        0xFF12: ((12 * 32000 // 44100 + 1) * 4, 384),  # layer I, padded: a slot of 4 bytes
        0xF380: (72 * 64000 // 22050, 576),  # MPEG-2 layer III
        0xE388: (72 * 64000 // 8000, 576),  # MPEG-2.5 layer III
        0xF5E4: (144 * 160000 // 24000, 1152),  # MPEG-2 layer II
    }
    for word, (size, samples) in cases.items():
        assert (lengths[word], mpeg._samples(word << 8)) == (size, samples), hex(word)
    for word in (0xFBF0, 0xFB9C, 0xEB90, 0xF990, 0xFB00):  # bit rate, rate, version, layer, free
        assert lengths[word] == 0


def test_an_own_header_is_a_frame_like_the_others():
    for data in (CBR, STEREO, sounds.mp3(sounds.tone(1, rate=16_000), rate=16_000)):
        word = int.from_bytes(data[:4], "big")
        frame = mpeg._info_frame(word, 77)
        tape = Tape(io.BytesIO(frame))
        there, size, _ = mpeg._header(tape, 0)
        assert size == len(frame)
        assert mpeg._alike(there, word)
        assert mpeg._xing(tape, 0, there) == (True, 77)
    assert mpeg._info_frame(0xFFFDC400, 5) == b""  # layer II has no Info header


def test_a_join_at_a_block_of_the_walk_is_seen():
    """Frames are read 1 MiB at a time; a Xing header may cross this border."""
    frames = sounds.mpeg_frames(CBR)
    body = CBR[frames[1][0] : frames[40][1]]
    step = len(body)
    for extra in range(0, 60, 7):
        fill = sounds.id3((1 << 20) - 10 - extra - 10 * step % 7)
        data = fill + body * 3 + CBR
        seconds, _ = read(data)
        assert seconds == pytest.approx(3 * 40 * FRAME_S + 2.0, abs=0.1)
