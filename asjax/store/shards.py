"""Arrays on disk in several .npy files, read in slices as one array.

Every size is checked when the files are opened, before memory is allocated. The files are memory
maps: a slice reads only its own bytes. A copy in another process opens them when it needs them.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError
from asjax.store.files import reason

KINDS = ("float16", "float32", "uint16")
_HEADER = 1 << 12  # largest size of a .npy header in bytes
HINT = "copy it again or write it again"


class Shards:
    """Files [n, ...] as one array [N, ...].

    Args:
      folder: of the files. files: (name, rows, bytes) of each. shape: of a row. kind: name of the
        dtype, of `KINDS`. what: of the message of an error.

    Raises:
      AsjaxError: a file is missing, or has another size, shape or type.
    """

    def __init__(self, folder: Path, files, shape, kind: str, what: str = "logits"):
        if kind not in KINDS:
            raise AsjaxError(f"{what} {folder}: dtype must be one of {KINDS}, got {kind!r}")
        self.dtype, self._what = np.dtype(kind), what
        self._files = [(Path(folder), *file) for file in files]
        self.ends = np.cumsum([0, *(rows for _, _, rows, _ in self._files)])
        self.shape = (int(self.ends[-1]), *shape)
        self._starts = [self._start(k) for k in range(len(self._files))]
        self._maps: dict[int, np.ndarray] = {}

    def __getstate__(self):
        return {**self.__dict__, "_maps": {}}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which) -> np.ndarray:
        if not isinstance(which, slice):
            i = range(len(self))[which]
            k = int(np.searchsorted(self.ends, i, side="right")) - 1
            return self._map(k)[i - self.ends[k]]
        start, stop, step = which.indices(len(self))
        if step != 1:
            rows = [self[i] for i in range(start, stop, step)]
            return np.stack(rows) if rows else np.empty((0, *self.shape[1:]), self.dtype)
        parts = [
            self._map(k)[max(0, start - at) : max(0, stop - at)]
            for k, at in enumerate(self.ends[:-1])
            if at < stop and start < self.ends[k + 1]
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *parts])

    def _map(self, k: int) -> np.ndarray:
        if k not in self._maps:
            folder, name, rows, _ = self._files[k]
            shape = (rows, *self.shape[1:])
            if math.prod(shape):
                try:
                    self._maps[k] = np.memmap(
                        folder / name, self.dtype, "r", self._starts[k], shape
                    )
                except (OSError, ValueError) as error:
                    raise AsjaxError(
                        f"{self._what}: {folder / name} cannot be used: {reason(error)}; {HINT}"
                    ) from None
            else:
                self._maps[k] = np.empty(shape, self.dtype)
        return self._maps[k]

    def _start(self, k: int) -> int:
        """The byte where the array of file `k` begins, after a check of its size and header."""
        folder, name, rows, size = self._files[k]
        shape, file = (rows, *self.shape[1:]), folder / name
        try:
            if Path(name).name != name or file.stat().st_size != size:
                raise ValueError(f"its size must be {size} bytes")
            with file.open("rb") as opened:
                version = np.lib.format.read_magic(opened)
                read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
                if read is None:
                    raise ValueError(f"version {version} of .npy is not supported")
                header = read(opened, max_header_size=_HEADER)
                start = opened.tell()
        except (OSError, ValueError) as error:
            raise AsjaxError(
                f"{self._what}: {file} cannot be used: {reason(error)}; {HINT}"
            ) from None
        if header != (shape, False, self.dtype):
            raise AsjaxError(f"{self._what}: {file} must hold {self.dtype.name} {shape}; {HINT}")
        if size != start + self.dtype.itemsize * math.prod(shape):
            raise AsjaxError(f"{self._what}: {file} must hold {self.dtype.name} {shape}; {HINT}")
        return start
