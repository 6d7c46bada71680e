"""AU and NIST SPHERE: the header has the number of bytes of samples."""

from __future__ import annotations

import re
from struct import unpack_from

from asjax.data.containers.parts import Broken, Layout, Part, Tape

_FIELD = re.compile(rb"^(\w+) -i (\d{1,12})\s*$", re.MULTILINE)


def layout(tape: Tape) -> Layout:
    """The files in a file. Joined files have more than one.

    Raises:
      Broken: cut short, or never finished.
    """
    parts, at = [], 0
    while at < tape.size:
        head, size = _nist(tape, at) if tape.at(at, 7) == b"NIST_1A" else _au(tape, at)
        if not head:
            break
        there = tape.size - at - head
        if size > there:
            raise Broken(f"is cut short: it promises {size} bytes of samples, {there} are there")
        if not size and there > 16:
            raise Broken(f"was never finished: no samples are promised, {there} bytes are there")
        parts.append(Part(((at, at + head + size),)))
        at += head + size
    rest = tape.size - at
    notes = [f"{rest} bytes after its samples are not read"] if rest > 16 else []
    return Layout(parts if rest or len(parts) > 1 else [], notes)


def _au(tape: Tape, at: int) -> tuple[int, int]:
    """(bytes of the header, bytes of the samples) of an AU file at `at`; (0, 0): no AU file."""
    magic = tape.at(at, 4)
    if magic not in (b".snd", b"dns."):
        return 0, 0
    order = ">" if magic == b".snd" else "<"
    head, size = unpack_from(f"{order}II", tape.at(at, 12).ljust(12, b"\0"), 4)
    return max(24, head), tape.size - at - head if size == 0xFFFFFFFF else size


def _nist(tape: Tape, at: int) -> tuple[int, int]:
    head = int(re.sub(rb"\D", b"", tape.at(at + 8, 8)) or 1024) or 1024
    text = tape.at(at, min(head, 1 << 16))
    fields = {key: int(value) for key, value in _FIELD.findall(text)}
    count = fields.get(b"sample_count", 0) * fields.get(b"channel_count", 1)
    return head, count * fields.get(b"sample_n_bytes", 1)
