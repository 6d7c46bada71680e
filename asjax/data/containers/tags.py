"""Lengths of tags around audio: ID3 (both versions), APE and Lyrics3."""

from __future__ import annotations

from asjax.data.containers.parts import Tape


def length(tape: Tape, at: int) -> int:
    """Length in bytes of the tag that begins at `at`, or 0."""
    head = tape.at(at, 32)
    if head[:3] == b"ID3" and len(head) > 9 and max(head[6:10]) < 128:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + 10 * bool(head[5] & 0x10)
    if head[:4] == b"TAG+":
        return 227
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        size = int.from_bytes(head[12:16], "little")  # without the header, with the footer
        return size + 32 if head[23] & 0x20 else 32
    if head[:11] == b"LYRICSBEGIN":
        end = tape.find(b"LYRICS200", at, at + (1 << 20))
        return end + 9 - at if end >= 0 else 0
    return 0


def skip(tape: Tape, at: int) -> int:
    """The place after all tags that begin at `at`, at most the end of the file."""
    while at < tape.size and (size := length(tape, at)):
        at += size
    return min(at, tape.size)
