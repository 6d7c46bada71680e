"""Tars of audio, as of webdataset: names, items with the labels beside them, texts.

Names in an archive are only compared; nothing is written to the disk under them. Sizes are checked
before anything is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
import zlib

from asjax.config import AsjaxError, counted, shown, warn
from asjax.data.bulk.items import LABELS, Damaged, Item, as_list, checked, too_large
from asjax.data.bulk.units import AUDIO, Unit, stem
from asjax.data.clips import Reason
from asjax.store.files import reason

_JSON = 1 << 20  # bytes of a .json


class _Member(tarfile.TarInfo):
    """A member of an archive that knows whether its end mark was seen. Python's tarfile takes a
    cut or damaged header for the end, without a word."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            archive.ended = True
            raise


def _members(unit: Unit, more: tuple[str, ...] = (".json",), links: list | None = None):
    """(archive, member) of every audio file of a tar, and of files with the endings `more`, in
    order. A member that is no plain file is passed over; `links` gets the names of linked audio."""
    with _sound(unit), tarfile.open(unit.path, tarinfo=_Member) as archive:
        archive.ended = False
        for member in archive:
            lower = member.name.lower()
            if member.isfile() and lower.endswith((*AUDIO, *more)):
                yield archive, member
            elif links is not None and not member.isfile() and lower.endswith(AUDIO):
                links.append(member.name)
            archive.members = []  # tarfile would keep all of them
        if not archive.ended:
            raise tarfile.ReadError(f"no end mark after {archive.offset:,} bytes")
        for block in iter(lambda: archive.fileobj.read(1 << 20), b""):  # gzip checks its sum here
            if block.strip(b"\0"):
                raise tarfile.ReadError(
                    "more data follow its end mark, which are not read; several tars in one file?"
                )


@contextlib.contextmanager
def _sound(unit: Unit):
    """Errors of a tar become Damaged."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, AsjaxError):
            raise
        raise Damaged(f"{shown(unit.path)} is cut or damaged: {reason(error)}") from None


def _content(archive, member, unit) -> bytes:
    with _sound(unit):
        data = archive.extractfile(member).read()
    if len(data) < member.size:
        raise Damaged(f"{shown(unit.path)} is cut in {shown(member.name)}")
    return data


def names(unit: Unit) -> list[str]:
    found, links = [], []
    try:
        for _, member in _members(unit, links=links):
            if not member.name.lower().endswith(".json"):
                found.append(member.name)
    except Damaged:
        if not found:
            raise  # else the reading reports it, after the sound members
    if links:
        warn(
            f"{shown(unit.path)}: links in a tar are not followed, and it has "
            f"{counted(len(links), 'link')} to audio, first {shown(links[0])}; give the files"
        )
    return found


def read(unit: Unit, wanted, max_bytes):
    """Items with the labels in a .json of the same name, which may come before or after them."""
    number, held, labels_of = -1, None, ("", None)
    try:
        for archive, member in _members(unit):
            if member.name.lower().endswith(".json"):
                labels_of = (_key(member.name[:-5]), _labels(archive, member, unit))
                if held is not None and held[0] == labels_of[0]:
                    item, held = held[1]._replace(labels=labels_of[1]), None
                    yield item
                continue
            number += 1
            if held is not None:
                item, held = held[1], None
                yield item
            if number in wanted:
                key = _key(member.name)
                labels = labels_of[1] if labels_of[0] == key else None
                held = (key, Item(number, _audio(archive, member, unit, max_bytes), labels))
    except Damaged:
        if held is not None:
            yield held[1]
        raise
    if held is not None:
        yield held[1]


def texts(unit: Unit, endings: tuple[str, ...], most: int) -> tuple[dict, dict[str, int]]:
    """Of a tar: {name: text} of the members with these endings, and {name: item} of the audio.

    Args: most: bytes of a text.

    Raises:
      Damaged: the tar is damaged, or a text is larger or no UTF-8.
    """
    found: dict[str, str] = {}
    place: dict[str, int] = {}
    number = 0
    for archive, member in _members(unit, endings):
        name = os.path.normpath(member.name)
        if name.endswith(endings):
            if member.size > most:
                raise Damaged(f"{shown(unit.path)}: {shown(name)} has {member.size:,} bytes")
            data = _content(archive, member, unit)
            try:
                found[name] = data.decode("utf-8-sig")
            except UnicodeDecodeError:
                raise Damaged(f"{shown(unit.path)}: {shown(name)} is no text") from None
        else:
            place.setdefault(name, number)
            number += 1
    return found, place


def _key(name: str) -> str:
    return f"{os.path.dirname(name)}/{stem(name)}"


def _audio(archive, member, unit, max_bytes) -> bytes | Reason:
    if member.size > max_bytes:
        return too_large(member.size, max_bytes)
    return checked(_content(archive, member, unit), max_bytes)


def _labels(archive, member, unit) -> list | None:
    if member.size > _JSON:
        return None
    data = _content(archive, member, unit)
    try:
        about = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(about, dict):
        return None
    return next((as_list(about[key]) for key in LABELS if key in about), None)
