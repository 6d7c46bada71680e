"""FLAC (RFC 9639): bit depth, number of samples from the last frames, and joined files."""

from __future__ import annotations

import re
from functools import cache

from asjax.data.containers import tags
from asjax.data.containers.parts import Broken, Foreign, Layout, Part, Tape

_DEPTHS = (8, 16, 24)  # bits per sample that libsndfile decodes
_INFO = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # the first block is STREAMINFO, 34 bytes
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_HEAD = 26  # bytes to the end of the sample count
_BLOCKS = {1: 192, **{i: 144 << i for i in range(2, 6)}, **{i: 1 << i for i in range(8, 16)}}
_WINDOW = 1 << 18


def layout(tape: Tape) -> Layout:
    """The FLAC streams of a file. Joined files have more than one.

    Raises:
      Broken: fewer samples than the header promises. Foreign: a bit depth that needs ffmpeg.
    """
    starts, at = [tags.skip(tape, 0)], tags.skip(tape, 0) + 4
    while (at := tape.find(b"fLaC", at)) >= 0:
        if _INFO.match(tape.at(at, 8)):
            starts.append(at)
        at += 4
    stops = [*starts[1:], tape.size]
    parts, notes = [], []
    for start, stop in zip(starts, stops, strict=True):
        part, note = _stream(tape, start, stop)
        parts.append(part)
        notes += note
    return Layout([] if len(parts) == 1 and not parts[0].head else parts, notes)


def check_depth(data: bytes, demuxer: str) -> None:
    """Raise Foreign if `data` has a STREAMINFO with a bit depth that libsndfile does not read."""
    info = _INFO.search(data)
    if info and len(data) >= info.start() + _HEAD:
        packed = int.from_bytes(data[info.start() + 18 : info.start() + _HEAD], "big")
        depth = (packed >> 36 & 31) + 1
        if depth not in _DEPTHS:
            known = ", ".join(map(str, _DEPTHS))
            raise Foreign(f"FLAC of {depth} bits per sample (libsndfile reads {known})", demuxer)


def _stream(tape: Tape, start: int, stop: int) -> tuple[Part, list[str]]:
    head = tape.at(start, _HEAD)
    check_depth(head, "flac")
    promised = int.from_bytes(head[18:_HEAD], "big") & (1 << 36) - 1
    there = _samples(tape, start, stop) if promised and len(head) == _HEAD else None
    if there is None or there == promised:
        return Part(((start, stop),)), []
    if there < promised:
        raise Broken(f"is cut short: its header promises {promised} samples, {there} are there")
    opened = head[:21] + bytes([head[21] & 0xF0]) + bytes(4)  # 0 samples: read to the end
    note = f"its header promises {promised} samples, {there} are there; all are read"
    return Part(((start + _HEAD, stop),), opened), [note]


def _samples(tape: Tape, start: int, stop: int) -> int | None:
    """Samples per channel from the headers of the last frames; None if not known.

    A header counts only if it begins where the frame before it ends. So random bytes cannot count
    as a header.
    """
    at, last = start + 4, False
    while not last:
        block = tape.at(at, 4)
        if len(block) < 4:
            return None
        last, at = block[0] >> 7, at + 4 + int.from_bytes(block[1:], "big")
    info = tape.at(start + 8, 10)
    block, largest = int.from_bytes(info[:2], "big"), int.from_bytes(info[7:10], "big")
    first = tape.at(at, 32)
    begins, ends = _frame(first, 0, first, block) or (0, 0)
    if begins or not ends:
        return None
    window = max(at, stop - (3 * largest or _WINDOW))
    data = tape.at(window, stop - window)
    frames = [
        frame for m in _SYNC.finditer(data) if (frame := _frame(data, m.start(), first, block))
    ]
    known = {end for _, end in frames} | {0}
    return next((end for begin, end in reversed(frames) if begin in known), None)


def _frame(data: bytes, at: int, first: bytes, block: int) -> tuple[int, int] | None:
    """(first sample, sample after the last) of the frame whose header is at `at`, or None.

    `first` is the first header of the stream; rate, depth and blocking strategy must be equal.
    `block` is the length of a frame if all frames have the same length.
    """
    head = data[at : at + 16]
    if len(head) < 6 or head[:2] != first[:2] or (head[2] ^ first[2]) & 15:
        return None
    if (head[3] ^ first[3]) & 15 or head[3] & 1:
        return None
    lead = head[4]
    more = next((i for i in range(8) if not lead << i & 0x80), 8)  # leading ones, as in UTF-8
    more, number = (0, lead) if not more else (more - 1, lead & (0x7F >> more))
    for byte in head[5 : 5 + more]:
        number = number << 6 | byte & 0x3F
    place, size, rate = 5 + more, head[2] >> 4, head[2] & 15
    extra = {6: 1, 7: 2}.get(size, 0)
    length = int.from_bytes(head[place : place + extra], "big") + 1 if extra else _BLOCKS.get(size)
    place += extra + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if not length or place >= len(head) or _crc8(head[:place]) != head[place]:
        return None
    begin = number if head[1] & 1 else number * block
    return begin, begin + length


@cache
def _crc8_table() -> bytes:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value << 1 ^ (0x107 if value & 0x80 else 0)
        table.append(value)
    return bytes(table)


def _crc8(data: bytes) -> int:
    value, table = 0, _crc8_table()
    for byte in data:
        value = table[value ^ byte]
    return value
