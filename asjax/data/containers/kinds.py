"""The kind of a file by its first bytes, not by its name."""

from __future__ import annotations

import re
from typing import NamedTuple


class Kind(NamedTuple):
    """`name`: for messages. `demuxer`: ffmpeg's name of the container, if ffmpeg decodes it."""

    name: str
    demuxer: str = ""


_MOVIE = Kind("MP4 or QuickTime (AAC, ALAC or a film)", "mov")
_PAGE = Kind("a web page (HTML), not a recording")
# (place, bytes, kind); the first one that fits. Kinds that libsndfile reads are not in the list.
_MAGIC = (
    (4, b"ftyp", _MOVIE),
    *((4, word, _MOVIE) for word in (b"moov", b"mdat", b"wide", b"free", b"skip")),
    (0, b"\x1a\x45\xdf\xa3", Kind("WebM or Matroska", "matroska")),
    (0, bytes.fromhex("3026b2758e66cf11"), Kind("Windows Media (WMA)", "asf")),
    (0, b"#!AMR", Kind("AMR", "amr")),
    (0, b"ADIF", Kind("AAC", "aac")),
    (0, b"MAC ", Kind("Monkey's Audio", "ape")),
    (0, b"wvpk", Kind("WavPack", "wv")),
    (0, b"TTA1", Kind("True Audio", "tta")),
    (0, b"\x0b\x77", Kind("AC-3", "ac3")),
    (0, b"FLV\x01", Kind("Flash video", "flv")),
    (0, b"DSD ", Kind("DSD", "dsf")),
    (8, b"AVI ", Kind("an AVI film", "avi")),
    (8, b"WEBP", Kind("a WebP picture")),
    (8, b"RMID", Kind("MIDI, which is notes and no sound")),
    (0, b"MThd", Kind("MIDI, which is notes and no sound")),
    (0, b"\x00\x05\x16\x07", Kind("an AppleDouble file of macOS (no sound, safe to delete)")),
    (0, b"version https://git-lfs", Kind("a Git LFS pointer; fetch the file with git lfs pull")),
    (0, b"%PDF", Kind("a PDF")),
    (0, b"\x89PNG", Kind("a PNG picture")),
    (0, b"\xff\xd8\xff", Kind("a JPEG picture")),
    (0, b"GIF8", Kind("a GIF picture")),
    (0, b"PK\x03\x04", Kind("a zip archive")),
    (0, b"\x1f\x8b", Kind("a gzip archive")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive")),
    (0, b"Rar!", Kind("a RAR archive")),
    (0, b"\x89HDF", Kind("an HDF5 file")),
    (0, b"PAR1", Kind("a Parquet file")),
    (0, b"\x93NUMPY", Kind("a NumPy array")),
    (257, b"ustar", Kind("a tar archive")),
)  # fmt: skip
_ADTS = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]", re.DOTALL)


def kind(head: bytes) -> Kind | None:
    """The kind of a file that begins with `head` (512 bytes are enough), or None.

    The result is also None for audio that libsndfile reads.
    """
    for place, magic, what in _MAGIC:
        if head[place : place + len(magic)] == magic:
            return what
    if _ADTS.match(head) and len(head) > 6 and head[2] >> 2 & 15 < 13:
        return Kind("AAC (ADTS)", "aac")
    if head and not head.strip(b"\0"):
        return Kind("zeros (a download or a copy that failed)")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<body")):
        return _PAGE if b"html" in text else Kind("XML text")
    if text.startswith((b"{", b"[")) and _is_text(head):
        return Kind("JSON text (an error message of a server?)")
    return Kind("text") if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Whether bytes are UTF-8 without control characters. The last character may be cut."""
    try:
        text = head[: max(1, len(head) - 3)].decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 7:
            return False
        text = head[: error.start].decode()
    return bool(text) and all(c.isprintable() or c in "\t\r\n" for c in text)
