"""npz archives from users: every size is checked against the archive before memory is allocated."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

MAX_COMPRESSED = 1 << 30  # total unpacked size of compressed members in bytes


def load(path, kinds: dict[str, tuple[str, int]], optional=()) -> dict[str, np.ndarray]:
    """The arrays of an npz archive with names in `kinds`. Other arrays are not read.

    Args:
      kinds: name -> (numpy's letters of the allowed types, number of axes).
      optional: names that may be missing.

    Raises:
      ValueError: not an archive, an array is missing or of another type, or its header claims
        another size than its member has. The text names the array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            _check_sizes(Path(path), list(members.values()))
            wanted = [n for n in kinds if n not in optional or f"{n}.npy" in members]
            return {name: _array(archive, members, name, *kinds[name]) for name in wanted}
    except (ValueError, OSError):
        raise
    except Exception as error:  # zipfile raises many kinds of errors for invalid headers
        reason = str(error) or type(error).__name__
        raise ValueError(f"not a valid npz archive: {reason}") from None


def _check_sizes(path: Path, members: list) -> None:
    stored = sum(i.file_size for i in members if i.compress_type == zipfile.ZIP_STORED)
    packed = sum(i.file_size for i in members if i.compress_type != zipfile.ZIP_STORED)
    if stored > path.stat().st_size or packed > MAX_COMPRESSED:
        raise ValueError(f"its members claim {stored + packed:,} bytes")


def _array(archive, members: dict, name: str, letters: str, axes: int) -> np.ndarray:
    info = members.get(f"{name}.npy")
    if info is None:
        raise ValueError(f"it has no array {name!r}")
    with archive.open(info) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"array {name!r} has an unknown format version")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.kind not in letters or len(shape) != axes or not dtype.itemsize:
            raise ValueError(f"array {name!r} must not be {dtype} with {len(shape)} axes")
        size = math.prod(shape) * dtype.itemsize
        left = info.file_size - file.tell()
        if size != left:
            raise ValueError(f"array {name!r} claims {size:,} bytes and has {left:,}")
        # A stored member is at most as large as the file, so its memory is allocated at once. A
        # compressed member may claim any size, so only its real bytes are read.
        packed = info.compress_type != zipfile.ZIP_STORED
        data = bytearray(file.read(size)) if packed else bytearray(size)
        if len(data) != size or (not packed and file.readinto(data) != size):
            raise ValueError(f"array {name!r} is cut off")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
