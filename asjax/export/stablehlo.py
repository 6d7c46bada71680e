"""`to_stablehlo`: a model folder as one StableHLO program for cpu, cuda and tpu, by `jax.export`.

The weights are inside. jax keeps such a file readable for about six months of its versions, so it
is for serving, not for archives.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asjax import nn
from asjax.config import AsjaxError
from asjax.export.check import compare
from asjax.export.program import load, trace

PLATFORMS = ("cpu", "cuda", "tpu")
ALLOWED = 1e-4


def to_stablehlo(directory, to, *, overwrite: bool = False) -> dict:
    """Write `to`: wave [b, s] float32 -> dict of outputs, as of `to_onnx`; then read it, run it and
    compare it with jax.

    Returns: bytes, platforms, errors, least, most, why, dtype; see `to_onnx`.

    Raises:
      AsjaxError: no model, `to` exists, flatbuffers is missing, or the file differs from jax.
    """
    import jax
    from jax import export

    try:
        import flatbuffers  # noqa: F401 (jax.export needs it and does not declare it)
    except ImportError:
        raise AsjaxError(
            'StableHLO needs flatbuffers, which is not installed: pip install "asjax[onnx]"'
        ) from None
    from asjax.store import files

    to = Path(to)
    if to.exists() and not overwrite:
        raise AsjaxError(f"{to} exists; add --overwrite to replace it")
    if not to.absolute().parent.is_dir():
        raise AsjaxError(f"{to.absolute().parent} does not exist; make the folder first")
    made = load(directory)
    traced = trace(made)
    variables = jax.tree.map(np.asarray, made.variables)
    with nn.forms("graph"):  # a file for three platforms must not have the forms for CPUs
        run = jax.jit(lambda wave: made(variables, wave))
        exported = export.export(run, platforms=PLATFORMS)(traced.wave)
    content = exported.serialize()
    try:
        with files.replacing(to.absolute()) as temporary:
            temporary.write_bytes(content)
            call = export.deserialize(bytearray(temporary.read_bytes())).call
            errors = compare(
                lambda wave: {k: np.asarray(v) for k, v in call(wave).items()},
                made,
                traced,
                ALLOWED,
            )
    except OSError as error:
        raise AsjaxError(f"{to} could not be written: {files.reason(error)}") from None
    return {
        "bytes": len(content),
        "platforms": PLATFORMS,
        "errors": errors,
        "least": traced.least,
        "most": traced.most,
        "why": traced.why,
        "dtype": made.dtype,
    }
