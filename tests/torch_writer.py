"""Torch checkpoint files made without torch: valid files, and parts of hostile ones.

`save` writes the format of `torch.save(state_dict)`. `P` builds pickles opcode by opcode. `archive`
writes zips in which every field can be wrong.
"""

import struct
import zlib

import numpy as np

STORAGE = {
    "f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage",
    "i4": "IntStorage", "i2": "ShortStorage", "i1": "CharStorage", "u1": "ByteStorage",
    "b1": "BoolStorage", "c8": "ComplexFloatStorage",
}  # fmt: skip


class P:
    """Pieces of a pickle of protocol 2."""

    begin, stop = b"\x80\x02", b"."
    mark, none, true, false = b"(", b"N", b"\x88", b"\x89"
    dict_, list_, tuple_, empty_tuple = b"}", b"]", b"t", b")"
    reduce, build, setitems, setitem, appends, persistent = b"R", b"b", b"u", b"s", b"e", b"Q"

    @staticmethod
    def name(module: str, name: str) -> bytes:
        return f"c{module}\n{name}\n".encode()

    @staticmethod
    def text(value: str) -> bytes:
        raw = value.encode()
        return b"X" + struct.pack("<I", len(raw)) + raw

    @staticmethod
    def number(value: int) -> bytes:
        if 0 <= value < 256:
            return b"K" + bytes([value])
        size = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)

    @classmethod
    def tuple(cls, *items: bytes) -> bytes:
        return cls.mark + b"".join(items) + cls.tuple_

    @classmethod
    def call(cls, module: str, name: str, *args: bytes) -> bytes:
        return cls.name(module, name) + cls.tuple(*args) + cls.reduce

    @classmethod
    def dict(cls, entries: dict[str, bytes]) -> bytes:
        body = b"".join(cls.text(key) + value for key, value in entries.items())
        return cls.dict_ + cls.mark + body + cls.setitems

    @classmethod
    def storage(cls, key: str, kind: str, count: int) -> bytes:
        words = cls.text("storage"), cls.name("torch", kind), cls.text(key), cls.text("cpu")
        return cls.tuple(*words, cls.number(count)) + cls.persistent

    @classmethod
    def tensor(cls, storage: bytes, offset: int, shape, stride) -> bytes:
        sizes = (cls.tuple(*map(cls.number, numbers)) for numbers in (shape, stride))
        hooks = cls.call("collections", "OrderedDict")
        return cls.call(
            "torch._utils",
            "_rebuild_tensor_v2",
            storage,
            cls.number(offset),
            *sizes,
            cls.false,
            hooks,
        )

    @classmethod
    def whole(cls, body: bytes) -> bytes:
        return cls.begin + body + cls.stop


def entry(key: str, array: np.ndarray) -> bytes:
    """The pickle of a contiguous array with its own storage."""
    stride = np.array(array.strides, int) // array.itemsize
    storage = P.storage(key, STORAGE[array.dtype.str[1:]], array.size)
    return P.tensor(storage, 0, array.shape, stride.tolist())


def state_dict(arrays: dict) -> tuple[bytes, dict[str, bytes]]:
    """(pickle, storages) of name -> array."""
    arrays = {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in arrays.items()}
    entries = {name: entry(str(i), a) for i, (name, a) in enumerate(arrays.items())}
    return P.whole(P.dict(entries)), {str(i): a.tobytes() for i, a in enumerate(arrays.values())}


def save(arrays: dict, path, root: str = "archive") -> None:
    """Write name -> array as torch.save does."""
    pickle, storages = state_dict(arrays)
    path.write_bytes(archive(torch_members(pickle, storages, root)))


def torch_members(pickle: bytes, storages: dict[str, bytes], root: str = "archive") -> dict:
    members = {f"{root}/data.pkl": pickle, f"{root}/byteorder": b"little"}
    members |= {f"{root}/data/{key}": raw for key, raw in storages.items()}
    return {**members, f"{root}/version": b"3\n"}


def archive(members: dict[str, bytes], align: int = 64, crc=zlib.crc32, **wrong) -> bytes:
    """A zip of uncompressed members, aligned as by torch.

    `wrong` replaces fields of every directory entry: flags, method, packed, size, offset.
    """
    body, directory = bytearray(), bytearray()
    for name, raw in members.items():
        label, offset = name.encode(), len(body)
        pad = -(offset + 30 + len(label) + 4) % align
        extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
        fields = dict(flags=0, method=0, packed=len(raw), size=len(raw), offset=offset) | wrong
        head = struct.pack("<HHHHI", fields["flags"], fields["method"], 0, 0, crc(raw))
        head += struct.pack("<II", fields["packed"], fields["size"])
        body += b"PK\x03\x04\x00\x00" + head + struct.pack("<HH", len(label), len(extra))
        body += label + extra + raw
        directory += b"PK\x01\x02\x00\x00\x00\x00" + head
        directory += struct.pack("<HHHHHII", len(label), 0, 0, 0, 0, 0, fields["offset"]) + label
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return bytes(body + directory + b"PK\x05\x06" + end)


def save_whole(value, path) -> None:
    """Write a nest of dicts, lists, texts, whole numbers, None and arrays as torch.save does.

    A `Namespace` is a dict of this class; it becomes argparse.Namespace.
    """
    storages: dict[str, bytes] = {}

    def pickled(item) -> bytes:
        if isinstance(item, Namespace):
            new = P.call("copyreg", "_reconstructor", *_NAMESPACE)
            return new + pickled(dict(item)) + P.build
        if isinstance(item, dict):
            pairs = b"".join(pickled(k) + pickled(v) for k, v in item.items())
            return P.dict_ + P.mark + pairs + P.setitems
        if isinstance(item, list):
            return P.list_ + P.mark + b"".join(map(pickled, item)) + P.appends
        if isinstance(item, str):
            return P.text(item)
        if isinstance(item, (bool, type(None))):
            return {True: P.true, False: P.false, None: P.none}[item]
        if isinstance(item, int):
            return P.number(item)
        key = str(len(storages))
        storages[key] = np.ascontiguousarray(item).tobytes()
        return entry(key, np.ascontiguousarray(item).reshape(np.shape(item)))

    path.write_bytes(archive(torch_members(P.whole(pickled(value)), storages)))


class Namespace(dict):
    """For `save_whole`: training code keeps its options as an argparse.Namespace."""


_NAMESPACE = P.name("argparse", "Namespace"), P.name("builtins", "object"), P.none
