"""A model folder as an encoder of three benchmarks: HEAR (`hear`), X-ARES (`xares`), MTEB (`mteb`).

All three use `core.Embedder`. No benchmark is imported before its adapter needs it. HEAR and MTEB
need no torch here; an array comes back as the kind that was given.
"""

from importlib import import_module

_PUBLIC = ["core", "hear", "mteb", "xares"]


def __getattr__(name):
    """`asjax.adapters.hear` without an import of it."""
    if name in _PUBLIC:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
