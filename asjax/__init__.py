"""asjax: audio tagging and sound event detection in JAX.

Importing the package is cheap, because the public names below are resolved on first use.
"""

from importlib import import_module

__version__ = "0.3.0"

_PUBLIC = {
    "load": "asjax.predict",
    "from_pretrained": "asjax.predict",
    "Tagger": "asjax.predict",
    "list_models": "asjax.models",
    "AsjaxError": "asjax.config",
    "run": "asjax.__main__",
}
_SHORT = {  # modules that also have a shorter name
    "port": "asjax.weights.port",
    "checkpoint": "asjax.store.checkpoint",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    module = _SHORT.get(name, f"asjax.{name}")
    try:  # `asjax.hlp`, `asjax.metrics`, ... without an explicit import of the submodule
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise AttributeError(f"module 'asjax' has no attribute {name!r}") from None


def __dir__():
    return sorted(__all__)
