"""`asjax.load` and `Tagger`: audio files or waves -> tags, events in time, and embeddings.

The names are resolved on first use, because an ONNX file tags without jax.
"""

from importlib import import_module

_PUBLIC = {
    "Ensemble": "asjax.predict.ensemble",
    "Event": "asjax.predict.frames",
    "OnnxTagger": "asjax.predict.onnx_tagger",
    "Tagger": "asjax.predict.tagger",
    "Tags": "asjax.predict.tags",
    "load": "asjax.predict.loading",
}
__all__ = list(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'asjax.predict' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
