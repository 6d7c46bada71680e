"""Ogg by its pages: chains are read in full; truncated, damaged or missing pages are errors."""

import io

import numpy as np
import pytest
import sounds

from asjax.data import audio
from asjax.data.audio import AudioError
from asjax.data.containers import ogg
from asjax.data.containers.parts import Tape

VORBIS = sounds.encode(sounds.tone(2), sounds.RATE, "OGG", "VORBIS")
LATE = sounds.encode(sounds.tone(3, 900), sounds.RATE, "OGG", "VORBIS")
OPUS = sounds.encode(sounds.tone(2, rate=48_000), 48_000, "OGG", "OPUS")
SLOW = sounds.encode(sounds.tone(2, 300, 16_000), 16_000, "OGG", "VORBIS")
STEREO = sounds.encode(np.stack([sounds.tone(1)] * 2, 1), sounds.RATE, "OGG", "VORBIS")


def read(data, rate=16_000):
    notes = []
    return len(audio.read(data, rate, note=notes.append)) / rate, notes


def test_one_stream_goes_to_libsndfile_as_it_is():
    for data in (VORBIS, OPUS, SLOW, STEREO):
        assert ogg.layout(Tape(io.BytesIO(data))).parts == []
        assert ogg.layout(Tape(io.BytesIO(data))).notes == []


@pytest.mark.parametrize(
    ("links", "seconds"),
    [
        ((VORBIS, LATE), 5.0),
        ((VORBIS,) * 4, 8.0),
        ((OPUS, OPUS), 4.0),
        ((VORBIS, OPUS), 4.0),  # another codec and rate
        ((VORBIS, SLOW, STEREO), 5.0),  # other rates and channels
        ((SLOW, VORBIS), 4.0),
    ],
)
def test_all_links_of_a_chain_are_read(links, seconds):
    assert read(b"".join(links)) == (seconds, [])
    assert audio.info(b"".join(links)).duration_s == pytest.approx(seconds, abs=1e-4)
    streamed = sum(map(len, audio.blocks(b"".join(links), 16_000, 0.3)))
    assert streamed == 16_000 * seconds


def test_the_links_sound_as_they_do_alone():
    found = audio.read(VORBIS + LATE, sounds.RATE)
    alone = [audio.read(link, sounds.RATE) for link in (VORBIS, LATE)]
    np.testing.assert_array_equal(found, np.concatenate(alone))
    mixed = audio.read(VORBIS + SLOW, sounds.RATE)[sounds.RATE * 2 :]
    np.testing.assert_allclose(mixed, audio.read(SLOW, sounds.RATE), atol=1e-5)
    part = audio.read(VORBIS + LATE, sounds.RATE, start_s=1.5, duration_s=1.0)
    start = round(1.5 * sounds.RATE)
    np.testing.assert_allclose(part, found[start : start + sounds.RATE], atol=1e-5)


def test_files_of_a_chain_are_read_from_disk_too(tmp_path):
    (tmp_path / "radio.ogg").write_bytes(VORBIS + LATE)
    assert len(audio.read(tmp_path / "radio.ogg", 8000)) == 5 * 8000


@pytest.mark.parametrize("data", [VORBIS, OPUS, VORBIS + LATE], ids=["vorbis", "opus", "chain"])
@pytest.mark.parametrize("keep", [0.999, 0.7, 0.3])
def test_a_cut_file_is_an_error(data, keep):
    with pytest.raises(AudioError, match="cut short"):
        audio.read(data[: int(len(data) * keep)], 16_000)


def test_a_cut_between_pages_is_noted():
    start, _, flags = sounds.ogg_pages(LATE)[-1]
    assert flags & 4
    _, notes = read(LATE[:start])
    assert "no end mark; is it cut short?" in notes[0]


def test_a_damaged_or_a_missing_page_is_an_error():
    pages = sounds.ogg_pages(OPUS)
    middle = pages[len(pages) // 2]
    damaged = bytearray(OPUS)
    damaged[middle[1] - 5] ^= 1
    with pytest.raises(AudioError, match=f"page at byte {middle[0]} has a wrong checksum"):
        audio.read(bytes(damaged), 16_000)
    with pytest.raises(AudioError, match=r"page \d+ should be at byte"):
        audio.read(OPUS[: middle[0]] + OPUS[middle[1] :], 16_000)


def test_the_checksum_is_that_of_the_standard():
    for start, stop, _ in sounds.ogg_pages(OPUS)[:3]:
        page = OPUS[start:stop]
        assert sounds.with_ogg_checksum(page) == page
        bare = page[:22] + bytes(4) + page[26:]
        assert ogg._checksum(bare) == int.from_bytes(page[22:26], "little")


def test_bytes_behind_the_last_page_are_noted():
    seconds, notes = read(VORBIS + b"\1\2\3" * 700)
    assert seconds == 2.0
    assert "2100 bytes after its last Ogg page are no audio" in notes[0]
    assert read(VORBIS + b"TAG" + bytes(125)) == (2.0, [])


def test_flac_of_odd_depth_in_ogg_is_told():
    flac = sounds.flac_verbatim(np.zeros(10, int), 20)
    packet = b"\x7fFLAC\x01\0\0\1" + flac[:42]
    page = b"OggS\0\2" + bytes(8) + b"abcd" + bytes(4) + bytes(4) + bytes([1, len(packet)]) + packet
    with pytest.raises(AudioError, match="FLAC of 20 bits per sample"):
        audio.read(sounds.with_ogg_checksum(page), 16_000)
