"""Share memory with worker processes: big objects to every worker, batches from a worker.

A source of two million clips has 100 MB of ids and labels. A pickle for each of eight workers would
cost seconds at their start and gigabytes in total. Here the pickle of an object goes into a file in
memory, with its arrays beside it (pickle protocol 5, out-of-band buffers). A worker gets the name
of the file, and its arrays are views of the file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

_ALIGN = 64  # bytes
_AT_ONCE = 4096  # texts that an iteration decodes at a time


class Parcel:
    """An object packed for other processes. It is valid while this process holds the parcel.

    `pickle.dumps(parcel)` has a few hundred bytes. `pickle.loads` gives the object with read-only
    arrays. On Linux the file has no name on disk, so it disappears when the last process that uses
    it ends, even if that process is killed.
    """

    def __init__(self, value):
        import cloudpickle  # as in grain; it can pickle classes of the user's main program

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
    """A file that is removed with its owner, and a path for other processes to open it."""
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


class Block:
    """Memory of `size` bytes that another process can map with `attach(block.path)`.

    Attributes:
      view: the memory, writable. path: a file name; valid while this object exists.
    """

    def __init__(self, size: int):
        file, self.path = _new_file(self)
        file.truncate(size)
        self.view = memoryview(mmap.mmap(file.fileno(), size))


def attach(path: str) -> memoryview:
    """Map the memory of a Block, read-only. It stays valid when its owner ends.

    OSError: the owner ended before.
    """
    with open(path, "rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if not path.startswith("/proc/"):  # a file on disk; its owner may be killed
        with contextlib.suppress(OSError):
            os.unlink(path)
    return view


class Strings(Sequence):
    """Texts as two arrays: UTF-8 bytes, and the ends of the texts in them.

    They take a quarter of the memory of a list of str, and they are shared in a parcel.
    """

    def __init__(self, texts: Iterable[str]):
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)

    @classmethod
    def joined(cls, columns: Iterable) -> Strings:
        """From arrays of pyarrow (`string`, without nulls), which are copied one by one."""
        lengths, text = bytearray(4), bytearray()  # these grow in place
        for column in columns:
            _, offsets, data = column.buffers()
            ends = np.frombuffer(offsets, np.int32)[column.offset :][: len(column) + 1]
            lengths.extend(np.diff(ends).tobytes())
            text += memoryview(data or b"")[ends[0] : ends[-1]]
        made = cls(())
        ends = np.frombuffer(lengths, np.int32)
        made._ends = ends.cumsum(dtype=np.int64 if len(text) >> 31 else np.int32)
        made._bytes = np.frombuffer(text, np.uint8)
        return made

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i):
        """The text i, or a list of the texts of a slice."""
        i = range(len(self))[i]
        if isinstance(i, range):
            return [self[k] for k in i]
        start, stop = self._ends[i : i + 2]
        return self._bytes[start:stop].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self):
        for begin in range(0, len(self), _AT_ONCE):
            ends = self._ends[begin : begin + _AT_ONCE + 1]
            whole, at = self._bytes[ends[0] : ends[-1]].tobytes(), (ends - ends[0]).tolist()
            for start, stop in pairwise(at):
                yield whole[start:stop].decode("utf-8", "surrogatepass")

    def __eq__(self, other):
        if isinstance(other, (list, tuple)):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        same = isinstance(other, Strings) and np.array_equal(self._ends, other._ends)
        return same and np.array_equal(self._bytes, other._bytes)

    __hash__ = None

    def take(self, which) -> Strings:
        """The texts at these numbers (int [N])."""
        which = np.asarray(which, np.int64)
        starts, lengths = self._ends[which], self._ends[which + 1] - self._ends[which]
        made = Strings(())
        made._ends = np.concatenate([np.zeros(1, np.int64), lengths.cumsum(dtype=np.int64)])
        shift = np.repeat(starts - made._ends[:-1], lengths)
        made._bytes = self._bytes[shift + np.arange(len(shift))]
        return made
