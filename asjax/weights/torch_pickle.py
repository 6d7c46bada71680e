"""A pickle machine for torch checkpoints; it makes only plain values, tensors and `Inert` objects.

It is not Python's unpickler: it never looks up a name of the file. There are three kinds of names.
Those in `torch_values.MADE` construct tensors and dicts by our functions. Those in `torch_names`
are harmless and become `Inert`. Any other name is refused with an error. So a file can call only
the functions in `MADE`, and only `Inert` receives state. The file's size and `MAX_STEPS` bound
work and memory.

The machine knows the opcodes of protocols 2 to 5, without extensions and buffers; torch writes 2.
"""

from __future__ import annotations

import struct

from asjax.config import AsjaxError
from asjax.weights.torch_names import SIZES, STORAGES, inert
from asjax.weights.torch_values import (
    MADE,
    Damaged,
    Global,
    Inert,
    Refused,
    Storage,
    Tensor,
    is_count,
    kind_of,
    known,
    safe_key,
    shown,
)

MAX_STEPS = 500_000  # opcodes; a checkpoint with its optimiser has about ten thousand
MAX_INT_BYTES = 255

_U1, _U2, _U4, _U8 = (struct.Struct(f) for f in ("<B", "<H", "<I", "<Q"))
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")


def load(
    data: memoryview, sizes: dict[str, int] | None, path, steps: int = MAX_STEPS, what="torch file"
):
    """Run the first pickle in `data`.

    Args:
      sizes: storage key -> bytes in the file; None if not yet known, then the caller must compare
        `claims`.
      path: of the file, for messages.
      steps: maximum number of opcodes. what: the kind of the file, for messages.

    Returns:
      (value, claims, end). The value consists of dicts, lists, tuples, strings, numbers, `Tensor`
      and `Inert`. `claims` maps a key to the `Storage` that tensors use. The pickle ends at `end`.

    Raises:
      AsjaxError: the file asks for a name that is not known to be harmless, its tensors exceed
        their storages, it is damaged, or it has too many opcodes.
    """
    machine = _Machine(data, sizes, steps)
    try:
        return machine.run(), machine.claims, machine.at
    except Refused as error:
        hint = ""
        if what == "torch file":
            hint = (
                ". Weights do not need this. If you trust the file, load it with its own code and "
                "torch.save its state_dict()"
            )
        raise AsjaxError(
            f"{path} asks for {error}; it was refused and nothing was run{hint}"
        ) from None
    except Damaged as error:
        raise AsjaxError(f"{path} is not a sound {what}: {error}") from None
    except (struct.error, IndexError, ValueError, TypeError) as error:
        fault = shown(str(error)) or type(error).__name__
        raise AsjaxError(f"{path} is not a sound {what}: damaged pickle ({fault})") from None


