"""A model with its frontend in one file for other programs: ONNX and StableHLO.

from asjax import export
export.to_onnx("runs/quickstart/model", "tagger.onnx")
"""

from importlib import import_module

_PUBLIC = {"to_onnx": "asjax.export.onnx_file", "to_stablehlo": "asjax.export.stablehlo"}
__all__ = list(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'asjax.export' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
