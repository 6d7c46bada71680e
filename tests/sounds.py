"""Sound files of many kinds, valid and faulty, made from tones and noise. Licence: CC0-1.0.

They rebuild cases that users reported (joined, truncated, unfinished, with odd headers), so that no
file has to be stored.
"""

import io
import struct

import numpy as np
import soundfile

RATE = 44_100


def tone(seconds, hz=440, rate=RATE, level=0.3):
    """A sine with the root mean square level / sqrt(2)."""
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def noise(seconds, level=0.2, rate=RATE, seed=0):
    return (level * np.random.default_rng(seed).normal(size=round(seconds * rate))).astype("f4")


def encode(wave, rate=RATE, container="WAV", subtype=None, **more):
    """Bytes of a sound file by libsndfile, written in pieces as its encoders need it."""
    out = io.BytesIO()
    channels = 1 if wave.ndim == 1 else wave.shape[1]
    with soundfile.SoundFile(out, "w", rate, channels, subtype, format=container, **more) as f:
        for i in range(0, len(wave), 1 << 15):
            f.write(wave[i : i + (1 << 15)])
    return out.getvalue()


# ---------------------------------------------------------------------------------------- MP3


def mp3(wave, mode="VARIABLE", rate=RATE, level=0.9):
    """MP3 with LAME's Xing (VARIABLE) or Info (CONSTANT) frame; `level` 0 is the best quality."""
    more = {"compression_level": level, "bitrate_mode": mode}
    return encode(wave, rate, "MP3", "MPEG_LAYER_III", **more)


def quiet_middle():
    """6 s with large first frames: a length that is estimated from these is much too short."""
    return np.concatenate([noise(1), tone(3, level=1e-4), noise(2)])


def mpeg_frames(data):
    """(start, stop) of the frames of an MP3 with only frames of MPEG-1 layer III."""
    found, at = [], 0
    kbits = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
    hz = [44_100, 48_000, 32_000]
    while at + 4 <= len(data):
        size = 144_000 * kbits[data[at + 2] >> 4] // hz[data[at + 2] >> 2 & 3]
        size += data[at + 2] >> 1 & 1
        found.append((at, at + size))
        at += size
    return found


def without_info(data):
    return data[mpeg_frames(data)[0][1] :]


def with_frame_count(data, count):
    """The MP3 with another number of frames in its Xing or Info header; None: without a number."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    flags = struct.unpack_from(">I", data, at + 4)[0]
    out = bytearray(data)
    if count is None:
        out[at + 4 : at + 8] = struct.pack(">I", flags & ~1)
    else:
        out[at + 8 : at + 12] = struct.pack(">I", count)
    return bytes(out)


def id3(size):
    """An ID3v2.4 tag with `size` bytes of padding; size < 128^4."""
    return b"ID3\x04\0\0" + bytes(size >> s & 127 for s in (21, 14, 7, 0)) + bytes(size)


# ---------------------------------------------------------------------------------------- WAV


def chunk(name, data, order="<"):
    return name + struct.pack(f"{order}I", len(data)) + data + b"\0" * (len(data) % 2)


def wav(data, channels=1, block=2, bits=16, tag=1, rate=16_000, extra=b"", more=b""):
    """A RIFF file with any format chunk; `more` is put before the samples."""
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits) + extra
    body = b"WAVE" + chunk(b"fmt ", fmt) + more + chunk(b"data", data)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def extensible(valid, tag=1, mask=4):
    """The second part of a format chunk of WAVE_FORMAT_EXTENSIBLE (tag 0xFFFE)."""
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    return struct.pack("<HHI", 22, valid, mask) + guid


def integers(wave, width, bits=None, shift=0):
    """Little-endian integers of `width` bytes with `bits` used bits, shifted up by `shift`."""
    scale = 1 << ((bits or 8 * width) - 1)
    numbers = (wave.astype("f8") * scale).astype("<i8") << shift
    return numbers.view("u1").reshape(-1, 8)[:, :width].tobytes()


def rf64(data, size, magic=b"RF64", rate=16_000):
    """Mono, 16 bit, 64-bit lengths; `size` is the number of sample bytes in the header."""
    ds64 = struct.pack("<QQQI", size + 72, size, size // 2, 0)
    fmt = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    head = magic + b"\xff" * 4 + b"WAVE" + chunk(b"ds64", ds64) + chunk(b"fmt ", fmt)
    return head + b"data" + b"\xff" * 4 + data


# --------------------------------------------------------------------------------------- FLAC


def crc(data, bits, poly):
    value = 0
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = ((value << 1) ^ poly if value >> (bits - 1) else value << 1) & ((1 << bits) - 1)
    return value


def flac_verbatim(samples, depth, rate=16_000, block=4096):
    """A FLAC file of one channel, uncompressed subframes, of any bit depth (RFC 9639)."""
    info = struct.pack(">HH", block, block) + bytes(6)
    info += ((rate << 44) | ((depth - 1) << 36) | len(samples)).to_bytes(8, "big") + bytes(16)
    out = b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info
    for n, i in enumerate(range(0, len(samples), block)):
        part = samples[i : i + block]
        head = bytes([0xFF, 0xF8, 0x70, 0x00, n]) + struct.pack(">H", len(part) - 1)
        head += bytes([crc(head, 8, 0x07)])
        bits = "00000010" + "".join(f"{int(s) & ((1 << depth) - 1):0{depth}b}" for s in part)
        bits += "0" * (-len(bits) % 8)
        body = head + int(bits, 2).to_bytes(len(bits) // 8, "big")
        out += body + struct.pack(">H", crc(body, 16, 0x8005))
    return out


def with_flac_total(data, total):
    """The FLAC with another 36-bit sample count in its STREAMINFO block (RFC 9639, 8.2)."""
    data = bytearray(data)
    data[21] = data[21] & 0xF0 | total >> 32
    data[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


# ---------------------------------------------------------------------------------------- Ogg


def ogg_pages(data):
    """(start, stop, flags) of the pages of an Ogg file with only pages."""
    found, at = [], 0
    while at < len(data):
        assert data[at : at + 4] == b"OggS"
        size = 27 + data[at + 26] + sum(data[at + 27 : at + 27 + data[at + 26]])
        found.append((at, at + size, data[at + 5]))
        at += size
    return found


def with_ogg_checksum(page):
    """The page with a correct checksum (RFC 3533), computed bit by bit."""
    bare = page[:22] + bytes(4) + page[26:]
    return bare[:22] + struct.pack("<I", crc(bare, 32, 0x04C11DB7)) + bare[26:]


# -------------------------------------------------------------------------------- no sound here

WEB_PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>\n" * 20
MP4 = struct.pack(">I", 28) + b"ftypM4A \0\0\2\0M4A mp42isom" + bytes(500)
WEBM = b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01" + bytes(500)
APPLE_DOUBLE = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(100)
