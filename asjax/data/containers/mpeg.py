"""MPEG audio (MP3, and layers I and II): all frames are counted, because headers may be wrong.

A file is a sequence of frames (ISO/IEC 11172-3, 2.4.1.3; 13818-3). Its first frame may have a Xing
or Info header instead of sound: the number of frames, and of samples that the encoder added. In
joined files such a frame is in the middle, or the format changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from struct import pack, unpack_from

from asjax.data.containers import tags
from asjax.data.containers.parts import Broken, Layout, Loss, Part, Tape

_CHAIN = 3  # consecutive headers that prove a frame
_SEARCH = 1 << 20  # bytes; the next frame must begin within this distance
_TAIL = 1000  # bytes; libmpg123 stops after 1,024 bytes without a frame
_MANY = 1000  # largest number of streams in a file
_ALIKE = 0xFFFE0C00  # bits of a header for sync, version, layer, rate
_SYNC = re.compile(rb"\xff[\xe2-\xff]")
_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
# (MPEG-1?, layer as in a header: 3 is I, 2 is II, 1 is III) -> kbit/s
_KBITS = {
    (True, 3): tuple(range(32, 449, 32)),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _LOW,
    (False, 1): _LOW,
}


@dataclass
class _Stream:
    """Frames that one decoder reads without a restart."""

    word: int  # the header of its first frame
    promised: int | None  # number of frames in its Xing header
    info: int  # bytes of the frame with the Xing header; 0: no such frame
    spans: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    strange: tuple[int, int, bool] | None = None  # (place, bytes, all 0) between frames, no tag


def first_frame(tape: Tape, within: int = 0) -> int:
    """The place of the first frame, after tags and at most `within` other bytes; -1: no frame."""
    at = tags.skip(tape, 0)
    return at if _is_frame(tape, at) else _next_frame(tape, at, at + within)


def layout(tape: Tape, begin: int) -> Layout:
    """The streams of a file whose frames begin at `begin`.

    Raises:
      Broken: bytes between frames are not audio, so frames may be missing.
    """
    streams: list[_Stream] = []
    at = begin
    while at >= 0 and len(streams) <= _MANY:
        end = _read(tape, at, streams)
        at = tags.skip(tape, end)
        if at < tape.size and not _is_frame(tape, at):
            at = _next_frame(tape, at, at + _SEARCH)
            if at > 0:
                zero = tape.all_zero(tags.skip(tape, end), at)
                streams[-1].strange = streams[-1].strange or (end, at - end, zero)
        at = -1 if at >= tape.size else at
    if len(streams) > _MANY:
        raise Broken(f"is made of more than {_MANY} MPEG streams")
    rest = tags.skip(tape, end)
    notes = [note for stream in streams for note in _check(stream)]
    notes += _end_notes(tape, streams[-1], rest)
    before = begin - tags.skip(tape, 0)
    if before and streams[0].promised != streams[0].frames:
        notes.append(f"its first {before} bytes are no MPEG frame; is a part missing?")
    parts = [_part(stream) for stream in streams]
    at_once = len(parts) == 1 and parts[0].spans == ((begin, end),)
    if at_once and _known_begin(tape, begin) and tape.size - end <= _TAIL:
        parts = [parts[0]._replace(whole=True)]
    return Layout(parts, notes)


def _known_begin(tape: Tape, begin: int) -> bool:
    """Whether libsndfile finds the frames: at the begin of the file, or after one ID3 tag."""
    return not begin or (tape.at(0, 3) == b"ID3" and tags.length(tape, 0) == begin)


@cache
def _lengths() -> list[int]:
    """Bytes of a frame by bytes 1 and 2 of its header; 0: not a header, or free format."""
    table = [0] * 65536
    for word in range(0xE000, 0x10000):
        version, layer, hz = word >> 11 & 3, word >> 9 & 3, word >> 2 & 3
        bitrate, padding = word >> 4 & 15, word >> 1 & 1
        if version == 1 or layer == 0 or hz == 3 or bitrate in (0, 15):
            continue
        bits, hz = 1000 * _KBITS[version == 3, layer][bitrate - 1], _HZ[version][hz]
        if layer == 3:
            table[word] = (12 * bits // hz + padding) * 4
        else:
            table[word] = _samples(word << 8) // 8 * bits // hz + padding
    return table


def _samples(word: int) -> int:
    """Samples of a frame, per channel."""
    layer, version = word >> 17 & 3, word >> 19 & 3
    return 384 if layer == 3 else 576 if layer == 1 and version != 3 else 1152


def _mono(word: int) -> bool:
    return word & 0xC0 == 0xC0


def _side(word: int) -> int:
    """Bytes of layer III's side information. A Xing header comes after it."""
    if word >> 19 & 3 == 3:
        return 17 if _mono(word) else 32
    return 9 if _mono(word) else 17


