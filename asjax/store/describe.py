"""What run.json in a checkpoint says of the state and of the evaluations."""

from __future__ import annotations

import math

import jax

from asjax.config import AsjaxError


def as_json(found: dict) -> dict:
    """JSON has no infinity, so it is text: the d' of a perfect evaluation is infinite."""
    return {k: v if math.isfinite(v) else str(v) for k, v in found.items()}


def from_json(found) -> dict[str, float]:
    """The metrics of an evaluation. asjax 0.3 stored only one number, d'."""
    found = found if isinstance(found, dict) else {"d_prime": found}
    return {k: float(v) for k, v in found.items()}


def describe(state) -> dict[str, str]:
    """`{"params/w": "(3, 4) float32"}` for every leaf."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{tuple(x.shape)} {x.dtype}"
        for path, x in jax.tree_util.tree_leaves_with_path(state)
    }


def size(state) -> int:
    """Size of a state on disk, uncompressed, plus 64 KiB for the small files."""
    sizes = (x.nbytes for x in jax.tree.leaves(state) if hasattr(x, "nbytes"))
    return sum(sizes) + 2**16


def check_fits(saved: dict[str, str], abstract_state, what: str) -> None:
    """AsjaxError unless a saved state, as `describe` describes it, fits the state of this run."""
    wanted = describe(abstract_state)
    wrong = [
        f"{key} is {saved.get(key, 'absent')} in the file, {wanted.get(key, 'absent')} here"
        for key in sorted({*saved, *wanted})
        if saved.get(key) != wanted.get(key)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise AsjaxError(
            f"{what} is of another model or optimiser: {'; '.join(wrong[:5])}{more}; use the "
            "config of that run, or another --workdir"
        )
