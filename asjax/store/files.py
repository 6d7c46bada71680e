"""Safe file access: hashes, synced and atomic writes, sizes checked before use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError
from asjax.store.schema import parse_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SUMS = "SHA256SUMS"  # `sha256sum -c SHA256SUMS` reads it too


def digest(path: Path, kind: str = "sha256") -> str:
    """SHA-256 (hex) of a file's bytes, or another hash that hashlib knows."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def lock(file, *, without: bool = True, shared: bool = False) -> bool:
    """Lock an open file for this process. False: another process has the lock.

    Any number of processes may have a `shared` lock at a time, but none beside the other kind.

    The system releases the lock when the file is closed or the process ends. `without` is the
    answer on systems without locks (Windows, some network disks): True lets asjax work there.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, AttributeError):
        return without
    return True


def sync(path: Path) -> None:
    """Wait until the content of a file, or the list of names of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path):
    """A temporary path that replaces `path` at the end of the `with` block.

    At any time, also after a crash, `path` is the complete old file or the complete new file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file atomically; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_sums(folder: Path, known: dict[str, str] | None = None, only=None) -> None:
    """Write the hashes of all files of a folder, then a hash of this list; sync everything.

    Args:
      known: path below the folder -> SHA-256 (hex), so that big files are not read again.
      only: names of the files to list (default: all).
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and (not only or p.name in only))
    names, known = [p.relative_to(folder).as_posix() for p in files], known or {}
    hashes = [known.get(name) or digest(p) for name, p in zip(names, files, strict=True)]
    body = "".join(f"{h}  {name}\n" for h, name in zip(hashes, names, strict=True))
    (folder / SUMS).write_text(f"{body}# {hashlib.sha256(body.encode()).hexdigest()}\n")
    for path in [*files, folder / SUMS, *(p for p in folder.rglob("*") if p.is_dir()), folder]:
        sync(path)


def read_sums(folder: Path) -> dict[str, str]:
    """File -> SHA-256 (hex), as `write_sums` wrote. OSError or ValueError: the list is damaged."""
    body, mark, end = (folder / SUMS).read_bytes().decode().rpartition("# ")
    if not mark or end != f"{hashlib.sha256(body.encode()).hexdigest()}\n":
        raise ValueError("the list of hashes is damaged")
    return {name: wanted for wanted, name in (line.split("  ", 1) for line in body.splitlines())}


def check_sums(folder: Path, only: str | None = None) -> list[str]:
    """Faults of a folder with a list from `write_sums`, a line per file; [] means no fault."""
    try:
        sums = read_sums(folder)
    except (OSError, ValueError) as error:
        return [f"{SUMS}: {reason(error)}"]
    problems = []
    for name, wanted in sums.items():
        if only in (None, name):
            try:
                if digest(folder / name) != wanted:
                    problems.append(f"{name}: its SHA-256 is not the one recorded")
            except OSError as error:
                problems.append(f"{name}: {reason(error)}")
    return problems


def refuse_url(path, what: str) -> None:
    """AsjaxError if `path` is an address such as gs://bucket/run, not a folder of a disk."""
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", os.fspath(path)):
        raise AsjaxError(
            f"{what} {path} is on {found[1]}, and asjax needs a folder of a disk, which has locks "
            "and renames a folder at once; give a local or shared folder and copy it afterwards"
        )


def prove_writable(folder: Path, what: str) -> None:
    """Create `folder` if it is missing and write one byte in it, else AsjaxError with `what`."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise AsjaxError(
            f"{what} {folder} cannot be written: {reason(error)}; choose a folder on a disk "
            "with space and write permission"
        ) from None


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file. The sizes in its header are first checked against the file."""
    import ml_dtypes  # noqa: F401  (numpy then knows bfloat16)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, 100_000_000):
                raise ValueError(f"its header claims {length} bytes of a {size} byte file")
            header = parse_json(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end <= size - 8 - length:
                raise ValueError(f"array {name} lies outside of the file")
        return load_file(path)
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise AsjaxError(f"{path} is not a sound safetensors file: {reason(error)}") from None


def write_safetensors(path: Path, arrays: dict, metadata: dict[str, str]) -> None:
    """Write arrays one by one, so that at most one is copied at a time.

    Args:
      arrays: name -> anything with shape and dtype that `np.asarray` takes.

    Raises:
      AsjaxError: the format does not have the type of an array.
    """
    for name, array in arrays.items():
        if np.dtype(array.dtype).name not in _SAFETENSORS:
            raise AsjaxError(f"array {name} of {array.dtype} cannot be written as safetensors")
    names = sorted(arrays, key=lambda n: (-np.dtype(arrays[n].dtype).itemsize, n))  # aligned
    header, at = {"__metadata__": metadata}, 0
    for name in names:
        dtype, shape = np.dtype(arrays[name].dtype), arrays[name].shape
        size = dtype.itemsize * math.prod(shape)
        entry = {"dtype": _SAFETENSORS[dtype.name], "shape": shape, "data_offsets": [at, at + size]}
        header[name], at = entry, at + size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)


_SAFETENSORS = {
    **{
        f"{kind}{bits}": f"{kind[0].upper()}{bits}"
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
    **{"float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16", "bool": "BOOL"},
}


def finite(value):
    """Plain values with None (null in JSON) for NaN and infinity, because JSON has neither."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_strict_json(value) -> str:
    """JSON text of plain values; NaN and infinity become null. AsjaxError: other values."""
    try:
        return json.dumps(finite(value), indent=1, sort_keys=True, allow_nan=False) + "\n"
    except TypeError as error:
        raise AsjaxError(f"meta and record must be plain JSON values: {error}") from None


def reason(error: BaseException) -> str:
    """One short line for an exception from any library."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    if "No space left" in text:  # orbax and safetensors write it inside a long line of paths
        return "No space left on device"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