def _alike(word: int, other: int) -> bool:
    """Whether one decoder reads both: same version, layer and rate, both mono or both not."""
    return not (word ^ other) & _ALIKE and _mono(word) == _mono(other)


def _header(tape: Tape, at: int) -> tuple[int, int, int]:
    """(header, bytes of the frame, bytes without padding if free format else 0) at `at`."""
    data = tape.at(at, 4)
    word = int.from_bytes(data, "big")
    if len(data) < 4 or word >> 21 != 0x7FF:
        return 0, 0, 0
    if length := _lengths()[word >> 8 & 0xFFFF]:
        return word, length, 0
    free = _free_length(tape, at, word)
    return word, free and free + _padding(word), free


def _padding(word: int) -> int:
    return (word >> 9 & 1) * (4 if word >> 17 & 3 == 3 else 1)


def _free_length(tape: Tape, at: int, word: int) -> int:
    """Frame length in free format. The header has no bit rate, so the next header is searched."""
    version, layer = word >> 19 & 3, word >> 17 & 3
    if word >> 12 & 15 or version == 1 or layer == 0 or word >> 10 & 3 == 3:
        return 0
    data = tape.at(at, 4096)
    for step in range(24, len(data) - 3):
        if data[step] == 255:
            there = int.from_bytes(data[step : step + 4], "big")
            if _alike(there, word) and not there >> 12 & 15:
                return step - _padding(word)
    return 0


def _is_frame(tape: Tape, at: int) -> bool:
    """Whether frames begin at `at`: three alike in a row, or fewer up to the end of the file."""
    first, size, _ = _header(tape, at)
    place = at
    for _ in range(_CHAIN):
        word, size, _ = _header(tape, place)
        if not size or not _alike(word, first) or place + size > tape.size:
            break
        place += size
    else:
        return True
    return place > at and tags.skip(tape, place) == tape.size


def _next_frame(tape: Tape, at: int, stop: int) -> int:
    """The place of the next frame in at..stop, or -1. Zeros do not count, so a gap may be long."""
    while at < min(stop, tape.size):
        data = tape.at(at, 1 << 16)
        if not data.strip(b"\0"):
            stop += len(data)
        for match in _SYNC.finditer(data):
            if _is_frame(tape, at + match.start()):
                return at + match.start()
        at += max(1, len(data) - 1)
    return -1


def _xing(tape: Tape, at: int, word: int) -> tuple[bool, int | None]:
    """(whether the frame at `at` has a Xing header, its number of frames or None)."""
    if word >> 17 & 3 != 1:
        return False, None
    data = tape.at(at + 4 + _side(word), 14)
    for begin in (0, 2):  # a checksum shifts the header by 2 bytes, but not with all encoders
        if data[begin : begin + 4] in (b"Xing", b"Info"):
            flags, frames = unpack_from(">II", data.ljust(14, b"\0"), begin + 4)
            return True, (frames or None) if flags & 1 else None
    return False, None


def _read(tape: Tape, at: int, streams: list[_Stream]) -> int:
    """Add the frames from `at` on to the last stream or a new one. Returns the place after them."""
    word, size, free = _header(tape, at)
    holds, promised = _xing(tape, at, word)
    if not streams or holds or not _alike(word, streams[-1].word):
        streams.append(_Stream(word, promised, size if holds else 0))
    stream = streams[-1]
    end, frames = _run(tape, at + stream.info if holds else at, word, free)
    stream.frames += frames
    if stream.spans and stream.spans[-1][1] == at:
        stream.spans[-1] = (stream.spans[-1][0], end)
    else:
        stream.spans.append((at, end))
    return end


