"""Big objects for worker processes: written to memory once, mapped by every worker, not copied.

A source of two million clips is 100 MB of ids and labels. Pickled into each of eight workers, it
costs seconds at their start and gigabytes in all. Here the pickle of an object goes into a file in
memory, with its arrays beside it (pickle protocol 5, out-of-band buffers). A worker gets the file's
name, and its arrays are views of the file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import tempfile
import weakref
from collections.abc import Iterable, Sequence

import numpy as np

_ALIGN = 64  # bytes


class Parcel:
    """An object packed for other processes, as long as this one keeps the parcel.

    `pickle.dumps(parcel)` is some hundred bytes. `pickle.loads` of it gives the object itself, with
    arrays that cannot be written. On Linux the file has no name that could stay behind: it is gone
    when the last process that uses it ends, however it ends.
    """

    def __init__(self, value):
        import cloudpickle  # as grain does, so that classes of the user's program travel too

        buffers: list[pickle.PickleBuffer] = []
        head = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        file, self.path = _new_file(self)
        self.spans = []
        for part in (head, *(buffer.raw() for buffer in buffers)):
            file.seek(-(-file.tell() // _ALIGN) * _ALIGN)
            self.spans.append((file.tell(), len(part)))
            file.write(part)
        file.flush()

    def __reduce__(self):
        return _unpack, (self.path, self.spans)


def _new_file(owner):
    """A file that vanishes with its owner, and a path at which other processes can open it."""
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("asjax"), "wb")
        path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        if os.path.exists(path):
            weakref.finalize(owner, file.close)
            return file, path
        file.close()
    handle, path = tempfile.mkstemp(prefix="asjax-")
    file = os.fdopen(handle, "wb")
    weakref.finalize(owner, _remove, file, path)
    return file, path


def _remove(file, path):
    file.close()
    with contextlib.suppress(OSError):
        os.unlink(path)


def _unpack(path, spans):
    with open(path, "rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    head, *buffers = (whole[start : start + size] for start, size in spans)
    return pickle.loads(head, buffers=buffers)


class Strings(Sequence):
    """Texts in two arrays, their UTF-8 bytes and where each ends: what a list is for a parcel."""

    def __init__(self, texts: Iterable[str]):
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> str:
        i = range(len(self))[i]
        start, stop = self._ends[i : i + 2]
        return self._bytes[start:stop].tobytes().decode("utf-8", "surrogatepass")
