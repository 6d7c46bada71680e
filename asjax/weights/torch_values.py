"""The values that the pickle machine of torch files can make: tensors, dicts and inert objects.

`MADE` lists all functions that a file can call. Each takes the machine and the file's arguments,
checks them and returns a value. The machine's `spend` bounds the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from asjax.weights.torch_names import DTYPES, SIZES, TYPES, inert

MAX_AXES = 32


class Refused(Exception):
    """The file asks for something that weights do not need; the message names it."""


class Damaged(Exception):
    """The file is not what torch writes."""


class Global:
    """A name in the file, as text only; it is never looked up."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self):
        return f"<{shown(self.name)}>"


class Inert:
    """Stands for an object of the file: stores the name of its class and the file's arguments."""

    __slots__ = ("args", "items", "name", "state")

    def __init__(self, name: str, args=()):
        self.name, self.args, self.state, self.items = name, args, None, None

    def __repr__(self):  # without the arguments, which may be endless
        return f"<{shown(self.name)}>"

    def add(self, items) -> None:
        self.items = self.items or []
        self.items.extend(items)


class Tensor:
    """The place of a tensor's numbers: storage key, element type, offset, shape and strides."""

    __slots__ = ("code", "key", "offset", "shape", "stride")

    def __init__(self, key, code, offset, shape, stride):
        self.key, self.code = key, code
        self.offset, self.shape, self.stride = offset, shape, stride


class Storage:
    """A block of numbers in the file: key, element type, bytes."""

    __slots__ = ("code", "key", "nbytes")

    def __init__(self, key, code, nbytes):
        self.key, self.code, self.nbytes = key, code, nbytes


# --------------------------------------------------------------------------- what calls make


def _tensor(machine, storage, offset, shape, stride, *_) -> Tensor:
    return _checked(storage, offset, shape, stride, getattr(storage, "code", None))


def _tensor_v3(machine, storage, offset, shape, stride, grad, hooks, dtype, *_) -> Tensor:
    code = DTYPES.get(dtype.name.rpartition(".")[2]) if type(dtype) is Global else None
    if code is None:
        raise Damaged(f"a tensor of {kind_of(dtype)}, which numpy cannot hold")
    return _checked(storage, offset, shape, stride, code)


def _checked(storage, offset, shape, stride, code) -> Tensor:
    """A tensor after checking that all its numbers lie in its storage."""
    if type(storage) is not Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise Damaged("a tensor is not described as torch does it")
    if len(shape) != len(stride) or len(shape) > MAX_AXES:
        raise Damaged(f"a tensor of {len(shape)} axes and {len(stride)} strides")
    if not all(map(is_count, (offset, *shape, *stride))):
        raise Damaged("the sizes, strides or offset of a tensor are negative or not integers")
    held, empty = storage.nbytes // SIZES[code], 0 in shape
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if (offset > held) if empty else (last >= held):
        raise Damaged(
            f"a tensor of shape {shown(str(shape))} reaches beyond the {held} numbers of storage "
            f"{storage.key!r}"
        )
    if math.prod(n for n in shape if n) > 2**40:
        raise Damaged(f"a tensor of shape {shown(str(shape))}")
    return Tensor(storage.key, code, offset, shape, stride)


def _parameter(machine, data, *_):
    if type(data) is not Tensor:
        raise Damaged(f"a parameter made of {kind_of(data)}")
    return data


def _with_type(machine, function, cls, args, state=None):
    """The plain tensor of a tensor with attributes or of a subclass."""
    maker = MADE.get(function.name) if type(function) is Global else None
    if maker not in (_tensor, _tensor_v3, _parameter) or type(args) is not tuple:
        raise Refused(f"a tensor made by {kind_of(function)}")
    machine.spend(len(args))
    return maker(machine, *args)


def _dict(machine, *args) -> dict:
    entries = {}
    for pairs in args[:1]:
        if type(pairs) not in (list, tuple):
            raise Damaged("a dict does not consist of pairs")
        machine.spend(len(pairs))
        for pair in pairs:
            key, value = pair
            entries[safe_key(key)] = value
    return entries


def _size(machine, shape=()):
    return shape


def _getattr(machine, owner, name):
    """Schedulers store a reference to one of their methods; it becomes `Inert`."""
    if type(owner) is not Global or not owner.name.startswith("torch.optim."):
        raise Refused(f"getattr of {kind_of(owner)}")
    return Inert(owner.name, (name,))


MADE: dict[str, Callable] = {
    "__builtin__.getattr": _getattr,
    "builtins.getattr": _getattr,
    "collections.OrderedDict": _dict,
    "torch.Size": _size,
    "torch._tensor._rebuild_from_type_v2": _with_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
}


def known(name: str) -> bool:
    """True if a file may hold this name."""
    return name in MADE or name in TYPES or inert(name)


def safe_key(key):
    """A dict key that is safe to hash.

    A hash of another key could be slow or chosen to collide. Nobody looks such a key up, so `Inert`
    replaces it.
    """
    if type(key) in (str, bytes, bool, type(None)):
        return key
    return key if type(key) is int and abs(key) < 2**60 else Inert("key", (key,))


def is_count(value) -> bool:
    """True for an integer that may be a size, a stride or an offset."""
    return type(value) is int and 0 <= value < 2**63


def kind_of(value) -> str:
    """The name or type of a value from the file, for messages; its content may be endless."""
    if type(value) is Global or type(value) is Inert:
        return shown(value.name)
    return f"a {type(value).__name__}"


def shown(text: str) -> str:
    """A string from the file, made printable and short."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 100 else f"{text[:97]}..."
