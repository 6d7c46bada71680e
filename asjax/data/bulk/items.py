"""Items of a source: their audio and labels, and what stands for those that cannot be used."""

from __future__ import annotations

from typing import NamedTuple

from asjax.config import AsjaxError
from asjax.data.clips import Reason

LABELS = ("labels", "label", "positive_labels", "mids", "target")  # where sources have labels


class Item(NamedTuple):
    """An item of a unit: its number, its audio (path, bytes, or the reason why there is none), and
    the labels that the source gives it: texts, numbers of classes, or None."""

    number: int
    audio: str | bytes | Reason
    labels: list | None = None


class Damaged(AsjaxError):
    """A file of a source cannot be read, or not on from here."""


def checked(audio: bytes, most: int) -> bytes | Reason:
    if len(audio) > most:
        return too_large(len(audio), most)
    return audio or Reason("the source has no bytes for it")


def too_large(size: int, most: int) -> Reason:
    return Reason(f"{size / 2**20:.0f} MiB is more than {most / 2**20:.0f}; cut it into clips")


def as_list(value) -> list | None:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, (list, tuple)) else None
