"""The text of a label list, whatever program saved it."""

from __future__ import annotations

import os
from pathlib import Path

from asjax.config import AsjaxError, shown
from asjax.data import records

_MAX_BYTES = 2 << 30
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


def text_of(path) -> str:
    """The text of a file in UTF-8 or UTF-16, with or without a byte order mark.

    Raises:
      AsjaxError: no such file, larger than 2 GiB, or bytes that are no text.
    """
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise AsjaxError(f"label list {shown(path)} is larger than {_MAX_BYTES >> 30} GiB")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise AsjaxError(
            f"label list {shown(path)} does not exist{records.from_where(path)}"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AsjaxError(f"label list {shown(path)} cannot be read: {reason}") from None
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AsjaxError(
            f"label list {shown(path)} cannot be read as UTF-8 CSV: line {line} holds the byte "
            f"0x{data[error.start]:02x}; save it as UTF-8"
        ) from None


def decoded(data: bytes) -> str:
    """The text of bytes in UTF-8 or UTF-16. UnicodeDecodeError: they are neither."""
    encoding = next((e for mark, e in _MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and len(data) > 3:  # UTF-16 without a mark: every second byte is 0
        if not any(data[1:64:2]):
            encoding = "utf-16-le"
        elif not any(data[0:64:2]):
            encoding = "utf-16-be"
    return data.decode(encoding)
