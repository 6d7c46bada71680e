"""Hostile checkpoint files, as generators: name -> bytes.

Each must give an AsjaxError. The files that contain code would create the file MARKER.
"""

import io
import pickle
import struct
import zipfile

import numpy as np
from torch_writer import P, archive, entry, state_dict, torch_members

MARKER = "hostile-code-ran"
_COMMAND = P.text(f"touch {MARKER}")
_ONE = np.arange(6, dtype=np.float32)


def zipped(pickle: bytes, storages=None, root: str = "archive", **wrong) -> bytes:
    """A torch zip with this pickle."""
    storages = {"0": _ONE.tobytes()} if storages is None else storages
    return archive(torch_members(pickle, storages, root), **wrong)


def _asks(body: bytes) -> bytes:
    """A state dict; its first value is made by `body`, its second is a good array."""
    return zipped(P.whole(P.dict({"first": body, "second": entry("0", _ONE)})))


def _tensor(offset=0, shape=(6,), stride=(1,), count=6, kind="FloatStorage") -> bytes:
    return _asks(P.tensor(P.storage("0", kind, count), offset, shape, stride))


def good() -> bytes:
    """A valid file."""
    return zipped(P.whole(P.dict({"w": entry("0", _ONE)})))


def legacy(body: bytes) -> bytes:
    """The same pickle in the format from before torch 1.6."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    heads = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    keys = pickle.dumps(["0"], protocol=2)
    return heads + body + keys + struct.pack("<q", 6) + _ONE.tobytes()


def code() -> dict[str, bytes]:
    """Files that try to run code."""
    system = P.call("os", "system", _COMMAND)
    chain = P.call(
        "builtins", "getattr", P.call("builtins", "__import__", P.text("os")), P.text("system")
    )
    optim = P.call("builtins", "getattr", P.name("torch.optim", "Adam"), P.text("__init__"))
    stack = P.text("posix") + P.text("system") + b"\x93" + P.tuple(_COMMAND) + P.reduce
    instance = P.mark + _COMMAND + b"ios\nsystem\n"
    made = P.mark + P.name("os", "system") + _COMMAND + b"o"
    bodies = {
        "os.system": system,
        "posix.system": P.call("posix", "system", _COMMAND),
        "nt.system": P.call("nt", "system", _COMMAND),
        "eval": P.call("builtins", "eval", P.text(f"open({MARKER!r}, 'w')")),
        "exec": P.call("__builtin__", "exec", P.text(f"open({MARKER!r}, 'w')")),
        "getattr chain": chain + P.tuple(_COMMAND) + P.reduce,
        "getattr of str": P.call("builtins", "getattr", P.text("x"), P.text("__class__")),
        "method of an optimiser called": optim + P.tuple(_COMMAND) + P.reduce,
        "subprocess.Popen, new": P.name("subprocess", "Popen") + P.tuple(_COMMAND) + b"\x81",
        "partial": P.call("functools", "partial", P.name("os", "system"), _COMMAND),
        "pickle.loads": P.call("pickle", "loads", P.text("x")),
        "torch.load": P.call("torch", "load", P.text("x")),
        "torch.hub": P.call("torch.hub", "load", P.text("x"), P.text("y")),
        "runstring": P.call("numpy.testing._private.utils", "runstring", _COMMAND, P.dict_),
        "a module": P.name("torch.nn.modules.linear", "Linear") + P.empty_tuple + b"\x81",
        "stack global": stack,
        "instance opcode": instance,
        "object opcode": made,
        "extension opcode": b"\x82\x01",
        "text persistent id": b"Pos.system\n",
        "build on a class": P.name("argparse", "Namespace") + P.dict({"f": P.none}) + P.build,
        "build on a list": P.list_ + P.dict({"append": P.none}) + P.build,
        "call of a dtype": P.call("torch", "FloatStorage", _COMMAND),
        "call of a string": P.text("os.system") + P.tuple(_COMMAND) + P.reduce,
        "call of an inert thing": P.call("pathlib", "Path", _COMMAND) + P.tuple() + P.reduce,
        "rebuild by os.system": P.call(
            "torch._tensor", "_rebuild_from_type_v2", P.name("os", "system"),
            P.name("torch", "Tensor"), P.tuple(_COMMAND), P.none,
        ),
        "storage of a function": P.tuple(
            P.text("storage"), P.name("os", "system"), P.text("0"), P.text("cpu"), P.number(6)
        ) + P.persistent,
    }  # fmt: skip
    files = {name: _asks(body) for name, body in bodies.items()}
    files["legacy os.system"] = legacy(P.whole(P.dict({"first": system})))
    files["plain pickle"] = P.whole(system)
    return files


def sizes() -> dict[str, bytes]:
    """Tensors that refer to missing data."""
    big, none = 2**63, P.none
    return {
        "negative stride": _tensor(5, (6,), (-1,)),
        "negative size": _tensor(0, (-6,), (1,)),
        "negative offset": _tensor(-1),
        "2^63 numbers": _tensor(0, (big,), (1,)),
        "2^63 - 1 numbers, stride 0": _tensor(0, (big - 1,), (0,)),
        "overflow of a product": _tensor(0, (2**32, 2**32, 2**32), (0, 0, 0)),
        "overflow of an index": _tensor(0, (3, 2), (2**62, 2**62)),
        "empty but vast": _tensor(0, (2**40, 2**40, 0), (1, 1, 1)),
        "expanded": _tensor(0, (2**30,), (0,)),
        "offset behind the end": _tensor(7, (1,), (1,)),
        "last number behind the end": _tensor(1),
        "storage claims too much": _tensor(0, (8,), (1,), count=8),
        "storage claims 2^62": _tensor(count=2**62),
        "storage claims -1": _tensor(count=-1),
        "storage of doubles": _tensor(kind="DoubleStorage"),
        "sizes are texts": _asks(
            P.call(
                "torch._utils", "_rebuild_tensor_v2", P.storage("0", "FloatStorage", 6),
                P.number(0), P.tuple(P.text("6")), P.tuple(P.number(1)), P.false, none,
            )
        ),
        "sizes are floats": _asks(
            P.call(
                "torch._utils", "_rebuild_tensor_v2", P.storage("0", "FloatStorage", 6),
                P.number(0), P.tuple(b"G" + struct.pack(">d", 6)), P.tuple(P.number(1)),
            )
        ),
        "two claims of one storage": zipped(
            P.whole(
                P.dict(
                    {
                        "a": P.tensor(P.storage("0", "FloatStorage", 6), 0, (6,), (1,)),
                        "b": P.tensor(P.storage("0", "DoubleStorage", 3), 0, (3,), (1,)),
                    }
                )
            )
        ),
        "another key": _asks(
            P.tensor(P.storage("../../etc/passwd", "FloatStorage", 6), 0, (6,), (1,))
        ),
        "33 axes": _tensor(0, (1,) * 33, (1,) * 33),
        "too few arguments": _asks(P.call("torch._utils", "_rebuild_tensor_v2", P.number(1))),
        "the same array 100,000 times": zipped(
            P.whole(
                P.list_ + b"q\x00" + P.mark
                + P.tensor(P.storage("0", "FloatStorage", 4096), 0, (4096,), (1,)) + b"q\x01"
                + b"h\x01" * 100_000 + P.appends
            ),
            {"0": bytes(4 * 4096)},
        ),
    }  # fmt: skip


def bombs() -> dict[str, bytes]:
    """Small files that would take much memory or time."""
    laughs = P.list_ + b"q\x00" + b"".join(
        P.list_ + b"q" + bytes([i]) + P.mark + b"h" + bytes([i - 1]) + b"h" + bytes([i - 1]) + b"e0"
        for i in range(1, 60)
    )  # fmt: skip
    tuples = P.text("lol") + b"q\x00" + b"".join(
        b"0h" + bytes([i - 1]) + b"h" + bytes([i - 1]) + b"\x86q" + bytes([i])
        for i in range(1, 60)
    )  # fmt: skip
    text = P.text("x" * 1_000_000)
    dtype = P.call("numpy", "dtype", P.text("u1"), P.false, P.true)
    state = P.tuple(
        P.number(3), P.text("<"), *[P.none] * 3, P.number(-1), P.number(-1), P.number(0)
    )
    same = P.name("_codecs", "encode") + P.tuple(text, P.text("latin1")) + P.reduce + b"q\x05"
    ndarray = P.name("numpy.core.multiarray", "_reconstruct") + b"q\x07"
    copies = b"h\x07" + P.tuple() + P.reduce + P.tuple(
        P.number(1), P.tuple(P.number(1_000_000)), b"h\x06", P.false, b"h\x05"
    ) + P.build  # fmt: skip
    pairs = P.list_ + b"q\x00" + P.mark + P.tuple(P.text("k"), P.none) * 50_000 + P.appends
    collide = b"".join(P.number(i * (2**61 - 1)) + P.none for i in range(1, 30_000))
    files = {
        "billion laughs, lists": P.whole(laughs + b"h\x3b"),
        "billion laughs, tuples": P.whole(tuples),
        "billion laughs as a key": P.whole(P.dict_ + tuples + P.none + P.setitem),
        "billion laughs as a storage": P.whole(
            P.text("storage") + P.name("torch", "FloatStorage") + tuples + b"0"
        ),
        "billion laughs as a count": P.whole(
            tuples + b"0" + P.mark + P.text("storage") + P.name("torch", "FloatStorage")
            + P.text("0") + P.text("cpu") + b"h\x3b" + P.tuple_ + P.persistent
        ),
        "400,000 lists deep": P.whole(P.list_ * 400_000 + b"a" * 399_999),
        "400,000 tuples deep": P.whole(P.empty_tuple + b"\x85" * 400_000),
        "marks": P.whole(P.mark * 400_000),
        "too many steps": P.whole(P.list_ * 3_000_000),
        "memo at 2^32 - 1": P.whole(P.list_ + b"r\xff\xff\xff\xff" + b"j\xff\xff\xff\xff"),
        "no such memo": P.whole(b"h\x09"),
        "integer of 2^31 bytes": P.whole(b"\x8b\xff\xff\xff\x7f"),
        "integer of -1 bytes": P.whole(b"\x8b\xff\xff\xff\xff"),
        "text of 2^63 bytes": P.whole(b"\x8d" + b"\xff" * 8),
        "bytes of 2^63 bytes": P.whole(b"\x8e" + b"\xff" * 8),
        "bytearray of 2^40 bytes": P.whole(b"\x96" + struct.pack("<Q", 2**40)),
        "frame of 2^63 bytes": P.whole(b"\x95" + b"\xff" * 8),
        "one text encoded 10,000 times": P.whole(
            same + ndarray + dtype + state + P.build + b"q\x06" + P.list_ + P.mark
            + copies * 10_000 + P.appends
        ),
        "one list made a dict 10,000 times": P.whole(
            pairs + P.name("collections", "OrderedDict") + b"q\x01" + b"h\x00\x85q\x02"
            + b"h\x01h\x02R" * 10_000
        ),
        "keys that collide": P.whole(P.dict_ + P.mark + collide + P.setitems),
        "a name without end": P.whole(b"c" + b"x" * 1_000_000),
        "a name that is no text": P.whole(P.number(1) + P.number(2) + b"\x93"),
        "a dict appended to": P.whole(P.dict_ + P.none + b"a"),
        "an odd number of items": P.whole(P.dict_ + P.mark + P.text("a") + P.setitems),
        "nothing on the stack": P.whole(b""),
        "no stop": P.begin + P.list_ * 100,
        "undecodable text": P.whole(b"X\x02\x00\x00\x00\xff\xfe"),
        "objects as an array": P.whole(
            P.dict({"a": P.call("numpy.core.multiarray", "scalar", P.text("O8"), P.text("x"))})
        ),
    }  # fmt: skip
    return {name: zipped(body) for name, body in files.items()}


def archives() -> dict[str, bytes]:
    """Zips with wrong fields, and files that are not zips."""
    plain, storages = state_dict({"w": _ONE})
    members = torch_members(plain, storages)
    whole = archive(members)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", plain)
        file.writestr("archive/data/0", bytes(50_000_000))
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bomb.getvalue() * 20)
    end = whole.rindex(b"PK\x05\x06")
    count = whole[: end + 10] + b"\xff\xff" + whole[end + 12 :]
    far = whole[: end + 16] + b"\xf0\xff\xff\x7f" + whole[end + 20 :]
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 2**63, 1)
    zip64 = whole[:end] + locator + whole[end:]
    twice = archive({**members, "archive/data/1": b"x" * 24}).replace(b"data/1", b"data/0")
    files = {
        "zip bomb": bomb.getvalue(),
        "nested zip bomb": nested.getvalue(),
        "compressed members": archive(members, method=8),
        "encrypted members": archive(members, flags=1),
        "sizes that differ": archive(members, packed=1),
        "sizes of 2^32": archive(members, packed=2**32 - 1, size=2**32 - 1),
        "members over one another": archive(members, offset=0),
        "members behind the end": archive(members, offset=2**31),
        "one name twice": twice,
        "65,535 members": count,
        "directory behind the end": far,
        "zip64 record behind the end": zip64,
        "no directory": whole[:end],
        "two pickles": archive({**members, "other/data.pkl": plain}),
        "no pickle": archive({"archive/data/0": b"x"}),
        "pickle under a path": archive({"../../archive/data.pkl": plain, "../../x": b"x"}),
        "pickle at the root of the disk": archive({"/etc/data.pkl/data.pkl": plain}),
        "TorchScript": archive({**members, "archive/constants.pkl": plain}),
        "only a directory": whole[whole.index(b"PK\x01\x02") :],
        "empty": b"",
        "one byte": b"P",
        "zeros": bytes(1000),
        "noise": np.random.default_rng(0).bytes(100_000),
        "web page": b"<!DOCTYPE html><html>404</html>",
        "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "tar": b"x" * 257 + b"ustar" + bytes(300),
        "two zips": whole[:end] + whole[end:].replace(b"PK\x05\x06", b"PK\x05\x07"),
    }
    for share in (10, 50, 90, 99):
        files[f"cut at {share} %"] = whole[: len(whole) * share // 100]
        old = legacy(P.whole(P.dict({"w": entry("0", _ONE)})))
        files[f"legacy cut at {share} %"] = old[: len(old) * share // 100]
    return files


def all_files() -> dict[str, bytes]:
    found = {}
    for kind in (code, sizes, bombs, archives):
        found |= {f"{kind.__name__}: {name}": raw for name, raw in kind().items()}
    return found


def mutants(count: int, seed: int = 0):
    """`count` damaged versions of good files: bytes changed, removed, doubled or moved."""
    rng = np.random.default_rng(seed)
    arrays = {
        "conv.weight": rng.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "bn.running_var": np.ones(4, np.float32),
        "bn.num_batches_tracked": np.array(7, np.int64),
        "half": rng.standard_normal((3, 5)).astype(np.float16),
    }
    pickled, storages = state_dict(arrays)
    sound = [zipped(pickled, storages), legacy(P.whole(P.dict({"w": entry("0", _ONE)})))]
    for i in range(count):
        raw = bytearray(sound[i % 4 == 3])
        directory = raw.rfind(b"PK\x01\x02") if i % 4 != 3 else 0
        for _ in range(int(rng.integers(1, 8))):
            at = int(rng.integers(len(raw)))
            if rng.random() < 0.5:  # most of a file is padding and numbers: prefer the rest
                near = raw.find(b"\x80\x02") if rng.random() < 0.7 else max(directory, 0)
                at = min(len(raw) - 1, max(0, near) + int(rng.integers(400)))
            kind, size = rng.integers(5), int(rng.integers(1, 40))
            if kind == 0:
                raw[at] = int(rng.integers(256))
            elif kind == 1:
                raw[at] ^= 1 << int(rng.integers(8))
            elif kind == 2:
                del raw[at : at + size]
            elif kind == 3:
                raw[at:at] = raw[at : at + size]
            else:
                raw[at : at + 4] = int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1])).to_bytes(
                    4, "little"
                )
            if not raw:
                raw = bytearray(b"P")
        yield bytes(raw)
