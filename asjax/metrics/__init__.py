"""Pure functions of scores and targets; numpy only."""

from asjax.metrics.ranking import (
    bootstrap,
    d_prime,
    interval,
    regress,
    resample_counts,
    resampled,
    tagging,
)

__all__ = [
    "bootstrap",
    "d_prime",
    "interval",
    "regress",
    "resample_counts",
    "resampled",
    "tagging",
]
