"""Ogg (RFC 3533): all pages are checked and grouped into links.

A file may be a chain of links, each with its own codec headers and rate. Examples are radio streams
and joined files. libsndfile reads only the first link, drops a damaged page, and reads a cut file
without an error.
"""

from __future__ import annotations

import zlib
from struct import unpack_from

from asjax.data.containers import flac, tags
from asjax.data.containers.parts import Broken, Layout, Part, Tape

_CAPTURE = b"OggS"
_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))
_FIRST, _LAST = 2, 4  # flags of a page: first or last page of its stream
_MANY = 10_000


def layout(tape: Tape) -> Layout:
    """The links of an Ogg file.

    Raises:
      Broken: a page is cut, damaged or missing.
    """
    starts, notes = [], []
    open_streams: dict[int, int] = {}  # serial number -> number of the next page
    at, before = tags.skip(tape, 0), 0
    begin = at
    while at < tape.size:
        head = tape.at(at, 282)  # 27 bytes and up to 255 lacing values
        if head[:4] != _CAPTURE:
            at, note = _resume(tape, at)
            notes += note
            continue
        flags, serial, number, size = _page(tape, at, head)
        if flags & _FIRST:
            flac.check_depth(tape.at(at + 27 + head[26], 64), "ogg")
            if not before & _FIRST or not starts:
                notes += _unended(open_streams, len(starts))
                open_streams.clear()
                starts.append(at)
        elif open_streams.get(serial, number) != number:
            raise Broken(
                f"is damaged: Ogg page {open_streams[serial]} should be at byte {at}, "
                f"got page {number}"
            )
        open_streams[serial] = number + 1 & 0xFFFFFFFF
        if flags & _LAST:
            del open_streams[serial]
        before, at = flags, at + size
    notes += _unended(open_streams, len(starts))
    if len(starts) < 2:
        return Layout([], notes)
    if len(starts) > _MANY:
        raise Broken(f"is a chain of more than {_MANY} Ogg streams")
    stops = [*starts[1:], tape.size]
    links = [Part(((start, stop),)) for start, stop in zip(starts, stops, strict=True)]
    return Layout(links, notes) if begin == starts[0] else Layout([], notes)


def _page(tape: Tape, at: int, head: bytes) -> tuple[int, int, int, int]:
    """(flags, serial, number, bytes) of the page at `at`. Broken: it is cut or damaged."""
    cut = Broken(f"is cut short: its last Ogg page, at byte {at}, is incomplete")
    if len(head) < 27 or len(head) < 27 + head[26]:
        raise cut
    flags, serial, number, crc = head[5], *unpack_from("<III", head, 14)
    size = 27 + head[26] + sum(head[27 : 27 + head[26]])
    page = tape.at(at, size)
    if len(page) < size:
        raise cut
    if _checksum(page[:22] + bytes(4) + page[26:]) != crc:
        raise Broken(f"is damaged: the Ogg page at byte {at} has a wrong checksum")
    return flags, serial, number, size


def _checksum(page: bytes) -> int:
    """CRC-32 of RFC 3533: zlib's polynomial on reversed bits, with initial and final value 0."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def _resume(tape: Tape, at: int) -> tuple[int, list[str]]:
    """The next page after other bytes, and notes. Page numbers show whether pages are missing."""
    page = tape.find(_CAPTURE, at)
    if page >= 0 or tags.skip(tape, at) == tape.size:
        return (tape.size if page < 0 else page), []
    return tape.size, [f"{tape.size - at} bytes after its last Ogg page are no audio"]


def _unended(open_streams: dict, links: int) -> list[str]:
    if not open_streams:
        return []
    which = f"link {links} of its Ogg chain" if links > 1 else "its Ogg stream"
    return [f"{which} has no end mark; is it cut short?"]
