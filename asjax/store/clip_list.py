"""Lists of scored clips with hashes: they say whether two numbers are about the same clips.

    # asjax clip list 1
    # clips 20371
    # sha256 HASH        over the sorted lines below
    id,sha256            of the audio as it is stored; empty: not known
    --4gqARaEJE,...

A line is CSV. Two lists with one hash have the same clips with the same audio.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError, quoted, shown
from asjax.store import files

_FIRST = "# asjax clip list 1"
_MOST = 1 << 30  # bytes of a list


def digest(lines: Iterable[str]) -> str:
    """SHA-256 (hex) of lines in sorted order."""
    whole = hashlib.sha256()
    for line in sorted(lines):
        whole.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return whole.hexdigest()


def about(ids, content) -> dict:
    """What an evaluation says of its clips: their number, the hash of the ids, and the hash of ids
    and audio, which is that of the list of these clips.

    Args: content: uint8 [N, 32], SHA-256 of the audio of each clip, zeros if not known; or None.
      The hash is None if the audio of a clip has none.
    """
    found = None if content is None else as_hex(content)
    known = found is not None and all(found)
    both = digest(map(_line, ids, found)) if known else None
    return {"clips": len(ids), "ids": digest(_line(clip, "") for clip in ids), "content": both}


def as_hex(content: np.ndarray) -> list[str]:
    """uint8 [N, 32] -> a SHA-256 in hex per clip, or "" for zeros."""
    some = content.any(axis=1)
    return [row.tobytes().hex() if known else "" for row, known in zip(content, some, strict=True)]


def as_array(found) -> np.ndarray:
    """A SHA-256 in hex, or "", per clip -> uint8 [N, 32]."""
    raw = b"".join(bytes.fromhex(one) if len(one) == 64 else bytes(32) for one in found)
    return np.frombuffer(raw, np.uint8).reshape(-1, 32)


def text(pairs: Iterable[tuple[str, str]]) -> str:
    """A list as text, from (id, SHA-256 of the audio or "")."""
    lines = sorted(_line(*pair) for pair in pairs)
    body = "".join(f"{line}\n" for line in lines)
    return f"{_FIRST}\n# clips {len(lines)}\n# sha256 {digest(lines)}\nid,sha256\n{body}"


def read(path) -> dict[str, str]:
    """id -> SHA-256 of its audio, or "". The file may also be a plain list of ids, one per line.

    Raises:
      AsjaxError: no such file, not text, damaged, or an id occurs twice.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MOST:
            raise ValueError(f"it has more than {_MOST:,} bytes")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise AsjaxError(f"clip list {shown(path)} cannot be read: {files.reason(error)}") from None
    head = [line for line in lines if line.startswith("# ")] if lines[:1] == [_FIRST] else []
    body = [line for line in lines[len(head) :] if line.strip()]
    body = body[1:] if body and body[0] in ("id,sha256", "id") else body
    wanted = next((line.split()[-1] for line in head if line.startswith("# sha256 ")), None)
    if wanted not in (None, digest(body)):
        raise AsjaxError(
            f"clip list {shown(path)} was changed or cut: its hash is not the one in it"
        )
    found: dict[str, str] = {}
    for number, row in enumerate(csv.reader(body), 1):
        if len(row) > 2 or not row[0] or found.setdefault(row[0], "".join(row[1:])) is None:
            raise AsjaxError(
                f"clip list {shown(path)}: row {number} must be id,sha256: {quoted(row)}"
            )
    if len(found) != len(body):
        raise AsjaxError(f"clip list {shown(path)} names a clip twice")
    if not found:
        raise AsjaxError(f"clip list {shown(path)} names no clip")
    return found


def difference(first: dict | None, second: dict | None) -> str:
    """Why two numbers are not comparable, in one line, or ""; the arguments are from `about`."""
    if not first or not second:
        return (
            "one of the evaluations does not say which clips it has, so check that they are equal"
        )
    if first["ids"] != second["ids"]:
        return (
            f"the evaluations have different clips, {first['clips']:,} ({first['ids'][:12]}) and "
            f"{second['clips']:,} ({second['ids'][:12]}): their own numbers are not comparable"
        )
    if first["content"] != second["content"] and first["content"] and second["content"]:
        return (
            f"the evaluations have the same clips with other audio ({first['content'][:12]} and "
            f"{second['content'][:12]}), such as another download or encoding"
        )
    return ""


def _line(clip: str, content: str) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([clip, content])
    return out.getvalue()
