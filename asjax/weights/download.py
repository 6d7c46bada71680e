"""Download a published checkpoint: resume a broken transfer, check the hash, explain failures.

Files are stored in the folder `checkpoints` of asjax's cache (`devices.cache_folder`). An
unfinished file is called NAME.part. NAME.part.json records the server's tag for this version.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import shutil
import socket
import urllib.error
import urllib.request
from pathlib import Path

from asjax.config import AsjaxError
from asjax.store import files

TRIES = 4
TIMEOUT_S = 30.0
_CHUNK = 1 << 20
_UNREACHED = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED)


class _Cut(Exception):
    """The transfer broke off; the bytes received so far stay on disk."""


class _Failed(Exception):
    """This address does not work; the text gives the reason. `offline`: no server answered."""

    def __init__(self, why: str, offline: bool = False):
        super().__init__(why)
        self.offline = offline


def folder() -> Path:
    """The folder of downloaded checkpoints."""
    from asjax import devices

    return devices.cache_folder() / "checkpoints"


def fetch(row, *, progress: bool = False) -> Path:
    """Path of the file of a row of `published.ROWS`; downloads it if it is not in the folder.

    The hash is checked if the row has one. A transfer that breaks off is resumed if the server
    supports that, else repeated. A later call also resumes it.

    Raises:
      AsjaxError: no network, no such file, a broken transfer or another hash; the error explains
        how to get the file by hand.
    """
    final = folder() / row.file
    if final.is_file():
        _prove(final, row, "delete it to fetch it again")
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f"{final.name}.part")
    with part.open("ab") as file:
        if not files.lock(file):
            raise AsjaxError(f"another process is downloading {row.file}; wait until it ends")
        reasons = []
        for url in row.urls:
            try:
                _whole(url, file, part, row, progress)
                break
            except _Failed as error:
                reasons.append(error)
        else:
            if not file.tell():
                _forget(part)
            raise AsjaxError(_by_hand(row, reasons, final))
        file.flush()
        os.fsync(file.fileno())
        try:
            _prove(part, row, "it was deleted; the file on the server may have changed")
        except AsjaxError:
            _forget(part)
            raise
        part.replace(final)
        _forget(part)
    return final


def _forget(part: Path) -> None:
    for path in (part, part.with_name(f"{part.name}.json")):
        path.unlink(missing_ok=True)


def _prove(path: Path, row, then: str) -> None:
    """AsjaxError unless the file has the row's hashes."""
    for kind, wanted in (("sha256", row.sha256), ("md5", None if row.sha256 else row.md5)):
        if wanted:
            got = files.digest(path, kind)
            if not got.startswith(wanted):
                raise AsjaxError(
                    f"{path} is not the published {row.name}: its {kind} is {got}, not {wanted}; "
                    f"{then}"
                )


# ------------------------------------------------------------------------------- the transfer


def _whole(url: str, file, part: Path, row, progress: bool) -> None:
    """Append to `file` until it holds all of `url`. _Failed: the address does not work."""
    for left in reversed(range(TRIES)):
        try:
            return _once(url, file, part, row, progress)
        except _Cut as error:
            if not left:
                raise AsjaxError(
                    f"{row.file} was cut off after {file.tell():,} bytes ({error}); run the same "
                    "command again to resume"
                ) from None


def _once(url: str, file, part: Path, row, progress: bool) -> None:
    note = part.with_name(f"{part.name}.json")
    known = _read_note(note)
    have = file.seek(0, os.SEEK_END)
    if have and (known.get("url") != url or not known.get("tag")):
        have = _restart(file)  # the server may now have another version: do not append it
    headers = {"User-Agent": "asjax", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["tag"]}
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if have and answer.status != 206:
                have = _restart(file)  # the server cannot resume, or it has another version
            total = _total(answer, have)
            note.write_text(json.dumps({"url": url, "tag": _version(answer)}))
            _room(part, (total or 0) - have)
            _copy(answer, file, have, total, row, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # our file is complete, or the version changed
            _restart(file)
            raise _Cut("the server has another version") from None
        raise _Failed(f"the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as e:
        why = e.reason if isinstance(e, urllib.error.URLError) else e
        if file.tell():
            raise _Cut(str(why) or type(why).__name__) from None
        offline = isinstance(why, (socket.gaierror, TimeoutError))
        offline = offline or getattr(why, "errno", None) in _UNREACHED
        raise _Failed(str(why) or type(why).__name__, offline) from None


def _copy(answer, file, have: int, total: int | None, row, progress: bool) -> None:
    from tqdm import tqdm

    bar = tqdm(
        total=total, initial=have, unit="B", unit_scale=True, desc=row.file, disable=not progress
    )
    with bar:
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and file.tell() != total:
        raise _Cut(f"the connection closed at {file.tell():,} of {total:,} bytes")


def _restart(file) -> int:
    file.seek(0)
    file.truncate()
    return 0


def _version(answer) -> str:
    """The server's tag for this version: a strong ETag, else the date of the last change."""
    tag = answer.headers.get("ETag", "W/")
    return answer.headers.get("Last-Modified", "") if tag.startswith("W/") else tag


def _total(answer, have: int) -> int | None:
    """Size of the whole file in bytes; None if the server does not tell."""
    of = answer.headers.get("Content-Range", "").rpartition("/")[2]
    if of.isdigit():
        return int(of)
    length = answer.headers.get("Content-Length", "")
    return have + int(length) if length.isdigit() else None


def _read_note(note: Path) -> dict:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(note.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def _room(part: Path, size: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size > free:
        raise AsjaxError(
            f"{part.parent} has {free / 1e6:,.0f} MB free, {part.name.removesuffix('.part')} needs "
            f"{size / 1e6:,.0f} MB; free some space or set ASJAX_CACHE to another folder"
        )


def _by_hand(row, reasons: list[_Failed], final: Path) -> str:
    what = "there is no network" if all(r.offline for r in reasons) else "could not be fetched"
    return (
        f"{row.name}: {what} ({'; '.join(dict.fromkeys(map(str, reasons)))}); fetch "
        f"{' or '.join(row.urls)} by other means and put it at {final}, or: asjax port {row.file} "
        "--to=FOLDER"
    )