class _Machine:
    """The stack machine: `run` reads opcodes and calls their functions in `_OPCODES`."""

    def __init__(self, data: memoryview, sizes: dict[str, int] | None, steps: int):
        self.data, self.sizes, self.at, self.left = data, sizes, 0, steps
        self.claims: dict[str, Storage] = {}
        self.stack, self.marks, self.memo, self.names = [], [], {}, {}

    def run(self):
        data, opcodes, size = self.data, _OPCODES, len(self.data)
        while self.at < size:
            self.spend(1)
            opcode = data[self.at]
            self.at += 1
            if opcode == 0x2E:  # STOP
                return self.stack.pop()
            step = opcodes[opcode]
            if step is None:
                raise Damaged(f"torch never writes pickle opcode {opcode:#04x}")
            step(self)
        raise Damaged("its pickle has no end; the file may be cut off, fetch it again")

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Damaged("its pickle takes more steps than any checkpoint needs")

    # ------------------------------------------------------------------------- reading

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise Damaged("its pickle claims more bytes than the file has")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: struct.Struct):
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value

    def line(self) -> str:
        begin = self.at
        while self.data[self.at] != 0x0A:
            self.at += 1
            if self.at - begin > 300:
                raise Damaged("a name in its pickle has no end")
        self.at += 1
        return bytes(self.data[begin : self.at - 1]).decode("utf-8")

    def push(self, value) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def string(self, form: struct.Struct) -> None:
        self.push(str(self.take(self.number(form)), "utf-8", "surrogatepass"))

    def raw(self, form: struct.Struct) -> None:
        self.push(bytes(self.take(self.number(form))))

    def integer(self, form: struct.Struct) -> None:
        size = self.number(form)
        if not 0 <= size <= MAX_INT_BYTES:
            raise Damaged(f"an integer of {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    # ------------------------------------------------------------------------- containers

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise Damaged("its pickle takes more values than the stack has")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def append(self, items: list) -> None:
        at = self.stack[-1]
        if isinstance(at, Inert):
            at.add(items)
        elif type(at) is list:
            at.extend(items)
        else:
            raise Damaged(f"its pickle appends items to a {type(at).__name__}")

    def set_items(self, items: list) -> None:
        at = self.stack[-1]
        pairs = zip(items[::2], items[1::2], strict=True)
        if isinstance(at, Inert):
            at.add(pairs)
        elif type(at) is dict:
            at.update((safe_key(k), v) for k, v in pairs)
        else:
            raise Damaged(f"its pickle sets entries in a {type(at).__name__}")

    # ------------------------------------------------------------------------- names and calls

    def name(self, module, name) -> None:
        if type(module) is not str or type(name) is not str:
            raise Damaged("a name in its pickle is not a string")
        full = f"{module}.{name}"
        if full not in self.names:
            if not known(full):
                raise Refused(shown(full))
            self.names[full] = Global(full)
        self.push(self.names[full])

    def call(self, args) -> None:
        function = self.stack.pop()
        if type(function) is not Global or type(args) is not tuple:
            raise Refused(f"a call of {kind_of(function)}, which is not a function")
        self.spend(len(args))
        maker = MADE.get(function.name)
        if maker is not None:
            self.push(maker(self, *args))
        elif inert(function.name):
            self.push(Inert(function.name, args))
        else:
            raise Refused(f"a call of {shown(function.name)}")

    def build(self) -> None:
        state, at = self.stack.pop(), self.stack[-1]
        if isinstance(at, Inert):
            at.state = state
        elif type(at) not in (dict, Tensor):  # their state is `_metadata` and the like: ignored
            raise Refused(f"setting attributes of {kind_of(at)}")

    def storage(self) -> None:
        entry = self.stack.pop()
        # files before torch 1.6 have a sixth entry for views of storages; torch no longer uses it
        sound = type(entry) is tuple and (len(entry) == 5 or (len(entry) == 6 and entry[5] is None))
        if not sound or entry[0] != "storage":
            raise Damaged("a storage is not described as torch does it")
        kind, key, count = entry[1], entry[2], entry[4]
        code = STORAGES.get(kind.name.rpartition(".")[2]) if type(kind) is Global else None
        if code is None or not kind.name.startswith("torch."):
            raise Refused(f"a storage of {kind_of(kind)}")
        if type(key) is not str or not is_count(count):
            raise Damaged(f"storage {kind_of(key)} of {kind_of(count)} numbers")
        claim = self.claims.setdefault(key, Storage(key, code, count * SIZES[code]))
        if (claim.code, claim.nbytes) != (code, count * SIZES[code]):
            raise Damaged(f"storage {shown(key)!r} is claimed to be two different things")
        if self.sizes is not None and claim.nbytes > self.sizes.get(key, -1):
            held = f"has {self.sizes[key]}" if key in self.sizes else "is not in the file"
            raise Damaged(f"storage {shown(key)!r} must hold {claim.nbytes} bytes, but {held}")
        self.push(claim)


# ------------------------------------------------------------------------------------- opcodes


def _memo_get(form):
    def step(m):
        index = m.number(form)
        if index not in m.memo:
            raise Damaged("its pickle refers to a value that does not exist")
        m.push(m.memo[index])

    return step


def _memo_put(form):
    def step(m):
        m.memo[m.number(form)] = m.stack[-1]

    return step


def _set_item(m):
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items([key, value])


def _new_dict(m):
    items = m.pop_mark()
    m.push({})
    m.set_items(items)


def _append(m):
    value = m.stack.pop()
    m.append([value])


def _stack_name(m):
    name, module = m.stack.pop(), m.stack.pop()
    m.name(module, name)


def _new_ex(m):
    m.stack.pop()  # keywords
    m.call(m.stack.pop())


def _pop(m):
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


_BY_CODE = {
    0x80: lambda m: m.take(1),  # PROTO
    0x95: lambda m: m.take(8),  # FRAME
    0x28: _Machine.mark,  # MARK
    0x30: _pop,  # POP
    0x31: lambda m: m.pop_mark(),  # POP_MARK
    0x32: lambda m: m.push(m.stack[-1]),  # DUP
    0x4E: lambda m: m.push(None),  # NONE
    0x88: lambda m: m.push(True),  # NEWTRUE
    0x89: lambda m: m.push(False),  # NEWFALSE
    0x4A: lambda m: m.push(m.number(_I4)),  # BININT
    0x4B: lambda m: m.push(m.number(_U1)),  # BININT1
    0x4D: lambda m: m.push(m.number(_U2)),  # BININT2
    0x8A: lambda m: m.integer(_U1),  # LONG1
    0x8B: lambda m: m.integer(_I4),  # LONG4
    0x47: lambda m: m.push(m.number(_F8)),  # BINFLOAT
    0x58: lambda m: m.string(_U4),  # BINUNICODE
    0x8C: lambda m: m.string(_U1),  # SHORT_BINUNICODE
    0x8D: lambda m: m.string(_U8),  # BINUNICODE8
    0x54: lambda m: m.raw(_U4),  # BINSTRING
    0x55: lambda m: m.raw(_U1),  # SHORT_BINSTRING
    0x42: lambda m: m.raw(_U4),  # BINBYTES
    0x43: lambda m: m.raw(_U1),  # SHORT_BINBYTES
    0x8E: lambda m: m.raw(_U8),  # BINBYTES8
    0x96: lambda m: m.raw(_U8),  # BYTEARRAY8
    0x5D: lambda m: m.push([]),  # EMPTY_LIST
    0x7D: lambda m: m.push({}),  # EMPTY_DICT
    0x29: lambda m: m.push(()),  # EMPTY_TUPLE
    0x8F: lambda m: m.push([]),  # EMPTY_SET: a list, so that nothing is hashed
    0x85: lambda m: m.tuple_of(1),  # TUPLE1
    0x86: lambda m: m.tuple_of(2),  # TUPLE2
    0x87: lambda m: m.tuple_of(3),  # TUPLE3
    0x74: lambda m: m.push(tuple(m.pop_mark())),  # TUPLE
    0x6C: lambda m: m.push(m.pop_mark()),  # LIST
    0x91: lambda m: m.push(m.pop_mark()),  # FROZENSET
    0x64: _new_dict,  # DICT
    0x61: _append,  # APPEND
    0x65: lambda m: m.append(m.pop_mark()),  # APPENDS
    0x90: lambda m: m.append(m.pop_mark()),  # ADDITEMS
    0x73: _set_item,  # SETITEM
    0x75: lambda m: m.set_items(m.pop_mark()),  # SETITEMS
    0x68: _memo_get(_U1),  # BINGET
    0x6A: _memo_get(_U4),  # LONG_BINGET
    0x71: _memo_put(_U1),  # BINPUT
    0x72: _memo_put(_U4),  # LONG_BINPUT
    0x94: lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),  # MEMOIZE
    0x63: lambda m: m.name(m.line(), m.line()),  # GLOBAL
    0x93: _stack_name,  # STACK_GLOBAL
    0x52: lambda m: m.call(m.stack.pop()),  # REDUCE
    0x81: lambda m: m.call(m.stack.pop()),  # NEWOBJ
    0x92: _new_ex,  # NEWOBJ_EX
    0x62: _Machine.build,  # BUILD
    0x51: _Machine.storage,  # BINPERSID
}
_OPCODES = [_BY_CODE.get(code) for code in range(256)]
