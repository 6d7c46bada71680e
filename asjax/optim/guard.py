"""Helpers to skip a training step if its loss or gradient is not finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def floating(x) -> bool:
    """True if an array or a number has a floating type."""
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def all_finite(tree):
    """Scalar bool: no floating leaf has NaN or infinity. All devices get the same result."""
    checks = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if floating(x)]
    return jnp.stack(checks).all() if checks else jnp.bool_(True)


def select(pred, new, old):
    """The tree `new` if the scalar `pred` is true, else `old`; leaves may be typed keys."""
    return jax.tree.map(lambda a, b: jax.lax.select(pred, a, b), new, old)
