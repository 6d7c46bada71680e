"""Find the byte ranges of members in the zip archives that `torch.save` writes.

We read only the directory at the file's end and extract nothing. A member's name is compared, but
never used as a path. We refuse compressed and encrypted members, because torch stores plain ones.
We also refuse duplicate names, and members that overlap or lie outside of the file: an archive
could use them to claim more data than it holds.
"""

from __future__ import annotations

import struct

from asjax.config import AsjaxError

MAX_MEMBERS = 65_536

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64, _LOCATOR64 = b"PK\x06\x06", b"PK\x06\x07"
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # mean that the number is in the zip64 record


class _Damaged(Exception):
    """The archive is damaged; the message tells how."""


def members(data: memoryview, path) -> dict[str, tuple[int, int]]:
    """Name -> (begin, end) of the bytes of every member of the zip archive `data`.

    Raises:
      AsjaxError: `data` is not a sound archive of plain members.
    """
    try:
        return _members(data)
    except _Damaged as error:
        raise AsjaxError(f"{path} is not a sound torch file: {error}") from None
    except struct.error:
        raise AsjaxError(
            f"{path} is not a sound torch file: its zip directory ends early; the file may be cut "
            "off, fetch it again"
        ) from None


def _members(data: memoryview) -> dict[str, tuple[int, int]]:
    count, at, end = _directory(data)
    if count > MAX_MEMBERS:
        raise _Damaged(f"its zip directory lists {count} members, more than {MAX_MEMBERS}")
    ranges = {}
    for _ in range(count):
        if bytes(data[at : at + 4]) != _CENTRAL or at >= end:
            raise _Damaged("its zip directory is damaged")
        flags, method = struct.unpack_from("<HH", data, at + 8)
        packed, size, n_name, n_extra, n_comment = struct.unpack_from("<IIHHH", data, at + 20)
        (offset,) = struct.unpack_from("<I", data, at + 42)
        name = bytes(data[at + 46 : at + 46 + n_name]).decode("utf-8", "replace")
        extra = data[at + 46 + n_name : at + 46 + n_name + n_extra]
        size, packed, offset = _wide(extra, size, packed, offset)
        at += 46 + n_name + n_extra + n_comment
        if at > end:
            raise _Damaged("its zip directory is damaged")
        if flags & 1 or method or packed != size:
            raise _Damaged(
                f"member {name!r} is compressed or encrypted, which torch never does; "
                "unpack it and let torch.save write it again"
            )
        if name in ranges:
            raise _Damaged(f"member {name!r} occurs twice")
        ranges[name] = _range(data, name, offset, size, end)
    _apart(ranges)
    return ranges


def _directory(data: memoryview) -> tuple[int, int, int]:
    """(number of members, begin, end) of the central directory."""
    tail = bytes(data[max(0, len(data) - 65_557) :])
    at = tail.rfind(_END)
    if at < 0:
        raise _Damaged("its zip directory is missing; the file may be cut off, fetch it again")
    at += len(data) - len(tail)
    count, size, begin = struct.unpack_from("<HII", data, at + 10)
    if at >= 20 and bytes(data[at - 20 : at - 16]) == _LOCATOR64:
        (record,) = struct.unpack_from("<Q", data, at - 12)
        if record > len(data) - 56 or bytes(data[record : record + 4]) != _END64:
            raise _Damaged("its zip64 record is not where the directory says")
        count, size, begin = struct.unpack_from("<QQQ", data, record + 32)
    if begin + size > at:
        raise _Damaged("its zip directory lies outside of the file; it may be cut off")
    return count, begin, begin + size


def _wide(extra: memoryview, *numbers: int) -> list[int]:
    """The numbers of a directory entry; those over 32 bits come from its zip64 field."""
    numbers, at = list(numbers), 0
    if _FULL32 not in numbers:
        return numbers
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            full = [i for i, n in enumerate(numbers) if n == _FULL32]
            for i, value in zip(full, struct.unpack_from(f"<{len(full)}Q", field), strict=True):
                numbers[i] = value
            return numbers
        at += 4 + length
    return numbers


def _range(data: memoryview, name: str, offset: int, size: int, end: int) -> tuple[int, int]:
    """(begin, end) of a member's bytes, which follow its local header."""
    if offset + 30 > len(data) or bytes(data[offset : offset + 4]) != _LOCAL:
        raise _Damaged(f"member {name!r} is not where the directory says")
    n_name, n_extra = struct.unpack_from("<HH", data, offset + 26)
    begin = offset + 30 + n_name + n_extra
    if begin + size > end:
        raise _Damaged(f"member {name!r} claims {size} bytes, more than the file holds")
    return begin, begin + size


def _apart(ranges: dict[str, tuple[int, int]]) -> None:
    before, last = 0, None
    for begin, end, name in sorted((b, e, n) for n, (b, e) in ranges.items()):
        if begin < before and end > begin:
            raise _Damaged(f"members {last!r} and {name!r} overlap")
        if end > before:
            before, last = end, name
