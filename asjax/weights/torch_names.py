"""Names in torch checkpoints: element types of tensors, and harmless names.

Training code saves harmless names together with the weights: settings, optimisers, loggers, numpy
values. We never look any of them up (see `torch_pickle`). A file that asks for a name outside
these lists is refused, and the error gives this name.
"""

from __future__ import annotations

# storage class -> numpy's code of its elements; "bf16" is ours
STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
    "UntypedStorage": "u1",
}
DTYPES = {
    **{f"int{b}": f"i{b // 8}" for b in (8, 16, 32, 64)},
    **{f"uint{b}": f"u{b // 8}" for b in (8, 16, 32, 64)},
    **{f"float{b}": f"f{b // 8}" for b in (16, 32, 64)},
    **{"bfloat16": "bf16", "bool": "b1", "complex64": "c8", "complex128": "c16"},
}
# code -> bytes of an element
SIZES = {code: 2 if code == "bf16" else int(code[1:]) for code in DTYPES.values()}

TYPES = {
    *(f"torch.{name}" for name in (*STORAGES, *DTYPES)),
    *(f"torch.storage.{name}" for name in ("UntypedStorage", "TypedStorage")),
}

_BUILTINS = (
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object",
    "range", "set", "slice", "str",
)  # fmt: skip
_NUMPY = (
    "bool", "bool_", "dtype", "float16", "float32", "float64", "int16", "int32", "int64", "int8",
    "longlong", "ndarray", "str_", "uint16", "uint32", "uint64", "uint8",
)  # fmt: skip
_INERT = {
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS),
    *(f"numpy.{name}" for name in _NUMPY),
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    ),
    "_codecs.encode",
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    "collections.deque",
    "copyreg._reconstructor",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "easydict.EasyDict",
    "functools.partial",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Buffer",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "types.SimpleNamespace",
    "uuid.UUID",
    "yacs.config.CfgNode",
}
_INERT_PREFIXES = (
    "addict.",
    "lightning.",
    "lightning_fabric.",
    "ml_collections.",
    "numpy.dtypes.",
    "numpy.random.",
    "omegaconf.",
    "pytorch_lightning.",
    "sacred.",
    "torch.optim.",
    "torchmetrics.",
    "typing.",
)


def inert(name: str) -> bool:
    """True if training code saves `name` together with weights."""
    return name in _INERT or name.startswith(_INERT_PREFIXES)
