"""What the pickle machine of torch files can make: tensors, dicts and things that do nothing.

`MADE` is the whole list of functions that a file can have called. Each takes the machine (for
`spend`, which bounds the work) and what the file gives, checks it and returns a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from asjax.weights.torch_names import DTYPES, SIZES, TYPES, inert

MAX_AXES = 32


class Refused(Exception):
    """The file asks for something that weights do not need; the text names it."""


class Damaged(Exception):
    """The file is not what torch writes."""


class Global:
    """A name in the file. Nothing but its text: what it names is not looked up."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self):
        return f"<{shown(self.name)}>"


class Inert:
    """What stands for an object that the file asked for: its class's name and what it was given."""

    __slots__ = ("args", "items", "name", "state")

    def __init__(self, name: str, args=()):
        self.name, self.args, self.state, self.items = name, args, None, None

    def __repr__(self):  # what it was given may be endless
        return f"<{shown(self.name)}>"

    def add(self, items) -> None:
        self.items = self.items or []
        self.items.extend(items)


class Tensor:
    """Where a tensor's numbers lie: storage key, element type, offset, shape and strides."""

    __slots__ = ("code", "key", "offset", "shape", "stride")

    def __init__(self, key, code, offset, shape, stride):
        self.key, self.code = key, code
        self.offset, self.shape, self.stride = offset, shape, stride


class Storage:
    """Numbers that are in the file: key, element type, bytes."""

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
    """A tensor all of whose numbers lie in its storage."""
    if type(storage) is not Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise Damaged("a tensor is described in another way than torch's")
    if len(shape) != len(stride) or len(shape) > MAX_AXES:
        raise Damaged(f"a tensor of {len(shape)} axes and {len(stride)} strides")
    if not all(map(is_count, (offset, *shape, *stride))):
        raise Damaged("a tensor whose sizes, strides or offset are negative or no integers")
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
    """A tensor with attributes, or of a subclass: the tensor."""
    made = MADE.get(function.name) if type(function) is Global else None
    if made not in (_tensor, _tensor_v3, _parameter) or type(args) is not tuple:
        raise Refused(f"a tensor made by {kind_of(function)}")
    machine.spend(len(args))
    return made(machine, *args)


def _dict(machine, *args) -> dict:
    made = {}
    for pairs in args[:1]:
        if type(pairs) not in (list, tuple):
            raise Damaged("a dict that is not made of pairs")
        machine.spend(len(pairs))
        for pair in pairs:
            key, value = pair
            made[safe_key(key)] = value
    return made


def _size(machine, shape=()):
    return shape


def _getattr(machine, owner, name):
    """Schedulers keep a reference to a method of theirs; it stays a text."""
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
    """May a file hold this name?"""
    return name in MADE or name in TYPES or inert(name)


def safe_key(key):
    """A dict key; one whose hash could be slow to compute, or chosen to collide, counts as itself
    only (an object), since nobody asks for it."""
    if type(key) in (str, bytes, bool, type(None)):
        return key
    return key if type(key) is int and abs(key) < 2**60 else Inert("key", (key,))


def is_count(value) -> bool:
    """An integer that may be a size, a stride or an offset?"""
    return type(value) is int and 0 <= value < 2**63


def kind_of(value) -> str:
    """What a value from the file is, for messages; its content may be endless."""
    if type(value) is Global or type(value) is Inert:
        return shown(value.name)
    return f"a {type(value).__name__}"


def shown(text: str) -> str:
    """A text from the file, printable and short."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 100 else f"{text[:97]}..."
