"""`asjax.load`: the tagger of a model folder, of an ONNX file, or of several.

It imports jax only if a model needs it.
"""

from __future__ import annotations

from asjax.config import AsjaxError
from asjax.predict import onnx_tagger
from asjax.predict.windows import folder_of
from asjax.store import logits


def load(path, *, weights=None, rest: str = "zero", **settings):
    """The tagger of a model folder, of the workdir of a finished run, or of several: an ensemble.

    Args:
      path: a path, or a list of paths. A folder of `asjax logits` stands for the model that made
        it, and tags files whose clips are in it. A file of `asjax export --onnx` tags without jax.
      weights: one number above 0 for each model; default: equal.
      rest: "zero" or "uniform": the classes that stored logits do not have (see `Stored`).
      settings: see `Tagger`.

    Returns: a `Tagger` or `OnnxTagger`, or for a list or stored logits an `Ensemble`.

    Raises:
      AsjaxError: no such folder, no model in it, files or models that do not fit together.
    """
    several = isinstance(path, (list, tuple))
    paths = [folder_of(one) for one in (path if several else [path])]
    if not paths:
        raise AsjaxError("an ensemble needs at least one model, got none")
    if not several and weights is None:
        if onnx_tagger.is_file(paths[0]):
            return onnx_tagger.load_file(paths[0], **settings)
        if not logits.is_folder(paths[0]):
            from asjax.predict.tagger import load_one

            return load_one(paths[0], **settings)
    from asjax.predict.ensemble import Ensemble

    return Ensemble(paths, weights=weights, rest=rest, **settings)
