"""Read torch checkpoint files safely: without torch and without Python's unpickler.

    torch_file.read("Cnn6_mAP=0.343.pth")  # {"iteration": 600000, "model": {"bn0.weight": Tensor...

A torch file is a zip with a pickle and one member per storage; `torch_pickle` runs the pickle with
restrictions. Before torch 1.6 the pickles and storages followed one another without a zip. The file
is memory-mapped: a tensor is a view until someone copies it.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np

from asjax.config import AsjaxError
from asjax.store import files
from asjax.weights.torch_names import SIZES
from asjax.weights.torch_pickle import MAX_STEPS, load
from asjax.weights.torch_values import Inert, Tensor
from asjax.weights.torch_zip import members

# Tensors may repeat or share numbers (strides of 0, tied weights). All arrays together may be at
# most this many times as large as the file, so that a small file cannot fill the memory.
MAX_EXPANSION = 8

# files from before torch 1.6 begin with the pickle of a magic number
_LEGACY = re.compile(
    rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", re.DOTALL
)
_HOW_TO_SAVE = (
    "python -c \"import torch; torch.save(torch.load({path!r}, map_location='cpu', "
    "weights_only=True), 'NEW.pth')\""
)


def read(path):
    """The value in a torch file; its tensors become numpy arrays, mostly read-only views.

    Returns:
      The saved value: dicts, lists, tuples, strings, numbers, numpy arrays (bfloat16 as float32)
      and `torch_values.Inert` for objects that are known to be harmless. Tensors in containers
      inside an `Inert` stay `torch_values.Tensor`.

    Raises:
      AsjaxError: the file is not a torch file (the error tells what it is and what to do), is
        damaged, or asks for something that weights do not need. No code of the file was run.
    """
    path = Path(path)
    data = _mapped(path)
    if data[:4] == b"PK\x03\x04":
        value, storages, order = _zipped(path, data)
    elif _LEGACY.match(bytes(data[:32])):
        value, storages, order = _legacy(path, data)
    else:
        raise AsjaxError(f"{path} {_something_else(path, bytes(data[:512]))}")
    return _filled(value, _Arrays(data, storages, order, path))


def _zipped(path: Path, data: memoryview):
    """(value, storage key -> byte range, byte order) of a zip that torch wrote."""
    ranges = members(data, path)
    root = _root(path, ranges)
    prefix = f"{root}data/"
    storages = {n.removeprefix(prefix): r for n, r in ranges.items() if n.startswith(prefix)}
    begin, end = ranges[f"{root}data.pkl"]
    sizes = {key: stop - start for key, (start, stop) in storages.items()}
    value, _, _ = load(data[begin:end], sizes, path)
    order = ranges.get(f"{root}byteorder")
    return value, storages, ">" if order and data[slice(*order)] == b"big" else "<"


def _legacy(path: Path, data: memoryview):
    """Like `_zipped`, for a file from before torch 1.6.

    It has five pickles: magic number, version, machine, value, order of the storages. The storages
    follow, each after its number of elements.
    """
    at, values, claims = 0, [], {}
    for steps in (1000, 1000, 1000, MAX_STEPS, MAX_STEPS // 5):
        value, claimed, end = load(data[at:], None, path, steps)
        values.append(value)
        claims.update(claimed)
        at += end
    machine, value, keys = values[2:]
    if type(keys) is not list or not all(type(k) is str and k in claims for k in keys):
        raise AsjaxError(f"{path} is not a sound torch file: its list of storages is damaged")
    storages = {}
    for key in keys:
        size = claims[key].nbytes
        if at + 8 + size > len(data):
            raise AsjaxError(f"{path} is not a sound torch file: it is cut off, fetch it again")
        storages[key] = (at + 8, at + 8 + size)
        at += 8 + size
    if not claims.keys() <= storages.keys():
        raise AsjaxError(f"{path} is not a sound torch file: it lacks storages that it claims")
    little = type(machine) is not dict or machine.get("little_endian", True)
    return value, storages, "<" if little else ">"


def _mapped(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError:  # mmap raises this for an empty file
        raise AsjaxError(f"{path} is empty; fetch it again") from None
    except OSError as error:
        raise AsjaxError(f"{path} cannot be read: {files.reason(error)}") from None


def _something_else(path: Path, head: bytes) -> str:
    """What a file is that is not a torch file, and what to do about it."""
    if head[257:262] == b"ustar":
        return (
            "was written by torch before 0.1.10 (a tar); where torch is installed, run "
            + _HOW_TO_SAVE.format(path=str(path))
        )
    if re.match(rb"\x80[\x00-\x05]", head):
        return "is a plain pickle, which may run anything; save it again with torch.save"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint; fetch the file again, if necessary with a browser"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file; run git lfs pull"
    return "is neither a torch file nor a safetensors file"


def _root(path: Path, names: dict) -> str:
    """The folder inside the archive that holds data.pkl, with its slash."""
    roots = [n.removesuffix("data.pkl") for n in names if re.fullmatch(r"([^/]+/)?data\.pkl", n)]
    if len(roots) != 1:
        what = "several data.pkl" if roots else "no data.pkl: a zip, but not one of torch.save"
        raise AsjaxError(f"{path} has {what}; if it is an archive of files, unpack it first")
    if f"{roots[0]}constants.pkl" in names:
        raise AsjaxError(
            f"{path} is a TorchScript program; where torch is installed, "
            "torch.save(torch.jit.load(path).state_dict(), 'NEW.pth') makes a checkpoint of it"
        )
    return roots[0]


class _Arrays:
    """Turns tensors into arrays that are views of the mapped file."""

    def __init__(self, data, storages, order, path):
        self.data, self.storages, self.order, self.path = data, storages, order, path
        self.left = MAX_EXPANSION * len(data)

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise AsjaxError(
                f"{self.path} is not a sound torch file: its arrays are more than "
                f"{MAX_EXPANSION} times as large as the file"
            )

    def __call__(self, tensor: Tensor) -> np.ndarray:
        count = int(np.prod(tensor.shape, dtype=object))
        self.spend(max(SIZES[tensor.code], 4) * count)  # at least 4 bytes each, for float32
        code = {"bf16": "u2", "b1": "u1"}.get(tensor.code, tensor.code)
        begin, end = self.storages[tensor.key]
        dtype = np.dtype(code).newbyteorder(self.order)
        whole = np.frombuffer(self.data[begin : end - (end - begin) % dtype.itemsize], dtype)
        array = np.lib.stride_tricks.as_strided(
            whole[tensor.offset :],
            tensor.shape,
            [s * dtype.itemsize for s in tensor.stride] if count else None,
            writeable=False,
        )
        if tensor.code == "bf16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        elif tensor.code == "b1":
            array = array != 0
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _filled(value, arrays: _Arrays):
    """Replace the tensors in nested dicts and lists by arrays, in place; returns the value."""
    top = [value]
    waiting, seen = [top], set()
    while waiting:
        at = waiting.pop()
        if id(at) in seen:
            continue
        seen.add(id(at))
        for key, item in list(at.items() if isinstance(at, dict) else enumerate(at)):
            if type(item) is Tensor:
                at[key] = arrays(item)
            elif type(item) is tuple and any(type(x) is Tensor for x in item):
                at[key] = tuple(arrays(x) if type(x) is Tensor else x for x in item)
            elif type(item) is Inert:
                made = _numpy(item, arrays.spend)
                at[key] = item if made is None else made
            elif type(item) in (dict, list):
                waiting.append(item)
    return top[0]


# ------------------------------------------------------------- numpy values among the others


def _numpy(item: Inert, spend):
    """The array or scalar that an inert numpy object describes; None for any other object."""
    try:
        if item.name.endswith(".multiarray.scalar"):
            kind, raw = item.args
            return np.frombuffer(_bytes(raw, spend), _dtype(kind))[0]
        if item.name.endswith(".multiarray._reconstruct"):
            _, shape, kind, fortran, raw = item.state
            array = np.frombuffer(_bytes(raw, spend), _dtype(kind))
            return array.reshape(shape, order="F" if fortran else "C")
    except AsjaxError:
        raise
    except (ValueError, TypeError, IndexError, AttributeError):
        pass  # an array of objects, strings or dates, so not weights
    return None


def _dtype(kind: Inert) -> np.dtype:
    code, order = kind.args[0], kind.state[1]
    if kind.name != "numpy.dtype" or not re.fullmatch("[biufc](1|2|4|8|16)", code):
        raise ValueError
    return np.dtype(code).newbyteorder({"<": "<", ">": ">"}.get(order, "="))


def _bytes(raw, spend) -> bytes:
    """Bytes; pickle protocol 2 writes them as a string to encode as latin-1."""
    if type(raw) is Inert and raw.name == "_codecs.encode":
        text, coding = raw.args
        if coding == "latin1" and type(text) is str:
            spend(len(text))
            return text.encode("latin1")
    if type(raw) is not bytes:
        raise ValueError
    return raw
