"""A step whose loss or gradient is not finite must change nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def floating(x) -> bool:
    """Whether an array, or a number, is of a floating type."""
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def all_finite(tree):
    """Scalar bool: no NaN and no infinity in any floating leaf (the same on every device)."""
    checks = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if floating(x)]
    return jnp.stack(checks).all() if checks else jnp.bool_(True)


def select(pred, new, old):
    """The tree `new` where the scalar `pred` is true, else `old`; typed keys included."""
    return jax.tree.map(lambda a, b: jax.lax.select(pred, a, b), new, old)
