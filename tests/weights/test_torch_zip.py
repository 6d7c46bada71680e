"""The archive reader against Python's zipfile, and archives with wrong lengths."""

import io
import struct
import zipfile

import numpy as np
import pytest

from asjax.config import AsjaxError
from asjax.weights import torch_zip


def archive(members, comment=b"", **kwargs):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **kwargs) as file:
        file.comment = comment
        for name, content in members.items():
            file.writestr(name, content)
    return bytearray(out.getvalue())


RNG = np.random.default_rng(0)
MEMBERS = {f"archive/data/{i}": RNG.bytes(int(n)) for i, n in enumerate(RNG.integers(0, 4000, 30))}


@pytest.mark.parametrize("comment", [b"", b"c" * 65_535, b"PK\x05\x06 in it"])
def test_ranges_hold_what_zipfile_reads(comment):
    raw = archive({"archive/data.pkl": b"x", "\u00e4": b"", **MEMBERS}, comment)
    if b"PK" in comment:  # the last end record counts, as for a reader that starts at the end
        with pytest.raises(AsjaxError):
            torch_zip.members(memoryview(raw), "f.pt")
        return
    found = torch_zip.members(memoryview(raw), "f.pt")
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        assert list(found) == file.namelist()
        for name, (begin, end) in found.items():
            assert bytes(raw[begin:end]) == file.read(name)


def directory(raw, name):
    """Offset of the directory entry of a member."""
    at = -1
    while True:
        at = raw.index(b"PK\x01\x02", at + 1)
        if raw[at + 46 :].startswith(name):
            return at


def patched(name, offset, form, value):
    raw = archive(MEMBERS)
    struct.pack_into(form, raw, directory(raw, name) + offset, value)
    return raw


A, B = b"archive/data/5", b"archive/data/6"
FAULTS = {
    "compressed": (archive(MEMBERS, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "encrypted": (patched(A, 8, "<H", 1), "is compressed or encrypted"),
    "two sizes": (patched(A, 24, "<I", 3), "is compressed or encrypted"),
    "elsewhere": (patched(A, 42, "<I", 7), "is not where the directory says"),
    "far": (patched(A, 42, "<I", 2**31), "is not where the directory says"),
    "cut": (archive(MEMBERS)[:-40], "directory"),
    "half": (archive(MEMBERS)[:20_000], "its zip directory is missing"),
    "nothing": (bytearray(), "its zip directory is missing"),
    "no zip": (bytearray(b"x" * 1000), "its zip directory is missing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_archive_that_is_not_what_torch_writes_is_refused(name):
    raw, message = FAULTS[name]
    with pytest.raises(AsjaxError, match=message) as caught:
        torch_zip.members(memoryview(raw), "f.pt")
    assert str(caught.value).startswith("f.pt is not a sound torch file")


def test_members_must_not_overlap_nor_claim_more_than_there_is_nor_come_twice():
    raw = archive(MEMBERS)
    at = directory(raw, A)
    longer = len(MEMBERS[A.decode()]) + 60  # beyond the local header of the next member
    for offset in (20, 24):
        struct.pack_into("<I", raw, at + offset, longer)
    with pytest.raises(AsjaxError, match=" overlap"):
        torch_zip.members(memoryview(raw), "f.pt")
    for offset in (20, 24):
        struct.pack_into("<I", raw, at + offset, 2**31)
    with pytest.raises(AsjaxError, match="claims 2147483648 bytes, more than the file holds"):
        torch_zip.members(memoryview(raw), "f.pt")
    raw = archive(MEMBERS)
    raw[directory(raw, B) + 46 :][: len(A)] = A
    begin = directory(raw, B) + 46
    raw[begin : begin + len(A)] = A
    with pytest.raises(AsjaxError, match="occurs twice"):
        torch_zip.members(memoryview(raw), "f.pt")


def test_too_many_members_are_refused_before_they_are_read(monkeypatch):
    monkeypatch.setattr(torch_zip, "MAX_MEMBERS", 29)
    with pytest.raises(AsjaxError, match="lists 30 members, more than 29"):
        torch_zip.members(memoryview(archive(MEMBERS)), "f.pt")