def _xing_places(data: bytes):
    """Places of "Xing" and "Info". Two searches are many times faster than one pattern."""
    for name in (b"Xing", b"Info"):
        at = data.find(name)
        while at >= 0:
            yield at
            at = data.find(name, at + 1)


def _run(tape: Tape, at: int, like: int, free: int) -> tuple[int, int]:
    """(place after them, number) of complete frames like `like` from `at` to a Xing header."""
    lengths, mono, frames = _lengths(), _mono(like), 0
    offsets = (4 + _side(like), 6 + _side(like))
    while True:
        data = tape.at(at, 1 << 20)
        stops = {at_xing - back for at_xing in _xing_places(data) for back in offsets}
        left = tape.size - at
        last = len(data) - (4 if len(data) == left else 64)  # a Xing header may be cut off
        place = 0
        while place <= last and place not in stops:
            (word,) = unpack_from(">I", data, place)
            if (word ^ like) & _ALIKE or (word & 0xC0 == 0xC0) != mono:
                break
            size = lengths[word >> 8 & 0xFFFF] or (free and free + _padding(word))
            if not size or place + size > left:
                break
            place += size
            frames += 1
        at += place
        if place <= last or at + 4 > tape.size:
            return at, frames


def _check(stream: _Stream) -> list[str]:
    """Notes about a stream. Broken: frames may be missing, and their number is not known."""
    promised, frames = stream.promised, stream.frames
    if not frames:
        raise Broken("holds no samples: an MPEG header without frames")
    if promised and promised > frames + 1:
        text = f"is cut short: its header promises {promised} MPEG frames, {frames} are there"
        return [Loss(f"{text} and are read")]
    if stream.strange and promised != frames:
        place, size, zero = stream.strange
        if size >= _lengths()[stream.word >> 8 & 0xFFFF] and not zero:
            raise Broken(f"is damaged: {size} bytes at {place}, between MPEG frames, are no audio")
        return [f"{size} bytes at {place}, between MPEG frames, are no audio; is a part missing?"]
    return []


def _end_notes(tape: Tape, stream: _Stream, rest: int) -> list[str]:
    """Notes about the end of a file, which may show that a download or a copy did not finish."""
    if stream.promised and stream.promised > stream.frames + 1:
        return []  # `_check` has this note
    if stream.promised == stream.frames + 1:
        return ["its header promises one MPEG frame more than it has; is it cut short?"]
    left = tape.size - rest
    if stream.promised == stream.frames or not left:
        return []
    if left > _SEARCH and not tape.all_zero(rest, tape.size):
        raise Broken(f"is damaged: {left} bytes after its last MPEG frame are no audio")
    if _alike(_header(tape, rest)[0], stream.word):
        return ["it ends within an MPEG frame; is it cut short?"]
    return [f"{left} bytes after its last MPEG frame are no audio; is it cut short?"]


def _part(stream: _Stream) -> Part:
    """The part of a stream. Without a right Xing header, libsndfile may get one from us."""
    begin, end = stream.spans[0]
    bare = ((begin + stream.info, end), *stream.spans[1:])
    samples = stream.frames * _samples(stream.word)
    head = _info_frame(stream.word, stream.frames)
    spare = Part(bare, head, samples) if head else None
    if stream.promised in (stream.frames, stream.frames + 1):
        # libsndfile subtracts samples that the encoder added. More than 4 frames are an error.
        least = samples - 4 * _samples(stream.word)
        return Part(tuple(stream.spans), b"", 0, least, spare)
    return Part(bare, b"", samples, samples, spare)


def _info_frame(word: int, frames: int) -> bytes:
    """A frame with a Xing header for `frames` frames, in the format of the stream (layer III)."""
    if word >> 17 & 3 != 1:
        return b""
    body = bytes(_side(word)) + b"Xing" + pack(">II", 1, frames)
    for bitrate in range(1, 15):
        head = word & ~0xF200 | 0x10000 | bitrate << 12  # no checksum, no padding
        if (size := _lengths()[head >> 8 & 0xFFFF]) >= 4 + len(body):
            return (head.to_bytes(4, "big") + body).ljust(size, b"\0")
    return b""
