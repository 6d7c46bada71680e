"""AU and NIST SPHERE: one header that says how many samples follow."""

from __future__ import annotations

import re
from struct import unpack_from

from asjax.data.containers.parts import Broken, Layout, Part, Tape

_FIELD = re.compile(rb"^(\w+) -i (\d{1,12})\s*$", re.MULTILINE)


def au(tape: Tape) -> Layout:
    """An AU file, or several that were joined. Broken: cut short or never finished."""
    parts, notes, at = [], [], 0
    while at < tape.size and (magic := tape.at(at, 4)) in (b".snd", b"dns."):
        order = ">" if magic == b".snd" else "<"
        head, size = unpack_from(f"{order}II", tape.at(at, 12).ljust(12, b"\0"), 4)
        there = tape.size - at - head
        if size == 0xFFFFFFFF:
            size = there
        if size > there:
            raise Broken(f"is cut short: it promises {size} bytes of samples, {there} are there")
        if not size and there > 16:
            raise Broken(
                f"was never finished: its header promises no samples, {there} bytes follow"
            )
        parts.append(Part(((at, at + head + size),)))
        at += max(24, head + size)
    if tape.size - at > 16:
        notes.append(f"{tape.size - at} bytes behind its samples are not read")
    return Layout(parts if len(parts) > 1 else [], notes)


def nist(tape: Tape) -> Layout:
    """A NIST SPHERE file. Broken: cut short."""
    head = int(re.sub(rb"\D", b"", tape.at(8, 8)) or 1024)
    fields = {key: int(value) for key, value in _FIELD.findall(tape.at(0, min(head, 1 << 16)))}
    count = fields.get(b"sample_count", 0) * fields.get(b"channel_count", 1)
    size, there = count * fields.get(b"sample_n_bytes", 1), tape.size - head
    if size > there:
        raise Broken(f"is cut short: it promises {size} bytes of samples, {there} are there")
    if size + 16 < there:
        return Layout([], [f"{there - size} bytes behind its samples are not read"])
    return Layout()
